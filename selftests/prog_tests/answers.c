// SPDX-License-Identifier: MIT
/*
 * Answers of HTTP by the short way: which are taken, that their ends are known, and that the programs'
 * reading of a head never says anything else than the agent's own parser (user/http1.c) does.
 */
#include "fixture.h"

#include "http1.h"

#define TRIALS 20000

struct verdict {
	bool taken;
	unsigned int status;
	uint64_t left;
};

static void drain(struct flow *flow)
{
	char data[65536];

	while (recv(flow->upstream, data, sizeof(data), MSG_DONTWAIT) > 0)
		;
	while (recv(flow->browser, data, sizeof(data), MSG_DONTWAIT) > 0)
		;
}

/* The container sends this as its answer, in one message; the agent has armed for it. */
static struct verdict answer_with(struct flow *flow, const char *data, size_t len)
{
	uint64_t moved = engine_moved(&flow->leg);
	struct engine_answer answer = { 0 };
	struct verdict verdict;
	char relayed[65536];
	ssize_t n;

	if (!engine_arm(&flow->leg))
		tap_failure = "engine_arm";
	if (send(flow->container, data, len, MSG_NOSIGNAL) != (ssize_t)len)
		tap_failure = "the container's send";
	verdict.taken = engine_moved(&flow->leg) != moved;
	if (!engine_take_answer(&flow->leg, &answer) || answer.begun != verdict.taken)
		tap_failure = "engine_take_answer";
	if (verdict.taken && engine_moved(&flow->leg) != moved + len)
		tap_failure = "a part of a message was taken";
	if (!verdict.taken) {
		if (!wait_for(flow->upstream, POLLIN))
			tap_failure = "it did not come to the agent";
		n = recv(flow->upstream, relayed, sizeof(relayed), MSG_DONTWAIT);
		if (n != (ssize_t)len || memcmp(relayed, data, len))
			tap_failure = "what came to the agent";
		engine_relayed(&flow->leg, len, 0); /* as if: nobody reads it */
	}
	verdict.status = answer.status;
	verdict.left = answer.left;
	drain(flow);
	return verdict;
}

/* What the agent's parser says of it: whether it may be taken, and then the same. */
static bool agrees(const struct verdict *verdict, const char *data, size_t len)
{
	struct http1_request asked = { .method = "GET", .keep_alive = true };
	struct http1_scan scan = { 0 };
	struct http1_response response = { 0 };
	int head = http1_response(&scan, data, len, &asked, &response);
	uint64_t all = (uint64_t)(head > 0 ? head : 0) + response.length;

	if (!verdict->taken)
		return true;
	return head > 0 && response.keep_alive && response.status == verdict->status &&
	       response.status >= 200 &&
	       (response.framing == HTTP1_NONE || response.framing == HTTP1_LENGTH) &&
	       verdict->left == all - len;
}

#define ANSWER(text) text, sizeof(text) - 1

