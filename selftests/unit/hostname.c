// SPDX-License-Identifier: MIT
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <stdlib.h>
#include <string.h>
#include <cmocka.h>

#include <arpa/inet.h>
#include <errno.h>

#include "hostname.h"

#define LABEL63 "aaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaa"
#define NAME253                                                                                    \
	LABEL63 "." LABEL63 "." LABEL63 "."                                                        \
		"bbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbb"
_Static_assert(sizeof(NAME253) - 1 == HOSTNAME_MAX, "the longest name");

static int parse(const char *text, size_t len, char *out, const char **reason)
{
	char *copy = malloc(len ? len : 1);
	int err;

	memcpy(copy, text, len);
	err = hostname_parse(copy, len, out, reason);
	free(copy);
	return err;
}

static void good_names(void **state)
{
	static const char *const cases[][2] = {
		{ "a", "a" },
		{ "app.example.com", "app.example.com" },
		{ "App.EXAMPLE.com", "app.example.com" },
		{ "example.com.", "example.com" },
		{ "my_app.example", "my_app.example" },
		{ "a-b.example", "a-b.example" },
		{ "xn--bcher-kva.example", "xn--bcher-kva.example" },
		{ "1.2.3.4", "1.2.3.4" },
		{ "*", "*" },
		{ "*.example.com", "*.example.com" },
		{ "*.Example.COM.", "*.example.com" },
		{ LABEL63 ".example", LABEL63 ".example" },
		{ NAME253, NAME253 },
		{ NAME253 ".", NAME253 },
	};

	(void)state;
	for (size_t i = 0; i < sizeof(cases) / sizeof(*cases); i++) {
		char out[HOSTNAME_MAX + 1];
		const char *reason;

		if (parse(cases[i][0], strlen(cases[i][0]), out, &reason))
			fail_msg("'%s' is refused: %s", cases[i][0], reason);
		assert_string_equal(out, cases[i][1]);
	}
}

static void bad_names(void **state)
{
	static const char *const cases[] = {
		"",
		".",
		"..",
		"a..b",
		".a",
		"a..",
		"-a.example",
		"a-.example",
		"a.-b",
		"a b",
		" a",
		"a ",
		"a\tb",
		"a\nb",
		"a\rb",
		"a/b",
		"a:80",
		"a@b",
		"http://a",
		"*a.example",
		"a.*.example",
		"*.*.example",
		"**",
		"a.*",
		"*.",
		"*..a",
		"[::1]",
		"::1",
		"a%2eb",
		"a,b",
		"a\x7f",
		"\"a\"",
		LABEL63 "a.example",
		NAME253 "c",
	};

	(void)state;
	for (size_t i = 0; i < sizeof(cases) / sizeof(*cases); i++) {
		const char *reason = NULL;
		char out[HOSTNAME_MAX + 1];

		if (parse(cases[i], strlen(cases[i]), out, &reason) != -EINVAL)
			fail_msg("'%s' is taken as '%s'", cases[i], out);
		assert_non_null(reason);
		assert_true(*reason);
	}
}

/* Whatever letters a label is written in, a route is found by its A-labels. */
static void international_names(void **state)
{
	static const char *const cases[][2] = {
		{ "b\u00fccher.example", "xn--bcher-kva.example" },
		{ "B\u00dcCHER.Example.", "xn--bcher-kva.example" },
		{ "bu\u0308cher.example", "xn--bcher-kva.example" },
		{ "*.b\u00fccher.example", "*.xn--bcher-kva.example" },
		{ "stra\u00dfe.example", "xn--strae-oqa.example" },
		{ "\u65e5\u672c\u8a9e.jp", "xn--wgv71a119e.jp" },
		{ "\u65e5\u672c\u8a9e\u3002jp\u3002", "xn--wgv71a119e.jp" },
		{ "b\u00fc\uff0eexample", "xn--b-eha.example" },
		{ "b\u00fc\uff61example", "xn--b-eha.example" },
		{ "\uff41\uff42\uff43.example", "abc.example" },
		{ "\uff58\uff4e--bcher-kva.example", "xn--bcher-kva.example" },
		{ "b\u00fc.xn--bcher-kva", "xn--b-eha.xn--bcher-kva" },
		{ "b\u00fc.XN--BCHER-KVA", "xn--b-eha.xn--bcher-kva" },
		{ "_a.b\u00fc.example", "_a.xn--b-eha.example" },
		{ "\u05d0.example", "xn--4db.example" },
		{ "XN--BCHER-KVA.Example", "xn--bcher-kva.example" },
	};

	(void)state;
	for (size_t i = 0; i < sizeof(cases) / sizeof(*cases); i++) {
		char out[HOSTNAME_MAX + 1];
		const char *reason;

		if (parse(cases[i][0], strlen(cases[i][0]), out, &reason))
			fail_msg("'%s' is refused: %s", cases[i][0], reason);
		assert_string_equal(out, cases[i][1]);
	}
}

