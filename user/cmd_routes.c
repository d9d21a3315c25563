// SPDX-License-Identifier: MIT
#include "cmd.h"

#include <arpa/inet.h>
#include <errno.h>
#include <poll.h>
#include <signal.h>
#include <stdlib.h>
#include <string.h>
#include <time.h>

#include "routelist.h"

#define WATCH_MS 500
#define SETTLED_MS 1000 /* what is written within a millisecond of what was read is read once more */

static void backend_json(struct json *array, const struct routelist_backend *backend)
{
	const struct kkm_backend *value = &backend->value;
	struct json *object = json_append_object(array);
	char address[INET6_ADDRSTRLEN];

	json_add_str(object, "container", value->container);
	json_add_str(object, "id", value->id);
	json_add_str(object, "service", *value->service ? value->service : NULL);
	json_add_str(object, "address",
		     cmd_address(backend->key.address, backend->key.address6, address));
	json_add_int(object, "port", backend->key.port);
	json_add_str(object, "state", text_state(value->state));
	json_add_str(object, "owner", text_owner(value->owner));
	json_add_str(object, "via", value->via);
	json_add_bool(object, "tls", value->tls_port);
	if (value->tls_port)
		json_add_int(object, "tls_port", value->tls_port);
	if (value->proxy_protocol)
		json_add_int(object, "proxy_protocol", value->proxy_protocol);
	if (value->no_sockmap)
		json_add_bool(object, "no_sockmap", true);
	json_add_str(object, "description", value->description);
}

static void routes_json(struct json *root, const struct routelist *list)
{
	struct json *routes = json_add_array(root, "routes");
	size_t count;

	for (size_t i = 0; i < list->backend_count; i += count) {
		const struct routelist_backend *pool = &list->backends[i];
		struct json *route = json_append_object(routes), *backends;

		count = routelist_pool(list, i);
		json_add_str(route, "domain", pool->key.domain);
		json_add_str(route, "owner", text_owner(pool->value.owner));
		json_add_str(route, "state", text_state(routelist_state(pool, count)));
		backends = json_add_array(route, "backends");
		for (size_t j = 0; j < count; j++)
			backend_json(backends, &pool[j]);
	}
}

static void refusals_json(struct json *root, const struct routelist *list)
{
	struct json *arrays[] = {
		[KKM_REJECTED] = json_add_array(root, "rejected"),
		[KKM_CONFLICT] = json_add_array(root, "conflicts"),
	};

	for (size_t i = 0; i < list->rejected_count; i++) {
		const struct routelist_rejected *rejected = &list->rejected[i];
		struct json *object = json_append_object(arrays[rejected->value.refusal]);

		json_add_str(object, "container", rejected->value.container);
		json_add_str(object, "id", rejected->key.id);
		json_add_str(object, "domain", *rejected->key.domain ? rejected->key.domain : NULL);
		json_add_str(object, "label", rejected->value.label);
		json_add_str(object, "reason", rejected->value.reason);
		if (*rejected->value.wanted)
			json_add_str(object, "wanted", rejected->value.wanted);
	}
}

static void print_routes(const struct routelist *list, const struct table_screen *screen)
{
	static const struct table_column columns[] = {
		{ "DOMAIN", TABLE_KEEP }, { "CONTAINER", TABLE_KEEP }, { "SERVICE", TABLE_KEEP },
		{ "ADDRESS", TABLE_KEEP }, { "STATE", TABLE_KEEP },    { "OWNER", TABLE_KEEP },
		{ "VIA", TABLE_CUT },	   { "DESCRIPTION", TABLE_CUT },
	};
	struct table *table = table_new(columns, sizeof(columns) / sizeof(*columns));

	for (size_t i = 0; i < list->backend_count; i++) {
		const struct routelist_backend *backend = &list->backends[i];
		const struct kkm_backend *value = &backend->value;
		bool again = i && !strcmp(backend->key.domain, backend[-1].key.domain);
		char address[CMD_ENDPOINT_LEN];

		table_add(table, TABLE_BOLD, again ? "" : backend->key.domain);
		table_add(table, TABLE_PLAIN, value->container);
		table_add(table, TABLE_PLAIN, value->service);
		table_add(table, TABLE_PLAIN,
			  cmd_endpoint(backend->key.address, backend->key.address6,
				       backend->key.port, address));
		table_add(table, cmd_state_style(value->state), text_state(value->state));
		table_add(table, TABLE_PLAIN, text_owner(value->owner));
		table_add(table, TABLE_DIM, value->via);
		table_add(table, TABLE_PLAIN, value->description);
	}
	if (table_is_empty(table)) {
		table_text(screen, TABLE_DIM, "no domain is routed");
		fputc('\n', screen->out);
	}
	table_print(table, screen);
	table_free(&table);
}

