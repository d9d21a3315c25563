// SPDX-License-Identifier: MIT
#include "labels.h"

#include <errno.h>
#include <stdarg.h>
#include <stdio.h>
#include <string.h>

#define PREFIX "kakuremichi."

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

static int parse_domain(const char *value, struct labels *out, struct labels_error *error)
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
			return fault(error, PREFIX "domain", "more than %d names",
				     LABELS_MAX_DOMAINS);
		if (hostname_parse(name, name_len, out->domains[out->domain_count], &reason))
			return fault(error, PREFIX "domain", "'%.64s' is no host name: it %s", value,
				     reason);
		out->domain_count++;
		if (!p[len])
			return 0;
		p += len + 1;
	}
}

static int parse_network(const char *value, struct labels *out, struct labels_error *error)
{
	if (!*value || strlen(value) >= sizeof(out->network))
		return fault(error, PREFIX "network", "is empty or too long");
	snprintf(out->network, sizeof(out->network), "%s", value);
	return 0;
}

static int parse_tls(const char *value, struct labels *out, struct labels_error *error)
{
	if (strcmp(value, "passthrough"))
		return fault(error, PREFIX "tls", "'%.32s' is not known: give passthrough", value);
	out->tls = true;
	return 0;
}

static int parse_port_of(const char *label, const char *value, uint16_t *out,
			 struct labels_error *error)
{
	uint64_t port;

	if (number_parse(value, strlen(value), 1, 65535, &port))
		return fault(error, label, "'%.32s' is no port: give a number from 1 to 65535",
			     value);
	*out = (uint16_t)port;
	return 0;
}

static int parse_proxy_protocol(const char *value, struct labels *out, struct labels_error *error)
{
	if (strcmp(value, "v2"))
		return fault(error, PREFIX "proxy-protocol", "'%.32s' is not known: give v2",
			     value);
	out->proxy_protocol = true;
	return 0;
}

static int parse_sockmap(const char *value, struct labels *out, struct labels_error *error)
{
	if (strcmp(value, "off") && strcmp(value, "on"))
		return fault(error, PREFIX "sockmap", "'%.32s' is not known: give off", value);
	out->no_sockmap = !strcmp(value, "off");
	return 0;
}

/* Cut between characters where it is too long: 10xxxxxx is inside of one (UTF-8). */
static void copy_text(char *out, size_t size, const char *text)
{
	size_t len = strlen(text);

	if (len >= size) {
		len = size - 1;
		while (len && (text[len] & 0xc0) == 0x80)
			len--;
	}
	memcpy(out, text, len);
	out[len] = '\0';
}

static int parse_label(const char *key, const char *value, struct labels *out,
		       struct labels_error *error)
{
	const char *name = key + strlen(PREFIX);

	if (!strcmp(name, "enabled"))
		return 0;
	if (!strcmp(name, "domain"))
		return parse_domain(value, out, error);
	if (!strcmp(name, "port"))
		return parse_port_of(key, value, &out->port, error);
	if (!strcmp(name, "tls"))
		return parse_tls(value, out, error);
	if (!strcmp(name, "tls.port"))
		return parse_port_of(key, value, &out->tls_port, error);
	if (!strcmp(name, "proxy-protocol"))
		return parse_proxy_protocol(value, out, error);
	if (!strcmp(name, "network"))
		return parse_network(value, out, error);
	if (!strcmp(name, "sockmap"))
		return parse_sockmap(value, out, error);
	if (!strcmp(name, "description")) {
		copy_text(out->description, sizeof(out->description), value);
		return 0;
	}
	return fault(error, key, "is not known to this version");
}

/* What no label alone shows. */
static int check_together(const struct labels *labels, struct labels_error *error)
{
	if (!labels->domain_count)
		return fault(error, PREFIX "domain", "is missing: give the name to answer to");
	if (!labels->port)
		return fault(error, PREFIX "port", "is missing: give the port inside the container");
	if (labels->tls_port && !labels->tls)
		return fault(error, PREFIX "tls.port",
			     "does nothing alone: give " PREFIX "tls=passthrough too");
	return 0;
}

int labels_parse(const struct json *object, struct labels *out, struct labels_error *error)
{
	memset(out, 0, sizeof(*out));
	memset(error, 0, sizeof(*error));
	if (strcmp(json_str(object, PREFIX "enabled", ""), "true"))
		return -ENOENT;
	json_each(label, object) {
		const char *key = json_name(label), *value = json_text(label);
		int err;

		if (strncmp(key, PREFIX, strlen(PREFIX)))
			continue;
		if (!value)
			return fault(error, key, "is no text");
		err = parse_label(key, value, out, error);
		if (err)
			return err;
	}
	return check_together(out, error);
}
