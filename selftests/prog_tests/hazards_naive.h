/* SPDX-License-Identifier: MIT */
/*
 * The naive programs of selftests/progs on a connection as fixture.h makes it, with maps of their
 * own and nothing on any cgroup. The test itself is browser, agent and container.
 */
#ifndef KKM_HAZARDS_NAIVE_H
#define KKM_HAZARDS_NAIVE_H

#include "fixture.h"

#include <bpf/libbpf.h>

#include "progs/naive.skel.h"

struct naive_case {
	struct naive *bpf;
	struct flow flow; /* no leg: nothing of ours has a part in it */
	int attached;	  /* the program on naive_socks, -1: none */
	enum bpf_attach_type type;
};

static UNUSED int silent(enum libbpf_print_level level UNUSED, const char *format UNUSED,
			 va_list args UNUSED)
{
	return 0;
}

static UNUSED int map_fd(const struct bpf_map *map)
{
	return bpf_map__fd(map);
}

/* False where the case is skipped. */
static UNUSED bool naive_open(struct naive_case *n)
{
	memset(n, 0, sizeof(*n));
	flow_init(&n->flow);
	n->attached = -1;
	libbpf_set_print(silent);
	if (geteuid())
		tap_skipped = "needs root";
	else if (!(n->bpf = naive__open_and_load()))
		tap_skipped = "the naive programs do not load here";
	return !tap_skipped;
}

static UNUSED void naive_detach(struct naive_case *n)
{
	if (n->attached >= 0)
		bpf_prog_detach2(n->attached, map_fd(n->bpf->maps.naive_socks), n->type);
	n->attached = -1;
}

static UNUSED void naive_close(struct naive_case *n)
{
	flow_close(&n->flow);
	if (n->bpf)
		naive_detach(n);
	naive__destroy(n->bpf);
}

#define NAIVE(name)                                                                                \
	static void name##_body(struct naive_case *n);                                             \
	static void name(void)                                                                     \
	{                                                                                          \
		struct naive_case n;                                                               \
		alarm(60);                                                                         \
		if (naive_open(&n))                                                                \
			name##_body(&n);                                                           \
		naive_close(&n);                                                                   \
		alarm(0);                                                                          \
	}                                                                                          \
	static void name##_body(struct naive_case *n)

/* Before a socket is put into the map: one that is there keeps the programs of that moment. */
static UNUSED void naive_attach(struct naive_case *n, const struct bpf_program *program,
				enum bpf_attach_type type)
{
	naive_detach(n);
	ASSERT_EQ(bpf_prog_attach(bpf_program__fd(program), map_fd(n->bpf->maps.naive_socks), type,
				  0),
		  0);
	n->attached = bpf_program__fd(program);
	n->type = type;
}

/* A fresh connection from end to end. With `small`, the browser and its agent's end buffer little.
 */
static UNUSED void naive_connect(struct naive_case *n, bool small)
{
	struct flow *flow = &n->flow;
	int listener;

	flow_close(flow);
	flow_init(flow);
	DO(flow_client(flow, small));
	DO(listener = listen_on("127.0.0.1", &flow->backend));
	flow->upstream = socket(AF_INET, SOCK_STREAM | SOCK_CLOEXEC, 0);
	if (connect(flow->upstream, (struct sockaddr *)&flow->backend, address_len(&flow->backend)))
		tap_failure = "connect to the container";
	else
		flow->container = accept_one(listener);
	close(listener);
}

/* As peer_of() in naive.bpf.c has it. */
static UNUSED uint32_t naive_key(int fd)
{
	struct sockaddr_storage local, remote;
	socklen_t local_len = sizeof(local), remote_len = sizeof(remote);

	if (getsockname(fd, (struct sockaddr *)&local, &local_len) ||
	    getpeername(fd, (struct sockaddr *)&remote, &remote_len))
		return 0;
	return (uint32_t)address_port(&local) << 16 | address_port(&remote);
}

static UNUSED void naive_put(const struct bpf_map *map, int fd)
{
	uint32_t key = naive_key(fd);
	uint64_t value = (uint64_t)fd;

	ASSERT_EQ(bpf_map_update_elem(map_fd(map), &key, &value, BPF_ANY), 0);
}

static UNUSED void naive_delete(const struct bpf_map *map, int fd)
{
	uint32_t key = naive_key(fd);

	ASSERT_EQ(bpf_map_delete_elem(map_fd(map), &key), 0);
}

/* What `from` receives (verdict) or sends (message) is for `to`. */
static UNUSED void naive_send_to(struct naive_case *n, int from, int to)
{
	uint32_t key = naive_key(from), peer = naive_key(to);

	ASSERT_EQ(bpf_map_update_elem(map_fd(n->bpf->maps.naive_peers), &key, &peer, BPF_ANY), 0);
}

/* The textbook: both of the agent's sockets in one map, a verdict sends each one's bytes to the
 * other. */
static UNUSED void naive_proxy(struct naive_case *n, bool small)
{
	struct flow *flow = &n->flow;

	DO(naive_connect(n, small));
	DO(naive_attach(n, n->bpf->progs.naive_verdict, BPF_SK_SKB_STREAM_VERDICT));
	DO(naive_send_to(n, flow->client, flow->upstream));
	DO(naive_send_to(n, flow->upstream, flow->client));
	DO(naive_put(n->bpf->maps.naive_socks, flow->client));
	DO(naive_put(n->bpf->maps.naive_socks, flow->upstream));
}

/* The same with the container's own socket as the target of what the client's receives. */
static UNUSED void naive_proxy_ingress(struct naive_case *n)
{
	struct flow *flow = &n->flow;

	DO(naive_connect(n, false));
	DO(naive_attach(n, n->bpf->progs.naive_verdict_ingress, BPF_SK_SKB_STREAM_VERDICT));
	DO(naive_send_to(n, flow->client, flow->container));
	DO(naive_put(n->bpf->maps.naive_targets, flow->container));
	DO(naive_put(n->bpf->maps.naive_socks, flow->client));
}

/* The container's messages go to the client's socket. */
static UNUSED void naive_responses(struct naive_case *n, const struct bpf_program *program,
				   bool small)
{
	struct flow *flow = &n->flow;

	DO(naive_connect(n, small));
	DO(naive_attach(n, program, BPF_SK_MSG_VERDICT));
	DO(naive_send_to(n, flow->container, flow->client));
	DO(naive_put(n->bpf->maps.naive_targets, flow->client));
	DO(naive_put(n->bpf->maps.naive_socks, flow->container));
}

/* The agent's messages go into the container's socket. */
static UNUSED void naive_requests(struct naive_case *n, const struct bpf_program *program)
{
	struct flow *flow = &n->flow;

	DO(naive_connect(n, false));
	DO(naive_attach(n, program, BPF_SK_MSG_VERDICT));
	DO(naive_send_to(n, flow->upstream, flow->container));
	DO(naive_put(n->bpf->maps.naive_targets, flow->container));
	DO(naive_put(n->bpf->maps.naive_socks, flow->upstream));
}

#endif
