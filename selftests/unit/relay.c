// SPDX-License-Identifier: MIT
/* Bytes are a function of their place, so that loss, doubling and disorder all show. */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <stdlib.h>
#include <string.h>
#include <cmocka.h>

#include <arpa/inet.h>
#include <errno.h>
#include <netinet/in.h>
#include <poll.h>
#include <signal.h>
#include <sys/socket.h>
#include <unistd.h>

#include "relay.h"

/* source[1] -> source[0] | relay | target[0] -> target[1] */
static int source[2], target[2];
static struct relay_pool pool;
static struct relay relay;

static int tcp_pair(int out[2])
{
	struct sockaddr_in address = { .sin_family = AF_INET,
				       .sin_addr.s_addr = htonl(INADDR_LOOPBACK) };
	socklen_t len = sizeof(address);
	int listener = socket(AF_INET, SOCK_STREAM | SOCK_CLOEXEC, 0);

	if (bind(listener, (struct sockaddr *)&address, len) || listen(listener, 1) ||
	    getsockname(listener, (struct sockaddr *)&address, &len))
		return -1;
	out[1] = socket(AF_INET, SOCK_STREAM | SOCK_CLOEXEC, 0);
	if (connect(out[1], (struct sockaddr *)&address, len))
		return -1;
	out[0] = accept4(listener, NULL, NULL, SOCK_NONBLOCK | SOCK_CLOEXEC);
	close(listener);
	return out[0] < 0 ? -1 : 0;
}

static int unix_pair(int out[2])
{
	return socketpair(AF_UNIX, SOCK_STREAM | SOCK_NONBLOCK | SOCK_CLOEXEC, 0, out);
}

static int setup_with(int (*pair)(int[2]))
{
	signal(SIGPIPE, SIG_IGN);
	alarm(60);
	memset(&pool, 0, sizeof(pool));
	relay = (struct relay){ .pool = &pool };
	return pair(source) || pair(target) ? -1 : 0;
}

static int setup_tcp(void **state)
{
	(void)state;
	return setup_with(tcp_pair);
}

static int setup_unix(void **state)
{
	(void)state;
	return setup_with(unix_pair);
}

static void close_end(int *fd)
{
	if (*fd >= 0)
		close(*fd);
	*fd = -1;
}

static int teardown(void **state)
{
	(void)state;
	relay_drop(&relay);
	relay_pool_free(&pool);
	for (int i = 0; i < 2; i++) {
		close_end(&source[i]);
		close_end(&target[i]);
	}
	alarm(0);
	return pool.pipes_open ? -1 : 0;
}

static unsigned char pattern(uint64_t at)
{
	return (unsigned char)((at * 2654435761u) >> 13);
}

static uint64_t sent, received;

static size_t send_pattern(size_t len)
{
	static unsigned char data[1 << 20];
	ssize_t n;

	if (len > sizeof(data))
		len = sizeof(data);
	for (size_t i = 0; i < len; i++)
		data[i] = pattern(sent + i);
	n = send(source[1], data, len, MSG_DONTWAIT | MSG_NOSIGNAL);
	if (n > 0)
		sent += (uint64_t)n;
	return n > 0 ? (size_t)n : 0;
}

/* What has arrived, at most `len`; checks every byte. 0 also at the end. */
static size_t receive_pattern(size_t len)
{
	static unsigned char data[1 << 20];
	ssize_t n = recv(target[1], data, len < sizeof(data) ? len : sizeof(data), MSG_DONTWAIT);

	for (ssize_t i = 0; i < n; i++) {
		if (data[i] != pattern(received + (uint64_t)i))
			fail_msg("byte %llu is wrong", (unsigned long long)received + (uint64_t)i);
	}
	if (n > 0)
		received += (uint64_t)n;
	return n > 0 ? (size_t)n : 0;
}

static void start(void)
{
	sent = received = 0;
}

