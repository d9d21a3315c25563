/* SPDX-License-Identifier: MIT */
/* What would become of the containers that run now: asked of Docker once, with GET, for `check`. */
#ifndef KKM_DOCKERCHECK_H
#define KKM_DOCKERCHECK_H

#include "config.h"
#include "dockerjson.h"

struct dockercheck {
	char version[DOCKERJSON_VERSION_LEN]; /* of the API that would be spoken */
	char engine[DOCKERJSON_ENGINE_LEN];
	char error[256]; /* why there is no table */
	unsigned int count, fine; /* containers that are enabled, and those without a fault */
	struct route_table *table; /* its `rejected` are the others; NULL: Docker does not answer */
};

/* 0, also where Docker does not answer, or -errno. */
int dockercheck_run(const struct config *config, struct dockercheck *out);
void dockercheck_free(struct dockercheck *result);

#endif
