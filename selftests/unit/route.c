// SPDX-License-Identifier: MIT
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <cmocka.h>

#include "route.h"

static const struct route_limits plenty = { .routes = 1000, .backends = 1000 };

/* A running container of Docker's: its number makes id, name, address and, unless given, group. */
static struct route_source source(int n, const char *domain, const char *group, int64_t created)
{
	struct route_source s = { .owner = KKM_DOCKER, .state = KKM_ACTIVE, .created = created };
	char address[32];

	snprintf(s.id, sizeof(s.id), "%064d", n);
	snprintf(s.name, sizeof(s.name), "c%d", n);
	snprintf(s.group, sizeof(s.group), "%s", group ? group : s.name);
	snprintf(address, sizeof(address), "10.0.%d.%d", n / 250, n % 250 + 1);
	address_parse(address, 80, &s.address);
	s.labels.domain_count = 1;
	s.labels.port = 80;
	snprintf(s.labels.domains[0], sizeof(s.labels.domains[0]), "%s", domain);
	return s;
}

static struct route_table *build_from(const struct route_source *sources, size_t count,
				      const struct route_limits *limits,
				      const struct route_table *previous)
{
	const struct route_source **list = calloc(count + 1, sizeof(*list));
	struct route_table *table = NULL;

	for (size_t i = 0; i < count; i++)
		list[i] = &sources[i];
	assert_int_equal(route_table_build(list, count, limits, true, previous, &table), 0);
	free(list);
	return table;
}

#define BUILD(...)                                                                                 \
	build_from((struct route_source[]){ __VA_ARGS__ },                                         \
		   sizeof((struct route_source[]){ __VA_ARGS__ }) / sizeof(struct route_source),   \
		   &plenty, NULL)

static const struct route_rejected *rejected_of(const struct route_table *table, const char *name)
{
	for (unsigned int i = 0; i < table->rejected_count; i++) {
		if (!strcmp(table->rejected[i].name, name))
			return &table->rejected[i];
	}
	return NULL;
}

static const char *reason_of(const struct route_table *table, const char *name)
{
	const struct route_rejected *rejected = rejected_of(table, name);

	assert_non_null(rejected);
	return rejected ? rejected->reason : "";
}

static void empty(void **state)
{
	struct route_table *table = build_from(NULL, 0, &plenty, NULL), *none = NULL;

	(void)state;
	assert_int_equal(table->count, 0);
	assert_true(table->ready);
	assert_null(route_find(table, "a.example"));
	assert_null(route_find(table, ""));
	route_table_put(&table);
	assert_null(table);
	route_table_put(&none);
}

static void replicas_and_order(void **state)
{
	struct route_table *table =
		BUILD(source(2, "a.example", "g", 20), source(3, "a.example", "g", 10),
		      source(1, "a.example", "g", 20));
	const struct route *route = route_exact(table, "a.example");

	(void)state;
	assert_non_null(route);
	assert_int_equal(route->count, 3);
	assert_string_equal(route->backends[0].name, "c3");
	assert_string_equal(route->backends[1].name, "c1");
	assert_string_equal(route->backends[2].name, "c2");
	assert_int_equal(table->rejected_count, 0);
	route_table_put(&table);
}

static void older_keeps_the_domain(void **state)
{
	struct route_source older = source(1, "a.example", NULL, 10),
			    newer = source(2, "a.example", NULL, 20);
	struct route_table *table;

	(void)state;
	for (int swapped = 0; swapped < 2; swapped++) {
		const struct route_rejected *rejected;

		table = swapped ? BUILD(newer, older) : BUILD(older, newer);
		assert_int_equal(route_exact(table, "a.example")->count, 1);
		assert_string_equal(route_exact(table, "a.example")->backends[0].name, "c1");
		assert_int_equal(table->rejected_count, 1);
		rejected = rejected_of(table, "c2");
		assert_non_null(rejected);
		assert_int_equal(rejected->refusal, KKM_CONFLICT);
		assert_string_equal(rejected->domain, "a.example");
		assert_string_equal(rejected->id, newer.id);
		assert_non_null(strstr(rejected->reason, "c1"));
		route_table_put(&table);
	}
	table = BUILD(newer);
	assert_string_equal(route_exact(table, "a.example")->backends[0].name, "c2");
	assert_int_equal(table->rejected_count, 0);
	route_table_put(&table);
}

