// SPDX-License-Identifier: MIT
/*
 * A connection's connections to containers: one for each container that it has spoken to, so that
 * each request goes to the container of its Host, whatever came before it.
 */
#include <errno.h>
#include <netinet/in.h>
#include <netinet/tcp.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#include "clienthello.h"
#include "connection_impl.h"
#include "proxyproto.h"

#define LEG_IDLE_MS 60000 /* unused for so long: closed */
#define SMALL_ANSWERS 64   /* in a row, after a large one, and the short way is taken again */
#define SMALL_READ 1000	   /* bytes; nginx reads a head by 1024 */
#define LEG_FRESH_MS 1000 /* of idleness: what must not be sent twice may still use it */

/* Idle legs: the worker's, the longest idle first. */

static void unidle(struct leg *leg)
{
	struct worker *worker = leg->side.connection->worker;

	if (!leg->idle)
		return;
	leg->idle = false;
	*(leg->older ? &leg->older->newer : &worker->legs_oldest) = leg->newer;
	*(leg->newer ? &leg->newer->older : &worker->legs_newest) = leg->older;
	leg->older = leg->newer = NULL;
}

static uint64_t idle_limit_ms(const struct worker *worker)
{
	uint64_t timeout_ms = worker->shared->config->idle_timeout_ms;

	return timeout_ms < LEG_IDLE_MS ? timeout_ms : LEG_IDLE_MS;
}

static void make_idle(struct leg *leg)
{
	struct worker *worker = leg->side.connection->worker;

	leg->idle = true;
	leg->idle_since_ms = loop_now_ms(worker->loop);
	leg->older = worker->legs_newest;
	*(leg->older ? &leg->older->newer : &worker->legs_oldest) = leg;
	worker->legs_newest = leg;
	if (!worker->legs_timer.place)
		loop_timer_set(worker->loop, &worker->legs_timer, idle_limit_ms(worker));
}

void connection_expire_legs(struct loop_timer *timer)
{
	struct worker *worker =
		(struct worker *)((char *)timer - offsetof(struct worker, legs_timer));
	uint64_t now = loop_now_ms(worker->loop), limit = idle_limit_ms(worker);

	while (worker->legs_oldest && now - worker->legs_oldest->idle_since_ms >= limit)
		leg_close(worker->legs_oldest, false);
	if (worker->legs_oldest)
		loop_timer_set(worker->loop, timer,
			       worker->legs_oldest->idle_since_ms + limit - now);
}

/* Its life. */

static void leg_free(struct loop_task *task)
{
	free((char *)task - offsetof(struct leg, task));
}

static struct leg *leg_new(struct connection *c, const struct route_backend *backend)
{
	struct leg *leg = calloc(1, sizeof(*leg));

	if (!leg)
		return NULL;
	connection_init_side(c, &leg->side);
	leg->task.run = leg_free;
	leg->address = backend->address;
	leg->proxy_protocol = backend->proxy_protocol;
	memcpy(leg->container, backend->id, sizeof(leg->container));
	memcpy(leg->name, backend->name, sizeof(leg->name));
	leg->load = backend->load;
	route_load_get(leg->load);
	atomic_fetch_add(&leg->load->connections, 1);
	leg->next = c->legs;
	c->legs = leg;
	c->leg_count++;
	atomic_fetch_add(c->worker->shared->legs, 1);
	return leg;
}

void leg_close(struct leg *leg, bool reset)
{
	struct connection *c = leg->side.connection;
	struct leg **link = &c->legs;

	unidle(leg);
	engine_leave(&leg->engine);
	c->moved += engine_moved(&leg->engine);
	if (c->promiser == leg)
		c->promiser = NULL;
	engine_close(&leg->engine);
	connection_close_side(&leg->side, reset);
	atomic_fetch_sub(&leg->load->connections, 1);
	route_load_put(&leg->load);
	while (*link != leg)
		link = &(*link)->next;
	*link = leg->next;
	c->leg_count--;
	atomic_fetch_sub(c->worker->shared->legs, 1);
	if (c->leg == leg) {
		c->leg = NULL;
		c->armed = false;
		loop_timer_clear(c->worker->loop, &c->held);
	}
	loop_defer(c->worker->loop, &leg->task);
}

