// SPDX-License-Identifier: MIT
#include "routesfile.h"

#include <errno.h>
#include <fcntl.h>
#include <limits.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/inotify.h>
#include <sys/stat.h>
#include <time.h>
#include <unistd.h>

#include "log.h"

#define FILE_MAX (16u << 20)
#define STEPS_MAX 64
#define LINKS_MAX 40	 /* as the kernel's */
#define SETTLE_MS 50	 /* who replaces a file often does it in several steps */
#define CREATED_MS 500	 /* whoever has created it is writing it, and its close is told */
#define RETRY_MS 10000	 /* what no change of the file may end */

#define CHANGES (IN_CLOSE_WRITE | IN_ATTRIB | IN_CREATE | IN_DELETE | IN_MOVED_FROM | IN_MOVED_TO)
#define OWN_CHANGES (IN_CLOSE_WRITE | IN_ATTRIB | IN_DELETE_SELF | IN_MOVE_SELF)

/* A name in a directory on the way to the file: another thing of that name is another way. */
struct step {
	int wd;
	char name[NAME_MAX + 1];
};

struct routesfile {
	struct loop *loop;
	struct routesfile_options options;
	struct routesjson routes;      /* the last good ones */
	struct routesjson_error error; /* of the file as it is now; no reason: none */
	bool was_good, told_unwatched;
	uint64_t since_ms;

	struct loop_io inotify;
	struct step steps[STEPS_MAX];
	unsigned int step_count;
	struct loop_timer look_again;
	struct loop_task tell;
};

/* Reading. */

static int fail(struct routesjson_error *error, int err)
{
	*error = (struct routesjson_error){ .line = 0 };
	snprintf(error->reason, sizeof(error->reason), "%s", strerror(-err));
	return err;
}

static int refuse(struct routesjson_error *error, const char *reason)
{
	*error = (struct routesjson_error){ .line = 0 };
	snprintf(error->reason, sizeof(error->reason), "%s", reason);
	return -EINVAL;
}

static int read_all(int fd, char *text, size_t capacity, size_t *len)
{
	ssize_t n = 1;

	for (*len = 0; n && *len < capacity; *len += (size_t)n) {
		n = read(fd, text + *len, capacity - *len);
		if (n < 0)
			return -errno;
	}
	return 0;
}

static int parse_fd(int fd, unsigned int max_targets, struct routesjson *out,
		    struct routesjson_error *error)
{
	struct stat st;
	size_t len, capacity;
	char *text;
	int err;

	if (fstat(fd, &st))
		return fail(error, -errno);
	if (!S_ISREG(st.st_mode))
		return refuse(error, "is no regular file");
	if (st.st_size > FILE_MAX)
		return refuse(error, "is larger than 16 MiB");
	/* one more than it has: what has grown meanwhile is not taken for whole */
	capacity = (size_t)st.st_size + 1;
	text = malloc(capacity);
	if (!text)
		return fail(error, -ENOMEM);
	err = read_all(fd, text, capacity, &len);
	if (err)
		err = fail(error, err);
	else if (len == capacity)
		err = refuse(error, "is being written");
	else
		err = routesjson_parse(text, len, max_targets, out, error);
	free(text);
	return err;
}

static int read_file(const char *path, unsigned int max_targets, struct routesjson *out,
		     struct routesjson_error *error)
{
	/* a FIFO without a writer would block */
	int fd = open(path, O_RDONLY | O_CLOEXEC | O_NONBLOCK);
	int err;

	if (fd < 0)
		return fail(error, -errno);
	err = parse_fd(fd, max_targets, out, error);
	close(fd);
	return err;
}

int routesfile_check(const char *path, unsigned int max_targets, unsigned int *routes,
		     struct routesjson_error *error)
{
	struct routesjson found;
	int err = read_file(path, max_targets, &found, error);

	if (err)
		return err;
	*routes = found.domains;
	free(found.sources);
	return 0;
}

/* Watching: each step of the path, before it is taken. */

struct walk {
	char dir[PATH_MAX]; /* without a symbolic link in it */
	char rest[PATH_MAX];
	unsigned int links;
};

static void join(char out[PATH_MAX], const char *dir, const char *name)
{
	/* one that is too long is found by nobody */
	if (snprintf(out, PATH_MAX, "%s/%s", dir, name) >= PATH_MAX)
		*out = '\0';
}

