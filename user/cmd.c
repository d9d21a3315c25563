// SPDX-License-Identifier: MIT
/* What several commands share. */
#include "cmd.h"

#include <arpa/inet.h>
#include <errno.h>
#include <stdlib.h>
#include <string.h>
#include <sys/ioctl.h>
#include <unistd.h>

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

struct json *cmd_document(const struct mapview *view)
{
	struct json *root = json_object();
	char text[TEXT_TIME_MAX];

	json_add_int(root, "schema", 1);
	if (view) {
		json_add_bool(root, "stale", view->stale);
		json_add_str(root, "written", text_time(view->meta.written_ms, text));
	}
	return root;
}

bool cmd_is_terminal(void)
{
	const char *term = getenv("TERM");

	return isatty(STDOUT_FILENO) && term && *term && strcmp(term, "dumb");
}

void cmd_screen(const struct config *config, struct table_screen *out)
{
	const char *no_color = getenv("NO_COLOR"); /* no-color.org */
	struct winsize size = { 0 };

	*out = (struct table_screen){ .out = stdout };
	out->color = config->color == COLOR_ALWAYS ||
		     (config->color == COLOR_AUTO && cmd_is_terminal() && (!no_color || !*no_color));
	if (isatty(STDOUT_FILENO) && !ioctl(STDOUT_FILENO, TIOCGWINSZ, &size))
		out->width = size.ws_col;
}

int cmd_print(struct json **document, bool pretty)
{
	char *text = json_print(*document, pretty);
	char *clean = text ? table_clean_json(text) : NULL;
	int status = clean && puts(clean) >= 0 && !fflush(stdout) ? 0 : 1;

	json_free(document);
	free(text);
	free(clean);
	return status;
}

void cmd_note_stale(const struct mapview *view)
{
	char text[TEXT_TIME_MAX];

	if (!view->stale)
		return;
	fprintf(stderr, "stale: the agent has gone without stopping; last written %s\n",
		text_time(view->meta.written_ms, text));
}

struct json *cmd_fetch_status(const struct config *config, char why[CMD_WHY_LEN])
{
	char path[512], *body = NULL;
	struct json *root;
	long status = 0;
	int err;

	snprintf(path, sizeof(path), "%s/admin.sock", config->run_dir);
	if (!access(path, F_OK) && access(path, W_OK)) {
		snprintf(why, CMD_WHY_LEN, "%s cannot be used: run this as root", path);
		return NULL;
	}
	err = http_fetch("http://agent/status", path, 5000, &body, &status);
	if (err == -ETIMEDOUT) {
		snprintf(why, CMD_WHY_LEN, "the agent does not answer on %s: see its log", path);
		return NULL;
	}
	if (err) {
		snprintf(why, CMD_WHY_LEN, "not running: nobody answers on %s; start "
			 "`kakuremichi-agent run`, or name its --run-dir", path);
		return NULL;
	}
	root = json_parse(body, strlen(body));
	free(body);
	if (status == 200 && root)
		return root;
	json_free(&root);
	snprintf(why, CMD_WHY_LEN, "%s is not an agent's of this version", path);
	return NULL;
}

enum table_style cmd_state_style(enum kkm_state state)
{
	return state == KKM_ACTIVE ? TABLE_GOOD : state == KKM_UNHEALTHY ? TABLE_BAD : TABLE_DOUBTFUL;
}

const char *cmd_endpoint(const __u8 v4[4], const __u8 v6[16], unsigned int port, char *out)
{
	char host[INET6_ADDRSTRLEN];

	cmd_address(v4, v6, host);
	snprintf(out, CMD_ENDPOINT_LEN, strchr(host, ':') ? "[%s]:%u" : "%s:%u", host, port);
	return out;
}

const char *cmd_address(const __u8 v4[4], const __u8 v6[16], char *out)
{
	static const __u8 none[16];

	if (memcmp(v4, none, 4))
		inet_ntop(AF_INET, v4, out, INET6_ADDRSTRLEN);
	else if (!memcmp(v6, none, sizeof(none)))
		snprintf(out, INET6_ADDRSTRLEN, "-");
	else
		inet_ntop(AF_INET6, v6, out, INET6_ADDRSTRLEN);
	return out;
}
