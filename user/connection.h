/* SPDX-License-Identifier: MIT */
/*
 * One client connection, from accept to close: its state machine. It reads the first head, finds
 * the container, connects, and then lets bytes pass both ways; see docs/ARCHITECTURE.md.
 */
#ifndef KKM_CONNECTION_H
#define KKM_CONNECTION_H

#include <stdbool.h>
#include <sys/socket.h>

struct worker;

/* Takes fd over. 0, or -errno with fd still the caller's. */
int connection_new(struct worker *worker, int fd, const struct sockaddr_storage *client);

/*
 * The worker stops: connections that wait for a request are closed, the others may finish; with
 * `now` all are reset.
 */
void connection_drain_all(struct worker *worker, bool now);

/* The bounds on a socket's own buffers that keep a connection below 8 MiB. */
void connection_bound_buffers(int fd);

#endif
