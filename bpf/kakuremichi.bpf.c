// SPDX-License-Identifier: GPL-2.0-only
/*
 * The kernel's short way for responses. Two sock_ops programs recognise the container's end of a
 * connection that the agent opened and put it into a sockhash; an sk_msg program on that hash sends
 * the container's messages straight to the client's socket, where that is exact. docs/ARCHITECTURE.md
 * has the whole picture.
 */
#include "vmlinux.h"
#include <linux/bpf.h>
#include <stdbool.h>
#include <bpf/bpf_helpers.h>
#include <bpf/bpf_core_read.h>
#include <bpf/bpf_endian.h>
#include "kakuremichi.h"
#include "maps.bpf.h"
#include "flow.bpf.h"

char LICENSE[] SEC("license") = "GPL";

/* Set before loading: the rows of kkm_stats that belong to CPUs begin here. */
const volatile __u32 kkm_stats_base = 1;

extern void *bpf_cast_to_kern_ctx(void *ctx) __ksym;

#define READ_ONCE(x) (*(volatile typeof(x) *)&(x))

/* A program may be preempted on its CPU by another task's, hence the atomic addition. */
#define COUNT(member, n)                                                                           \
	do {                                                                                       \
		__u32 row_ = kkm_stats_base + bpf_get_smp_processor_id();                          \
		struct kkm_stats *stats_ = bpf_map_lookup_elem(&kkm_stats, &row_);                 \
		if (stats_)                                                                        \
			__sync_fetch_and_add(&stats_->member, (n));                                \
	} while (0)

/*
 * The agent's end. connect() has chosen the local port when TCP_CONNECT_CB is called
 * (tcp_v4_connect -> tcp_connect -> tcp_call_bpf), and no packet has left yet.
 */
static __always_inline void remember_tuple(struct bpf_sock_ops *ops)
{
	struct kkm_pending pending = { .leg = bpf_get_socket_cookie(ops) };
	struct kkm_conn *conn = bpf_map_lookup_elem(&kkm_conns, &pending.leg);
	struct kkm_tuple tuple;

	if (!conn || conn->down != KKM_SOCKMAP || !flow_tuple(ops, false, &tuple))
		return;
	conn->tuple = tuple;
	bpf_map_update_elem(&kkm_pending, &tuple, &pending, BPF_ANY);
}

/* Called before the last packet of the handshake is sent: tcp_finish_connect, tcp_send_ack. */
static __always_inline void remember_sequence(struct bpf_sock_ops *ops)
{
	struct kkm_pending *pending;
	struct kkm_tuple tuple;

	if (!flow_tuple(ops, false, &tuple))
		return;
	pending = bpf_map_lookup_elem(&kkm_pending, &tuple);
	if (!pending || pending->leg != bpf_get_socket_cookie(ops))
		return;
	pending->snd_nxt = ops->snd_nxt;
	pending->rcv_nxt = ops->rcv_nxt;
	pending->established = 1;
}

SEC("sockops")
int kkm_agent_end(struct bpf_sock_ops *ops)
{
	switch (ops->op) {
	case BPF_SOCK_OPS_TCP_CONNECT_CB:
		remember_tuple(ops);
		break;
	case BPF_SOCK_OPS_ACTIVE_ESTABLISHED_CB:
		remember_sequence(ops);
		break;
	}
	return 1;
}

static __always_inline bool same_address(const struct kkm_route *a, const struct kkm_backend_key *b)
{
	const __u32 *a4 = (const __u32 *)a->address, *b4 = (const __u32 *)b->address;
	const __u32 *a6 = (const __u32 *)a->address6, *b6 = (const __u32 *)b->address6;

	return a->port == b->port && *a4 == *b4 && a6[0] == b6[0] && a6[1] == b6[1] &&
	       a6[2] == b6[2] && a6[3] == b6[3];
}

/* The short way is opened only for what the pinned maps hold. */
static __always_inline bool route_is_live(struct kkm_conn *conn)
{
	struct kkm_backend *backend = bpf_map_lookup_elem(&kkm_backends, &conn->backend);
	struct kkm_route *route = bpf_map_lookup_elem(&kkm_routes, conn->backend.domain);

	if (!backend || !route || backend->state != KKM_ACTIVE)
		return false;
	return route->backend_count > 1 || same_address(route, &conn->backend);
}

static __always_inline void enrol(struct bpf_sock_ops *ops, struct kkm_conn *conn, __u64 leg)
{
	struct bpf_sock *sk = ops->sk;
	struct kkm_sock own = {
		.leg = leg,
		.client_cookie = conn->client_cookie,
		.slot = conn->slot,
		.start = ops->snd_nxt, /* equals write_seq: nothing has been sent yet */
	};
	struct kkm_slot *slot = bpf_map_lookup_elem(&kkm_slots, &own.slot);
	struct tcp_sock *tp;

	if (!sk || !slot || slot->leg != leg)
		return;
	tp = bpf_skc_to_tcp_sock(sk);
	if (!tp || tp->is_mptcp)
		return;
	if (!bpf_sk_storage_get(&kkm_socks, sk, &own, BPF_SK_STORAGE_GET_F_CREATE))
		return;
	/* as in kkm_response: the agent may be taking this connection off the short way right now */
	__sync_fetch_and_add(&slot->running, 1);
	if (!__sync_fetch_and_or(&slot->stop, 0) &&
	    !bpf_sock_hash_update(ops, &kkm_containers, &leg, BPF_NOEXIST)) {
		slot->enrolled = 1;
		COUNT(sockmap_enrolled, 1);
	}
	__sync_fetch_and_add(&slot->running, (__u32)-1);
}

