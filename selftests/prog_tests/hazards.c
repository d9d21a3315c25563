// SPDX-License-Identifier: MIT
/*
 * What goes wrong with sockmap, shown on the naive programs of selftests/progs, and beside each the
 * same on ours, where it must not. A naive case fails where its program behaves: then the case
 * beside it proves nothing here.
 *
 * Not shown: addresses of a tcp_sock kept in a map, which come to point at other connections.
 */
#include "hazards_naive.h"

#include <linux/errqueue.h>
#include <linux/sockios.h>
#include <linux/tls.h>
#include <pthread.h>
#include <sys/epoll.h>
#include <sys/resource.h>

#define TRIES 20
#define UPLOAD 300000
#define BOUND (32u << 20)  /* nobody may hold so much for one connection */
#define FLOOD (2u * BOUND) /* and no test more than this */
#define QUIET_MS 300	   /* what has not come by then on loopback, does not come */

static bool quiet(int fd)
{
	struct pollfd poll_fd = { .fd = fd, .events = POLLIN };

	return poll(&poll_fd, 1, QUIET_MS) == 0;
}

/* As flow_standard(), and what the agent sends may be put into the container's socket. */
static void flow_whole(struct fixture *f, struct flow *flow, bool small)
{
	int listener;

	flow_init(flow);
	flow->requests = true;
	DO(flow_client(flow, small));
	DO(listener = listen_on("127.0.0.1", &flow->backend));
	DO(publish_one(f, DOMAIN, &flow->backend, KKM_ACTIVE));
	DO(flow_connect_to(f, flow, listener, DOMAIN, KKM_SOCKMAP));
	close(listener);
	ASSERT_EQ(flow->leg.slot->enrolled, 1);
	ASSERT_TRUE(flow->leg.requests);
}

/* Bytes of a stream from `at` on. */
static ssize_t send_pattern(int fd, uint64_t at, size_t len, int flags)
{
	static unsigned char data[65536];

	for (size_t i = 0; i < len; i++)
		data[i] = pattern(at + i);
	return send(fd, data, len, flags | MSG_NOSIGNAL);
}

/* As the agent sends a request: what has been written is counted. */
static ssize_t send_request(struct flow *flow, uint64_t at, size_t len, int flags)
{
	static unsigned char data[65536];

	for (size_t i = 0; i < len && i < sizeof(data); i++)
		data[i] = pattern(at + i);
	return agent_sends(flow, data, len < sizeof(data) ? len : sizeof(data), flags);
}

static bool is_pattern(const unsigned char *data, uint64_t at, size_t len)
{
	for (size_t i = 0; i < len; i++) {
		if (data[i] != pattern(at + i))
			return false;
	}
	return true;
}

/* What the agent of a case does whenever it may; the naive one has just the ends to pass on. */
typedef void agent_fn(struct flow *flow);

static void agent_idle(struct flow *flow UNUSED)
{
}

static void agent_naive(struct flow *flow)
{
	struct pollfd ended = { .fd = flow->client, .events = POLLRDHUP };

	if (poll(&ended, 1, 0) == 1)
		shutdown(flow->upstream, SHUT_WR);
}

static void agent_down(struct flow *flow)
{
	char byte;

	if (!agent_relays(flow, 16384) &&
	    recv(flow->upstream, &byte, 1, MSG_PEEK | MSG_DONTWAIT) == 0)
		shutdown(flow->client, SHUT_WR);
}

static void agent_up(struct flow *flow)
{
	char data[16384];
	ssize_t n = recv(flow->client, data, sizeof(data), MSG_PEEK | MSG_DONTWAIT), sent;

	if (n == 0)
		shutdown(flow->upstream, SHUT_WR);
	if (n <= 0)
		return;
	sent = agent_sends(flow, data, (size_t)n, MSG_DONTWAIT);
	if (sent > 0)
		recv(flow->client, data, (size_t)sent, MSG_DONTWAIT);
}

/*
 * UPLOAD bytes and an end from one socket to another, whose owner begins to read when the other has
 * written all or cannot go on. How many came, -1 where any was wrong.
 */
static long long transfer(struct flow *flow, int from, int to, agent_fn *agent)
{
	unsigned char data[4000];
	uint64_t sent = 0, received = 0, last_ms = now_ms();

	while (now_ms() - last_ms < 1000) {
		size_t left = UPLOAD - sent < sizeof(data) ? UPLOAD - sent : sizeof(data);
		ssize_t out = left ? send_pattern(from, sent, left, MSG_DONTWAIT) : 0, in;

		if (out > 0)
			sent += (uint64_t)out;
		if (left && sent == UPLOAD)
			shutdown(from, SHUT_WR);
		agent(flow);
		if (out > 0) {
			last_ms = now_ms();
			continue;
		}
		in = recv(to, data, sizeof(data), MSG_DONTWAIT);
		if (in == 0 || (in < 0 && errno != EAGAIN))
			break;
		if (in > 0 && !is_pattern(data, received, (size_t)in))
			return -1;
		if (in > 0) {
			received += (uint64_t)in;
			last_ms = now_ms();
		} else {
			poll(NULL, 0, 1);
		}
	}
	return (long long)received;
}

/* A bounded send buffer, so that some is still on its way when the end is passed on. */
static void bound_upstream(struct flow *flow)
{
	int bytes = 65536;

	ASSERT_EQ(setsockopt(flow->upstream, SOL_SOCKET, SO_SNDBUF, &bytes, sizeof(bytes)), 0);
}

NAIVE(naive_loses_at_close)
{
	struct flow *flow = &n->flow;
	unsigned int lost = 0;
	char byte;

	for (int i = 0; i < TRIES; i++) {
		DO(naive_proxy(n, false));
		DO(bound_upstream(flow));
		lost += transfer(flow, flow->browser, flow->container, agent_naive) < UPLOAD;
		/* nor are they at the agent's */
		ASSERT_TRUE(recv(flow->client, &byte, 1, MSG_DONTWAIT) <= 0);
	}
	printf("# %u of %d uploads were lost\n", lost, TRIES);
	ASSERT_TRUE(lost > 0);
}

