// SPDX-License-Identifier: MIT
#include "cmd.h"

#include <arpa/inet.h>
#include <string.h>
#include <time.h>

struct listing {
	const struct mapview *view;
	struct json *array; /* NULL: text */
	uint64_t now_ms;
};

static void endpoint(const __u8 v4[4], const __u8 v6[16], unsigned int port, char *out, size_t size)
{
	char host[INET6_ADDRSTRLEN];

	cmd_address(v4, v6, host);
	snprintf(out, size, strchr(host, ':') ? "[%s]:%u" : "%s:%u", host, port);
}

/* Asked for and entered: until the container's socket is enrolled, the relay carries it. */
static enum kkm_engine down_engine(const struct kkm_conn *conn, const struct kkm_slot *slot)
{
	return conn->down == KKM_SOCKMAP && (!slot->enrolled || slot->stop) ? KKM_RELAY : conn->down;
}

static enum kkm_engine up_engine(const struct kkm_conn *conn, const struct kkm_slot *slot)
{
	return conn->up == KKM_SOCKMAP && (!slot->enrolled || slot->stop) ? KKM_RELAY : conn->up;
}

static void show(void *ctx, const void *key, const void *value)
{
	struct listing *listing = ctx;
	char client[INET6_ADDRSTRLEN + 8], backend[INET6_ADDRSTRLEN + 8];
	struct kkm_slot slot = { 0 };
	struct kkm_conn conn;
	struct json *object;
	uint64_t age_ms, down;

	(void)key;
	memcpy(&conn, value, sizeof(conn));
	mapview_get(listing->view, "kkm_slots", &conn.slot, &slot);
	endpoint(conn.client_address, conn.client_address6, conn.client_port, client,
		 sizeof(client));
	endpoint(conn.backend.address, conn.backend.address6, conn.backend.port, backend,
		 sizeof(backend));
	age_ms = listing->now_ms > conn.opened_ms ? listing->now_ms - conn.opened_ms : 0;
	down = slot.down_bytes + slot.short_bytes;
	if (!listing->array) {
		printf("%-26s %-32s %-26s %-7s %-7s %12llu %12llu %8llu\n", client,
		       conn.backend.domain, backend, text_engine(up_engine(&conn, &slot)),
		       text_engine(down_engine(&conn, &slot)), slot.up_bytes,
		       (unsigned long long)down, (unsigned long long)age_ms / 1000);
		return;
	}
	object = json_append_object(listing->array);
	json_add_str(object, "client", client);
	json_add_str(object, "domain", conn.backend.domain);
	json_add_str(object, "backend", backend);
	json_add_str(object, "engine_up", text_engine(up_engine(&conn, &slot)));
	json_add_str(object, "engine_down", text_engine(down_engine(&conn, &slot)));
	json_add_int(object, "bytes_up", (int64_t)slot.up_bytes);
	json_add_int(object, "bytes_down", (int64_t)down);
	json_add_int(object, "bytes_up_short", (int64_t)slot.short_up_bytes);
	json_add_int(object, "bytes_down_short", (int64_t)slot.short_bytes);
	json_add_int(object, "age_ms", (int64_t)age_ms);
}

int cmd_connections(struct config *config)
{
	struct mapview view;
	struct listing listing = { .view = &view };
	struct json *root = NULL;
	struct timespec now;

	if (!cmd_open_maps(config, &view))
		return 1;
	clock_gettime(CLOCK_REALTIME, &now);
	listing.now_ms = (uint64_t)now.tv_sec * 1000 + (uint64_t)now.tv_nsec / 1000000;
	cmd_note_stale(&view);
	if (config->json) {
		root = cmd_document(&view);
		listing.array = json_add_array(root, "connections");
	} else {
		printf("%-26s %-32s %-26s %-7s %-7s %12s %12s %8s\n", "CLIENT", "DOMAIN", "BACKEND",
		       "UP", "DOWN", "BYTES UP", "BYTES DOWN", "AGE S");
	}
	if (mapview_each(&view, "kkm_conns", show, &listing)) {
		json_free(&root);
		fprintf(stderr, "the maps in %s cannot be read: try again\n", view.dir);
		return 1;
	}
	return root ? cmd_print(&root) : 0;
}
