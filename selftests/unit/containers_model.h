/* SPDX-License-Identifier: MIT */
/*
 * A Docker that is simulated, and who asks it as docker.c does. The list is made from what `show()`
 * copied, which is up to a second behind the events, as with Docker 20.10; an address is free from
 * the `die` on and is given to the next one who wants one. Events come in their order, a moment late;
 * a connection that is cut goes on behind the last event that came.
 */
#define CONTAINERS 10 /* the last ones share another one's network, or may */
#define FOLLOWERS 3
#define ADDRESSES 8
#define LAG_MS 1000
#define SETTLED_MS 2600
#define EVENTS 8192

enum life { ABSENT, EXITED, RUNNING, PAUSED, RESTARTING };

struct truth {
	enum life life;
	int address;  /* 0: none */
	bool unhealthy, restarts;
	int owner;    /* whose network it shares, 0: its own; */
	int owner_id, joined; /* and which one it was, and the start of it */
	int starts;
};

struct simulated {
	struct truth is, shown;
	uint64_t show_ms, die_ms, start_ms; /* when it will be; 0: not */
	uint64_t changed_ms, started_ms, died_ms; /* when it was the last time */
	unsigned int last_event;
	int generation;			    /* an id is never used again */
};

static struct {
	struct simulated all[CONTAINERS + 1];
	struct {
		struct dockerjson_event event;
		uint64_t at_ms;
	} events[EVENTS];
	unsigned int event_count;
	uint32_t random;
	/* the one that asks */
	unsigned int delivered;
	bool connected, listed, list_due, dirty[CONTAINERS + 1];
	uint64_t connect_ms, changed_ms;
	enum { NOTHING, LIST, SOME, FOLLOW, INSPECT } query;
	bool asked[CONTAINERS + 1];
	int asked_one;
	uint64_t snapshot_ms, answer_ms;
	struct shown snapshot[CONTAINERS];
	int snapshot_count;
	struct dockerjson_event held[EVENTS];
	unsigned int held_count, queries;
} sim;

static unsigned int pick(unsigned int below)
{
	sim.random ^= sim.random << 13;
	sim.random ^= sim.random >> 17;
	sim.random ^= sim.random << 5;
	return sim.random % below;
}

/* Its number in ids; and back. */
static int whole(int n)
{
	return sim.all[n].generation << 8 | n;
}

static int number_of(const char *id)
{
	return (int)strtol(id, NULL, 16) & 0xff;
}

static const char *config_of(int n)
{
	return n % 2 ? "\"StopSignal\":\"SIGQUIT\"" : "";
}

static void publish(int n, const char *name, const char *extra)
{
	unsigned int i = sim.event_count++;
	uint64_t at_ms = now_ms + pick(4);

	assert_true(sim.event_count < EVENTS);
	sim.events[i].event = event_of(whole(n), name, extra);
	if (i && sim.events[i - 1].at_ms > at_ms)
		at_ms = sim.events[i - 1].at_ms;
	sim.events[i].at_ms = at_ms;
	sim.all[n].last_event = sim.event_count;
	sim.all[n].changed_ms = now_ms;
}

static void show(int n)
{
	sim.all[n].shown = sim.all[n].is;
	sim.all[n].show_ms = 0;
}

static void show_later(int n)
{
	sim.all[n].show_ms = now_ms + 1 + pick(pick(4) ? 20 : LAG_MS);
}

static bool is_free(int address)
{
	for (int n = 1; n <= CONTAINERS; n++) {
		if (sim.all[n].is.address == address)
			return false;
	}
	return true;
}

/* The lowest, so that they are used again as soon as can be. */
static int free_address(void)
{
	for (int address = 1; address <= ADDRESSES; address++) {
		if (is_free(address))
			return address;
	}
	return 0;
}

static void do_start(int n)
{
	struct truth *is = &sim.all[n].is;

	sim.all[n].start_ms = 0;
	if (is->owner && (sim.all[is->owner].is.life != RUNNING || whole(is->owner) != is->owner_id))
		return;
	is->address = is->owner ? 0 : free_address();
	if (!is->owner && !is->address)
		return;
	if (!is->owner)
		publish(n, "connect", "\"name\":\"net\"");
	is->life = RUNNING;
	sim.all[n].started_ms = now_ms;
	is->unhealthy = false;
	is->starts++;
	is->joined = is->owner ? sim.all[is->owner].is.starts : 0;
	show(n);
	publish(n, "start", "");
}

