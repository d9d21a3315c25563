// SPDX-License-Identifier: MIT
#include "labels.h"

#include <errno.h>
#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#define PREFIX "kakuremichi."
#define PREFIX_LEN (sizeof(PREFIX) - 1)

__attribute__((format(printf, 3, 4))) static int fault(struct labels_error *error,
						       const char *label, const char *format, ...)
{
	va_list args;

	snprintf(error->label, sizeof(error->label), "%s", label);
	va_start(args, format);
	vsnprintf(error->reason, sizeof(error->reason), format, args);
	va_end(args);
	/* a part of a label stands in it, perhaps cut inside of a character */
	for (char *p = error->reason; *p; p++) {
		if (*p < 0x20 || *p == 0x7f)
			*p = '?';
	}
	return -EINVAL;
}

static int parse_domain(const char *label, const char *value, struct labels *out,
			struct labels_error *error)
{
	for (const char *p = value;;) {
		size_t len = strcspn(p, ",");
		const char *name = p, *reason;
		size_t name_len = len;

		while (name_len && (*name == ' ' || *name == '\t')) {
			name++;
			name_len--;
		}
		while (name_len && (name[name_len - 1] == ' ' || name[name_len - 1] == '\t'))
			name_len--;
		if (out->domain_count == LABELS_MAX_DOMAINS)
			return fault(error, label, "more than %d names", LABELS_MAX_DOMAINS);
		if (hostname_parse(name, name_len, out->domains[out->domain_count], &reason))
			return fault(error, label, "'%.64s' is no host name: it %s", value, reason);
		out->domain_count++;
		if (!p[len])
			return 0;
		p += len + 1;
	}
}

static int parse_network(const char *label, const char *value, struct labels *out,
			 struct labels_error *error)
{
	if (!*value || strlen(value) >= sizeof(out->network))
		return fault(error, label, "is empty or too long");
	snprintf(out->network, sizeof(out->network), "%s", value);
	return 0;
}

static int parse_tls(const char *label, const char *value, struct labels *out,
		     struct labels_error *error)
{
	if (strcmp(value, "passthrough"))
		return fault(error, label, "'%.32s' is not known: give passthrough", value);
	out->tls = true;
	return 0;
}

static int parse_number(const char *label, const char *value, uint16_t *out,
			struct labels_error *error)
{
	uint64_t port;

	if (number_parse(value, strlen(value), 1, 65535, &port))
		return fault(error, label, "'%.32s' is no port: give a number from 1 to 65535",
			     value);
	*out = (uint16_t)port;
	return 0;
}

static int parse_port(const char *label, const char *value, struct labels *out,
		      struct labels_error *error)
{
	return parse_number(label, value, &out->port, error);
}

static int parse_tls_port(const char *label, const char *value, struct labels *out,
			  struct labels_error *error)
{
	return parse_number(label, value, &out->tls_port, error);
}

static int parse_proxy_protocol(const char *label, const char *value, struct labels *out,
				struct labels_error *error)
{
	if (strcmp(value, "v2"))
		return fault(error, label, "'%.32s' is not known: give v2", value);
	out->proxy_protocol = true;
	return 0;
}

static int parse_sockmap(const char *label, const char *value, struct labels *out,
			 struct labels_error *error)
{
	if (strcmp(value, "off") && strcmp(value, "on"))
		return fault(error, label, "'%.32s' is not known: give off", value);
	out->no_sockmap = !strcmp(value, "off");
	return 0;
}

/* Cut between characters where it is too long: 10xxxxxx is inside of one (UTF-8). */
static int parse_description(const char *label, const char *value, struct labels *out,
			     struct labels_error *error)
{
	size_t len = strlen(value);

	(void)label;
	(void)error;
	if (len >= sizeof(out->description)) {
		len = sizeof(out->description) - 1;
		while (len && (value[len] & 0xc0) == 0x80)
			len--;
	}
	memcpy(out->description, value, len);
	out->description[len] = '\0';
	return 0;
}

/* Only true counts, as for the container as a whole. */
static int parse_enabled(const char *label, const char *value, struct labels *out,
			 struct labels_error *error)
{
	(void)label;
	(void)error;
	out->disabled = strcmp(value, "true");
	return 0;
}

static const struct {
	const char *word;
	int (*parse)(const char *label, const char *value, struct labels *out,
		     struct labels_error *error);
} words[] = {
	{ "enabled", parse_enabled },
	{ "domain", parse_domain },
	{ "port", parse_port },
	{ "description", parse_description },
	{ "network", parse_network },
	{ "tls", parse_tls },
	{ "tls.port", parse_tls_port },
	{ "proxy-protocol", parse_proxy_protocol },
	{ "sockmap", parse_sockmap },
};

/* Does a label's name begin with a key word, as a whole or up to a dot? */
static bool begins_with_word(const char *name)
{
	size_t len = strcspn(name, ".");

	for (size_t i = 0; i < sizeof(words) / sizeof(*words); i++) {
		if (strlen(words[i].word) == len && !memcmp(words[i].word, name, len))
			return true;
	}
	return false;
}

struct services {
	struct labels *list;
	unsigned int count;
};

static struct labels *find_service(struct services *services, const char *name, size_t len)
{
	for (unsigned int i = 0; i < services->count; i++) {
		if (strlen(services->list[i].service) == len &&
		    !memcmp(services->list[i].service, name, len))
			return &services->list[i];
	}
	return NULL;
}

