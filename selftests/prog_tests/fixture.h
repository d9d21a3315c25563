/* SPDX-License-Identifier: MIT */
/*
 * The real programs in a cgroup of the test's own, and connections as the agent makes them:
 *
 *	browser -> client | agent | upstream -> container
 *
 * A helper that fails sets tap_failure; DO() ends the case then.
 */
#ifndef KKM_FIXTURE_H
#define KKM_FIXTURE_H

#include <arpa/inet.h>
#include <bpf/bpf.h>
#include <dirent.h>
#include <errno.h>
#include <fcntl.h>
#include <netinet/in.h>
#include <netinet/tcp.h>
#include <poll.h>
#include <signal.h>
#include <stdbool.h>
#include <stdlib.h>
#include <string.h>
#include <sys/ioctl.h>
#include <sys/socket.h>
#include <sys/stat.h>
#include <time.h>
#include <unistd.h>

#include "../lib/tap.h"
#include "datapath.h"
#include "engine.h"

#define DOMAIN "app.example"
#define MAX_CONNS 16
#define WAIT_MS 5000
#define UNUSED __attribute__((unused))

#define DO(call)                                                                                   \
	do {                                                                                       \
		call;                                                                              \
		if (tap_failure)                                                                   \
			return;                                                                    \
	} while (0)

struct fixture {
	char cgroup[512], cgroup_before[512];
	struct datapath *datapath;
	struct engine_slots slots;
	struct route_table *table;
};

struct flow {
	int browser, client, upstream, container;
	struct sockaddr_storage backend; /* its listener's address */
	struct sockaddr_storage client_address;
	struct engine_leg leg;
	bool hold, requests; /* asked for, before flow_open() */
	uint64_t sent, received, passed; /* by the container, by the browser, seen by the agent */
};

static UNUSED uint64_t now_ms(void)
{
	struct timespec now;

	clock_gettime(CLOCK_MONOTONIC, &now);
	return (uint64_t)now.tv_sec * 1000 + (uint64_t)now.tv_nsec / 1000000;
}

static UNUSED bool join_cgroup(const char *path)
{
	char procs[600];
	int fd;
	bool joined;

	snprintf(procs, sizeof(procs), "%s/cgroup.procs", path);
	fd = open(procs, O_WRONLY | O_CLOEXEC);
	joined = fd >= 0 && write(fd, "0", 1) == 1;
	if (fd >= 0)
		close(fd);
	return joined;
}

static UNUSED void fixture_close(struct fixture *f)
{
	datapath_close(&f->datapath);
	engine_slots_free(&f->slots);
	route_table_put(&f->table);
	if (*f->cgroup_before && !join_cgroup(f->cgroup_before))
		printf("# the test could not go back to %s\n", f->cgroup_before);
	if (*f->cgroup && rmdir(f->cgroup) && errno != ENOENT)
		printf("# %s stays behind: %s\n", f->cgroup, strerror(errno));
}

/* False where the case is skipped; says why. */
static UNUSED bool fixture_open(struct fixture *f)
{
	static char why[DATAPATH_WHY_LEN];
	struct datapath_options options = { .cgroup = f->cgroup,
					    .programs = true,
					    .workers = 1,
					    .max_routes = 64,
					    .max_conns = MAX_CONNS };
	char root[256];

	memset(f, 0, sizeof(*f));
	tap_skipped = geteuid() ? "needs root" : NULL;
	if (!tap_skipped && datapath_find_cgroup_root(root, sizeof(root)))
		tap_skipped = "no cgroup v2 is mounted";
	if (!tap_skipped && datapath_own_cgroup(f->cgroup_before, sizeof(f->cgroup_before)))
		tap_skipped = "the own cgroup is not known";
	if (tap_skipped)
		return false;
	snprintf(f->cgroup, sizeof(f->cgroup), "%s/kkm-test-%d", root, getpid());
	if ((mkdir(f->cgroup, 0755) && errno != EEXIST) || !join_cgroup(f->cgroup))
		tap_skipped = "no cgroup of the test's own could be made";
	else if (datapath_open(&options, &f->datapath, why))
		tap_skipped = why;
	else if (engine_slots_init(&f->slots, 0, MAX_CONNS))
		tap_skipped = "out of memory";
	if (tap_skipped)
		fixture_close(f);
	return !tap_skipped;
}

