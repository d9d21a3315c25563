// SPDX-License-Identifier: MIT
#include "cmd.h"

#include <errno.h>
#include <string.h>
#include <sys/resource.h>
#include <sys/socket.h>
#include <sys/stat.h>
#include <sys/utsname.h>
#include <unistd.h>

#include "agent.h"
#include "datapath.h"
#include "dockercheck.h"
#include "hostname.h"
#include "routesfile.h"
#include "selftest.h"

#define STEP_PREFIX "sockmap: " /* of the self-test's steps, as they are named */
#define NOFILE_MIN 1024
#define HOST_CGROUP_NAMESPACE 4026531835u /* PROC_CGROUP_INIT_INO, include/linux/proc_ns.h */

struct check {
	struct json *array;  /* NULL: text */
	struct table *table;
	const char *engine;  /* whose part this is, NULL: everybody's */
	bool failed;
	bool cgroup; /* there is one of version 2 */
	unsigned long long capabilities;
};

static void begin(struct check *check, const char *engine, const char *heading)
{
	check->engine = engine;
	if (check->array)
		return;
	for (int i = 0; i < 3 && !table_is_empty(check->table); i++)
		table_add(check->table, TABLE_PLAIN, "");
	table_add(check->table, TABLE_BOLD, heading);
	table_add(check->table, TABLE_PLAIN, "");
	table_add(check->table, TABLE_PLAIN, "");
}

static void report_text(struct check *check, const char *name, bool passed, bool fatal,
			const char *detail, const char *advice)
{
	bool step = !strncmp(name, STEP_PREFIX, sizeof(STEP_PREFIX) - 1);

	table_addf(check->table, TABLE_PLAIN, "  %s", step ? "self-test" : name);
	table_add(check->table, passed ? TABLE_GOOD : fatal ? TABLE_BAD : TABLE_DOUBTFUL,
		  passed ? "ok" : fatal ? "FAIL" : "note");
	table_addf(check->table, TABLE_PLAIN, "%s%s%s", step ? name + sizeof(STEP_PREFIX) - 1 : "",
		   step ? ": " : "", detail);
	if (passed || !*advice)
		return;
	table_add(check->table, TABLE_PLAIN, "");
	table_add(check->table, TABLE_PLAIN, "");
	table_addf(check->table, TABLE_BOLD, "-> %s", advice);
}

/* `fatal`: run would not work. Otherwise it is only slower, or shows less. */
static void report(struct check *check, const char *name, bool passed, bool fatal,
		   const char *detail, const char *advice)
{
	struct json *object;

	check->failed |= !passed && fatal;
	if (!check->array) {
		report_text(check, name, passed, fatal, detail, advice);
		return;
	}
	object = json_append_object(check->array);
	json_add_str(object, "name", name);
	json_add_str(object, "engine", check->engine);
	json_add_bool(object, "ok", passed);
	json_add_bool(object, "needed", fatal);
	json_add_str(object, "detail", detail);
	json_add_str(object, "advice", passed ? NULL : advice);
}

/* The host. */

static void check_kernel(struct check *check)
{
	struct utsname name;

	uname(&name);
	report(check, "kernel", true, false, name.release, "");
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
	       "mend it: the agent would start without its routes, and take it when it is right");
}

static void check_files(struct check *check, const struct config *config)
{
	struct rlimit files = { 0 };
	char detail[128];

	getrlimit(RLIMIT_NOFILE, &files);
	snprintf(detail, sizeof(detail), "%llu descriptors, %u connections",
		 (unsigned long long)files.rlim_cur, config->max_connections);
	report(check, "file limit", files.rlim_cur >= NOFILE_MIN, false, detail,
	       "raise it: compose `ulimits: { nofile: 65536 }`, docker run --ulimit nofile=65536, "
	       "systemd LimitNOFILE=65536");
}

static const char *docker_advice(const struct config *config)
{
	if (!config->docker_unix)
		return "the agent would run and wait for it: see DOCKER_HOST or --docker-socket";
	if (access(config->docker_unix, F_OK))
		return "the agent would run and wait for it: mount it (compose `volumes: "
		       "[/var/run/docker.sock:/var/run/docker.sock:ro]`), or name it with "
		       "--docker-socket";
	if (access(config->docker_unix, R_OK | W_OK))
		return "the agent would run and wait for it: run as root or in the socket's group "
		       "(docker run --group-add, systemd SupplementaryGroups=docker)";
	return "the agent would run and wait for it: is it Docker's, and does the daemon run?";
}