static const struct {
	const char *text;
	size_t len;
	bool taken;
	uint64_t left;
} table[] = {
	{ ANSWER("HTTP/1.1 200 OK\r\nContent-Length: 5\r\n\r\nhello"), true, 0 },
	{ ANSWER("HTTP/1.1 200 \r\ncontent-length:5\r\n\r\nhello"), true, 0 },
	{ ANSWER("HTTP/1.1 404 Not Found\r\nServer: nginx\r\nDate: Tue, 24 Nov 2026 18:00:00 GMT\r\n"
		 "Content-Type: text/html\r\nContent-Length: 0\r\nConnection: keep-alive\r\n\r\n"),
	  true, 0 },
	{ ANSWER("HTTP/1.1 200 OK\r\nCONNECTION: Keep-Alive\r\nCoNtEnT-lEnGtH:\t3\r\n\r\nabc"), true, 0 },
	{ ANSWER("HTTP/1.1 204 No Content\r\nX: y\r\n\r\n"), true, 0 },
	{ ANSWER("HTTP/1.1 304 Not Modified\r\nETag: \"a\"\r\n\r\n"), true, 0 },
	{ ANSWER("HTTP/1.1 200 OK\r\nContent-Length: 000000005\r\n\r\nhello"), true, 0 },
	{ ANSWER("HTTP/1.1 200 OK\r\nEmpty:\r\nContent-Length: 2\r\n\r\nok"), true, 0 },
	/* the head alone, or with a part of the body: the rest may follow */
	{ ANSWER("HTTP/1.1 200 OK\r\nContent-Length: 5\r\n\r\n"), true, 5 },
	{ ANSWER("HTTP/1.1 200 OK\r\nContent-Length: 32768\r\n\r\nx"), true, 32767 },
	/* but not of a large one */
	{ ANSWER("HTTP/1.1 200 OK\r\nContent-Length: 32769\r\n\r\nx"), false, 0 },
	/* too much, too little, unknown, another form of length, or the agent has to know of it */
	{ ANSWER("HTTP/1.1 200 OK\r\nContent-Length: 5\r\n\r\nhello!"), false, 0 },
	{ ANSWER("HTTP/1.1 200 OK\r\n\r\nup to the end"), false, 0 },
	{ ANSWER("HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n0\r\n\r\n"), false, 0 },
	{ ANSWER("HTTP/1.1 200 OK\r\nContent-Length: 5\r\ntransfer-encoding: x\r\n\r\nhello"), false, 0 },
	{ ANSWER("HTTP/1.1 200 OK\r\nContent-Length: 5\r\nContent-Length: 5\r\n\r\nhello"), false, 0 },
	{ ANSWER("HTTP/1.1 200 OK\r\nContent-Length: 5, 5\r\n\r\nhello"), false, 0 },
	{ ANSWER("HTTP/1.1 200 OK\r\nContent-Length: +5\r\n\r\nhello"), false, 0 },
	{ ANSWER("HTTP/1.1 200 OK\r\nContent-Length: 0x5\r\n\r\nhello"), false, 0 },
	{ ANSWER("HTTP/1.1 200 OK\r\nContent-Length:\r\n\r\nhello"), false, 0 },
	{ ANSWER("HTTP/1.1 200 OK\r\nContent-Length: 5 \r\n\r\nhello"), false, 0 },
	{ ANSWER("HTTP/1.1 200 OK\r\nContent-Length: 4294967301\r\n\r\nhello"), false, 0 },
	{ ANSWER("HTTP/1.1 200 OK\r\nContent-Length : 5\r\n\r\nhello"), false, 0 },
	{ ANSWER("HTTP/1.1 200 OK\r\n Content-Length: 5\r\n\r\nhello"), false, 0 },
	{ ANSWER("HTTP/1.1 200 OK\r\nX: y\r\n folded\r\nContent-Length: 5\r\n\r\nhello"), false, 0 },
	{ ANSWER("HTTP/1.1 200 OK\nContent-Length: 5\n\nhello"), false, 0 },
	{ ANSWER("HTTP/1.1 200 OK\r\nX: a\rb\r\nContent-Length: 5\r\n\r\nhello"), false, 0 },
	{ ANSWER("HTTP/1.1 200 OK\r\nX: a\0b\r\nContent-Length: 5\r\n\r\nhello"), false, 0 },
	{ ANSWER("HTTP/1.1 200 OK\r\nConnection: close\r\nContent-Length: 5\r\n\r\nhello"), false, 0 },
	{ ANSWER("HTTP/1.1 200 OK\r\nConnection: keep-alive, x\r\nContent-Length: 5\r\n\r\nhello"),
	  false, 0 },
	{ ANSWER("HTTP/1.0 200 OK\r\nContent-Length: 5\r\n\r\nhello"), false, 0 },
	{ ANSWER("HTTP/1.1 100 Continue\r\n\r\n"), false, 0 },
	{ ANSWER("HTTP/1.1 101 Switching Protocols\r\nUpgrade: x\r\nContent-Length: 0\r\n\r\n"), false, 0 },
	{ ANSWER("HTTP/1.1 103 Early Hints\r\nContent-Length: 0\r\n\r\n"), false, 0 },
	{ ANSWER("HTTP/1.1 204 No Content\r\nContent-Length: 0\r\n\r\n"), false, 0 },
	{ ANSWER("HTTP/1.1 304 Not Modified\r\nContent-Length: 5\r\n\r\n"), false, 0 },
	{ ANSWER("HTTP/1.1 200 OK\r\nContent-Length: 5\r\n"), false, 0 },
	{ ANSWER("HTTP/1.1 200\r\nContent-Length: 0\r\n\r\n"), false, 0 },
	{ ANSWER("HTTP/1.1 20 OK\r\nContent-Length: 0\r\n\r\n"), false, 0 },
	{ ANSWER("HTTP/2.0 200 OK\r\nContent-Length: 0\r\n\r\n"), false, 0 },
	{ ANSWER("hello"), false, 0 },
};

