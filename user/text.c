// SPDX-License-Identifier: MIT
#include "text.h"

#include <time.h>

const char *text_state(enum kkm_state state)
{
	static const char *const names[] = {
		[KKM_ACTIVE] = "active",     [KKM_STARTING] = "starting",
		[KKM_UNHEALTHY] = "unhealthy", [KKM_PAUSED] = "paused",
		[KKM_DRAINING] = "draining",
	};
	_Static_assert(sizeof(names) / sizeof(*names) == KKM_DRAINING + 1, "one a state");

	return state <= KKM_DRAINING ? names[state] : "?";
}

const char *text_owner(enum kkm_owner owner)
{
	static const char *const names[] = {
		[KKM_DOCKER] = "docker", [KKM_CONTROL] = "control", [KKM_FILE] = "file"
	};
	_Static_assert(sizeof(names) / sizeof(*names) == KKM_FILE + 1, "one an owner");

	return owner <= KKM_FILE ? names[owner] : "?";
}

const char *text_engine(enum kkm_engine engine)
{
	static const char *const names[] = {
		[KKM_RELAY] = "relay", [KKM_SOCKMAP] = "sockmap", [KKM_HANDOVER] = "handover"
	};
	_Static_assert(sizeof(names) / sizeof(*names) == KKM_HANDOVER + 1, "one an engine");

	return engine <= KKM_HANDOVER ? names[engine] : "?";
}

const char *text_time(__u64 ms, char out[TEXT_TIME_MAX])
{
	time_t seconds = (time_t)(ms / 1000);
	struct tm utc;

	gmtime_r(&seconds, &utc);
	strftime(out, TEXT_TIME_MAX, "%Y-%m-%dT%H:%M:%SZ", &utc);
	return out;
}
