// SPDX-License-Identifier: MIT
#include "datapath.h"

#include <arpa/inet.h>
#include <bpf/bpf.h>
#include <bpf/btf.h>
#include <bpf/libbpf.h>
#include <dirent.h>
#include <errno.h>
#include <fcntl.h>
#include <linux/magic.h>
#include <linux/tcp.h>
#include <netinet/in.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/file.h>
#include <sys/mman.h>
#include <sys/mount.h>
#include <sys/stat.h>
#include <sys/vfs.h>
#include <time.h>
#include <unistd.h>

#include "kakuremichi.skel.h"
#include "log.h"

#define BPFFS_STANDARD "/sys/fs/bpf"

struct datapath {
	struct kakuremichi *skel;
	struct datapath_options options;
	char *bpf_dir;
	int lock_fd; /* of the directory; holds the flock, -1 where nothing is pinned */
	bool attached, attached_upstreams;
	struct bpf_link *agent_link, *container_link;
	struct kkm_slot *slots;
	size_t slots_size;
	char *stats; /* rows of stats_stride */
	size_t stats_size, stats_stride;
	struct kkm_meta meta;
};

/* libbpf says why in lines; the last of these is kept for whoever asks. */
static _Thread_local char libbpf_said[DATAPATH_WHY_LEN];

static int on_libbpf_print(enum libbpf_print_level level, const char *format, va_list args)
{
	char line[512];

	vsnprintf(line, sizeof(line), format, args);
	line[strcspn(line, "\n")] = '\0';
	if (level == LIBBPF_WARN && strncmp(line, "libbpf: failed to load object", 29))
		snprintf(libbpf_said, sizeof(libbpf_said), "%.*s", DATAPATH_WHY_LEN - 1, line);
	log_debug("libbpf", "line", line, NULL);
	return 0;
}

static int explain(char why[DATAPATH_WHY_LEN], int err, const char *what)
{
	snprintf(why, DATAPATH_WHY_LEN, "%.80s: %.40s%s%.120s", what, strerror(-err),
		 *libbpf_said ? ": " : "", libbpf_said);
	return err;
}

static uint64_t realtime_ms(void)
{
	struct timespec now;

	clock_gettime(CLOCK_REALTIME, &now);
	return (uint64_t)now.tv_sec * 1000 + (uint64_t)now.tv_nsec / 1000000;
}

/* The kernel is asked by loading a tiny program, or making a tiny map, of the kind. */
bool datapath_has_sockmap(void)
{
	return libbpf_probe_bpf_map_type(BPF_MAP_TYPE_SOCKHASH, NULL) == 1 &&
	       libbpf_probe_bpf_prog_type(BPF_PROG_TYPE_SK_MSG, NULL) == 1;
}

bool datapath_has_cgroup_programs(void)
{
	return libbpf_probe_bpf_prog_type(BPF_PROG_TYPE_SOCK_OPS, NULL) == 1 &&
	       libbpf_probe_bpf_prog_type(BPF_PROG_TYPE_CGROUP_SKB, NULL) == 1;
}

const char *datapath_library_version(void)
{
	return libbpf_version_string();
}

int datapath_find_cgroup_root(char *out, size_t size)
{
	FILE *mounts = fopen("/proc/mounts", "re");
	char line[1024], path[512], type[64];
	int err = -ENOENT;

	if (!mounts)
		return -errno;
	while (err && fgets(line, sizeof(line), mounts)) {
		if (sscanf(line, "%*s %511s %63s", path, type) == 2 && !strcmp(type, "cgroup2") &&
		    (size_t)snprintf(out, size, "%s", path) < size)
			err = 0;
	}
	fclose(mounts);
	return err;
}

int datapath_own_cgroup(char *out, size_t size)
{
	FILE *file = fopen("/proc/self/cgroup", "re");
	char line[1024], root[512];
	int err = -ENOENT;

	if (!file)
		return -errno;
	while (err && fgets(line, sizeof(line), file)) {
		line[strcspn(line, "\n")] = '\0';
		if (strncmp(line, "0::/", 4))
			continue;
		err = datapath_find_cgroup_root(root, sizeof(root));
		if (!err && (size_t)snprintf(out, size, "%s%s", root, line[4] ? line + 3 : "") >=
				    size)
			err = -ENAMETOOLONG;
	}
	fclose(file);
	return err;
}

