// SPDX-License-Identifier: MIT
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <stdlib.h>
#include <string.h>
#include <cmocka.h>

#include "resphead.h"

static const struct {
	const char *bytes;
	int status;
} cases[] = {
	{ "", 0 },
	{ "HTTP/1.1 20", 0 },
	{ "HTTP/1.1 200 OK\r\n\r\n", 200 },
	{ "HTTP/1.0 200 OK\r\n\r\n", 200 },
	{ "HTTP/1.1 200 \r\n\r\n", 200 },
	{ "HTTP/1.1 200\r\n\r\n", 200 },
	{ "HTTP/1.1 204 No Content\r\nX: y\r\n\r\n", 204 },
	{ "HTTP/1.1 304 Not Modified\r\n", 304 },
	{ "HTTP/1.1 404 ", 404 },
	{ "HTTP/1.1 999 x\r\n", 999 },
	{ "HTTP/1.1 101 Switching Protocols\r\nUpgrade: x\r\n\r\nbytes", 101 },
	{ "HTTP/1.1 100 Continue\r\n\r\n", 0 },
	{ "HTTP/1.1 100\r\n\r\nHTTP/1.1 200 OK\r\n", 200 },
	{ "HTTP/1.1 100 Continue\r\n\r\nHTTP/1.1 101 x\r\n\r\n", 101 },
	{ "HTTP/1.1 103 Early Hints\r\nLink: </a>\r\nX: HTTP/1.1 500 \r\n\r\n"
	  "HTTP/1.1 100 Continue\r\n\r\nHTTP/1.1 201 Created\r\n\r\n",
	  201 },
	{ "HTTP/1.1 102 Processing\r\nA: b\r\nC: d\r\n\r\nHTTP/1.1 500 x\r\n", 500 },
	{ "HTTP/1.1 100 Continue\r\n\r\nnonsense from here on", -1 },
	{ "HTTP/2.0 200 OK\r\n", -1 },
	{ "HTTP/1.1 2000 OK\r\n", -1 },
	{ "HTTP/1.1 20x OK\r\n", -1 },
	{ "HTTP/1.1 099 OK\r\n", -1 },
	{ "HTTP/1.1  200 OK\r\n", -1 },
	{ "HTTP/1.1200 OK\r\n\r\n", -1 },
	{ "http/1.1 200 OK\r\n", -1 },
	{ "<html>hello</html>\r\n", -1 },
	{ "220 mail.example ESMTP\r\n", -1 },
	{ "HTTP/1.x 200 OK\r\n", -1 },
	{ "HTTP/1.\n 200 OK\r\n", -1 },
};

static void whole(void **state)
{
	(void)state;
	for (size_t i = 0; i < sizeof(cases) / sizeof(*cases); i++) {
		struct resphead head = { 0 };
		int status = resphead_feed(&head, cases[i].bytes, strlen(cases[i].bytes));

		if (status != cases[i].status)
			fail_msg("'%s' gives %d, expected %d", cases[i].bytes, status,
				 cases[i].status);
	}
}

static void in_two(void **state)
{
	(void)state;
	for (size_t i = 0; i < sizeof(cases) / sizeof(*cases); i++) {
		size_t len = strlen(cases[i].bytes);

		for (size_t cut = 0; cut <= len; cut++) {
			struct resphead head = { 0 };
			int status = resphead_feed(&head, cases[i].bytes, cut);

			if (!status)
				status = resphead_feed(&head, cases[i].bytes + cut, len - cut);
			if (status != cases[i].status)
				fail_msg("'%s' cut at %zu gives %d", cases[i].bytes, cut, status);
		}
	}
}

static void byte_by_byte(void **state)
{
	(void)state;
	for (size_t i = 0; i < sizeof(cases) / sizeof(*cases); i++) {
		struct resphead head = { 0 };
		int status = 0;

		for (const char *p = cases[i].bytes; *p && !status; p++)
			status = resphead_feed(&head, p, 1);
		if (status != cases[i].status)
			fail_msg("'%s' gives %d", cases[i].bytes, status);
	}
}

/* A banner shorter than a status line, behind which its sender waits. */
static void short_and_not_http(void **state)
{
	struct resphead head = { 0 };

	(void)state;
	if (resphead_feed(&head, "SSH-2.0-x\r\n", 11) != -1)
		fail_msg("an SSH banner may still become HTTP/1");
}

int main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test(whole),
		cmocka_unit_test(in_two),
		cmocka_unit_test(byte_by_byte),
		cmocka_unit_test(short_and_not_http),
	};

	return cmocka_run_group_tests_name("resphead", tests, NULL, NULL);
}