static void bad_international_names(void **state)
{
	static const char *const cases[] = {
		/* no UTF-8: a byte alone, cut, overlong, a surrogate, past U+10FFFF */
		"\xff.example",
		"b\xfc"
		"cher.example",
		"a.b\xc3",
		"b\xc3.example",
		"\x80.example",
		"\xc0\xaf.example",
		"\xe0\x80\xaf.example",
		"\xed\xa0\x80.example",
		"\xf4\x90\x80\x80.example",
		/* UTF-8 and no name */
		"b\u00fc b.example",
		"b\u00fc..example",
		".b\u00fc",
		"b\u00fc:80",
		"b\u00fc/x",
		"-b\u00fc.example",
		"b\u00fc-.example",
		"ab--\u00fc.example",
		"b\u00fc.xn--a",
		"\u2100.example", /* a/c */
		"\u200d.example",
		"\u0308.example",
		"\u00ad.example",
		"\u00ad",
		"\u3002",
		/* a wildcard is written as one */
		"\uff0a.example",
		"\uff0a",
		"*\u3002example",
		"*b\u00fc.example",
		"*.*.b\u00fc",
		"b\u00fc.*",
		"b\u00fc.*.example",
		"*.\u00ad",
	};
	static char text[5000];
	char out[HOSTNAME_MAX + 1];
	const char *reason;

	(void)state;
	for (size_t i = 0; i < sizeof(cases) / sizeof(*cases); i++) {
		reason = NULL;
		if (parse(cases[i], strlen(cases[i]), out, &reason) != -EINVAL)
			fail_msg("'%s' is taken as '%s'", cases[i], out);
		assert_non_null(reason);
		assert_true(*reason);
	}
	assert_int_equal(parse("b\u00fc\0.example", 12, out, &reason), -EINVAL);
	assert_string_equal(reason, "is no valid internationalised name");
	/* labels and names too long, before and after */
	for (size_t len = 60; len < sizeof(text); len += 247) {
		for (size_t i = 0; i + 2 <= len; i += 2)
			memcpy(text + i, "\u00fc", 2);
		if (len > 200)
			assert_int_equal(parse(text, len, out, &reason), -EINVAL);
		for (size_t i = 20; i < len; i += 20)
			text[i] = '.';
		if (len > 600)
			assert_int_equal(parse(text, len & ~1UL, out, &reason), -EINVAL);
	}
}

static void length_is_obeyed(void **state)
{
	char out[HOSTNAME_MAX + 1];
	const char *reason;

	(void)state;
	assert_int_equal(hostname_parse("a.example/x", 9, out, &reason), 0);
	assert_string_equal(out, "a.example");
	assert_int_equal(parse("a\0b", 3, out, &reason), -EINVAL);
}

