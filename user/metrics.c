// SPDX-License-Identifier: MIT
#include "metrics.h"

#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "text.h"

#define PREFIX "kakuremichi_"

static const struct counter {
	const char *name, *help;
	const char *series[2]; /* metric and labels; NULL: the metric has the counter's name */
} counters[] = {
#define ENTRY(name_, help_, ...) { .name = #name_, .help = help_, .series = { __VA_ARGS__ } },
	KKM_STATS(ENTRY)
#undef ENTRY
};

static const struct {
	const char *name, *help;
} several[] = {
#define ENTRY(name, help) { #name, help },
	KKM_METRICS(ENTRY)
#undef ENTRY
};

#define COUNTERS (sizeof(counters) / sizeof(*counters))
#define SEVERAL (sizeof(several) / sizeof(*several))

_Static_assert(sizeof(struct kkm_stats) == COUNTERS * sizeof(__u64), "nothing but counters");

void metrics_count_routes(struct metrics *metrics, const struct route_table *table)
{
	for (unsigned int i = 0; i < table->count; i++) {
		const struct route *route = &table->routes[i];

		metrics->routes[route->state]++;
		for (unsigned int j = 0; j < route->count; j++)
			metrics->backends[route->backends[j].state]++;
	}
	for (unsigned int i = 0; i < table->rejected_count; i++) {
		if (table->rejected[i].refusal == KKM_CONFLICT)
			metrics->conflicts++;
		else
			metrics->rejected++;
	}
}

void metrics_advance(struct kkm_stats *shown, const struct kkm_stats *sums)
{
	struct kkm_stats now = *sums;

	now.relay_up_bytes -= now.short_up_bytes < now.relay_up_bytes ? now.short_up_bytes
								      : now.relay_up_bytes;
#define ADVANCE(name, help, ...)                                                                   \
	if (now.name > shown->name)                                                                \
		shown->name = now.name;
	KKM_STATS(ADVANCE)
#undef ADVANCE
}

/* The format's escapes, of a label's value. */
static void print_value(FILE *out, const char *value)
{
	fputc('"', out);
	for (; *value; value++) {
		if (*value == '\n')
			fputs("\\n", out);
		else if (*value == '"' || *value == '\\')
			fprintf(out, "\\%c", *value);
		else
			fputc(*value, out);
	}
	fputc('"', out);
}

static void print_label(FILE *out, const char *before, const char *name, const char *value)
{
	fprintf(out, "%s%s=", before, name);
	print_value(out, value);
}

/* Labels as the table has them: "engine=relay,direction=up". */
static void print_labels(FILE *out, const char *labels)
{
	char text[METRICS_SERIES_MAX], *rest = text, *label;
	const char *before = "{";

	snprintf(text, sizeof(text), "%s", labels);
	while ((label = strsep(&rest, ","))) {
		const char *name = strsep(&label, "=");

		print_label(out, before, name, label ? label : "");
		before = ",";
	}
	fputc('}', out);
}

static void print_head(FILE *out, const char *prefix, const char *name, const char *suffix,
		       const char *type, const char *help)
{
	fprintf(out, "# HELP %s%s%s %s\n# TYPE %s%s%s %s\n", prefix, name, suffix, help, prefix,
		name, suffix, type);
}

/* Counters. */

static const char *metric_of(const struct counter *counter)
{
	return counter->series[0] ? counter->series[0] : counter->name;
}

static const char *help_of(const struct counter *counter)
{
	for (size_t i = 0; counter->series[0] && i < SEVERAL; i++) {
		if (!strcmp(several[i].name, counter->series[0]))
			return several[i].help;
	}
	return counter->help;
}

static void print_series(FILE *out, const struct counter *counter)
{
	fprintf(out, PREFIX "%s_total", metric_of(counter));
	if (counter->series[0])
		print_labels(out, counter->series[1]);
}

/* All of one metric together, where its first counter stands. */
static void print_metric(FILE *out, const struct kkm_stats *stats, size_t first)
{
	const char *metric = metric_of(&counters[first]);

	for (size_t i = 0; i < first; i++) {
		if (!strcmp(metric_of(&counters[i]), metric))
			return;
	}
	print_head(out, PREFIX, metric, "_total", "counter", help_of(&counters[first]));
	for (size_t i = first; i < COUNTERS; i++) {
		if (strcmp(metric_of(&counters[i]), metric))
			continue;
		print_series(out, &counters[i]);
		fprintf(out, " %llu\n", ((const __u64 *)stats)[i]);
	}
}

const char *metrics_series(const char *counter, char out[METRICS_SERIES_MAX])
{
	FILE *stream = fmemopen(out, METRICS_SERIES_MAX, "w");

	*out = '\0';
	for (size_t i = 0; stream && i < COUNTERS; i++) {
		if (!strcmp(counters[i].name, counter))
			print_series(stream, &counters[i]);
	}
	if (stream)
		fclose(stream);
	return out;
}

/* Gauges. */

