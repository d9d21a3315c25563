// SPDX-License-Identifier: MIT
/* A child logs into a pipe; what arrives is parsed. */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <cmocka.h>

#include <pthread.h>
#include <sys/wait.h>
#include <unistd.h>

#include "json.h"
#include "log.h"

static char output[1 << 20];

/* Everything that `write_lines` logs, as one string. */
static void capture(void (*write_lines)(void))
{
	size_t len = 0;
	int fds[2], status;
	ssize_t n;
	pid_t child;

	assert_int_equal(pipe(fds), 0);
	fflush(stdout);
	child = fork();
	assert_true(child >= 0);
	if (!child) {
		alarm(20);
		dup2(fds[1], STDOUT_FILENO);
		close(fds[0]);
		close(fds[1]);
		write_lines();
		_exit(0);
	}
	close(fds[1]);
	while ((n = read(fds[0], output + len, sizeof(output) - 1 - len)) > 0)
		len += (size_t)n;
	close(fds[0]);
	output[len] = '\0';
	assert_int_equal(waitpid(child, &status, 0), child);
	assert_true(WIFEXITED(status) && !WEXITSTATUS(status));
	assert_int_equal(strlen(output), len); /* no NUL among it */
}

static unsigned int lines(void)
{
	unsigned int n = 0;

	for (const char *p = output; (p = strchr(p, '\n')); p++)
		n++;
	return n;
}

/* The only line, as JSON. */
static struct json *line(void)
{
	size_t len = strlen(output);
	struct json *root;

	assert_int_equal(lines(), 1);
	assert_true(len && output[len - 1] == '\n');
	root = json_parse(output, len);
	if (!root)
		fail_msg("this is no JSON: %s", output);
	return root;
}

static void log_plain(void)
{
	log_info("Adding Docker tunnel", "domain", "a.example", "none", NULL, "#port", "80",
		 "target", "192.0.2.1:80", NULL);
}

static void record(void **state)
{
	struct json *root;
	const char *time;
	int year, month, day, hour, minute, second, end = 0;
	unsigned int fraction;

	(void)state;
	capture(log_plain);
	root = line();
	assert_string_equal(json_str(root, "level", ""), "INFO");
	assert_string_equal(json_str(root, "msg", ""), "Adding Docker tunnel");
	assert_string_equal(json_str(root, "domain", ""), "a.example");
	assert_string_equal(json_str(root, "target", ""), "192.0.2.1:80");
	assert_int_equal(json_int(root, "port", 0), 80);
	assert_null(json_get(root, "none"));
	time = json_str(root, "time", "");
	assert_int_equal(sscanf(time, "%4d-%2d-%2dT%2d:%2d:%2d.%u%n", &year, &month, &day, &hour,
				&minute, &second, &fraction, &end),
			 7);
	assert_string_equal(time + end, "Z");
	assert_true(year >= 2024);
	json_free(&root);
}

/* Every byte there is, as a peer might send it. */
static char every_byte[256];

static void log_every_byte(void)
{
	log_warn("bytes", "value", every_byte, "after", "x", NULL);
}

static void escaping(void **state)
{
	struct json *root;

	(void)state;
	for (int i = 1; i < 256; i++)
		every_byte[i - 1] = (char)i;
	/* in two, so that each half fits whatever the escapes cost */
	for (int half = 0; half < 2; half++) {
		char whole[256];

		memcpy(whole, every_byte, 256);
		if (half)
			memmove(every_byte, whole + 127, 129);
		else
			every_byte[127] = '\0';
		capture(log_every_byte);
		for (const char *p = output; *p; p++)
			assert_true((*p >= 0x20 && *p < 0x7f) || *p == '\n');
		root = line();
		assert_string_equal(json_str(root, "after", ""), "x");
		if (!half)
			assert_string_equal(json_str(root, "value", ""), every_byte);
		else
			assert_non_null(json_get(root, "value"));
		json_free(&root);
		memcpy(every_byte, whole, 256);
	}
}

static void log_injection(void)
{
	log_info("x", "value", "\",\"level\":\"ERROR\"}\n{\"msg\":\"forged\"}", NULL);
}

static void no_line_of_somebody_elses(void **state)
{
	struct json *root;

	(void)state;
	capture(log_injection);
	root = line();
	assert_string_equal(json_str(root, "level", ""), "INFO");
	assert_string_equal(json_str(root, "value", ""),
			    "\",\"level\":\"ERROR\"}\n{\"msg\":\"forged\"}");
	json_free(&root);
}

static char long_text[20000];

static void log_long_value(void)
{
	log_info("msg", "before", "1", "long", long_text, "after", "2", NULL);
}

static void log_long_message(void)
{
	log_info(long_text, "after", "2", NULL);
}

