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
#include <ftw.h>
#include <sys/stat.h>
#include <unistd.h>

#include "log.h"
#include "routesfile.h"

#define PLENTY 1000

/* The text. */

static struct routesjson parse(const char *text)
{
	struct routesjson out = { .count = 99 };
	struct routesjson_error error;
	int err = routesjson_parse(text, strlen(text), PLENTY, &out, &error);

	if (err)
		fail_msg("%s: line %u: %s", text, error.line, error.reason);
	assert_int_equal(error.line, 0);
	assert_string_equal(error.reason, "");
	return out;
}

static const char *target_of(const struct routesjson *routes, unsigned int i)
{
	static char text[ADDRESS_TEXT_MAX];

	assert_true(i < routes->count);
	return address_print(&routes->sources[i].address, text);
}

static const char good[] = "{\n"
			   "  \"App.example.com.\": \"127.0.0.1:8080\",\n"
			   "  \"*.example.com\": \"[2001:db8::1]:80\",\n"
			   "  \"b\\u00fccher.example\": [ \"192.0.2.1:1\",\n"
			   "    \"192.0.2.1:65535\" ], \"*\":\"10.0.0.1:80\"\n"
			   "}\n";

static void good_file(void **state)
{
	static const struct {
		const char *domain, *target, *name;
	} expected[] = {
		{ "app.example.com", "127.0.0.1:8080", "file:127.0.0.1:8080" },
		{ "*.example.com", "[2001:db8::1]:80", "file:[2001:db8::1]:80" },
		{ "xn--bcher-kva.example", "192.0.2.1:1", "file:192.0.2.1:1" },
		{ "xn--bcher-kva.example", "192.0.2.1:65535", "file:192.0.2.1:65535" },
		{ "*", "10.0.0.1:80", "file:10.0.0.1:80" },
	};
	struct routesjson routes = parse(good);

	(void)state;
	assert_int_equal(routes.count, 5);
	assert_int_equal(routes.domains, 4);
	for (unsigned int i = 0; i < 5; i++) {
		const struct route_source *source = &routes.sources[i];

		assert_int_equal(source->owner, KKM_FILE);
		assert_int_equal(source->state, KKM_ACTIVE);
		assert_int_equal(source->labels.domain_count, 1);
		assert_string_equal(source->labels.domains[0], expected[i].domain);
		assert_string_equal(source->group, expected[i].domain);
		assert_string_equal(source->via, "given by the routes file");
		assert_string_equal(source->name, expected[i].name);
		assert_string_equal(target_of(&routes, i), expected[i].target);
		assert_string_equal(source->error.reason, "");
		assert_int_equal(source->order, i);
		for (unsigned int j = 0; j < i; j++)
			assert_string_not_equal(source->id, routes.sources[j].id);
	}
	free(routes.sources);
}

static void empty_object(void **state)
{
	struct routesjson routes = parse(" {\n} \n");

	(void)state;
	assert_int_equal(routes.count, 0);
	assert_int_equal(routes.domains, 0);
	free(routes.sources);
}

/* Backends are known by their ids, whatever stands around them. */
static void ids_stay(void **state)
{
	struct routesjson a = parse("{\"a.example\":[\"10.0.0.1:80\",\"10.0.0.2:80\"]}");
	struct routesjson b = parse("{\"b.example\":\"10.0.0.1:80\",\"A.example\":\"10.0.0.2:80\"}");

	(void)state;
	assert_string_equal(a.sources[1].id, b.sources[1].id);
	assert_string_not_equal(a.sources[0].id, b.sources[0].id);
	free(a.sources);
	free(b.sources);
	a = parse("{\"a\":\"10.0.0.1:80\",\"a1\":\"0.0.0.1:80\"}");
	assert_string_not_equal(a.sources[0].id, a.sources[1].id);
	free(a.sources);
}