static void check_docker(struct check *check, const struct config *config,
			 const struct dockercheck *docker)
{
	char detail[512];

	if (!config->docker_enabled) {
		report(check, "Docker", true, false, "disabled", "");
		return;
	}
	if (docker->table)
		snprintf(detail, sizeof(detail), "%.200s: %s, API %s",
			 config->docker_unix ? config->docker_unix : config->docker_tcp,
			 docker->engine, docker->version);
	else if (config->docker_unix && access(config->docker_unix, F_OK))
		snprintf(detail, sizeof(detail), "%.200s: %s", config->docker_unix,
			 strerror(errno));
	else
		snprintf(detail, sizeof(detail), "%s", docker->error);
	report(check, config->docker_unix ? "Docker socket" : "Docker", docker->table, false, detail,
	       docker_advice(config));
}

static int try_bind(const struct sockaddr_storage *address)
{
	int fd = socket(address->ss_family, SOCK_STREAM | SOCK_CLOEXEC, 0);
	int on = 1, err = 0;

	if (fd < 0)
		return -errno;
	setsockopt(fd, SOL_SOCKET, SO_REUSEADDR, &on, sizeof(on));
	if (address->ss_family == AF_INET6)
		setsockopt(fd, IPPROTO_IPV6, IPV6_V6ONLY, &on, sizeof(on));
	if (bind(fd, (const struct sockaddr *)address, address_len(address)))
		err = -errno;
	close(fd);
	return err;
}

static const char *bind_advice(int err)
{
	if (err == -EACCES || err == -EPERM)
		return "give CAP_NET_BIND_SERVICE: compose `cap_add: [NET_BIND_SERVICE]`, docker run "
		       "--cap-add NET_BIND_SERVICE, systemd AmbientCapabilities=CAP_NET_BIND_SERVICE; "
		       "or sysctl net.ipv4.ip_unprivileged_port_start=80";
	if (err == -EADDRINUSE)
		return "somebody else listens there (ss -ltnp says who): end that, or give another "
		       "address with";
	if (err == -EADDRNOTAVAIL)
		return "this host does not have the address (in a container: compose `network_mode: "
		       "host`, docker run --network host): give another with";
	return "give another address with";
}

