/* SPDX-License-Identifier: MIT */
/* Answers of the agent's own: one table of statuses, texts and counters. Pure but for send(). */
#ifndef KKM_ANSWER_H
#define KKM_ANSWER_H

#include <stdbool.h>
#include <stddef.h>
#include <sys/types.h>

#include "kakuremichi.h"

struct answer {
	char text[384];
	size_t len, sent;
};

/* `status` is one of the table's; `head` leaves the body out. */
void answer_set(struct answer *answer, int status, bool head);
/* Bytes as they are, at most sizeof(answer->text). */
void answer_set_bytes(struct answer *answer, const void *bytes, size_t len);
/* 0 when all of it has been sent, or -errno. */
ssize_t answer_send(struct answer *answer, int fd);
void answer_count(struct kkm_stats *stats, int status);

#endif
