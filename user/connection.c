// SPDX-License-Identifier: MIT
/* A connection from accept to close: what comes first on it, answers of our own, resets, time. */
#include <errno.h>
#include <linux/sockios.h>
#include <netinet/in.h>
#include <netinet/tcp.h>
#include <sched.h>
#include <stdlib.h>
#include <string.h>
#include <sys/ioctl.h>
#include <unistd.h>

#include "clienthello.h"
#include "connection_impl.h"
#include "proxyproto.h"

/*
 * What one connection may hold, both directions stuck: two receive buffers, two send buffers (the
 * kernel doubles what is asked for, socket(7)) and two pipes, together 7 MiB.
 */
#define RECEIVE_BUFFER (512 << 10)
#define SEND_BUFFER (768 << 10)

#define LINGER_MS 5000 /* after an answer of ours: silence of the client */
#define LINGER_MAX_MS 30000
#define RESET_MS 5000	   /* without progress: for what was received before a reset */
#define LOOK_MS 1000
#define HELD_MAX_MS 16
#define PROMISE_US 250000 /* for what an engine has promised; microseconds are enough */
#define DRAIN_HEAD_MS 1000 /* for a request that may be on its way when the agent stops */

uint64_t connection_now_ms(const struct connection *c)
{
	return loop_now_ms(c->worker->loop);
}

void connection_set_timer(struct connection *c, uint64_t delay_ms)
{
	loop_timer_set(c->worker->loop, &c->timer, delay_ms);
}

void connection_enter(struct connection *c, enum state state, uint64_t timeout_ms)
{
	c->state = state;
	c->since_ms = connection_now_ms(c);
	connection_set_timer(c, timeout_ms);
}

static int set_buffer(int fd, int forced, int plain, int bytes)
{
	/* the FORCE option needs CAP_NET_ADMIN and is not cut at net.core.[rw]mem_max */
	if (!setsockopt(fd, SOL_SOCKET, forced, &bytes, sizeof(bytes)))
		return 0;
	return setsockopt(fd, SOL_SOCKET, plain, &bytes, sizeof(bytes));
}

void connection_bound_buffers(int fd)
{
	set_buffer(fd, SO_RCVBUFFORCE, SO_RCVBUF, RECEIVE_BUFFER);
	set_buffer(fd, SO_SNDBUFFORCE, SO_SNDBUF, SEND_BUFFER);
}

/* Descriptors. */

void connection_close_side(struct side *side, bool reset)
{
	struct linger linger = { .l_onoff = 1, .l_linger = 0 };
	int fd = loop_forget(&side->io);

	if (fd < 0)
		return;
	if (reset)
		setsockopt(fd, SOL_SOCKET, SO_LINGER, &linger, sizeof(linger));
	close(fd);
}

/* Promises. */

static uint64_t moved(const struct connection *c)
{
	uint64_t bytes = c->moved;

	for (const struct leg *leg = c->legs; leg; leg = leg->next)
		bytes += engine_moved(&leg->engine);
	return bytes;
}

/*
 * The program runs before the container's message is queued; that is done by the time its send()
 * returns, so this is over at once unless the container's thread has just lost its CPU.
 */
bool connection_keep_promises(struct connection *c)
{
	uint64_t begun_us = 0, wanted;

	if (!c->promised)
		return true;
	c->promised = false;
	wanted = moved(c) + c->down.relay.bytes;
	while (engine_queued(c->client.io.fd) < wanted) {
		if (!begun_us) {
			begun_us = exchange_clock_us();
			c->worker->stats->promises_late++;
		} else if (exchange_clock_us() - begun_us > PROMISE_US) {
			c->worker->stats->promises_broken++;
			connection_close(c, true);
			return false;
		}
		sched_yield();
	}
	return true;
}

uint64_t connection_answered_bytes(const struct connection *c)
{
	return c->down.relay.bytes - c->down_from +
	       (c->leg ? engine_moved(&c->leg->engine) - c->moved_from : 0);
}

static void log_end(struct connection *c)
{
	if (c->state == TUNNEL)
		exchange_log(c, c->tls ? 0 : 101, connection_answered_bytes(c));
	else if (c->leg)
		exchange_log(c, c->answered >= ANSWER_BODY ? c->response.status : 0,
			     connection_answered_bytes(c));
}

