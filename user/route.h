/* SPDX-License-Identifier: MIT */
/*
 * The route table: domain -> backends. Built whole from all sources, immutable afterwards, swapped
 * whole, freed when its last user lets go. Pure but for reference counts.
 */
#ifndef KKM_ROUTE_H
#define KKM_ROUTE_H

#include <stdatomic.h>
#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>
#include <sys/socket.h>

#include "kakuremichi.h"
#include "labels.h"

#define ROUTE_MAX_BACKENDS 64 /* of one domain */

/* What somebody wants routed: a container as Docker shows it. */
struct route_source {
	enum kkm_owner owner;
	enum kkm_state state;
	char id[KKM_ID_LEN];
	char name[KKM_NAME_LEN];
	char group[KKM_NAME_LEN * 2]; /* equal for the replicas of one service */
	int64_t created;	      /* the older one keeps a domain: seconds, */
	uint64_t order;		      /* and who came first of those of one second */
	struct sockaddr_storage address; /* AF_UNSPEC, with a port: not known yet */
	char via[KKM_VIA_LEN];		 /* how it was chosen */
	bool gone; /* has stopped: keeps its domains known for a moment, if nobody else wants them */
	struct labels labels;
	struct labels_error error; /* with a reason: rejected, and listed so */
};

/* What outlives the tables: how many connections a backend has. */
struct route_load {
	atomic_uint refs;
	atomic_uint connections;
	/* CLOCK_MONOTONIC, since when it has been stopping or is no backend any more; 0: neither */
	_Atomic uint64_t leaving_ms;
	uint64_t generation; /* of the last table that has it; for whoever builds them */
};

struct route_backend {
	enum kkm_owner owner;
	enum kkm_state state;
	bool no_sockmap;
	bool proxy_protocol; /* a connection begins with a PROXY protocol header, version 2 */
	uint16_t tls_port;   /* 0: not served on the TLS listener */
	struct sockaddr_storage address;
	char id[KKM_ID_LEN];
	char name[KKM_NAME_LEN];
	char description[KKM_REASON_LEN];
	char group[KKM_NAME_LEN * 2];
	char service[KKM_SERVICE_LEN];
	char via[KKM_VIA_LEN];
	struct route_load *load;
};

struct route {
	char domain[HOSTNAME_MAX + 1]; /* as configured: may be a wildcard */
	enum kkm_state state;	       /* the best of the backends' */
	enum kkm_owner owner;
	unsigned int count;
	struct route_backend *backends; /* oldest first */
};

struct route_rejected {
	enum kkm_refusal refusal;
	enum kkm_owner owner;
	char id[KKM_ID_LEN];
	char name[KKM_NAME_LEN];
	char domain[HOSTNAME_MAX + 1]; /* empty: the container as a whole */
	char label[KKM_NAME_LEN];
	char reason[KKM_REASON_LEN];
	char wanted[KKM_DOMAIN_LEN]; /* see struct labels_error */
};

struct route_table {
	atomic_uint refs;
	uint64_t generation;
	bool ready; /* false until every source has been read once: then unknown is 503, not 404 */
	unsigned int count, rejected_count;
	struct route *routes;
	struct route_rejected *rejected;
	uint32_t *buckets; /* index into routes plus one, 0 is empty */
	uint32_t mask;
};

struct route_limits {
	unsigned int routes;
	unsigned int backends;
	/* Is this one of the agent's own listeners? A route there would go round. NULL: none is. */
	bool (*is_own)(void *ctx, const struct sockaddr_storage *address);
	void *ctx;
};

/*
 * Build from `count` sources in any order. `previous` (or NULL) lends the loads of backends that
 * stay. 0 or -ENOMEM. The table has one reference, the caller's.
 */
int route_table_build(const struct route_source *const *sources, size_t count,
		      const struct route_limits *limits, bool ready,
		      const struct route_table *previous, struct route_table **out);
/*
 * `next` takes the place of `previous` (or NULL) at now_ms: mark the loads of backends that stop or
 * have gone, unmark the others. True where any is marked.
 */
bool route_mark_leaving(const struct route_table *previous, const struct route_table *next,
			uint64_t now_ms);
struct route_table *route_table_get(struct route_table *table);
void route_table_put(struct route_table **table);

/* The route for a host name in lower case: exact, then the longest wildcard, then `*`; or NULL. */
const struct route *route_find(const struct route_table *table, const char *host);
/* The route of exactly this configured domain, or NULL. */
const struct route *route_exact(const struct route_table *table, const char *domain);

/*
 * The active backend with the fewest connections, ties in turn by `turn`; never `but` (or NULL);
 * with `tls` of those that are served on the TLS listener. NULL where none is active.
 */
const struct route_backend *route_pick(const struct route *route, const struct route_backend *but,
				       bool tls, unsigned int turn);
/* Is any backend, whatever its state, served on the TLS listener? */
bool route_has_tls(const struct route *route);
/* The backend of the route at this address, whatever its state; or NULL. */
const struct route_backend *route_backend_at(const struct route *route,
					     const struct sockaddr_storage *address);

void route_load_get(struct route_load *load);
void route_load_put(struct route_load **load);

#endif
