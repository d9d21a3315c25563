// SPDX-License-Identifier: MIT
/* Requests on one connection, heads and bodies: user/http1.c. */
#include "fuzz.h"
#include "head.h"
#include "http1.h"

struct connection {
	size_t at; /* what was taken */
	unsigned int requests;
	int verdict; /* of what ended it */
	bool last; /* the request taken last is the last one */
	bool over;
	struct http1_scan scan;
	struct http1_body body;
	struct http1_request request;
};

static void expect_sound(const char *data, size_t len, const struct http1_request *request)
{
	const char *head = data + request->skip;
	unsigned int hosts, lengths, codings;

	expect(len <= HTTP1_HEAD_MAX && (!request->skip || request->skip == 2));
	len -= request->skip;
	expect_clean(head, len);
	expect_normalised(request->host);
	expect(!memcmp(head, request->method, strlen(request->method)));
	expect(request->head == !strcmp(request->method, "HEAD"));
	find_field(head, len, "Host", &hosts);
	find_field(head, len, "Content-Length", &lengths);
	find_field(head, len, "Transfer-Encoding", &codings);
	expect(lengths + codings <= 1);
	expect(request->version_1_0 ? hosts <= 1 : hosts == 1 && *request->host);
	expect((request->framing == HTTP1_CHUNKED) == codings);
	expect(request->length == said_length(head, len));
	expect((request->framing == HTTP1_LENGTH) == (request->length > 0));
	expect(!request->version_1_0 || (!request->upgrade && !codings));
}

static void take_body(struct connection *connection, const char *data, size_t len)
{
	size_t n = http1_body_feed(&connection->body, data, len, &connection->verdict);

	expect(n <= len);
	connection->at += n;
	if (connection->verdict)
		connection->over = true;
}

static void take_head(struct connection *connection, const char *data, size_t len)
{
	struct http1_request *request = &connection->request;
	int n = http1_request(&connection->scan, data, len, request);

	if (n <= 0) {
		expect(!n || n == -400 || n == -405 || n == -431 || n == -501);
		connection->verdict = n;
		connection->over = n;
		return;
	}
	expect((size_t)n <= len);
	expect_sound(data, (size_t)n, request);
	connection->at += (size_t)n;
	connection->requests++;
	connection->last = !request->keep_alive;
	connection->scan = (struct http1_scan){ 0 };
	http1_body_start(&connection->body, request->framing, request->length);
}

static void look_at(void *state, const char *data, size_t len)
{
	struct connection *connection = state;
	size_t before;

	do {
		before = connection->at;
		if (connection->over)
			return;
		if (connection->body.state != HTTP1_BODY_DONE)
			take_body(connection, data + before, len - before);
		else if (connection->last)
			connection->over = true;
		else
			take_head(connection, data + before, len - before);
	} while (connection->at != before);
}

/* What is told of a request that was refused counts as well. */
static void expect_same(const struct connection *a, const struct connection *b)
{
	const struct http1_request *left = &a->request, *right = &b->request;

	expect(a->at == b->at && a->requests == b->requests && a->verdict == b->verdict);
	expect(a->over == b->over && a->body.state == b->body.state);
	expect(a->body.left == b->body.left && a->body.trailer_bytes == b->body.trailer_bytes);
	expect(!strcmp(left->method, right->method) && !strcmp(left->host, right->host));
	expect(left->skip == right->skip && left->head == right->head);
	expect(left->repeatable == right->repeatable && left->upgrade == right->upgrade);
	expect(left->version_1_0 == right->version_1_0 && left->keep_alive == right->keep_alive);
	expect(left->framing == right->framing && left->length == right->length);
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t len);
int LLVMFuzzerTestOneInput(const uint8_t *data, size_t len)
{
	struct connection connections[DELIVERIES] = { 0 };

	for (unsigned int how = WHOLE; how < DELIVERIES; how++) {
		deliver(how, data, len, look_at, &connections[how]);
		expect_same(&connections[WHOLE], &connections[how]);
	}
	return 0;
}