void connection_close(struct connection *c, bool reset)
{
	if (c->state == CLOSED)
		return;
	if (c->armed)
		exchange_take_answer(c);
	if (c->state == CLOSED || (!reset && !connection_keep_promises(c)))
		return;
	log_end(c);
	c->state = CLOSED;
	loop_timer_clear(c->worker->loop, &c->timer);
	loop_timer_clear(c->worker->loop, &c->held);
	leg_close_all(c, reset, reset);
	connection_close_side(&c->client, reset);
	relay_drop(&c->up.relay);
	relay_drop(&c->down.relay);
	exchange_drop_replay(c);
	free(c->answer);
	c->answer = NULL;
	*c->link = c->next;
	if (c->next)
		c->next->link = c->link;
	c->worker->connection_count--;
	worker_connection_closed(c->worker);
	/* freed when nothing of this turn refers to it; no-op where it is queued for the next one */
	loop_defer(c->worker->loop, &c->task);
}

bool connection_read(struct side *side, struct relay *relay)
{
	size_t room = RELAY_BUFFER - relay->len;
	ssize_t n = relay_read(relay, side->io.fd);

	if (n > 0) {
		side->connection->active_ms = connection_now_ms(side->connection);
		/* a short read has emptied the socket (epoll(7)); its end comes as an edge of its own */
		if ((size_t)n < room && relay->at + relay->len < RELAY_BUFFER && !side->hup)
			side->readable = false;
		return true;
	}
	if (n == -EAGAIN || n == -EINTR) {
		side->readable = false;
	} else if (n != -ENOBUFS) {
		side->ended = true;
		side->reset = side->reset || n < 0;
	}
	return false;
}

/* Nothing tells when a container has read what was put into its socket. */
void connection_hold(struct connection *c)
{
	c->held_ms = c->held_ms ? c->held_ms * 2 : 1;
	if (c->held_ms > HELD_MAX_MS)
		c->held_ms = HELD_MAX_MS;
	loop_timer_set(c->worker->loop, &c->held, c->held_ms);
}

bool connection_write(struct side *side, struct relay *relay, size_t *len)
{
	ssize_t n = relay_write(relay, side->io.fd, *len);

	if (n > 0) {
		*len -= (size_t)n;
		return true;
	}
	if (n == -EAGAIN || n == -EINTR) {
		side->writable = false;
	} else if (n == -EACCES) {
		side->writable = false;
		connection_hold(side->connection);
	} else {
		side->reset = true;
		side->readable = true; /* what it had sent before is still to be read */
	}
	return false;
}

/* Counters. */

void connection_want_look(struct worker *worker)
{
	if (worker->shared->datapath && !worker->look_timer.place)
		loop_timer_set(worker->loop, &worker->look_timer, LOOK_MS);
}

void connection_account(struct connection *c)
{
	struct kkm_stats *stats = c->worker->stats;
	struct relay *up = &c->up.relay, *down = &c->down.relay;
	uint64_t down_new = down->bytes - c->down.counted, up_new = up->bytes - c->up.counted;

	if (!down_new && !up_new)
		return;
	c->down.counted = down->bytes;
	if (up_new)
		c->held_ms = 0;
	c->up.counted = up->bytes;
	c->active_ms = connection_now_ms(c);
	stats->relay_down_bytes += down_new;
	stats->relay_up_bytes += up_new;
	stats->splice_bytes += down->spliced + up->spliced;
	down->spliced = up->spliced = 0;
	if (c->leg)
		engine_relayed(&c->leg->engine, down_new, up_new);
	connection_want_look(c->worker);
}

/* Answers of the agent's own. */

static bool send_answer(struct connection *c)
{
	ssize_t err = c->answer ? answer_send(c->answer, c->client.io.fd) : 0;

	if (err == -EAGAIN)
		return false;
	if (err < 0) {
		connection_close(c, true);
		return false;
	}
	shutdown(c->client.io.fd, SHUT_WR);
	c->client.shut = true;
	return true;
}

static void run_answer(struct connection *c)
{
	size_t drained = 0;

	if (!c->client.shut && !send_answer(c))
		return;
	/* closing with unread input would send a reset, and that may overtake the answer */
	while (c->client.readable) {
		ssize_t n = recv(c->client.io.fd, NULL, 1 << 20, MSG_TRUNC);

		if (n < 0 && errno == EAGAIN) {
			c->client.readable = false;
		} else if (n <= 0) {
			connection_close(c, n < 0);
			return;
		} else if (connection_now_ms(c) - c->since_ms > LINGER_MAX_MS) {
			connection_close(c, true);
			return;
		} else if ((drained += (size_t)n) > RELAY_BUDGET) {
			loop_next_turn(c->worker->loop, &c->task);
			return;
		} else {
			connection_set_timer(c, LINGER_MS);
		}
	}
}