static void authorities(void **state)
{
	static const struct {
		const char *text, *host; /* NULL: refused */
	} cases[] = {
		{ "", "" },
		{ "a.example", "a.example" },
		{ "A.Example.:8080", "a.example" },
		{ "a.example:", "a.example" },
		{ "a.example:1", "a.example" },
		{ "a.example:65535", "a.example" },
		{ "127.0.0.1:80", "127.0.0.1" },
		{ "[::1]", "::1" },
		{ "[::1]:80", "::1" },
		{ "[::1]:", "::1" },
		{ "[2001:DB8:0:0::1]", "2001:db8::1" },
		{ "[::ffff:192.0.2.1]", "::ffff:192.0.2.1" },
		{ NAME253 ":80", NAME253 },
		{ "a.example:0", NULL },
		{ "a.example:65536", NULL },
		{ "a.example:99999999999999999999999", NULL },
		{ "a.example:-1", NULL },
		{ "a.example: 80", NULL },
		{ "a.example:80 ", NULL },
		{ "a.example:80:80", NULL },
		{ "*", NULL },
		{ "*.example", NULL },
		{ "*:80", NULL },
		{ "a b", NULL },
		{ "u@a.example", NULL },
		{ "[]", NULL },
		{ "[", NULL },
		{ "[::1", NULL },
		{ "[::1]80", NULL },
		{ "[::1]x:80", NULL },
		{ "[1.2.3.4]", NULL },
		{ "[fe80::1%eth0]", NULL },
		{ "[v1.x]", NULL },
		{ "[::1]]", NULL },
		{ "[0000:0000:0000:0000:0000:0000:0000:0000:0000:0000:0000:0001]", NULL },
		{ "::1", NULL },
		{ "a]", NULL },
		/* UTF-8 is for labels: no client sends it */
		{ "b\u00fccher.example", NULL },
		{ "b\u00fccher.example:80", NULL },
		{ "\uff41.example", NULL },
		{ "a\u3002example", NULL },
		{ "a.example\xff", NULL },
	};

	(void)state;
	for (size_t i = 0; i < sizeof(cases) / sizeof(*cases); i++) {
		size_t len = strlen(cases[i].text);
		char *copy = malloc(len ? len : 1), out[HOSTNAME_MAX + 1];
		int err;

		memcpy(copy, cases[i].text, len);
		err = hostname_from_authority(copy, len, out);
		free(copy);
		if (err != (cases[i].host ? 0 : -EINVAL))
			fail_msg("'%s' gives %d", cases[i].text, err);
		if (!err)
			assert_string_equal(out, cases[i].host);
	}
}

static void sni(void **state)
{
	static const char *const bad[] = { "",	  ".",	   "*",		"*.example", "a:443",
					   "a b", "[::1]", "b\u00fc.example", "a..b",	     "-a" };
	char out[HOSTNAME_MAX + 1];

	(void)state;
	assert_int_equal(hostname_from_sni("A.Example.x", 10, out), 0);
	assert_string_equal(out, "a.example");
	assert_int_equal(hostname_from_sni("xn--bcher-kva.de", 16, out), 0);
	assert_string_equal(out, "xn--bcher-kva.de");
	for (size_t i = 0; i < sizeof(bad) / sizeof(*bad); i++) {
		if (hostname_from_sni(bad[i], strlen(bad[i]), out) != -EINVAL)
			fail_msg("'%s' is taken as '%s'", bad[i], out);
	}
}

