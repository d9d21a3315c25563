/* SPDX-License-Identifier: MIT */
/*
 * Docker's containers, kept true: event stream first, list second, then what the stream held. Never
 * sends anything but GET. A broken stream keeps every container, reconnects with backoff and
 * applies the difference.
 */
#ifndef KKM_DOCKER_H
#define KKM_DOCKER_H

#include "dockerjson.h"
#include "host.h"
#include "http.h"
#include "route.h"

struct docker;

struct docker_options {
	const char *unix_socket; /* or NULL */
	const char *tcp;	 /* host:port, where there is no unix_socket */
	struct host *host;
	/* The set of containers, or `ready`, has changed; called at the end of a turn. */
	void (*changed)(void *ctx);
	void *ctx;
};

struct docker_status {
	bool connected;	   /* stream open and list applied */
	bool ready;	   /* a list has been applied once */
	uint64_t since_ms; /* CLOCK_REALTIME, of the last change of `connected` */
	char version[16];  /* of the API */
	char engine[DOCKERJSON_ENGINE_LEN];
	char error[256];   /* why not connected */
	unsigned int containers;
	uint64_t last_event_ms; /* CLOCK_REALTIME, of whatever kind; 0: none yet */
	uint64_t events;	/* that may change a route */
	uint64_t renewals;	/* of an event stream that was cut, without anything lost */
};

/* 0 or -errno; what options point to must outlive it. */
int docker_new(struct loop *loop, struct http *http, const struct docker_options *options,
	       struct docker **out);
void docker_free(struct docker **docker);

/* Every container of ours as a source, malloced array of borrowed pointers, valid until the next
 * turn of the loop. 0 or -ENOMEM. */
int docker_sources(struct docker *docker, const struct route_source ***out, size_t *count);
void docker_status(const struct docker *docker, struct docker_status *out);

#endif