/* Nothing but the client is left; what it still sends is drained. */
void connection_linger(struct connection *c)
{
	if (!connection_keep_promises(c))
		return;
	log_end(c);
	leg_close_all(c, true, false);
	relay_drop(&c->up.relay);
	relay_drop(&c->down.relay);
	exchange_drop_replay(c);
	c->client.readable = c->client.writable = true;
	c->active_ms = connection_now_ms(c);
	connection_enter(c, ANSWER, LINGER_MS);
	run_answer(c);
}

static bool need_answer(struct connection *c)
{
	if (!c->answer)
		c->answer = malloc(sizeof(*c->answer));
	if (!c->answer)
		connection_close(c, true);
	return c->answer;
}

void connection_answer(struct connection *c, int status)
{
	answer_count(c->worker->stats, status);
	if (!connection_keep_promises(c) || !need_answer(c))
		return;
	answer_set(c->answer, status, c->request.head);
	exchange_log(c, (unsigned int)status, c->answer->len);
	connection_linger(c);
}

void connection_answer_bytes(struct connection *c, const void *bytes, size_t len)
{
	if (!need_answer(c))
		return;
	answer_set_bytes(c->answer, bytes, len);
	exchange_log(c, 0, len);
	connection_linger(c);
}

/* Resets. */

static struct side *surviving(struct connection *c)
{
	return c->client.reset ? &c->leg->side : &c->client;
}

/* Bytes that the kernel has not sent yet. */
static int unsent(const struct side *side)
{
	int bytes = 0;

	return ioctl(side->io.fd, SIOCOUTQNSD, &bytes) ? 0 : bytes;
}

int connection_unacked(int fd)
{
	int bytes = 0;

	return ioctl(fd, SIOCOUTQ, &bytes) ? 0 : bytes;
}

/* Differs from the last time where anything has moved. */
static uint64_t reset_progress(struct connection *c)
{
	return c->up.relay.bytes + c->down.relay.bytes - (uint64_t)unsent(surviving(c));
}

void connection_watch_reset(struct connection *c)
{
	if (c->resetting)
		return;
	c->resetting = true;
	c->active_ms = connection_now_ms(c);
	c->reset_progress = reset_progress(c);
	connection_set_timer(c, RESET_MS);
}

/*
 * What came before a reset is passed on for as long as it moves. A client may pause, but whoever has
 * reset its own connection does not hold a place here any longer than that.
 */
static void reset_timeout(struct connection *c)
{
	uint64_t patience = c->client.reset ? RESET_MS : c->worker->shared->config->idle_timeout_ms;
	uint64_t progress = reset_progress(c);

	if (progress != c->reset_progress)
		c->active_ms = connection_now_ms(c);
	c->reset_progress = progress;
	if (connection_now_ms(c) - c->active_ms >= patience)
		connection_close(c, true);
	else
		connection_set_timer(c, RESET_MS);
}

static void run_reset(struct connection *c)
{
	if (!unsent(surviving(c)))
		connection_close(c, true);
}

/*
 * One side was reset, and all that it had sent before is in the other's send queue. A reset throws
 * away what has not been sent, so wait until the kernel has sent it: with TCP_NOTSENT_LOWAT of 1 the
 * socket is writable just then (tcp_stream_memory_free()).
 */
void connection_pass_reset(struct connection *c)
{
	struct side *to = surviving(c);
	int lowat = 1;

	if (c->armed)
		exchange_take_answer(c);
	if (c->state == CLOSED)
		return;
	engine_leave(&c->leg->engine);
	if (to->io.fd < 0 || to->reset || !unsent(to)) {
		connection_close(c, true);
		return;
	}
	setsockopt(to->io.fd, IPPROTO_TCP, TCP_NOTSENT_LOWAT, &lowat, sizeof(lowat));
	log_end(c);
	c->state = RESET;
	connection_watch_reset(c);
	/* asks again, and for an edge when it changes */
	loop_mod(c->worker->loop, &to->io, EPOLLOUT | EPOLLET);
}

