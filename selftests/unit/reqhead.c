// SPDX-License-Identifier: MIT
/*
 * Request heads and bodies against RFC 9112, RFC 9110 and the table of answers in reqhead.h. Every
 * case is fed whole and cut at every byte; the verdict must be the same.
 */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <cmocka.h>

#include "reqhead.h"

/* A line of the tables below names only what differs from zero. */
#pragma GCC diagnostic ignored "-Wmissing-field-initializers"

#define WHOLE 1 /* the head is accepted, and as long as the bytes are */
#define MORE 0	/* not complete */

struct head_case {
	const char *name, *bytes;
	size_t len; /* 0: as a string */
	int verdict;
	const char *host; /* of an accepted head */
	enum reqhead_body body;
	uint64_t length;
	bool head, upgrade;
};

#define GET "GET / HTTP/1.1\r\n"
#define HOST "Host: a.example\r\n"
#define END "\r\n"
#define BYTES(literal) literal, sizeof(literal) - 1

static const struct head_case head_cases[] = {
	/* accepted */
	{ "plain", GET HOST END, 0, WHOLE, "a.example" },
	{ "HEAD", "HEAD / HTTP/1.1\r\n" HOST END, 0, WHOLE, "a.example", .head = true },
	{ "methods are case-sensitive", "head / HTTP/1.1\r\n" HOST END, 0, WHOLE, "a.example" },
	{ "unknown method", "M-SEARCH /x HTTP/1.1\r\n" HOST END, 0, WHOLE, "a.example" },
	{ "method of odd token characters", "!#$%&'*+-.^_`|~ / HTTP/1.1\r\n" HOST END, 0, WHOLE,
	  "a.example" },
	{ "upper-case name", GET "Host: A.ExAmPlE\r\n" END, 0, WHOLE, "a.example" },
	{ "port", GET "Host: a.example:8080\r\n" END, 0, WHOLE, "a.example" },
	{ "empty port", GET "Host: a.example:\r\n" END, 0, WHOLE, "a.example" },
	{ "trailing dot", GET "Host: a.example.\r\n" END, 0, WHOLE, "a.example" },
	{ "trailing dot and port", GET "Host: A.example.:80\r\n" END, 0, WHOLE, "a.example" },
	{ "underscore", GET "Host: my_app.example\r\n" END, 0, WHOLE, "my_app.example" },
	{ "IPv4", GET "Host: 127.0.0.1:80\r\n" END, 0, WHOLE, "127.0.0.1" },
	{ "IPv6", GET "Host: [::1]\r\n" END, 0, WHOLE, "::1" },
	{ "IPv6, port, long form", GET "Host: [0:0:0:0:0:0:0:1]:80\r\n" END, 0, WHOLE, "::1" },
	{ "no blank behind the colon", GET "Host:a.example\r\n" END, 0, WHOLE, "a.example" },
	{ "tabs and blanks around a value", GET "Host: \t a.example \t\r\n" END, 0, WHOLE,
	  "a.example" },
	{ "field names are case-insensitive", GET "hOsT: a.example\r\n" END, 0, WHOLE,
	  "a.example" },
	{ "Host is not first", GET "Accept: */*\r\n" HOST END, 0, WHOLE, "a.example" },
	{ "empty value", GET HOST "X:\r\n" END, 0, WHOLE, "a.example" },
	{ "obs-text in a value", GET HOST "X: \xc3\xa9\xff\r\n" END, 0, WHOLE, "a.example" },
	{ "tab inside a value", GET HOST "X: a\tb\r\n" END, 0, WHOLE, "a.example" },
	{ "colons in a value", GET HOST "X: a:b::c\r\n" END, 0, WHOLE, "a.example" },
	{ "target with query", "GET /a?b=c&d=%20 HTTP/1.1\r\n" HOST END, 0, WHOLE, "a.example" },
	{ "OPTIONS *", "OPTIONS * HTTP/1.1\r\n" HOST END, 0, WHOLE, "a.example" },
	{ "absolute form", "GET http://a.example/x HTTP/1.1\r\n" HOST END, 0, WHOLE, "a.example" },
	{ "absolute form, no path", "GET http://a.example HTTP/1.1\r\n" HOST END, 0, WHOLE,
	  "a.example" },
	{ "absolute form, query without path", "GET http://a.example?x HTTP/1.1\r\n" HOST END, 0,
	  WHOLE, "a.example" },
	{ "absolute form, upper case and port",
	  "GET HTTP://A.EXAMPLE:80/ HTTP/1.1\r\nHost: a.example.\r\n" END, 0, WHOLE, "a.example" },
	{ "absolute form, HTTP/1.0 without Host", "GET http://a.example/ HTTP/1.0\r\n" END, 0,
	  WHOLE, "a.example" },
	{ "HTTP/1.0 without Host", "GET / HTTP/1.0\r\n" END, 0, WHOLE, "" },
	{ "HTTP/1.0 with Host", "GET / HTTP/1.0\r\n" HOST END, 0, WHOLE, "a.example" },
	{ "HTTP/1.0 keep-alive", "GET / HTTP/1.0\r\n" HOST "Connection: Keep-Alive\r\n" END, 0,
	  WHOLE, "a.example" },
	{ "close", GET HOST "Connection: close\r\n" END, 0, WHOLE, "a.example" },
	{ "close in a list", GET HOST "Connection: x , CLOSE\r\n" END, 0, WHOLE, "a.example" },
	{ "close in the second field", GET HOST "Connection: x\r\nConnection: close\r\n" END, 0,
	  WHOLE, "a.example" },
	{ "closer is not close", GET HOST "Connection: closer\r\n" END, 0, WHOLE, "a.example" },
	{ "upgrade", GET HOST "Upgrade: websocket\r\nConnection: keep-alive, Upgrade\r\n" END, 0,
	  WHOLE, "a.example", .upgrade = true },
	{ "Upgrade that Connection does not name", GET HOST "Upgrade: websocket\r\n" END, 0, WHOLE,
	  "a.example" },
	{ "Connection: upgrade without Upgrade", GET HOST "Connection: upgrade\r\n" END, 0, WHOLE,
	  "a.example" },
	{ "no upgrade in HTTP/1.0",
	  "GET / HTTP/1.0\r\n" HOST "Upgrade: x\r\nConnection: upgrade\r\n" END, 0, WHOLE,
	  "a.example" },
	{ "Content-Length", GET HOST "Content-Length: 5\r\n" END, 0, WHOLE, "a.example",
	  .body = BODY_LENGTH, .length = 5 },
	{ "Content-Length 0", GET HOST "Content-Length: 0\r\n" END, 0, WHOLE, "a.example" },
	{ "Content-Length, blanks around", GET HOST "Content-Length: \t7 \r\n" END, 0, WHOLE,
	  "a.example", .body = BODY_LENGTH, .length = 7 },
	{ "largest Content-Length", GET HOST "Content-Length: 9223372036854775807\r\n" END, 0,
	  WHOLE, "a.example", .body = BODY_LENGTH, .length = INT64_MAX },
	{ "chunked", GET HOST "Transfer-Encoding: chunked\r\n" END, 0, WHOLE, "a.example",
	  .body = BODY_CHUNKED },
	{ "Chunked", GET HOST "transfer-encoding: CHUNKED \r\n" END, 0, WHOLE, "a.example",
	  .body = BODY_CHUNKED },
	/* not complete */
	{ "nothing", "", 0, MORE },
	{ "half a request line", "GET / HT", 0, MORE },
	{ "no empty line", GET HOST, 0, MORE },
	{ "a CR short of the end", GET HOST "\r", 0, MORE },
	/* request line */
	{ "HTTP/0.9", "GET /\r\n" END, 0, -400 },
	{ "no target", "GET HTTP/1.1\r\n" HOST END, 0, -400 },
	{ "empty target", "GET  HTTP/1.1\r\n" HOST END, 0, -400 },
	{ "two blanks before the version", "GET /  HTTP/1.1\r\n" HOST END, 0, -400 },
	{ "two blanks behind the method", "GET  / HTTP/1.1\r\n" HOST END, 0, -400 },
	{ "blank at the end", "GET / HTTP/1.1 \r\n" HOST END, 0, -400 },
	{ "blank at the beginning", " GET / HTTP/1.1\r\n" HOST END, 0, -400 },
	{ "blank in the target", "GET /a b HTTP/1.1\r\n" HOST END, 0, -400 },
	{ "tab instead of a blank", "GET\t/ HTTP/1.1\r\n" HOST END, 0, -400 },
	{ "method is no token", "G(T / HTTP/1.1\r\n" HOST END, 0, -400 },
	{ "control in the target", "GET /\x01 HTTP/1.1\r\n" HOST END, 0, -400 },
	{ "DEL in the target", "GET /\x7f HTTP/1.1\r\n" HOST END, 0, -400 },
	{ "NUL in the target", BYTES("GET /\0 HTTP/1.1\r\n" HOST END), -400 },
	{ "target that begins with a letter", "GET index.html HTTP/1.1\r\n" HOST END, 0, -400 },
	{ "GET *", "GET * HTTP/1.1\r\n" HOST END, 0, -400 },
	{ "version 2.0", "GET / HTTP/2.0\r\n" HOST END, 0, -400 },
	{ "version in lower case", "GET / http/1.1\r\n" HOST END, 0, -400 },
	{ "version too long", "GET / HTTP/1.10\r\n" HOST END, 0, -400 },
	{ "version without digit", "GET / HTTP/1.\r\n" HOST END, 0, -400 },
	{ "HTTP/2 preface", "PRI * HTTP/2.0\r\n\r\n", 0, -400 },
	{ "TLS hello", BYTES("\x16\x03\x01\x02\x00\x01\x00\x01\xfc\x03\x03"), -400 },
	{ "NUL first", BYTES("\0"), -400 },
	{ "an answer", "HTTP/1.1 200 OK\r\n" HOST END, 0, -400 },
	{ "PROXY header", "PROXY TCP4 192.0.2.1 192.0.2.2 1 2\r\n" GET HOST END, 0, -400 },
	{ "CONNECT", "CONNECT a.example:443 HTTP/1.1\r\n" HOST END, 0, -405 },
	{ "CONNECT in HTTP/1.0", "CONNECT a.example:443 HTTP/1.0\r\n" END, 0, -405 },
	/* absolute form */
	{ "absolute form, another host", "GET http://b.example/ HTTP/1.1\r\n" HOST END, 0, -400 },
	{ "absolute form without Host", "GET http://a.example/ HTTP/1.1\r\n" END, 0, -400 },
	{ "absolute form, userinfo",
	  "GET http://a.example@b.example/ HTTP/1.1\r\nHost: b.example\r\n" END, 0, -400 },
	{ "absolute form, empty authority", "GET http:/// HTTP/1.1\r\n" HOST END, 0, -400 },
	{ "absolute form, other scheme", "GET ftp://a.example/ HTTP/1.1\r\n" HOST END, 0, -400 },
	{ "absolute form, bad port", "GET http://a.example:x/ HTTP/1.1\r\n" HOST END, 0, -400 },
	/* Host */
	{ "no Host", GET "Accept: */*\r\n" END, 0, -400 },
	{ "no field at all", GET END, 0, -400 },
	{ "two Hosts", GET HOST "Host: b.example\r\n" END, 0, -400 },
	{ "the same Host twice", GET HOST HOST END, 0, -400 },
	{ "two Hosts in HTTP/1.0", "GET / HTTP/1.0\r\n" HOST HOST END, 0, -400 },
	{ "list in Host", GET "Host: a.example, b.example\r\n" END, 0, -400 },
	{ "blank in Host", GET "Host: a b\r\n" END, 0, -400 },
	{ "userinfo in Host", GET "Host: x@a.example\r\n" END, 0, -400 },
	{ "path in Host", GET "Host: a.example/x\r\n" END, 0, -400 },
	{ "URL in Host", GET "Host: http://a.example\r\n" END, 0, -400 },
	{ "percent in Host", GET "Host: a%2eexample\r\n" END, 0, -400 },
	{ "wildcard in Host", GET "Host: *.example\r\n" END, 0, -400 },
	{ "* in Host", GET "Host: *\r\n" END, 0, -400 },
	{ "obs-text in Host",
	  GET "Host: b\xc3\xbc"
	      "cher.example\r\n" END,
	  0, -400 },
	{ "empty label in Host", GET "Host: a..example\r\n" END, 0, -400 },
	{ "port 0", GET "Host: a.example:0\r\n" END, 0, -400 },
	{ "port 65536", GET "Host: a.example:65536\r\n" END, 0, -400 },
	{ "two ports", GET "Host: a.example:1:2\r\n" END, 0, -400 },
	{ "port with sign", GET "Host: a.example:+80\r\n" END, 0, -400 },
	{ "bracket not closed", GET "Host: [::1\r\n" END, 0, -400 },
	{ "rest behind the bracket", GET "Host: [::1]x\r\n" END, 0, -400 },
	{ "IPv6 zone", GET "Host: [fe80::1%25eth0]\r\n" END, 0, -400 },
	{ "IPv6 without brackets", GET "Host: ::1\r\n" END, 0, -400 },
	/* fields */
	{ "blank before the colon", GET "Host : a.example\r\n" END, 0, -400 },
	{ "tab before the colon", GET HOST "X\t: y\r\n" END, 0, -400 },
	{ "no colon", GET HOST "nonsense\r\n" END, 0, -400 },
	{ "no name", GET HOST ": y\r\n" END, 0, -400 },
	{ "name is no token", GET HOST "X(y): z\r\n" END, 0, -400 },
	{ "obs-text in a name", GET HOST "X\xc3\xa9: z\r\n" END, 0, -400 },
	{ "obs-fold", GET HOST "X: a\r\n b\r\n" END, 0, -400 },
	{ "obs-fold by tab", GET HOST "X: a\r\n\tb\r\n" END, 0, -400 },
	{ "folded before the first field", GET " X: a\r\n" HOST END, 0, -400 },
	{ "blank line that is not empty", GET HOST " \r\n" END, 0, -400 },
	{ "NUL in a value", BYTES(GET HOST "X: a\0b\r\n" END), -400 },
	{ "control in a value", GET HOST "X: a\x0b\r\n" END, 0, -400 },
	{ "DEL in a value", GET HOST "X: a\x7f\r\n" END, 0, -400 },
	{ "bare CR in a value", GET HOST "X: a\rb\r\n" END, 0, -400 },
	{ "CR CR LF", GET HOST "X: a\r\r\n" END, 0, -400 },
	{ "bare CR in the request line", "GET /\r HTTP/1.1\r\n" HOST END, 0, -400 },
	{ "bare LF behind a value", GET HOST "X: a\nY: b\r\n" END, 0, -400 },
	{ "bare LF behind the request line", "GET / HTTP/1.1\n" HOST END, 0, -400 },
	{ "bare LF ends the head", GET HOST "\n", 0, -400 },
	{ "LF throughout", "GET / HTTP/1.1\nHost: a.example\n\n", 0, -400 },
	/* framing */
	{ "length twice", GET HOST "Content-Length: 5\r\nContent-Length: 6\r\n" END, 0, -400 },
	{ "equal length twice", GET HOST "Content-Length: 5\r\nContent-Length: 5\r\n" END, 0,
	  -400 },
	{ "list of lengths", GET HOST "Content-Length: 5, 5\r\n" END, 0, -400 },
	{ "length of one too many", GET HOST "Content-Length: 9223372036854775808\r\n" END, 0,
	  -400 },
	{ "length beyond 64 bits", GET HOST "Content-Length: 18446744073709551617\r\n" END, 0,
	  -400 },
	{ "length with plus", GET HOST "Content-Length: +5\r\n" END, 0, -400 },
	{ "length with minus", GET HOST "Content-Length: -5\r\n" END, 0, -400 },
	{ "hexadecimal length", GET HOST "Content-Length: 0x5\r\n" END, 0, -400 },
	{ "fraction", GET HOST "Content-Length: 5.0\r\n" END, 0, -400 },
	{ "empty length", GET HOST "Content-Length:\r\n" END, 0, -400 },
	{ "blank inside a length", GET HOST "Content-Length: 1 2\r\n" END, 0, -400 },
	{ "length and coding", GET HOST "Content-Length: 5\r\nTransfer-Encoding: chunked\r\n" END,
	  0, -400 },
	{ "coding and length", GET HOST "Transfer-Encoding: chunked\r\nContent-Length: 5\r\n" END,
	  0, -400 },
	{ "length 0 and coding", GET HOST "Content-Length: 0\r\nTransfer-Encoding: chunked\r\n" END,
	  0, -400 },
	{ "gzip", GET HOST "Transfer-Encoding: gzip\r\n" END, 0, -501 },
	{ "gzip, chunked", GET HOST "Transfer-Encoding: gzip, chunked\r\n" END, 0, -501 },
	{ "chunked twice", GET HOST "Transfer-Encoding: chunked, chunked\r\n" END, 0, -501 },
	{ "two codings",
	  GET HOST "Transfer-Encoding: chunked\r\nTransfer-Encoding: chunked\r\n" END, 0, -501 },
	{ "identity", GET HOST "Transfer-Encoding: identity\r\n" END, 0, -501 },
	{ "coding that looks alike", GET HOST "Transfer-Encoding: xchunked\r\n" END, 0, -501 },
	{ "quoted coding", GET HOST "Transfer-Encoding: \"chunked\"\r\n" END, 0, -501 },
	{ "coding with parameter", GET HOST "Transfer-Encoding: chunked;q=1\r\n" END, 0, -501 },
	{ "empty coding", GET HOST "Transfer-Encoding:\r\n" END, 0, -501 },
	{ "control in front of chunked",
	  GET HOST "Transfer-Encoding: \x0b"
		   "chunked\r\n" END,
	  0, -400 },
	{ "coding in HTTP/1.0", "POST / HTTP/1.0\r\n" HOST "Transfer-Encoding: chunked\r\n" END, 0,
	  -400 },
	{ "blank before the colon of a coding",
	  GET HOST "Transfer-Encoding : chunked\r\nContent-Length: 3\r\n" END, 0, -400 },
};

