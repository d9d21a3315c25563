// SPDX-License-Identifier: MIT
#include "selftest.h"

#include <errno.h>
#include <fcntl.h>
#include <netinet/in.h>
#include <poll.h>
#include <stdio.h>
#include <string.h>
#include <sys/ioctl.h>
#include <sys/socket.h>
#include <time.h>
#include <unistd.h>

#include "datapath.h"

#define LARGE (1 << 20)
#define STEP_MS 2000
#define LEG 1

/* browser -> client | agent | upstream -> container, as in a real connection. */
struct sockets {
	int listener, browser, client, upstream, container;
	uint64_t client_cookie;
};

static void close_all(struct sockets *s)
{
	const int fds[] = { s->listener, s->browser, s->client, s->upstream, s->container };

	for (size_t i = 0; i < sizeof(fds) / sizeof(*fds); i++) {
		if (fds[i] >= 0)
			close(fds[i]);
	}
}

static int connect_pair(int listener, int *near, int *far)
{
	struct sockaddr_in address;
	socklen_t len = sizeof(address);

	*near = socket(AF_INET, SOCK_STREAM | SOCK_CLOEXEC, 0);
	if (*near < 0 || getsockname(listener, (struct sockaddr *)&address, &len) ||
	    connect(*near, (struct sockaddr *)&address, len))
		return -errno;
	*far = accept4(listener, NULL, NULL, SOCK_CLOEXEC);
	return *far < 0 ? -errno : 0;
}

static int open_sockets(struct sockets *s)
{
	struct sockaddr_in address = { .sin_family = AF_INET,
				       .sin_addr.s_addr = htonl(INADDR_LOOPBACK) };
	socklen_t len = sizeof(s->client_cookie);
	int err;

	*s = (struct sockets){ -1, -1, -1, -1, -1, 0 };
	s->listener = socket(AF_INET, SOCK_STREAM | SOCK_CLOEXEC, 0);
	if (s->listener < 0 || bind(s->listener, (struct sockaddr *)&address, sizeof(address)) ||
	    listen(s->listener, 2))
		return -errno;
	err = connect_pair(s->listener, &s->browser, &s->client);
	if (!err)
		err = connect_pair(s->listener, &s->upstream, &s->container);
	if (!err && getsockopt(s->client, SOL_SOCKET, SO_COOKIE, &s->client_cookie, &len))
		err = -errno;
	return err;
}

static int enrol(struct datapath *datapath, struct sockets *s)
{
	int err = datapath_client_add(datapath, s->client_cookie, s->client);

	return err ? err : datapath_enrol(datapath, LEG, s->container, s->client_cookie, 0);
}

static uint64_t now_ms(void)
{
	struct timespec now;

	clock_gettime(CLOCK_MONOTONIC, &now);
	return (uint64_t)now.tv_sec * 1000 + (uint64_t)now.tv_nsec / 1000000;
}

static void check_fionread(struct selftest_result *result, struct sockets *s)
{
	struct pollfd poll_fd = { .fd = s->container, .events = POLLIN };
	char data[1000] = { 0 };
	int available = -1;

	result->run = true;
	if (send(s->upstream, data, sizeof(data), 0) != sizeof(data) ||
	    poll(&poll_fd, 1, STEP_MS) != 1 || ioctl(s->container, FIONREAD, &available)) {
		snprintf(result->detail, sizeof(result->detail), "no data: %s", strerror(errno));
		return;
	}
	result->passed = available == sizeof(data);
	snprintf(result->detail, sizeof(result->detail), "FIONREAD says %d of %zu bytes", available,
		 sizeof(data));
	recv(s->container, data, sizeof(data), 0);
}

/* The bytes are a function of their place, so that loss, doubling and disorder all show. */
static unsigned char pattern(size_t at)
{
	return (unsigned char)((at * 2654435761u) >> 13);
}

struct transfer {
	size_t written, relayed, received;
	unsigned char pending[16384]; /* passed by the program, not yet taken by the client */
	size_t pending_at, pending_len;
	bool wrong;
};

static void write_some(struct transfer *t, int fd)
{
	unsigned char data[16384];
	size_t len = LARGE - t->written < sizeof(data) ? LARGE - t->written : sizeof(data);
	ssize_t n;

	for (size_t i = 0; i < len; i++)
		data[i] = pattern(t->written + i);
	n = send(fd, data, len, MSG_DONTWAIT | MSG_NOSIGNAL);
	if (n > 0)
		t->written += (size_t)n;
}

