// SPDX-License-Identifier: MIT
#include "agent_impl.h"

#include <errno.h>
#include <netinet/in.h>
#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/resource.h>
#include <sys/signalfd.h>
#include <sys/socket.h>
#include <time.h>
#include <unistd.h>

#include "version.h"

#define SPARE_FILES 256 /* descriptors that are no connection's */
#define FILES_A_CONNECTION 3

static uint64_t realtime_ms(void)
{
	struct timespec now;

	clock_gettime(CLOCK_REALTIME, &now);
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
		agent_rebuild(agent);
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
		agent_use_relay(agent);
		return;
	}
	if (info.ssi_signo == SIGUSR2) {
		agent_use_sockmap(agent);
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

/* Docker. */

static int open_docker(struct agent *agent)
{
	struct docker_options options = {
		.unix_socket = agent->config->docker_unix,
		.tcp = agent->config->docker_tcp,
		.host = agent->host,
		.changed = agent_rebuild,
		.ctx = agent,
	};
	int err;

	if (!agent->config->docker_enabled) {
		log_info("Docker discovery disabled", NULL);
		return 0;
	}
	loop_timer_set(agent->loop, &agent->first_list, AGENT_FIRST_LIST_MS);
	err = http_new(agent->loop, &agent->http);
	return err ? err : docker_new(agent->loop, agent->http, &options, &agent->docker);
}

static int open_routes_file(struct agent *agent)
{
	struct routesfile_options options = {
		.path = agent->config->routes_file,
		.max_targets = agent->config->max_routes,
		.changed = agent_rebuild,
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
	agent->watch.fire = agent_watch_fire;
	agent->first_list.fire = agent_first_list_fire;
	err = watch_signals(agent);
	if (!err)
		err = host_new(agent->loop, &agent->host);
	if (!err)
		err = bind_listeners(agent);
	if (!err)
		agent_choose_engine(agent);
	if (!err)
		err = agent_open_datapath(agent);
	if (!err)
		err = open_docker(agent);
	if (!err)
		err = open_routes_file(agent);
	if (!err)
		err = start_workers(agent);
	if (!err)
		err = agent_open_admin(agent);
	if (!err && notify_new(agent->loop, agent_fill_notify, agent, &agent->notify))
		log_warn("NOTIFY_SOCKET is not a socket's name: nobody is told of readiness", NULL);
	if (!err && agent->chose_sockmap)
		loop_timer_set(agent->loop, &agent->watch, AGENT_WATCH_MS);
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
