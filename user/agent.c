// SPDX-License-Identifier: MIT
#include "agent.h"

#include <errno.h>
#include <netinet/in.h>
#include <signal.h>
#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/resource.h>
#include <sys/signalfd.h>
#include <sys/socket.h>
#include <time.h>
#include <unistd.h>

#include "admin.h"
#include "docker.h"
#include "json.h"
#include "metrics.h"
#include "notify.h"
#include "routesfile.h"
#include "selftest.h"
#include "text.h"
#include "version.h"
#include "worker.h"

#define SPARE_FILES 256 /* descriptors that are no connection's */
#define FILES_A_CONNECTION 3
#define WATCH_MS 10000
#define FIRST_LIST_MS 60000

struct agent {
	struct config *config;
	struct loop *loop;
	struct http *http;
	struct host *host;
	struct docker *docker;
	struct routesfile *routes_file;
	struct datapath *datapath;
	struct notify *notify;
	struct admin *admin_local, *admins[CONFIG_MAX_LISTEN];
	struct worker_shared shared;
	struct worker *workers[CONFIG_MAX_WORKERS];
	struct route_table *table;
	struct loop_io signals;
	struct loop_timer drain_end, watch, first_list;
	struct worker_socket *listen; /* of each bound address, one for each worker */
	struct agent_listener {
		struct sockaddr_storage address;
		bool tls;
	} bound[2 * CONFIG_MAX_LISTEN]; /* `listen_count` of them */
	unsigned int listen_count, http_count;
	atomic_uint ended, connections, legs;
	bool draining, forced, made_run_dir, chose_sockmap;
	bool waited; /* long enough for Docker's first list */
	char engine_reason[320]; /* why this engine, and no faster one */
	char chosen_reason[320]; /* at the start */
	uint64_t started_ms;
	struct kkm_stats shown; /* by /metrics */
};

static uint64_t realtime_ms(void)
{
	struct timespec now;

	clock_gettime(CLOCK_REALTIME, &now);
	return (uint64_t)now.tv_sec * 1000 + (uint64_t)now.tv_nsec / 1000000;
}

static uint64_t monotonic_ms(void)
{
	struct timespec now;

	clock_gettime(CLOCK_MONOTONIC, &now);
	return (uint64_t)now.tv_sec * 1000 + (uint64_t)now.tv_nsec / 1000000;
}

void agent_complete_config(struct config *config)
{
	static char cgroup[512];
	struct rlimit files = { .rlim_cur = 1024, .rlim_max = 1024 };
	long cpus = sysconf(_SC_NPROCESSORS_ONLN);
	rlim_t usable;

	if (!config->workers)
		config->workers = cpus < 1	  ? 1
				  : cpus > CONFIG_MAX_WORKERS ? CONFIG_MAX_WORKERS
							      : (unsigned int)cpus;
	getrlimit(RLIMIT_NOFILE, &files);
	files.rlim_cur = files.rlim_max;
	setrlimit(RLIMIT_NOFILE, &files);
	usable = files.rlim_cur > SPARE_FILES ? files.rlim_cur - SPARE_FILES : 1;
	if (usable > FILES_A_CONNECTION * 1000000)
		usable = FILES_A_CONNECTION * 1000000;
	if (!config->max_connections)
		config->max_connections = (unsigned int)(usable / FILES_A_CONNECTION + 1);
	/* a client may have several: half of what the clients leave, the rest is for pipes */
	config->max_legs = config->max_connections;
	if (usable > config->max_connections &&
	    (usable - config->max_connections) / 2 > config->max_legs)
		config->max_legs = (unsigned int)((usable - config->max_connections) / 2);
	if (!config->cgroup && !datapath_find_cgroup_root(cgroup, sizeof(cgroup)))
		config->cgroup = cgroup;
}

/* Routes. */

static bool has_rejected(const struct route_table *table, const struct route_rejected *wanted)
{
	for (unsigned int i = 0; table && i < table->rejected_count; i++) {
		if (!strcmp(table->rejected[i].id, wanted->id) &&
		    !strcmp(table->rejected[i].domain, wanted->domain) &&
		    !strcmp(table->rejected[i].reason, wanted->reason))
			return true;
	}
	return false;
}

enum change { ADDING, CHANGING, REMOVING };

