// SPDX-License-Identifier: MIT
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <stdlib.h>
#include <string.h>
#include <cmocka.h>

#include <pthread.h>
#include <sys/socket.h>
#include <unistd.h>

#include "loop.h"

static struct loop *loop;

static int setup(void **state)
{
	(void)state;
	alarm(30); /* a loop that does not come back fails the test, not the machine */
	return loop_new(&loop);
}

static int teardown(void **state)
{
	(void)state;
	loop_free(&loop);
	alarm(0);
	return loop ? -1 : 0;
}

/* What happened, in order. */
static int happened[4096];
static unsigned int count;

static void note(int what)
{
	assert_true(count < sizeof(happened) / sizeof(*happened));
	happened[count++] = what;
}

static void assert_happened(const int *expected, unsigned int n)
{
	assert_int_equal(count, n);
	for (unsigned int i = 0; i < n; i++)
		assert_int_equal(happened[i], expected[i]);
	count = 0;
}

#define ASSERT_HAPPENED(...)                                                                       \
	assert_happened((const int[]){ __VA_ARGS__ },                                              \
			sizeof((const int[]){ __VA_ARGS__ }) / sizeof(int))

static void stop_now(struct loop_timer *timer)
{
	(void)timer;
	loop_stop(loop);
}

static void run_for(uint64_t ms)
{
	struct loop_timer end = { .fire = stop_now };

	assert_int_equal(loop_timer_set(loop, &end, ms), 0);
	assert_int_equal(loop_run(loop), 0);
	assert_int_equal(end.place, 0);
}

struct numbered_timer {
	struct loop_timer timer;
	int number;
	uint64_t fired_ms;
};

static void note_timer(struct loop_timer *timer)
{
	struct numbered_timer *t = (struct numbered_timer *)timer;

	assert_int_equal(timer->place, 0);
	assert_true(loop_now_ms(loop) >= timer->at_ms);
	t->fired_ms = loop_now_ms(loop);
	note(t->number);
}

static void timers_fire_in_order(void **state)
{
	struct numbered_timer timers[] = {
		{ { .fire = note_timer }, 0, 0 },
		{ { .fire = note_timer }, 1, 0 },
		{ { .fire = note_timer }, 2, 0 },
		{ { .fire = note_timer }, 3, 0 },
	};
	static const uint64_t delays[] = { 30, 0, 20, 10 };

	(void)state;
	count = 0;
	for (int i = 0; i < 4; i++)
		assert_int_equal(loop_timer_set(loop, &timers[i].timer, delays[i]), 0);
	run_for(40);
	ASSERT_HAPPENED(1, 3, 2, 0);
}

static void timers_set_clear_move(void **state)
{
	struct numbered_timer a = { { .fire = note_timer }, 1, 0 },
			      b = { { .fire = note_timer }, 2, 0 },
			      c = { { .fire = note_timer }, 3, 0 };

	(void)state;
	count = 0;
	loop_timer_clear(loop, &a.timer); /* never set */
	assert_int_equal(loop_timer_set(loop, &a.timer, 5), 0);
	assert_int_equal(loop_timer_set(loop, &b.timer, 10), 0);
	assert_int_equal(loop_timer_set(loop, &c.timer, 15), 0);
	assert_int_equal(loop_timer_set(loop, &a.timer, 25), 0); /* later */
	assert_int_equal(loop_timer_set(loop, &c.timer, 1), 0);	 /* earlier */
	loop_timer_clear(loop, &b.timer);
	loop_timer_clear(loop, &b.timer);
	assert_int_equal(b.timer.place, 0);
	run_for(30);
	ASSERT_HAPPENED(3, 1);
	/* one shot, and to be used again */
	assert_int_equal(loop_timer_set(loop, &a.timer, 1), 0);
	run_for(5);
	ASSERT_HAPPENED(1);
}

/* The heap against a plain sort: many timers, set, moved and cleared at random. */
static void many_timers(void **state)
{
	enum { MANY = 2000 };
	static struct numbered_timer timers[MANY];
	unsigned int expected = 0;
	uint64_t last = 0;

	(void)state;
	count = 0;
	srand(1);
	for (int i = 0; i < MANY; i++) {
		timers[i] = (struct numbered_timer){ { .fire = note_timer }, i, 0 };
		assert_int_equal(loop_timer_set(loop, &timers[i].timer, (uint64_t)(rand() % 50)),
				 0);
	}
	for (int i = 0; i < MANY * 2; i++) {
		struct loop_timer *timer = &timers[rand() % MANY].timer;

		if (rand() % 3)
			assert_int_equal(loop_timer_set(loop, timer, (uint64_t)(rand() % 50)), 0);
		else
			loop_timer_clear(loop, timer);
	}
	for (int i = 0; i < MANY; i++)
		expected += timers[i].timer.place != 0;
	run_for(60);
	assert_int_equal(count, expected);
	for (unsigned int i = 0; i < count; i++) {
		assert_true(timers[happened[i]].timer.at_ms >= last);
		last = timers[happened[i]].timer.at_ms;
	}
	count = 0;
}

