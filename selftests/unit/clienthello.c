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

#include "clienthello.h"

#define LABEL63 "aaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaa"
#define NAME253                                                                                    \
	LABEL63 "." LABEL63 "." LABEL63 "."                                                        \
		"bbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbb"
_Static_assert(sizeof(NAME253) - 1 == HOSTNAME_MAX, "the longest name");

struct bytes {
	uint8_t data[7 * CLIENTHELLO_MAX];
	size_t len;
};

static void put(struct bytes *out, const void *data, size_t len)
{
	assert_true(out->len + len <= sizeof(out->data));
	memcpy(out->data + out->len, data, len);
	out->len += len;
}

static void put_number(struct bytes *out, size_t width, size_t value)
{
	while (width--)
		put(out, &(uint8_t){ (uint8_t)(value >> 8 * width) }, 1);
}

/* Room for a length, filled in by end(). */
static size_t begin(struct bytes *out, size_t width)
{
	put_number(out, width, 0);
	return out->len;
}

static void end(struct bytes *out, size_t width, size_t begun)
{
	size_t len = out->len;

	out->len = begun - width;
	put_number(out, width, len - begun);
	out->len = len;
}

static void put_filling(struct bytes *out, size_t len)
{
	for (size_t i = 0; i < len; i++)
		put_number(out, 1, i * 7);
}

static void put_extension(struct bytes *out, unsigned int type, size_t len)
{
	put_number(out, 2, type);
	put_number(out, 2, len);
	put_filling(out, len);
}

/* A server_name extension with what stands in its list. */
static void put_server_name(struct bytes *out, const void *list, size_t len)
{
	put_number(out, 2, 0);
	put_number(out, 2, len + 2);
	put_number(out, 2, len);
	put(out, list, len);
}

static void put_name(struct bytes *list, unsigned int type, const char *name)
{
	put_number(list, 1, type);
	put_number(list, 2, strlen(name));
	put(list, name, strlen(name));
}

/* The message, without records: everything before the extensions. Returns where it began. */
static size_t begin_hello(struct bytes *out)
{
	size_t message;

	out->len = 0;
	put_number(out, 1, 1);
	message = begin(out, 3);
	put_number(out, 2, 0x0303);
	put_filling(out, 32);
	put_number(out, 1, 32);
	put_filling(out, 32);
	put_number(out, 2, 6);
	put_filling(out, 6);
	put_number(out, 2, 0x0100);
	return message;
}

/* A hello for a name, with `before` bytes of other extensions in front of it, `after` behind. */
static void make_hello(struct bytes *out, const char *name, size_t before, size_t after)
{
	static struct bytes list;
	size_t message = begin_hello(out), extensions = begin(out, 2);

	if (before)
		put_extension(out, 51, before);
	if (name) {
		list.len = 0;
		put_name(&list, 0, name);
		put_server_name(out, list.data, list.len);
	}
	put_extension(out, 0x0a0a, 0);
	if (after)
		put_extension(out, 21, after);
	end(out, 2, extensions);
	end(out, 3, message);
}

/* The same bytes in records of `size`. */
static void put_records(struct bytes *out, const struct bytes *message, size_t size)
{
	out->len = 0;
	for (size_t at = 0; at < message->len; at += size) {
		size_t len = message->len - at < size ? message->len - at : size;

		put_number(out, 3, 0x160301);
		put_number(out, 2, len);
		put(out, message->data + at, len);
	}
}

/* From memory of just that size, so that the sanitizer sees a byte too far. */
static int parse(const uint8_t *data, size_t len, char *name)
{
	char *copy = malloc(len ? len : 1);
	int err;

	memcpy(copy, data, len);
	err = clienthello_parse(copy, len, name);
	free(copy);
	return err;
}

/*
 * Every prefix, in steps: 0 up to some length, `expected` from there on. What is wrong may be found
 * anywhere; what is right only with its last byte.
 */