static void wrong(const char *text, size_t len, unsigned int max, unsigned int line,
		  const char *reason)
{
	struct routesjson out = { .count = 99 };
	struct routesjson_error error;

	assert_int_equal(routesjson_parse(text, len, max, &out, &error), -EINVAL);
	assert_int_equal(out.count, 99);
	if (error.line != line || !strstr(error.reason, reason))
		fail_msg("%s: line %u: %s; expected line %u: %s", text, error.line, error.reason,
			 line, reason);
}

static void every_error(void **state)
{
	static const struct {
		const char *text;
		unsigned int line;
		const char *reason;
	} cases[] = {
		{ "", 1, "is no JSON" },
		{ "\n\n", 2, "is no JSON" },
		{ "[]", 1, "is no object" },
		{ "\n\"x\"", 2, "is no object" },
		{ "null", 1, "is no object" },
		{ "{\n\"a\": \"10.0.0.1:80\",\n}", 3, "is no JSON, or ends early, near '}'" },
		{ "{\n\"a\": \"10.0.0.1:80\",\n}\n\n", 3, "is no JSON, or ends early, near '}'" },
		{ "{\n\"a\": \"10.0.0.1:80\"\n\"b\": \"10.0.0.1:80\"}", 3, "near '\"b\": " },
		{ "{\n\"a\": 10.0.0.1:80}", 2, "is no JSON" },
		{ "{\n\n'a': 'b'}", 3, "near ''a': 'b'}'" },
		{ "{}\n{}", 2, "near '{}'" },
		{ "{}\n# x\n", 2, "near '# x'" },
		{ "{\"a\":\"10.0.0.1:80\",\n\"b\":\"10.0.0.1:80", 2, "is no JSON" },
		/* names */
		{ "{\n\"\":\"10.0.0.1:80\"}", 2, "'' is no host name: it is empty" },
		{ "{\"a\":\"10.0.0.1:80\",\n\n\"b..c\":\"10.0.0.1:80\"}", 3, "empty label" },
		{ "{\n\"a.*.b\":\"10.0.0.1:80\"}", 2, "has a character that no host name has" },
		{ "{\n\"a.example:80\":\"10.0.0.1:80\"}", 2, "no host name" },
		{ "{\n\"http://a\":\"10.0.0.1:80\"}", 2, "no host name" },
		{ "{\n\"\xff\":\"10.0.0.1:80\"}", 2, "internationalised" },
		/* targets: where the value stands */
		{ "{\"a\":\n\"localhost:80\"}", 2, "a: target 'localhost:80' is no address" },
		{ "{\"a\":\n\"web.example.com:80\"}", 2, "names are not looked up" },
		{ "{\"a\":\n\"\"}", 2, "has no port" },
		{ "{\"a\":\n\"127.0.0.1\"}", 2, "has no port" },
		{ "{\"a\":\n\"[::1]\"}", 2, "has no port" },
		{ "{\"a\":\n\"127.0.0.1:\"}", 2, "has no port from 1 to 65535" },
		{ "{\"a\":\n\"127.0.0.1:0\"}", 2, "has no port from 1 to 65535" },
		{ "{\"a\":\n\"127.0.0.1:65536\"}", 2, "has no port from 1 to 65535" },
		{ "{\"a\":\n\"127.0.0.1:80x\"}", 2, "has no port from 1 to 65535" },
		{ "{\"a\":\n\"127.0.0.1:80 \"}", 2, "has no port from 1 to 65535" },
		{ "{\"a\":\n\":80\"}", 2, "is no address" },
		{ "{\"a\":\n\"[]:80\"}", 2, "is no address" },
		{ "{\"a\":\n\"[:80\"}", 2, "has no port" },
		{ "{\"a\":\n\"::1:80\"}", 2, "without brackets" },
		{ "{\"a\":\n\"[127.0.0.1]:80\"}", 2, "is no address" },
		{ "{\"a\":\n\"[fe80::1%eth0]:80\"}", 2, "is no address" },
		{ "{\"a\":\n\"1.2.3:80\"}", 2, "is no address" },
		{ "{\"a\":\n\"0.0.0.0:80\"}", 2, "nobody's address" },
		{ "{\"a\":\n\"[0::0]:80\"}", 2, "nobody's address" },
		{ "{\"a\":\n\"[::ffff:127.0.0.1]:80\"}", 2, "is an IPv4 address" },
		{ "{\"a\":\n\"http://10.0.0.1:80\"}", 2, "is a URL" },
		{ "{\"a\":\n\"10.0.0.1:80\n\"}", 2, "target '10.0.0.1:80?'" },
		{ "{\"a\":\n80}", 2, "a target is a string" },
		{ "{\"a\":\nnull}", 2, "a target is a string" },
		{ "{\"a\":\n{\"target\":\"10.0.0.1:80\"}}", 2, "a target is a string" },
		/* lists: where the element stands, behind members that are good */
		{ "{\"a\":\n[]}", 2, "no target in its list" },
		{ "{\"b\" : [\"10.0.0.1:80\" , \"10.0.0.2:80\"],\"\\u0063\":\"10.0.0.1:80\",\"a\":\n[\n"
		  "\"10.0.0.1:80\"\n,\n\n\"x\"]}", 6, "a: target 'x' has no port" },
		{ "{\"a\":[\"10.0.0.1:80\",\n[\"10.0.0.1:80\"]]}", 2, "a target is a string" },
		{ "{\"a\":[\"10.0.0.1:80\",\n\"10.0.0.1:80\"]}", 2, "is there twice" },
		/* twice: the line of the second, and the first's */
		{ "{\"b\":\"10.0.0.1:80\",\n\"a\":\"10.0.0.1:80\",\n\"c\":\"10.0.0.1:80\",\n"
		  "\"A.\":\"10.0.0.1:80\"}", 4, "a is there twice: in line 2 too" },
		{ "{\"z\":\"10.0.0.1:80\",\n\"a\":\"10.0.0.1:80\",\n\"z\":\"10.0.0.2:80\",\n"
		  "\"a\":\"10.0.0.1:80\"}", 3, "z is there twice: in line 1 too" },
		{ "{\"a\":\"10.0.0.1:80\",\n\"z\":\"10.0.0.1:80\",\n\"a\":\"10.0.0.2:80\",\n"
		  "\"z\":\"10.0.0.1:80\"}", 3, "a is there twice: in line 1 too" },
		{ "{\"a\":\"10.0.0.1:80\",\n\"a\\u0000\":\"10.0.0.1:80\"}", 2, "NUL" },
	};

	(void)state;
	for (size_t i = 0; i < sizeof(cases) / sizeof(*cases); i++)
		wrong(cases[i].text, strlen(cases[i].text), PLENTY, cases[i].line,
		      cases[i].reason);
	wrong("{}\n\0", 4, PLENTY, 2, "NUL");
}

