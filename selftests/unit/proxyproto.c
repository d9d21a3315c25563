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
#include <netinet/in.h>

#include "hostname.h"
#include "proxyproto.h"

#define SIGNATURE "\r\n\r\n\0\r\nQUIT\n"
#define TEXT(text) text, sizeof(text) - 1

static struct sockaddr_storage source, destination;

/* From memory of just that size, so that the sanitizer sees a byte too far. */
static int parse(const char *data, size_t len)
{
	char *copy = malloc(len ? len : 1);
	int err;

	memcpy(copy, data, len);
	err = proxyproto_parse(copy, len, &source, &destination);
	free(copy);
	return err;
}

/* "-" where there is none. */
static const char *printed(const struct sockaddr_storage *address, char *out)
{
	return address->ss_family == AF_UNSPEC ? strcpy(out, "-") : address_print(address, out);
}

/* Taken with its last byte and not before, whatever follows. */
static void expect_header(const char *data, size_t len, const char *from, const char *to,
			  const char *what)
{
	char text[ADDRESS_TEXT_MAX], *more = malloc(len + 100);

	for (size_t cut = 0; cut < len; cut++) {
		int err = parse(data, cut);

		if (err)
			fail_msg("%s: %d at byte %zu", what, err, cut);
	}
	memcpy(more, data, len);
	memset(more + len, '\r', 100);
	for (size_t rest = 0; rest <= 100; rest += 50) {
		int err;

		memset(&source, 0xff, sizeof(source));
		memset(&destination, 0xff, sizeof(destination));
		err = parse(more, len + rest);
		if (err != (int)len)
			fail_msg("%s: %d with %zu bytes behind it", what, err, rest);
		if (strcmp(printed(&source, text), from))
			fail_msg("%s: source %s", what, text);
		if (strcmp(printed(&destination, text), to))
			fail_msg("%s: destination %s", what, text);
	}
	free(more);
}

/* Refused from the byte that makes it certain on, and nothing is written. */
static void expect_refusal(const char *data, size_t len, size_t certain, const char *what)
{
	for (size_t cut = 0; cut <= len; cut++) {
		int err;

		source.ss_family = destination.ss_family = 77;
		err = parse(data, cut);
		if (err != (cut < certain ? 0 : -EBADMSG))
			fail_msg("%s: %d at byte %zu", what, err, cut);
		assert_int_equal(source.ss_family, 77);
		assert_int_equal(destination.ss_family, 77);
	}
}

static void lines(void **state)
{
	static const struct {
		const char *text, *from, *to;
	} cases[] = {
		{ "PROXY TCP4 192.0.2.1 198.51.100.2 56324 443\r\n", "192.0.2.1:56324",
		  "198.51.100.2:443" },
		{ "PROXY TCP4 255.255.255.255 255.255.255.255 65535 65535\r\n",
		  "255.255.255.255:65535", "255.255.255.255:65535" },
		{ "PROXY TCP4 0.0.0.0 0.0.0.0 0 0\r\n", "0.0.0.0:0", "0.0.0.0:0" },
		{ "PROXY TCP6 2001:db8::1 2001:DB8::2 1 10\r\n", "[2001:db8::1]:1",
		  "[2001:db8::2]:10" },
		{ "PROXY TCP6 ffff:ffff:ffff:ffff:ffff:ffff:ffff:ffff "
		  "ffff:ffff:ffff:ffff:ffff:ffff:ffff:ffff 65535 65535\r\n",
		  "[ffff:ffff:ffff:ffff:ffff:ffff:ffff:ffff]:65535",
		  "[ffff:ffff:ffff:ffff:ffff:ffff:ffff:ffff]:65535" },
		{ "PROXY TCP6 ::ffff:192.0.2.1 :: 5 6\r\n", "[::ffff:192.0.2.1]:5", "[::]:6" },
		{ "PROXY UNKNOWN\r\n", "-", "-" },
		{ "PROXY UNKNOWN \r\n", "-", "-" },
		{ "PROXY UNKNOWN 192.0.2.1 198.51.100.2 1 2\r\n", "-", "-" },
		{ "PROXY UNKNOWN \x01\xff what ever it is\r\n", "-", "-" },
		{ "PROXY UNKNOWN ffff:ffff:ffff:ffff:ffff:ffff:ffff:ffff "
		  "ffff:ffff:ffff:ffff:ffff:ffff:ffff:ffff 65535 65535\r\n",
		  "-", "-" },
	};

	(void)state;
	assert_int_equal(strlen(cases[10].text), 107);
	for (size_t i = 0; i < sizeof(cases) / sizeof(*cases); i++)
		expect_header(cases[i].text, strlen(cases[i].text), cases[i].from, cases[i].to,
			      cases[i].text);
	expect_header(TEXT("PROXY UNKNOWN \0\0\r\n"), "-", "-", "NUL in what means nothing");
}

