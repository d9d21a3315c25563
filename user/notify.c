// SPDX-License-Identifier: MIT
#include "notify.h"

#include <errno.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/socket.h>
#include <sys/un.h>
#include <unistd.h>

#include "hostname.h"

#define RETRY_MS 100	    /* the manager's queue was full */
#define STOP_MARGIN_MS 5000 /* behind the drain */

struct notify {
	struct loop *loop;
	struct loop_timer timer;
	void (*state)(void *ctx, struct notify_state *out);
	void *ctx;
	struct sockaddr_un address;
	socklen_t address_len;
	int fd;
	uint64_t watchdog_ms;	  /* half the interval; 0: none */
	struct notify_state told; /* what the manager knows */
};

/* A path, or an abstract name written with '@'. */
static int parse_socket(struct notify *notify, const char *name)
{
	size_t len = strlen(name);

	if ((*name != '/' && *name != '@') || len < 2 || len >= sizeof(notify->address.sun_path))
		return -EINVAL;
	notify->address.sun_family = AF_UNIX;
	memcpy(notify->address.sun_path, name, len);
	notify->address_len = (socklen_t)(offsetof(struct sockaddr_un, sun_path) + len);
	if (*name == '@')
		notify->address.sun_path[0] = '\0';
	else
		notify->address_len++;
	return 0;
}

static uint64_t watchdog_ms(void)
{
	const char *text = getenv("WATCHDOG_USEC"), *whose = getenv("WATCHDOG_PID");
	uint64_t usec, pid;

	if (!text || number_parse(text, strlen(text), 1, UINT64_MAX / 2, &usec))
		return 0;
	if (whose && (number_parse(whose, strlen(whose), 1, INT32_MAX, &pid) ||
		      pid != (uint64_t)getpid()))
		return 0;
	return usec / 2000 ? usec / 2000 : 1;
}

/* What is new in `now`, as assignments. */
static size_t differences(const struct notify *notify, const struct notify_state *now, char *out,
			  size_t size)
{
	const struct notify_state *told = &notify->told;
	int len = 0;

	if (now->ready && !told->ready)
		len += snprintf(out + len, size - (size_t)len, "READY=1\n");
	/* so that a longer --drain-timeout needs no other TimeoutStopSec= */
	if (now->stopping && !told->stopping)
		len += snprintf(out + len, size - (size_t)len,
				"STOPPING=1\nEXTEND_TIMEOUT_USEC=%llu\n",
				(unsigned long long)(now->stop_ms + STOP_MARGIN_MS) * 1000);
	if (strcmp(now->status, told->status))
		len += snprintf(out + len, size - (size_t)len, "STATUS=%s\n", now->status);
	return (size_t)len;
}

static void tell(struct notify *notify, bool alive)
{
	struct notify_state now = { 0 };
	uint64_t next = notify->watchdog_ms;
	char text[NOTIFY_STATUS_LEN + 128];
	size_t len;

	notify->state(notify->ctx, &now);
	now.ready |= notify->told.ready; /* which is never taken back */
	len = differences(notify, &now, text, sizeof(text));
	if (alive)
		len += (size_t)snprintf(text + len, sizeof(text) - len, "WATCHDOG=1\n");
	if (!len)
		return;
	if (sendto(notify->fd, text, len, MSG_NOSIGNAL, (struct sockaddr *)&notify->address,
		   notify->address_len) >= 0)
		notify->told = now;
	else if (errno == EAGAIN || errno == ENOBUFS)
		next = RETRY_MS;
	if (next && (alive || next == RETRY_MS))
		loop_timer_set(notify->loop, &notify->timer, next);
}

static void timer_fire(struct loop_timer *timer)
{
	struct notify *notify = (struct notify *)((char *)timer - offsetof(struct notify, timer));

	tell(notify, notify->watchdog_ms);
}

void notify_update(struct notify *notify)
{
	if (notify)
		tell(notify, false);
}

int notify_new(struct loop *loop, void (*state)(void *ctx, struct notify_state *out), void *ctx,
	       struct notify **out)
{
	const char *name = getenv("NOTIFY_SOCKET");
	struct notify *notify;
	int err;

	if (!name || !*name)
		return 0;
	notify = calloc(1, sizeof(*notify));
	if (!notify)
		return -ENOMEM;
	notify->loop = loop;
	notify->state = state;
	notify->ctx = ctx;
	notify->timer.fire = timer_fire;
	err = parse_socket(notify, name);
	notify->fd = err ? -1 : socket(AF_UNIX, SOCK_DGRAM | SOCK_CLOEXEC | SOCK_NONBLOCK, 0);
	if (!err && notify->fd < 0)
		err = -errno;
	if (err) {
		free(notify);
		return err;
	}
	notify->watchdog_ms = watchdog_ms();
	*out = notify;
	tell(notify, notify->watchdog_ms);
	return 0;
}

void notify_free(struct notify **notify)
{
	if (!*notify)
		return;
	loop_timer_clear((*notify)->loop, &(*notify)->timer);
	close((*notify)->fd);
	free(*notify);
	*notify = NULL;
}
