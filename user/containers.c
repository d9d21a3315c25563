// SPDX-License-Identifier: MIT
#include "containers.h"

#include <errno.h>
#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "log.h"

#define BUCKETS 4096
#define GONE_MS 2000	   /* a restart takes less: its domain stays known */
#define TOLD_MS 1000	   /* for so long a list may be older than an event */
#define WAIT_MS 10000	   /* for an address */
#define OWNER_MS 2000	   /* for whoever has the network that it shares */
#define SURVIVED_MS 10000  /* behind its stop timeout a container that still runs was not stopped */
#define HEALTH_MS 5000	   /* as often Podman is asked for it */
/*
 * Docker tells of some changes before its list shows them: it writes the state that lists are made
 * from after it has sent the event (daemon/pause.go, monitor.go). So look again behind an event:
 */
#define LOOK_MS 200
#define LOOK_LAST_MS 2000
#define STOP_TIMEOUT_S 10  /* until it has been inspected */

/* Where the container whose network it shares is to be looked for. */
enum owner {
	OWNER_KNOWN,
	OWNER_DUE,   /* Docker has to be asked, */
	OWNER_ASKED, /* or is being so */
};

struct container {
	struct dockerjson_container info; /* its sources' states are those that count */
	uint64_t order;
	int stop_signal;
	unsigned int stop_timeout_s;
	bool inspected; /* or being so */
	bool known;	/* what inspecting it says is */
	bool on_host;	/* it has the host's network */
	bool checked;	/* it has a health check, */
	enum kkm_state health; /* and this is its result; Podman's only */
	bool seen;	/* in the list that is being applied */
	/* Its address is not known before Docker has answered: it has started; for another reason. */
	bool unread, doubted;
	bool gave_up;	/* waiting for an address, until something happens to it */
	enum owner owner;
	bool orphaned;	/* the owner has died since it was started: the next one's network is another */
	int signal;	/* sent before `known`, */
	uint64_t signal_ms; /* and when */
	bool told;	/* by an event: */
	enum kkm_state told_state;
	bool looked;	/* again, once */
	/* Deadlines; 0: none. */
	uint64_t told_until_ms, draining_until_ms, gone_until_ms, wait_until_ms, inspect_ms,
		look_ms;
	struct container *next, **link; /* of all */
	struct container *chain;	/* of the bucket */
};

struct containers {
	struct dockerjson_reach reach;
	struct container *all;
	struct container *buckets[BUCKETS];
	struct container *inspect_from; /* behind those that are inspected, or are being so */
	unsigned int count, followers;
	uint64_t order;	  /* of the one that was seen last */
	uint64_t next_ms; /* the first deadline of all, or something before it */
	bool changed, full;
	bool listed; /* see containers_expire() */
	bool podman;
};

static struct container **bucket_of(struct containers *containers, const char *id)
{
	uint32_t hash = 2166136261u; /* FNV-1a */

	for (; *id; id++)
		hash = (hash ^ (unsigned char)*id) * 16777619u;
	return &containers->buckets[hash % BUCKETS];
}

static struct container **find(struct containers *containers, const char *id)
{
	struct container **link = bucket_of(containers, id);

	while (*link && strcmp((*link)->info.id, id))
		link = &(*link)->chain;
	return link;
}

static struct container *add(struct containers *containers, const char *id, uint64_t order)
{
	struct container **bucket = bucket_of(containers, id), *container;

	if (containers->count == CONTAINERS_MAX) {
		if (!containers->full)
			log_warn("More containers than can be routed: the others are not", "#limit",
				 log_number(CONTAINERS_MAX), NULL);
		containers->full = true;
		return NULL;
	}
	container = calloc(1, sizeof(*container));
	if (!container)
		return NULL;
	container->order = order;
	container->stop_signal = SIGTERM;
	container->stop_timeout_s = STOP_TIMEOUT_S;
	snprintf(container->info.id, sizeof(container->info.id), "%s", id);
	container->chain = *bucket;
	*bucket = container;
	container->next = containers->all;
	if (container->next)
		container->next->link = &container->next;
	container->link = &containers->all;
	containers->all = containers->inspect_from = container;
	containers->count++;
	return container;
}

