// SPDX-License-Identifier: MIT
/*
 * One request to a container, and its answer. The next one begins when both have ended, so that
 * answers come in order, each leg carries one exchange at a time, and an answer of our own is never
 * written into another's.
 */
#include <errno.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/socket.h>
#include <time.h>

#include "connection_impl.h"
#include "log.h"
#include "text.h"

#define REPLAY_MAX RELAY_BUFFER
#define BULK RELAY_BULK /* bytes of an answer by which its connection leaves the short way */

/* Sending again. */

void exchange_drop_replay(struct connection *c)
{
	free(c->replay.data);
	c->replay = (struct replay){ 0 };
}

/* A container may have closed a leg that it used before: then a request may have to be sent again. */
static void keep(struct connection *c, const char *data, size_t n)
{
	struct replay *replay = &c->replay;
	char *grown = replay->len + n > REPLAY_MAX ? NULL : realloc(replay->data, replay->len + n);

	if (!grown) {
		exchange_drop_replay(c);
		return;
	}
	memcpy(grown + replay->len, data, n);
	replay->data = grown;
	replay->len += n;
}

static void approve(struct connection *c, size_t n)
{
	struct flow *up = &c->up;

	if (c->replay.kept)
		keep(c, relay_data(&up->relay) + up->approved, n);
	up->approved += n;
}

void exchange_begin(struct connection *c, size_t len)
{
	relay_skip(&c->up.relay, c->request.skip);
	c->up.approved = c->head_len = len - c->request.skip;
	http1_body_start(&c->up.body, c->request.framing, c->request.length);
	c->down.body = (struct http1_body){ 0 };
	c->down.approved = 0;
	c->response = (struct http1_response){ 0 };
	c->scan = (struct http1_scan){ 0 };
	c->answered = ANSWER_AWAITED;
	c->answer_begun = c->reconnected = c->repeated = c->carried = false;
	c->up_from = c->up.relay.bytes;
	c->down_from = c->down.relay.bytes;
	c->moved_from = 0;
	c->carried_ns = 0;
	exchange_drop_replay(c);
	leg_choose(c);
}

bool exchange_is_repeatable(const struct connection *c)
{
	const struct http1_request *request = &c->request;
	size_t behind_head = c->up.relay.len - c->up.approved;

	return request->repeatable &&
	       (request->framing == HTTP1_NONE ||
		(request->framing == HTTP1_LENGTH && request->length <= behind_head));
}

/* Does anything of it wait to be sent? */
static bool has_approved(const struct connection *c)
{
	return c->up.approved || c->up.relay.piped ||
	       (c->repeated && c->replay.at < c->replay.len);
}

bool exchange_is_sent(const struct connection *c)
{
	return c->up.body.state == HTTP1_BODY_DONE && !has_approved(c);
}

/* An engine may carry an answer where the agent knows enough of the request to know how it ends. */
static bool arm(const struct connection *c)
{
	const struct http1_request *request = &c->request;

	return request->keep_alive && !request->version_1_0 && !request->head &&
	       !request->upgrade && c->worker->state == WORKER_RUN &&
	       engine_arm(&c->leg->engine);
}

/* Above 599 there is nothing, and a client is to take it for a 5xx (RFC 9110, 15). */
static void count_answer(struct connection *c, unsigned int status)
{
	struct kkm_stats *stats = c->worker->stats;
	__u64 *const classes[] = { &stats->responses_1xx, &stats->responses_2xx,
				   &stats->responses_3xx, &stats->responses_4xx,
				   &stats->responses_5xx };

	++*classes[(status < 500 ? status / 100 : 5) - 1];
}

void exchange_take_answer(struct connection *c)
{
	struct engine_answer answer;

	c->armed = false;
	if (!engine_take_answer(&c->leg->engine, &answer)) {
		connection_close(c, true);
		return;
	}
	if (!answer.begun)
		return;
	count_answer(c, answer.status);
	c->carried = c->promised = c->answer_begun = true;
	c->promiser = c->leg;
	c->response = (struct http1_response){ .status = answer.status, .keep_alive = true };
	http1_body_start(&c->down.body, HTTP1_LENGTH, answer.left);
	c->answered = answer.left ? ANSWER_BODY : ANSWER_DONE;
	c->carried_ns = answer.left ? 0 : answer.whole_ns;
	c->active_ms = connection_now_ms(c);
}

