// SPDX-License-Identifier: MIT
/* What happens at the same time: the agent and the container's threads, and sockets of closed legs. */
#include "fixture.h"

#include <linux/userfaultfd.h>
#include <pthread.h>
#include <stdatomic.h>
#include <sys/mman.h>
#include <sys/syscall.h>

#define PIECES 40
#define PIECE 100
#define FEW_ROUNDS 2000 /* in two seconds; real processors make thousands */

/* As flow_standard(), in HTTP, and requests may be put into the container's socket. */
static void flow_requests(struct fixture *f, struct flow *flow)
{
	int listener;

	flow_init(flow);
	flow->hold = flow->requests = true;
	DO(flow_client(flow, false));
	DO(listener = listen_on("127.0.0.1", &flow->backend));
	DO(publish_one(f, DOMAIN, &flow->backend, KKM_ACTIVE));
	DO(flow_connect_to(f, flow, listener, DOMAIN, KKM_SOCKMAP));
	close_fd(&listener);
}

struct writer {
	struct flow *flow;
	atomic_int turn; /* 1: write, 0: written, -1: end */
};

static void *write_pieces(void *ctx)
{
	struct writer *w = ctx;
	char data[PIECE] = { 0 };
	int turn;

	while ((turn = atomic_load(&w->turn)) >= 0) {
		if (!turn)
			continue;
		for (int i = 0; i < PIECES; i++)
			send(w->flow->container, data, PIECE, MSG_NOSIGNAL);
		atomic_store(&w->turn, 0);
	}
	return NULL;
}

/* What has been taken back goes by the short way no more, and what is left is what comes. */
static void take_in_the_middle(struct flow *flow, struct writer *w, unsigned int spin,
			       unsigned int *middle)
{
	static const char head[] = "HTTP/1.1 200 OK\r\nContent-Length: 4000\r\n\r\n";
	struct engine_answer answer;
	static char data[65536];
	size_t passed = 0;
	uint64_t moved;

	ASSERT_TRUE(engine_arm(&flow->leg));
	ASSERT_EQ(send(flow->container, head, sizeof(head) - 1, MSG_NOSIGNAL), sizeof(head) - 1);
	atomic_store(&w->turn, 1);
	for (volatile unsigned int i = 0; i < spin; i++)
		;
	ASSERT_TRUE(engine_take_answer(&flow->leg, &answer));
	moved = engine_moved(&flow->leg);
	while (atomic_load(&w->turn) == 1)
		;
	ASSERT_EQ(engine_moved(&flow->leg), moved);
	ASSERT_TRUE(answer.begun);
	while (passed < answer.left) {
		ssize_t n;

		ASSERT_TRUE(wait_for(flow->upstream, POLLIN));
		n = recv(flow->upstream, data, sizeof(data), MSG_DONTWAIT);
		ASSERT_TRUE(n > 0);
		passed += (size_t)n;
	}
	ASSERT_EQ(passed, answer.left);
	engine_relayed(&flow->leg, passed, 0);
	while (recv(flow->browser, data, sizeof(data), MSG_DONTWAIT) > 0)
		;
	*middle += answer.left && answer.left < PIECES * PIECE;
}

CASE(taken_in_the_middle)
{
	unsigned int rounds = 0, middle = 0, seed = (unsigned int)now_ms();
	uint64_t end_ms = now_ms() + 2000;
	struct flow flow;
	struct writer w = { .flow = &flow };
	pthread_t thread;

	DO(flow_start(f, &flow, false, true));
	ASSERT_EQ(pthread_create(&thread, NULL, write_pieces, &w), 0);
	for (; !tap_failure && now_ms() < end_ms; rounds++)
		take_in_the_middle(&flow, &w, (unsigned int)rand_r(&seed) % 32000, &middle);
	atomic_store(&w.turn, -1);
	pthread_join(thread, NULL);
	printf("# %u of %u answers were taken in their middle\n", middle, rounds);
	if (!tap_failure && !middle && rounds < FEW_ROUNDS)
		tap_skipped = "an emulator, in which nothing happens at the same time";
	else if (!tap_failure)
		ASSERT_TRUE(middle > 50);
	flow_close(&flow);
}

/* A closed leg's container still has its socket, and the slot another leg. */
CASE(stale_container)
{
	char data[1000] = "GET / HTTP/1.1\r\n";
	struct flow a, b;
	uint32_t index;
	int stale;

	DO(flow_requests(f, &a));
	ASSERT_EQ(agent_sends(&a, data, sizeof(data), 0), sizeof(data));
	ASSERT_EQ(a.leg.slot->short_up_bytes, sizeof(data));
	stale = a.container;
	a.container = -1;
	index = a.leg.index;
	engine_close(&a.leg);
	shutdown(a.upstream, SHUT_WR);
	ASSERT_EQ(recv(stale, data, sizeof(data), 0), sizeof(data));
	ASSERT_EQ(recv(stale, data, sizeof(data), 0), 0); /* its receive buffer is empty */
	DO(flow_requests(f, &b));
	ASSERT_EQ(b.leg.index, index);
	ASSERT_EQ(agent_sends(&b, data, sizeof(data), 0), sizeof(data));
	ASSERT_EQ(send(stale, data, 10, MSG_NOSIGNAL), 10);
	engine_leave(&b.leg);
	ASSERT_EQ(recv(b.container, data, sizeof(data), MSG_DONTWAIT), sizeof(data));
	close(stale);
	flow_close(&b);
	flow_close(&a);
}

