// SPDX-License-Identifier: MIT
/* Nothing lingers: maps, slots and sockets after every way in which a connection can end. */
#include "fixture.h"

#include <linux/filter.h>

static void expect_nothing_left(struct fixture *f)
{
	ASSERT_EQ(count_entries("kkm_conns"), 0);
	ASSERT_EQ(count_entries("kkm_pending"), 0);
	ASSERT_EQ(count_entries("kkm_containers"), 0);
	ASSERT_EQ(count_entries("kkm_clients"), 0);
	ASSERT_EQ(f->slots.count, MAX_CONNS);
	for (uint32_t i = 0; i < MAX_CONNS; i++) {
		ASSERT_EQ(datapath_slot(f->datapath, i)->leg, 0);
		ASSERT_EQ(datapath_slot(f->datapath, i)->running, 0);
	}
}

/* A listening socket that answers no SYN, so that connecting goes on. */
static void listen_deaf(struct flow *flow, int *listener)
{
	struct sock_filter drop = { BPF_RET | BPF_K, 0, 0, 0 };
	struct sock_fprog program = { .len = 1, .filter = &drop };

	DO(*listener = listen_on("127.0.0.1", &flow->backend));
	ASSERT_EQ(setsockopt(*listener, SOL_SOCKET, SO_ATTACH_FILTER, &program, sizeof(program)),
		  0);
}

CASE(hundreds_reuse_the_slots)
{
	struct flow flows[MAX_CONNS];

	for (int i = 0; i < 400; i++) {
		struct flow *flow = &flows[i % MAX_CONNS];

		if (i >= MAX_CONNS)
			flow_close(flow);
		DO(flow_standard(f, flow, false));
		ASSERT_EQ(flow->leg.slot->short_bytes, 0);
		ASSERT_EQ(flow->leg.slot->forwarded, 0);
		ASSERT_EQ(flow->leg.slot->stop, 0);
		DO(expect_short(flow, 100));
		if (i % 3 == 0) {
			engine_leave(&flow->leg);
			DO(expect_passed(flow, 50));
		}
		if (i % 5 == 0)
			shutdown(flow->container, SHUT_WR);
	}
	for (int i = 0; i < MAX_CONNS; i++)
		flow_close(&flows[i]);
	DO(expect_nothing_left(f));
}

CASE(all_live_at_once)
{
	struct flow flows[MAX_CONNS];

	for (int i = 0; i < MAX_CONNS; i++)
		DO(flow_standard(f, &flows[i], false));
	ASSERT_EQ(f->slots.count, 0);
	ASSERT_EQ(count_entries("kkm_conns"), MAX_CONNS);
	ASSERT_EQ(count_entries("kkm_containers"), MAX_CONNS);
	for (int round = 0; round < 3; round++) {
		for (int i = 0; i < MAX_CONNS; i++)
			DO(expect_short(&flows[i], 100 + (size_t)i));
	}
	for (int i = 0; i < MAX_CONNS; i++)
		ASSERT_EQ(flows[i].leg.slot->short_bytes, 3 * (100 + i));
	for (int i = 0; i < MAX_CONNS; i++)
		flow_close(&flows[i]);
	DO(expect_nothing_left(f));
}

/* One too many is a leg that is not tracked, and works. */
CASE(no_slot_left)
{
	struct flow flows[MAX_CONNS];
	struct engine_leg leg;
	struct engine_request request = { .engine = KKM_SOCKMAP, .domain = DOMAIN };

	for (int i = 0; i < MAX_CONNS; i++)
		DO(flow_standard(f, &flows[i], false));
	request.backend = &flows[0].backend;
	request.client = &flows[0].client_address;
	request.client_fd = flows[0].client;
	request.upstream_fd = flows[0].upstream;
	engine_open(&leg, f->datapath, &f->slots, &request);
	ASSERT_EQ(leg.engine, KKM_RELAY);
	ASSERT_TRUE(!leg.datapath && !leg.slot);
	engine_relayed(&leg, 10, 10);
	ASSERT_EQ(engine_moved(&leg), 0);
	engine_leave(&leg);
	engine_close(&leg);
	for (int i = 0; i < MAX_CONNS; i++)
		flow_close(&flows[i]);
	DO(expect_nothing_left(f));
}