void exchange_start(struct connection *c)
{
	struct leg *leg = c->leg;

	/* behind another container's answer; this one's own send() has returned before its next */
	if (c->promiser != leg && !connection_keep_promises(c))
		return;
	engine_set_bulk(&leg->engine, false);
	c->moved_from = engine_moved(&leg->engine);
	c->armed = arm(c);
	if (c->armed)
		connection_want_look(c->worker);
	c->active_ms = connection_now_ms(c);
	c->resetting = false;
	c->worker->stats->requests += !c->repeated;
	if (c->requests && strcmp(c->last_container, leg->container))
		c->worker->stats->other_container++;
	memcpy(c->last_container, leg->container, sizeof(c->last_container));
	connection_enter(c, EXCHANGE, c->worker->shared->config->idle_timeout_ms);
	if (!leg->used || !c->request.repeatable || c->repeated)
		return;
	c->replay.kept = true;
	keep(c, relay_data(&c->up.relay), c->up.approved);
}

/* On a new connection, once: nobody knows whether the old one's container has seen it. */
static void repeat(struct connection *c)
{
	c->repeated = true;
	c->replay.kept = false;
	relay_skip(&c->up.relay, c->up.approved); /* the replay has them */
	c->up.approved = 0;
	relay_drop(&c->down.relay);
	c->worker->stats->requests_repeated++;
	leg_close(c->leg, true);
	leg_choose(c);
}

/* The access log. */

uint64_t exchange_clock_us(void)
{
	struct timespec now;

	clock_gettime(CLOCK_MONOTONIC, &now);
	return (uint64_t)now.tv_sec * 1000000 + (uint64_t)now.tv_nsec / 1000 + 1;
}

static void log_exchange(const struct connection *c, const char *status, const char *bytes)
{
	const struct leg *leg = c->leg;
	char client[ADDRESS_TEXT_MAX], duration[32];
	uint64_t ended_us = c->carried_ns ? c->carried_ns / 1000 + 1 : exchange_clock_us();
	uint64_t us = ended_us > c->started_us ? ended_us - c->started_us : 0;
	bool carried = c->carried || (leg && c->state == TUNNEL && engine_moved(&leg->engine));

	snprintf(duration, sizeof(duration), "%llu.%03llu", (unsigned long long)us / 1000,
		 (unsigned long long)us % 1000);
	log_write(LOG_LEVEL_ACCESS, "access", "client",
		  address_print(&c->client_address, client), "domain",
		  *c->request.host ? c->request.host : "", "container", leg ? leg->name : "",
		  "method", c->request.method, "#status", status, "#bytes", bytes, "#duration_ms",
		  duration, "engine", leg ? text_engine(carried ? KKM_SOCKMAP : KKM_RELAY) : "", "protocol",
		  c->tls ? "tls" : "http", NULL);
}

void exchange_log(struct connection *c, unsigned int status, uint64_t bytes)
{
	char status_text[16], bytes_text[32];

	if (!c->started_us)
		return;
	snprintf(status_text, sizeof(status_text), "%u", status);
	snprintf(bytes_text, sizeof(bytes_text), "%llu", (unsigned long long)bytes);
	log_exchange(c, status_text, bytes_text);
	c->started_us = 0;
}

/* Bytes both ways. Each of these returns true where it has more to do than its turn allows. */

bool exchange_pump(struct flow *flow, struct side *from, struct side *to, uint64_t *left)
{
	flow->relay.ending = from->hup;
	if (flow == &from->connection->up)
		engine_set_bulk(&from->connection->leg->engine, flow->relay.bulk);
	switch (relay_pump(&flow->relay, from->io.fd, to->io.fd, left)) {
	case RELAY_SOURCE_EMPTY:
		from->readable = false;
		return false;
	case RELAY_TARGET_FULL:
		to->writable = false;
		if (flow->relay.held)
			connection_hold(from->connection);
		return false;
	case RELAY_SOURCE_ERROR:
		from->reset = true;
		/* fall through */
	case RELAY_END:
		from->ended = true;
		return false;
	case RELAY_TARGET_ERROR:
		to->reset = to->readable = true;
		relay_drop(&flow->relay);
		return false;
	case RELAY_LIMIT:
	case RELAY_YIELD:
		break;
	}
	return true;
}

