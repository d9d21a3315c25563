/* SPDX-License-Identifier: MIT */
/*
 * This host's network as far as routes depend on it: which addresses are its own, which networks it
 * is on, and when something leaves a bridge, as the address of a container that was stopped does.
 */
#ifndef KKM_HOST_H
#define KKM_HOST_H

#include <stdbool.h>
#include <sys/socket.h>

#include "loop.h"

struct host;

/* 0 or -errno; without `loop` nothing is watched. */
int host_new(struct loop *loop, struct host **out);
void host_free(struct host **host);

/* The interfaces may have changed: they are read again when somebody asks. */
void host_forget(struct host *host);

/* Of any family: a loopback address, or one of an interface's. */
bool host_is_own(struct host *host, const struct sockaddr_storage *address);

/*
 * How directly this host reaches an address: 2 on a bridge of its own, 1 on another network that it
 * is on (a macvlan's parent looks so, and does not reach it), 0 only by way of somebody else.
 */
int host_reach(struct host *host, const struct sockaddr_storage *address);

/* An interface that has left a bridge, by their indices. All 0: one was not heard of. */
struct host_port {
	unsigned int port, bridge;
};
void host_on_unplug(struct host *host, void (*callback)(void *ctx, const struct host_port *port),
		    void *ctx);

/*
 * Look behind which port those addresses are that this host has spoken to, as far as they are `wanted`;
 * the others are forgotten.
 */
void host_learn(struct host *host, bool (*wanted)(void *ctx, const struct sockaddr_storage *address),
		void *ctx);
/* May this address have been behind that port? It may where nothing else has been learnt. */
bool host_was_behind(struct host *host, const struct sockaddr_storage *address,
		     const struct host_port *port);

#endif
