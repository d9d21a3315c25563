// SPDX-License-Identifier: MIT
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <cmocka.h>

#include <errno.h>

#include "explain.h"
#include "route.h"

static void assert_name(const char *text, const char *expected)
{
	char host[HOSTNAME_MAX + 1] = "?";
	const char *reason = NULL;
	int err = explain_name(text, host, &reason);

	if (err || strcmp(host, expected))
		fail_msg("'%s': %d '%s' %s, expected '%s'", text, err, host, reason ? reason : "",
			 expected);
}

static void assert_no_name(const char *text, const char *word)
{
	char host[HOSTNAME_MAX + 1];
	const char *reason = NULL;

	assert_int_equal(explain_name(text, host, &reason), -EINVAL);
	assert_non_null(reason);
	if (!strstr(reason, word))
		fail_msg("'%s' %s: expected '%s'", text, reason, word);
}

/* As the Host of a request, and as people write it. */
static void names(void **state)
{
	(void)state;
	assert_name("app.example.com", "app.example.com");
	assert_name("App.EXAMPLE.com.", "app.example.com");
	assert_name("app.example.com:8080", "app.example.com");
	assert_name("app.example.com.:80", "app.example.com");
	assert_name("app.example.com:", "app.example.com");
	assert_name("192.0.2.1:80", "192.0.2.1");
	assert_name("[2001:DB8:0::1]:80", "2001:db8::1");
	assert_name("bücher.example", "xn--bcher-kva.example");
	assert_name("BÜCHER.example:80", "xn--bcher-kva.example");
	assert_no_name("", "empty");
	assert_no_name("*", "wildcard");
	assert_no_name("*.example.com", "wildcard");
	assert_no_name("http://app.example.com", "page");
	assert_no_name("app.example.com/path", "page");
	assert_no_name("app..example.com", "empty label");
	assert_no_name("-app.example.com", "hyphen");
	assert_no_name("a b.example.com", "character");
	assert_no_name("app.example.com:0", "port");
	assert_no_name("app.example.com:port", "port");
	assert_no_name("bücher.example:x", "port");
	assert_no_name("[2001:db8::1", "brackets");
}

static const char *const domains[] = {
	"*", "*.deep.example.com", "*.example.com", "app.example.com", "example.com", "x.test",
};
#define DOMAINS (sizeof(domains) / sizeof(*domains))

/* Of the domains whose bit is set, the first of them with two backends. */
static void fill(struct routelist *list, unsigned int which)
{
	memset(list, 0, sizeof(*list));
	list->backends = calloc(DOMAINS + 1, sizeof(*list->backends));
	for (size_t i = 0; i < DOMAINS; i++) {
		for (int j = 0; which >> i & 1 && j < (i ? 1 : 2); j++)
			snprintf(list->backends[list->backend_count++].key.domain, KKM_DOMAIN_LEN,
				 "%s", domains[i]);
	}
}

static struct route_table *build(unsigned int which)
{
	static struct route_source sources[DOMAINS];
	const struct route_source *pointers[DOMAINS];
	const struct route_limits limits = { .routes = 99, .backends = 99 };
	struct route_table *table = NULL;
	size_t count = 0;

	for (size_t i = 0; i < DOMAINS; i++) {
		if (!(which >> i & 1))
			continue;
		snprintf(sources[count].id, KKM_ID_LEN, "%zu", i);
		snprintf(sources[count].group, KKM_NAME_LEN, "%zu", i);
		sources[count].labels.domain_count = 1;
		snprintf(sources[count].labels.domains[0], HOSTNAME_MAX + 1, "%s", domains[i]);
		pointers[count] = &sources[count];
		count++;
	}
	assert_int_equal(route_table_build(pointers, count, &limits, true, NULL, &table), 0);
	return table;
}

