/* SPDX-License-Identifier: MIT */
/*
 * For tests on the real kernel (prog_tests/): named cases, TAP on stdout, exit 4 where all are
 * skipped. An assertion that fails prints both sides and ends its case.
 */
#ifndef KKM_TAP_H
#define KKM_TAP_H

#include <stdio.h>

struct tap_case {
	const char *name;
	void (*run)(void);
};

extern const char *tap_failure; /* set by the macros */
extern const char *tap_skipped;
int tap_main(const struct tap_case *cases, int count);

#define ASSERT_EQ(actual, expected)                                                                \
	do {                                                                                       \
		long long a_ = (long long)(actual), e_ = (long long)(expected);                    \
		if (a_ != e_) {                                                                    \
			printf("# %s:%d: %s is %lld, expected %lld\n", __FILE__, __LINE__, #actual,   \
			       a_, e_);                                                            \
			tap_failure = #actual;                                                     \
			return;                                                                    \
		}                                                                                  \
	} while (0)

#define ASSERT_TRUE(condition)                                                                     \
	do {                                                                                       \
		if (!(condition)) {                                                                \
			printf("# %s:%d: %s does not hold\n", __FILE__, __LINE__, #condition);       \
			tap_failure = #condition;                                                  \
			return;                                                                    \
		}                                                                                  \
	} while (0)

#define TAP_MAIN(cases)                                                                            \
	const char *tap_failure, *tap_skipped;                                                     \
	int tap_main(const struct tap_case *list, int count)                                       \
	{                                                                                          \
		int failed = 0, skipped = 0;                                                       \
		printf("1..%d\n", count);                                                          \
		for (int i = 0; i < count; i++) {                                                  \
			tap_failure = tap_skipped = NULL;                                          \
			list[i].run();                                                             \
			printf("%sok %d - %s%s%s\n", tap_failure ? "not " : "", i + 1,             \
			       list[i].name, tap_skipped ? " # SKIP " : "",                        \
			       tap_skipped ? tap_skipped : "");                                    \
			fflush(stdout);                                                            \
			failed += !!tap_failure;                                                   \
			skipped += !!tap_skipped;                                                  \
		}                                                                                  \
		return failed ? 1 : skipped == count ? 4 : 0;                                      \
	}                                                                                          \
	int main(void)                                                                             \
	{                                                                                          \
		return tap_main(cases, sizeof(cases) / sizeof(*cases));                            \
	}

#endif