CASE(table_of_answers)
{
	struct flow flow;

	DO(flow_start(f, &flow, false, true));
	for (size_t i = 0; i < sizeof(table) / sizeof(*table); i++) {
		struct verdict verdict = answer_with(&flow, table[i].text, table[i].len);

		if (!tap_failure && (verdict.taken != table[i].taken ||
				     (verdict.taken && verdict.left != table[i].left)))
			tap_failure = "verdict";
		if (!tap_failure && !agrees(&verdict, table[i].text, table[i].len))
			tap_failure = "the two parsers";
		if (tap_failure) {
			printf("# answer %zu: %.60s\n", i, table[i].text);
			break;
		}
	}
	flow_close(&flow);
}

static size_t mutate(unsigned int *seed, char *data, size_t len, size_t max)
{
	static const char bytes[] = "\r\n\t :0123456789acCeEklLnoOtTHP/.\0\x7f\x80,;-";
	size_t at = (size_t)rand_r(seed) % len, from = (size_t)rand_r(seed) % len, part;

	switch (rand_r(seed) % 4) {
	case 0:
		data[at] = bytes[(size_t)rand_r(seed) % (sizeof(bytes) - 1)];
		return len;
	case 1: /* without a byte */
		memmove(data + at, data + at + 1, len - at - 1);
		return len - 1;
	case 2: /* with one more */
		memmove(data + at + 1, data + at, len - at);
		data[at] = bytes[(size_t)rand_r(seed) % (sizeof(bytes) - 1)];
		return len + 1;
	}
	part = (size_t)rand_r(seed) % 20; /* a part of it elsewhere */
	if (from + part > len || at + part > len || len + part > max)
		return len;
	memmove(data + at, data + from, part);
	return len;
}

CASE(mutated_answers)
{
	unsigned int seed = (unsigned int)now_ms(), taken = 0;
	struct flow flow;

	DO(flow_start(f, &flow, false, true));
	printf("# seed %u\n", seed);
	for (int i = 0; i < TRIALS && !tap_failure; i++) {
		size_t base = (size_t)rand_r(&seed) % (sizeof(table) / sizeof(*table));
		size_t len = table[base].len;
		struct verdict verdict;
		char data[512];

		memcpy(data, table[base].text, len);
		for (int n = 1 + rand_r(&seed) % 3; n > 0 && len > 4; n--)
			len = mutate(&seed, data, len, sizeof(data) - 1);
		verdict = answer_with(&flow, data, len);
		taken += verdict.taken;
		if (!tap_failure && !agrees(&verdict, data, len)) {
			tap_failure = "the two parsers";
			printf("# trial %d: %zu bytes: %.*s\n", i, len, (int)len, data);
		}
	}
	printf("# %u of %d were taken\n", taken, TRIALS);
	if (!tap_failure)
		ASSERT_TRUE(taken > TRIALS / 50);
	flow_close(&flow);
}

/* A head that is not all in the message's first piece cannot be read there. */
CASE(long_heads)
{
	static char data[20000];
	struct flow flow;

	DO(flow_start(f, &flow, false, true));
	for (size_t len = 3900; len < 16000 && !tap_failure; len += 97) {
		size_t n = (size_t)snprintf(data, sizeof(data), "HTTP/1.1 200 OK\r\nX: %0*d\r\n"
					    "Content-Length: 2\r\n\r\nok", (int)len, 1);
		struct verdict verdict = answer_with(&flow, data, n);

		if (!tap_failure && !agrees(&verdict, data, n))
			tap_failure = "the two parsers";
		if (!tap_failure && len > 4096)
			ASSERT_TRUE(!verdict.taken);
	}
	flow_close(&flow);
}