static void expect_at_every_cut(const struct bytes *wire, size_t step, int expected,
				const char *name, const char *what)
{
	char out[HOSTNAME_MAX + 1];
	int last = 0;

	for (size_t cut = 0; cut <= wire->len;
	     cut = cut < wire->len && wire->len - cut < step ? wire->len : cut + step) {
		int err = parse(wire->data, cut, out);

		if (err != 0 && err != expected)
			fail_msg("%s: %d at byte %zu", what, err, cut);
		if (last && !err)
			fail_msg("%s: no verdict any more at byte %zu", what, cut);
		if (err == 1 && cut < wire->len)
			fail_msg("%s: complete at byte %zu of %zu", what, cut, wire->len);
		last = err;
	}
	if (last != expected)
		fail_msg("%s: %d", what, last);
	if (expected == 1 && strcmp(out, name))
		fail_msg("%s: '%s'", what, out);
}

/* Cut everywhere, in records of several sizes, and with bytes behind it that must not matter. */
static void expect(const struct bytes *message, int expected, const char *name, const char *what)
{
	static const size_t sizes[] = { 1, 2, 3, 7, 64, 1000, 16384 };
	static struct bytes wire;
	char out[HOSTNAME_MAX + 1] = "unset";

	for (size_t i = 0; i < sizeof(sizes) / sizeof(*sizes); i++) {
		put_records(&wire, message, sizes[i]);
		if (wire.len > CLIENTHELLO_MAX)
			continue;
		expect_at_every_cut(&wire, wire.len > 4096 ? wire.len / 400 : 1, expected, name,
				    what);
		put_filling(&wire, 1000);
		if (parse(wire.data, wire.len, out) != expected)
			fail_msg("%s: another verdict with bytes behind it", what);
		if (expected == 1 && strcmp(out, name))
			fail_msg("%s: '%s'", what, out);
	}
}

static void names(void **state)
{
	static const char *const cases[][2] = {
		{ "a.example", "a.example" },
		{ "A.Example.COM", "a.example.com" },
		{ "a.example.", "a.example" },
		{ "a", "a" },
		{ "127.0.0.1", "127.0.0.1" },
		{ "xn--bcher-kva.example", "xn--bcher-kva.example" },
		{ NAME253, NAME253 },
		{ NAME253 ".", NAME253 },
		/* no host names, and so nobody's */
		{ NAME253 "b", "" },
		{ NAME253 "..", "" },
		{ ".", "" },
		{ "a..example", "" },
		{ "*.example", "" },
		{ "*", "" },
		{ "a.example:443", "" },
		{ "[::1]", "" },
		{ "::1", "" },
		{ "a b", "" },
		{ "a.example\n", "" },
		{ "-a.example", "" },
		{ "b\xc3\xbc"
		  "cher.example",
		  "" },
	};
	static struct bytes message;

	(void)state;
	for (size_t i = 0; i < sizeof(cases) / sizeof(*cases); i++) {
		make_hello(&message, cases[i][0], 3, 5);
		expect(&message, 1, cases[i][1], cases[i][0]);
	}
	make_hello(&message, NULL, 3, 5);
	expect(&message, 1, "", "no server_name");
}

static void name_with_nul(void **state)
{
	static const char list[] = "\0\0\x0b"
				   "a\0a.example";
	static struct bytes message;
	size_t begun = begin_hello(&message), extensions = begin(&message, 2);

	(void)state;
	put_server_name(&message, list, sizeof(list) - 1);
	end(&message, 2, extensions);
	end(&message, 3, begun);
	expect(&message, 1, "", "a NUL in the name");
}

static void no_extensions(void **state)
{
	static struct bytes message;
	size_t begun = begin_hello(&message);

	(void)state;
	end(&message, 3, begun);
	expect(&message, 1, "", "no extensions");
	begun = begin_hello(&message);
	put_number(&message, 2, 0);
	end(&message, 3, begun);
	expect(&message, 1, "", "an empty block of extensions");
}

