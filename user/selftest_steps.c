// SPDX-License-Identifier: MIT
/*
 * The steps on sockets, each with connections of its own:
 *
 *	browser -> client | agent | upstream -> container
 *
 * Everything is on one thread, so whatever a kernel does at once has been done when it is asked for;
 * the rest is waited for by poll(), STEP_MS at most.
 */
#include "selftest_impl.h"

#include <errno.h>
#include <fcntl.h>
#include <linux/errqueue.h>
#include <linux/sock_diag.h>
#include <netinet/in.h>
#include <netinet/tcp.h>
#include <poll.h>
#include <pthread.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/epoll.h>
#include <sys/ioctl.h>
#include <sys/socket.h>
#include <time.h>
#include <unistd.h>

#define DOMAIN "selftest.invalid"
#define STEP_MS 1000
#define STALL_MS 20 /* what should have come long ago does not come any more */
#define SMALL 1000
#define LARGE (256 << 10)

#ifndef IPPROTO_MPTCP
#define IPPROTO_MPTCP 262
#endif

struct rig {
	int browser, client, upstream, container;
	struct sockaddr_storage client_address;
	struct engine_leg leg;
};

/* The bytes are a function of their place, so that loss, doubling and disorder all show. */
static unsigned char pattern(size_t at)
{
	return (unsigned char)((at * 2654435761u) >> 13);
}

static size_t fill(unsigned char *data, size_t at, size_t len)
{
	for (size_t i = 0; i < len; i++)
		data[i] = pattern(at + i);
	return len;
}

static bool holds(const unsigned char *data, size_t at, ssize_t len)
{
	for (ssize_t i = 0; i < len; i++) {
		if (data[i] != pattern(at + (size_t)i))
			return false;
	}
	return len >= 0;
}

static bool wait_for(int fd, short events, int ms)
{
	struct pollfd poll_fd = { .fd = fd, .events = events };

	return poll(&poll_fd, 1, ms) == 1;
}

static void close_fd(int fd)
{
	if (fd >= 0)
		close(fd);
}

static void rig_close(struct rig *rig)
{
	engine_close(&rig->leg);
	close_fd(rig->browser);
	close_fd(rig->client);
	close_fd(rig->upstream);
	close_fd(rig->container);
}

static int accept_from(int listener)
{
	return wait_for(listener, POLLIN, STEP_MS) ? accept4(listener, NULL, NULL, SOCK_CLOEXEC)
						   : -1;
}

static int connect_to(const struct sockaddr_storage *address)
{
	int fd = socket(AF_INET, SOCK_STREAM | SOCK_CLOEXEC, 0), on = 1;

	setsockopt(fd, IPPROTO_TCP, TCP_NODELAY, &on, sizeof(on));
	if (connect(fd, (const struct sockaddr *)address, sizeof(struct sockaddr_in))) {
		close(fd);
		return -1;
	}
	return fd;
}

/* The client's connection ends at the container's listener too: any will do. */
static bool rig_connect(struct rig *rig, struct selftest_bench *bench, bool requests,
			enum kkm_mode mode)
{
	struct engine_request request = { .engine = KKM_SOCKMAP, .requests = requests,
					  .mode = mode, .domain = DOMAIN,
					  .backend = &bench->address,
					  .client = &rig->client_address };
	int on = 1;

	rig->browser = connect_to(&bench->address);
	rig->client = accept_from(bench->listener);
	rig->upstream = socket(AF_INET, SOCK_STREAM | SOCK_CLOEXEC, 0);
	if (rig->browser < 0 || rig->client < 0 || rig->upstream < 0)
		return false;
	setsockopt(rig->upstream, IPPROTO_TCP, TCP_NODELAY, &on, sizeof(on));
	request.client_fd = rig->client;
	request.upstream_fd = rig->upstream;
	engine_open(&rig->leg, bench->datapath, &bench->slots, &request);
	if (!rig->leg.slot || connect(rig->upstream, (struct sockaddr *)&bench->address,
				      sizeof(struct sockaddr_in)))
		return false;
	rig->container = accept_from(bench->listener);
	return rig->container >= 0;
}