static void clear_the_other(struct loop_timer *timer);
static struct numbered_timer first = { { .fire = clear_the_other }, 1, 0 },
			     second = { { .fire = note_timer }, 2, 0 };

static void clear_the_other(struct loop_timer *timer)
{
	(void)timer;
	note(1);
	loop_timer_clear(loop, &second.timer);
}

/* A timer cleared by one that is due at the same time does not fire. */
static void timer_cleared_by_a_timer(void **state)
{
	(void)state;
	count = 0;
	assert_int_equal(loop_timer_set(loop, &first.timer, 1), 0);
	assert_int_equal(loop_timer_set(loop, &second.timer, 2), 0);
	usleep(5000); /* both are due when the loop first looks */
	run_for(5);
	ASSERT_HAPPENED(1);
}

static struct {
	struct loop_timer timer;
	unsigned int fired;
} again;

static void set_again(struct loop_timer *timer)
{
	if (++again.fired == 3)
		loop_stop(loop);
	else
		assert_int_equal(loop_timer_set(loop, timer, 1), 0);
}

static void timer_sets_itself(void **state)
{
	(void)state;
	again.timer = (struct loop_timer){ .fire = set_again };
	again.fired = 0;
	assert_int_equal(loop_timer_set(loop, &again.timer, 1), 0);
	assert_int_equal(loop_run(loop), 0);
	assert_int_equal(again.fired, 3);
	assert_int_equal(again.timer.place, 0);
}

struct numbered_task {
	struct loop_task task;
	int number;
	struct loop_task *then;
};

static void note_task(struct loop_task *task)
{
	struct numbered_task *t = (struct numbered_task *)task;

	note(t->number);
	if (t->then)
		loop_defer(loop, t->then);
}

static struct numbered_task task_one, task_two;

static void defer_both(struct loop_timer *timer)
{
	(void)timer;
	note(0);
	loop_defer(loop, &task_one.task);
	loop_defer(loop, &task_two.task);
	loop_defer(loop, &task_one.task); /* once */
	note(10);
}

static void deferred_tasks(void **state)
{
	struct loop_timer now = { .fire = defer_both };
	struct numbered_task third = { { .run = note_task }, 3, NULL };

	(void)state;
	count = 0;
	task_one = (struct numbered_task){ { .run = note_task }, 1, &third.task };
	task_two = (struct numbered_task){ { .run = note_task }, 2, NULL };
	assert_int_equal(loop_timer_set(loop, &now, 0), 0);
	run_for(2);
	ASSERT_HAPPENED(0, 10, 1, 2, 3);
	assert_false(task_one.task.queued);
	loop_defer(loop, &task_one.task);
	run_for(1);
	ASSERT_HAPPENED(1, 3);
}

static void deferred_runs_before_free(void **state)
{
	(void)state;
	count = 0;
	task_two = (struct numbered_task){ { .run = note_task }, 2, NULL };
	loop_defer(loop, &task_two.task);
	loop_free(&loop);
	ASSERT_HAPPENED(2);
	assert_int_equal(loop_new(&loop), 0);
}

static struct {
	struct loop_io io;
	int fds[2];
	unsigned int events;
} busy;

static void busy_ready(struct loop_io *io, uint32_t events)
{
	(void)io;
	(void)events;
	note(5);
	if (++busy.events == 3)
		loop_stop(loop);
}

static void again_next_turn(struct loop_task *task)
{
	note(1);
	if (busy.events < 3)
		loop_next_turn(loop, task);
}

/* Work that goes on for ever lets descriptors have their turn in between. */
static void next_turn_is_fair(void **state)
{
	static struct loop_task task; /* the last one runs when the loop is freed */

	(void)state;
	count = 0;
	busy.events = 0;
	task = (struct loop_task){ .run = again_next_turn };
	busy.io = (struct loop_io){ .fd = -1, .ready = busy_ready };
	assert_int_equal(socketpair(AF_UNIX, SOCK_STREAM, 0, busy.fds), 0);
	assert_int_equal(write(busy.fds[1], "x", 1), 1);
	assert_int_equal(loop_add(loop, &busy.io, busy.fds[0], EPOLLIN), 0);
	loop_next_turn(loop, &task);
	assert_int_equal(loop_run(loop), 0);
	ASSERT_HAPPENED(1, 5, 1, 5, 1, 5);
	assert_int_equal(loop_del(loop, &busy.io), busy.fds[0]);
	assert_int_equal(busy.io.fd, -1);
	assert_int_equal(loop_del(loop, &busy.io), -1);
	close(busy.fds[0]);
	close(busy.fds[1]);
}

