/* SPDX-License-Identifier: MIT */
/*
 * What the files that make up a connection know of it. Nobody else includes this.
 *
 * connection.c  from accept to close: what comes first on it, answers of our own, resets, time
 * leg.c         the connections to containers, one for each that it has spoken to
 * exchange.c    a request to a container, and its answer
 * tunnel.c      bytes both ways that nobody looks at: behind a 101, and TLS
 */
#ifndef KKM_CONNECTION_IMPL_H
#define KKM_CONNECTION_IMPL_H

#include "answer.h"
#include "connection.h"
#include "http1.h"
#include "worker.h"

#define CONNECTION_MAX_LEGS 8

enum state {
	PROXY,	  /* a PROXY protocol header is being received */
	HEAD,	  /* a request's head is; nothing is outstanding */
	HELLO,	  /* a TLS ClientHello is */
	CONNECT,  /* to the container */
	EXCHANGE, /* a request is being sent, or its answer awaited */
	TUNNEL,	  /* bytes pass both ways */
	RESET,	  /* one side was reset: the other gets what came before, then a reset */
	ANSWER,	  /* an answer of ours: written, then the client's input is drained */
	CLOSED,	  /* waits for the end of the turn */
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

struct leg {
	struct side side; /* first: leg_of() casts */
	struct leg *next; /* of the connection */
	struct leg *older, *newer; /* of the worker's idle ones */
	struct loop_task task;
	struct engine_leg engine;
	struct route_load *load;
	struct sockaddr_storage address;
	char container[KKM_ID_LEN], name[KKM_NAME_LEN];
	bool proxy_protocol;
	bool used; /* a request has been answered on it */
	bool left_bulk;	    /* it left its engine for a large answer, */
	unsigned int small; /* and so many small ones have followed */
	bool idle;
	uint64_t idle_since_ms;
};

/* One direction of an exchange. */
struct flow {
	struct relay relay;
	struct http1_body body;
	size_t approved; /* waiting bytes that may be sent */
	uint64_t counted;
};

/* What has been approved of a request so far, for as long as it might have to be sent again. */
struct replay {
	char *data;
	size_t len, at; /* at < len: being sent again */
	bool kept;
};

struct connection {
	struct worker *worker;
	struct connection *next, **link;
	enum state state;
	bool tls;
	struct side client;
	struct leg *legs;
	unsigned int leg_count;
	struct leg *leg; /* of what is under way; NULL between two requests */
	struct flow up, down;
	struct loop_timer timer;
	struct loop_timer held;
	unsigned int held_ms;
	struct loop_task task;
	uint64_t active_ms, since_ms; /* last byte; begin of the state */
	uint64_t moved_seen;	      /* by an engine, when somebody last asked */
	bool promised;	     /* an engine's bytes may not have reached the client's queue yet */
	struct leg *promiser;	      /* whose; NULL: it was closed */
	uint64_t moved;		      /* by engines, on legs that were closed */
	struct sockaddr_storage client_address;
	struct sockaddr_storage local_address; /* AF_UNSPEC: ask the socket */

	/* The request under way. */
	struct http1_scan scan; /* of its head, then of its answer's */
	struct http1_request request;
	struct http1_response response;
	struct replay replay;
	enum answered {
		ANSWER_AWAITED,
		ANSWER_INTERIM, /* a 1xx has been read */
		ANSWER_BODY,	/* the head has */
		ANSWER_DONE,	/* all of it has */
		ANSWER_CUT,	/* its framing is wrong behind what has been approved */
		ANSWER_BROKEN,	/* it is none, or framed twice */
	} answered;
	bool head_begun;   /* a later one than the first has, and the timer is its */
	bool scanned;	   /* the waiting bytes hold no complete head */
	bool answer_begun; /* a byte of an answer came */
	bool reconnected;  /* the connect failed, and another replica is being tried */
	bool repeated;	   /* it is being sent a second time */
	bool armed;	   /* an engine may carry the answer */
	size_t head_len;   /* of it */
	bool carried;	   /* it has carried the answer, or its beginning */
	uint64_t carried_ns; /* to its end: when, CLOCK_MONOTONIC; else 0 */
	uint64_t generation; /* of the table that chose the container */
	uint64_t requests;   /* that have been answered */
	char last_container[KKM_ID_LEN];
	uint64_t up_from, down_from; /* the relays' bytes when it began */
	uint64_t moved_from;	     /* those of the leg's engine */
	uint64_t started_us; /* CLOCK_MONOTONIC; 0: the access log does not ask */

