// SPDX-License-Identifier: MIT
#include "agent_impl.h"

#include <errno.h>
#include <stdlib.h>
#include <string.h>
#include <time.h>

#include "text.h"

static uint64_t monotonic_ms(void)
{
	struct timespec now;

	clock_gettime(CLOCK_MONOTONIC, &now);
	return (uint64_t)now.tv_sec * 1000 + (uint64_t)now.tv_nsec / 1000000;
}

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

void agent_rebuild(void *ctx)
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
void agent_first_list_fire(struct loop_timer *timer)
{
	struct agent *agent = (struct agent *)((char *)timer - offsetof(struct agent, first_list));
	struct docker_status docker;

	docker_status(agent->docker, &docker);
	if (docker.ready)
		return;
	agent->waited = true;
	log_warn("Docker has not been read in time: domains that are not known get 404 from now on",
		 "#after_ms", log_number(AGENT_FIRST_LIST_MS), NULL);
	agent_rebuild(agent);
}
