// SPDX-License-Identifier: MIT
/*
 * How many instructions the verifier looks at for each program, compared with the record in
 * verifier.txt, so that a change which makes a program hard to verify is seen before an older kernel
 * refuses it. docs/TESTING.md says how a change is accepted.
 */
#include "fixture.h"

#include <sys/utsname.h>

#define RECORD "selftests/prog_tests/verifier.txt"
#define PROGRAMS 4

struct program {
	char name[BPF_OBJ_NAME_LEN];
	unsigned int verified, bytes;
};

/* Those of this process, by its descriptors. */
static int list(struct program out[PROGRAMS])
{
	DIR *dir = opendir("/proc/self/fd");
	struct dirent *entry;
	int count = 0;

	while (dir && count < PROGRAMS && (entry = readdir(dir))) {
		struct bpf_prog_info info = { 0 };
		__u32 len = sizeof(info);
		char path[300], target[64] = "";

		snprintf(path, sizeof(path), "/proc/self/fd/%s", entry->d_name);
		if (readlink(path, target, sizeof(target) - 1) < 0 || !strstr(target, "bpf-prog") ||
		    bpf_obj_get_info_by_fd(atoi(entry->d_name), &info, &len))
			continue;
		snprintf(out[count].name, sizeof(out[count].name), "%s", info.name);
		out[count].verified = info.verified_insns;
		out[count++].bytes = info.xlated_prog_len;
	}
	if (dir)
		closedir(dir);
	return count;
}

/* The record for this kernel, 0 where there is none. */
static unsigned int recorded(const char *release, const char *name)
{
	FILE *file = fopen(RECORD, "re");
	char line[128], kernel[32], program[64];
	unsigned int verified, found = 0;

	while (file && fgets(line, sizeof(line), file)) {
		if (sscanf(line, "%31s %63s %u", kernel, program, &verified) == 3 &&
		    !strncmp(release, kernel, strlen(kernel)) && !strcmp(name, program))
			found = verified;
	}
	if (file)
		fclose(file);
	return found;
}

CASE(verified_instructions)
{
	struct program programs[PROGRAMS];
	struct utsname host;
	int count = list(programs), major, minor;
	bool known = false;

	(void)f;
	uname(&host);
	ASSERT_EQ(sscanf(host.release, "%d.%d", &major, &minor), 2);
	ASSERT_EQ(count, PROGRAMS);
	for (int i = 0; i < count; i++) {
		unsigned int record = recorded(host.release, programs[i].name);

		printf("# %d.%d. %s %u\n", major, minor, programs[i].name, programs[i].verified);
		ASSERT_TRUE(programs[i].verified > 0 && programs[i].verified < 500000);
		if (!record)
			continue;
		known = true;
		/* a fifth more or less than recorded: see docs/TESTING.md */
		ASSERT_TRUE(programs[i].verified <= record + record / 5);
		ASSERT_TRUE(programs[i].verified >= record - record / 5);
	}
	if (!known)
		printf("# no record for %s in " RECORD "\n", host.release);
}

static const struct tap_case cases[] = {
	{ "the verifier's work for each program is as recorded", verified_instructions },
};

TAP_MAIN(cases)
