// SPDX-License-Identifier: MIT
/* The short way for responses, end to end on loopback sockets. */
#include "fixture.h"

#include <linux/errqueue.h>
#include <pthread.h>

CASE(message_takes_the_short_way)
{
	struct kkm_stats before = stats(), after;
	struct flow flow;

	DO(flow_standard(f, &flow, false));
	for (size_t len = 1; len <= 16384; len = len * 3 + 1)
		DO(expect_short(&flow, len));
	after = stats();
	ASSERT_EQ(after.sockmap_enrolled - before.sockmap_enrolled, 1);
	ASSERT_EQ(after.short_bytes - before.short_bytes, flow.sent);
	ASSERT_EQ(after.short_messages - before.short_messages, flow.leg.slot->short_messages);
	ASSERT_EQ(after.passed_messages - before.passed_messages, 0);
	/* requests go as ever */
	ASSERT_EQ(send(flow.upstream, "GET /", 5, 0), 5);
	ASSERT_TRUE(wait_for(flow.container, POLLIN));
	ASSERT_EQ(recv(flow.container, (char[16]){ 0 }, 16, MSG_DONTWAIT), 5);
	flow_close(&flow);
}

/* What kkm_conns says, and that the program has filled in the tuple. */
CASE(connection_is_listed)
{
	struct sockaddr_storage local;
	socklen_t len = sizeof(local);
	struct kkm_conn conn;
	struct flow flow;

	DO(flow_standard(f, &flow, false));
	ASSERT_EQ(bpf_map_lookup_elem(find_map("kkm_conns"), &flow.leg.cookie, &conn), 0);
	ASSERT_EQ(strcmp(conn.backend.domain, DOMAIN), 0);
	ASSERT_EQ(conn.backend.port, address_port(&flow.backend));
	ASSERT_EQ(conn.down, KKM_SOCKMAP);
	ASSERT_EQ(conn.up, KKM_RELAY);
	ASSERT_EQ(conn.client_port, address_port(&flow.client_address));
	ASSERT_EQ(conn.slot, flow.leg.index);
	ASSERT_EQ(getsockname(flow.upstream, (struct sockaddr *)&local, &len), 0);
	ASSERT_EQ(conn.tuple.local_port, address_port(&local));
	ASSERT_EQ(conn.tuple.remote_port, address_port(&flow.backend));
	ASSERT_EQ(memcmp(conn.tuple.local, "\0\0\0\0\0\0\0\0\0\0\xff\xff\x7f\0\0\1", 16), 0);
	ASSERT_EQ(memcmp(conn.tuple.remote, "\0\0\0\0\0\0\0\0\0\0\xff\xff\x7f\0\0\1", 16), 0);
	ASSERT_EQ(count_entries("kkm_pending"), 0);
	flow_close(&flow);
}

/* A connection that must not be enrolled: its messages pass, and are counted nowhere else. */
static void expect_not_enrolled(struct fixture *f, int listener, struct flow *flow,
				const char *domain, enum kkm_engine engine, unsigned int refused)
{
	struct kkm_stats before = stats();
	int containers = count_entries("kkm_containers");

	DO(flow_client(flow, false));
	DO(flow_connect_to(f, flow, listener, domain, engine));
	ASSERT_EQ(flow->leg.slot->enrolled, 0);
	ASSERT_EQ(container_sends(flow, 1000, MSG_DONTWAIT), 1000);
	ASSERT_TRUE(wait_for(flow->upstream, POLLIN));
	ASSERT_EQ(readable(flow->upstream), 1000);
	ASSERT_EQ(flow->leg.slot->short_bytes, 0);
	while (agent_relays(flow, 1000))
		;
	DO(browser_expects(flow, 1000));
	ASSERT_EQ(stats().sockmap_refused - before.sockmap_refused, refused);
	ASSERT_EQ(stats().sockmap_enrolled - before.sockmap_enrolled, 0);
	ASSERT_EQ(count_entries("kkm_pending"), 0);
	ASSERT_EQ(count_entries("kkm_containers"), containers);
	flow_close(flow);
}

