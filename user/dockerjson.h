/* SPDX-License-Identifier: MIT */
/* Docker's answers and events as the agent needs them. Pure. */
#ifndef KKM_DOCKERJSON_H
#define KKM_DOCKERJSON_H

#include "route.h"

#define DOCKERJSON_VERSION_LEN 16

/* One element of GET /containers/json. */
struct dockerjson_container {
	struct route_source source;
	char follows[KKM_ID_LEN]; /* network_mode container:X; the source has no address then */
};

/*
 * 0, also where the labels are bad (source.error says why); -ENOENT where the container is none of
 * ours, -EPROTO where the JSON is not what Docker sends.
 */
int dockerjson_container(const struct json *node, struct dockerjson_container *out);

/* The address that container `node` is reached at on `port`; 0, or -EINVAL with the reason. */
int dockerjson_address(const struct json *node, uint16_t port, const char *network,
		       struct sockaddr_storage *out, struct labels_error *error);

/* The stop signal of GET /containers/X/json; SIGTERM where it names none. */
int dockerjson_stop_signal(const struct json *node);

enum dockerjson_action {
	DOCKER_OTHER,	/* changes nothing for a route */
	DOCKER_KILL,	/* a signal was sent: `signal` */
	DOCKER_GONE,	/* die, destroy */
	DOCKER_CHANGED, /* look at the container again */
};

struct dockerjson_event {
	enum dockerjson_action action;
	const char *name;	/* Docker's name of it, one of a table's */
	char id[KKM_ID_LEN];
	bool enabled;		/* the labels, where the event carries them, say so */
	int signal;
	int64_t time_ns;
};

/* 0, or -EPROTO where the text is not an event. */
int dockerjson_event(const char *text, size_t len, struct dockerjson_event *out);

/*
 * GET /version -> the version to speak: the lower of ours and the daemon's. 0, -EPROTO, or
 * -EOPNOTSUPP where the daemon's lowest is above ours or its highest below, `out` then names it.
 */
int dockerjson_version(const char *text, size_t len, char out[DOCKERJSON_VERSION_LEN]);

/* Hexadecimal digits, 12 to 64 of them: what may go into a URL and a log. */
bool dockerjson_is_id(const char *text);

#endif