	bool resetting;		 /* a side was reset, and the timer watches what is still to pass */
	uint64_t reset_progress; /* what reset_progress() said last */
	struct answer *answer;
	int queued; /* to the client, when the time-out of ANSWER last asked */
};

/* connection.c */

uint64_t connection_now_ms(const struct connection *c);
void connection_init_side(struct connection *c, struct side *side);
void connection_close_side(struct side *side, bool reset);
void connection_set_timer(struct connection *c, uint64_t delay_ms);
void connection_enter(struct connection *c, enum state state, uint64_t timeout_ms);
/* Count what the relay has written since the last call. */
void connection_account(struct connection *c);
/* Something has moved, or an engine may move something: look after it soon. */
void connection_want_look(struct worker *worker);
/* Bytes that the kernel holds of a socket's output, not acknowledged by its peer. */
int connection_unacked(int fd);
/* recv() behind what waits; false where none came, and then the side knows why. */
bool connection_read(struct side *side, struct relay *relay);
/* The container's socket does not take more now (kkm_request holds it): try again soon. */
void connection_hold(struct connection *c);
/* send() the first *len bytes that wait, lowered by what went; false where not all of them did. */
bool connection_write(struct side *side, struct relay *relay, size_t *len);

/*
 * What an engine has promised to the client is in its queue when this returns true. To be called before
 * anybody else writes to the client, or ends it. False: the connection was closed.
 */
bool connection_keep_promises(struct connection *c);
/* What of the answer under way has gone to the client, whoever carried it. */
uint64_t connection_answered_bytes(const struct connection *c);

/* Each of these ends what is under way. */
void connection_close(struct connection *c, bool reset);
/* An answer of the agent's own; only where no other is outstanding. */
void connection_answer(struct connection *c, int status);
/* Bytes of our own, at most CLIENTHELLO_ALERT_LEN. */
void connection_answer_bytes(struct connection *c, const void *bytes, size_t len);
/* Shut down, and drain what the client still sends. */
void connection_linger(struct connection *c);
/* One side was reset: the other gets what came before, then a reset. */
void connection_pass_reset(struct connection *c);
/* From now on the connection lasts only as long as bytes move. */
void connection_watch_reset(struct connection *c);
/* The next request, if it is wanted. */
void connection_next_request(struct connection *c);

/* leg.c */

/* Choose a container for the request, or for the TLS name in request.host; answers where none is. */
void leg_choose(struct connection *c);
/* The attempt to connect has failed, or took too long. */
void leg_failed(struct connection *c, int err);
/* Go on in CONNECT. */
void leg_run_connect(struct connection *c);
/* Something happened on a leg without a request. */
void leg_idle_event(struct leg *leg, uint32_t events);
/* What is under way has ended: keep the leg for another request. */
void leg_release(struct connection *c);
/* Close it; with `reset` what it was sent may be lost. */
void leg_close(struct leg *leg, bool reset);
void leg_close_all(struct connection *c, bool reset_current, bool reset_idle);

/* exchange.c */

/* The request's head has been read: `len` bytes of what waits. */
void exchange_begin(struct connection *c, size_t len);
/* c->leg is ready for it. */
void exchange_start(struct connection *c);
/* May it be sent twice, and is all of it at hand? */
bool exchange_is_repeatable(const struct connection *c);
/* Has all of it been sent? */
bool exchange_is_sent(const struct connection *c);
void exchange_run(struct connection *c);
/* The answer, or what is left of it, is the relay's from here on. */
void exchange_take_answer(struct connection *c);
/* Forget what was kept for sending again. */
void exchange_drop_replay(struct connection *c);
/* CLOCK_MONOTONIC, never 0. */
uint64_t exchange_clock_us(void);
/* A line of the access log for what is under way, if it asks; `status` 0: none came. */
void exchange_log(struct connection *c, unsigned int status, uint64_t bytes);
/* Move bytes that need not be looked at, as relay_pump(); true where there is more to do now. */
bool exchange_pump(struct flow *flow, struct side *from, struct side *to, uint64_t *left);

/* tunnel.c */

void tunnel_begin(struct connection *c);
void tunnel_run(struct connection *c);

#endif
