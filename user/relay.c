// SPDX-License-Identifier: MIT
#include "relay.h"

#include <errno.h>
#include <fcntl.h>
#include <stdlib.h>
#include <string.h>
#include <sys/socket.h>
#include <unistd.h>

#define SPARE_BUFFERS 64
#define SPARE_PIPES 32
#define MAX_PIPES 1024 /* a worker's; without one a direction is copied */

struct relay_buffer {
	struct relay_buffer *next;
	size_t size; /* RELAY_BUFFER, or less where it was parked */
	char data[];
};

struct relay_pipe {
	struct relay_pipe *next;
	int ends[2];
};

static struct relay_buffer *buffer_get(struct relay_pool *pool)
{
	struct relay_buffer *buffer = pool->buffers;

	if (!buffer) {
		buffer = malloc(sizeof(*buffer) + RELAY_BUFFER);
		if (buffer)
			buffer->size = RELAY_BUFFER;
		return buffer;
	}
	pool->buffers = buffer->next;
	pool->spare_buffers--;
	return buffer;
}

static void buffer_put(struct relay_pool *pool, struct relay_buffer *buffer)
{
	if (pool->spare_buffers == SPARE_BUFFERS || buffer->size < RELAY_BUFFER) {
		free(buffer);
		return;
	}
	buffer->next = pool->buffers;
	pool->buffers = buffer;
	pool->spare_buffers++;
}

static void pipe_close(struct relay_pool *pool, struct relay_pipe *pipe)
{
	close(pipe->ends[0]);
	close(pipe->ends[1]);
	free(pipe);
	pool->pipes_open--;
}

/* NULL where there is none to be had: descriptors, memory, or the bound. */
static struct relay_pipe *pipe_get(struct relay_pool *pool)
{
	struct relay_pipe *pipe = pool->pipes;

	if (pipe) {
		pool->pipes = pipe->next;
		pool->spare_pipes--;
		return pipe;
	}
	if (pool->pipes_open == MAX_PIPES)
		return NULL;
	pipe = malloc(sizeof(*pipe));
	if (!pipe || pipe2(pipe->ends, O_NONBLOCK | O_CLOEXEC)) {
		free(pipe);
		return NULL;
	}
	/* without CAP_SYS_RESOURCE or CAP_SYS_ADMIN all pipes of a user share 64 MiB (pipe(7),
	 * pipe_is_unprivileged_user()): then it is smaller */
	fcntl(pipe->ends[0], F_SETPIPE_SZ, RELAY_PIPE);
	pool->pipes_open++;
	return pipe;
}

static void pipe_put(struct relay_pool *pool, struct relay_pipe *pipe)
{
	if (pool->spare_pipes == SPARE_PIPES) {
		pipe_close(pool, pipe);
		return;
	}
	pipe->next = pool->pipes;
	pool->pipes = pipe;
	pool->spare_pipes++;
}

void relay_pool_free(struct relay_pool *pool)
{
	while (pool->buffers) {
		struct relay_buffer *buffer = pool->buffers;

		pool->buffers = buffer->next;
		free(buffer);
	}
	while (pool->pipes) {
		struct relay_pipe *pipe = pool->pipes;

		pool->pipes = pipe->next;
		pipe_close(pool, pipe);
	}
	pool->spare_buffers = pool->spare_pipes = 0;
}

char *relay_data(struct relay *relay)
{
	return relay->buffer ? relay->buffer->data + relay->at : NULL;
}

/* Move what waits into `to`, which may be NULL, and then nothing changes. */
static int move_to(struct relay *relay, struct relay_buffer *to)
{
	if (!to)
		return -ENOMEM;
	if (relay->buffer) {
		memcpy(to->data, relay_data(relay), relay->len);
		buffer_put(relay->pool, relay->buffer);
	} else {
		relay->len = 0;
	}
	relay->buffer = to;
	relay->at = 0;
	return 0;
}

void relay_park(struct relay *relay)
{
	struct relay_buffer *small;

	if (!relay->buffer || relay->buffer->size < RELAY_BUFFER || relay->len > RELAY_PARK)
		return;
	small = malloc(sizeof(*small) + relay->len);
	if (small)
		small->size = relay->len;
	move_to(relay, small);
}

ssize_t relay_read(struct relay *relay, int from)
{
	ssize_t n;

	if ((!relay->buffer || relay->buffer->size < RELAY_BUFFER) &&
	    move_to(relay, buffer_get(relay->pool)))
		return -ENOMEM;
	if (relay->at + relay->len == RELAY_BUFFER && relay->at) {
		memmove(relay->buffer->data, relay->buffer->data + relay->at, relay->len);
		relay->at = 0;
	}
	if (relay->len == RELAY_BUFFER)
		return -ENOBUFS;
	n = recv(from, relay->buffer->data + relay->at + relay->len,
		 RELAY_BUFFER - relay->at - relay->len, 0);
	if (n > 0) {
		relay->len += (size_t)n;
		return n;
	}
	n = n ? -errno : 0;
	if (!relay->len) {
		buffer_put(relay->pool, relay->buffer);
		relay->buffer = NULL;
	}
	return n;
}

