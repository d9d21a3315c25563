// SPDX-License-Identifier: MIT
/*
 * A torture of the byte paths: connection after connection, with random buffers, pieces, writers and
 * readers, and every byte compared by its place, both ways. Four threads are the browser and the
 * container, a writer and a reader each; the test itself is the agent, as engine.h wants it.
 *
 * TORTURE_SECONDS is how long each cell runs (2), TORTURE_SEED repeats one; TORTURE_ROUND only the
 * connection of this number. Threads make no two runs equal: a seed repeats what is done, not when.
 */
#include "fixture.h"

#include <pthread.h>
#include <stdatomic.h>
#include <sys/epoll.h>
#include <sys/mman.h>
#include <sys/sendfile.h>
#include <sys/uio.h>

#define MAX_EXCHANGES 48
#define MAX_MESSAGE 200000
#define MAX_STREAM 600000
#define MAX_HEAD 6000
#define STALL_MS 20000	/* nothing has come for so long; tiny windows are probed after seconds */
#define TURNS 12	/* between bulk and small: the engine allows 16 */

struct cell {
	enum kkm_engine engine;
	bool requests, changes, http;
};

static const struct cell *cell;
static uint64_t first_seed;
/*
 * What a thread that is blocked in recv() gets on an enrolled socket when something else wakes it: room
 * for another thread's send(), or the acknowledgement of an end. The kernel's (tcp_bpf_recvmsg()).
 */
static atomic_uint early;

/* Random numbers: splitmix64. */

static uint64_t random64(uint64_t *state)
{
	uint64_t z = (*state += 0x9e3779b97f4a7c15);

	z = (z ^ (z >> 30)) * 0xbf58476d1ce4e5b9;
	z = (z ^ (z >> 27)) * 0x94d049bb133111eb;
	return z ^ (z >> 31);
}

static size_t below(uint64_t *rng, size_t n)
{
	return (size_t)(random64(rng) % n);
}

static bool one_in(uint64_t *rng, size_t n)
{
	return !below(rng, n);
}

/* 1 to `most`, each order of magnitude as often as the others. */
static size_t some_size(uint64_t *rng, size_t most)
{
	size_t bits = 1;

	while ((most >> bits) > 0)
		bits++;
	for (;;) {
		size_t bit = below(rng, bits), size = (1UL << bit) + below(rng, 1UL << bit);

		if (size <= most)
			return size;
	}
}

/* What is sent, and how. */

enum kind {
	KIND_LENGTH,
	KIND_NOTHING,	/* 204 or 304 */
	KIND_CHUNKED,
	KIND_INTERIM,	/* 100, and then one of known length */
	KIND_CLOSE,	/* says that the connection ends, which it does not here */
	KIND_LONG_HEAD,
	KINDS,
};

enum pieces {
	PIECES_ONE,	 /* head and body in one message */
	PIECES_TWO,	 /* head, then body */
	PIECES_ODD,
};

struct exchange {
	size_t asked, answered;	 /* where its request and its answer end, in what is sent */
	size_t head;		 /* of the answer, its size */
	size_t begins;		 /* of the request so much is read before the answer is sent */
	enum kind kind;
	enum pieces pieces;
	unsigned int status;
	bool armed;
};

/* One way of a connection. `sent` and `read` are what its two ends have done. */
struct way {
	const char *name;
	unsigned char *data;
	size_t size;
	_Atomic size_t sent, read;
	atomic_bool resting; /* the writer has no room, or nothing to send now */
	atomic_bool ended;   /* shutdown() */
};

struct round {
	struct flow flow;
	struct way up, down;
	struct exchange exchanges[MAX_EXCHANGES];
	size_t count, depth;	/* of pipelining */
	bool ends_early;	/* the container ends behind its last answer, unasked */
	uint64_t seed;
	atomic_bool failed;
};

static pthread_mutex_t bell_lock = PTHREAD_MUTEX_INITIALIZER;
static pthread_cond_t bell = PTHREAD_COND_INITIALIZER;

static void ring(void)
{
	pthread_mutex_lock(&bell_lock);
	pthread_cond_broadcast(&bell);
	pthread_mutex_unlock(&bell_lock);
}

/* The first reason counts; the others are its consequences. */
static void fail(struct round *r, const char *what, const char *who)
{
	if (atomic_exchange(&r->failed, true))
		return;
	printf("# %s: %s; seed %llu; errno %d; up: %zu of %zu sent, %zu read; down: %zu of %zu sent, "
	       "%zu read; short %llu down, %llu up; relayed %llu down, %llu up\n",
	       who, what, (unsigned long long)first_seed, errno, r->up.sent, r->up.size, r->up.read,
	       r->down.sent, r->down.size, r->down.read,
	       (unsigned long long)r->flow.leg.slot->short_bytes,
	       (unsigned long long)r->flow.leg.slot->short_up_bytes,
	       (unsigned long long)r->flow.leg.slot->down_bytes,
	       (unsigned long long)r->flow.leg.slot->up_bytes);
	tap_failure = what;
	shutdown(r->flow.browser, SHUT_RDWR);
	shutdown(r->flow.container, SHUT_RDWR);
	ring();
}