static size_t case_len(const struct head_case *c)
{
	return c->len ? c->len : strlen(c->bytes);
}

/* From memory of exactly this size, so that a byte too far is seen. */
static int parse_exact(const char *bytes, size_t len, size_t *scanned, struct reqhead *out)
{
	char *copy = malloc(len ? len : 1);
	int verdict;

	assert_non_null(copy);
	memcpy(copy, bytes, len);
	verdict = reqhead_parse(copy, len, scanned, out);
	free(copy);
	return verdict;
}

static void check_head(const struct head_case *c, int verdict, const struct reqhead *head)
{
	int expected = c->verdict == WHOLE ? (int)case_len(c) : c->verdict;

	if (verdict != expected)
		fail_msg("%s: verdict %d, expected %d", c->name, verdict, expected);
	if (c->verdict != WHOLE)
		return;
	if (strcmp(head->host, c->host))
		fail_msg("%s: host '%s', expected '%s'", c->name, head->host, c->host);
	if (head->has_host != !!*c->host || head->body != c->body || head->length != c->length ||
	    head->head != c->head || head->upgrade != c->upgrade)
		fail_msg("%s: has_host %d body %d length %llu head %d upgrade %d", c->name,
			 head->has_host, head->body, (unsigned long long)head->length, head->head,
			 head->upgrade);
}

