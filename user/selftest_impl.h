/* SPDX-License-Identifier: MIT */
/*
 * selftest.c        the process around it, and what is asked of the host
 * selftest_steps.c  what is tried on sockets
 */
#ifndef KKM_SELFTEST_IMPL_H
#define KKM_SELFTEST_IMPL_H

#include "engine.h"
#include "selftest.h"

#define SELFTEST_CONNS 4

/* What all steps share. */
struct selftest_bench {
	struct datapath *datapath;
	struct engine_slots slots;
	int listener; /* of the container */
	struct sockaddr_storage address;
};

/* Everything from SELFTEST_ENROL on. */
void selftest_sockets(struct selftest *out, struct selftest_bench *bench);

__attribute__((format(printf, 3, 4))) void selftest_say(struct selftest_result *step, bool passed,
							const char *format, ...);

#endif
