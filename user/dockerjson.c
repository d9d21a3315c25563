// SPDX-License-Identifier: MIT
#include "dockerjson.h"

#include <errno.h>
#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#define API_LOWEST 24  /* 1.24 */
#define API_HIGHEST 55 /* 1.55 */
#define STOP_TIMEOUT_S 10 /* Docker's, where the container has none of its own */
#define STOP_TIMEOUT_MAX_S 86400

bool dockerjson_is_id(const char *text)
{
	size_t len = strspn(text, "0123456789abcdef");

	return !text[len] && len >= 12 && len <= 64;
}

/* A text of somebody else's, cut to the room there is. */
static void copy(char *out, size_t size, const char *text)
{
	snprintf(out, size, "%s", text);
}

static uint64_t hash_text(uint64_t hash, const char *text)
{
	do
		hash = (hash ^ (unsigned char)*text) * 1099511628211u; /* FNV-1a, with the end */
	while (*text++);
	return hash;
}

/*
 * Who is whose replica: Compose and Swarm say so; else the same image with the same labels. The hash
 * keeps names apart that are longer than the room here; a service's name follows (set_source()).
 */
static void set_group(const struct json *node, struct route_source *out)
{
	const struct json *labels = json_get(node, "Labels");
	const char *project = json_str(labels, "com.docker.compose.project", NULL);
	const char *service = json_str(labels, "com.docker.compose.service", NULL);
	const char *swarm = json_str(labels, "com.docker.swarm.service.name", NULL);
	uint64_t hash = 14695981039346656037u;

	if (project && service) {
		hash = hash_text(hash_text(hash, project), service);
		snprintf(out->group, sizeof(out->group), "compose/%.80s/%.80s/%016llx", project,
			 service, (unsigned long long)hash);
	} else if (swarm) {
		snprintf(out->group, sizeof(out->group), "swarm/%.160s/%016llx", swarm,
			 (unsigned long long)hash_text(hash, swarm));
	} else {
		hash = hash_text(hash, json_str(node, "Image", ""));
		json_each(label, labels) {
			const char *value = json_text(label);

			hash = hash_text(hash, json_name(label));
			hash = hash_text(hash, value ? value : "");
		}
		snprintf(out->group, sizeof(out->group), "same/%016llx", (unsigned long long)hash);
	}
}

/* Lists are asked for without those that do not run; Podman, and a filter of ids, may show them. */
static bool does_run(const struct json *node)
{
	static const char *const states[] = { "created", "exited", "dead", "removing", "configured",
					      "initialized", "stopped" };
	const char *state = json_str(node, "State", "running");

	for (size_t i = 0; i < sizeof(states) / sizeof(*states); i++) {
		if (!strcmp(state, states[i]))
			return false;
	}
	return true;
}

static enum kkm_state state_of(const struct json *node)
{
	const char *state = json_str(node, "State", "running");
	const char *status = json_str(node, "Status", "");
	const char *health = json_str(json_get(node, "Health"), "Status", ""); /* from API 1.52 on */

	if (!strcmp(state, "paused") || strstr(status, "(Paused)"))
		return KKM_PAUSED;
	if (!strcmp(state, "stopping"))
		return KKM_DRAINING;
	if (strcmp(state, "running") || strstr(status, "(health: starting)") ||
	    strstr(status, "(starting)") || !strcmp(health, "starting"))
		return KKM_STARTING;
	return strstr(status, "(unhealthy)") || !strcmp(health, "unhealthy") ? KKM_UNHEALTHY
									     : KKM_ACTIVE;
}

static int fault(struct labels_error *error, const char *label, const char *reason)
{
	copy(error->label, sizeof(error->label), label);
	copy(error->reason, sizeof(error->reason), reason);
	return -EINVAL;
}

static bool network_address(const struct json *network, uint16_t port, struct sockaddr_storage *out)
{
	const char *v4 = json_str(network, "IPAddress", "");
	const char *v6 = json_str(network, "GlobalIPv6Address", "");

	return (*v4 && !address_parse(v4, port, out)) || (*v6 && !address_parse(v6, port, out));
}

/* Where the container port is published: the wildcard is reached over loopback. */
static bool published_address(const struct json *node, struct route_source *source, const char *why)
{
	json_each(entry, json_get(node, "Ports")) {
		int64_t public = json_int(entry, "PublicPort", 0);
		const char *ip = json_str(entry, "IP", "0.0.0.0");

		if (json_int(entry, "PrivatePort", 0) != source->labels.port || public < 1 ||
		    public > 65535 || strcmp(json_str(entry, "Type", "tcp"), "tcp"))
			continue;
		if (!strcmp(ip, "0.0.0.0") || !*ip)
			ip = "127.0.0.1";
		else if (!strcmp(ip, "::"))
			ip = "::1";
		if (address_parse(ip, (uint16_t)public, &source->address))
			continue;
		snprintf(source->via, sizeof(source->via), "published port%s", why);
		return true;
	}
	return false;
}

