// SPDX-License-Identifier: MIT
#include "mapview.h"

#include <bpf/bpf.h>
#include <errno.h>
#include <fcntl.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/file.h>
#include <unistd.h>

#define KEY_MAX 512

static int open_map(const struct mapview *view, const char *map)
{
	LIBBPF_OPTS(bpf_obj_get_opts, options, .file_flags = BPF_F_RDONLY);
	char path[640];
	int fd;

	snprintf(path, sizeof(path), "%s/%s", view->dir, map);
	fd = bpf_obj_get_opts(path, &options);
	return fd < 0 ? -errno : fd;
}

int mapview_get(const struct mapview *view, const char *map, const void *key, void *value)
{
	int fd = open_map(view, map);
	int err = 0;

	if (fd < 0)
		return fd;
	if (bpf_map_lookup_elem(fd, key, value))
		err = -errno;
	close(fd);
	return err;
}

/* The agent's lock goes with its process. */
static bool is_locked(const char *dir)
{
	int fd = open(dir, O_RDONLY | O_DIRECTORY | O_CLOEXEC);
	bool locked;

	if (fd < 0)
		return false;
	locked = flock(fd, LOCK_SH | LOCK_NB) && errno == EWOULDBLOCK;
	close(fd);
	return locked;
}

int mapview_open(const char *bpf_dir, struct mapview *out)
{
	struct mapview view = { .stale = false };
	__u32 zero = 0;
	int err;

	snprintf(view.dir, sizeof(view.dir), "%s", bpf_dir);
	err = mapview_get(&view, "kkm_meta", &zero, &view.meta);
	if (err)
		return err;
	if (view.meta.layout != KKM_LAYOUT)
		return -EPROTO;
	view.stale = !is_locked(bpf_dir);
	*out = view;
	return 0;
}

int mapview_each(const struct mapview *view, const char *map,
		 void (*each)(void *ctx, const void *key, const void *value), void *ctx)
{
	struct bpf_map_info info = { 0 };
	__u32 len = sizeof(info), count;
	char *keys = NULL, *values = NULL, batch[KEY_MAX];
	int fd = open_map(view, map);
	int err = 0;

	if (fd < 0)
		return fd;
	if (bpf_obj_get_info_by_fd(fd, &info, &len))
		err = -errno;
	/* whole, in one call: walking from key to key starts over where the last key has gone */
	count = info.max_entries;
	if (!err) {
		keys = calloc(count, info.key_size);
		values = calloc(count, info.value_size);
	}
	if (!err && (!keys || !values))
		err = -ENOMEM;
	if (!err && bpf_map_lookup_batch(fd, NULL, batch, keys, values, &count, NULL) &&
	    errno != ENOENT)
		err = -errno;
	for (__u32 i = 0; !err && i < count; i++)
		each(ctx, keys + (size_t)i * info.key_size, values + (size_t)i * info.value_size);
	free(keys);
	free(values);
	close(fd);
	return err;
}

static void add_row(void *ctx, const void *key, const void *value)
{
	struct kkm_stats *sums = ctx;
	struct kkm_stats row;

	(void)key;
	memcpy(&row, value, sizeof(row));
#define ADD(name, help, ...) sums->name += row.name;
	KKM_STATS(ADD)
#undef ADD
}

int mapview_stats(const struct mapview *view, struct kkm_stats *sums)
{
	memset(sums, 0, sizeof(*sums));
	return mapview_each(view, "kkm_stats", add_row, sums);
}
