/* SPDX-License-Identifier: MIT */
/* The commands. Each returns the exit status: 0, 1 failure, 2 wrong usage. */
#ifndef KKM_CMD_H
#define KKM_CMD_H

#include "config.h"
#include "json.h"
#include "mapview.h"
#include "text.h"

int cmd_run(struct config *config);
int cmd_check(struct config *config);
int cmd_status(struct config *config);
int cmd_routes(struct config *config);
int cmd_connections(struct config *config);
int cmd_stats(struct config *config);
int cmd_version(struct config *config);

/* Open the pinned maps, or say on stderr what is wrong: false then. */
bool cmd_open_maps(const struct config *config, struct mapview *view);
/* A document with its schema and, for the maps', whether they are stale. */
struct json *cmd_document(const struct mapview *view);
/* Print and free it; the exit status. */
int cmd_print(struct json **document);
/* "note: …" on stderr where the maps are stale. */
void cmd_note_stale(const struct mapview *view);

/* "192.0.2.1" or "2001:db8::1", "-" where there is none; `out` has INET6_ADDRSTRLEN bytes. */
const char *cmd_address(const __u8 v4[4], const __u8 v6[16], char *out);

#endif