/* A conflict about one name leaves the container its other names. */
static void conflict_is_per_domain(void **state)
{
	struct route_source two = source(2, "a.example", NULL, 20);
	struct route_table *table;

	(void)state;
	strcpy(two.labels.domains[1], "b.example");
	two.labels.domain_count = 2;
	table = BUILD(source(1, "a.example", NULL, 10), two);
	assert_string_equal(route_exact(table, "a.example")->backends[0].name, "c1");
	assert_string_equal(route_exact(table, "b.example")->backends[0].name, "c2");
	assert_int_equal(table->rejected_count, 1);
	route_table_put(&table);
}

static void owners(void **state)
{
	struct route_source docker = source(1, "a.example", "g", 99),
			    control = source(2, "a.example", "g", 1),
			    file = source(3, "a.example", "g", 1);
	struct route_table *table;

	(void)state;
	control.owner = KKM_CONTROL;
	file.owner = KKM_FILE;
	table = BUILD(file, control, docker);
	assert_int_equal(route_exact(table, "a.example")->count, 1);
	assert_int_equal(route_exact(table, "a.example")->owner, KKM_DOCKER);
	assert_int_equal(rejected_of(table, "c2")->refusal, KKM_CONFLICT);
	assert_int_equal(rejected_of(table, "c3")->refusal, KKM_CONFLICT);
	assert_int_equal(rejected_of(table, "c3")->owner, KKM_FILE);
	assert_string_equal(rejected_of(table, "c3")->label, "");
	assert_string_equal(reason_of(table, "c3"),
			    "the domain belongs to container c1 of Docker, which goes first");
	route_table_put(&table);
	table = BUILD(file, control);
	assert_int_equal(route_exact(table, "a.example")->owner, KKM_CONTROL);
	assert_string_equal(reason_of(table, "c3"),
			    "the domain belongs to c2 of Control, which goes first");
	route_table_put(&table);
	table = BUILD(file);
	assert_int_equal(route_exact(table, "a.example")->owner, KKM_FILE);
	assert_int_equal(table->rejected_count, 0);
	route_table_put(&table);
}

static void rejected_as_a_whole(void **state)
{
	struct route_source bad = source(1, "a.example", NULL, 10);
	struct route_table *table;

	(void)state;
	strcpy(bad.error.label, "kakuremichi.port");
	strcpy(bad.error.reason, "is missing");
	table = BUILD(bad, source(2, "a.example", NULL, 20));
	/* who is rejected claims nothing, however old */
	assert_string_equal(route_exact(table, "a.example")->backends[0].name, "c2");
	assert_int_equal(rejected_of(table, "c1")->refusal, KKM_REJECTED);
	assert_string_equal(rejected_of(table, "c1")->domain, "");
	assert_string_equal(rejected_of(table, "c1")->label, "kakuremichi.port");
	assert_string_equal(reason_of(table, "c1"), "is missing");
	/* its labels were good, or say themselves what they asked for */
	assert_string_equal(rejected_of(table, "c1")->wanted, "a.example");
	route_table_put(&table);
	bad.labels.domain_count = 0;
	strcpy(bad.error.wanted, "b.example,c..example");
	table = BUILD(bad);
	assert_string_equal(rejected_of(table, "c1")->wanted, "b.example,c..example");
	route_table_put(&table);
}

static void name_twice_is_one_backend(void **state)
{
	struct route_source s = source(1, "a.example", NULL, 10);
	struct route_table *table;

	(void)state;
	strcpy(s.labels.domains[1], "a.example");
	s.labels.domain_count = 2;
	table = BUILD(s);
	assert_int_equal(route_exact(table, "a.example")->count, 1);
	assert_int_equal(table->rejected_count, 0);
	route_table_put(&table);
}

static void assert_found(const struct route_table *table, const char *host, const char *domain)
{
	const struct route *route = route_find(table, host);

	if (!domain) {
		if (route)
			fail_msg("%s finds %s", host, route->domain);
		return;
	}
	if (!route)
		fail_msg("%s finds nothing", host);
	assert_string_equal(route->domain, domain);
}

