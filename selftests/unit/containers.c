// SPDX-License-Identifier: MIT
/*
 * What lists, events and time make of containers: single stories, and a Docker that is simulated,
 * whose lists are older than its events and whose addresses are given to the next one at once.
 */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <cmocka.h>

#include <signal.h>

#include "containers.h"
#include "log.h"

#define MAX 32

static struct containers *containers;
static uint64_t now_ms;
static char looks[256]; /* who had to be looked at again, a digit each */

static const char *id_of(int n)
{
	static char ids[8][KKM_ID_LEN];
	static unsigned int turn;
	char *id = ids[turn++ % 8];

	snprintf(id, KKM_ID_LEN, "%064x", n);
	return id;
}

static int rank(void *ctx, const struct sockaddr_storage *address)
{
	(void)ctx;
	return address->ss_family ? 2 : 0;
}

static const struct dockerjson_reach reach = { .rank = rank };

static int setup(void **state)
{
	(void)state;
	log_setup(LOG_LEVEL_ERROR, LOG_FORMAT_TEXT);
	now_ms = 1000000;
	*looks = '\0';
	return containers_new(&reach, &containers);
}

static int teardown(void **state)
{
	(void)state;
	containers_free(&containers);
	return 0;
}

/* What a list shows of one. Address 0: none. */
struct shown {
	int n, address;
	const char *state, *status, *mode;
	bool bare; /* not ours */
};

static char *add_text(char *at, const struct shown *shown)
{
	char ip[32] = "";

	if (shown->address)
		snprintf(ip, sizeof(ip), "10.0.0.%d", shown->address);
	return at + sprintf(at,
			    "{\"Id\":\"%064x\",\"Names\":[\"/c%d\"],\"Image\":\"i\",\"Created\":%d,"
			    "\"Labels\":{%s\"kakuremichi.domain\":\"d%d.test\",\"kakuremichi.port\":\"80\"},"
			    "\"State\":\"%s\",\"Status\":\"%s\",\"HostConfig\":{\"NetworkMode\":\"%s\"},"
			    "\"NetworkSettings\":{\"Networks\":{%s%s%s}}}",
			    (unsigned int)shown->n, shown->n, 1000 + shown->n,
			    shown->bare ? "" : "\"kakuremichi.enabled\":\"true\",", shown->n,
			    shown->state ? shown->state : "running",
			    shown->status ? shown->status : "Up", shown->mode ? shown->mode : "net",
			    shown->mode ? "" : "\"net\":{\"IPAddress\":\"", shown->mode ? "" : ip,
			    shown->mode ? "" : "\"}");
}

static struct json *list_of(const struct shown *shown, unsigned int count)
{
	static char text[MAX * 1024];
	char *at = text;
	struct json *list;

	*at++ = '[';
	for (unsigned int i = 0; i < count; i++) {
		if (i)
			*at++ = ',';
		at = add_text(at, &shown[i]);
	}
	*at++ = ']';
	list = json_parse(text, (size_t)(at - text));
	assert_non_null(list);
	return list;
}

static void apply(const struct shown *shown, unsigned int count, int asked)
{
	struct json *list = list_of(shown, count);

	assert_true(containers_apply(containers, list, now_ms));
	if (asked)
		containers_asked(containers, id_of(asked));
	else
		containers_asked_all(containers);
	json_free(&list);
}

#define UP(number, host, ...) { .n = number, .address = host, __VA_ARGS__ }
/* A list of all; of one. */
#define LIST(...)                                                                                  \
	apply((struct shown[]){ __VA_ARGS__ },                                                     \
	      sizeof((struct shown[]){ __VA_ARGS__ }) / sizeof(struct shown), 0)
#define NOBODY() apply(NULL, 0, 0)
#define ONE(n, ...) apply(&(struct shown)UP(n, __VA_ARGS__), 1, n)
#define NOT(n) apply(NULL, 0, n)

