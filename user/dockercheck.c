// SPDX-License-Identifier: MIT
#include "dockercheck.h"

#include <errno.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "agent.h"
#include "containers.h"
#include "http.h"

#define ANSWER_MS 10000
#define LATER_MS 3600000
#define NO_LIST "GET /containers/json was not answered as Docker does"

struct asking {
	const struct config *config;
	struct host *host;
	struct containers *containers;
	struct dockercheck *out;
	bool podman;
};

static int rank(void *ctx, const struct sockaddr_storage *address)
{
	return host_reach(ctx, address);
}

static bool is_own(void *ctx, const struct sockaddr_storage *address)
{
	const struct asking *asking = ctx;

	return agent_is_own(asking->config, asking->host, address);
}

/* The body of a 200, malloced; or NULL, and the error is set. */
static char *get(struct asking *asking, const char *path)
{
	const struct config *config = asking->config;
	const char *where = config->docker_unix ? config->docker_unix : config->docker_tcp;
	struct dockercheck *out = asking->out;
	char url[2048], *body = NULL;
	long status = 0;
	int err;

	snprintf(url, sizeof(url), "http://%s%s%s%s",
		 config->docker_unix ? "docker" : config->docker_tcp, *out->version ? "/v" : "",
		 out->version, path);
	err = http_fetch(url, config->docker_unix, ANSWER_MS, &body, &status);
	if (!err && status == 200)
		return body;
	free(body);
	if (err)
		snprintf(out->error, sizeof(out->error), "%.120s: %s", where, strerror(-err));
	else
		snprintf(out->error, sizeof(out->error), "%.120s: GET %.60s: HTTP status %ld", where,
			 path, status);
	return NULL;
}

static int get_version(struct asking *asking)
{
	struct dockercheck *out = asking->out;
	char version[DOCKERJSON_VERSION_LEN] = "", *body = get(asking, "/version");
	int err;

	if (!body)
		return -ECONNREFUSED;
	err = dockerjson_version(body, strlen(body), version);
	dockerjson_engine(body, strlen(body), &asking->podman, out->engine);
	free(body);
	if (err == -EOPNOTSUPP)
		snprintf(out->error, sizeof(out->error),
			 "it speaks API %s, this agent 1.24 to 1.55: update the older one", version);
	else if (err)
		snprintf(out->error, sizeof(out->error),
			 "GET /version was not answered as Docker does");
	else
		memcpy(out->version, version, sizeof(version));
	return err;
}

/* Those with our label, or that one. */
static struct json *get_list(struct asking *asking, const char *id)
{
	char filters[256], path[1024], *escaped, *body;
	struct json *root;

	snprintf(filters, sizeof(filters), "{%s%s%s%s}",
		 id ? "\"id\":[\"" : "\"label\":[\"kakuremichi.enabled=true", id ? id : "", "\"]",
		 asking->podman ? ",\"status\":[\"running\",\"paused\"]" : "");
	escaped = http_escape(filters);
	if (!escaped)
		return NULL;
	snprintf(path, sizeof(path), "/containers/json?filters=%s", escaped);
	free(escaped);
	body = get(asking, path);
	root = body ? json_parse(body, strlen(body)) : NULL;
	if (body && !root)
		snprintf(asking->out->error, sizeof(asking->out->error), NO_LIST);
	free(body);
	return root;
}

static void inspect(struct asking *asking, const char *id)
{
	char path[KKM_ID_LEN + 32], *body;
	struct json *root;

	snprintf(path, sizeof(path), "/containers/%s/json", id);
	body = get(asking, path);
	root = body ? json_parse(body, strlen(body)) : NULL;
	free(body);
	/* gone meanwhile is no error */
	*asking->out->error = '\0';
	containers_inspected(asking->containers, id, root, 0);
	json_free(&root);
}

static void ignore(void *ctx, const char *id)
{
	(void)ctx;
	(void)id;
}

static int read_containers(struct asking *asking)
{
	struct json *list = get_list(asking, NULL);
	bool applied = containers_apply(asking->containers, list, 0);
	char id[KKM_ID_LEN];
	const char *next;

	if (list && !applied)
		snprintf(asking->out->error, sizeof(asking->out->error), NO_LIST);
	json_free(&list);
	if (!applied)
		return -EPROTO;
	while ((next = containers_next_followed(asking->containers))) {
		snprintf(id, sizeof(id), "%s", next);
		list = get_list(asking, id);
		containers_followed(asking->containers, id, json_first(list), 0);
		json_free(&list);
		*asking->out->error = '\0';
	}
	while (asking->podman && (next = containers_next_inspect(asking->containers))) {
		snprintf(id, sizeof(id), "%s", next);
		inspect(asking, id);
	}
	/* who has no address now will, as a rule, not have one later */
	containers_expire(asking->containers, LATER_MS, true, ignore, NULL);
	return 0;
}

/* Containers that are not in the table's list of faults. */
static unsigned int count_fine(const struct route_table *table, unsigned int count)
{
	unsigned int faulty = 0;

	for (unsigned int i = 0; i < table->rejected_count; i++) {
		bool again = false;

		for (unsigned int j = 0; j < i; j++)
			again |= !strcmp(table->rejected[i].id, table->rejected[j].id);
		faulty += !again;
	}
	return count > faulty ? count - faulty : 0;
}

static int build(struct asking *asking)
{
	struct route_limits limits = {
		.routes = asking->config->max_routes,
		.backends = asking->config->max_routes,
		.is_own = is_own,
		.ctx = asking,
	};
	const struct route_source **sources = NULL;
	struct dockercheck *out = asking->out;
	size_t count;
	int err = containers_sources(asking->containers, &sources, &count);

	if (!err)
		err = route_table_build(sources, count, &limits, true, NULL, &out->table);
	free(sources);
	if (err)
		return err;
	out->count = containers_count(asking->containers);
	out->fine = count_fine(out->table, out->count);
	return 0;
}

int dockercheck_run(const struct config *config, struct dockercheck *out)
{
	struct asking asking = { .config = config, .out = out };
	struct dockerjson_reach reach = { .rank = rank };
	int err;

	memset(out, 0, sizeof(*out));
	/* what is read is reported, not logged */
	log_setup(LOG_LEVEL_ERROR, LOG_FORMAT_TEXT);
	err = host_new(NULL, &asking.host);
	if (err)
		return err;
	reach.ctx = asking.host;
	err = containers_new(&reach, &asking.containers);
	if (!err && !get_version(&asking)) {
		containers_set_podman(asking.containers, asking.podman);
		if (!read_containers(&asking))
			err = build(&asking);
	}
	containers_free(&asking.containers);
	host_free(&asking.host);
	return err;
}

void dockercheck_free(struct dockercheck *result)
{
	route_table_put(&result->table);
}
