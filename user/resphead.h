/* SPDX-License-Identifier: MIT */
/* The status of the final answer at the beginning of a stream of bytes, past any 1xx. Pure. */
#ifndef KKM_RESPHEAD_H
#define KKM_RESPHEAD_H

#include <stdbool.h>
#include <stddef.h>

struct resphead {
	char line[13];	     /* "HTTP/1.1 101 " */
	unsigned int len;
	unsigned int newlines; /* in a row, while a 1xx head is skipped */
	int interim;
	bool interim_seen;   /* a 1xx head has begun: what follows may pass as it comes */
};

/* Zeroed before the first bytes. 0: not known yet; 101 or 200..999; -1: this is not HTTP/1. */
int resphead_feed(struct resphead *head, const char *data, size_t len);

#endif