struct choice {
	const struct json *network;
	struct sockaddr_storage address;
	int rank;
	unsigned int count; /* of networks with an address */
	bool attached;	    /* there are networks at all */
};

/* The network that is reached best; of equal ones the first by name. */
static struct choice choose_network(const struct json *networks, uint16_t port,
				    const struct dockerjson_reach *reach)
{
	struct choice best = { .network = NULL };

	json_each(network, networks) {
		struct sockaddr_storage address = { .ss_family = AF_UNSPEC };
		int rank;

		best.attached = true;
		if (!network_address(network, port, &address))
			continue;
		rank = reach ? reach->rank(reach->ctx, &address) : 1;
		best.count++;
		if (best.network && (rank < best.rank ||
				     (rank == best.rank && strcmp(json_name(network),
								  json_name(best.network)) > 0)))
			continue;
		best.network = network;
		best.address = address;
		best.rank = rank;
	}
	return best;
}

/* Known later, so that only its domain is known now. */
static int wait_for_address(struct route_source *source)
{
	struct sockaddr_in6 none = { .sin6_port = htons(source->labels.port) };

	memset(&source->address, 0, sizeof(source->address));
	memcpy(&source->address, &none, sizeof(none));
	snprintf(source->via, sizeof(source->via),
		 "no network has given it an address yet, and its port is not published");
	if (source->state < KKM_STARTING)
		source->state = KKM_STARTING;
	return -EAGAIN;
}

static int named_address(const struct json *node, const struct json *networks,
			 struct route_source *source)
{
	snprintf(source->via, sizeof(source->via), "network %.64s, named by its label",
		 source->labels.network);
	if (network_address(json_get(networks, source->labels.network), source->labels.port,
			    &source->address))
		return 0;
	*source->via = '\0';
	if (json_get(networks, source->labels.network) ||
	    strcmp(json_str(node, "State", "running"), "running"))
		return wait_for_address(source);
	return fault(&source->error, "kakuremichi.network",
		     "the container has no address on the network that this label names");
}

int dockerjson_address(const struct json *node, const struct dockerjson_reach *reach,
		       struct route_source *source)
{
	const struct json *networks = json_at(node, "NetworkSettings", "Networks", NULL);
	const char *mode = json_str(json_get(node, "HostConfig"), "NetworkMode", "");
	uint16_t port = source->labels.port;
	struct choice choice;

	if (!strcmp(mode, "host")) {
		snprintf(source->via, sizeof(source->via), "network of the host");
		return address_parse("127.0.0.1", port, &source->address);
	}
	if (*source->labels.network)
		return named_address(node, networks, source);
	choice = choose_network(networks, port, reach);
	if (choice.network && !choice.rank &&
	    published_address(node, source, ", since this host reaches none of its networks"))
		return 0;
	if (choice.network) {
		source->address = choice.address;
		snprintf(source->via, sizeof(source->via), "network %.64s%s", json_name(choice.network),
			 !choice.rank	    ? ", the first by name: this host reaches none directly"
			 : choice.count > 1 ? ", the first by name that this host reaches"
					    : "");
		return 0;
	}
	if (published_address(node, source, ""))
		return 0;
	/* Podman's list does not tell the mode */
	if (strcmp(json_str(node, "State", "running"), "running") || !*mode ||
	    (choice.attached && strcmp(mode, "none")))
		return wait_for_address(source);
	return fault(&source->error, "kakuremichi.port",
		     "the container has no address of its own, and the port is not published");
}

bool dockerjson_is_via(const struct route_source *source, const char *network)
{
	char text[KKM_VIA_LEN];
	int len = snprintf(text, sizeof(text), "network %.64s", network);
	char behind = source->via[strnlen(source->via, (size_t)len)];

	return !strncmp(source->via, text, (size_t)len) && (!behind || strchr(", ", behind));
}

static const char *first_name(const struct json *node)
{
	const char *name = json_text(json_first(json_get(node, "Names")));

	if (!name || !*name)
		return "?";
	return name + (*name == '/');
}

/* What all services of the container have in common. */
static void set_common(const struct json *node, struct dockerjson_container *out)
{
	copy(out->id, sizeof(out->id), json_str(node, "Id", ""));
	copy(out->name, sizeof(out->name), first_name(node));
	out->state = state_of(node);
	out->restarts = !strcmp(json_str(node, "State", ""), "restarting");
}