/* `total` bytes through the relay, written and read in pieces, under a limit of each pump. */
static void transfer(uint64_t total, size_t write_size, size_t read_size, uint64_t limit)
{
	uint64_t left = limit;
	bool ended = false;

	start();
	while (received < total) {
		struct pollfd fds[] = { { .fd = source[0], .events = POLLIN },
					{ .fd = target[1], .events = POLLIN } };
		enum relay_result result;
		uint64_t before = relay.bytes, was = left;

		if (sent < total)
			send_pattern(total - sent < write_size ? total - sent : write_size);
		else if (!ended)
			ended = !shutdown(source[1], SHUT_WR);
		result = relay_pump(&relay, source[0], target[0], &left);
		assert_true(result != RELAY_SOURCE_ERROR && result != RELAY_TARGET_ERROR);
		assert_true(left <= was);
		if (limit != RELAY_NO_LIMIT)
			assert_int_equal(relay.bytes - before, was - left);
		if (result == RELAY_LIMIT) {
			assert_int_equal(left, 0);
			left = limit;
		}
		if (result == RELAY_END)
			assert_int_equal(relay.bytes, total);
		receive_pattern(read_size);
		if (result == RELAY_SOURCE_EMPTY || result == RELAY_TARGET_FULL)
			poll(fds, 2, 1);
	}
	left = RELAY_NO_LIMIT;
	relay.ending = true;
	assert_int_equal(shutdown(source[1], SHUT_WR) && errno != ENOTCONN, 0);
	poll(&(struct pollfd){ .fd = source[0], .events = POLLRDHUP }, 1, 5000);
	assert_int_equal(relay_pump(&relay, source[0], target[0], &left), RELAY_END);
	assert_int_equal(relay.bytes, total);
	assert_null(relay.buffer); /* idle: nothing is held */
	assert_null(relay.pipe);
}

static void small_pieces(void **state)
{
	(void)state;
	transfer(300000, 700, 1 << 20, RELAY_NO_LIMIT);
	assert_int_equal(relay.spliced, 0);
}

static void bulk(void **state)
{
	(void)state;
	transfer(20 << 20, 1 << 20, 1 << 20, RELAY_NO_LIMIT);
	assert_true(relay.spliced > 0);
}

static void bulk_to_a_slow_reader(void **state)
{
	int small = 16384;

	(void)state;
	setsockopt(target[0], SOL_SOCKET, SO_SNDBUF, &small, sizeof(small));
	transfer(3 << 20, 1 << 20, 3000, RELAY_NO_LIMIT);
}

static void bulk_with_limits(void **state)
{
	(void)state;
	transfer(5 << 20, 1 << 20, 1 << 20, 100001);
}

static void small_limits(void **state)
{
	(void)state;
	transfer(200000, 1 << 20, 1 << 20, 333);
}

static void limits_and_a_slow_reader(void **state)
{
	int small = 16384;

	(void)state;
	setsockopt(target[0], SOL_SOCKET, SO_SNDBUF, &small, sizeof(small));
	transfer(1 << 20, 1 << 20, 5000, 70000);
}

/* Wait until the source has this much to read. */
static void arrive(size_t len)
{
	static char data[1 << 20];

	for (int i = 0; i < 5000; i++) {
		if (recv(source[0], data, len, MSG_PEEK | MSG_DONTWAIT) >= (ssize_t)len)
			return;
		poll(&(struct pollfd){ .fd = source[0], .events = POLLIN }, 1, 1);
	}
	fail_msg("%zu bytes did not arrive", len);
}

/* Wait until `len` more bytes have come out, and compare them. */
static void arrive_at_target(size_t len)
{
	uint64_t total = received + len;

	for (int i = 0; i < 5000 && received < total; i++) {
		poll(&(struct pollfd){ .fd = target[1], .events = POLLIN }, 1, 1);
		receive_pattern((size_t)(total - received));
	}
	assert_int_equal(received, total);
}

