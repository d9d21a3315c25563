/* SPDX-License-Identifier: MIT */
/*
 * One client connection, from accept to close: its state machine. It reads each request, sends it to
 * the container of its Host, and passes the answer back; see docs/ARCHITECTURE.md.
 */
#ifndef KKM_CONNECTION_H
#define KKM_CONNECTION_H

#include <stdbool.h>
#include <sys/socket.h>

struct loop_timer;
struct worker;

/* Takes fd over. 0, or -errno with fd still the caller's. */
int connection_new(struct worker *worker, int fd, const struct sockaddr_storage *client, bool tls);

/*
 * The worker stops: connections that wait for a request are closed, the others may finish; with
 * `now` all are reset.
 */
void connection_drain_all(struct worker *worker, bool now);

/* From now on the relay carries everything. */
void connection_leave_engines(struct worker *worker);

/* A worker's look_timer: what engines have carried is looked at. */
void connection_look_after(struct loop_timer *timer);

/*
 * A worker's leaving_timer: what is open to a container that stops, or has gone, is cut when the drain's
 * time is over.
 */
void connection_cut_leaving(struct loop_timer *timer);

/* A worker's legs_timer: connections to containers that have been idle for long are closed. */
void connection_expire_legs(struct loop_timer *timer);

/* Descriptors are short: close the longest idle of a worker's connections to containers, if any. */
bool connection_spare_leg(struct worker *worker);

/* The bounds on a socket's own buffers that keep a connection below 8 MiB. */
void connection_bound_buffers(int fd);

#endif