/* The rest of a long body; false where it waits for an event. */
static bool pump_body(struct flow *flow, struct side *from, struct side *to)
{
	uint64_t left = http1_body_opaque(&flow->body), before = flow->relay.bytes;
	bool more;

	if (flow->relay.piped ? !to->writable : from->ended || !from->readable)
		return false;
	more = exchange_pump(flow, from, to, &left);
	http1_body_skip(&flow->body, flow->relay.bytes - before);
	return more;
}

static bool is_long(const struct flow *flow)
{
	return flow->relay.piped ||
	       (!flow->relay.len && http1_body_opaque(&flow->body) >= RELAY_BUFFER);
}

/* Nothing of a body behind a fault may reach the container, and no request may follow. */
static void body_fault(struct connection *c)
{
	if (c->armed)
		exchange_take_answer(c);
	if (c->state == CLOSED)
		return;
	if (!c->carried && c->down.relay.bytes == c->down_from) {
		connection_answer(c, 400);
	} else if (c->answered == ANSWER_DONE && c->down.approved) {
		/* the end of an early answer still goes */
		connection_close_side(&c->leg->side, true);
		c->leg->side.reset = true;
	} else if (c->down.body.state == HTTP1_BODY_TO_EOF && c->answered != ANSWER_DONE) {
		connection_close(c, true); /* it must not look complete */
	} else {
		connection_linger(c);
	}
}

/* How much of the body that has been read may be sent on; false where more has to be read first. */
static bool approve_body(struct connection *c)
{
	struct flow *up = &c->up;
	size_t waiting = up->relay.len - up->approved, n;
	int err;

	if (!waiting)
		return false;
	n = http1_body_feed(&up->body, relay_data(&up->relay) + up->approved, waiting, &err);
	if (err)
		body_fault(c);
	else if (n)
		approve(c, n);
	return n && !err;
}

static bool send_replay(struct connection *c)
{
	struct replay *replay = &c->replay;
	ssize_t n = send(c->leg->side.io.fd, replay->data + replay->at, replay->len - replay->at,
			 MSG_NOSIGNAL);

	if (n > 0) {
		replay->at += (size_t)n;
		engine_relayed(&c->leg->engine, 0, (uint64_t)n);
	} else if (errno == EAGAIN || errno == EACCES) {
		c->leg->side.writable = false;
	} else {
		c->leg->side.reset = c->leg->side.readable = true;
	}
	if (n < 0 && errno == EACCES)
		connection_hold(c);
	return n > 0;
}

/* What has been approved; false where it waits, or cannot be sent. */
static bool send_approved(struct connection *c)
{
	struct side *to = &c->leg->side;

	if (!to->writable)
		return false;
	if (c->repeated && c->replay.at < c->replay.len)
		return send_replay(c);
	return connection_write(to, &c->up.relay, &c->up.approved);
}

static bool pump_request(struct connection *c)
{
	struct flow *up = &c->up;
	struct side *from = &c->client, *to = &c->leg->side;
	uint64_t start = up->relay.bytes;

	while (c->state == EXCHANGE && !to->reset && !exchange_is_sent(c)) {
		if (up->approved || (c->repeated && c->replay.at < c->replay.len)) {
			if (!send_approved(c))
				return false;
			continue;
		}
		if (up->relay.bytes - start >= RELAY_BUDGET)
			return true;
		if (is_long(up)) {
			exchange_drop_replay(c);
			if (!pump_body(up, from, to))
				return false;
			continue;
		}
		if (approve_body(c))
			continue;
		if (c->state != EXCHANGE || from->ended || !from->readable ||
		    !connection_read(from, &up->relay))
			return false;
	}
	return false;
}