static void remove_container(struct containers *containers, struct container *container)
{
	*find(containers, container->info.id) = container->chain;
	*container->link = container->next;
	if (container->next)
		container->next->link = container->link;
	if (containers->inspect_from == container)
		containers->inspect_from = container->next;
	containers->followers -= !!*container->info.follows;
	dockerjson_container_free(&container->info);
	free(container);
	containers->count--;
	containers->full = false;
	containers->changed = true;
}

/* The state that counts, of all that is known. */
static enum kkm_state state_of(const struct containers *containers,
			       const struct container *container, const struct route_source *source)
{
	enum kkm_state state = container->info.state;

	if (container->gone_until_ms || container->draining_until_ms)
		return KKM_DRAINING;
	if (container->told)
		return container->told_state;
	if (state == KKM_ACTIVE &&
	    (container->unread || container->doubted || !source->address.ss_family))
		return KKM_STARTING;
	if (state == KKM_ACTIVE && containers->podman)
		return container->known ? container->health : KKM_STARTING;
	return state;
}

static void lower(uint64_t *first_ms, uint64_t deadline_ms)
{
	if (deadline_ms && (!*first_ms || deadline_ms < *first_ms))
		*first_ms = deadline_ms;
}

static void note_deadlines(struct containers *containers, const struct container *container)
{
	lower(&containers->next_ms, container->told_until_ms);
	lower(&containers->next_ms, container->draining_until_ms);
	lower(&containers->next_ms, container->wait_until_ms);
	lower(&containers->next_ms, container->inspect_ms);
	lower(&containers->next_ms, container->look_ms);
	if (containers->listed)
		lower(&containers->next_ms, container->gone_until_ms);
}

/* Behind whatever has changed of it. */
static void settle(struct containers *containers, struct container *container)
{
	note_deadlines(containers, container);
	for (unsigned int i = 0; i < container->info.count; i++) {
		struct route_source *source = &container->info.sources[i];
		enum kkm_state state = state_of(containers, container, source);

		containers->changed |= source->state != state ||
				       source->gone != !!container->gone_until_ms;
		source->state = state;
		source->gone = container->gone_until_ms;
		source->order = container->order;
	}
}

static bool is_waiting(const struct container *container)
{
	for (unsigned int i = 0; i < container->info.count; i++) {
		const struct route_source *source = &container->info.sources[i];

		if (!source->address.ss_family && !*source->error.reason)
			return true;
	}
	return false;
}

/* Nobody waits for ever, but for Docker to start it again. */
static void set_wait(struct container *container, uint64_t now_ms)
{
	if (!is_waiting(container) || container->info.restarts || container->gave_up) {
		container->wait_until_ms = 0;
		return;
	}
	if (!container->wait_until_ms)
		container->wait_until_ms =
			now_ms + (*container->info.follows ? OWNER_MS : WAIT_MS);
	/* there may be no event when an address comes */
	if (!container->look_ms)
		container->look_ms = now_ms + LOOK_LAST_MS;
}

static void log_source(const struct route_source *source)
{
	char id[13];

	snprintf(id, sizeof(id), "%.12s", source->id);
	if (*source->error.reason)
		log_warn("Failed to parse container", "id", id, "container", source->name, "label",
			 source->error.label, "error", source->error.reason, NULL);
	else
		log_info("Container parsed", "id", id, "name", source->name, "domain",
			 source->labels.domains[0], "#port", log_number(source->labels.port),
			 "service", *source->labels.service ? source->labels.service : NULL, NULL);
}

/* But for their states, which the routes' lines tell of. */
static bool same_sources(const struct dockerjson_container *a, const struct dockerjson_container *b)
{
	if (a->count != b->count)
		return false;
	for (unsigned int i = 0; i < a->count; i++) {
		struct route_source other = b->sources[i];

		other.state = a->sources[i].state;
		other.gone = a->sources[i].gone;
		if (memcmp(&a->sources[i], &other, sizeof(other)))
			return false;
	}
	return true;
}

/* The address of a network's owner, until that has been asked again. */
static void keep_addresses(const struct dockerjson_container *old, struct dockerjson_container *new)
{
	if (!*new->follows || strcmp(old->follows, new->follows) || old->count != new->count)
		return;
	for (unsigned int i = 0; i < new->count; i++) {
		if (*new->sources[i].error.reason)
			continue;
		new->sources[i].address = old->sources[i].address;
		memcpy(new->sources[i].via, old->sources[i].via, sizeof(old->sources[i].via));
		new->sources[i].error = old->sources[i].error;
	}
}