static bool is_bpffs(const char *path)
{
	struct statfs fs;

	return !statfs(path, &fs) && fs.f_type == BPF_FS_MAGIC;
}

static int make_dirs(const char *path)
{
	char part[512];

	for (size_t len = 1; path[len - 1]; len++) {
		if (path[len] && path[len] != '/')
			continue;
		snprintf(part, sizeof(part), "%.*s", (int)len, path);
		if (mkdir(part, 0700) && errno != EEXIST)
			return -errno;
	}
	return 0;
}

bool datapath_is_cgroup2(const char *path)
{
	struct statfs fs;

	return !statfs(path, &fs) && fs.f_type == CGROUP2_SUPER_MAGIC;
}

bool datapath_on_bpffs(const char *bpf_dir)
{
	char parent[512];
	char *slash;

	snprintf(parent, sizeof(parent), "%s", bpf_dir);
	/* the nearest directory that exists says on which file system this will be */
	while (access(parent, F_OK) && (slash = strrchr(parent, '/')) && slash != parent)
		*slash = '\0';
	return is_bpffs(parent);
}

int datapath_need_bpffs(const char *bpf_dir, char why[DATAPATH_WHY_LEN])
{
	if (datapath_on_bpffs(bpf_dir))
		return 0;
	if (!strncmp(bpf_dir, BPFFS_STANDARD "/", sizeof(BPFFS_STANDARD)) &&
	    !mount("bpf", BPFFS_STANDARD, "bpf", MS_NOSUID | MS_NODEV | MS_NOEXEC, NULL)) {
		log_info("Mounted the BPF file system", "path", BPFFS_STANDARD, NULL);
		return 0;
	}
	snprintf(why, DATAPATH_WHY_LEN, "%.150s is not on a BPF file system: mount -t bpf bpf %s",
		 bpf_dir, BPFFS_STANDARD);
	return -ENOTDIR;
}

/* Pins that an earlier run left; how many. */
static unsigned int remove_pins(const char *bpf_dir)
{
	DIR *dir = opendir(bpf_dir);
	struct dirent *entry;
	unsigned int count = 0;

	if (!dir)
		return 0;
	while ((entry = readdir(dir))) {
		if (!strncmp(entry->d_name, "kkm_", 4) && !unlinkat(dirfd(dir), entry->d_name, 0))
			count++;
	}
	closedir(dir);
	return count;
}

/* One agent a directory: the lock goes with the process, however it ends. */
static int lock_dir(struct datapath *datapath, char why[DATAPATH_WHY_LEN])
{
	int err = datapath_need_bpffs(datapath->bpf_dir, why);
	unsigned int old;

	if (err)
		return err;
	err = make_dirs(datapath->bpf_dir);
	if (err)
		return explain(why, err, datapath->bpf_dir);
	datapath->lock_fd = open(datapath->bpf_dir, O_RDONLY | O_DIRECTORY | O_CLOEXEC);
	if (datapath->lock_fd < 0)
		return explain(why, -errno, datapath->bpf_dir);
	if (flock(datapath->lock_fd, LOCK_EX | LOCK_NB)) {
		close(datapath->lock_fd);
		datapath->lock_fd = -1;
		snprintf(why, DATAPATH_WHY_LEN,
			 "another agent uses %.120s: stop it, or give this one its own --bpf-dir",
			 datapath->bpf_dir);
		return -EBUSY;
	}
	old = remove_pins(datapath->bpf_dir);
	if (old)
		log_info("Replaced the maps of an earlier run", "path", datapath->bpf_dir, "#maps",
			 log_number(old), NULL);
	return 0;
}

static struct bpf_map **pinned_maps(struct kakuremichi *skel, size_t *count)
{
	static _Thread_local struct bpf_map *maps[7];

	maps[0] = skel->maps.kkm_routes;
	maps[1] = skel->maps.kkm_backends;
	maps[2] = skel->maps.kkm_rejected;
	maps[3] = skel->maps.kkm_conns;
	maps[4] = skel->maps.kkm_slots;
	maps[5] = skel->maps.kkm_stats;
	maps[6] = skel->maps.kkm_meta;
	*count = 7;
	return maps;
}

