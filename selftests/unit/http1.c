// SPDX-License-Identifier: MIT
/*
 * Heads and bodies against RFC 9110, RFC 9112 and the rules in http1.h. Every case is fed whole,
 * cut at every byte and byte by byte; the verdict must be the same.
 */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <errno.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <cmocka.h>

#include "http1.h"

/* A line of the tables below names only what differs from zero. */
#pragma GCC diagnostic ignored "-Wmissing-field-initializers"

#define WHOLE 1 /* the head is accepted, and as long as the bytes are */
#define MORE 0	/* not complete */

struct head_case {
	const char *name, *bytes;
	size_t len; /* 0: as a string */
	int verdict;
	const char *host; /* of an accepted request */
	enum http1_framing framing;
	uint64_t length;
	bool head, upgrade, version_1_0;
	bool close; /* keep_alive is false */
	size_t skip;
	const struct http1_request *asked; /* these bytes answer it */
	unsigned int status;
};

#define GET "GET / HTTP/1.1\r\n"
#define HOST "Host: a.example\r\n"
#define END "\r\n"
#define BYTES(literal) literal, sizeof(literal) - 1
#define COUNT(array) (sizeof(array) / sizeof(*(array)))

static const struct head_case requests[] = {
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
	  WHOLE, "a.example", .version_1_0 = true, .close = true },
	{ "HTTP/1.0 without Host", "GET / HTTP/1.0\r\n" END, 0, WHOLE, "", .version_1_0 = true,
	  .close = true },
	{ "HTTP/1.0 with an empty Host", "GET / HTTP/1.0\r\nHost:\r\n" END, 0, WHOLE, "",
	  .version_1_0 = true, .close = true },
	{ "HTTP/1.0 with Host", "GET / HTTP/1.0\r\n" HOST END, 0, WHOLE, "a.example",
	  .version_1_0 = true, .close = true },
	{ "HTTP/1.0 with a body", "POST / HTTP/1.0\r\n" HOST "Content-Length: 3\r\n" END, 0, WHOLE,
	  "a.example", HTTP1_LENGTH, 3, .version_1_0 = true, .close = true },
	{ "HTTP/1.0 keep-alive and close",
	  "GET / HTTP/1.0\r\n" HOST "Connection: keep-alive, close\r\n" END, 0, WHOLE, "a.example",
	  .version_1_0 = true, .close = true },
	{ "HTTP/1.0 keep-alive", "GET / HTTP/1.0\r\n" HOST "Connection: Keep-Alive\r\n" END, 0,
	  WHOLE, "a.example", .version_1_0 = true },
	{ "close", GET HOST "Connection: close\r\n" END, 0, WHOLE, "a.example", .close = true },
	{ "close in a list", GET HOST "Connection: x , CLOSE\r\n" END, 0, WHOLE, "a.example",
	  .close = true },
	{ "close behind empty list members", GET HOST "Connection: ,, \t,close,\r\n" END, 0, WHOLE,
	  "a.example", .close = true },
	{ "close among others' words", GET HOST "Connection: x close, clos\r\n" END, 0, WHOLE,
	  "a.example" },
	{ "close in the second field", GET HOST "Connection: x\r\nConnection: close\r\n" END, 0,
	  WHOLE, "a.example", .close = true },
	{ "closer is not close", GET HOST "Connection: closer\r\n" END, 0, WHOLE, "a.example" },
	{ "upgrade", GET HOST "Upgrade: websocket\r\nConnection: keep-alive, Upgrade\r\n" END, 0,
	  WHOLE, "a.example", .upgrade = true },
	{ "Upgrade that Connection does not name", GET HOST "Upgrade: websocket\r\n" END, 0, WHOLE,
	  "a.example" },
	{ "Connection: upgrade without Upgrade", GET HOST "Connection: upgrade\r\n" END, 0, WHOLE,
	  "a.example" },
	{ "upgrade, Connection in two fields",
	  GET HOST "Connection: x\r\nUpgrade: h\r\nConnection: UPGRADE\r\n" END, 0, WHOLE,
	  "a.example", .upgrade = true },
	{ "upgrade, and more options behind it",
	  GET HOST "Upgrade: h\r\nConnection: upgrade, x\r\nConnection: y\r\n" END, 0, WHOLE,
	  "a.example", .upgrade = true },
	{ "empty Upgrade", GET HOST "Upgrade:\r\nConnection: upgrade\r\n" END, 0, WHOLE,
	  "a.example" },
	{ "no upgrade in HTTP/1.0",
	  "GET / HTTP/1.0\r\n" HOST "Upgrade: x\r\nConnection: upgrade\r\n" END, 0, WHOLE,
	  "a.example", .version_1_0 = true, .close = true },
	{ "Content-Length", GET HOST "Content-Length: 5\r\n" END, 0, WHOLE, "a.example",
	  .framing = HTTP1_LENGTH, .length = 5 },
	{ "zeros before a Content-Length", GET HOST "Content-Length: 0005\r\n" END, 0, WHOLE,
	  "a.example", HTTP1_LENGTH, 5 },
	{ "Content-Length 0", GET HOST "Content-Length: 0\r\n" END, 0, WHOLE, "a.example" },
	{ "Content-Length, blanks around", GET HOST "Content-Length: \t7 \r\n" END, 0, WHOLE,
	  "a.example", .framing = HTTP1_LENGTH, .length = 7 },
	{ "largest Content-Length", GET HOST "Content-Length: 9223372036854775807\r\n" END, 0,
	  WHOLE, "a.example", .framing = HTTP1_LENGTH, .length = INT64_MAX },
	{ "chunked", GET HOST "Transfer-Encoding: chunked\r\n" END, 0, WHOLE, "a.example",
	  .framing = HTTP1_CHUNKED },
	{ "Chunked", GET HOST "transfer-encoding: CHUNKED \r\n" END, 0, WHOLE, "a.example",
	  .framing = HTTP1_CHUNKED },
	{ "empty line before it", END GET HOST END, 0, WHOLE, "a.example", .skip = 2 },
	{ "ports that differ",
	  "GET http://a.example:81/ HTTP/1.1\r\nHost: a.example:82\r\n" END, 0, WHOLE,
	  "a.example" },
	{ "https target", "GET HTTPs://a.example HTTP/1.1\r\n" HOST END, 0, WHOLE, "a.example" },
	{ "IPv6 target", "GET http://[::1]:80/ HTTP/1.1\r\nHost: [0::1]\r\n" END, 0, WHOLE, "::1" },
	{ "OPTIONS with a path", "OPTIONS /x HTTP/1.1\r\n" HOST END, 0, WHOLE, "a.example" },
	{ "connect in lower case", "connect / HTTP/1.1\r\n" HOST END, 0, WHOLE, "a.example" },
	{ "at sign in a path", "GET http://a.example/@ HTTP/1.1\r\n" HOST END, 0, WHOLE,
	  "a.example" },
	{ "every character of a target",
	  "GET /!\"$%&'()*+,-./09:;<=>?@AZ[\\]^_`az{|}~ HTTP/1.1\r\n" HOST END, 0, WHOLE,
	  "a.example" },
	{ "names that only begin alike",
	  GET HOST "Hosts: b\r\nContent-Lengths: x\r\nTransfer-Encodings: y\r\n" END, 0, WHOLE,
	  "a.example" },
	/* not complete */
	{ "half an empty line", "\r", 0, MORE },
	{ "an empty line", "\r\n", 0, MORE, .skip = 2 },
	{ "an empty line and more", "\r\nGET", 0, MORE, .skip = 2 },
	{ "a line end short of its LF", "GET /\r", 0, MORE },
	{ "nothing", "", 0, MORE },
	{ "half a request line", "GET / HT", 0, MORE },
	{ "no empty line", GET HOST, 0, MORE },
	{ "a CR short of the end", GET HOST "\r", 0, MORE },
	/* empty lines */
	{ "two empty lines", END END GET HOST END, 0, -400 },
	{ "one and a half", "\r\n\r", 0, -400 },
	{ "LF first", "\n" GET HOST END, 0, -400 },
	{ "LF behind an empty line", "\r\n\n", 0, -400 },
	{ "CR first", "\r" GET HOST END, 0, -400 },
	{ "blank behind an empty line", "\r\n GET", 0, -400 },
	/* request line */
	{ "HTTP/0.9, and nothing behind it", "GET /\r\n", 0, -400 },
	{ "bad version, and nothing behind it", "GET / HTTP/3\r\n", 0, -400 },
	{ "method alone", "GET\r\n", 0, -400 },
	{ "method and blank", "GET \r\n", 0, -400 },
	{ "version 1.2", "GET / HTTP/1.2\r\n" HOST END, 0, -400 },
	{ "version 0.9", "GET / HTTP/0.9\r\n" HOST END, 0, -400 },
	{ "version with a blank", "GET / HTTP/ 1.1\r\n" HOST END, 0, -400 },
	{ "RTSP", "OPTIONS * RTSP/1.0\r\n" END, 0, -400 },
	{ "fragment", "GET /#x HTTP/1.1\r\n" HOST END, 0, -400 },
	{ "fragment behind an authority", "GET http://a.example#x HTTP/1.1\r\n" HOST END, 0, -400 },
	{ "obs-text in the target", "GET /\xc3\xa9 HTTP/1.1\r\n" HOST END, 0, -400 },
	{ "OPTIONS **", "OPTIONS ** HTTP/1.1\r\n" HOST END, 0, -400 },
	{ "options *", "options * HTTP/1.1\r\n" HOST END, 0, -400 },
	{ "authority form for GET", "GET a.example:80 HTTP/1.1\r\n" HOST END, 0, -400 },
	{ "CONNECT without target", "CONNECT HTTP/1.1\r\n" END, 0, -400 },
	{ "CONNECT, empty target", "CONNECT  HTTP/1.1\r\n" END, 0, -400 },
	{ "CONNECT, bad version", "CONNECT a.example:443 HTTP/2.0\r\n" END, 0, -400 },
	{ "CONNECT, two blanks", "CONNECT  a.example:443 HTTP/1.1\r\n" END, 0, -400 },
	{ "CONNECT, nothing behind it", "CONNECT a.example:443 HTTP/1.1\r\n", 0, -405 },
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
	{ "absolute form, empty userinfo", "GET http://@a.example/ HTTP/1.1\r\n" HOST END, 0, -400 },
	{ "absolute form, password", "GET http://x:y@a.example/ HTTP/1.1\r\n" HOST END, 0, -400 },
	{ "absolute form, port alone", "GET http://:80/ HTTP/1.1\r\nHost: :80\r\n" END, 0, -400 },
	{ "absolute form, scheme alone", "GET http:// HTTP/1.1\r\n" HOST END, 0, -400 },
	{ "absolute form, one slash", "GET http:/a.example HTTP/1.1\r\n" HOST END, 0, -400 },
	{ "absolute form, empty Host", "GET http://a.example/ HTTP/1.1\r\nHost:\r\n" END, 0, -400 },
	{ "absolute form, empty Host, HTTP/1.0",
	  "GET http://a.example/ HTTP/1.0\r\nHost:\r\n" END, 0, -400 },
	{ "absolute form, another host, HTTP/1.0", "GET http://b.example/ HTTP/1.0\r\n" HOST END, 0,
	  -400 },
	{ "absolute form, longer host", "GET http://a.example.b/ HTTP/1.1\r\n" HOST END, 0, -400 },
	{ "absolute form, backslash", "GET http://a.example\\@b/ HTTP/1.1\r\n" HOST END, 0, -400 },
	/* Host */
	{ "empty Host", GET "Host:\r\n" END, 0, -400 },
	{ "blank Host", GET "Host: \t \r\n" END, 0, -400 },
	{ "empty Host and another", GET "Host:\r\n" HOST END, 0, -400 },
	{ "port alone", GET "Host: :80\r\n" END, 0, -400 },
	{ "bad Host in HTTP/1.0", "GET / HTTP/1.0\r\nHost: a b\r\n" END, 0, -400 },
	{ "bad Host, and nothing behind it", GET "Host: a b\r\n", 0, -400 },
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
	{ "fault in the first of many lines", GET "X y\r\n" HOST "Z: z\r\n", 0, -400 },
	{ "a byte and LF", GET HOST "x\n", 0, -400 },
	{ "LF alone is a line", GET HOST "\nX: y\r\n" END, 0, -400 },
	{ "CR before the empty line", GET HOST "\r\r\n", 0, -400 },
	{ "NUL in a name", BYTES(GET HOST "X\0: a\r\n" END), -400 },
	{ "NUL in the method", BYTES("G\0T / HTTP/1.1\r\n" HOST END), -400 },
	{ "control behind a value", GET HOST "X: a\x1f\r\n" END, 0, -400 },
	{ "folded Host", GET "Host:\r\n a.example\r\n" END, 0, -400 },
	{ "folded length", GET HOST "Content-Length:\r\n 5\r\n" END, 0, -400 },
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
	{ "digits of another script", GET HOST "Content-Length: \xd9\xa3\r\n" END, 0, -400 },
	{ "quoted length", GET HOST "Content-Length: \"5\"\r\n" END, 0, -400 },
	{ "length of 2^64", GET HOST "Content-Length: 18446744073709551616\r\n" END, 0, -400 },
	{ "length 0 twice", GET HOST "Content-Length: 0\r\nContent-Length: 0\r\n" END, 0, -400 },
	{ "list of one length", GET HOST "Content-Length: 5,\r\n" END, 0, -400 },
	{ "length and gzip", GET HOST "Content-Length: 5\r\nTransfer-Encoding: gzip\r\n" END, 0,
	  -400 },
	{ "gzip and length", GET HOST "Transfer-Encoding: gzip\r\nContent-Length: 5\r\n" END, 0,
	  -400 },
	{ "gzip without Host", GET "Transfer-Encoding: gzip\r\n" END, 0, -400 },
	{ "gzip and another host",
	  "GET http://b.example/ HTTP/1.1\r\n" HOST "Transfer-Encoding: gzip\r\n" END, 0, -400 },
	{ "gzip in HTTP/1.0", "GET / HTTP/1.0\r\n" HOST "Transfer-Encoding: gzip\r\n" END, 0, -400 },
	{ "gzip, then a bad line", GET HOST "Transfer-Encoding: gzip\r\nX y\r\n" END, 0, -400 },
	{ "chunked and identity",
	  GET HOST "Transfer-Encoding: chunked\r\nTransfer-Encoding: identity\r\n" END, 0, -501 },
	{ "chunked and a comma", GET HOST "Transfer-Encoding: chunked,\r\n" END, 0, -501 },
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

