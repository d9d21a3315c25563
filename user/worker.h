/* SPDX-License-Identifier: MIT */
/*
 * A data-path thread: its own loop, its own listeners in a SO_REUSEPORT group, its own connections,
 * buffers and pipes. Workers share the pinned maps and the route table, which is swapped whole.
 */
#ifndef KKM_WORKER_H
#define KKM_WORKER_H

#include <pthread.h>
#include <stdatomic.h>

#include "config.h"
#include "engine.h"
#include "loop.h"
#include "relay.h"
#include "route.h"

struct worker_shared {
	const struct config *config;
	struct datapath *datapath; /* or NULL */
	_Atomic enum kkm_engine engine; /* the one to try first */
	bool requests;		  /* it may carry requests too, */
	bool streams;		  /* and what comes behind a 101 */
	bool small_reads;	  /* enrolled sockets are sent only what one read takes */
	atomic_uint *connections; /* of all workers, against config->max_connections */
	atomic_uint *legs;	  /* connections to containers, against config->max_legs */
	/* Both called in a worker's thread: it has ended; there is room for a connection again. */
	void (*ended)(void *ctx);
	void (*room)(void *ctx);
	void *ctx;
};

struct worker {
	const struct worker_shared *shared;
	unsigned int index;
	pthread_t thread;
	bool started;
	struct loop *loop;
	struct kkm_stats *stats;
	struct kkm_stats own_stats; /* where there are no maps */
	struct engine_slots slots;
	struct relay_pool pool;

	struct worker_listener *listeners;
	unsigned int listener_count;
	struct loop_timer resume; /* accepting, after it failed for want of descriptors */
	bool accept_paused;

	struct connection *connections; /* all of them */
	unsigned int connection_count;
	unsigned int turn; /* for ties between backends */
	struct leg *legs_oldest, *legs_newest; /* idle connections to containers */
	struct loop_timer legs_timer;
	struct loop_timer look_timer;
	struct loop_timer leaving_timer;

	struct route_table *table;
	pthread_mutex_t lock; /* protects the next four */
	struct route_table *incoming;
	bool leaving; /* see worker_set_table() */
	bool leave_engines;
	enum worker_wish { WORKER_RUN, WORKER_DRAIN, WORKER_END } wish;
	enum worker_wish state;
};

struct worker_socket {
	int fd;
	bool tls;
};

/* `sockets`: one worker's listening ones, which the worker owns from then on. 0 or -errno. */
int worker_new(const struct worker_shared *shared, unsigned int index,
	       const struct worker_socket *sockets, unsigned int count, struct worker **out);
int worker_start(struct worker *worker);
/* Wait for the thread's end. All have to be joined before the first is freed: room() wakes all. */
void worker_join(struct worker *worker);
void worker_free(struct worker **worker);

/* From any thread. `leaving`: what route_mark_leaving() said of the table. */
void worker_set_table(struct worker *worker, struct route_table *table, bool leaving);
void worker_wish(struct worker *worker, enum worker_wish wish);
/* What is open is the relay's from now on. */
void worker_leave_engines(struct worker *worker);
/* Where it paused accepting at the limit, it tries again. */
void worker_resume(struct worker *worker);

/* For connection.c. */
void worker_connection_closed(struct worker *worker);

/*
 * One listening socket for each worker. 0, or -errno: EADDRINUSE also where another agent listens,
 * which SO_REUSEPORT alone would let pass.
 */
int worker_listen(const struct sockaddr_storage *address, unsigned int workers, int *fds);

#endif