/* Takes the next name from the rest; false where there is none. */
static bool next_name(struct walk *walk, char name[NAME_MAX + 1])
{
	const char *p = walk->rest + strspn(walk->rest, "/");
	size_t len = strcspn(p, "/");

	if (!len || len > NAME_MAX)
		return false;
	memcpy(name, p, len);
	name[len] = '\0';
	memmove(walk->rest, p + len, strlen(p + len) + 1);
	return true;
}

static int follow(struct walk *walk, const char *name)
{
	char path[PATH_MAX], target[PATH_MAX], rest[PATH_MAX];
	ssize_t len;

	join(path, walk->dir, name);
	len = readlink(path, target, sizeof(target) - 1);
	if (len < 0) { /* it is none, or not there */
		strcpy(walk->dir, path);
		return 0;
	}
	if (++walk->links > LINKS_MAX)
		return -ELOOP;
	target[len] = '\0';
	if (*target == '/')
		strcpy(walk->dir, "/");
	join(rest, target, walk->rest);
	strcpy(walk->rest, rest);
	return 0;
}

static int add_watch(struct routesfile *file, const char *path, uint32_t changes, const char *name)
{
	struct step *step = &file->steps[file->step_count];
	int wd;

	if (file->step_count == STEPS_MAX)
		return -ELOOP;
	wd = inotify_add_watch(file->inotify.fd, path, changes);
	if (wd < 0)
		return -errno;
	step->wd = wd;
	snprintf(step->name, sizeof(step->name), "%s", name);
	file->step_count++;
	return 0;
}

static bool is_missing(int err)
{
	return err == -ENOENT || err == -ENOTDIR;
}

/* What is missing is told of by the directory that it is missing in. 0 or the first error. */
static int watch_steps(struct routesfile *file)
{
	struct walk walk = { .dir = "." };
	char name[NAME_MAX + 1];
	int err = 0, failed = 0;

	if (*file->options.path == '/')
		strcpy(walk.dir, "/");
	join(walk.rest, "", file->options.path);
	while (next_name(&walk, name)) {
		err = add_watch(file, walk.dir, CHANGES | IN_ONLYDIR, name);
		if (is_missing(err))
			return failed;
		if (err && !failed)
			failed = err;
		if (follow(&walk, name))
			return failed;
	}
	/* one that is mounted here by itself is changed in a directory that is not seen from here */
	err = add_watch(file, walk.dir, OWN_CHANGES, "");
	return failed || is_missing(err) ? failed : err;
}

static bool concerns(const struct routesfile *file, const struct inotify_event *event)
{
	if (!event->len) /* of a step itself, or of the queue */
		return true;
	for (unsigned int i = 0; i < file->step_count; i++) {
		if (file->steps[i].wd == event->wd && !strcmp(file->steps[i].name, event->name))
			return true;
	}
	return false;
}

/* Never later than it was to be: a file that changes without end is read all the same. */
static void look_within(struct routesfile *file, uint64_t delay_ms)
{
	uint64_t at_ms = loop_now_ms(file->loop) + delay_ms;

	if (!file->look_again.place || file->look_again.at_ms > at_ms)
		loop_timer_set(file->loop, &file->look_again, delay_ms);
}

static void inotify_ready(struct loop_io *io, uint32_t events)
{
	struct routesfile *file =
		(struct routesfile *)((char *)io - offsetof(struct routesfile, inotify));
	_Alignas(struct inotify_event) char buffer[4096];
	ssize_t len;

	(void)events;
	while ((len = read(io->fd, buffer, sizeof(buffer))) > 0) {
		for (ssize_t at = 0; at < len;) {
			const struct inotify_event *event = (const void *)(buffer + at);
			bool created = (event->mask & (IN_CREATE | IN_ISDIR)) == IN_CREATE;

			if (concerns(file, event))
				look_within(file, created ? CREATED_MS : SETTLE_MS);
			at += (ssize_t)(sizeof(*event) + event->len);
		}
	}
}

/* All watches anew: which they are is found only on the way. */
static int watch(struct routesfile *file)
{
	int fd, err;

	if (file->inotify.fd >= 0)
		close(loop_del(file->loop, &file->inotify));
	file->step_count = 0;
	fd = inotify_init1(IN_CLOEXEC | IN_NONBLOCK);
	if (fd < 0)
		return -errno;
	err = loop_add(file->loop, &file->inotify, fd, EPOLLIN);
	if (err) {
		close(fd);
		return err;
	}
	return watch_steps(file);
}

