// SPDX-License-Identifier: MIT
#include "worker.h"

#include <errno.h>
#include <netinet/in.h>
#include <netinet/tcp.h>
#include <signal.h>
#include <stdlib.h>
#include <string.h>
#include <sys/socket.h>
#include <unistd.h>

#include "connection.h"
#include "log.h"

#define ACCEPTS_A_TURN 64
#define BACKLOG 4096
#define RESUME_MS 100

struct worker_listener {
	struct loop_io io;
	struct worker *worker;
	bool tls;
};

static int set(int fd, int level, int option, int value)
{
	return setsockopt(fd, level, option, &value, sizeof(value)) ? -errno : 0;
}

/*
 * The first socket binds without SO_REUSEPORT, so that it fails where anybody else is bound, and
 * gets the option before listen(), when the group is made (inet_hash() -> inet_reuseport_add_sock());
 * so the others can join. selftests/e2e shows that a second agent is refused.
 */
static int listen_one(const struct sockaddr_storage *address, bool first, int *out)
{
	int fd = socket(address->ss_family, SOCK_STREAM | SOCK_NONBLOCK | SOCK_CLOEXEC, 0);
	int err = fd < 0 ? -errno : 0;

	if (err)
		return err;
	if (address->ss_family == AF_INET6)
		err = set(fd, IPPROTO_IPV6, IPV6_V6ONLY, 1);
	if (!err)
		err = set(fd, SOL_SOCKET, SO_REUSEADDR, 1);
	if (!err && !first)
		err = set(fd, SOL_SOCKET, SO_REUSEPORT, 1);
	if (!err && bind(fd, (const struct sockaddr *)address, address_len(address)))
		err = -errno;
	if (!err && first)
		err = set(fd, SOL_SOCKET, SO_REUSEPORT, 1);
	if (!err) {
		/* inherited by what is accepted */
		set(fd, IPPROTO_TCP, TCP_NODELAY, 1);
		/* what kkm_response takes for room has to be room, whatever the host's default is */
		set(fd, IPPROTO_TCP, TCP_NOTSENT_LOWAT, -1);
		connection_bound_buffers(fd);
		if (listen(fd, BACKLOG))
			err = -errno;
	}
	if (err)
		close(fd);
	else
		*out = fd;
	return err;
}

int worker_listen(const struct sockaddr_storage *address, unsigned int workers, int *fds)
{
	for (unsigned int i = 0; i < workers; i++) {
		int err = listen_one(address, !i, &fds[i]);

		if (err) {
			while (i--)
				close(fds[i]);
			return err;
		}
	}
	return 0;
}

static void set_accepting(struct worker *worker, bool on)
{
	if (worker->accept_paused == !on)
		return;
	worker->accept_paused = !on;
	if (!on)
		worker->stats->accept_paused++;
	for (unsigned int i = 0; i < worker->listener_count; i++) {
		if (worker->listeners[i].io.fd >= 0)
			loop_mod(worker->loop, &worker->listeners[i].io, on ? EPOLLIN : 0);
	}
}

static void resume_fire(struct loop_timer *timer)
{
	struct worker *worker = (struct worker *)((char *)timer - offsetof(struct worker, resume));

	set_accepting(worker, true);
}

/* A place for one more connection, of those of all workers. What waits when we stop has to fit. */
static bool reserve(struct worker *worker)
{
	const struct worker_shared *shared = worker->shared;

	if (atomic_fetch_add(shared->connections, 1) < shared->config->max_connections ||
	    worker->state != WORKER_RUN)
		return true;
	atomic_fetch_sub(shared->connections, 1);
	return false;
}

static void unreserve(struct worker *worker)
{
	const struct worker_shared *shared = worker->shared;

	/* whoever found no place tries again */
	if (atomic_fetch_sub(shared->connections, 1) >= shared->config->max_connections)
		shared->room(shared->ctx);
}