CASE(ours_loses_nothing_at_close)
{
	struct flow flow;

	for (int i = 0; i < TRIES; i++) {
		DO(flow_whole(f, &flow, i % 2));
		DO(bound_upstream(&flow));
		ASSERT_EQ(transfer(&flow, flow.browser, flow.container, agent_up), UPLOAD);
		ASSERT_EQ(transfer(&flow, flow.container, flow.browser, agent_down), UPLOAD);
		ASSERT_TRUE(engine_moved(&flow.leg) > 0);
		ASSERT_TRUE(flow.leg.slot->short_up_bytes > 0);
		flow_close(&flow);
	}
}

/* How much goes in while nobody reads at the other end. */
static uint64_t flood(struct flow *flow, int from, agent_fn *agent)
{
	static char data[16384];
	uint64_t taken = 0, last_ms = now_ms();

	while (taken < FLOOD && now_ms() - last_ms < QUIET_MS) {
		ssize_t sent = send(from, data, sizeof(data), MSG_DONTWAIT | MSG_NOSIGNAL);

		agent(flow);
		if (sent > 0) {
			taken += (uint64_t)sent;
			last_ms = now_ms();
		} else {
			poll(NULL, 0, 1);
		}
	}
	printf("# %llu KiB taken\n", (unsigned long long)taken >> 10);
	return taken;
}

NAIVE(naive_verdict_has_no_backpressure)
{
	DO(naive_proxy(n, false));
	ASSERT_TRUE(flood(&n->flow, n->flow.browser, agent_idle) > BOUND);
}

NAIVE(naive_verdict_ingress_has_no_backpressure)
{
	DO(naive_proxy_ingress(n));
	ASSERT_TRUE(flood(&n->flow, n->flow.browser, agent_idle) > BOUND);
}

NAIVE(naive_msg_ingress_has_no_backpressure)
{
	DO(naive_requests(n, n->bpf->progs.naive_msg_ingress));
	ASSERT_TRUE(flood(&n->flow, n->flow.upstream, agent_idle) > BOUND);
}

CASE(ours_has_backpressure)
{
	struct flow flow;

	DO(flow_whole(f, &flow, false));
	ASSERT_TRUE(flood(&flow, flow.browser, agent_up) < BOUND);
	ASSERT_TRUE(flood(&flow, flow.container, agent_down) < BOUND);
	ASSERT_TRUE(engine_moved(&flow.leg) > 0);
	ASSERT_TRUE(flow.leg.slot->short_up_bytes > 0);
	flow_close(&flow);
}

struct edge_writer {
	uint64_t total;
	int queued; /* in its own send queue when it was told to wait */
};

/* The container writes as nginx does, on edges of EPOLLOUT; the browser reads once that is stuck.
 */
static void write_by_edges(struct flow *flow, struct edge_writer *w, agent_fn *agent)
{
	struct epoll_event event = { .events = EPOLLOUT | EPOLLET };
	int epoll = epoll_create1(EPOLL_CLOEXEC);
	uint64_t last_ms = now_ms();
	bool stuck = false;

	epoll_ctl(epoll, EPOLL_CTL_ADD, flow->container, &event);
	w->queued = -1;
	while (flow->received < w->total && !tap_failure && now_ms() - last_ms < 1000) {
		size_t left = w->total - flow->sent < 4000 ? w->total - flow->sent : 4000;

		if (epoll_wait(epoll, &event, 1, stuck) == 1)
			stuck = false;
		if (!stuck && left && container_sends(flow, left, MSG_DONTWAIT) < 0) {
			stuck = true;
			if (w->queued < 0)
				ioctl(flow->container, SIOCOUTQ, &w->queued);
		}
		agent(flow);
		if ((w->queued >= 0 || !left) && browser_reads(flow, 65536))
			last_ms = now_ms();
	}
	close(epoll);
}

NAIVE(naive_stalls_a_writer)
{
	struct edge_writer w = { .total = 8u << 20 };

	DO(naive_responses(n, n->bpf->progs.naive_msg, true));
	DO(write_by_edges(&n->flow, &w, agent_idle));
	printf("# stalled after %llu of %llu bytes\n", (unsigned long long)n->flow.received,
	       (unsigned long long)w.total);
	ASSERT_EQ(w.queued, 0);
	ASSERT_TRUE(n->flow.received < w.total);
	ASSERT_EQ(n->flow.received, n->flow.sent);
}

CASE(ours_stalls_no_writer)
{
	struct edge_writer w = { .total = 8u << 20 };
	struct flow flow;

	DO(flow_standard(f, &flow, true));
	DO(write_by_edges(&flow, &w, agent_down));
	ASSERT_TRUE(w.queued > 0);
	ASSERT_EQ(flow.received, w.total);
	ASSERT_TRUE(engine_moved(&flow.leg) > 0);
	flow_close(&flow);
}

NAIVE(naive_leaves_what_came_before)
{
	struct flow *flow = &n->flow;
	char data[200];

	DO(naive_connect(n, false));
	ASSERT_EQ(send(flow->browser, "first", 5, 0), 5);
	ASSERT_TRUE(wait_for(flow->client, POLLIN));
	DO(naive_attach(n, n->bpf->progs.naive_verdict, BPF_SK_SKB_STREAM_VERDICT));
	DO(naive_send_to(n, flow->client, flow->upstream));
	DO(naive_put(n->bpf->maps.naive_socks, flow->upstream));
	DO(naive_put(n->bpf->maps.naive_socks, flow->client));
	ASSERT_TRUE(quiet(flow->container));
	/* it comes with the next */
	ASSERT_EQ(send(flow->browser, "second", 6, 0), 6);
	ASSERT_TRUE(wait_for(flow->container, POLLIN));
	for (int i = 0; i < 1000 && readable(flow->container) < 11; i++)
		poll(NULL, 0, 1);
	ASSERT_EQ(recv(flow->container, data, sizeof(data), MSG_DONTWAIT), 11);
}