/* Taking. */

static bool is_same(const struct routesjson *a, const struct routesjson *b)
{
	return a->count == b->count &&
	       (!a->count || !memcmp(a->sources, b->sources, a->count * sizeof(*a->sources)));
}

static void note_change(struct routesfile *file)
{
	struct timespec now;

	clock_gettime(CLOCK_REALTIME, &now);
	file->since_ms = (uint64_t)now.tv_sec * 1000 + (uint64_t)now.tv_nsec / 1000000;
}

static void keep_last(struct routesfile *file, const struct routesjson_error *error)
{
	if (file->error.line == error->line && !strcmp(file->error.reason, error->reason))
		return;
	file->error = *error;
	note_change(file);
	log_warn(file->was_good ? "Routes file not taken: its last good routes stay"
				: "Routes file not taken: no routes of it until it is good",
		 "file", file->options.path, "#line", error->line ? log_number(error->line) : NULL,
		 "error", error->reason, NULL);
}

/* Has it changed anything? */
static bool take(struct routesfile *file, struct routesjson *fresh)
{
	bool same = file->was_good && is_same(&file->routes, fresh);

	if (!same || *file->error.reason) {
		log_info("Routes file read", "file", file->options.path, "#routes",
			 log_number(fresh->domains), NULL);
		note_change(file);
	}
	free(file->routes.sources);
	file->routes = *fresh;
	file->error = (struct routesjson_error){ .line = 0 };
	file->was_good = true;
	return !same;
}

/* The watches first: then what changes after the file was read is told. */
static bool look(struct routesfile *file)
{
	struct routesjson_error error;
	struct routesjson fresh;
	int err = watch(file);

	if (err) {
		if (!file->told_unwatched)
			log_warn("Routes file cannot be watched: it is read every 10 s", "file",
				 file->options.path, "error", strerror(-err), NULL);
		look_within(file, RETRY_MS);
	}
	file->told_unwatched = err;
	err = read_file(file->options.path, file->options.max_targets, &fresh, &error);
	if (!err)
		return take(file, &fresh);
	if (err != -EINVAL && !is_missing(err))
		look_within(file, RETRY_MS);
	keep_last(file, &error);
	return false;
}

static void look_again_fire(struct loop_timer *timer)
{
	struct routesfile *file =
		(struct routesfile *)((char *)timer - offsetof(struct routesfile, look_again));

	if (look(file))
		loop_defer(file->loop, &file->tell);
}

static void tell_run(struct loop_task *task)
{
	struct routesfile *file =
		(struct routesfile *)((char *)task - offsetof(struct routesfile, tell));

	file->options.changed(file->options.ctx);
}

int routesfile_new(struct loop *loop, const struct routesfile_options *options,
		   struct routesfile **out)
{
	struct routesfile *file = calloc(1, sizeof(*file));

	if (!file)
		return -ENOMEM;
	file->loop = loop;
	file->options = *options;
	file->inotify.fd = -1;
	file->inotify.ready = inotify_ready;
	file->look_again.fire = look_again_fire;
	file->tell.run = tell_run;
	look(file);
	*out = file;
	return 0;
}

void routesfile_free(struct routesfile **ptr)
{
	struct routesfile *file = *ptr;

	if (!file)
		return;
	*ptr = NULL;
	loop_timer_clear(file->loop, &file->look_again);
	if (file->inotify.fd >= 0)
		close(loop_del(file->loop, &file->inotify));
	free(file->routes.sources);
	free(file);
}

int routesfile_sources(struct routesfile *file, const struct route_source ***out, size_t *count)
{
	const struct route_source **sources = calloc(file->routes.count + 1, sizeof(*sources));

	if (!sources)
		return -ENOMEM;
	for (unsigned int i = 0; i < file->routes.count; i++)
		sources[i] = &file->routes.sources[i];
	*out = sources;
	*count = file->routes.count;
	return 0;
}

void routesfile_status(const struct routesfile *file, struct routesfile_status *out)
{
	const struct routesjson_error *error = &file->error;

	*out = (struct routesfile_status){ .path = file->options.path,
					   .routes = file->routes.domains,
					   .since_ms = file->since_ms };
	if (error->line)
		snprintf(out->error, sizeof(out->error), "line %u: %s", error->line, error->reason);
	else
		snprintf(out->error, sizeof(out->error), "%s", error->reason);
}
