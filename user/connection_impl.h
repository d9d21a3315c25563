/* SPDX-License-Identifier: MIT */
/*
 * What connection.c (from accept to the container, answers, resets, time) and exchange.c (bytes both
 * ways) know of a connection. Nobody else includes this.
 */
#ifndef KKM_CONNECTION_IMPL_H
#define KKM_CONNECTION_IMPL_H

#include "answer.h"
#include "connection.h"
#include "resphead.h"
#include "worker.h"

enum state {
	HEAD,	 /* the first request's head is being received */
	CONNECT, /* to the container */
	OPEN,	 /* bytes pass both ways */
	RESET,	 /* one side was reset: the other gets what came before, then a reset */
	ANSWER,	 /* an answer of ours: written, then the client's input is drained */
	CLOSED,	 /* waits for the end of the turn */
};

struct side {
	struct loop_io io; /* first: side_ready() casts */
	struct connection *connection;
	bool readable, writable; /* until a call says otherwise: events come as edges */
	bool hup;		 /* the peer has ended: a short read does not mean empty */
	bool ended;		 /* all that it sent has been read */
	bool reset;
	bool shut; /* it was told that we have ended */
};

struct connection {
	struct worker *worker;
	struct connection *next, **link;
	enum state state;
	struct side client, server;
	struct relay up, down;
	uint64_t up_counted, down_counted;
	struct engine_leg leg;
	struct loop_timer timer;
	struct loop_task task;
	uint64_t active_ms, since_ms; /* last byte; begin of the state */
	uint64_t moved_seen;	      /* by an engine, when somebody last asked */

	struct sockaddr_storage client_address, address;
	char domain[HOSTNAME_MAX + 1]; /* as configured */
	char container[KKM_ID_LEN];
	struct route_load *load;
	uint64_t generation; /* of the table that chose the container */
	bool retried;
	bool resetting;		/* a side was reset, and the timer watches what is still to pass */
	uint64_t reset_progress; /* what reset_progress() said last */

	struct reqbody body;
	size_t scanned;	 /* of a head that is not complete */
	bool partial_head; /* a later one has begun, and the timer is its */
	size_t approved; /* bytes of `up` that may be sent to the container */
	uint64_t requests;
	uint64_t moved_at_request; /* bytes to the client when the last request was approved */
	bool head_method;
	bool hold;   /* an upgrade was asked for: nothing behind it before its answer */
	bool opaque; /* a 101 came */
	bool watch;  /* the status of the first answer, or of one to an upgrade, is not known yet */
	struct resphead answer_head;

	bool parting;	/* no further request; ended when the last one has been answered */
	bool pipelined; /* the request that may not pass came before the last one's answer */
	int parting_status;
	struct answer answer;
	int queued; /* to the client, when the time-out of ANSWER last asked */
};

/* connection.c */

void connection_set_timer(struct connection *c, uint64_t delay_ms);
/* The time-out of OPEN: idle, or the end of the drain. */
void connection_set_open_timer(struct connection *c);
/* Count what the relay has written since the last call. */
void connection_account(struct connection *c);
/* How long to wait for the end of what is outstanding on a connection that is parting. */
void connection_set_parting_timer(struct connection *c);
/* Bytes that have gone to the client, whoever carried them. */
uint64_t connection_to_client(const struct connection *c);
/* Is the container that this connection goes to still what `route` (or NULL) means? */
bool connection_still_routed(const struct connection *c, const struct route *route);

/* Each of these ends OPEN. */
void connection_close(struct connection *c, bool reset);
/* An answer of the agent's own; only where no other is outstanding. */
void connection_answer(struct connection *c, int status);
/* Shut down, and drain what the client still sends. */
void connection_linger(struct connection *c);
/* One side was reset: the other gets what came before, then a reset. */
void connection_pass_reset(struct connection *c);
/* From now on the connection lasts only as long as bytes move. */
void connection_watch_reset(struct connection *c);

/* exchange.c */

/* A request head of `len` bytes may pass; what follows it is its body. */
void exchange_begin_request(struct connection *c, const struct reqhead *head, size_t len);
/* No further request passes; what is outstanding may end, then `status` is answered, if any. */
void exchange_part(struct connection *c, int status);
/* Move what can be moved, in OPEN. */
void exchange_run(struct connection *c);

#endif
