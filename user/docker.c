// SPDX-License-Identifier: MIT
#include "docker.h"

#include <errno.h>
#include <signal.h>
#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/random.h>
#include <time.h>

#include "containers.h"
#include "log.h"

#define BACKOFF_MIN_MS 250
#define BACKOFF_MAX_MS 2000 /* a socket of this host costs nothing to try, */
#define BACKOFF_LONG_MS 10000 /* another host's does, and what has failed often */
#define OFTEN 10
#define RENEW_DELAY_MS 1000
#define QUERY_TIMEOUT_MS 30000
#define SHORT_TIMEOUT_MS 5000 /* of a ping, and of inspecting: that waits for a start or stop */
#define INSPECT_AGAIN_MS 10000
#define ANSWER_MAX (32u << 20) /* 10,000 containers and more */
#define EVENT_MAX (1u << 20)
#define HELD_MAX 4096	 /* events kept while a list is under way; more make a new list due */
#define IDS_A_QUERY 64	 /* a URL of less than 8 KiB */
#define SHORT_ID 12
#define SILENCE_MS 10000    /* of the event stream: is anybody there? */
#define SILENCES_A_LIST 6   /* a stream may be silent because it is broken: compare */
#define UNPLUGGED_MS 1000   /* a container's interface has gone: an event should have come by then */
#define LEARN_MS 30000
#define RENEW_MS 2000	    /* to open another stream before anybody is told */
#define STREAM_LIFE_MS 1000 /* of one that was of use: what failed before it does not count */

/* What the one query under way is for; the order is that of urgency. */
enum query {
	QUERY_NONE,
	QUERY_VERSION,
	QUERY_LIST,
	QUERY_SOME,
	QUERY_FOLLOW,
	QUERY_INSPECT,
	QUERY_PING,
};

/* Containers, each once; more than this at once are quicker read whole. */
struct id_set {
	char ids[IDS_A_QUERY][KKM_ID_LEN];
	unsigned int count;
};

struct docker {
	struct loop *loop;
	struct http *http;
	struct docker_options options;
	char base[256]; /* of URLs, with the version once it is known */
	char version[DOCKERJSON_VERSION_LEN];

	struct http_request *stream, *query;
	enum query query_kind;
	struct id_set asked;
	char *answer;
	size_t answer_len, answer_capacity;
	struct json_stream events;
	bool stream_open, list_due;
	bool podman;   /* which answers here and there in another way */
	bool listed;   /* the list behind this stream's beginning has been applied */
	bool renewing; /* the stream was cut, nobody was told yet, and another one is being opened */
	uint64_t opened_ms, heard_ms; /* CLOCK_MONOTONIC, of this stream */
	unsigned int silences;
	uint64_t comparing_ms; /* since then a list is due, or under way, that should show nothing new */
	uint64_t unplugged_ms; /* when an interface left a bridge, */
	const struct host_port *unplugged; /* and which; while it is told of */

	struct containers *containers;
	struct id_set dirty; /* to be looked at */
	struct dockerjson_event *held;
	unsigned int held_count;
	bool overrun; /* there were more: the list that is under way is of no use */

	struct loop_task work;
	struct loop_timer retry, expire, silence, learn;
	unsigned int failures;
	bool changed; /* `ready` has */
	int64_t last_event_ns, seen_event_ns; /* of this stream, of the ones before */
	struct docker_status status;
};

static void schedule(struct docker *docker)
{
	loop_defer(docker->loop, &docker->work);
}

static uint64_t realtime_ns(void)
{
	struct timespec now;

	clock_gettime(CLOCK_REALTIME, &now);
	return (uint64_t)now.tv_sec * 1000000000 + (uint64_t)now.tv_nsec;
}

static const char *short_id(const char *id, char out[SHORT_ID + 1])
{
	snprintf(out, SHORT_ID + 1, "%.12s", id);
	return out;
}

/* False where there is no room for it. */
static bool id_set_add(struct id_set *set, const char *id)
{
	for (unsigned int i = 0; i < set->count; i++) {
		if (!strcmp(set->ids[i], id))
			return true;
	}
	if (set->count == IDS_A_QUERY)
		return false;
	snprintf(set->ids[set->count++], KKM_ID_LEN, "%s", id);
	return true;
}