static void do_die(int n)
{
	struct truth *is = &sim.all[n].is;

	sim.all[n].die_ms = 0;
	sim.all[n].died_ms = now_ms;
	is->life = is->restarts ? RESTARTING : EXITED;
	is->address = 0;
	publish(n, "die", "");
	show_later(n);
	if (is->restarts)
		sim.all[n].start_ms = sim.all[n].show_ms + 100 + pick(3000);
}

static void do_disconnect(int n)
{
	sim.all[n].is.address = 0;
	show(n);
	publish(n, "disconnect", "\"name\":\"net\"");
}

static void do_connect(int n)
{
	sim.all[n].is.address = free_address();
	show(n);
	publish(n, "connect", "\"name\":\"net\"");
}

static void do_stop(int n)
{
	publish(n, "kill", n % 2 ? "\"signal\":\"3\"" : "\"signal\":\"15\"");
	sim.all[n].is.restarts = false;
	sim.all[n].die_ms = now_ms + 1 + pick(300);
}

static void do_state(int n, enum life life, bool unhealthy, const char *name)
{
	sim.all[n].is.life = life;
	sim.all[n].is.unhealthy = unhealthy;
	publish(n, name, "");
	show_later(n);
}

static void do_create(int n)
{
	struct truth *is = &sim.all[n].is;

	is->life = EXITED;
	is->restarts = !pick(3);
	is->owner = n > CONTAINERS - FOLLOWERS ? 1 + (int)pick(3) : 0;
	is->owner_id = whole(is->owner);
	show(n);
	publish(n, "create", "");
}

static void do_destroy(int n)
{
	sim.all[n].is.life = ABSENT;
	show(n);
	publish(n, "destroy", "");
	sim.all[n].generation++;
}

static void act_running(int n)
{
	bool own = !sim.all[n].is.owner;

	switch (pick(9)) {
	case 0:
	case 1:
		do_stop(n);
		break;
	case 2:
		do_die(n);
		break;
	case 3:
		do_state(n, PAUSED, sim.all[n].is.unhealthy, "pause");
		break;
	case 4:
		do_state(n, RUNNING, true, "health_status: unhealthy");
		break;
	case 5:
		do_state(n, RUNNING, false, "health_status: healthy");
		break;
	case 6:
		publish(n, "rename", "");
		break;
	default:
		if (own)
			sim.all[n].is.address ? do_disconnect(n) : do_connect(n);
	}
}

/* Docker holds a container's lock until what it did is in the list. */
static void act(int n)
{
	struct simulated *c = &sim.all[n];

	if (c->show_ms || c->die_ms || c->start_ms)
		return;
	switch (c->is.life) {
	case ABSENT:
		do_create(n);
		break;
	case EXITED:
		pick(4) ? do_start(n) : do_destroy(n);
		break;
	case RUNNING:
		act_running(n);
		break;
	case PAUSED:
		do_state(n, RUNNING, c->is.unhealthy, "unpause");
		break;
	case RESTARTING:
		break;
	}
}

static void docker_goes_on(void)
{
	for (int n = 1; n <= CONTAINERS; n++) {
		struct simulated *c = &sim.all[n];

		if (c->show_ms && c->show_ms <= now_ms)
			show(n);
		if (c->die_ms && c->die_ms <= now_ms)
			do_die(n);
		if (c->start_ms && c->start_ms <= now_ms && !c->show_ms)
			do_start(n);
	}
}

/* Who asks. */

static void make_dirty(void *ctx, const char *id)
{
	(void)ctx;
	if (number_of(id) <= CONTAINERS)
		sim.dirty[number_of(id)] = true;
}

static void handle(const struct dockerjson_event *event)
{
	containers_owner_event(containers, event, now_ms);
	if (containers_concerns(containers, event) && containers_event(containers, event, now_ms))
		make_dirty(NULL, event->id);
}

static void deliver(void)
{
	while (sim.connected && sim.delivered < sim.event_count &&
	       sim.events[sim.delivered].at_ms <= now_ms) {
		const struct dockerjson_event *event = &sim.events[sim.delivered++].event;

		if (event->action == DOCKER_OTHER)
			continue;
		if (sim.listed)
			handle(event);
		if (!sim.listed || sim.query == LIST || sim.query == SOME)
			sim.held[sim.held_count++] = *event;
	}
}