void relay_skip(struct relay *relay, size_t n)
{
	relay->at += n;
	relay->len -= n;
	if (!relay->len && relay->buffer) {
		buffer_put(relay->pool, relay->buffer);
		relay->buffer = NULL;
	}
}

ssize_t relay_write(struct relay *relay, int to, size_t len)
{
	ssize_t n = send(to, relay_data(relay), len, MSG_NOSIGNAL);

	if (n < 0)
		return -errno;
	relay->bytes += (uint64_t)n;
	relay_skip(relay, (size_t)n);
	return n;
}

void relay_drop(struct relay *relay)
{
	if (relay->buffer)
		buffer_put(relay->pool, relay->buffer);
	/* a pipe that still holds bytes must not serve another connection */
	if (relay->pipe)
		pipe_close(relay->pool, relay->pipe);
	relay->buffer = NULL;
	relay->pipe = NULL;
	relay->at = relay->len = relay->piped = 0;
}

static bool is_again(ssize_t err)
{
	return err == -EAGAIN || err == -EINTR;
}

/* 0, -EAGAIN where the target is full, or -errno; *left goes down by what was written. */
static ssize_t flush(struct relay *relay, int to, uint64_t *left)
{
	while (relay->len && *left) {
		ssize_t n = relay_write(relay, to, relay->len < *left ? relay->len : *left);

		if (n < 0)
			return n;
		*left -= (uint64_t)n;
	}
	while (relay->piped && *left) {
		size_t want = relay->piped < *left ? relay->piped : (size_t)*left;
		ssize_t n = splice(relay->pipe->ends[0], NULL, to, NULL, want,
				   SPLICE_F_MOVE | SPLICE_F_NONBLOCK);

		if (n <= 0)
			return n ? -errno : -EPIPE;
		relay->piped -= (size_t)n;
		relay->bytes += (uint64_t)n;
		relay->spliced += (uint64_t)n;
		*left -= (uint64_t)n;
	}
	if (relay->pipe && !relay->piped) {
		pipe_put(relay->pool, relay->pipe);
		relay->pipe = NULL;
	}
	return 0;
}

/*
 * At most `left` bytes into the pipe; into the buffer perhaps more, of which flush() writes just so
 * many and leaves the rest to be looked at. > 0, 0 at the end, or -errno.
 */
static ssize_t fill(struct relay *relay, int from, uint64_t left)
{
	size_t want = left < RELAY_PIPE ? (size_t)left : RELAY_PIPE;
	ssize_t n;

	if (relay->bulk && !relay->pipe)
		relay->pipe = pipe_get(relay->pool);
	if (!relay->bulk || !relay->pipe) {
		n = relay_read(relay, from);
		if (n >= RELAY_BULK)
			relay->bulk = true;
		return n;
	}
	n = splice(from, NULL, relay->pipe->ends[1], NULL, want, SPLICE_F_MOVE | SPLICE_F_NONBLOCK);
	if (n > 0) {
		relay->piped = (size_t)n;
		return n;
	}
	n = n ? -errno : 0;
	pipe_put(relay->pool, relay->pipe);
	relay->pipe = NULL;
	return n;
}

/* A trickle is cheaper to copy than to splice. */
static enum relay_result source_empty(struct relay *relay, uint64_t start)
{
	if (relay->bytes - start < RELAY_BULK)
		relay->bulk = false;
	return RELAY_SOURCE_EMPTY;
}

enum relay_result relay_pump(struct relay *relay, int from, int to, uint64_t *left)
{
	uint64_t start = relay->bytes;
	bool emptied = false;

	for (;;) {
		ssize_t n = flush(relay, to, left);

		relay->held = n == -EACCES;
		if (is_again(n) || relay->held)
			return RELAY_TARGET_FULL;
		if (n < 0)
			return RELAY_TARGET_ERROR;
		if (!*left)
			return RELAY_LIMIT;
		if (relay->bytes - start >= RELAY_BUDGET)
			return RELAY_YIELD;
		if (emptied)
			return source_empty(relay, start);
		n = fill(relay, from, *left);
		if (n > 0) {
			/* a short recv() has emptied the socket, and more comes as an edge: epoll(7) */
			emptied = !relay->piped && !relay->ending &&
				  relay->at + relay->len < RELAY_BUFFER;
			continue;
		}
		if (!n)
			return RELAY_END;
		if (!is_again(n))
			return RELAY_SOURCE_ERROR;
		return source_empty(relay, start);
	}
}