/* Until `read` of the way has come so far. */
static bool wait_read(struct round *r, struct way *way, size_t place, struct way *own)
{
	uint64_t seen = way->read + own->read;
	struct timespec until;
	int err = 0;

	if (way->read >= place)
		return !r->failed;
	clock_gettime(CLOCK_REALTIME, &until);
	until.tv_sec += STALL_MS / 1000;
	own->resting = true;
	pthread_mutex_lock(&bell_lock);
	pthread_cond_broadcast(&bell);
	while (way->read < place && !r->failed && !err) {
		err = pthread_cond_timedwait(&bell, &bell_lock, &until);
		/* slow is not stuck: tiny buffers wait for delayed acknowledgements */
		if (err && way->read + own->read != seen) {
			seen = way->read + own->read;
			clock_gettime(CLOCK_REALTIME, &until);
			until.tv_sec += STALL_MS / 1000;
			err = 0;
		}
	}
	pthread_mutex_unlock(&bell_lock);
	own->resting = false;
	if (err)
		fail(r, "what it waits for has not come", own->name);
	return !r->failed;
}

/* Writers. */

struct writer {
	struct round *round;
	struct way *way;
	int fd, epoll;
	uint64_t rng;
};

static int edges(int fd, uint32_t events)
{
	struct epoll_event event = { .events = events | EPOLLET };
	int epoll = epoll_create1(EPOLL_CLOEXEC);

	epoll_ctl(epoll, EPOLL_CTL_ADD, fd, &event);
	return epoll;
}

static void rest(struct writer *w)
{
	w->way->resting = true;
	ring();
}

/* As an event loop does it: behind EAGAIN, or a part of what was to go, the edge has to come. */
static bool wait_room(struct writer *w)
{
	struct epoll_event event;
	bool came;

	rest(w);
	came = epoll_wait(w->epoll, &event, 1, STALL_MS) == 1;
	w->way->resting = false;
	if (!came)
		fail(w->round, "no event came for a writer that has got EAGAIN", w->way->name);
	return came;
}

static ssize_t send_once(struct writer *w, size_t from, size_t n, int flags)
{
	size_t cut = one_in(&w->rng, 3) ? below(&w->rng, n) : 0;
	struct iovec iov[2] = { { w->way->data + from, cut },
				{ w->way->data + from + cut, n - cut } };
	struct msghdr message = { .msg_iov = iov + !cut, .msg_iovlen = 1 + !!cut };

	return sendmsg(w->fd, &message, flags | MSG_NOSIGNAL);
}

static bool send_piece(struct writer *w, size_t from, size_t n, bool more)
{
	int flags = one_in(&w->rng, 4) ? 0 : MSG_DONTWAIT;

	if (more && one_in(&w->rng, 8))
		flags |= MSG_MORE;
	while (n && !w->round->failed) {
		ssize_t sent;

		if (!(flags & MSG_DONTWAIT))
			rest(w); /* it may have to wait */
		sent = send_once(w, from, n, flags);
		w->way->resting = false;
		if (sent < 0 && errno != EAGAIN) {
			fail(w->round, "send", w->way->name);
			return false;
		}
		if (sent < 0 && !(flags & MSG_DONTWAIT)) {
			fail(w->round, "a blocking send has waited too long", w->way->name);
			return false;
		}
		if (sent > 0) {
			from += (size_t)sent;
			n -= (size_t)sent;
			w->way->sent = from;
		}
		if (n && (flags & MSG_DONTWAIT) && !wait_room(w))
			return false;
	}
	return !w->round->failed;
}

/* sendfile(2), whose pages are the socket's until they are acknowledged: a file for each. */
static bool send_file(struct writer *w, size_t from, size_t to)
{
	int file = memfd_create("torture", MFD_CLOEXEC);
	off_t at = 0;
	bool done = write(file, w->way->data + from, to - from) == (ssize_t)(to - from);

	while (done && from < to && !w->round->failed) {
		ssize_t sent;

		rest(w);
		sent = sendfile(w->fd, file, &at, to - from);
		w->way->resting = false;
		if (sent <= 0) {
			fail(w->round, "sendfile", w->way->name);
			done = false;
		} else {
			from += (size_t)sent;
			w->way->sent = from;
		}
	}
	close(file);
	return done && !w->round->failed;
}

