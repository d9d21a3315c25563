/* SPDX-License-Identifier: MIT */
/*
 * What the files that make up the agent know of it. Nobody else includes this.
 *
 * agent.c         from start to stop: listeners, workers, signals
 * agent_routes.c  the table, from all sources
 * agent_engine.c  which engine to try first, at the start and later
 * agent_admin.c   what the admin addresses answer
 */
#ifndef KKM_AGENT_IMPL_H
#define KKM_AGENT_IMPL_H

#include "admin.h"
#include "agent.h"
#include "docker.h"
#include "notify.h"
#include "routesfile.h"
#include "worker.h"

#define AGENT_WATCH_MS 10000
#define AGENT_FIRST_LIST_MS 60000

struct agent {
	struct config *config;
	struct loop *loop;
	struct http *http;
	struct host *host;
	struct docker *docker;
	struct routesfile *routes_file;
	struct datapath *datapath;
	struct notify *notify;
	struct admin *admin_local, *admins[CONFIG_MAX_LISTEN];
	struct worker_shared shared;
	struct worker *workers[CONFIG_MAX_WORKERS];
	struct route_table *table;
	struct loop_io signals;
	struct loop_timer drain_end, watch, first_list;
	struct worker_socket *listen; /* of each bound address, one for each worker */
	struct agent_listener {
		struct sockaddr_storage address;
		bool tls;
	} bound[2 * CONFIG_MAX_LISTEN]; /* `listen_count` of them */
	unsigned int listen_count, http_count;
	atomic_uint ended, connections, legs;
	bool draining, forced, made_run_dir, chose_sockmap;
	bool waited; /* long enough for Docker's first list */
	char engine_reason[320]; /* why this engine, and no faster one */
	char chosen_reason[320]; /* at the start */
	uint64_t started_ms;
	struct kkm_stats shown; /* by /metrics */
};

/* agent_routes.c: something has changed at a source; Docker has not been read in time. */
void agent_rebuild(void *agent);
void agent_first_list_fire(struct loop_timer *timer);

/* agent_engine.c */
void agent_choose_engine(struct agent *agent);
/* 0, or -ECANCELED where the agent cannot start, which has been logged. */
int agent_open_datapath(struct agent *agent);
/* Everything by relay from now on; back to what the start had chosen. */
void agent_use_relay(struct agent *agent);
void agent_use_sockmap(struct agent *agent);
void agent_watch_fire(struct loop_timer *timer);

/* agent_admin.c: 0, or -ECANCELED, which has been logged. */
int agent_open_admin(struct agent *agent);
void agent_fill_notify(void *agent, struct notify_state *out);

#endif
