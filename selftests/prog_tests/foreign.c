// SPDX-License-Identifier: MIT
/*
 * Another network namespace of the same cgroup holds the very addresses and ports of a connection
 * that the agent is opening. A filter on the container's listening socket keeps the real one
 * waiting meanwhile, so that its entry in kkm_pending is there to be found.
 */
#include "fixture.h"

#include <linux/filter.h>
#include <net/if.h>
#include <sched.h>
#include <sys/wait.h>

/* Drops every segment: the SYN is not answered. */
static struct sock_filter drop_all[] = { { BPF_RET | BPF_K, 0, 0, 0 } };
/* Passes those with SYN alone: the handshake's last ACK is lost, its answer is not. */
static struct sock_filter drop_acks[] = {
	{ BPF_LD | BPF_B | BPF_ABS, 0, 0, 13 },
	{ BPF_JMP | BPF_JSET | BPF_K, 0, 1, 0x02 },
	{ BPF_RET | BPF_K, 0, 0, 0xffffffff },
	{ BPF_RET | BPF_K, 0, 0, 0 },
};

static void filter(int listener, struct sock_filter *program, unsigned short len)
{
	struct sock_fprog fprog = { .len = len, .filter = program };

	ASSERT_EQ(setsockopt(listener, SOL_SOCKET, SO_ATTACH_FILTER, &fprog, sizeof(fprog)), 0);
}

static bool lo_up(void)
{
	struct ifreq request = { .ifr_name = "lo", .ifr_flags = IFF_UP };
	int fd = socket(AF_INET, SOCK_DGRAM | SOCK_CLOEXEC, 0);
	bool up = fd >= 0 && !ioctl(fd, SIOCSIFFLAGS, &request);

	close(fd);
	return up;
}

/* In the child: a connection from `from` to `to`, and some bytes both ways. The exit status. */
static int foreign_connection(const struct sockaddr_storage *from,
			      const struct sockaddr_storage *to)
{
	socklen_t len = address_len(to);
	int listener, near, far, on = 1;
	char data[100] = { 0 };

	alarm(20);
	if (unshare(CLONE_NEWNET) || !lo_up())
		return 2;
	listener = socket(to->ss_family, SOCK_STREAM, 0);
	near = socket(from->ss_family, SOCK_STREAM, 0);
	setsockopt(near, SOL_SOCKET, SO_REUSEADDR, &on, sizeof(on));
	if (bind(listener, (const struct sockaddr *)to, len) || listen(listener, 1) ||
	    bind(near, (const struct sockaddr *)from, len) ||
	    connect(near, (const struct sockaddr *)to, len))
		return 3;
	far = accept(listener, NULL, NULL);
	/* an answer of a stranger must not reach our client */
	if (far < 0 || send(far, data, sizeof(data), 0) != sizeof(data))
		return 4;
	return wait_for(near, POLLIN) && recv(near, data, sizeof(data), MSG_WAITALL) == sizeof(data)
		       ? 0
		       : 5;
}

static void run_foreign(struct flow *flow)
{
	struct sockaddr_storage local;
	socklen_t len = sizeof(local);
	int status = -1;
	pid_t child;

	ASSERT_EQ(getsockname(flow->upstream, (struct sockaddr *)&local, &len), 0);
	fflush(stdout);
	child = fork();
	if (!child)
		_exit(foreign_connection(&local, &flow->backend));
	ASSERT_TRUE(child > 0);
	ASSERT_EQ(waitpid(child, &status, 0), child);
	ASSERT_EQ(status, 0);
}

static void open_filtered(struct fixture *f, struct flow *flow, int *listener,
			  struct sock_filter *program, unsigned short len)
{
	flow_init(flow);
	DO(flow_client(flow, false));
	DO(*listener = listen_on("127.0.0.1", &flow->backend));
	DO(publish_one(f, DOMAIN, &flow->backend, KKM_ACTIVE));
	DO(filter(*listener, program, len));
	DO(flow_open(f, flow, DOMAIN, KKM_SOCKMAP, SOCK_NONBLOCK));
	ASSERT_EQ(connect(flow->upstream, (struct sockaddr *)&flow->backend,
			  address_len(&flow->backend)),
		  -1);
	ASSERT_EQ(errno, EINPROGRESS);
	ASSERT_EQ(count_entries("kkm_pending"), 1);
}

static void expect_foreign_ignored(struct flow *flow)
{
	struct kkm_stats before = stats();

	for (unsigned int i = 1; i <= 3; i++) {
		DO(run_foreign(flow));
		ASSERT_EQ(flow->leg.slot->enrolled, 0);
		ASSERT_EQ(stats().sockmap_foreign - before.sockmap_foreign, i);
		ASSERT_EQ(stats().sockmap_enrolled - before.sockmap_enrolled, 0);
		ASSERT_EQ(count_entries("kkm_containers"), 0);
		/* the real one still finds what it needs */
		ASSERT_EQ(count_entries("kkm_pending"), 1);
		ASSERT_EQ(recv(flow->browser, (char[8]){ 0 }, 8, MSG_DONTWAIT), -1);
	}
}

