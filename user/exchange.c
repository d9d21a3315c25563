// SPDX-License-Identifier: MIT
/* A connection in OPEN: which bytes of the client may pass, and all bytes both ways. */
#include <errno.h>
#include <string.h>
#include <sys/socket.h>

#include "connection_impl.h"

/* Requests. */

/* No further request passes; what is outstanding may end first. */
void exchange_part(struct connection *c, int status)
{
	/* what is counted as moved shall not change any more behind our back */
	engine_leave(&c->leg);
	c->parting = true;
	c->pipelined = connection_to_client(c) == c->moved_at_request;
	c->parting_status = status;
	connection_set_parting_timer(c);
}

void exchange_begin_request(struct connection *c, const struct reqhead *head, size_t len)
{
	c->approved += len;
	c->scanned = 0;
	if (c->partial_head) {
		c->partial_head = false;
		connection_set_open_timer(c);
	}
	c->requests++;
	c->head_method = head->head;
	c->moved_at_request = connection_to_client(c);
	reqbody_start(&c->body, head);
}

/* A later head on the connection; false where it may not pass, or is not complete. */
static bool next_head(struct connection *c)
{
	struct reqhead *head = &c->worker->head;
	const struct route_table *table = c->worker->table;
	const struct route *route;
	int n = reqhead_parse(relay_data(&c->up) + c->approved, c->up.len - c->approved,
			      &c->scanned, head);

	if (!n && !c->partial_head) {
		c->partial_head = true;
		connection_set_timer(c, c->worker->shared->config->head_timeout_ms);
	}
	if (n < 0) {
		c->head_method = head->head;
		exchange_part(c, -n);
	}
	if (n <= 0)
		return false;
	route = route_find(table, head->host);
	if (!connection_still_routed(c, route)) {
		c->worker->stats->other_container += route != NULL;
		c->head_method = head->head;
		exchange_part(c, route ? 0 : table->ready ? 404 : 503);
		return false;
	}
	/* whose answer is whose is not known here: an upgrade needs a connection of its own */
	if (head->upgrade) {
		exchange_part(c, 0);
		return false;
	}
	if (head->body != BODY_NONE && c->worker->shared->bodies_leave &&
	    c->leg.engine == KKM_SOCKMAP) {
		engine_leave(&c->leg);
		c->worker->stats->sockmap_left++;
	}
	c->worker->stats->requests++;
	exchange_begin_request(c, head, (size_t)n);
	return true;
}

/* Nothing of a body behind a fault may reach the container, and no request may follow. */
static void body_fault(struct connection *c)
{
	engine_leave(&c->leg); /* or an answer could still begin between the question and ours */
	if (c->requests == 1 && !connection_to_client(c))
		connection_answer(c, 400);
	else
		connection_linger(c);
}

/* How much of what has been read may be sent on. */
static void approve(struct connection *c)
{
	while (c->state == OPEN && c->approved < c->up.len) {
		if (c->opaque) {
			c->approved = c->up.len;
		} else if (c->body.state != REQBODY_DONE) {
			int err;

			c->approved += reqbody_feed(&c->body, relay_data(&c->up) + c->approved,
						    c->up.len - c->approved, &err);
			if (err) {
				body_fault(c);
				return;
			}
		} else if (c->hold || !next_head(c)) {
			return;
		}
	}
}

/* Bytes both ways. Each of these returns true where it has more to do than its turn allows. */

/* What a pump has found out about its two sides. */
static bool note(struct relay *relay, enum relay_result result, struct side *from, struct side *to)
{
	switch (result) {
	case RELAY_SOURCE_EMPTY:
		from->readable = false;
		return false;
	case RELAY_TARGET_FULL:
		to->writable = false;
		return false;
	case RELAY_SOURCE_ERROR:
		from->reset = true;
		/* fall through */
	case RELAY_END:
		from->ended = true;
		return false;
	case RELAY_TARGET_ERROR:
		to->reset = true;
		relay_drop(relay);
		return false;
	case RELAY_LIMIT:
	case RELAY_YIELD:
		break;
	}
	return true;
}

/* Bytes that need not be looked at: the rest of a body, or everything behind a 101. */
static bool pump_opaque(struct connection *c, uint64_t left)
{
	uint64_t before = c->up.bytes;
	enum relay_result result;

	c->up.ending = c->client.hup;
	result = relay_pump(&c->up, c->client.io.fd, c->server.io.fd, &left);
	if (!c->opaque)
		reqbody_skip(&c->body, c->up.bytes - before);
	return note(&c->up, result, &c->client, &c->server);
}

static bool read_up(struct connection *c)
{
	size_t room = RELAY_BUFFER - c->up.len;
	ssize_t n = relay_read(&c->up, c->client.io.fd);

	if (n > 0) {
		/* a short read has emptied the socket (epoll(7)); its end comes as an edge of its own */
		if ((size_t)n < room && c->up.at + c->up.len < RELAY_BUFFER && !c->client.hup)
			c->client.readable = false;
		return true;
	}
	if (n == -EAGAIN || n == -EINTR) {
		c->client.readable = false;
	} else {
		c->client.ended = true;
		c->client.reset = n < 0;
	}
	return false;
}

static bool write_up(struct connection *c)
{
	ssize_t n = relay_write(&c->up, c->server.io.fd, c->approved);

	if (n > 0) {
		c->approved -= (size_t)n;
		return true;
	}
	if (n == -EAGAIN || n == -EINTR) {
		c->server.writable = false;
	} else {
		c->server.reset = true;
		relay_drop(&c->up);
		c->approved = 0;
	}
	return false;
}

