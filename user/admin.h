/* SPDX-License-Identifier: MIT */
/*
 * The admin addresses: HTTP by libmicrohttpd, which admin.c alone includes, on the agent's loop.
 * Answers are computed in the loop's thread.
 */
#ifndef KKM_ADMIN_H
#define KKM_ADMIN_H

#include <stdbool.h>

#include "loop.h"

struct admin;

struct admin_answer {
	int status;
	const char *type;
	char *body; /* malloced; NULL is empty */
};

/* `local` where the request came by the Unix socket. */
typedef void (*admin_handler)(void *ctx, const char *path, bool local, struct admin_answer *out);

/*
 * Takes the listening socket over, also on failure. One admin for each address. 0 or -errno.
 */
int admin_new(struct loop *loop, int listen_fd, bool local, admin_handler handler, void *ctx,
	      struct admin **out);
void admin_free(struct admin **admin);

/* A listening socket. 0 or -errno; for the Unix socket -EADDRINUSE where another agent answers. */
int admin_listen_unix(const char *run_dir, int *fd, bool *made_dir);
void admin_unlink(const char *run_dir, bool made_dir);
const char *admin_library_version(void);

#endif