static void wildcards(void **state)
{
	struct route_table *table =
		BUILD(source(1, "*.example", NULL, 1), source(2, "*.b.example", NULL, 2),
		      source(3, "c.b.example", NULL, 3), source(4, "example", NULL, 4));

	(void)state;
	assert_found(table, "c.b.example", "c.b.example");
	assert_found(table, "d.b.example", "*.b.example");
	assert_found(table, "x.d.b.example", "*.b.example");
	assert_found(table, "x.c.b.example", "*.b.example");
	assert_found(table, "b.example", "*.example");
	assert_found(table, "a.example", "*.example");
	assert_found(table, "x.y.z.example", "*.example");
	assert_found(table, "example", "example");
	assert_found(table, "xexample", NULL);
	assert_found(table, "other", NULL);
	assert_found(table, "example.other", NULL);
	assert_found(table, "", NULL);
	route_table_put(&table);
}

static void catch_all(void **state)
{
	struct route_table *table = BUILD(source(1, "*", NULL, 1), source(2, "*.example", NULL, 2));

	(void)state;
	assert_found(table, "a.example", "*.example");
	assert_found(table, "example", "*");
	assert_found(table, "other", "*");
	assert_found(table, "192.0.2.1", "*");
	assert_found(table, "::1", "*");
	assert_found(table, "", "*");
	assert_null(route_exact(table, "other"));
	route_table_put(&table);
}

static void longest_name(void **state)
{
	char name[HOSTNAME_MAX + 1];
	struct route_table *table;

	(void)state;
	for (size_t i = 0; i < HOSTNAME_MAX; i++)
		name[i] = i % 2 ? '.' : 'a';
	name[HOSTNAME_MAX] = '\0';
	table = BUILD(source(1, name, NULL, 1), source(2, "*.a", NULL, 2));
	assert_found(table, name, name);
	name[0] = 'b';
	assert_found(table, name, "*.a");
	route_table_put(&table);
}

/* A name without a dot in front must be as good as any other: hashing is no order. */
static void many(void **state)
{
	enum { COUNT = 5000 };
	static const struct route_limits limits = { .routes = COUNT, .backends = COUNT };
	struct route_source *sources = calloc(COUNT, sizeof(*sources));
	struct route_table *table;
	char name[32];

	(void)state;
	for (int i = 0; i < COUNT; i++) {
		snprintf(name, sizeof(name), "n%d.example", i);
		sources[i] = source(i, name, NULL, i);
	}
	table = build_from(sources, COUNT, &limits, NULL);
	assert_int_equal(table->count, COUNT);
	assert_int_equal(table->rejected_count, 0);
	for (int i = 0; i < COUNT; i++) {
		snprintf(name, sizeof(name), "n%d.example", i);
		assert_found(table, name, name);
	}
	assert_found(table, "n5000.example", NULL);
	route_table_put(&table);
	free(sources);
}

static void full_of_routes(void **state)
{
	static const struct route_limits limits = { .routes = 2, .backends = 10 };
	struct route_source sources[] = { source(1, "a.example", "g", 1),
					  source(2, "b.example", NULL, 2),
					  source(3, "c.example", NULL, 3),
					  source(4, "a.example", "g", 4) };
	struct route_table *table = build_from(sources, 4, &limits, NULL);

	(void)state;
	assert_int_equal(table->count, 2);
	assert_int_equal(table->rejected_count, 1);
	assert_int_equal(rejected_of(table, "c3")->refusal, KKM_REJECTED);
	assert_string_equal(rejected_of(table, "c3")->domain, "c.example");
	assert_non_null(strstr(reason_of(table, "c3"), "2"));
	assert_int_equal(route_exact(table, "a.example")->count, 2);
	assert_null(route_find(table, "c.example"));
	route_table_put(&table);
}

static void full_of_backends(void **state)
{
	static const struct route_limits limits = { .routes = 10, .backends = 2 };
	struct route_source sources[] = { source(1, "a.example", "g", 1),
					  source(2, "b.example", NULL, 2),
					  source(3, "c.example", NULL, 3),
					  source(4, "a.example", "g", 4) };
	struct route_table *table = build_from(sources, 4, &limits, NULL);

	(void)state;
	assert_int_equal(table->count, 2);
	assert_int_equal(table->rejected_count, 2);
	assert_non_null(strstr(reason_of(table, "c3"), "kkm_backends is full (2"));
	/* the limit that was hit is the one to be named, or the advice helps nobody */
	if (!strstr(reason_of(table, "c4"), "kkm_backends is full (2"))
		fail_msg("a second replica is told: %s", reason_of(table, "c4"));
	route_table_put(&table);
}