/* What comes first: a PROXY protocol header, a ClientHello, or a request's head. */

static bool is_waiting_for_client(const struct connection *c)
{
	return c->state == PROXY || c->state == HEAD || c->state == HELLO;
}

void connection_next_request(struct connection *c)
{
	connection_enter(c, HEAD, c->worker->state == WORKER_RUN
					  ? c->worker->shared->config->idle_timeout_ms
					  : DRAIN_HEAD_MS);
	memset(&c->request, 0, sizeof(c->request));
	c->scan = (struct http1_scan){ 0 };
	c->scanned = c->head_begun = false;
}

static void begin_log(struct connection *c)
{
	if (c->worker->shared->config->access_log && !c->started_us)
		c->started_us = exchange_clock_us();
}

/* The time for a later request's head runs from its first byte; for the first, from accept. */
static void head_is_partial(struct connection *c)
{
	if (c->head_begun || !c->requests || c->up.relay.len <= c->scan.skip)
		return;
	c->head_begun = true;
	c->since_ms = connection_now_ms(c);
	connection_set_timer(c, c->worker->shared->config->head_timeout_ms);
}

static void look_at_head(struct connection *c)
{
	struct relay *up = &c->up.relay;
	int n = http1_request(&c->scan, relay_data(up), up->len, &c->request);

	begin_log(c);
	if (n < 0)
		connection_answer(c, -n);
	else if (n)
		exchange_begin(c, (size_t)n);
	else
		head_is_partial(c);
}

static void look_at_hello(struct connection *c)
{
	struct relay *up = &c->up.relay;
	int n = clienthello_parse(relay_data(up), up->len, c->request.host);

	begin_log(c);
	if (n > 0) {
		leg_choose(c);
	} else if (n < 0) {
		c->worker->stats->tls_refused++;
		connection_close(c, false);
	}
}

static void refuse_header(struct connection *c)
{
	c->worker->stats->proxy_refused++;
	if (c->tls)
		connection_close(c, false);
	else
		connection_answer(c, 400);
}

static void look_at_header(struct connection *c)
{
	struct relay *up = &c->up.relay;
	struct sockaddr_storage source, destination;
	int n = proxyproto_parse(relay_data(up), up->len, &source, &destination);

	if (n < 0) {
		refuse_header(c);
	} else if (n) {
		if (source.ss_family != AF_UNSPEC) {
			c->client_address = source;
			c->local_address = destination;
		}
		relay_skip(up, (size_t)n);
		c->state = c->tls ? HELLO : HEAD;
		c->scanned = false;
	}
}

static void look(struct connection *c)
{
	c->scanned = true;
	if (c->state == PROXY)
		look_at_header(c);
	else if (c->state == HELLO)
		look_at_hello(c);
	else
		look_at_head(c);
}

/* The client has ended before its request, hello or header was complete. */
static void ended_early(struct connection *c)
{
	if (c->state == HEAD && !c->client.reset && c->up.relay.len > c->scan.skip)
		connection_answer(c, 400);
	else
		connection_close(c, c->client.reset);
}

static void run_first(struct connection *c)
{
	while (is_waiting_for_client(c)) {
		if (!c->scanned && c->up.relay.len) {
			look(c);
		} else if (c->client.ended) {
			ended_early(c);
		} else if (!c->client.readable) {
			/* whoever sends a head byte by byte shall not hold a whole buffer for it */
			relay_park(&c->up.relay);
			return;
		} else if (connection_read(&c->client, &c->up.relay)) {
			c->scanned = false;
		}
	}
}

static void run(struct connection *c)
{
	enum state before;

	do {
		before = c->state;
		switch (c->state) {
		case PROXY:
		case HEAD:
		case HELLO:
			run_first(c);
			break;
		case CONNECT:
			leg_run_connect(c);
			break;
		case EXCHANGE:
			exchange_run(c);
			break;
		case TUNNEL:
			tunnel_run(c);
			break;
		case RESET:
			run_reset(c);
			break;
		case ANSWER:
			run_answer(c);
			break;
		case CLOSED:
			break;
		}
	} while (c->state != before);
}

/* Nobody reads this side or writes to it, so nobody else would notice that it has been reset. */
static bool is_unwatched(struct connection *c, const struct side *side)
{
	if (c->state == RESET)
		return side == surviving(c);
	return side == &c->client && (c->state == CONNECT || c->state == ANSWER);
}