/* Sends from a page that does not come: the container's socket is its own for as long. */
struct faulting {
	int fd;
	char *page;
	atomic_int begun;
};

static void *send_page(void *ctx)
{
	struct faulting *u = ctx;

	atomic_store(&u->begun, 1);
	send(u->fd, u->page, 4096, MSG_NOSIGNAL);
	return NULL;
}

CASE(container_holds_its_socket)
{
	struct uffdio_api api = { .api = UFFD_API };
	struct uffdio_register where = { .mode = UFFDIO_REGISTER_MODE_MISSING };
	struct uffdio_zeropage page = { 0 };
	struct uffd_msg fault;
	int uffd = (int)syscall(SYS_userfaultfd, O_CLOEXEC);
	struct faulting u = { 0 };
	char data[1000] = "POST";
	struct flow flow;
	uint64_t begun_ms;
	pthread_t thread;

	if (uffd < 0 || ioctl(uffd, UFFDIO_API, &api)) {
		tap_skipped = "no userfaultfd here";
		return;
	}
	DO(flow_requests(f, &flow));
	u.page = mmap(NULL, 4096, PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS, -1, 0);
	u.fd = flow.container;
	where.range.start = (unsigned long)u.page;
	where.range.len = 4096;
	ASSERT_EQ(ioctl(uffd, UFFDIO_REGISTER, &where), 0);
	ASSERT_EQ(pthread_create(&thread, NULL, send_page, &u), 0);
	ASSERT_EQ(read(uffd, &fault, sizeof(fault)), sizeof(fault)); /* it waits for the page */
	begun_ms = now_ms();
	ASSERT_EQ(agent_sends(&flow, data, sizeof(data), MSG_DONTWAIT), sizeof(data));
	ASSERT_TRUE(now_ms() - begun_ms < 1000);
	ASSERT_EQ(flow.leg.slot->short_up_bytes, 0);
	page.range = where.range;
	ASSERT_EQ(ioctl(uffd, UFFDIO_ZEROPAGE, &page), 0);
	pthread_join(thread, NULL);
	munmap(u.page, 4096);
	close(uffd);
	flow_close(&flow);
}

/* Each message costs the kernel more than its bytes, of which alone it keeps count. */
CASE(tiny_messages)
{
	struct flow flow;
	unsigned int put = 0;
	char byte = 'x';

	DO(flow_requests(f, &flow));
	engine_begin(&flow.leg);
	while (put < 100000 && agent_sends(&flow, &byte, 1, MSG_DONTWAIT) == 1)
		put++;
	ASSERT_EQ(put, KKM_UNREAD_MESSAGES);
	ASSERT_EQ(flow.leg.slot->short_up_messages, put);
	for (unsigned int i = 0; i < put; i++)
		ASSERT_EQ(recv(flow.container, &byte, 1, MSG_DONTWAIT), 1);
	ASSERT_EQ(agent_sends(&flow, &byte, 1, MSG_DONTWAIT), 1);
	ASSERT_EQ(flow.leg.slot->short_up_messages, put + 1);
	flow_close(&flow);
}

/* Once a part of a request has gone through TCP, so does the rest of it: see kkm_request. */
CASE(one_way_for_a_request)
{
	char data[1000] = "POST";
	struct flow flow;

	DO(flow_requests(f, &flow));
	engine_set_bulk(&flow.leg, true);
	ASSERT_EQ(agent_sends(&flow, data, sizeof(data), 0), sizeof(data));
	engine_set_bulk(&flow.leg, false);
	ASSERT_TRUE(wait_for(flow.container, POLLIN));
	ASSERT_EQ(agent_sends(&flow, data, sizeof(data), 0), sizeof(data)); /* the first is unread */
	for (int i = 0; i < 2; i++)
		ASSERT_EQ(recv(flow.container, data, sizeof(data), MSG_WAITALL), sizeof(data));
	settle(flow.upstream);
	ASSERT_EQ(agent_sends(&flow, data, sizeof(data), 0), sizeof(data));
	ASSERT_EQ(flow.leg.slot->short_up_bytes, 0);
	ASSERT_EQ(recv(flow.container, data, sizeof(data), MSG_WAITALL), sizeof(data));
	/* as for the next one */
	engine_set_bulk(&flow.leg, false);
	ASSERT_EQ(agent_sends(&flow, data, sizeof(data), 0), sizeof(data));
	ASSERT_EQ(flow.leg.slot->short_up_bytes, sizeof(data));
	flow_close(&flow);
}

static const struct tap_case cases[] = {
	{ "an answer is taken back in its middle", taken_in_the_middle },
	{ "a closed leg's container does not speak for the slot's next leg", stale_container },
	{ "the agent does not wait for a container that holds its socket", container_holds_its_socket },
	{ "tiny messages that nobody reads have a bound", tiny_messages },
	{ "one way for a request", one_way_for_a_request },
};

TAP_MAIN(cases)