static const struct http1_request get = { .method = "GET" };
static const struct http1_request head = { .method = "HEAD", .head = true };
static const struct http1_request upgrade = { .method = "GET", .upgrade = true };
static const struct http1_request old = { .method = "GET", .version_1_0 = true };

/* Answers: accepted with this status, to what was asked. */
#define ACCEPT(of, is) 0, WHOLE, .asked = &(of), .status = (is)
#define REFUSE(of) 0, -502, .asked = &(of)
#define OK "HTTP/1.1 200 OK\r\n"
#define LENGTH(n) .framing = HTTP1_LENGTH, .length = (n)
#define CHUNKED .framing = HTTP1_CHUNKED
#define TO_EOF .framing = HTTP1_TO_EOF, .close = true

static const struct head_case responses[] = {
	/* status line */
	{ "plain", OK "Content-Length: 5\r\n" END, ACCEPT(get, 200), LENGTH(5) },
	{ "no field", OK END, ACCEPT(get, 200), TO_EOF },
	{ "empty reason", "HTTP/1.1 200 \r\n" END, ACCEPT(get, 200), TO_EOF },
	{ "no reason", "HTTP/1.1 200\r\n" END, ACCEPT(get, 200), TO_EOF },
	{ "HTTP/1.0", "HTTP/1.0 200 OK\r\n" END, ACCEPT(get, 200), TO_EOF },
	{ "odd reason", "HTTP/1.1 404 \t \xc3\xa9 : x\r\n" END, ACCEPT(get, 404), TO_EOF },
	{ "largest status", "HTTP/1.1 999 x\r\n" END, ACCEPT(get, 999), TO_EOF },
	{ "nothing", "", 0, MORE, .asked = &get },
	{ "half a version", "HTTP/1", 0, MORE, .asked = &get },
	{ "half a status", "HTTP/1.1 20", 0, MORE, .asked = &get },
	{ "no empty line", OK "A: b\r\n", 0, MORE, .asked = &get },
	{ "a CR short", OK "\r", 0, MORE, .asked = &get },
	{ "version 2.0", "HTTP/2.0 200 OK\r\n" END, REFUSE(get) },
	{ "version 1.2", "HTTP/1.2 200 OK\r\n" END, REFUSE(get) },
	{ "version 1.x", "HTTP/1.x 200 OK\r\n" END, REFUSE(get) },
	{ "version 1.10", "HTTP/1.10 200 OK\r\n" END, REFUSE(get) },
	{ "version without digit", "HTTP/1.\n 200 OK\r\n" END, REFUSE(get) },
	{ "version in lower case", "http/1.1 200 OK\r\n" END, REFUSE(get) },
	{ "version alone", "HTTP/1.1\r\n" END, REFUSE(get) },
	{ "version and blank", "HTTP/1.1 \r\n" END, REFUSE(get) },
	{ "no blank", "HTTP/1.1200 OK\r\n" END, REFUSE(get) },
	{ "two blanks", "HTTP/1.1  200 OK\r\n" END, REFUSE(get) },
	{ "tab", "HTTP/1.1\t200 OK\r\n" END, REFUSE(get) },
	{ "tab behind the status", "HTTP/1.1 200\tOK\r\n" END, REFUSE(get) },
	{ "two digits", "HTTP/1.1 20 OK\r\n" END, REFUSE(get) },
	{ "two digits, no reason", "HTTP/1.1 20\r\n" END, REFUSE(get) },
	{ "four digits", "HTTP/1.1 2000 OK\r\n" END, REFUSE(get) },
	{ "a letter", "HTTP/1.1 20x OK\r\n" END, REFUSE(get) },
	{ "sign", "HTTP/1.1 +20 OK\r\n" END, REFUSE(get) },
	{ "below 100", "HTTP/1.1 099 OK\r\n" END, REFUSE(get) },
	{ "000", "HTTP/1.1 000 OK\r\n" END, REFUSE(get) },
	{ "control in the reason", "HTTP/1.1 200 O\x01K\r\n" END, REFUSE(get) },
	{ "NUL in the reason", BYTES("HTTP/1.1 200 O\0K\r\n" END), -502, .asked = &get },
	{ "bare CR in the reason", "HTTP/1.1 200 O\rK\r\n" END, REFUSE(get) },
	{ "bare LF behind the reason", "HTTP/1.1 200 OK\n" END, REFUSE(get) },
	{ "LF throughout", "HTTP/1.1 200 OK\nContent-Length: 0\n\n", REFUSE(get) },
	{ "empty line before it", END OK END, REFUSE(get) },
	{ "HTML", "<html>hello</html>\r\n", REFUSE(get) },
	{ "mail", "220 mail.example ESMTP\r\n", REFUSE(get) },
	{ "SSH", "SSH-2.0-x\r\n", REFUSE(get) },
	{ "SSH without line end", "SSH-", REFUSE(get) },
	{ "one byte that is not HTTP", "h", REFUSE(get) },
	{ "HTTP/2 settings", BYTES("\0\0\x12\x04\0\0\0\0\0"), -502, .asked = &get },
	{ "a request", GET HOST END, REFUSE(get) },
	/* fields */
	{ "Hosts mean nothing", OK HOST HOST "Host: a b\r\nContent-Length: 1\r\n" END,
	  ACCEPT(get, 200), LENGTH(1) },
	{ "obs-fold", OK "X: a\r\n b\r\n" END, REFUSE(get) },
	{ "obs-fold by tab", OK "X: a\r\n\tb\r\n" END, REFUSE(get) },
	{ "blank before the colon", OK "X : a\r\n" END, REFUSE(get) },
	{ "blank before the colon of a length", OK "Content-Length : 1\r\n" END, REFUSE(get) },
	{ "no colon", OK "nonsense\r\n" END, REFUSE(get) },
	{ "no name", OK ": a\r\n" END, REFUSE(get) },
	{ "NUL in a value", BYTES(OK "X: a\0b\r\n" END), -502, .asked = &get },
	{ "control in a value", OK "X: a\x08\r\n" END, REFUSE(get) },
	{ "DEL in a value", OK "X: a\x7f\r\n" END, REFUSE(get) },
	{ "bare CR in a value", OK "X: a\rb\r\n" END, REFUSE(get) },
	{ "bare LF behind a value", OK "X: a\nY: b\r\n" END, REFUSE(get) },
	{ "bare LF ends the head", OK "X: a\r\n\n", REFUSE(get) },
	{ "fault, and nothing behind it", OK "X y\r\n", REFUSE(get) },
	/* framing */
	{ "length 0", OK "Content-Length: 0\r\n" END, ACCEPT(get, 200) },
	{ "largest length", OK "Content-Length: 9223372036854775807\r\n" END, ACCEPT(get, 200),
	  LENGTH(INT64_MAX) },
	{ "chunked", OK "transfer-encoding: Chunked\r\n" END, ACCEPT(get, 200), CHUNKED },
	{ "error with length", "HTTP/1.1 500 x\r\nContent-Length: 5\r\n" END, ACCEPT(get, 500),
	  LENGTH(5) },
	{ "205 is like any other", "HTTP/1.1 205 x\r\nContent-Length: 5\r\n" END,
	  ACCEPT(get, 205), LENGTH(5) },
	{ "length of 2^63", OK "Content-Length: 9223372036854775808\r\n" END, REFUSE(get) },
	{ "length of 2^64", OK "Content-Length: 18446744073709551616\r\n" END, REFUSE(get) },
	{ "length with sign", OK "Content-Length: +5\r\n" END, REFUSE(get) },
	{ "negative length", OK "Content-Length: -1\r\n" END, REFUSE(get) },
	{ "hexadecimal length", OK "Content-Length: 0x5\r\n" END, REFUSE(get) },
	{ "empty length", OK "Content-Length:\r\n" END, REFUSE(get) },
	{ "list of lengths", OK "Content-Length: 5, 5\r\n" END, REFUSE(get) },
	{ "length twice", OK "Content-Length: 5\r\nContent-Length: 6\r\n" END, REFUSE(get) },
	{ "equal length twice", OK "Content-Length: 5\r\nContent-Length: 5\r\n" END, REFUSE(get) },
	{ "length and coding", OK "Content-Length: 5\r\nTransfer-Encoding: chunked\r\n" END,
	  REFUSE(get) },
	{ "coding and length 0", OK "Transfer-Encoding: chunked\r\nContent-Length: 0\r\n" END,
	  REFUSE(get) },
	{ "gzip", OK "Transfer-Encoding: gzip\r\n" END, REFUSE(get) },
	{ "gzip, chunked", OK "Transfer-Encoding: gzip, chunked\r\n" END, REFUSE(get) },
	{ "identity", OK "Transfer-Encoding: identity\r\n" END, REFUSE(get) },
	{ "empty coding", OK "Transfer-Encoding:\r\n" END, REFUSE(get) },
	{ "chunked twice", OK "Transfer-Encoding: chunked\r\nTransfer-Encoding: chunked\r\n" END,
	  REFUSE(get) },
	{ "chunked in HTTP/1.0", "HTTP/1.0 200 OK\r\nTransfer-Encoding: chunked\r\n" END,
	  REFUSE(get) },
	/* without body */
	{ "HEAD", OK END, ACCEPT(head, 200) },
	{ "HEAD with length", OK "Content-Length: 5\r\n" END, ACCEPT(head, 200) },
	{ "HEAD, chunked", OK "Transfer-Encoding: chunked\r\n" END, ACCEPT(head, 200) },
	{ "HEAD, framed twice", OK "Content-Length: 5\r\nTransfer-Encoding: chunked\r\n" END,
	  REFUSE(head) },
	{ "HEAD, gzip", OK "Transfer-Encoding: gzip\r\n" END, REFUSE(head) },
	{ "HEAD, length twice", OK "Content-Length: 5\r\nContent-Length: 5\r\n" END, REFUSE(head) },
	{ "304", "HTTP/1.1 304 x\r\n" END, ACCEPT(get, 304) },
	{ "304 with length", "HTTP/1.1 304 x\r\nContent-Length: 5\r\n" END, ACCEPT(get, 304) },
	{ "304, chunked", "HTTP/1.1 304 x\r\nTransfer-Encoding: chunked\r\n" END, ACCEPT(get, 304) },
	{ "304, framed twice",
	  "HTTP/1.1 304 x\r\nContent-Length: 5\r\nTransfer-Encoding: chunked\r\n" END,
	  REFUSE(get) },
	{ "204", "HTTP/1.1 204 No Content\r\nX: y\r\n" END, ACCEPT(get, 204) },
	{ "204 with length 0", "HTTP/1.1 204 x\r\nContent-Length: 0\r\n" END, ACCEPT(get, 204) },
	{ "204 with length", "HTTP/1.1 204 x\r\nContent-Length: 5\r\n" END, REFUSE(get) },
	{ "204 with length to HEAD", "HTTP/1.1 204 x\r\nContent-Length: 5\r\n" END, REFUSE(head) },
	{ "204, chunked", "HTTP/1.1 204 x\r\nTransfer-Encoding: chunked\r\n" END, REFUSE(get) },
	{ "100", "HTTP/1.1 100 Continue\r\n" END, ACCEPT(get, 100) },
	{ "100 without reason", "HTTP/1.1 100\r\n" END, ACCEPT(get, 100) },
	{ "103", "HTTP/1.1 103 Early Hints\r\nLink: </a>\r\nX: HTTP/1.1 500 \r\n" END,
	  ACCEPT(get, 103) },
	{ "100 with length 0", "HTTP/1.1 100 x\r\nContent-Length: 0\r\n" END, ACCEPT(get, 100) },
	{ "100 with length", "HTTP/1.1 100 x\r\nContent-Length: 1\r\n" END, REFUSE(get) },
	{ "103, chunked", "HTTP/1.1 103 x\r\nTransfer-Encoding: chunked\r\n" END, REFUSE(get) },
	/* upgrade */
	{ "101", "HTTP/1.1 101 x\r\nUpgrade: x\r\nConnection: upgrade\r\n" END,
	  ACCEPT(upgrade, 101), TO_EOF },
	{ "101 that nobody asked for", "HTTP/1.1 101 x\r\nUpgrade: x\r\n" END, REFUSE(get) },
	{ "101 to HEAD", "HTTP/1.1 101 x\r\nUpgrade: x\r\n" END, REFUSE(head) },
	{ "101 with length", "HTTP/1.1 101 x\r\nContent-Length: 2\r\n" END, REFUSE(upgrade) },
	{ "101, chunked", "HTTP/1.1 101 x\r\nTransfer-Encoding: chunked\r\n" END,
	  REFUSE(upgrade) },
	{ "upgrade refused", OK "Content-Length: 2\r\n" END, ACCEPT(upgrade, 200), LENGTH(2) },
	{ "100 before an upgrade", "HTTP/1.1 100 x\r\n" END, ACCEPT(upgrade, 100) },
	/* connection */
	{ "close", OK "Content-Length: 5\r\nConnection: close\r\n" END, ACCEPT(get, 200), LENGTH(5),
	  .close = true },
	{ "close to HEAD", OK "Connection: x, Close\r\n" END, ACCEPT(head, 200), .close = true },
	{ "keep-alive does not end a body", OK "Connection: keep-alive\r\n" END, ACCEPT(get, 200),
	  TO_EOF },
	{ "HTTP/1.0 with length", "HTTP/1.0 200 OK\r\nContent-Length: 5\r\n" END,
	  ACCEPT(get, 200), LENGTH(5), .close = true },
	{ "HTTP/1.0 keep-alive",
	  "HTTP/1.0 200 OK\r\nContent-Length: 5\r\nConnection: Keep-Alive\r\n" END,
	  ACCEPT(get, 200), LENGTH(5) },
	{ "keep-alive and close",
	  "HTTP/1.0 200 OK\r\nContent-Length: 5\r\nConnection: keep-alive, close\r\n" END,
	  ACCEPT(get, 200), LENGTH(5), .close = true },
	{ "to HTTP/1.0", OK "Content-Length: 5\r\n" END, ACCEPT(old, 200), LENGTH(5),
	  .close = true },
	{ "to HTTP/1.0, keep-alive", OK "Content-Length: 5\r\nConnection: keep-alive\r\n" END,
	  ACCEPT(old, 200), LENGTH(5) },
};