static void bad_lines(void **state)
{
	static const struct {
		const char *text;
		size_t certain; /* 0: with the CR */
	} cases[] = {
		{ "GET / HTTP/1.1\r\n", 1 },
		{ "POST / HTTP/1.1\r\n", 2 },
		{ "PROXZ", 5 },
		{ "proxy TCP4 1.2.3.4 1.2.3.4 1 2\r\n", 1 },
		{ "PROXY\r\n", 6 },
		{ "PROXY  TCP4 1.2.3.4 1.2.3.4 1 2\r\n", 7 },
		{ "PROXY \r\n", 7 },
		{ "PROXY tcp4 1.2.3.4 1.2.3.4 1 2\r\n", 7 },
		{ "PROXY TCP5 1.2.3.4 1.2.3.4 1 2\r\n", 10 },
		{ "PROXY UDP4 1.2.3.4 1.2.3.4 1 2\r\n", 8 },
		{ "PROXY UNKNOW\r\n", 13 },
		{ "PROXY TCP4\r\n", 11 },
		{ "PROXY TCP4\t1.2.3.4 1.2.3.4 1 2\r\n", 11 },
		{ "PROXY TCP4 \r\n", 0 },
		{ "PROXY TCP4 1.2.3.4\r\n", 0 },
		{ "PROXY TCP4 1.2.3.4 1.2.3.4\r\n", 0 },
		{ "PROXY TCP4 1.2.3.4 1.2.3.4 1\r\n", 0 },
		{ "PROXY TCP4 1.2.3.4 1.2.3.4 1 \r\n", 0 },
		{ "PROXY TCP4 1.2.3.4 1.2.3.4 1 2 \r\n", 0 },
		{ "PROXY TCP4 1.2.3.4 1.2.3.4 1 2 3\r\n", 0 },
		{ "PROXY TCP4  1.2.3.4 1.2.3.4 1 2\r\n", 0 },
		{ "PROXY TCP4 1.2.3.4  1.2.3.4 1 2\r\n", 0 },
		{ "PROXY TCP4 1.2.3.4 1.2.3.4  1 2\r\n", 0 },
		{ "PROXY TCP4 1.2.3.4 1.2.3.4 1  2\r\n", 0 },
		{ "PROXY TCP4 1.2.3.4 1.2.3.4 65536 2\r\n", 0 },
		{ "PROXY TCP4 1.2.3.4 1.2.3.4 1 65536\r\n", 0 },
		{ "PROXY TCP4 1.2.3.4 1.2.3.4 1 99999999999999999999999\r\n", 0 },
		{ "PROXY TCP4 1.2.3.4 1.2.3.4 01 2\r\n", 0 },
		{ "PROXY TCP4 1.2.3.4 1.2.3.4 1 02\r\n", 0 },
		{ "PROXY TCP4 1.2.3.4 1.2.3.4 00 2\r\n", 0 },
		{ "PROXY TCP4 1.2.3.4 1.2.3.4 +1 2\r\n", 28 },
		{ "PROXY TCP4 1.2.3.4 1.2.3.4 -1 2\r\n", 28 },
		{ "PROXY TCP4 1.2.3.4 1.2.3.4 0x1 2\r\n", 29 },
		{ "PROXY TCP4 1.2.3.4 1.2.3.4 1.0 2\r\n", 0 },
		{ "PROXY TCP4 1.2.3 1.2.3.4 1 2\r\n", 0 },
		{ "PROXY TCP4 1.2.3.4.5 1.2.3.4 1 2\r\n", 0 },
		{ "PROXY TCP4 1.2.3.256 1.2.3.4 1 2\r\n", 0 },
		{ "PROXY TCP4 1.2.3.04 1.2.3.4 1 2\r\n", 0 },
		{ "PROXY TCP4 1.2.3.4 16909060 1 2\r\n", 0 },
		{ "PROXY TCP4 ::1 1.2.3.4 1 2\r\n", 12 },
		{ "PROXY TCP4 a.example 1.2.3.4 1 2\r\n", 12 },
		{ "PROXY TCP6 1.2.3.4 ::1 1 2\r\n", 0 },
		{ "PROXY TCP6 ::1 1.2.3.4 1 2\r\n", 0 },
		{ "PROXY TCP6 ::1::1 ::1 1 2\r\n", 0 },
		{ "PROXY TCP6 12345::1 ::1 1 2\r\n", 0 },
		{ "PROXY TCP6 [::1] ::1 1 2\r\n", 12 },
		{ "PROXY TCP6 fe80::1%lo ::1 1 2\r\n", 19 },
		{ "PROXY TCP6 ::1 ::1 a 2\r\n", 0 },
		{ "PROXY TCP6 0000:0000:0000:0000:0000:0000:0000:0000:0000:0001 ::1 1 2\r\n", 0 },
		/* the end of the line */
		{ "PROXY TCP4 1.2.3.4 1.2.3.4 1 2\n", 31 },
		{ "PROXY TCP4 1.2.3.4 1.2.3.4 1 2\rx", 32 },
		{ "PROXY TCP4 1.2.3.4 1.2.3.4 1 2\r\r\n", 32 },
		{ "PROXY UNKNOWN\n", 14 },
		{ "PROXY UNKNOWN\rx\r\n", 15 },
		{ "PROXY UNKNOWN x\ny\r\n", 16 },
	};

	(void)state;
	for (size_t i = 0; i < sizeof(cases) / sizeof(*cases); i++) {
		const char *text = cases[i].text;
		size_t certain = cases[i].certain ? cases[i].certain : strcspn(text, "\r") + 1;

		expect_refusal(text, strlen(text), certain, text);
	}
	expect_refusal(TEXT("PROXY TCP4 1.2.3.4\0 1.2.3.4 1 2\r\n"), 19, "NUL");
	expect_refusal(TEXT("PROXY\0TCP4 1.2.3.4 1.2.3.4 1 2\r\n"), 6, "NUL for a space");
}