#define EACH_CASE(c)                                                                               \
	for (const struct head_case *c = head_cases;                                               \
	     c < head_cases + sizeof(head_cases) / sizeof(*head_cases); c++)

static void heads_whole(void **state)
{
	(void)state;
	EACH_CASE(c)
	{
		struct reqhead head;
		size_t scanned = 0;

		check_head(c, parse_exact(c->bytes, case_len(c), &scanned, &head), &head);
	}
}

static void heads_byte_by_byte(void **state)
{
	(void)state;
	EACH_CASE(c)
	{
		size_t len = case_len(c), scanned = 0;
		struct reqhead head;
		int verdict = 0;

		for (size_t n = 1; n <= len && !verdict; n++) {
			verdict = parse_exact(c->bytes, n, &scanned, &head);
			/* a head is complete with its last byte and not before */
			if (verdict > 0 && n < len)
				fail_msg("%s: complete after %zu of %zu bytes", c->name, n, len);
		}
		check_head(c, verdict, &head);
	}
}

static void heads_cut_once(void **state)
{
	(void)state;
	EACH_CASE(c)
	{
		size_t len = case_len(c);

		for (size_t cut = 1; cut < len; cut++) {
			struct reqhead head;
			size_t scanned = 0;
			int verdict = parse_exact(c->bytes, cut, &scanned, &head);

			if (!verdict)
				verdict = parse_exact(c->bytes, len, &scanned, &head);
			check_head(c, verdict, &head);
		}
	}
}

