// SPDX-License-Identifier: MIT
#include "dockerjson.h"

#include <errno.h>
#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#define API_LOWEST 24  /* 1.24 */
#define API_HIGHEST 55 /* 1.55 */

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
 * keeps names apart that are longer than the room here.
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
		snprintf(out->group, sizeof(out->group), "compose/%.100s/%.100s/%016llx", project,
			 service, (unsigned long long)hash);
	} else if (swarm) {
		snprintf(out->group, sizeof(out->group), "swarm/%.200s/%016llx", swarm,
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

static enum kkm_state state_of(const struct json *node)
{
	const char *state = json_str(node, "State", "running");
	const char *status = json_str(node, "Status", "");

	if (!strcmp(state, "paused") || strstr(status, "(Paused)"))
		return KKM_PAUSED;
	if (strcmp(state, "running") || strstr(status, "(health: starting)") ||
	    strstr(status, "(starting)"))
		return KKM_STARTING;
	return strstr(status, "(unhealthy)") ? KKM_UNHEALTHY : KKM_ACTIVE;
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
static bool published_address(const struct json *node, uint16_t port, struct sockaddr_storage *out)
{
	json_each(entry, json_get(node, "Ports")) {
		int64_t public = json_int(entry, "PublicPort", 0);
		const char *ip = json_str(entry, "IP", "0.0.0.0");

		if (json_int(entry, "PrivatePort", 0) != port || public < 1 || public > 65535 ||
		    strcmp(json_str(entry, "Type", "tcp"), "tcp"))
			continue;
		if (!strcmp(ip, "0.0.0.0") || !*ip)
			ip = "127.0.0.1";
		else if (!strcmp(ip, "::"))
			ip = "::1";
		if (!address_parse(ip, (uint16_t)public, out))
			return true;
	}
	return false;
}

int dockerjson_address(const struct json *node, uint16_t port, const char *network,
		       struct sockaddr_storage *out, struct labels_error *error)
{
	const struct json *networks = json_at(node, "NetworkSettings", "Networks", NULL);

	if (!strcmp(json_str(json_get(node, "HostConfig"), "NetworkMode", ""), "host"))
		return address_parse("127.0.0.1", port, out);
	if (network && *network) {
		if (network_address(json_get(networks, network), port, out))
			return 0;
		return fault(error, "kakuremichi.network",
			     "the container has no address on the network that this label names");
	}
	json_each(candidate, networks) {
		if (network_address(candidate, port, out))
			return 0;
	}
	if (published_address(node, port, out))
		return 0;
	return fault(error, "kakuremichi.port",
		     "the container has no address of its own, and the port is not published");
}

static const char *first_name(const struct json *node)
{
	const char *name = json_text(json_first(json_get(node, "Names")));

	if (!name || !*name)
		return "?";
	return name + (*name == '/');
}

int dockerjson_container(const struct json *node, struct dockerjson_container *out)
{
	struct route_source *source = &out->source;
	const char *id = json_str(node, "Id", "");
	const char *mode = json_str(json_get(node, "HostConfig"), "NetworkMode", "");
	int err;

	memset(out, 0, sizeof(*out));
	if (!json_is_object(node) || !dockerjson_is_id(id))
		return -EPROTO;
	source->owner = KKM_DOCKER;
	copy(source->id, sizeof(source->id), id);
	copy(source->name, sizeof(source->name), first_name(node));
	source->created = json_int(node, "Created", 0);
	source->state = state_of(node);
	set_group(node, source);
	err = labels_parse(json_get(node, "Labels"), &source->labels, &source->error);
	if (err)
		return err == -ENOENT ? err : 0;
	if (!strncmp(mode, "container:", 10)) {
		if (dockerjson_is_id(mode + 10))
			copy(out->follows, sizeof(out->follows), mode + 10);
		else
			fault(&source->error, "", "its network mode names no container");
		return 0;
	}
	dockerjson_address(node, source->labels.port, source->labels.network, &source->address,
			   &source->error);
	return 0;
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

static const struct {
	const char *name;
	enum dockerjson_action action;
} actions[] = {
	{ "kill", DOCKER_KILL },     { "die", DOCKER_GONE },	   { "destroy", DOCKER_GONE },
	{ "start", DOCKER_CHANGED }, { "restart", DOCKER_CHANGED }, { "pause", DOCKER_CHANGED },
	{ "unpause", DOCKER_CHANGED }, { "rename", DOCKER_CHANGED }, { "update", DOCKER_CHANGED },
	{ "health_status", DOCKER_CHANGED }, { "connect", DOCKER_CHANGED },
	{ "disconnect", DOCKER_CHANGED },
};

/* "health_status: healthy" begins with its name. */
static void set_action(struct dockerjson_event *event, const char *text)
{
	size_t len = strcspn(text, ":");

	event->action = DOCKER_OTHER;
	event->name = "other";
	for (size_t i = 0; i < sizeof(actions) / sizeof(*actions); i++) {
		if (strlen(actions[i].name) == len && !memcmp(actions[i].name, text, len)) {
			event->action = actions[i].action;
			event->name = actions[i].name;
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
		/* its labels are the network's; only a container that is known is looked at again */
		id = json_str(attributes, "container", "");
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