static void print_refusals(const struct routelist *list, enum kkm_refusal refusal,
			   const struct table_screen *screen)
{
	static const struct table_column columns[] = { { "CONTAINER", TABLE_KEEP },
						       { "DOMAIN", TABLE_KEEP },
						       { "REASON", TABLE_WRAP } };
	struct table *table = table_new(columns, 3);

	for (size_t i = 0; i < list->rejected_count; i++) {
		const struct routelist_rejected *rejected = &list->rejected[i];

		if (rejected->value.refusal != refusal)
			continue;
		table_add(table, TABLE_PLAIN, rejected->value.container);
		table_add(table, TABLE_PLAIN, rejected->key.domain);
		table_addf(table, TABLE_PLAIN, "%s%s%s", rejected->value.label,
			   *rejected->value.label ? " " : "", rejected->value.reason);
	}
	if (!table_is_empty(table)) {
		fputc('\n', screen->out);
		table_text(screen, TABLE_BAD,
			   refusal == KKM_CONFLICT ? "conflicts:" : "rejected:");
		fputc('\n', screen->out);
		table_print(table, screen);
	}
	table_free(&table);
}

static int print_json(const struct mapview *view, const struct routelist *list, bool pretty)
{
	struct json *root = cmd_document(view);

	json_add_bool(root, "running", view && !view->stale);
	routes_json(root, list);
	refusals_json(root, list);
	return cmd_print(&root, pretty);
}

static void print_text(const struct config *config, const struct routelist *list)
{
	struct table_screen screen;

	cmd_screen(config, &screen);
	print_routes(list, &screen);
	print_refusals(list, KKM_REJECTED, &screen);
	print_refusals(list, KKM_CONFLICT, &screen);
}

/* --watch. */

static volatile sig_atomic_t ended, resized;

static void on_signal(int signal_number)
{
	if (signal_number == SIGWINCH)
		resized = 1;
	else
		ended = 1;
}

/* They are taken while it waits, and then only. */
static void catch_signals(sigset_t *waiting)
{
	struct sigaction action = { .sa_handler = on_signal };
	sigset_t blocked;

	sigemptyset(&blocked);
	sigaddset(&blocked, SIGINT);
	sigaddset(&blocked, SIGTERM);
	sigaddset(&blocked, SIGWINCH);
	sigprocmask(SIG_BLOCK, &blocked, waiting);
	sigaction(SIGINT, &action, NULL);
	sigaction(SIGTERM, &action, NULL);
	sigaction(SIGWINCH, &action, NULL);
	sigdelset(waiting, SIGINT);
	sigdelset(waiting, SIGTERM);
	sigdelset(waiting, SIGWINCH);
}

enum presence { UNKNOWN, GONE, STALE, RUNNING };

struct watch {
	struct mapview view;
	struct routelist list;
	enum presence presence;
	bool shown;
};

static bool same_list(const struct routelist *a, const struct routelist *b)
{
	return a->backend_count == b->backend_count && a->rejected_count == b->rejected_count &&
	       (!a->backend_count ||
		!memcmp(a->backends, b->backends, a->backend_count * sizeof(*a->backends))) &&
	       (!a->rejected_count ||
		!memcmp(a->rejected, b->rejected, a->rejected_count * sizeof(*a->rejected)));
}