/* Bodies in chunks. All or nothing of a line: what is used ends where one begins. */
struct body_case {
	const char *name, *bytes;
	int used; /* bytes that belong to the body; ALL of them */
	enum { MORE_OF_IT, DONE, BAD } end;
};

#define ALL -1
#define LAST "\r\nx\r\n0\r\n\r\n" /* behind a size of 1 */

static const struct body_case bodies[] = {
	{ "one chunk", "5\r\nhello\r\n0\r\n\r\n", ALL, DONE },
	{ "two chunks", "5\r\nhello\r\n6\r\n world\r\n0\r\n\r\n", ALL, DONE },
	{ "empty", "0\r\n\r\n", ALL, DONE },
	{ "zeros", "000\r\n\r\n", ALL, DONE },
	{ "sixteen zeros", "0000000000000000\r\n\r\n", ALL, DONE },
	{ "sixteen digits", "0000000000000001" LAST, ALL, DONE },
	{ "many zeros", "0000000000000000000000001" LAST, ALL, DONE },
	{ "many zeros, too large", "00000000000000008000000000000000\r\n", 0, BAD },
	{ "upper case", "A\r\n0123456789\r\n0\r\n\r\n", ALL, DONE },
	{ "lower case, two digits", "0a\r\n0123456789\r\n0\r\n\r\n", ALL, DONE },
	{ "data that looks like a frame", "7\r\n0\r\n\r\n\r\n\r\n0\r\n\r\n", ALL, DONE },
	{ "next request behind it", "0\r\n\r\nGET / HTTP/1.1\r\n", 5, DONE },
	{ "next request behind a trailer", "0\r\nA: b\r\n\r\nPOST", 11, DONE },
	{ "anything behind it", "0\r\n\r\n\n\r", 5, DONE },
	{ "not complete: size", "5", 0, MORE_OF_IT },
	{ "not complete: CR of a size", "5\r", 0, MORE_OF_IT },
	{ "not complete: extension", "5;a=\"", 0, MORE_OF_IT },
	{ "not complete: data", "5\r\nhel", ALL, MORE_OF_IT },
	{ "not complete: CR of data", "5\r\nhello\r", 8, MORE_OF_IT },
	{ "not complete: last chunk", "0\r\n", ALL, MORE_OF_IT },
	{ "not complete: name of a trailer", "0\r\nX", 3, MORE_OF_IT },
	{ "not complete: trailer", "0\r\nX: y\r\n", ALL, MORE_OF_IT },
	{ "not complete: last CR", "0\r\nX: y\r\n\r", 9, MORE_OF_IT },
	/* size */
	{ "largest size", "7fffffffffffffff\r\nx", ALL, MORE_OF_IT },
	{ "size of one too many", "8000000000000000\r\nx", 0, BAD },
	{ "size of one too many, no line end", "8000000000000000", 0, BAD },
	{ "size of all ones", "ffffffffffffffff\r\nx", 0, BAD },
	{ "size beyond 64 bits", "10000000000000005\r\nx", 0, BAD },
	{ "no size", "\r\nhello", 0, BAD },
	{ "CR for a size", "\r", 0, BAD },
	{ "LF for a size", "\n", 0, BAD },
	{ "no size, extension", ";a\r\n", 0, BAD },
	{ "no hexadecimal digit", "g\r\n", 0, BAD },
	{ "0x", "0x5\r\nhello\r\n", 0, BAD },
	{ "underscore", "1_0\r\n", 0, BAD },
	{ "plus", "+5\r\nhello\r\n", 0, BAD },
	{ "minus", "-1\r\n", 0, BAD },
	{ "minus zero", "-0\r\n\r\n", 0, BAD },
	{ "quoted size", "\"5\"\r\nhello\r\n", 0, BAD },
	{ "blank before a size", " 5\r\nhello\r\n", 0, BAD },
	{ "blank behind a size", "5 \r\nhello\r\n", 0, BAD },
	{ "word behind a size", "5 a\r\nhello\r\n", 0, BAD },
	{ "tab behind a size", "5\t\r\nhello\r\n", 0, BAD },
	{ "blank behind the last size", "5\r\nhello\r\n0 \r\n\r\n", 10, BAD },
	{ "bare LF behind a size", "5\nhello\n", 0, BAD },
	{ "bare CR behind a size", "5\rhello", 0, BAD },
	{ "CR CR LF behind a size", "5\r\r\nhello", 0, BAD },
	{ "obs-text behind a size", "5\xb2\r\n", 0, BAD },
	/* extensions */
	{ "extension", "5;a=b\r\nhello\r\n0;c\r\n\r\n", ALL, DONE },
	{ "extension without value", "1;a" LAST, ALL, DONE },
	{ "several", "1;a;b=c;d;e=\"f\";g" LAST, ALL, DONE },
	{ "quoted value", "5;a=\"x;y\"\r\nhello\r\n0\r\n\r\n", ALL, DONE },
	{ "empty quoted value", "1;a=\"\"" LAST, ALL, DONE },
	{ "escapes", "1;a=\"\\\"\\\\;\\x \xc3\t=\"" LAST, ALL, DONE },
	{ "blanks behind the semicolon", "1; \ta" LAST, ALL, DONE },
	{ "blanks around the equals sign", "1;a = \t\"b\"" LAST, ALL, DONE },
	{ "blank before the second semicolon", "1;a ;b=c\t;d=\"\" ;e" LAST, ALL, DONE },
	{ "semicolon alone", "1;" LAST, 0, BAD },
	{ "semicolon and CR", "1;\r", 0, BAD },
	{ "two semicolons", "1;;a" LAST, 0, BAD },
	{ "semicolon at the end", "1;a;" LAST, 0, BAD },
	{ "no name", "1;=b" LAST, 0, BAD },
	{ "quoted name", "1;\"a\"" LAST, 0, BAD },
	{ "no value", "1;a=" LAST, 0, BAD },
	{ "no value but another", "1;a=;b" LAST, 0, BAD },
	{ "two values", "1;a=b=c" LAST, 0, BAD },
	{ "two values, blank", "1;a=b c" LAST, 0, BAD },
	{ "two names", "1;a b" LAST, 0, BAD },
	{ "rest behind a quote", "1;a=\"b\"c" LAST, 0, BAD },
	{ "quote not closed", "1;a=\"b" LAST, 0, BAD },
	{ "escape at the end", "1;a=\"b\\" LAST, 0, BAD },
	{ "quote inside a token", "1;a=b\"c\"" LAST, 0, BAD },
	{ "blank before the first semicolon", "5 ;a\r\nhello\r\n", 0, BAD },
	{ "blank at the end", "1;a " LAST, 0, BAD },
	{ "tab behind a value", "1;a=b\t" LAST, 0, BAD },
	{ "blank behind a quote", "1;a=\"b\" " LAST, 0, BAD },
	{ "blank, CR", "1;a \r", 0, BAD },
	{ "slash in a name", "1;a/b" LAST, 0, BAD },
	{ "obs-text in a value", "1;a=\xc3\xa9" LAST, 0, BAD },
	{ "control", "5;\x01\r\nhello\r\n", 0, BAD },
	{ "control in a quote", "1;a=\"\x01\"" LAST, 0, BAD },
	{ "DEL in a quote", "1;a=\"\x7f\"" LAST, 0, BAD },
	{ "escaped control", "1;a=\"\\\x01\"" LAST, 0, BAD },
	{ "bare LF in an extension", "5;a\nhello\r\n", 0, BAD },
	{ "bare CR in an extension", "5;a\rb\r\nhello\r\n", 0, BAD },
	{ "bare CR in a quote", "1;a=\"\rb\"" LAST, 0, BAD },
	{ "bare LF in a quote", "1;a=\"\nb\"" LAST, 0, BAD },
	{ "line end in a quote", "1;a=\"\r\nb\"" LAST, 0, BAD },
	{ "fault far behind",
	  "1;aaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaa=b c" LAST, 0,
	  BAD },
	{ "bare CR far behind",
	  "1;aaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaa=b\rc", 0, BAD },
	/* data */
	{ "data longer than said", "4\r\nhello\r\n", 7, BAD },
	{ "data shorter than said", "6\r\nhello\r\n0\r\n\r\n", 9, BAD },
	{ "bare LF behind data", "5\r\nhello\n0\r\n\r\n", 8, BAD },
	{ "bare CR behind data", "5\r\nhello\r0\r\n\r\n", 8, BAD },
	{ "no line end behind data", "5\r\nhello0\r\n\r\n", 8, BAD },
	{ "two line ends behind data", "5\r\nhello\r\n\r\n", 10, BAD },
	/* trailer */
	{ "trailer", "0\r\nX: y\r\n\r\n", ALL, DONE },
	{ "two trailers", "1\r\nx\r\n0\r\nX: y\r\nZ:\r\n\r\n", ALL, DONE },
	{ "trailer of obs-text", "0\r\nX: \xc3\xa9\r\n\r\n", ALL, DONE },
	{ "harmless names", "0\r\nHosts: y\r\nContent-Type: z\r\n\r\n", ALL, DONE },
	{ "length in a trailer", "0\r\nContent-Length: 5\r\n\r\n", 3, BAD },
	{ "coding in a trailer", "0\r\nA: b\r\nTRANSFER-ENCODING: chunked\r\n\r\n", 9, BAD },
	{ "Host in a trailer", "0\r\nhost: a.example\r\n\r\n", 3, BAD },
	{ "folded trailer", "0\r\n X: y\r\n\r\n", 3, BAD },
	{ "folded trailer, and no line end", "0\r\n X", 3, BAD },
	{ "folded second line", "0\r\nX: y\r\n z\r\n\r\n", 9, BAD },
	{ "trailer without name", "0\r\n: y\r\n\r\n", 3, BAD },
	{ "trailer without colon", "0\r\nGET / HTTP/1.1\r\n\r\n", 3, BAD },
	{ "blank before the colon", "0\r\nX : y\r\n\r\n", 3, BAD },
	{ "control in a trailer", "0\r\nX: \x02\r\n\r\n", 3, BAD },
	{ "bare LF in a trailer", "0\r\nX: y\n\r\n", 3, BAD },
	{ "bare CR in a trailer", "0\r\nX: y\rz\r\n\r\n", 3, BAD },
	{ "bare CR, and no line end", "0\r\nX: y\rz", 3, BAD },
	{ "bare LF at the end", "0\r\n\n", 3, BAD },
	{ "bare CR at the end", "0\r\n\rx", 3, BAD },
};