static void log_route(enum change change, const struct route *route)
{
	static const char *const of_docker[] = { "Adding Docker tunnel", "Changing Docker tunnel",
						 "Removing Docker tunnel" };
	static const char *const of_others[] = { "Adding tunnel", "Changing tunnel",
						 "Removing tunnel" };
	bool docker = route->owner == KKM_DOCKER;
	const char *msg = docker ? of_docker[change] : of_others[change];
	const char *owner = docker ? NULL : text_owner(route->owner);
	char target[ADDRESS_TEXT_MAX];

	if (change == REMOVING)
		log_info(msg, "domain", route->domain, "owner", owner, NULL);
	else
		log_info(msg, "domain", route->domain, "target",
			 address_print(&route->backends[0].address, target),
			 docker ? "container" : "name", route->backends[0].name, "#backends",
			 log_number(route->count), "state", text_state(route->state), "owner",
			 owner, NULL);
}

static bool same_route(const struct route *a, const struct route *b)
{
	return a->count == b->count && a->state == b->state &&
	       address_equal(&a->backends[0].address, &b->backends[0].address) &&
	       !strcmp(a->backends[0].id, b->backends[0].id);
}

static void log_differences(const struct route_table *before, const struct route_table *after)
{
	for (unsigned int i = 0; before && i < before->count; i++) {
		if (!route_exact(after, before->routes[i].domain))
			log_route(REMOVING, &before->routes[i]);
	}
	for (unsigned int i = 0; i < after->count; i++) {
		const struct route *route = &after->routes[i];
		const struct route *was = before ? route_exact(before, route->domain) : NULL;

		if (!was)
			log_route(ADDING, route);
		else if (!same_route(was, route))
			log_route(CHANGING, route);
	}
	/* containers rejected as a whole have been named when they were read */
	for (unsigned int i = 0; i < after->rejected_count; i++) {
		const struct route_rejected *rejected = &after->rejected[i];

		if (!*rejected->domain || has_rejected(before, rejected))
			continue;
		if (rejected->owner == KKM_DOCKER)
			log_warn("Domain not routed to this container", "domain", rejected->domain,
				 "container", rejected->name, "label", rejected->label, "error",
				 rejected->reason, NULL);
		else
			log_warn("Domain not routed to this target", "domain", rejected->domain,
				 "name", rejected->name, "owner", text_owner(rejected->owner),
				 "error", rejected->reason, NULL);
	}
}

static bool listens(const struct config_listen *listen, const struct sockaddr_storage *address,
		    struct host *host)
{
	for (unsigned int i = 0; i < listen->count; i++) {
		const struct sockaddr_storage *own = &listen->addresses[i];

		if (own->ss_family != address->ss_family ||
		    address_port(own) != address_port(address))
			continue;
		if (address_equal(own, address) ||
		    (address_is_wildcard(own) && host_is_own(host, address)))
			return true;
	}
	return false;
}

bool agent_is_own(const struct config *config, struct host *host,
		  const struct sockaddr_storage *address)
{
	return listens(&config->http, address, host) || listens(&config->tls, address, host) ||
	       listens(&config->admin, address, host);
}

static bool is_own_listener(void *ctx, const struct sockaddr_storage *address)
{
	const struct agent *agent = ctx;

	return agent_is_own(agent->config, agent->host, address);
}

/* Build, and write to the maps; where these are fuller than they should be, with fewer routes. */
static int build_table(struct agent *agent, const struct route_source **sources, size_t count,
		       bool ready, struct route_table **out)
{
	struct route_limits limits = {
		.routes = agent->config->max_routes,
		.backends = agent->config->max_routes,
		.is_own = is_own_listener,
		.ctx = agent,
	};
	struct route_table *previous = agent->table ? route_table_get(agent->table) : NULL;
	struct route_table *table = NULL;
	int err;

	for (;;) {
		err = route_table_build(sources, count, &limits, ready, previous, &table);
		if (err || !agent->datapath)
			break;
		/* a kernel that is short of memory for an entry is treated as a map that is full */
		if (!datapath_publish(agent->datapath, previous, table, &limits.routes))
			break;
		/* what did not fit is not in the maps; the next table shall say so */
		route_table_put(&previous);
		previous = table;
		table = NULL;
	}
	route_table_put(&previous);
	if (!err)
		*out = table;
	return err;
}

