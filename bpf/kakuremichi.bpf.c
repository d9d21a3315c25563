// SPDX-License-Identifier: GPL-2.0-only
/*
 * The kernel's short way. Two sock_ops programs recognise both ends of a connection that the agent
 * opened to a container and put them into sockhashes. An sk_msg program on the container's end sends
 * its messages straight to the client's socket, another on the agent's end puts the agent's messages
 * straight into the container's socket, where that is exact. docs/ARCHITECTURE.md has the picture.
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
#include "answer.bpf.h"

char LICENSE[] SEC("license") = "GPL";

/* Set before loading: the rows of kkm_stats that belong to CPUs begin here. */
const volatile __u32 kkm_stats_base = 1;

/* Since 6.2. Weak, so that where they are missing the maps at least can be made. */
extern void *bpf_cast_to_kern_ctx(void *ctx) __ksym __weak;
extern void *bpf_rdonly_cast(const void *object, __u32 btf_id) __ksym __weak;

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

/* The agent's end takes the way of requests. Nothing has been sent on it yet. */
static __always_inline void enrol_agent_end(struct bpf_sock_ops *ops, __u64 leg)
{
	struct kkm_conn *conn = bpf_map_lookup_elem(&kkm_conns, &leg);
	struct kkm_sock own = { .leg = leg };

	if (!conn || conn->up != KKM_SOCKMAP || !ops->sk)
		return;
	own.slot = conn->slot;
	if (!bpf_sk_storage_get(&kkm_socks, ops->sk, &own, BPF_SK_STORAGE_GET_F_CREATE))
		return;
	if (bpf_sock_hash_update(ops, &kkm_upstreams, &leg, BPF_NOEXIST))
		COUNT(sockmap_full, 1);
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
	enrol_agent_end(ops, pending->leg);
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
	if (!tp || (bpf_core_field_exists(tp->is_mptcp) && tp->is_mptcp))
		return;
	if (!bpf_sk_storage_get(&kkm_socks, sk, &own, BPF_SK_STORAGE_GET_F_CREATE))
		return;
	/* as in kkm_response: the agent may be taking this connection off the short way right now */
	__sync_fetch_and_add(&slot->running, 1);
	if (!__sync_fetch_and_or(&slot->stop, 0)) {
		if (!bpf_sock_hash_update(ops, &kkm_containers, &leg, BPF_NOEXIST)) {
			slot->enrolled = 1;
			COUNT(sockmap_enrolled, 1);
		} else {
			COUNT(sockmap_full, 1);
		}
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

/* Zero-copy completions would never come, and a ULP (kTLS) would be bypassed in the clear. */
static __always_inline bool plain_socket(struct tcp_sock *tp)
{
	__u64 zerocopy = 1ULL << bpf_core_enum_value(enum sock_flags, SOCK_ZEROCOPY);

	return !tp->inet_conn.icsk_ulp_ops &&
	       !(tp->inet_conn.icsk_inet.sk.__sk_common.skc_flags & zerocopy);
}

/*
 * A redirect to a full socket gives the writer EAGAIN on its own empty one, and no event ever
 * tells it to go on. So: redirect, look at the target that the helper found, and where there is no
 * room redirect to the own socket, which is the same as passing.
 */
static __always_inline bool to_client(struct sk_msg_md *msg, struct kkm_sock *own,
				      struct kkm_slot *slot)
{
	struct sk_msg *kernel_msg = bpf_cast_to_kern_ctx(msg);
	__u32 size = msg->size;
	struct sock *client;

	if (bpf_msg_redirect_hash(msg, &kkm_clients, &own->client_cookie, 0) != SK_PASS)
		return false;
	client = kernel_msg->sk_redir;
	if (client && (__s64)client->sk_sndbuf - client->sk_wmem_queued > 2 * (__s64)size) {
		slot->no_room = 0;
		return true;
	}
	slot->no_room++;
	COUNT(passed_no_room, 1);
	/* that this names its own map keeps the map, and unread bytes, while any socket is in it */
	bpf_msg_redirect_hash(msg, &kkm_containers, &own->leg, 0);
	return false;
}

/*
 * All that was promised of the answer by now: it is whole, or `left` bytes are to follow. This never sets
 * goes_on, which the agent may have taken away since the message was looked at.
 */
static __always_inline void answer_promised(struct kkm_slot *slot, __u32 exchange, __u32 left)
{
	slot->left = left;
	if (left)
		return;
	slot->goes_on = 0;
	slot->whole_ns = bpf_ktime_get_ns();
	COUNT(short_answers, 1);
	__sync_lock_test_and_set(&slot->whole, exchange);
}

/*
 * The first message behind the agent's arming decides: it holds a whole answer, or a whole head and
 * the beginning of a small body, or the answer is the agent's. It disarms in any case, so that no
 * part of a body is ever taken for a head.
 */
static __always_inline bool begin_answer(struct sk_msg_md *msg, struct kkm_sock *own,
					 struct kkm_slot *slot, __u32 exchange)
{
	struct answer_head head;
	__u32 size = msg->size;
	__u64 all;

	if (!answer_parse(msg, &head))
		return false;
	all = (__u64)head.head + head.body;
	if (size > all || (size < all && head.body > KKM_SHORT_BODY) || !to_client(msg, own, slot))
		return false;
	slot->status = head.status;
	slot->begun = exchange;
	if (size < all)
		__sync_lock_test_and_set(&slot->goes_on, 1);
	answer_promised(slot, exchange, all - size);
	return true;
}

/* More of a body whose length is known. What does not go ends it: the agent has the rest. */
static __always_inline bool go_on_with_answer(struct sk_msg_md *msg, struct kkm_sock *own,
					      struct kkm_slot *slot)
{
	__u32 size = msg->size, left = slot->left;

	if (size <= left && to_client(msg, own, slot)) {
		answer_promised(slot, slot->begun, left - size);
		return true;
	}
	slot->goes_on = 0;
	return false;
}

static __always_inline bool take(struct sk_msg_md *msg, struct tcp_sock *tp, struct kkm_sock *own,
				 struct kkm_slot *slot)
{
	bool exact, http = READ_ONCE(slot->mode) == KKM_HTTP;
	__u32 exchange = 0;

	if (http)
		exchange = __sync_lock_test_and_set(&slot->armed, 0);
	exact = relay_is_empty(tp, own, slot) && plain_socket(tp) &&
		msg->size <= KKM_SHORT_MESSAGE;
	if (!exact) {
		slot->goes_on = 0;
		return false;
	}
	if (!http)
		return to_client(msg, own, slot);
	if (exchange)
		return begin_answer(msg, own, slot, exchange);
	return READ_ONCE(slot->goes_on) && go_on_with_answer(msg, own, slot);
}

SEC("sk_msg")
int kkm_response(struct sk_msg_md *msg)
{
	struct bpf_sock *sk = msg->sk;
	struct kkm_sock *own;
	struct kkm_slot *slot;
	struct tcp_sock *tp;
	bool taken = false;
	__u64 up_bytes;

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
	 * out of the map, and the redirect to the own socket in to_client() cannot fail.
	 */
	__sync_fetch_and_add(&slot->running, 1);
	if (!__sync_fetch_and_or(&slot->stop, 0) && READ_ONCE(slot->leg) == own->leg)
		taken = take(msg, tp, own, slot);
	if (taken) {
		__sync_fetch_and_add(&slot->short_bytes, msg->size);
		__sync_fetch_and_add(&slot->short_messages, 1);
		COUNT(short_bytes, msg->size);
		COUNT(short_messages, 1);
	} else {
		COUNT(passed_messages, 1);
	}
	/* the socket of a leg that was closed must not touch who has the slot now */
	if (READ_ONCE(slot->leg) == own->leg) {
		if (!taken)
			__sync_fetch_and_add(&slot->passed, 1);
		/* up_bytes may be behind what has been put into the socket, never before it */
		up_bytes = READ_ONCE(slot->up_bytes);
		if (!READ_ONCE(tp->inet_conn.icsk_inet.sk.sk_backlog.rmem_alloc.counter))
			slot->read_up = up_bytes;
	}
	__sync_fetch_and_add(&slot->running, (__u32)-1);
	return SK_PASS;
}

/*
 * Nothing of this direction is anywhere on its way through TCP: what the agent has sent so has all
 * been acknowledged, and read by the container. Then what is put into its socket comes behind it; and
 * before whatever goes through TCP later, since a reader empties this queue first
 * (tcp_bpf_recvmsg_parser(), tcp_bpf_recvmsg()).
 */
static __always_inline bool tcp_is_empty(struct tcp_sock *from, struct tcp_sock *to)
{
	return from->snd_una == from->write_seq &&
	       READ_ONCE(to->rcv_nxt) == READ_ONCE(to->copied_seq);
}

/*
 * The container may be in send() or recv() and hold its socket while a page of its own is fetched, which
 * can take long; putting something in waits for that (bpf_tcp_ingress() -> lock_sock()), TCP does not.
 */
static __always_inline bool is_free(struct sock *sk)
{
	return !sk->sk_lock.owned;
}

enum way {
	PUT,	 /* into the container's socket */
	TCP,
	HELD,	 /* neither: not yet */
};

/*
 * As in to_client(): look at what the redirect has found, and take it back where it is not right.
 *
 * A reader gets what was put in and what came through TCP by different recv(), and one that takes a short
 * one for the end of what is there, as nginx and tokio do, would not ask again: the edge for the second
 * part has come before. So nothing goes through TCP while something that was put in is unread; and as
 * nothing did since, that is all that the receive buffer holds.
 */
static __always_inline enum way choose_way(struct sk_msg_md *msg, struct tcp_sock *tp,
					   struct kkm_sock *own, struct kkm_slot *slot)
{
	struct sk_msg *kernel_msg = bpf_cast_to_kern_ctx(msg);
	bool leaving = READ_ONCE(slot->stop) || READ_ONCE(slot->bulk);
	__u64 leg = own->leg;
	struct tcp_sock *to;
	struct sock *sk;
	__s64 unread;

	if (leaving && !slot->put)
		return TCP;
	if (bpf_msg_redirect_hash(msg, &kkm_containers, &leg, BPF_F_INGRESS) != SK_PASS)
		return TCP;
	sk = kernel_msg->sk_redir;
	to = bpf_rdonly_cast(sk, bpf_core_type_id_kernel(struct tcp_sock));
	unread = sk ? sk->sk_backlog.rmem_alloc.counter : 0;
	if (!unread)
		slot->puts = 0;
	if (sk && !leaving && is_free(sk) && tcp_is_empty(tp, to) &&
	    !to->inet_conn.icsk_ulp_ops && unread + msg->size < sk->sk_rcvbuf &&
	    slot->puts < KKM_UNREAD_MESSAGES)
		return PUT;
	if (slot->put && unread)
		return HELD;
	/* the same as passing; the map is this program's own, so it stays as long as this runs */
	bpf_msg_redirect_hash(msg, &kkm_upstreams, &leg, 0);
	return TCP;
}

/*
 * The agent's own socket to a container: what it sends has been read and routed. Where a message is
 * dropped, send() says EACCES, nothing has been sent, and the agent tries again a little later
 * (tcp_bpf_send_verdict()).
 */
SEC("sk_msg")
int kkm_request(struct sk_msg_md *msg)
{
	struct bpf_sock *sk = msg->sk;
	struct kkm_sock *own;
	struct kkm_slot *slot;
	struct tcp_sock *tp;

	if (!sk)
		return SK_PASS;
	own = bpf_sk_storage_get(&kkm_socks, sk, 0, 0);
	tp = bpf_skc_to_tcp_sock(sk);
	if (!own || !tp)
		return SK_PASS;
	slot = bpf_map_lookup_elem(&kkm_slots, &own->slot);
	if (!slot || slot->leg != own->leg)
		return SK_PASS;
	/* the agent changes its part of the slot and sends in one thread: nothing to wait for here */
	switch (choose_way(msg, tp, own, slot)) {
	case PUT:
		slot->put = 1;
		slot->puts++;
		slot->short_up_bytes += msg->size;
		slot->short_up_messages++;
		COUNT(short_up_bytes, msg->size);
		COUNT(short_up_messages, 1);
		break;
	case HELD:
		COUNT(held_up_messages, 1);
		return SK_DROP;
	case TCP:
		slot->put = 0;
		/*
		 * A reader with MSG_WAITALL that has begun with TCP does not look at what is put in: the
		 * rest of this request goes the same way.
		 */
		if (slot->mode == KKM_HTTP)
			slot->bulk = 1;
		COUNT(passed_up_messages, 1);
		break;
	}
	return SK_PASS;
}
