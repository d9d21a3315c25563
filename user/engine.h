/* SPDX-License-Identifier: MIT */
/*
 * The seam between a connection and what carries its bytes.
 *
 * The relay (the agent's own copying and splicing) is always there. Another engine may take a
 * direction, both, or the whole connection, for a time; bytes that it moves are reported by the
 * connection's slot in memory shared with the kernel, not by a descriptor, and the record in
 * kkm_conns outlives the sockets. Whoever wants to know how much has moved, whether a connection is
 * idle, or to have it back asks the leg, never the socket.
 *
 * A leg is one connection to a container with its client. All functions are the worker's thread's.
 */
#ifndef KKM_ENGINE_H
#define KKM_ENGINE_H

#include "datapath.h"

/* A worker's share of kkm_slots. */
struct engine_slots {
	uint32_t *spare;
	unsigned int count;
};

struct engine_leg {
	struct datapath *datapath; /* NULL: not tracked, the relay carries everything */
	struct engine_slots *slots;
	struct kkm_slot *slot;
	uint64_t cookie; /* of the upstream socket: the key of kkm_conns */
	int upstream_fd;
	uint32_t index;
	enum kkm_engine engine; /* which may carry something right now */
	bool announced;		/* the programs were told of it */
	bool requests;		/* the way into the container's socket may have been taken */
	bool bulk;		/* the agent's own socket is not on it for now */
	unsigned int turns;	/* how often that has changed */
	uint32_t exchange;	/* the last one that was armed for */
	uint64_t passed;	/* the container's messages by then */
	bool quiet;		/* the last answer went by the short way, whole */
	uint64_t synced;	/* bytes that kkm_conns tells of */
};

/* An answer that the programs were allowed to carry. */
struct engine_answer {
	bool begun; /* else nothing of it has gone */
	unsigned int status;
	uint64_t left;	   /* bytes of its body that were not carried: 0, it is whole */
	uint64_t whole_ns; /* when it became that, CLOCK_MONOTONIC */
};

int engine_slots_init(struct engine_slots *slots, uint32_t first, uint32_t count);
void engine_slots_free(struct engine_slots *slots);

/* What a leg is for. */
struct engine_request {
	enum kkm_engine engine; /* the one to try; where it cannot, the leg is the relay's */
	bool requests;		/* what is sent to the container may go by it too */
	enum kkm_mode mode;	/* until engine_begin() */
	const char *domain;	/* as configured: the key of kkm_routes */
	const struct sockaddr_storage *backend;
	const struct sockaddr_storage *client;
	int client_fd, upstream_fd; /* the latter before connect() */
};

/* Never fails: the worst is a leg that is not tracked. */
void engine_open(struct engine_leg *leg, struct datapath *datapath, struct engine_slots *slots,
		 const struct engine_request *request);
/*
 * The next answer may be carried, as a whole or from its beginning. To be called before the first byte
 * of its request is sent, and with every answer before it at its end. False: it will not be.
 */
bool engine_arm(struct engine_leg *leg);
/* All of that answer is in the client's queue, or about to be: it was promised. */
bool engine_has_answered(const struct engine_leg *leg);
/*
 * From here on that answer, or what is left of it, is the relay's. False where the programs do not
 * come to an end about it: then nothing is known, and the connection must not go on.
 */
bool engine_take_answer(struct engine_leg *leg, struct engine_answer *out);
/* Nothing but that answer has come from the container since its request. */
bool engine_is_quiet(const struct engine_leg *leg);
/* Bytes that have entered a connected client's send queue, ever; UINT64_MAX: it takes no more. */
uint64_t engine_queued(int client_fd);

/* send() to the container has said EACCES, which means not yet: to be called before the next one. */
void engine_retry(struct engine_leg *leg);
/* What is sent to the container is bulk now, or is not any more. */
void engine_set_bulk(struct engine_leg *leg, bool bulk);
/* From here on bytes are not looked at: an engine may carry them. All written ones are counted. */
void engine_begin(struct engine_leg *leg);
/* The relay has written so many bytes. */
void engine_relayed(struct engine_leg *leg, uint64_t down, uint64_t up);
/* Bytes to the client that the relay did not carry. They were promised: see kkm_response. */
uint64_t engine_moved(const struct engine_leg *leg);
/*
 * From here on the relay carries everything. Where all that was put into the container's socket is
 * known to have been read, that is as it was; otherwise it stays in its map, since what it has not
 * read would be gone with its entry, and the programs pass.
 */
void engine_leave(struct engine_leg *leg);
/* Make kkm_conns tell what has been carried so far; false where that was so already. */
bool engine_sync(struct engine_leg *leg);
/* The sockets are about to be closed. */
void engine_close(struct engine_leg *leg);

#endif
