/* SPDX-License-Identifier: MIT */
/*
 * What this very kernel does with sockets in a sockmap, found out on loopback sockets of our own
 * before any container's socket is touched. Takes well under a second.
 */
#ifndef KKM_SELFTEST_H
#define KKM_SELFTEST_H

#include <stdbool.h>

enum selftest_step {
	SELFTEST_LOAD,	   /* the programs load and attach */
	SELFTEST_FIONREAD, /* an enrolled socket's application sees how much there is to read */
	SELFTEST_WRITE,	   /* a large non-blocking write through a slow reader completes, intact */
	SELFTEST_STEPS,
};

struct selftest {
	struct selftest_result {
		const char *name;
		const char *needed_for; /* what goes wrong without it */
		bool run, passed;
		char detail[256];
	} steps[SELFTEST_STEPS];
};

/* True where every step has passed: `auto` may choose sockmap. */
bool selftest_run(struct selftest *out);

#endif