static void show(const struct config *config, const struct watch *watch)
{
	static const char *const states[] = {
		[GONE] = "not running: waiting for an agent",
		[STALE] = "stale: the agent has gone without stopping; waiting for another",
		[RUNNING] = "running",
	};
	bool terminal = cmd_is_terminal();
	char text[TEXT_TIME_MAX];

	if (config->json) {
		print_json(watch->presence == GONE ? NULL : &watch->view, &watch->list, false);
		return;
	}
	if (terminal)
		fputs("\033[H\033[2J\033[3J", stdout);
	printf("%s; as of %s%s\n\n", states[watch->presence],
	       text_time((__u64)time(NULL) * 1000, text), terminal ? "; ^C ends" : "");
	print_text(config, &watch->list);
	if (!terminal)
		putchar('\n');
	fflush(stdout);
}

/* False where what was read before is still so, as far as kkm_meta tells. */
static bool is_due(const struct watch *watch, const struct mapview *view, enum presence presence)
{
	__u64 now_ms = (__u64)time(NULL) * 1000;

	return presence != watch->presence || view->meta.written_ms != watch->view.meta.written_ms ||
	       view->meta.pid != watch->view.meta.pid ||
	       now_ms < view->meta.written_ms + SETTLED_MS + 1000;
}

/* Look once, and show what is new. 0 or -errno. */
static int look(const struct config *config, struct watch *watch)
{
	struct mapview view = { .stale = false };
	struct routelist list = { .backend_count = 0 };
	enum presence presence;
	int err = mapview_open(config->bpf_dir, &view);

	if (err && err != -ENOENT)
		return err;
	presence = err ? GONE : view.stale ? STALE : RUNNING;
	if (watch->shown && !resized && !is_due(watch, &view, presence))
		return 0;
	/* an agent that starts or stops has some of its maps pinned only */
	if (presence != GONE && routelist_read(&view, &list))
		return 0;
	watch->view = view;
	if (!watch->shown || resized || presence != watch->presence ||
	    !same_list(&list, &watch->list)) {
		routelist_free(&watch->list);
		watch->list = list;
		watch->presence = presence;
		watch->shown = true;
		resized = 0;
		show(config, watch);
	} else {
		routelist_free(&list);
	}
	return 0;
}

static bool runs_without_maps(const struct config *config)
{
	char why[CMD_WHY_LEN];
	struct mapview view;
	struct json *status =
		mapview_open(config->bpf_dir, &view) == -ENOENT ? cmd_fetch_status(config, why)
								: NULL;
	bool runs = status;

	json_free(&status);
	return runs;
}

static int watch_routes(const struct config *config)
{
	const struct timespec interval = { .tv_nsec = WATCH_MS * 1000000L };
	struct watch watch = { .presence = UNKNOWN };
	sigset_t waiting;
	int err = 0;

	if (runs_without_maps(config)) {
		cmd_open_maps(config, &watch.view);
		return 1;
	}
	catch_signals(&waiting);
	while (!ended && !err && !ferror(stdout)) {
		err = look(config, &watch);
		if (!err)
			ppoll(NULL, 0, &interval, &waiting);
	}
	routelist_free(&watch.list);
	if (err)
		cmd_open_maps(config, &watch.view); /* which says what is wrong */
	return err || ferror(stdout) ? 1 : 0;
}

int cmd_routes(struct config *config)
{
	struct routelist list;
	struct mapview view;
	int status = 0;

	if (config->watch)
		return watch_routes(config);
	if (!cmd_open_maps(config, &view))
		return 1;
	if (routelist_read(&view, &list)) {
		fprintf(stderr, "the maps in %s cannot be read whole: try again\n", view.dir);
		return 1;
	}
	cmd_note_stale(&view);
	if (config->json)
		status = print_json(&view, &list, true);
	else
		print_text(config, &list);
	routelist_free(&list);
	return status;
}