static void full_pool(void **state)
{
	struct route_source sources[ROUTE_MAX_BACKENDS + 1];
	struct route_table *table;

	(void)state;
	for (int i = 0; i <= ROUTE_MAX_BACKENDS; i++)
		sources[i] = source(i, "a.example", "g", i);
	table = build_from(sources, ROUTE_MAX_BACKENDS + 1, &plenty, NULL);
	assert_int_equal(route_exact(table, "a.example")->count, ROUTE_MAX_BACKENDS);
	assert_int_equal(table->rejected_count, 1);
	assert_non_null(strstr(reason_of(table, "c64"), "64"));
	/* --max-routes has nothing to do with it */
	if (strstr(reason_of(table, "c64"), "max-routes"))
		fail_msg("a 65th replica is told: %s", reason_of(table, "c64"));
	route_table_put(&table);
}

static struct route_load *load_at(const struct route_table *table, const char *domain,
				  unsigned int i)
{
	return route_exact(table, domain)->backends[i].load;
}

static void loads_are_carried_over(void **state)
{
	struct route_source a = source(1, "a.example", "g", 1), b = source(2, "a.example", "g", 2);
	struct route_table *first = BUILD(a, b), *second, *third;
	struct route_source list[] = { b, a };

	(void)state;
	atomic_store(&load_at(first, "a.example", 0)->connections, 5);
	atomic_store(&load_at(first, "a.example", 1)->connections, 7);
	assert_int_equal(first->generation, 1);
	second = build_from(list, 2, &plenty, first);
	assert_int_equal(second->generation, 2);
	assert_ptr_equal(load_at(second, "a.example", 0), load_at(first, "a.example", 0));
	assert_ptr_equal(load_at(second, "a.example", 1), load_at(first, "a.example", 1));
	route_table_put(&first);
	assert_int_equal(atomic_load(&load_at(second, "a.example", 0)->connections), 5);
	assert_int_equal(atomic_load(&load_at(second, "a.example", 1)->connections), 7);
	/* the same address, but another container: nobody is connected to it yet */
	strcpy(a.id, "other");
	list[1] = a;
	third = build_from(list, 2, &plenty, second);
	assert_int_equal(atomic_load(&route_backend_at(route_exact(third, "a.example"), &a.address)
					      ->load->connections),
			 0);
	assert_int_equal(atomic_load(&route_backend_at(route_exact(third, "a.example"), &b.address)
					      ->load->connections),
			 7);
	route_table_put(&second);
	route_table_put(&third);
}

/* A connection holds its backend's load longer than any table lives. */
static void load_outlives_its_tables(void **state)
{
	struct route_table *table = BUILD(source(1, "a.example", NULL, 1));
	struct route_load *load = load_at(table, "a.example", 0), *none = NULL;

	(void)state;
	route_load_get(load);
	route_table_put(&table);
	atomic_fetch_add(&load->connections, 1);
	route_load_put(&load);
	assert_null(load);
	route_load_put(&none);
}

static void references(void **state)
{
	struct route_table *table = BUILD(source(1, "a.example", NULL, 1)),
			   *other = route_table_get(table);

	(void)state;
	assert_ptr_equal(other, table);
	route_table_put(&table);
	assert_non_null(route_find(other, "a.example"));
	route_table_put(&other);
}

static void least_connections(void **state)
{
	struct route_table *table =
		BUILD(source(1, "a.example", "g", 1), source(2, "a.example", "g", 2),
		      source(3, "a.example", "g", 3));
	const struct route *route = route_exact(table, "a.example");
	const struct route_backend *b = route->backends;
	unsigned int seen[3] = { 0 };

	(void)state;
	atomic_store(&b[0].load->connections, 2);
	atomic_store(&b[1].load->connections, 1);
	atomic_store(&b[2].load->connections, 2);
	for (unsigned int turn = 0; turn < 10; turn++) {
		const struct route_backend *other = route_pick(route, &b[1], false, turn);

		assert_ptr_equal(route_pick(route, NULL, false, turn), &b[1]);
		assert_true(other == &b[0] || other == &b[2]);
	}
	atomic_store(&b[1].load->connections, 2);
	for (unsigned int turn = 0; turn < 300; turn++)
		seen[route_pick(route, NULL, false, turn) - b]++;
	assert_int_equal(seen[0], 100);
	assert_int_equal(seen[1], 100);
	assert_int_equal(seen[2], 100);
	assert_non_null(route_pick(route, NULL, false, UINT32_MAX));
	route_table_put(&table);
}