static void note_events(struct side *side, uint32_t events)
{
	if (events & (EPOLLIN | EPOLLRDHUP | EPOLLHUP | EPOLLERR))
		side->readable = true;
	if (events & (EPOLLOUT | EPOLLHUP | EPOLLERR))
		side->writable = true;
	if (events & (EPOLLRDHUP | EPOLLHUP | EPOLLERR))
		side->hup = true;
}

static void side_ready(struct loop_io *io, uint32_t events)
{
	struct side *side = (struct side *)io;
	struct connection *c = side->connection;

	note_events(side, events);
	if (side != &c->client && (struct leg *)side != c->leg) {
		leg_idle_event((struct leg *)side, events);
		return;
	}
	if (events & EPOLLERR && (c->state == EXCHANGE || c->state == TUNNEL))
		side->reset = true;
	if (events & EPOLLERR && is_unwatched(c, side))
		connection_close(c, true);
	else
		run(c);
}

void connection_init_side(struct connection *c, struct side *side)
{
	side->connection = c;
	side->io.ready = side_ready;
	side->io.fd = -1;
}

/* Time. */

/* Bytes that an engine moved by itself count as activity when somebody asks. */
static uint64_t idle_ms(struct connection *c)
{
	uint64_t moved = c->leg ? engine_moved(&c->leg->engine) : 0;

	if (moved != c->moved_seen) {
		c->moved_seen = moved;
		c->active_ms = connection_now_ms(c);
	}
	return connection_now_ms(c) - c->active_ms;
}

static void open_timeout(struct connection *c)
{
	uint64_t timeout_ms = c->worker->shared->config->idle_timeout_ms;
	uint64_t idle = idle_ms(c);

	if (c->resetting)
		reset_timeout(c);
	else if (idle >= timeout_ms)
		/* an end would look regular behind half of a request, or of an answer up to the end */
		connection_close(c, c->state == EXCHANGE);
	else
		connection_set_timer(c, timeout_ms - idle);
}

/*
 * What is queued for a client that pauses is a container's answer, or one of our own: the former has
 * the time of an idle connection. Its end has been sent behind it, so a close does not cut it.
 */
static void linger_timeout(struct connection *c)
{
	uint64_t limit = c->answer ? LINGER_MAX_MS : c->worker->shared->config->idle_timeout_ms;
	int queued = connection_unacked(c->client.io.fd);

	if (queued != c->queued)
		c->active_ms = connection_now_ms(c);
	c->queued = queued;
	if (queued && connection_now_ms(c) - c->active_ms < limit)
		connection_set_timer(c, LINGER_MS);
	else
		connection_close(c, queued);
}

static void first_timeout(struct connection *c)
{
	uint64_t timeout_ms = c->worker->shared->config->head_timeout_ms;
	uint64_t since = connection_now_ms(c) - c->since_ms;

	if (c->up.relay.len <= c->scan.skip)
		connection_close(c, false);
	else if (since < timeout_ms) /* the drain had set it, for a connection without a byte */
		connection_set_timer(c, timeout_ms - since);
	else if (c->state == HEAD)
		connection_answer(c, 408);
	else
		connection_close(c, false);
}

static void held_fire(struct loop_timer *timer)
{
	struct connection *c =
		(struct connection *)((char *)timer - offsetof(struct connection, held));

	engine_retry(&c->leg->engine);
	c->leg->side.writable = true;
	run(c);
}

static void timer_fire(struct loop_timer *timer)
{
	struct connection *c =
		(struct connection *)((char *)timer - offsetof(struct connection, timer));

	switch (c->state) {
	case PROXY:
	case HEAD:
	case HELLO:
		first_timeout(c);
		break;
	case CONNECT:
		leg_failed(c, ETIMEDOUT);
		break;
	case EXCHANGE:
	case TUNNEL:
		open_timeout(c);
		break;
	case RESET:
		reset_timeout(c);
		break;
	case ANSWER:
		linger_timeout(c);
		break;
	case CLOSED:
		break;
	}
}

static void task_run(struct loop_task *task)
{
	struct connection *c =
		(struct connection *)((char *)task - offsetof(struct connection, task));

	if (c->state == CLOSED)
		free(c);
	else
		run(c);
}