static void set_source(const struct json *node, const struct dockerjson_container *container,
		       struct route_source *out)
{
	size_t len;

	out->owner = KKM_DOCKER;
	out->state = container->state;
	memcpy(out->id, container->id, sizeof(out->id));
	memcpy(out->name, container->name, sizeof(out->name));
	out->created = json_int(node, "Created", 0);
	set_group(node, out);
	/* the services of one container are not each other's replicas */
	len = strlen(out->group);
	if (*out->labels.service)
		snprintf(out->group + len, sizeof(out->group) - len, "/%s", out->labels.service);
}

static int set_follows(const struct json *node, struct dockerjson_container *out)
{
	const char *mode = json_str(json_get(node, "HostConfig"), "NetworkMode", "");

	if (strncmp(mode, "container:", 10))
		return -ENOENT;
	if (dockerjson_is_id(mode + 10)) {
		copy(out->follows, sizeof(out->follows), mode + 10);
		return 0;
	}
	return fault(&out->sources->error, "", "its network mode names no container");
}

/* A single source for the container as a whole. */
static int reject(const struct json *node, const struct labels_error *error,
		  struct dockerjson_container *out)
{
	out->sources = calloc(1, sizeof(*out->sources));
	if (!out->sources)
		return -ENOMEM;
	out->count = 1;
	set_source(node, out, out->sources);
	out->sources->error = *error;
	return 0;
}

int dockerjson_container(const struct json *node, const struct dockerjson_reach *reach,
			 struct dockerjson_container *out)
{
	struct labels_error error;
	struct labels *labels;
	unsigned int count;
	int err;

	memset(out, 0, sizeof(*out));
	if (!json_is_object(node) || !dockerjson_is_id(json_str(node, "Id", "")))
		return -EPROTO;
	if (!does_run(node))
		return -ENOENT;
	set_common(node, out);
	err = labels_parse(json_get(node, "Labels"), &labels, &count, &error);
	if (err == -EINVAL)
		return reject(node, &error, out);
	if (err)
		return err;
	out->sources = calloc(count + 1, sizeof(*out->sources));
	out->count = out->sources ? count : 0;
	for (unsigned int i = 0; i < out->count; i++) {
		out->sources[i].labels = labels[i];
		set_source(node, out, &out->sources[i]);
	}
	free(labels);
	if (!out->sources)
		return -ENOMEM;
	if (set_follows(node, out) != -ENOENT)
		return 0;
	for (unsigned int i = 0; i < out->count; i++)
		dockerjson_address(node, reach, &out->sources[i]);
	return 0;
}

void dockerjson_container_free(struct dockerjson_container *container)
{
	free(container->sources);
	container->sources = NULL;
	container->count = 0;
}

/* "SIGTERM", "term" or "15" */
static int signal_number(const char *text)
{
	uint64_t number;

	if (!number_parse(text, strlen(text), 1, 64, &number))
		return (int)number;
	if (!strncasecmp(text, "SIG", 3))
		text += 3;
	if (!strncasecmp(text, "RTMIN", 5))
		return SIGRTMIN + atoi(text + 5);
	if (!strncasecmp(text, "RTMAX", 5))
		return SIGRTMAX + atoi(text + 5);
	for (int i = 1; i < 32; i++) {
		const char *name = sigabbrev_np(i);

		if (name && !strcasecmp(name, text))
			return i;
	}
	return 0;
}

int dockerjson_stop_signal(const struct json *node)
{
	int number = signal_number(json_str(json_get(node, "Config"), "StopSignal", ""));

	return number ? number : SIGTERM;
}

unsigned int dockerjson_stop_timeout_s(const struct json *node)
{
	int64_t seconds = json_int(json_get(node, "Config"), "StopTimeout", STOP_TIMEOUT_S);

	return seconds < 0 || seconds > STOP_TIMEOUT_MAX_S ? STOP_TIMEOUT_MAX_S
							   : (unsigned int)seconds;
}

/* "died" and "remove" are Podman's words. */
static const struct {
	const char *name;
	enum dockerjson_action action;
	enum kkm_state state;
} actions[] = {
	{ "kill", DOCKER_KILL, 0 },
	{ "die", DOCKER_DIED, 0 },
	{ "died", DOCKER_DIED, 0 },
	{ "destroy", DOCKER_DESTROYED, 0 },
	{ "remove", DOCKER_DESTROYED, 0 },
	{ "pause", DOCKER_STATE, KKM_PAUSED },
	{ "health_status: unhealthy", DOCKER_STATE, KKM_UNHEALTHY },
	{ "health_status", DOCKER_CHANGED, 0 },
	{ "health_status: healthy", DOCKER_CHANGED, 0 },
	{ "health_status: starting", DOCKER_CHANGED, 0 },
	{ "start", DOCKER_CHANGED, 0 },
	{ "restart", DOCKER_CHANGED, 0 },
	{ "stop", DOCKER_CHANGED, 0 }, /* of one that was to be restarted, nothing else tells */
	{ "unpause", DOCKER_CHANGED, 0 },
	{ "rename", DOCKER_CHANGED, 0 },
	{ "update", DOCKER_CHANGED, 0 },
	{ "oom", DOCKER_CHANGED, 0 },
	{ "connect", DOCKER_CHANGED, 0 },
	{ "disconnect", DOCKER_CHANGED, 0 },
};