CASE(no_datapath)
{
	struct engine_request request = { .engine = KKM_SOCKMAP, .domain = DOMAIN };
	struct engine_leg leg;

	engine_open(&leg, NULL, &f->slots, &request);
	ASSERT_EQ(leg.engine, KKM_RELAY);
	engine_relayed(&leg, 1, 1);
	ASSERT_EQ(engine_moved(&leg), 0);
	engine_leave(&leg);
	engine_close(&leg);
	engine_close(&leg);
	DO(expect_nothing_left(f));
}

CASE(refused_connects)
{
	struct flow flow;
	int listener;

	for (int i = 0; i < 100; i++) {
		flow_init(&flow);
		DO(flow_client(&flow, false));
		DO(listener = listen_on("127.0.0.1", &flow.backend));
		DO(publish_one(f, DOMAIN, &flow.backend, KKM_ACTIVE));
		close(listener);
		DO(flow_open(f, &flow, DOMAIN, KKM_SOCKMAP, 0));
		ASSERT_EQ(connect(flow.upstream, (struct sockaddr *)&flow.backend,
				  address_len(&flow.backend)),
			  -1);
		ASSERT_EQ(errno, ECONNREFUSED);
		flow_close(&flow);
	}
	DO(expect_nothing_left(f));
}

CASE(given_up_connects)
{
	struct flow flow;
	int listener;

	for (int i = 0; i < 50; i++) {
		flow_init(&flow);
		DO(flow_client(&flow, false));
		DO(listen_deaf(&flow, &listener));
		DO(publish_one(f, DOMAIN, &flow.backend, KKM_ACTIVE));
		DO(flow_open(f, &flow, DOMAIN, KKM_SOCKMAP, SOCK_NONBLOCK));
		ASSERT_EQ(connect(flow.upstream, (struct sockaddr *)&flow.backend,
				  address_len(&flow.backend)),
			  -1);
		ASSERT_EQ(count_entries("kkm_pending"), 1);
		flow_close(&flow);
		close(listener);
	}
	DO(expect_nothing_left(f));
}

CASE(never_connected)
{
	struct flow flow;

	flow_init(&flow);
	DO(flow_client(&flow, false));
	address_parse("127.0.0.1", 9, &flow.backend);
	DO(flow_open(f, &flow, DOMAIN, KKM_SOCKMAP, 0));
	ASSERT_EQ(count_entries("kkm_conns"), 1);
	flow_close(&flow);
	DO(expect_nothing_left(f));
}

/* Left while it was still connecting: what kkm_agent_end noted must go all the same. */
CASE(left_before_it_was_established)
{
	struct flow flow;
	int listener;

	flow_init(&flow);
	DO(flow_client(&flow, false));
	DO(listen_deaf(&flow, &listener));
	DO(publish_one(f, DOMAIN, &flow.backend, KKM_ACTIVE));
	DO(flow_open(f, &flow, DOMAIN, KKM_SOCKMAP, SOCK_NONBLOCK));
	ASSERT_EQ(connect(flow.upstream, (struct sockaddr *)&flow.backend,
			  address_len(&flow.backend)),
		  -1);
	engine_leave(&flow.leg);
	flow_close(&flow);
	close(listener);
	DO(expect_nothing_left(f));
}

/* Left before connect(): the container's socket must stay out. */
CASE(left_before_connecting)
{
	struct flow flow;
	int listener;

	flow_init(&flow);
	DO(flow_client(&flow, false));
	DO(listener = listen_on("127.0.0.1", &flow.backend));
	DO(publish_one(f, DOMAIN, &flow.backend, KKM_ACTIVE));
	DO(flow_open(f, &flow, DOMAIN, KKM_SOCKMAP, 0));
	engine_leave(&flow.leg);
	ASSERT_EQ(connect(flow.upstream, (struct sockaddr *)&flow.backend,
			  address_len(&flow.backend)),
		  0);
	DO(flow.container = accept_one(listener));
	settle(flow.container);
	ASSERT_EQ(flow.leg.slot->enrolled, 0);
	DO(expect_passed(&flow, 100));
	flow_close(&flow);
	close(listener);
	DO(expect_nothing_left(f));
}

