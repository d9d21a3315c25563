/* SPDX-License-Identifier: MIT */
/* The commands. Each returns the exit status: 0, 1 failure, 2 wrong usage. */
#ifndef KKM_CMD_H
#define KKM_CMD_H

#include "config.h"
#include "json.h"
#include "mapview.h"
#include "table.h"
#include "text.h"

#define CMD_WHY_LEN 768
#define CMD_ENDPOINT_LEN 64

int cmd_run(struct config *config);
int cmd_check(struct config *config);
int cmd_status(struct config *config);
int cmd_routes(struct config *config);
int cmd_connections(struct config *config);
int cmd_explain(struct config *config);
int cmd_stats(struct config *config);
int cmd_version(struct config *config);

/* Open the pinned maps, or say on stderr what is wrong: false then. */
bool cmd_open_maps(const struct config *config, struct mapview *view);
/* A document with its schema and, for the maps', whether they are stale. */
struct json *cmd_document(const struct mapview *view);
/* What standard output is: a terminal, as wide as it is, in colours or not. */
void cmd_screen(const struct config *config, struct table_screen *out);
/* Are control sequences that move the cursor understood there? */
bool cmd_is_terminal(void);
/* Print and free it, in one line where it is not pretty; the exit status. */
int cmd_print(struct json **document, bool pretty);
/* "note: …" on stderr where the maps are stale. */
void cmd_note_stale(const struct mapview *view);

/* The agent's answer to /status: NULL, and `why` is a line for a person. */
struct json *cmd_fetch_status(const struct config *config, char why[CMD_WHY_LEN]);
enum table_style cmd_state_style(enum kkm_state state);

/* "192.0.2.1" or "2001:db8::1", "-" where there is none; `out` has INET6_ADDRSTRLEN bytes. */
const char *cmd_address(const __u8 v4[4], const __u8 v6[16], char *out);
/* The same with a port, "[2001:db8::1]:80"; `out` has CMD_ENDPOINT_LEN bytes. */
const char *cmd_endpoint(const __u8 v4[4], const __u8 v6[16], unsigned int port, char *out);

#endif
