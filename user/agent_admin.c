// SPDX-License-Identifier: MIT
#include "agent_impl.h"

#include <errno.h>
#include <netinet/in.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/resource.h>
#include <sys/socket.h>
#include <time.h>
#include <unistd.h>

#include "json.h"
#include "metrics.h"
#include "text.h"
#include "version.h"

static uint64_t realtime_ms(void)
{
	struct timespec now;

	clock_gettime(CLOCK_REALTIME, &now);
	return (uint64_t)now.tv_sec * 1000 + (uint64_t)now.tv_nsec / 1000000;
}

static void add_time(struct json *object, const char *name, uint64_t ms)
{
	char text[TEXT_TIME_MAX];

	json_add_str(object, name, ms ? text_time(ms, text) : NULL);
}

static bool is_ready(const struct agent *agent, const char **why)
{
	struct docker_status docker = { .ready = true, .connected = true };
	struct routesfile_status file = { .routes = 0 };

	if (agent->docker)
		docker_status(agent->docker, &docker);
	if (agent->routes_file)
		routesfile_status(agent->routes_file, &file);
	if (agent->draining)
		*why = "draining";
	else if (agent->config->http.count && !agent->http_count)
		*why = "no listener could be bound";
	else if (!docker.ready)
		*why = "Docker has not been read yet";
	else if (!docker.connected)
		*why = "ready; Docker is not connected, routes stay";
	else
		*why = *file.error ? "ready; the routes file is not taken as it is" : "ready";
	return !agent->draining && docker.ready &&
	       (!agent->config->http.count || agent->http_count);
}

void agent_fill_notify(void *ctx, struct notify_state *out)
{
	const struct agent *agent = ctx;
	const char *why;

	out->ready = is_ready(agent, &why);
	out->stopping = agent->draining;
	out->stop_ms = agent->config->drain_timeout_ms;
	snprintf(out->status, sizeof(out->status), "%s; %u domains, engine %s", why,
		 agent->table->count, text_engine(agent->shared.engine));
}

static void add_docker(const struct agent *agent, struct json *root)
{
	struct json *object = json_add_object(root, "docker");
	struct docker_status status = { .ready = true };

	if (agent->docker)
		docker_status(agent->docker, &status);
	json_add_bool(object, "enabled", agent->docker);
	json_add_bool(object, "connected", status.connected);
	add_time(object, "since", status.since_ms);
	json_add_str(object, "server", *status.engine ? status.engine : NULL);
	json_add_str(object, "api_version", *status.version ? status.version : NULL);
	json_add_int(object, "streams_renewed", (int64_t)status.renewals);
	json_add_int(object, "containers", status.containers);
	json_add_str(object, "error", *status.error ? status.error : NULL);
}

static void add_routes_file(const struct agent *agent, struct json *root)
{
	struct routesfile_status status;
	struct json *object;

	if (!agent->routes_file) {
		json_add_null(root, "routes_file");
		return;
	}
	routesfile_status(agent->routes_file, &status);
	object = json_add_object(root, "routes_file");
	json_add_str(object, "path", status.path);
	json_add_int(object, "routes", status.routes);
	add_time(object, "since", status.since_ms);
	json_add_str(object, "error", *status.error ? status.error : NULL);
}

static void add_listeners(const struct agent *agent, struct json *root)
{
	struct json *array = json_add_array(root, "listeners");
	char text[ADDRESS_TEXT_MAX];

	for (unsigned int i = 0; i < agent->listen_count; i++) {
		struct json *object = json_append_object(array);

		json_add_str(object, "address", address_print(&agent->bound[i].address, text));
		json_add_str(object, "protocol", agent->bound[i].tls ? "tls" : "http");
	}
}

static void add_counts(const struct agent *agent, struct json *root)
{
	struct json *counts = json_add_object(root, "counts");
	uint64_t accepted = 0, closed = 0, requests = 0;
	unsigned int backends = 0;

	for (unsigned int i = 0; i < agent->config->workers; i++) {
		const struct kkm_stats *stats = agent->workers[i]->stats;

		accepted += __atomic_load_n(&stats->connections_accepted, __ATOMIC_RELAXED);
		closed += __atomic_load_n(&stats->connections_closed, __ATOMIC_RELAXED);
		requests += __atomic_load_n(&stats->requests, __ATOMIC_RELAXED);
	}
	for (unsigned int i = 0; i < agent->table->count; i++)
		backends += agent->table->routes[i].count;
	json_add_int(counts, "routes", agent->table->count);
	json_add_int(counts, "backends", backends);
	json_add_int(counts, "rejected", agent->table->rejected_count);
	json_add_int(counts, "connections", (int64_t)(accepted - closed));
	json_add_int(counts, "connections_accepted", (int64_t)accepted);
	json_add_int(counts, "requests", (int64_t)requests);
}

static char *status_json(const struct agent *agent)
{
	struct json *root = json_object(), *control;
	const char *why;
	char *text;

	json_add_int(root, "schema", 1);
	json_add_bool(root, "running", true);
	json_add_bool(root, "ready", is_ready(agent, &why));
	json_add_str(root, "state", why);
	json_add_int(root, "pid", getpid());
	json_add_str(root, "version", version_number);
	json_add_str(root, "engine", text_engine(agent->shared.engine));
	json_add_str(root, "engine_reason", agent->engine_reason);
	json_add_str(root, "datapath", config_datapath_names[agent->config->datapath]);
	add_time(root, "since", agent->started_ms);
	json_add_int(root, "workers", agent->config->workers);
	add_listeners(agent, root);
	add_docker(agent, root);
	add_routes_file(agent, root);
	control = json_add_object(root, "control");
	json_add_bool(control, "enabled", false);
	json_add_bool(control, "connected", false);
	json_add_null(control, "since");
	add_counts(agent, root);
	text = json_print(root, false);
	json_free(&root);
	return text;
}