/* The limit is of targets; what follows it is not read. */
static void limits(void **state)
{
	static const char three[] = "{\"a\":\"10.0.0.1:1\",\n\"b\":[\"10.0.0.1:1\",\n\"10.0.0.1:2\"]}";
	static char many[(ROUTE_MAX_BACKENDS + 2) * 24];
	struct routesjson routes;
	size_t len = 0;

	(void)state;
	wrong(three, strlen(three), 2, 3, "more than 2 targets: raise --max-routes");
	wrong(three, strlen(three), 1, 2, "more than 1 targets: raise --max-routes");
	for (int i = 1; i <= ROUTE_MAX_BACKENDS + 1; i++)
		len += (size_t)sprintf(many + len, "%s\"10.0.0.1:%d\"", i == 1 ? "{\"a\":[" : ",\n", i);
	strcpy(many + len, "]}");
	wrong(many, len + 2, PLENTY, ROUTE_MAX_BACKENDS + 1, "a: more than 64 targets");
	strcpy(strrchr(many, ','), "]}");
	routes = parse(many);
	assert_int_equal(routes.count, ROUTE_MAX_BACKENDS);
	free(routes.sources);
}

/* No beginning of a file is taken for one. */
static void every_prefix(void **state)
{
	unsigned int lines = 1;

	(void)state;
	for (size_t len = 0; len < sizeof(good) - 2; len++) {
		/* of its own size, so that reading behind its end is seen */
		char *text = malloc(len + !len);
		struct routesjson_error error;
		struct routesjson out;

		memcpy(text, good, len);
		assert_int_equal(routesjson_parse(text, len, PLENTY, &out, &error), -EINVAL);
		assert_in_range(error.line, lines > 1 ? lines - 1 : 1, lines);
		assert_string_not_equal(error.reason, "");
		lines += good[len] == '\n';
		free(text);
	}
}