static void mark_dirty(void *ctx, const char *id)
{
	struct docker *docker = ctx;

	if (!id_set_add(&docker->dirty, id))
		docker->list_due = true;
	schedule(docker);
}

static void handle_event(struct docker *docker, const struct dockerjson_event *event)
{
	uint64_t now_ms = loop_now_ms(docker->loop);

	containers_owner_event(docker->containers, event, now_ms);
	if (containers_concerns(docker->containers, event) &&
	    containers_event(docker->containers, event, now_ms))
		mark_dirty(docker, event->id);
	schedule(docker);
}

/* Is a list under way that may be older than the event, of one of ours or one that it may show? */
static bool is_behind_list(struct docker *docker, const struct dockerjson_event *event)
{
	return (docker->query_kind == QUERY_LIST || docker->query_kind == QUERY_SOME) &&
	       (event->enabled || *event->network || containers_concerns(docker->containers, event));
}

static void on_event(void *ctx, const char *text, size_t len)
{
	struct docker *docker = ctx;
	struct dockerjson_event event;
	char id[SHORT_ID + 1];

	if (dockerjson_event(text, len, &event)) {
		log_warn("Docker sent an event that is none", NULL);
		return;
	}
	/* bytes alone are no news */
	docker->heard_ms = loop_now_ms(docker->loop);
	docker->silences = 0;
	/* the stream was asked for from the last event on, which so comes once more */
	if (event.time_ns && event.time_ns == docker->seen_event_ns)
		return;
	if (event.time_ns > docker->last_event_ns)
		docker->last_event_ns = event.time_ns;
	docker->status.last_event_ms = realtime_ns() / 1000000;
	if (event.action == DOCKER_OTHER)
		return;
	docker->status.events++;
	if (containers_concerns(docker->containers, &event))
		log_info("Docker event", "event", event.name, "container",
			 short_id(event.id, id), NULL);
	/*
	 * Acted on at once, and again behind the list that is under way and may be older. What
	 * happened while nobody listened is old news: the first list shows what became of it.
	 */
	if (docker->listed)
		handle_event(docker, &event);
	if (docker->listed && !is_behind_list(docker, &event))
		return;
	if (docker->held_count == HELD_MAX)
		docker->overrun = true;
	else
		docker->held[docker->held_count++] = event;
}

static void replay_held(struct docker *docker)
{
	for (unsigned int i = 0; i < docker->held_count; i++)
		handle_event(docker, &docker->held[i]);
	docker->held_count = 0;
}

static void set_connected(struct docker *docker, bool connected, const char *error)
{
	if (docker->status.connected != connected || !docker->status.since_ms)
		docker->status.since_ms = realtime_ns() / 1000000;
	docker->status.connected = connected;
	snprintf(docker->status.error, sizeof(docker->status.error), "%s", error);
}

static bool is_container(void *ctx, const struct sockaddr_storage *address)
{
	return containers_have_address(ctx, address);
}

static void learn(struct docker *docker)
{
	host_learn(docker->options.host, is_container, docker->containers);
}

static void cancel_query(struct docker *docker)
{
	if (docker->query_kind == QUERY_INSPECT)
		containers_inspect_again(docker->containers, docker->asked.ids[0],
					 loop_now_ms(docker->loop));
	http_cancel(&docker->query);
	docker->query_kind = QUERY_NONE;
}

/* Everything under way is dropped, every container kept. */
static void drop(struct docker *docker)
{
	if (docker->listed)
		learn(docker); /* how it is before anything can change unseen */
	http_cancel(&docker->stream);
	cancel_query(docker);
	docker->stream_open = docker->listed = docker->overrun = false;
	docker->comparing_ms = 0;
	docker->seen_event_ns = docker->last_event_ns;
	docker->held_count = docker->dirty.count = 0;
	json_stream_reset(&docker->events);
	loop_timer_clear(docker->loop, &docker->silence);
}