static void limit_is_exact(void **state)
{
	uint64_t left = 10;

	(void)state;
	start();
	send_pattern(100);
	arrive(100);
	assert_int_equal(relay_pump(&relay, source[0], target[0], &left), RELAY_LIMIT);
	assert_int_equal(left, 0);
	assert_int_equal(relay.bytes, 10);
	assert_int_equal(relay_pump(&relay, source[0], target[0], &left), RELAY_LIMIT);
	assert_int_equal(relay.bytes, 10);
	left = 50;
	assert_int_equal(relay_pump(&relay, source[0], target[0], &left), RELAY_LIMIT);
	left = RELAY_NO_LIMIT;
	assert_int_equal(relay_pump(&relay, source[0], target[0], &left), RELAY_SOURCE_EMPTY);
	poll(&(struct pollfd){ .fd = target[1], .events = POLLIN }, 1, 1000);
	while (received < 100 && receive_pattern(1000))
		;
	assert_int_equal(received, 100);
	assert_null(relay.buffer);
}

/* Fill the target until the relay holds bytes in its pipe. */
static void fill_pipe(void)
{
	uint64_t left = RELAY_NO_LIMIT;

	start();
	for (int i = 0; i < 1000 && !relay.piped; i++) {
		send_pattern(1 << 20);
		relay_pump(&relay, source[0], target[0], &left);
	}
	assert_true(relay.piped > 1000);
	/* until it moves no more by itself */
	while (relay_pump(&relay, source[0], target[0], &left) == RELAY_YIELD)
		;
	assert_true(relay.piped > 1000);
}

/* A limit given while spliced bytes wait is a limit for these as well. */
static void limit_on_what_waits_in_the_pipe(void **state)
{
	uint64_t left = 1000, before;
	bool moved = false;

	(void)state;
	fill_pipe();
	before = relay.bytes;
	for (int i = 0; i < 100 && !moved; i++) {
		while (receive_pattern(1 << 20))
			;
		poll(&(struct pollfd){ .fd = target[0], .events = POLLOUT }, 1, 100);
		relay_pump(&relay, source[0], target[0], &left);
		moved = relay.bytes != before;
	}
	assert_true(moved);
	if (relay.bytes - before > 1000 || left > 1000)
		fail_msg("%llu bytes went, %llu are said to be left of 1000",
			 (unsigned long long)(relay.bytes - before), (unsigned long long)left);
}

/* Nothing allowed is no error, whatever waits. */
static void limit_of_zero(void **state)
{
	uint64_t left = 0, before;

	(void)state;
	fill_pipe();
	while (receive_pattern(1 << 20))
		;
	before = relay.bytes;
	assert_int_equal(relay_pump(&relay, source[0], target[0], &left), RELAY_LIMIT);
	assert_int_equal(left, 0);
	assert_int_equal(relay.bytes, before);
	assert_true(relay.piped > 0);
}

static void dropping(void **state)
{
	(void)state;
	fill_pipe();
	relay_drop(&relay);
	assert_int_equal(relay.piped, 0);
	assert_int_equal(relay.len, 0);
	assert_null(relay.pipe);
	assert_null(relay.buffer);
	assert_null(pool.pipes); /* a pipe with bytes of one connection serves no other */
	assert_int_equal(pool.pipes_open, 0);
	relay_drop(&relay);
}

static void yields(void **state)
{
	uint64_t left = RELAY_NO_LIMIT;
	enum relay_result result;
	int yielded = 0;

	(void)state;
	start();
	for (int i = 0; i < 20000 && !yielded; i++) {
		uint64_t before = relay.bytes;

		while (send_pattern(1 << 20))
			;
		result = relay_pump(&relay, source[0], target[0], &left);
		assert_true(relay.bytes - before < 2 * RELAY_BUDGET);
		yielded += result == RELAY_YIELD;
		if (i > 100)
			while (receive_pattern(1 << 20))
				;
	}
	/* it depends on the buffers whether there is so much at once; bounded is what matters */
	if (!yielded)
		skip();
}

