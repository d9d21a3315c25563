/* SPDX-License-Identifier: GPL-2.0-only */
/* Generated: scripts/gen-vmlinux > vmlinux/vmlinux.h */
#ifndef KKM_VMLINUX_H
#define KKM_VMLINUX_H

#pragma clang attribute push (__attribute__((preserve_access_index)), apply_to = record)

struct sock_common {
	unsigned long long skc_flags;
};

struct sock {
	struct sock_common __sk_common;
	signed int sk_sndbuf;
	signed int sk_wmem_queued;
	signed int sk_rcvbuf;
	struct { struct { signed int counter; } rmem_alloc; } sk_backlog;
	struct { signed int owned; } sk_lock;
};

struct inet_sock {
	struct sock sk;
};

struct inet_connection_sock {
	struct inet_sock icsk_inet;
	struct tcp_ulp_ops *icsk_ulp_ops;
};

struct tcp_sock {
	struct inet_connection_sock inet_conn;
	unsigned int write_seq;
	unsigned int snd_una;
	unsigned int rcv_nxt;
	unsigned int copied_seq;
	unsigned char is_mptcp;
};

struct sk_msg {
	struct sock *sk_redir;
};

#pragma clang attribute pop

enum sock_flags {
	SOCK_ZEROCOPY = 18,
};

#endif