/* False where there is nothing to accept any more, or accepting has been paused. */
static bool accept_one(struct worker *worker, const struct worker_listener *listener)
{
	struct sockaddr_storage client;
	socklen_t len = sizeof(client);
	int fd, err;

	if (!reserve(worker)) {
		set_accepting(worker, false);
		return false;
	}
	fd = accept4(listener->io.fd, (struct sockaddr *)&client, &len, SOCK_NONBLOCK | SOCK_CLOEXEC);
	if (fd >= 0) {
		worker->stats->connections_accepted++;
		if (connection_new(worker, fd, &client, listener->tls)) {
			close(fd);
			worker->stats->connections_closed++;
			unreserve(worker);
		}
		return true;
	}
	err = errno;
	unreserve(worker);
	switch (err) {
	case ECONNABORTED:
	case EINTR:
	case EPROTO:
		return true;
	case EMFILE:
	case ENFILE:
		if (connection_spare_leg(worker))
			return true;
		/* fall through */
	case ENOBUFS:
	case ENOMEM:
		set_accepting(worker, false);
		loop_timer_set(worker->loop, &worker->resume, RESUME_MS);
		return false;
	default:
		return false;
	}
}

static void listener_ready(struct loop_io *io, uint32_t events)
{
	struct worker *worker = ((struct worker_listener *)io)->worker;

	(void)events;
	for (int i = 0; i < ACCEPTS_A_TURN; i++) {
		if (!accept_one(worker, (struct worker_listener *)io))
			break;
	}
}

void worker_connection_closed(struct worker *worker)
{
	worker->stats->connections_closed++;
	unreserve(worker);
	if (worker->state != WORKER_RUN && !worker->connection_count)
		loop_stop(worker->loop);
}

/* What waits in the queue of a listener would be reset by closing it. */
static void close_listeners(struct worker *worker)
{
	for (unsigned int i = 0; i < worker->listener_count; i++) {
		if (worker->listeners[i].io.fd < 0)
			continue;
		while (accept_one(worker, &worker->listeners[i]))
			;
		close(loop_del(worker->loop, &worker->listeners[i].io));
	}
}

static void take_table(struct worker *worker, struct route_table *table)
{
	route_table_put(&worker->table);
	worker->table = table;
}

static void obey(struct worker *worker, enum worker_wish wish)
{
	if (wish == worker->state)
		return;
	if (worker->state == WORKER_RUN) {
		worker->state = wish;
		close_listeners(worker);
	}
	worker->state = wish;
	connection_drain_all(worker, wish == WORKER_END);
	if (!worker->connection_count)
		loop_stop(worker->loop);
}

static void woken(void *ctx)
{
	struct worker *worker = ctx;
	struct route_table *table;
	enum worker_wish wish;
	bool leave, leaving;

	pthread_mutex_lock(&worker->lock);
	table = worker->incoming;
	worker->incoming = NULL;
	leaving = worker->leaving;
	worker->leaving = false;
	wish = worker->wish;
	leave = worker->leave_engines;
	worker->leave_engines = false;
	pthread_mutex_unlock(&worker->lock);
	if (table)
		take_table(worker, table);
	if (leaving && !worker->leaving_timer.place)
		connection_cut_leaving(&worker->leaving_timer);
	if (leave)
		connection_leave_engines(worker);
	if (!worker->resume.place)
		set_accepting(worker, true);
	obey(worker, wish);
}

static void *run(void *ctx)
{
	struct worker *worker = ctx;
	int err;

	/* tables and wishes from before the thread */
	woken(worker);
	err = worker->state == WORKER_RUN || worker->connection_count ? loop_run(worker->loop) : 0;
	if (err)
		log_error("Worker stopped", "error", strerror(-err), NULL);
	worker->shared->ended(worker->shared->ctx);
	return NULL;
}

