// SPDX-License-Identifier: MIT
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <cmocka.h>

#include "table.h"
#include "text.h"

static const struct table_column columns[] = {
	{ "NAME", TABLE_KEEP },	 { "NOTHING", TABLE_KEEP }, { "SIZE", TABLE_RIGHT },
	{ "WHAT", TABLE_CUT },
};
static const struct table_column wrapped[] = { { NULL, TABLE_KEEP }, { NULL, TABLE_WRAP } };

static char *printed(const struct table *table, unsigned int width, bool color)
{
	char *text = NULL;
	size_t size;
	struct table_screen screen = { .color = color, .width = width };

	screen.out = open_memstream(&text, &size);
	table_print(table, &screen);
	fclose(screen.out);
	return text;
}

#define ASSERT_PRINTED(table, width, color, expected)                                              \
	do {                                                                                       \
		char *text_ = printed(table, width, color);                                        \
		assert_string_equal(text_, expected);                                              \
		free(text_);                                                                       \
	} while (0)

static void add_row(struct table *table, const char *name, const char *size, const char *what)
{
	table_add(table, TABLE_BOLD, name);
	table_add(table, TABLE_PLAIN, "");
	table_add(table, TABLE_PLAIN, size);
	table_add(table, TABLE_DIM, what);
}

/* The widths are those of what is there; a column in which nothing stands is not. */
static void widths(void **state)
{
	struct table *table = table_new(columns, 4);

	(void)state;
	assert_true(table_is_empty(table));
	ASSERT_PRINTED(table, 0, false, "");
	add_row(table, "a-long-name", "1", "");
	add_row(table, "b", "12345", "said");
	assert_false(table_is_empty(table));
	ASSERT_PRINTED(table, 0, false,
		       "NAME          SIZE  WHAT\n"
		       "a-long-name      1\n"
		       "b            12345  said\n");
	ASSERT_PRINTED(table, 80, true,
		       "\033[2mNAME\033[0m          \033[2mSIZE\033[0m  \033[2mWHAT\033[0m\n"
		       "\033[1ma-long-name\033[0m      1\n"
		       "\033[1mb\033[0m            12345  \033[2msaid\033[0m\n");
	table_free(&table);
	assert_null(table);
	table_free(&table);
}

/* What may be cut is cut, then left out; names and numbers stay whole, as a paragraph in the end. */
static void narrow(void **state)
{
	struct table *table = table_new(columns, 4);

	(void)state;
	add_row(table, "a-long-name", "123", "a description that goes on and on");
	ASSERT_PRINTED(table, 40, false,
		       "NAME         SIZE  WHAT\n"
		       "a-long-name   123  a description that g…\n");
	ASSERT_PRINTED(table, 20, false,
		       "NAME         SIZE\n"
		       "a-long-name   123\n");
	ASSERT_PRINTED(table, 16, false,
		       "NAME     a-long-n\n"
		       "         ame\n"
		       "SIZE     123\n"
		       "WHAT     a\n"
		       "         descript\n"
		       "         ion that\n"
		       "         goes on\n"
		       "         and on\n");
	table_free(&table);
}

static void wraps(void **state)
{
	struct table *table = table_new(wrapped, 2);

	(void)state;
	table_add(table, TABLE_PLAIN, "name");
	table_add(table, TABLE_BAD, "words that do not all fit into one line of the screen");
	ASSERT_PRINTED(table, 34, false,
		       "name  words that do not all fit\n"
		       "      into one line of the screen\n");
	ASSERT_PRINTED(table, 34, true,
		       "name  \033[31mwords that do not all fit\033[0m\n"
		       "      \033[31minto one line of the screen\033[0m\n");
	ASSERT_PRINTED(table, 0, false,
		       "name  words that do not all fit into one line of the screen\n");
	table_free(&table);
}

/* However narrow the screen, every line of `text` is within it, if it is wide enough for a word. */
static void nothing_is_wider(void **state)
{
	(void)state;
	for (unsigned int width = 20; width < 120; width++) {
		struct table *table = table_new(columns, 4);
		char *text, *line, *rest;

		add_row(table, "漢字の名前漢字の名前", "99", "説明はとても長いので切られる、and so on and on");
		add_row(table, "ordinary", "1234567", "e\xcc\x81tude: combining marks have no width");
		text = printed(table, width, false);
		for (rest = text; (line = strtok_r(rest, "\n", &rest));) {
			if (table_width(line) > width)
				fail_msg("%u columns: %u in '%s'", width, table_width(line), line);
		}
		free(text);
		table_free(&table);
	}
}

#define ASSERT_CLEAN(text, expected)                                                               \
	do {                                                                                       \
		char *clean_ = table_clean(text);                                                  \
		assert_string_equal(clean_, expected);                                             \
		free(clean_);                                                                      \
	} while (0)