static bool send_pieces(struct writer *w, size_t from, size_t to)
{
	static const size_t most[] = { 20, 3000, 20000, MAX_MESSAGE };
	size_t piece = most[below(&w->rng, 4)];

	if (from == to)
		return true;
	if (one_in(&w->rng, 8))
		return send_file(w, from, to);
	while (piece < (to - from) / 100) /* a few thousand calls are enough */
		piece *= 2;
	while (from < to) {
		size_t n = some_size(&w->rng, piece);

		if (n > to - from)
			n = to - from;
		if (!send_piece(w, from, n, from + n < to))
			return false;
		from += n;
	}
	return true;
}

static void send_end(struct writer *w)
{
	w->way->ended = w->way->resting = true;
	shutdown(w->fd, SHUT_WR);
	ring();
}

static void *browser_writes(void *argument)
{
	struct writer *w = argument;
	struct round *r = w->round;
	size_t from = 0;

	for (size_t i = 0; i < r->count; i++) {
		if (i >= r->depth &&
		    !wait_read(r, &r->down, r->exchanges[i - r->depth].answered, w->way))
			return NULL;
		if (!send_pieces(w, from, r->exchanges[i].asked))
			return NULL;
		from = r->exchanges[i].asked;
	}
	if (!r->count && !send_pieces(w, 0, w->way->size))
		return NULL;
	send_end(w);
	return NULL;
}

static bool send_answer(struct writer *w, const struct exchange *e, size_t from)
{
	switch (e->pieces) {
	case PIECES_ONE:
		return send_piece(w, from, e->answered - from, false);
	case PIECES_TWO:
		return send_piece(w, from, e->head, from + e->head < e->answered) &&
		       (from + e->head == e->answered ||
			send_piece(w, from + e->head, e->answered - from - e->head, false));
	default:
		return send_pieces(w, from, e->answered);
	}
}

static void *container_writes(void *argument)
{
	struct writer *w = argument;
	struct round *r = w->round;
	size_t from = 0;

	for (size_t i = 0; i < r->count; i++) {
		if (!wait_read(r, &r->up, r->exchanges[i].begins, w->way) ||
		    !send_answer(w, &r->exchanges[i], from))
			return NULL;
		from = r->exchanges[i].answered;
	}
	if (!r->count && !send_pieces(w, 0, w->way->size))
		return NULL;
	if (r->count && !r->ends_early && !wait_read(r, &r->up, r->up.size, w->way))
		return NULL;
	send_end(w);
	return NULL;
}

/* Readers. */

enum reading {
	READ_BLOCKING,
	READ_POLL,
	READ_EDGES,
	READ_PEEK,	/* before it is read */
	READ_BITS,	/* a few bytes at a time */
	READ_LATE,	/* only when the writer has no room any more, or nothing to send */
	READINGS,
};

static bool same(struct writer *w, const unsigned char *data, size_t n)
{
	struct way *way = w->way;
	size_t at = way->read;

	if (at + n > way->size) {
		fail(w->round, "more bytes than were sent", way->name);
	} else if (memcmp(data, way->data + at, n)) {
		while (data[0] == way->data[at])
			data++, at++;
		printf("# byte %zu is %02x, not %02x\n", at, data[0], way->data[at]);
		fail(w->round, "a wrong byte", way->name);
	}
	return !w->round->failed;
}

static void wait_for_rest(struct writer *w)
{
	struct way *way = w->way;
	struct timespec until;
	int err = 0;

	clock_gettime(CLOCK_REALTIME, &until);
	until.tv_sec += STALL_MS / 1000;
	pthread_mutex_lock(&bell_lock);
	while (!way->resting && !w->round->failed && !err)
		err = pthread_cond_timedwait(&bell, &bell_lock, &until);
	pthread_mutex_unlock(&bell_lock);
	if (err)
		fail(w->round, "its writer neither writes nor waits", way->name);
}

static bool wait_bytes(struct writer *w, bool by_edges)
{
	struct epoll_event event;

	/* its writer may wait for the other direction: whether anything moves is the agent's to watch */
	while (!w->round->failed) {
		if (by_edges ? epoll_wait(w->epoll, &event, 1, 1000) == 1 :
			       poll(&(struct pollfd){ .fd = w->fd, .events = POLLIN }, 1, 1000) == 1)
			return true;
	}
	return false;
}

/* -1: not now; 0: the end. */
static ssize_t read_once(struct writer *w, size_t most, int flags)
{
	static _Thread_local unsigned char data[MAX_MESSAGE];
	ssize_t n = recv(w->fd, data, most, flags);

	if (n < 0 && errno != EAGAIN)
		fail(w->round, "recv", w->way->name);
	if (n > 0 && same(w, data, (size_t)n) && !(flags & MSG_PEEK)) {
		w->way->read += (size_t)n;
		ring();
	}
	return n;
}

