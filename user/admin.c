// SPDX-License-Identifier: MIT
#include "admin.h"

#include <errno.h>
#include <microhttpd.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/socket.h>
#include <sys/stat.h>
#include <sys/un.h>
#include <unistd.h>

#define MAX_CONNECTIONS 64
#define TIMEOUT_S 10
#define LOOK_MS 500

struct admin {
	struct loop *loop;
	struct MHD_Daemon *daemon;
	struct loop_io io;
	struct loop_timer timer;
	bool local;
	bool busy; /* had connections when it was last run */
	admin_handler handler;
	void *ctx;
};

/*
 * At its limit of connections libmicrohttpd stops listening, and starts again only at the beginning
 * of a run after one that ended some; no event and no time-out of its own leads to that run. So it
 * is run every now and then for as long as there are connections, and once more.
 */
static void work(struct admin *admin)
{
	const union MHD_DaemonInfo *info;
	MHD_UNSIGNED_LONG_LONG timeout_ms = LOOK_MS;
	bool had = admin->busy;

	MHD_run(admin->daemon);
	info = MHD_get_daemon_info(admin->daemon, MHD_DAEMON_INFO_CURRENT_CONNECTIONS);
	admin->busy = info && info->num_connections;
	if (!admin->busy && !had) {
		loop_timer_clear(admin->loop, &admin->timer);
		return;
	}
	if (MHD_get_timeout(admin->daemon, &timeout_ms) != MHD_YES || timeout_ms > LOOK_MS)
		timeout_ms = LOOK_MS;
	loop_timer_set(admin->loop, &admin->timer, timeout_ms);
}

static void ready(struct loop_io *io, uint32_t events)
{
	(void)events;
	work((struct admin *)((char *)io - offsetof(struct admin, io)));
}

static void timer_fire(struct loop_timer *timer)
{
	work((struct admin *)((char *)timer - offsetof(struct admin, timer)));
}

static enum MHD_Result handle(void *ctx, struct MHD_Connection *connection, const char *url,
			      const char *method, const char *version, const char *upload,
			      size_t *upload_size, void **request)
{
	struct admin *admin = ctx;
	struct admin_answer answer = { .status = 404, .type = "text/plain; charset=utf-8" };
	struct MHD_Response *response;
	enum MHD_Result result;

	(void)version;
	(void)upload;
	/* called once with the head, then for what follows it */
	if (!*request) {
		*request = admin;
		return MHD_YES;
	}
	if (*upload_size) {
		*upload_size = 0;
		return MHD_YES;
	}
	if (strcmp(method, "GET") && strcmp(method, "HEAD"))
		answer.status = 405;
	else
		admin->handler(admin->ctx, url, admin->local, &answer);
	response = MHD_create_response_from_buffer(answer.body ? strlen(answer.body) : 0,
						   answer.body ? answer.body : "",
						   answer.body ? MHD_RESPMEM_MUST_FREE
							       : MHD_RESPMEM_PERSISTENT);
	if (!response)
		return MHD_NO;
	MHD_add_response_header(response, "Content-Type", answer.type);
	result = MHD_queue_response(connection, (unsigned int)answer.status, response);
	MHD_destroy_response(response);
	return result;
}

int admin_new(struct loop *loop, int listen_fd, bool local, admin_handler handler, void *ctx,
	      struct admin **out)
{
	struct admin *admin = calloc(1, sizeof(*admin));
	const union MHD_DaemonInfo *info;

	if (!admin) {
		close(listen_fd);
		return -ENOMEM;
	}
	admin->loop = loop;
	admin->io.fd = -1;
	admin->io.ready = ready;
	admin->timer.fire = timer_fire;
	admin->local = local;
	admin->handler = handler;
	admin->ctx = ctx;
	admin->daemon = MHD_start_daemon(MHD_USE_EPOLL, 0, NULL, NULL, handle, admin,
					 MHD_OPTION_LISTEN_SOCKET, listen_fd,
					 MHD_OPTION_CONNECTION_LIMIT, MAX_CONNECTIONS,
					 MHD_OPTION_CONNECTION_TIMEOUT, TIMEOUT_S, MHD_OPTION_END);
	if (!admin->daemon) {
		close(listen_fd);
		free(admin);
		return -EIO;
	}
	info = MHD_get_daemon_info(admin->daemon, MHD_DAEMON_INFO_EPOLL_FD);
	if (!info || loop_add(loop, &admin->io, info->epoll_fd, EPOLLIN)) {
		admin_free(&admin);
		return -EIO;
	}
	*out = admin;
	return 0;
}

void admin_free(struct admin **ptr)
{
	struct admin *admin = *ptr;

	if (!admin)
		return;
	*ptr = NULL;
	loop_del(admin->loop, &admin->io);
	loop_timer_clear(admin->loop, &admin->timer);
	MHD_stop_daemon(admin->daemon);
	free(admin);
}

static int socket_address(const char *run_dir, struct sockaddr_un *address)
{
	*address = (struct sockaddr_un){ .sun_family = AF_UNIX };
	if ((size_t)snprintf(address->sun_path, sizeof(address->sun_path), "%s/admin.sock",
			     run_dir) >= sizeof(address->sun_path))
		return -ENAMETOOLONG;
	return 0;
}

/* A socket file that nobody listens on is a killed predecessor's. */
static int clear_stale(const struct sockaddr_un *address)
{
	int fd = socket(AF_UNIX, SOCK_STREAM | SOCK_CLOEXEC | SOCK_NONBLOCK, 0);
	int err = 0;

	if (fd < 0)
		return -errno;
	if (!connect(fd, (const struct sockaddr *)address, sizeof(*address)) || errno == EAGAIN)
		err = -EADDRINUSE;
	else if (errno == ECONNREFUSED)
		unlink(address->sun_path);
	close(fd);
	return err;
}

int admin_listen_unix(const char *run_dir, int *out, bool *made_dir)
{
	struct sockaddr_un address;
	int err = socket_address(run_dir, &address);
	int fd;

	if (err)
		return err;
	*made_dir = !mkdir(run_dir, 0755);
	if (!*made_dir && errno != EEXIST)
		return -errno;
	err = clear_stale(&address);
	if (err)
		return err;
	fd = socket(AF_UNIX, SOCK_STREAM | SOCK_CLOEXEC | SOCK_NONBLOCK, 0);
	if (fd < 0)
		return -errno;
	if (bind(fd, (struct sockaddr *)&address, sizeof(address)) || chmod(address.sun_path, 0600) ||
	    listen(fd, 16)) {
		err = -errno;
		close(fd);
		return err;
	}
	*out = fd;
	return 0;
}

void admin_unlink(const char *run_dir, bool made_dir)
{
	struct sockaddr_un address;

	if (socket_address(run_dir, &address))
		return;
	unlink(address.sun_path);
	if (made_dir)
		rmdir(run_dir);
}

const char *admin_library_version(void)
{
	return MHD_get_version();
}