/* A container's socket that outlives its leg writes neither to the old client nor into the slot. */
CASE(slot_of_somebody_else)
{
	struct flow old, new;
	uint32_t index;

	DO(flow_standard(f, &old, false));
	DO(expect_short(&old, 100));
	index = old.leg.index;
	engine_close(&old.leg);
	DO(flow_standard(f, &new, false));
	ASSERT_EQ(new.leg.index, index);
	ASSERT_EQ(container_sends(&old, 500, MSG_DONTWAIT), 500);
	ASSERT_TRUE(wait_for(old.upstream, POLLIN));
	ASSERT_EQ(readable(old.upstream), 500);
	ASSERT_EQ(readable(old.browser), 0);
	ASSERT_EQ(readable(new.browser), 0);
	ASSERT_EQ(new.leg.slot->short_bytes, 0);
	ASSERT_EQ(new.leg.slot->running, 0);
	DO(expect_short(&new, 100));
	flow_close(&old);
	flow_close(&new);
	DO(expect_nothing_left(f));
}

/* A program that still runs when the slot has another owner: the owner in the slot decides. */
CASE(slot_with_another_owner)
{
	struct flow flow;

	DO(flow_standard(f, &flow, false));
	DO(expect_short(&flow, 100));
	flow.leg.slot->leg++;
	DO(expect_passed(&flow, 200));
	ASSERT_EQ(flow.leg.slot->running, 0);
	flow.leg.slot->leg--;
	while (agent_relays(&flow, 1000))
		;
	DO(expect_short(&flow, 300));
	flow_close(&flow);
	DO(expect_nothing_left(f));
}

/* One client, one container after the other, as on a kept-alive connection. */
CASE(one_client_two_containers)
{
	struct flow flow;
	int listener;

	DO(flow_standard(f, &flow, false));
	DO(expect_short(&flow, 100));
	for (int i = 0; i < 20; i++) {
		engine_close(&flow.leg);
		close_fd(&flow.upstream);
		close_fd(&flow.container);
		DO(listener = listen_on("127.0.0.1", &flow.backend));
		DO(publish_one(f, DOMAIN, &flow.backend, KKM_ACTIVE));
		DO(flow_connect_to(f, &flow, listener, DOMAIN, KKM_SOCKMAP));
		ASSERT_EQ(flow.leg.slot->enrolled, 1);
		ASSERT_EQ(count_entries("kkm_clients"), 1);
		DO(expect_short(&flow, 100));
		close(listener);
	}
	flow_close(&flow);
	DO(expect_nothing_left(f));
}

/* The client has half-closed: no sockmap takes its socket, so the leg is the relay's. */
CASE(half_closed_client)
{
	struct flow flow;
	int listener;

	flow_init(&flow);
	DO(flow_client(&flow, false));
	DO(listener = listen_on("127.0.0.1", &flow.backend));
	DO(publish_one(f, DOMAIN, &flow.backend, KKM_ACTIVE));
	shutdown(flow.browser, SHUT_WR);
	ASSERT_TRUE(wait_for(flow.client, POLLIN));
	flow_open(f, &flow, DOMAIN, KKM_SOCKMAP, 0);
	tap_failure = NULL; /* whichever engine it has become */
	ASSERT_TRUE(flow.leg.slot != NULL);
	ASSERT_EQ(connect(flow.upstream, (struct sockaddr *)&flow.backend,
			  address_len(&flow.backend)),
		  0);
	DO(flow.container = accept_one(listener));
	settle(flow.container);
	ASSERT_EQ(flow.leg.engine, KKM_RELAY);
	ASSERT_EQ(flow.leg.slot->enrolled, 0);
	DO(expect_passed(&flow, 100));
	flow_close(&flow);
	close(listener);
	DO(expect_nothing_left(f));
}

static const struct tap_case cases[] = {
	{ "hundreds of connections reuse the slots", hundreds_reuse_the_slots },
	{ "as many as there are slots at once", all_live_at_once },
	{ "no slot left", no_slot_left },
	{ "no datapath", no_datapath },
	{ "connects that are refused", refused_connects },
	{ "connects that are given up", given_up_connects },
	{ "closed without connect", never_connected },
	{ "left before it was established", left_before_it_was_established },
	{ "left before connecting", left_before_connecting },
	{ "a slot of somebody else by now", slot_of_somebody_else },
	{ "a slot with another owner", slot_with_another_owner },
	{ "one client, one container after the other", one_client_two_containers },
	{ "a client that has half-closed", half_closed_client },
};

TAP_MAIN(cases)
