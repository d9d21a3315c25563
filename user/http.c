// SPDX-License-Identifier: MIT
#include "http.h"

#include <curl/curl.h>
#include <errno.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#define CONNECT_TIMEOUT_MS 5000
#define FETCH_MAX (16 * 1024 * 1024)

struct http {
	struct loop *loop;
	CURLM *multi;
	struct loop_timer timer;
	struct http_request *requests;
};

struct http_request {
	struct http *http;
	CURL *easy;
	struct http_handler handler;
	int abort_err; /* what the data callback answered */
	char reason[CURL_ERROR_SIZE];
	struct http_request *next, **link;
};

/* One of libcurl's sockets on the loop. */
struct watch {
	struct loop_io io;
	struct http *http;
	struct loop_task gone; /* freed when the turn has dropped what it had collected for it */
};

static void watch_free(struct loop_task *task)
{
	free((char *)task - offsetof(struct watch, gone));
}

static void collect_done(struct http *http);

static void act(struct http *http, curl_socket_t fd, int events)
{
	int running;

	curl_multi_socket_action(http->multi, fd, events, &running);
	collect_done(http);
}

static void watch_ready(struct loop_io *io, uint32_t events)
{
	struct watch *watch = (struct watch *)io;
	int action = 0;

	if (events & (EPOLLIN | EPOLLHUP | EPOLLRDHUP))
		action |= CURL_CSELECT_IN;
	if (events & EPOLLOUT)
		action |= CURL_CSELECT_OUT;
	if (events & EPOLLERR)
		action |= CURL_CSELECT_ERR;
	act(watch->http, io->fd, action);
}

static int on_socket(CURL *easy, curl_socket_t fd, int what, void *ctx, void *socket_ctx)
{
	struct http *http = ctx;
	struct watch *watch = socket_ctx;
	uint32_t events = (what & CURL_POLL_IN ? EPOLLIN : 0) | (what & CURL_POLL_OUT ? EPOLLOUT : 0);

	(void)easy;
	if (what == CURL_POLL_REMOVE) {
		if (watch) {
			loop_del(http->loop, &watch->io);
			curl_multi_assign(http->multi, fd, NULL);
			loop_defer(http->loop, &watch->gone);
		}
		return 0;
	}
	if (watch)
		return loop_mod(http->loop, &watch->io, events) ? -1 : 0;
	watch = calloc(1, sizeof(*watch));
	if (!watch)
		return -1;
	watch->http = http;
	watch->io.ready = watch_ready;
	watch->gone.run = watch_free;
	if (loop_add(http->loop, &watch->io, fd, events)) {
		free(watch);
		return -1;
	}
	curl_multi_assign(http->multi, fd, watch);
	return 0;
}

static void timer_fire(struct loop_timer *timer)
{
	struct http *http = (struct http *)((char *)timer - offsetof(struct http, timer));

	act(http, CURL_SOCKET_TIMEOUT, 0);
}

static int on_timer(CURLM *multi, long timeout_ms, void *ctx)
{
	struct http *http = ctx;

	(void)multi;
	if (timeout_ms < 0)
		loop_timer_clear(http->loop, &http->timer);
	else
		return loop_timer_set(http->loop, &http->timer, (uint64_t)timeout_ms) ? -1 : 0;
	return 0;
}

int http_new(struct loop *loop, struct http **out)
{
	struct http *http = calloc(1, sizeof(*http));

	if (!http)
		return -ENOMEM;
	http->loop = loop;
	http->timer.fire = timer_fire;
	http->multi = curl_multi_init();
	if (!http->multi) {
		free(http);
		return -ENOMEM;
	}
	curl_multi_setopt(http->multi, CURLMOPT_SOCKETFUNCTION, on_socket);
	curl_multi_setopt(http->multi, CURLMOPT_SOCKETDATA, http);
	curl_multi_setopt(http->multi, CURLMOPT_TIMERFUNCTION, on_timer);
	curl_multi_setopt(http->multi, CURLMOPT_TIMERDATA, http);
	*out = http;
	return 0;
}

static void request_free(struct http_request *request)
{
	if (request->link) {
		*request->link = request->next;
		if (request->next)
			request->next->link = request->link;
	}
	if (request->easy) {
		curl_multi_remove_handle(request->http->multi, request->easy);
		curl_easy_cleanup(request->easy);
	}
	free(request);
}

void http_free(struct http **ptr)
{
	struct http *http = *ptr;

	if (!http)
		return;
	*ptr = NULL;
	while (http->requests)
		request_free(http->requests);
	loop_timer_clear(http->loop, &http->timer);
	curl_multi_cleanup(http->multi);
	free(http);
}

static size_t on_data(char *data, size_t size, size_t count, void *ctx)
{
	struct http_request *request = ctx;

	request->abort_err = request->handler.data(request->handler.ctx, data, size * count);
	return request->abort_err ? 0 : size * count;
}

/* The empty line ends a head; libcurl calls this for the heads of 1xx answers too. */
static size_t on_header(char *data, size_t size, size_t count, void *ctx)
{
	struct http_request *request = ctx;
	size_t len = size * count;
	long status = 0;

	if (len == 2 && data[0] == '\r' && request->handler.head) {
		curl_easy_getinfo(request->easy, CURLINFO_RESPONSE_CODE, &status);
		if (status >= 200)
			request->handler.head(request->handler.ctx, status);
	}
	return len;
}

static int error_of(CURLcode code)
{
	switch (code) {
	case CURLE_OK:
		return 0;
	case CURLE_COULDNT_CONNECT:
		return -ECONNREFUSED;
	case CURLE_OPERATION_TIMEDOUT:
		return -ETIMEDOUT;
	case CURLE_OUT_OF_MEMORY:
		return -ENOMEM;
	case CURLE_COULDNT_RESOLVE_HOST:
		return -EHOSTUNREACH;
	case CURLE_GOT_NOTHING:
	case CURLE_PARTIAL_FILE:
	case CURLE_RECV_ERROR:
	case CURLE_SEND_ERROR:
		return -ECONNRESET;
	default:
		return -EPROTO;
	}
}

