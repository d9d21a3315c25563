/* SPDX-License-Identifier: MIT */
/*
 * The `kakuremichi.*` labels of a container. Whoever may start a container writes them, so they are
 * input: checked before anything is kept. Pure.
 */
#ifndef KKM_LABELS_H
#define KKM_LABELS_H

#include <stdbool.h>
#include <stdint.h>

#include "hostname.h"
#include "json.h"
#include "kakuremichi.h"

#define LABELS_MAX_DOMAINS 16
#define LABELS_MAX_SERVICES 16

/* One service of a container. */
struct labels {
	char service[KKM_SERVICE_LEN]; /* empty: the labels without a name */
	unsigned int domain_count;
	char domains[LABELS_MAX_DOMAINS][HOSTNAME_MAX + 1];
	uint16_t port;
	char description[KKM_REASON_LEN]; /* cut where it is longer */
	char network[KKM_NAME_LEN];
	bool tls;	   /* served on the TLS listener too */
	uint16_t tls_port; /* there; 0: `port` */
	bool proxy_protocol;
	bool no_sockmap;
	bool disabled; /* while parsing: this service alone */
};

struct labels_error {
	char label[KKM_NAME_LEN];
	char reason[KKM_REASON_LEN];
	char wanted[KKM_DOMAIN_LEN]; /* the domains of all labels, as they are written, with commas */
};

/*
 * 0 with the container's services, by name, malloced; -ENOENT where it has no
 * kakuremichi.enabled=true and is none of ours; -EINVAL with the label at fault and the reason;
 * -ENOMEM.
 */
int labels_parse(const struct json *object, struct labels **out, unsigned int *count,
		 struct labels_error *error);

#endif
