// SPDX-License-Identifier: MIT
#include "route.h"

#include <errno.h>
#include <netinet/in.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

static uint32_t hash_name(const char *name)
{
	uint32_t hash = 2166136261u; /* FNV-1a */

	for (; *name; name++)
		hash = (hash ^ (unsigned char)*name) * 16777619u;
	return hash ^ hash >> 15;
}

static uint32_t *find_bucket(const struct route_table *table, const char *domain)
{
	uint32_t at = hash_name(domain) & table->mask;

	while (table->buckets[at] && strcmp(table->routes[table->buckets[at] - 1].domain, domain))
		at = (at + 1) & table->mask;
	return &table->buckets[at];
}

const struct route *route_exact(const struct route_table *table, const char *domain)
{
	uint32_t index = *find_bucket(table, domain);

	return index ? &table->routes[index - 1] : NULL;
}

const struct route *route_find(const struct route_table *table, const char *host)
{
	const struct route *route = *host ? route_exact(table, host) : NULL;
	char wildcard[HOSTNAME_MAX + 3];

	for (const char *dot = strchr(host, '.'); !route && dot; dot = strchr(dot + 1, '.')) {
		snprintf(wildcard, sizeof(wildcard), "*%s", dot);
		route = route_exact(table, wildcard);
	}
	return route ? route : route_exact(table, "*");
}

const struct route_backend *route_pick(const struct route *route, const struct route_backend *but,
				       bool tls, unsigned int turn)
{
	const struct route_backend *best = NULL;
	unsigned int least = 0;

	for (unsigned int i = 0; i < route->count; i++) {
		const struct route_backend *backend = &route->backends[(i + turn) % route->count];
		unsigned int connections = atomic_load_explicit(&backend->load->connections,
								memory_order_relaxed);

		if (backend == but || backend->state != KKM_ACTIVE || (tls && !backend->tls_port))
			continue;
		if (!best || connections < least) {
			best = backend;
			least = connections;
		}
	}
	return best;
}

bool route_has_tls(const struct route *route)
{
	for (unsigned int i = 0; i < route->count; i++) {
		if (route->backends[i].tls_port)
			return true;
	}
	return false;
}

const struct route_backend *route_backend_at(const struct route *route,
					     const struct sockaddr_storage *address)
{
	for (unsigned int i = 0; i < route->count; i++) {
		if (address_equal(&route->backends[i].address, address))
			return &route->backends[i];
	}
	return NULL;
}

void route_load_get(struct route_load *load)
{
	atomic_fetch_add(&load->refs, 1);
}

void route_load_put(struct route_load **load)
{
	if (*load && atomic_fetch_sub(&(*load)->refs, 1) == 1)
		free(*load);
	*load = NULL;
}

static int compare_sources(const void *a, const void *b)
{
	const struct route_source *x = *(const struct route_source *const *)a;
	const struct route_source *y = *(const struct route_source *const *)b;

	if (x->gone != y->gone)
		return x->gone ? 1 : -1;
	if (x->owner != y->owner)
		return x->owner < y->owner ? -1 : 1;
	if (x->created != y->created)
		return x->created < y->created ? -1 : 1;
	if (x->order != y->order)
		return x->order < y->order ? -1 : 1;
	if (strcmp(x->id, y->id))
		return strcmp(x->id, y->id);
	return strcmp(x->labels.service, y->labels.service);
}

static int grow(void **array, unsigned int count, size_t size)
{
	void *grown;

	/* powers of two: count is where the next one goes */
	if (count & (count - 1))
		return 0;
	grown = realloc(*array, (count ? count * 2 : 1) * size);
	if (!grown)
		return -ENOMEM;
	*array = grown;
	return 0;
}

static int reject(struct route_table *table, const struct route_source *source,
		  enum kkm_refusal refusal, const char *domain, const char *label,
		  const char *reason)
{
	struct route_rejected *rejected;

	if (grow((void **)&table->rejected, table->rejected_count, sizeof(*table->rejected)))
		return -ENOMEM;
	rejected = &table->rejected[table->rejected_count++];
	memset(rejected, 0, sizeof(*rejected));
	rejected->refusal = refusal;
	rejected->owner = source->owner;
	snprintf(rejected->id, sizeof(rejected->id), "%s", source->id);
	snprintf(rejected->name, sizeof(rejected->name), "%s", source->name);
	snprintf(rejected->domain, sizeof(rejected->domain), "%s", domain);
	snprintf(rejected->label, sizeof(rejected->label), "%s", label);
	snprintf(rejected->reason, sizeof(rejected->reason), "%s", reason);
	return 0;
}

