// SPDX-License-Identifier: MIT
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <stdlib.h>
#include <string.h>
#include <cmocka.h>

#include <errno.h>

#include "json.h"

static struct json *parse(const char *text)
{
	size_t len = strlen(text);
	char *copy = malloc(len ? len : 1); /* no NUL behind it */
	struct json *root;

	memcpy(copy, text, len);
	root = json_parse(copy, len);
	free(copy);
	return root;
}

static void parsing(void **state)
{
	static const char *const good[] = { "{}",    " {} \r\n\t", "[]",   "[1,2]",
					    "\"x\"", "null",	   "true", "{\"a\":{\"b\":[{}]}}" };
	static const char *const bad[] = { "",	   " ",	      "{",	    "}",     "{}{}",
					   "{} x", "{\"a\"}", "{\"a\":}",   "{a:1}", "[1,]",
					   "nul",  "\"x",     "{\"a\":1,}", "'x'" };

	(void)state;
	for (size_t i = 0; i < sizeof(good) / sizeof(*good); i++) {
		struct json *root = parse(good[i]);

		if (!root)
			fail_msg("'%s' is refused", good[i]);
		json_free(&root);
		assert_null(root);
	}
	for (size_t i = 0; i < sizeof(bad) / sizeof(*bad); i++) {
		if (parse(bad[i]))
			fail_msg("'%s' is taken", bad[i]);
	}
	assert_null(json_parse("{}\0", 3));
	assert_null(json_parse("{}\0x", 4));
}

static void json_free_is_safe_for_null(void **state)
{
	struct json *none = NULL;

	(void)state;
	json_free(&none);
	assert_null(none);
}

/* Whoever can send JSON cannot break the stack. */
static void deep_nesting(void **state)
{
	static char deep[200001];
	struct json *root;

	(void)state;
	memset(deep, '[', 100000);
	memset(deep + 100000, ']', 100000);
	root = parse(deep);
	json_free(&root);
}

static void getters(void **state)
{
	struct json *root = parse("{\"s\":\"t\",\"e\":\"\",\"n\":-5,\"big\":1700000000,\"f\":1.9,"
				  "\"huge\":1e300,\"yes\":true,\"no\":false,\"nul\":null,"
				  "\"o\":{\"a\":{\"b\":\"c\"}},\"l\":[\"x\",\"y\"],\"S\":\"T\"}");
	unsigned int count = 0;

	(void)state;
	assert_non_null(root);
	assert_string_equal(json_str(root, "s", "z"), "t");
	assert_string_equal(json_str(root, "S", "z"), "T");
	assert_string_equal(json_str(root, "e", "z"), "");
	assert_string_equal(json_str(root, "n", "z"), "z");
	assert_string_equal(json_str(root, "nul", "z"), "z");
	assert_string_equal(json_str(root, "missing", "z"), "z");
	assert_null(json_str(root, "missing", NULL));
	assert_int_equal(json_int(root, "n", 1), -5);
	assert_int_equal(json_int(root, "big", 1), 1700000000);
	assert_int_equal(json_int(root, "huge", 1), 1);
	assert_int_equal(json_int(root, "s", 1), 1);
	assert_int_equal(json_int(root, "missing", 1), 1);
	assert_true(json_flag(root, "yes"));
	assert_false(json_flag(root, "no"));
	assert_false(json_flag(root, "s"));
	assert_false(json_flag(root, "missing"));
	assert_string_equal(json_text(json_at(root, "o", "a", "b", NULL)), "c");
	assert_null(json_at(root, "o", "x", "b", NULL));
	assert_null(json_at(root, "s", "x", NULL));
	assert_ptr_equal(json_at(root, NULL), root);
	assert_true(json_is_object(root));
	assert_true(json_is_array(json_get(root, "l")));
	assert_false(json_is_array(json_get(root, "o")));
	assert_false(json_is_object(json_get(root, "l")));
	json_each(item, json_get(root, "l"))
		assert_string_equal(json_text(item), count++ ? "y" : "x");
	assert_int_equal(count, 2);
	count = 0;
	json_each(item, root) count += !strcmp(json_name(item), "s");
	assert_int_equal(count, 1);
	json_free(&root);
}

static void getters_take_null(void **state)
{
	(void)state;
	assert_null(json_get(NULL, "x"));
	assert_null(json_at(NULL, "x", NULL));
	assert_string_equal(json_str(NULL, "x", "z"), "z");
	assert_null(json_text(NULL));
	assert_int_equal(json_int(NULL, "x", 7), 7);
	assert_false(json_flag(NULL, "x"));
	assert_false(json_is_array(NULL));
	assert_false(json_is_object(NULL));
	assert_null(json_first(NULL));
	json_each(item, NULL) fail();
}

static void building(void **state)
{
	struct json *root = json_object(), *list = json_add_array(root, "list");
	char *text;

	(void)state;
	json_add_str(root, "s", "a\"b\\c\n\x01");
	json_add_str(root, "none", NULL);
	json_add_int(root, "n", 1700000000123);
	json_add_bool(root, "b", true);
	json_add_null(root, "nul");
	json_add_str(json_append_object(list), "k", "v");
	json_add_int(json_add_object(root, "o"), "i", -1);
	text = json_print(root, false);
	json_free(&root);
	assert_non_null(text);
	assert_null(strchr(text, '\n'));
	root = parse(text);
	free(text);
	assert_non_null(root);
	assert_string_equal(json_str(root, "s", ""), "a\"b\\c\n\x01");
	assert_int_equal(json_int(root, "n", 0), 1700000000123);
	assert_true(json_flag(root, "b"));
	assert_non_null(json_get(root, "nul"));
	assert_non_null(json_get(root, "none"));
	assert_int_equal(json_int(json_get(root, "o"), "i", 0), -1);
	text = json_print(root, true);
	assert_non_null(strchr(text, '\n'));
	free(text);
	json_free(&root);
}