/* What stands in place of everything behind the compression methods. */
static void extension_blocks(void **state)
{
#define BLOCK(text) text, sizeof(text) - 1
	static const struct {
		const char *block;
		size_t len;
		int expected;
		const char *name;
	} cases[] = {
		{ BLOCK("\0\x0a\0\0\0\6\0\4\0\0\1a"), 1, "a" },
		{ BLOCK("\0"), -EBADMSG, NULL },
		{ BLOCK("\0\1\0"), -EBADMSG, NULL },
		{ BLOCK("\0\1"), -EBADMSG, NULL },
		{ BLOCK("\0\0\0"), -EBADMSG, NULL },
		{ BLOCK("\0\3\0\x17\0"), -EBADMSG, NULL },
		{ BLOCK("\0\4\0\x17\0\1"), -EBADMSG, NULL },
		{ BLOCK("\0\4\0\x17\0\0"), 1, "" },
		{ BLOCK("\0\5\0\x17\0\0x"), -EBADMSG, NULL },
		/* server_name: no content, an empty list, lengths one too small and too large */
		{ BLOCK("\0\4\0\0\0\0"), -EBADMSG, NULL },
		{ BLOCK("\0\5\0\0\0\1\0"), -EBADMSG, NULL },
		{ BLOCK("\0\6\0\0\0\2\0\0"), -EBADMSG, NULL },
		{ BLOCK("\0\x0a\0\0\0\6\0\3\0\0\1a"), -EBADMSG, NULL },
		{ BLOCK("\0\x0a\0\0\0\6\0\5\0\0\1a"), -EBADMSG, NULL },
		{ BLOCK("\0\x0a\0\0\0\6\0\4\0\0\2a"), -EBADMSG, NULL },
		{ BLOCK("\0\x0a\0\0\0\6\0\4\0\0\0a"), -EBADMSG, NULL },
		{ BLOCK("\0\x0a\0\0\0\7\0\4\0\0\1a"), -EBADMSG, NULL },
		{ BLOCK("\0\x0b\0\0\0\7\0\4\0\0\1ax"), -EBADMSG, NULL },
		{ BLOCK("\0\x0b\0\0\0\7\0\5\0\0\1ax"), -EBADMSG, NULL },
		{ BLOCK("\0\x0d\0\0\0\x09\0\7\0\0\1axyz"), -EBADMSG, NULL },
		{ BLOCK("\0\x09\0\0\0\5\0\3\0\0\0"), -EBADMSG, NULL },
		/* two names, in one list and in two extensions; the same one too */
		{ BLOCK("\0\x0e\0\0\0\x0a\0\x08\0\0\1a\0\0\1b"), -EBADMSG, NULL },
		{ BLOCK("\0\x0e\0\0\0\x0a\0\x08\0\0\1a\0\0\1a"), -EBADMSG, NULL },
		{ BLOCK("\0\x14\0\0\0\6\0\4\0\0\1a\0\0\0\6\0\4\0\0\1a"), -EBADMSG, NULL },
		{ BLOCK("\0\x14\0\0\0\6\0\4\0\0\1a\0\0\0\6\0\4\0\0\1b"), -EBADMSG, NULL },
		/* another type of name, before, after, alone, empty, twice */
		{ BLOCK("\0\x0f\0\0\0\x0b\0\x09\1\0\2\xff\0\0\0\1a"), 1, "a" },
		{ BLOCK("\0\x0f\0\0\0\x0b\0\x09\0\0\1a\xff\0\2xx"), 1, "a" },
		{ BLOCK("\0\x0a\0\0\0\6\0\4\1\0\1a"), 1, "" },
		{ BLOCK("\0\x0d\0\0\0\x09\0\7\1\0\0\0\0\1a"), 1, "a" },
		{ BLOCK("\0\x12\0\0\0\x0e\0\x0c\1\0\1x\1\0\1x\0\0\1a"), -EBADMSG, NULL },
	};
#undef BLOCK
	static struct bytes message;

	(void)state;
	for (size_t i = 0; i < sizeof(cases) / sizeof(*cases); i++) {
		size_t begun = begin_hello(&message);
		char what[40];

		snprintf(what, sizeof(what), "extension block %zu", i);
		put(&message, cases[i].block, cases[i].len);
		end(&message, 3, begun);
		expect(&message, cases[i].expected, cases[i].name, what);
	}
}

