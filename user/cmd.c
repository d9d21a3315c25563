// SPDX-License-Identifier: MIT
/* What several commands share. */
#include "cmd.h"

#include <arpa/inet.h>
#include <errno.h>
#include <stdlib.h>
#include <string.h>
#include <time.h>

#include "http.h"

static bool agent_answers(const struct config *config)
{
	char path[512], *body = NULL;
	long status = 0;
	int err;

	snprintf(path, sizeof(path), "%s/admin.sock", config->run_dir);
	err = http_fetch("http://agent/healthz", path, 2000, &body, &status);
	free(body);
	return !err && status == 200;
}

bool cmd_open_maps(const struct config *config, struct mapview *view)
{
	int err = mapview_open(config->bpf_dir, view);

	if (!err)
		return true;
	if (err != -EPROTO && agent_answers(config))
		fprintf(stderr, "the agent runs without BPF maps, so that there is nothing to show: its "
				"log says why\n");
	else if (err == -ENOENT)
		fprintf(stderr, "not running: no maps in %s; start `kakuremichi-agent run`, or "
				"name its --bpf-dir\n", config->bpf_dir);
	else if (err == -EPERM || err == -EACCES)
		fprintf(stderr, "%s cannot be read: run this as root\n", config->bpf_dir);
	else if (err == -EPROTO)
		fprintf(stderr, "the maps in %s are another version's: use that version's command\n",
			config->bpf_dir);
	else
		fprintf(stderr, "%s cannot be read: %s\n", config->bpf_dir, strerror(-err));
	return false;
}

static void format_time(uint64_t ms, char out[40])
{
	time_t seconds = (time_t)(ms / 1000);
	struct tm utc;

	gmtime_r(&seconds, &utc);
	strftime(out, 40, "%Y-%m-%dT%H:%M:%SZ", &utc);
}

struct json *cmd_document(const struct mapview *view)
{
	struct json *root = json_object();
	char text[40];

	json_add_int(root, "schema", 1);
	if (view) {
		format_time(view->meta.written_ms, text);
		json_add_bool(root, "stale", view->stale);
		json_add_str(root, "written", text);
	}
	return root;
}

int cmd_print(struct json **document)
{
	char *text = json_print(*document, true);

	if (text)
		puts(text);
	json_free(document);
	free(text);
	return text && !fflush(stdout) ? 0 : 1;
}

void cmd_note_stale(const struct mapview *view)
{
	char text[40];

	if (!view->stale)
		return;
	format_time(view->meta.written_ms, text);
	fprintf(stderr, "stale: the agent has gone without stopping; last written %s\n", text);
}

const char *cmd_state(enum kkm_state state)
{
	static const char *const names[] = {
		[KKM_ACTIVE] = "active",     [KKM_STARTING] = "starting",
		[KKM_UNHEALTHY] = "unhealthy", [KKM_PAUSED] = "paused",
		[KKM_DRAINING] = "draining",
	};
	_Static_assert(sizeof(names) / sizeof(*names) == KKM_DRAINING + 1, "one a state");

	return state <= KKM_DRAINING ? names[state] : "?";
}

const char *cmd_owner(enum kkm_owner owner)
{
	static const char *const names[] = {
		[KKM_DOCKER] = "docker", [KKM_CONTROL] = "control", [KKM_FILE] = "file"
	};
	_Static_assert(sizeof(names) / sizeof(*names) == KKM_FILE + 1, "one an owner");

	return owner <= KKM_FILE ? names[owner] : "?";
}

const char *cmd_engine(enum kkm_engine engine)
{
	static const char *const names[] = {
		[KKM_RELAY] = "relay", [KKM_SOCKMAP] = "sockmap", [KKM_HANDOVER] = "handover"
	};
	_Static_assert(sizeof(names) / sizeof(*names) == KKM_HANDOVER + 1, "one an engine");

	return engine <= KKM_HANDOVER ? names[engine] : "?";
}

const char *cmd_address(const __u8 v4[4], const __u8 v6[16], char *out)
{
	static const __u8 none[4];

	if (memcmp(v4, none, sizeof(none)))
		inet_ntop(AF_INET, v4, out, INET6_ADDRSTRLEN);
	else
		inet_ntop(AF_INET6, v6, out, INET6_ADDRSTRLEN);
	return out;
}
