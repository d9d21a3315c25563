// SPDX-License-Identifier: MIT
#include "explain.h"

#include <errno.h>
#include <stdio.h>
#include <string.h>
#include <strings.h>

#define SLIPS 2 /* letters that a slip changes */

int explain_name(const char *text, char host[HOSTNAME_MAX + 1], const char **reason)
{
	size_t len = strlen(text), name_len = strcspn(text, ":");
	char ascii[HOSTNAME_MAX + 1];
	uint64_t port;

	*reason = NULL;
	if (!len)
		*reason = "is empty";
	else if (*text == '*')
		*reason = "is a wildcard, which no request asks for: give a name below it";
	else if (strstr(text, "://") || strchr(text, '/'))
		*reason = "is an address of a page: give the host's name alone";
	if (*reason)
		return -EINVAL;
	if (!hostname_from_authority(text, len, host))
		return 0;
	if (*text == '[') {
		*reason = "is no IPv6 address in brackets with, perhaps, a port";
		return -EINVAL;
	}
	/* it knows what is wrong with the name, and how to write it for the wire */
	if (hostname_parse(text, name_len, ascii, reason))
		return -EINVAL;
	if (name_len + 1 < len &&
	    number_parse(text + name_len + 1, len - name_len - 1, 1, 65535, &port)) {
		*reason = "has something behind its colon that is no port";
		return -EINVAL;
	}
	snprintf(host, HOSTNAME_MAX + 1, "%s", ascii);
	return 0;
}

bool explain_covers(const char *domain, const char *host)
{
	size_t len = strlen(host), suffix = strlen(domain);

	if (!strcmp(domain, "*"))
		return true;
	if (*domain != '*')
		return !strcmp(domain, host);
	/* "*.example.com": at least one letter, and the dot */
	return len > suffix - 1 && !strcmp(host + len - (suffix - 1), domain + 1);
}

/* Exact before wildcards, of which the longest: both are the longest text. */
static bool is_better(const char *domain, const char *than)
{
	if (!than || *domain != '*' || *than != '*')
		return !than || *than == '*';
	return strlen(domain) > strlen(than);
}

const struct routelist_backend *explain_match(const struct routelist *list, const char *host,
					      size_t *count)
{
	const struct routelist_backend *best = NULL;

	for (size_t i = 0; i < list->backend_count; i += routelist_pool(list, i)) {
		const struct routelist_backend *pool = &list->backends[i];

		if (explain_covers(pool->key.domain, host) &&
		    is_better(pool->key.domain, best ? best->key.domain : NULL)) {
			best = pool;
			*count = routelist_pool(list, i);
		}
	}
	return best;
}

static unsigned int lowest(unsigned int a, unsigned int b)
{
	return a < b ? a : b;
}

unsigned int explain_distance(const char *a, const char *b, unsigned int limit)
{
	/* of the optimal string alignment: the last three rows of its table are enough */
	unsigned int rows[3][HOSTNAME_MAX + 2];
	size_t a_len = strlen(a), b_len = strlen(b);

	if (a_len > HOSTNAME_MAX || b_len > HOSTNAME_MAX || a_len > b_len + limit ||
	    b_len > a_len + limit)
		return limit + 1;
	for (unsigned int j = 0; j <= b_len; j++)
		rows[0][j] = j;
	for (unsigned int i = 1; i <= a_len; i++) {
		unsigned int *row = rows[i % 3], *above = rows[(i + 2) % 3];
		const unsigned int *two_above = rows[(i + 1) % 3];

		row[0] = i;
		for (unsigned int j = 1; j <= b_len; j++) {
			unsigned int other = a[i - 1] != b[j - 1];

			row[j] = lowest(above[j - 1] + other, lowest(above[j], row[j - 1]) + 1);
			if (i > 1 && j > 1 && a[i - 1] == b[j - 2] && a[i - 2] == b[j - 1])
				row[j] = lowest(row[j], two_above[j - 2] + 1);
		}
	}
	return lowest(rows[a_len % 3][b_len], limit + 1);
}

/* How far a host is from being taken by this domain; more than SLIPS: too far. */
static unsigned int distance_to(const char *domain, const char *host)
{
	const char *rest = strchr(host, '.');
	unsigned int limit = strlen(host) < 6 ? 1 : SLIPS;
	unsigned int distance;

	if (!strcmp(domain, "*"))
		return SLIPS + 1;
	/* www. too much or too little, the wildcard's own name */
	if ((!strncmp(host, "www.", 4) && !strcmp(host + 4, domain)) ||
	    (!strncmp(domain, "www.", 4) && !strcmp(domain + 4, host)) ||
	    (!strncmp(domain, "*.", 2) && !strcmp(domain + 2, host)))
		return 1;
	if (*domain == '*')
		distance = rest ? explain_distance(domain + 2, rest + 1, limit) : limit + 1;
	else
		distance = explain_distance(domain, host, limit);
	return distance > limit ? SLIPS + 1 : distance;
}

unsigned int explain_similar(const struct routelist *list, const char *host,
			     const char *out[EXPLAIN_SIMILAR_MAX])
{
	unsigned int count = 0;

	for (unsigned int wanted = 1; wanted <= SLIPS; wanted++) {
		for (size_t i = 0; i < list->backend_count && count < EXPLAIN_SIMILAR_MAX;
		     i += routelist_pool(list, i)) {
			if (distance_to(list->backends[i].key.domain, host) == wanted)
				out[count++] = list->backends[i].key.domain;
		}
	}
	return count;
}

/* One name of a label's value. */
static bool name_wants(const char *text, size_t len, const char *host)
{
	char name[KKM_DOMAIN_LEN], domain[HOSTNAME_MAX + 1];
	const char *reason;

	while (len && (*text == ' ' || *text == '\t')) {
		text++;
		len--;
	}
	while (len && (text[len - 1] == ' ' || text[len - 1] == '\t'))
		len--;
	if (!hostname_parse(text, len, domain, &reason))
		return explain_covers(domain, host);
	/* it may be the very fault: "https://app.example.com" */
	snprintf(name, sizeof(name), "%.*s", (int)len, text);
	return *host && strcasestr(name, host);
}

bool explain_wanted(const struct routelist_rejected *rejected, const char *host)
{
	if (*rejected->key.domain)
		return explain_covers(rejected->key.domain, host);
	for (const char *p = rejected->value.wanted; *p;) {
		size_t len = strcspn(p, ",");

		if (name_wants(p, len, host))
			return true;
		p += len + (p[len] == ',');
	}
	return false;
}