CASE(ours_takes_what_came_before)
{
	struct flow flow;
	char data[200];
	int listener;

	flow_init(&flow);
	DO(flow_client(&flow, false));
	ASSERT_EQ(send(flow.browser, "first", 5, 0), 5);
	ASSERT_TRUE(wait_for(flow.client, POLLIN));
	DO(listener = listen_on("127.0.0.1", &flow.backend));
	DO(publish_one(f, DOMAIN, &flow.backend, KKM_ACTIVE));
	DO(flow_connect_to(f, &flow, listener, DOMAIN, KKM_SOCKMAP));
	ASSERT_EQ(flow.leg.slot->enrolled, 1);
	agent_up(&flow);
	ASSERT_TRUE(wait_for(flow.container, POLLIN));
	ASSERT_EQ(recv(flow.container, data, sizeof(data), MSG_DONTWAIT), 5);
	DO(expect_short(&flow, 100));
	flow_close(&flow);
	close(listener);
}

static int watch(int fd)
{
	struct epoll_event event = { .events = EPOLLIN | EPOLLET };
	int epoll = epoll_create1(EPOLL_CLOEXEC);

	epoll_ctl(epoll, EPOLL_CTL_ADD, fd, &event);
	return epoll;
}

/* Who waits for a socket, and how often the kernel woke it, with or without an event. */
struct sleeper {
	pthread_t thread;
	int epoll, stop[2];
	long woken;
};

static void *sleep_in_epoll(void *ctx)
{
	struct sleeper *s = ctx;
	struct epoll_event event;
	struct rusage before, after;

	getrusage(RUSAGE_THREAD, &before);
	epoll_wait(s->epoll, &event, 1, -1);
	getrusage(RUSAGE_THREAD, &after);
	s->woken = after.ru_nvcsw - before.ru_nvcsw;
	return NULL;
}

static void sleeper_start(struct sleeper *s, int fd)
{
	struct epoll_event event = { .events = EPOLLIN };

	s->epoll = watch(fd);
	ASSERT_EQ(pipe2(s->stop, O_CLOEXEC), 0);
	epoll_ctl(s->epoll, EPOLL_CTL_ADD, s->stop[0], &event);
	ASSERT_EQ(pthread_create(&s->thread, NULL, sleep_in_epoll, s), 0);
	poll(NULL, 0, 20);
}

/* How often it was woken before it was by us. */
static long sleeper_stop(struct sleeper *s)
{
	close(s->stop[1]);
	pthread_join(s->thread, NULL);
	close(s->stop[0]);
	close(s->epoll);
	printf("# woken %ld times in 50 messages\n", s->woken - 1);
	return s->woken - 1;
}

NAIVE(naive_wakes_for_nothing)
{
	struct sleeper sleeper;
	char data[200] = { 0 };

	DO(naive_proxy(n, false));
	DO(sleeper_start(&sleeper, n->flow.client));
	for (int i = 0; i < 50 && !tap_failure; i++) {
		send(n->flow.browser, data, 100, 0);
		if (!wait_for(n->flow.container, POLLIN))
			tap_failure = "the container has got nothing";
		recv(n->flow.container, data, sizeof(data), MSG_DONTWAIT);
		poll(NULL, 0, 1);
	}
	ASSERT_TRUE(sleeper_stop(&sleeper) > 25);
	ASSERT_EQ(recv(n->flow.client, data, sizeof(data), MSG_DONTWAIT), -1);
}

CASE(ours_lets_the_agent_sleep)
{
	struct sleeper sleeper;
	struct flow flow;

	DO(flow_standard(f, &flow, false));
	DO(sleeper_start(&sleeper, flow.upstream));
	for (int i = 0; i < 50 && !tap_failure; i++) {
		expect_short(&flow, 100);
		poll(NULL, 0, 1);
	}
	ASSERT_EQ(sleeper_stop(&sleeper), 0);
	flow_close(&flow);
}

NAIVE(naive_overtakes)
{
	struct flow *flow = &n->flow;
	unsigned char data[200];

	DO(naive_responses(n, n->bpf->progs.naive_msg_small, false));
	ASSERT_EQ(container_sends(flow, 8000, 0), 8000);
	ASSERT_EQ(container_sends(flow, 100, 0), 100);
	ASSERT_TRUE(wait_for(flow->browser, POLLIN));
	ASSERT_EQ(recv(flow->browser, data, sizeof(data), MSG_DONTWAIT), 100);
	ASSERT_TRUE(is_pattern(data, 8000, 100));
	ASSERT_EQ(readable(flow->upstream), 8000);
}

/* Room comes and goes, the agent has some of it or not: some messages pass, some do not. */
CASE(ours_keeps_the_order)
{
	struct flow flow;
	unsigned int seed = 1;

	DO(flow_standard(f, &flow, true));
	for (int i = 0; i < 2000; i++) {
		container_sends(&flow, (size_t)rand_r(&seed) % 9000 + 1, MSG_DONTWAIT);
		if (rand_r(&seed) % 4)
			agent_relays(&flow, (size_t)rand_r(&seed) % 16384 + 1);
		if (rand_r(&seed) % 4)
			DO(browser_reads(&flow, 65536));
	}
	for (int i = 0; i < 5000 && flow.received < flow.sent; i++) {
		if (!agent_relays(&flow, 16384))
			poll(NULL, 0, 1);
		DO(browser_reads(&flow, 65536));
	}
	ASSERT_EQ(flow.received, flow.sent);
	printf("# %llu bytes passed, %llu went the short way\n", (unsigned long long)flow.passed,
	       (unsigned long long)engine_moved(&flow.leg));
	ASSERT_TRUE(flow.passed > 0);
	ASSERT_TRUE(engine_moved(&flow.leg) > 0);
	flow_close(&flow);
}

