// SPDX-License-Identifier: MIT
#include "cmd.h"

#include <arpa/inet.h>
#include <stdlib.h>
#include <string.h>

struct backend {
	struct kkm_backend_key key;
	struct kkm_backend value;
};

struct rejected {
	struct kkm_rejected_key key;
	struct kkm_rejected value;
};

struct listing {
	struct backend *backends;
	struct rejected *rejected;
	size_t backend_count, rejected_count;
	bool short_of_memory;
};

static void *grown(struct listing *listing, void *array, size_t count, size_t size)
{
	void *out = count & (count - 1) ? array : realloc(array, (count ? count * 2 : 1) * size);

	listing->short_of_memory |= !out;
	return out ? out : array;
}

static void add_backend(void *ctx, const void *key, const void *value)
{
	struct listing *listing = ctx;

	listing->backends = grown(listing, listing->backends, listing->backend_count,
				  sizeof(*listing->backends));
	if (listing->short_of_memory)
		return;
	memcpy(&listing->backends[listing->backend_count].key, key, sizeof(struct kkm_backend_key));
	memcpy(&listing->backends[listing->backend_count++].value, value,
	       sizeof(struct kkm_backend));
}

static void add_rejected(void *ctx, const void *key, const void *value)
{
	struct listing *listing = ctx;

	listing->rejected = grown(listing, listing->rejected, listing->rejected_count,
				  sizeof(*listing->rejected));
	if (listing->short_of_memory)
		return;
	memcpy(&listing->rejected[listing->rejected_count].key, key,
	       sizeof(struct kkm_rejected_key));
	memcpy(&listing->rejected[listing->rejected_count++].value, value,
	       sizeof(struct kkm_rejected));
}

static int compare_backends(const void *a, const void *b)
{
	const struct backend *x = a, *y = b;
	int order = strcmp(x->key.domain, y->key.domain);

	return order ? order : strcmp(x->value.container, y->value.container);
}

static int compare_rejected(const void *a, const void *b)
{
	const struct rejected *x = a, *y = b;

	return strcmp(x->value.container, y->value.container);
}

static void backend_json(struct json *array, const struct backend *backend)
{
	struct json *object = json_append_object(array);
	char address[INET6_ADDRSTRLEN];

	json_add_str(object, "container", backend->value.container);
	json_add_str(object, "id", backend->value.id);
	json_add_str(object, "address",
		     cmd_address(backend->key.address, backend->key.address6, address));
	json_add_int(object, "port", backend->key.port);
	json_add_str(object, "state", text_state(backend->value.state));
	json_add_str(object, "owner", text_owner(backend->value.owner));
	json_add_bool(object, "tls", backend->value.tls_port);
	if (backend->value.tls_port)
		json_add_int(object, "tls_port", backend->value.tls_port);
	if (backend->value.proxy_protocol)
		json_add_int(object, "proxy_protocol", backend->value.proxy_protocol);
	json_add_str(object, "description", backend->value.description);
}

static void routes_json(struct json *root, const struct listing *listing)
{
	struct json *routes = json_add_array(root, "routes"), *backends = NULL;

	for (size_t i = 0; i < listing->backend_count; i++) {
		const struct backend *backend = &listing->backends[i];

		if (!i || strcmp(backend->key.domain, backend[-1].key.domain)) {
			struct json *route = json_append_object(routes);

			json_add_str(route, "domain", backend->key.domain);
			json_add_str(route, "owner", text_owner(backend->value.owner));
			backends = json_add_array(route, "backends");
		}
		backend_json(backends, backend);
	}
}