static void end_and_reset(void **state)
{
	struct linger now = { .l_onoff = 1 };
	uint64_t left = RELAY_NO_LIMIT;

	(void)state;
	start();
	send_pattern(5000);
	arrive(5000);
	setsockopt(source[1], SOL_SOCKET, SO_LINGER, &now, sizeof(now));
	assert_int_equal(relay_read(&relay, source[0]), 5000);
	close_end(&source[1]);
	poll(&(struct pollfd){ .fd = source[0], .events = 0 }, 1, 5000);
	relay.ending = true;
	assert_int_equal(relay_pump(&relay, source[0], target[0], &left), RELAY_SOURCE_ERROR);
	assert_int_equal(relay.bytes, 5000);
	poll(&(struct pollfd){ .fd = target[1], .events = POLLIN }, 1, 1000);
	while (receive_pattern(1 << 20))
		;
	assert_int_equal(received, 5000);
}

static void target_gone(void **state)
{
	struct linger now = { .l_onoff = 1 };
	uint64_t left = RELAY_NO_LIMIT;

	(void)state;
	start();
	setsockopt(target[1], SOL_SOCKET, SO_LINGER, &now, sizeof(now));
	close_end(&target[1]);
	poll(&(struct pollfd){ .fd = target[0], .events = 0 }, 1, 5000);
	send_pattern(100);
	arrive(100);
	assert_int_equal(relay_pump(&relay, source[0], target[0], &left), RELAY_TARGET_ERROR);
}

/* By splice(2), where no MSG_NOSIGNAL can be given. */
static void target_gone_while_spliced(void **state)
{
	struct linger now = { .l_onoff = 1 };
	uint64_t left = RELAY_NO_LIMIT;

	(void)state;
	fill_pipe();
	setsockopt(target[1], SOL_SOCKET, SO_LINGER, &now, sizeof(now));
	close_end(&target[1]);
	poll(&(struct pollfd){ .fd = target[0], .events = 0 }, 1, 5000);
	assert_int_equal(relay_pump(&relay, source[0], target[0], &left), RELAY_TARGET_ERROR);
}

static void read_and_write(void **state)
{
	static char data[RELAY_BUFFER];
	ssize_t n;

	(void)state;
	start();
	assert_int_equal(relay_read(&relay, source[0]), -EAGAIN);
	assert_null(relay.buffer);
	send_pattern(1000);
	arrive(1000);
	assert_int_equal(relay_read(&relay, source[0]), 1000);
	assert_int_equal(relay.len, 1000);
	assert_int_equal((unsigned char)relay_data(&relay)[999], pattern(999));
	assert_int_equal(relay_write(&relay, target[0], 400), 400);
	assert_int_equal(relay.bytes, 400);
	assert_int_equal((unsigned char)relay_data(&relay)[0], pattern(400));
	/* the room in front of what waits is used again */
	while (relay.len < RELAY_BUFFER) {
		if (sent < RELAY_BUFFER + 400)
			send_pattern(RELAY_BUFFER + 400 - sent);
		poll(&(struct pollfd){ .fd = source[0], .events = POLLIN }, 1, 1000);
		n = relay_read(&relay, source[0]);
		assert_true(n > 0 || n == -EAGAIN);
	}
	send_pattern(1);
	assert_int_equal(relay_read(&relay, source[0]), -ENOBUFS);
	memcpy(data, relay_data(&relay), RELAY_BUFFER);
	for (size_t i = 0; i < RELAY_BUFFER; i++)
		assert_int_equal((unsigned char)data[i], pattern(400 + i));
	while (relay.len) {
		n = relay_write(&relay, target[0], relay.len);
		assert_true(n > 0 || n == -EAGAIN);
		receive_pattern(1 << 20);
	}
	assert_null(relay.buffer);
	assert_null(relay_data(&relay));
	arrive(1);
	assert_int_equal(relay_read(&relay, source[0]), 1);
	assert_int_equal(relay_write(&relay, target[0], 1), 1);
	shutdown(source[1], SHUT_WR);
	poll(&(struct pollfd){ .fd = source[0], .events = POLLIN }, 1, 5000);
	assert_int_equal(relay_read(&relay, source[0]), 0);
	for (int i = 0; i < 1000 && received < sent; i++) {
		poll(&(struct pollfd){ .fd = target[1], .events = POLLIN }, 1, 10);
		receive_pattern(1 << 20);
	}
	assert_int_equal(received, sent);
}

