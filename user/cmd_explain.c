// SPDX-License-Identifier: MIT
#include "cmd.h"

#include <arpa/inet.h>
#include <stdarg.h>
#include <stdlib.h>
#include <string.h>

#include "explain.h"

struct explanation {
	const struct config *config;
	struct mapview view;
	struct routelist list;
	struct json *status; /* of the running agent; NULL: none answers */
	char host[HOSTNAME_MAX + 1];
	const struct routelist_backend *pool; /* NULL: no domain takes it */
	size_t count, active, tls, tls_active;
	struct json *steps; /* NULL: text */
	struct table *table;
};

/* One step: `result` is a word. */
__attribute__((format(printf, 5, 6))) static void say(struct explanation *explanation,
						      const char *step, enum table_style style,
						      const char *result, const char *format, ...)
{
	struct json *object;
	char detail[1024];
	va_list args;

	va_start(args, format);
	vsnprintf(detail, sizeof(detail), format, args);
	va_end(args);
	if (!explanation->steps) {
		table_add(explanation->table, TABLE_DIM, step);
		table_add(explanation->table, style, result);
		table_add(explanation->table, TABLE_PLAIN, detail);
		return;
	}
	object = json_append_object(explanation->steps);
	json_add_str(object, "step", step);
	json_add_str(object, "result", result);
	json_add_str(object, "detail", detail);
}

static void explain_agent(struct explanation *explanation)
{
	char text[TEXT_TIME_MAX];

	text_time(explanation->view.meta.written_ms, text);
	if (explanation->view.stale)
		say(explanation, "agent", TABLE_BAD, "gone",
		    "it has ended without stopping: nobody answers; what follows was so at %s", text);
	else
		say(explanation, "agent", TABLE_GOOD, "running", "pid %u, routes last written %s",
		    explanation->view.meta.pid, text);
}

static void explain_name_step(struct explanation *explanation)
{
	const char *typed = explanation->config->operand;
	bool same = !strcmp(typed, explanation->host);

	say(explanation, "name", TABLE_PLAIN, explanation->host, "%s%.300s",
	    same ? "as it is typed" : "as the Host of a request is read: ", same ? "" : typed);
}

/* " 0.0.0.0:80 [::]:80" of one protocol, as the agent has bound them. */
static unsigned int bound(const struct explanation *explanation, const char *protocol, char *out,
			  size_t size)
{
	unsigned int count = 0;
	size_t len = 0;

	*out = '\0';
	json_each(listener, json_get(explanation->status, "listeners")) {
		if (strcmp(json_str(listener, "protocol", ""), protocol) || len >= size)
			continue;
		len += (size_t)snprintf(out + len, size - len, "%s%s", count++ ? ", " : "",
					json_str(listener, "address", "?"));
	}
	return count;
}

static void explain_listener(struct explanation *explanation)
{
	char addresses[512];

	if (!explanation->status)
		say(explanation, "listener", TABLE_DOUBTFUL, "unknown",
		    "the agent does not answer on its admin socket in %s",
		    explanation->config->run_dir);
	else if (bound(explanation, "http", addresses, sizeof(addresses)))
		say(explanation, "listener", TABLE_GOOD, "http", "%s", addresses);
	else
		say(explanation, "listener", TABLE_BAD, "none",
		    "no HTTP listener is bound: see --listen-http and the log");
}

static const char *rule_of(const char *domain)
{
	return !strcmp(domain, "*") ? "catch-all" : *domain == '*' ? "wildcard" : "exact";
}

static void explain_route(struct explanation *explanation)
{
	const struct routelist_backend *pool = explanation->pool;

	if (pool)
		say(explanation, "route", TABLE_GOOD, rule_of(pool->key.domain),
		    "%s, by %s, %zu backend%s", pool->key.domain, text_owner(pool->value.owner),
		    explanation->count, explanation->count == 1 ? "" : "s");
	else if (!explanation->view.meta.ready)
		say(explanation, "route", TABLE_DOUBTFUL, "none",
		    "no domain takes this name yet: Docker has not been read; see status");
	else
		say(explanation, "route", TABLE_BAD, "none",
		    "no domain takes this name: neither itself, nor a wildcard above it, nor *");
}