static void cut(void)
{
	sim.connected = sim.listed = false;
	sim.query = NOTHING;
	sim.held_count = 0;
	memset(sim.dirty, 0, sizeof(sim.dirty));
	sim.connect_ms = now_ms + 1 + pick(pick(2) ? 20 : 3000);
}

static struct shown shown_of(int n)
{
	static const char *const states[] = { [RUNNING] = "running", [PAUSED] = "paused",
					      [RESTARTING] = "restarting" };
	const struct truth *shown = &sim.all[n].shown;
	static char modes[CONTAINERS + 1][80];
	struct shown out = UP(whole(n), shown->address, .state = states[shown->life]);

	out.status = shown->unhealthy ? "Up (unhealthy)" : "Up";
	snprintf(modes[n], sizeof(modes[n]), "container:%s", id_of(shown->owner_id));
	out.mode = shown->owner ? modes[n] : NULL;
	return out;
}

static void take_snapshot(void)
{
	sim.snapshot_count = 0;
	for (int n = 1; n <= CONTAINERS; n++) {
		if (sim.all[n].shown.life >= RUNNING &&
		    (sim.query == LIST || (sim.query == SOME && sim.asked[n]) ||
		     (sim.query == FOLLOW && sim.asked_one == whole(n))))
			sim.snapshot[sim.snapshot_count++] = shown_of(n);
	}
	sim.snapshot_ms = 0;
}

static void answer_list(void)
{
	struct json *list = list_of(sim.snapshot, (unsigned int)sim.snapshot_count);

	if (!sim.listed)
		containers_trust_list(containers, now_ms);
	assert_true(containers_apply(containers, list, now_ms));
	for (int n = 1; n <= CONTAINERS; n++) {
		if (sim.query == SOME && sim.asked[n])
			containers_asked(containers, id_of(whole(n)));
	}
	if (sim.query == LIST) {
		containers_asked_all(containers);
		sim.listed = true;
		sim.changed_ms = now_ms;
	}
	json_free(&list);
	for (unsigned int i = 0; i < sim.held_count; i++)
		handle(&sim.held[i]);
	sim.held_count = 0;
}

static void answer(void)
{
	if (sim.query == FOLLOW)
		answer_follow(sim.asked_one, sim.snapshot_count ? sim.snapshot : NULL);
	else if (sim.query == INSPECT)
		inspect(sim.asked_one, config_of(sim.asked_one));
	else
		answer_list();
	sim.query = NOTHING;
}

static void ask(void)
{
	const char *id = NULL;
	bool any = false;

	memset(sim.asked, 0, sizeof(sim.asked));
	for (int n = 1; n <= CONTAINERS; n++)
		any |= sim.dirty[n];
	if (sim.list_due) {
		sim.query = LIST;
	} else if (any) {
		sim.query = SOME;
		memcpy(sim.asked, sim.dirty, sizeof(sim.asked));
	} else if ((id = containers_next_followed(containers))) {
		sim.query = FOLLOW;
	} else if ((id = containers_next_inspect(containers))) {
		sim.query = INSPECT;
	} else {
		return;
	}
	if (!id)
		memset(sim.dirty, 0, sizeof(sim.dirty));
	sim.list_due &= sim.query != LIST;
	sim.asked_one = id ? (int)strtol(id, NULL, 16) : 0;
	sim.snapshot_ms = now_ms + pick(4);
	sim.answer_ms = sim.snapshot_ms + pick(pick(8) || id ? 4 : 200);
	sim.queries++;
}

static void agent_goes_on(void)
{
	if (!sim.connected && sim.connect_ms <= now_ms) {
		sim.connected = sim.list_due = true;
		sim.changed_ms = now_ms;
	}
	deliver();
	if (sim.query && sim.snapshot_ms && sim.snapshot_ms <= now_ms)
		take_snapshot();
	if (sim.query && sim.answer_ms <= now_ms)
		answer();
	containers_expire(containers, now_ms, sim.listed, make_dirty, NULL);
	if (sim.connected && !sim.query)
		ask();
}

/* What has to hold. */