/* Of two arrays one, in the place of the first. 0 or -ENOMEM. */
static int append_sources(const struct route_source ***sources, size_t *count,
			  const struct route_source **more, size_t more_count)
{
	size_t all = *count + more_count;
	const struct route_source **grown = realloc(*sources, (all + 1) * sizeof(*grown));

	if (!grown)
		return -ENOMEM;
	if (more_count)
		memcpy(grown + *count, more, more_count * sizeof(*more));
	*sources = grown;
	*count = all;
	return 0;
}

/* Everybody's. */
static int gather_sources(struct agent *agent, const struct route_source ***sources, size_t *count)
{
	const struct route_source **more = NULL;
	size_t more_count = 0;
	int err = 0;

	if (agent->docker)
		err = docker_sources(agent->docker, sources, count);
	if (!err && agent->routes_file)
		err = routesfile_sources(agent->routes_file, &more, &more_count);
	if (!err)
		err = append_sources(sources, count, more, more_count);
	free(more);
	return err;
}

static void rebuild(void *ctx)
{
	struct agent *agent = ctx;
	const struct route_source **sources = NULL;
	struct route_table *table;
	struct docker_status docker = { .ready = true };
	size_t count = 0;
	bool leaving;
	int err;

	if (agent->docker)
		docker_status(agent->docker, &docker);
	err = gather_sources(agent, &sources, &count);
	if (!err)
		err = build_table(agent, sources, count, docker.ready || agent->waited, &table);
	free(sources);
	if (err) {
		log_error("Routes not updated", "error", strerror(-err), NULL);
		return;
	}
	log_differences(agent->table, table);
	agent->workers[0]->stats->table_updates++; /* a member that the worker does not touch */
	leaving = route_mark_leaving(agent->table, table, monotonic_ms());
	for (unsigned int i = 0; i < agent->config->workers; i++)
		worker_set_table(agent->workers[i], table, leaving);
	route_table_put(&agent->table);
	agent->table = table;
	notify_update(agent->notify);
}

/* A Docker that does not come is no reason to promise for ever that a domain may. */
static void first_list_fire(struct loop_timer *timer)
{
	struct agent *agent = (struct agent *)((char *)timer - offsetof(struct agent, first_list));
	struct docker_status docker;

	docker_status(agent->docker, &docker);
	if (docker.ready)
		return;
	agent->waited = true;
	log_warn("Docker has not been read in time: domains that are not known get 404 from now on",
		 "#after_ms", log_number(FIRST_LIST_MS), NULL);
	rebuild(agent);
}

/* Listeners. */

static void keep_sockets(struct agent *agent, const struct sockaddr_storage *address,
			 const int *fds, bool tls)
{
	unsigned int workers = agent->config->workers;

	agent->bound[agent->listen_count] = (struct agent_listener){ *address, tls };
	for (unsigned int i = 0; i < workers; i++)
		agent->listen[agent->listen_count * workers + i] =
			(struct worker_socket){ .fd = fds[i], .tls = tls };
	agent->listen_count++;
	agent->http_count += !tls;
}

static int bind_address(struct agent *agent, const struct sockaddr_storage *address, bool asked,
			bool tls)
{
	const char *option = tls ? "--listen-tls" : "--listen-http";
	char text[ADDRESS_TEXT_MAX];
	int fds[CONFIG_MAX_WORKERS];
	int err = worker_listen(address, agent->config->workers, fds);

	address_print(address, text);
	if (!err) {
		keep_sockets(agent, address, fds, tls);
		log_info("Listening", "address", text, "protocol", tls ? "tls" : "http", NULL);
		return 0;
	}
	if (asked) {
		log_error("Cannot listen: free the address, or give another one", "address", text,
			  "option", option, "error", strerror(-err), NULL);
		return -ECANCELED;
	}
	log_warn("Cannot listen on a default address: choose one, or off", "address", text, "option",
		 option, "error", strerror(-err), NULL);
	return 0;
}

static int bind_all(struct agent *agent, const struct config_listen *listen, bool tls)
{
	int err = 0;

	for (unsigned int i = 0; i < listen->count && !err; i++)
		err = bind_address(agent, &listen->addresses[i], listen->asked, tls);
	return err;
}

static int bind_listeners(struct agent *agent)
{
	int err;

	agent->listen = calloc((size_t)2 * CONFIG_MAX_LISTEN * agent->config->workers,
			       sizeof(*agent->listen));
	if (!agent->listen)
		return -ENOMEM;
	err = bind_all(agent, &agent->config->http, false);
	return err ? err : bind_all(agent, &agent->config->tls, true);
}