/* What stands behind the head, be it a body or the next request, is none of its business. */
static void heads_with_something_behind(void **state)
{
	static const char *const behind[] = { "x", "\r\n", "\n", "GET / HTTP/1.1\r\n", "\x16\x03" };

	(void)state;
	EACH_CASE(c)
	{
		if (c->verdict != WHOLE)
			continue;
		for (size_t i = 0; i < sizeof(behind) / sizeof(*behind); i++) {
			char bytes[512];
			int len = snprintf(bytes, sizeof(bytes), "%s%s", c->bytes, behind[i]);
			struct reqhead head;
			size_t scanned = 0;

			check_head(c, parse_exact(bytes, (size_t)len, &scanned, &head), &head);
		}
	}
}

/* A head of exactly `len` bytes. */
static char *head_of(size_t len)
{
	static const char start[] = GET HOST "X: ", end[] = "\r\n\r\n";
	char *bytes = malloc(len);

	assert_non_null(bytes);
	memset(bytes, 'x', len);
	memcpy(bytes, start, sizeof(start) - 1);
	memcpy(bytes + len - 4, end, 4);
	return bytes;
}

static void head_size_limit(void **state)
{
	char *bytes = head_of(REQHEAD_MAX + 1);
	struct reqhead head;
	size_t scanned = 0;

	(void)state;
	assert_int_equal(reqhead_parse(bytes, REQHEAD_MAX - 1, &scanned, &head), 0);
	assert_int_equal(reqhead_parse(bytes, REQHEAD_MAX, &scanned, &head), -431);
	scanned = 0;
	assert_int_equal(reqhead_parse(bytes, REQHEAD_MAX + 1, &scanned, &head), -431);
	free(bytes);
	bytes = head_of(REQHEAD_MAX);
	scanned = 0;
	assert_int_equal(reqhead_parse(bytes, REQHEAD_MAX, &scanned, &head), REQHEAD_MAX);
	scanned = 0;
	assert_int_equal(reqhead_parse(bytes, REQHEAD_MAX - 1, &scanned, &head), 0);
	assert_int_equal(reqhead_parse(bytes, REQHEAD_MAX, &scanned, &head), REQHEAD_MAX);
	free(bytes);
}

