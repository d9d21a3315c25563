/* SPDX-License-Identifier: MIT */
/*
 * An epoll loop: descriptors, timers, work put off to the end of the turn, and a wake-up from other
 * threads. Everything but loop_wake() belongs to the thread that runs the loop.
 */
#ifndef KKM_LOOP_H
#define KKM_LOOP_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>
#include <sys/epoll.h>

struct loop;

/* Embedded in its owner. fd is -1 while it is not watched; events already collected are dropped. */
struct loop_io {
	int fd;
	void (*ready)(struct loop_io *io, uint32_t events);
};

/* Embedded in its owner, zeroed before the first use. One shot. */
struct loop_timer {
	void (*fire)(struct loop_timer *timer);
	uint64_t at_ms;
	size_t place; /* in the heap, from 1; 0 while not set */
};

/* Embedded in its owner. Runs once at the end of the turn, when nothing of the turn refers to it. */
struct loop_task {
	void (*run)(struct loop_task *task);
	struct loop_task *next;
	bool queued;
};

/* 0 or -errno. */
int loop_new(struct loop **out);
void loop_free(struct loop **loop);

/* Runs until loop_stop(). 0 or -errno of epoll_wait(2). */
int loop_run(struct loop *loop);
void loop_stop(struct loop *loop);

/* Milliseconds of CLOCK_MONOTONIC, read once a turn. */
uint64_t loop_now_ms(const struct loop *loop);

/* Watch fd; the caller keeps it and closes it after loop_del(). 0 or -errno. */
int loop_add(struct loop *loop, struct loop_io *io, int fd, uint32_t events);
int loop_mod(struct loop *loop, struct loop_io *io, uint32_t events);
/* Stop watching; returns the descriptor, -1 if there was none. */
int loop_del(struct loop *loop, struct loop_io *io);
/* The same for one that is closed at once, and was never duplicated: epoll(7) forgets it by itself. */
int loop_forget(struct loop_io *io);

/* 0 or -ENOMEM, with the timer not set. Setting a timer that is set moves it. */
int loop_timer_set(struct loop *loop, struct loop_timer *timer, uint64_t delay_ms);
void loop_timer_clear(struct loop *loop, struct loop_timer *timer);

void loop_defer(struct loop *loop, struct loop_task *task);
/* As loop_defer(), for the next turn: other descriptors get their turn in between. */
void loop_next_turn(struct loop *loop, struct loop_task *task);

/* From any thread: `woken` is called in the loop's thread, once for any number of calls. */
void loop_on_wake(struct loop *loop, void (*woken)(void *ctx), void *ctx);
void loop_wake(struct loop *loop);

#endif
