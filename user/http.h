/* SPDX-License-Identifier: MIT */
/*
 * GET requests by libcurl's multi interface on a loop; http.c alone includes curl. Callbacks come
 * in the loop's thread. `head` and `data` run inside of libcurl: neither may start or cancel a
 * request there (defer it); `done` may.
 */
#ifndef KKM_HTTP_H
#define KKM_HTTP_H

#include <stddef.h>
#include <stdint.h>

#include "loop.h"

struct http;
struct http_request;

struct http_handler {
	void (*head)(void *ctx, long status);
	/* 0, or -errno to end the request, which `done` then gets */
	int (*data)(void *ctx, const char *data, size_t len);
	/* err: 0 where a whole answer came, whatever its status. `reason` is text for a log. */
	void (*done)(void *ctx, int err, long status, const char *reason);
	void *ctx;
};

/* 0 or -errno. */
int http_new(struct loop *loop, struct http **out);
void http_free(struct http **http); /* cancels what is under way */

/*
 * unix_socket may be NULL. timeout_ms 0 is no limit but the connect's. 0 or -errno; *out is valid
 * until `done` returns or http_cancel().
 */
int http_get(struct http *http, const char *url, const char *unix_socket, uint64_t timeout_ms,
	     const struct http_handler *handler, struct http_request **out);
/* Without a call of `done`. NULL-safe, resets *request. */
void http_cancel(struct http_request **request);

/* Percent-encoded, malloced; NULL without memory. */
char *http_escape(const char *text);
const char *http_library_version(void);

/*
 * One GET, waiting for it, for the commands that read the agent's admin socket. 0 with the body
 * (malloced, NUL-terminated) and the status, or -errno.
 */
int http_fetch(const char *url, const char *unix_socket, uint64_t timeout_ms, char **body,
	       long *status);

#endif
