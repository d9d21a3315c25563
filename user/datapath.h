/* SPDX-License-Identifier: MIT */
/*
 * The BPF side as the agent sees it: maps, pins, programs. datapath.c alone includes libbpf and the
 * skeleton. Two layers use it: the agent publishes route tables, engines announce connections.
 * After datapath_open() every function that takes a connection may be called from any thread.
 */
#ifndef KKM_DATAPATH_H
#define KKM_DATAPATH_H

#include <stdbool.h>
#include <stdint.h>

#include "kakuremichi.h"
#include "route.h"

#define DATAPATH_WHY_LEN 256

struct datapath;

struct datapath_options {
	const char *bpf_dir;	/* NULL: nothing is pinned, for tests and the self-test */
	const char *cgroup;	/* of the containers; NULL: the programs are not attached to any */
	bool programs;		/* load the programs; else there are just maps */
	unsigned int workers;
	unsigned int max_routes; /* also of backends */
	unsigned int max_conns;
};

/*
 * 0 or -errno with a line in `why`: -EBUSY where another agent holds the pins. Pins of an earlier
 * run are replaced, with a log line.
 */
int datapath_open(const struct datapath_options *options, struct datapath **out,
		  char why[DATAPATH_WHY_LEN]);
/* Detaches every program, removes every pin. */
void datapath_close(struct datapath **datapath);

unsigned int datapath_max_conns(const struct datapath *datapath);

/*
 * Make the maps hold `next`, given that they hold `previous` (NULL: nothing). A domain in both
 * never looks absent. 0, or -errno (-E2BIG: full) with *fits routes of the beginning of `next`
 * written and no part of any other.
 */
int datapath_publish(struct datapath *datapath, const struct route_table *previous,
		     const struct route_table *next, unsigned int *fits);
void datapath_set_meta(struct datapath *datapath, enum kkm_engine engine, bool ready);

/* The memory that programs and agent share; index below max_conns, worker below workers. */
struct kkm_slot *datapath_slot(struct datapath *datapath, uint32_t index);
struct kkm_stats *datapath_stats(struct datapath *datapath, unsigned int worker);
/* The sums of the columns of kkm_stats, of workers and CPUs. */
void datapath_stats_sum(const struct datapath *datapath, struct kkm_stats *sums);

void datapath_backend_key(struct kkm_backend_key *key, const char *domain,
			  const struct sockaddr_storage *address);
void datapath_address_bytes(const struct sockaddr_storage *address, __u8 v4[4], __u8 v6[16]);

/* 0 or -errno; -E2BIG where kkm_conns is full. */
int datapath_conn_add(struct datapath *datapath, uint64_t leg, const struct kkm_conn *conn);
/* With `pending`, also what kkm_agent_end remembered and kkm_container_end has not taken. */
void datapath_conn_delete(struct datapath *datapath, uint64_t leg, bool pending);
/* Put a client's socket where redirects find it. 0 or -errno: EOPNOTSUPP after a half-close. */
int datapath_client_add(struct datapath *datapath, uint64_t cookie, int fd);
/* What a connection has carried, and by which engines, for people to see. */
void datapath_conn_update(struct datapath *datapath, uint64_t leg,
			  const struct kkm_conn_bytes *bytes, enum kkm_engine up,
			  enum kkm_engine down);
/* The agent's own socket: kkm_request sees what is sent on it. 0 or -errno. */
int datapath_upstream_add(struct datapath *datapath, uint64_t leg, int fd);
void datapath_upstream_delete(struct datapath *datapath, uint64_t leg);
/* Take a container's socket off the short way for good; its application's FIONREAD is right again. */
void datapath_container_delete(struct datapath *datapath, uint64_t leg);

/*
 * Do by hand what the sock_ops programs do, for sockets of our own (self-test and tests); upstream_fd
 * may be -1. 0 or -errno.
 */
int datapath_enrol(struct datapath *datapath, uint64_t leg, int container_fd, int upstream_fd,
		   uint64_t client_cookie, uint32_t slot);

/* Is there a sockmap, sk_msg or sk_skb on this host that no agent has made? Says whose. */
bool datapath_foreign_sockmaps(char *detail, size_t size);

/* cgroups of version 2 by /proc/mounts and /proc/self/cgroup; 0 or -errno, paths are absolute. */
int datapath_find_cgroup_root(char *out, size_t size);
int datapath_own_cgroup(char *out, size_t size);
bool datapath_is_cgroup2(const char *path);
/* Is this path, as far as it exists, on a BPF file system? */
bool datapath_on_bpffs(const char *bpf_dir);
/* 0 or -errno; mounts bpffs where /sys/fs/bpf is meant and there is none. */
int datapath_need_bpffs(const char *bpf_dir, char why[DATAPATH_WHY_LEN]);
/* Does this kernel have what the programs are made of? Not known without the capabilities: false. */
bool datapath_has_sockmap(void);
bool datapath_has_cgroup_programs(void);
const char *datapath_library_version(void);

#endif