/* The agent's part: what the program passed goes on, and is counted after it was written. */
static void relay_some(struct transfer *t, struct sockets *s, struct kkm_slot *slot)
{
	ssize_t n;

	if (!t->pending_len) {
		n = recv(s->upstream, t->pending, sizeof(t->pending), MSG_DONTWAIT);
		t->pending_at = 0;
		t->pending_len = n > 0 ? (size_t)n : 0;
	}
	n = t->pending_len ? send(s->client, t->pending + t->pending_at, t->pending_len,
				  MSG_DONTWAIT | MSG_NOSIGNAL)
			   : 0;
	if (n <= 0)
		return;
	t->pending_at += (size_t)n;
	t->pending_len -= (size_t)n;
	t->relayed += (size_t)n;
	__atomic_store_n(&slot->forwarded, slot->forwarded + (uint32_t)n, __ATOMIC_RELEASE);
}

static void read_slowly(struct transfer *t, int fd)
{
	unsigned char data[8192];
	ssize_t n = recv(fd, data, sizeof(data), MSG_DONTWAIT);

	for (ssize_t i = 0; i < n; i++)
		t->wrong = t->wrong || data[i] != pattern(t->received + (size_t)i);
	if (n > 0)
		t->received += (size_t)n;
}

static void check_write(struct selftest_result *result, struct datapath *datapath,
			struct sockets *s)
{
	struct kkm_slot *slot = datapath_slot(datapath, 0);
	uint64_t deadline_ms = now_ms() + STEP_MS;
	struct transfer t = { 0 };
	int small = 65536;

	result->run = true;
	/* the client's queue must fill up, or nothing is shown */
	setsockopt(s->client, SOL_SOCKET, SO_SNDBUF, &small, sizeof(small));
	while (t.received < LARGE && !t.wrong && now_ms() < deadline_ms) {
		struct pollfd fds[] = {
			{ .fd = s->container, .events = t.written < LARGE ? POLLOUT : 0 },
			{ .fd = s->upstream, .events = t.pending_len ? 0 : POLLIN },
			{ .fd = s->browser, .events = POLLIN },
		};

		poll(fds, 3, 1);
		if (fds[0].revents & POLLOUT && t.written < LARGE)
			write_some(&t, s->container);
		if (fds[2].revents & POLLIN)
			read_slowly(&t, s->browser);
		relay_some(&t, s, slot);
	}
	result->passed = t.received == LARGE && !t.wrong && slot->short_bytes;
	snprintf(result->detail, sizeof(result->detail),
		 "%zu of %d bytes arrived%s, %llu by the short way, %zu relayed", t.received, LARGE,
		 t.wrong ? ", not the ones that were sent" : "",
		 (unsigned long long)slot->short_bytes, t.relayed);
}

static void run_steps(struct selftest *out, struct datapath *datapath)
{
	struct sockets s;
	int err = open_sockets(&s);

	if (!err)
		err = enrol(datapath, &s);
	if (err) {
		out->steps[SELFTEST_LOAD].passed = false;
		snprintf(out->steps[SELFTEST_LOAD].detail, sizeof(out->steps[0].detail),
			 "sockets of our own could not be enrolled: %s", strerror(-err));
	} else {
		check_fionread(&out->steps[SELFTEST_FIONREAD], &s);
		check_write(&out->steps[SELFTEST_WRITE], datapath, &s);
	}
	close_all(&s);
}

bool selftest_run(struct selftest *out)
{
	struct datapath_options options = {
		.programs = true, .workers = 1, .max_routes = 1, .max_conns = 4
	};
	struct datapath *datapath = NULL;
	struct selftest_result *load = &out->steps[SELFTEST_LOAD];
	bool passed = true;

	*out = (struct selftest){ .steps = {
		[SELFTEST_LOAD] = { .name = "programs load",
				    .needed_for = "the short way at all" },
		[SELFTEST_FIONREAD] = { .name = "FIONREAD on an enrolled socket",
					.needed_for = "containers that read requests by it (nginx "
						      "stalls on uploads)" },
		[SELFTEST_WRITE] = { .name = "large non-blocking write through a slow reader",
				     .needed_for = "large responses (they would hang or be cut)" },
	} };
	load->run = true;
	load->passed = !datapath_open(&options, &datapath, load->detail);
	if (load->passed) {
		snprintf(load->detail, sizeof(load->detail), "sock_ops and sk_msg");
		run_steps(out, datapath);
	}
	datapath_close(&datapath);
	for (int i = 0; i < SELFTEST_STEPS; i++)
		passed = passed && out->steps[i].passed;
	return passed;
}