static uint64_t backoff_ms(struct docker *docker)
{
	uint64_t limit = docker->options.unix_socket && docker->failures < OFTEN ? BACKOFF_MAX_MS
										 : BACKOFF_LONG_MS;
	uint64_t delay_ms = BACKOFF_MIN_MS;
	uint32_t random = 0;
	ssize_t n = getrandom(&random, sizeof(random), GRND_NONBLOCK);

	(void)n; /* zero is as good a jitter as any */
	for (unsigned int i = 0; i < docker->failures && delay_ms < limit; i++)
		delay_ms *= 2;
	if (delay_ms > limit)
		delay_ms = limit;
	return delay_ms / 2 + random % delay_ms;
}

/* One line a change of state, not one a try. */
static void not_available(struct docker *docker, const char *why)
{
	const char *where = docker->options.unix_socket ? docker->options.unix_socket
							: docker->options.tcp;
	char error[256];

	snprintf(error, sizeof(error), "%.120s: %.120s", where, why);
	if (docker->status.connected || !*docker->status.error)
		log_warn("Docker daemon not available", "error", error, "next",
			 docker->status.ready ? "routes stay, connecting again"
					      : "trying again until it is there; see "
						"--docker-socket",
			 NULL);
	else if (strcmp(error, docker->status.error))
		log_debug("Docker daemon not available", "error", error, NULL);
	set_connected(docker, false, error);
}

static void forgive(struct docker *docker)
{
	if (docker->listed && loop_now_ms(docker->loop) - docker->opened_ms >= STREAM_LIFE_MS)
		docker->failures = 0;
}

static void fail(struct docker *docker, const char *why)
{
	not_available(docker, why);
	forgive(docker);
	drop(docker);
	docker->renewing = false;
	loop_timer_set(docker->loop, &docker->retry, backoff_ms(docker));
	docker->failures++;
}

/*
 * Proxies in front of a socket cut streams that last, every few minutes. Nobody has to know, as long
 * as the next one can be opened at once.
 */
static void renew(struct docker *docker, const char *why)
{
	uint64_t delay_ms = 0;

	if (!docker->listed) {
		fail(docker, why);
		return;
	}
	log_debug("Docker event stream cut, opening another", "error", why, NULL);
	forgive(docker);
	drop(docker);
	docker->renewing = true;
	docker->status.renewals++;
	if (docker->failures++)
		delay_ms = backoff_ms(docker);
	if (delay_ms > RENEW_DELAY_MS)
		delay_ms = RENEW_DELAY_MS;
	loop_timer_set(docker->loop, &docker->retry, delay_ms);
	loop_timer_set(docker->loop, &docker->silence, RENEW_MS);
}

/* May it be somebody else's address by now? Docker cannot be asked, and has changed a bridge. */
static bool is_doubted(void *ctx, const struct sockaddr_storage *address)
{
	const struct docker *docker = ctx;

	return host_was_behind(docker->options.host, address, docker->unplugged);
}

static void on_unplug(void *ctx, const struct host_port *port)
{
	struct docker *docker = ctx;

	docker->unplugged = port;
	if (docker->listed) {
		if (docker->unplugged_ms > docker->heard_ms)
			return;
		/* an event tells of it, if the stream is what it seems to be */
		docker->unplugged_ms = loop_now_ms(docker->loop);
		loop_timer_set(docker->loop, &docker->silence, UNPLUGGED_MS);
	} else if (docker->status.ready &&
		   containers_doubt(docker->containers, is_doubted, docker)) {
		log_debug("Containers' addresses may have changed: waiting for Docker's list", NULL);
		schedule(docker);
	}
}

static void stream_head(void *ctx, long status)
{
	struct docker *docker = ctx;

	docker->stream_open = status == 200;
	docker->list_due = true;
	docker->opened_ms = docker->heard_ms = loop_now_ms(docker->loop);
	docker->silences = 0;
	loop_timer_set(docker->loop, &docker->silence, SILENCE_MS);
	if (docker->stream_open && !docker->renewing) {
		log_info(docker->status.ready ? "Docker connected again"
					      : "Docker client created successfully",
			 "version", docker->version, "engine", docker->status.engine, NULL);
		log_info("Starting Docker event watcher", NULL);
	}
	schedule(docker);
}

