/* SPDX-License-Identifier: GPL-2.0-only OR MIT */
/*
 * The ABI between the BPF programs and the agent, and what a person sees in `bpftool map dump`:
 * strings are char[], addresses bytes in network order, ports decimal numbers in host order,
 * states enum names. Both compilers include this file; the layouts are asserted below.
 */
#ifndef KAKUREMICHI_H
#define KAKUREMICHI_H

#include <linux/types.h>

/* Raised with every change of a pinned map's layout; old pins are replaced, never reinterpreted. */
#define KKM_LAYOUT 4

#define KKM_DOMAIN_LEN 256	/* a DNS name has at most 253 characters */
#define KKM_NAME_LEN 128
#define KKM_ID_LEN 72		/* a container's id has 64 hexadecimal digits */
#define KKM_REASON_LEN 256
#define KKM_SERVICE_LEN 64	/* a DNS label has at most 63 characters */
#define KKM_VIA_LEN 160

#define KKM_MAX_ROUTES 16384
#define KKM_MAX_REJECTED 1024
#define KKM_MAX_CONNS 65536

/* A message of more is bulk, which splice(2) carries better: it is passed. */
#define KKM_SHORT_MESSAGE 32768
/* Of these so many may be unread in a container's socket: each costs the kernel 1 KiB, if it is one byte. */
#define KKM_UNREAD_MESSAGES 64
/* An answer whose head comes alone is begun by the short way only with a body up to this. */
#define KKM_SHORT_BODY 32768

enum kkm_state {
	KKM_ACTIVE,
	KKM_STARTING,
	KKM_UNHEALTHY,
	KKM_PAUSED,
	KKM_DRAINING,
};

enum kkm_owner {
	KKM_DOCKER,
	KKM_CONTROL,
	KKM_FILE,
};

enum kkm_engine {
	KKM_RELAY,
	KKM_SOCKMAP,
	KKM_HANDOVER,
};

enum kkm_refusal {
	KKM_REJECTED,	/* the container cannot be routed */
	KKM_CONFLICT,	/* the domain belongs to another, older container */
};

/*
 * One backend of one domain. Its first member is the key of kkm_routes, so that one block of memory
 * serves both look-ups. An IPv4 backend has `address`, an IPv6 one `address6`; the other is zero.
 */
struct kkm_backend_key {
	char domain[KKM_DOMAIN_LEN];
	__u8 address[4];
	__u8 address6[16];
	__u32 port;
};

/* kkm_routes: domain -> the first of its backends, and how many there are. */
struct kkm_route {
	__u32 port;
	__u8 address[4];
	__u8 address6[16];
	__u32 backend_count;
	enum kkm_state state;	/* the best of its backends' */
	enum kkm_owner owner;
};

/* kkm_backends: what a person wants to know of a backend; the programs read `state`. */
struct kkm_backend {
	enum kkm_state state;
	enum kkm_owner owner;
	__u32 tls_port;		/* where its TLS is, 0: not served on the TLS listener */
	__u32 proxy_protocol;	/* version of the header that it is sent, 0: none */
	char container[KKM_NAME_LEN];
	char id[KKM_ID_LEN];
	char description[KKM_REASON_LEN];
	char service[KKM_SERVICE_LEN];	/* of several of one container; empty: the labels without a name */
	char via[KKM_VIA_LEN];	/* how the address was chosen */
	__u32 no_sockmap;	/* its label keeps its sockets off the short way */
};

/* kkm_rejected: who is not routed, and why. */
struct kkm_rejected_key {
	char id[KKM_ID_LEN];
	char domain[KKM_DOMAIN_LEN];	/* empty where the container as a whole is rejected */
};

struct kkm_rejected {
	enum kkm_refusal refusal;
	char container[KKM_NAME_LEN];
	char label[KKM_NAME_LEN];
	char reason[KKM_REASON_LEN];
	char wanted[KKM_DOMAIN_LEN];	/* what its labels ask for, where it is rejected as a whole */
};

/* Both ends of the agent's connection to a container, IPv4 as ::ffff:a.b.c.d, ports in host order. */
struct kkm_tuple {
	__u8 local[16];
	__u8 remote[16];
	__u32 local_port;
	__u32 remote_port;
};

/* Bytes of a connection. In kkm_conns they are at most a second old; kkm_slots is up to date. */
struct kkm_conn_bytes {
	__u64 up_short;		/* the kernel has carried */
	__u64 up_passed;	/* the agent has carried */
	__u64 down_short;
	__u64 down_passed;
};

/* kkm_conns: the agent's upstream socket's cookie -> the connection. */
struct kkm_conn {
	struct kkm_backend_key backend;
	__u8 client_address[4];
	__u8 client_address6[16];
	__u32 client_port;
	__u32 slot;		/* of kkm_slots */
	enum kkm_engine up;	/* client to container */
	enum kkm_engine down;	/* container to client; asked for; later: which may carry it */
	struct kkm_conn_bytes bytes;
	__u64 client_cookie;	/* key of kkm_clients */
	__u64 opened_ms;	/* since the epoch */
	struct kkm_tuple tuple;	/* written by kkm_agent_end, empty before connect() */
};