static void addresses(void **state)
{
	static const struct {
		const char *text, *printed;
		uint16_t port;
	} cases[] = {
		{ "192.0.2.1", "192.0.2.1:80", 80 },
		{ "0.0.0.0", "0.0.0.0:65535", 65535 },
		{ "2001:DB8::1", "[2001:db8::1]:443", 443 },
		{ "::", "[::]:1", 1 },
		{ "ffff:ffff:ffff:ffff:ffff:ffff:255.255.255.255",
		  "[ffff:ffff:ffff:ffff:ffff:ffff:ffff:ffff]:65535", 65535 },
	};
	static const char *const bad[] = { "",		"x",	      "1.2.3", "1.2.3.4.5",
					   "256.1.1.1", "1.2.3.4:80", "[::1]", "::1%lo",
					   " ::1",	"1.2.3.4 " };
	struct sockaddr_storage a, b;
	char text[ADDRESS_TEXT_MAX];

	(void)state;
	for (size_t i = 0; i < sizeof(cases) / sizeof(*cases); i++) {
		assert_int_equal(address_parse(cases[i].text, cases[i].port, &a), 0);
		assert_string_equal(address_print(&a, text), cases[i].printed);
		assert_ptr_equal(address_print(&a, text), text);
		assert_int_equal(address_port(&a), cases[i].port);
		assert_int_equal(address_len(&a), a.ss_family == AF_INET
							  ? sizeof(struct sockaddr_in)
							  : sizeof(struct sockaddr_in6));
	}
	for (size_t i = 0; i < sizeof(bad) / sizeof(*bad); i++)
		assert_int_equal(address_parse(bad[i], 80, &a), -EINVAL);
	assert_int_equal(address_parse("192.0.2.1", 80, &a), 0);
	assert_int_equal(address_parse("192.0.2.1", 80, &b), 0);
	assert_true(address_equal(&a, &b));
	((struct sockaddr_in *)&b)->sin_zero[0] = 1; /* no part of the address */
	assert_true(address_equal(&a, &b));
	assert_int_equal(address_parse("192.0.2.1", 81, &b), 0);
	assert_false(address_equal(&a, &b));
	assert_int_equal(address_parse("192.0.2.2", 80, &b), 0);
	assert_false(address_equal(&a, &b));
	assert_int_equal(address_parse("::ffff:192.0.2.1", 80, &b), 0);
	assert_false(address_equal(&a, &b));
	assert_int_equal(address_parse("::ffff:192.0.2.1", 80, &a), 0);
	assert_true(address_equal(&a, &b));
	assert_int_equal(address_parse("::ffff:192.0.2.2", 80, &a), 0);
	assert_false(address_equal(&a, &b));
}

static void numbers(void **state)
{
	static const struct {
		const char *text;
		uint64_t min, max, value;
		int err;
	} cases[] = {
		{ "0", 0, 10, 0, 0 },
		{ "10", 0, 10, 10, 0 },
		{ "11", 0, 10, 0, -EINVAL },
		{ "0", 1, 10, 0, -EINVAL },
		{ "18446744073709551615", 0, UINT64_MAX, UINT64_MAX, 0 },
		{ "18446744073709551616", 0, UINT64_MAX, 0, -EINVAL },
		{ "18446744073709551625", 0, UINT64_MAX, 0, -EINVAL },
		{ "99999999999999999999", 0, UINT64_MAX, 0, -EINVAL },
		{ "184467440737095516150", 0, UINT64_MAX, 0, -EINVAL },
		{ "", 0, 10, 0, -EINVAL },
		{ "+1", 0, 10, 0, -EINVAL },
		{ "-1", 0, 10, 0, -EINVAL },
		{ " 1", 0, 10, 0, -EINVAL },
		{ "1 ", 0, 10, 0, -EINVAL },
		{ "1a", 0, 10, 0, -EINVAL },
		{ "0x1", 0, 10, 0, -EINVAL },
		{ "1.0", 0, 10, 0, -EINVAL },
		{ "\xff", 0, UINT64_MAX, 0, -EINVAL },
	};

	(void)state;
	for (size_t i = 0; i < sizeof(cases) / sizeof(*cases); i++) {
		uint64_t value = 4711;
		int err = number_parse(cases[i].text, strlen(cases[i].text), cases[i].min,
				       cases[i].max, &value);

		if (err != cases[i].err)
			fail_msg("'%s' gives %d", cases[i].text, err);
		assert_int_equal(value, err ? 4711 : cases[i].value);
	}
}

int main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test(good_names),
		cmocka_unit_test(bad_names),
		cmocka_unit_test(international_names),
		cmocka_unit_test(bad_international_names),
		cmocka_unit_test(length_is_obeyed),
		cmocka_unit_test(authorities),
		cmocka_unit_test(sni),
		cmocka_unit_test(addresses),
		cmocka_unit_test(numbers),
	};

	return cmocka_run_group_tests_name("hostname", tests, NULL, NULL);
}