static void cleans(void **state)
{
	(void)state;
	ASSERT_CLEAN("", "");
	ASSERT_CLEAN("plain, grüße, 漢字, 🙂", "plain, grüße, 漢字, 🙂");
	ASSERT_CLEAN("\033[31mred\033]0;title\007\r\n\t\x7f", "?[31mred?]0;title?????");
	/* CSI and OSC of the second set: U+009B, U+009D; and as bare bytes */
	ASSERT_CLEAN("\xc2\x9b" "31m \xc2\x9d \x9b \x9d", "?31m ? ? ?");
	/* no UTF-8: overlong, a surrogate, above U+10FFFF, cut at the end */
	ASSERT_CLEAN("\xc0\x9b|\xe0\x80\x9b|\xed\xa0\x80|\xf4\x90\x80\x80|\xf8|\xe6\xbc", "??|???|???|????|?|??");
	/* right-to-left override, isolates, line separator, zero width, byte order mark, tags */
	ASSERT_CLEAN("a\u202eb\u2066c\u2028d\u200be\ufefff\U000e0041g", "a?b?c?d?e?f?g");
}

static void cleans_json(void **state)
{
	static const char *const cases[][2] = {
		{ "{\n\t\"a\": \"gr\u00fc\u00dfe \\n\"\n}", "{\n\t\"a\": \"gr\u00fc\u00dfe \\n\"\n}" },
		{ "\"\x7f \xc2\x9b \u202e\"", "\"\\u007f \\u009b \\u202e\"" },
		{ "\"\U000e0041 \x9b \xe6\xbc\"", "\"\\udb40\\udc41 \\ufffd \\ufffd\\ufffd\"" },
	};

	(void)state;
	for (size_t i = 0; i < sizeof(cases) / sizeof(*cases); i++) {
		char *clean = table_clean_json(cases[i][0]);

		assert_string_equal(clean, cases[i][1]);
		free(clean);
	}
}

static void measures(void **state)
{
	(void)state;
	assert_int_equal(table_width(""), 0);
	assert_int_equal(table_width("abc"), 3);
	assert_int_equal(table_width("grüße"), 5);
	assert_int_equal(table_width("漢字"), 4);
	assert_int_equal(table_width("한국어"), 6);
	assert_int_equal(table_width("ｆｕｌｌ"), 8);
	assert_int_equal(table_width("🙂"), 2);
	assert_int_equal(table_width("e\xcc\x81"), 1);
}

static void lines_of_text(void **state)
{
	struct table_screen screen = { .color = true };
	char *text = NULL;
	size_t size;

	(void)state;
	screen.out = open_memstream(&text, &size);
	table_text(&screen, TABLE_GOOD, "ok\033[0m");
	table_text(&screen, TABLE_PLAIN, "\x1b plain");
	table_text(&screen, TABLE_GOOD, "");
	fclose(screen.out);
	assert_string_equal(text, "\033[32mok?[0m\033[0m? plain");
	free(text);
}

#define ASSERT_SIZE(bytes, expected)                                                               \
	assert_string_equal(text_size(bytes, (char[TEXT_SIZE_MAX]){ 0 }), expected)
#define ASSERT_AGE(ms, expected)                                                                   \
	assert_string_equal(text_age(ms, (char[TEXT_SIZE_MAX]){ 0 }), expected)

static void sizes_and_ages(void **state)
{
	(void)state;
	ASSERT_SIZE(0, "0 B");
	ASSERT_SIZE(999, "999 B");
	ASSERT_SIZE(1000, "1.0 KiB");
	ASSERT_SIZE(1536, "1.5 KiB");
	ASSERT_SIZE(1000 * 1024, "1.0 MiB");
	ASSERT_SIZE(8ull << 20, "8.0 MiB");
	ASSERT_SIZE(3ull << 40, "3.0 TiB");
	ASSERT_SIZE(UINT64_MAX, "16.0 EiB");
	ASSERT_AGE(0, "0.0 s");
	ASSERT_AGE(59999, "59.9 s");
	ASSERT_AGE(60000, "1m 00s");
	ASSERT_AGE(3599999, "59m 59s");
	ASSERT_AGE(3600000, "1h 00m");
	ASSERT_AGE(86400000ull * 400 + 3600000, "400d 01h");
}

int main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test(widths),	  cmocka_unit_test(narrow),
		cmocka_unit_test(wraps),	  cmocka_unit_test(nothing_is_wider),
		cmocka_unit_test(cleans),	  cmocka_unit_test(cleans_json),
		cmocka_unit_test(measures),
		cmocka_unit_test(lines_of_text),  cmocka_unit_test(sizes_and_ages),
	};

	return cmocka_run_group_tests(tests, NULL, NULL);
}
