/* SPDX-License-Identifier: MIT */
/*
 * What the fuzzers share. Each gives its input to a parser whole, cut in two, and byte by byte, and
 * expects the same of all three. What breaks an expectation aborts; libFuzzer keeps the input.
 */
#ifndef KKM_FUZZ_H
#define KKM_FUZZ_H

#include <arpa/inet.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <strings.h>
#include <sanitizer/asan_interface.h>

#include "hostname.h"

#define expect(condition)                                                                          \
	do {                                                                                       \
		if (!(condition)) {                                                                \
			fprintf(stderr, "%s:%d: expected: %s\n", __FILE__, __LINE__,               \
				#condition);                                                       \
			abort();                                                                   \
		}                                                                                  \
	} while (0)

/* The fuzzer looks for new ways through the parsers, not through this; and it is slow enough. */
#define NOT_COUNTED __attribute__((no_sanitize("coverage", "address", "undefined")))

#define WINDOW_MAX (1 << 17)

enum delivery { WHOLE, CUT, BYTES, DELIVERIES };

/* Looks at what has come of the input so far: always from its beginning. */
typedef void look(void *state, const char *data, size_t len);

/*
 * Where the input is cut hangs on all of its bytes: so it changes with each mutation, and an input
 * stays what is on the wire, without a byte that means something else.
 */
NOT_COUNTED static inline uint32_t input_hash(const uint8_t *data, size_t len)
{
	uint32_t hash = 2166136261;

	for (size_t i = 0; i < len; i++)
		hash = (hash ^ data[i]) * 16777619;
	return hash ^ hash >> 15;
}

/*
 * The sanitizer allows as many bytes of the window as have come: one that is read too early is an
 * error. Cheaper than a copy of each beginning.
 */
NOT_COUNTED static inline void deliver(enum delivery how, const uint8_t *data, size_t len,
				       look *look, void *state)
{
	static _Alignas(8) char window[WINDOW_MAX];
	size_t step = how == BYTES ? 1 : how == CUT ? input_hash(data, len) % (len + 1) : len;
	size_t room = (len + 8) & ~(size_t)7, come = 0;

	if (len >= WINDOW_MAX)
		return;
	memcpy(window, data, len);
	ASAN_POISON_MEMORY_REGION(window, room);
	do {
		size_t more = step && come + step < len ? step : len - come;

		ASAN_UNPOISON_MEMORY_REGION(window + come, more);
		come += more;
		look(state, window, come);
		if (how == CUT)
			step = len;
	} while (come < len);
	ASAN_UNPOISON_MEMORY_REGION(window, room);
}

/* A name as it stands in the route table: what one may be asked for, and in one spelling only. */
static inline void expect_normalised(const char *name)
{
	struct in6_addr address;
	char text[INET6_ADDRSTRLEN];
	size_t len = strlen(name);

	expect(len <= HOSTNAME_MAX);
	if (strchr(name, ':')) {
		expect(inet_pton(AF_INET6, name, &address) == 1);
		expect(!strcmp(inet_ntop(AF_INET6, &address, text, sizeof(text)), name));
		return;
	}
	expect(strspn(name, "abcdefghijklmnopqrstuvwxyz0123456789-_.") == len);
	expect(!len || (*name != '.' && name[len - 1] != '.'));
	expect(!strstr(name, ".."));
}

#endif