static size_t case_len(const struct head_case *c)
{
	return c->len ? c->len : strlen(c->bytes);
}

/* What came of a head; all of it is compared. */
struct outcome {
	struct http1_scan scan;
	struct http1_request request;
	struct http1_response response;
};

/* From memory of exactly this size, so that a byte too far is seen. */
static int parse_exact(const struct head_case *c, const char *bytes, size_t len,
		       struct outcome *outcome)
{
	char *copy = malloc(len ? len : 1);
	int verdict;

	assert_non_null(copy);
	memcpy(copy, bytes, len);
	if (c->asked)
		verdict = http1_response(&outcome->scan, copy, len, c->asked, &outcome->response);
	else
		verdict = http1_request(&outcome->scan, copy, len, &outcome->request);
	free(copy);
	return verdict;
}

static void check_request(const struct head_case *c, const struct http1_request *got)
{
	if (strcmp(got->host, c->host))
		fail_msg("%s: host '%s', expected '%s'", c->name, got->host, c->host);
	if (got->framing != c->framing || got->length != c->length || got->head != c->head ||
	    got->upgrade != c->upgrade || got->keep_alive == c->close ||
	    got->version_1_0 != c->version_1_0 || got->skip != c->skip)
		fail_msg("%s: framing %d length %llu head %d upgrade %d keep-alive %d 1.0 %d skip %zu",
			 c->name, got->framing, (unsigned long long)got->length, got->head,
			 got->upgrade, got->keep_alive, got->version_1_0, got->skip);
}