/*
 * A list that shows a container running says nothing of one that has died since it was made. That
 * Docker is about to start it again, though, is news.
 */
static bool is_outdated(const struct container *container, const struct dockerjson_container *info)
{
	return container->gone_until_ms && !info->restarts;
}

static void use_host(struct container *container)
{
	for (unsigned int i = 0; container->on_host && i < container->info.count; i++) {
		struct route_source *source = &container->info.sources[i];

		if (source->address.ss_family || *source->error.reason)
			continue;
		address_parse("127.0.0.1", source->labels.port, &source->address);
		memset(source->via, 0, sizeof(source->via));
		snprintf(source->via, sizeof(source->via), "network of the host");
	}
}

/* What waits has waited long enough: why it has no address becomes the reason not to route it. */
static void give_up(struct container *container)
{
	for (unsigned int i = 0; i < container->info.count; i++) {
		struct route_source *source = &container->info.sources[i];

		if (source->address.ss_family || *source->error.reason)
			continue;
		snprintf(source->error.reason, sizeof(source->error.reason), "%s",
			 *source->via ? source->via : "no network of the container has an address");
	}
	container->gave_up = true;
	container->wait_until_ms = 0;
}

static void take(struct containers *containers, struct container *container,
		 struct dockerjson_container *info, uint64_t now_ms)
{
	struct dockerjson_container old = container->info;
	bool was_same;

	keep_addresses(&old, info);
	containers->followers += !!*info->follows - !!*old.follows;
	container->info = *info;
	container->gone_until_ms = 0;
	container->owner = *info->follows ? OWNER_DUE : OWNER_KNOWN;
	if (container->owner == OWNER_KNOWN)
		container->unread = container->doubted = false;
	use_host(container);
	if (container->gave_up && container->owner == OWNER_KNOWN && is_waiting(container))
		give_up(container);
	set_wait(container, now_ms);
	for (unsigned int i = 0; i < info->count; i++)
		info->sources[i].order = container->order;
	was_same = same_sources(&old, &container->info);
	for (unsigned int i = 0; i < info->count && was_same; i++) {
		info->sources[i].state = old.sources[i].state;
		info->sources[i].gone = old.sources[i].gone;
	}
	settle(containers, container);
	for (unsigned int i = 0; i < info->count && !was_same; i++) {
		/* what shares a network is read when its owner is */
		if (!*info->follows || *info->sources[i].error.reason)
			log_source(&info->sources[i]);
	}
	containers->changed |= !was_same;
	dockerjson_container_free(&old);
}

static void upsert(struct containers *containers, const struct json *node, uint64_t order,
		   uint64_t now_ms)
{
	struct dockerjson_container info;
	struct container *container;

	if (dockerjson_container(node, &containers->reach, &info))
		return;
	container = *find(containers, info.id);
	if (!container)
		container = add(containers, info.id, order);
	if (container && !container->info.count)
		container->order = order;
	if (container)
		container->seen = true;
	if (!container || is_outdated(container, &info))
		dockerjson_container_free(&info);
	else
		take(containers, container, &info, now_ms);
}

bool containers_apply(struct containers *containers, const struct json *list, uint64_t now_ms)
{
	uint64_t order;

	if (!json_is_array(list))
		return false;
	json_each(node, list) {
		if (!dockerjson_is_id(json_str(node, "Id", "")))
			return false;
	}
	for (struct container *c = containers->all; c; c = c->next)
		c->seen = false;
	/* Docker lists the newest first, by a clock that is finer than `Created` */
	json_each(node, list)
		containers->order++;
	order = containers->order;
	json_each(node, list)
		upsert(containers, node, order--, now_ms);
	return true;
}

/* One that has died is known for its moment, whatever lists show. */
static void remove_unseen(struct containers *containers, struct container *container)
{
	if (!container->seen && !container->gone_until_ms)
		remove_container(containers, container);
}

void containers_asked(struct containers *containers, const char *id)
{
	struct container *container = *find(containers, id);

	if (container)
		remove_unseen(containers, container);
}

void containers_asked_all(struct containers *containers)
{
	struct container *next;

	for (struct container *c = containers->all; c; c = next) {
		next = c->next;
		remove_unseen(containers, c);
	}
}