CASE(domain_not_published)
{
	struct flow flow;
	int listener;

	flow_init(&flow);
	DO(listener = listen_on("127.0.0.1", &flow.backend));
	DO(publish_one(f, "other.example", &flow.backend, KKM_ACTIVE));
	DO(expect_not_enrolled(f, listener, &flow, DOMAIN, KKM_SOCKMAP, 1));
	/* as configured, not as asked for: a wildcard is a key of its own */
	DO(publish_one(f, "*.example", &flow.backend, KKM_ACTIVE));
	DO(expect_not_enrolled(f, listener, &flow, DOMAIN, KKM_SOCKMAP, 1));
	close(listener);
}

CASE(backend_missing)
{
	struct sockaddr_storage other;
	struct flow flow;
	int listener;

	flow_init(&flow);
	DO(listener = listen_on("127.0.0.1", &flow.backend));
	other = flow.backend;
	((struct sockaddr_in *)&other)->sin_port ^= htons(1);
	DO(publish_one(f, DOMAIN, &other, KKM_ACTIVE));
	DO(expect_not_enrolled(f, listener, &flow, DOMAIN, KKM_SOCKMAP, 1));
	other = flow.backend;
	((struct sockaddr_in *)&other)->sin_addr.s_addr = htonl(INADDR_LOOPBACK + 1);
	DO(publish_one(f, DOMAIN, &other, KKM_ACTIVE));
	DO(expect_not_enrolled(f, listener, &flow, DOMAIN, KKM_SOCKMAP, 1));
	close(listener);
}

CASE(backend_not_active)
{
	static const enum kkm_state states[] = { KKM_STARTING, KKM_UNHEALTHY, KKM_PAUSED,
						 KKM_DRAINING };
	struct flow flow;
	int listener;

	flow_init(&flow);
	DO(listener = listen_on("127.0.0.1", &flow.backend));
	for (size_t i = 0; i < 4; i++) {
		DO(publish_one(f, DOMAIN, &flow.backend, states[i]));
		flow.sent = flow.received = 0;
		DO(expect_not_enrolled(f, listener, &flow, DOMAIN, KKM_SOCKMAP, 1));
	}
	close(listener);
}

CASE(engine_relay_is_obeyed)
{
	struct flow flow;
	int listener;

	flow_init(&flow);
	DO(listener = listen_on("127.0.0.1", &flow.backend));
	DO(publish_one(f, DOMAIN, &flow.backend, KKM_ACTIVE));
	DO(expect_not_enrolled(f, listener, &flow, DOMAIN, KKM_RELAY, 0));
	close(listener);
}

/* The route's own entry decides too: a sole backend must be the one it names. */
CASE(route_names_another_address)
{
	char key[KKM_DOMAIN_LEN] = DOMAIN;
	struct kkm_route route;
	struct flow flow;
	int listener, routes = find_map("kkm_routes");

	flow_init(&flow);
	DO(listener = listen_on("127.0.0.1", &flow.backend));
	DO(publish_one(f, DOMAIN, &flow.backend, KKM_ACTIVE));
	ASSERT_EQ(bpf_map_lookup_elem(routes, key, &route), 0);
	ASSERT_EQ(route.port, address_port(&flow.backend));
	ASSERT_EQ(route.backend_count, 1);
	route.port ^= 1;
	ASSERT_EQ(bpf_map_update_elem(routes, key, &route, BPF_EXIST), 0);
	DO(expect_not_enrolled(f, listener, &flow, DOMAIN, KKM_SOCKMAP, 1));
	route.port ^= 1;
	route.address[3] ^= 1;
	flow.sent = flow.received = 0;
	ASSERT_EQ(bpf_map_update_elem(routes, key, &route, BPF_EXIST), 0);
	DO(expect_not_enrolled(f, listener, &flow, DOMAIN, KKM_SOCKMAP, 1));
	/* of several backends it names but the first */
	route.backend_count = 2;
	ASSERT_EQ(bpf_map_update_elem(routes, key, &route, BPF_EXIST), 0);
	flow.sent = flow.received = 0;
	DO(flow_client(&flow, false));
	DO(flow_connect_to(f, &flow, listener, DOMAIN, KKM_SOCKMAP));
	ASSERT_EQ(flow.leg.slot->enrolled, 1);
	flow_close(&flow);
	close(listener);
}

