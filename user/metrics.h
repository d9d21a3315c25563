/* SPDX-License-Identifier: MIT */
/*
 * What /metrics says, in Prometheus' text format. Pure. How many series there are does not depend on
 * containers, domains or clients.
 */
#ifndef KKM_METRICS_H
#define KKM_METRICS_H

#include <stdbool.h>
#include <stdint.h>

#include "kakuremichi.h"
#include "route.h"

#define METRICS_TYPE "text/plain; version=0.0.4; charset=utf-8"
#define METRICS_STATES (KKM_DRAINING + 1)

struct metrics_peer {
	bool enabled, connected;
};

struct metrics {
	struct kkm_stats stats; /* as metrics_advance() has them */
	const char *version, *commit;
	enum kkm_engine engine;
	bool ready;
	unsigned int workers, max_connections, legs;
	unsigned int routes[METRICS_STATES], backends[METRICS_STATES], rejected, conflicts;
	struct metrics_peer docker, control;
	unsigned int containers;
	uint64_t last_event_ms, started_ms, now_ms; /* CLOCK_REALTIME; last_event_ms may be 0: none */
	uint64_t docker_events, cpu_ms, memory_bytes;
};

/* Fill in what the table tells. */
void metrics_count_routes(struct metrics *metrics, const struct route_table *table);

/*
 * Bring `shown`, which has been shown or is zero, up to `sums`. Counters are read while they are written,
 * and one is a difference: none goes back. What sockmap has carried up is no longer part of
 * relay_up_bytes then, as the agent counts whatever it sends.
 */
void metrics_advance(struct kkm_stats *shown, const struct kkm_stats *sums);

/* The text, malloced; NULL where there is no memory. */
char *metrics_print(const struct metrics *metrics);

/* The name of a counter's metric with its labels, as in the text; returns out. */
#define METRICS_SERIES_MAX 128
const char *metrics_series(const char *counter, char out[METRICS_SERIES_MAX]);

#endif