/* False: `step` says what. */
static bool rig_open(struct rig *rig, struct selftest_bench *bench, bool requests,
		     enum kkm_mode mode, struct selftest_result *step)
{
	*rig = (struct rig){ .browser = -1, .client = -1, .upstream = -1, .container = -1 };
	rig->client_address.ss_family = AF_INET;
	if (!rig_connect(rig, bench, requests, mode))
		selftest_say(step, false, "sockets of our own: %s", strerror(errno));
	else if (!rig->leg.slot->enrolled)
		selftest_say(step, false, "the container's socket is not in the map");
	else
		return true;
	rig_close(rig);
	return false;
}

/* `len` bytes of the pattern from `at` on. */
static bool send_pattern(int fd, size_t at, size_t len, int flags)
{
	unsigned char data[16384];

	return send(fd, data, fill(data, at, len), flags | MSG_NOSIGNAL) == (ssize_t)len;
}

static bool receive_pattern(int fd, size_t at, size_t len)
{
	unsigned char data[16384];
	size_t got = 0;

	while (got < len && wait_for(fd, POLLIN, STEP_MS)) {
		ssize_t n = recv(fd, data, len - got < sizeof(data) ? len - got : sizeof(data),
				 MSG_DONTWAIT);

		if (n <= 0 || !holds(data, at + got, n))
			return false;
		got += (size_t)n;
	}
	return got == len;
}

static bool is_at_end(int fd)
{
	char byte;

	return wait_for(fd, POLLIN, STEP_MS) && recv(fd, &byte, 1, MSG_DONTWAIT) == 0;
}

/* What a container sees of what is sent to it: through TCP, or put into its socket. */

static bool sent_so(const struct rig *rig, bool put)
{
	return (rig->leg.slot->short_up_bytes > 0) == put;
}

#define WAY(put) ((put) ? "put into it" : "sent through TCP")

static void try_fionread(struct selftest_result *step, struct selftest_bench *bench, bool put)
{
	struct rig rig;
	int available = -1;

	if (!rig_open(&rig, bench, put, KKM_HTTP, step))
		return;
	if (!send_pattern(rig.upstream, 0, SMALL, 0) || !wait_for(rig.container, POLLIN, STEP_MS) ||
	    ioctl(rig.container, FIONREAD, &available) || !sent_so(&rig, put))
		selftest_say(step, false, "nothing was %s", WAY(put));
	else
		selftest_say(step, available == SMALL, "it says %d of %d bytes", available, SMALL);
	rig_close(&rig);
}

static void try_splice(struct selftest_result *step, struct selftest_bench *bench, bool put)
{
	struct rig rig;
	int ends[2];
	ssize_t n;

	if (!rig_open(&rig, bench, put, KKM_HTTP, step))
		return;
	if (pipe2(ends, O_CLOEXEC | O_NONBLOCK)) {
		selftest_say(step, false, "no pipe: %s", strerror(errno));
	} else if (!send_pattern(rig.upstream, 0, SMALL, 0) ||
		   !wait_for(rig.container, POLLIN, STEP_MS) || !sent_so(&rig, put)) {
		selftest_say(step, false, "nothing was %s", WAY(put));
	} else {
		/* it is the socket's own flag that keeps this from waiting (sock_splice_read()) */
		fcntl(rig.container, F_SETFL, O_NONBLOCK);
		n = splice(rig.container, NULL, ends[1], NULL, SMALL, SPLICE_F_NONBLOCK);
		selftest_say(step, n == SMALL, "it says %s (%zd of %d bytes)",
			     n < 0 ? strerror(errno) : "fine", n, SMALL);
		close(ends[0]);
		close(ends[1]);
	}
	rig_close(&rig);
}