/* The second of two replicas is as good as the first; a withdrawn route is not. */
CASE(publishing_while_connected)
{
	struct route_source sources[2];
	struct flow first, second;
	int listener;

	DO(flow_standard(f, &first, false));
	flow_init(&second);
	DO(flow_client(&second, false));
	DO(listener = listen_on("127.0.0.1", &second.backend));
	sources[0] = source_of(DOMAIN, &first.backend, KKM_ACTIVE);
	sources[1] = source_of(DOMAIN, &second.backend, KKM_ACTIVE);
	strcpy(sources[1].id, "ba9876543210");
	DO(publish(f, sources, 2));
	DO(flow_connect_to(f, &second, listener, DOMAIN, KKM_SOCKMAP));
	ASSERT_EQ(second.leg.slot->enrolled, 1);
	DO(expect_short(&second, 500));
	flow_close(&second);
	DO(publish(f, NULL, 0));
	ASSERT_EQ(count_entries("kkm_routes"), 0);
	ASSERT_EQ(count_entries("kkm_backends"), 0);
	DO(expect_short(&first, 500)); /* who is connected, stays so */
	second.sent = second.received = 0;
	DO(expect_not_enrolled(f, listener, &second, DOMAIN, KKM_SOCKMAP, 1));
	flow_close(&first);
	close(listener);
}

/* Send until a message is passed for want of room at the client's. */
static void fill(struct flow *flow, size_t size)
{
	struct kkm_stats before = stats();

	for (int i = 0; i < 1000 && !readable(flow->upstream); i++)
		ASSERT_EQ(container_sends(flow, size, MSG_DONTWAIT), size);
	ASSERT_TRUE(readable(flow->upstream) > 0);
	ASSERT_TRUE(stats().passed_no_room > before.passed_no_room);
}

CASE(nothing_short_while_something_is_outstanding)
{
	struct flow flow;
	uint64_t moved;

	DO(flow_standard(f, &flow, true));
	DO(expect_short(&flow, 100));
	DO(fill(&flow, 1000));
	moved = flow.leg.slot->short_bytes;
	ASSERT_EQ(flow.sent, moved + 1000);
	/* there is room again, but a message of before has not gone on */
	DO(browser_expects(&flow, moved));
	DO(expect_passed(&flow, 10));
	DO(expect_passed(&flow, 10));
	ASSERT_EQ(flow.received, moved);
	ASSERT_EQ(browser_reads(&flow, 1), 0);
	/* all but one byte */
	while (readable(flow.upstream) > 1)
		ASSERT_TRUE(agent_relays(&flow, (size_t)readable(flow.upstream) - 1) > 0);
	DO(expect_passed(&flow, 10));
	ASSERT_EQ(readable(flow.upstream), 11);
	while (agent_relays(&flow, 100))
		;
	DO(browser_expects(&flow, flow.sent));
	DO(expect_short(&flow, 100));
	ASSERT_EQ(flow.passed + flow.leg.slot->short_bytes, flow.sent);
	ASSERT_EQ(flow.leg.slot->down_bytes, flow.passed);
	flow_close(&flow);
}

/* Written, not yet counted: the message behind it must not take the short way yet, either. */
CASE(counted_only_behind_the_write)
{
	char data[16];
	struct flow flow;

	DO(flow_standard(f, &flow, true));
	DO(fill(&flow, 1000));
	DO(browser_expects(&flow, flow.leg.slot->short_bytes));
	while (readable(flow.upstream) > 10)
		ASSERT_TRUE(agent_relays(&flow, (size_t)readable(flow.upstream) - 10) > 0);
	ASSERT_EQ(recv(flow.upstream, data, 10, MSG_DONTWAIT), 10);
	DO(expect_passed(&flow, 10)); /* read, not written */
	ASSERT_EQ(send(flow.client, data, 10, MSG_DONTWAIT), 10);
	DO(expect_passed(&flow, 10)); /* written, not counted */
	engine_relayed(&flow.leg, 10, 0);
	while (agent_relays(&flow, 100))
		;
	DO(browser_expects(&flow, flow.sent));
	DO(expect_short(&flow, 10));
	flow_close(&flow);
}