static bool pump_up(struct connection *c)
{
	uint64_t start = c->up.bytes;

	while (c->state == OPEN && !c->server.reset) {
		uint64_t left = c->opaque ? RELAY_NO_LIMIT : reqbody_opaque(&c->body);

		if (c->approved) {
			if (!c->server.writable || !write_up(c))
				return false;
			continue;
		}
		if (c->up.bytes - start >= RELAY_BUDGET)
			return true;
		if (c->up.piped || (left >= RELAY_BUFFER && !c->up.len)) {
			if (c->up.piped ? !c->server.writable
					: c->client.ended || !c->client.readable)
				return false;
			if (!pump_opaque(c, left))
				return false;
			continue;
		}
		if (c->parting || c->server.shut)
			return false;
		if (c->up.len) {
			approve(c);
			if (c->approved)
				continue;
		}
		if (c->state != OPEN || c->parting || c->client.ended || !c->client.readable ||
		    (c->hold && c->body.state == REQBODY_DONE))
			return false;
		if (!read_up(c))
			return false;
	}
	return false;
}

/* The status is known, or will never be. */
static void stop_watching(struct connection *c, int status)
{
	c->watch = false;
	c->opaque = c->hold && status == 101;
	c->hold = false;
}

/*
 * The status of a connection's first answer, and of the answer to an upgrade, is read before any of
 * it is passed on. False where nothing may pass now.
 */
static bool watch_answer(struct connection *c)
{
	ssize_t n = relay_read(&c->down, c->server.io.fd);
	int status;

	if (n == -EAGAIN || n == -EINTR) {
		c->server.readable = false;
		return false;
	}
	if (n == -ENOBUFS)
		return true; /* more 1xx than the client takes: what is there has to go first */
	if (n <= 0) {
		/* an end in the middle of a status line: settle_down() answers */
		c->server.ended = true;
		c->server.reset = n < 0;
		if (!c->answer_head.interim_seen)
			relay_drop(&c->down);
		stop_watching(c, 0);
		return false;
	}
	status = resphead_feed(&c->answer_head, relay_data(&c->down) + c->down.len - n, (size_t)n);
	if (status < 0 && !connection_to_client(c))
		connection_answer(c, 502);
	else if (status < 0)
		connection_close(c, true);
	else if (status || (c->answer_head.interim_seen && !c->hold))
		stop_watching(c, status);
	return status > 0 || (!status && c->answer_head.interim_seen);
}

static bool pump_down(struct connection *c)
{
	uint64_t left = RELAY_NO_LIMIT;
	bool waiting;

	if (c->client.reset)
		return false;
	/* what went by the short way has begun an answer; nobody asked for an upgrade then */
	if (c->watch && !c->hold && connection_to_client(c))
		stop_watching(c, 0);
	if (c->watch && c->server.readable && !c->server.ended && !watch_answer(c))
		return false;
	waiting = c->down.len || c->down.piped;
	if (waiting ? !c->client.writable : !c->server.readable || c->server.ended)
		return false;
	if (c->watch && !(waiting && c->answer_head.interim_seen))
		return false;
	if (c->watch)
		left = c->down.len; /* what follows is to be looked at first */
	c->down.ending = c->server.hup;
	return note(&c->down, relay_pump(&c->down, c->server.io.fd, c->client.io.fd, &left),
		    &c->server, &c->client);
}

/* The client has ended, or may send nothing more, and all that may pass has passed. */
static void settle_up(struct connection *c)
{
	if (c->server.shut || c->server.reset || c->approved || c->up.piped)
		return;
	if (c->client.reset && (c->client.ended || c->hold) && !c->parting) {
		connection_pass_reset(c);
		return;
	}
	if (c->hold || !c->client.ended)
		return;
	relay_drop(&c->up); /* a head that was never completed, or may not pass */
	shutdown(c->server.io.fd, SHUT_WR);
	c->server.shut = true;
}

/* The container has ended, and all that it sent has been passed on. */
static void settle_down(struct connection *c)
{
	if (!c->server.ended || c->down.len || c->down.piped || c->client.shut)
		return;
	if (!connection_to_client(c)) {
		connection_answer(c, 502);
	} else if (c->server.reset && !c->parting) {
		connection_pass_reset(c);
	} else if (c->parting && c->parting_status) {
		connection_answer(c, c->parting_status);
	} else if (c->parting) {
		connection_linger(c);
	} else {
		shutdown(c->client.io.fd, SHUT_WR);
		c->client.shut = true;
	}
}

/* A side that was reset while the other had already been told of an end: nothing is left to pass. */
static bool is_over(const struct connection *c)
{
	return c->client.shut ? c->server.shut || c->server.reset
			      : c->server.shut && c->client.reset;
}

void exchange_run(struct connection *c)
{
	uint64_t before = c->down.bytes;
	bool more_down = pump_down(c), more_up;

	if (c->parting && c->down.bytes != before)
		connection_set_parting_timer(c);
	/* what is counted late is passed instead of short-circuited, never lost: see kkm_response */
	connection_account(c);
	more_up = pump_up(c);
	connection_account(c);
	if (c->state == OPEN && !more_up)
		settle_up(c);
	if (c->state == OPEN)
		settle_down(c);
	if (c->state == OPEN && is_over(c))
		connection_close(c, c->server.reset || c->client.reset);
	if (c->state == OPEN && (c->client.reset || c->server.reset))
		connection_watch_reset(c);
	if (c->state == OPEN && (more_up || more_down))
		loop_next_turn(c->worker->loop, &c->task);
}