/* One edge for each message, whether the one before has been read or not. */
static void try_edges(struct selftest_result *step, struct selftest_bench *bench, bool put)
{
	struct epoll_event event = { .events = EPOLLIN | EPOLLRDHUP | EPOLLET };
	int epoll_fd = epoll_create1(EPOLL_CLOEXEC), edges = 0;
	struct rig rig;

	if (!rig_open(&rig, bench, put, KKM_HTTP, step)) {
		close_fd(epoll_fd);
		return;
	}
	epoll_ctl(epoll_fd, EPOLL_CTL_ADD, rig.container, &event);
	for (int i = 0; i < 4; i++) {
		if (!send_pattern(rig.upstream, (size_t)i * SMALL, SMALL, 0) ||
		    epoll_wait(epoll_fd, &event, 1, STALL_MS) != 1 || !(event.events & EPOLLIN))
			break;
		edges++;
		if (i % 2 && !receive_pattern(rig.container, (size_t)(i - 1) * SMALL, 2 * SMALL))
			break;
	}
	selftest_say(step, edges == 4 && sent_so(&rig, put), "%d edges for 4 messages %s", edges,
		     WAY(put));
	close_fd(epoll_fd);
	rig_close(&rig);
}

static void try_half_close(struct selftest_result *step, struct selftest_bench *bench, bool put)
{
	struct rig rig;
	bool up, down;

	if (!rig_open(&rig, bench, put, KKM_STREAM, step))
		return;
	up = send_pattern(rig.upstream, 0, SMALL, 0) && !shutdown(rig.upstream, SHUT_WR) &&
	     receive_pattern(rig.container, 0, SMALL) && is_at_end(rig.container);
	down = send_pattern(rig.container, 0, SMALL, 0) && !shutdown(rig.container, SHUT_WR) &&
	       is_at_end(rig.upstream) && receive_pattern(rig.browser, 0, SMALL);
	selftest_say(step, up && down && sent_so(&rig, put), "up %s, down %s",
		     up ? "exact" : "cut", down ? "exact" : "cut");
	rig_close(&rig);
}

/* Answers. */

/* The agent's part: what the program passed goes on, and is counted after it was written. */
static size_t relay_some(struct rig *rig)
{
	unsigned char data[16384];
	ssize_t n = recv(rig->upstream, data, sizeof(data), MSG_DONTWAIT | MSG_PEEK);

	if (n > 0)
		n = send(rig->client, data, (size_t)n, MSG_DONTWAIT | MSG_NOSIGNAL);
	if (n <= 0)
		return 0;
	recv(rig->upstream, data, (size_t)n, MSG_DONTWAIT);
	engine_relayed(&rig->leg, (uint64_t)n, 0);
	return (size_t)n;
}

struct transfer {
	size_t written, relayed, received;
	bool wrong;
};

static void turn(struct transfer *t, struct rig *rig)
{
	struct pollfd fds[] = {
		{ .fd = rig->container, .events = t->written < LARGE ? POLLOUT : 0 },
		{ .fd = rig->browser, .events = POLLIN },
		{ .fd = rig->upstream, .events = POLLIN },
	};
	unsigned char data[16384];
	size_t len = LARGE - t->written < sizeof(data) ? LARGE - t->written : sizeof(data);
	ssize_t n;

	poll(fds, 3, 1);
	if (fds[0].revents & POLLOUT && len) {
		n = send(rig->container, data, fill(data, t->written, len),
			 MSG_DONTWAIT | MSG_NOSIGNAL);
		t->written += n > 0 ? (size_t)n : 0;
	}
	if (fds[1].revents & POLLIN) {
		n = recv(rig->browser, data, 8192, MSG_DONTWAIT);
		t->wrong |= !holds(data, t->received, n);
		t->received += n > 0 ? (size_t)n : 0;
	}
	t->relayed += relay_some(rig);
}

static uint64_t now_ms(void)
{
	struct timespec now;

	clock_gettime(CLOCK_MONOTONIC, &now);
	return (uint64_t)now.tv_sec * 1000 + (uint64_t)now.tv_nsec / 1000000;
}