static void long_lines(void **state)
{
	char text[200];

	(void)state;
	memset(text, 'x', sizeof(text));
	memcpy(text, "PROXY UNKNOWN ", 14);
	/* with 106 characters before its CR, the line is too long whatever comes */
	expect_refusal(text, sizeof(text), 106, "no end");
	memcpy(text + 105, "\r\n", 2);
	expect_header(text, 107, "-", "-", "107 bytes");
	memcpy(text + 105, "x\r\n", 3);
	expect_refusal(text, 108, 106, "108 bytes");
}

static size_t make_v2(char *out, unsigned int command, unsigned int family, size_t len)
{
	memcpy(out, TEXT(SIGNATURE));
	out[12] = (char)command;
	out[13] = (char)family;
	out[14] = (char)(len >> 8);
	out[15] = (char)len;
	for (size_t i = 0; i < len; i++)
		out[16 + i] = (char)(i + 1);
	return 16 + len;
}

static void binary(void **state)
{
#define V4 "1.2.3.4:2314", "5.6.7.8:2828"
#define V6                                                                                         \
	"[102:304:506:708:90a:b0c:d0e:f10]:8482", "[1112:1314:1516:1718:191a:1b1c:1d1e:1f20]:8996"
	static const struct {
		unsigned int command, family;
		size_t len;
		const char *from, *to;
	} cases[] = {
		{ 0x21, 0x11, 12, V4 },
		{ 0x21, 0x11, 13, V4 }, /* a TLV that is none: nobody looks */
		{ 0x21, 0x11, 300, V4 },
		{ 0x21, 0x21, 36, V6 },
		{ 0x21, 0x21, 37, V6 },
		{ 0x21, 0x00, 0, "-", "-" },
		{ 0x21, 0x00, 20, "-", "-" },
		{ 0x21, 0x12, 12, "-", "-" },
		{ 0x21, 0x22, 36, "-", "-" },
		{ 0x21, 0x31, 216, "-", "-" },
		{ 0x21, 0x32, 217, "-", "-" },
		{ 0x21, 0x10, 12, "-", "-" },
		{ 0x21, 0x01, 12, "-", "-" },
		{ 0x20, 0x00, 0, "-", "-" },
		{ 0x20, 0x00, 5, "-", "-" },
		{ 0x20, 0x11, 12, "-", "-" },
		{ 0x20, 0x11, 0, "-", "-" }, /* not even the family counts */
		{ 0x20, 0xff, 3, "-", "-" },
	};
#undef V4
#undef V6
	char data[400];

	(void)state;
	for (size_t i = 0; i < sizeof(cases) / sizeof(*cases); i++) {
		size_t len = make_v2(data, cases[i].command, cases[i].family, cases[i].len);
		char what[60];

		snprintf(what, sizeof(what), "%02x %02x, length %zu", cases[i].command,
			 cases[i].family, cases[i].len);
		expect_header(data, len, cases[i].from, cases[i].to, what);
	}
}