static int stream_data(void *ctx, const char *data, size_t len)
{
	struct docker *docker = ctx;

	if (!docker->stream_open)
		return 0; /* the text of an error */
	return json_stream_feed(&docker->events, data, len, on_event, docker);
}

static void stream_done(void *ctx, int err, long status, const char *reason)
{
	struct docker *docker = ctx;
	char why[256];

	docker->stream = NULL;
	if (err)
		snprintf(why, sizeof(why), "event stream: %s", reason);
	else if (status != 200)
		snprintf(why, sizeof(why), "event stream: HTTP status %ld", status);
	else
		snprintf(why, sizeof(why), "event stream ended");
	/* asked for what has been since the last event, it would send the same again */
	if (err == -EPROTO || err == -EMSGSIZE)
		docker->last_event_ns = 0;
	if (status == 200 && err != -EPROTO && err != -EMSGSIZE && err != -ENOMEM)
		renew(docker, why);
	else
		fail(docker, why);
}

static int answer_data(void *ctx, const char *data, size_t len)
{
	struct docker *docker = ctx;

	if (docker->answer_len + len > docker->answer_capacity) {
		size_t capacity = (docker->answer_len + len) * 2;
		char *grown;

		if (docker->answer_len + len > ANSWER_MAX)
			return -EMSGSIZE;
		grown = realloc(docker->answer, capacity);
		if (!grown)
			return -ENOMEM;
		docker->answer = grown;
		docker->answer_capacity = capacity;
	}
	memcpy(docker->answer + docker->answer_len, data, len);
	docker->answer_len += len;
	return 0;
}

static bool start_stream(struct docker *docker);

/* Answers to queries: each returns NULL, or why the connection is of no use. */

static const char *version_answer(struct docker *docker)
{
	int err = dockerjson_version(docker->answer, docker->answer_len, docker->version);
	static char why[128];

	if (err == -EOPNOTSUPP) {
		snprintf(why, sizeof(why),
			 "the daemon speaks API %s, this agent 1.24 to 1.55: update the older one",
			 docker->version);
		return why;
	}
	if (err)
		return "GET /version was not answered as Docker does";
	snprintf(docker->status.version, sizeof(docker->status.version), "%s", docker->version);
	dockerjson_engine(docker->answer, docker->answer_len, &docker->podman,
			  docker->status.engine);
	containers_set_podman(docker->containers, docker->podman);
	return start_stream(docker) ? NULL : "out of memory";
}

/*
 * The list that was just applied should have shown nothing new: has it, and nothing has come by the
 * stream meanwhile? Then the stream is broken.
 */
static bool is_unheard(struct docker *docker)
{
	bool differ = containers_take_changed(docker->containers);
	uint64_t since_ms = docker->comparing_ms;

	docker->changed |= differ;
	docker->comparing_ms = 0;
	return differ && since_ms && docker->heard_ms < since_ms;
}

static const char *list_answer(struct docker *docker, const struct json *root)
{
	unsigned int before = containers_count(docker->containers);
	bool unheard;

	docker->changed |= containers_take_changed(docker->containers);
	if (!docker->listed)
		containers_trust_list(docker->containers, loop_now_ms(docker->loop));
	if (!containers_apply(docker->containers, root, loop_now_ms(docker->loop)))
		return "GET /containers/json was not answered as Docker does";
	containers_asked_all(docker->containers);
	unheard = is_unheard(docker);
	/* what comes first is replayed as from then on */
	replay_held(docker);
	if (!docker->status.connected)
		log_info("Containers discovered", "#count",
			 log_number(containers_count(docker->containers)), NULL);
	else if (docker->renewing || before != containers_count(docker->containers))
		log_debug("Containers listed", "#count",
			  log_number(containers_count(docker->containers)), NULL);
	docker->listed = true;
	docker->renewing = false;
	set_connected(docker, true, "");
	docker->changed |= !docker->status.ready;
	docker->status.ready = true;
	if (unheard)
		renew(docker, "the list shows what no event has told of");
	schedule(docker);
	return NULL;
}

static const char *some_answer(struct docker *docker, const struct json *root)
{
	if (!containers_apply(docker->containers, root, loop_now_ms(docker->loop)))
		return "GET /containers/json was not answered as Docker does";
	for (unsigned int i = 0; i < docker->asked.count; i++)
		containers_asked(docker->containers, docker->asked.ids[i]);
	replay_held(docker);
	return NULL;
}