static void sum_stats(const struct agent *agent, struct kkm_stats *sums)
{
	if (agent->datapath) {
		datapath_stats_sum(agent->datapath, sums);
		return;
	}
	*sums = (struct kkm_stats){ 0 };
	for (unsigned int i = 0; i < agent->config->workers; i++) {
		const struct kkm_stats *row = agent->workers[i]->stats;

#define ADD(name, help, ...) sums->name += __atomic_load_n(&row->name, __ATOMIC_RELAXED);
		KKM_STATS(ADD)
#undef ADD
	}
}

static void add_process(const struct agent *agent, struct metrics *metrics)
{
	FILE *file = fopen("/proc/self/statm", "re");
	unsigned long long pages = 0;
	struct rusage usage;

	if (file && fscanf(file, "%*u %llu", &pages) != 1)
		pages = 0;
	if (file)
		fclose(file);
	getrusage(RUSAGE_SELF, &usage);
	metrics->memory_bytes = pages * (uint64_t)sysconf(_SC_PAGESIZE);
	metrics->cpu_ms = (uint64_t)(usage.ru_utime.tv_sec + usage.ru_stime.tv_sec) * 1000 +
			  (uint64_t)(usage.ru_utime.tv_usec + usage.ru_stime.tv_usec) / 1000;
	metrics->started_ms = agent->started_ms;
	metrics->now_ms = realtime_ms();
}

static char *metrics_text(struct agent *agent)
{
	struct docker_status docker = { .ready = true };
	struct kkm_stats sums;
	const char *why;
	struct metrics metrics = {
		.version = version_number,
		.commit = version_commit,
		.engine = agent->shared.engine,
		.ready = is_ready(agent, &why),
		.workers = agent->config->workers,
		.max_connections = agent->config->max_connections,
		.legs = atomic_load(&agent->legs),
	};

	if (agent->docker)
		docker_status(agent->docker, &docker);
	metrics.docker = (struct metrics_peer){ agent->docker, docker.connected };
	metrics.containers = docker.containers;
	metrics.docker_events = docker.events;
	metrics.last_event_ms = docker.last_event_ms;
	metrics_count_routes(&metrics, agent->table);
	add_process(agent, &metrics);
	sum_stats(agent, &sums);
	metrics_advance(&agent->shown, &sums);
	metrics.stats = agent->shown;
	return metrics_print(&metrics);
}

static void on_admin(void *ctx, const char *path, bool local, struct admin_answer *out)
{
	struct agent *agent = ctx;
	const char *why;

	if (!strcmp(path, "/healthz")) {
		out->status = 200;
		out->body = strdup("ok\n");
	} else if (!strcmp(path, "/readyz")) {
		out->status = is_ready(agent, &why) ? 200 : 503;
		if (asprintf(&out->body, "%s\n", why) < 0)
			out->body = NULL;
	} else if (!strcmp(path, "/metrics")) {
		out->body = metrics_text(agent);
		out->status = out->body ? 200 : 503;
		out->type = METRICS_TYPE;
	} else if (!strcmp(path, "/status") && local) {
		out->status = 200;
		out->type = "application/json";
		out->body = status_json(agent);
	}
}

static int listen_tcp(const struct sockaddr_storage *address, int *out)
{
	int fd = socket(address->ss_family, SOCK_STREAM | SOCK_NONBLOCK | SOCK_CLOEXEC, 0);
	int on = 1, err;

	if (fd < 0)
		return -errno;
	setsockopt(fd, SOL_SOCKET, SO_REUSEADDR, &on, sizeof(on));
	if (address->ss_family == AF_INET6)
		setsockopt(fd, IPPROTO_IPV6, IPV6_V6ONLY, &on, sizeof(on));
	if (bind(fd, (const struct sockaddr *)address, address_len(address)) || listen(fd, 64)) {
		err = -errno;
		close(fd);
		return err;
	}
	*out = fd;
	return 0;
}

int agent_open_admin(struct agent *agent)
{
	const struct config_listen *listen = &agent->config->admin;
	char text[ADDRESS_TEXT_MAX];
	int fd, err;

	for (unsigned int i = 0; i < listen->count; i++) {
		err = listen_tcp(&listen->addresses[i], &fd);
		if (!err)
			err = admin_new(agent->loop, fd, false, on_admin, agent, &agent->admins[i]);
		if (!err)
			continue;
		address_print(&listen->addresses[i], text);
		if (listen->asked) {
			log_error("Cannot listen: free the address, or give another with --admin",
				  "address", text, "error", strerror(-err), NULL);
			return -ECANCELED;
		}
		log_warn("No admin address: choose one with --admin", "address", text, "error",
			 strerror(-err), NULL);
	}
	err = admin_listen_unix(agent->config->run_dir, &fd, &agent->made_run_dir);
	if (!err)
		err = admin_new(agent->loop, fd, true, on_admin, agent, &agent->admin_local);
	if (err)
		log_warn("No admin socket, so that `status` will not work: see --run-dir", "path",
			 agent->config->run_dir, "error", strerror(-err), NULL);
	return 0;
}