static void *reads(void *argument)
{
	struct writer *w = argument;
	ssize_t n = -1;
	uint64_t begun_ms;

	while (n && !w->round->failed) {
		enum reading how = (enum reading)below(&w->rng, READINGS);
		size_t most = some_size(&w->rng, MAX_MESSAGE), times = 1 + below(&w->rng, 20);

		if (how == READ_BITS)
			most = 1 + below(&w->rng, 100);
		else if (most < 100) /* now and then, not for most of them */
			most = 16384;
		if (how == READ_LATE)
			wait_for_rest(w);
		if (how == READ_BLOCKING) {
			begun_ms = now_ms();
			n = read_once(w, most, 0);
			early += n < 0 && now_ms() - begun_ms < STALL_MS;
			continue;
		}
		if (how == READ_EDGES) { /* what came before gives no edge: first to its end */
			while ((n = read_once(w, most, MSG_DONTWAIT)) > 0 && !w->round->failed)
				;
			if (!n || w->round->failed)
				break;
		}
		if (!wait_bytes(w, how == READ_EDGES))
			break;
		do {
			if (how == READ_PEEK)
				read_once(w, most, MSG_DONTWAIT | MSG_PEEK);
			n = read_once(w, most, MSG_DONTWAIT);
		} while (n > 0 && !w->round->failed && (times-- > 1 || how == READ_EDGES));
	}
	if (!n && w->way->read != w->way->size)
		fail(w->round, "the end comes too early", w->way->name);
	ring();
	return NULL;
}

/* The agent. */

struct pump {
	struct round *round;
	bool is_down;
	int from, to;
	unsigned char data[65536];
	size_t at, len;
	bool ended, held;
};

/* Reads at most `left` bytes more, and writes what it has. How many were written. */
static size_t pump(struct pump *p, size_t left, uint64_t *rng)
{
	struct engine_leg *leg = &p->round->flow.leg;
	ssize_t n;

	if (p->at == p->len && left && !p->ended) {
		size_t most = one_in(rng, 4) ? some_size(rng, sizeof(p->data)) : 16384;

		n = recv(p->from, p->data, left < most ? left : most, MSG_DONTWAIT);
		if (n < 0 && errno != EAGAIN)
			fail(p->round, "the agent's recv", p->is_down ? "down" : "up");
		p->ended = !n;
		p->at = 0;
		p->len = n > 0 ? (size_t)n : 0;
	}
	if (p->at == p->len)
		return 0;
	if (p->held)
		engine_retry(leg);
	n = send(p->to, p->data + p->at, p->len - p->at, MSG_DONTWAIT | MSG_NOSIGNAL);
	/* EACCES: held, until the container has read what was put into its socket */
	p->held = n < 0 && errno == EACCES && !p->is_down;
	if (n < 0 && errno != EAGAIN && !p->held)
		fail(p->round, "the agent's send", p->is_down ? "down" : "up");
	if (n <= 0)
		return 0;
	p->at += (size_t)n;
	engine_relayed(leg, p->is_down ? (uint64_t)n : 0, p->is_down ? 0 : (uint64_t)n);
	return (size_t)n;
}

static bool holds(const struct pump *p)
{
	return p->at != p->len;
}

struct agent {
	struct round *round;
	struct pump up, down;
	uint64_t rng;
	bool up_shut, down_shut, left;
	uint64_t moved, moved_up; /* when it was left */
	size_t room;		  /* the container's receive buffer */
	unsigned int turns;
	uint64_t stalled_ms, progress;
};

static bool keep_promises(struct agent *a)
{
	struct kkm_slot *slot = a->round->flow.leg.slot;
	uint64_t until_ms = now_ms() + 1000;

	while (engine_queued(a->down.to) < slot->short_bytes + slot->down_bytes) {
		if (now_ms() > until_ms) {
			fail(a->round, "a promise is broken", "agent");
			return false;
		}
		sched_yield();
	}
	return true;
}

/* Ends are passed on behind everything. */
static void pass_ends(struct agent *a)
{
	if (a->up.ended && !holds(&a->up) && !a->up_shut) {
		shutdown(a->up.to, SHUT_WR);
		a->up_shut = true;
	}
	if (a->down.ended && !holds(&a->down) && !a->down_shut && keep_promises(a)) {
		shutdown(a->down.to, SHUT_WR);
		a->down_shut = true;
	}
}