/* Before it has been listed nobody knows whom it follows: a new start of that one is not seen. */
static bool is_blind(int n)
{
	uint64_t died_ms = sim.all[sim.all[n].is.owner].died_ms;

	return died_ms >= sim.all[n].started_ms && died_ms < sim.all[n].started_ms + 300;
}

static const struct truth *network_of(int n)
{
	const struct truth *is = &sim.all[n].is, *owner = &sim.all[is->owner].is;

	if (!is->owner)
		return is;
	return (owner->life == RUNNING || owner->life == PAUSED) && owner->starts == is->joined
		       ? owner : NULL;
}

static bool is_told(int n)
{
	return sim.all[n].last_event <= sim.delivered;
}

static bool is_settled(int n)
{
	const struct simulated *c = &sim.all[n];

	return sim.listed && now_ms - sim.changed_ms > SETTLED_MS && !c->die_ms && !c->start_ms &&
	       now_ms - c->changed_ms > SETTLED_MS;
}

static const struct route_source *source_of(const struct route_source **sources, size_t count, int n)
{
	for (size_t i = 0; i < count; i++) {
		if (number_of(sources[i]->id) == n)
			return sources[i];
	}
	return NULL;
}

static void judge_one(int n, const struct route_source *source)
{
	const struct simulated *c = &sim.all[n];
	const struct truth *network = network_of(n);
	bool runs = c->is.life == RUNNING || c->is.life == PAUSED;
	bool active = source && source->state == KKM_ACTIVE && !*source->error.reason;
	char address[ADDRESS_TEXT_MAX] = "", expected[64] = "-";

	if (runs && network && network->address)
		snprintf(expected, sizeof(expected), "10.0.0.%d:80", network->address);
	if (c->is.owner && is_blind(n))
		return;
	if (active)
		address_print(&source->address, address);
	/* never to somebody else's address, once Docker has told of it */
	if (active && sim.listed && is_told(n) && is_told(c->is.owner) && strcmp(address, expected))
		fail_msg("%d is active at %s, but is at %s (life %d, %llu ms)", n, address, expected,
			 c->is.life, (unsigned long long)now_ms);
	if (!is_settled(n) || !is_settled(c->is.owner))
		return;
	if (active != (c->is.life == RUNNING && !c->is.unhealthy && *expected != '-'))
		fail_msg("%d is %sactive at %s, and should %sbe (life %d, %llu ms)", n,
			 active ? "" : "not ", expected, active ? "not " : "", c->is.life,
			 (unsigned long long)now_ms);
	if (source && (c->is.life == ABSENT || c->is.life == EXITED))
		fail_msg("%d is known and should not be (%llu ms)", n, (unsigned long long)now_ms);
}

static void judge(void)
{
	const struct route_source **sources;
	size_t count;

	assert_int_equal(containers_sources(containers, &sources, &count), 0);
	for (int n = 1; n <= CONTAINERS; n++)
		judge_one(n, source_of(sources, count, n));
	free(sources);
}

static void go_on(uint64_t ms)
{
	for (uint64_t end_ms = now_ms + ms; now_ms < end_ms; now_ms++) {
		docker_goes_on();
		agent_goes_on();
		judge();
	}
}

static void simulate(uint32_t seed, unsigned int actions)
{
	unsigned int queries;

	setup(NULL);
	memset(&sim, 0, sizeof(sim));
	sim.random = seed * 2654435761u + 1;
	cut();
	for (unsigned int i = 0; i < actions; i++) {
		act(1 + (int)pick(CONTAINERS));
		if (sim.connected && !pick(100))
			cut();
		go_on(pick(20) ? pick(60) : pick(3000));
	}
	for (int n = 1; n <= CONTAINERS; n++)
		sim.all[n].is.restarts = false;
	go_on(15000);
	queries = sim.queries;
	go_on(15000);
	assert_int_equal(sim.queries, queries);
	teardown(NULL);
}

static void simulated_docker(void **state)
{
	const char *seeds = getenv("SEEDS");
	unsigned int count = seeds ? (unsigned int)atoi(seeds) : 3;

	(void)state;
	for (uint32_t seed = 1; seed <= count; seed++) {
		if (seeds)
			printf("# seed %u\n", seed);
		simulate(seed, 120);
	}
}