static struct route_load *load_of(const struct route_table *previous, const char *domain,
				  const struct route_source *source)
{
	const struct route *route = previous ? route_exact(previous, domain) : NULL;
	struct route_load *load;

	for (unsigned int i = 0; route && i < route->count; i++) {
		const struct route_backend *backend = &route->backends[i];

		if (!strcmp(backend->id, source->id) &&
		    address_equal(&backend->address, &source->address)) {
			route_load_get(backend->load);
			return backend->load;
		}
	}
	load = calloc(1, sizeof(*load));
	if (load)
		atomic_init(&load->refs, 1);
	return load;
}

static void set_backend(struct route_backend *backend, const struct route_source *source,
			struct route_load *load)
{
	memset(backend, 0, sizeof(*backend));
	backend->owner = source->owner;
	backend->state = source->state;
	backend->no_sockmap = source->labels.no_sockmap;
	backend->proxy_protocol = source->labels.proxy_protocol;
	if (source->labels.tls)
		backend->tls_port = source->labels.tls_port ? source->labels.tls_port
							    : source->labels.port;
	backend->address = source->address;
	backend->load = load;
	memcpy(backend->id, source->id, sizeof(backend->id));
	memcpy(backend->name, source->name, sizeof(backend->name));
	memcpy(backend->group, source->group, sizeof(backend->group));
	memcpy(backend->description, source->labels.description, sizeof(backend->description));
	memcpy(backend->service, source->labels.service, sizeof(backend->service));
	memcpy(backend->via, source->via, sizeof(backend->via));
}

/* A route is as well as the best of its backends. */
static void set_state(struct route *route)
{
	route->state = route->backends[0].state;
	for (unsigned int i = 1; i < route->count; i++) {
		if (route->backends[i].state < route->state)
			route->state = route->backends[i].state;
	}
}

static int add_backend(struct route *route, const struct route_source *source,
		       const struct route_table *previous)
{
	struct route_load *load;

	if (grow((void **)&route->backends, route->count, sizeof(*route->backends)))
		return -ENOMEM;
	load = load_of(previous, route->domain, source);
	if (!load)
		return -ENOMEM;
	set_backend(&route->backends[route->count++], source, load);
	set_state(route);
	return 0;
}

/*
 * Two containers at one address: one of them is on its way out, or they share a network. The one in
 * the better state is shown and asked.
 */
static int share_address(struct route *route, struct route_backend *backend,
			 const struct route_source *source, const struct route_table *previous)
{
	struct route_load *load;

	if (!strcmp(backend->id, source->id) || source->state >= backend->state)
		return 0;
	load = load_of(previous, route->domain, source);
	if (!load)
		return -ENOMEM;
	route_load_put(&backend->load);
	set_backend(backend, source, load);
	set_state(route);
	return 0;
}

static int add_route(struct route_table *table, const char *domain, enum kkm_owner owner)
{
	struct route *route;
	uint32_t *bucket = find_bucket(table, domain);

	if (grow((void **)&table->routes, table->count, sizeof(*table->routes)))
		return -ENOMEM;
	route = &table->routes[table->count++];
	memset(route, 0, sizeof(*route));
	snprintf(route->domain, sizeof(route->domain), "%s", domain);
	route->owner = owner;
	*bucket = table->count;
	return 0;
}

/* The label of a source's service; nobody but Docker's has any. */
static const char *label_of(const struct route_source *source, const char *word,
			    char out[KKM_NAME_LEN])
{
	const char *service = source->labels.service;

	*out = '\0';
	if (source->owner == KKM_DOCKER)
		snprintf(out, KKM_NAME_LEN, "kakuremichi.%s%s%s", service, *service ? "." : "",
			 word);
	return out;
}