static void refusals_json(struct json *root, const struct listing *listing)
{
	struct json *arrays[] = {
		[KKM_REJECTED] = json_add_array(root, "rejected"),
		[KKM_CONFLICT] = json_add_array(root, "conflicts"),
	};

	for (size_t i = 0; i < listing->rejected_count; i++) {
		const struct rejected *rejected = &listing->rejected[i];
		struct json *object = json_append_object(arrays[rejected->value.refusal]);

		json_add_str(object, "container", rejected->value.container);
		json_add_str(object, "id", rejected->key.id);
		json_add_str(object, "domain", *rejected->key.domain ? rejected->key.domain : NULL);
		json_add_str(object, "label", rejected->value.label);
		json_add_str(object, "reason", rejected->value.reason);
	}
}

/* What somebody else wrote may hold anything; a terminal shall not obey it. */
static void print_clean(const char *text)
{
	for (const unsigned char *p = (const unsigned char *)text; *p; p++)
		putchar(*p < 0x20 || *p == 0x7f ? '?' : *p);
}

static void print_text(const struct listing *listing)
{
	size_t width = strlen("DOMAIN"), container_width = strlen("CONTAINER");

	for (size_t i = 0; i < listing->backend_count; i++) {
		const struct backend *backend = &listing->backends[i];

		if (strlen(backend->key.domain) > width)
			width = strlen(backend->key.domain);
		if (strlen(backend->value.container) > container_width)
			container_width = strlen(backend->value.container);
	}
	printf("%-*s  %-*s  %-28s  %-9s  %-7s  %s\n", (int)width, "DOMAIN", (int)container_width,
	       "CONTAINER", "ADDRESS", "STATE", "OWNER", "DESCRIPTION");
	for (size_t i = 0; i < listing->backend_count; i++) {
		const struct backend *backend = &listing->backends[i];
		bool again = i && !strcmp(backend->key.domain, backend[-1].key.domain);
		char host[INET6_ADDRSTRLEN], address[INET6_ADDRSTRLEN + 8];

		cmd_address(backend->key.address, backend->key.address6, host);
		snprintf(address, sizeof(address), strchr(host, ':') ? "[%s]:%u" : "%s:%u", host,
			 backend->key.port);
		printf("%-*s  %-*s  %-28s  %-9s  %-7s  ", (int)width,
		       again ? "" : backend->key.domain, (int)container_width,
		       backend->value.container, address, text_state(backend->value.state),
		       text_owner(backend->value.owner));
		print_clean(backend->value.description);
		putchar('\n');
	}
	for (size_t i = 0; i < listing->rejected_count; i++) {
		const struct rejected *rejected = &listing->rejected[i];

		printf("%s: container ", rejected->value.refusal == KKM_CONFLICT ? "conflict"
										 : "rejected");
		print_clean(rejected->value.container);
		if (*rejected->key.domain)
			printf(", domain %s", rejected->key.domain);
		printf(": ");
		print_clean(rejected->value.label);
		printf(*rejected->value.label ? " " : "");
		print_clean(rejected->value.reason);
		putchar('\n');
	}
}

int cmd_routes(struct config *config)
{
	struct listing listing = { 0 };
	struct mapview view;
	struct json *root;
	int status = 0;

	if (!cmd_open_maps(config, &view))
		return 1;
	if (mapview_each(&view, "kkm_backends", add_backend, &listing) ||
	    mapview_each(&view, "kkm_rejected", add_rejected, &listing) ||
	    listing.short_of_memory) {
		fprintf(stderr, "the maps in %s cannot be read whole: try again\n", view.dir);
		status = 1;
	} else {
		if (listing.backend_count)
			qsort(listing.backends, listing.backend_count, sizeof(*listing.backends),
			      compare_backends);
		if (listing.rejected_count)
			qsort(listing.rejected, listing.rejected_count, sizeof(*listing.rejected),
			      compare_rejected);
		cmd_note_stale(&view);
		if (config->json) {
			root = cmd_document(&view);
			routes_json(root, &listing);
			refusals_json(root, &listing);
			status = cmd_print(&root);
		} else {
			print_text(&listing);
		}
	}
	free(listing.backends);
	free(listing.rejected);
	return status;
}
