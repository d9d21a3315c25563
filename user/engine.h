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
	uint32_t index;
	enum kkm_engine engine; /* which may carry something right now */
	bool announced;		/* the programs were told of it */
};

int engine_slots_init(struct engine_slots *slots, uint32_t first, uint32_t count);
void engine_slots_free(struct engine_slots *slots);

/* What a leg is for. */
struct engine_request {
	enum kkm_engine engine; /* the one to try; where it cannot, the leg is the relay's */
	bool hold;		/* until engine_begin() */
	const char *domain;	/* as configured: the key of kkm_routes */
	const struct sockaddr_storage *backend;
	const struct sockaddr_storage *client;
	int client_fd, upstream_fd; /* the latter before connect() */
};

/* Never fails: the worst is a leg that is not tracked. */
void engine_open(struct engine_leg *leg, struct datapath *datapath, struct engine_slots *slots,
		 const struct engine_request *request);
/* From here on bytes are not looked at: an engine may carry them. All written ones are counted. */
void engine_begin(struct engine_leg *leg);
/* The relay has written so many bytes. */
void engine_relayed(struct engine_leg *leg, uint64_t down, uint64_t up);
/* Bytes to the client that the relay did not carry. They were promised: see kkm_response. */
uint64_t engine_moved(const struct engine_leg *leg);
/* From here on the relay carries everything, and the container's socket is as it was. */
void engine_leave(struct engine_leg *leg);
/* The sockets are about to be closed. */
void engine_close(struct engine_leg *leg);

#endif