/* A request line without end is a head too large, not a wait. */
static void request_line_without_end(void **state)
{
	char *bytes = malloc(REQHEAD_MAX);
	struct reqhead head;
	size_t scanned = 0;

	(void)state;
	memset(bytes, 'A', REQHEAD_MAX);
	assert_int_equal(reqhead_parse(bytes, REQHEAD_MAX, &scanned, &head), -431);
	free(bytes);
}

static int parse_fields(unsigned int count)
{
	static char bytes[REQHEAD_MAX];
	int len = snprintf(bytes, sizeof(bytes), "%s", GET HOST);
	struct reqhead head;
	size_t scanned = 0;

	for (unsigned int i = 1; i < count; i++)
		len += snprintf(bytes + len, sizeof(bytes) - (size_t)len, "X-%u: y\r\n", i);
	len += snprintf(bytes + len, sizeof(bytes) - (size_t)len, "\r\n");
	return reqhead_parse(bytes, (size_t)len, &scanned, &head) == len ? 0 : -431;
}

static void field_count_limit(void **state)
{
	(void)state;
	assert_int_equal(parse_fields(REQHEAD_MAX_FIELDS), 0);
	assert_int_equal(parse_fields(REQHEAD_MAX_FIELDS + 1), -431);
	assert_int_equal(parse_fields(REQHEAD_MAX_FIELDS * 4), -431);
}