#define CASE(name)                                                                                 \
	static void name##_body(struct fixture *f);                                                \
	static void name(void)                                                                     \
	{                                                                                          \
		struct fixture f;                                                                  \
		alarm(90);                                                                         \
		if (fixture_open(&f)) {                                                            \
			name##_body(&f);                                                           \
			fixture_close(&f);                                                         \
		}                                                                                  \
		alarm(0);                                                                          \
	}                                                                                          \
	static void name##_body(struct fixture *f)

/* One of our own maps, by its name: libbpf is not to be asked through datapath.h. -1: none. */
static UNUSED int find_map(const char *name)
{
	DIR *dir = opendir("/proc/self/fd");
	struct dirent *entry;
	int found = -1;

	while (dir && found < 0 && (entry = readdir(dir))) {
		char path[300], target[64] = "";
		struct bpf_map_info info = { 0 };
		__u32 len = sizeof(info);
		int fd = atoi(entry->d_name);

		snprintf(path, sizeof(path), "/proc/self/fd/%s", entry->d_name);
		if (readlink(path, target, sizeof(target) - 1) > 0 && strstr(target, "bpf-map") &&
		    !bpf_obj_get_info_by_fd(fd, &info, &len) && !strcmp(info.name, name))
			found = fd;
	}
	if (dir)
		closedir(dir);
	return found;
}

static UNUSED int count_entries(const char *name)
{
	char key[512];
	int fd = find_map(name), count = 0;
	void *previous = NULL;

	if (fd < 0)
		return -1;
	while (count < 100000 && !bpf_map_get_next_key(fd, previous, key)) {
		previous = key;
		count++;
	}
	return count;
}

static UNUSED struct kkm_stats stats(void)
{
	struct kkm_stats sum = { 0 }, row;
	int fd = find_map("kkm_stats");

	for (__u32 i = 0; !bpf_map_lookup_elem(fd, &i, &row); i++) {
		for (size_t j = 0; j < sizeof(sum) / 8; j++)
			((__u64 *)&sum)[j] += ((__u64 *)&row)[j];
	}
	return sum;
}

static UNUSED void publish(struct fixture *f, const struct route_source *sources, size_t count)
{
	static const struct route_limits limits = { .routes = 64, .backends = 64 };
	const struct route_source *list[8];
	struct route_table *table = NULL;
	unsigned int fits;

	for (size_t i = 0; i < count; i++)
		list[i] = &sources[i];
	ASSERT_EQ(route_table_build(list, count, &limits, true, f->table, &table), 0);
	ASSERT_EQ(datapath_publish(f->datapath, f->table, table, &fits), 0);
	route_table_put(&f->table);
	f->table = table;
}

static UNUSED struct route_source
source_of(const char *domain, const struct sockaddr_storage *address, enum kkm_state state)
{
	struct route_source s = { .owner = KKM_DOCKER,
				  .state = state,
				  .id = "0123456789ab",
				  .name = "container",
				  .group = "g",
				  .address = *address };

	s.labels.domain_count = 1;
	snprintf(s.labels.domains[0], sizeof(s.labels.domains[0]), "%s", domain);
	return s;
}

static UNUSED void publish_one(struct fixture *f, const char *domain,
			       const struct sockaddr_storage *address, enum kkm_state state)
{
	struct route_source source = source_of(domain, address, state);

	publish(f, &source, 1);
}

/* A listening socket on a port of the kernel's choice; -1 with tap_failure. */
static UNUSED int listen_on(const char *address, struct sockaddr_storage *out)
{
	socklen_t len = sizeof(*out);
	int fd, off = 0;

	address_parse(address, 0, out);
	fd = socket(out->ss_family, SOCK_STREAM | SOCK_CLOEXEC, 0);
	if (out->ss_family == AF_INET6)
		setsockopt(fd, IPPROTO_IPV6, IPV6_V6ONLY, &off, sizeof(off));
	if (fd < 0 || bind(fd, (struct sockaddr *)out, address_len(out)) || listen(fd, 64) ||
	    getsockname(fd, (struct sockaddr *)out, &len)) {
		printf("# listening on %s: %s\n", address, strerror(errno));
		tap_failure = "listen";
	}
	return fd;
}

static UNUSED bool wait_for(int fd, short events)
{
	struct pollfd poll_fd = { .fd = fd, .events = events };

	return poll(&poll_fd, 1, WAIT_MS) == 1;
}