static void check_response(const struct head_case *c, const struct http1_response *got)
{
	if (got->status != c->status || got->framing != c->framing || got->length != c->length ||
	    got->keep_alive == c->close)
		fail_msg("%s: status %u framing %d length %llu keep-alive %d", c->name, got->status,
			 got->framing, (unsigned long long)got->length, got->keep_alive);
}

static void check_head(const struct head_case *c, const char *how, int verdict,
		       const struct outcome *outcome)
{
	int expected = c->verdict == WHOLE ? (int)case_len(c) : c->verdict;

	if (verdict != expected)
		fail_msg("%s, %s: verdict %d, expected %d", c->name, how, verdict, expected);
	if (c->verdict == MORE && !c->asked && outcome->request.skip != c->skip)
		fail_msg("%s, %s: skip %zu", c->name, how, outcome->request.skip);
	if (c->verdict != WHOLE)
		return;
	if (c->asked)
		check_response(c, &outcome->response);
	else
		check_request(c, &outcome->request);
}

static void each_head(void (*check)(const struct head_case *c))
{
	for (size_t i = 0; i < COUNT(requests); i++)
		check(&requests[i]);
	for (size_t i = 0; i < COUNT(responses); i++)
		check(&responses[i]);
}

static void head_whole(const struct head_case *c)
{
	struct outcome outcome = { 0 };

	check_head(c, "whole", parse_exact(c, c->bytes, case_len(c), &outcome), &outcome);
}