NAIVE(naive_fin_breaks_recv)
{
	char data[200];

	DO(naive_proxy_ingress(n));
	ASSERT_EQ(send(n->flow.browser, data, 100, 0), 100);
	ASSERT_TRUE(wait_for(n->flow.container, POLLIN));
	ASSERT_EQ(recv(n->flow.container, data, sizeof(data), 0), 100);
	shutdown(n->flow.browser, SHUT_WR);
	ASSERT_TRUE(wait_for(n->flow.container, POLLIN));
	ASSERT_EQ(recv(n->flow.container, data, sizeof(data), MSG_DONTWAIT), -1);
	ASSERT_EQ(errno, EFAULT);
}

CASE(ours_fin_is_an_end)
{
	struct flow flow;
	char data[200];

	DO(flow_whole(f, &flow, false));
	ASSERT_EQ(send(flow.browser, data, 100, 0), 100);
	ASSERT_TRUE(wait_for(flow.client, POLLIN));
	agent_up(&flow);
	ASSERT_TRUE(wait_for(flow.container, POLLIN));
	ASSERT_EQ(recv(flow.container, data, sizeof(data), 0), 100);
	shutdown(flow.browser, SHUT_WR);
	ASSERT_TRUE(wait_for(flow.client, POLLIN));
	agent_up(&flow);
	ASSERT_TRUE(wait_for(flow.container, POLLIN));
	ASSERT_EQ(recv(flow.container, data, sizeof(data), MSG_DONTWAIT), 0);
	ASSERT_EQ(flow.leg.slot->short_up_bytes, 100);
	flow_close(&flow);
}

/* What splice(2) takes from a socket, or -1 and errno. */
static ssize_t splice_from(int fd, size_t len)
{
	ssize_t n = -1;
	int pipes[2], err, flags = fcntl(fd, F_GETFL);

	if (pipe2(pipes, O_CLOEXEC | O_NONBLOCK))
		return -1;
	fcntl(fd, F_SETFL, flags | O_NONBLOCK); /* SPLICE_F_NONBLOCK is for the pipe alone */
	n = splice(fd, NULL, pipes[1], NULL, len, SPLICE_F_NONBLOCK);
	err = errno;
	fcntl(fd, F_SETFL, flags);
	close(pipes[0]);
	close(pipes[1]);
	errno = err;
	return n;
}

static void expect_unspliceable(int fd)
{
	char data[200];

	for (int i = 0; i < 10; i++) {
		ASSERT_TRUE(wait_for(fd, POLLIN));
		ASSERT_EQ(splice_from(fd, 65536), -1);
		ASSERT_EQ(errno, EAGAIN);
		poll(NULL, 0, 5);
	}
	ASSERT_EQ(recv(fd, data, sizeof(data), MSG_DONTWAIT), 100);
}

NAIVE(naive_passed_cannot_be_spliced)
{
	char data[100] = { 0 };

	DO(naive_connect(n, false));
	DO(naive_attach(n, n->bpf->progs.naive_verdict_pass, BPF_SK_SKB_STREAM_VERDICT));
	DO(naive_put(n->bpf->maps.naive_socks, n->flow.container));
	ASSERT_EQ(send(n->flow.upstream, data, 100, 0), 100);
	DO(expect_unspliceable(n->flow.container));
}

NAIVE(naive_ingress_cannot_be_spliced)
{
	char data[100] = { 0 };

	DO(naive_requests(n, n->bpf->progs.naive_msg_ingress));
	ASSERT_EQ(send(n->flow.upstream, data, 100, 0), 100);
	DO(expect_unspliceable(n->flow.container));
}

CASE(ours_can_be_spliced)
{
	struct flow flow;
	char data[100] = { 0 };

	DO(flow_start(f, &flow, false, true));
	/* by the container */
	ASSERT_EQ(send(flow.upstream, data, 100, 0), 100);
	ASSERT_TRUE(wait_for(flow.container, POLLIN));
	ASSERT_EQ(splice_from(flow.container, 65536), 100);
	/* by the agent, of what is passed, and by the browser, of what is not */
	DO(expect_passed(&flow, 100));
	ASSERT_EQ(splice_from(flow.upstream, 65536), 100);
	ASSERT_EQ(send(flow.client, data, 100, 0), 100);
	engine_relayed(&flow.leg, 100, 0);
	ASSERT_TRUE(wait_for(flow.browser, POLLIN));
	ASSERT_EQ(recv(flow.browser, data, 100, 0), 100);
	flow.received = flow.sent;
	engine_begin(&flow.leg);
	ASSERT_EQ(container_sends(&flow, 100, 0), 100);
	ASSERT_TRUE(wait_for(flow.browser, POLLIN));
	ASSERT_EQ(splice_from(flow.browser, 65536), 100);
	ASSERT_EQ(engine_moved(&flow.leg), 100);
	flow_close(&flow);
}

/* The kernel's own fault, in a map without any verdict: ours has it too, and the agent knows. */
NAIVE(naive_hides_bytes_from_fionread)
{
	char data[200] = { 0 };

	DO(naive_connect(n, false));
	DO(naive_put(n->bpf->maps.naive_targets, n->flow.container));
	ASSERT_EQ(send(n->flow.upstream, data, 100, 0), 100);
	ASSERT_TRUE(wait_for(n->flow.container, POLLIN));
	if (readable(n->flow.container) == 100) {
		tap_skipped = "this kernel counts right";
		return;
	}
	ASSERT_EQ(readable(n->flow.container), 0);
	DO(naive_delete(n->bpf->maps.naive_targets, n->flow.container));
	ASSERT_EQ(readable(n->flow.container), 100);
	ASSERT_EQ(recv(n->flow.container, data, sizeof(data), MSG_DONTWAIT), 100);
}