static const struct json *find_node(const struct json *list, const char *id)
{
	json_each(node, list) {
		if (!strcmp(json_str(node, "Id", ""), id))
			return node;
	}
	return NULL;
}

static const char *take_answer(struct docker *docker, enum query kind, long status)
{
	struct json *root = NULL;
	const char *why = NULL;
	static char text[64];

	if (kind == QUERY_PING || (status != 200 && kind == QUERY_INSPECT))
		return NULL; /* it answers; it is gone meanwhile */
	if (status != 200) {
		snprintf(text, sizeof(text), "HTTP status %ld", status);
		return text;
	}
	if (kind == QUERY_VERSION)
		return version_answer(docker);
	if ((kind == QUERY_LIST || kind == QUERY_SOME) && docker->overrun) {
		docker->overrun = false;
		docker->held_count = 0;
		docker->list_due = true;
		return NULL;
	}
	root = json_parse(docker->answer, docker->answer_len);
	if (kind == QUERY_LIST)
		why = list_answer(docker, root);
	else if (kind == QUERY_SOME)
		why = some_answer(docker, root);
	else if (kind == QUERY_FOLLOW)
		containers_followed(docker->containers, docker->asked.ids[0],
				    find_node(root, docker->asked.ids[0]),
				    loop_now_ms(docker->loop));
	else if (kind == QUERY_INSPECT)
		containers_inspected(docker->containers, docker->asked.ids[0], root,
				     loop_now_ms(docker->loop));
	json_free(&root);
	return why;
}

static void query_done(void *ctx, int err, long status, const char *reason)
{
	struct docker *docker = ctx;
	enum query kind = docker->query_kind;
	const char *why = NULL;

	docker->query = NULL;
	docker->query_kind = QUERY_NONE;
	/* while nobody answers, the bridges are those that the containers were on */
	if (!err)
		host_forget(docker->options.host);
	if (err == -ETIMEDOUT && kind == QUERY_INSPECT)
		containers_inspect_again(docker->containers, docker->asked.ids[0],
					 loop_now_ms(docker->loop) + INSPECT_AGAIN_MS);
	else
		why = err ? reason : take_answer(docker, kind, status);
	if (docker->answer_capacity > 1u << 20) {
		free(docker->answer);
		docker->answer = NULL;
		docker->answer_capacity = 0;
	}
	if (why)
		fail(docker, why);
	else
		schedule(docker);
}

struct text {
	char data[IDS_A_QUERY * (KKM_ID_LEN + 3) + 128];
	size_t len;
};

static int start_query(struct docker *docker, enum query kind, const char *path)
{
	struct http_handler handler = { .data = answer_data, .done = query_done, .ctx = docker };
	char url[3 * sizeof(struct text)];
	int err;

	snprintf(url, sizeof(url), "%s%s%s%s", docker->base, kind == QUERY_VERSION ? "" : "/v",
		 kind == QUERY_VERSION ? "" : docker->version, path);
	docker->answer_len = 0;
	err = http_get(docker->http, url, docker->options.unix_socket,
		       kind >= QUERY_INSPECT ? SHORT_TIMEOUT_MS : QUERY_TIMEOUT_MS, &handler,
		       &docker->query);
	if (!err)
		docker->query_kind = kind;
	return err;
}

__attribute__((format(printf, 2, 3))) static void append(struct text *text, const char *format, ...)
{
	va_list args;
	int n;

	va_start(args, format);
	n = vsnprintf(text->data + text->len, sizeof(text->data) - text->len, format, args);
	va_end(args);
	if (n > 0 && (size_t)n < sizeof(text->data) - text->len)
		text->len += (size_t)n;
}