/* Before a 101 has been passed on, everything has to be seen: even where nothing is outstanding. */
CASE(held_until_begun)
{
	struct kkm_stats before = stats();
	struct flow flow, next;

	DO(flow_start(f, &flow, false, true));
	ASSERT_EQ(flow.leg.slot->mode, KKM_HTTP);
	for (int i = 0; i < 5; i++) {
		DO(expect_passed(&flow, 100));
		while (agent_relays(&flow, 1000))
			;
		DO(browser_expects(&flow, flow.sent));
	}
	ASSERT_EQ(stats().passed_messages - before.passed_messages, 5);
	engine_begin(&flow.leg);
	ASSERT_EQ(flow.leg.engine, KKM_SOCKMAP);
	for (size_t len = 1; len <= 16384; len = len * 3 + 1)
		DO(expect_short(&flow, len));
	ASSERT_EQ(flow.passed, 500);
	engine_begin(&flow.leg); /* a second time it is nothing */
	DO(expect_short(&flow, 100));
	flow_close(&flow);
	/* the slot's next owner asks for itself */
	DO(flow_start(f, &flow, false, true));
	flow_close(&flow);
	DO(flow_standard(f, &next, false));
	ASSERT_EQ(next.leg.slot->mode, KKM_STREAM);
	DO(expect_short(&next, 100));
	flow_close(&next);
}

/* What was passed while it was held is still outstanding when it begins. */
CASE(begun_while_something_is_outstanding)
{
	struct flow flow;

	DO(flow_start(f, &flow, false, true));
	DO(expect_passed(&flow, 200));
	engine_begin(&flow.leg);
	DO(expect_passed(&flow, 30));
	while (readable(flow.upstream) > 1)
		ASSERT_TRUE(agent_relays(&flow, (size_t)readable(flow.upstream) - 1) > 0);
	DO(expect_passed(&flow, 30));
	while (agent_relays(&flow, 1000))
		;
	DO(browser_expects(&flow, 260));
	DO(expect_short(&flow, 100));
	flow_close(&flow);
}

/* As where an upgrade is refused: the end of it comes first, and a begin opens nothing any more. */
CASE(left_while_held)
{
	struct flow flow;

	DO(flow_start(f, &flow, false, true));
	DO(expect_passed(&flow, 100));
	engine_leave(&flow.leg);
	ASSERT_EQ(count_entries("kkm_containers"), 0);
	engine_begin(&flow.leg);
	DO(expect_passed(&flow, 100));
	while (agent_relays(&flow, 1000))
		;
	DO(browser_expects(&flow, 200));
	DO(expect_passed(&flow, 100));
	ASSERT_EQ(engine_moved(&flow.leg), 0);
	flow_close(&flow);
	DO(flow_start(f, &flow, false, true)); /* closed before it has begun */
	DO(expect_passed(&flow, 100));
	flow_close(&flow);
	ASSERT_EQ(count_entries("kkm_containers"), 0);
	ASSERT_EQ(count_entries("kkm_clients"), 0);
	ASSERT_EQ(count_entries("kkm_conns"), 0);
}

/* A writer in a thread of its own, as a container is; blocking, in pieces of any size. */
struct writer {
	struct flow *flow;
	uint64_t total;
	uint64_t begin_at; /* for one that is held: when so many have been received */
	unsigned int seed, largest;
	bool pauses; /* now and then, until all has been received: or the relay might never be empty */
	bool failed;
};

static void pause_writer(struct writer *w)
{
	uint64_t deadline_ms = now_ms() + WAIT_MS;

	while (__atomic_load_n(&w->flow->received, __ATOMIC_RELAXED) < w->flow->sent &&
	       now_ms() < deadline_ms)
		poll(NULL, 0, 1);
}

static void *write_all(void *ctx)
{
	struct writer *w = ctx;

	while (w->flow->sent < w->total) {
		size_t len = (size_t)rand_r(&w->seed) % w->largest + 1;

		if (len > w->total - w->flow->sent)
			len = w->total - w->flow->sent;
		if (container_sends(w->flow, len, 0) <= 0) {
			w->failed = true;
			break;
		}
		if (w->pauses && rand_r(&w->seed) % 4 == 0)
			pause_writer(w);
	}
	return NULL;
}

