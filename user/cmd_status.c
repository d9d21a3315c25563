// SPDX-License-Identifier: MIT
#include "cmd.h"

#include <errno.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#include "http.h"

static void print_routes_file(const struct json *file)
{
	const char *error = json_str(file, "error", NULL);

	if (json_is_object(file))
		printf("routes file  %s: %lld routes%s since %s%s%s\n", json_str(file, "path", "?"),
		       (long long)json_int(file, "routes", 0), error ? "; not taken" : "",
		       json_str(file, "since", "?"), error ? ": " : "", error ? error : "");
}

static void print_text(const struct json *root)
{
	const struct json *docker = json_get(root, "docker"), *counts = json_get(root, "counts");
	const char *error = json_str(docker, "error", NULL);
	bool enabled = json_flag(docker, "enabled"), connected = json_flag(docker, "connected");

	printf("agent        %s, pid %lld, version %s, since %s\n", json_str(root, "state", "?"),
	       (long long)json_int(root, "pid", 0), json_str(root, "version", "?"),
	       json_str(root, "since", "?"));
	printf("datapath     %s (--datapath %s), %lld workers\n", json_str(root, "engine", "?"),
	       json_str(root, "datapath", "?"), (long long)json_int(root, "workers", 0));
	if (!enabled)
		printf("docker       disabled\n");
	else
		printf("docker       %s since %s%s%s%s%s\n",
		       connected ? "connected" : "not connected",
		       json_str(docker, "since", "the start"), error ? ": " : "",
		       error ? error : "", connected ? ", API " : "",
		       connected ? json_str(docker, "api_version", "") : "");
	print_routes_file(json_get(root, "routes_file"));
	printf("control      not part of this version\n");
	printf("routes       %lld to %lld backends, %lld rejected\n",
	       (long long)json_int(counts, "routes", 0), (long long)json_int(counts, "backends", 0),
	       (long long)json_int(counts, "rejected", 0));
	printf("connections  %lld now, %lld in all, %lld requests\n",
	       (long long)json_int(counts, "connections", 0),
	       (long long)json_int(counts, "connections_accepted", 0),
	       (long long)json_int(counts, "requests", 0));
}

int cmd_status(struct config *config)
{
	char path[512], *body = NULL;
	struct json *root;
	long status = 0;
	int err;

	snprintf(path, sizeof(path), "%s/admin.sock", config->run_dir);
	if (!access(path, F_OK) && access(path, W_OK)) {
		fprintf(stderr, "%s cannot be used: run this as root\n", path);
		return 1;
	}
	err = http_fetch("http://agent/status", path, 5000, &body, &status);
	if (err == -ETIMEDOUT) {
		fprintf(stderr, "the agent does not answer on %s: see its log\n", path);
		return 1;
	}
	if (err) {
		fprintf(stderr, "not running: nobody answers on %s; start `kakuremichi-agent run`, or "
				"name its --run-dir\n", path);
		return 1;
	}
	root = json_parse(body, strlen(body));
	free(body);
	if (status != 200 || !root) {
		json_free(&root);
		fprintf(stderr, "%s is not an agent's of this version\n", path);
		return 1;
	}
	if (config->json)
		return cmd_print(&root);
	print_text(root);
	json_free(&root);
	return 0;
}