static int conflict(struct route_table *table, const struct route_source *source,
		    const struct route *route)
{
	const struct route_backend *first = &route->backends[0];
	char reason[KKM_REASON_LEN], label[KKM_NAME_LEN];

	if (route->owner != source->owner)
		snprintf(reason, sizeof(reason), "the domain belongs to %s%.100s of %s, which goes "
			 "first", route->owner == KKM_DOCKER ? "container " : "", first->name,
			 route->owner == KKM_DOCKER ? "Docker" : "Control");
	else if (!strcmp(first->id, source->id) && *first->service)
		snprintf(reason, sizeof(reason), "the domain belongs to service %s of the same "
			 "container", first->service);
	else if (!strcmp(first->id, source->id))
		snprintf(reason, sizeof(reason), "the domain belongs to the same container's labels "
			 "without a name");
	else
		snprintf(reason, sizeof(reason), "the domain belongs to container %.100s, which is "
			 "older", first->name);
	return reject(table, source, KKM_CONFLICT, route->domain,
		      label_of(source, "domain", label), reason);
}

static int full(struct route_table *table, const struct route_source *source, const char *domain,
		const char *what, unsigned int limit, const char *advice)
{
	char reason[KKM_REASON_LEN], label[KKM_NAME_LEN];

	snprintf(reason, sizeof(reason), "%s full (%u entries)%s", what, limit, advice);
	return reject(table, source, KKM_REJECTED, domain, label_of(source, "domain", label),
		      reason);
}

static bool is_own(const struct route_limits *limits, struct sockaddr_storage address,
		   uint16_t port)
{
	/* at one offset in both families (ip(7), ipv6(7)) */
	((struct sockaddr_in *)&address)->sin_port = htons(port);
	return port && address.ss_family && limits->is_own && limits->is_own(limits->ctx, &address);
}

/* The word of the label that leads a request back to the agent, or NULL. */
static const char *leads_back(const struct route_limits *limits, const struct route_source *source)
{
	if (is_own(limits, source->address, address_port(&source->address)))
		return "port";
	return is_own(limits, source->address, source->labels.tls_port) ? "tls.port" : NULL;
}

static int refuse_own(struct route_table *table, const struct route_source *source,
		      const char *domain, const char *word)
{
	char label[KKM_NAME_LEN];

	return reject(table, source, KKM_REJECTED, domain, label_of(source, word, label),
		      "leads to the agent's own listener, and requests would go round: give the port "
		      "that the service listens on");
}

struct build {
	struct route_table *table;
	const struct route_table *previous;
	const struct route_limits *limits;
	unsigned int backends;
};

static int add_domain(struct build *build, const struct route_source *source, const char *domain)
{
	struct route_table *table = build->table;
	const struct route *known = route_exact(table, domain);
	const struct route_backend *there;
	const char *word = leads_back(build->limits, source);

	if (word)
		return refuse_own(table, source, domain, word);
	/* a place that others may want, and no reason to tell of it */
	if (source->gone && (known || build->backends == build->limits->backends ||
			     table->count == build->limits->routes))
		return 0;
	if (known && (known->owner != source->owner ||
		      strcmp(known->backends[0].group, source->group)))
		return conflict(table, source, known);
	there = known ? route_backend_at(known, &source->address) : NULL;
	if (there)
		return share_address((struct route *)known, (struct route_backend *)there, source,
				     build->previous);
	if (known && known->count == ROUTE_MAX_BACKENDS)
		return full(table, source, domain, "the domain's pool is", ROUTE_MAX_BACKENDS, "");
	if (build->backends == build->limits->backends)
		return full(table, source, domain, "kkm_backends is", build->limits->backends,
			    ": raise --max-routes");
	if (!known) {
		if (table->count == build->limits->routes)
			return full(table, source, domain, "kkm_routes is", build->limits->routes,
				    ": raise --max-routes");
		if (add_route(table, domain, source->owner))
			return -ENOMEM;
		known = &table->routes[table->count - 1];
	}
	build->backends++;
	return add_backend((struct route *)known, source, build->previous);
}