/* Two descriptors are ready in one turn; whichever comes first takes the other out. */
static struct two {
	struct loop_io io;
	struct two *other;
	int fds[2];
} two[2];

static void delete_the_other(struct loop_io *io, uint32_t events)
{
	struct two *self = (struct two *)io;

	(void)events;
	note(1);
	assert_int_equal(loop_del(loop, &self->other->io), self->other->fds[0]);
}

static void events_after_del_are_dropped(void **state)
{
	(void)state;
	count = 0;
	for (int i = 0; i < 2; i++) {
		two[i].io = (struct loop_io){ .fd = -1, .ready = delete_the_other };
		two[i].other = &two[!i];
		assert_int_equal(socketpair(AF_UNIX, SOCK_STREAM, 0, two[i].fds), 0);
		assert_int_equal(loop_add(loop, &two[i].io, two[i].fds[0], EPOLLIN | EPOLLET), 0);
		assert_int_equal(write(two[i].fds[1], "x", 1), 1);
	}
	run_for(5);
	ASSERT_HAPPENED(1);
	for (int i = 0; i < 2; i++) {
		loop_del(loop, &two[i].io);
		close(two[i].fds[0]);
		close(two[i].fds[1]);
	}
}

static void note_events(struct loop_io *io, uint32_t events)
{
	note((int)events);
	assert_int_equal(loop_mod(loop, io, 0), 0);
}

static void interest_can_be_changed(void **state)
{
	struct loop_io io = { .fd = -1, .ready = note_events };
	int fds[2];

	(void)state;
	count = 0;
	assert_int_equal(socketpair(AF_UNIX, SOCK_STREAM, 0, fds), 0);
	assert_int_equal(loop_add(loop, &io, fds[0], EPOLLIN), 0);
	assert_int_equal(io.fd, fds[0]);
	run_for(2);
	assert_int_equal(count, 0);
	assert_int_equal(loop_mod(loop, &io, EPOLLOUT), 0);
	run_for(2);
	ASSERT_HAPPENED(EPOLLOUT);
	close(loop_del(loop, &io));
	close(fds[1]);
	assert_true(loop_add(loop, &io, -1, EPOLLIN) < 0);
}

static pthread_t main_thread;
static unsigned int woken;
static bool stop_when_woken;

static void on_wake(void *ctx)
{
	assert_ptr_equal(ctx, &woken);
	assert_true(pthread_equal(pthread_self(), main_thread));
	woken++;
	if (stop_when_woken)
		loop_stop(loop);
}

static void *wake_thread(void *ctx)
{
	(void)ctx;
	for (int i = 0; i < 1000; i++)
		loop_wake(loop);
	return NULL;
}

static void wake_from_a_thread(void **state)
{
	pthread_t thread;

	(void)state;
	main_thread = pthread_self();
	woken = 0;
	stop_when_woken = true;
	loop_on_wake(loop, on_wake, &woken);
	assert_int_equal(pthread_create(&thread, NULL, wake_thread, NULL), 0);
	assert_int_equal(loop_run(loop), 0); /* no timer: only the wake can end it */
	assert_int_equal(pthread_join(thread, NULL), 0);
	assert_true(woken >= 1);
	stop_when_woken = false;
	run_for(2);
	woken = 0;
	for (int i = 0; i < 10; i++)
		loop_wake(loop);
	run_for(5);
	assert_int_equal(woken, 1);
}

static void clock_moves(void **state)
{
	uint64_t before = loop_now_ms(loop);

	(void)state;
	run_for(10);
	assert_true(loop_now_ms(loop) >= before + 10);
	assert_true(loop_now_ms(loop) < before + 5000);
}

int main(void)
{
#define LOOP_TEST(name) cmocka_unit_test_setup_teardown(name, setup, teardown)
	const struct CMUnitTest tests[] = {
		LOOP_TEST(timers_fire_in_order),
		LOOP_TEST(timers_set_clear_move),
		LOOP_TEST(many_timers),
		LOOP_TEST(timer_cleared_by_a_timer),
		LOOP_TEST(timer_sets_itself),
		LOOP_TEST(deferred_tasks),
		LOOP_TEST(deferred_runs_before_free),
		LOOP_TEST(next_turn_is_fair),
		LOOP_TEST(events_after_del_are_dropped),
		LOOP_TEST(interest_can_be_changed),
		LOOP_TEST(wake_from_a_thread),
		LOOP_TEST(clock_moves),
	};

	return cmocka_run_group_tests_name("loop", tests, NULL, NULL);
}
