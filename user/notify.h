/* SPDX-License-Identifier: MIT */
/*
 * What a service manager hears of us: sd_notify(3), without its library. Does nothing where
 * NOTIFY_SOCKET is not set.
 */
#ifndef KKM_NOTIFY_H
#define KKM_NOTIFY_H

#include "loop.h"

#define NOTIFY_STATUS_LEN 160

struct notify;

struct notify_state {
	bool ready, stopping;
	uint64_t stop_ms; /* while stopping: how long that may take */
	char status[NOTIFY_STATUS_LEN];
};

/*
 * `state` is asked at each update, and twice a watchdog interval (WATCHDOG_USEC). 0, with *out NULL
 * where nobody listens, or -errno.
 */
int notify_new(struct loop *loop, void (*state)(void *ctx, struct notify_state *out), void *ctx,
	       struct notify **out);
void notify_free(struct notify **notify);

/* Something may have changed: tells what has. NULL is nobody. */
void notify_update(struct notify *notify);

#endif