static void states(void **state)
{
	static const enum kkm_state all[] = { KKM_ACTIVE, KKM_STARTING, KKM_UNHEALTHY, KKM_PAUSED,
					      KKM_DRAINING };

	(void)state;
	for (size_t i = 0; i < 5; i++) {
		struct route_source s = source(1, "a.example", "g", 1);
		struct route_table *table;
		const struct route *route;

		s.state = all[i];
		table = BUILD(s);
		route = route_exact(table, "a.example");
		assert_int_equal(route->state, all[i]);
		if (all[i] == KKM_ACTIVE)
			assert_ptr_equal(route_pick(route, NULL, false, 0), &route->backends[0]);
		else
			assert_null(route_pick(route, NULL, false, 0));
		assert_null(route_pick(route, &route->backends[0], false, 0));
		assert_ptr_equal(route_backend_at(route, &s.address), &route->backends[0]);
		route_table_put(&table);
	}
}

static void best_state_is_the_routes(void **state)
{
	struct route_source a = source(1, "a.example", "g", 1), b = source(2, "a.example", "g", 2);
	struct sockaddr_storage nowhere;
	struct route_table *table;
	const struct route *route;

	(void)state;
	a.state = KKM_DRAINING;
	b.state = KKM_ACTIVE;
	b.labels.no_sockmap = true;
	strcpy(b.labels.description, "text");
	table = BUILD(a, b);
	route = route_exact(table, "a.example");
	assert_int_equal(route->state, KKM_ACTIVE);
	assert_ptr_equal(route_pick(route, NULL, false, 0), &route->backends[1]);
	assert_true(route->backends[1].no_sockmap);
	assert_false(route->backends[0].no_sockmap);
	assert_string_equal(route->backends[1].description, "text");
	address_parse("10.9.9.9", 80, &nowhere);
	assert_null(route_backend_at(route, &nowhere));
	route_table_put(&table);
}

static void tls_port(void **state)
{
	struct route_source plain = source(1, "a.example", NULL, 1),
			    same = source(2, "b.example", NULL, 1),
			    other = source(3, "c.example", NULL, 1),
			    off = source(4, "d.example", NULL, 1);
	struct route_table *table;

	(void)state;
	same.labels.tls = other.labels.tls = true;
	other.labels.tls_port = 8443;
	off.labels.tls_port = 8443; /* of no use without kakuremichi.tls */
	table = BUILD(plain, same, other, off);
	assert_int_equal(route_exact(table, "a.example")->backends[0].tls_port, 0);
	assert_int_equal(route_exact(table, "b.example")->backends[0].tls_port, 80);
	assert_int_equal(route_exact(table, "c.example")->backends[0].tls_port, 8443);
	assert_int_equal(route_exact(table, "d.example")->backends[0].tls_port, 0);
	/* the plain listener's port is as ever */
	assert_int_equal(address_port(&route_exact(table, "c.example")->backends[0].address), 80);
	assert_false(route_has_tls(route_exact(table, "a.example")));
	assert_true(route_has_tls(route_exact(table, "b.example")));
	assert_true(route_has_tls(route_exact(table, "c.example")));
	assert_false(route_has_tls(route_exact(table, "d.example")));
	route_table_put(&table);
}

/* Replicas may differ in it while a service is being changed. */
static void picked_for_tls(void **state)
{
	struct route_source a = source(1, "a.example", "g", 1), b = source(2, "a.example", "g", 2),
			    c = source(3, "a.example", "g", 3);
	struct route_table *table;
	const struct route *route;

	(void)state;
	b.labels.tls = c.labels.tls = true;
	c.state = KKM_UNHEALTHY;
	table = BUILD(a, b, c);
	route = route_exact(table, "a.example");
	atomic_store(&route->backends[1].load->connections, 5);
	for (unsigned int turn = 0; turn < 10; turn++) {
		assert_ptr_equal(route_pick(route, NULL, false, turn), &route->backends[0]);
		assert_ptr_equal(route_pick(route, NULL, true, turn), &route->backends[1]);
		assert_null(route_pick(route, &route->backends[1], true, turn));
	}
	route_table_put(&table);
	/* known there, though nobody is up: that is no unknown name */
	b.state = KKM_DRAINING;
	table = BUILD(a, b, c);
	route = route_exact(table, "a.example");
	assert_true(route_has_tls(route));
	assert_null(route_pick(route, NULL, true, 0));
	assert_ptr_equal(route_pick(route, NULL, false, 0), &route->backends[0]);
	route_table_put(&table);
}