static void leave(struct agent *a)
{
	struct kkm_slot *slot = a->round->flow.leg.slot;

	engine_leave(&a->round->flow.leg);
	a->left = true;
	a->moved = slot->short_bytes;
	a->moved_up = slot->short_up_bytes;
}

static void change_bulk(struct agent *a)
{
	if (!cell->changes || a->turns >= TURNS || !one_in(&a->rng, 8))
		return;
	a->turns++;
	engine_set_bulk(&a->round->flow.leg, one_in(&a->rng, 2));
}

/* For an event, or a little while: what goes by the short way gives none. */
static void wait_events(struct agent *a, bool up, bool down)
{
	struct pollfd fds[2] = { { .fd = -1 }, { .fd = -1 } };
	struct kkm_slot *slot = a->round->flow.leg.slot;
	uint64_t put = slot->short_up_bytes, most = a->round->up.read + a->room + MAX_MESSAGE;
	uint64_t progress = slot->short_bytes + slot->down_bytes + slot->up_bytes +
			    a->round->up.read + a->round->down.read + a->round->up.sent +
			    a->round->down.sent;

	if (progress != a->progress) {
		a->progress = progress;
		a->stalled_ms = now_ms();
	} else if (now_ms() - a->stalled_ms > STALL_MS + 1000) {
		fail(a->round, "nothing moves any more", "agent");
	}
	/* the reader may just have as much as one read takes */
	if (put > most)
		fail(a->round, "more is unread than the container's receive buffer holds", "agent");
	if (up && holds(&a->up) && !a->up.held)
		fds[0] = (struct pollfd){ .fd = a->up.to, .events = POLLOUT };
	else if (up && !holds(&a->up) && !a->up.ended)
		fds[0] = (struct pollfd){ .fd = a->up.from, .events = POLLIN };
	if (down && holds(&a->down))
		fds[1] = (struct pollfd){ .fd = a->down.to, .events = POLLOUT };
	else if (down && !a->down.ended)
		fds[1] = (struct pollfd){ .fd = a->down.from, .events = POLLIN };
	poll(fds, 2, 1);
}

static bool readable_now(int fd)
{
	return poll(&(struct pollfd){ .fd = fd, .events = POLLIN }, 1, 0) == 1;
}

/* One answer that the programs may have taken, or a part of it; how much is left for the relay. */
static size_t take_answer(struct agent *a, const struct exchange *e, size_t size, uint64_t before)
{
	struct engine_answer answer = { 0 };
	struct engine_leg *leg = &a->round->flow.leg;
	uint64_t moved;

	if (!engine_take_answer(leg, &answer)) {
		fail(a->round, "engine_take_answer", "agent");
		return 0;
	}
	moved = engine_moved(leg) - before;
	if (answer.begun != (moved > 0))
		fail(a->round, "begun, but nothing was carried, or the other way round", "agent");
	if (!answer.begun)
		return size;
	if (answer.status != e->status || answer.left != size - moved)
		fail(a->round, "status of an answer, or what is left", "agent");
	if (e->kind != KIND_LENGTH && e->kind != KIND_NOTHING && e->kind != KIND_LONG_HEAD)
		fail(a->round, "one that is not to go by the short way", "agent");
	if (!answer.left && engine_is_quiet(leg) && e->answered < a->round->down.size &&
	    readable_now(a->down.from))
		fail(a->round, "quiet, but there is something", "agent");
	return answer.left;
}

static void exchange(struct agent *a, size_t i)
{
	struct round *r = a->round;
	struct engine_leg *leg = &r->flow.leg;
	const struct exchange *e = &r->exchanges[i];
	size_t up = e->asked - (i ? r->exchanges[i - 1].asked : 0);
	size_t size = e->answered - (i ? r->exchanges[i - 1].answered : 0), down = size, looks = 0;
	size_t last_look = one_in(&a->rng, 3) ? below(&a->rng, 4) : SIZE_MAX;
	bool goes = cell->changes && !a->left && one_in(&a->rng, 20), armed;
	uint64_t before;

	engine_set_bulk(leg, false);
	before = engine_moved(leg);
	armed = e->armed && engine_arm(leg);
	if (armed && a->left)
		fail(r, "armed, though it was left", "agent");
	while ((up || armed || down || holds(&a->up) || holds(&a->down)) && !r->failed) {
		if (up || holds(&a->up)) {
			change_bulk(a);
			pump(&a->up, up, &a->rng);
			up = e->asked - r->flow.leg.slot->up_bytes;
			up -= a->up.len - a->up.at;
		}
		/* like a client that sends its next request already: at any moment */
		if (armed && (engine_has_answered(leg) || readable_now(a->down.from) ||
			      (!up && looks++ >= last_look) || (goes && one_in(&a->rng, 3)))) {
			down = take_answer(a, e, size, before);
			armed = false;
		}
		if (goes && !armed && one_in(&a->rng, 3)) {
			leave(a);
			goes = false;
		}
		if (!armed && (down || holds(&a->down))) {
			size_t had = a->down.len - a->down.at, wrote = pump(&a->down, down, &a->rng);

			down -= wrote + (a->down.len - a->down.at) - had;
		}
		if (a->up.ended && up)
			fail(r, "the client's end before the request's", "agent");
		if (a->down.ended && down && !armed)
			fail(r, "the container's end before the answer's", "agent");
		if (up || armed || down || holds(&a->up) || holds(&a->down))
			wait_events(a, up || holds(&a->up), armed || down || holds(&a->down));
	}
	if (!r->failed && engine_moved(leg) + leg->slot->down_bytes != e->answered)
		fail(r, "bytes of an answer, carried and relayed", "agent");
	if (!r->failed && !e->armed && engine_moved(leg) != before)
		fail(r, "carried without arming", "agent");
}