static struct dockerjson_event event_of(int n, const char *name, const char *extra)
{
	char text[512];
	bool network = !strcmp(name, "connect") || !strcmp(name, "disconnect");
	struct dockerjson_event event;
	int len = snprintf(text, sizeof(text),
			   "{\"Type\":\"%s\",\"Action\":\"%s\",\"Actor\":{\"ID\":\"%064x\",\"Attributes\":"
			   "{\"%s\":\"%064x\",\"kakuremichi.enabled\":\"true\"%s%s}}}",
			   network ? "network" : "container", name, (unsigned int)(network ? 0xfff : n),
			   network ? "container" : "x", (unsigned int)n, *extra ? "," : "", extra);

	assert_int_equal(dockerjson_event(text, (size_t)len, &event), 0);
	return event;
}

static bool tell(int n, const char *name, const char *extra)
{
	struct dockerjson_event event = event_of(n, name, extra);

	containers_owner_event(containers, &event, now_ms);
	return containers_concerns(containers, &event) &&
	       containers_event(containers, &event, now_ms);
}

#define EVENT(n, name) tell(n, name, "")
#define KILL(n, signal) tell(n, "kill", "\"signal\":\"" #signal "\"")

static void look(void *ctx, const char *id)
{
	size_t len = strlen(looks);

	(void)ctx;
	assert_true(len + 1 < sizeof(looks));
	looks[len] = id[63];
	looks[len + 1] = '\0';
}

/* Time goes on, from one deadline to the next. */
static void pass(uint64_t ms)
{
	uint64_t end_ms = now_ms + ms, next_ms;

	while ((next_ms = containers_expire(containers, now_ms, true, look, NULL)) &&
	       next_ms <= end_ms) {
		assert_true(next_ms > now_ms);
		now_ms = next_ms;
	}
	now_ms = end_ms;
	containers_expire(containers, now_ms, true, look, NULL);
}

static void inspect(int n, const char *config)
{
	char text[256];
	struct json *root;

	snprintf(text, sizeof(text), "{\"HostConfig\":{\"NetworkMode\":\"net\"},\"Config\":{%s}}",
		 config);
	root = json_parse(text, strlen(text));
	assert_non_null(root);
	containers_inspected(containers, id_of(n), root, now_ms);
	json_free(&root);
}

static void answer_follow(int n, const struct shown *shown)
{
	struct json *list = list_of(shown, !!shown);

	containers_followed(containers, id_of(n), json_first(list), now_ms);
	json_free(&list);
}

/* "1 active 10.0.0.5:80", all of them in the order of their numbers; "" for none. */
static const char *all(void)
{
	static char text[MAX * 64];
	static const char *const states[] = { [KKM_ACTIVE] = "active", [KKM_STARTING] = "starting",
					      [KKM_UNHEALTHY] = "unhealthy",
					      [KKM_PAUSED] = "paused", [KKM_DRAINING] = "draining" };
	const struct route_source **sources;
	char address[ADDRESS_TEXT_MAX];
	size_t count;

	*text = '\0';
	assert_int_equal(containers_sources(containers, &sources, &count), 0);
	for (int n = 1; n < 256; n++) {
		for (size_t i = 0; i < count; i++) {
			const struct route_source *source = sources[i];
			size_t len = strlen(text);

			if (strtol(source->id, NULL, 16) != n)
				continue;
			snprintf(text + len, sizeof(text) - len, "%s%d %s%s %s", len ? ", " : "", n,
				 *source->error.reason ? "rejected" : states[source->state],
				 source->gone ? " gone" : "",
				 source->address.ss_family ? address_print(&source->address, address)
							   : "-");
		}
	}
	free(sources);
	return text;
}

static void start_and_stop(void **state)
{
	(void)state;
	assert_false(EVENT(1, "create"));
	assert_true(EVENT(1, "start"));
	assert_string_equal(all(), "");
	ONE(1, 5);
	assert_string_equal(all(), "1 active 10.0.0.5:80");
	assert_true(containers_take_changed(containers));
	assert_false(containers_take_changed(containers));
	ONE(1, 5);
	LIST(UP(1, 5));
	assert_false(containers_take_changed(containers));
	assert_false(KILL(1, 15));
	assert_string_equal(all(), "1 draining 10.0.0.5:80");
	assert_true(EVENT(1, "die"));
	assert_string_equal(all(), "1 draining gone 10.0.0.5:80");
	ONE(1, 5); /* Docker still lists it */
	NOT(1);
	assert_string_equal(all(), "1 draining gone 10.0.0.5:80");
	pass(1999);
	assert_string_equal(all(), "1 draining gone 10.0.0.5:80");
	pass(1);
	assert_string_equal(all(), "");
	assert_int_equal(containers_count(containers), 0);
}