CASE(ours_gives_fionread_back)
{
	struct flow flow;
	char data[100] = { 0 };

	DO(flow_standard(f, &flow, false));
	engine_leave(&flow.leg);
	ASSERT_EQ(send(flow.upstream, data, 100, 0), 100);
	ASSERT_TRUE(wait_for(flow.container, POLLIN));
	ASSERT_EQ(readable(flow.container), 100);
	flow_close(&flow);
}

NAIVE(naive_ingress_overtakes)
{
	struct flow *flow = &n->flow;
	unsigned char data[9000];

	DO(naive_requests(n, n->bpf->progs.naive_msg_ingress_small));
	ASSERT_EQ(send_pattern(flow->upstream, 0, 8000, 0), 8000);
	ASSERT_TRUE(wait_for(flow->container, POLLIN));
	ASSERT_EQ(send_pattern(flow->upstream, 8000, 100, 0), 100);
	ASSERT_EQ(recv(flow->container, data, sizeof(data), MSG_DONTWAIT), 100);
	ASSERT_TRUE(is_pattern(data, 8000, 100));
	ASSERT_EQ(recv(flow->container, data, sizeof(data), MSG_DONTWAIT), 8000);
	ASSERT_TRUE(is_pattern(data, 0, 8000));
}

CASE(ours_keeps_requests_in_order)
{
	static unsigned char data[65536];
	uint64_t sent = 0, received = 0, deadline_ms;
	unsigned int seed = 2;
	struct flow flow;
	ssize_t len;

	DO(flow_whole(f, &flow, false));
	for (int i = 0; i < 2000; i++) {
		if (rand_r(&seed) % 64 == 0)
			engine_set_bulk(&flow.leg, rand_r(&seed) % 2);
		len = send_request(&flow, sent, (size_t)rand_r(&seed) % 9000 + 1, MSG_DONTWAIT);
		sent += len > 0 ? (uint64_t)len : 0;
		if (rand_r(&seed) % 16)
			continue;
		len = recv(flow.container, data, (size_t)rand_r(&seed) % sizeof(data) + 1,
			   MSG_DONTWAIT);
		ASSERT_TRUE(len <= 0 || is_pattern(data, received, (size_t)len));
		received += len > 0 ? (uint64_t)len : 0;
	}
	deadline_ms = now_ms() + WAIT_MS;
	while (received < sent && now_ms() < deadline_ms) {
		ASSERT_TRUE(wait_for(flow.container, POLLIN));
		len = recv(flow.container, data, sizeof(data), MSG_DONTWAIT);
		ASSERT_TRUE(len <= 0 || is_pattern(data, received, (size_t)len));
		received += len > 0 ? (uint64_t)len : 0;
	}
	ASSERT_EQ(received, sent);
	printf("# %llu bytes passed, %llu went the short way\n",
	       (unsigned long long)(sent - flow.leg.slot->short_up_bytes),
	       (unsigned long long)flow.leg.slot->short_up_bytes);
	ASSERT_TRUE(flow.leg.slot->short_up_bytes > 0 && flow.leg.slot->short_up_bytes < sent);
	flow_close(&flow);
}

/* Blocks in recv() in a thread of its own, as the simplest of servers does. */
struct reader {
	pthread_t thread;
	int fd, flags;
	size_t want;
	ssize_t got;
	bool done;
};

static void *read_blocking(void *ctx)
{
	struct reader *r = ctx;
	char data[16384];

	r->got = recv(r->fd, data, r->want, r->flags);
	__atomic_store_n(&r->done, true, __ATOMIC_SEQ_CST);
	return NULL;
}

static void reader_start(struct reader *r, int fd, size_t want, int flags)
{
	*r = (struct reader){.fd = fd, .want = want, .flags = flags};
	ASSERT_EQ(pthread_create(&r->thread, NULL, read_blocking, r), 0);
	poll(NULL, 0, 50); /* until it sleeps */
}

/* Did it return by itself? If not, it is woken. */
static bool reader_returned(struct reader *r)
{
	uint64_t deadline_ms = now_ms() + 2 * QUIET_MS;
	bool done;

	while (!__atomic_load_n(&r->done, __ATOMIC_SEQ_CST) && now_ms() < deadline_ms)
		poll(NULL, 0, 1);
	done = __atomic_load_n(&r->done, __ATOMIC_SEQ_CST);
	if (!done)
		shutdown(r->fd, SHUT_RDWR);
	pthread_join(r->thread, NULL);
	return done;
}

NAIVE(naive_ingress_stalls_who_waits)
{
	struct flow *flow = &n->flow;
	struct reader r;

	DO(naive_connect(n, false));
	DO(naive_attach(n, n->bpf->progs.naive_msg_ingress, BPF_SK_MSG_VERDICT));
	DO(naive_send_to(n, flow->upstream, flow->container));
	DO(reader_start(&r, flow->container, 100, 0));
	naive_put(n->bpf->maps.naive_targets, flow->container);
	naive_put(n->bpf->maps.naive_socks, flow->upstream);
	send_pattern(flow->upstream, 0, 100, 0);
	ASSERT_TRUE(!reader_returned(&r));
}

CASE(ours_stalls_nobody_who_waits)
{
	struct flow flow;
	struct reader r;

	DO(flow_whole(f, &flow, false));
	for (int i = 0; i < 5; i++) {
		DO(reader_start(&r, flow.container, 100, 0));
		send_request(&flow, 0, 100, 0);
		ASSERT_TRUE(reader_returned(&r));
		ASSERT_EQ(r.got, 100);
	}
	ASSERT_EQ(flow.leg.slot->short_up_bytes, 500);
	flow_close(&flow);
}

