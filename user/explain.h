/* SPDX-License-Identifier: MIT */
/* Why a domain goes where it goes: what `explain` has to find out by itself. Pure. */
#ifndef KKM_EXPLAIN_H
#define KKM_EXPLAIN_H

#include <stdbool.h>

#include "hostname.h"
#include "routelist.h"

#define EXPLAIN_SIMILAR_MAX 3

/*
 * What somebody types as a domain, as a request's Host would be read: port and trailing dot dropped,
 * lower case, other letters in A-labels as browsers send them. 0, or -EINVAL with *reason.
 */
int explain_name(const char *text, char host[HOSTNAME_MAX + 1], const char **reason);

/* Does a configured domain, which may be a wildcard, take this host? */
bool explain_covers(const char *domain, const char *host);
/* The pool that route_find() would choose, and its size; or NULL. */
const struct routelist_backend *explain_match(const struct routelist *list, const char *host,
					      size_t *count);

/* A container that is not routed, and would take this host otherwise, or was meant to, it seems. */
bool explain_wanted(const struct routelist_rejected *rejected, const char *host);

/* Letters to be changed, added, dropped or swapped between both; more than `limit` is limit + 1. */
unsigned int explain_distance(const char *a, const char *b, unsigned int limit);
/* Configured domains that this host may be a slip of, the most similar first. Returns how many. */
unsigned int explain_similar(const struct routelist *list, const char *host,
			     const char *out[EXPLAIN_SIMILAR_MAX]);

#endif
