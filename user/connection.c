// SPDX-License-Identifier: MIT
/* A connection from accept to close, but for what happens in OPEN (exchange.c). */
#include <errno.h>
#include <linux/sockios.h>
#include <netinet/in.h>
#include <netinet/tcp.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/ioctl.h>
#include <unistd.h>

#include "connection_impl.h"

/*
 * What one connection may hold, both directions stuck: two receive buffers, two send buffers (the
 * kernel doubles what is asked for, socket(7)) and two pipes, together 7 MiB.
 */
#define RECEIVE_BUFFER (512 << 10)
#define SEND_BUFFER (768 << 10)

#define LINGER_MS 5000	   /* after an answer of ours: silence of the client */
#define LINGER_MAX_MS 30000
#define PARTING_MS 100		/* of silence behind an answer: it has ended */
#define PARTING_PIPELINED_MS 1000 /* the same, where the client did not wait for its end */
#define RESET_MS 5000	   /* without progress: for what was received before a reset */
#define DRAIN_QUIET_MS 5000 /* without a byte: idle, when the agent stops */
#define DRAIN_CHECK_MS 500
#define DRAIN_HEAD_MS 1000 /* for a request that may be on its way when the agent stops */

static void choose(struct connection *c, const char *host);

static uint64_t now_ms(const struct connection *c)
{
	return loop_now_ms(c->worker->loop);
}

void connection_set_timer(struct connection *c, uint64_t delay_ms)
{
	loop_timer_set(c->worker->loop, &c->timer, delay_ms);
}

static void enter(struct connection *c, enum state state, uint64_t timeout_ms)
{
	c->state = state;
	c->since_ms = now_ms(c);
	connection_set_timer(c, timeout_ms);
}

void connection_set_open_timer(struct connection *c)
{
	const struct worker *worker = c->worker;

	if (!c->resetting)
		connection_set_timer(c, worker->state == WORKER_RUN ? worker->shared->config->idle_timeout_ms
							    : DRAIN_CHECK_MS);
}

