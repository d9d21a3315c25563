// SPDX-License-Identifier: MIT
#include "cmd.h"

static const struct {
	const char *name, *help;
} counters[] = {
#define ENTRY(name, help, ...) { #name, help },
	KKM_STATS(ENTRY)
#undef ENTRY
};

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
		for (size_t i = 0; i < sizeof(counters) / sizeof(*counters); i++)
			printf("%-22s %14llu  %s\n", counters[i].name, values[i], counters[i].help);
		return 0;
	}
	root = cmd_document(&view);
	object = json_add_object(root, "stats");
	for (size_t i = 0; i < sizeof(counters) / sizeof(*counters); i++)
		json_add_int(object, counters[i].name, (int64_t)values[i]);
	return cmd_print(&root);
}