static int pin_maps(struct datapath *datapath, char why[DATAPATH_WHY_LEN])
{
	struct bpf_map **maps;
	size_t count;

	maps = pinned_maps(datapath->skel, &count);
	for (size_t i = 0; i < count; i++) {
		char path[512];
		int err;

		snprintf(path, sizeof(path), "%s/%s", datapath->bpf_dir, bpf_map__name(maps[i]));
		err = bpf_map__pin(maps[i], path);
		if (err)
			return explain(why, err, path);
	}
	return 0;
}

static void size_maps(struct datapath *datapath, unsigned int cpus)
{
	const struct datapath_options *options = &datapath->options;
	struct kakuremichi *skel = datapath->skel;

	bpf_map__set_max_entries(skel->maps.kkm_routes, options->max_routes);
	bpf_map__set_max_entries(skel->maps.kkm_backends, options->max_routes);
	bpf_map__set_max_entries(skel->maps.kkm_conns, options->max_conns);
	bpf_map__set_max_entries(skel->maps.kkm_slots, options->max_conns);
	bpf_map__set_max_entries(skel->maps.kkm_pending, options->max_conns);
	bpf_map__set_max_entries(skel->maps.kkm_containers, options->max_conns);
	bpf_map__set_max_entries(skel->maps.kkm_clients, options->max_conns);
	bpf_map__set_max_entries(skel->maps.kkm_upstreams, options->max_conns);
	bpf_map__set_max_entries(skel->maps.kkm_stats, options->workers + cpus);
	skel->rodata->kkm_stats_base = options->workers;
}

/* Without programs neither they nor the maps that only they use are created. */
static void leave_out_programs(struct kakuremichi *skel)
{
	struct bpf_program *program;

	bpf_object__for_each_program(program, skel->obj)
		bpf_program__set_autoload(program, false);
	bpf_map__set_autocreate(skel->maps.kkm_pending, false);
	bpf_map__set_autocreate(skel->maps.kkm_containers, false);
	bpf_map__set_autocreate(skel->maps.kkm_clients, false);
	bpf_map__set_autocreate(skel->maps.kkm_upstreams, false);
	bpf_map__set_autocreate(skel->maps.kkm_socks, false);
}

/* Asked only after a failure: reading all of the kernel's types takes a while. */
static bool lacks_casts(void)
{
	struct btf *btf = btf__load_vmlinux_btf();
	bool lacks = btf && (btf__find_by_name_kind(btf, "bpf_cast_to_kern_ctx", BTF_KIND_FUNC) < 0 ||
			     btf__find_by_name_kind(btf, "bpf_rdonly_cast", BTF_KIND_FUNC) < 0);

	btf__free(btf);
	return lacks;
}

static int load(struct datapath *datapath, char why[DATAPATH_WHY_LEN])
{
	int cpus = libbpf_num_possible_cpus(), err;

	*libbpf_said = '\0';
	datapath->skel = kakuremichi__open();
	if (!datapath->skel)
		return explain(why, -errno, "BPF object");
	size_maps(datapath, cpus > 0 ? (unsigned int)cpus : 1);
	if (!datapath->options.programs)
		leave_out_programs(datapath->skel);
	if (!kakuremichi__load(datapath->skel))
		return 0;
	err = -errno;
	if (!datapath->options.programs)
		return explain(why, err, "creating BPF maps");
	if (!lacks_casts())
		return explain(why, err, "loading BPF programs");
	snprintf(why, DATAPATH_WHY_LEN, "this kernel has no bpf_cast_to_kern_ctx and bpf_rdonly_cast, "
					"which Linux 6.2 has brought");
	return -EOPNOTSUPP;
}

static void *map_memory(const struct bpf_map *map, size_t *size)
{
	size_t page = (size_t)sysconf(_SC_PAGESIZE);
	size_t row = (bpf_map__value_size(map) + 7u) & ~7u; /* array_map_alloc() rounds up so */
	void *memory;

	*size = (row * bpf_map__max_entries(map) + page - 1) / page * page;
	memory = mmap(NULL, *size, PROT_READ | PROT_WRITE, MAP_SHARED, bpf_map__fd(map), 0);
	return memory == MAP_FAILED ? NULL : memory;
}