static void try_write(struct selftest_result *step, struct selftest_bench *bench)
{
	uint64_t end_ms = now_ms() + STEP_MS;
	struct transfer t = { 0 };
	struct rig rig;
	int small = 32768;

	if (!rig_open(&rig, bench, false, KKM_STREAM, step))
		return;
	/* the client's queue must fill up, or nothing is shown */
	setsockopt(rig.client, SOL_SOCKET, SO_SNDBUF, &small, sizeof(small));
	while (t.received < LARGE && !t.wrong && now_ms() < end_ms)
		turn(&t, &rig);
	selftest_say(step, t.received == LARGE && !t.wrong && engine_moved(&rig.leg),
		     "%zu of %d bytes arrived%s, %llu by the short way", t.received, LARGE,
		     t.wrong ? ", not those that were sent" : "",
		     (unsigned long long)engine_moved(&rig.leg));
	rig_close(&rig);
}

static void try_undo(struct selftest_result *step, struct selftest_bench *bench)
{
	struct rig rig;
	int tiny = 1, full = 0;
	bool passed;

	if (!rig_open(&rig, bench, false, KKM_STREAM, step))
		return;
	setsockopt(rig.client, SOL_SOCKET, SO_SNDBUF, &tiny, sizeof(tiny)); /* 4608, see tcp(7) */
	full = send_pattern(rig.container, 0, 8192, MSG_DONTWAIT);
	passed = full && rig.leg.slot->no_room && !engine_moved(&rig.leg) &&
		 receive_pattern(rig.upstream, 0, 8192);
	selftest_say(step, passed, "the message %s", passed ? "came to the agent" : "did not");
	rig_close(&rig);
}

static void try_answer(struct selftest_result *step, struct selftest_bench *bench)
{
	static const char answer[] = "HTTP/1.1 200 OK\r\nContent-Length: 5\r\n\r\nhello";
	static const char part[] = "HTTP/1.1 200 OK\r\nContent-Length: 9\r\n\r\n";
	const size_t len = sizeof(answer) - 1, part_len = sizeof(part) - 1;
	struct engine_answer whole = { 0 }, begun = { 0 };
	struct rig rig;
	bool known;

	if (!rig_open(&rig, bench, false, KKM_HTTP, step))
		return;
	engine_arm(&rig.leg);
	known = send(rig.container, answer, len, MSG_NOSIGNAL) == (ssize_t)len &&
		engine_has_answered(&rig.leg) && engine_take_answer(&rig.leg, &whole) &&
		whole.begun && !whole.left && whole.status == 200 &&
		engine_queued(rig.client) == len;
	engine_arm(&rig.leg);
	known = known && send(rig.container, part, part_len, MSG_NOSIGNAL) == (ssize_t)part_len &&
		!engine_has_answered(&rig.leg) && engine_take_answer(&rig.leg, &begun) &&
		begun.begun && begun.left == 9 && engine_queued(rig.client) == len + part_len;
	/* the rest is the agent's, whatever it looks like */
	known = known && send(rig.container, answer, 9, MSG_NOSIGNAL) == 9 &&
		wait_for(rig.upstream, POLLIN, STEP_MS) && engine_moved(&rig.leg) == len + part_len;
	selftest_say(step, known, "an end is %s", known ? "known" : "missed");
	rig_close(&rig);
}

static void try_zerocopy(struct selftest_result *step, struct selftest_bench *bench)
{
	struct sock_extended_err *error;
	char control[256];
	struct msghdr message = { .msg_control = control, .msg_controllen = sizeof(control) };
	struct cmsghdr *header;
	struct rig rig;
	int on = 1;
	bool came;

	if (!rig_open(&rig, bench, false, KKM_STREAM, step))
		return;
	came = !setsockopt(rig.container, SOL_SOCKET, SO_ZEROCOPY, &on, sizeof(on)) &&
	       send_pattern(rig.container, 0, SMALL, MSG_ZEROCOPY) && !engine_moved(&rig.leg) &&
	       receive_pattern(rig.upstream, 0, SMALL) &&
	       wait_for(rig.container, POLLERR, STEP_MS) &&
	       recvmsg(rig.container, &message, MSG_ERRQUEUE | MSG_DONTWAIT) >= 0;
	header = came ? CMSG_FIRSTHDR(&message) : NULL;
	error = header ? (struct sock_extended_err *)(void *)CMSG_DATA(header) : NULL;
	selftest_say(step, error && error->ee_origin == SO_EE_ORIGIN_ZEROCOPY, "%s",
		     error ? "it was passed, and completed" : "it did not complete");
	rig_close(&rig);
}