static void agent_runs(struct agent *a)
{
	struct round *r = a->round;

	a->stalled_ms = now_ms();
	for (size_t i = 0; i < r->count && !r->failed; i++)
		exchange(a, i);
	while ((!a->up_shut || !a->down_shut) && !r->failed) {
		size_t left = r->count ? 1 : SIZE_MAX;

		change_bulk(a);
		if (cell->changes && !a->left && one_in(&a->rng, 100))
			leave(a);
		if (pump(&a->up, left, &a->rng) + pump(&a->down, left, &a->rng) && r->count)
			fail(r, "bytes behind the last exchange", "agent");
		pass_ends(a);
		wait_events(a, !a->up_shut, !a->down_shut);
	}
	if (!a->left || r->failed)
		return;
	if (r->flow.leg.slot->short_bytes != a->moved ||
	    r->flow.leg.slot->short_up_bytes != a->moved_up)
		fail(r, "the short way is used though it was left", "agent");
}

/* What a connection is to carry. */

static size_t write_head(struct exchange *e, unsigned char *out, size_t i, size_t body, uint64_t *rng)
{
	char *text = (char *)out;
	size_t n = 0;

	if (e->kind == KIND_INTERIM)
		n += (size_t)sprintf(text, "HTTP/1.1 100 Continue\r\n\r\n");
	e->status = e->kind == KIND_NOTHING ? (one_in(rng, 2) ? 204 : 304) :
					      (unsigned int)(200 + below(rng, 4));
	n += (size_t)sprintf(text + n, "HTTP/1.1 %u Some reason\r\nX-Exchange: %zu\r\n", e->status, i);
	if (e->kind == KIND_CHUNKED)
		n += (size_t)sprintf(text + n, "Transfer-Encoding: chunked\r\n");
	else if (e->kind != KIND_NOTHING)
		n += (size_t)sprintf(text + n, "Content-Length: %zu\r\n", body);
	if (e->kind == KIND_CLOSE)
		n += (size_t)sprintf(text + n, "Connection: close\r\n");
	if (e->kind == KIND_LONG_HEAD)
		n += (size_t)sprintf(text + n, "X-Long: %0*d\r\n", (int)(1 + below(rng, MAX_HEAD - 500)),
				     1);
	n += (size_t)sprintf(text + n, "\r\n");
	return n;
}

static void fill(unsigned char *data, size_t from, size_t n)
{
	for (size_t i = 0; i < n; i++)
		data[from + i] = pattern(from + i);
}

static void plan_exchanges(struct round *r, uint64_t *rng)
{
	static const size_t most[] = { 300, 3000, 70000, MAX_MESSAGE };
	size_t largest = most[below(rng, 4)];

	r->count = 1 + below(rng, MAX_EXCHANGES);
	r->depth = one_in(rng, 3) ? 1 + below(rng, 8) : 1;
	r->ends_early = one_in(rng, 3);
	r->up.data = malloc(r->count * MAX_MESSAGE);
	r->down.data = malloc(r->count * (MAX_MESSAGE + 2 * MAX_HEAD));
	for (size_t i = 0; i < r->count; i++) {
		struct exchange *e = &r->exchanges[i];
		size_t asked = some_size(rng, one_in(rng, 4) ? largest : 2000), at = r->down.size;
		size_t body = some_size(rng, largest) - 1;

		e->kind = one_in(rng, 2) ? KIND_LENGTH : (enum kind)below(rng, KINDS);
		e->pieces = (enum pieces)below(rng, 3);
		e->armed = !one_in(rng, 10);
		fill(r->up.data, r->up.size, asked);
		e->begins = r->up.size + (one_in(rng, 8) ? 1 + below(rng, asked) : asked);
		r->up.size = e->asked = r->up.size + asked;
		e->head = write_head(e, r->down.data + at, i, body, rng);
		at += e->head;
		if (e->kind == KIND_CHUNKED) {
			if (body) {
				at += (size_t)sprintf((char *)r->down.data + at, "%zx\r\n", body);
				fill(r->down.data, at, body);
				at += body;
				at += (size_t)sprintf((char *)r->down.data + at, "\r\n");
			}
			at += (size_t)sprintf((char *)r->down.data + at, "0\r\n\r\n");
		} else if (e->kind != KIND_NOTHING) {
			fill(r->down.data, at, body);
			at += body;
		}
		r->down.size = e->answered = at;
	}
}

