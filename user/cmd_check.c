// SPDX-License-Identifier: MIT
#include "cmd.h"

#include <errno.h>
#include <string.h>
#include <sys/resource.h>
#include <sys/socket.h>
#include <sys/stat.h>
#include <sys/un.h>
#include <sys/utsname.h>
#include <unistd.h>

#include "agent.h"
#include "datapath.h"
#include "hostname.h"
#include "routesfile.h"
#include "selftest.h"

/* `fatal`: run would not work. Otherwise it is only slower, or shows less. */
struct check {
	struct json *array; /* NULL: text */
	bool failed;
	bool cgroup; /* there is one of version 2 */
};

static void report(struct check *check, const char *name, bool passed, bool fatal,
		   const char *detail, const char *advice)
{
	struct json *object;

	check->failed |= !passed && fatal;
	if (!check->array) {
		printf("%-5s %-40s %s%s%s\n", passed ? "ok" : fatal ? "FAIL" : "note", name, detail,
		       !passed && *advice ? "; " : "", passed ? "" : advice);
		return;
	}
	object = json_append_object(check->array);
	json_add_str(object, "name", name);
	json_add_bool(object, "ok", passed);
	json_add_bool(object, "needed", fatal);
	json_add_str(object, "detail", detail);
	json_add_str(object, "advice", passed ? NULL : advice);
}

static void check_kernel(struct check *check)
{
	struct utsname name;

	uname(&name);
	report(check, "kernel", true, false, name.release, "");
	report(check, "BTF (/sys/kernel/btf/vmlinux)", !access("/sys/kernel/btf/vmlinux", R_OK),
	       false, "types of this kernel", "sockmap needs CONFIG_DEBUG_INFO_BTF");
}

static void check_cgroup(struct check *check, const struct config *config)
{
	char own[512] = "?", detail[1200];
	struct stat st;
	bool there = config->cgroup && datapath_is_cgroup2(config->cgroup);

	datapath_own_cgroup(own, sizeof(own));
	snprintf(detail, sizeof(detail), "%s; the agent's own is %s",
		 config->cgroup ? config->cgroup : "none is mounted", own);
	check->cgroup = there;
	report(check, "cgroup v2", there, false, detail,
	       "sockmap needs it: mount it, or name it with --cgroup");
	there = !stat("/proc/self/ns/cgroup", &st) && st.st_ino == 4026531835u;
	report(check, "cgroup namespace is the host's", there, false,
	       there ? "yes" : "no: the programs would not see the containers",
	       "sockmap needs `cgroup: host` in compose, or docker run --cgroupns=host");
}

static void check_capabilities(struct check *check)
{
	FILE *file = fopen("/proc/self/status", "re");
	unsigned long long effective = 0;
	char line[256], detail[64];
	/* linux/capability.h */
	const struct {
		int bit;
		const char *name, *advice;
		bool fatal;
	} wanted[] = {
		{ 10, "CAP_NET_BIND_SERVICE", "needed for ports below 1024", false },
		{ 12, "CAP_NET_ADMIN", "needed for BPF programs and for bounded buffers", false },
		{ 38, "CAP_PERFMON", "needed for BPF programs (or CAP_SYS_ADMIN)", false },
		{ 39, "CAP_BPF", "needed for BPF maps and programs (or CAP_SYS_ADMIN)", false },
		{ 24, "CAP_SYS_RESOURCE", "without it (or CAP_SYS_ADMIN) all of a user's pipes have 64 MiB", false },
	};

	while (file && fgets(line, sizeof(line), file))
		sscanf(line, "CapEff: %llx", &effective);
	if (file)
		fclose(file);
	for (size_t i = 0; i < sizeof(wanted) / sizeof(*wanted); i++) {
		bool there = effective >> wanted[i].bit & 1 || (wanted[i].bit >= 24 &&
								effective >> 21 & 1);

		snprintf(detail, sizeof(detail), "%s", there ? "yes" : "no");
		report(check, wanted[i].name, there, wanted[i].fatal, detail, wanted[i].advice);
	}
}

static void check_docker(struct check *check, const struct config *config)
{
	struct sockaddr_un address = { .sun_family = AF_UNIX };
	int fd, err = 0;

	if (!config->docker_enabled) {
		report(check, "Docker", true, false, "disabled", "");
		return;
	}
	if (!config->docker_unix) {
		report(check, "Docker", true, false, config->docker_tcp, "");
		return;
	}
	snprintf(address.sun_path, sizeof(address.sun_path), "%s", config->docker_unix);
	fd = socket(AF_UNIX, SOCK_STREAM | SOCK_CLOEXEC, 0);
	if (fd < 0 || connect(fd, (struct sockaddr *)&address, sizeof(address)))
		err = errno;
	if (fd >= 0)
		close(fd);
	report(check, "Docker socket", !err, false, err ? strerror(err) : config->docker_unix,
	       "the agent would run and wait for it: name it with --docker-socket");
}

static void check_routes_file(struct check *check, const struct config *config)
{
	struct routesjson_error error = { .line = 0 };
	unsigned int routes = 0;
	char detail[KKM_REASON_LEN + 32];
	int err;

	if (!config->routes_file)
		return;
	err = routesfile_check(config->routes_file, config->max_routes, &routes, &error);
	if (!err)
		snprintf(detail, sizeof(detail), "%u routes", routes);
	else if (error.line)
		snprintf(detail, sizeof(detail), "line %u: %s", error.line, error.reason);
	else
		snprintf(detail, sizeof(detail), "%s", error.reason);
	/* one that is not there yet is waited for */
	report(check, "routes file", !err, err && err != -ENOENT, detail,
	       "the agent would run without its routes, and watch it");
}

