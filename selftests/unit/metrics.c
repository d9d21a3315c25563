// SPDX-License-Identifier: MIT
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <cmocka.h>

#include "metrics.h"

#define DOCS "docs/METRICS.md"
#define BEGIN "<!-- made from the code: selftests/unit/metrics.c -->\n"
#define END "<!-- end -->\n"

static const struct {
	const char *name, *help;
} counters[] = {
#define ENTRY(name, help, ...) { #name, help },
	KKM_STATS(ENTRY)
#undef ENTRY
};

static const char *const several[] = {
#define ENTRY(name, help) "kakuremichi_" #name "_total",
	KKM_METRICS(ENTRY)
#undef ENTRY
};

#define COUNTERS (sizeof(counters) / sizeof(*counters))
#define SEVERAL (sizeof(several) / sizeof(*several))

static struct metrics some(void)
{
	struct metrics metrics = {
		.version = "1.2.3",
		.commit = "abc",
		.engine = KKM_SOCKMAP,
		.ready = true,
		.workers = 2,
		.docker = { true, true },
		.last_event_ms = 1500000,
		.started_ms = 1000001,
		.now_ms = 1502050,
	};
	__u64 *values = (__u64 *)&metrics.stats;

	for (size_t i = 0; i < COUNTERS; i++)
		values[i] = 1000 + i;
	return metrics;
}

static char *print(const struct metrics *metrics)
{
	char *text = metrics_print(metrics);

	assert_non_null(text);
	return text;
}

/* As a whole line, and once. */
static bool has(const char *text, const char *line)
{
	size_t len = strlen(line), count = 0;

	for (const char *at = strstr(text, line); at; at = strstr(at + len, line))
		count += (at == text || at[-1] == '\n') && at[len] == '\n';
	return count == 1;
}

static void has_all_gauges(void **state)
{
	struct metrics metrics = some();
	char *text;

	(void)state;
	metrics.routes[KKM_ACTIVE] = 3;
	metrics.backends[KKM_DRAINING] = 4;
	metrics.rejected = 5;
	metrics.conflicts = 6;
	metrics.containers = 7;
	metrics.docker_events = 11;
	metrics.legs = 8;
	metrics.max_connections = 9;
	metrics.cpu_ms = 12034;
	metrics.memory_bytes = 4096;
	metrics.stats.connections_closed = metrics.stats.connections_accepted - 2;
	text = print(&metrics);
	assert_true(has(text, "kakuremichi_build_info{version=\"1.2.3\",commit=\"abc\"} 1"));
	assert_true(has(text, "kakuremichi_engine{engine=\"relay\"} 0"));
	assert_true(has(text, "kakuremichi_engine{engine=\"sockmap\"} 1"));
	assert_true(has(text, "kakuremichi_ready 1"));
	assert_true(has(text, "process_start_time_seconds 1000.001"));
	assert_true(has(text, "process_cpu_seconds_total 12.034"));
	assert_true(has(text, "process_resident_memory_bytes 4096"));
	assert_true(has(text, "kakuremichi_routes{state=\"active\"} 3"));
	assert_true(has(text, "kakuremichi_routes{state=\"paused\"} 0"));
	assert_true(has(text, "kakuremichi_backends{state=\"draining\"} 4"));
	assert_true(has(text, "kakuremichi_rejected 5"));
	assert_true(has(text, "kakuremichi_conflicts 6"));
	assert_true(has(text, "kakuremichi_docker_enabled 1"));
	assert_true(has(text, "kakuremichi_docker_connected 1"));
	assert_true(has(text, "kakuremichi_docker_containers 7"));
	assert_true(has(text, "kakuremichi_docker_events_total 11"));
	assert_true(has(text, "kakuremichi_docker_last_event_age_seconds 2.050"));
	assert_true(has(text, "kakuremichi_control_enabled 0"));
	assert_true(has(text, "kakuremichi_control_connected 0"));
	assert_true(has(text, "kakuremichi_connections 2"));
	assert_true(has(text, "kakuremichi_upstream_connections 8"));
	assert_true(has(text, "kakuremichi_connections_limit 9"));
	free(text);
}

static void odd_values(void **state)
{
	struct metrics metrics = some();
	char *text;

	(void)state;
	metrics.version = "a\"b\\c\nd{}";
	metrics.last_event_ms = metrics.now_ms + 1; /* the clock was set back */
	metrics.stats.connections_closed = metrics.stats.connections_accepted + 1;
	text = print(&metrics);
	assert_true(has(text, "kakuremichi_build_info{version=\"a\\\"b\\\\c\\nd{}\",commit=\"abc\"} 1"));
	assert_true(has(text, "kakuremichi_docker_last_event_age_seconds 0.000"));
	assert_true(has(text, "kakuremichi_connections 0"));
	free(text);
	metrics.last_event_ms = 0;
	text = print(&metrics);
	assert_true(has(text, "kakuremichi_docker_last_event_age_seconds NaN"));
	free(text);
}