/* Engines. */

/* For `status` and `explain`. */
__attribute__((format(printf, 2, 3))) static void set_reason(struct agent *agent,
							     const char *format, ...)
{
	va_list args;

	va_start(args, format);
	vsnprintf(agent->engine_reason, sizeof(agent->engine_reason), format, args);
	va_end(args);
}

static const struct selftest_result *first_failure(const struct selftest *selftest)
{
	for (int i = 0; i < SELFTEST_STEPS; i++) {
		const struct selftest_result *step = &selftest->steps[i];

		if (step->gate == SELFTEST_SHORT && !step->passed && !step->absent)
			return step;
	}
	return NULL;
}

static void warn_of_failures(const struct selftest *selftest)
{
	const struct selftest_result *load = &selftest->steps[SELFTEST_LOAD];

	if (!load->passed)
		log_warn("Datapath is relay, though sockmap is asked for: it cannot be had here",
			 "step", load->name, "detail", load->run ? load->detail : "not run", NULL);
	for (int i = 0; i < SELFTEST_STEPS && load->passed; i++) {
		const struct selftest_result *step = &selftest->steps[i];

		if (step->gate <= SELFTEST_STREAMS && !step->passed && !step->absent)
			log_warn("sockmap is forced, though the self-test failed", "step",
				 step->name, "detail", step->run ? step->detail : "not run",
				 "consequence", step->consequence, NULL);
	}
}

static void log_auto(const struct selftest *selftest)
{
	const struct selftest_result *step = first_failure(selftest);

	if (!step)
		log_info("Datapath is sockmap: the self-test passed on this kernel", "#ms",
			 log_number(selftest->ms), NULL);
	else
		log_info("Datapath is relay: the self-test for sockmap failed here", "step",
			 step->name, "detail", step->run ? step->detail : "not run", "consequence",
			 step->consequence, "#ms", log_number(selftest->ms), NULL);
}

/* Requests go by the short way only where what is put into a socket is charged to it. */
static bool choose_requests(enum config_requests wanted, const struct selftest *selftest)
{
	const struct selftest_result *memory = &selftest->steps[SELFTEST_PUT_MEMORY];

	if (wanted == REQUESTS_OFF)
		return false;
	if (selftest_allows(selftest, SELFTEST_REQUESTS))
		return true;
	if (wanted == REQUESTS_AUTO)
		return false;
	if (!memory->passed)
		log_warn("sockmap does not carry requests on this kernel", "step", memory->name,
			 "detail", memory->run ? memory->detail : "not run", "consequence",
			 memory->consequence, NULL);
	else
		log_warn("sockmap is forced to carry requests, though the self-test failed: "
			 "see check", NULL);
	return memory->passed;
}

static void explain_choice(struct agent *agent, const struct selftest *selftest)
{
	const struct selftest_result *step = first_failure(selftest);
	const char *const carried[][2] = { { "answers", "answers and requests" },
					   { "answers and streams",
					     "answers, streams and requests" } };

	if (agent->shared.engine == KKM_SOCKMAP)
		set_reason(agent, step ? "forced by --datapath sockmap, though the self-test failed; "
					 "it carries %s"
				       : "the self-test passed on this kernel; it carries %s",
			   carried[agent->shared.streams][agent->shared.requests]);
	else if (step)
		set_reason(agent, "the self-test for sockmap failed here at '%s' (%.100s): %.120s",
			   step->name, step->run ? step->detail : "not run", step->consequence);
}