/* The file. */

static struct loop *loop;
static struct routesfile *file;
static char dir[] = "/tmp/kkm-routesfile-XXXXXX";
static char before[sizeof(dir)];
static unsigned int changes;

static int remove_one(const char *path, const struct stat *st, int type, struct FTW *ftw)
{
	(void)st, (void)type, (void)ftw;
	return remove(path);
}

static int setup(void **state)
{
	(void)state;
	alarm(30); /* a change that is not seen fails the test */
	log_setup(LOG_LEVEL_ERROR, LOG_FORMAT_JSON);
	strcpy(before, dir);
	changes = 0;
	return !mkdtemp(dir) || chdir(dir) || loop_new(&loop) ? -1 : 0;
}

static int teardown(void **state)
{
	(void)state;
	routesfile_free(&file);
	loop_free(&loop);
	nftw(dir, remove_one, 8, FTW_DEPTH | FTW_PHYS);
	strcpy(dir, before);
	alarm(0);
	return chdir("/");
}

static void changed(void *ctx)
{
	assert_ptr_equal(ctx, dir);
	changes++;
	loop_stop(loop);
}

static void stop_now(struct loop_timer *timer)
{
	(void)timer;
	loop_stop(loop);
}

/* In place, as `>` of a shell. */
static void write_file(const char *path, const char *text)
{
	FILE *out = fopen(path, "we");

	assert_non_null(out);
	fputs(text, out);
	assert_int_equal(fclose(out), 0);
}

static void write_routes(const char *path, const char *domain)
{
	char text[128];

	snprintf(text, sizeof(text), "{\"%s\":\"10.0.0.1:80\"}", domain);
	write_file(path, text);
}

static void open_file(const char *path)
{
	struct routesfile_options options = {
		.path = path, .max_targets = PLENTY, .changed = changed, .ctx = dir
	};

	assert_int_equal(routesfile_new(loop, &options, &file), 0);
}

static void assert_routed(const char *domain)
{
	const struct route_source **sources;
	size_t count;

	assert_int_equal(routesfile_sources(file, &sources, &count), 0);
	assert_int_equal(count, domain ? 1 : 0);
	if (domain)
		assert_string_equal(sources[0]->labels.domains[0], domain);
	free(sources);
}

/* The change is told once, and this is what it was. */
static void expect_routed(const char *domain)
{
	unsigned int had = changes;

	loop_run(loop);
	assert_int_equal(changes, had + 1);
	assert_routed(domain);
}

static const char *error_now(void)
{
	static struct routesfile_status status;

	routesfile_status(file, &status);
	return status.error;
}

static void turn(uint64_t ms)
{
	struct loop_timer timer = { .fire = stop_now };

	loop_timer_set(loop, &timer, ms);
	loop_run(loop);
}

/* There is nothing to tell: looked at until the error is this. */
static void expect_error(const char *error)
{
	unsigned int had = changes;

	while (!strstr(error_now(), error) || !*error != !*error_now())
		turn(5);
	assert_int_equal(changes, had);
}

static void in_place_and_renamed(void **state)
{
	(void)state;
	write_routes("routes.json", "a.example");
	open_file("routes.json");
	assert_routed("a.example");
	assert_int_equal(changes, 0);
	write_routes("routes.json", "b.example");
	expect_routed("b.example");
	for (int i = 0; i < 2; i++) {
		write_routes("new", i ? "d.example" : "c.example");
		assert_int_equal(rename("new", "routes.json"), 0);
		expect_routed(i ? "d.example" : "c.example");
	}
	write_file("routes.json", "{}");
	expect_routed(NULL);
}