/* It dies before it has been listed, and Docker still lists it then. */
static void dead_before_listed(void **state)
{
	(void)state;
	EVENT(1, "start");
	EVENT(1, "die");
	ONE(1, 5);
	assert_string_equal(all(), "");
	EVENT(2, "start");
	NOT(2);
	assert_int_equal(containers_count(containers), 1);
	pass(2000);
	assert_int_equal(containers_count(containers), 0);
}

static void destroyed(void **state)
{
	(void)state;
	LIST(UP(1, 5), UP(2, 6));
	EVENT(1, "die");
	assert_true(EVENT(1, "destroy"));
	assert_string_equal(all(), "2 active 10.0.0.6:80");
	NOBODY();
	assert_string_equal(all(), "");
}

/* Between start and list its address is that of the one that ran before. */
static void restarted(void **state)
{
	(void)state;
	LIST(UP(1, 5));
	KILL(1, 15);
	EVENT(1, "die");
	pass(1000);
	EVENT(1, "start");
	assert_string_equal(all(), "1 starting 10.0.0.5:80");
	ONE(1, 6);
	assert_string_equal(all(), "1 active 10.0.0.6:80");
	EVENT(1, "restart");
	assert_string_equal(all(), "1 active 10.0.0.6:80");
	pass(30000);
	assert_string_equal(all(), "1 active 10.0.0.6:80");
}

static void restarted_by_policy(void **state)
{
	(void)state;
	LIST(UP(1, 5));
	EVENT(1, "die");
	ONE(1, 5);
	assert_string_equal(all(), "1 draining gone 10.0.0.5:80");
	ONE(1, 0, .state = "restarting");
	assert_string_equal(all(), "1 starting -");
	pass(60000); /* its delay doubles */
	assert_string_equal(all(), "1 starting -");
	EVENT(1, "start");
	ONE(1, 7);
	assert_string_equal(all(), "1 active 10.0.0.7:80");
}

/* Of one that waited to be started again no `die` tells. */
static void stopped_while_restarting(void **state)
{
	(void)state;
	LIST(UP(1, 0, .state = "restarting"));
	assert_true(EVENT(1, "stop"));
	NOT(1);
	assert_string_equal(all(), "");
}

static void stop_signal(void **state)
{
	(void)state;
	LIST(UP(1, 5), UP(2, 6));
	inspect(1, "\"StopSignal\":\"SIGQUIT\",\"StopTimeout\":3");
	KILL(1, 15);
	KILL(1, 1);
	assert_string_equal(all(), "1 active 10.0.0.5:80, 2 active 10.0.0.6:80");
	KILL(1, 3);
	KILL(2, 9);
	assert_string_equal(all(), "1 draining 10.0.0.5:80, 2 draining 10.0.0.6:80");
	ONE(1, 5);
	pass(12999);
	assert_string_equal(all(), "1 draining 10.0.0.5:80, 2 draining 10.0.0.6:80");
	pass(1); /* 10 s behind its timeout */
	assert_string_equal(all(), "1 active 10.0.0.5:80, 2 draining 10.0.0.6:80");
	pass(7000);
	assert_string_equal(all(), "1 active 10.0.0.5:80, 2 active 10.0.0.6:80");
}

/* The signal comes before Docker has said which one stops it. */
static void killed_before_inspected(void **state)
{
	(void)state;
	LIST(UP(1, 5), UP(2, 6), UP(3, 7));
	KILL(1, 3);
	KILL(2, 15);
	KILL(3, 9);
	assert_string_equal(all(), "1 active 10.0.0.5:80, 2 draining 10.0.0.6:80, "
				   "3 draining 10.0.0.7:80");
	inspect(1, "\"StopSignal\":\"SIGQUIT\"");
	inspect(2, "\"StopSignal\":\"SIGQUIT\"");
	inspect(3, "\"StopSignal\":\"SIGQUIT\"");
	assert_string_equal(all(), "1 draining 10.0.0.5:80, 2 active 10.0.0.6:80, "
				   "3 draining 10.0.0.7:80");
}