static bool is_dns_label(const char *name, size_t len)
{
	if (!len || len >= KKM_SERVICE_LEN || *name == '-' || name[len - 1] == '-')
		return false;
	for (size_t i = 0; i < len; i++) {
		char lower = name[i] | 0x20;

		if (!(lower >= 'a' && lower <= 'z') && !(name[i] >= '0' && name[i] <= '9') &&
		    name[i] != '-')
			return false;
	}
	return true;
}

/* The service of the first `len` characters of a label's name, made where it is the first of it. */
static int add_service(struct services *services, const char *label, const char *name, size_t len,
		       struct labels **out, struct labels_error *error)
{
	struct labels *grown;

	*out = find_service(services, name, len);
	if (*out)
		return 0;
	if (len && !is_dns_label(name, len))
		return fault(error, label, "'%.*s' is no name for a service: give letters, digits "
			     "and hyphens, up to 63", len < 64 ? (int)len : 64, name);
	if (services->count == LABELS_MAX_SERVICES)
		return fault(error, label, "more than %d services", LABELS_MAX_SERVICES);
	grown = realloc(services->list, (services->count + 1) * sizeof(*grown));
	if (!grown)
		return -ENOMEM;
	services->list = grown;
	*out = &grown[services->count++];
	memset(*out, 0, sizeof(**out));
	memcpy((*out)->service, name, len);
	return 0;
}

static int parse_label(struct services *services, const char *label, const char *value,
		       struct labels_error *error)
{
	const char *name = label + PREFIX_LEN;
	size_t len = begins_with_word(name) ? 0 : strcspn(name, ".");
	const char *word = len ? name + len + (name[len] == '.') : name;
	struct labels *service;
	int err;

	for (size_t i = 0; i < sizeof(words) / sizeof(*words); i++) {
		if (strcmp(words[i].word, word))
			continue;
		err = add_service(services, label, name, len, &service, error);
		return err ? err : words[i].parse(label, value, service, error);
	}
	return fault(error, label, "is not known to this version");
}

/* What no label alone shows. */
static int check_together(const struct labels *labels, struct labels_error *error)
{
	const char *dot = *labels->service ? "." : "";
	char label[KKM_NAME_LEN];

	snprintf(label, sizeof(label), PREFIX "%s%s%s", labels->service, dot,
		 !labels->domain_count ? "domain" : !labels->port ? "port" : "tls.port");
	if (!labels->domain_count)
		return fault(error, label, "is missing: give the name to answer to");
	if (!labels->port)
		return fault(error, label, "is missing: give the port inside the container");
	if (labels->tls_port && !labels->tls)
		return fault(error, label, "does nothing alone: give " PREFIX "%s%stls=passthrough "
			     "too", labels->service, dot);
	return 0;
}

static int compare_services(const void *a, const void *b)
{
	return strcmp(((const struct labels *)a)->service, ((const struct labels *)b)->service);
}

/* Labels without a name that say nothing of a service, beside others that do. */
static bool is_empty(const struct services *services, const struct labels *labels)
{
	return services->count > 1 && !*labels->service && !labels->domain_count && !labels->port &&
	       !labels->tls && !labels->tls_port && !labels->proxy_protocol;
}

/*
 * The unnamed service always exists (`enabled`) and sorts first. Network and sockmap=off are the
 * container's matter: they hold for its other services as well.
 */
static int finish(struct services *services, struct labels_error *error)
{
	struct labels all;
	unsigned int kept = 0;

	qsort(services->list, services->count, sizeof(*services->list), compare_services);
	all = services->list[0];
	for (unsigned int i = 0; i < services->count; i++) {
		struct labels *labels = &services->list[i];
		int err;

		if (labels->disabled || is_empty(services, labels))
			continue;
		err = check_together(labels, error);
		if (err)
			return err;
		if (!*labels->network)
			memcpy(labels->network, all.network, sizeof(all.network));
		labels->no_sockmap |= all.no_sockmap;
		memmove(&services->list[kept++], labels, sizeof(*labels));
	}
	services->count = kept;
	return 0;
}

/* Is it kakuremichi.domain, or a service's? */
static bool names_domains(const char *key)
{
	const char *dot = strrchr(key, '.');

	return !strncmp(key, PREFIX, PREFIX_LEN) && dot && !strcmp(dot, ".domain");
}

/* For whoever wonders why a domain does not answer; cut where it is longer. */
static void set_wanted(const struct json *object, struct labels_error *error)
{
	size_t len = 0;

	json_each(label, object) {
		const char *value = json_text(label);

		if (!names_domains(json_name(label)) || !value || len >= sizeof(error->wanted))
			continue;
		len += (size_t)snprintf(error->wanted + len, sizeof(error->wanted) - len, "%s%s",
					len ? "," : "", value);
	}
}

int labels_parse(const struct json *object, struct labels **out, unsigned int *count,
		 struct labels_error *error)
{
	struct services services = { .list = NULL };
	int err = 0;

	memset(error, 0, sizeof(*error));
	if (strcmp(json_str(object, PREFIX "enabled", ""), "true"))
		return -ENOENT;
	json_each(label, object) {
		const char *key = json_name(label), *value = json_text(label);

		if (strncmp(key, PREFIX, PREFIX_LEN))
			continue;
		err = value ? parse_label(&services, key, value, error)
			    : fault(error, key, "is no text");
		if (err)
			break;
	}
	if (!err)
		err = finish(&services, error);
	if (err) {
		set_wanted(object, error);
		free(services.list);
		return err;
	}
	*out = services.list;
	*count = services.count;
	return 0;
}