static void try_ktls(struct selftest_result *step, struct selftest_bench *bench)
{
	struct rig rig;

	if (!rig_open(&rig, bench, false, KKM_STREAM, step))
		return;
	if (setsockopt(rig.container, IPPROTO_TCP, TCP_ULP, "tls", sizeof("tls"))) {
		step->absent = errno == ENOENT;
		selftest_say(step, true, errno == ENOENT ? "this kernel has no kTLS here"
							 : "an enrolled socket refuses it");
	} else {
		bool passed = send_pattern(rig.container, 0, SMALL, MSG_DONTWAIT) &&
			      !engine_moved(&rig.leg);

		selftest_say(step, passed, "what it sends is %s", passed ? "passed" : "redirected");
	}
	rig_close(&rig);
}

/* A container that listens with MPTCP, as Go's do. */
static void try_mptcp(struct selftest_result *step, struct selftest_bench *bench)
{
	struct sockaddr_in address = { .sin_family = AF_INET,
				       .sin_addr.s_addr = htonl(INADDR_LOOPBACK) };
	int listener = socket(AF_INET, SOCK_STREAM | SOCK_CLOEXEC, IPPROTO_MPTCP), near, far;
	struct sockaddr_storage bound = { 0 };
	socklen_t len = sizeof(bound);
	bool exact;

	if (listener < 0) {
		step->absent = true;
		selftest_say(step, true, "this kernel has no MPTCP here");
		return;
	}
	if (bind(listener, (struct sockaddr *)&address, sizeof(address)) || listen(listener, 1) ||
	    getsockname(listener, (struct sockaddr *)&bound, &len)) {
		selftest_say(step, false, "sockets of our own: %s", strerror(errno));
		close(listener);
		return;
	}
	near = socket(AF_INET, SOCK_STREAM | SOCK_CLOEXEC, IPPROTO_MPTCP);
	if (connect(near, (struct sockaddr *)&bound, sizeof(address)))
		far = -1;
	else
		far = accept_from(listener);
	/* the sock_ops programs refuse subflows; this shows that the map would too */
	exact = far >= 0 && datapath_client_add(bench->datapath, 1, far) != 0 &&
		send_pattern(near, 0, SMALL, 0) && receive_pattern(far, 0, SMALL) &&
		send_pattern(far, 0, SMALL, 0) && receive_pattern(near, 0, SMALL);
	selftest_say(step, exact, "they are %s", exact ? "refused, and work" : "not refused");
	close_fd(near);
	close_fd(far);
	close(listener);
}

/* A reader that blocks, in a thread of its own. */

struct reader {
	int fd;
	ssize_t n;
	_Atomic pid_t tid; /* once it is about to read */
};

static void *read_one(void *ctx)
{
	struct reader *reader = ctx;
	char data[SMALL];

	reader->tid = gettid();
	reader->n = recv(reader->fd, data, sizeof(data), 0);
	return NULL;
}

/* Does this thread wait in the kernel for data to come? */
static bool is_asleep(pid_t tid)
{
	char line[256] = "", path[64];
	FILE *file;

	snprintf(path, sizeof(path), "/proc/self/task/%d/stat", tid);
	file = fopen(path, "re");
	if (file && !fgets(line, sizeof(line), file))
		*line = '\0';
	if (file)
		fclose(file);
	return strstr(line, ") S ");
}

