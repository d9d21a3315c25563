/* SPDX-License-Identifier: MIT */
/* Puts the parts together: the daemon. */
#ifndef KKM_AGENT_H
#define KKM_AGENT_H

#include "config.h"
#include "host.h"

/* Fills in what the configuration leaves to the machine: CPUs, RLIMIT_NOFILE, cgroup. */
void agent_complete_config(struct config *config);

/* Is this one of the addresses at which it listens by its configuration? */
bool agent_is_own(const struct config *config, struct host *host,
		  const struct sockaddr_storage *address);

/* Runs until SIGTERM or SIGINT and the end of the drain. The exit status; what went wrong is logged. */
int agent_run(struct config *config);

#endif
