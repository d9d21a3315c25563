// SPDX-License-Identifier: MIT
#include "agent_impl.h"

#include <errno.h>
#include <stdarg.h>
#include <stdio.h>
#include <string.h>

#include "selftest.h"

/* For `status` and `explain`. */
__attribute__((format(printf, 2, 3))) static void set_reason(struct agent *agent,
							     const char *format, ...)
{
	va_list args;

	va_start(args, format);
	vsnprintf(agent->engine_reason, sizeof(agent->engine_reason), format, args);
	va_end(args);
}

static const struct selftest_result *first_failure(const struct selftest *selftest)
{
	for (int i = 0; i < SELFTEST_STEPS; i++) {
		const struct selftest_result *step = &selftest->steps[i];

		if (step->gate == SELFTEST_SHORT && !step->passed && !step->absent)
			return step;
	}
	return NULL;
}

static void warn_of_failures(const struct selftest *selftest)
{
	const struct selftest_result *load = &selftest->steps[SELFTEST_LOAD];

	if (!load->passed)
		log_warn("Datapath is relay, though sockmap is asked for: it cannot be had here",
			 "step", load->name, "detail", load->run ? load->detail : "not run", NULL);
	for (int i = 0; i < SELFTEST_STEPS && load->passed; i++) {
		const struct selftest_result *step = &selftest->steps[i];

		if (step->gate <= SELFTEST_STREAMS && !step->passed && !step->absent)
			log_warn("sockmap is forced, though the self-test failed", "step",
				 step->name, "detail", step->run ? step->detail : "not run",
				 "consequence", step->consequence, NULL);
	}
}

static void log_auto(const struct selftest *selftest)
{
	const struct selftest_result *step = first_failure(selftest);

	if (!step)
		log_info("Datapath is sockmap: the self-test passed on this kernel", "#ms",
			 log_number(selftest->ms), NULL);
	else
		log_info("Datapath is relay: the self-test for sockmap failed here", "step",
			 step->name, "detail", step->run ? step->detail : "not run", "consequence",
			 step->consequence, "#ms", log_number(selftest->ms), NULL);
}

/* Requests go by the short way only where what is put into a socket is charged to it. */
static bool choose_requests(enum config_requests wanted, const struct selftest *selftest)
{
	const struct selftest_result *memory = &selftest->steps[SELFTEST_PUT_MEMORY];

	if (wanted == REQUESTS_OFF)
		return false;
	if (selftest_allows(selftest, SELFTEST_REQUESTS))
		return true;
	if (wanted == REQUESTS_AUTO)
		return false;
	if (!memory->passed)
		log_warn("sockmap does not carry requests on this kernel", "step", memory->name,
			 "detail", memory->run ? memory->detail : "not run", "consequence",
			 memory->consequence, NULL);
	else
		log_warn("sockmap is forced to carry requests, though the self-test failed: "
			 "see check", NULL);
	return memory->passed;
}

static void explain_choice(struct agent *agent, const struct selftest *selftest)
{
	const struct selftest_result *step = first_failure(selftest);
	const char *const carried[][2] = { { "answers", "answers and requests" },
					   { "answers and streams",
					     "answers, streams and requests" } };

	if (agent->shared.engine == KKM_SOCKMAP)
		set_reason(agent, step ? "forced by --datapath sockmap, though the self-test failed; "
					 "it carries %s"
				       : "the self-test passed on this kernel; it carries %s",
			   carried[agent->shared.streams][agent->shared.requests]);
	else if (step)
		set_reason(agent, "the self-test for sockmap failed here at '%s' (%.100s): %.120s",
			   step->name, step->run ? step->detail : "not run", step->consequence);
}