static void finish(struct http_request *request, CURLcode code)
{
	struct http_handler handler = request->handler;
	int err = request->abort_err ? request->abort_err : error_of(code);
	char reason[CURL_ERROR_SIZE];
	long status = 0, os_errno = 0;

	curl_easy_getinfo(request->easy, CURLINFO_RESPONSE_CODE, &status);
	curl_easy_getinfo(request->easy, CURLINFO_OS_ERRNO, &os_errno);
	memcpy(reason, request->reason, sizeof(reason));
	/* libcurl names a host that nobody gave, and not the reason */
	if (code == CURLE_COULDNT_CONNECT && os_errno)
		snprintf(reason, sizeof(reason), "%s", strerror((int)os_errno));
	else if (!*reason)
		strncpy(reason, curl_easy_strerror(code), sizeof(reason) - 1);
	request_free(request);
	handler.done(handler.ctx, err, status, reason);
}

static void collect_done(struct http *http)
{
	struct CURLMsg *message;
	int left;

	while ((message = curl_multi_info_read(http->multi, &left))) {
		struct http_request *request;
		char *private;

		if (message->msg != CURLMSG_DONE)
			continue;
		curl_easy_getinfo(message->easy_handle, CURLINFO_PRIVATE, &private);
		request = (struct http_request *)private;
		finish(request, message->data.result);
	}
}

static void set_options(CURL *easy, const char *url, const char *unix_socket, uint64_t timeout_ms)
{
	curl_easy_setopt(easy, CURLOPT_URL, url);
	curl_easy_setopt(easy, CURLOPT_HTTPGET, 1L);
	curl_easy_setopt(easy, CURLOPT_NOSIGNAL, 1L);
	curl_easy_setopt(easy, CURLOPT_PROTOCOLS_STR, "http");
	/* the daemon is spoken to directly, whatever http_proxy says */
	curl_easy_setopt(easy, CURLOPT_PROXY, "");
	curl_easy_setopt(easy, CURLOPT_CONNECTTIMEOUT_MS, (long)CONNECT_TIMEOUT_MS);
	curl_easy_setopt(easy, CURLOPT_TIMEOUT_MS, (long)timeout_ms);
	if (unix_socket)
		curl_easy_setopt(easy, CURLOPT_UNIX_SOCKET_PATH, unix_socket);
}

int http_get(struct http *http, const char *url, const char *unix_socket, uint64_t timeout_ms,
	     const struct http_handler *handler, struct http_request **out)
{
	struct http_request *request = calloc(1, sizeof(*request));

	if (!request)
		return -ENOMEM;
	request->http = http;
	request->handler = *handler;
	request->easy = curl_easy_init();
	if (!request->easy) {
		free(request);
		return -ENOMEM;
	}
	set_options(request->easy, url, unix_socket, timeout_ms);
	curl_easy_setopt(request->easy, CURLOPT_PRIVATE, request);
	curl_easy_setopt(request->easy, CURLOPT_ERRORBUFFER, request->reason);
	curl_easy_setopt(request->easy, CURLOPT_WRITEFUNCTION, on_data);
	curl_easy_setopt(request->easy, CURLOPT_WRITEDATA, request);
	curl_easy_setopt(request->easy, CURLOPT_HEADERFUNCTION, on_header);
	curl_easy_setopt(request->easy, CURLOPT_HEADERDATA, request);
	request->next = http->requests;
	if (request->next)
		request->next->link = &request->next;
	request->link = &http->requests;
	http->requests = request;
	if (curl_multi_add_handle(http->multi, request->easy)) {
		request_free(request);
		return -ENOMEM;
	}
	*out = request;
	return 0;
}

void http_cancel(struct http_request **request)
{
	if (*request)
		request_free(*request);
	*request = NULL;
}

char *http_escape(const char *text)
{
	char *escaped = curl_easy_escape(NULL, text, 0);
	char *copy = escaped ? strdup(escaped) : NULL;

	curl_free(escaped);
	return copy;
}

const char *http_library_version(void)
{
	return curl_version_info(CURLVERSION_NOW)->version;
}

struct fetched {
	char *data;
	size_t len;
};

static size_t fetch_data(char *data, size_t size, size_t count, void *ctx)
{
	struct fetched *fetched = ctx;
	size_t len = size * count;
	char *grown;

	if (fetched->len + len > FETCH_MAX)
		return 0;
	grown = realloc(fetched->data, fetched->len + len + 1);
	if (!grown)
		return 0;
	memcpy(grown + fetched->len, data, len);
	fetched->data = grown;
	fetched->len += len;
	grown[fetched->len] = '\0';
	return len;
}

int http_fetch(const char *url, const char *unix_socket, uint64_t timeout_ms, char **body,
	       long *status)
{
	struct fetched fetched = { .data = calloc(1, 1) };
	CURL *easy = curl_easy_init();
	int err = -ENOMEM;

	if (easy && fetched.data) {
		set_options(easy, url, unix_socket, timeout_ms);
		curl_easy_setopt(easy, CURLOPT_WRITEFUNCTION, fetch_data);
		curl_easy_setopt(easy, CURLOPT_WRITEDATA, &fetched);
		err = error_of(curl_easy_perform(easy));
		curl_easy_getinfo(easy, CURLINFO_RESPONSE_CODE, status);
	}
	curl_easy_cleanup(easy);
	if (err)
		free(fetched.data);
	else
		*body = fetched.data;
	return err;
}