static int reject_whole(struct route_table *table, const struct route_source *source)
{
	const struct labels *labels = &source->labels;
	int err = reject(table, source, KKM_REJECTED, "", source->error.label,
			 source->error.reason);
	char *wanted = err ? NULL : table->rejected[table->rejected_count - 1].wanted;
	size_t len = 0;

	if (err)
		return err;
	memcpy(wanted, source->error.wanted, sizeof(source->error.wanted));
	/* good labels, but no address */
	for (unsigned int i = 0; i < labels->domain_count && len < KKM_DOMAIN_LEN; i++)
		len += (size_t)snprintf(wanted + len, KKM_DOMAIN_LEN - len, "%s%s", len ? "," : "",
					labels->domains[i]);
	return 0;
}

static int add_source(struct build *build, const struct route_source *source)
{
	if (*source->error.reason)
		return reject_whole(build->table, source);
	for (unsigned int i = 0; i < source->labels.domain_count; i++) {
		int err = add_domain(build, source, source->labels.domains[i]);

		if (err)
			return err;
	}
	return 0;
}

/* Buckets for twice the domains there can be, so that a look-up takes one step or two. */
static int make_buckets(struct route_table *table, size_t domains)
{
	uint32_t size = 8;

	while (size < domains * 2)
		size *= 2;
	table->mask = size - 1;
	table->buckets = calloc(size, sizeof(*table->buckets));
	return table->buckets ? 0 : -ENOMEM;
}

int route_table_build(const struct route_source *const *sources, size_t count,
		      const struct route_limits *limits, bool ready,
		      const struct route_table *previous, struct route_table **out)
{
	struct build build = { .previous = previous, .limits = limits };
	const struct route_source **sorted = calloc(count + 1, sizeof(*sorted));
	size_t domains = 0;
	int err = -ENOMEM;

	build.table = calloc(1, sizeof(*build.table));
	if (!sorted || !build.table)
		goto out;
	atomic_init(&build.table->refs, 1);
	build.table->ready = ready;
	build.table->generation = previous ? previous->generation + 1 : 1;
	for (size_t i = 0; i < count; i++) {
		sorted[i] = sources[i];
		domains += sources[i]->labels.domain_count;
	}
	err = make_buckets(build.table, domains);
	qsort(sorted, count, sizeof(*sorted), compare_sources);
	for (size_t i = 0; i < count && !err; i++)
		err = add_source(&build, sorted[i]);
	if (!err) {
		*out = build.table;
		build.table = NULL;
	}
out:
	free(sorted);
	route_table_put(&build.table);
	return err;
}

static uint64_t set_leaving(struct route_load *load, bool leaving, uint64_t now_ms)
{
	if (!leaving)
		atomic_store(&load->leaving_ms, 0);
	else if (!atomic_load(&load->leaving_ms))
		atomic_store(&load->leaving_ms, now_ms);
	return atomic_load(&load->leaving_ms);
}

bool route_mark_leaving(const struct route_table *previous, const struct route_table *next,
			uint64_t now_ms)
{
	uint64_t any = 0;

	for (unsigned int i = 0; i < next->count; i++) {
		for (unsigned int j = 0; j < next->routes[i].count; j++) {
			const struct route_backend *backend = &next->routes[i].backends[j];

			backend->load->generation = next->generation;
			any |= set_leaving(backend->load, backend->state == KKM_DRAINING, now_ms);
		}
	}
	for (unsigned int i = 0; previous && i < previous->count; i++) {
		for (unsigned int j = 0; j < previous->routes[i].count; j++) {
			struct route_load *load = previous->routes[i].backends[j].load;

			if (load->generation != next->generation)
				any |= set_leaving(load, true, now_ms);
		}
	}
	return any;
}

struct route_table *route_table_get(struct route_table *table)
{
	atomic_fetch_add(&table->refs, 1);
	return table;
}

void route_table_put(struct route_table **ptr)
{
	struct route_table *table = *ptr;

	*ptr = NULL;
	if (!table || atomic_fetch_sub(&table->refs, 1) != 1)
		return;
	for (unsigned int i = 0; i < table->count; i++) {
		for (unsigned int j = 0; j < table->routes[i].count; j++)
			route_load_put(&table->routes[i].backends[j].load);
		free(table->routes[i].backends);
	}
	free(table->routes);
	free(table->rejected);
	free(table->buckets);
	free(table);
}