static void each_is_inspected_once(void **state)
{
	unsigned int seen = 0;
	const char *id;

	(void)state;
	LIST(UP(1, 5), UP(2, 6), UP(3, 7));
	while ((id = containers_next_inspect(containers)))
		seen += (unsigned int)strtol(id, NULL, 16);
	assert_int_equal(seen, 6);
	LIST(UP(1, 5), UP(2, 6), UP(3, 7), UP(4, 8));
	assert_string_equal(containers_next_inspect(containers), id_of(4));
	assert_null(containers_next_inspect(containers));
	containers_inspect_again(containers, id_of(2), now_ms + 100);
	containers_inspect_again(containers, id_of(9), now_ms + 100);
	assert_null(containers_next_inspect(containers));
	pass(100);
	assert_string_equal(containers_next_inspect(containers), id_of(2));
	assert_null(containers_next_inspect(containers));
	/* whoever is next goes away */
	LIST(UP(1, 5), UP(2, 6), UP(3, 7), UP(4, 8), UP(5, 9), UP(6, 10));
	assert_non_null(containers_next_inspect(containers));
	NOBODY();
	assert_null(containers_next_inspect(containers));
}

/* What an event says holds for a second, whatever lists show. */
static void told_states(void **state)
{
	(void)state;
	LIST(UP(1, 5));
	assert_true(EVENT(1, "pause"));
	ONE(1, 5);
	pass(999);
	assert_string_equal(all(), "1 paused 10.0.0.5:80");
	ONE(1, 5, .state = "paused");
	pass(1);
	assert_string_equal(all(), "1 paused 10.0.0.5:80");
	EVENT(1, "unpause");
	ONE(1, 5);
	assert_string_equal(all(), "1 active 10.0.0.5:80");
	EVENT(1, "health_status: unhealthy");
	assert_string_equal(all(), "1 unhealthy 10.0.0.5:80");
	EVENT(1, "connect");
	EVENT(1, "rename");
	ONE(1, 5);
	assert_string_equal(all(), "1 unhealthy 10.0.0.5:80");
	EVENT(1, "health_status: healthy");
	ONE(1, 5);
	assert_string_equal(all(), "1 active 10.0.0.5:80");
	EVENT(1, "pause");
	EVENT(1, "start");
	ONE(1, 5);
	assert_string_equal(all(), "1 active 10.0.0.5:80");
}

/* At once, which is not this module's, 200 ms later, and 2 s behind that; and no more. */
static void looked_at_again(void **state)
{
	(void)state;
	LIST(UP(1, 5), UP(2, 6));
	pass(60000);
	assert_string_equal(looks, "");
	EVENT(1, "pause");
	pass(199);
	assert_string_equal(looks, "");
	pass(1);
	assert_string_equal(looks, "1");
	/* what happens to others changes nothing */
	for (int i = 0; i < 39; i++) {
		EVENT(2, "rename");
		pass(50);
	}
	assert_null(strstr(looks + 1, "1"));
	pass(50);
	assert_non_null(strstr(looks + 1, "1"));
	pass(3000);
	*looks = '\0';
	pass(60000);
	assert_string_equal(looks, "");
}

static void without_address(void **state)
{
	(void)state;
	EVENT(1, "start");
	ONE(1, 0);
	assert_string_equal(all(), "1 starting -");
	pass(4500);
	assert_string_equal(looks, "111");
	ONE(1, 5);
	assert_string_equal(all(), "1 active 10.0.0.5:80");
	pass(2000);
	*looks = '\0';
	pass(60000);
	assert_string_equal(looks, "");
	ONE(1, 0);
	pass(9999);
	assert_string_equal(all(), "1 starting -");
	pass(1);
	assert_string_equal(all(), "1 rejected -");
	ONE(1, 0);
	assert_string_equal(all(), "1 rejected -");
	EVENT(1, "connect");
	ONE(1, 6);
	assert_string_equal(all(), "1 active 10.0.0.6:80");
}