int connection_new(struct worker *worker, int fd, const struct sockaddr_storage *client, bool tls)
{
	const struct config *config = worker->shared->config;
	struct connection *c = calloc(1, sizeof(*c));
	int err;

	if (!c)
		return -ENOMEM;
	c->worker = worker;
	c->tls = tls;
	c->client_address = *client;
	c->up.relay.pool = c->down.relay.pool = &worker->pool;
	c->timer.fire = timer_fire;
	c->held.fire = held_fire;
	c->task.run = task_run;
	connection_init_side(c, &c->client);
	err = loop_add(worker->loop, &c->client.io, fd, EPOLLIN | EPOLLOUT | EPOLLRDHUP | EPOLLET);
	if (err) {
		free(c);
		return err;
	}
	c->next = worker->connections;
	if (c->next)
		c->next->link = &c->next;
	c->link = &worker->connections;
	worker->connections = c;
	worker->connection_count++;
	c->active_ms = connection_now_ms(c);
	connection_enter(c, tls ? HELLO : HEAD, config->head_timeout_ms);
	if (config_cidrs_match(&config->proxy_protocol_from, client))
		c->state = PROXY;
	return 0;
}

/* Nothing more goes by an engine; what had gone by it unseen is seen now. */
static void leave_engines(struct connection *c)
{
	if (c->armed)
		exchange_take_answer(c);
	if (c->state == CLOSED)
		return;
	for (struct leg *leg = c->legs; leg; leg = leg->next) {
		if (leg->engine.engine == KKM_RELAY)
			continue;
		engine_leave(&leg->engine);
		c->worker->stats->sockmap_left++;
	}
	if (c->state == EXCHANGE || c->state == TUNNEL)
		run(c);
}

void connection_leave_engines(struct worker *worker)
{
	struct connection *next;

	for (struct connection *c = worker->connections; c; c = next) {
		next = c->next;
		leave_engines(c);
	}
}

/*
 * Once a second while bytes move: answers that an engine has carried are ended though the client asks
 * for nothing more, and the maps tell what has moved.
 */
void connection_look_after(struct loop_timer *timer)
{
	struct worker *worker =
		(struct worker *)((char *)timer - offsetof(struct worker, look_timer));
	struct connection *next;
	bool again = false;

	for (struct connection *c = worker->connections; c; c = next) {
		next = c->next;
		for (struct leg *leg = c->legs; leg; leg = leg->next)
			again |= engine_sync(&leg->engine);
		if (c->armed && engine_has_answered(&c->leg->engine))
			run(c);
		again |= c->armed;
	}
	if (again)
		loop_timer_set(worker->loop, timer, LOOK_MS);
}

/* False where there is none to wait for any more. */
static bool cut_leaving(struct connection *c, uint64_t now_ms, uint64_t limit_ms)
{
	bool again = false;
	struct leg *next;

	for (struct leg *leg = c->legs; leg && c->state != CLOSED; leg = next) {
		uint64_t since_ms = atomic_load(&leg->load->leaving_ms);

		next = leg->next;
		if (!since_ms)
			continue;
		if (leg != c->leg) {
			leg_close(leg, false);
		} else if (now_ms < since_ms + limit_ms) {
			again = true;
		} else {
			c->worker->stats->legs_cut++;
			connection_close(c, true);
		}
	}
	return again;
}

void connection_cut_leaving(struct loop_timer *timer)
{
	struct worker *worker =
		(struct worker *)((char *)timer - offsetof(struct worker, leaving_timer));
	uint64_t limit_ms = worker->shared->config->drain_timeout_ms;
	uint64_t now_ms = loop_now_ms(worker->loop);
	struct connection *next;
	bool again = false;

	for (struct connection *c = worker->connections; c; c = next) {
		next = c->next;
		again |= cut_leaving(c, now_ms, limit_ms);
	}
	if (again)
		loop_timer_set(worker->loop, timer, LOOK_MS);
}

void connection_drain_all(struct worker *worker, bool now)
{
	struct connection *next;

	for (struct connection *c = worker->connections; c; c = next) {
		next = c->next;
		if (now)
			connection_close(c, true);
		else
			leave_engines(c);
		if (now || c->state == CLOSED)
			continue;
		if (is_waiting_for_client(c) && c->up.relay.len <= c->scan.skip)
			connection_set_timer(c, DRAIN_HEAD_MS);
	}
}