/* The first verdict of a head that comes byte by byte, and with how many bytes it came. */
static int byte_by_byte(const struct head_case *c, const char *bytes, size_t len, size_t *n,
			struct outcome *outcome)
{
	int verdict = 0;

	for (*n = 1; *n <= len; ++*n) {
		verdict = parse_exact(c, bytes, *n, outcome);
		if (verdict)
			break;
	}
	return verdict;
}

static void head_byte_by_byte(const struct head_case *c)
{
	struct outcome outcome = { 0 };
	size_t n;
	int verdict = byte_by_byte(c, c->bytes, case_len(c), &n, &outcome);

	/* a head is complete with its last byte and not before */
	if (verdict > 0 && n < case_len(c))
		fail_msg("%s: complete after %zu bytes", c->name, n);
	check_head(c, "byte by byte", verdict, &outcome);
}

static void head_cut(const struct head_case *c)
{
	size_t len = case_len(c);

	for (size_t cut = 0; cut < len; cut++) {
		struct outcome outcome = { 0 };
		int verdict = parse_exact(c, c->bytes, cut, &outcome);

		if (!verdict)
			verdict = parse_exact(c, c->bytes, len, &outcome);
		check_head(c, "cut", verdict, &outcome);
	}
}

/* What stands behind the head, be it a body or the next one, is none of its business. */
static void head_with_something_behind(const struct head_case *c)
{
	static const char *const behind[] = { "x", "\r\n", "\n", "GET / HTTP/1.1\r\n", "\x16\x03" };
	char bytes[512];

	for (size_t i = 0; c->verdict == WHOLE && i < COUNT(behind); i++) {
		int len = snprintf(bytes, sizeof(bytes), "%s%s", c->bytes, behind[i]);
		struct outcome outcome = { 0 };

		check_head(c, behind[i], parse_exact(c, bytes, (size_t)len, &outcome), &outcome);
	}
}

static void heads_whole(void **state)
{
	(void)state;
	each_head(head_whole);
}

static void heads_byte_by_byte(void **state)
{
	(void)state;
	each_head(head_byte_by_byte);
}

static void heads_cut_once(void **state)
{
	(void)state;
	each_head(head_cut);
}

static void heads_with_something_behind(void **state)
{
	(void)state;
	each_head(head_with_something_behind);
}

static uint32_t next_random(uint32_t *seed)
{
	*seed ^= *seed << 13;
	*seed ^= *seed >> 17;
	return *seed ^= *seed << 5;
}

/* A few bytes replaced, dropped or doubled; returns the new length. */
static size_t mutate(char *bytes, size_t len, uint32_t *seed)
{
	static const char odd[] = "\r\n\r\n :;,\t\0=\"\\0159afA#@*/\x7f\x80";

	for (uint32_t n = next_random(seed) % 4; n && len; n--) {
		size_t at = next_random(seed) % len;

		switch (next_random(seed) % 3) {
		case 0:
			bytes[at] = odd[next_random(seed) % sizeof(odd)];
			break;
		case 1:
			memmove(bytes + at, bytes + at + 1, --len - at);
			break;
		default:
			memmove(bytes + at + 1, bytes + at, len++ - at);
		}
	}
	return len;
}

/* Whatever the bytes are: a verdict is about them, not about how they came. */
static void check_mutant(const struct head_case *c, uint32_t *seed)
{
	struct outcome whole = { 0 }, slow = { 0 };
	char bytes[512];
	size_t len = case_len(c), n;
	int verdict;

	memcpy(bytes, c->bytes, len);
	len = mutate(bytes, len, seed);
	verdict = parse_exact(c, bytes, len, &whole);
	assert_int_equal(byte_by_byte(c, bytes, len, &n, &slow), verdict);
	if (verdict > 0)
		assert_int_equal(n, verdict);
	if (verdict && !c->asked)
		assert_memory_equal(&whole.request, &slow.request, sizeof(whole.request));
	if (verdict && c->asked)
		assert_memory_equal(&whole.response, &slow.response, sizeof(whole.response));
}

static void heads_mutated(void **state)
{
	uint32_t seed = 9112;

	(void)state;
	for (int round = 0; round < 20; round++) {
		for (size_t i = 0; i < COUNT(requests); i++)
			check_mutant(&requests[i], &seed);
		for (size_t i = 0; i < COUNT(responses); i++)
			check_mutant(&responses[i], &seed);
	}
}

/* Who sends these may wait for an answer and never send more. */
static void refused_at_once(void **state)
{
	static const struct {
		const char *bytes;
		const struct http1_request *asked;
		size_t at;
	} early[] = {
		{ "\x16\x03\x01", NULL, 1 },
		{ " GET", NULL, 1 },
		{ "\n", NULL, 1 },
		{ "\rG", NULL, 2 },
		{ "\r\n\r\n", NULL, 3 },
		{ "GET /\r\n\r\n", NULL, 7 },
		{ "PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n", NULL, 16 },
		{ "CONNECT a.example:1 HTTP/1.1\r\n\r\n", NULL, 30 },
		{ GET "Host: a b\r\n" END, NULL, 27 },
		{ GET "Content-Length: 1\r\nContent-Length: 1\r\n", NULL, 54 },
		{ "SSH-2.0", &get, 1 },
		{ "HTTP/2 200\r\n", &get, 6 },
		{ "HTTP/1.1 2000 OK\r\n\r\n", &get, 18 },
	};

	(void)state;
	for (size_t i = 0; i < COUNT(early); i++) {
		struct head_case c = { .asked = early[i].asked };
		struct outcome outcome = { 0 };
		size_t n;

		if (byte_by_byte(&c, early[i].bytes, strlen(early[i].bytes), &n, &outcome) >= 0 ||
		    n != early[i].at)
			fail_msg("'%s' is refused at byte %zu", early[i].bytes, n);
	}
}

/* An answer of the agent's own, and its log, need these whatever became of the request. */
static void request_line_is_told(void **state)
{
	static const struct {
		const char *bytes, *method;
		int verdict;
		bool head, repeatable, version_1_0;
	} told[] = {
		{ GET HOST END, "GET", 1, .repeatable = true },
		{ "HEAD / HTTP/1.1\r\n" HOST END, "HEAD", 1, .head = true, .repeatable = true },
		{ "OPTIONS * HTTP/1.1\r\n" HOST END, "OPTIONS", 1, .repeatable = true },
		{ "TRACE / HTTP/1.1\r\n" HOST END, "TRACE", 1, .repeatable = true },
		{ "PUT / HTTP/1.1\r\n" HOST END, "PUT", 1, .repeatable = true },
		{ "DELETE / HTTP/1.1\r\n" HOST END, "DELETE", 1, .repeatable = true },
		{ "POST / HTTP/1.1\r\n" HOST END, "POST", 1 },
		{ "PATCH / HTTP/1.1\r\n" HOST END, "PATCH", 1 },
		{ "get / HTTP/1.1\r\n" HOST END, "get", 1 },
		{ "GETS / HTTP/1.1\r\n" HOST END, "GETS", 1 },
		{ "\r\nHEAD / HTTP/1.1\r\n" HOST END, "HEAD", 1, .head = true, .repeatable = true },
		{ "AAAAAAAAAABBBBBBBBBBCCCCCCCCCCDEEE / HTTP/1.1\r\n" HOST END,
		  "AAAAAAAAAABBBBBBBBBBCCCCCCCCCCD", 1 },
		{ "AAAAAAAAAABBBBBBBBBBCCCCCCCCCC / HTTP/1.1\r\n" HOST END,
		  "AAAAAAAAAABBBBBBBBBBCCCCCCCCCC", 1 },
		{ "HEAD / HTTP/1.0\r\n", "HEAD", 0, true, true, true },
		{ "HEAD / HTTP/1.0\r\nX y\r\n", "HEAD", -400, true, true, true },
		{ "HEAD / HTTP/1.1\r\nX y\r\n", "HEAD", -400, true, true, false },
		{ "HEAD x HTTP/1.0\r\n", "HEAD", -400, true, true, true },
		{ "HEAD / HTTP/2.0\r\n", "HEAD", -400, true, true, false },
		{ "HEAD /\r\n", "HEAD", -400, true, true, false },
		{ "CONNECT a:1 HTTP/1.1\r\n", "CONNECT", -405 },
		{ "HEAD / HTTP/1.1\r\n" HOST "Transfer-Encoding: x\r\n" END, "HEAD", -501, true, true },
		{ "HEAD\r\n", "", -400 },
		{ "HE(D / HTTP/1.1\r\n", "", -400 },
		{ "HEAD / HT", "", 0 },
		{ "\x16", "", -400 },
	};

	(void)state;
	for (size_t i = 0; i < COUNT(told); i++) {
		struct http1_scan scan = { 0 };
		struct http1_request got;
		int verdict = http1_request(&scan, told[i].bytes, strlen(told[i].bytes), &got);

		if ((verdict > 0 ? 1 : verdict) != told[i].verdict ||
		    strcmp(got.method, told[i].method) || got.head != told[i].head ||
		    got.repeatable != told[i].repeatable || got.version_1_0 != told[i].version_1_0)
			fail_msg("'%s': %d, '%s' head %d repeatable %d 1.0 %d", told[i].bytes,
				 verdict, got.method, got.head, got.repeatable, got.version_1_0);
	}
}