NAIVE(naive_ingress_returns_early)
{
	struct reader r;

	DO(naive_requests(n, n->bpf->progs.naive_msg_ingress));
	DO(reader_start(&r, n->flow.container, 2000, MSG_WAITALL));
	send_pattern(n->flow.upstream, 0, 1000, 0);
	ASSERT_TRUE(reader_returned(&r));
	ASSERT_EQ(r.got, 1000);
}

/* It waits in TCP's own queue, though that is empty and has been read to its end by now. */
NAIVE(naive_ingress_stalls_wait_for_all)
{
	struct reader r;

	DO(naive_requests(n, n->bpf->progs.naive_msg_ingress_small));
	send_pattern(n->flow.upstream, 0, 8000, 0);
	ASSERT_TRUE(wait_for(n->flow.container, POLLIN));
	DO(reader_start(&r, n->flow.container, 8100, MSG_WAITALL));
	send_pattern(n->flow.upstream, 8000, 100, 0);
	ASSERT_TRUE(!reader_returned(&r));
	ASSERT_EQ(r.got, 8000);
}

CASE(ours_waits_for_all)
{
	static const size_t first[] = { 1000, 8000 };
	struct flow flow;
	struct reader r;

	DO(flow_standard(f, &flow, false));
	for (int i = 0; i < 2; i++) {
		send_pattern(flow.upstream, 0, first[i], 0);
		ASSERT_TRUE(wait_for(flow.container, POLLIN));
		DO(reader_start(&r, flow.container, first[i] + 100, MSG_WAITALL));
		send_pattern(flow.upstream, first[i], 100, 0);
		ASSERT_TRUE(reader_returned(&r));
		ASSERT_EQ(r.got, first[i] + 100);
	}
	flow_close(&flow);
}

/*
 * Event loops take a short read for the end of what is there, and spare themselves the EAGAIN
 * (tokio does). TCP behind INGRESS bytes is read by a second recv() only, and its edge is gone by
 * then.
 */
static size_t read_by_edges(int fd, int epoll, size_t want, int timeout_ms)
{
	static char data[65536];
	struct epoll_event event;
	size_t total = 0;
	ssize_t n;

	while (total < want && epoll_wait(epoll, &event, 1, timeout_ms) == 1) {
		do {
			n = recv(fd, data, sizeof(data), MSG_DONTWAIT);
			total += n > 0 ? (size_t)n : 0;
		} while (n == sizeof(data));
	}
	return total;
}

NAIVE(naive_ingress_stalls_on_short_read)
{
	struct flow *flow = &n->flow;
	char data[9000];
	int epoll;

	DO(naive_requests(n, n->bpf->progs.naive_msg_ingress_small));
	epoll = watch(flow->container);
	ASSERT_EQ(send_pattern(flow->upstream, 0, 100, 0), 100);
	ASSERT_EQ(send_pattern(flow->upstream, 100, 8000, 0), 8000);
	ASSERT_EQ(read_by_edges(flow->container, epoll, 8100, QUIET_MS), 100);
	ASSERT_EQ(recv(flow->container, data, sizeof(data), MSG_DONTWAIT), 8000);
	close(epoll);
}

/* What does not fit into the container's socket is held until it has read: never two parts at once. */
CASE(ours_needs_no_second_read)
{
	unsigned int held = 0;
	int epoll, fixed = 65536;
	struct flow flow;

	DO(flow_whole(f, &flow, false));
	ASSERT_EQ(setsockopt(flow.container, SOL_SOCKET, SO_RCVBUF, &fixed, sizeof(fixed)), 0);
	epoll = watch(flow.container);
	for (size_t turn = 0; turn < 40; turn++) {
		size_t in = 0, len = 10000 + turn * 10000;

		/* bulk and back, while something is unread and while nothing is */
		if (turn % 4 == 3)
			engine_set_bulk(&flow.leg, turn % 8 == 3);
		while (in < len && send_request(&flow, in, 10000, MSG_DONTWAIT) == 10000)
			in += 10000;
		held += in < len;
		ASSERT_EQ(read_by_edges(flow.container, epoll, in, WAIT_MS), in);
	}
	ASSERT_TRUE(held > 0);
	ASSERT_TRUE(flow.leg.slot->short_up_bytes > 0);
	close(epoll);
	flow_close(&flow);
}

NAIVE(naive_ingress_is_gone_with_the_key)
{
	unsigned char data[2000];

	DO(naive_requests(n, n->bpf->progs.naive_msg_ingress));
	ASSERT_EQ(send_pattern(n->flow.upstream, 0, 1000, 0), 1000);
	ASSERT_TRUE(wait_for(n->flow.container, POLLIN));
	/* the source's key is of no account */
	DO(naive_delete(n->bpf->maps.naive_socks, n->flow.upstream));
	ASSERT_EQ(recv(n->flow.container, data, sizeof(data), MSG_PEEK | MSG_DONTWAIT), 1000);
	DO(naive_delete(n->bpf->maps.naive_targets, n->flow.container));
	ASSERT_EQ(recv(n->flow.container, data, sizeof(data), MSG_DONTWAIT), -1);
	ASSERT_EQ(errno, EAGAIN);
}

/* The program that is attached keeps the map, and the socket the program; this one knows no map. */
NAIVE(naive_ingress_is_gone_with_the_agent)
{
	unsigned char data[2000];
	int container;

	DO(naive_requests(n, n->bpf->progs.naive_msg_ingress));
	ASSERT_EQ(send_pattern(n->flow.upstream, 0, 1000, 0), 1000);
	container = n->flow.container;
	n->flow.container = -1;
	naive_close(n);
	n->bpf = NULL;
	flow_init(&n->flow);
	n->flow.container = container;
	ASSERT_TRUE(wait_for(container, POLLIN));
	/* maps go after a grace period */
	for (int i = 0; i < 100; i++) {
		if (recv(container, data, sizeof(data), MSG_PEEK | MSG_DONTWAIT) <= 0)
			break;
		poll(NULL, 0, 20);
	}
	ASSERT_EQ(recv(container, data, sizeof(data), MSG_DONTWAIT), 0);
}