static void check_files(struct check *check, const struct config *config)
{
	struct rlimit files = { 0 };
	char detail[128];

	getrlimit(RLIMIT_NOFILE, &files);
	snprintf(detail, sizeof(detail), "%llu descriptors, %u connections",
		 (unsigned long long)files.rlim_cur, config->max_connections);
	report(check, "file limit", files.rlim_cur >= 1024, false, detail,
	       "raise RLIMIT_NOFILE (nofile)");
}

/* As datapath_need_bpffs(), but nothing is mounted by a command that only looks. */
static void check_bpffs(struct check *check, const struct config *config)
{
	bool standard = !strncmp(config->bpf_dir, "/sys/fs/bpf/", 12);
	char why[DATAPATH_WHY_LEN] = "";
	bool there = datapath_on_bpffs(config->bpf_dir);

	if (!there)
		snprintf(why, sizeof(why), "%.150s is not on a BPF file system", config->bpf_dir);
	report(check, "BPF file system", there, false, there ? config->bpf_dir : why,
	       standard ? "run mounts it where it may" : "mount -t bpf bpf, or name another --bpf-dir");
}

static bool can_bind(const struct sockaddr_storage *address, char why[64])
{
	int fd = socket(address->ss_family, SOCK_STREAM | SOCK_CLOEXEC, 0);
	int on = 1;
	bool bound;

	if (fd >= 0) {
		setsockopt(fd, SOL_SOCKET, SO_REUSEADDR, &on, sizeof(on));
		if (address->ss_family == AF_INET6)
			setsockopt(fd, IPPROTO_IPV6, IPV6_V6ONLY, &on, sizeof(on));
	}
	bound = fd >= 0 && !bind(fd, (const struct sockaddr *)address, address_len(address));
	snprintf(why, 64, "%s", bound ? "can be bound" : strerror(errno));
	if (fd >= 0)
		close(fd);
	return bound;
}

/* An agent that runs holds its pins and its ports: this one would run in its place. */
static void check_addresses(struct check *check, const struct config_listen *listen,
			    const char *what, const char *advice)
{
	char name[ADDRESS_TEXT_MAX + 16], text[ADDRESS_TEXT_MAX], why[64];

	for (unsigned int i = 0; i < listen->count; i++) {
		bool bound = can_bind(&listen->addresses[i], why);

		snprintf(name, sizeof(name), "%s %s", what,
			 address_print(&listen->addresses[i], text));
		report(check, name, bound, listen->asked, why, advice);
	}
}

static void check_listeners(struct check *check, const struct config *config)
{
	struct mapview view;
	char why[64];

	if (!mapview_open(config->bpf_dir, &view) && !view.stale) {
		snprintf(why, sizeof(why), "pid %u", view.meta.pid);
		report(check, "an agent is running with these pins", true, false, why, "");
		return;
	}
	check_addresses(check, &config->http, "listen on",
			"free the address, or give another one with --listen-http");
	check_addresses(check, &config->tls, "listen for TLS on",
			"free the address, or give another one with --listen-tls");
	check_addresses(check, &config->admin, "admin on",
			"free the address, or give another one with --admin");
}

static const char *carried(const struct config *config, const struct selftest *selftest)
{
	bool streams = config->datapath == DATAPATH_SOCKMAP ||
		       selftest_allows(selftest, SELFTEST_STREAMS);
	bool allowed = selftest_allows(selftest, SELFTEST_REQUESTS);

	if (config->sockmap_requests == REQUESTS_ON)
		allowed = selftest->steps[SELFTEST_PUT_MEMORY].passed;
	if (allowed && config->sockmap_requests != REQUESTS_OFF)
		return streams ? "answers, streams and requests" : "answers and requests";
	return streams ? "answers and streams" : "answers only";
}

static void check_engines(struct check *check, const struct config *config)
{
	struct selftest selftest;
	char name[96], detail[512];
	bool passed, taken;

	selftest_run(&selftest, config->cgroup);
	passed = selftest_allows(&selftest, SELFTEST_SHORT);
	report(check, "engine relay", true, true, "recv/send and splice(2); needs nothing", "");
	for (int i = 0; i < SELFTEST_STEPS; i++) {
		const struct selftest_result *step = &selftest.steps[i];

		snprintf(name, sizeof(name), "sockmap: %s", step->name);
		report(check, name, step->passed || step->absent, false,
		       step->run ? step->detail : "not run", step->consequence);
	}
	taken = (config->datapath == DATAPATH_AUTO && passed) ||
		(config->datapath == DATAPATH_SOCKMAP && check->cgroup &&
		 selftest.steps[SELFTEST_LOAD].passed);
	snprintf(detail, sizeof(detail), "--datapath %s takes %s%s; self-test in %u ms",
		 config_datapath_names[config->datapath], taken ? "sockmap, for " : "relay",
		 taken ? carried(config, &selftest) : "", selftest.ms);
	report(check, "engine sockmap", passed, false, detail,
	       "auto does not choose it on this kernel");
	report(check, "engine handover", false, false, "not part of this version", "");
}

int cmd_check(struct config *config)
{
	struct check check = { .array = NULL };
	struct json *root = NULL;
	int status;

	agent_complete_config(config);
	if (config->json) {
		root = cmd_document(NULL);
		check.array = json_add_array(root, "checks");
	}
	check_kernel(&check);
	check_cgroup(&check, config);
	check_capabilities(&check);
	check_bpffs(&check, config);
	check_docker(&check, config);
	check_routes_file(&check, config);
	check_files(&check, config);
	check_listeners(&check, config);
	check_engines(&check, config);
	status = check.failed ? 1 : 0;
	if (!root)
		return status;
	json_add_bool(root, "ok", !check.failed);
	return cmd_print(&root) ? 1 : status;
}