/* Relay and read until everything has arrived; leave the short way when `leave_at` bytes have. */
static void run_writer(struct flow *flow, struct writer *w, uint64_t leave_at, size_t read_size)
{
	uint64_t deadline_ms = now_ms() + 10000, moved = 0;
	bool left = false;
	pthread_t thread;

	flow->sent = flow->received = flow->passed = 0;
	w->flow = flow;
	ASSERT_EQ(pthread_create(&thread, NULL, write_all, w), 0);
	while (flow->received < w->total && !tap_failure && now_ms() < deadline_ms) {
		struct pollfd fds[] = { { .fd = flow->upstream, .events = POLLIN },
					{ .fd = flow->browser, .events = POLLIN } };

		poll(fds, 2, 1);
		agent_relays(flow, 16384);
		browser_reads(flow, read_size);
		if (flow->hold && flow->received >= w->begin_at)
			engine_begin(&flow->leg);
		if (!left && flow->received >= leave_at) {
			left = true;
			engine_leave(&flow->leg);
			moved = engine_moved(&flow->leg);
		}
	}
	if (flow->received < w->total)
		shutdown(flow->container, SHUT_RDWR); /* lets the thread go */
	pthread_join(thread, NULL);
	if (tap_failure)
		return;
	ASSERT_EQ(flow->received, w->total);
	ASSERT_TRUE(!w->failed);
	ASSERT_EQ(flow->passed + engine_moved(&flow->leg), w->total);
	if (left)
		ASSERT_EQ(engine_moved(&flow->leg), moved);
}

CASE(mixed_stream_is_exact)
{
	uint64_t moved = 0;

	for (unsigned int i = 0; i < 20; i++) {
		struct writer w = { .total = 1 << 19, .seed = i, .largest = i % 2 ? 3000 : 60000 };
		struct flow flow;

		DO(flow_standard(f, &flow, i % 4 > 1));
		DO(run_writer(&flow, &w, UINT64_MAX, i % 3 ? 65536 : 3000));
		moved += engine_moved(&flow.leg);
		flow_close(&flow);
	}
	ASSERT_TRUE(moved > 0);
}

CASE(leaving_under_way_is_exact)
{
	unsigned int moved = 0, passed = 0;

	for (unsigned int i = 0; i < 100; i++) {
		struct writer w = { .total = 200000, .seed = i, .largest = 100u << i % 9 };
		struct flow flow;

		DO(flow_standard(f, &flow, i % 3 == 1));
		DO(run_writer(&flow, &w, i % 10 * 20000 + i, 65536));
		moved += engine_moved(&flow.leg) > 0;
		passed += flow.passed > 0;
		flow_close(&flow);
	}
	/* or the test shows nothing */
	ASSERT_TRUE(moved > 30);
	ASSERT_TRUE(passed > 30);
}

/* Begun at any moment of a stream, and in every second of them left again. */
CASE(beginning_under_way_is_exact)
{
	unsigned int moved = 0, passed = 0;

	for (unsigned int i = 0; i < 100; i++) {
		struct writer w = { .total = 200000,
				    .begin_at = i % 10 * 20000 + i,
				    .seed = i,
				    .largest = 1000u << i % 6,
				    .pauses = true };
		struct flow flow;

		DO(flow_start(f, &flow, i % 3 == 1, true));
		DO(run_writer(&flow, &w, i % 2 ? w.begin_at + 60000 : UINT64_MAX, 65536));
		ASSERT_TRUE(flow.passed >= w.begin_at);
		moved += engine_moved(&flow.leg) > 0;
		passed += flow.passed > w.begin_at;
		flow_close(&flow);
	}
	printf("# of 100 streams %u took the short way, %u had been passed on for longer\n", moved,
	       passed);
	/* or the test shows nothing */
	ASSERT_TRUE(moved > 50);
	ASSERT_TRUE(passed > 30);
}

/* Leaving again and again between single messages, each of which must go one way or the other. */
CASE(left_messages_pass)
{
	struct flow flow;

	DO(flow_standard(f, &flow, false));
	DO(expect_short(&flow, 100));
	engine_leave(&flow.leg);
	ASSERT_EQ(flow.leg.engine, KKM_RELAY);
	for (int i = 0; i < 5; i++)
		DO(expect_passed(&flow, 100));
	while (agent_relays(&flow, 1000))
		;
	DO(browser_expects(&flow, 600));
	/* for good, though everything has gone on */
	DO(expect_passed(&flow, 100));
	ASSERT_EQ(engine_moved(&flow.leg), 100);
	ASSERT_EQ(count_entries("kkm_containers"), 0);
	engine_leave(&flow.leg);
	flow_close(&flow);
}

