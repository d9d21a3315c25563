// SPDX-License-Identifier: MIT
#include "loop.h"

#include <errno.h>
#include <stdlib.h>
#include <sys/eventfd.h>
#include <time.h>
#include <unistd.h>

#define EVENTS_A_TURN 256

struct task_list {
	struct loop_task *head;
	struct loop_task **tail;
};

struct loop {
	int epoll_fd;
	bool stopping;
	uint64_t now_ms;
	struct loop_timer **heap; /* heap[1] is the earliest */
	size_t timers, capacity;
	struct task_list deferred, next_turn;
	struct loop_io wake;
	void (*woken)(void *ctx);
	void *woken_ctx;
};

static uint64_t monotonic_ms(void)
{
	struct timespec now;

	clock_gettime(CLOCK_MONOTONIC, &now);
	return (uint64_t)now.tv_sec * 1000 + (uint64_t)now.tv_nsec / 1000000;
}

static void list_init(struct task_list *list)
{
	list->head = NULL;
	list->tail = &list->head;
}

static void list_push(struct task_list *list, struct loop_task *task)
{
	if (task->queued)
		return;
	task->queued = true;
	task->next = NULL;
	*list->tail = task;
	list->tail = &task->next;
}

/* What a task pushes while this runs, runs too in `deferred`, but not in a list that was moved. */
static void list_run(struct task_list *list)
{
	struct loop_task *task;

	while ((task = list->head)) {
		list->head = task->next;
		if (!list->head)
			list->tail = &list->head;
		task->queued = false;
		task->run(task);
	}
}

static void run_next_turn(struct loop *loop)
{
	struct task_list now = loop->next_turn;

	if (!now.head)
		return;
	list_init(&loop->next_turn);
	list_run(&now);
}

static void wake_ready(struct loop_io *io, uint32_t events)
{
	struct loop *loop = (struct loop *)((char *)io - offsetof(struct loop, wake));
	uint64_t count;

	(void)events;
	if (read(io->fd, &count, sizeof(count)) > 0 && loop->woken)
		loop->woken(loop->woken_ctx);
}

int loop_new(struct loop **out)
{
	struct loop *loop = calloc(1, sizeof(*loop));
	int wake_fd, err;

	if (!loop)
		return -ENOMEM;
	list_init(&loop->deferred);
	list_init(&loop->next_turn);
	loop->wake.fd = -1;
	loop->wake.ready = wake_ready;
	loop->now_ms = monotonic_ms();
	loop->epoll_fd = epoll_create1(EPOLL_CLOEXEC);
	if (loop->epoll_fd < 0) {
		err = -errno;
		free(loop);
		return err;
	}
	wake_fd = eventfd(0, EFD_CLOEXEC | EFD_NONBLOCK);
	err = wake_fd < 0 ? -errno : loop_add(loop, &loop->wake, wake_fd, EPOLLIN);
	if (err) {
		if (wake_fd >= 0)
			close(wake_fd);
		loop_free(&loop);
		return err;
	}
	*out = loop;
	return 0;
}

void loop_free(struct loop **ptr)
{
	struct loop *loop = *ptr;

	if (!loop)
		return;
	*ptr = NULL;
	run_next_turn(loop);
	list_run(&loop->deferred);
	if (loop->wake.fd >= 0)
		close(loop->wake.fd);
	close(loop->epoll_fd);
	free(loop->heap);
	free(loop);
}

uint64_t loop_now_ms(const struct loop *loop)
{
	return loop->now_ms;
}

int loop_add(struct loop *loop, struct loop_io *io, int fd, uint32_t events)
{
	struct epoll_event event = { .events = events, .data.ptr = io };

	if (epoll_ctl(loop->epoll_fd, EPOLL_CTL_ADD, fd, &event))
		return -errno;
	io->fd = fd;
	return 0;
}

int loop_mod(struct loop *loop, struct loop_io *io, uint32_t events)
{
	struct epoll_event event = { .events = events, .data.ptr = io };

	return epoll_ctl(loop->epoll_fd, EPOLL_CTL_MOD, io->fd, &event) ? -errno : 0;
}

int loop_del(struct loop *loop, struct loop_io *io)
{
	int fd = io->fd;

	if (fd >= 0)
		epoll_ctl(loop->epoll_fd, EPOLL_CTL_DEL, fd, NULL);
	io->fd = -1;
	return fd;
}