static bool start_reader(struct reader *reader, int fd, pthread_t *thread)
{
	uint64_t end_ms = now_ms() + STEP_MS;

	reader->fd = fd;
	reader->tid = 0;
	if (fd < 0 || pthread_create(thread, NULL, read_one, reader))
		return false;
	while ((!reader->tid || !is_asleep(reader->tid)) && now_ms() < end_ms)
		sched_yield();
	return true;
}

static bool reader_wakes(pthread_t thread)
{
	struct timespec end;

	clock_gettime(CLOCK_REALTIME, &end);
	end.tv_nsec += STALL_MS * 1000000L;
	end.tv_sec += end.tv_nsec / 1000000000L;
	end.tv_nsec %= 1000000000L;
	return !pthread_timedjoin_np(thread, NULL, &end);
}

/* tcp_bpf_recvmsg() takes any wake-up for the end of the wait. */
static void try_blocked(struct selftest_result *step, struct selftest_bench *bench)
{
	struct reader reader;
	struct rig rig;
	pthread_t thread;
	bool early;

	if (!rig_open(&rig, bench, false, KKM_STREAM, step))
		return;
	if (!start_reader(&reader, rig.container, &thread)) {
		selftest_say(step, false, "no thread: %s", strerror(errno));
		rig_close(&rig);
		return;
	}
	shutdown(rig.container, SHUT_WR);
	early = reader_wakes(thread);
	if (!early) {
		send_pattern(rig.upstream, 0, SMALL, 0);
		early = !reader_wakes(thread) || reader.n != SMALL;
	}
	selftest_say(step, !early, "%s", early ? "recv() comes back without a byte" : "it reads on");
	rig_close(&rig);
}

/* Enrolled too late. A reader that sleeps on goes with this process. */
static void try_late(struct selftest_result *step, struct selftest_bench *bench)
{
	static struct reader reader;
	int near = connect_to(&bench->address), far = accept_from(bench->listener), err;
	pthread_t thread;
	bool woke;

	if (near < 0 || !start_reader(&reader, far, &thread)) {
		selftest_say(step, false, "sockets of our own: %s", strerror(errno));
		return;
	}
	err = datapath_enrol(bench->datapath, 1, far, near, 0, SELFTEST_CONNS - 1);
	send_pattern(near, 0, SMALL, 0);
	woke = reader_wakes(thread);
	selftest_say(step, woke && !err, "the reader %s%s", woke ? "wakes" : "sleeps on",
		     err ? ", and it could not be enrolled" : "");
}

/* Memory and order of what is put into a socket. */

static unsigned int charged(int fd)
{
	unsigned int info[SK_MEMINFO_VARS] = { 0 };
	socklen_t len = sizeof(info);

	getsockopt(fd, SOL_SOCKET, SO_MEMINFO, info, &len);
	return info[SK_MEMINFO_RMEM_ALLOC];
}

static void try_memory(struct selftest_result *step, struct selftest_bench *bench)
{
	unsigned int before, between, after;
	struct rig rig;
	bool put;

	if (!rig_open(&rig, bench, true, KKM_STREAM, step))
		return;
	before = charged(rig.container);
	put = send_pattern(rig.upstream, 0, SMALL, 0) && sent_so(&rig, true);
	between = charged(rig.container);
	put = put && receive_pattern(rig.container, 0, SMALL);
	after = charged(rig.container);
	selftest_say(step, put && between >= before + SMALL && after == before,
		     "%d bytes: from %u to %u, and %u when they were read", SMALL, before, between,
		     after);
	rig_close(&rig);
}

/* A message that is held goes when the reader has read all before it. */
static bool send_or_read(struct rig *rig, size_t sent, size_t len, size_t *received)
{
	if (send_pattern(rig->upstream, sent, len, MSG_DONTWAIT))
		return true;
	if (errno != EACCES || !receive_pattern(rig->container, *received, sent - *received))
		return false;
	*received = sent;
	engine_retry(&rig->leg);
	return send_pattern(rig->upstream, sent, len, MSG_DONTWAIT);
}

