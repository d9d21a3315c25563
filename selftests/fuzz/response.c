// SPDX-License-Identifier: MIT
/* Answers on one connection, heads and bodies, to each kind of question: user/http1.c. */
#include "fuzz.h"
#include "head.h"
#include "http1.h"

struct connection {
	const struct http1_request *asked;
	size_t at; /* what was taken */
	unsigned int answers;
	int verdict; /* of what ended it */
	bool last; /* the answer taken last is the last one */
	bool over;
	struct http1_scan scan;
	struct http1_body body;
	struct http1_response response;
};

static void expect_framed(const struct http1_request *asked, const struct http1_response *answer,
			  unsigned int lengths, unsigned int codings, uint64_t length)
{
	bool bare = answer->status < 200 || answer->status == 204;

	if (answer->status == 101) {
		expect(asked->upgrade && answer->framing == HTTP1_TO_EOF && !codings && !length);
	} else if (bare || answer->status == 304 || asked->head) {
		expect(answer->framing == HTTP1_NONE && (!bare || (!codings && !length)));
	} else if (codings) {
		expect(answer->framing == HTTP1_CHUNKED);
	} else if (lengths) {
		expect(answer->framing == (length ? HTTP1_LENGTH : HTTP1_NONE));
	} else {
		expect(answer->framing == HTTP1_TO_EOF);
	}
	expect(answer->length == (answer->framing == HTTP1_LENGTH ? length : 0));
	expect(answer->framing != HTTP1_TO_EOF || !answer->keep_alive);
}

static void expect_sound(const char *head, size_t len, const struct http1_request *asked,
			 const struct http1_response *answer)
{
	unsigned int lengths, codings;

	expect(len <= HTTP1_HEAD_MAX);
	expect_clean(head, len);
	find_field(head, len, "Content-Length", &lengths);
	find_field(head, len, "Transfer-Encoding", &codings);
	expect(lengths + codings <= 1);
	expect(answer->status >= 100 && answer->status == (unsigned int)atoi(head + 9));
	expect_framed(asked, answer, lengths, codings, said_length(head, len));
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
	struct http1_response *answer = &connection->response;
	int n = http1_response(&connection->scan, data, len, connection->asked, answer);

	if (n <= 0) {
		expect(!n || n == -502);
		connection->verdict = n;
		connection->over = n;
		return;
	}
	expect((size_t)n <= len);
	expect_sound(data, (size_t)n, connection->asked, answer);
	connection->at += (size_t)n;
	connection->answers++;
	connection->last = answer->status >= 200 && !answer->keep_alive;
	connection->scan = (struct http1_scan){ 0 };
	http1_body_start(&connection->body, answer->framing, answer->length);
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

static void expect_same(const struct connection *a, const struct connection *b)
{
	const struct http1_response *left = &a->response, *right = &b->response;

	expect(a->at == b->at && a->answers == b->answers && a->verdict == b->verdict);
	expect(a->over == b->over && a->body.state == b->body.state);
	expect(a->body.left == b->body.left && a->body.trailer_bytes == b->body.trailer_bytes);
	expect(left->status == right->status && left->keep_alive == right->keep_alive);
	expect(left->framing == right->framing && left->length == right->length);
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t len);
int LLVMFuzzerTestOneInput(const uint8_t *data, size_t len)
{
	static const struct http1_request questions[] = {
		{ .method = "GET", .keep_alive = true },
		{ .method = "HEAD", .head = true, .keep_alive = true },
		{ .method = "GET", .upgrade = true, .keep_alive = true },
		{ .method = "GET", .version_1_0 = true },
	};

	struct connection connections[DELIVERIES] = { 0 };
	size_t question = input_hash(data, len) / 4 % (sizeof(questions) / sizeof(*questions));

	for (unsigned int how = WHOLE; how < DELIVERIES; how++) {
		connections[how].asked = &questions[question];
		deliver(how, data, len, look_at, &connections[how]);
		expect_same(&connections[WHOLE], &connections[how]);
	}
	return 0;
}