static UNUSED int accept_one(int listener)
{
	int fd = wait_for(listener, POLLIN) ? accept4(listener, NULL, NULL, SOCK_CLOEXEC) : -1;

	if (fd < 0)
		tap_failure = "accept";
	return fd;
}

static UNUSED void flow_init(struct flow *flow)
{
	memset(flow, 0, sizeof(*flow));
	flow->browser = flow->client = flow->upstream = flow->container = -1;
}

static UNUSED void close_fd(int *fd)
{
	if (*fd >= 0)
		close(*fd);
	*fd = -1;
}

static UNUSED void flow_close(struct flow *flow)
{
	engine_close(&flow->leg);
	close_fd(&flow->upstream);
	close_fd(&flow->container);
	close_fd(&flow->client);
	close_fd(&flow->browser);
}

/* The browser's connection. With `small`, neither end buffers much. */
static UNUSED void flow_client(struct flow *flow, bool small)
{
	int listener = listen_on("127.0.0.1", &flow->client_address), bytes = 8192;
	socklen_t len = sizeof(flow->client_address);

	if (!tap_failure) {
		flow->browser = socket(AF_INET, SOCK_STREAM | SOCK_CLOEXEC, 0);
		if (small)
			setsockopt(flow->browser, SOL_SOCKET, SO_RCVBUF, &bytes, sizeof(bytes));
		if (connect(flow->browser, (struct sockaddr *)&flow->client_address, len))
			tap_failure = "connect of the browser";
		else
			flow->client = accept_one(listener);
		if (small)
			setsockopt(flow->client, SOL_SOCKET, SO_SNDBUF, &bytes, sizeof(bytes));
		getpeername(flow->client, (struct sockaddr *)&flow->client_address, &len);
	}
	close_fd(&listener);
}

/* Up to connect(), which is the caller's. */
static UNUSED void flow_open(struct fixture *f, struct flow *flow, const char *domain,
			     enum kkm_engine engine, int type_flags)
{
	struct engine_request request = { .engine = engine,
					  .requests = flow->requests,
					  .mode = flow->hold ? KKM_HTTP : KKM_STREAM,
					  .domain = domain,
					  .backend = &flow->backend,
					  .client = &flow->client_address,
					  .client_fd = flow->client };

	flow->upstream =
		socket(flow->backend.ss_family, SOCK_STREAM | SOCK_CLOEXEC | type_flags, 0);
	request.upstream_fd = flow->upstream;
	engine_open(&flow->leg, f->datapath, &f->slots, &request);
	if (!flow->leg.slot)
		tap_failure = "engine_open: not tracked";
	else if (flow->leg.engine != engine)
		tap_failure = "engine_open: another engine";
}

/* Whatever the kernel does at the handshake has been done behind this. */
static UNUSED void settle(int fd)
{
	struct tcp_info info;
	socklen_t len = sizeof(info);

	getsockopt(fd, IPPROTO_TCP, TCP_INFO, &info, &len); /* takes the socket's lock */
}

/* A whole connection to the listening socket of flow->backend. */
static UNUSED void flow_connect_to(struct fixture *f, struct flow *flow, int listener,
				   const char *domain, enum kkm_engine engine)
{
	flow_open(f, flow, domain, engine, 0);
	if (tap_failure)
		return;
	if (connect(flow->upstream, (struct sockaddr *)&flow->backend, address_len(&flow->backend)))
		tap_failure = "connect to the container";
	else
		flow->container = accept_one(listener);
	settle(flow->container);
}

/* Client, container, published and connected; `hold`: until engine_begin(). */
static UNUSED void flow_start(struct fixture *f, struct flow *flow, bool small, bool hold)
{
	int listener;

	flow_init(flow);
	flow->hold = hold;
	flow_client(flow, small);
	if (tap_failure)
		return;
	listener = listen_on("127.0.0.1", &flow->backend);
	if (!tap_failure)
		publish_one(f, DOMAIN, &flow->backend, KKM_ACTIVE);
	if (!tap_failure)
		flow_connect_to(f, flow, listener, DOMAIN, KKM_SOCKMAP);
	if (!tap_failure && !flow->leg.slot->enrolled)
		tap_failure = "not enrolled";
	close_fd(&listener);
}

/* The plain case. */
static UNUSED void flow_standard(struct fixture *f, struct flow *flow, bool small)
{
	flow_start(f, flow, small, false);
}