static void proxy_protocol(void **state)
{
	struct route_source a = source(1, "a.example", "g", 1), b = source(2, "a.example", "g", 2);
	struct route_table *table;

	(void)state;
	b.labels.proxy_protocol = true;
	table = BUILD(a, b);
	assert_false(route_exact(table, "a.example")->backends[0].proxy_protocol);
	assert_true(route_exact(table, "a.example")->backends[1].proxy_protocol);
	route_table_put(&table);
}

/*
 * Two containers in the host's network name the same 127.0.0.1:port. The one that answers is the
 * one that runs: an older that is going must not hide it.
 */
static void same_address_other_container(void **state)
{
	struct route_source old = source(1, "a.example", "g", 1),
			    new = source(2, "a.example", "g", 2);
	struct route_table *table;

	(void)state;
	old.state = KKM_DRAINING;
	new.address = old.address;
	table = BUILD(old, new);
	if (!route_pick(route_exact(table, "a.example"), NULL, false, 0))
		fail_msg("the running container cannot be had");
	route_table_put(&table);
}

/* What has stopped keeps its domain known, unless somebody else wants it: then that one has it. */
static void gone_keeps_its_domain(void **state)
{
	struct route_source old = source(1, "a.example", "g", 1), other = source(2, "a.example", "h", 2),
			    replica = source(3, "a.example", "g", 3);
	struct route_table *table;

	(void)state;
	old.gone = true;
	old.state = KKM_DRAINING;
	table = BUILD(old);
	assert_int_equal(route_exact(table, "a.example")->state, KKM_DRAINING);
	assert_null(route_pick(route_exact(table, "a.example"), NULL, false, 0));
	route_table_put(&table);
	table = BUILD(old, other);
	assert_int_equal(route_exact(table, "a.example")->count, 1);
	assert_string_equal(route_exact(table, "a.example")->backends[0].name, "c2");
	assert_int_equal(table->rejected_count, 0);
	route_table_put(&table);
	table = BUILD(old, replica, other);
	assert_int_equal(route_exact(table, "a.example")->count, 1);
	assert_string_equal(route_exact(table, "a.example")->backends[0].name, "c2");
	assert_int_equal(table->rejected_count, 1);
	route_table_put(&table);
	/* where all is full it is not missed */
	strcpy(other.labels.domains[0], "b.example");
	table = build_from((struct route_source[]){ old, other }, 2,
			   &(struct route_limits){ .routes = 1, .backends = 1 }, NULL);
	assert_int_equal(table->count, 1);
	assert_int_equal(table->rejected_count, 0);
	route_table_put(&table);
	strcpy(other.labels.domains[0], "a.example");
	/* its address is somebody else's by now */
	other.address = old.address;
	strcpy(other.labels.domains[0], "b.example");
	table = BUILD(old, other);
	assert_null(route_pick(route_exact(table, "a.example"), NULL, false, 0));
	assert_string_equal(route_pick(route_exact(table, "b.example"), NULL, false, 0)->name, "c2");
	route_table_put(&table);
}

static bool is_81(void *ctx, const struct sockaddr_storage *address)
{
	++*(unsigned int *)ctx;
	return address_port(address) == 81;
}

static void own_listener(void **state)
{
	struct route_source a = source(1, "a.example", "g", 1), b = source(2, "a.example", "g", 2),
			    c = source(3, "c.example", "h", 3), d = source(4, "d.example", "i", 4);
	unsigned int asked = 0;
	struct route_limits limits = { .routes = 9, .backends = 9, .is_own = is_81, .ctx = &asked };
	struct route_table *table;

	(void)state;
	address_parse("10.0.0.2", 81, &a.address);
	c.labels.tls = true;
	c.labels.tls_port = 81;
	strcpy(c.labels.service, "web");
	memset(&d.address, 0, sizeof(d.address)); /* not known yet */
	table = build_from((struct route_source[]){ a, b, c, d }, 4, &limits, NULL);
	assert_int_equal(asked, 4);
	assert_int_equal(route_exact(table, "a.example")->count, 1);
	assert_string_equal(route_exact(table, "a.example")->backends[0].name, "c2");
	assert_null(route_exact(table, "c.example"));
	assert_non_null(route_exact(table, "d.example"));
	assert_string_equal(rejected_of(table, "c1")->label, "kakuremichi.port");
	assert_string_equal(rejected_of(table, "c3")->label, "kakuremichi.web.tls.port");
	route_table_put(&table);
}

