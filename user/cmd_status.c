// SPDX-License-Identifier: MIT
#include "cmd.h"

static enum table_style style_of(bool good)
{
	return good ? TABLE_GOOD : TABLE_BAD;
}

static void add_agent(struct table *table, const struct json *root)
{
	const char *reason = json_str(root, "engine_reason", "");

	table_add(table, TABLE_DIM, "agent");
	table_add(table, style_of(json_flag(root, "ready")), json_str(root, "state", "?"));
	table_addf(table, TABLE_PLAIN, "pid %lld, version %s, since %s",
		   (long long)json_int(root, "pid", 0), json_str(root, "version", "?"),
		   json_str(root, "since", "?"));
	table_add(table, TABLE_DIM, "datapath");
	table_add(table, TABLE_PLAIN, json_str(root, "engine", "?"));
	table_addf(table, TABLE_PLAIN, "--datapath %s, %lld workers%s%s",
		   json_str(root, "datapath", "?"), (long long)json_int(root, "workers", 0),
		   *reason ? "; " : "", reason);
}

static void add_docker(struct table *table, const struct json *docker)
{
	const char *error = json_str(docker, "error", NULL);
	bool connected = json_flag(docker, "connected");

	table_add(table, TABLE_DIM, "docker");
	if (!json_flag(docker, "enabled")) {
		table_add(table, TABLE_PLAIN, "disabled");
		table_add(table, TABLE_PLAIN, "");
		return;
	}
	table_add(table, style_of(connected), connected ? "connected" : "not connected");
	table_addf(table, TABLE_PLAIN, "since %s%s%s%s%s%s%s", json_str(docker, "since", "the start"),
		   connected ? ": " : "", connected ? json_str(docker, "server", "") : "",
		   error ? ": " : "", error ? error : "", connected ? ", API " : "",
		   connected ? json_str(docker, "api_version", "") : "");
}

static void add_routes_file(struct table *table, const struct json *file)
{
	const char *error = json_str(file, "error", NULL);

	if (!json_is_object(file))
		return;
	table_add(table, TABLE_DIM, "routes file");
	table_addf(table, style_of(!error), "%lld routes%s", (long long)json_int(file, "routes", 0),
		   error ? "; not taken" : "");
	table_addf(table, TABLE_PLAIN, "%s since %s%s%s", json_str(file, "path", "?"),
		   json_str(file, "since", "?"), error ? ": " : "", error ? error : "");
}

static void add_counts(struct table *table, const struct json *counts)
{
	long long rejected = (long long)json_int(counts, "rejected", 0);

	table_add(table, TABLE_DIM, "routes");
	table_addf(table, TABLE_PLAIN, "%lld", (long long)json_int(counts, "routes", 0));
	table_addf(table, rejected ? TABLE_DOUBTFUL : TABLE_PLAIN, "to %lld backends, %lld rejected",
		   (long long)json_int(counts, "backends", 0), rejected);
	table_add(table, TABLE_DIM, "connections");
	table_addf(table, TABLE_PLAIN, "%lld now", (long long)json_int(counts, "connections", 0));
	table_addf(table, TABLE_PLAIN, "%lld in all, %lld requests",
		   (long long)json_int(counts, "connections_accepted", 0),
		   (long long)json_int(counts, "requests", 0));
}

static void print_text(const struct config *config, const struct json *root)
{
	static const struct table_column columns[] = { { NULL, TABLE_KEEP },
						       { NULL, TABLE_KEEP },
						       { NULL, TABLE_WRAP } };
	struct table *table = table_new(columns, 3);
	struct table_screen screen;

	add_agent(table, root);
	add_docker(table, json_get(root, "docker"));
	add_routes_file(table, json_get(root, "routes_file"));
	table_add(table, TABLE_DIM, "control");
	table_add(table, TABLE_PLAIN, "not part of this version");
	table_add(table, TABLE_PLAIN, "");
	add_counts(table, json_get(root, "counts"));
	cmd_screen(config, &screen);
	table_print(table, &screen);
	table_free(&table);
}

int cmd_status(struct config *config)
{
	char why[CMD_WHY_LEN];
	struct json *root = cmd_fetch_status(config, why);

	if (!root) {
		fprintf(stderr, "%s\n", why);
		return 1;
	}
	if (config->json)
		return cmd_print(&root, true);
	print_text(config, root);
	json_free(&root);
	return 0;
}