/* Whoever would have the name, and has not. */
static void explain_refusals(struct explanation *explanation)
{
	for (size_t i = 0; i < explanation->list.rejected_count; i++) {
		const struct routelist_rejected *rejected = &explanation->list.rejected[i];
		const struct kkm_rejected *value = &rejected->value;
		bool conflict = value->refusal == KKM_CONFLICT;

		if (explain_wanted(rejected, explanation->host))
			say(explanation, conflict ? "conflict" : "rejected", TABLE_DOUBTFUL,
			    value->container, "wants %.128s, and is not asked: %s%s%s",
			    *rejected->key.domain ? rejected->key.domain : value->wanted,
			    value->label, *value->label ? " " : "", value->reason);
	}
}

static void explain_slips(struct explanation *explanation)
{
	const char *similar[EXPLAIN_SIMILAR_MAX];
	unsigned int count = 0;

	if (!explanation->pool || *explanation->pool->key.domain == '*')
		count = explain_similar(&explanation->list, explanation->host, similar);
	for (unsigned int i = 0; i < count; i++) {
		bool above = !strncmp(similar[i], "*.", 2) &&
			     !strcmp(similar[i] + 2, explanation->host);

		say(explanation, "similar", TABLE_DOUBTFUL, similar[i], "%s",
		    above ? "takes what is below this name, and not the name itself"
			  : "did you mean this?");
	}
}

static const char *why_not(enum kkm_state state)
{
	static const char *const reasons[] = {
		[KKM_ACTIVE] = "gets requests",
		[KKM_STARTING] = "gets none yet: its health check has not passed, or it has no address",
		[KKM_UNHEALTHY] = "gets none: its health check fails; see docker inspect",
		[KKM_PAUSED] = "gets none: docker unpause it",
		[KKM_DRAINING] = "gets no new ones: it is stopping",
	};

	return state <= KKM_DRAINING ? reasons[state] : "?";
}

static void explain_backends(struct explanation *explanation)
{
	for (size_t i = 0; i < explanation->count; i++) {
		const struct routelist_backend *backend = &explanation->pool[i];
		const struct kkm_backend *value = &backend->value;
		char address[CMD_ENDPOINT_LEN];

		cmd_endpoint(backend->key.address, backend->key.address6, backend->key.port,
			     address);
		say(explanation, "backend", cmd_state_style(value->state), text_state(value->state),
		    "%s%s%s%s at %s (%s) %s%s", value->container, *value->service ? " (service " : "",
		    value->service, *value->service ? ")" : "", address,
		    *value->via ? value->via : text_owner(value->owner), why_not(value->state),
		    value->proxy_protocol ? "; connections begin with a PROXY protocol header" : "");
	}
	if (explanation->pool && !explanation->active)
		say(explanation, "choice", TABLE_BAD, "none",
		    "no backend is up: 503 with Retry-After, until one is");
	else if (explanation->active > 1)
		say(explanation, "choice", TABLE_GOOD, "least connections",
		    "of %zu that are up; ties in turn", explanation->active);
}

/* Of the active backends, those whose label keeps them to the relay. */
static size_t kept_off(const struct explanation *explanation)
{
	size_t count = 0;

	for (size_t i = 0; i < explanation->count; i++)
		count += explanation->pool[i].value.state == KKM_ACTIVE &&
			 explanation->pool[i].value.no_sockmap;
	return count;
}

static void explain_engine(struct explanation *explanation)
{
	const char *relay = text_engine(KKM_RELAY);
	const char *engine = json_str(explanation->status, "engine",
				      text_engine(explanation->view.meta.engine));
	const char *reason = json_str(explanation->status, "engine_reason",
				      "why is known to a running agent only");
	size_t off = kept_off(explanation);

	if (!explanation->active)
		return;
	if (!strcmp(engine, relay))
		say(explanation, "engine", TABLE_PLAIN, relay, "and no faster one: %s", reason);
	else if (off == explanation->active)
		say(explanation, "engine", TABLE_PLAIN, relay,
		    "and not %s: label kakuremichi.sockmap=off", engine);
	else
		say(explanation, "engine", TABLE_GOOD, engine,
		    "%s; what is large, and a request that ends its connection, goes by relay%s",
		    reason, off ? "; and so does all of those with label kakuremichi.sockmap=off" : "");
}

