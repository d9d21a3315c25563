// SPDX-License-Identifier: MIT
#include "cmd.h"

#include <stdlib.h>
#include <string.h>
#include <time.h>

struct connection_row {
	struct kkm_conn conn;
	struct kkm_slot slot;
};

struct listing {
	const struct mapview *view;
	struct connection_row *rows;
	size_t count;
	bool short_of_memory;
};

/* Asked for and entered: until the container's socket is enrolled, the relay carries it. */
static enum kkm_engine down_engine(const struct connection_row *row)
{
	return row->conn.down == KKM_SOCKMAP && (!row->slot.enrolled || row->slot.stop)
		       ? KKM_RELAY
		       : row->conn.down;
}

static enum kkm_engine up_engine(const struct connection_row *row)
{
	return row->conn.up == KKM_SOCKMAP && (!row->slot.enrolled || row->slot.stop)
		       ? KKM_RELAY
		       : row->conn.up;
}

static void add(void *ctx, const void *key, const void *value)
{
	struct listing *listing = ctx;
	struct connection_row *row, *rows = listing->rows;
	size_t count = listing->count;

	(void)key;
	if (!(count & (count - 1)))
		rows = realloc(rows, (count ? count * 2 : 1) * sizeof(*rows));
	listing->short_of_memory |= !rows;
	if (listing->short_of_memory)
		return;
	listing->rows = rows;
	row = &rows[listing->count++];
	memset(row, 0, sizeof(*row));
	memcpy(&row->conn, value, sizeof(row->conn));
	mapview_get(listing->view, "kkm_slots", &row->conn.slot, &row->slot);
}

static int compare(const void *a, const void *b)
{
	const struct connection_row *x = a, *y = b;

	if (x->conn.opened_ms != y->conn.opened_ms)
		return x->conn.opened_ms < y->conn.opened_ms ? -1 : 1;
	return x->conn.slot < y->conn.slot ? -1 : x->conn.slot > y->conn.slot;
}

static uint64_t age_ms(const struct connection_row *row)
{
	struct timespec now;
	uint64_t now_ms;

	clock_gettime(CLOCK_REALTIME, &now);
	now_ms = (uint64_t)now.tv_sec * 1000 + (uint64_t)now.tv_nsec / 1000000;
	return now_ms > row->conn.opened_ms ? now_ms - row->conn.opened_ms : 0;
}

static void ends(const struct connection_row *row, char client[CMD_ENDPOINT_LEN],
		 char backend[CMD_ENDPOINT_LEN])
{
	const struct kkm_conn *conn = &row->conn;

	cmd_endpoint(conn->client_address, conn->client_address6, conn->client_port, client);
	cmd_endpoint(conn->backend.address, conn->backend.address6, conn->backend.port, backend);
}

static void add_json(struct json *array, const struct connection_row *row)
{
	char client[CMD_ENDPOINT_LEN], backend[CMD_ENDPOINT_LEN];
	struct json *object = json_append_object(array);
	const struct kkm_slot *slot = &row->slot;

	ends(row, client, backend);
	json_add_str(object, "client", client);
	json_add_str(object, "domain", row->conn.backend.domain);
	json_add_str(object, "backend", backend);
	json_add_str(object, "engine_up", text_engine(up_engine(row)));
	json_add_str(object, "engine_down", text_engine(down_engine(row)));
	json_add_int(object, "bytes_up", (int64_t)slot->up_bytes);
	json_add_int(object, "bytes_down", (int64_t)(slot->down_bytes + slot->short_bytes));
	json_add_int(object, "bytes_up_short", (int64_t)slot->short_up_bytes);
	json_add_int(object, "bytes_down_short", (int64_t)slot->short_bytes);
	json_add_int(object, "age_ms", (int64_t)age_ms(row));
}

static void add_text(struct table *table, const struct connection_row *row)
{
	char client[CMD_ENDPOINT_LEN], backend[CMD_ENDPOINT_LEN], text[TEXT_SIZE_MAX];
	const struct kkm_slot *slot = &row->slot;

	ends(row, client, backend);
	table_add(table, TABLE_PLAIN, client);
	table_add(table, TABLE_BOLD, row->conn.backend.domain);
	table_add(table, TABLE_PLAIN, backend);
	table_add(table, up_engine(row) == KKM_RELAY ? TABLE_PLAIN : TABLE_GOOD,
		  text_engine(up_engine(row)));
	table_add(table, down_engine(row) == KKM_RELAY ? TABLE_PLAIN : TABLE_GOOD,
		  text_engine(down_engine(row)));
	table_add(table, TABLE_PLAIN, text_size(slot->up_bytes, text));
	table_add(table, TABLE_PLAIN, text_size(slot->down_bytes + slot->short_bytes, text));
	table_add(table, TABLE_PLAIN, text_age(age_ms(row), text));
}

static void print_text(const struct config *config, const struct listing *listing)
{
	static const struct table_column columns[] = {
		{ "CLIENT", TABLE_KEEP }, { "DOMAIN", TABLE_KEEP },	  { "BACKEND", TABLE_KEEP },
		{ "UP", TABLE_KEEP },	  { "DOWN", TABLE_KEEP },	  { "BYTES UP", TABLE_RIGHT },
		{ "BYTES DOWN", TABLE_RIGHT }, { "AGE", TABLE_RIGHT },
	};
	struct table *table = table_new(columns, sizeof(columns) / sizeof(*columns));
	struct table_screen screen;

	cmd_screen(config, &screen);
	for (size_t i = 0; i < listing->count; i++)
		add_text(table, &listing->rows[i]);
	if (table_is_empty(table)) {
		table_text(&screen, TABLE_DIM, "no connection to a container is open");
		fputc('\n', screen.out);
	}
	table_print(table, &screen);
	table_free(&table);
}

static int print_json(const struct listing *listing)
{
	struct json *root = cmd_document(listing->view), *array;

	array = json_add_array(root, "connections");
	for (size_t i = 0; i < listing->count; i++)
		add_json(array, &listing->rows[i]);
	return cmd_print(&root, true);
}

int cmd_connections(struct config *config)
{
	struct mapview view;
	struct listing listing = { .view = &view };
	int status = 0;

	if (!cmd_open_maps(config, &view))
		return 1;
	if (mapview_each(&view, "kkm_conns", add, &listing) || listing.short_of_memory) {
		free(listing.rows);
		fprintf(stderr, "the maps in %s cannot be read: try again\n", view.dir);
		return 1;
	}
	if (listing.count)
		qsort(listing.rows, listing.count, sizeof(*listing.rows), compare);
	cmd_note_stale(&view);
	if (config->json)
		status = print_json(&listing);
	else
		print_text(config, &listing);
	free(listing.rows);
	return status;
}
