/* SPDX-License-Identifier: MIT */
/* What the pinned maps hold of routes, as the commands show it, sorted. */
#ifndef KKM_ROUTELIST_H
#define KKM_ROUTELIST_H

#include <stddef.h>

#include "mapview.h"

struct routelist_backend {
	struct kkm_backend_key key;
	struct kkm_backend value;
};

struct routelist_rejected {
	struct kkm_rejected_key key;
	struct kkm_rejected value;
};

struct routelist {
	struct routelist_backend *backends; /* by domain, then by container */
	struct routelist_rejected *rejected; /* by container */
	size_t backend_count, rejected_count;
};

/* 0 or -errno. */
int routelist_read(const struct mapview *view, struct routelist *out);
void routelist_free(struct routelist *list);

/* Backends from `first` on that belong to its domain. */
size_t routelist_pool(const struct routelist *list, size_t first);
/* A domain is as well as the best of its backends. */
enum kkm_state routelist_state(const struct routelist_backend *pool, size_t count);
/* The pool of exactly this configured domain: its first backend, or NULL. */
const struct routelist_backend *routelist_find(const struct routelist *list, const char *domain,
					       size_t *count);

#endif
