// SPDX-License-Identifier: MIT
#include "agent.h"
#include "cmd.h"

int cmd_run(struct config *config)
{
	log_setup(config->log_level, config->log_format);
	agent_complete_config(config);
	return agent_run(config);
}