void leg_close_all(struct connection *c, bool reset_current, bool reset_idle)
{
	while (c->legs)
		leg_close(c->legs, c->legs->idle ? reset_idle : reset_current);
}

static void close_longest_idle(struct connection *c)
{
	struct leg *oldest = NULL;

	for (struct leg *leg = c->legs; leg; leg = leg->next) {
		if (leg->idle && (!oldest || leg->idle_since_ms <= oldest->idle_since_ms))
			oldest = leg;
	}
	if (oldest)
		leg_close(oldest, false);
}

/* Has the container said nothing, and not ended, since its last answer? */
static bool is_silent(const struct leg *leg)
{
	char byte;

	return recv(leg->side.io.fd, &byte, 1, MSG_PEEK | MSG_DONTWAIT) < 0 && errno == EAGAIN;
}

/* Whatever it has to say, nobody asked for it: its end, or bytes of no answer. */
void leg_idle_event(struct leg *leg, uint32_t events)
{
	uint32_t said = events & (EPOLLIN | EPOLLRDHUP | EPOLLHUP | EPOLLERR);

	/* an event may be older than the idleness, and what it told of have been read */
	if (said && (said != EPOLLIN || !is_silent(leg)))
		leg_close(leg, false);
}

/* Whoever stops or has gone is cut in a while, even if an equal one has come back since. */
static bool is_leaving(const struct leg *leg)
{
	return atomic_load_explicit(&leg->load->leaving_ms, memory_order_relaxed);
}

/*
 * Where the container has sent what nobody asked for, has ended, or has not taken all of a request
 * that it answered early, nothing may follow on it.
 */
static bool is_reusable(const struct connection *c, const struct leg *leg)
{
	const struct side *side = &leg->side;
	bool large = c->up.relay.bytes - c->up_from > RELAY_BUFFER;

	return c->answered == ANSWER_DONE && c->response.keep_alive && !is_leaving(leg) &&
	       !side->ended && !side->hup && !side->reset && !side->shut &&
	       !c->down.relay.len && exchange_is_sent(c) &&
	       (!side->readable || is_silent(leg)) && (!large || !connection_unacked(side->io.fd));
}

void leg_release(struct connection *c)
{
	struct leg *leg = c->leg;

	if (is_reusable(c, leg)) {
		leg->used = true;
		leg->small = connection_answered_bytes(c) < RELAY_BULK ? leg->small + 1 : 0;
		make_idle(leg);
		loop_timer_clear(c->worker->loop, &c->held);
		/* an engine's answer may have been noticed late, a second at most */
		if (c->carried_ns && c->carried_ns / 1000000 < leg->idle_since_ms)
			leg->idle_since_ms = c->carried_ns / 1000000;
		c->leg = NULL;
	} else {
		leg_close(leg, c->down.relay.len);
	}
	relay_drop(&c->down.relay);
}

/* Connecting. */

/*
 * On a kernel where an enrolled socket's application cannot ask how much waits for it (FIONREAD), it
 * gets only what any application takes in one read. Who forces requests has been warned, and has the label.
 */
static bool is_safe_to_read(const struct connection *c)
{
	return !c->worker->shared->small_reads || c->worker->shared->requests ||
	       (c->request.framing == HTTP1_NONE && c->head_len <= SMALL_READ);
}

/* A connection that ends behind one answer is not worth the entries in the maps. */
static bool want_sockmap(const struct connection *c, const struct route_backend *backend)
{
	return atomic_load_explicit(&c->worker->shared->engine, memory_order_relaxed) ==
		       KKM_SOCKMAP &&
	       !backend->no_sockmap && !c->tls && c->request.keep_alive &&
	       (!c->request.upgrade || c->worker->shared->streams) && is_safe_to_read(c);
}

/* An idle leg's descriptor, or slot, is worth less than a request. */
bool connection_spare_leg(struct worker *worker)
{
	if (!worker->legs_oldest)
		return false;
	leg_close(worker->legs_oldest, false);
	return true;
}

static int new_socket(struct worker *worker, int family)
{
	while (atomic_load(worker->shared->legs) > worker->shared->config->max_legs &&
	       connection_spare_leg(worker))
		;
	for (;;) {
		int fd = socket(family, SOCK_STREAM | SOCK_NONBLOCK | SOCK_CLOEXEC, 0);

		if (fd >= 0)
			return fd;
		if ((errno != EMFILE && errno != ENFILE) || !connection_spare_leg(worker))
			return -errno;
	}
}