static int map_arrays(struct datapath *datapath, char why[DATAPATH_WHY_LEN])
{
	datapath->stats_stride = (sizeof(struct kkm_stats) + 7u) & ~7u;
	datapath->slots = map_memory(datapath->skel->maps.kkm_slots, &datapath->slots_size);
	datapath->stats = map_memory(datapath->skel->maps.kkm_stats, &datapath->stats_size);
	if (!datapath->slots || !datapath->stats)
		return explain(why, -ENOMEM, "mapping BPF arrays");
	return 0;
}

static struct bpf_link *attach_cgroup(const struct bpf_program *program, const char *path, int *err)
{
	int fd = open(path, O_RDONLY | O_DIRECTORY | O_CLOEXEC);
	struct bpf_link *link;

	if (fd < 0) {
		*err = -errno;
		return NULL;
	}
	link = bpf_program__attach_cgroup(program, fd);
	*err = link ? 0 : -errno;
	close(fd);
	return link;
}

static bool is_below(const char *path, const char *ancestor)
{
	size_t len = strlen(ancestor);

	while (len && ancestor[len - 1] == '/')
		len--;
	return !strncmp(path, ancestor, len) && (!path[len] || path[len] == '/');
}

/*
 * The container's end is seen in the containers' cgroup. The agent's own end must be seen too: where
 * the agent does not live below that cgroup, in the agent's own.
 */
static int attach(struct datapath *datapath, char why[DATAPATH_WHY_LEN])
{
	const char *cgroup = datapath->options.cgroup;
	struct kakuremichi *skel = datapath->skel;
	char own[512];
	int err;

	err = bpf_prog_attach(bpf_program__fd(skel->progs.kkm_response),
			      bpf_map__fd(skel->maps.kkm_containers), BPF_SK_MSG_VERDICT, 0);
	if (err)
		return explain(why, -errno, "attaching to the sockhash");
	datapath->attached = true;
	err = bpf_prog_attach(bpf_program__fd(skel->progs.kkm_request),
			      bpf_map__fd(skel->maps.kkm_upstreams), BPF_SK_MSG_VERDICT, 0);
	if (err)
		return explain(why, -errno, "attaching to the sockhash");
	datapath->attached_upstreams = true;
	if (!cgroup)
		return 0;
	if (datapath_own_cgroup(own, sizeof(own)) || is_below(own, cgroup) || access(own, F_OK))
		snprintf(own, sizeof(own), "%s", cgroup);
	datapath->agent_link = attach_cgroup(skel->progs.kkm_agent_end, own, &err);
	if (err)
		return explain(why, err, own);
	datapath->container_link = attach_cgroup(skel->progs.kkm_container_end, cgroup, &err);
	return err ? explain(why, err, cgroup) : 0;
}

static int open_steps(struct datapath *datapath, char why[DATAPATH_WHY_LEN])
{
	int err = datapath->bpf_dir ? lock_dir(datapath, why) : 0;

	if (!err)
		err = load(datapath, why);
	if (!err)
		err = map_arrays(datapath, why);
	if (!err && datapath->options.programs)
		err = attach(datapath, why);
	if (!err && datapath->bpf_dir)
		err = pin_maps(datapath, why);
	return err;
}

int datapath_open(const struct datapath_options *options, struct datapath **out,
		  char why[DATAPATH_WHY_LEN])
{
	struct datapath *datapath = calloc(1, sizeof(*datapath));
	int err = -ENOMEM;

	libbpf_set_print(on_libbpf_print);
	snprintf(why, DATAPATH_WHY_LEN, "out of memory");
	if (!datapath)
		return err;
	datapath->lock_fd = -1;
	datapath->options = *options;
	datapath->bpf_dir = options->bpf_dir ? strdup(options->bpf_dir) : NULL;
	datapath->meta.layout = KKM_LAYOUT;
	datapath->meta.pid = (__u32)getpid();
	datapath->meta.workers = options->workers;
	datapath->meta.started_ms = realtime_ms();
	if (!options->bpf_dir || datapath->bpf_dir)
		err = open_steps(datapath, why);
	if (err) {
		datapath_close(&datapath);
		return err;
	}
	datapath_set_meta(datapath, KKM_RELAY, false);
	*out = datapath;
	return 0;
}