/* Both ways by turns, while the reader is behind. */
static void try_order(struct selftest_result *step, struct selftest_bench *bench)
{
	size_t sent = 0, received = 0;
	bool exact = true;
	struct rig rig;

	if (!rig_open(&rig, bench, true, KKM_STREAM, step))
		return;
	for (int i = 0; i < 60 && exact; i++) {
		size_t len = 1 + (size_t)(i * 7919) % 3000, read;

		if (i % 15 == 4 || i % 15 == 9)
			engine_set_bulk(&rig.leg, i % 15 == 4);
		exact = send_or_read(&rig, sent, len, &received);
		sent += len;
		read = i % 6 == 5 ? sent - received : i % 6 == 2 ? (sent - received) / 2 : 0;
		exact = exact && receive_pattern(rig.container, received, read);
		received += read;
	}
	exact = exact && receive_pattern(rig.container, received, sent - received);
	selftest_say(step, exact && sent_so(&rig, true) && rig.leg.slot->short_up_bytes < sent,
		     "%zu bytes %s, %llu of them put in", sent, exact ? "exact" : "out of order",
		     (unsigned long long)rig.leg.slot->short_up_bytes);
	rig_close(&rig);
}

/* A reader that wants more than there is, by SO_RCVLOWAT. */
static void try_lowat(struct selftest_result *step, struct selftest_bench *bench)
{
	int wanted = 2 * SMALL;
	struct rig rig;
	bool early, then;

	if (!rig_open(&rig, bench, true, KKM_STREAM, step))
		return;
	setsockopt(rig.container, SOL_SOCKET, SO_RCVLOWAT, &wanted, sizeof(wanted));
	early = !send_pattern(rig.upstream, 0, SMALL, 0) || wait_for(rig.container, POLLIN, 0);
	then = send_pattern(rig.upstream, SMALL, SMALL, 0) &&
	       wait_for(rig.container, POLLIN, STALL_MS) && sent_so(&rig, true);
	selftest_say(step, !early && then, "readable with %d of %d bytes: %s", SMALL, wanted,
		     early ? "yes" : "no");
	rig_close(&rig);
}

static void try_enrol(struct selftest_result *step, struct selftest_bench *bench)
{
	struct rig rig;

	if (!rig_open(&rig, bench, true, KKM_STREAM, step))
		return;
	selftest_say(step, true, "by its addresses and sequence numbers");
	rig_close(&rig);
}

void selftest_sockets(struct selftest *out, struct selftest_bench *bench)
{
	struct selftest_result *steps = out->steps;

	try_enrol(&steps[SELFTEST_ENROL], bench);
	if (!steps[SELFTEST_ENROL].passed)
		return;
	try_fionread(&steps[SELFTEST_FIONREAD], bench, false);
	try_splice(&steps[SELFTEST_SPLICE], bench, false);
	try_edges(&steps[SELFTEST_EDGES], bench, false);
	try_write(&steps[SELFTEST_WRITE], bench);
	try_undo(&steps[SELFTEST_UNDO], bench);
	try_answer(&steps[SELFTEST_ANSWER], bench);
	try_half_close(&steps[SELFTEST_HALF_CLOSE], bench, false);
	try_zerocopy(&steps[SELFTEST_ZEROCOPY], bench);
	try_ktls(&steps[SELFTEST_KTLS], bench);
	try_mptcp(&steps[SELFTEST_MPTCP], bench);
	try_memory(&steps[SELFTEST_PUT_MEMORY], bench);
	try_fionread(&steps[SELFTEST_PUT_FIONREAD], bench, true);
	try_splice(&steps[SELFTEST_PUT_SPLICE], bench, true);
	try_edges(&steps[SELFTEST_PUT_EDGES], bench, true);
	try_lowat(&steps[SELFTEST_PUT_LOWAT], bench);
	try_order(&steps[SELFTEST_PUT_ORDER], bench);
	try_half_close(&steps[SELFTEST_PUT_HALF_CLOSE], bench, true);
	try_blocked(&steps[SELFTEST_BLOCKED], bench);
	try_late(&steps[SELFTEST_LATE], bench);
}