/* What stands behind the random bytes. */
static void fields_before_extensions(void **state)
{
#define FIELDS(text) text, sizeof(text) - 1
	static const struct {
		const char *fields;
		size_t len;
		int expected;
	} cases[] = {
		{ FIELDS("\0\0\2ab\1\0"), 1 },
		{ FIELDS("\1x\0\2ab\1\0"), 1 },
		{ FIELDS("\0\0\4abcd\2\0\1"), 1 },
		{ FIELDS(""), -EBADMSG },
		{ FIELDS("\0"), -EBADMSG },
		{ FIELDS("\0\0"), -EBADMSG },
		{ FIELDS("\0\0\2ab"), -EBADMSG },
		{ FIELDS("\0\0\2ab\1"), -EBADMSG },
		{ FIELDS("\0\0\0\1\0"), -EBADMSG },
		{ FIELDS("\0\0\1a\1\0"), -EBADMSG },
		{ FIELDS("\0\0\3abc\1\0"), -EBADMSG },
		{ FIELDS("\0\0\2ab\0"), -EBADMSG },
		{ FIELDS("\0\0\2ab\2\0"), -EBADMSG },
		{ FIELDS("\0\0\2ab\1\0x"), -EBADMSG },
		{ FIELDS("\0\xff\xff"
			 "ab\1\0"),
		  -EBADMSG },
		{ FIELDS("\x21"
			 "0123456789abcdef0123456789abcdefx\0\2ab\1\0"),
		  -EBADMSG },
		{ FIELDS("\x20"
			 "0123456789abcdef0123456789abcdef\0\2ab\1\0"),
		  1 },
	};
#undef FIELDS
	static struct bytes message;

	(void)state;
	for (size_t i = 0; i < sizeof(cases) / sizeof(*cases); i++) {
		size_t begun;
		char what[40];

		snprintf(what, sizeof(what), "fields %zu", i);
		message.len = 0;
		put_number(&message, 1, 1);
		begun = begin(&message, 3);
		put_filling(&message, 34);
		put(&message, cases[i].fields, cases[i].len);
		end(&message, 3, begun);
		expect(&message, cases[i].expected, "", what);
	}
	message.len = 0;
	put_number(&message, 4, 0x01000000);
	expect(&message, -EBADMSG, NULL, "an empty hello");
	message.len = 0;
	put_number(&message, 4, 0x01000021);
	put_filling(&message, 33);
	expect(&message, -EBADMSG, NULL, "a random that is too short");
}

static void large_hellos(void **state)
{
	static struct bytes message;

	(void)state;
	make_hello(&message, "pq.example", 1216, 300); /* X25519MLKEM768 */
	expect(&message, 1, "pq.example", "a key share after quantum");
	make_hello(&message, "big.example", 60000, 0);
	expect(&message, 1, "big.example", "60000 bytes before the name");
	make_hello(&message, "big.example", 0, 60000);
	expect(&message, 1, "big.example", "60000 bytes after the name");
}

/* As large as it may be with its headers: taken; a byte more: refused as soon as the length says. */
static void the_limit(void **state)
{
	static struct bytes message, wire;
	char name[HOSTNAME_MAX + 1] = "";
	size_t base;

	(void)state;
	make_hello(&message, "a.example", 0, 1);
	base = message.len - 1;
	make_hello(&message, "a.example", 0, CLIENTHELLO_MAX - 4 * 5 - base);
	put_records(&wire, &message, 16384);
	assert_int_equal(wire.len, CLIENTHELLO_MAX);
	assert_int_equal(parse(wire.data, wire.len - 1, name), 0);
	assert_int_equal(parse(wire.data, wire.len, name), 1);
	assert_string_equal(name, "a.example");
	put_filling(&wire, 1000);
	assert_int_equal(parse(wire.data, wire.len, name), 1);
	/* the same in smaller records is too large, whatever is there of it */
	put_records(&wire, &message, 16000);
	assert_int_equal(parse(wire.data, CLIENTHELLO_MAX - 1, name), 0);
	assert_int_equal(parse(wire.data, CLIENTHELLO_MAX, name), -EBADMSG);
	assert_int_equal(parse(wire.data, wire.len, name), -EBADMSG);
	put_records(&wire, &message, 1);
	assert_int_equal(parse(wire.data, CLIENTHELLO_MAX, name), -EBADMSG);
	make_hello(&message, "a.example", 0, CLIENTHELLO_MAX - 4 * 5 - base + 1);
	put_records(&wire, &message, 16384);
	assert_int_equal(parse(wire.data, 8, name), 0);
	assert_int_equal(parse(wire.data, 9, name), -EBADMSG);
	assert_int_equal(parse((const uint8_t *)"\x16\3\1\0\4\1\1", 7, name), -EBADMSG);
}

