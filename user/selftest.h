/* SPDX-License-Identifier: MIT */
/*
 * What this very kernel does with sockets in a sockmap: found out before any container's socket is
 * touched, in a process, a network namespace and a cgroup of its own, in a fifth of a second. One
 * verdict a step; a step that fails forbids just what depends on it.
 */
#ifndef KKM_SELFTEST_H
#define KKM_SELFTEST_H

#include <stdbool.h>
#include <stddef.h>

enum selftest_step {
	SELFTEST_LOAD,
	SELFTEST_NAMESPACE,
	SELFTEST_FOREIGN,
	SELFTEST_ENROL,
	SELFTEST_FIONREAD,
	SELFTEST_SPLICE,
	SELFTEST_EDGES,
	SELFTEST_WRITE,
	SELFTEST_UNDO,
	SELFTEST_ANSWER,
	SELFTEST_HALF_CLOSE,
	SELFTEST_ZEROCOPY,
	SELFTEST_KTLS,
	SELFTEST_MPTCP,
	SELFTEST_LATE,
	SELFTEST_BLOCKED,
	SELFTEST_PUT_MEMORY,
	SELFTEST_PUT_FIONREAD,
	SELFTEST_PUT_SPLICE,
	SELFTEST_PUT_EDGES,
	SELFTEST_PUT_LOWAT,
	SELFTEST_PUT_ORDER,
	SELFTEST_PUT_HALF_CLOSE,
	SELFTEST_STEPS,
};

enum selftest_gate {
	SELFTEST_SHORT,	   /* the short way at all */
	SELFTEST_STREAMS,  /* connections behind a 101, too */
	SELFTEST_REQUESTS, /* requests by it, too */
	SELFTEST_NOTHING,  /* what it would be needed for is never done */
};

struct selftest {
	struct selftest_result {
		const char *name;
		const char *consequence; /* of its failing, in words */
		enum selftest_gate gate;
		bool run, passed;
		bool absent; /* nothing to test: this kernel does not have it */
		char detail[256];
	} steps[SELFTEST_STEPS];
	unsigned int ms; /* that it took */
};

/* Run all. `cgroup`: the cgroup v2 root of the containers, or NULL. Never fails: a step says why. */
void selftest_run(struct selftest *out, const char *cgroup);

/* Has every step passed that this needs? Those of SELFTEST_SHORT are needed for all. */
bool selftest_allows(const struct selftest *selftest, enum selftest_gate gate);

/* Is somebody else on this host using a sockmap? Says who. */
bool selftest_foreign(char *detail, size_t size);

#endif