/* An agent that runs holds its pins and its ports: this one would run in its place. */
static void check_addresses(struct check *check, const struct config_listen *listen,
			    const char *what, const char *option)
{
	char name[ADDRESS_TEXT_MAX + 16], text[ADDRESS_TEXT_MAX], advice[384];

	for (unsigned int i = 0; i < listen->count; i++) {
		int err = try_bind(&listen->addresses[i]);

		snprintf(name, sizeof(name), "%s %s", what,
			 address_print(&listen->addresses[i], text));
		snprintf(advice, sizeof(advice), "%s%s%s", bind_advice(err),
			 err == -EACCES || err == -EPERM ? "; or give another port with " : " ",
			 option);
		report(check, name, !err, listen->asked, err ? strerror(-err) : "can be bound",
		       advice);
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
	check_addresses(check, &config->http, "listen on", "--listen-http");
	check_addresses(check, &config->tls, "listen for TLS on", "--listen-tls");
	check_addresses(check, &config->admin, "admin on", "--admin");
}

/* Capabilities. */

/* linux/capability.h */
enum {
	NET_BIND_SERVICE = 10,
	NET_ADMIN = 12,
	SYS_ADMIN = 21,
	SYS_RESOURCE = 24,
	PERFMON = 38,
	BPF = 39,
};

static void read_capabilities(struct check *check)
{
	FILE *file = fopen("/proc/self/status", "re");
	char line[256];

	while (file && fgets(line, sizeof(line), file))
		sscanf(line, "CapEff: %llx", &check->capabilities);
	if (file)
		fclose(file);
}

/* `or_admin`: CAP_SYS_ADMIN will do (capabilities(7), pipe(7)). */
static void check_capability(struct check *check, int bit, const char *name, bool or_admin,
			     const char *what)
{
	bool own = check->capabilities >> bit & 1;
	bool by_admin = or_admin && check->capabilities >> SYS_ADMIN & 1;
	char advice[384], full[48];

	snprintf(full, sizeof(full), "CAP_%s", name);
	snprintf(advice, sizeof(advice),
		 "%s; give it: compose `cap_add: [%s]`, docker run --cap-add %s, systemd "
		 "AmbientCapabilities=CAP_%s%s", what, name, name, name,
		 or_admin ? " (or SYS_ADMIN instead)" : "");
	report(check, full, own || by_admin, false,
	       own ? "yes" : by_admin ? "yes, by CAP_SYS_ADMIN" : "no", advice);
}

/* Engine relay. */

static void check_relay(struct check *check)
{
	begin(check, "relay", "engine relay");
	check_capability(check, NET_BIND_SERVICE, "NET_BIND_SERVICE", false,
			 "needed to listen on ports below 1024");
	check_capability(check, SYS_RESOURCE, "SYS_RESOURCE", true,
			 "without it all pipes of this user together have 64 MiB, and what finds no "
			 "pipe is copied; sysctl fs.pipe-user-pages-soft=0 lifts that too");
	report(check, "engine relay", true, true, "recv/send and splice(2); always there", "");
}

/* Engine sockmap. */

static void check_kernel_options(struct check *check)
{
	bool can_ask = check->capabilities >> SYS_ADMIN & 1 ||
		       (check->capabilities >> BPF & 1 && check->capabilities >> NET_ADMIN & 1);
	bool sockmap = datapath_has_sockmap(), programs = datapath_has_cgroup_programs();
	const char *no = can_ask ? "no" : "it cannot be asked without CAP_BPF and CAP_NET_ADMIN";

	report(check, "BTF (/sys/kernel/btf/vmlinux)", !access("/sys/kernel/btf/vmlinux", R_OK),
	       false, "types of this kernel",
	       "take a kernel with CONFIG_DEBUG_INFO_BTF=y, as distributions have it");
	report(check, "sockmap in this kernel", sockmap, false, sockmap ? "yes" : no,
	       "take a kernel with CONFIG_BPF_SYSCALL=y and CONFIG_NET_SOCK_MSG=y (before 5.13 "
	       "CONFIG_BPF_STREAM_PARSER=y)");
	report(check, "BPF programs on cgroups", programs, false, programs ? "yes" : no,
	       "take a kernel with CONFIG_CGROUP_BPF=y");
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
	       "compose `volumes: [/sys/fs/cgroup:/sys/fs/cgroup:ro]`, docker run -v "
	       "/sys/fs/cgroup:/sys/fs/cgroup:ro; on the host mount -t cgroup2 none /sys/fs/cgroup; "
	       "elsewhere name it with --cgroup");
	there = !stat("/proc/self/ns/cgroup", &st) && st.st_ino == HOST_CGROUP_NAMESPACE;
	report(check, "cgroup namespace is the host's", there, false,
	       there ? "yes" : "no: the programs would not see the containers",
	       "compose `cgroup: host`, docker run --cgroupns=host");
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
	       standard ? "run mounts it where it may; compose `volumes: [/sys/fs/bpf:/sys/fs/bpf]`, "
			  "docker run -v /sys/fs/bpf:/sys/fs/bpf, on the host mount -t bpf bpf "
			  "/sys/fs/bpf"
			: "mount -t bpf bpf there, or name another --bpf-dir");
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

static void check_selftest(struct check *check, const struct config *config)
{
	struct selftest selftest;
	char name[96], detail[512];
	bool passed, taken;

	selftest_run(&selftest, config->cgroup);
	passed = selftest_allows(&selftest, SELFTEST_SHORT);
	for (int i = 0; i < SELFTEST_STEPS; i++) {
		const struct selftest_result *step = &selftest.steps[i];

		snprintf(name, sizeof(name), STEP_PREFIX "%s", step->name);
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
	       "auto does not choose it here, for what is noted above; where that is the kernel's "
	       "doing, relay is right, and --datapath sockmap forces the other");
}

static void check_sockmap(struct check *check, const struct config *config)
{
	begin(check, "sockmap", "engine sockmap");
	check_kernel_options(check);
	check_cgroup(check, config);
	check_capability(check, NET_ADMIN, "NET_ADMIN", false,
			 "needed for BPF programs, and for buffers with bounds");
	check_capability(check, PERFMON, "PERFMON", true, "needed for BPF programs");
	check_capability(check, BPF, "BPF", true, "needed for BPF maps and programs");
	check_bpffs(check, config);
	check_selftest(check, config);
}

/* The containers that run. None of their faults is the agent's: it would run. */