/* Bytes that are forgotten count nowhere, and room for them is given back with the last. */
static void skipping(void **state)
{
	(void)state;
	start();
	relay_skip(&relay, 0);
	assert_null(relay.buffer);
	send_pattern(1000);
	arrive(1000);
	assert_int_equal(relay_read(&relay, source[0]), 1000);
	relay_skip(&relay, 0);
	relay_skip(&relay, 300);
	assert_int_equal(relay.len, 700);
	assert_int_equal((unsigned char)relay_data(&relay)[0], pattern(300));
	assert_int_equal(relay_write(&relay, target[0], 200), 200);
	received = 300;
	arrive_at_target(200);
	relay_skip(&relay, 500);
	assert_int_equal(relay.bytes, 200);
	assert_int_equal(relay.len, 0);
	assert_null(relay.buffer);
	assert_null(relay_data(&relay));
	assert_int_equal(pool.spare_buffers, 1);
}

/* Of `len` bytes that are read the first 10 go at once. */
static void read_all_but_10(size_t len)
{
	start();
	send_pattern(len);
	arrive(len);
	assert_int_equal(relay_read(&relay, source[0]), len);
	assert_int_equal(relay_write(&relay, target[0], 10), 10);
	arrive_at_target(10);
}

static void parking(void **state)
{
	char *data;

	(void)state;
	relay_park(&relay);
	assert_null(relay.buffer);
	read_all_but_10(RELAY_PARK + 11);
	data = relay_data(&relay);
	relay_park(&relay); /* too much for it */
	assert_ptr_equal(relay_data(&relay), data);
	assert_int_equal(relay_write(&relay, target[0], 1), 1);
	assert_int_equal(pool.spare_buffers, 0);
	relay_park(&relay);
	assert_int_equal(pool.spare_buffers, 1);
	assert_int_equal(relay.len, RELAY_PARK);
	for (size_t i = 0; i < relay.len; i++)
		assert_int_equal((unsigned char)relay_data(&relay)[i], pattern(11 + i));
	data = relay_data(&relay);
	relay_park(&relay); /* is there already */
	assert_ptr_equal(relay_data(&relay), data);
	/* what is read then comes behind it, and may be as much as ever */
	while (relay.len < RELAY_BUFFER) {
		if (sent < RELAY_BUFFER + 11)
			send_pattern(RELAY_BUFFER + 11 - sent);
		poll(&(struct pollfd){ .fd = source[0], .events = POLLIN }, 1, 1000);
		assert_true(relay_read(&relay, source[0]) > 0);
		assert_int_equal(pool.spare_buffers, 0);
	}
	assert_int_equal(relay_read(&relay, source[0]), -ENOBUFS);
	for (size_t i = 0; i < relay.len; i++)
		assert_int_equal((unsigned char)relay_data(&relay)[i], pattern(11 + i));
}

/* A parked piece is written, skipped and dropped as any; the pool never gets its small buffer. */
static void leaving_the_park(void **state)
{
	uint64_t left = RELAY_NO_LIMIT;

	(void)state;
	read_all_but_10(100);
	relay_park(&relay);
	assert_int_equal(relay_write(&relay, target[0], 40), 40);
	assert_int_equal(relay_write(&relay, target[0], 50), 50);
	assert_null(relay.buffer);
	assert_int_equal(pool.spare_buffers, 1);
	arrive_at_target(90);
	read_all_but_10(100);
	relay_park(&relay);
	relay_skip(&relay, 90);
	assert_null(relay.buffer);
	assert_int_equal(pool.spare_buffers, 1);
	read_all_but_10(100);
	relay_park(&relay);
	relay_drop(&relay);
	assert_null(relay.buffer);
	assert_int_equal(pool.spare_buffers, 1);
	read_all_but_10(100);
	relay_park(&relay);
	assert_int_equal(relay_read(&relay, source[0]), -EAGAIN); /* which loses nothing */
	assert_int_equal(relay.len, 90);
	relay_park(&relay);
	send_pattern(50000);
	arrive(50000);
	assert_int_equal(relay_pump(&relay, source[0], target[0], &left), RELAY_SOURCE_EMPTY);
	arrive_at_target(50090);
	assert_null(relay.buffer);
}