/* Whoever is taken off the network that it is reached by has lost its address. */
static void disconnected(void **state)
{
	(void)state;
	LIST(UP(1, 5));
	tell(1, "disconnect", "\"name\":\"other\"");
	tell(1, "disconnect", "\"name\":\"ne\"");
	assert_string_equal(all(), "1 active 10.0.0.5:80");
	assert_true(tell(1, "disconnect", "\"name\":\"net\""));
	assert_string_equal(all(), "1 starting 10.0.0.5:80");
	ONE(1, 6);
	assert_string_equal(all(), "1 active 10.0.0.6:80");
	EVENT(1, "disconnect"); /* of which is not said */
	assert_string_equal(all(), "1 starting 10.0.0.6:80");
}

static bool is_five(void *ctx, const struct sockaddr_storage *address)
{
	char text[ADDRESS_TEXT_MAX];

	(void)ctx;
	return !strcmp(address_print(address, text), "10.0.0.5:80");
}

static void doubt(void **state)
{
	(void)state;
	LIST(UP(1, 5), UP(2, 6));
	assert_int_equal(containers_doubt(containers, is_five, NULL), 1);
	assert_string_equal(all(), "1 starting 10.0.0.5:80, 2 active 10.0.0.6:80");
	LIST(UP(1, 5), UP(2, 6));
	assert_string_equal(all(), "1 active 10.0.0.5:80, 2 active 10.0.0.6:80");
}

#define OWNER "container:0000000000000000000000000000000000000000000000000000000000000009"

static void follower(void **state)
{
	(void)state;
	assert_null(containers_next_followed(containers));
	LIST(UP(1, 0, .mode = OWNER));
	assert_string_equal(all(), ""); /* it is known in a moment */
	assert_string_equal(containers_next_followed(containers), id_of(9));
	assert_null(containers_next_followed(containers));
	answer_follow(9, &(struct shown)UP(9, 5, .bare = true));
	assert_string_equal(all(), "1 active 10.0.0.5:80");
	/* asked again with each list, its address stays meanwhile */
	LIST(UP(1, 0, .mode = OWNER));
	assert_string_equal(all(), "1 active 10.0.0.5:80");
	assert_string_equal(containers_next_followed(containers), id_of(9));
	answer_follow(9, &(struct shown)UP(9, 5, .bare = true));
	/* the owner is on another network */
	tell(9, "disconnect", "\"name\":\"net\"");
	assert_string_equal(all(), "1 starting 10.0.0.5:80");
	assert_string_equal(containers_next_followed(containers), id_of(9));
	EVENT(9, "connect"); /* while it is being asked for: older than this */
	answer_follow(9, &(struct shown)UP(9, 5, .bare = true));
	assert_string_equal(all(), "1 starting 10.0.0.5:80");
	assert_string_equal(containers_next_followed(containers), id_of(9));
	answer_follow(9, &(struct shown)UP(9, 6, .bare = true));
	assert_string_equal(all(), "1 active 10.0.0.6:80");
}

/* The new owner's network is another one than what is left of the old. */
static void follower_of_the_dead(void **state)
{
	(void)state;
	LIST(UP(1, 0, .mode = OWNER));
	containers_next_followed(containers);
	answer_follow(9, &(struct shown)UP(9, 5, .bare = true));
	EVENT(9, "die");
	assert_string_equal(all(), "1 starting 10.0.0.5:80");
	containers_next_followed(containers);
	answer_follow(9, &(struct shown)UP(9, 5, .bare = true)); /* Docker still lists it */
	assert_string_equal(all(), "1 starting -");
	EVENT(9, "start");
	containers_next_followed(containers);
	answer_follow(9, &(struct shown)UP(9, 6, .bare = true));
	assert_string_equal(all(), "1 starting -");
	pass(2000);
	assert_string_equal(all(), "1 rejected -");
	EVENT(1, "die");
	EVENT(1, "start");
	ONE(1, 0, .mode = OWNER);
	assert_string_equal(containers_next_followed(containers), id_of(9));
	answer_follow(9, &(struct shown)UP(9, 6, .bare = true));
	assert_string_equal(all(), "1 active 10.0.0.6:80");
	/* it starts itself anew: what was known of the owner is old */
	EVENT(1, "die");
	EVENT(1, "start");
	ONE(1, 0, .mode = OWNER);
	assert_string_equal(all(), "1 starting 10.0.0.6:80");
}

