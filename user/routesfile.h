/* SPDX-License-Identifier: MIT */
/*
 * The routes of --routes-file, kept as the file is: it is watched, and so is every directory and
 * symbolic link that its path leads through. A file that is bad or gone changes nothing.
 */
#ifndef KKM_ROUTESFILE_H
#define KKM_ROUTESFILE_H

#include "loop.h"
#include "route.h"
#include "routesjson.h"

struct routesfile;

struct routesfile_options {
	const char *path;
	unsigned int max_targets;
	/* The routes have changed; called at the end of a turn. */
	void (*changed)(void *ctx);
	void *ctx;
};

struct routesfile_status {
	const char *path;
	unsigned int routes;
	uint64_t since_ms; /* CLOCK_REALTIME, of the last change of routes or error */
	char error[KKM_REASON_LEN + 32]; /* why the file as it is now is not taken, or empty */
};

/* It has been read when this returns. 0 or -ENOMEM; options->path must outlive it. */
int routesfile_new(struct loop *loop, const struct routesfile_options *options,
		   struct routesfile **out);
void routesfile_free(struct routesfile **file);

/* As docker_sources(). */
int routesfile_sources(struct routesfile *file, const struct route_source ***out, size_t *count);
void routesfile_status(const struct routesfile *file, struct routesfile_status *out);

/* Would this file be taken, and how many routes has it? 0, or -errno with the reason. */
int routesfile_check(const char *path, unsigned int max_targets, unsigned int *routes,
		     struct routesjson_error *error);

#endif