static void gauge(FILE *out, const char *name, const char *help, uint64_t value)
{
	print_head(out, PREFIX, name, "", "gauge", help);
	fprintf(out, PREFIX "%s %llu\n", name, (unsigned long long)value);
}

static void print_seconds(FILE *out, const char *name, uint64_t ms)
{
	fprintf(out, "%s %llu.%03llu\n", name, (unsigned long long)ms / 1000,
		(unsigned long long)ms % 1000);
}

static void by_state(FILE *out, const char *name, const char *help,
		     const unsigned int counts[METRICS_STATES])
{
	print_head(out, PREFIX, name, "", "gauge", help);
	for (int i = 0; i < METRICS_STATES; i++) {
		fprintf(out, PREFIX "%s", name);
		print_label(out, "{", "state", text_state((enum kkm_state)i));
		fprintf(out, "} %u\n", counts[i]);
	}
}

static void print_build(FILE *out, const struct metrics *metrics)
{
	print_head(out, PREFIX, "build_info", "", "gauge", "1, with version and commit");
	print_label(out, PREFIX "build_info{", "version", metrics->version);
	print_label(out, ",", "commit", metrics->commit);
	fputs("} 1\n", out);
	print_head(out, PREFIX, "engine", "", "gauge", "1 for the engine that new connections try first");
	for (int i = 0; i < KKM_HANDOVER; i++) {
		print_label(out, PREFIX "engine{", "engine", text_engine((enum kkm_engine)i));
		fprintf(out, "} %d\n", (int)metrics->engine == i);
	}
	gauge(out, "ready", "1 while /readyz is 200", metrics->ready);
	gauge(out, "workers", "threads that carry connections", metrics->workers);
}

static void print_routes(FILE *out, const struct metrics *metrics)
{
	by_state(out, "routes", "domains, by the best state of their containers", metrics->routes);
	by_state(out, "backends", "containers of domains, each once a domain, by state",
		 metrics->backends);
	gauge(out, "rejected", "containers and domains that are not routed: see `routes`",
	      metrics->rejected);
	gauge(out, "conflicts", "domains of a container that belong to an older one",
	      metrics->conflicts);
}

static void print_connections(FILE *out, const struct metrics *metrics)
{
	const struct kkm_stats *stats = &metrics->stats;
	uint64_t open = stats->connections_accepted > stats->connections_closed
				? stats->connections_accepted - stats->connections_closed
				: 0;

	gauge(out, "connections", "client connections that are open", open);
	gauge(out, "connections_limit", "at so many, accepting pauses", metrics->max_connections);
	gauge(out, "upstream_connections", "connections to containers that are open, idle ones too",
	      metrics->legs);
}

static void print_peers(FILE *out, const struct metrics *metrics)
{
	const char *age = PREFIX "docker_last_event_age_seconds";
	uint64_t at_ms = metrics->last_event_ms;

	gauge(out, "docker_enabled", "1 where containers are discovered", metrics->docker.enabled);
	gauge(out, "docker_connected", "1 while Docker's events are heard and its list is applied",
	      metrics->docker.connected);
	gauge(out, "docker_containers", "containers with labels of ours", metrics->containers);
	print_head(out, PREFIX, "docker_events", "_total", "counter",
		   "Docker's events that may change a route");
	fprintf(out, PREFIX "docker_events_total %llu\n", (unsigned long long)metrics->docker_events);
	print_head(out, "", age, "", "gauge", "seconds since Docker's last event; NaN before the first");
	if (at_ms)
		print_seconds(out, age, metrics->now_ms > at_ms ? metrics->now_ms - at_ms : 0);
	else
		fprintf(out, "%s NaN\n", age);
	gauge(out, "control_enabled", "1 where there is a Control", metrics->control.enabled);
	gauge(out, "control_connected", "1 while connected to it", metrics->control.connected);
}

static void print_process(FILE *out, const struct metrics *metrics)
{
	print_head(out, "", "process_start_time_seconds", "", "gauge",
		   "when the agent started, in seconds since the epoch");
	print_seconds(out, "process_start_time_seconds", metrics->started_ms);
	print_head(out, "", "process_cpu_seconds_total", "", "counter",
		   "user and system time of the agent");
	print_seconds(out, "process_cpu_seconds_total", metrics->cpu_ms);
	print_head(out, "", "process_resident_memory_bytes", "", "gauge",
		   "memory of the agent, without buffers of its sockets");
	fprintf(out, "process_resident_memory_bytes %llu\n",
		(unsigned long long)metrics->memory_bytes);
}

char *metrics_print(const struct metrics *metrics)
{
	char *text = NULL;
	size_t size;
	FILE *out = open_memstream(&text, &size);
	bool whole;

	if (!out)
		return NULL;
	print_build(out, metrics);
	print_process(out, metrics);
	print_routes(out, metrics);
	print_peers(out, metrics);
	print_connections(out, metrics);
	for (size_t i = 0; i < COUNTERS; i++)
		print_metric(out, &metrics->stats, i);
	whole = !ferror(out);
	if (fclose(out) || !whole) {
		free(text);
		return NULL;
	}
	return text;
}