static void open_engine(struct connection *c, const struct route *route,
			const struct route_backend *backend, const struct sockaddr_storage *address,
			int fd)
{
	struct engine_request request = {
		.engine = want_sockmap(c, backend) ? KKM_SOCKMAP : KKM_RELAY,
		.requests = c->worker->shared->requests,
		.mode = KKM_HTTP,
		.domain = route->domain,
		.backend = address,
		.client = &c->client_address,
		.client_fd = c->client.io.fd,
		.upstream_fd = fd,
	};

	while (c->worker->shared->datapath && !c->worker->slots.count &&
	       connection_spare_leg(c->worker))
		;
	engine_open(&c->leg->engine, c->worker->shared->datapath, &c->worker->slots, &request);
	c->worker->stats->sockmap_wanted += c->leg->engine.engine == KKM_SOCKMAP;
}

static void set_port(struct sockaddr_storage *address, uint16_t port)
{
	if (address->ss_family == AF_INET)
		((struct sockaddr_in *)address)->sin_port = htons(port);
	else
		((struct sockaddr_in6 *)address)->sin6_port = htons(port);
}

static int start_connect(struct connection *c, const struct route *route,
			 const struct route_backend *backend)
{
	struct sockaddr_storage address = backend->address;
	int fd = new_socket(c->worker, address.ss_family), on = 1, err = 0;

	if (fd < 0)
		return fd;
	if (c->tls)
		set_port(&address, backend->tls_port);
	connection_bound_buffers(fd);
	setsockopt(fd, IPPROTO_TCP, TCP_NODELAY, &on, sizeof(on));
	open_engine(c, route, backend, &address, fd);
	c->worker->stats->upstream_connects++;
	if (connect(fd, (struct sockaddr *)&address, address_len(&address)) && errno != EINPROGRESS)
		err = -errno;
	if (!err)
		err = loop_add(c->worker->loop, &c->leg->side.io, fd,
			       EPOLLIN | EPOLLOUT | EPOLLRDHUP | EPOLLET);
	if (err)
		close(fd);
	return err;
}

/* Nobody can be asked: an answer of our own, or an alert. */
static void refuse(struct connection *c, int status)
{
	uint8_t alert[CLIENTHELLO_ALERT_LEN];

	if (!c->tls) {
		connection_answer(c, status);
		return;
	}
	clienthello_alert(status == 404 ? CLIENTHELLO_UNRECOGNIZED_NAME
					: CLIENTHELLO_INTERNAL_ERROR, alert);
	c->worker->stats->tls_refused++;
	connection_answer_bytes(c, alert, sizeof(alert));
}

static void connect_to(struct connection *c, const struct route *route,
		       const struct route_backend *backend)
{
	int err;

	if (c->leg_count == CONNECTION_MAX_LEGS)
		close_longest_idle(c);
	c->leg = leg_new(c, backend);
	if (!c->leg) {
		refuse(c, 502);
		return;
	}
	c->generation = c->worker->table->generation;
	connection_enter(c, CONNECT, c->worker->shared->config->connect_timeout_ms);
	err = start_connect(c, route, backend);
	if (err)
		leg_failed(c, -err);
}

/* What `leg` leads to, if the route still has it. */
static const struct route_backend *backend_of(const struct route *route, const struct leg *leg)
{
	const struct route_backend *backend = route ? route_backend_at(route, &leg->address) : NULL;

	return backend && !strcmp(backend->id, leg->container) ? backend : NULL;
}

void leg_failed(struct connection *c, int err)
{
	const struct route *route = route_find(c->worker->table, c->request.host);
	const struct route_backend *other = NULL;

	c->worker->stats->upstream_failures++;
	if (route && !c->reconnected)
		other = route_pick(route, backend_of(route, c->leg), c->tls, c->worker->turn++);
	if (!other) {
		refuse(c, err == ETIMEDOUT ? 504 : 502);
		return;
	}
	leg_close(c->leg, true);
	c->reconnected = true;
	connect_to(c, route, other);
}

/* Connected. */