/* Many small reads of a large head must not look at every byte again each time. */
static void scanning_is_linear(void **state)
{
	static char bytes[60000];
	struct reqhead head;
	size_t scanned = 0, last = 0;
	int len = snprintf(bytes, sizeof(bytes), "%s", GET HOST);

	(void)state;
	for (int i = 0; i < 100; i++)
		len += snprintf(bytes + len, sizeof(bytes) - (size_t)len, "X-%d: %0500d\r\n", i, i);
	for (size_t n = 1; n <= (size_t)len; n++) {
		assert_int_equal(reqhead_parse(bytes, n, &scanned, &head), 0);
		assert_true(scanned >= last && scanned <= n);
		assert_true(n - scanned <= 520);
		last = scanned;
	}
}

struct body_case {
	const char *name, *bytes;
	int used; /* bytes that belong to the body; -1: all of them */
	int err;
	bool whole; /* the body ends there */
};

static const struct body_case chunked_cases[] = {
	{ "one chunk", "5\r\nhello\r\n0\r\n\r\n", -1, 0, true },
	{ "two chunks", "5\r\nhello\r\n6\r\n world\r\n0\r\n\r\n", -1, 0, true },
	{ "empty", "0\r\n\r\n", -1, 0, true },
	{ "zeros", "000\r\n\r\n", -1, 0, true },
	{ "upper case", "A\r\n0123456789\r\n0\r\n\r\n", -1, 0, true },
	{ "lower case, two digits", "0a\r\n0123456789\r\n0\r\n\r\n", -1, 0, true },
	{ "data that looks like a frame", "7\r\n0\r\n\r\n\r\n\r\n0\r\n\r\n", -1, 0, true },
	{ "extension", "5;a=b\r\nhello\r\n0;c\r\n\r\n", -1, 0, true },
	{ "quoted extension", "5;a=\"x;y\"\r\nhello\r\n0\r\n\r\n", -1, 0, true },
	{ "trailer", "0\r\nX: y\r\n\r\n", -1, 0, true },
	{ "two trailers", "1\r\nx\r\n0\r\nX: y\r\nZ:\r\n\r\n", -1, 0, true },
	{ "next request behind it", "0\r\n\r\nGET / HTTP/1.1\r\n", 5, 0, true },
	{ "next request behind a trailer", "0\r\nA: b\r\n\r\nPOST", 11, 0, true },
	{ "not complete: size", "5", -1, 0, false },
	{ "not complete: data", "5\r\nhel", -1, 0, false },
	{ "not complete: last chunk", "0\r\n", -1, 0, false },
	{ "not complete: trailer", "0\r\nX: y\r\n", -1, 0, false },
	{ "largest size", "7fffffffffffffff\r\nx", -1, 0, false },
	{ "size of one too many", "8000000000000000\r\nx", 15, -400, false },
	{ "size beyond 64 bits", "10000000000000005\r\nx", 16, -400, false },
	{ "no size", "\r\nhello", 0, -400, false },
	{ "no size, extension", ";a\r\n", 0, -400, false },
	{ "no hexadecimal digit", "g\r\n", 0, -400, false },
	{ "0x", "0x5\r\nhello\r\n", 1, -400, false },
	{ "plus", "+5\r\nhello\r\n", 0, -400, false },
	{ "minus", "-1\r\n", 0, -400, false },
	{ "blank before a size", " 5\r\nhello\r\n", 0, -400, false },
	{ "blank behind a size", "5 \r\nhello\r\n", 1, -400, false },
	{ "tab behind a size", "5\t\r\nhello\r\n", 1, -400, false },
	{ "blank before an extension", "5 ;a\r\nhello\r\n", 1, -400, false },
	{ "bare LF behind a size", "5\nhello\n", 1, -400, false },
	{ "bare CR behind a size", "5\rhello", 2, -400, false },
	{ "bare LF in an extension", "5;a\nhello\r\n", 3, -400, false },
	{ "bare CR in an extension", "5;a\rb\r\nhello\r\n", 4, -400, false },
	{ "control in an extension", "5;\x01\r\nhello\r\n", 2, -400, false },
	{ "data longer than said", "4\r\nhello\r\n", 7, -400, false },
	{ "bare LF behind data", "5\r\nhello\n0\r\n\r\n", 8, -400, false },
	{ "bare CR behind data", "5\r\nhello\r0\r\n\r\n", 9, -400, false },
	{ "folded trailer", "0\r\n X: y\r\n\r\n", 3, -400, false },
	{ "trailer without name", "0\r\n: y\r\n\r\n", 3, -400, false },
	{ "bare LF in a trailer", "0\r\nX: y\n\r\n", 7, -400, false },
	{ "bare CR in a trailer", "0\r\nX: y\rz\r\n\r\n", 8, -400, false },
	{ "bare CR at the end", "0\r\n\rx", 4, -400, false },
};