/* What is refused, and after how many bytes. */
static void refused_at_once(void **state)
{
#define WIRE(text) text, sizeof(text) - 1
	static const struct {
		const char *wire;
		size_t len, certain;
	} cases[] = {
		{ WIRE("GET / HTTP/1.1\r\n\r\n"), 1 },
		{ WIRE("\0"), 1 },
		{ WIRE("\x15\3\1\0\2\1\0"), 1 },
		{ WIRE("\x17\3\3\0\1x"), 1 },
		{ WIRE("\x80\x2e\1\0\2\0\x15\0\0\0\x10"), 1 }, /* SSL 2.0 */
		{ WIRE("\x16\2\1\0\5"), 2 },
		{ WIRE("\x16\4\1\0\5"), 2 },
		{ WIRE("\x16\xfe\xff\0\5"), 2 }, /* DTLS */
		{ WIRE("\x16\3\5\0\5"), 3 },
		{ WIRE("\x16\3\1\x41\0"), 4 },
		{ WIRE("\x16\3\1\x40\1"), 5 },
		{ WIRE("\x16\3\1\0\0"), 5 },
		{ WIRE("\x16\3\1\0\1\2"), 6 },
		{ WIRE("\x16\3\1\0\1\0"), 6 },
		{ WIRE("\x16\3\1\0\x64\1\1"), 7 },
		{ WIRE("\x16\3\1\0\4\1\0\xff\xff"), 9 },
		/* a second record that is wrong: other type, empty, too large */
		{ WIRE("\x16\3\1\0\1\1\x17\3\3\0\1x"), 7 },
		{ WIRE("\x16\3\1\0\1\1\x15\3\1\0\2\2\0"), 7 },
		{ WIRE("\x16\3\1\0\1\1\x14\3\1\0\1\1"), 7 },
		{ WIRE("\x16\3\1\0\1\1\x16\3\1\0\0"), 11 },
		{ WIRE("\x16\3\1\0\1\1\x16\3\1\x40\1"), 11 },
		{ WIRE("\x16\3\1\0\1\1\x16\3\1\0\1\1"), 12 },
	};
#undef WIRE
	static struct bytes wire;

	(void)state;
	for (size_t i = 0; i < sizeof(cases) / sizeof(*cases); i++) {
		char name[HOSTNAME_MAX + 1] = "kept", what[40];

		snprintf(what, sizeof(what), "bad beginning %zu", i);
		wire.len = 0;
		put(&wire, cases[i].wire, cases[i].len);
		if (parse(wire.data, cases[i].certain - 1, name))
			fail_msg("%s: refused early", what);
		if (parse(wire.data, cases[i].certain, name) != -EBADMSG)
			fail_msg("%s: not refused at byte %zu", what, cases[i].certain);
		assert_string_equal(name, "kept");
		expect_at_every_cut(&wire, 1, -EBADMSG, NULL, what);
	}
}

static void record_versions(void **state)
{
	static struct bytes message, wire;
	char name[HOSTNAME_MAX + 1];

	(void)state;
	make_hello(&message, "a.example", 0, 0);
	put_records(&wire, &message, 16384);
	for (uint8_t minor = 0; minor < 8; minor++) {
		wire.data[2] = minor;
		assert_int_equal(parse(wire.data, wire.len, name), minor <= 4 ? 1 : -EBADMSG);
	}
}

/* A second message in the same record, and records of any kind behind it, are never looked at. */
static void what_follows(void **state)
{
	static struct bytes message, wire;
	char name[HOSTNAME_MAX + 1];
	size_t hello;

	(void)state;
	make_hello(&message, "a.example", 0, 0);
	hello = message.len;
	put_filling(&message, 50);
	put_records(&wire, &message, 16384);
	assert_int_equal(parse(wire.data, 5 + hello - 1, name), 0);
	assert_int_equal(parse(wire.data, 5 + hello, name), 1);
	assert_int_equal(parse(wire.data, wire.len, name), 1);
	put(&wire, "\x17\3\3\xff\xff", 5);
	assert_int_equal(parse(wire.data, wire.len, name), 1);
	assert_string_equal(name, "a.example");
}

/* Whatever byte is changed to whatever: every cut leads to the one verdict. */
static void changed_bytes(void **state)
{
	static const uint8_t values[] = { 0, 1, 0x16, 0x7f, 0xff };
	static struct bytes message, wire;

	(void)state;
	make_hello(&message, "a.example", 4, 3);
	put_records(&wire, &message, 40);
	for (size_t at = 0; at < wire.len; at++) {
		uint8_t before = wire.data[at];

		for (size_t i = 0; i < sizeof(values); i++) {
			char name[HOSTNAME_MAX + 1];
			int verdict, last = 0;

			wire.data[at] = values[i];
			verdict = parse(wire.data, wire.len, name);
			for (size_t cut = 0; cut <= wire.len; cut++) {
				int err = parse(wire.data, cut, name);

				if ((err && err != verdict) || (last && err != last))
					fail_msg("byte %zu = %u: %d at %zu, then %d", at,
						 values[i], err, cut, verdict);
				last = err;
			}
		}
		wire.data[at] = before;
	}
}

