// SPDX-License-Identifier: MIT
#include "text.h"

#include <stdio.h>
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

const char *text_size(__u64 bytes, char out[TEXT_SIZE_MAX])
{
	static const char *const units[] = { "KiB", "MiB", "GiB", "TiB", "PiB", "EiB" };
	double value = (double)bytes / 1024;
	int unit = 0;

	if (bytes < 1000) {
		snprintf(out, TEXT_SIZE_MAX, "%llu B", bytes);
		return out;
	}
	/* "1000.0 KiB" is one digit too many */
	for (; value >= 999.95 && unit < 5; unit++)
		value /= 1024;
	snprintf(out, TEXT_SIZE_MAX, "%.1f %s", value, units[unit]);
	return out;
}

const char *text_age(__u64 ms, char out[TEXT_SIZE_MAX])
{
	__u64 seconds = ms / 1000;

	if (ms < 60000)
		snprintf(out, TEXT_SIZE_MAX, "%llu.%llu s", seconds, ms / 100 % 10);
	else if (seconds < 3600)
		snprintf(out, TEXT_SIZE_MAX, "%llum %02llus", seconds / 60, seconds % 60);
	else if (seconds < 86400)
		snprintf(out, TEXT_SIZE_MAX, "%lluh %02llum", seconds / 3600, seconds / 60 % 60);
	else
		snprintf(out, TEXT_SIZE_MAX, "%llud %02lluh", seconds / 86400, seconds / 3600 % 24);
	return out;
}