static void start_chunked(struct reqbody *body)
{
	struct reqhead head = { .body = BODY_CHUNKED };

	reqbody_start(body, &head);
	assert_int_not_equal(body->state, REQBODY_DONE);
}

static size_t feed_exact(struct reqbody *body, const char *bytes, size_t len, int *err)
{
	char *copy = malloc(len ? len : 1);
	size_t n;

	assert_non_null(copy);
	memcpy(copy, bytes, len);
	n = reqbody_feed(body, copy, len, err);
	assert_true(n <= len);
	free(copy);
	return n;
}

static void check_body(const struct body_case *c, const char *how, size_t used, int err,
		       const struct reqbody *body)
{
	size_t expected = c->used < 0 ? strlen(c->bytes) : (size_t)c->used;

	if (used != expected || err != c->err ||
	    (!err && (body->state == REQBODY_DONE) != c->whole))
		fail_msg("%s, %s: %zu bytes, error %d, state %d; expected %zu, %d, %s", c->name,
			 how, used, err, body->state, expected, c->err, c->whole ? "done" : "more");
}

#define EACH_BODY(c)                                                                               \
	for (const struct body_case *c = chunked_cases;                                            \
	     c < chunked_cases + sizeof(chunked_cases) / sizeof(*chunked_cases); c++)

static void chunked_whole(void **state)
{
	(void)state;
	EACH_BODY(c)
	{
		struct reqbody body;
		int err;
		size_t used;

		start_chunked(&body);
		used = feed_exact(&body, c->bytes, strlen(c->bytes), &err);
		check_body(c, "whole", used, err, &body);
	}
}

static void chunked_in_two(void **state)
{
	(void)state;
	EACH_BODY(c)
	{
		size_t len = strlen(c->bytes);

		for (size_t cut = 0; cut <= len; cut++) {
			struct reqbody body;
			size_t used;
			int err;

			start_chunked(&body);
			used = feed_exact(&body, c->bytes, cut, &err);
			if (!err && used == cut)
				used += feed_exact(&body, c->bytes + cut, len - cut, &err);
			check_body(c, "in two", used, err, &body);
		}
	}
}

