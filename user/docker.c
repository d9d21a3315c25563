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

#include "dockerjson.h"
#include "log.h"

#define BACKOFF_MIN_MS 250
#define BACKOFF_MAX_MS 10000
#define QUERY_TIMEOUT_MS 30000
#define ANSWER_MAX (64u << 20)
#define EVENT_MAX (1u << 20)
#define HELD_MAX 4096	 /* events kept while a list is under way; more make a new list due */
#define IDS_A_QUERY 64	 /* a URL of less than 8 KiB */
#define SHORT_ID 12
#define LOOK_AGAIN_MS 200   /* behind an event, and once more: */
#define LOOK_LAST_MS 2000

struct container {
	struct dockerjson_container info;
	int stop_signal; /* 0 until it has been inspected */
	bool inspected;	 /* or being so */
	bool draining;
	bool unresolved; /* follows another container whose address is not known yet */
	bool seen;	 /* in the list that is being applied */
	struct container *next;
};

/* What the one query under way is for; the order is that of urgency. */
enum query { QUERY_NONE, QUERY_VERSION, QUERY_LIST, QUERY_SOME, QUERY_FOLLOW, QUERY_INSPECT };

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

	struct container *containers;
	unsigned int container_count;
	uint64_t order; /* of the container that was seen last */
	struct id_set dirty; /* to be looked at */
	struct id_set again; /* to be looked at once more, later */
	struct loop_timer look_again;
	bool looked_again;
	struct dockerjson_event *held;
	unsigned int held_count;

	struct loop_task work;
	struct loop_timer retry;
	unsigned int failures;
	bool changed;
	int64_t last_event_ns, seen_event_ns; /* of this stream, of the ones before */
	struct docker_status status;
};

static void schedule(struct docker *docker)
{
	loop_defer(docker->loop, &docker->work);
}