CASE(fionread_is_right_after_leaving)
{
	char data[1000] = { 0 };
	struct flow flow;

	DO(flow_standard(f, &flow, false));
	ASSERT_EQ(send(flow.upstream, data, sizeof(data), 0), sizeof(data));
	ASSERT_TRUE(wait_for(flow.container, POLLIN));
	printf("# enrolled, FIONREAD says %d of 1000\n", readable(flow.container));
	engine_leave(&flow.leg);
	ASSERT_EQ(readable(flow.container), 1000);
	ASSERT_EQ(send(flow.upstream, data, 500, 0), 500);
	for (int i = 0; i < 1000 && readable(flow.container) < 1500; i++)
		poll(NULL, 0, 1);
	ASSERT_EQ(readable(flow.container), 1500);
	ASSERT_EQ(recv(flow.container, data, sizeof(data), MSG_DONTWAIT), 1000);
	ASSERT_EQ(readable(flow.container), 500);
	flow_close(&flow);
}

CASE(zero_copy_passes)
{
	struct msghdr message = { 0 };
	char control[256];
	struct flow flow;
	int on = 1;

	DO(flow_standard(f, &flow, false));
	DO(expect_short(&flow, 100));
	ASSERT_EQ(setsockopt(flow.container, SOL_SOCKET, SO_ZEROCOPY, &on, sizeof(on)), 0);
	DO(expect_passed(&flow, 100));
	ASSERT_EQ(container_sends(&flow, 20000, MSG_ZEROCOPY | MSG_DONTWAIT), 20000);
	ASSERT_EQ(flow.leg.slot->short_bytes, 100);
	for (int i = 0; i < 1000 && flow.passed < 20100; i++) {
		wait_for(flow.upstream, POLLIN);
		agent_relays(&flow, 20000);
	}
	ASSERT_EQ(flow.passed, 20100);
	DO(browser_expects(&flow, 20200));
	/* and its completion comes */
	wait_for(flow.container, 0);
	message.msg_control = control;
	message.msg_controllen = sizeof(control);
	ASSERT_EQ(recvmsg(flow.container, &message, MSG_ERRQUEUE | MSG_DONTWAIT), 0);
	flow_close(&flow);
}

static void expect_enrolled_by(struct fixture *f, const char *listen_address, const char *address)
{
	struct flow flow;
	int listener;

	flow_init(&flow);
	DO(flow_client(&flow, false));
	DO(listener = listen_on(listen_address, &flow.backend));
	address_parse(address, address_port(&flow.backend), &flow.backend);
	DO(publish_one(f, DOMAIN, &flow.backend, KKM_ACTIVE));
	DO(flow_connect_to(f, &flow, listener, DOMAIN, KKM_SOCKMAP));
	ASSERT_EQ(flow.leg.slot->enrolled, 1);
	DO(expect_short(&flow, 1000));
	flow_close(&flow);
	close(listener);
}

CASE(dual_stack_listener)
{
	DO(expect_enrolled_by(f, "::", "127.0.0.1"));
	DO(expect_enrolled_by(f, "::", "::1"));
}

CASE(ipv6)
{
	DO(expect_enrolled_by(f, "::1", "::1"));
}

CASE(wildcard_listener)
{
	DO(expect_enrolled_by(f, "0.0.0.0", "127.0.0.1"));
	DO(expect_enrolled_by(f, "0.0.0.0", "127.1.2.3"));
}

/* The container ends: the agent sees the end behind every byte, and so does the browser. */
CASE(container_half_closes)
{
	struct flow flow;
	char byte;

	DO(flow_standard(f, &flow, false));
	ASSERT_EQ(container_sends(&flow, 5000, 0), 5000);
	ASSERT_EQ(shutdown(flow.container, SHUT_WR), 0);
	ASSERT_TRUE(wait_for(flow.upstream, POLLIN));
	ASSERT_EQ(recv(flow.upstream, &byte, 1, MSG_DONTWAIT), 0);
	ASSERT_EQ(engine_moved(&flow.leg), 5000);
	ASSERT_EQ(shutdown(flow.client, SHUT_WR), 0);
	DO(browser_expects(&flow, 5000));
	ASSERT_TRUE(wait_for(flow.browser, POLLIN));
	ASSERT_EQ(recv(flow.browser, &byte, 1, MSG_DONTWAIT), 0);
	/* the other direction lives */
	ASSERT_EQ(send(flow.browser, "x", 1, 0), 1);
	ASSERT_TRUE(wait_for(flow.client, POLLIN));
	ASSERT_EQ(recv(flow.client, &byte, 1, MSG_DONTWAIT), 1);
	ASSERT_EQ(send(flow.upstream, "x", 1, 0), 1);
	ASSERT_TRUE(wait_for(flow.container, POLLIN));
	ASSERT_EQ(recv(flow.container, &byte, 1, MSG_DONTWAIT), 1);
	flow_close(&flow);
}