static void parked_before_the_end(void **state)
{
	(void)state;
	read_all_but_10(100);
	relay_park(&relay);
	assert_int_equal(shutdown(source[1], SHUT_WR), 0);
	poll(&(struct pollfd){ .fd = source[0], .events = POLLRDHUP }, 1, 5000);
	assert_int_equal(relay_read(&relay, source[0]), 0);
	assert_int_equal(relay_write(&relay, target[0], relay.len), 90);
	arrive_at_target(90);
	assert_null(relay.buffer);
}

/* Bytes read for a look go out before what is pumped. */
static void pump_after_read(void **state)
{
	uint64_t left = RELAY_NO_LIMIT;

	(void)state;
	start();
	send_pattern(100);
	arrive(100);
	assert_int_equal(relay_read(&relay, source[0]), 100);
	send_pattern(200);
	arrive(200);
	assert_int_equal(relay_pump(&relay, source[0], target[0], &left), RELAY_SOURCE_EMPTY);
	assert_int_equal(relay.bytes, 300);
	poll(&(struct pollfd){ .fd = target[1], .events = POLLIN }, 1, 1000);
	while (received < 300 && receive_pattern(1000))
		;
	assert_int_equal(received, 300);
}

static void pool_is_bounded(void **state)
{
	struct relay many[200];
	int pairs[200][2];

	(void)state;
	for (int i = 0; i < 200; i++) {
		many[i] = (struct relay){ .pool = &pool };
		assert_int_equal(unix_pair(pairs[i]), 0);
		assert_int_equal(write(pairs[i][1], "x", 1), 1);
		assert_int_equal(relay_read(&many[i], pairs[i][0]), 1);
	}
	for (int i = 0; i < 200; i++) {
		relay_drop(&many[i]);
		close(pairs[i][0]);
		close(pairs[i][1]);
	}
	assert_true(pool.spare_buffers < 200);
	relay_pool_free(&pool);
	assert_int_equal(pool.spare_buffers, 0);
	assert_null(pool.buffers);
}

int main(void)
{
#define ON_TCP(name) cmocka_unit_test_setup_teardown(name, setup_tcp, teardown)
#define ON_BOTH(name)                                                                              \
	{ #name " (unix)", name, setup_unix, teardown, NULL },                                     \
	{                                                                                          \
#name " (tcp)", name, setup_tcp, teardown, NULL                                    \
	}
	const struct CMUnitTest tests[] = {
		ON_BOTH(small_pieces),
		ON_BOTH(bulk),
		ON_BOTH(bulk_to_a_slow_reader),
		ON_BOTH(bulk_with_limits),
		ON_BOTH(small_limits),
		ON_BOTH(limits_and_a_slow_reader),
		ON_BOTH(limit_is_exact),
		ON_BOTH(limit_on_what_waits_in_the_pipe),
		ON_BOTH(limit_of_zero),
		ON_BOTH(dropping),
		ON_TCP(yields),
		ON_TCP(end_and_reset),
		ON_TCP(target_gone),
		ON_TCP(target_gone_while_spliced),
		ON_BOTH(read_and_write),
		ON_BOTH(skipping),
		ON_BOTH(parking),
		ON_BOTH(leaving_the_park),
		ON_BOTH(parked_before_the_end),
		ON_BOTH(pump_after_read),
		ON_TCP(pool_is_bounded),
	};

	return cmocka_run_group_tests_name("relay", tests, NULL, NULL);
}