void datapath_close(struct datapath **ptr)
{
	struct datapath *datapath = *ptr;

	if (!datapath)
		return;
	*ptr = NULL;
	bpf_link__destroy(datapath->agent_link);
	bpf_link__destroy(datapath->container_link);
	if (datapath->attached)
		bpf_prog_detach2(bpf_program__fd(datapath->skel->progs.kkm_response),
				 bpf_map__fd(datapath->skel->maps.kkm_containers),
				 BPF_SK_MSG_VERDICT);
	if (datapath->attached_upstreams)
		bpf_prog_detach2(bpf_program__fd(datapath->skel->progs.kkm_request),
				 bpf_map__fd(datapath->skel->maps.kkm_upstreams),
				 BPF_SK_MSG_VERDICT);
	if (datapath->lock_fd >= 0) {
		remove_pins(datapath->bpf_dir);
		rmdir(datapath->bpf_dir);
		close(datapath->lock_fd);
	}
	if (datapath->slots)
		munmap(datapath->slots, datapath->slots_size);
	if (datapath->stats)
		munmap(datapath->stats, datapath->stats_size);
	kakuremichi__destroy(datapath->skel);
	free(datapath->bpf_dir);
	free(datapath);
}

unsigned int datapath_max_conns(const struct datapath *datapath)
{
	return datapath->options.max_conns;
}

void datapath_set_meta(struct datapath *datapath, enum kkm_engine engine, bool ready)
{
	__u32 zero = 0;

	datapath->meta.engine = engine;
	datapath->meta.ready = ready;
	datapath->meta.written_ms = realtime_ms();
	bpf_map_update_elem(bpf_map__fd(datapath->skel->maps.kkm_meta), &zero, &datapath->meta,
			    BPF_ANY);
}

struct kkm_slot *datapath_slot(struct datapath *datapath, uint32_t index)
{
	return &datapath->slots[index];
}

struct kkm_stats *datapath_stats(struct datapath *datapath, unsigned int worker)
{
	return (struct kkm_stats *)(datapath->stats + worker * datapath->stats_stride);
}

void datapath_stats_sum(const struct datapath *datapath, struct kkm_stats *sums)
{
	unsigned int rows = bpf_map__max_entries(datapath->skel->maps.kkm_stats);

	*sums = (struct kkm_stats){ 0 };
	for (unsigned int i = 0; i < rows; i++) {
		const struct kkm_stats *row = (const void *)(datapath->stats + i * datapath->stats_stride);

#define ADD(name, help, ...) sums->name += __atomic_load_n(&row->name, __ATOMIC_RELAXED);
		KKM_STATS(ADD)
#undef ADD
	}
}

void datapath_address_bytes(const struct sockaddr_storage *address, __u8 v4[4], __u8 v6[16])
{
	if (address->ss_family == AF_INET)
		memcpy(v4, &((const struct sockaddr_in *)address)->sin_addr, 4);
	else
		memcpy(v6, &((const struct sockaddr_in6 *)address)->sin6_addr, 16);
}

void datapath_backend_key(struct kkm_backend_key *key, const char *domain,
			  const struct sockaddr_storage *address)
{
	memset(key, 0, sizeof(*key));
	snprintf(key->domain, sizeof(key->domain), "%s", domain);
	datapath_address_bytes(address, key->address, key->address6);
	key->port = address_port(address);
}

static void set_route(struct kkm_route *out, const struct route *route)
{
	const struct route_backend *first = &route->backends[0];

	memset(out, 0, sizeof(*out));
	datapath_address_bytes(&first->address, out->address, out->address6);
	out->port = address_port(&first->address);
	out->backend_count = route->count;
	out->state = route->state;
	out->owner = route->owner;
}

