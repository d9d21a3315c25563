// SPDX-License-Identifier: MIT
#include "cmd.h"

#include <string.h>

static const struct {
	const char *name, *help;
} counters[] = {
#define ENTRY(name, help, ...) { #name, help },
	KKM_STATS(ENTRY)
#undef ENTRY
};

#define COUNTERS (sizeof(counters) / sizeof(*counters))

/* How they are shown to eyes: a counter is in the group of the longest prefix that it has. */
static const struct {
	const char *title;
	const char *prefixes[8];
} groups[] = {
	{ "clients", { "connections_", "accept_", "tls_", "proxy_" } },
	{ "requests", { "requests", "other_", "upgrades", "legs_reused", "responses_" } },
	{ "answers of its own", { "answers_" } },
	{ "containers", { "upstream_", "legs_", "table_" } },
	{ "bytes by the agent", { "relay_", "splice_" } },
	{ "the short way", { "sockmap_", "short_", "passed_", "held_", "promises_" } },
	{ "others", { NULL } },
};

#define GROUPS (sizeof(groups) / sizeof(*groups))

static size_t group_of(const char *name)
{
	size_t best = GROUPS - 1, best_len = 0;

	for (size_t i = 0; i < GROUPS; i++) {
		for (const char *const *prefix = groups[i].prefixes; *prefix; prefix++) {
			size_t len = strlen(*prefix);

			if (len > best_len && !strncmp(name, *prefix, len)) {
				best = i;
				best_len = len;
			}
		}
	}
	return best;
}

static void add_row(struct table *table, enum table_style style, const char *name,
		    const char *value, const char *help)
{
	table_add(table, style, name);
	table_add(table, style, value);
	table_add(table, style == TABLE_BOLD ? TABLE_PLAIN : style, help);
}

static void add_group(struct table *table, size_t group, const __u64 *values)
{
	bool begun = false;
	char text[24];

	for (size_t i = 0; i < COUNTERS; i++) {
		if (group_of(counters[i].name) != group)
			continue;
		if (!begun && !table_is_empty(table))
			add_row(table, TABLE_PLAIN, "", "", "");
		if (!begun)
			add_row(table, TABLE_BOLD, groups[group].title, "", "");
		begun = true;
		snprintf(text, sizeof(text), "%llu", values[i]);
		add_row(table, values[i] ? TABLE_PLAIN : TABLE_DIM, counters[i].name, text,
			counters[i].help);
	}
}

static void print_text(const struct config *config, const __u64 *values)
{
	static const struct table_column columns[] = { { NULL, TABLE_KEEP },
						       { NULL, TABLE_RIGHT },
						       { NULL, TABLE_WRAP } };
	struct table *table = table_new(columns, 3);
	struct table_screen screen;

	for (size_t i = 0; i < GROUPS; i++)
		add_group(table, i, values);
	cmd_screen(config, &screen);
	table_print(table, &screen);
	table_free(&table);
}

int cmd_stats(struct config *config)
{
	struct mapview view;
	struct kkm_stats sums;
	const __u64 *values = (const __u64 *)&sums;
	struct json *root, *object;

	if (!cmd_open_maps(config, &view))
		return 1;
	if (mapview_stats(&view, &sums)) {
		fprintf(stderr, "the maps in %s cannot be read: try again\n", view.dir);
		return 1;
	}
	cmd_note_stale(&view);
	if (!config->json) {
		print_text(config, values);
		return 0;
	}
	root = cmd_document(&view);
	object = json_add_object(root, "stats");
	for (size_t i = 0; i < COUNTERS; i++)
		json_add_int(object, counters[i].name, (int64_t)values[i]);
	return cmd_print(&root, true);
}