/*
 * The container's end, at the moment it becomes established and before its application can have it:
 * enrolling it while the application is blocked in recv() stalls that application.
 */
static __always_inline void recognise(struct bpf_sock_ops *ops)
{
	struct kkm_pending *pending;
	struct kkm_tuple tuple;
	struct kkm_conn *conn;
	__u64 leg;

	if (!flow_tuple(ops, true, &tuple))
		return;
	pending = bpf_map_lookup_elem(&kkm_pending, &tuple);
	if (!pending)
		return;
	/* Another network namespace can hold equal addresses, not equal sequence numbers. */
	if (!pending->established || pending->snd_nxt != ops->rcv_nxt ||
	    pending->rcv_nxt != ops->snd_nxt) {
		COUNT(sockmap_foreign, 1);
		return;
	}
	leg = pending->leg;
	bpf_map_delete_elem(&kkm_pending, &tuple);
	conn = bpf_map_lookup_elem(&kkm_conns, &leg);
	if (!conn)
		return;
	if (route_is_live(conn))
		enrol(ops, conn, leg);
	else
		COUNT(sockmap_refused, 1);
}

SEC("sockops")
int kkm_container_end(struct bpf_sock_ops *ops)
{
	if (ops->op == BPF_SOCK_OPS_PASSIVE_ESTABLISHED_CB)
		recognise(ops);
	return 1;
}

/*
 * Nothing of this direction is on the other path: what the container has passed so far
 * (redirected bytes never enter its own send queue) has all been written to the client by the agent.
 */
static __always_inline bool relay_is_empty(struct tcp_sock *tp, struct kkm_sock *own,
					   struct kkm_slot *slot)
{
	return tp->write_seq - own->start == READ_ONCE(slot->forwarded);
}

/*
 * A redirect to a full socket gives the writer EAGAIN on its own empty one, and no event ever
 * tells it to go on. So: redirect, look at the target that the helper found, and where there is no
 * room redirect to the own socket, which is the same as passing.
 */
static __always_inline bool redirect(struct sk_msg_md *msg, struct kkm_sock *own)
{
	struct sk_msg *kernel_msg = bpf_cast_to_kern_ctx(msg);
	__u32 size = msg->size;
	struct sock *client;

	if (bpf_msg_redirect_hash(msg, &kkm_clients, &own->client_cookie, 0) != SK_PASS)
		return false;
	client = kernel_msg->sk_redir;
	if (client && (__s64)client->sk_sndbuf - client->sk_wmem_queued > 2 * (__s64)size)
		return true;
	COUNT(passed_no_room, 1);
	bpf_msg_redirect_hash(msg, &kkm_containers, &own->leg, 0);
	return false;
}

/* Zero-copy completions would never come, and a ULP (kTLS) would be bypassed in the clear. */
static __always_inline bool plain_socket(struct tcp_sock *tp)
{
	__u64 zerocopy = 1ULL << bpf_core_enum_value(enum sock_flags, SOCK_ZEROCOPY);

	return !tp->inet_conn.icsk_ulp_ops &&
	       !(tp->inet_conn.icsk_inet.sk.__sk_common.skc_flags & zerocopy);
}

SEC("sk_msg")
int kkm_response(struct sk_msg_md *msg)
{
	struct bpf_sock *sk = msg->sk;
	struct kkm_sock *own;
	struct kkm_slot *slot;
	struct tcp_sock *tp;
	bool taken = false;

	if (!sk)
		return SK_PASS;
	own = bpf_sk_storage_get(&kkm_socks, sk, 0, 0);
	tp = bpf_skc_to_tcp_sock(sk);
	if (!own || !tp)
		return SK_PASS;
	slot = bpf_map_lookup_elem(&kkm_slots, &own->slot);
	if (!slot)
		return SK_PASS;
	/*
	 * Announce, then look at `stop`, both atomically; the agent exchanges `stop`, then waits for
	 * `running` to be zero. So no redirect is being decided on any more when it takes the socket
	 * out of the map, and the redirect to the own socket below cannot fail.
	 */
	__sync_fetch_and_add(&slot->running, 1);
	if (!__sync_fetch_and_or(&slot->stop, 0) && READ_ONCE(slot->leg) == own->leg &&
	    !READ_ONCE(slot->hold) && relay_is_empty(tp, own, slot) && plain_socket(tp))
		taken = redirect(msg, own);
	if (taken) {
		__sync_fetch_and_add(&slot->short_bytes, msg->size);
		__sync_fetch_and_add(&slot->short_messages, 1);
		COUNT(short_bytes, msg->size);
		COUNT(short_messages, 1);
	} else {
		COUNT(passed_messages, 1);
	}
	__sync_fetch_and_add(&slot->running, (__u32)-1);
	return SK_PASS;
}