/* Two services of one container that want the same name: the one without a name has it. */
static void services_of_one_container(void **state)
{
	struct route_source plain = source(1, "a.example", "g", 1), web = source(1, "a.example", "g/web", 1);
	struct route_table *table;

	(void)state;
	strcpy(web.labels.service, "web");
	for (int swapped = 0; swapped < 2; swapped++) {
		table = swapped ? BUILD(web, plain) : BUILD(plain, web);
		assert_int_equal(route_exact(table, "a.example")->count, 1);
		assert_string_equal(route_exact(table, "a.example")->backends[0].service, "");
		assert_string_equal(rejected_of(table, "c1")->label, "kakuremichi.web.domain");
		assert_non_null(strstr(reason_of(table, "c1"), "same container"));
		route_table_put(&table);
	}
}

static uint64_t leaving_of(const struct route_load *load)
{
	return atomic_load(&load->leaving_ms);
}

/* Who stops, or is in the table no more, is marked with the first time; who is back is not. */
static void leaving(void **state)
{
	struct route_source a = source(1, "a.example", "g", 1), b = source(2, "a.example", "g", 2);
	struct route_table *first = BUILD(a, b), *second, *third, *fourth;
	struct route_load *load_a = route_exact(first, "a.example")->backends[0].load;
	struct route_load *load_b = route_exact(first, "a.example")->backends[1].load;

	(void)state;
	assert_false(route_mark_leaving(NULL, first, 100));
	a.state = KKM_DRAINING;
	second = build_from((struct route_source[]){ a, b }, 2, &plenty, first);
	assert_true(route_mark_leaving(first, second, 200));
	assert_int_equal(leaving_of(load_a), 200);
	assert_int_equal(leaving_of(load_b), 0);
	third = build_from((struct route_source[]){ a }, 1, &plenty, second);
	assert_true(route_mark_leaving(second, third, 300));
	assert_int_equal(leaving_of(load_a), 200);
	assert_int_equal(leaving_of(load_b), 300);
	a.state = KKM_ACTIVE;
	fourth = build_from((struct route_source[]){ a }, 1, &plenty, third);
	assert_false(route_mark_leaving(third, fourth, 400));
	assert_int_equal(leaving_of(load_a), 0);
	assert_int_equal(leaving_of(load_b), 300);
	/* at another address it is another one */
	address_parse("10.0.9.9", 80, &a.address);
	route_table_put(&third);
	third = build_from(&a, 1, &plenty, fourth);
	assert_true(route_mark_leaving(fourth, third, 500));
	assert_int_equal(leaving_of(load_a), 500);
	assert_int_equal(leaving_of(route_exact(third, "a.example")->backends[0].load), 0);
	route_table_put(&first);
	route_table_put(&second);
	route_table_put(&third);
	route_table_put(&fourth);
}

int main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test(empty),
		cmocka_unit_test(replicas_and_order),
		cmocka_unit_test(older_keeps_the_domain),
		cmocka_unit_test(conflict_is_per_domain),
		cmocka_unit_test(owners),
		cmocka_unit_test(rejected_as_a_whole),
		cmocka_unit_test(name_twice_is_one_backend),
		cmocka_unit_test(wildcards),
		cmocka_unit_test(catch_all),
		cmocka_unit_test(longest_name),
		cmocka_unit_test(many),
		cmocka_unit_test(full_of_routes),
		cmocka_unit_test(full_of_backends),
		cmocka_unit_test(full_pool),
		cmocka_unit_test(loads_are_carried_over),
		cmocka_unit_test(load_outlives_its_tables),
		cmocka_unit_test(references),
		cmocka_unit_test(least_connections),
		cmocka_unit_test(states),
		cmocka_unit_test(best_state_is_the_routes),
		cmocka_unit_test(tls_port),
		cmocka_unit_test(picked_for_tls),
		cmocka_unit_test(proxy_protocol),
		cmocka_unit_test(same_address_other_container),
		cmocka_unit_test(gone_keeps_its_domain),
		cmocka_unit_test(own_listener),
		cmocka_unit_test(services_of_one_container),
		cmocka_unit_test(leaving),
	};

	return cmocka_run_group_tests_name("route", tests, NULL, NULL);
}