/* Unless it is a moment old: then the list may be older. */
void containers_trust_list(struct containers *containers, uint64_t now_ms)
{
	for (struct container *c = containers->all; c; c = c->next) {
		if (c->gone_until_ms <= now_ms + GONE_MS - TOLD_MS)
			c->gone_until_ms = 0;
		settle(containers, c);
	}
}

static void look_later(struct container *container, uint64_t now_ms)
{
	container->looked = false;
	/* not put off by a steady flow of events */
	if (!container->look_ms || container->look_ms > now_ms + LOOK_MS)
		container->look_ms = now_ms + LOOK_MS;
}

static void on_kill(struct container *container, int signal, uint64_t now_ms)
{
	container->signal = signal;
	container->signal_ms = now_ms;
	if (signal == SIGKILL || signal == container->stop_signal)
		container->draining_until_ms =
			now_ms + container->stop_timeout_s * 1000ull + SURVIVED_MS;
}

/* Whatever was known of the one that ran before does not hold. */
static void on_start(struct containers *containers, struct container *container)
{
	container->unread = true;
	container->inspected = container->known = false;
	containers->inspect_from = containers->all;
	container->gave_up = container->told = false;
	container->signal = 0;
	container->told_until_ms = container->draining_until_ms = container->gone_until_ms = 0;
	container->orphaned = false;
}

/* Is its address one of this network's, as far as is known? */
static bool is_on(const struct container *container, const char *network)
{
	for (unsigned int i = 0; i < container->info.count; i++) {
		if (!*network || dockerjson_is_via(&container->info.sources[i], network))
			return true;
	}
	return false;
}

static void on_change(struct containers *containers, struct container *container,
		      const struct dockerjson_event *event)
{
	container->gave_up = false;
	if (!strcmp(event->name, "start")) {
		on_start(containers, container);
	} else if (!strcmp(event->name, "disconnect")) {
		container->doubted |= is_on(container, event->network);
	} else if (!strcmp(event->name, "health_status")) {
		container->inspected = false; /* Podman says no more than that */
		containers->inspect_from = containers->all;
	} else if (!strcmp(event->name, "unpause") || !strncmp(event->name, "health_status", 13)) {
		container->told = false;
		container->told_until_ms = 0;
	}
}

/* Something has happened to the owner of the network that it shares. */
static void on_owner(struct container *container, const struct dockerjson_event *event,
		     uint64_t now_ms)
{
	if (event->action == DOCKER_DIED || event->action == DOCKER_DESTROYED)
		container->orphaned = true;
	else if (strcmp(event->name, "start") && strcmp(event->name, "connect") &&
		 strcmp(event->name, "disconnect"))
		return;
	if (container->orphaned ||
	    (!strcmp(event->name, "disconnect") && is_on(container, event->network)))
		container->doubted = true;
	container->owner = OWNER_DUE;
	container->gave_up = false;
	look_later(container, now_ms);
}

void containers_owner_event(struct containers *containers, const struct dockerjson_event *event,
			    uint64_t now_ms)
{
	for (struct container *c = containers->followers ? containers->all : NULL; c; c = c->next) {
		if (strcmp(c->info.follows, event->id))
			continue;
		on_owner(c, event, now_ms);
		settle(containers, c);
	}
}

bool containers_concerns(struct containers *containers, const struct dockerjson_event *event)
{
	return *find(containers, event->id) || (event->enabled && event->action == DOCKER_CHANGED);
}

bool containers_event(struct containers *containers, const struct dockerjson_event *event,
		      uint64_t now_ms)
{
	struct container *container = *find(containers, event->id);

	/* known before it has been listed, so that it is known too if it dies before that */
	if (!container && event->enabled && !strcmp(event->name, "start"))
		container = add(containers, event->id, 0);
	if (!container)
		return true;
	switch (event->action) {
	case DOCKER_KILL:
		on_kill(container, event->signal, now_ms);
		break;
	case DOCKER_DIED:
		container->gone_until_ms = now_ms + GONE_MS;
		break;
	case DOCKER_DESTROYED:
		remove_container(containers, container);
		return true;
	case DOCKER_STATE:
		container->told = true;
		container->told_state = event->state;
		container->told_until_ms = now_ms + TOLD_MS;
		break;
	case DOCKER_CHANGED:
		on_change(containers, container, event);
		break;
	case DOCKER_OTHER:
		return false;
	}
	if (event->action != DOCKER_KILL)
		look_later(container, now_ms);
	settle(containers, container);
	return event->action != DOCKER_KILL;
}

