// SPDX-License-Identifier: MIT
/* An index: the command table. */
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "cmd.h"

static const struct {
	const char *name;
	int (*run)(struct config *config);
	const char *help;
} commands[] = {
	{ "run", cmd_run, "the daemon, in the foreground" },
	{ "check", cmd_check, "what this host has of what the engines need; exit 0 if run would work" },
	{ "status", cmd_status, "is it up, which engine, Docker connected or not, counts" },
	{ "routes", cmd_routes, "every domain and its containers; who is rejected, and why" },
	{ "connections", cmd_connections, "live connections, engines and bytes" },
	{ "stats", cmd_stats, "every counter, with its meaning" },
	{ "version", cmd_version, "of the agent and of its libraries" },
};

static void print_help(FILE *out)
{
	fprintf(out, "usage: kakuremichi-agent COMMAND [OPTION]...\n\n");
	for (size_t i = 0; i < sizeof(commands) / sizeof(*commands); i++)
		fprintf(out, "  %-12s %s\n", commands[i].name, commands[i].help);
	fprintf(out, "\nAll but run take --json. Options, each with its environment variable:\n\n");
	config_print_help(out);
}

static const char *environment(const char *name)
{
	return getenv(name);
}

/* What the docker command uses and the agent cannot (ssh://) is no matter to one that only reads. */
static const char *environment_of_readers(const char *name)
{
	return strcmp(name, "DOCKER_HOST") ? getenv(name) : NULL;
}

int main(int argc, char **argv)
{
	char error[CONFIG_ERROR_LEN];
	struct config config;

	if (argc > 1 && (!strcmp(argv[1], "--help") || !strcmp(argv[1], "-h") ||
			 !strcmp(argv[1], "help"))) {
		print_help(stdout);
		return 0;
	}
	if (argc > 1 && !strcmp(argv[1], "--version"))
		argv[1] = "version";
	for (size_t i = 0; argc > 1 && i < sizeof(commands) / sizeof(*commands); i++) {
		if (strcmp(commands[i].name, argv[1]))
			continue;
		if (config_parse(&config, argc - 2, argv + 2,
				 commands[i].run == cmd_run || commands[i].run == cmd_check
					 ? environment
					 : environment_of_readers,
				 NULL, error)) {
			fprintf(stderr, "kakuremichi-agent: %s\n", error);
			return 2;
		}
		if (config.help) {
			print_help(stdout);
			return 0;
		}
		return commands[i].run(&config);
	}
	if (argc > 1)
		fprintf(stderr, "kakuremichi-agent: unknown command '%.40s': see "
				"kakuremichi-agent --help\n", argv[1]);
	else
		print_help(stderr);
	return 2;
}
