/* SPDX-License-Identifier: MIT */
/* A second, slow reading of a head that was accepted. */
#ifndef KKM_FUZZ_HEAD_H
#define KKM_FUZZ_HEAD_H

#include "fuzz.h"

/* Where the last such field's value begins, or NULL; its name in any case. *count: how many. */
static inline const char *find_field(const char *head, size_t len, const char *name,
				     unsigned int *count)
{
	const char *found = NULL;
	size_t name_len = strlen(name);

	*count = 0;
	for (size_t i = 2; i + name_len < len; i++) {
		if (head[i - 1] != '\n' || strncasecmp(head + i, name, name_len) ||
		    head[i + name_len] != ':')
			continue;
		found = head + i + name_len + 1;
		(*count)++;
	}
	return found;
}

/*
 * Lines that end in CRLF, the last of them and only that empty; no other control than a TAB; no
 * line that goes on from the one before.
 */
static inline void expect_clean(const char *head, size_t len)
{
	expect(len >= 4 && !memcmp(head + len - 4, "\r\n\r\n", 4));
	for (size_t i = 0; i < len; i++) {
		unsigned char c = (unsigned char)head[i];

		if (c == '\r')
			expect(i + 1 < len && head[i + 1] == '\n');
		else if (c == '\n')
			expect(i && head[i - 1] == '\r');
		else
			expect(c == '\t' || (c >= ' ' && c != 0x7f));
		if (c == '\n' && i + 1 < len)
			expect(head[i + 1] != ' ' && head[i + 1] != '\t');
		if (i + 4 < len)
			expect(memcmp(head + i, "\r\n\r\n", 4));
	}
}

/* The number that the field says, or 0. */
static inline uint64_t said_length(const char *head, size_t len)
{
	unsigned int count;
	const char *value = find_field(head, len, "Content-Length", &count);

	return value ? strtoull(value, NULL, 10) : 0;
}

#endif