unsigned int containers_doubt(struct containers *containers,
			      bool (*doubted)(void *ctx, const struct sockaddr_storage *address),
			      void *ctx)
{
	unsigned int count = 0;

	for (struct container *c = containers->all; c; c = c->next) {
		for (unsigned int i = 0; i < c->info.count && !c->doubted; i++)
			c->doubted = doubted(ctx, &c->info.sources[i].address);
		count += c->doubted;
		settle(containers, c);
	}
	return count;
}

static bool is_over(uint64_t *deadline_ms, uint64_t now_ms)
{
	if (!*deadline_ms || *deadline_ms > now_ms)
		return false;
	*deadline_ms = 0;
	return true;
}

static void expire_one(struct containers *containers, struct container *container, uint64_t now_ms)
{
	if (is_over(&container->wait_until_ms, now_ms)) {
		give_up(container);
		containers->changed = true;
		for (unsigned int i = 0; i < container->info.count; i++)
			log_source(&container->info.sources[i]);
	}
	if (is_over(&container->told_until_ms, now_ms))
		container->told = false;
	if (is_over(&container->draining_until_ms, now_ms))
		log_info("Container still runs after its stop signal: active again", "container",
			 container->info.name, NULL);
	settle(containers, container);
}

static void look_again(struct container *container, uint64_t now_ms,
		       void (*look)(void *ctx, const char *id), void *ctx)
{
	if (!is_over(&container->look_ms, now_ms))
		return;
	look(ctx, container->info.id);
	if (!container->looked || container->wait_until_ms)
		container->look_ms = now_ms + LOOK_LAST_MS;
	container->looked = true;
}

uint64_t containers_expire(struct containers *containers, uint64_t now_ms, bool listed,
			   void (*look)(void *ctx, const char *id), void *ctx)
{
	struct container *next;

	if (containers->listed == listed && (!containers->next_ms || now_ms < containers->next_ms))
		return containers->next_ms;
	containers->listed = listed;
	containers->next_ms = 0;
	for (struct container *c = containers->all; c; c = next) {
		next = c->next;
		if (listed && is_over(&c->gone_until_ms, now_ms)) {
			remove_container(containers, c);
			continue;
		}
		if (is_over(&c->inspect_ms, now_ms)) {
			c->inspected = false;
			containers->inspect_from = containers->all;
		}
		look_again(c, now_ms, look, ctx);
		expire_one(containers, c, now_ms);
	}
	return containers->next_ms;
}

const char *containers_next_followed(struct containers *containers)
{
	const char *id = NULL;

	for (struct container *c = containers->followers ? containers->all : NULL; c; c = c->next) {
		if (c->owner != OWNER_DUE || (id && strcmp(c->info.follows, id)))
			continue;
		id = c->info.follows;
		c->owner = OWNER_ASKED;
	}
	return id;
}

/* `node` is the owner's in a list, NULL where there is none to follow. */
static void follow(struct container *container, const struct dockerjson_reach *reach,
		   const struct json *node)
{
	for (unsigned int i = 0; i < container->info.count; i++) {
		struct route_source *source = &container->info.sources[i];
		char via[KKM_VIA_LEN];

		memset(&source->error, 0, sizeof(source->error));
		memset(&source->address, 0, sizeof(source->address));
		memset(source->via, 0, sizeof(source->via));
		if (node)
			dockerjson_address(node, reach, source);
		memcpy(via, source->via, sizeof(via));
		memset(source->via, 0, sizeof(source->via));
		if (node)
			snprintf(source->via, sizeof(source->via), "%.80s of container %.12s", via,
				 container->info.follows);
		else
			snprintf(source->via, sizeof(source->via),
				 "container %.12s, whose network it shares, %s",
				 container->info.follows,
				 container->orphaned ? "has stopped since it was started"
						     : "is not running");
	}
}

static int copy_sources(const struct dockerjson_container *info, struct dockerjson_container *out)
{
	*out = *info;
	out->sources = calloc(info->count + 1, sizeof(*out->sources));
	if (!out->sources)
		return -ENOMEM;
	memcpy(out->sources, info->sources, info->count * sizeof(*out->sources));
	return 0;
}