static void follower_of_nobody(void **state)
{
	(void)state;
	LIST(UP(1, 0, .mode = OWNER));
	containers_next_followed(containers);
	answer_follow(9, NULL);
	assert_string_equal(all(), "1 starting -");
	pass(2000);
	assert_string_equal(all(), "1 rejected -");
	LIST(UP(1, 0, .mode = OWNER));
	containers_next_followed(containers);
	answer_follow(9, NULL);
	assert_string_equal(all(), "1 rejected -");
	EVENT(9, "start");
	containers_next_followed(containers);
	answer_follow(9, &(struct shown)UP(9, 6, .bare = true));
	assert_string_equal(all(), "1 active 10.0.0.6:80");
}

/* The first list of a new connection, of one that has died a moment ago, and of one long before. */
static void list_behind_an_outage(void **state)
{
	(void)state;
	LIST(UP(1, 5), UP(2, 6));
	EVENT(1, "die");
	containers_expire(containers, now_ms, false, look, NULL);
	now_ms += 900;
	EVENT(2, "die");
	now_ms += 200;
	containers_trust_list(containers, now_ms);
	LIST(UP(1, 7), UP(2, 6));
	assert_string_equal(all(), "1 active 10.0.0.7:80, 2 draining gone 10.0.0.6:80");
	pass(2000);
	assert_string_equal(all(), "1 active 10.0.0.7:80");
}

/* Nobody tells of a new start: what has died stays known, without a deadline that is over. */
static void gone_in_an_outage(void **state)
{
	(void)state;
	LIST(UP(1, 5));
	EVENT(1, "die");
	assert_int_equal(containers_expire(containers, now_ms, false, look, NULL), now_ms + 200);
	now_ms += 60000;
	for (int i = 0; i < 4; i++) {
		uint64_t next_ms = containers_expire(containers, now_ms, false, look, NULL);

		assert_true(!next_ms || next_ms > now_ms);
		now_ms += 5000;
	}
	assert_string_equal(all(), "1 draining gone 10.0.0.5:80");
	pass(0);
	assert_string_equal(all(), "");
}

static void not_docker(void **state)
{
	struct json *root = json_parse("{}", 2);

	(void)state;
	LIST(UP(1, 5));
	assert_false(containers_apply(containers, root, now_ms));
	assert_false(containers_apply(containers, NULL, now_ms));
	json_free(&root);
	root = json_parse("[{\"Id\":\"../x\"}]", 15);
	assert_false(containers_apply(containers, root, now_ms));
	json_free(&root);
	assert_string_equal(all(), "1 active 10.0.0.5:80");
}

#include "containers_model.h"

#define CASE(f) cmocka_unit_test_setup_teardown(f, setup, teardown)

int main(void)
{
	const struct CMUnitTest tests[] = {
		CASE(start_and_stop),
		CASE(dead_before_listed),
		CASE(destroyed),
		CASE(restarted),
		CASE(restarted_by_policy),
		CASE(stopped_while_restarting),
		CASE(stop_signal),
		CASE(killed_before_inspected),
		CASE(each_is_inspected_once),
		CASE(told_states),
		CASE(looked_at_again),
		CASE(without_address),
		CASE(disconnected),
		CASE(doubt),
		CASE(follower),
		CASE(follower_of_the_dead),
		CASE(follower_of_nobody),
		CASE(list_behind_an_outage),
		CASE(gone_in_an_outage),
		CASE(not_docker),
		cmocka_unit_test(simulated_docker),
	};

	return cmocka_run_group_tests(tests, NULL, NULL);
}