/* Bytes are a function of their place, so that loss, doubling and disorder all show. */
static UNUSED unsigned char pattern(uint64_t at)
{
	return (unsigned char)((at * 2654435761u) >> 13);
}

/* The container writes `len` bytes, or as many as go; how many went. */
static UNUSED ssize_t container_sends(struct flow *flow, size_t len, int flags)
{
	unsigned char *data = malloc(len ? len : 1);
	ssize_t n;

	for (size_t i = 0; i < len; i++)
		data[i] = pattern(flow->sent + i);
	n = send(flow->container, data, len, flags | MSG_NOSIGNAL);
	if (n > 0)
		flow->sent += (uint64_t)n;
	free(data);
	return n;
}

/* The browser reads what is there, up to `len` bytes, and compares. */
static UNUSED size_t browser_reads(struct flow *flow, size_t len)
{
	unsigned char data[65536];
	ssize_t n =
		recv(flow->browser, data, len < sizeof(data) ? len : sizeof(data), MSG_DONTWAIT);

	for (ssize_t i = 0; i < n; i++) {
		if (data[i] != pattern(flow->received + (uint64_t)i)) {
			printf("# byte %llu is wrong\n",
			       (unsigned long long)flow->received + (unsigned long long)i);
			tap_failure = "the browser's bytes";
			return 0;
		}
	}
	if (n > 0)
		flow->received += (uint64_t)n;
	return n > 0 ? (size_t)n : 0;
}

static UNUSED void browser_expects(struct flow *flow, uint64_t total)
{
	while (flow->received < total && !tap_failure) {
		if (!wait_for(flow->browser, POLLIN) ||
		    !browser_reads(flow, total - flow->received))
			break;
	}
	if (!tap_failure)
		ASSERT_EQ(flow->received, total);
}

static UNUSED int readable(int fd)
{
	int n = -1;

	ioctl(fd, FIONREAD, &n);
	return n;
}

/* send() to the container; what is held is told as a full socket, and can be tried again. */
static UNUSED ssize_t agent_sends(struct flow *flow, const void *data, size_t len, int flags)
{
	ssize_t n = send(flow->upstream, data, len, flags | MSG_NOSIGNAL);

	if (n > 0)
		engine_relayed(&flow->leg, 0, (uint64_t)n);
	if (n < 0 && errno == EACCES) {
		engine_retry(&flow->leg);
		errno = EAGAIN;
	}
	return n;
}

/* The agent's own part: at most `len` passed bytes go on, and are counted behind their write. */
static UNUSED size_t agent_relays(struct flow *flow, size_t len)
{
	char data[16384];
	ssize_t n = recv(flow->upstream, data, len < sizeof(data) ? len : sizeof(data),
			 MSG_DONTWAIT | MSG_PEEK),
		sent;

	if (n <= 0)
		return 0;
	sent = send(flow->client, data, (size_t)n, MSG_DONTWAIT | MSG_NOSIGNAL);
	if (sent <= 0)
		return 0;
	recv(flow->upstream, data, (size_t)sent, MSG_DONTWAIT);
	engine_relayed(&flow->leg, (uint64_t)sent, 0);
	flow->passed += (uint64_t)sent;
	return (size_t)sent;
}

/* One direction alone: the message must arrive by the relay, after the agent has moved it. */
static UNUSED void expect_passed(struct flow *flow, size_t len)
{
	uint64_t before = flow->leg.slot->short_bytes;

	ASSERT_EQ(container_sends(flow, len, MSG_DONTWAIT), len);
	ASSERT_TRUE(wait_for(flow->upstream, POLLIN));
	ASSERT_EQ(flow->leg.slot->short_bytes, before);
}

/* The message must be at the browser's at once, unseen by the agent. */
static UNUSED void expect_short(struct flow *flow, size_t len)
{
	struct kkm_slot *slot = flow->leg.slot;
	uint64_t bytes = slot->short_bytes, messages = slot->short_messages;

	ASSERT_EQ(container_sends(flow, len, MSG_DONTWAIT), len);
	ASSERT_EQ(slot->short_bytes, bytes + len);
	ASSERT_EQ(slot->short_messages, messages + 1);
	DO(browser_expects(flow, flow->sent));
	ASSERT_EQ(readable(flow->upstream), 0);
	ASSERT_EQ(engine_moved(&flow->leg), bytes + len);
}

#endif