static void chunked_byte_by_byte(void **state)
{
	(void)state;
	EACH_BODY(c)
	{
		size_t len = strlen(c->bytes), used = 0;
		struct reqbody body;
		int err = 0;

		start_chunked(&body);
		while (used < len) {
			size_t n = feed_exact(&body, c->bytes + used, 1, &err);

			used += n;
			if (!n || err)
				break;
		}
		check_body(c, "byte by byte", used, err, &body);
	}
}

/* Data passed unseen (spliced) counts as data that was looked at. */
static void chunked_skipping_data(void **state)
{
	(void)state;
	EACH_BODY(c)
	{
		size_t len = strlen(c->bytes), used = 0;
		struct reqbody body;
		int err = 0;

		start_chunked(&body);
		while (used < len && !err && body.state != REQBODY_DONE) {
			uint64_t opaque = reqbody_opaque(&body);

			if (opaque) {
				size_t n = opaque < len - used ? (size_t)opaque : len - used;

				reqbody_skip(&body, n);
				used += n;
			} else {
				used += feed_exact(&body, c->bytes + used, 1, &err);
			}
		}
		check_body(c, "skipping", used, err, &body);
	}
}

static void body_by_length(void **state)
{
	struct reqhead head = { .body = BODY_LENGTH, .length = 10 };
	struct reqbody body;
	int err;

	(void)state;
	reqbody_start(&body, &head);
	assert_int_equal(reqbody_opaque(&body), 10);
	assert_int_equal(reqbody_feed(&body, "0123", 4, &err), 4);
	assert_int_equal(err, 0);
	assert_int_equal(reqbody_opaque(&body), 6);
	reqbody_skip(&body, 2);
	assert_int_equal(reqbody_feed(&body, "6789GET /", 9, &err), 4);
	assert_int_equal(err, 0);
	assert_int_equal(body.state, REQBODY_DONE);
	assert_int_equal(reqbody_opaque(&body), 0);
	assert_int_equal(reqbody_feed(&body, "x", 1, &err), 0);
	reqbody_start(&body, &head);
	reqbody_skip(&body, 10);
	assert_int_equal(body.state, REQBODY_DONE);
}

static void no_body(void **state)
{
	struct reqhead head = { .body = BODY_NONE };
	struct reqbody body;
	int err;

	(void)state;
	reqbody_start(&body, &head);
	assert_int_equal(body.state, REQBODY_DONE);
	assert_int_equal(reqbody_feed(&body, "GET /", 5, &err), 0);
	assert_int_equal(err, 0);
}

/* An extension or a trailer section without end is a way to keep the agent busy for nothing. */
static void overhead_is_bounded(void **state)
{
	static char many[65536];
	struct reqbody body;
	int err;

	(void)state;
	memset(many, 'x', sizeof(many));
	start_chunked(&body);
	reqbody_feed(&body, "5;", 2, &err);
	assert_int_equal(err, 0);
	assert_true(reqbody_feed(&body, many, sizeof(many), &err) < sizeof(many));
	assert_int_equal(err, -400);
	start_chunked(&body);
	reqbody_feed(&body, "0\r\n", 3, &err);
	for (size_t at = 0; !err && at < 10000; at++)
		reqbody_feed(&body, "Ab: 1\r\n", 7, &err);
	assert_int_equal(err, -400);
	/* the bound is a chunk's, not the body's */
	start_chunked(&body);
	for (int i = 0; i < 5000; i++) {
		assert_int_equal(reqbody_feed(&body, "1;extension\r\nx\r\n", 16, &err), 16);
		assert_int_equal(err, 0);
	}
}

int main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test(heads_whole),
		cmocka_unit_test(heads_byte_by_byte),
		cmocka_unit_test(heads_cut_once),
		cmocka_unit_test(heads_with_something_behind),
		cmocka_unit_test(head_size_limit),
		cmocka_unit_test(request_line_without_end),
		cmocka_unit_test(field_count_limit),
		cmocka_unit_test(scanning_is_linear),
		cmocka_unit_test(chunked_whole),
		cmocka_unit_test(chunked_in_two),
		cmocka_unit_test(chunked_byte_by_byte),
		cmocka_unit_test(chunked_skipping_data),
		cmocka_unit_test(body_by_length),
		cmocka_unit_test(no_body),
		cmocka_unit_test(overhead_is_bounded),
	};

	return cmocka_run_group_tests_name("reqhead", tests, NULL, NULL);
}