/* The end of what the client sends comes behind what it sent already. */
static void find_end(struct connection *c)
{
	while (c->client.hup && c->client.readable && !c->client.ended &&
	       c->up.relay.len < RELAY_BUFFER) {
		if (!connection_read(&c->client, &c->up.relay))
			return;
	}
}

/* Answers. */

/*
 * What an enrolled container sends is copied on its way, even where it is passed: a large answer is worth
 * the end of the short way for its connection.
 */
static void leave_bulk(struct connection *c)
{
	struct engine_leg *engine = &c->leg->engine;

	if (engine->engine != KKM_SOCKMAP)
		return;
	engine_leave(engine);
	c->leg->left_bulk = true;
	c->worker->stats->sockmap_left++;
}

/* One that may be passed on, from its head to its last byte; false where more has to be read. */
static bool approve_head(struct connection *c, const char *data, size_t len)
{
	int n = http1_response(&c->scan, data, len, &c->request, &c->response);

	if (n < 0)
		c->answered = ANSWER_BROKEN;
	if (n <= 0)
		return false;
	c->down.approved += (size_t)n;
	c->scan = (struct http1_scan){ 0 };
	if (c->response.status == 101 && !exchange_is_sent(c)) {
		c->answered = ANSWER_BROKEN; /* it cannot have seen what it agrees to */
		c->down.approved -= (size_t)n;
		return false;
	}
	count_answer(c, c->response.status);
	if (c->response.status == 101) {
		tunnel_begin(c);
		return false;
	}
	if (c->response.status < 200) {
		c->answered = ANSWER_INTERIM;
		return true;
	}
	http1_body_start(&c->down.body, c->response.framing, c->response.length);
	if (c->response.length >= BULK)
		leave_bulk(c);
	c->answered = c->down.body.state == HTTP1_BODY_DONE ? ANSWER_DONE : ANSWER_BODY;
	return true;
}

static bool approve_answer(struct connection *c)
{
	struct flow *down = &c->down;
	size_t waiting = down->relay.len - down->approved, n;
	const char *data = relay_data(&down->relay) + down->approved;
	int err;

	if (!waiting || c->answered >= ANSWER_DONE)
		return false;
	if (c->answered < ANSWER_BODY)
		return approve_head(c, data, waiting);
	n = http1_body_feed(&down->body, data, waiting, &err);
	down->approved += n;
	if (err)
		c->answered = ANSWER_CUT;
	else if (down->body.state == HTTP1_BODY_DONE)
		c->answered = ANSWER_DONE;
	return n;
}

static void read_answer(struct connection *c)
{
	struct side *from = &c->leg->side;

	bool came = connection_read(from, &c->down.relay);

	/* before any of it is written: no later message may be taken for the answer's beginning */
	if (c->armed && (came || from->ended))
		exchange_take_answer(c);
	if (came)
		c->answer_begun = true;
}

/* Where the container has ended, so has an answer that lasts up to its end. */
static void note_end(struct connection *c)
{
	const struct side *from = &c->leg->side;

	if (c->answered == ANSWER_BODY && c->down.body.state == HTTP1_BODY_DONE)
		c->answered = ANSWER_DONE;
	if (c->answered == ANSWER_BODY && c->down.body.state == HTTP1_BODY_TO_EOF && from->ended &&
	    !from->reset)
		c->answered = ANSWER_DONE;
}

static bool pump_answer(struct connection *c)
{
	struct flow *down = &c->down;
	struct side *from = &c->leg->side, *to = &c->client;
	uint64_t start = down->relay.bytes;

	while (c->state == EXCHANGE && !to->reset) {
		if (approve_answer(c))
			continue;
		if (c->state != EXCHANGE)
			return false;
		if (down->approved) {
			if (!to->writable || !connection_write(to, &down->relay, &down->approved))
				return false;
			continue;
		}
		note_end(c);
		if (c->answered >= ANSWER_DONE && !down->relay.piped)
			return false;
		if (down->relay.bytes - start >= RELAY_BUDGET)
			return true;
		if (c->answered == ANSWER_BODY && is_long(down)) {
			if (down->relay.bytes - c->down_from >= BULK)
				leave_bulk(c);
			if (!pump_body(down, from, to))
				break;
			continue;
		}
		if (from->ended || !from->readable)
			return false;
		read_answer(c);
	}
	note_end(c);
	return false;
}