/* What the programs may take of a leg. */
enum kkm_mode {
	KKM_HTTP,	/* requests; and answers that the agent has armed for */
	KKM_STREAM,	/* everything */
};

/*
 * kkm_slots: what changes with every message of a connection. The agent maps this array into its
 * memory, so that neither side needs a system call for it. Who writes what stands beside it.
 */
struct kkm_slot {
	__u64 leg;		/* agent: the owner's key in kkm_conns, 0 where free */
	__u32 forwarded;	/* agent: bytes written to the client, modulo 2^32, after each write */
	__u32 stop;		/* agent: the programs shall pass everything */
	__u32 running;		/* programs: how many are deciding on an answer right now */
	__u32 enrolled;		/* programs: the container's socket is in kkm_containers */
	enum kkm_mode mode;	/* agent */
	__u32 no_room;		/* programs: messages in a row for which the client had no room */
	/* The answer to the exchange that the agent has armed for; none of it is known to the agent. */
	__u32 armed;		/* agent: number of the exchange; the next message takes it: 0 */
	__u32 begun;		/* programs: the exchange whose answer began by the short way */
	__u32 whole;		/* programs: the exchange whose answer went by it to its end */
	__u32 goes_on;		/* programs: nonzero while more of it may go; the agent ends that: 0 */
	__u32 status;		/* programs */
	__u32 left;		/* programs: bytes of its body that were not promised yet */
	__u64 whole_ns;		/* programs: when, CLOCK_MONOTONIC */
	__u64 passed;		/* programs: messages of the container that were passed */
	__u64 short_bytes;	/* programs: promised to the client */
	__u64 short_messages;
	__u64 short_up_bytes;	/* programs: put into the container's socket */
	__u64 short_up_messages;
	__u64 down_bytes;	/* agent */
	__u64 up_bytes;		/* agent: after each write */
	__u64 read_up;		/* programs: up_bytes, when the container had nothing unread */
	__u32 put;		/* programs: the last bytes to the container were put into its socket */
	__u32 bulk;		/* both: what the agent sends shall go through TCP; the agent ends that */
	__u32 puts;		/* programs: messages put in since the container was seen to have read all */
	__u32 unused4;
	__u64 unused[6];
};

/* kkm_pending: what tells the container's end of a connection that is being opened. */
struct kkm_pending {
	__u64 leg;
	__u32 snd_nxt;		/* of the agent's socket when it became established, host order */
	__u32 rcv_nxt;
	__u32 established;
	__u32 unused;
};

/* kkm_socks: storage on the container's socket, and on the agent's own of the same leg. */
struct kkm_sock {
	__u64 leg;
	__u64 client_cookie;
	__u32 slot;
	__u32 start;		/* write_seq when it was enrolled */
};

/* kkm_meta: one entry; who wrote the pinned maps, and when last. */
struct kkm_meta {
	__u32 layout;
	__u32 pid;
	__u64 started_ms;	/* since the epoch */
	__u64 written_ms;
	enum kkm_engine engine;	/* the fastest in use */
	__u32 workers;		/* rows of kkm_stats that workers write; the rest is one per CPU */
	__u32 ready;		/* the first list of containers has been applied */
	__u32 unused;
};

/*
 * Every counter: name, one line of help, and, where it is one of several series of a metric, that
 * metric and its labels; else the metric has the counter's name. `stats`, /metrics and
 * docs/METRICS.md are made from this. kkm_stats has a row for each worker and, behind these, one
 * for each CPU, which the programs write; a counter's value is the sum of the column. New ones go
 * to the end.
 */
