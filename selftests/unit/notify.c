// SPDX-License-Identifier: MIT
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <cmocka.h>

#include <errno.h>
#include <sys/socket.h>
#include <sys/un.h>
#include <unistd.h>

#include "notify.h"

static struct loop *loop;
static struct notify *notify;
static struct notify_state current;
static char name[64];
static int manager;

static void fill(void *ctx, struct notify_state *out)
{
	(void)ctx;
	*out = current;
}

/* The service manager's end: a path, or an abstract name that begins with '@'. */
static void open_manager(const char *format)
{
	struct sockaddr_un address = { .sun_family = AF_UNIX };
	socklen_t len;

	snprintf(name, sizeof(name), format, getpid());
	len = (socklen_t)(offsetof(struct sockaddr_un, sun_path) + strlen(name));
	memcpy(address.sun_path, name, strlen(name));
	if (*name == '@')
		address.sun_path[0] = '\0';
	manager = socket(AF_UNIX, SOCK_DGRAM | SOCK_NONBLOCK, 0);
	assert_int_equal(bind(manager, (struct sockaddr *)&address, len), 0);
	setenv("NOTIFY_SOCKET", name, 1);
}

static int setup(void **state)
{
	(void)state;
	alarm(30);
	memset(&current, 0, sizeof(current));
	unsetenv("NOTIFY_SOCKET");
	unsetenv("WATCHDOG_USEC");
	unsetenv("WATCHDOG_PID");
	manager = -1;
	*name = '\0';
	return loop_new(&loop);
}

static int teardown(void **state)
{
	(void)state;
	notify_free(&notify);
	loop_free(&loop);
	if (manager >= 0)
		close(manager);
	if (*name == '/')
		unlink(name);
	alarm(0);
	return 0;
}

static void assert_heard(const char *expected)
{
	char text[512];
	ssize_t n = recv(manager, text, sizeof(text) - 1, 0);

	text[n > 0 ? n : 0] = '\0';
	assert_string_equal(text, expected);
}

static void test_nobody(void **state)
{
	(void)state;
	assert_int_equal(notify_new(loop, fill, NULL, &notify), 0);
	assert_null(notify);
	notify_update(notify);
}

static void test_bad_name(void **state)
{
	static const char *const names[] = { "relative", "/", "@", "vsock:2:1",
		"/0123456789012345678901234567890123456789012345678901234567890123456789"
		"0123456789012345678901234567890123456789" };

	(void)state;
	for (size_t i = 0; i < sizeof(names) / sizeof(*names); i++) {
		setenv("NOTIFY_SOCKET", names[i], 1);
		assert_int_equal(notify_new(loop, fill, NULL, &notify), -EINVAL);
		assert_null(notify);
	}
}

/* Each change once, READY for good. */
static void tell_a_life(const char *format)
{
	open_manager(format);
	strcpy(current.status, "starting");
	assert_int_equal(notify_new(loop, fill, NULL, &notify), 0);
	assert_heard("STATUS=starting\n");
	notify_update(notify);
	assert_heard("");
	current.ready = true;
	strcpy(current.status, "ready");
	notify_update(notify);
	assert_heard("READY=1\nSTATUS=ready\n");
	current.ready = false;
	current.stopping = true;
	current.stop_ms = 30000;
	notify_update(notify);
	assert_heard("STOPPING=1\nEXTEND_TIMEOUT_USEC=35000000\n");
	notify_update(notify);
	assert_heard("");
}

static void test_path(void **state)
{
	(void)state;
	tell_a_life("/tmp/kkm-notify-%d");
}

static void test_abstract(void **state)
{
	(void)state;
	tell_a_life("@kkm-notify-%d");
}

static void stop_now(struct loop_timer *timer)
{
	(void)timer;
	loop_stop(loop);
}

static void run_for(uint64_t ms)
{
	struct loop_timer timer = { .fire = stop_now };

	loop_timer_set(loop, &timer, ms);
	assert_int_equal(loop_run(loop), 0);
}

/* The loop itself shows that it runs, so that one that hangs is noticed. */
static void test_watchdog(void **state)
{
	(void)state;
	setenv("WATCHDOG_USEC", "40000", 1);
	snprintf(name, sizeof(name), "%d", getpid());
	setenv("WATCHDOG_PID", name, 1);
	open_manager("@kkm-notify-%d");
	assert_int_equal(notify_new(loop, fill, NULL, &notify), 0);
	assert_heard("WATCHDOG=1\n");
	assert_heard("");
	current.ready = true;
	notify_update(notify);
	assert_heard("READY=1\n");
	run_for(50);
	assert_heard("WATCHDOG=1\n");
	assert_heard("WATCHDOG=1\n");
}

static void test_watchdog_of_another(void **state)
{
	(void)state;
	setenv("WATCHDOG_USEC", "2000", 1);
	setenv("WATCHDOG_PID", "1", 1);
	open_manager("@kkm-notify-%d");
	assert_int_equal(notify_new(loop, fill, NULL, &notify), 0);
	run_for(10);
	assert_heard("");
}

/* A manager that does not read for a while hears it later. */
static void test_full_queue(void **state)
{
	unsigned int waiting = 0;
	char text[512];

	(void)state;
	open_manager("@kkm-notify-%d");
	assert_int_equal(notify_new(loop, fill, NULL, &notify), 0);
	/* more than net.unix.max_dgram_qlen or the send buffer let wait */
	for (; waiting < 1000; waiting++) {
		snprintf(current.status, sizeof(current.status), "%u", waiting);
		notify_update(notify);
	}
	current.ready = true;
	notify_update(notify);
	while (recv(manager, text, sizeof(text), 0) > 0)
		;
	run_for(250);
	snprintf(text, sizeof(text), "READY=1\nSTATUS=%u\n", waiting - 1);
	assert_heard(text);
}

int main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test_setup_teardown(test_nobody, setup, teardown),
		cmocka_unit_test_setup_teardown(test_bad_name, setup, teardown),
		cmocka_unit_test_setup_teardown(test_path, setup, teardown),
		cmocka_unit_test_setup_teardown(test_abstract, setup, teardown),
		cmocka_unit_test_setup_teardown(test_watchdog, setup, teardown),
		cmocka_unit_test_setup_teardown(test_watchdog_of_another, setup, teardown),
		cmocka_unit_test_setup_teardown(test_full_queue, setup, teardown),
	};

	return cmocka_run_group_tests(tests, NULL, NULL);
}