static void set_backend(struct kkm_backend *out, const struct route_backend *backend)
{
	memset(out, 0, sizeof(*out));
	out->state = backend->state;
	out->owner = backend->owner;
	snprintf(out->container, sizeof(out->container), "%s", backend->name);
	snprintf(out->id, sizeof(out->id), "%s", backend->id);
	out->tls_port = backend->tls_port;
	out->proxy_protocol = backend->proxy_protocol ? 2 : 0;
	snprintf(out->description, sizeof(out->description), "%s", backend->description);
	snprintf(out->service, sizeof(out->service), "%s", backend->service);
	snprintf(out->via, sizeof(out->via), "%s", backend->via);
	out->no_sockmap = backend->no_sockmap;
}

static void delete_routes(struct datapath *datapath, const struct route_table *previous,
			  const struct route_table *next)
{
	for (unsigned int i = 0; i < previous->count; i++) {
		char key[KKM_DOMAIN_LEN] = { 0 };

		if (route_exact(next, previous->routes[i].domain))
			continue;
		snprintf(key, sizeof(key), "%s", previous->routes[i].domain);
		bpf_map_delete_elem(bpf_map__fd(datapath->skel->maps.kkm_routes), key);
	}
}

/* Those of `route` that `kept` (or NULL) does not have. */
static void delete_backends(struct datapath *datapath, const struct route *route,
			    const struct route *kept)
{
	for (unsigned int i = 0; i < route->count; i++) {
		const struct sockaddr_storage *address = &route->backends[i].address;
		struct kkm_backend_key key;

		if (kept && route_backend_at(kept, address))
			continue;
		datapath_backend_key(&key, route->domain, address);
		bpf_map_delete_elem(bpf_map__fd(datapath->skel->maps.kkm_backends), &key);
	}
}

static int write_backends(struct datapath *datapath, const struct route *route,
			  const struct route *before)
{
	int fd = bpf_map__fd(datapath->skel->maps.kkm_backends);

	for (unsigned int i = 0; i < route->count; i++) {
		const struct route_backend *was =
			before ? route_backend_at(before, &route->backends[i].address) : NULL;
		struct kkm_backend value, old;
		struct kkm_backend_key key;

		set_backend(&value, &route->backends[i]);
		if (was) {
			set_backend(&old, was);
			if (!memcmp(&value, &old, sizeof(value)))
				continue;
		}
		datapath_backend_key(&key, route->domain, &route->backends[i].address);
		if (bpf_map_update_elem(fd, &key, &value, BPF_ANY))
			return -errno;
	}
	return 0;
}

/* Backends first: a route never names one that is not there. */
static int write_route(struct datapath *datapath, const struct route *route,
		       const struct route *before)
{
	char key[KKM_DOMAIN_LEN] = { 0 };
	struct kkm_route value, old;
	int err = write_backends(datapath, route, before);

	if (err)
		return err;
	set_route(&value, route);
	if (before) {
		set_route(&old, before);
		if (!memcmp(&value, &old, sizeof(value)))
			return 0;
	}
	snprintf(key, sizeof(key), "%s", route->domain);
	return bpf_map_update_elem(bpf_map__fd(datapath->skel->maps.kkm_routes), key, &value,
				   BPF_ANY)
		       ? -errno
		       : 0;
}

/* Undo what of `route` has been written, and leave nothing of the ones behind it. */
static void cut_at(struct datapath *datapath, const struct route_table *table, unsigned int from)
{
	for (unsigned int i = from; i < table->count; i++) {
		char key[KKM_DOMAIN_LEN] = { 0 };

		snprintf(key, sizeof(key), "%s", table->routes[i].domain);
		bpf_map_delete_elem(bpf_map__fd(datapath->skel->maps.kkm_routes), key);
		delete_backends(datapath, &table->routes[i], NULL);
	}
}

static void set_rejected_key(struct kkm_rejected_key *key, const struct route_rejected *rejected)
{
	memset(key, 0, sizeof(*key));
	snprintf(key->id, sizeof(key->id), "%s", rejected->id);
	snprintf(key->domain, sizeof(key->domain), "%s", rejected->domain);
}

static bool is_rejected(const struct route_table *table, const struct route_rejected *rejected)
{
	for (unsigned int i = 0; i < table->rejected_count; i++) {
		if (!strcmp(table->rejected[i].id, rejected->id) &&
		    !strcmp(table->rejected[i].domain, rejected->domain))
			return true;
	}
	return false;
}