static uint64_t since(void)
{
	struct routesfile_status status;

	routesfile_status(file, &status);
	return status.since_ms;
}

/* What is wrong is said once, however often it is found. */
static void said_once(void **state)
{
	uint64_t first;

	(void)state;
	write_file("routes.json", "{");
	open_file("routes.json");
	first = since();
	assert_int_not_equal(first, 0);
	write_file("routes.json", " {");
	assert_int_equal(chmod("routes.json", 0600), 0);
	turn(120);
	assert_string_equal(error_now(), "line 1: is no JSON, or ends early, near '{'");
	assert_int_equal(since(), first);
	write_file("routes.json", "\n{");
	expect_error("line 2: is no JSON, or ends early");
	assert_true(since() > first);
}

static void bad_and_gone(void **state)
{
	(void)state;
	write_routes("routes.json", "a.example");
	open_file("routes.json");
	write_file("routes.json", "{\n\"a\": 1}");
	expect_error("line 2: a: a target is a string");
	assert_routed("a.example");
	write_routes("routes.json", "a.example"); /* as it was: nothing has changed */
	expect_error("");
	assert_int_equal(unlink("routes.json"), 0);
	expect_error(strerror(ENOENT));
	assert_routed("a.example");
	write_routes("routes.json", "b.example");
	expect_routed("b.example");
	assert_string_equal(error_now(), "");
	assert_int_equal(unlink("routes.json"), 0);
	assert_int_equal(mkdir("routes.json", 0755), 0);
	expect_error("is no regular file");
	assert_routed("b.example");
}

/* Nothing of its path is there at the start. */
static void appears_later(void **state)
{
	char path[64];

	(void)state;
	snprintf(path, sizeof(path), "%s/x/y//./z/../routes.json", dir);
	open_file(path);
	assert_routed(NULL);
	assert_string_equal(error_now(), strerror(ENOENT));
	assert_int_equal(mkdir("x", 0755), 0);
	assert_int_equal(mkdir("x/y", 0755), 0);
	write_routes("x/y/routes.json", "a.example");
	assert_int_equal(mkdir("x/y/z", 0755), 0);
	expect_routed("a.example");
	/* a directory on the way is replaced by another */
	assert_int_equal(mkdir("new", 0755), 0);
	assert_int_equal(mkdir("new/z", 0755), 0);
	write_routes("new/routes.json", "b.example");
	assert_int_equal(rename("x/y", "old"), 0);
	assert_int_equal(rename("new", "x/y"), 0);
	expect_routed("b.example");
	write_routes("x/y/routes.json", "c.example");
	expect_routed("c.example");
}

static void swap_link(const char *target, const char *name)
{
	assert_int_equal(symlink(target, "link~"), 0);
	assert_int_equal(rename("link~", name), 0);
}

/* As Kubernetes mounts a ConfigMap, and one link more with an absolute target. */
static void symbolic_links(void **state)
{
	char target[64];

	(void)state;
	assert_int_equal(mkdir("v1", 0755), 0);
	assert_int_equal(mkdir("v2", 0755), 0);
	write_routes("v1/routes.json", "a.example");
	write_routes("v2/routes.json", "b.example");
	swap_link("v1", "..data");
	swap_link("..data/routes.json", "routes.json");
	snprintf(target, sizeof(target), "%s/routes.json", dir);
	assert_int_equal(mkdir("etc", 0755), 0);
	assert_int_equal(symlink(target, "etc/routes.json"), 0);
	open_file("etc/routes.json");
	assert_routed("a.example");
	swap_link("v2", "..data");
	expect_routed("b.example");
	/* the file that the links lead to */
	write_routes("v2/routes.json", "c.example");
	expect_routed("c.example");
	write_routes("new", "d.example");
	assert_int_equal(rename("new", "v2/routes.json"), 0);
	expect_routed("d.example");
	/* the links themselves */
	swap_link("v1/routes.json", "routes.json");
	expect_routed("a.example");
	swap_link("../v2/routes.json", "etc/routes.json");
	expect_routed("d.example");
	swap_link("routes.json", "etc/routes.json");
	expect_error(strerror(ELOOP));
	assert_routed("d.example");
	assert_int_equal(unlink("etc/routes.json"), 0);
	write_routes("etc/routes.json", "e.example");
	expect_routed("e.example");
}