static void mark_changed(struct docker *docker)
{
	docker->changed = true;
	schedule(docker);
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

static struct container **find(struct docker *docker, const char *id)
{
	struct container **link = &docker->containers;

	while (*link && strcmp((*link)->info.source.id, id))
		link = &(*link)->next;
	return link;
}

static void remove_container(struct docker *docker, struct container **link)
{
	struct container *container = *link;

	*link = container->next;
	free(container);
	docker->container_count--;
	mark_changed(docker);
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

static void mark_dirty(struct docker *docker, const char *id)
{
	if (!id_set_add(&docker->dirty, id))
		docker->list_due = true;
	schedule(docker);
}

/*
 * Docker tells of some changes (pause, health) before its list shows them: it writes the state that
 * lists are made from after it has sent the event (daemon/pause.go, monitor.go). So look again a little later,
 * and once more.
 */
static void look_now_and_again(struct docker *docker, const char *id)
{
	mark_dirty(docker, id);
	id_set_add(&docker->again, id);
	docker->looked_again = false;
	/* not put off by a steady flow of events */
	if (!docker->look_again.place || docker->look_again.at_ms >
						 loop_now_ms(docker->loop) + LOOK_AGAIN_MS)
		loop_timer_set(docker->loop, &docker->look_again, LOOK_AGAIN_MS);
}

static void look_at_followers(struct docker *docker, const char *id)
{
	for (struct container *c = docker->containers; c; c = c->next) {
		if (!strcmp(c->info.follows, id))
			look_now_and_again(docker, c->info.source.id);
	}
}

static void look_again_fire(struct loop_timer *timer)
{
	struct docker *docker =
		(struct docker *)((char *)timer - offsetof(struct docker, look_again));

	if (docker->again.count == IDS_A_QUERY)
		docker->list_due = true;
	for (unsigned int i = 0; i < docker->again.count; i++)
		mark_dirty(docker, docker->again.ids[i]);
	schedule(docker);
	if (docker->looked_again) {
		docker->again.count = 0;
		return;
	}
	docker->looked_again = true;
	loop_timer_set(docker->loop, &docker->look_again, LOOK_LAST_MS);
}

static void log_parsed(const struct dockerjson_container *info)
{
	const struct route_source *source = &info->source;
	char id[SHORT_ID + 1];

	short_id(source->id, id);
	if (*source->error.reason)
		log_warn("Failed to parse container", "id", id, "container", source->name, "label",
			 source->error.label, "error", source->error.reason, NULL);
	else
		log_info("Container parsed", "id", id, "name", source->name, "domain",
			 source->labels.domains[0], "#port", log_number(source->labels.port), NULL);
}

/* The error as much as the labels: a container that was just given an address is news. */
static bool same_source(const struct dockerjson_container *a, const struct dockerjson_container *b)
{
	return !memcmp(a, b, sizeof(*a));
}

static void upsert(struct docker *docker, const struct json *node, uint64_t order)
{
	struct dockerjson_container info;
	struct container **link, *container;
	int err = dockerjson_container(node, &info);

	if (err == -EPROTO) {
		log_warn("Docker sent a container that is none", NULL);
		return;
	}
	if (err)
		return;
	link = find(docker, info.source.id);
	container = *link;
	info.source.order = container ? container->info.source.order : order;
	if (!container) {
		container = calloc(1, sizeof(*container));
		if (!container) {
			docker->list_due = true;
			return;
		}
		*link = container;
		docker->container_count++;
	} else if (*info.follows && !strcmp(container->info.follows, info.follows)) {
		/* until they are known anew */
		info.source.address = container->info.source.address;
		if (!*info.source.error.reason)
			info.source.error = container->info.source.error;
	}
	if (container->draining)
		info.source.state = KKM_DRAINING;
	container->seen = true;
	container->unresolved = *info.follows;
	if (same_source(&container->info, &info))
		return;
	container->info = info;
	log_parsed(&info);
	mark_changed(docker);
}

/* The list of containers that answered a query; false where it is none. */
static bool apply_list(struct docker *docker, const struct json *root)
{
	uint64_t order;

	if (!json_is_array(root))
		return false;
	for (struct container *c = docker->containers; c; c = c->next)
		c->seen = false;
	/* Docker lists the newest first, by a clock that is finer than `Created` */
	json_each(node, root)
		docker->order++;
	order = docker->order;
	json_each(node, root)
		upsert(docker, node, order--);
	return true;
}

static void handle_event(struct docker *docker, const struct dockerjson_event *event)
{
	struct container **link = find(docker, event->id), *container = *link;
	char id[SHORT_ID + 1];

	if (!container && (!event->enabled || event->action != DOCKER_CHANGED))
		return;
	log_info("Docker event", "event", event->name, "container", short_id(event->id, id), NULL);
	switch (event->action) {
	case DOCKER_KILL:
		if (event->signal == SIGKILL ||
		    event->signal == (container->stop_signal ? container->stop_signal : SIGTERM)) {
			container->draining = true;
			container->info.source.state = KKM_DRAINING;
			mark_changed(docker);
		}
		break;
	case DOCKER_GONE:
		remove_container(docker, link);
		/* a list that is asked for right now may still have it: the same order in Docker */
		look_now_and_again(docker, event->id);
		break;
	case DOCKER_CHANGED:
		look_now_and_again(docker, event->id);
		break;
	case DOCKER_OTHER:
		break;
	}
}

static void on_event(void *ctx, const char *text, size_t len)
{
	struct docker *docker = ctx;
	struct dockerjson_event event;

	if (dockerjson_event(text, len, &event)) {
		log_warn("Docker sent an event that is none", NULL);
		return;
	}
	/* the stream was asked for from the last event on, which so comes once more */
	if (event.time_ns && event.time_ns == docker->seen_event_ns)
		return;
	if (event.time_ns > docker->last_event_ns)
		docker->last_event_ns = event.time_ns;
	if (event.action == DOCKER_OTHER)
		return;
	look_at_followers(docker, event.id);
	/*
	 * Acted on at once, and again behind the list that is under way and may be older. What
	 * happened while nobody listened is old news: the first list shows what became of it.
	 */
	if (docker->status.connected)
		handle_event(docker, &event);
	if (!docker->status.connected || docker->query_kind == QUERY_LIST ||
	    docker->query_kind == QUERY_SOME) {
		if (docker->held_count < HELD_MAX)
			docker->held[docker->held_count++] = event;
		else
			docker->list_due = true;
	}
}

/* An end that a new beginning follows: the list may show either. */
static bool is_outdated(const struct docker *docker, unsigned int at, unsigned int count)
{
	for (unsigned int i = at + 1; i < count; i++) {
		if (docker->held[i].action == DOCKER_CHANGED &&
		    !strcmp(docker->held[i].id, docker->held[at].id))
			return true;
	}
	return false;
}

static void replay_held(struct docker *docker)
{
	unsigned int count = docker->held_count;

	docker->held_count = 0;
	for (unsigned int i = 0; i < count; i++) {
		if (is_outdated(docker, i, count))
			look_now_and_again(docker, docker->held[i].id);
		else
			handle_event(docker, &docker->held[i]);
	}
}

static void set_connected(struct docker *docker, bool connected, const char *error)
{
	if (docker->status.connected != connected || !docker->status.since_ms)
		docker->status.since_ms = realtime_ns() / 1000000;
	docker->status.connected = connected;
	snprintf(docker->status.error, sizeof(docker->status.error), "%s", error);
}

/* Everything under way is dropped, every container kept; tried again after a while. */
static void fail(struct docker *docker, const char *why)
{
	const char *where = docker->options.unix_socket ? docker->options.unix_socket
							: docker->options.tcp;
	uint64_t delay_ms = BACKOFF_MIN_MS;
	uint32_t random = 0;
	char error[256];
	ssize_t n;

	snprintf(error, sizeof(error), "%.120s: %.120s", where, why);
	why = error;
	/* one line a change of state or of reason, not one a try */
	if (docker->status.connected || strcmp(why, docker->status.error))
		log_warn("Docker daemon not available", "error", why, "next",
			 docker->status.ready ? "routes stay, connecting again"
					      : "trying again until it is there; see "
						"--docker-socket",
			 NULL);
	set_connected(docker, false, why);
	http_cancel(&docker->stream);
	http_cancel(&docker->query);
	docker->query_kind = QUERY_NONE;
	docker->stream_open = false;
	docker->seen_event_ns = docker->last_event_ns;
	docker->held_count = docker->dirty.count = docker->again.count = 0;
	json_stream_reset(&docker->events);
	for (unsigned int i = 0; i < docker->failures && delay_ms < BACKOFF_MAX_MS; i++)
		delay_ms *= 2;
	if (delay_ms > BACKOFF_MAX_MS)
		delay_ms = BACKOFF_MAX_MS;
	docker->failures++;
	n = getrandom(&random, sizeof(random), GRND_NONBLOCK);
	(void)n; /* zero is as good a jitter as any */
	loop_timer_set(docker->loop, &docker->retry, delay_ms / 2 + random % delay_ms);
}

static void stream_head(void *ctx, long status)
{
	struct docker *docker = ctx;

	docker->stream_open = status == 200;
	docker->list_due = true;
	if (docker->stream_open) {
		log_info(docker->status.ready ? "Docker connected again"
					      : "Docker client created successfully",
			 "version", docker->version, NULL);
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
	return start_stream(docker) ? NULL : "out of memory";
}

static const char *list_answer(struct docker *docker, const struct json *root)
{
	struct container **link = &docker->containers;

	if (!apply_list(docker, root))
		return "GET /containers/json was not answered as Docker does";
	while (*link) {
		if (!(*link)->seen)
			remove_container(docker, link);
		else
			link = &(*link)->next;
	}
	replay_held(docker);
	docker->failures = 0;
	if (!docker->status.connected)
		log_info("Containers discovered", "#count", log_number(docker->container_count),
			 NULL);
	set_connected(docker, true, "");
	docker->status.ready = true;
	mark_changed(docker);
	return NULL;
}

static const char *some_answer(struct docker *docker, const struct json *root)
{
	if (!apply_list(docker, root))
		return "GET /containers/json was not answered as Docker does";
	for (unsigned int i = 0; i < docker->asked.count; i++) {
		struct container **link = find(docker, docker->asked.ids[i]);

		if (*link && !(*link)->seen)
			remove_container(docker, link);
	}
	replay_held(docker);
	return NULL;
}

static const char *follow_answer(struct docker *docker, const struct json *root)
{
	const char *id = docker->asked.ids[0];
	struct dockerjson_container was;

	for (struct container *c = docker->containers; c; c = c->next) {
		struct route_source *source = &c->info.source;

		if (strcmp(c->info.follows, id) || !c->unresolved)
			continue;
		c->unresolved = false;
		was = c->info;
		memset(&source->error, 0, sizeof(source->error));
		memset(&source->address, 0, sizeof(source->address));
		if (!json_first(root))
			snprintf(source->error.reason, sizeof(source->error.reason),
				 "container %.12s, whose network it shares, is not running", id);
		else
			dockerjson_address(json_first(root), source->labels.port, NULL,
					   &source->address, &source->error);
		if (same_source(&was, &c->info))
			continue;
		if (*source->error.reason)
			log_parsed(&c->info);
		mark_changed(docker);
	}
	return NULL;
}

static const char *inspect_answer(struct docker *docker, const struct json *root)
{
	struct container *container = *find(docker, docker->asked.ids[0]);

	if (container)
		container->stop_signal = dockerjson_stop_signal(root);
	return NULL;
}

static const char *take_answer(struct docker *docker, enum query kind, long status)
{
	struct json *root = NULL;
	const char *why = NULL;
	static char text[64];

	if (status != 200 && kind == QUERY_INSPECT)
		return NULL; /* gone meanwhile */
	if (status != 200) {
		snprintf(text, sizeof(text), "HTTP status %ld", status);
		return text;
	}
	if (kind == QUERY_VERSION)
		return version_answer(docker);
	root = json_parse(docker->answer, docker->answer_len);
	if (kind == QUERY_LIST)
		why = list_answer(docker, root);
	else if (kind == QUERY_SOME)
		why = some_answer(docker, root);
	else if (kind == QUERY_FOLLOW)
		why = follow_answer(docker, root);
	else if (kind == QUERY_INSPECT)
		why = inspect_answer(docker, root);
	json_free(&root);
	return why;
}

static void query_done(void *ctx, int err, long status, const char *reason)
{
	struct docker *docker = ctx;
	enum query kind = docker->query_kind;
	const char *why;

	docker->query = NULL;
	docker->query_kind = QUERY_NONE;
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
	err = http_get(docker->http, url, docker->options.unix_socket, QUERY_TIMEOUT_MS, &handler,
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
	append(&filters, docker->asked.count ? "]}" : "}");
	escaped = http_escape(filters.data);
	if (!escaped)
		return -ENOMEM;
	snprintf(path, sizeof(path), "/containers/json?filters=%s", escaped);
	free(escaped);
	return start_query(docker, kind, path);
}

static int query_inspect(struct docker *docker, struct container *container)
{
	char path[KKM_ID_LEN + 32];

	container->inspected = true;
	docker->asked.count = 0;
	id_set_add(&docker->asked, container->info.source.id);
	snprintf(path, sizeof(path), "/containers/%s/json", container->info.source.id);
	return start_query(docker, QUERY_INSPECT, path);
}

static int query_follow(struct docker *docker, struct container *container)
{
	docker->asked.count = 0;
	id_set_add(&docker->asked, container->info.follows);
	return query_containers(docker, QUERY_FOLLOW, false);
}

/* The most urgent thing that Docker has to be asked, if any. */
static int next_query(struct docker *docker)
{
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
	for (struct container *c = docker->containers; c; c = c->next) {
		if (c->unresolved)
			return query_follow(docker, c);
	}
	for (struct container *c = docker->containers; c; c = c->next) {
		if (!c->inspected)
			return query_inspect(docker, c);
	}
	return 0;
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

/* At the end of a turn: tell of changes, and ask what is to be asked. */
static void work_run(struct loop_task *task)
{
	struct docker *docker = (struct docker *)((char *)task - offsetof(struct docker, work));

	if (docker->stream_open && !docker->query && next_query(docker))
		fail(docker, "out of memory");
	if (docker->changed) {
		docker->changed = false;
		docker->options.changed(docker->options.ctx);
	}
}

static void retry_fire(struct loop_timer *timer)
{
	struct docker *docker = (struct docker *)((char *)timer - offsetof(struct docker, retry));

	if (start_query(docker, QUERY_VERSION, "/version"))
		fail(docker, "out of memory");
}

int docker_new(struct loop *loop, struct http *http, const struct docker_options *options,
	       struct docker **out)
{
	struct docker *docker = calloc(1, sizeof(*docker));

	if (!docker)
		return -ENOMEM;
	docker->loop = loop;
	docker->http = http;
	docker->options = *options;
	docker->events.limit = EVENT_MAX;
	docker->work.run = work_run;
	docker->retry.fire = retry_fire;
	docker->look_again.fire = look_again_fire;
	docker->held = calloc(HELD_MAX, sizeof(*docker->held));
	if (!docker->held) {
		docker_free(&docker);
		return -ENOMEM;
	}
	snprintf(docker->base, sizeof(docker->base), "http://%s",
		 options->unix_socket ? "docker" : options->tcp);
	log_info("Creating Docker client", "socket",
		 options->unix_socket ? options->unix_socket : options->tcp, NULL);
	loop_timer_set(loop, &docker->retry, 0);
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
	loop_timer_clear(docker->loop, &docker->look_again);
	while (docker->containers) {
		struct container *container = docker->containers;

		docker->containers = container->next;
		free(container);
	}
	json_stream_reset(&docker->events);
	free(docker->answer);
	free(docker->held);
	free(docker);
}

int docker_sources(struct docker *docker, const struct route_source ***out, size_t *count)
{
	const struct route_source **sources = calloc(docker->container_count + 1, sizeof(*sources));
	size_t n = 0;

	if (!sources)
		return -ENOMEM;
	for (struct container *c = docker->containers; c; c = c->next) {
		struct route_source *source = &c->info.source;

		/* no address yet and no error either: its network's owner is being asked for */
		if (!source->address.ss_family && !*source->error.reason)
			continue;
		sources[n++] = source;
	}
	*out = sources;
	*count = n;
	return 0;
}

void docker_status(const struct docker *docker, struct docker_status *out)
{
	*out = docker->status;
	out->containers = docker->container_count;
}