static void log_many_values(void)
{
	log_info("msg", "a", long_text, "b", long_text, "c", long_text, "d", long_text, "e",
		 long_text, "f", long_text, "g", long_text, "h", long_text, "i", long_text, "#n",
		 "5", NULL);
}

static void over_long(void **state)
{
	static const size_t lengths[] = { 500,	600,  650,  680,  700,	1000,
					  4000, 4090, 4096, 4100, 19999 };
	static const char fills[] = { 'x', '"', '\n', (char)0xff };

	(void)state;
	for (size_t f = 0; f < sizeof(fills); f++) {
		for (size_t i = 0; i < sizeof(lengths) / sizeof(*lengths); i++) {
			struct json *root;

			memset(long_text, fills[f], lengths[i]);
			long_text[lengths[i]] = '\0';
			capture(log_long_value);
			root = line();
			assert_string_equal(json_str(root, "before", ""), "1");
			assert_string_equal(json_str(root, "after", ""), "2");
			json_free(&root);
			capture(log_long_message);
			root = line();
			assert_true(strlen(output) <= 4096);
			json_free(&root);
			capture(log_many_values);
			root = line();
			assert_true(strlen(output) <= 4096);
			json_free(&root);
		}
	}
}

static void log_levels(void)
{
	for (enum log_level level = LOG_LEVEL_DEBUG; level <= LOG_LEVEL_ERROR; level++) {
		log_setup(level, LOG_FORMAT_JSON);
		log_debug("d", NULL);
		log_info("i", NULL);
		log_warn("w", NULL);
		log_error("e", NULL);
	}
}

static void levels(void **state)
{
	static const char *const expected[] = { "DEBUG", "INFO",  "WARN", "ERROR", "INFO",
						"WARN",	 "ERROR", "WARN", "ERROR", "ERROR" };
	unsigned int n = 0;

	(void)state;
	capture(log_levels);
	for (char *at = strtok(output, "\n"); at; at = strtok(NULL, "\n"), n++) {
		struct json *root = json_parse(at, strlen(at));

		assert_true(n < 10);
		assert_string_equal(json_str(root, "level", ""), expected[n]);
		json_free(&root);
	}
	assert_int_equal(n, 10);
}

static void log_text(void)
{
	log_setup(LOG_LEVEL_INFO, LOG_FORMAT_TEXT);
	log_info("Adding", "domain", "a\n\x1b[31mb", "#n", log_number(-5), NULL);
}

static void text_format(void **state)
{
	(void)state;
	capture(log_text);
	assert_int_equal(lines(), 1);
	assert_non_null(strstr(output, "INFO"));
	assert_non_null(strstr(output, "Adding"));
	assert_non_null(strstr(output, "domain="));
	assert_non_null(strstr(output, "n=-5"));
	assert_null(strchr(output, '\x1b'));
}

static void *log_thread(void *ctx)
{
	for (int i = 0; i < 200; i++)
		log_info("msg", "thread", ctx, "text", long_text, NULL);
	return NULL;
}

static void log_from_threads(void)
{
	static const char *const names[] = { "1", "2", "3", "4" };
	pthread_t threads[4];

	for (int i = 0; i < 4; i++)
		pthread_create(&threads[i], NULL, log_thread, (void *)names[i]);
	for (int i = 0; i < 4; i++)
		pthread_join(threads[i], NULL);
}

/* Lines of several threads do not run into each other. */
static void threads(void **state)
{
	unsigned int n = 0;

	(void)state;
	memset(long_text, 'x', 600);
	long_text[600] = '\0';
	capture(log_from_threads);
	for (char *at = strtok(output, "\n"); at; at = strtok(NULL, "\n"), n++) {
		struct json *root = json_parse(at, strlen(at));

		if (!root)
			fail_msg("this is no JSON: %s", at);
		json_free(&root);
	}
	assert_int_equal(n, 800);
}

static void numbers(void **state)
{
	const char *kept[8];

	(void)state;
	for (int i = 0; i < 8; i++)
		kept[i] = log_number(i - 4);
	assert_string_equal(kept[0], "-4");
	assert_string_equal(kept[7], "3");
	assert_string_equal(log_number(INT64_MIN), "-9223372036854775808");
	assert_string_equal(log_number(INT64_MAX), "9223372036854775807");
}

int main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test(record),
		cmocka_unit_test(escaping),
		cmocka_unit_test(no_line_of_somebody_elses),
		cmocka_unit_test(over_long),
		cmocka_unit_test(levels),
		cmocka_unit_test(text_format),
		cmocka_unit_test(threads),
		cmocka_unit_test(numbers),
	};

	return cmocka_run_group_tests_name("log", tests, NULL, NULL);
}