/* More directories than are watched: it is read all the same. */
static void long_way(void **state)
{
	char path[512] = "";

	(void)state;
	assert_int_equal(mkdir("x", 0755), 0);
	for (int i = 0; i < 40; i++)
		strcat(path, "x/../");
	strcat(path, "routes.json");
	write_routes("routes.json", "a.example");
	open_file(path);
	assert_routed("a.example");
	assert_string_equal(error_now(), "");
}

/* By another name: only the file itself tells. So it is for one that is mounted alone. */
static void written_by_another_name(void **state)
{
	(void)state;
	write_routes("routes.json", "a.example");
	assert_int_equal(mkdir("other", 0755), 0);
	assert_int_equal(link("routes.json", "other/name"), 0);
	open_file("routes.json");
	write_routes("other/name", "b.example");
	expect_routed("b.example");
}

/* Others' files beside it are nothing to look for, and neither is a write before its close. */
static void neighbours(void **state)
{
	FILE *out;

	(void)state;
	write_routes("routes.json", "a.example");
	open_file("routes.json");
	out = fopen("routes.json", "r+e");
	assert_non_null(out);
	fputs("{\"b.example\":\"10.0.0.1:80\"}", out);
	fflush(out);
	write_routes("routes.json~", "c.example");
	assert_int_equal(rename("routes.json~", "neighbour"), 0);
	assert_int_equal(unlink("neighbour"), 0);
	turn(120);
	assert_int_equal(changes, 0);
	assert_routed("a.example");
	fclose(out);
	expect_routed("b.example");
}

static void checked(void **state)
{
	struct routesjson_error error;
	unsigned int routes = 0;

	(void)state;
	assert_int_equal(routesfile_check("routes.json", PLENTY, &routes, &error), -ENOENT);
	assert_string_equal(error.reason, strerror(ENOENT));
	write_file("routes.json", good);
	assert_int_equal(routesfile_check("routes.json", PLENTY, &routes, &error), 0);
	assert_int_equal(routes, 4);
	assert_int_equal(routesfile_check("routes.json", 2, &routes, &error), -EINVAL);
	assert_int_equal(error.line, 4);
	assert_int_equal(mkfifo("fifo", 0644), 0);
	assert_int_equal(routesfile_check("fifo", PLENTY, &routes, &error), -EINVAL);
	assert_string_equal(error.reason, "is no regular file");
	assert_int_equal(truncate("routes.json", (16 << 20) + 1), 0);
	assert_int_equal(routesfile_check("routes.json", PLENTY, &routes, &error), -EINVAL);
	assert_string_equal(error.reason, "is larger than 16 MiB");
	assert_int_equal(error.line, 0);
}

int main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test(good_file),
		cmocka_unit_test(empty_object),
		cmocka_unit_test(ids_stay),
		cmocka_unit_test(every_error),
		cmocka_unit_test(limits),
		cmocka_unit_test(every_prefix),
		cmocka_unit_test_setup_teardown(in_place_and_renamed, setup, teardown),
		cmocka_unit_test_setup_teardown(said_once, setup, teardown),
		cmocka_unit_test_setup_teardown(bad_and_gone, setup, teardown),
		cmocka_unit_test_setup_teardown(appears_later, setup, teardown),
		cmocka_unit_test_setup_teardown(symbolic_links, setup, teardown),
		cmocka_unit_test_setup_teardown(long_way, setup, teardown),
		cmocka_unit_test_setup_teardown(written_by_another_name, setup, teardown),
		cmocka_unit_test_setup_teardown(neighbours, setup, teardown),
		cmocka_unit_test_setup_teardown(checked, setup, teardown),
	};

	return cmocka_run_group_tests(tests, NULL, NULL);
}