static void each_counter_is_a_series(void **state)
{
	struct metrics metrics = some();
	char series[METRICS_SERIES_MAX], line[METRICS_SERIES_MAX + 32];
	char *text = print(&metrics);

	(void)state;
	for (size_t i = 0; i < COUNTERS; i++) {
		snprintf(line, sizeof(line), "%s %zu", metrics_series(counters[i].name, series),
			 1000 + i);
		if (!has(text, line))
			fail_msg("not there, or twice: %s", line);
	}
	assert_string_equal(metrics_series("answers_404", series),
			    "kakuremichi_errors_total{reason=\"no_route\"}");
	assert_string_equal(metrics_series("short_up_bytes", series),
			    "kakuremichi_bytes_total{engine=\"sockmap\",direction=\"up\"}");
	assert_string_equal(metrics_series("responses_5xx", series),
			    "kakuremichi_responses_total{class=\"5xx\"}");
	assert_string_equal(metrics_series("requests", series), "kakuremichi_requests_total");
	assert_string_equal(metrics_series("nothing", series), "");
	free(text);
}

/* Lines of the text, cut where they end. */
static char *next_line(char **rest)
{
	char *line;

	do
		line = strsep(rest, "\n");
	while (line && !*line);
	return line;
}

/* HELP and TYPE once before all samples of a metric, these together, no series twice. */
static void format(void **state)
{
	struct metrics metrics = some();
	char *text = print(&metrics), *rest = text, *line, metric[128] = "", seen[128][128];
	size_t count = 0, samples = 1;

	(void)state;
	assert_int_equal(text[strlen(text) - 1], '\n');
	while ((line = next_line(&rest))) {
		char name[128];

		if (sscanf(line, "# HELP %127s", name) == 1) {
			assert_true(samples > 0);
			for (size_t i = 0; i < count; i++)
				assert_string_not_equal(seen[i], name);
			assert_true(strlen(line) > strlen("# HELP ") + strlen(name) + 5);
			assert_null(strchr(line, '\\'));
			snprintf(metric, sizeof(metric), "%s", name);
			memcpy(seen[count++], name, sizeof(name));
			assert_true(count < 128);
			line = next_line(&rest);
			assert_int_equal(sscanf(line, "# TYPE %127s", name), 1);
			assert_string_equal(name, metric);
			samples = 0;
			continue;
		}
		assert_int_equal(sscanf(line, "%127[a-z_]", name), 1);
		assert_string_equal(name, metric);
		samples++;
	}
	assert_true(samples > 0);
	free(text);
}

static size_t lines_of(const struct metrics *metrics)
{
	char *text = print(metrics), *at = text;
	size_t count = 0;

	for (; *at; at++)
		count += *at == '\n';
	free(text);
	return count;
}

static void table(void **state)
{
	struct route_backend backends[3] = { { .state = KKM_ACTIVE }, { .state = KKM_PAUSED },
					     { .state = KKM_PAUSED } };
	struct route routes[2] = {
		{ .domain = "a\"}\n.example", .state = KKM_ACTIVE, .count = 2, .backends = backends },
		{ .domain = "b.example", .state = KKM_PAUSED, .count = 1, .backends = backends + 2 },
	};
	struct route_rejected rejected[3] = { { .refusal = KKM_CONFLICT },
					      { .refusal = KKM_REJECTED },
					      { .refusal = KKM_REJECTED } };
	struct route_table whole = { .count = 2, .routes = routes, .rejected_count = 3,
				     .rejected = rejected };
	struct metrics metrics = some();
	size_t lines = lines_of(&metrics);

	(void)state;
	metrics_count_routes(&metrics, &whole);
	assert_int_equal(metrics.routes[KKM_ACTIVE], 1);
	assert_int_equal(metrics.routes[KKM_PAUSED], 1);
	assert_int_equal(metrics.backends[KKM_ACTIVE], 1);
	assert_int_equal(metrics.backends[KKM_PAUSED], 2);
	assert_int_equal(metrics.rejected, 2);
	assert_int_equal(metrics.conflicts, 1);
	assert_int_equal(lines_of(&metrics), lines);
}

static void never_back(void **state)
{
	struct kkm_stats shown = { 0 }, sums = { .requests = 7, .relay_up_bytes = 100,
						 .short_up_bytes = 40 };

	(void)state;
	metrics_advance(&shown, &sums);
	assert_int_equal(shown.requests, 7);
	assert_int_equal(shown.relay_up_bytes, 60);
	assert_int_equal(shown.short_up_bytes, 40);
	/* a program counts before send() returns to the agent, which counts the same then */
	sums.requests = 6;
	sums.short_up_bytes = 60;
	metrics_advance(&shown, &sums);
	assert_int_equal(shown.requests, 7);
	assert_int_equal(shown.relay_up_bytes, 60);
	assert_int_equal(shown.short_up_bytes, 60);
	sums.short_up_bytes = 130;
	metrics_advance(&shown, &sums);
	assert_int_equal(shown.relay_up_bytes, 60);
	sums.relay_up_bytes = 200;
	sums.requests = 8;
	metrics_advance(&shown, &sums);
	assert_int_equal(shown.requests, 8);
	assert_int_equal(shown.relay_up_bytes, 70);
	assert_int_equal(shown.short_up_bytes, 130);
}