void connection_set_parting_timer(struct connection *c)
{
	if (!c->resetting)
		connection_set_timer(c, PARTING_MS);
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

static void side_close(struct connection *c, struct side *side, bool reset)
{
	struct linger linger = { .l_onoff = 1, .l_linger = 0 };
	int fd = loop_del(c->worker->loop, &side->io);

	if (fd < 0)
		return;
	if (reset)
		setsockopt(fd, SOL_SOCKET, SO_LINGER, &linger, sizeof(linger));
	close(fd);
}

static void server_close(struct connection *c, bool reset)
{
	engine_close(&c->leg);
	side_close(c, &c->server, reset);
	if (c->load)
		atomic_fetch_sub(&c->load->connections, 1);
	route_load_put(&c->load);
}

void connection_close(struct connection *c, bool reset)
{
	if (c->state == CLOSED)
		return;
	c->state = CLOSED;
	loop_timer_clear(c->worker->loop, &c->timer);
	server_close(c, reset);
	side_close(c, &c->client, reset);
	relay_drop(&c->up);
	relay_drop(&c->down);
	*c->link = c->next;
	if (c->next)
		c->next->link = c->link;
	c->worker->connection_count--;
	worker_connection_closed(c->worker);
	/* freed when nothing of this turn refers to it; no-op where it is queued for the next one */
	loop_defer(c->worker->loop, &c->task);
}

/* Counters. */

void connection_account(struct connection *c)
{
	struct kkm_stats *stats = c->worker->stats;
	uint64_t down = c->down.bytes - c->down_counted, up = c->up.bytes - c->up_counted;

	if (!down && !up)
		return;
	c->down_counted = c->down.bytes;
	c->up_counted = c->up.bytes;
	c->active_ms = now_ms(c);
	stats->relay_down_bytes += down;
	stats->relay_up_bytes += up;
	stats->splice_bytes += c->down.spliced + c->up.spliced;
	c->down.spliced = c->up.spliced = 0;
	engine_relayed(&c->leg, down, up);
}

uint64_t connection_to_client(const struct connection *c)
{
	return c->down.bytes + engine_moved(&c->leg);
}

/* Answers of the agent's own. */

static void run_answer(struct connection *c)
{
	size_t drained = 0;

	while (!c->client.shut) {
		ssize_t n = answer_send(&c->answer, c->client.io.fd);

		if (n == -EAGAIN)
			return;
		if (n < 0) {
			connection_close(c, true);
			return;
		}
		shutdown(c->client.io.fd, SHUT_WR);
		c->client.shut = true;
	}
	/* closing with unread input would send a reset, and that may overtake the answer */
	while (c->client.readable) {
		ssize_t n = recv(c->client.io.fd, NULL, 1 << 20, MSG_TRUNC);

		if (n < 0 && errno == EAGAIN) {
			c->client.readable = false;
		} else if (n <= 0) {
			connection_close(c, n < 0);
			return;
		} else if (now_ms(c) - c->since_ms > LINGER_MAX_MS) {
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
	server_close(c, true);
	relay_drop(&c->up);
	relay_drop(&c->down);
	c->client.readable = c->client.writable = true;
	enter(c, ANSWER, LINGER_MS);
	run_answer(c);
}

void connection_answer(struct connection *c, int status)
{
	answer_count(c->worker->stats, status);
	answer_set(&c->answer, status, c->head_method);
	connection_linger(c);
}

/* Resets. */

static struct side *surviving(struct connection *c)
{
	return c->client.reset ? &c->server : &c->client;
}

/* Bytes that the kernel has not sent yet. */
static int unsent(const struct side *side)
{
	int bytes = 0;

	return ioctl(side->io.fd, SIOCOUTQNSD, &bytes) ? 0 : bytes;
}

/* Bytes that the peer's kernel has not acknowledged yet. */
static int unsent_or_unacked(const struct side *side)
{
	int bytes = 0;

	return ioctl(side->io.fd, SIOCOUTQ, &bytes) ? 0 : bytes;
}

/* Differs from the last time where anything has moved. */
static uint64_t reset_progress(struct connection *c)
{
	return c->up.bytes + c->down.bytes - (uint64_t)unsent(surviving(c));
}

void connection_watch_reset(struct connection *c)
{
	if (c->resetting)
		return;
	c->resetting = true;
	c->reset_progress = reset_progress(c);
	connection_set_timer(c, RESET_MS);
}

/* What came before a reset is passed on for as long as it moves. */
static void reset_timeout(struct connection *c)
{
	uint64_t progress = reset_progress(c);

	if (progress == c->reset_progress) {
		connection_close(c, true);
		return;
	}
	c->reset_progress = progress;
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

	engine_leave(&c->leg);
	if (to->io.fd < 0 || to->reset || !unsent(to)) {
		connection_close(c, true);
		return;
	}
	setsockopt(to->io.fd, IPPROTO_TCP, TCP_NOTSENT_LOWAT, &lowat, sizeof(lowat));
	c->state = RESET;
	connection_watch_reset(c);
	/* asks again, and for an edge when it changes */
	loop_mod(c->worker->loop, &to->io, EPOLLOUT | EPOLLET);
}

/* The way to the container. */

static void connect_failed(struct connection *c, int err)
{
	const struct route *route;
	const struct route_backend *failed = NULL, *other = NULL;
	char domain[sizeof(c->domain)];

	c->worker->stats->upstream_failures++;
	server_close(c, true);
	memcpy(domain, c->domain, sizeof(domain));
	route = route_exact(c->worker->table, domain);
	if (route && !c->retried) {
		failed = route_backend_at(route, &c->address);
		other = route_pick(route, failed, c->worker->turn++);
	}
	if (other) {
		c->retried = true;
		choose(c, domain);
	} else {
		connection_answer(c, err == ETIMEDOUT ? 504 : 502);
	}
}

static bool want_sockmap(const struct connection *c, const struct route_backend *backend)
{
	const struct worker_shared *shared = c->worker->shared;

	if (shared->engine != KKM_SOCKMAP || backend->no_sockmap || c->hold)
		return false;
	return c->body.state == REQBODY_DONE || !shared->bodies_leave;
}

static int server_open(struct connection *c, const struct route_backend *backend)
{
	struct engine_request request = {
		.engine = want_sockmap(c, backend) ? KKM_SOCKMAP : KKM_RELAY,
		.domain = c->domain,
		.backend = &c->address,
		.client = &c->client_address,
		.client_fd = c->client.io.fd,
	};
	int on = 1, fd, err;

	fd = socket(c->address.ss_family, SOCK_STREAM | SOCK_NONBLOCK | SOCK_CLOEXEC, 0);
	if (fd < 0)
		return -errno;
	connection_bound_buffers(fd);
	setsockopt(fd, IPPROTO_TCP, TCP_NODELAY, &on, sizeof(on));
	request.upstream_fd = fd;
	engine_open(&c->leg, c->worker->shared->datapath, &c->worker->slots, &request);
	c->worker->stats->upstream_connects++;
	c->worker->stats->sockmap_wanted += c->leg.engine == KKM_SOCKMAP;
	err = connect(fd, (struct sockaddr *)&c->address, address_len(&c->address)) ? -errno : 0;
	if (err == -EINPROGRESS)
		err = 0;
	if (!err)
		err = loop_add(c->worker->loop, &c->server.io, fd,
			       EPOLLIN | EPOLLOUT | EPOLLRDHUP | EPOLLET);
	if (err)
		close(fd);
	return err;
}

static void connect_to(struct connection *c, const struct route *route,
		       const struct route_backend *backend)
{
	int err;

	snprintf(c->domain, sizeof(c->domain), "%s", route->domain);
	memcpy(c->container, backend->id, sizeof(c->container));
	c->address = backend->address;
	c->generation = c->worker->table->generation;
	c->load = backend->load;
	route_load_get(c->load);
	atomic_fetch_add(&c->load->connections, 1);
	c->server.readable = c->server.writable = c->server.hup = false;
	enter(c, CONNECT, c->worker->shared->config->connect_timeout_ms);
	err = server_open(c, backend);
	if (err)
		connect_failed(c, -err);
}

/* `host` is a name in lower case, or a configured domain. */
static void choose(struct connection *c, const char *host)
{
	const struct route_table *table = c->worker->table;
	const struct route *route = table ? route_find(table, host) : NULL;
	const struct route_backend *failed, *backend;

	if (!route) {
		connection_answer(c, table && table->ready ? 404 : 503);
		return;
	}
	failed = c->retried ? route_backend_at(route, &c->address) : NULL;
	backend = route_pick(route, failed, c->worker->turn++);
	if (backend)
		connect_to(c, route, backend);
	else
		connection_answer(c, 503);
}

bool connection_still_routed(const struct connection *c, const struct route *route)
{
	const struct route_backend *backend = route ? route_backend_at(route, &c->address) : NULL;

	return backend && !strcmp(backend->id, c->container);
}

static void opened(struct connection *c)
{
	const struct route_table *table = c->worker->table;

	/* an address may have a new owner by now; nothing has been sent yet */
	if (c->generation != table->generation &&
	    !connection_still_routed(c, route_exact(table, c->domain))) {
		char domain[sizeof(c->domain)];

		memcpy(domain, c->domain, sizeof(domain));
		server_close(c, true);
		choose(c, domain);
		return;
	}
	c->active_ms = now_ms(c);
	c->watch = c->server.writable = true;
	c->worker->stats->requests++;
	c->state = OPEN;
	connection_set_open_timer(c);
}

static void run_connect(struct connection *c)
{
	int err = 0;
	socklen_t len = sizeof(err);

	if (!c->server.writable)
		return;
	if (getsockopt(c->server.io.fd, SOL_SOCKET, SO_ERROR, &err, &len))
		err = errno;
	if (err)
		connect_failed(c, err);
	else
		opened(c);
}

/* Requests. */

static void first_head(struct connection *c)
{
	struct reqhead *head = &c->worker->head;
	int n = reqhead_parse(relay_data(&c->up), c->up.len, &c->scanned, head);

	if (n < 0) {
		c->head_method = head->head;
		connection_answer(c, -n);
	} else if (n) {
		exchange_begin_request(c, head, (size_t)n);
		c->hold = head->upgrade;
		choose(c, head->host);
	}
}

static void run_head(struct connection *c)
{
	while (c->state == HEAD && c->client.readable) {
		ssize_t n = relay_read(&c->up, c->client.io.fd);

		if (n > 0) {
			first_head(c);
		} else if (n == -EAGAIN || n == -EINTR) {
			c->client.readable = false;
		} else if (!n && c->up.len) {
			connection_answer(c, 400); /* ended in the middle of a head */
		} else {
			connection_close(c, n < 0);
		}
	}
}

static void run(struct connection *c)
{
	enum state before;

	do {
		before = c->state;
		switch (c->state) {
		case HEAD:
			run_head(c);
			break;
		case CONNECT:
			run_connect(c);
			break;
		case OPEN:
			exchange_run(c);
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
	return side == &c->client && (c->state == CONNECT || c->state == ANSWER || c->parting);
}

static void side_ready(struct loop_io *io, uint32_t events)
{
	struct side *side = (struct side *)io;
	struct connection *c = side->connection;

	if (events & (EPOLLIN | EPOLLRDHUP | EPOLLHUP | EPOLLERR))
		side->readable = true;
	if (events & (EPOLLOUT | EPOLLHUP | EPOLLERR))
		side->writable = true;
	if (events & (EPOLLRDHUP | EPOLLHUP | EPOLLERR))
		side->hup = true;
	if (events & EPOLLERR && c->state == OPEN)
		side->reset = true;
	if (events & EPOLLERR && is_unwatched(c, side))
		connection_close(c, true);
	else
		run(c);
}

/* Time. */

/* As far as can be told: bytes of an answer to the last request came, and none is on its way. */
static bool is_answered(const struct connection *c)
{
	if (c->opaque || c->approved || c->up.piped || c->down.len || c->down.piped)
		return false;
	return connection_to_client(c) > c->moved_at_request && !unsent_or_unacked(&c->client);
}

/* Between two requests. */
static bool is_quiet(const struct connection *c)
{
	return is_answered(c) && c->body.state == REQBODY_DONE && !c->up.len;
}

/* Bytes that an engine moved by itself count as activity when somebody asks. */
static uint64_t idle_ms(struct connection *c)
{
	uint64_t moved = engine_moved(&c->leg);

	if (moved != c->moved_seen) {
		c->moved_seen = moved;
		c->active_ms = now_ms(c);
	}
	return now_ms(c) - c->active_ms;
}

/*
 * Where an answer ends is not known to this version, only that it has been silent: so an answer of
 * the agent's own, or the end, comes behind a silence. What has not been answered at all gets the
 * time of a drain.
 */
static void parting_timeout(struct connection *c)
{
	int queued = unsent_or_unacked(&c->client);
	bool answered = is_answered(c);
	uint64_t idle, enough = c->worker->shared->config->drain_timeout_ms;

	/* the client's queue empties without an event */
	if (queued != c->queued)
		c->active_ms = now_ms(c);
	c->queued = queued;
	idle = idle_ms(c);
	if (answered)
		enough = c->pipelined ? PARTING_PIPELINED_MS : PARTING_MS;
	if (idle < enough) {
		connection_set_timer(c, enough - idle < PARTING_PIPELINED_MS ? enough - idle
									      : PARTING_PIPELINED_MS);
		return;
	}
	server_close(c, !answered);
	if (answered && c->parting_status)
		connection_answer(c, c->parting_status);
	else
		connection_linger(c);
}

static void open_timeout(struct connection *c)
{
	uint64_t timeout_ms = c->worker->shared->config->idle_timeout_ms;
	uint64_t idle = idle_ms(c);

	if (c->resetting) {
		reset_timeout(c);
	} else if (c->parting) {
		parting_timeout(c);
	} else if (c->partial_head) {
		c->partial_head = false;
		c->head_method = false;
		exchange_part(c, 408);
		loop_next_turn(c->worker->loop, &c->task);
	} else if (c->worker->state == WORKER_DRAIN) {
		if (is_quiet(c) && idle >= DRAIN_QUIET_MS)
			connection_close(c, false);
		else
			connection_set_timer(c, DRAIN_CHECK_MS);
	} else if (idle >= timeout_ms) {
		connection_close(c, false);
	} else {
		connection_set_timer(c, timeout_ms - idle);
	}
}

/* A client that still takes what is queued is not cut off by its silence. */
static void linger_timeout(struct connection *c)
{
	uint64_t since = now_ms(c) - c->since_ms;
	int queued = unsent_or_unacked(&c->client);

	if (queued && queued != c->queued && since < c->worker->shared->config->idle_timeout_ms) {
		c->queued = queued;
		connection_set_timer(c, LINGER_MS);
	} else {
		connection_close(c, true);
	}
}

static void head_timeout(struct connection *c)
{
	uint64_t timeout_ms = c->worker->shared->config->head_timeout_ms;
	uint64_t since = now_ms(c) - c->since_ms;

	if (!c->up.len)
		connection_close(c, false);
	else if (since < timeout_ms) /* the drain had set it, for a connection without a byte */
		connection_set_timer(c, timeout_ms - since);
	else
		connection_answer(c, 408);
}

static void timer_fire(struct loop_timer *timer)
{
	struct connection *c =
		(struct connection *)((char *)timer - offsetof(struct connection, timer));

	switch (c->state) {
	case HEAD:
		head_timeout(c);
		break;
	case CONNECT:
		connect_failed(c, ETIMEDOUT);
		break;
	case OPEN:
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

int connection_new(struct worker *worker, int fd, const struct sockaddr_storage *client)
{
	struct connection *c = calloc(1, sizeof(*c));
	int err;

	if (!c)
		return -ENOMEM;
	c->worker = worker;
	c->client_address = *client;
	c->up.pool = c->down.pool = &worker->pool;
	c->timer.fire = timer_fire;
	c->task.run = task_run;
	c->client.connection = c->server.connection = c;
	c->client.io.ready = c->server.io.ready = side_ready;
	c->server.io.fd = -1;
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
	c->active_ms = now_ms(c);
	enter(c, HEAD, worker->shared->config->head_timeout_ms);
	return 0;
}

void connection_drain_all(struct worker *worker, bool now)
{
	struct connection *next;

	for (struct connection *c = worker->connections; c; c = next) {
		next = c->next;
		if (now)
			connection_close(c, true);
		else if (c->state == HEAD && !c->up.len)
			connection_set_timer(c, DRAIN_HEAD_MS);
		else if (c->state == OPEN && !c->parting && !c->partial_head && !c->resetting)
			connection_set_timer(c, 0);
	}
}