/* A list for people: what does not fit is left out. */
static void write_rejected(struct datapath *datapath, const struct route_table *previous,
			   const struct route_table *table)
{
	struct kkm_rejected_key key;

	for (unsigned int i = 0; previous && i < previous->rejected_count; i++) {
		if (is_rejected(table, &previous->rejected[i]))
			continue;
		set_rejected_key(&key, &previous->rejected[i]);
		bpf_map_delete_elem(bpf_map__fd(datapath->skel->maps.kkm_rejected), &key);
	}
	for (unsigned int i = 0; i < table->rejected_count && i < KKM_MAX_REJECTED; i++) {
		const struct route_rejected *rejected = &table->rejected[i];
		struct kkm_rejected value = { .refusal = rejected->refusal };

		set_rejected_key(&key, rejected);
		snprintf(value.container, sizeof(value.container), "%s", rejected->name);
		snprintf(value.label, sizeof(value.label), "%s", rejected->label);
		snprintf(value.reason, sizeof(value.reason), "%s", rejected->reason);
		snprintf(value.wanted, sizeof(value.wanted), "%s", rejected->wanted);
		bpf_map_update_elem(bpf_map__fd(datapath->skel->maps.kkm_rejected), &key, &value,
				    BPF_ANY);
	}
}

int datapath_publish(struct datapath *datapath, const struct route_table *previous,
		     const struct route_table *next, unsigned int *fits)
{
	int err = 0;

	if (previous) {
		delete_routes(datapath, previous, next);
		for (unsigned int i = 0; i < previous->count; i++)
			delete_backends(datapath, &previous->routes[i],
					route_exact(next, previous->routes[i].domain));
	}
	for (unsigned int i = 0; i < next->count && !err; i++) {
		const struct route *route = &next->routes[i];

		err = write_route(datapath, route,
				  previous ? route_exact(previous, route->domain) : NULL);
		if (err) {
			*fits = i;
			cut_at(datapath, next, i);
		}
	}
	write_rejected(datapath, previous, next);
	datapath_set_meta(datapath, datapath->meta.engine, next->ready);
	return err;
}

int datapath_conn_add(struct datapath *datapath, uint64_t leg, const struct kkm_conn *conn)
{
	return bpf_map_update_elem(bpf_map__fd(datapath->skel->maps.kkm_conns), &leg, conn,
				   BPF_NOEXIST)
		       ? -errno
		       : 0;
}

void datapath_conn_delete(struct datapath *datapath, uint64_t leg, bool pending)
{
	int fd = bpf_map__fd(datapath->skel->maps.kkm_conns);
	struct kkm_conn conn;

	if (pending && !bpf_map_lookup_elem(fd, &leg, &conn))
		bpf_map_delete_elem(bpf_map__fd(datapath->skel->maps.kkm_pending), &conn.tuple);
	bpf_map_delete_elem(fd, &leg);
}

void datapath_conn_update(struct datapath *datapath, uint64_t leg,
			  const struct kkm_conn_bytes *bytes, enum kkm_engine up,
			  enum kkm_engine down)
{
	int fd = bpf_map__fd(datapath->skel->maps.kkm_conns);
	struct kkm_conn conn;

	if (bpf_map_lookup_elem(fd, &leg, &conn))
		return;
	conn.bytes = *bytes;
	conn.up = up;
	conn.down = down;
	bpf_map_update_elem(fd, &leg, &conn, BPF_EXIST);
}

int datapath_upstream_add(struct datapath *datapath, uint64_t leg, int fd)
{
	uint64_t value = (uint64_t)fd;

	return bpf_map_update_elem(bpf_map__fd(datapath->skel->maps.kkm_upstreams), &leg, &value,
				   BPF_ANY)
		       ? -errno
		       : 0;
}

void datapath_upstream_delete(struct datapath *datapath, uint64_t leg)
{
	bpf_map_delete_elem(bpf_map__fd(datapath->skel->maps.kkm_upstreams), &leg);
}

int datapath_client_add(struct datapath *datapath, uint64_t cookie, int fd)
{
	uint64_t value = (uint64_t)fd;

	return bpf_map_update_elem(bpf_map__fd(datapath->skel->maps.kkm_clients), &cookie, &value,
				   BPF_ANY)
		       ? -errno
		       : 0;
}