/* docs/METRICS.md */

static size_t counter_of(const char *line)
{
	char series[METRICS_SERIES_MAX];
	size_t i = 0;

	for (; i < COUNTERS; i++) {
		size_t len = strlen(metrics_series(counters[i].name, series));

		if (!strncmp(line, series, len) && line[len] == ' ')
			break;
	}
	return i;
}

static bool has_several(const char *metric)
{
	for (size_t i = 0; i < SEVERAL; i++) {
		if (!strcmp(metric, several[i]))
			return true;
	}
	return false;
}

/* Names of labels without their values. */
static void print_label_names(FILE *out, const char *line)
{
	bool value = false;

	for (; *line && *line != ' '; line++) {
		value ^= *line == '"';
		if (!value && *line != '"' && *line != '=')
			fputc(*line, out);
	}
}

static void print_row(FILE *out, const char *metric, const char *type, const char *help,
		      const char *line)
{
	size_t i = counter_of(line);

	if (i < COUNTERS && has_several(metric)) {
		fprintf(out, "| `%.*s` | | `%s` | %s |\n", (int)strcspn(strchr(line, '{'), " "),
			strchr(line, '{'), counters[i].name, counters[i].help);
		return;
	}
	fputs("| `", out);
	print_label_names(out, line);
	fprintf(out, "` | %s | %s%s%s | %s |\n", type, i < COUNTERS ? "`" : "",
		i < COUNTERS ? counters[i].name : "", i < COUNTERS ? "`" : "", help);
}

/* The table as it should be. */
static char *docs_table(void)
{
	struct metrics metrics = some();
	char *text = print(&metrics), *rest = text, *line, *table_text = NULL;
	char metric[128] = "", help[256] = "", type[32] = "";
	bool first = false;
	size_t size;
	FILE *out = open_memstream(&table_text, &size);

	assert_non_null(out);
	fputs(BEGIN "| metric | type | in `stats` | |\n| --- | --- | --- | --- |\n", out);
	while ((line = next_line(&rest))) {
		if (sscanf(line, "# HELP %127s %255[^\n]", metric, help) == 2)
			continue;
		if (sscanf(line, "# TYPE %*s %31s", type) == 1) {
			first = true;
			if (has_several(metric))
				fprintf(out, "| `%s` | %s | | %s |\n", metric, type, help);
			continue;
		}
		if (first || has_several(metric))
			print_row(out, metric, type, help, line);
		first = false;
	}
	fputs(END, out);
	fclose(out);
	free(text);
	return table_text;
}

static void docs(void **state)
{
	char *wanted = docs_table(), *whole = NULL, *begin, *end;
	FILE *file = fopen(DOCS, "r");
	size_t size = 0;

	(void)state;
	assert_non_null(file);
	assert_true(getdelim(&whole, &size, '\0', file) > 0);
	fclose(file);
	begin = strstr(whole, BEGIN);
	end = strstr(whole, END);
	if (!begin || !end || (size_t)(end - begin) + strlen(END) != strlen(wanted) ||
	    strncmp(begin, wanted, strlen(wanted))) {
		fputs(wanted, stdout);
		fail_msg(DOCS " is out of date: the table should be as printed above");
	}
	free(whole);
	free(wanted);
}

/* A metric of the second table is one of several series. */
static void tables_agree(void **state)
{
	char series[METRICS_SERIES_MAX];

	(void)state;
	for (size_t i = 0; i < SEVERAL; i++) {
		size_t count = 0, len = strlen(several[i]);

		for (size_t j = 0; j < COUNTERS; j++) {
			metrics_series(counters[j].name, series);
			count += !strncmp(series, several[i], len) && series[len] == '{';
		}
		assert_true(count > 1);
	}
	for (size_t j = 0; j < COUNTERS; j++) {
		char *brace = strchr(metrics_series(counters[j].name, series), '{');

		if (brace)
			*brace = '\0';
		assert_int_equal(brace != NULL, has_several(series));
	}
}

int main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test(has_all_gauges),
		cmocka_unit_test(odd_values),
		cmocka_unit_test(each_counter_is_a_series),
		cmocka_unit_test(format),
		cmocka_unit_test(table),
		cmocka_unit_test(never_back),
		cmocka_unit_test(tables_agree),
		cmocka_unit_test(docs),
	};

	return cmocka_run_group_tests_name("metrics", tests, NULL, NULL);
}
