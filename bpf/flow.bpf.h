/* SPDX-License-Identifier: GPL-2.0-only */
/* The one place for byte order and address families. */
#ifndef KKM_FLOW_BPF_H
#define KKM_FLOW_BPF_H

#define AF_INET 2
#define AF_INET6 10

static __always_inline void flow_address(__u8 *out, __u32 family, __u32 ip4, const __u32 *ip6)
{
	__u32 *words = (__u32 *)out;

	if (family == AF_INET) {
		words[0] = 0;
		words[1] = 0;
		words[2] = bpf_htonl(0xffff);
		words[3] = ip4;
	} else {
		words[0] = ip6[0];
		words[1] = ip6[1];
		words[2] = ip6[2];
		words[3] = ip6[3];
	}
}

/* The tuple as the agent's end sees it; false for a family that is not IP. */
static __always_inline bool flow_tuple(struct bpf_sock_ops *ops, bool mirrored,
				       struct kkm_tuple *out)
{
	/*
	 * Word by word through volatile: the verifier refuses a pointer into the context, and clang
	 * would merge two neighbours into one load of eight bytes, which it refuses too.
	 */
	volatile struct bpf_sock_ops *ctx = ops;
	__u32 local6[4] = {}, remote6[4] = {};
	__u32 family = ops->family;

	if (family == AF_INET6) {
		local6[0] = ctx->local_ip6[0];
		local6[1] = ctx->local_ip6[1];
		local6[2] = ctx->local_ip6[2];
		local6[3] = ctx->local_ip6[3];
		remote6[0] = ctx->remote_ip6[0];
		remote6[1] = ctx->remote_ip6[1];
		remote6[2] = ctx->remote_ip6[2];
		remote6[3] = ctx->remote_ip6[3];
	} else if (family != AF_INET) {
		return false;
	}
	flow_address(mirrored ? out->remote : out->local, family, ops->local_ip4, local6);
	flow_address(mirrored ? out->local : out->remote, family, ops->remote_ip4, remote6);
	/* local_port is in host order, remote_port in network order (uapi/linux/bpf.h). */
	if (mirrored) {
		out->remote_port = ops->local_port;
		out->local_port = bpf_ntohl(ops->remote_port);
	} else {
		out->local_port = ops->local_port;
		out->remote_port = bpf_ntohl(ops->remote_port);
	}
	return true;
}

#endif