/* Which engine to try first, and what it has to mind. */
static void choose_engine(struct agent *agent)
{
	enum config_datapath wanted = agent->config->datapath;
	struct selftest selftest;
	bool passed;

	agent->shared.engine = KKM_RELAY;
	if (wanted == DATAPATH_HANDOVER)
		log_warn("The handover engine is not part of this version: using relay", NULL);
	set_reason(agent, "asked for by --datapath %s%s", config_datapath_names[wanted],
		   wanted == DATAPATH_HANDOVER ? ", and the engine handover is not part of this version"
					       : "");
	if (wanted == DATAPATH_RELAY || wanted == DATAPATH_HANDOVER)
		return;
	if (!agent->config->cgroup || !datapath_is_cgroup2(agent->config->cgroup)) {
		log_warn("Datapath is relay: no cgroup v2 here; mount it, or name it with --cgroup",
			 "path", agent->config->cgroup, NULL);
		set_reason(agent, "sockmap needs a cgroup v2 root: mount it, or name it with --cgroup");
		return;
	}
	selftest_run(&selftest, agent->config->cgroup);
	passed = selftest_allows(&selftest, SELFTEST_SHORT);
	if (wanted == DATAPATH_AUTO)
		log_auto(&selftest);
	else
		warn_of_failures(&selftest);
	explain_choice(agent, &selftest);
	if (!passed && (wanted == DATAPATH_AUTO || !selftest.steps[SELFTEST_LOAD].passed))
		return;
	agent->shared.engine = KKM_SOCKMAP;
	agent->shared.streams = wanted == DATAPATH_SOCKMAP ||
				selftest_allows(&selftest, SELFTEST_STREAMS);
	agent->shared.small_reads = !selftest.steps[SELFTEST_FIONREAD].passed;
	agent->shared.requests = choose_requests(agent->config->sockmap_requests, &selftest);
	explain_choice(agent, &selftest);
}

/* Change of engine while connections are open: new ones, and what comes on those that are there. */

static void leave_sockmap(struct agent *agent)
{
	agent->shared.engine = KKM_RELAY;
	for (unsigned int i = 0; i < agent->config->workers; i++)
		worker_leave_engines(agent->workers[i]);
	if (agent->datapath)
		datapath_set_meta(agent->datapath, KKM_RELAY, agent->table->ready);
}

static void on_sigusr1(struct agent *agent)
{
	if (agent->shared.engine == KKM_RELAY)
		return;
	log_info("Datapath is relay now: asked for by SIGUSR1", NULL);
	set_reason(agent, "asked for by SIGUSR1; SIGUSR2 brings sockmap back");
	leave_sockmap(agent);
}

/* Back to what the start had chosen. The programs have stayed attached. */
static void on_sigusr2(struct agent *agent)
{
	if (!agent->chose_sockmap || agent->shared.engine == KKM_SOCKMAP)
		return;
	log_info("Datapath is sockmap again: asked for by SIGUSR2", NULL);
	agent->shared.engine = KKM_SOCKMAP;
	set_reason(agent, "%s", agent->chosen_reason);
	datapath_set_meta(agent->datapath, KKM_SOCKMAP, agent->table->ready);
}

/* What the self-test found out at the start can change. */
static void watch_fire(struct loop_timer *timer)
{
	struct agent *agent = (struct agent *)((char *)timer - offsetof(struct agent, watch));
	char detail[160];

	if (agent->config->datapath == DATAPATH_AUTO && agent->shared.engine == KKM_SOCKMAP &&
	    selftest_foreign(detail, sizeof(detail))) {
		log_warn("Datapath is relay now: somebody else uses a sockmap on this host", "detail",
			 detail, NULL);
		set_reason(agent, "somebody else uses a sockmap on this host: %s", detail);
		leave_sockmap(agent);
	}
	loop_timer_set(agent->loop, timer, WATCH_MS);
}

static int open_datapath(struct agent *agent)
{
	const struct config *config = agent->config;
	struct datapath_options options = {
		.bpf_dir = config->bpf_dir,
		.cgroup = config->cgroup,
		.programs = agent->shared.engine == KKM_SOCKMAP,
		.workers = config->workers,
		.max_routes = config->max_routes,
		.max_conns = config->max_legs + config->max_connections < KKM_MAX_CONNS
				     ? config->max_legs + config->max_connections
				     : KKM_MAX_CONNS,
	};
	char why[DATAPATH_WHY_LEN];
	int err = datapath_open(&options, &agent->datapath, why);

	if (err && err != -EBUSY && options.programs) {
		log_warn("Datapath is relay: sockmap could not be set up", "error", why, NULL);
		agent->shared.engine = KKM_RELAY;
		set_reason(agent, "sockmap could not be set up: %s", why);
		options.programs = false;
		err = datapath_open(&options, &agent->datapath, why);
	}
	if (err == -EBUSY) {
		log_error("Cannot start", "error", why, NULL);
		return -ECANCELED;
	}
	if (err)
		log_warn("No BPF maps: routes and connections are not shown by commands", "error",
			 why, NULL);
	else
		datapath_set_meta(agent->datapath, agent->shared.engine, false);
	agent->shared.datapath = agent->datapath;
	agent->chose_sockmap = agent->shared.engine == KKM_SOCKMAP;
	memcpy(agent->chosen_reason, agent->engine_reason, sizeof(agent->chosen_reason));
	return 0;
}