/* Unread when the leg ends, by whichever way: the container still gets it, and the end behind it.
 */
CASE(ours_leaves_requests_readable)
{
	unsigned char data[2000];
	struct flow flow;

	for (int i = 0; i < 3; i++) {
		DO(flow_whole(f, &flow, false));
		ASSERT_EQ(send_request(&flow, 0, 1000, 0), 1000);
		ASSERT_EQ(flow.leg.slot->short_up_bytes, 1000);
		if (i == 0)
			engine_leave(&flow.leg);
		else
			engine_close(&flow.leg);
		if (i == 2)
			datapath_close(&f->datapath);
		close_fd(&flow.upstream);
		poll(NULL, 0, i == 2 ? QUIET_MS : 0);
		ASSERT_TRUE(wait_for(flow.container, POLLIN));
		ASSERT_EQ(recv(flow.container, data, sizeof(data), MSG_DONTWAIT), 1000);
		ASSERT_TRUE(is_pattern(data, 0, 1000));
		ASSERT_TRUE(wait_for(flow.container, POLLIN));
		ASSERT_EQ(recv(flow.container, data, sizeof(data), MSG_DONTWAIT), 0);
		flow_close(&flow);
	}
}

/* With MSG_ZEROCOPY; then everything is read at the other end, and is there word of it? */
static bool completion_comes(struct flow *flow)
{
	struct msghdr message = { 0 };
	char control[256];

	for (int i = 0; i < QUIET_MS; i++) {
		message.msg_control = control;
		message.msg_controllen = sizeof(control);
		if (recvmsg(flow->container, &message, MSG_ERRQUEUE | MSG_DONTWAIT) == 0)
			return true;
		poll(NULL, 0, 1);
	}
	return false;
}

NAIVE(naive_completion_never_comes)
{
	struct flow *flow = &n->flow;
	int on = 1;

	DO(naive_responses(n, n->bpf->progs.naive_msg, false));
	ASSERT_EQ(setsockopt(flow->container, SOL_SOCKET, SO_ZEROCOPY, &on, sizeof(on)), 0);
	ASSERT_EQ(container_sends(flow, 20000, MSG_ZEROCOPY), 20000);
	DO(browser_expects(flow, 20000));
	ASSERT_TRUE(!completion_comes(flow));
}

CASE(ours_completion_comes)
{
	struct flow flow;
	int on = 1;

	DO(flow_standard(f, &flow, false));
	ASSERT_EQ(setsockopt(flow.container, SOL_SOCKET, SO_ZEROCOPY, &on, sizeof(on)), 0);
	ASSERT_EQ(container_sends(&flow, 20000, MSG_ZEROCOPY), 20000);
	while (flow.passed < 20000 && wait_for(flow.upstream, POLLIN))
		agent_relays(&flow, 16384);
	DO(browser_expects(&flow, 20000));
	ASSERT_TRUE(completion_comes(&flow));
	flow_close(&flow);
}

/* Fills the way to the agent until there is EAGAIN, empties it, and sends once more. */
static void send_around_eagain(struct flow *flow)
{
	while (container_sends(flow, 300000, MSG_DONTWAIT) > 0)
		ASSERT_TRUE(flow->sent < FLOOD);
	for (int i = 0; i < 5000 && flow->passed < flow->sent; i++) {
		if (!agent_relays(flow, 16384))
			poll(NULL, 0, 1);
		browser_reads(flow, 65536);
	}
	DO(browser_expects(flow, flow->sent));
	ASSERT_EQ(container_sends(flow, 100, MSG_DONTWAIT), 100);
}

NAIVE(naive_miscounts)
{
	uint64_t counted = 0;
	uint32_t zero = 0;

	DO(naive_responses(n, n->bpf->progs.naive_msg_counted, false));
	for (int i = 0; i < 3; i++)
		DO(send_around_eagain(&n->flow));
	ASSERT_EQ(bpf_map_lookup_elem(map_fd(n->bpf->maps.naive_counted), &zero, &counted), 0);
	printf("# %llu bytes sent, %llu counted\n", (unsigned long long)n->flow.sent,
	       (unsigned long long)counted);
	ASSERT_TRUE(counted != n->flow.sent);
}

CASE(ours_counts_right)
{
	struct flow flow;

	DO(flow_start(f, &flow, false, true));
	for (int i = 0; i < 3; i++)
		DO(send_around_eagain(&flow));
	while (flow.passed < flow.sent && wait_for(flow.upstream, POLLIN))
		agent_relays(&flow, 16384);
	engine_begin(&flow.leg);
	DO(browser_expects(&flow, flow.sent));
	for (int i = 0; i < 5; i++)
		DO(expect_short(&flow, 100));
	flow_close(&flow);
}

/* False where this kernel has none; then the case is skipped. */
static bool kernel_tls(int fd)
{
	struct tls12_crypto_info_aes_gcm_128 keys = {
		.info = { .version = TLS_1_2_VERSION, .cipher_type = TLS_CIPHER_AES_GCM_128}};

	if (setsockopt(fd, IPPROTO_TCP, TCP_ULP, "tls", 4))
		tap_skipped = "this kernel has no TLS";
	else if (setsockopt(fd, SOL_TLS, TLS_TX, &keys, sizeof(keys)))
		tap_skipped = "this kernel refuses keys for TLS on a socket in a sockmap";
	return !tap_skipped && !tap_failure;
}

