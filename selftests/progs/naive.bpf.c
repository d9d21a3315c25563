// SPDX-License-Identifier: GPL-2.0-only
/*
 * What a sockmap proxy looks like in samples and tutorials, each program one step of it, none with
 * the conditions that kakuremichi.bpf.c has. For selftests/prog_tests/hazards.c, which shows what
 * becomes of the bytes; nothing else may use them.
 */
#include <linux/bpf.h>
#include <bpf/bpf_endian.h>
#include <bpf/bpf_helpers.h>

char LICENSE[] SEC("license") = "GPL";

/* A socket's key is its local port and, below it, its peer's: the tests are on loopback. */

/* The sockets on which one of the programs below runs. */
struct {
	__uint(type, BPF_MAP_TYPE_SOCKHASH);
	__uint(max_entries, 64);
	__type(key, __u32);
	__type(value, __u64);
} naive_socks SEC(".maps");

/* Targets on which none runs. */
struct {
	__uint(type, BPF_MAP_TYPE_SOCKHASH);
	__uint(max_entries, 64);
	__type(key, __u32);
	__type(value, __u64);
} naive_targets SEC(".maps");

/* A socket's key -> the key of the socket that its bytes are for. */
struct {
	__uint(type, BPF_MAP_TYPE_HASH);
	__uint(max_entries, 64);
	__type(key, __u32);
	__type(value, __u32);
} naive_peers SEC(".maps");

/* Bytes that naive_msg_counted has seen. */
struct {
	__uint(type, BPF_MAP_TYPE_ARRAY);
	__uint(max_entries, 1);
	__type(key, __u32);
	__type(value, __u64);
} naive_counted SEC(".maps");

/* Messages up to this size go the short way in the programs that use both. */
#define SMALL 4096

static __always_inline __u32 *peer_of(__u32 local_port, __u32 remote_port)
{
	__u32 key = local_port << 16 | bpf_ntohl(remote_port);

	return bpf_map_lookup_elem(&naive_peers, &key);
}

SEC("sk_skb/stream_verdict")
int naive_verdict(struct __sk_buff *skb)
{
	__u32 *peer = peer_of(skb->local_port, skb->remote_port);

	return peer ? bpf_sk_redirect_hash(skb, &naive_socks, peer, 0) : SK_PASS;
}

SEC("sk_skb/stream_verdict")
int naive_verdict_ingress(struct __sk_buff *skb)
{
	__u32 *peer = peer_of(skb->local_port, skb->remote_port);

	return peer ? bpf_sk_redirect_hash(skb, &naive_targets, peer, BPF_F_INGRESS) : SK_PASS;
}

SEC("sk_skb/stream_verdict")
int naive_verdict_pass(struct __sk_buff *skb __attribute__((unused)))
{
	return SK_PASS;
}

static __always_inline int redirect(struct sk_msg_md *msg, __u64 flags)
{
	__u32 *peer = peer_of(msg->local_port, msg->remote_port);

	return peer ? bpf_msg_redirect_hash(msg, &naive_targets, peer, flags) : SK_PASS;
}

/* No look at the target's room. */
SEC("sk_msg")
int naive_msg(struct sk_msg_md *msg)
{
	return redirect(msg, 0);
}

/* No look at what is still on the other path. */
SEC("sk_msg")
int naive_msg_small(struct sk_msg_md *msg)
{
	return msg->size <= SMALL ? redirect(msg, 0) : SK_PASS;
}

SEC("sk_msg")
int naive_msg_ingress(struct sk_msg_md *msg)
{
	return redirect(msg, BPF_F_INGRESS);
}

SEC("sk_msg")
int naive_msg_ingress_small(struct sk_msg_md *msg)
{
	return msg->size <= SMALL ? redirect(msg, BPF_F_INGRESS) : SK_PASS;
}

/* Passes all, and takes what it sees for what is sent. */
SEC("sk_msg")
int naive_msg_counted(struct sk_msg_md *msg)
{
	__u32 zero = 0;
	__u64 *counted = bpf_map_lookup_elem(&naive_counted, &zero);

	if (counted)
		__sync_fetch_and_add(counted, msg->size);
	return SK_PASS;
}