#define KKM_STATS(X)                                                                               \
	X(connections_accepted, "client connections accepted")                                     \
	X(connections_closed, "client connections closed")                                         \
	X(accept_paused, "times accepting paused (connection or file limit)")                      \
	X(requests, "request heads forwarded to a container")                                      \
	X(answers_400, "answered 400: request not acceptable", "errors", "reason=bad_request")     \
	X(answers_404, "answered 404: no route for the domain", "errors", "reason=no_route")       \
	X(answers_405, "answered 405: CONNECT", "errors", "reason=method_not_allowed")             \
	X(answers_408, "answered 408: request head not complete in time",                          \
	  "errors", "reason=head_timeout")                                                         \
	X(answers_431, "answered 431: request head too large",                                     \
	  "errors", "reason=head_too_large")                                                       \
	X(answers_501, "answered 501: transfer coding not known",                                  \
	  "errors", "reason=transfer_coding")                                                      \
	X(answers_502, "answered 502: container refused, or closed before an answer",              \
	  "errors", "reason=container_failed")                                                     \
	X(answers_503, "answered 503: domain known, no container up",                              \
	  "errors", "reason=container_down")                                                       \
	X(answers_504, "answered 504: container did not accept in time",                           \
	  "errors", "reason=connect_timeout")                                                      \
	X(other_container, "requests for another container than their connection's last one")      \
	X(legs_reused, "requests sent on a kept connection to their container")                    \
	X(requests_repeated, "requests sent again, since a kept connection had just been closed")  \
	X(upgrades, "connections that became opaque after a 101")                                  \
	X(tls_connections, "TLS connections passed through to a container")                        \
	X(tls_refused, "TLS connections refused: no ClientHello, or no route for its name",        \
	  "errors", "reason=tls_refused")                                                          \
	X(proxy_refused, "connections refused: no PROXY protocol header where one is due",         \
	  "errors", "reason=proxy_refused")                                                        \
	X(upstream_connects, "connections opened to containers")                                   \
	X(upstream_failures, "connections to containers that failed")                              \
	X(relay_up_bytes, "bytes the agent carried from client to container",                      \
	  "bytes", "engine=relay,direction=up")                                                    \
	X(relay_down_bytes, "bytes the agent carried from container to client",                    \
	  "bytes", "engine=relay,direction=down")                                                  \
	X(splice_bytes, "bytes of engine relay that went by splice(2), uncopied")                  \
	X(sockmap_wanted, "connections for which the short way was asked")                         \
	X(sockmap_enrolled, "container sockets that took the short way")                           \
	X(sockmap_refused, "container sockets kept off it: route or backend not in the maps")      \
	X(sockmap_full, "sockets kept off it: no place in a map")                                  \
	X(sockmap_foreign, "sockets with equal addresses that were not ours")                      \
	X(sockmap_left, "connections that left the short way before their end")                    \
	X(short_messages, "messages the kernel carried from container to client",                  \
	  "short_messages", "direction=down")                                                      \
	X(short_bytes, "bytes the kernel carried from container to client",                        \
	  "bytes", "engine=sockmap,direction=down")                                                \
	X(short_answers, "answers of HTTP that went by the short way as a whole")                  \
	X(short_up_messages, "messages the kernel carried from client to container",               \
	  "short_messages", "direction=up")                                                        \
	X(short_up_bytes, "part of relay_up_bytes that the kernel carried",                        \
	  "bytes", "engine=sockmap,direction=up")                                                  \
	X(passed_messages, "messages on enrolled sockets that were passed to the agent",           \
	  "passed_messages", "direction=down")                                                     \
	X(passed_no_room, "messages passed for lack of room at the client's socket")               \
	X(passed_up_messages, "messages to enrolled sockets that went through TCP",                \
	  "passed_messages", "direction=up")                                                       \
	X(held_up_messages, "messages that had to wait until the container had read")              \
	X(promises_late, "times the agent had to wait for bytes that the kernel had promised")     \
	X(promises_broken, "connections reset: bytes that the kernel had promised did not come",   \
	  "errors", "reason=promise_broken")                                                       \
	X(legs_cut, "connections to containers cut: gone, or stopping for the drain's time")       \
	X(table_updates, "times the table of routes was built anew")                               \
	X(responses_1xx, "interim answers of containers, and 101", "responses", "class=1xx")       \
	X(responses_2xx, "answers of containers with a status of 2xx", "responses", "class=2xx")   \
	X(responses_3xx, "answers of containers with a status of 3xx", "responses", "class=3xx")   \
	X(responses_4xx, "answers of containers with a status of 4xx", "responses", "class=4xx")   \
	X(responses_5xx, "answers of containers with a status of 5xx, and above",                  \
	  "responses", "class=5xx")                                                                \
	X(answers_cut, "answers of containers that ended, or became unreadable, in their middle",  \
	  "errors", "reason=answer_cut")

/* The metrics that have several series: name, one line of help. */
#define KKM_METRICS(X)                                                                             \
	X(bytes, "bytes carried, by engine and direction (up: to the container)")                  \
	X(errors, "requests and connections that failed or were refused, by reason")               \
	X(responses, "answers of containers, by class of their status")                            \
	X(short_messages, "messages the kernel carried, by direction")                             \
	X(passed_messages, "messages on enrolled sockets that the kernel did not carry, by direction")

struct kkm_stats {
#define KKM_STATS_MEMBER(name, help, ...) __u64 name;
	KKM_STATS(KKM_STATS_MEMBER)
#undef KKM_STATS_MEMBER
};

_Static_assert(sizeof(struct kkm_backend_key) == KKM_DOMAIN_LEN + 24, "hashed as bytes: no padding");
_Static_assert(sizeof(struct kkm_tuple) == 40, "hashed as bytes: no padding");
_Static_assert(sizeof(struct kkm_rejected_key) == KKM_ID_LEN + KKM_DOMAIN_LEN, "no padding");
_Static_assert(sizeof(struct kkm_slot) == 192, "three cache lines");
_Static_assert(sizeof(struct kkm_sock) == 24, "no padding");

#endif
