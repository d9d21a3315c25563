/* SPDX-License-Identifier: GPL-2.0-only */
/*
 * The maps: key, value, writer, reader, lifetime. The agent sets max_entries where it says
 * "sized" before loading. Pinned are those that people read; the sockhashes never are, since a
 * pinned sockhash would keep its program attached after the agent has gone.
 */
#ifndef KKM_MAPS_BPF_H
#define KKM_MAPS_BPF_H

#include "kakuremichi.h"

/* Pinned. Written by the agent with every change of its route table; read by the programs. */
struct {
	__uint(type, BPF_MAP_TYPE_HASH);
	__uint(max_entries, KKM_MAX_ROUTES); /* sized */
	__type(key, char[KKM_DOMAIN_LEN]);
	__type(value, struct kkm_route);
} kkm_routes SEC(".maps");

/* Pinned. Written and read as kkm_routes. */
struct {
	__uint(type, BPF_MAP_TYPE_HASH);
	__uint(max_entries, KKM_MAX_ROUTES); /* sized */
	__type(key, struct kkm_backend_key);
	__type(value, struct kkm_backend);
} kkm_backends SEC(".maps");

/* Pinned. Written by the agent; read by the commands only. */
struct {
	__uint(type, BPF_MAP_TYPE_HASH);
	__uint(max_entries, KKM_MAX_REJECTED);
	__type(key, struct kkm_rejected_key);
	__type(value, struct kkm_rejected);
} kkm_rejected SEC(".maps");

/* Pinned. The agent adds before connect() and deletes at close; the programs fill in `tuple`. */
struct {
	__uint(type, BPF_MAP_TYPE_HASH);
	__uint(max_entries, 1024); /* sized */
	__type(key, __u64);
	__type(value, struct kkm_conn);
} kkm_conns SEC(".maps");

/* Pinned. A row per connection under way; see struct kkm_slot for who writes what. */
struct {
	__uint(type, BPF_MAP_TYPE_ARRAY);
	__uint(max_entries, 1024); /* sized */
	__uint(map_flags, BPF_F_MMAPABLE);
	__type(key, __u32);
	__type(value, struct kkm_slot);
} kkm_slots SEC(".maps");

/* Pinned. Rows of the workers, then of the CPUs. */
struct {
	__uint(type, BPF_MAP_TYPE_ARRAY);
	__uint(max_entries, 2); /* sized */
	__uint(map_flags, BPF_F_MMAPABLE);
	__type(key, __u32);
	__type(value, struct kkm_stats);
} kkm_stats SEC(".maps");

/* Pinned. One entry. */
struct {
	__uint(type, BPF_MAP_TYPE_ARRAY);
	__uint(max_entries, 1);
	__type(key, __u32);
	__type(value, struct kkm_meta);
} kkm_meta SEC(".maps");

/*
 * Tuple of the agent's socket -> what its peer must look like. Added by kkm_agent_end at connect(),
 * deleted by kkm_container_end when it found the peer, else by the agent at close.
 */
struct {
	__uint(type, BPF_MAP_TYPE_HASH);
	__uint(max_entries, 1024); /* sized */
	__type(key, struct kkm_tuple);
	__type(value, struct kkm_pending);
} kkm_pending SEC(".maps");

/* Leg -> the container's socket. Added by kkm_container_end, deleted at close, or by the agent. */
struct {
	__uint(type, BPF_MAP_TYPE_SOCKHASH);
	__uint(max_entries, 1024); /* sized */
	__type(key, __u64);
	__type(value, __u64);
} kkm_containers SEC(".maps");

/*
 * Cookie -> the client's socket, the target of redirects. A map of its own, without a program, so
 * that what the agent itself writes to the client runs none.
 */
struct {
	__uint(type, BPF_MAP_TYPE_SOCKHASH);
	__uint(max_entries, 1024); /* sized */
	__type(key, __u64);
	__type(value, __u64);
} kkm_clients SEC(".maps");

/*
 * Leg -> the agent's own socket, whose messages kkm_request may put into the container's. Added by
 * kkm_agent_end, deleted by the agent while the direction is bulk, and with the socket.
 */
struct {
	__uint(type, BPF_MAP_TYPE_SOCKHASH);
	__uint(max_entries, 1024); /* sized */
	__type(key, __u64);
	__type(value, __u64);
} kkm_upstreams SEC(".maps");

/* Storage of a container's socket, and of the agent's; goes with it. */
struct {
	__uint(type, BPF_MAP_TYPE_SK_STORAGE);
	__uint(map_flags, BPF_F_NO_PREALLOC);
	__type(key, int);
	__type(value, struct kkm_sock);
} kkm_socks SEC(".maps");

#endif