static void plan_stream(struct way *way, uint64_t *rng)
{
	way->size = one_in(rng, 20) ? 0 : some_size(rng, MAX_STREAM);
	way->data = malloc(way->size + 1);
	fill(way->data, 0, way->size);
}

static void set_buffer(int fd, int option, uint64_t *rng)
{
	static const int sizes[] = { 2304, 8192, 40000, 1 << 20 };
	int bytes = sizes[below(rng, 4)];

	if (one_in(rng, 2))
		setsockopt(fd, SOL_SOCKET, option, &bytes, sizeof(bytes));
}

static void connect_client(struct round *r, uint64_t *rng)
{
	struct flow *flow = &r->flow;
	int listener = listen_on("127.0.0.1", &flow->client_address);
	socklen_t len = sizeof(flow->client_address);

	if (!tap_failure) {
		flow->browser = socket(AF_INET, SOCK_STREAM | SOCK_CLOEXEC, 0);
		set_buffer(flow->browser, SO_RCVBUF, rng);
		set_buffer(flow->browser, SO_SNDBUF, rng);
		set_buffer(listener, SO_RCVBUF, rng);
		set_buffer(listener, SO_SNDBUF, rng);
		if (connect(flow->browser, (struct sockaddr *)&flow->client_address, len))
			tap_failure = "connect of the browser";
		else
			flow->client = accept_one(listener);
		getpeername(flow->client, (struct sockaddr *)&flow->client_address, &len);
	}
	close_fd(&listener);
}

static void connect_container(struct fixture *f, struct round *r, uint64_t *rng)
{
	struct flow *flow = &r->flow;
	int listener = listen_on("127.0.0.1", &flow->backend), one = 1;

	if (tap_failure)
		return;
	set_buffer(listener, SO_RCVBUF, rng);
	set_buffer(listener, SO_SNDBUF, rng);
	publish_one(f, DOMAIN, &flow->backend, KKM_ACTIVE);
	flow->hold = cell->http;
	flow->requests = cell->requests;
	if (!tap_failure)
		flow_connect_to(f, flow, listener, DOMAIN, cell->engine);
	if (!tap_failure && flow->leg.slot->enrolled != (cell->engine == KKM_SOCKMAP))
		tap_failure = "enrolled, or not";
	close_fd(&listener);
	setsockopt(flow->upstream, IPPROTO_TCP, TCP_NODELAY, &one, sizeof(one));
	setsockopt(flow->client, IPPROTO_TCP, TCP_NODELAY, &one, sizeof(one));
	set_buffer(flow->upstream, SO_SNDBUF, rng);
}

static void set_limits(int fd)
{
	struct timeval stall = { .tv_sec = STALL_MS / 1000 };
	int one = 1;

	setsockopt(fd, SOL_SOCKET, SO_RCVTIMEO, &stall, sizeof(stall));
	setsockopt(fd, SOL_SOCKET, SO_SNDTIMEO, &stall, sizeof(stall));
	setsockopt(fd, IPPROTO_TCP, TCP_NODELAY, &one, sizeof(one));
}

static void play(struct round *r, uint64_t *rng)
{
	struct flow *flow = &r->flow;
	struct agent *a = calloc(1, sizeof(*a));
	void *(*const run[4])(void *) = { browser_writes, reads, container_writes, reads };
	struct writer ends[4] = {
		{ .way = &r->up, .fd = flow->browser, .epoll = edges(flow->browser, EPOLLOUT) },
		{ .way = &r->down, .fd = flow->browser, .epoll = edges(flow->browser, EPOLLIN) },
		{ .way = &r->down, .fd = flow->container, .epoll = edges(flow->container, EPOLLOUT) },
		{ .way = &r->up, .fd = flow->container, .epoll = edges(flow->container, EPOLLIN) },
	};
	pthread_t threads[4];
	socklen_t len = sizeof(int);
	int room = 0;

	a->round = a->up.round = a->down.round = r;
	a->rng = random64(rng);
	a->down.is_down = true;
	getsockopt(flow->container, SOL_SOCKET, SO_RCVBUF, &room, &len);
	a->room = (size_t)room;
	a->up.from = a->down.to = flow->client;
	a->up.to = a->down.from = flow->upstream;
	for (int i = 0; i < 4; i++) {
		ends[i].round = r;
		ends[i].rng = random64(rng);
		pthread_create(&threads[i], NULL, run[i], &ends[i]);
	}
	agent_runs(a);
	for (int i = 0; i < 4; i++) {
		pthread_join(threads[i], NULL);
		close(ends[i].epoll);
	}
	free(a);
}

