/* SPDX-License-Identifier: MIT */
/*
 * Requests on the wire (RFC 9112): the strict parser of a head, and the framing of what follows it.
 * Pure: no descriptor, no clock, no allocation. What is refused here never reaches a container.
 */
#ifndef KKM_REQHEAD_H
#define KKM_REQHEAD_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#include "hostname.h"

#define REQHEAD_MAX 65536	/* bytes of a head, with its empty line */
#define REQHEAD_MAX_FIELDS 128

enum reqhead_body { BODY_NONE, BODY_LENGTH, BODY_CHUNKED };

struct reqhead {
	bool head;	   /* the method is HEAD: an answer has no body */
	bool has_host;	   /* false: HTTP/1.0 without Host */
	bool upgrade;	   /* Upgrade, with a Connection field that names it */
	enum reqhead_body body;
	uint64_t length;   /* BODY_LENGTH; never 0 */
	char host[HOSTNAME_MAX + 1];
};

/*
 * Parse the head at the beginning of data. Returns its length, 0 where it is not complete yet, or
 * the negated status to answer: -400, -405, -431, -501. `scanned` is the caller's, 0 for a new
 * head, and keeps the work of many small reads linear: call again with the same bytes and more.
 */
int reqhead_parse(const char *data, size_t len, size_t *scanned, struct reqhead *out);

/* Where the stream of requests stands. Zeroed: before a head. */
struct reqbody {
	enum reqbody_state {
		REQBODY_DONE,	    /* a head is next */
		REQBODY_LENGTH,	    /* `left` bytes */
		REQBODY_SIZE,	    /* chunk-size line */
		REQBODY_EXTENSION,
		REQBODY_SIZE_LF,
		REQBODY_DATA,	    /* `left` bytes of a chunk */
		REQBODY_DATA_CR,
		REQBODY_DATA_LF,
		REQBODY_TRAILER,    /* at the beginning of a line */
		REQBODY_FIELD,	    /* inside one */
		REQBODY_FIELD_LF,
		REQBODY_END_LF,
	} state;
	uint64_t left;
	unsigned int digits;	    /* of the chunk size */
	unsigned int overhead;	    /* bytes of this chunk's extension, or of the trailer */
};

void reqbody_start(struct reqbody *body, const struct reqhead *head);

/*
 * Follow the body through the next bytes. Returns how many of them belong to it and may be
 * forwarded; *err is 0 or -400, and then nothing behind the returned bytes may.
 */
size_t reqbody_feed(struct reqbody *body, const char *data, size_t len, int *err);

/* Bytes that may pass unseen: the rest of a Content-Length or of a chunk's data. */
uint64_t reqbody_opaque(const struct reqbody *body);
void reqbody_skip(struct reqbody *body, uint64_t n);

#endif