/* The body behind a head, in any pieces, is followed to its end; what comes behind that is passed. */
CASE(head_then_body)
{
	static const char head[] = "HTTP/1.1 200 OK\r\nContent-Length: 30000\r\n\r\n";
	struct engine_answer answer;
	struct flow flow;
	uint64_t moved;

	DO(flow_start(f, &flow, false, true));
	for (size_t piece = 1000; piece <= 30000; piece += 1450) {
		size_t left = 30000;

		moved = engine_moved(&flow.leg);
		ASSERT_TRUE(engine_arm(&flow.leg));
		ASSERT_EQ(send(flow.container, head, sizeof(head) - 1, 0), sizeof(head) - 1);
		while (left) {
			size_t n = left < piece ? left : piece;

			ASSERT_TRUE(!engine_has_answered(&flow.leg));
			ASSERT_EQ(container_sends(&flow, n, 0), n);
			left -= n;
			drain(&flow);
		}
		ASSERT_TRUE(engine_has_answered(&flow.leg));
		ASSERT_EQ(engine_moved(&flow.leg), moved + sizeof(head) - 1 + 30000);
		ASSERT_TRUE(engine_take_answer(&flow.leg, &answer));
		ASSERT_TRUE(engine_is_quiet(&flow.leg));
	}
	moved = engine_moved(&flow.leg);
	ASSERT_EQ(container_sends(&flow, 10, 0), 10);
	ASSERT_TRUE(wait_for(flow.upstream, POLLIN));
	ASSERT_EQ(engine_moved(&flow.leg), moved);
	ASSERT_TRUE(!engine_is_quiet(&flow.leg));
	flow_close(&flow);
}

/* What is more than the body was to have is not cut in two: the whole message is the agent's. */
CASE(more_than_the_body)
{
	static const char head[] = "HTTP/1.1 200 OK\r\nContent-Length: 10\r\n\r\n";
	struct engine_answer answer;
	struct flow flow;

	DO(flow_start(f, &flow, false, true));
	ASSERT_TRUE(engine_arm(&flow.leg));
	ASSERT_EQ(send(flow.container, head, sizeof(head) - 1, 0), sizeof(head) - 1);
	ASSERT_EQ(container_sends(&flow, 11, 0), 11);
	ASSERT_TRUE(wait_for(flow.upstream, POLLIN));
	ASSERT_TRUE(engine_take_answer(&flow.leg, &answer));
	ASSERT_TRUE(answer.begun);
	ASSERT_EQ(answer.left, 10);
	flow_close(&flow);
}

/* Without arming nothing goes; a message that passed has disarmed, and a body is no answer. */
CASE(only_where_armed)
{
	static const char whole[] = "HTTP/1.1 200 OK\r\nContent-Length: 0\r\n\r\n";
	static const char chunked[] = "HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n";
	struct engine_answer answer;
	struct flow flow;

	DO(flow_start(f, &flow, false, true));
	ASSERT_EQ(send(flow.container, whole, sizeof(whole) - 1, 0), sizeof(whole) - 1);
	ASSERT_EQ(engine_moved(&flow.leg), 0);
	engine_relayed(&flow.leg, sizeof(whole) - 1, 0);
	ASSERT_TRUE(engine_arm(&flow.leg));
	ASSERT_EQ(send(flow.container, chunked, sizeof(chunked) - 1, 0), sizeof(chunked) - 1);
	engine_relayed(&flow.leg, sizeof(chunked) - 1, 0);
	ASSERT_EQ(send(flow.container, whole, sizeof(whole) - 1, 0), sizeof(whole) - 1);
	ASSERT_EQ(engine_moved(&flow.leg), 0);
	ASSERT_TRUE(engine_take_answer(&flow.leg, &answer));
	ASSERT_TRUE(!answer.begun);
	flow_close(&flow);
}

/* A message that the program does not see (the one before had found no room) takes no arming away. */
CASE(disarmed_before_it_is_relayed)
{
	static const char whole[] = "HTTP/1.1 200 OK\r\nContent-Length: 0\r\n\r\n";
	struct engine_answer answer;
	struct flow flow;

	DO(flow_start(f, &flow, false, true));
	ASSERT_TRUE(engine_arm(&flow.leg));
	ASSERT_TRUE(engine_take_answer(&flow.leg, &answer));
	ASSERT_TRUE(!answer.begun);
	ASSERT_EQ(send(flow.container, whole, sizeof(whole) - 1, 0), sizeof(whole) - 1);
	ASSERT_EQ(engine_moved(&flow.leg), 0);
	flow_close(&flow);
}

static const struct tap_case cases[] = {
	{ "which answers are taken", table_of_answers },
	{ "mutated answers: never what the agent's parser says otherwise", mutated_answers },
	{ "long heads", long_heads },
	{ "a head, then its body in pieces", head_then_body },
	{ "more than the body", more_than_the_body },
	{ "nothing without arming, and a body is no answer", only_where_armed },
	{ "disarmed before anything is relayed", disarmed_before_it_is_relayed },
};

TAP_MAIN(cases)