NAIVE(naive_sends_plaintext)
{
	struct flow *flow = &n->flow;

	DO(naive_responses(n, n->bpf->progs.naive_msg, false));
	if (!kernel_tls(flow->container))
		return;
	ASSERT_EQ(container_sends(flow, 100, 0), 100);
	DO(browser_expects(flow, 100));
}

CASE(ours_passes_records)
{
	unsigned char data[200];
	struct flow flow;

	DO(flow_standard(f, &flow, false));
	if (kernel_tls(flow.container)) {
		ASSERT_EQ(container_sends(&flow, 100, 0), 100);
		ASSERT_TRUE(wait_for(flow.upstream, POLLIN));
		ASSERT_TRUE(recv(flow.upstream, data, sizeof(data), MSG_DONTWAIT) > 100);
		ASSERT_EQ(data[0], 0x17);
		ASSERT_EQ(engine_moved(&flow.leg), 0);
	}
	flow_close(&flow);
}

/* A listener of Go's; whether its sockets are enrolled is for the program to say. */
CASE(ours_mptcp_listener)
{
	struct flow flow;
	socklen_t len = sizeof(flow.backend);
	int listener = socket(AF_INET, SOCK_STREAM | SOCK_CLOEXEC, IPPROTO_MPTCP);

	if (listener < 0) {
		tap_skipped = "this kernel has no MPTCP";
		return;
	}
	flow_init(&flow);
	DO(flow_client(&flow, false));
	address_parse("127.0.0.1", 0, &flow.backend);
	ASSERT_EQ(bind(listener, (struct sockaddr *)&flow.backend, address_len(&flow.backend)), 0);
	ASSERT_EQ(listen(listener, 1), 0);
	ASSERT_EQ(getsockname(listener, (struct sockaddr *)&flow.backend, &len), 0);
	DO(publish_one(f, DOMAIN, &flow.backend, KKM_ACTIVE));
	DO(flow_connect_to(f, &flow, listener, DOMAIN, KKM_SOCKMAP));
	ASSERT_EQ(transfer(&flow, flow.browser, flow.container, agent_up), UPLOAD);
	ASSERT_EQ(transfer(&flow, flow.container, flow.browser, agent_down), UPLOAD);
	flow_close(&flow);
	close(listener);
}

static const struct tap_case cases[] = {
	{ "naive: an upload loses bytes at close (shown)", naive_loses_at_close },
	{ "ours: nothing is lost at close, either way", ours_loses_nothing_at_close },
	{ "naive: a verdict knows no backpressure (shown)", naive_verdict_has_no_backpressure },
	{ "naive: a verdict with INGRESS knows none (shown)",
	  naive_verdict_ingress_has_no_backpressure },
	{ "naive: a message with INGRESS knows none (shown)",
	  naive_msg_ingress_has_no_backpressure },
	{ "ours: a flood is held back, either way", ours_has_backpressure },
	{ "naive: a non-blocking writer stalls (shown)", naive_stalls_a_writer },
	{ "ours: a non-blocking writer gets done", ours_stalls_no_writer },
	{ "naive: what came before the insert stays there (shown)", naive_leaves_what_came_before },
	{ "ours: what came before arrives", ours_takes_what_came_before },
	{ "naive: the agent wakes for nothing (shown)", naive_wakes_for_nothing },
	{ "ours: the agent sleeps", ours_lets_the_agent_sleep },
	{ "naive: a small message overtakes a large one (shown)", naive_overtakes },
	{ "ours: messages stay in order", ours_keeps_the_order },
	{ "naive: a FIN breaks recv() (shown)", naive_fin_breaks_recv },
	{ "ours: a FIN is an end", ours_fin_is_an_end },
	{ "naive: what a verdict passes cannot be spliced (shown)",
	  naive_passed_cannot_be_spliced },
	{ "naive: what came by INGRESS cannot be spliced (shown)",
	  naive_ingress_cannot_be_spliced },
	{ "ours: everything can be spliced", ours_can_be_spliced },
	{ "naive: FIONREAD says 0 (shown)", naive_hides_bytes_from_fionread },
	{ "ours: FIONREAD is right once the socket is off the short way",
	  ours_gives_fionread_back },
	{ "naive: INGRESS overtakes what was passed (shown)", naive_ingress_overtakes },
	{ "ours: requests stay in order", ours_keeps_requests_in_order },
	{ "naive: who waits in recv() is not woken by INGRESS (shown)",
	  naive_ingress_stalls_who_waits },
	{ "ours: who waits in recv() is woken", ours_stalls_nobody_who_waits },
	{ "naive: MSG_WAITALL returns early with INGRESS (shown)", naive_ingress_returns_early },
	{ "naive: MSG_WAITALL does not see INGRESS (shown)", naive_ingress_stalls_wait_for_all },
	{ "ours: MSG_WAITALL waits for all", ours_waits_for_all },
	{ "naive: a reader that stops at a short read stalls (shown)",
	  naive_ingress_stalls_on_short_read },
	{ "ours: a reader that stops at a short read has read all", ours_needs_no_second_read },
	{ "naive: INGRESS bytes are gone with the map's key (shown)",
	  naive_ingress_is_gone_with_the_key },
	{ "naive: INGRESS bytes are gone with the map (shown)",
	  naive_ingress_is_gone_with_the_agent },
	{ "ours: unread requests outlive leg and maps", ours_leaves_requests_readable },
	{ "naive: a zero-copy completion never comes (shown)", naive_completion_never_comes },
	{ "ours: a zero-copy completion comes", ours_completion_comes },
	{ "naive: the sizes seen are not what was sent (shown)", naive_miscounts },
	{ "ours: what was sent is known after EAGAIN", ours_counts_right },
	{ "naive: kernel TLS is sent in the clear (shown)", naive_sends_plaintext },
	{ "ours: kernel TLS is passed", ours_passes_records },
	{ "ours: an MPTCP listener is served", ours_mptcp_listener },
};

TAP_MAIN(cases)