/* It must never tell anything else than what a request gets: any set of domains, any host. */
static void matches_as_requests_do(void **state)
{
	static const char *const hosts[] = {
		"app.example.com", "b.example.com", "example.com", "deep.example.com",
		"a.deep.example.com", "a.b.deep.example.com", "xdeep.example.com", "notexample.com",
		"x.test", "y.test", "test", "com", "192.0.2.1", "2001:db8::1", "",
	};

	(void)state;
	for (unsigned int which = 0; which < 1u << DOMAINS; which++) {
		struct route_table *table = build(which);
		struct routelist list;

		fill(&list, which);
		for (size_t i = 0; i < sizeof(hosts) / sizeof(*hosts); i++) {
			const struct route *route = route_find(table, hosts[i]);
			size_t count = 0;
			const struct routelist_backend *pool =
				explain_match(&list, hosts[i], &count);

			if (!route != !pool || (pool && strcmp(route->domain, pool->key.domain)))
				fail_msg("'%s': %s, a request gets %s", hosts[i],
					 pool ? pool->key.domain : "none",
					 route ? route->domain : "none");
			if (pool)
				assert_int_equal(count, *pool->key.domain == '*' &&
								!pool->key.domain[1] ? 2 : 1);
		}
		routelist_free(&list);
		route_table_put(&table);
	}
}

static void distances(void **state)
{
	(void)state;
	assert_int_equal(explain_distance("same", "same", 2), 0);
	assert_int_equal(explain_distance("same", "some", 2), 1);
	assert_int_equal(explain_distance("same", "sam", 2), 1);
	assert_int_equal(explain_distance("same", "sames", 2), 1);
	assert_int_equal(explain_distance("same", "smae", 2), 1);
	assert_int_equal(explain_distance("example", "exmapel", 2), 2);
	assert_int_equal(explain_distance("same", "time", 2), 2);
	assert_int_equal(explain_distance("same", "other", 2), 3);
	assert_int_equal(explain_distance("", "", 2), 0);
	assert_int_equal(explain_distance("", "ab", 2), 2);
	assert_int_equal(explain_distance("", "abc", 2), 3);
	assert_int_equal(explain_distance("abcdefgh", "h", 2), 3);
}

static void assert_similar(const char *host, const char *first)
{
	const char *out[EXPLAIN_SIMILAR_MAX];
	struct routelist list;
	unsigned int count;

	fill(&list, (1u << DOMAINS) - 1);
	count = explain_similar(&list, host, out);
	if (!first != !count || (first && strcmp(out[0], first)))
		fail_msg("'%s': %s, expected %s", host, count ? out[0] : "none", first ? first : "none");
	routelist_free(&list);
}

static void slips(void **state)
{
	(void)state;
	assert_similar("ap.example.com", "app.example.com");
	assert_similar("app.exmaple.com", "*.example.com"); /* all below it are */
	assert_similar("www.app.example.com", "app.example.com");
	assert_similar("deep.example.com", "*.deep.example.com");
	assert_similar("exampel.com", "example.com");
	assert_similar("other.test", NULL);
	assert_similar("y.test", "x.test");
	assert_similar("yy.tes", NULL);
	assert_similar("", NULL);
}

static bool wanted(const char *domain, const char *labels, const char *host)
{
	struct routelist_rejected rejected = { .value = { .refusal = KKM_REJECTED } };

	snprintf(rejected.key.domain, sizeof(rejected.key.domain), "%s", domain);
	snprintf(rejected.value.wanted, sizeof(rejected.value.wanted), "%s", labels);
	return explain_wanted(&rejected, host);
}

/* A container that is rejected as a whole has only what its labels say, right or wrong. */
static void near_misses(void **state)
{
	(void)state;
	assert_true(wanted("app.example.com", "", "app.example.com"));
	assert_true(wanted("*.example.com", "", "app.example.com"));
	assert_false(wanted("other.example.com", "app.example.com", "app.example.com"));
	assert_true(wanted("", "app.example.com", "app.example.com"));
	assert_true(wanted("", "a.test, App.Example.com.\t,b.test", "app.example.com"));
	assert_true(wanted("", "*.example.com", "app.example.com"));
	assert_true(wanted("", "bücher.example", "xn--bcher-kva.example"));
	assert_true(wanted("", "https://app.example.com/", "app.example.com"));
	assert_false(wanted("", "https://other.example.com/,,", "app.example.com"));
	assert_false(wanted("", "", "app.example.com"));
	assert_false(wanted("", ",", ""));
	assert_false(wanted("", "a..b", ""));
}

int main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test(names),     cmocka_unit_test(matches_as_requests_do),
		cmocka_unit_test(distances), cmocka_unit_test(slips),
		cmocka_unit_test(near_misses),
	};

	return cmocka_run_group_tests(tests, NULL, NULL);
}