/* A socket that is new has room for it. 0 or -errno. */
static int send_proxy_header(struct connection *c)
{
	struct sockaddr_storage local = c->local_address;
	uint8_t header[PROXYPROTO_OUT_MAX];
	socklen_t len = sizeof(local);
	size_t size;
	ssize_t n;

	if (local.ss_family == AF_UNSPEC &&
	    getsockname(c->client.io.fd, (struct sockaddr *)&local, &len))
		return -errno;
	size = proxyproto_write(&c->client_address, &local, header);
	n = send(c->leg->side.io.fd, header, size, MSG_NOSIGNAL);
	if (n < 0)
		return -errno;
	engine_relayed(&c->leg->engine, 0, (uint64_t)n);
	return (size_t)n == size ? 0 : -EIO;
}

static void connected(struct connection *c)
{
	const struct route_backend *backend =
		backend_of(route_find(c->worker->table, c->request.host), c->leg);
	int err;

	/* an address may have a new owner by now; nothing has been sent yet */
	if (c->generation != c->worker->table->generation &&
	    (!backend || backend->state != KKM_ACTIVE)) {
		leg_close(c->leg, true);
		leg_choose(c);
		return;
	}
	err = c->leg->proxy_protocol ? send_proxy_header(c) : 0;
	if (err)
		leg_failed(c, -err);
	else if (c->tls)
		tunnel_begin(c);
	else
		exchange_start(c);
}

void leg_run_connect(struct connection *c)
{
	int err = 0;
	socklen_t len = sizeof(err);

	if (!c->leg->side.writable)
		return;
	if (getsockopt(c->leg->side.io.fd, SOL_SOCKET, SO_ERROR, &err, &len))
		err = errno;
	if (err)
		leg_failed(c, err);
	else
		connected(c);
}

/* Choosing. */

/*
 * A container may close an idle connection at any time, also just now. What cannot be sent again
 * then uses one only where that is unlikely.
 */
static bool is_usable(const struct connection *c, const struct leg *leg)
{
	uint64_t idle_ms = connection_now_ms(c) - leg->idle_since_ms;

	bool repeatable = exchange_is_repeatable(c);

	/* where an engine has seen all that came, only an end can be news, and that is repaired */
	return (idle_ms < LEG_FRESH_MS || repeatable) &&
	       ((repeatable && engine_is_quiet(&leg->engine)) || is_silent(leg));
}

static bool suits(const struct connection *c, const struct leg *leg,
		  const struct route_backend *backend)
{
	if (leg->engine.engine == KKM_RELAY)
		/* only a new one can be enrolled: worth it for a stream, or if answers stay small */
		return !(c->request.upgrade || (leg->left_bulk && leg->small >= SMALL_ANSWERS)) ||
		       !want_sockmap(c, backend);
	return is_safe_to_read(c) && (!c->request.upgrade || c->worker->shared->streams);
}

static struct leg *find_leg(const struct connection *c, const struct route *route)
{
	if (c->tls || c->repeated)
		return NULL;
	for (struct leg *leg = c->legs; leg; leg = leg->next) {
		const struct route_backend *backend = backend_of(route, leg);

		if (backend && backend->state == KKM_ACTIVE && !is_leaving(leg) &&
		    suits(c, leg, backend) &&
		    backend->proxy_protocol == leg->proxy_protocol)
			return leg;
	}
	return NULL;
}

static void choose_new(struct connection *c, const struct route *route)
{
	const struct route_backend *backend = route_pick(route, NULL, c->tls, c->worker->turn++);

	if (backend)
		connect_to(c, route, backend);
	else
		refuse(c, 503);
}

void leg_choose(struct connection *c)
{
	const struct route_table *table = c->worker->table;
	const struct route *route = table ? route_find(table, c->request.host) : NULL;
	struct leg *leg;

	/* a hello without a name asks for nobody, not for whom nobody else claims */
	if (!route || (c->tls && (!*c->request.host || !route_has_tls(route)))) {
		refuse(c, table && table->ready ? 404 : 503);
		return;
	}
	while ((leg = find_leg(c, route)) && !is_usable(c, leg))
		leg_close(leg, false);
	if (!leg) {
		choose_new(c, route);
		return;
	}
	unidle(leg);
	c->leg = leg;
	c->worker->stats->legs_reused++;
	exchange_start(c);
}