static void expect_real_enrolled(struct flow *flow, int listener)
{
	DO(flow->container = accept_one(listener));
	settle(flow->container);
	ASSERT_EQ(flow->leg.slot->enrolled, 1);
	ASSERT_EQ(count_entries("kkm_pending"), 0);
	fcntl(flow->upstream, F_SETFL, 0);
}

CASE(while_connecting)
{
	struct flow flow;
	int listener, on = 1;

	DO(open_filtered(f, &flow, &listener, drop_all, 1));
	DO(expect_foreign_ignored(&flow));
	/* the SYN is sent again within a second */
	ASSERT_EQ(setsockopt(listener, SOL_SOCKET, SO_DETACH_FILTER, &on, sizeof(on)), 0);
	ASSERT_TRUE(wait_for(flow.upstream, POLLOUT));
	DO(expect_real_enrolled(&flow, listener));
	DO(expect_short(&flow, 1000));
	flow_close(&flow);
	close(listener);
}

/* The agent's end is established and its sequence numbers known; the container's is late. */
CASE(while_established_at_one_end)
{
	struct flow flow;
	int listener, on = 1;
	char data[100];

	DO(open_filtered(f, &flow, &listener, drop_acks, 4));
	ASSERT_TRUE(wait_for(flow.upstream, POLLOUT));
	DO(expect_foreign_ignored(&flow));
	ASSERT_EQ(setsockopt(listener, SOL_SOCKET, SO_DETACH_FILTER, &on, sizeof(on)), 0);
	/* the request brings the lost acknowledgement with it */
	ASSERT_EQ(send(flow.upstream, "GET / HTTP/1.1\r\n", 16, 0), 16);
	DO(expect_real_enrolled(&flow, listener));
	ASSERT_TRUE(wait_for(flow.container, POLLIN));
	ASSERT_EQ(recv(flow.container, data, sizeof(data), MSG_DONTWAIT), 16);
	DO(expect_short(&flow, 1000));
	flow_close(&flow);
	close(listener);
}

/* A container outside of the cgroup that is watched: never enrolled, and nothing lingers. */
CASE(outside_of_the_cgroup)
{
	struct kkm_stats before = stats();
	struct flow flow;
	int listener;

	flow_init(&flow);
	DO(flow_client(&flow, false));
	ASSERT_TRUE(join_cgroup(f->cgroup_before));
	DO(listener = listen_on("127.0.0.1", &flow.backend));
	ASSERT_TRUE(join_cgroup(f->cgroup));
	DO(publish_one(f, DOMAIN, &flow.backend, KKM_ACTIVE));
	DO(flow_connect_to(f, &flow, listener, DOMAIN, KKM_SOCKMAP));
	ASSERT_EQ(flow.leg.slot->enrolled, 0);
	ASSERT_EQ(count_entries("kkm_pending"), 1);
	DO(expect_passed(&flow, 1000));
	/* here it is the established end with known numbers that a stranger meets */
	ASSERT_EQ(stats().sockmap_foreign - before.sockmap_foreign, 0);
	flow_close(&flow);
	ASSERT_EQ(count_entries("kkm_pending"), 0);
	close(listener);
}

/* As before, with a request body: the agent leaves, and what was noted must still go at close. */
CASE(outside_of_the_cgroup_and_left)
{
	struct flow flow;
	int listener;

	flow_init(&flow);
	DO(flow_client(&flow, false));
	ASSERT_TRUE(join_cgroup(f->cgroup_before));
	DO(listener = listen_on("127.0.0.1", &flow.backend));
	ASSERT_TRUE(join_cgroup(f->cgroup));
	DO(publish_one(f, DOMAIN, &flow.backend, KKM_ACTIVE));
	for (int i = 0; i < 2 * MAX_CONNS; i++) {
		DO(flow_connect_to(f, &flow, listener, DOMAIN, KKM_SOCKMAP));
		engine_leave(&flow.leg);
		engine_close(&flow.leg);
		close_fd(&flow.upstream);
		close_fd(&flow.container);
		ASSERT_EQ(count_entries("kkm_pending"), 0);
	}
	flow_close(&flow);
	close(listener);
}

static const struct tap_case cases[] = {
	{ "equal addresses elsewhere while connecting", while_connecting },
	{ "equal addresses elsewhere while one end is established", while_established_at_one_end },
	{ "a container outside of the cgroup", outside_of_the_cgroup },
	{ "a container outside of the cgroup, left before its end", outside_of_the_cgroup_and_left },
};

TAP_MAIN(cases)
