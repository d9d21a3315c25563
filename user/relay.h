/* SPDX-License-Identifier: MIT */
/*
 * One direction of a connection carried by the agent: recv/send through a buffer for small pieces,
 * splice(2) through a pipe for bulk. Buffers and pipes come from a worker's pool and go back as soon
 * as they are empty, so that an idle connection holds neither. Backpressure is not reading.
 */
#ifndef KKM_RELAY_H
#define KKM_RELAY_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>
#include <sys/types.h>

#define RELAY_BUFFER 65536	     /* bytes; a whole request head fits */
#define RELAY_PARK 2048		     /* bytes that wait without a buffer of the pool */
#define RELAY_PIPE (1 << 20)	     /* bytes asked for; less is taken */
#define RELAY_BULK 32768	     /* a read of this much makes a direction bulk */
#define RELAY_BUDGET (2 << 20)	     /* bytes a direction may move before others get their turn */
#define RELAY_NO_LIMIT UINT64_MAX

struct relay_pool {
	struct relay_buffer *buffers;
	struct relay_pipe *pipes;
	unsigned int spare_buffers, spare_pipes;
	unsigned int pipes_open;
};

struct relay {
	struct relay_pool *pool;
	struct relay_buffer *buffer; /* NULL while empty */
	size_t at, len;		     /* unwritten bytes in it */
	struct relay_pipe *pipe;     /* NULL while empty */
	size_t piped;
	bool bulk;
	bool held;   /* the target is not full, but does not take it yet (EACCES, see kkm_request) */
	bool ending; /* the source has signalled its end: a short read does not mean empty */
	uint64_t bytes;	  /* written to the target so far */
	uint64_t spliced; /* part of these, by splice(2) */
};

enum relay_result {
	RELAY_SOURCE_EMPTY, /* everything read has been written */
	RELAY_TARGET_FULL,
	RELAY_LIMIT,	    /* as many bytes as were allowed have been written */
	RELAY_YIELD,	    /* there is more to do, but it is somebody else's turn */
	RELAY_END,	    /* the source has ended, everything read has been written */
	RELAY_SOURCE_ERROR, /* reset; everything read has been written */
	RELAY_TARGET_ERROR,
};

void relay_pool_free(struct relay_pool *pool);

/* Bytes that wait to be written. */
char *relay_data(struct relay *relay);
/* recv() behind the waiting bytes: > 0, 0 at the end, or -errno; -ENOBUFS where there is no room. */
ssize_t relay_read(struct relay *relay, int from);
/* send() the first `len` waiting bytes: how many went, or -errno. */
ssize_t relay_write(struct relay *relay, int to, size_t len);

/* Forget the first `n` waiting bytes. */
void relay_skip(struct relay *relay, size_t n);
/* More will not come soon: keep few waiting bytes in memory of just their size. */
void relay_park(struct relay *relay);

/* Move up to *left bytes, which is lowered by what was written. */
enum relay_result relay_pump(struct relay *relay, int from, int to, uint64_t *left);
/* Everything that waits is dropped. */
void relay_drop(struct relay *relay);

#endif