static void report_refusal(struct check *check, const struct route_rejected *rejected)
{
	bool conflict = rejected->refusal == KKM_CONFLICT;
	char detail[1024];

	snprintf(detail, sizeof(detail), "%s%s%s%s%s", rejected->domain, *rejected->domain ? ": " : "",
		 rejected->label, *rejected->label ? " " : "", rejected->reason);
	table_addf(check->table, TABLE_PLAIN, "  %s", rejected->name);
	table_add(check->table, TABLE_DOUBTFUL, conflict ? "conflict" : "rejected");
	table_add(check->table, TABLE_PLAIN, detail);
}

static void containers_text(struct check *check, const struct dockercheck *docker)
{
	const struct route_table *table = docker->table;

	begin(check, NULL, "containers");
	table_add(check->table, TABLE_PLAIN, "  labels");
	table_add(check->table, docker->fine == docker->count ? TABLE_GOOD : TABLE_DOUBTFUL,
		  docker->fine == docker->count ? "ok" : "note");
	table_addf(check->table, TABLE_PLAIN, "%u of %u with kakuremichi.enabled=true are fine, for "
		   "%u domains", docker->fine, docker->count, table->count);
	for (unsigned int i = 0; i < table->rejected_count; i++)
		report_refusal(check, &table->rejected[i]);
}

static void containers_json(struct json *root, const struct dockercheck *docker)
{
	struct json *object, *arrays[2];

	if (!docker->table) {
		json_add_null(root, "containers");
		return;
	}
	object = json_add_object(root, "containers");
	json_add_int(object, "count", docker->count);
	json_add_int(object, "fine", docker->fine);
	json_add_int(object, "domains", docker->table->count);
	arrays[KKM_REJECTED] = json_add_array(object, "rejected");
	arrays[KKM_CONFLICT] = json_add_array(object, "conflicts");
	for (unsigned int i = 0; i < docker->table->rejected_count; i++) {
		const struct route_rejected *rejected = &docker->table->rejected[i];
		struct json *entry = json_append_object(arrays[rejected->refusal]);

		json_add_str(entry, "container", rejected->name);
		json_add_str(entry, "id", rejected->id);
		json_add_str(entry, "domain", *rejected->domain ? rejected->domain : NULL);
		json_add_str(entry, "label", rejected->label);
		json_add_str(entry, "reason", rejected->reason);
	}
}

static void check_all(struct check *check, const struct config *config,
		      const struct dockercheck *docker)
{
	read_capabilities(check);
	begin(check, NULL, "host");
	check_kernel(check);
	check_files(check, config);
	check_docker(check, config, docker);
	check_routes_file(check, config);
	check_listeners(check, config);
	check_relay(check);
	check_sockmap(check, config);
	begin(check, "handover", "engine handover");
	report(check, "engine handover", false, false, "not part of this version", "");
}

static int print_json(struct check *check, const struct config *config,
		      const struct dockercheck *docker)
{
	struct json *root = cmd_document(NULL);

	check->array = json_add_array(root, "checks");
	check_all(check, config, docker);
	json_add_bool(root, "ok", !check->failed);
	containers_json(root, docker);
	return cmd_print(&root, true);
}

static void print_text(struct check *check, const struct config *config,
		       const struct dockercheck *docker)
{
	static const struct table_column columns[] = { { NULL, TABLE_KEEP },
						       { NULL, TABLE_KEEP },
						       { NULL, TABLE_WRAP } };
	struct table_screen screen;

	cmd_screen(config, &screen);
	check->table = table_new(columns, 3);
	check_all(check, config, docker);
	if (docker->table)
		containers_text(check, docker);
	table_print(check->table, &screen);
	table_free(&check->table);
	fputc('\n', stdout);
	table_text(&screen, check->failed ? TABLE_BAD : TABLE_GOOD,
		   check->failed ? "run would not work: see FAIL above" : "run would work");
	fputc('\n', stdout);
}

int cmd_check(struct config *config)
{
	struct dockercheck docker = { .count = 0 };
	struct check check = { .array = NULL };
	int err = 0;

	agent_complete_config(config);
	if (config->docker_enabled)
		err = dockercheck_run(config, &docker);
	if (err)
		snprintf(docker.error, sizeof(docker.error), "%s", strerror(-err));
	if (config->json)
		err = print_json(&check, config, &docker);
	else
		print_text(&check, config, &docker);
	dockercheck_free(&docker);
	return check.failed || (config->json && err) ? 1 : 0;
}