/* Which engine to try first, and what it has to mind. */
void agent_choose_engine(struct agent *agent)
{
	enum config_datapath wanted = agent->config->datapath;
	struct selftest selftest;
	bool passed;

	agent->shared.engine = KKM_RELAY;
	if (wanted == DATAPATH_HANDOVER)
		log_warn("The handover engine is not part of this version: using relay", NULL);
	set_reason(agent, "asked for by --datapath %s%s", config_datapath_names[wanted],
		   wanted == DATAPATH_HANDOVER ? ", and the engine handover is not part of this version"
					       : "");
	if (wanted == DATAPATH_RELAY || wanted == DATAPATH_HANDOVER)
		return;
	if (!agent->config->cgroup || !datapath_is_cgroup2(agent->config->cgroup)) {
		log_warn("Datapath is relay: no cgroup v2 here; mount it, or name it with --cgroup",
			 "path", agent->config->cgroup, NULL);
		set_reason(agent, "sockmap needs a cgroup v2 root: mount it, or name it with --cgroup");
		return;
	}
	selftest_run(&selftest, agent->config->cgroup);
	passed = selftest_allows(&selftest, SELFTEST_SHORT);
	if (wanted == DATAPATH_AUTO)
		log_auto(&selftest);
	else
		warn_of_failures(&selftest);
	explain_choice(agent, &selftest);
	if (!passed && (wanted == DATAPATH_AUTO || !selftest.steps[SELFTEST_LOAD].passed))
		return;
	agent->shared.engine = KKM_SOCKMAP;
	agent->shared.streams = wanted == DATAPATH_SOCKMAP ||
				selftest_allows(&selftest, SELFTEST_STREAMS);
	agent->shared.small_reads = !selftest.steps[SELFTEST_FIONREAD].passed;
	agent->shared.requests = choose_requests(agent->config->sockmap_requests, &selftest);
	explain_choice(agent, &selftest);
}

/* Change of engine while connections are open: new ones, and what comes on those that are there. */

static void leave_sockmap(struct agent *agent)
{
	agent->shared.engine = KKM_RELAY;
	for (unsigned int i = 0; i < agent->config->workers; i++)
		worker_leave_engines(agent->workers[i]);
	if (agent->datapath)
		datapath_set_meta(agent->datapath, KKM_RELAY, agent->table->ready);
}

void agent_use_relay(struct agent *agent)
{
	if (agent->shared.engine == KKM_RELAY)
		return;
	log_info("Datapath is relay now: asked for by SIGUSR1", NULL);
	set_reason(agent, "asked for by SIGUSR1; SIGUSR2 brings sockmap back");
	leave_sockmap(agent);
}

/* Back to what the start had chosen. The programs have stayed attached. */
void agent_use_sockmap(struct agent *agent)
{
	if (!agent->chose_sockmap || agent->shared.engine == KKM_SOCKMAP)
		return;
	log_info("Datapath is sockmap again: asked for by SIGUSR2", NULL);
	agent->shared.engine = KKM_SOCKMAP;
	set_reason(agent, "%s", agent->chosen_reason);
	datapath_set_meta(agent->datapath, KKM_SOCKMAP, agent->table->ready);
}

/* What the self-test found out at the start can change. */
void agent_watch_fire(struct loop_timer *timer)
{
	struct agent *agent = (struct agent *)((char *)timer - offsetof(struct agent, watch));
	char detail[160];

	if (agent->config->datapath == DATAPATH_AUTO && agent->shared.engine == KKM_SOCKMAP &&
	    selftest_foreign(detail, sizeof(detail))) {
		log_warn("Datapath is relay now: somebody else uses a sockmap on this host", "detail",
			 detail, NULL);
		set_reason(agent, "somebody else uses a sockmap on this host: %s", detail);
		leave_sockmap(agent);
	}
	loop_timer_set(agent->loop, timer, AGENT_WATCH_MS);
}

int agent_open_datapath(struct agent *agent)
{
	const struct config *config = agent->config;
	struct datapath_options options = {
		.bpf_dir = config->bpf_dir,
		.cgroup = config->cgroup,
		.programs = agent->shared.engine == KKM_SOCKMAP,
		.workers = config->workers,
		.max_routes = config->max_routes,
		.max_conns = config->max_legs + config->max_connections < KKM_MAX_CONNS
				     ? config->max_legs + config->max_connections
				     : KKM_MAX_CONNS,
	};
	char why[DATAPATH_WHY_LEN];
	int err = datapath_open(&options, &agent->datapath, why);

	if (err && err != -EBUSY && options.programs) {
		log_warn("Datapath is relay: sockmap could not be set up", "error", why, NULL);
		agent->shared.engine = KKM_RELAY;
		set_reason(agent, "sockmap could not be set up: %s", why);
		options.programs = false;
		err = datapath_open(&options, &agent->datapath, why);
	}
	if (err == -EBUSY) {
		log_error("Cannot start", "error", why, NULL);
		return -ECANCELED;
	}
	if (err)
		log_warn("No BPF maps: routes and connections are not shown by commands", "error",
			 why, NULL);
	else
		datapath_set_meta(agent->datapath, agent->shared.engine, false);
	agent->shared.datapath = agent->datapath;
	agent->chose_sockmap = agent->shared.engine == KKM_SOCKMAP;
	memcpy(agent->chosen_reason, agent->engine_reason, sizeof(agent->chosen_reason));
	return 0;
}