/* Containers by label and, where `asked` has any, by these. */
static int query_containers(struct docker *docker, enum query kind, bool by_label)
{
	struct text filters = { .len = 0 };
	char path[3 * sizeof(filters.data)];
	char *escaped;

	append(&filters, "{");
	if (by_label)
		append(&filters, "\"label\":[\"kakuremichi.enabled=true\"]");
	for (unsigned int i = 0; i < docker->asked.count; i++)
		append(&filters, "%s\"%s\"", i ? "," : by_label ? ",\"id\":[" : "\"id\":[",
		       docker->asked.ids[i]);
	if (docker->asked.count)
		append(&filters, "]");
	/* Docker lists these of itself, Podman only those that run */
	if (docker->podman)
		append(&filters, ",\"status\":[\"running\",\"paused\"]");
	append(&filters, "}");
	escaped = http_escape(filters.data);
	if (!escaped)
		return -ENOMEM;
	snprintf(path, sizeof(path), "/containers/json?filters=%s", escaped);
	free(escaped);
	return start_query(docker, kind, path);
}

static int query_inspect(struct docker *docker, const char *id)
{
	char path[KKM_ID_LEN + 32];

	docker->asked.count = 0;
	id_set_add(&docker->asked, id);
	snprintf(path, sizeof(path), "/containers/%s/json", id);
	return start_query(docker, QUERY_INSPECT, path);
}

static int query_follow(struct docker *docker, const char *id)
{
	docker->asked.count = 0;
	id_set_add(&docker->asked, id);
	return query_containers(docker, QUERY_FOLLOW, false);
}

/* The most urgent thing that Docker has to be asked, if any. */
static int next_query(struct docker *docker)
{
	const char *id;

	if (docker->list_due) {
		if (!docker->status.connected)
			log_info("Discovering containers", NULL);
		docker->list_due = false;
		docker->dirty.count = docker->asked.count = 0;
		return query_containers(docker, QUERY_LIST, true);
	}
	if (docker->dirty.count) {
		docker->asked = docker->dirty;
		docker->dirty.count = 0;
		return query_containers(docker, QUERY_SOME, true);
	}
	id = containers_next_followed(docker->containers);
	if (id)
		return query_follow(docker, id);
	id = containers_next_inspect(docker->containers);
	return id ? query_inspect(docker, id) : 0;
}

static bool start_stream(struct docker *docker)
{
	struct http_handler handler = {
		.head = stream_head, .data = stream_data, .done = stream_done, .ctx = docker
	};
	/* the daemon subscribes a moment after it has sent the head; what came between is asked for */
	uint64_t since_ns = docker->last_event_ns ? (uint64_t)docker->last_event_ns : realtime_ns();
	char *escaped = http_escape("{\"type\":[\"container\",\"network\"]}");
	char url[512];
	int err = -ENOMEM;

	if (escaped) {
		snprintf(url, sizeof(url), "%s/v%s/events?since=%llu.%09llu&filters=%s",
			 docker->base, docker->version, (unsigned long long)(since_ns / 1000000000),
			 (unsigned long long)(since_ns % 1000000000), escaped);
		err = http_get(docker->http, url, docker->options.unix_socket, 0, &handler,
			       &docker->stream);
	}
	free(escaped);
	return !err;
}

static void expire(struct docker *docker)
{
	uint64_t now_ms = loop_now_ms(docker->loop);
	uint64_t next_ms = containers_expire(docker->containers, now_ms, docker->listed,
					     mark_dirty, docker);

	if (next_ms)
		loop_timer_set(docker->loop, &docker->expire,
			       next_ms > now_ms ? next_ms - now_ms : 0);
	else
		loop_timer_clear(docker->loop, &docker->expire);
}

static void learn_fire(struct loop_timer *timer)
{
	struct docker *docker = (struct docker *)((char *)timer - offsetof(struct docker, learn));

	if (docker->listed)
		learn(docker);
	loop_timer_set(docker->loop, timer, LEARN_MS);
}

/* At the end of a turn: tell of changes, and ask what is to be asked. */
static void work_run(struct loop_task *task)
{
	struct docker *docker = (struct docker *)((char *)task - offsetof(struct docker, work));

	expire(docker);
	if (docker->query_kind >= QUERY_INSPECT && (docker->list_due || docker->dirty.count))
		cancel_query(docker); /* nobody waits for it */
	if (docker->stream_open && !docker->query && next_query(docker))
		fail(docker, "out of memory");
	if (containers_take_changed(docker->containers) || docker->changed) {
		docker->changed = false;
		docker->options.changed(docker->options.ctx);
	}
}