static void one_connection(struct fixture *f, uint64_t seed, uint64_t *short_down, uint64_t *short_up)
{
	struct round *r = calloc(1, sizeof(*r));
	uint64_t rng = seed;

	r->up.name = "up";
	r->down.name = "down";
	flow_init(&r->flow);
	connect_client(r, &rng);
	if (!tap_failure)
		connect_container(f, r, &rng);
	if (!tap_failure) {
		set_limits(r->flow.browser);
		set_limits(r->flow.container);
		if (cell->http) {
			plan_exchanges(r, &rng);
		} else {
			plan_stream(&r->up, &rng);
			plan_stream(&r->down, &rng);
		}
		play(r, &rng);
		*short_down += r->flow.leg.slot->short_bytes;
		*short_up += r->flow.leg.slot->short_up_bytes;
	}
	if (!tap_failure && (r->up.read != r->up.size || r->down.read != r->down.size))
		tap_failure = "bytes that came";
	flow_close(&r->flow);
	free(r->up.data);
	free(r->down.data);
	free(r);
}

static uint64_t number(const char *name, uint64_t otherwise)
{
	const char *text = getenv(name);

	return text ? strtoull(text, NULL, 0) : otherwise;
}

static void torture(struct fixture *f, const struct cell *wanted)
{
	uint64_t seconds = number("TORTURE_SECONDS", 2), only = number("TORTURE_ROUND", UINT64_MAX);
	uint64_t until_ms = now_ms() + seconds * 1000, down = 0, up = 0, rounds = 0, rng;

	cell = wanted;
	first_seed = rng = number("TORTURE_SEED", now_ms() * 1000003 + (uint64_t)getpid());
	alarm((unsigned int)seconds + 60);
	/* at least a few, however slow the machine; a failure ends it */
	while (!tap_failure && (now_ms() < until_ms || rounds < 5)) {
		uint64_t seed = random64(&rng);

		if (only == UINT64_MAX || rounds == only)
			one_connection(f, seed, &down, &up);
		rounds++;
	}
	printf("# seed %llu, %llu connections; by the short way %llu bytes down, %llu up\n",
	       (unsigned long long)first_seed, (unsigned long long)rounds, (unsigned long long)down,
	       (unsigned long long)up);
	if (atomic_load(&early))
		printf("# EAGAIN before its time from a blocking recv(): %u times\n",
		       atomic_exchange(&early, 0));
	if (tap_failure)
		printf("# in connection %llu\n", (unsigned long long)rounds - 1);
	else if ((down > 0) != (cell->engine == KKM_SOCKMAP) || (up > 0) != cell->requests)
		tap_failure = "some by the short way, each way where it is to go";
}

#define CELL(name, ...)                                                                            \
	CASE(name)                                                                                 \
	{                                                                                          \
		static const struct cell this_cell = { __VA_ARGS__ };                              \
		torture(f, &this_cell);                                                            \
	}

CELL(relay_http, .engine = KKM_RELAY, .http = true)
CELL(relay_stream, .engine = KKM_RELAY)
CELL(down_http, .engine = KKM_SOCKMAP, .http = true)
CELL(down_stream, .engine = KKM_SOCKMAP)
CELL(both_http, .engine = KKM_SOCKMAP, .requests = true, .http = true)
CELL(both_stream, .engine = KKM_SOCKMAP, .requests = true)
CELL(changes_http, .engine = KKM_SOCKMAP, .requests = true, .changes = true, .http = true)
CELL(changes_stream, .engine = KKM_SOCKMAP, .requests = true, .changes = true)

static const struct tap_case cases[] = {
	{ "HTTP, relay", relay_http },
	{ "streams, relay", relay_stream },
	{ "HTTP, answers by sockmap", down_http },
	{ "streams, down by sockmap", down_stream },
	{ "HTTP, both ways by sockmap", both_http },
	{ "streams, both ways by sockmap", both_stream },
	{ "HTTP, the engine changes at random moments", changes_http },
	{ "streams, the engine changes at random moments", changes_stream },
};

TAP_MAIN(cases)