static uint8_t from_hex(const char *text)
{
	char two[] = { text[0], text[1], '\0' };

	return (uint8_t)strtoul(two, NULL, 16);
}

/* As clients of today send them: Python 3.11 and openssl s_client, OpenSSL 3.0. */
static void real_hellos(void **state)
{
	static const char *const hellos[] = {
		"1603010200010001fc03033be988a195ead3767d41354d4bcbff5654464e8c6cb52399653d9eb666"
		"230ff72014690d8c53ba968879117ec31ba0c8cd20f170a9ab518bf290cce87f27ee580500241302"
		"13031301c02cc030c02bc02fcca9cca8c024c028c023c027009f009e006b006700ff0100018f0000"
		"0014001200000f4170702e4578616d706c652e636f6d000b000403000102000a00160014001d0017"
		"001e0019001801000101010201030104002300000010000e000c02683208687474702f312e310016"
		"000000170000000d002a0028040305030603080708080809080a080b080408050806040105010601"
		"030303010302040205020602002b00050403040303002d00020101003300260024001d0020f5603f"
		"2764322087b0dd5a4a301b17175f277e3430dc4cf1a8efe494ab790c4c001500cc00000000000000"
		"00000000000000000000000000000000000000000000000000000000000000000000000000000000"
		"00000000000000000000000000000000000000000000000000000000000000000000000000000000"
		"00000000000000000000000000000000000000000000000000000000000000000000000000000000"
		"00000000000000000000000000000000000000000000000000000000000000000000000000000000"
		"00000000000000000000000000000000000000000000000000000000000000000000000000",
		"16030100cf010000cb0303a8eef32f93c0fcc9938c88b51aea76584e8af9edd4e45d29f4e428098a"
		"16a81f000038c02cc030009fcca9cca8ccaac02bc02f009ec024c028006bc023c0270067c00ac014"
		"0039c009c0130033009d009c003d003c0035002f00ff0100006a00000014001200000f6170702e65"
		"78616d706c652e636f6d000b000403000102000a000c000a001d0017001e00190018002300000016"
		"000000170000000d002a0028040305030603080708080809080a080b080408050806040105010601"
		"030303010302040205020602",
	};
	static struct bytes message, wire;

	(void)state;
	for (size_t i = 0; i < sizeof(hellos) / sizeof(*hellos); i++) {
		wire.len = message.len = 0;
		for (const char *p = hellos[i]; *p; p += 2)
			put_number(&wire, 1, from_hex(p));
		expect_at_every_cut(&wire, 1, 1, "app.example.com", "a real hello");
		put(&message, wire.data + 5, wire.len - 5);
		expect(&message, 1, "app.example.com", "a real hello in other records");
	}
}

static void alerts(void **state)
{
	static const uint8_t expected[] = { 0x15, 3, 1, 0, 2, 2, 112 };
	uint8_t out[CLIENTHELLO_ALERT_LEN];

	(void)state;
	clienthello_alert(CLIENTHELLO_UNRECOGNIZED_NAME, out);
	assert_memory_equal(out, expected, sizeof(out));
	clienthello_alert(CLIENTHELLO_INTERNAL_ERROR, out);
	assert_int_equal(out[6], 80);
}

int main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test(names),
		cmocka_unit_test(name_with_nul),
		cmocka_unit_test(no_extensions),
		cmocka_unit_test(extension_blocks),
		cmocka_unit_test(fields_before_extensions),
		cmocka_unit_test(large_hellos),
		cmocka_unit_test(the_limit),
		cmocka_unit_test(refused_at_once),
		cmocka_unit_test(record_versions),
		cmocka_unit_test(what_follows),
		cmocka_unit_test(changed_bytes),
		cmocka_unit_test(real_hellos),
		cmocka_unit_test(alerts),
	};

	return cmocka_run_group_tests_name("clienthello", tests, NULL, NULL);
}