int loop_forget(struct loop_io *io)
{
	int fd = io->fd;

	io->fd = -1;
	return fd;
}

static void heap_place(struct loop *loop, struct loop_timer *timer, size_t place)
{
	loop->heap[place] = timer;
	timer->place = place;
}

static void heap_up(struct loop *loop, struct loop_timer *timer, size_t place)
{
	while (place > 1 && loop->heap[place / 2]->at_ms > timer->at_ms) {
		heap_place(loop, loop->heap[place / 2], place);
		place /= 2;
	}
	heap_place(loop, timer, place);
}

static void heap_down(struct loop *loop, struct loop_timer *timer, size_t place)
{
	for (;;) {
		size_t child = place * 2;

		if (child > loop->timers)
			break;
		if (child < loop->timers && loop->heap[child + 1]->at_ms < loop->heap[child]->at_ms)
			child++;
		if (loop->heap[child]->at_ms >= timer->at_ms)
			break;
		heap_place(loop, loop->heap[child], place);
		place = child;
	}
	heap_place(loop, timer, place);
}

int loop_timer_set(struct loop *loop, struct loop_timer *timer, uint64_t delay_ms)
{
	if (timer->place)
		loop_timer_clear(loop, timer);
	if (loop->timers + 1 >= loop->capacity) {
		size_t capacity = loop->capacity ? loop->capacity * 2 : 64;
		struct loop_timer **heap = realloc(loop->heap, capacity * sizeof(*heap));

		if (!heap)
			return -ENOMEM;
		loop->heap = heap;
		loop->capacity = capacity;
	}
	timer->at_ms = loop->now_ms + delay_ms;
	heap_up(loop, timer, ++loop->timers);
	return 0;
}

void loop_timer_clear(struct loop *loop, struct loop_timer *timer)
{
	size_t place = timer->place;
	struct loop_timer *last;

	if (!place)
		return;
	timer->place = 0;
	last = loop->heap[loop->timers--];
	if (last == timer)
		return;
	if (place > 1 && loop->heap[place / 2]->at_ms > last->at_ms)
		heap_up(loop, last, place);
	else
		heap_down(loop, last, place);
}

static void fire_timers(struct loop *loop)
{
	/* one that sets itself anew gets its next turn in the next turn */
	for (size_t n = loop->timers; n && loop->timers; n--) {
		struct loop_timer *timer = loop->heap[1];

		if (timer->at_ms > loop->now_ms)
			break;
		loop_timer_clear(loop, timer);
		timer->fire(timer);
	}
}

void loop_defer(struct loop *loop, struct loop_task *task)
{
	list_push(&loop->deferred, task);
}

void loop_next_turn(struct loop *loop, struct loop_task *task)
{
	list_push(&loop->next_turn, task);
}

void loop_on_wake(struct loop *loop, void (*woken)(void *ctx), void *ctx)
{
	loop->woken = woken;
	loop->woken_ctx = ctx;
}

void loop_wake(struct loop *loop)
{
	uint64_t one = 1;
	ssize_t n = write(loop->wake.fd, &one, sizeof(one));

	(void)n; /* EAGAIN: the counter is full, so the loop is being woken anyway */
}

void loop_stop(struct loop *loop)
{
	loop->stopping = true;
}

static int wait_ms(const struct loop *loop)
{
	uint64_t at_ms;

	if (loop->next_turn.head)
		return 0;
	if (!loop->timers)
		return -1;
	at_ms = loop->heap[1]->at_ms;
	if (at_ms <= loop->now_ms)
		return 0;
	return at_ms - loop->now_ms > 60000 ? 60000 : (int)(at_ms - loop->now_ms);
}

int loop_run(struct loop *loop)
{
	struct epoll_event events[EVENTS_A_TURN];

	while (!loop->stopping) {
		int n = epoll_wait(loop->epoll_fd, events, EVENTS_A_TURN, wait_ms(loop));

		if (n < 0 && errno != EINTR)
			return -errno;
		loop->now_ms = monotonic_ms();
		run_next_turn(loop);
		for (int i = 0; i < n; i++) {
			struct loop_io *io = events[i].data.ptr;

			if (io->fd >= 0)
				io->ready(io, events[i].events);
		}
		fire_timers(loop);
		list_run(&loop->deferred);
	}
	loop->stopping = false;
	return 0;
}