void containers_followed(struct containers *containers, const char *id, const struct json *node,
			 uint64_t now_ms)
{
	struct dockerjson_container was;

	for (struct container *c = containers->all; c; c = c->next) {
		if (strcmp(c->info.follows, id) || c->owner != OWNER_ASKED ||
		    copy_sources(&c->info, &was))
			continue;
		c->owner = OWNER_KNOWN;
		c->unread = c->doubted = false;
		follow(c, &containers->reach, c->orphaned ? NULL : node);
		if (c->gave_up && is_waiting(c))
			give_up(c);
		set_wait(c, now_ms);
		if (!same_sources(&was, &c->info)) {
			containers->changed = true;
			for (unsigned int i = 0; i < c->info.count && node; i++)
				log_source(&c->info.sources[i]);
		}
		settle(containers, c);
		dockerjson_container_free(&was);
	}
}

const char *containers_next_inspect(struct containers *containers)
{
	for (struct container *c = containers->inspect_from; c; c = c->next) {
		containers->inspect_from = c->next;
		if (c->inspected)
			continue;
		c->inspected = true;
		return c->info.id;
	}
	containers->inspect_from = NULL;
	return NULL;
}

void containers_inspect_again(struct containers *containers, const char *id, uint64_t at_ms)
{
	struct container *container = *find(containers, id);

	if (!container)
		return;
	container->inspect_ms = at_ms;
	settle(containers, container);
}

void containers_set_podman(struct containers *containers, bool podman)
{
	containers->podman = podman;
}

void containers_inspected(struct containers *containers, const char *id, const struct json *root,
			  uint64_t now_ms)
{
	struct container *container = *find(containers, id);
	bool was_known;

	if (!container)
		return;
	was_known = container->known;
	container->known = true;
	container->checked = dockerjson_health(root, &container->health);
	container->inspect_ms = containers->podman && container->checked ? now_ms + HEALTH_MS : 0;
	container->on_host = dockerjson_is_on_host(root);
	containers->changed |= container->on_host && is_waiting(container);
	use_host(container);
	set_wait(container, now_ms);
	container->stop_signal = dockerjson_stop_signal(root);
	container->stop_timeout_s = dockerjson_stop_timeout_s(root);
	/* now it is clear what it was sent */
	if (!was_known && container->signal) {
		container->draining_until_ms = 0;
		on_kill(container, container->signal, container->signal_ms);
	}
	settle(containers, container);
}

bool containers_have_address(const struct containers *containers,
			     const struct sockaddr_storage *address)
{
	for (struct container *c = containers->all; c; c = c->next) {
		for (unsigned int i = 0; i < c->info.count; i++) {
			if (address_same_host(&c->info.sources[i].address, address))
				return true;
		}
	}
	return false;
}

bool containers_take_changed(struct containers *containers)
{
	bool changed = containers->changed;

	containers->changed = false;
	return changed;
}

unsigned int containers_count(const struct containers *containers)
{
	return containers->count;
}

/* What shares a network whose owner is being asked for has no address yet and does not wait either. */
static bool is_routable(const struct container *container, const struct route_source *source)
{
	return source->address.ss_family || *source->error.reason ||
	       container->owner == OWNER_KNOWN;
}

int containers_sources(const struct containers *containers, const struct route_source ***out,
		       size_t *count)
{
	const struct route_source **sources;
	size_t n = 0;

	for (struct container *c = containers->all; c; c = c->next)
		n += c->info.count;
	sources = calloc(n + 1, sizeof(*sources));
	if (!sources)
		return -ENOMEM;
	n = 0;
	for (struct container *c = containers->all; c; c = c->next) {
		for (unsigned int i = 0; i < c->info.count; i++) {
			if (is_routable(c, &c->info.sources[i]))
				sources[n++] = &c->info.sources[i];
		}
	}
	*out = sources;
	*count = n;
	return 0;
}

int containers_new(const struct dockerjson_reach *reach, struct containers **out)
{
	struct containers *containers = calloc(1, sizeof(*containers));

	if (!containers)
		return -ENOMEM;
	containers->reach = *reach;
	*out = containers;
	return 0;
}

void containers_free(struct containers **ptr)
{
	struct containers *containers = *ptr;

	if (!containers)
		return;
	*ptr = NULL;
	while (containers->all)
		remove_container(containers, containers->all);
	free(containers);
}
