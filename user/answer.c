// SPDX-License-Identifier: MIT
#include "answer.h"

#include <errno.h>
#include <stdio.h>
#include <string.h>
#include <sys/socket.h>

static const struct {
	int status;
	const char *reason;
	const char *body;  /* NULL: the reason */
	const char *field; /* one more, with its line end */
	size_t counter;
} table[] = {
#define COUNTER(status) offsetof(struct kkm_stats, answers_##status)
	{ 400, "Bad Request", NULL, "", COUNTER(400) },
	{ 404, "Not Found", "No tunnel configured for this domain", "", COUNTER(404) },
	{ 405, "Method Not Allowed", NULL,
	  "Allow: GET, HEAD, POST, PUT, PATCH, DELETE, OPTIONS, TRACE\r\n", COUNTER(405) },
	{ 408, "Request Timeout", NULL, "", COUNTER(408) },
	{ 431, "Request Header Fields Too Large", NULL, "", COUNTER(431) },
	{ 501, "Not Implemented", NULL, "", COUNTER(501) },
	{ 502, "Bad Gateway", NULL, "", COUNTER(502) },
	{ 503, "Service Unavailable", NULL, "Retry-After: 5\r\n", COUNTER(503) },
	{ 504, "Gateway Timeout", NULL, "", COUNTER(504) },
#undef COUNTER
};

#define ENTRIES (sizeof(table) / sizeof(*table))

static size_t find(int status)
{
	size_t i = 0;

	while (i < ENTRIES - 1 && table[i].status != status)
		i++;
	return i;
}

void answer_set(struct answer *answer, int status, bool head)
{
	size_t i = find(status);
	const char *body = table[i].body ? table[i].body : table[i].reason;
	int len = snprintf(answer->text, sizeof(answer->text),
			   "HTTP/1.1 %d %s\r\n"
			   "Content-Type: text/plain; charset=utf-8\r\n"
			   "Content-Length: %zu\r\n"
			   "%s"
			   "Connection: close\r\n"
			   "\r\n"
			   "%s",
			   status, table[i].reason, strlen(body), table[i].field, head ? "" : body);

	answer->len = (size_t)len;
	answer->sent = 0;
}

void answer_set_bytes(struct answer *answer, const void *bytes, size_t len)
{
	memcpy(answer->text, bytes, len);
	answer->len = len;
	answer->sent = 0;
}

ssize_t answer_send(struct answer *answer, int fd)
{
	while (answer->sent < answer->len) {
		ssize_t n = send(fd, answer->text + answer->sent, answer->len - answer->sent,
				 MSG_NOSIGNAL);

		if (n < 0)
			return -errno;
		answer->sent += (size_t)n;
	}
	return 0;
}

void answer_count(struct kkm_stats *stats, int status)
{
	++*(__u64 *)((char *)stats + table[find(status)].counter);
}