/* What came out of a stream, one object a line. */
struct seen {
	char text[8192];
	size_t len;
	unsigned int count;
};

static void note(void *ctx, const char *text, size_t len)
{
	struct seen *seen = ctx;
	char *copy = malloc(len);

	memcpy(copy, text, len); /* all of it is readable */
	free(copy);
	assert_true(seen->len + len + 1 < sizeof(seen->text));
	memcpy(seen->text + seen->len, text, len);
	seen->len += len;
	seen->text[seen->len++] = '\n';
	seen->count++;
}

static const char stream_text[] =
	"{\"a\":1}\n{\"b\":\"}{\"}\r\n \t{\"c\":\"\\\"}\\\\\"}{\"d\":[{},[{\"e\":\"]\"}]]}\n\n{}";
static const char stream_objects[] =
	"{\"a\":1}\n{\"b\":\"}{\"}\n{\"c\":\"\\\"}\\\\\"}\n{\"d\":[{},[{\"e\":\"]\"}]]}\n{}\n";

static void stream_in_two(void **state)
{
	size_t len = sizeof(stream_text) - 1;

	(void)state;
	for (size_t cut = 0; cut <= len; cut++) {
		struct json_stream stream = { .limit = 1000 };
		struct seen seen = { .len = 0 };

		assert_int_equal(json_stream_feed(&stream, stream_text, cut, note, &seen), 0);
		assert_int_equal(
			json_stream_feed(&stream, stream_text + cut, len - cut, note, &seen), 0);
		json_stream_reset(&stream);
		assert_int_equal(seen.count, 5);
		seen.text[seen.len] = '\0';
		assert_string_equal(seen.text, stream_objects);
	}
}

static void stream_byte_by_byte(void **state)
{
	struct json_stream stream = { .limit = 1000 };
	struct seen seen = { .len = 0 };

	(void)state;
	for (const char *p = stream_text; *p; p++) {
		char *byte = malloc(1);

		*byte = *p;
		assert_int_equal(json_stream_feed(&stream, byte, 1, note, &seen), 0);
		free(byte);
	}
	json_stream_reset(&stream);
	seen.text[seen.len] = '\0';
	assert_string_equal(seen.text, stream_objects);
}

static int feed_object_of(size_t size, size_t limit, struct seen *seen)
{
	struct json_stream stream = { .limit = limit };
	char *text = malloc(size);
	int err;

	memset(text, 'x', size);
	memcpy(text, "{\"a\":\"", 6);
	memcpy(text + size - 2, "\"}", 2);
	err = json_stream_feed(&stream, text, size, note, seen);
	json_stream_reset(&stream);
	assert_null(stream.data);
	assert_int_equal(stream.limit, limit);
	free(text);
	return err;
}

static void stream_limit(void **state)
{
	static const size_t limits[] = { 100, 1000, 4096, 5000, 8000 };

	(void)state;
	for (size_t i = 0; i < sizeof(limits) / sizeof(*limits); i++) {
		struct seen seen = { .len = 0 };

		assert_int_equal(feed_object_of(limits[i], limits[i], &seen), 0);
		assert_int_equal(seen.count, 1);
		if (feed_object_of(limits[i] + 1, limits[i], &seen) != -EMSGSIZE)
			fail_msg("%zu bytes pass a limit of %zu", limits[i] + 1, limits[i]);
		assert_int_equal(seen.count, 1);
	}
}

static void stream_garbage(void **state)
{
	static const char *const bad[] = { "x",	  "[1]",    "\"s\"",	    "1",   "}",
					   "{}x", "{} ,{}", "HTTP/1.1 500", "\x01" };

	(void)state;
	for (size_t i = 0; i < sizeof(bad) / sizeof(*bad); i++) {
		struct json_stream stream = { .limit = 1000 };
		struct seen seen = { .len = 0 };

		if (json_stream_feed(&stream, bad[i], strlen(bad[i]), note, &seen) != -EPROTO)
			fail_msg("'%s' is taken", bad[i]);
		json_stream_reset(&stream);
	}
}

static void stream_after_reset(void **state)
{
	struct json_stream stream = { .limit = 1000 };
	struct seen seen = { .len = 0 };

	(void)state;
	assert_int_equal(json_stream_feed(&stream, "{\"a\":\"", 6, note, &seen), 0);
	json_stream_reset(&stream);
	assert_int_equal(json_stream_feed(&stream, "{}", 2, note, &seen), 0);
	json_stream_reset(&stream);
	assert_int_equal(seen.count, 1);
}

int main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test(parsing),
		cmocka_unit_test(json_free_is_safe_for_null),
		cmocka_unit_test(deep_nesting),
		cmocka_unit_test(getters),
		cmocka_unit_test(getters_take_null),
		cmocka_unit_test(building),
		cmocka_unit_test(stream_in_two),
		cmocka_unit_test(stream_byte_by_byte),
		cmocka_unit_test(stream_limit),
		cmocka_unit_test(stream_garbage),
		cmocka_unit_test(stream_after_reset),
	};

	return cmocka_run_group_tests_name("json", tests, NULL, NULL);
}
