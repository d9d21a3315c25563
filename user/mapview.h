/* SPDX-License-Identifier: MIT */
/*
 * The pinned maps as the commands read them: opened read-only, so that a noun cannot change
 * anything; works without the agent, for as long as its pins are there.
 */
#ifndef KKM_MAPVIEW_H
#define KKM_MAPVIEW_H

#include <stdbool.h>

#include "kakuremichi.h"

struct mapview {
	char dir[512];
	struct kkm_meta meta;
	bool stale; /* no agent holds the maps any more */
};

/* 0; -ENOENT where nothing is pinned, -EACCES, or -EPROTO for the pins of another layout. */
int mapview_open(const char *bpf_dir, struct mapview *out);

/* Call `each` for every entry of a map, each once, however the map changes meanwhile. 0 or -errno. */
int mapview_each(const struct mapview *view, const char *map,
		 void (*each)(void *ctx, const void *key, const void *value), void *ctx);
/* One entry; 0 or -errno. */
int mapview_get(const struct mapview *view, const char *map, const void *key, void *value);
/* The sums of the columns of kkm_stats. */
int mapview_stats(const struct mapview *view, struct kkm_stats *sums);

#endif