/* Ends. */

static void finish(struct connection *c)
{
	bool more = c->up.relay.len || (!c->client.ended && c->worker->state == WORKER_RUN);
	bool go_on = c->request.keep_alive && c->response.keep_alive && exchange_is_sent(c) &&
		     !c->client.shut && more;

	connection_account(c);
	exchange_log(c, c->response.status, connection_answered_bytes(c));
	exchange_drop_replay(c);
	leg_release(c);
	c->requests++;
	if (go_on)
		connection_next_request(c);
	else
		connection_linger(c);
}

/* The container has ended behind its answer, but may still read the rest of the request. */
static void pass_end(struct connection *c)
{
	if (c->client.shut || !connection_keep_promises(c))
		return;
	shutdown(c->client.io.fd, SHUT_WR);
	c->client.shut = true;
}

/* The container has ended, and no answer came, or none that could be passed on. */
static void unanswered(struct connection *c)
{
	if (c->replay.kept && !c->answer_begun)
		repeat(c);
	else
		connection_answer(c, 502);
}

/* It has ended, or spoiled its answer, within it. */
static void cut(struct connection *c)
{
	c->worker->stats->answers_cut++;
	if (c->leg->side.reset)
		connection_pass_reset(c);
	else
		connection_linger(c);
}

static void settle_request(struct connection *c)
{
	struct side *to = &c->leg->side;
	bool sent = exchange_is_sent(c);

	if (c->client.reset && (c->client.ended || sent) && !has_approved(c)) {
		connection_pass_reset(c);
		return;
	}
	if (!c->client.ended || to->shut || to->reset || has_approved(c) ||
	    (sent && c->up.relay.len))
		return;
	shutdown(to->io.fd, SHUT_WR);
	to->shut = true;
}

static void settle_answer(struct connection *c)
{
	const struct side *from = &c->leg->side;

	if (c->down.approved || c->down.relay.piped)
		return;
	if (c->answered == ANSWER_DONE) {
		if (exchange_is_sent(c) || from->reset || (c->client.ended && !has_approved(c)))
			finish(c);
		else if (from->ended || from->hup)
			pass_end(c);
	} else if (c->answered == ANSWER_BROKEN ||
		   (from->ended && c->answered < ANSWER_BODY)) {
		unanswered(c);
	} else if (c->answered == ANSWER_CUT || from->ended) {
		cut(c);
	}
}

/*
 * Has an engine carried the answer? Where something else waits for its end, and nobody would tell that,
 * the relay gets what is left of it.
 */
static void look_at_answer(struct connection *c)
{
	bool awaited = exchange_is_sent(c) &&
		       (c->client.readable || c->client.hup || c->up.relay.len);

	if (c->armed && (awaited || engine_has_answered(&c->leg->engine)))
		exchange_take_answer(c);
}

void exchange_run(struct connection *c)
{
	bool more, was_reset = c->client.reset;

	look_at_answer(c);
	more = c->state == EXCHANGE && pump_request(c);
	connection_account(c);
	if (c->state == EXCHANGE)
		look_at_answer(c);
	if (c->state == EXCHANGE)
		more |= pump_answer(c);
	connection_account(c);
	more |= c->client.reset && !was_reset; /* what it had sent before goes on first */
	if (c->state == EXCHANGE && exchange_is_sent(c))
		find_end(c);
	if (c->state == EXCHANGE && !more)
		settle_request(c);
	if (c->state == EXCHANGE)
		settle_answer(c);
	if (c->state == EXCHANGE && c->client.reset && c->leg->side.reset)
		connection_close(c, true);
	/* an answer that has all come is the client's to take, whatever became of the container */
	if (c->state == EXCHANGE &&
	    (c->client.reset || (c->leg->side.reset && c->answered != ANSWER_DONE)))
		connection_watch_reset(c);
	if (c->state == EXCHANGE && more)
		loop_next_turn(c->worker->loop, &c->task);
}