/* Workers. */

static void worker_ended(void *ctx)
{
	struct agent *agent = ctx;

	atomic_fetch_add(&agent->ended, 1);
	loop_wake(agent->loop);
}

static void room(void *ctx)
{
	struct agent *agent = ctx;

	for (unsigned int i = 0; i < agent->config->workers; i++) {
		if (agent->workers[i])
			worker_resume(agent->workers[i]);
	}
}

static void woken(void *ctx)
{
	struct agent *agent = ctx;

	if (atomic_load(&agent->ended) == agent->config->workers)
		loop_stop(agent->loop);
}

/* The descriptors of worker `index`: one of each address. */
static int new_worker(struct agent *agent, unsigned int index)
{
	struct worker_socket sockets[2 * CONFIG_MAX_LISTEN];
	int err;

	for (unsigned int i = 0; i < agent->listen_count; i++)
		sockets[i] = agent->listen[i * agent->config->workers + index];
	err = worker_new(&agent->shared, index, sockets, agent->listen_count,
			 &agent->workers[index]);
	if (err)
		return err;
	for (unsigned int i = 0; i < agent->listen_count; i++)
		agent->listen[i * agent->config->workers + index].fd = -1;
	return 0;
}

static int start_workers(struct agent *agent)
{
	int err = 0;

	agent->shared.config = agent->config;
	agent->shared.connections = &agent->connections;
	agent->shared.legs = &agent->legs;
	agent->shared.ended = worker_ended;
	agent->shared.room = room;
	agent->shared.ctx = agent;
	for (unsigned int i = 0; i < agent->config->workers && !err; i++)
		err = new_worker(agent, i);
	/* an unknown domain is 503, not 404, until the first list */
	if (!err)
		rebuild(agent);
	for (unsigned int i = 0; i < agent->config->workers && !err; i++)
		err = worker_start(agent->workers[i]);
	return err;
}

/* Stopping. */

static void drain_end_fire(struct loop_timer *timer)
{
	struct agent *agent = (struct agent *)((char *)timer - offsetof(struct agent, drain_end));

	agent->forced = true;
	for (unsigned int i = 0; i < agent->config->workers; i++)
		worker_wish(agent->workers[i], WORKER_END);
}

static void signal_ready(struct loop_io *io, uint32_t events)
{
	struct agent *agent = (struct agent *)((char *)io - offsetof(struct agent, signals));
	struct signalfd_siginfo info;

	(void)events;
	if (read(io->fd, &info, sizeof(info)) != sizeof(info))
		return;
	if (info.ssi_signo == SIGUSR1) {
		on_sigusr1(agent);
		return;
	}
	if (info.ssi_signo == SIGUSR2) {
		on_sigusr2(agent);
		return;
	}
	if (agent->draining) {
		drain_end_fire(&agent->drain_end);
		return;
	}
	agent->draining = true;
	log_info("Stopping: connections may finish", "#timeout_ms",
		 log_number((long long)agent->config->drain_timeout_ms), NULL);
	loop_timer_set(agent->loop, &agent->drain_end, agent->config->drain_timeout_ms);
	for (unsigned int i = 0; i < agent->config->workers; i++)
		worker_wish(agent->workers[i], WORKER_DRAIN);
	notify_update(agent->notify);
}

static int watch_signals(struct agent *agent)
{
	sigset_t set;
	int fd;

	signal(SIGPIPE, SIG_IGN);
	signal(SIGHUP, SIG_IGN);
	sigemptyset(&set);
	sigaddset(&set, SIGTERM);
	sigaddset(&set, SIGINT);
	sigaddset(&set, SIGUSR1);
	sigaddset(&set, SIGUSR2);
	sigprocmask(SIG_BLOCK, &set, NULL);
	fd = signalfd(-1, &set, SFD_CLOEXEC | SFD_NONBLOCK);
	if (fd < 0)
		return -errno;
	agent->signals.ready = signal_ready;
	return loop_add(agent->loop, &agent->signals, fd, EPOLLIN);
}

/* The admin addresses. */

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

static void fill_notify(void *ctx, struct notify_state *out)
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

static int open_admin(struct agent *agent)
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

/* Docker. */