static void explain_tls(struct explanation *explanation)
{
	char addresses[512];
	bool listens = bound(explanation, "tls", addresses, sizeof(addresses));
	struct in6_addr address;

	if (explanation->status && !listens)
		say(explanation, "tls", TABLE_PLAIN, "none", "no TLS listener is bound");
	else if (inet_pton(AF_INET, explanation->host, &address) == 1 ||
		 inet_pton(AF_INET6, explanation->host, &address) == 1)
		say(explanation, "tls", TABLE_PLAIN, "unrecognized_name",
		    "clients of TLS do not name an address");
	else if (!explanation->pool && !explanation->view.meta.ready)
		say(explanation, "tls", TABLE_DOUBTFUL, "internal_error", "this alert, for now");
	else if (!explanation->tls)
		say(explanation, "tls", TABLE_PLAIN, "unrecognized_name",
		    explanation->pool ? "this alert: no backend has label kakuremichi.tls=passthrough"
				      : "this alert: no domain takes this name");
	else if (!explanation->tls_active)
		say(explanation, "tls", TABLE_BAD, "internal_error",
		    "this alert: no backend with label kakuremichi.tls=passthrough is up");
	else
		say(explanation, "tls", TABLE_GOOD, "passthrough",
		    "%s%sto %zu of these, by relay: nothing is decrypted", addresses,
		    listens ? ", " : "", explanation->tls_active);
}

static const char *verdict_of(const struct explanation *explanation)
{
	if (explanation->pool)
		return explanation->active ? "routed" : "503";
	return explanation->view.meta.ready ? "404" : "503";
}

static void match(struct explanation *explanation)
{
	explanation->pool = explain_match(&explanation->list, explanation->host,
					  &explanation->count);
	for (size_t i = 0; i < explanation->count; i++) {
		const struct kkm_backend *value = &explanation->pool[i].value;

		explanation->active += value->state == KKM_ACTIVE;
		explanation->tls += value->tls_port != 0;
		explanation->tls_active += value->tls_port && value->state == KKM_ACTIVE;
	}
}

static void explain_all(struct explanation *explanation)
{
	match(explanation);
	explain_agent(explanation);
	explain_name_step(explanation);
	explain_listener(explanation);
	explain_route(explanation);
	explain_refusals(explanation);
	explain_slips(explanation);
	explain_backends(explanation);
	explain_engine(explanation);
	explain_tls(explanation);
}

static int print_json(struct explanation *explanation)
{
	struct json *root = cmd_document(&explanation->view), *route;

	json_add_str(root, "domain", explanation->host);
	explanation->steps = json_add_array(root, "steps");
	explain_all(explanation);
	if (explanation->pool) {
		route = json_add_object(root, "route");
		json_add_str(route, "domain", explanation->pool->key.domain);
		json_add_str(route, "rule", rule_of(explanation->pool->key.domain));
		json_add_str(route, "state", text_state(routelist_state(explanation->pool,
									explanation->count)));
		json_add_str(route, "owner", text_owner(explanation->pool->value.owner));
	} else {
		json_add_null(root, "route");
	}
	json_add_str(root, "verdict", verdict_of(explanation));
	return cmd_print(&root, true);
}

static void print_text(struct explanation *explanation)
{
	static const struct table_column columns[] = { { NULL, TABLE_KEEP },
						       { NULL, TABLE_KEEP },
						       { NULL, TABLE_WRAP } };
	struct table_screen screen;
	const char *verdict;

	cmd_screen(explanation->config, &screen);
	explanation->table = table_new(columns, 3);
	explain_all(explanation);
	verdict = verdict_of(explanation);
	say(explanation, "verdict",
	    *verdict == 'r' ? TABLE_GOOD : *verdict == '4' ? TABLE_BAD : TABLE_DOUBTFUL, verdict, "%s",
	    *verdict == 'r'   ? explanation->view.stale ? "once an agent runs again" : ""
	    : *verdict == '4' ? "No tunnel configured for this domain"
			      : "Service Unavailable");
	table_print(explanation->table, &screen);
	table_free(&explanation->table);
}

int cmd_explain(struct config *config)
{
	struct explanation explanation = { .config = config };
	char why[CMD_WHY_LEN];
	const char *reason;
	int status = 0;

	if (explain_name(config->operand, explanation.host, &reason)) {
		char *clean = table_clean(config->operand);

		fprintf(stderr, "kakuremichi-agent: '%.100s' %s; give a DOMAIN such as "
				"app.example.com\n", clean ? clean : "?", reason);
		free(clean);
		return 2;
	}
	if (!cmd_open_maps(config, &explanation.view))
		return 1;
	if (routelist_read(&explanation.view, &explanation.list)) {
		fprintf(stderr, "the maps in %s cannot be read whole: try again\n", config->bpf_dir);
		return 1;
	}
	if (!explanation.view.stale)
		explanation.status = cmd_fetch_status(config, why);
	cmd_note_stale(&explanation.view);
	if (config->json)
		status = print_json(&explanation);
	else
		print_text(&explanation);
	json_free(&explanation.status);
	routelist_free(&explanation.list);
	return status;
}