void datapath_container_delete(struct datapath *datapath, uint64_t leg)
{
	bpf_map_delete_elem(bpf_map__fd(datapath->skel->maps.kkm_containers), &leg);
}

/* TCP_REPAIR's queue sequence is write_seq; asking changes nothing (net/ipv4/tcp.c). */
static int write_seq(int fd, __u32 *out)
{
	int on = 1, off = TCP_REPAIR_OFF_NO_WP, queue = TCP_SEND_QUEUE;
	socklen_t len = sizeof(*out);
	int err = 0;

	if (setsockopt(fd, IPPROTO_TCP, TCP_REPAIR, &on, sizeof(on)))
		return -errno;
	if (setsockopt(fd, IPPROTO_TCP, TCP_REPAIR_QUEUE, &queue, sizeof(queue)) ||
	    getsockopt(fd, IPPROTO_TCP, TCP_QUEUE_SEQ, out, &len))
		err = -errno;
	setsockopt(fd, IPPROTO_TCP, TCP_REPAIR, &off, sizeof(off));
	return err;
}

int datapath_enrol(struct datapath *datapath, uint64_t leg, int container_fd, int upstream_fd,
		   uint64_t client_cookie, uint32_t slot)
{
	int socks = bpf_map__fd(datapath->skel->maps.kkm_socks);
	struct kkm_sock own = { .leg = leg, .client_cookie = client_cookie, .slot = slot };
	uint64_t value = (uint64_t)container_fd;
	struct kkm_slot *shared = datapath_slot(datapath, slot);
	int err;

	*shared = (struct kkm_slot){ .leg = leg, .enrolled = 1, .mode = KKM_STREAM };
	err = write_seq(container_fd, &own.start);
	if (err)
		return err;
	if (bpf_map_update_elem(socks, &container_fd, &own, BPF_ANY))
		return -errno;
	if (upstream_fd >= 0 && bpf_map_update_elem(socks, &upstream_fd, &own, BPF_ANY))
		return -errno;
	err = upstream_fd >= 0 ? datapath_upstream_add(datapath, leg, upstream_fd) : 0;
	if (err)
		return err;
	return bpf_map_update_elem(bpf_map__fd(datapath->skel->maps.kkm_containers), &leg, &value,
				   BPF_NOEXIST)
		       ? -errno
		       : 0;
}

/* An agent's are named so, another's too: it keeps to its own connections. */
static bool is_ours(const char *name)
{
	return !strncmp(name, "kkm_", 4);
}

static bool find_foreign_map(char *detail, size_t size)
{
	__u32 id = 0;

	while (!bpf_map_get_next_id(id, &id)) {
		struct bpf_map_info info = { 0 };
		__u32 len = sizeof(info);
		int fd = bpf_map_get_fd_by_id(id);
		bool found = fd >= 0 && !bpf_obj_get_info_by_fd(fd, &info, &len) &&
			     (info.type == BPF_MAP_TYPE_SOCKMAP ||
			      info.type == BPF_MAP_TYPE_SOCKHASH) && !is_ours(info.name);

		if (fd >= 0)
			close(fd);
		if (found) {
			snprintf(detail, size, "sockmap '%s' (bpftool map show id %u)", info.name,
				 id);
			return true;
		}
	}
	return false;
}

bool datapath_foreign_sockmaps(char *detail, size_t size)
{
	__u32 id = 0;

	if (find_foreign_map(detail, size))
		return true;
	while (!bpf_prog_get_next_id(id, &id)) {
		struct bpf_prog_info info = { 0 };
		__u32 len = sizeof(info);
		int fd = bpf_prog_get_fd_by_id(id);
		bool found = fd >= 0 && !bpf_obj_get_info_by_fd(fd, &info, &len) &&
			     (info.type == BPF_PROG_TYPE_SK_MSG ||
			      info.type == BPF_PROG_TYPE_SK_SKB) && !is_ours(info.name);

		if (fd >= 0)
			close(fd);
		if (found) {
			snprintf(detail, size, "program '%s' (bpftool prog show id %u)", info.name,
				 id);
			return true;
		}
	}
	return false;
}
