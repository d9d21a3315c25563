/* SPDX-License-Identifier: MIT */
/*
 * HTTP/1.x on the wire (RFC 9110, RFC 9112): the one strict parser of heads, and the framing of what
 * follows them. Pure: no descriptor, no clock, no allocation. What is refused here never passes.
 */
#ifndef KKM_HTTP1_H
#define KKM_HTTP1_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#include "hostname.h"

#define HTTP1_HEAD_MAX 65536 /* bytes of a head, with its empty line */
#define HTTP1_FIELDS_MAX 128 /* of a request's head; of a trailer section too */
#define HTTP1_LINE_MAX 16384 /* bytes of a chunk-size line, and of a whole trailer section */
#define HTTP1_METHOD_MAX 31  /* characters kept of a method, for people to read */

enum http1_framing { HTTP1_NONE, HTTP1_LENGTH, HTTP1_CHUNKED, HTTP1_TO_EOF };

/*
 * Where the parser stands in a head that comes in pieces; zeroed before its first byte. Each line is
 * looked at once, when its end has come: so a verdict does not depend on where the pieces were cut.
 * What it remembers of earlier lines are places relative to the head's beginning.
 */
struct http1_scan {
	uint32_t line; /* where the next line begins */
	uint32_t seen; /* its end is not between there and here */
	uint32_t skip; /* bytes of an empty line before the head (RFC 9112, 2.2) */
	uint32_t host_at, host_len, target_at, target_len; /* authorities */
	uint16_t fields, status, method_len;
	bool first_done, version_1_0, has_host, has_length, has_coding, not_chunked;
	bool upgrade, connection_upgrade, connection_close, connection_keep_alive;
	uint64_t length;
};

struct http1_request {
	char method[HTTP1_METHOD_MAX + 1];
	char host[HOSTNAME_MAX + 1]; /* normalised; empty: HTTP/1.0 that names nobody */
	size_t skip;	   /* bytes at the beginning that belong to no request: an empty line */
	bool head;	   /* the method is HEAD: an answer has no body */
	bool repeatable;   /* may be sent twice: GET, HEAD, OPTIONS, TRACE, PUT, DELETE */
	bool upgrade;	   /* Upgrade, with a Connection field that names it */
	bool version_1_0;
	bool keep_alive;   /* the client wants the connection to go on */
	enum http1_framing framing; /* never HTTP1_TO_EOF */
	uint64_t length;   /* HTTP1_LENGTH; never 0 */
};

/*
 * Parse the head at the beginning of data. Returns its length, `skip` included, 0 where it is not
 * complete yet, or the negated status to answer: -400, -405, -431, -501. Call again with the same
 * bytes and more. Of `out`, `head`, `method` and `version_1_0` are right after a refusal too, as far
 * as the request line could be read.
 */
int http1_request(struct http1_scan *scan, const char *data, size_t len, struct http1_request *out);

struct http1_response {
	unsigned int status;
	bool keep_alive; /* the connection may go on behind this answer */
	enum http1_framing framing;
	uint64_t length; /* HTTP1_LENGTH; never 0 */
};

/*
 * The head of an answer to `asked`. Returns its length, 0 where it is not complete yet, or -502: not
 * HTTP/1.x, framed twice, a 101 that nobody asked for, too large. A 1xx other than 101 has no body,
 * and another head follows; behind a 101 (framing HTTP1_TO_EOF) is no HTTP.
 */
int http1_response(struct http1_scan *scan, const char *data, size_t len,
		   const struct http1_request *asked, struct http1_response *out);

/* Where a body stands. Zeroed: there is none, or it has ended. */
struct http1_body {
	enum http1_body_state {
		HTTP1_BODY_DONE,
		HTTP1_BODY_LENGTH,  /* `left` bytes */
		HTTP1_BODY_TO_EOF,
		HTTP1_BODY_SIZE,    /* a chunk-size line is next */
		HTTP1_BODY_DATA,    /* `left` bytes of a chunk */
		HTTP1_BODY_DATA_END, /* its CRLF */
		HTTP1_BODY_TRAILER, /* a line of the trailer section, perhaps the empty one, is next */
	} state;
	uint64_t left;
	unsigned int trailer_bytes, trailer_fields;
};

void http1_body_start(struct http1_body *body, enum http1_framing framing, uint64_t length);

/*
 * Follow the body through the next bytes. Returns how many of them belong to it and may be
 * forwarded: of a line, all or nothing, so bytes of an incomplete one have to be given again with
 * more behind them. *err is 0 or -EBADMSG, and then nothing behind the returned bytes may pass.
 */
size_t http1_body_feed(struct http1_body *body, const char *data, size_t len, int *err);

/* Bytes that may pass unseen: the rest of a length or of a chunk's data; UINT64_MAX up to the end. */
uint64_t http1_body_opaque(const struct http1_body *body);
/* So many of these have passed. */
void http1_body_skip(struct http1_body *body, uint64_t n);

#endif