/* A head of exactly `len` bytes. */
static char *head_of(size_t len, const char *start)
{
	char *bytes = malloc(len);

	assert_non_null(bytes);
	memset(bytes, 'x', len);
	memcpy(bytes, start, strlen(start));
	memcpy(bytes + len - 4, "\r\n\r\n", 4);
	return bytes;
}

static void check_size_limit(const struct head_case *c, int refusal)
{
	char *bytes = head_of(HTTP1_HEAD_MAX + 1, c->bytes);
	struct outcome outcome = { 0 };

	assert_int_equal(parse_exact(c, bytes, HTTP1_HEAD_MAX - 1, &outcome), 0);
	assert_int_equal(parse_exact(c, bytes, HTTP1_HEAD_MAX, &outcome), refusal);
	outcome = (struct outcome){ 0 };
	assert_int_equal(parse_exact(c, bytes, HTTP1_HEAD_MAX + 1, &outcome), refusal);
	free(bytes);
	bytes = head_of(HTTP1_HEAD_MAX, c->bytes);
	outcome = (struct outcome){ 0 };
	assert_int_equal(parse_exact(c, bytes, HTTP1_HEAD_MAX, &outcome), HTTP1_HEAD_MAX);
	outcome = (struct outcome){ 0 };
	assert_int_equal(parse_exact(c, bytes, HTTP1_HEAD_MAX - 1, &outcome), 0);
	assert_int_equal(parse_exact(c, bytes, HTTP1_HEAD_MAX, &outcome), HTTP1_HEAD_MAX);
	free(bytes);
}

static void head_size_limit(void **state)
{
	(void)state;
	check_size_limit(&(struct head_case){ .bytes = GET HOST "X: " }, -431);
	check_size_limit(&(struct head_case){ .bytes = END GET HOST "X: " }, -431);
	check_size_limit(&(struct head_case){ .bytes = OK "X: ", .asked = &get }, -502);
}

/* A first line without end is a head too large, not a wait. */
static void first_line_without_end(void **state)
{
	char *bytes = malloc(HTTP1_HEAD_MAX);
	struct head_case c = { 0 };
	struct outcome outcome = { 0 };

	(void)state;
	memset(bytes, 'A', HTTP1_HEAD_MAX);
	assert_int_equal(parse_exact(&c, bytes, HTTP1_HEAD_MAX, &outcome), -431);
	memcpy(bytes, "HTTP/1.1 200 ", 13);
	c.asked = &get;
	outcome = (struct outcome){ 0 };
	assert_int_equal(parse_exact(&c, bytes, HTTP1_HEAD_MAX, &outcome), -502);
	free(bytes);
}

/* `start` has one field already; 1: all of it is accepted. */
static int parse_fields(const struct head_case *c, unsigned int count)
{
	static char bytes[HTTP1_HEAD_MAX];
	int len = snprintf(bytes, sizeof(bytes), "%s", c->bytes);
	struct outcome outcome = { 0 };
	int verdict;

	for (unsigned int i = 1; i < count; i++)
		len += snprintf(bytes + len, sizeof(bytes) - (size_t)len, "X-%u: y\r\n", i);
	len += snprintf(bytes + len, sizeof(bytes) - (size_t)len, "\r\n");
	verdict = parse_exact(c, bytes, (size_t)len, &outcome);
	return verdict == len ? 1 : verdict;
}

static void field_count_limit(void **state)
{
	const struct head_case request = { .bytes = GET HOST };
	const struct head_case response = { .bytes = OK HOST, .asked = &get };

	(void)state;
	assert_int_equal(parse_fields(&request, HTTP1_FIELDS_MAX), 1);
	assert_int_equal(parse_fields(&request, HTTP1_FIELDS_MAX + 1), -431);
	assert_int_equal(parse_fields(&request, HTTP1_FIELDS_MAX * 4), -431);
	assert_int_equal(parse_fields(&response, HTTP1_FIELDS_MAX), 1);
	assert_int_equal(parse_fields(&response, HTTP1_FIELDS_MAX * 4), 1);
}

/* Many small reads of a large head must not look at every byte again each time. */
static void scanning_is_linear(void **state)
{
	char *bytes = head_of(HTTP1_HEAD_MAX, GET HOST "X: y\r\nZ: ");
	struct http1_scan scan = { 0 };
	struct http1_request out;

	(void)state;
	for (size_t n = 1; n < HTTP1_HEAD_MAX; n++) {
		assert_int_equal(http1_request(&scan, bytes, n, &out), 0);
		assert_int_equal(scan.seen, n);
	}
	assert_int_equal(http1_request(&scan, bytes, HTTP1_HEAD_MAX, &out), HTTP1_HEAD_MAX);
	assert_string_equal(out.host, "a.example");
	free(bytes);
}

static void start_chunked(struct http1_body *body)
{
	http1_body_start(body, HTTP1_CHUNKED, 0);
	assert_int_not_equal(body->state, HTTP1_BODY_DONE);
}

static size_t feed_exact(struct http1_body *body, const char *bytes, size_t len, int *err)
{
	char *copy = malloc(len ? len : 1);
	size_t n;

	assert_non_null(copy);
	memcpy(copy, bytes, len);
	n = http1_body_feed(body, copy, len, err);
	assert_true(n <= len);
	assert_true(!*err || *err == -EBADMSG);
	free(copy);
	return n;
}

static void check_body(const struct body_case *c, const char *how, size_t used, int err,
		       const struct http1_body *body)
{
	size_t expected = c->used == ALL ? strlen(c->bytes) : (size_t)c->used;

	if (used != expected || (c->end == BAD) != !!err ||
	    (!err && (body->state == HTTP1_BODY_DONE) != (c->end == DONE)))
		fail_msg("%s, %s: %zu bytes, error %d, state %d; expected %zu", c->name, how, used,
			 err, body->state, expected);
}

