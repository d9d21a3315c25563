/* SPDX-License-Identifier: MIT */
/*
 * The text of --routes-file: {"app.example.com": "192.0.2.1:8080", "b.example.com": ["…", "…"]}.
 * Read whole or not at all. Pure.
 */
#ifndef KKM_ROUTESJSON_H
#define KKM_ROUTESJSON_H

#include "route.h"

struct routesjson {
	struct route_source *sources; /* malloced: one a target, in the file's order; NULL: none */
	unsigned int count;
	unsigned int domains;
};

struct routesjson_error {
	unsigned int line; /* from 1; 0: none */
	char reason[KKM_REASON_LEN];
};

/*
 * At most `max_targets`. 0; -EINVAL with the line at fault and the reason, or -ENOMEM with a reason,
 * and `out` untouched.
 */
int routesjson_parse(const char *text, size_t len, unsigned int max_targets,
		     struct routesjson *out, struct routesjson_error *error);

#endif