static int init(struct worker *worker, const struct worker_socket *sockets, unsigned int count)
{
	const struct config *config = worker->shared->config;
	struct datapath *datapath = worker->shared->datapath;
	unsigned int slots = datapath ? datapath_max_conns(datapath) / config->workers : 0;
	int err = loop_new(&worker->loop);

	if (err)
		return err;
	loop_on_wake(worker->loop, woken, worker);
	worker->resume.fire = resume_fire;
	worker->legs_timer.fire = connection_expire_legs;
	worker->look_timer.fire = connection_look_after;
	worker->leaving_timer.fire = connection_cut_leaving;
	worker->stats = datapath ? datapath_stats(datapath, worker->index) : &worker->own_stats;
	err = engine_slots_init(&worker->slots, worker->index * slots, slots);
	if (err)
		return err;
	worker->listeners = calloc(count + 1, sizeof(*worker->listeners));
	if (!worker->listeners)
		return -ENOMEM;
	for (unsigned int i = 0; i < count && !err; i++) {
		worker->listeners[i].worker = worker;
		worker->listeners[i].tls = sockets[i].tls;
		worker->listeners[i].io.ready = listener_ready;
		err = loop_add(worker->loop, &worker->listeners[i].io, sockets[i].fd, EPOLLIN);
		if (!err)
			worker->listener_count++;
	}
	return err;
}

int worker_new(const struct worker_shared *shared, unsigned int index,
	       const struct worker_socket *sockets, unsigned int count, struct worker **out)
{
	struct worker *worker = calloc(1, sizeof(*worker));
	int err;

	if (!worker)
		return -ENOMEM;
	worker->shared = shared;
	worker->index = index;
	pthread_mutex_init(&worker->lock, NULL);
	err = init(worker, sockets, count);
	if (err) {
		worker->listener_count = 0; /* the descriptors stay the caller's */
		worker_free(&worker);
		return err;
	}
	*out = worker;
	return 0;
}

int worker_start(struct worker *worker)
{
	sigset_t all, before;
	int err;

	/* signals are the main thread's */
	sigfillset(&all);
	pthread_sigmask(SIG_SETMASK, &all, &before);
	err = pthread_create(&worker->thread, NULL, run, worker);
	pthread_sigmask(SIG_SETMASK, &before, NULL);
	worker->started = !err;
	return -err;
}

void worker_join(struct worker *worker)
{
	if (worker && worker->started)
		pthread_join(worker->thread, NULL);
	if (worker)
		worker->started = false;
}

void worker_free(struct worker **ptr)
{
	struct worker *worker = *ptr;

	if (!worker)
		return;
	worker_join(worker);
	*ptr = NULL;
	if (worker->loop) {
		connection_drain_all(worker, true);
		for (unsigned int i = 0; i < worker->listener_count; i++)
			close(loop_del(worker->loop, &worker->listeners[i].io));
	}
	loop_free(&worker->loop);
	relay_pool_free(&worker->pool);
	engine_slots_free(&worker->slots);
	route_table_put(&worker->table);
	route_table_put(&worker->incoming);
	pthread_mutex_destroy(&worker->lock);
	free(worker->listeners);
	free(worker);
}

void worker_set_table(struct worker *worker, struct route_table *table, bool leaving)
{
	pthread_mutex_lock(&worker->lock);
	route_table_put(&worker->incoming);
	worker->incoming = route_table_get(table);
	worker->leaving |= leaving; /* also where the table that said so was never taken */
	pthread_mutex_unlock(&worker->lock);
	loop_wake(worker->loop);
}

void worker_resume(struct worker *worker)
{
	loop_wake(worker->loop);
}

void worker_leave_engines(struct worker *worker)
{
	pthread_mutex_lock(&worker->lock);
	worker->leave_engines = true;
	pthread_mutex_unlock(&worker->lock);
	loop_wake(worker->loop);
}

void worker_wish(struct worker *worker, enum worker_wish wish)
{
	pthread_mutex_lock(&worker->lock);
	worker->wish = wish;
	pthread_mutex_unlock(&worker->lock);
	loop_wake(worker->loop);
}