static void bad_binary(void **state)
{
	static const struct {
		unsigned int command, family;
		size_t len, certain;
	} cases[] = {
		{ 0x22, 0x11, 12, 13 },	 { 0x2f, 0x11, 12, 13 }, { 0x11, 0x11, 12, 13 },
		{ 0x31, 0x11, 12, 13 },	 { 0x01, 0x11, 12, 13 }, { 0xff, 0x11, 12, 13 },
		{ 0x21, 0x41, 12, 14 },	 { 0x21, 0xf1, 12, 14 }, { 0x21, 0x13, 12, 14 },
		{ 0x21, 0x2f, 36, 14 },	 { 0x21, 0x11, 11, 16 }, { 0x21, 0x11, 0, 16 },
		{ 0x21, 0x12, 11, 16 },	 { 0x21, 0x21, 35, 16 }, { 0x21, 0x21, 12, 16 },
		{ 0x21, 0x31, 215, 16 },
	};
	char data[400];

	(void)state;
	for (size_t i = 0; i < sizeof(cases) / sizeof(*cases); i++) {
		size_t len = make_v2(data, cases[i].command, cases[i].family, cases[i].len);
		char what[60];

		snprintf(what, sizeof(what), "%02x %02x, length %zu", cases[i].command,
			 cases[i].family, cases[i].len);
		expect_refusal(data, len, cases[i].certain, what);
	}
	for (size_t i = 0; i < 12; i++) {
		size_t len = make_v2(data, 0x21, 0x11, 12);

		data[i] ^= 0x20;
		expect_refusal(data, len, i + 1, "another signature");
	}
}

static void largest_binary(void **state)
{
	static char data[PROXYPROTO_MAX + 16];
	size_t len = make_v2(data, 0x21, 0x11, PROXYPROTO_MAX - 16);

	(void)state;
	assert_int_equal(parse(data, len - 1), 0);
	assert_int_equal(parse(data, len), PROXYPROTO_MAX);
	make_v2(data, 0x21, 0x11, PROXYPROTO_MAX - 15);
	expect_refusal(data, 20, 16, "a byte too large");
	make_v2(data, 0x20, 0, 65535);
	expect_refusal(data, 20, 16, "LOCAL, too large");
}

static void written(const char *from, const char *to, uint16_t port, size_t len)
{
	struct sockaddr_storage a, b;
	uint8_t out[PROXYPROTO_OUT_MAX];

	assert_int_equal(address_parse(from, port, &a), 0);
	assert_int_equal(address_parse(to, 443, &b), 0);
	assert_int_equal(proxyproto_write(&a, &b, out), len);
	assert_int_equal(parse((const char *)out, len), len);
	if (len == 16) {
		assert_int_equal(source.ss_family, AF_UNSPEC);
		assert_int_equal(destination.ss_family, AF_UNSPEC);
		return;
	}
	assert_true(address_equal(&source, &a));
	assert_true(address_equal(&destination, &b));
}

static void writing(void **state)
{
	static const uint8_t v4[] = SIGNATURE "\x21\x11\0\x0c\xc0\0\2\1\xc6\x33\x64\2\xdc\4\1\xbb";
	static const uint8_t local[] = SIGNATURE "\x20\0\0";
	struct sockaddr_storage a, b, none = { .ss_family = AF_UNSPEC };
	uint8_t out[PROXYPROTO_OUT_MAX];

	(void)state;
	written("192.0.2.1", "198.51.100.2", 56324, 28);
	written("2001:db8::1", "2001:db8::2", 65535, 52);
	written("::ffff:192.0.2.1", "::1", 1, 52);
	written("192.0.2.1", "::1", 1, 16);
	written("::1", "192.0.2.1", 1, 16);
	assert_int_equal(address_parse("192.0.2.1", 56324, &a), 0);
	assert_int_equal(address_parse("198.51.100.2", 443, &b), 0);
	proxyproto_write(&a, &b, out);
	assert_memory_equal(out, v4, sizeof(v4) - 1);
	assert_int_equal(proxyproto_write(&none, &none, out), 16);
	assert_memory_equal(out, local, sizeof(local));
}

int main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test(lines),      cmocka_unit_test(bad_lines),
		cmocka_unit_test(long_lines), cmocka_unit_test(binary),
		cmocka_unit_test(bad_binary), cmocka_unit_test(largest_binary),
		cmocka_unit_test(writing),
	};

	return cmocka_run_group_tests_name("proxyproto", tests, NULL, NULL);
}