static void chunked_whole(void **state)
{
	(void)state;
	for (const struct body_case *c = bodies; c < bodies + COUNT(bodies); c++) {
		struct http1_body body;
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
	for (const struct body_case *c = bodies; c < bodies + COUNT(bodies); c++) {
		size_t len = strlen(c->bytes);

		for (size_t cut = 0; cut <= len; cut++) {
			struct http1_body body;
			size_t used;
			int err;

			start_chunked(&body);
			used = feed_exact(&body, c->bytes, cut, &err);
			if (!err)
				used += feed_exact(&body, c->bytes + used, len - used, &err);
			check_body(c, "in two", used, err, &body);
		}
	}
}

/* Each byte comes alone, behind what has not been used of those before it. */
static size_t feed_slowly(struct http1_body *body, const char *bytes, size_t len, int *err)
{
	size_t used = 0;

	*err = 0;
	for (size_t come = 1; come <= len && !*err; come++)
		used += feed_exact(body, bytes + used, come - used, err);
	return used;
}

static void chunked_byte_by_byte(void **state)
{
	(void)state;
	for (const struct body_case *c = bodies; c < bodies + COUNT(bodies); c++) {
		struct http1_body body;
		size_t used;
		int err;

		start_chunked(&body);
		used = feed_slowly(&body, c->bytes, strlen(c->bytes), &err);
		check_body(c, "byte by byte", used, err, &body);
	}
}

static void chunked_mutated(void **state)
{
	uint32_t seed = 9112;

	(void)state;
	for (size_t i = 0; i < 40 * COUNT(bodies); i++) {
		const struct body_case *c = &bodies[i % COUNT(bodies)];
		struct http1_body whole, slow;
		char bytes[256];
		size_t len = strlen(c->bytes), used;
		int err, slow_err;

		memcpy(bytes, c->bytes, len);
		len = mutate(bytes, len, &seed);
		start_chunked(&whole);
		start_chunked(&slow);
		used = feed_exact(&whole, bytes, len, &err);
		assert_int_equal(feed_slowly(&slow, bytes, len, &slow_err), used);
		assert_int_equal(slow_err, err);
		assert_memory_equal(&slow, &whole, sizeof(whole));
	}
}

/* Data passed unseen (spliced) counts as data that was looked at. */
static void chunked_skipping_data(void **state)
{
	(void)state;
	for (const struct body_case *c = bodies; c < bodies + COUNT(bodies); c++) {
		size_t len = strlen(c->bytes), used = 0;
		struct http1_body body;
		int err = 0;

		start_chunked(&body);
		for (size_t come = 1; come <= len && !err;) {
			uint64_t opaque = http1_body_opaque(&body);

			if (opaque) {
				size_t n = opaque < len - used ? (size_t)opaque : len - used;

				http1_body_skip(&body, n);
				used += n;
				come = used + 1;
			} else {
				used += feed_exact(&body, c->bytes + used, come++ - used, &err);
			}
		}
		check_body(c, "skipping", used, err, &body);
	}
}

static void body_by_length(void **state)
{
	struct http1_body body;
	int err;

	(void)state;
	http1_body_start(&body, HTTP1_LENGTH, 10);
	assert_int_equal(http1_body_opaque(&body), 10);
	assert_int_equal(http1_body_feed(&body, "0123", 4, &err), 4);
	assert_int_equal(err, 0);
	assert_int_equal(http1_body_opaque(&body), 6);
	http1_body_skip(&body, 2);
	assert_int_equal(http1_body_feed(&body, "6789GET /", 9, &err), 4);
	assert_int_equal(err, 0);
	assert_int_equal(body.state, HTTP1_BODY_DONE);
	assert_int_equal(http1_body_opaque(&body), 0);
	assert_int_equal(http1_body_feed(&body, "x", 1, &err), 0);
	http1_body_start(&body, HTTP1_LENGTH, 10);
	http1_body_skip(&body, 10);
	assert_int_equal(body.state, HTTP1_BODY_DONE);
}

static void body_to_eof(void **state)
{
	struct http1_body body;
	int err;

	(void)state;
	http1_body_start(&body, HTTP1_TO_EOF, 0);
	assert_true(http1_body_opaque(&body) == UINT64_MAX);
	http1_body_skip(&body, UINT64_MAX);
	assert_int_equal(http1_body_feed(&body, "0\r\n\r\nHTTP/1.1", 13, &err), 13);
	assert_int_equal(err, 0);
	assert_int_equal(body.state, HTTP1_BODY_TO_EOF);
}

static void no_body(void **state)
{
	struct http1_body body = { 0 };
	int err;

	(void)state;
	assert_int_equal(http1_body_feed(&body, "GET /", 5, &err), 0);
	http1_body_start(&body, HTTP1_LENGTH, 0);
	assert_int_equal(body.state, HTTP1_BODY_DONE);
	http1_body_start(&body, HTTP1_NONE, 0);
	assert_int_equal(body.state, HTTP1_BODY_DONE);
	assert_int_equal(http1_body_opaque(&body), 0);
	assert_int_equal(http1_body_feed(&body, "GET /", 5, &err), 0);
	assert_int_equal(err, 0);
}

/* A line of `len` bytes, fed whole, without its last byte, and then again with it. */
static void check_line_limit(const char *before, const char *start, size_t len, bool allowed)
{
	char *line = head_of(len + 2, start); /* ends in two CRLFs, of which one is used */
	struct http1_body body;
	int err;

	start_chunked(&body);
	http1_body_feed(&body, before, strlen(before), &err);
	assert_int_equal(feed_exact(&body, line, len, &err), allowed ? len : 0);
	assert_int_equal(err, allowed ? 0 : -EBADMSG);
	start_chunked(&body);
	http1_body_feed(&body, before, strlen(before), &err);
	assert_int_equal(feed_exact(&body, line, len - 1, &err), 0);
	assert_int_equal(err, allowed ? 0 : -EBADMSG);
	if (allowed)
		assert_int_equal(feed_exact(&body, line, len, &err), len);
	free(line);
}

static void line_limits(void **state)
{
	(void)state;
	check_line_limit("", "5;", HTTP1_LINE_MAX, true);
	check_line_limit("", "5;", HTTP1_LINE_MAX + 1, false);
	check_line_limit("", "5;a=\"", 65536, false);
	check_line_limit("0\r\n", "A: ", HTTP1_LINE_MAX, true);
	check_line_limit("0\r\n", "A: ", HTTP1_LINE_MAX + 1, false);
	check_line_limit("0\r\nA: b\r\n", "A: ", HTTP1_LINE_MAX - 6, true);
	check_line_limit("0\r\nA: b\r\n", "A: ", HTTP1_LINE_MAX - 5, false);
}

static void full_trailer_ends(void **state)
{
	char *line = head_of(HTTP1_LINE_MAX + 2, "A: ");
	struct http1_body body;
	int err;

	(void)state;
	start_chunked(&body);
	http1_body_feed(&body, "0\r\n", 3, &err);
	assert_int_equal(feed_exact(&body, line, HTTP1_LINE_MAX + 2, &err), HTTP1_LINE_MAX + 2);
	assert_int_equal(body.state, HTTP1_BODY_DONE);
	free(line);
}

static void trailer_count_limit(void **state)
{
	struct http1_body body;
	int err;

	(void)state;
	start_chunked(&body);
	http1_body_feed(&body, "0\r\n", 3, &err);
	for (int i = 0; i < HTTP1_FIELDS_MAX; i++)
		assert_int_equal(http1_body_feed(&body, "Ab: 1\r\n", 7, &err), 7);
	assert_int_equal(http1_body_feed(&body, "Ab: 1\r\n", 7, &err), 0);
	assert_int_equal(err, -EBADMSG);
	assert_int_equal(http1_body_feed(&body, "\r\n", 2, &err), 2);
	assert_int_equal(body.state, HTTP1_BODY_DONE);
}

/* The bound is a chunk's, not the body's. */
static void many_extensions(void **state)
{
	struct http1_body body;
	int err;

	(void)state;
	start_chunked(&body);
	for (int i = 0; i < 5000; i++) {
		assert_int_equal(http1_body_feed(&body, "1;extension\r\nx\r\n", 16, &err), 16);
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
		cmocka_unit_test(heads_mutated),
		cmocka_unit_test(refused_at_once),
		cmocka_unit_test(request_line_is_told),
		cmocka_unit_test(head_size_limit),
		cmocka_unit_test(first_line_without_end),
		cmocka_unit_test(field_count_limit),
		cmocka_unit_test(scanning_is_linear),
		cmocka_unit_test(chunked_whole),
		cmocka_unit_test(chunked_in_two),
		cmocka_unit_test(chunked_byte_by_byte),
		cmocka_unit_test(chunked_mutated),
		cmocka_unit_test(chunked_skipping_data),
		cmocka_unit_test(body_by_length),
		cmocka_unit_test(body_to_eof),
		cmocka_unit_test(no_body),
		cmocka_unit_test(line_limits),
		cmocka_unit_test(full_trailer_ends),
		cmocka_unit_test(trailer_count_limit),
		cmocka_unit_test(many_extensions),
	};

	return cmocka_run_group_tests_name("http1", tests, NULL, NULL);
}
