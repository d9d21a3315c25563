/* SPDX-License-Identifier: MIT */
/* Docker's answers and events as the agent needs them. Pure. */
#ifndef KKM_DOCKERJSON_H
#define KKM_DOCKERJSON_H

#include "route.h"

#define DOCKERJSON_VERSION_LEN 16

/* How well this host reaches an address: more is better, 0 not at all; see host_reach(). */
struct dockerjson_reach {
	int (*rank)(void *ctx, const struct sockaddr_storage *address);
	void *ctx;
};

/* One element of GET /containers/json. */
struct dockerjson_container {
	char id[KKM_ID_LEN];
	char name[KKM_NAME_LEN];
	char follows[KKM_ID_LEN]; /* network_mode container:X; the sources have no address then */
	enum kkm_state state;
	bool restarts; /* it does not run, and Docker is about to start it again */
	unsigned int count;
	struct route_source *sources; /* malloced: one a service, or one with the error */
};

/*
 * 0, also where the labels are bad or there is no address (the sources' errors say why); -ENOENT
 * where the container is none of ours, or does not run; -EPROTO where the JSON is not what Docker
 * sends; -ENOMEM. A source without address and without error has to wait: its network is not
 * attached yet.
 */
int dockerjson_container(const struct json *node, const struct dockerjson_reach *reach,
			 struct dockerjson_container *out);
void dockerjson_container_free(struct dockerjson_container *container);

/*
 * Give `source` the address that container `node` is reached at for its labels' port, or the error.
 * 0; -EAGAIN where the container has none yet; -EINVAL.
 */
int dockerjson_address(const struct json *node, const struct dockerjson_reach *reach,
		       struct route_source *source);

/* Is the source reached by this network of its container, as dockerjson_address() chose? */
bool dockerjson_is_via(const struct route_source *source, const char *network);

/* Of GET /containers/X/json: does it have the host's network? */
bool dockerjson_is_on_host(const struct json *node);
/* Its health, KKM_ACTIVE where it is well; false where nobody checks it. */
bool dockerjson_health(const struct json *node, enum kkm_state *out);
/* The signal that stops it, SIGTERM where it names none, */
int dockerjson_stop_signal(const struct json *node);
/* and the seconds that it then has, 10 where it says nothing. */
unsigned int dockerjson_stop_timeout_s(const struct json *node);

enum dockerjson_action {
	DOCKER_OTHER,	/* changes nothing for a route */
	DOCKER_KILL,	/* a signal was sent: `signal` */
	DOCKER_DIED,	/* it may start again */
	DOCKER_DESTROYED,
	DOCKER_STATE,	/* it is in `state` now, whatever a list says that was made a moment ago */
	DOCKER_CHANGED, /* look at the container again */
};

struct dockerjson_event {
	enum dockerjson_action action;
	const char *name;	/* Docker's name of it, one of a table's */
	char id[KKM_ID_LEN];
	bool enabled;		/* the labels, where the event carries them, say so */
	char network[KKM_NAME_LEN]; /* of connect and disconnect; empty: not said */
	int signal;
	enum kkm_state state;
	int64_t time_ns;
};

/* 0, or -EPROTO where the text is not an event. */
int dockerjson_event(const char *text, size_t len, struct dockerjson_event *out);

/*
 * GET /version -> the version to speak: the lower of ours and the daemon's. 0, -EPROTO, or
 * -EOPNOTSUPP where the daemon's lowest is above ours or its highest below, `out` then names it.
 */
int dockerjson_version(const char *text, size_t len, char out[DOCKERJSON_VERSION_LEN]);

/* The same answer -> whose it is, "Docker 20.10.24" or "Podman 4.3.1". */
#define DOCKERJSON_ENGINE_LEN 48
void dockerjson_engine(const char *text, size_t len, bool *podman, char out[DOCKERJSON_ENGINE_LEN]);

/* Hexadecimal digits, 12 to 64 of them: what may go into a URL and a log. */
bool dockerjson_is_id(const char *text);

#endif