CASE(browser_half_closes)
{
	struct flow flow;
	char byte;

	DO(flow_standard(f, &flow, false));
	ASSERT_EQ(shutdown(flow.browser, SHUT_WR), 0);
	ASSERT_TRUE(wait_for(flow.client, POLLIN));
	ASSERT_EQ(recv(flow.client, &byte, 1, MSG_DONTWAIT), 0);
	ASSERT_EQ(shutdown(flow.upstream, SHUT_WR), 0);
	ASSERT_TRUE(wait_for(flow.container, POLLIN));
	ASSERT_EQ(recv(flow.container, &byte, 1, MSG_DONTWAIT), 0);
	DO(expect_short(&flow, 3000));
	DO(expect_short(&flow, 3000));
	flow_close(&flow);
}

CASE(container_closes_behind_its_answer)
{
	struct flow flow;
	char byte;

	DO(flow_standard(f, &flow, false));
	ASSERT_EQ(container_sends(&flow, 30000, 0), 30000);
	close_fd(&flow.container);
	ASSERT_TRUE(wait_for(flow.upstream, POLLIN));
	for (int i = 0; i < 100 && agent_relays(&flow, 16384); i++)
		;
	DO(browser_expects(&flow, 30000));
	ASSERT_EQ(recv(flow.upstream, &byte, 1, MSG_DONTWAIT), 0);
	ASSERT_EQ(count_entries("kkm_containers"), 0);
	flow_close(&flow);
}

CASE(container_resets)
{
	struct linger now = { .l_onoff = 1 };
	struct flow flow;
	char byte;

	DO(flow_standard(f, &flow, false));
	DO(expect_short(&flow, 1000));
	setsockopt(flow.container, SOL_SOCKET, SO_LINGER, &now, sizeof(now));
	close_fd(&flow.container);
	ASSERT_TRUE(wait_for(flow.upstream, POLLIN));
	ASSERT_EQ(recv(flow.upstream, &byte, 1, MSG_DONTWAIT), -1);
	ASSERT_EQ(errno, ECONNRESET);
	flow_close(&flow);
}

/* The client is gone: nothing to redirect to, so the agent gets it and sees to the rest. */
CASE(client_closes)
{
	struct flow flow;

	DO(flow_standard(f, &flow, false));
	DO(expect_short(&flow, 1000));
	close_fd(&flow.client);
	DO(expect_passed(&flow, 1000));
	flow_close(&flow);
}

static const struct tap_case cases[] = {
	{ "a message takes the short way, unseen by the agent", message_takes_the_short_way },
	{ "the connection is listed in kkm_conns", connection_is_listed },
	{ "not enrolled: domain not in kkm_routes", domain_not_published },
	{ "not enrolled: backend not in kkm_backends", backend_missing },
	{ "not enrolled: backend not active", backend_not_active },
	{ "not enrolled: the engine is the relay", engine_relay_is_obeyed },
	{ "not enrolled: the route names another address", route_names_another_address },
	{ "publishing while connected", publishing_while_connected },
	{ "nothing goes short while something is outstanding",
	  nothing_short_while_something_is_outstanding },
	{ "what is written but not counted is outstanding", counted_only_behind_the_write },
	{ "held until it has begun", held_until_begun },
	{ "begun while something is outstanding", begun_while_something_is_outstanding },
	{ "left while it was held", left_while_held },
	{ "a mixed stream is exact", mixed_stream_is_exact },
	{ "leaving while the container writes is exact", leaving_under_way_is_exact },
	{ "beginning while the container writes is exact", beginning_under_way_is_exact },
	{ "after leaving every message passes", left_messages_pass },
	{ "after leaving FIONREAD is right", fionread_is_right_after_leaving },
	{ "a zero-copy socket's messages pass", zero_copy_passes },
	{ "a [::] listener's IPv4 and IPv6 connections are enrolled", dual_stack_listener },
	{ "IPv6", ipv6 },
	{ "a 0.0.0.0 listener", wildcard_listener },
	{ "the container half-closes", container_half_closes },
	{ "the browser half-closes", browser_half_closes },
	{ "the container closes behind its answer", container_closes_behind_its_answer },
	{ "the container resets", container_resets },
	{ "the client closes", client_closes },
};

TAP_MAIN(cases)