static void set_action(struct dockerjson_event *event, const char *text)
{
	event->action = DOCKER_OTHER;
	event->name = "other";
	for (size_t i = 0; i < sizeof(actions) / sizeof(*actions); i++) {
		if (!strcmp(actions[i].name, text)) {
			event->action = actions[i].action;
			event->name = actions[i].name;
			event->state = actions[i].state;
		}
	}
}

int dockerjson_event(const char *text, size_t len, struct dockerjson_event *out)
{
	struct json *root = json_parse(text, len);
	const struct json *attributes = json_at(root, "Actor", "Attributes", NULL);
	const char *type = json_str(root, "Type", "container");
	const char *id = json_str(json_get(root, "Actor"), "ID", json_str(root, "id", ""));
	int err = 0;

	memset(out, 0, sizeof(*out));
	set_action(out, json_str(root, "Action", json_str(root, "status", "")));
	out->time_ns = json_int(root, "timeNano", 0);
	if (!strcmp(type, "network")) {
		/* its labels are the network's; Podman has the container where Docker has the network */
		if (strcmp(out->name, "connect") && strcmp(out->name, "disconnect"))
			out->action = DOCKER_OTHER;
		copy(out->network, sizeof(out->network),
		     json_get(attributes, "container") ? json_str(attributes, "name", "") : "");
		id = json_str(attributes, "container", id);
	} else if (!strcmp(type, "container")) {
		out->enabled = !strcmp(json_str(attributes, "kakuremichi.enabled", ""), "true");
		out->signal = signal_number(json_str(attributes, "signal", ""));
	} else {
		out->action = DOCKER_OTHER;
	}
	if (!json_is_object(root))
		err = -EPROTO;
	else if (dockerjson_is_id(id))
		copy(out->id, sizeof(out->id), id);
	else
		out->action = DOCKER_OTHER;
	json_free(&root);
	return err;
}

bool dockerjson_is_on_host(const struct json *node)
{
	return !strcmp(json_str(json_get(node, "HostConfig"), "NetworkMode", ""), "host");
}

bool dockerjson_health(const struct json *node, enum kkm_state *out)
{
	const char *status = json_str(json_at(node, "State", "Health", NULL), "Status", "");

	*out = !strcmp(status, "starting")    ? KKM_STARTING
	       : !strcmp(status, "unhealthy") ? KKM_UNHEALTHY
					      : KKM_ACTIVE;
	return *out != KKM_ACTIVE || !strcmp(status, "healthy");
}

void dockerjson_engine(const char *text, size_t len, bool *podman, char out[DOCKERJSON_ENGINE_LEN])
{
	struct json *root = json_parse(text, len);

	*podman = !strncmp(json_str(json_first(json_get(root, "Components")), "Name", ""), "Podman", 6);
	snprintf(out, DOCKERJSON_ENGINE_LEN, "%s %.32s", *podman ? "Podman" : "Docker",
		 json_str(root, "Version", "?"));
	json_free(&root);
}

/* "1.41" -> 41 */
static int minor_version(const char *text)
{
	uint64_t minor;

	if (strncmp(text, "1.", 2) || number_parse(text + 2, strlen(text + 2), 0, 9999, &minor))
		return -1;
	return (int)minor;
}

int dockerjson_version(const char *text, size_t len, char out[DOCKERJSON_VERSION_LEN])
{
	struct json *root = json_parse(text, len);
	int highest = minor_version(json_str(root, "ApiVersion", ""));
	int lowest = minor_version(json_str(root, "MinAPIVersion", "1.0"));

	json_free(&root);
	if (highest < 0)
		return -EPROTO;
	if (lowest > API_HIGHEST || highest < API_LOWEST) {
		snprintf(out, DOCKERJSON_VERSION_LEN, "1.%d",
			 lowest > API_HIGHEST ? lowest : highest);
		return -EOPNOTSUPP;
	}
	snprintf(out, DOCKERJSON_VERSION_LEN, "1.%d", highest < API_HIGHEST ? highest : API_HIGHEST);
	return 0;
}