static int open_docker(struct agent *agent)
{
	struct docker_options options = {
		.unix_socket = agent->config->docker_unix,
		.tcp = agent->config->docker_tcp,
		.host = agent->host,
		.changed = rebuild,
		.ctx = agent,
	};
	int err;

	if (!agent->config->docker_enabled) {
		log_info("Docker discovery disabled", NULL);
		return 0;
	}
	loop_timer_set(agent->loop, &agent->first_list, FIRST_LIST_MS);
	err = http_new(agent->loop, &agent->http);
	return err ? err : docker_new(agent->loop, agent->http, &options, &agent->docker);
}

static int open_routes_file(struct agent *agent)
{
	struct routesfile_options options = {
		.path = agent->config->routes_file,
		.max_targets = agent->config->max_routes,
		.changed = rebuild,
		.ctx = agent,
	};

	return options.path ? routesfile_new(agent->loop, &options, &agent->routes_file) : 0;
}

/* Options that belong to parts that this version does not have yet. */
static void warn_of_unused(const struct config *config)
{
	if (config->control_url || config->api_key || config->api_key_file)
		log_warn("Control is not part of this version: CONTROL_URL and API_KEY do nothing",
			 NULL);
}

static int start(struct agent *agent)
{
	int err = loop_new(&agent->loop);

	if (err)
		return err;
	loop_on_wake(agent->loop, woken, agent);
	agent->signals.fd = -1;
	agent->drain_end.fire = drain_end_fire;
	agent->watch.fire = watch_fire;
	agent->first_list.fire = first_list_fire;
	err = watch_signals(agent);
	if (!err)
		err = host_new(agent->loop, &agent->host);
	if (!err)
		err = bind_listeners(agent);
	if (!err)
		choose_engine(agent);
	if (!err)
		err = open_datapath(agent);
	if (!err)
		err = open_docker(agent);
	if (!err)
		err = open_routes_file(agent);
	if (!err)
		err = start_workers(agent);
	if (!err)
		err = open_admin(agent);
	if (!err && notify_new(agent->loop, fill_notify, agent, &agent->notify))
		log_warn("NOTIFY_SOCKET is not a socket's name: nobody is told of readiness", NULL);
	if (!err && agent->chose_sockmap)
		loop_timer_set(agent->loop, &agent->watch, WATCH_MS);
	return err;
}

static void stop(struct agent *agent)
{
	notify_free(&agent->notify);
	for (unsigned int i = 0; i < CONFIG_MAX_LISTEN; i++)
		admin_free(&agent->admins[i]);
	if (agent->admin_local) {
		admin_free(&agent->admin_local);
		admin_unlink(agent->config->run_dir, agent->made_run_dir);
	}
	for (unsigned int i = 0; i < agent->config->workers; i++) {
		if (agent->workers[i])
			worker_wish(agent->workers[i], WORKER_END);
	}
	for (unsigned int i = 0; i < agent->config->workers; i++)
		worker_join(agent->workers[i]);
	for (unsigned int i = 0; i < agent->config->workers; i++)
		worker_free(&agent->workers[i]);
	for (unsigned int i = 0; i < agent->listen_count * agent->config->workers; i++) {
		if (agent->listen[i].fd >= 0)
			close(agent->listen[i].fd);
	}
	free(agent->listen);
	docker_free(&agent->docker);
	routesfile_free(&agent->routes_file);
	http_free(&agent->http);
	host_free(&agent->host);
	datapath_close(&agent->datapath);
	route_table_put(&agent->table);
	if (agent->loop && agent->signals.fd >= 0)
		close(loop_del(agent->loop, &agent->signals));
	loop_free(&agent->loop);
}

int agent_run(struct config *config)
{
	struct agent *agent = calloc(1, sizeof(*agent));
	int err = -ENOMEM;

	if (agent) {
		agent->config = config;
		agent->started_ms = realtime_ms();
		log_info("Starting", "version", version_number, "commit", version_commit, NULL);
		warn_of_unused(config);
		err = start(agent);
	}
	if (!err)
		err = loop_run(agent->loop);
	else if (err != -ECANCELED) /* which has been logged, with what to do */
		log_error("Not started", "error", strerror(-err), NULL);
	if (agent)
		stop(agent);
	if (!err)
		log_info("Stopped", agent->forced ? "note" : NULL,
			 "connections were cut at the end of the drain", NULL);
	free(agent);
	return err ? 1 : 0;
}
