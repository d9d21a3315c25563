// SPDX-License-Identifier: MIT
/* An index: the command table. */
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "cmd.h"

#define SHOWN (CONFIG_JSON | CONFIG_COLOR)

/* `operand` is what it needs behind its name; `flags` are the ones that only some commands take. */
static const struct command {
	const char *name, *operand;
	int (*run)(struct config *config);
	unsigned int flags;
	const char *help;
} commands[] = {
	{ "run", NULL, cmd_run, 0, "the daemon, in the foreground" },
	{ "check", NULL, cmd_check, SHOWN,
	  "what this host has of what the engines need, and whether labels are good; exit 0 if "
	  "run would work" },
	{ "status", NULL, cmd_status, SHOWN,
	  "is it up, which engine, Docker connected or not, counts" },
	{ "routes", NULL, cmd_routes, SHOWN | CONFIG_WATCH,
	  "every domain and its containers; who is rejected, and why" },
	{ "explain", "DOMAIN", cmd_explain, SHOWN,
	  "the way of a request for this domain, step by step, or where it ends" },
	{ "connections", NULL, cmd_connections, SHOWN, "live connections, engines and bytes" },
	{ "stats", NULL, cmd_stats, SHOWN, "every counter, with its meaning" },
	{ "version", NULL, cmd_version, SHOWN, "of the agent and of its libraries" },
};

#define COMMANDS (sizeof(commands) / sizeof(*commands))

static void print_help(FILE *out)
{
	fprintf(out, "usage: kakuremichi-agent COMMAND [OPTION]...\n\n");
	for (size_t i = 0; i < COMMANDS; i++) {
		char name[32];

		snprintf(name, sizeof(name), "%s%s%s", commands[i].name,
			 commands[i].operand ? " " : "",
			 commands[i].operand ? commands[i].operand : "");
		fprintf(out, "  %-14s %s\n", name, commands[i].help);
	}
	fprintf(out, "\nOptions, each with its environment variable; --json and --color for all but "
		     "run, --watch for routes:\n\n");
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

static int wrong_usage(const char *error)
{
	fprintf(stderr, "kakuremichi-agent: %s\n", error);
	return 2;
}

static int run_command(const struct command *command, int argc, char **argv)
{
	bool reads = command->run != cmd_run && command->run != cmd_check;
	const char *operand = NULL, *unexpected;
	char error[CONFIG_ERROR_LEN];
	struct config config;

	if (config_parse(&config, argc, argv, reads ? environment_of_readers : environment,
			 command->operand ? &operand : NULL, error))
		return wrong_usage(error);
	if (config.help) {
		print_help(stdout);
		return 0;
	}
	config.operand = operand;
	unexpected = config_unexpected(&config, command->flags);
	if (unexpected)
		snprintf(error, sizeof(error), "%s has no --%s: see kakuremichi-agent --help",
			 command->name, unexpected);
	else if (command->operand && !operand)
		snprintf(error, sizeof(error), "%s needs to know which: give a %s", command->name,
			 command->operand);
	else
		return command->run(&config);
	return wrong_usage(error);
}

int main(int argc, char **argv)
{
	if (argc > 1 && (!strcmp(argv[1], "--help") || !strcmp(argv[1], "-h") ||
			 !strcmp(argv[1], "help"))) {
		print_help(stdout);
		return 0;
	}
	if (argc > 1 && !strcmp(argv[1], "--version"))
		argv[1] = "version";
	for (size_t i = 0; argc > 1 && i < COMMANDS; i++) {
		if (!strcmp(commands[i].name, argv[1]))
			return run_command(&commands[i], argc - 2, argv + 2);
	}
	if (argc > 1)
		fprintf(stderr, "kakuremichi-agent: unknown command '%.40s': see "
				"kakuremichi-agent --help\n", argv[1]);
	else
		print_help(stderr);
	return 2;
}