static void expire_fire(struct loop_timer *timer)
{
	schedule((struct docker *)((char *)timer - offsetof(struct docker, expire)));
}

/*
 * Nothing has come by the stream for a while. Whoever does not answer on a second connection either is
 * not there; who does may still have lost the stream, so now and then all is compared.
 */
static void silence_fire(struct loop_timer *timer)
{
	struct docker *docker = (struct docker *)((char *)timer - offsetof(struct docker, silence));
	uint64_t now_ms = loop_now_ms(docker->loop), silent_ms = now_ms - docker->heard_ms;

	if (docker->renewing) {
		/* what is under way may still be answered */
		not_available(docker, "event stream cut, and no other one yet");
		docker->renewing = false;
		if (docker->stream_open)
			loop_timer_set(docker->loop, timer, SILENCE_MS);
		return;
	}
	if (docker->unplugged_ms > docker->heard_ms ||
	    (silent_ms >= SILENCE_MS && ++docker->silences % SILENCES_A_LIST == 0)) {
		docker->list_due = true;
		docker->comparing_ms = now_ms;
		docker->unplugged_ms = 0;
	} else if (silent_ms >= SILENCE_MS && !docker->query &&
		   start_query(docker, QUERY_PING, "/_ping")) {
		fail(docker, "out of memory");
		return;
	}
	schedule(docker);
	loop_timer_set(docker->loop, timer, SILENCE_MS);
}

static void retry_fire(struct loop_timer *timer)
{
	struct docker *docker = (struct docker *)((char *)timer - offsetof(struct docker, retry));

	if (start_query(docker, QUERY_VERSION, "/version"))
		fail(docker, "out of memory");
}

static int reach_rank(void *ctx, const struct sockaddr_storage *address)
{
	return host_reach(ctx, address);
}

int docker_new(struct loop *loop, struct http *http, const struct docker_options *options,
	       struct docker **out)
{
	struct dockerjson_reach reach = { .rank = reach_rank, .ctx = options->host };
	struct docker *docker = calloc(1, sizeof(*docker));

	if (!docker)
		return -ENOMEM;
	docker->loop = loop;
	docker->http = http;
	docker->options = *options;
	docker->events.limit = EVENT_MAX;
	docker->work.run = work_run;
	docker->retry.fire = retry_fire;
	docker->expire.fire = expire_fire;
	docker->silence.fire = silence_fire;
	docker->learn.fire = learn_fire;
	docker->held = calloc(HELD_MAX, sizeof(*docker->held));
	if (!docker->held || containers_new(&reach, &docker->containers)) {
		docker_free(&docker);
		return -ENOMEM;
	}
	host_on_unplug(options->host, on_unplug, docker);
	snprintf(docker->base, sizeof(docker->base), "http://%s",
		 options->unix_socket ? "docker" : options->tcp);
	log_info("Creating Docker client", "socket",
		 options->unix_socket ? options->unix_socket : options->tcp, NULL);
	loop_timer_set(loop, &docker->retry, 0);
	loop_timer_set(loop, &docker->learn, LEARN_MS);
	*out = docker;
	return 0;
}

void docker_free(struct docker **ptr)
{
	struct docker *docker = *ptr;

	if (!docker)
		return;
	*ptr = NULL;
	http_cancel(&docker->stream);
	http_cancel(&docker->query);
	loop_timer_clear(docker->loop, &docker->retry);
	loop_timer_clear(docker->loop, &docker->expire);
	loop_timer_clear(docker->loop, &docker->silence);
	loop_timer_clear(docker->loop, &docker->learn);
	host_on_unplug(docker->options.host, NULL, NULL);
	containers_free(&docker->containers);
	json_stream_reset(&docker->events);
	free(docker->answer);
	free(docker->held);
	free(docker);
}

int docker_sources(struct docker *docker, const struct route_source ***out, size_t *count)
{
	return containers_sources(docker->containers, out, count);
}

void docker_status(const struct docker *docker, struct docker_status *out)
{
	*out = docker->status;
	out->containers = containers_count(docker->containers);
}
