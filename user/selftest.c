// SPDX-License-Identifier: MIT
#include "selftest_impl.h"

#include <arpa/inet.h>
#include <dirent.h>
#include <errno.h>
#include <fcntl.h>
#include <net/if.h>
#include <poll.h>
#include <sched.h>
#include <signal.h>
#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/ioctl.h>
#include <sys/mman.h>
#include <sys/prctl.h>
#include <sys/socket.h>
#include <sys/stat.h>
#include <sys/wait.h>
#include <time.h>
#include <unistd.h>

#define ALL_MS 5000 /* then it is killed: a step hangs */
#define DOMAIN "selftest.invalid"
#define CGROUP_NAME "kkm-selftest-"
#define HOST_CGROUP_NAMESPACE 4026531835u /* PROC_CGROUP_INIT_INO, include/linux/proc_ns.h */

static const struct selftest none = { .steps = {
	[SELFTEST_LOAD] = { "the programs load", "there is no short way" },
	[SELFTEST_NAMESPACE] = { "the cgroup namespace is the host's",
				 "the programs would see no container: run with --cgroupns=host, or "
				 "`cgroup: host` in compose" },
	[SELFTEST_FOREIGN] = { "nobody else uses a sockmap here",
			       "two users of sockmap stall each other's connections" },
	[SELFTEST_ENROL] = { "a container's end is recognised when established",
			     "no container's socket would be found" },
	[SELFTEST_FIONREAD] = { "FIONREAD on an enrolled socket",
				"who reads by it stalls (nginx on uploads); forced, only requests "
				"that one read takes are sent to enrolled sockets, unless requests "
				"are forced too" },
	[SELFTEST_SPLICE] = { "splice(2) from an enrolled socket",
			      "who reads by it stalls (HAProxy)" },
	[SELFTEST_EDGES] = { "poll and epoll edges of an enrolled socket",
			     "containers would sleep on" },
	[SELFTEST_WRITE] = { "large non-blocking write through a slow reader",
			     "large answers would hang or be cut" },
	[SELFTEST_UNDO] = { "a redirect without room is undone",
			    "writers would wait for ever, or bytes be lost" },
	[SELFTEST_ANSWER] = { "an answer of HTTP goes as a whole, and is known to have ended",
			      "the next request's answer could overtake it" },
	[SELFTEST_HALF_CLOSE] = { "the end of a stream comes behind its bytes",
				  "streams would be cut" },
	[SELFTEST_ZEROCOPY] = { "MSG_ZEROCOPY completes", "who sends so runs out of memory" },
	[SELFTEST_KTLS] = { "a socket with kTLS passes", "plaintext would leave it" },
	[SELFTEST_MPTCP] = { "MPTCP sockets are left alone", "older kernels crash (Go listens so)" },
	[SELFTEST_LATE] = { "a reader blocked in recv() when its socket is enrolled",
			    "nothing: sockets are enrolled before their application has them",
			    SELFTEST_NOTHING },
	[SELFTEST_BLOCKED] = { "a reader blocked in recv() while another thread ends the other way",
			       "streams (WebSocket) go by relay: recv() says EAGAIN to a thread that "
			       "another one's end, or room for it, wakes", SELFTEST_STREAMS },
	[SELFTEST_PUT_MEMORY] = { "requests: what is put into a socket is charged to it",
				  "requests go through TCP: a slow reader's memory would have no "
				  "bound", SELFTEST_REQUESTS },
	[SELFTEST_PUT_FIONREAD] = { "requests: FIONREAD tells of what was put into a socket",
				    "requests go through TCP: nginx would stall",
				    SELFTEST_REQUESTS },
	[SELFTEST_PUT_SPLICE] = { "requests: splice(2) reads what was put into a socket",
				  "requests go through TCP: who reads by splice(2) would stall",
				  SELFTEST_REQUESTS },
	[SELFTEST_PUT_EDGES] = { "requests: poll and epoll edges",
				 "requests go through TCP: containers would sleep on",
				 SELFTEST_REQUESTS },
	[SELFTEST_PUT_LOWAT] = { "requests: SO_RCVLOWAT holds for what was put into a socket",
				 "requests go through TCP: who waits for more wakes early, and "
				 "MSG_WAITALL may return early", SELFTEST_REQUESTS },
	[SELFTEST_PUT_ORDER] = { "requests: order between both ways",
				 "requests go through TCP: bytes would be out of order",
				 SELFTEST_REQUESTS },
	[SELFTEST_PUT_HALF_CLOSE] = { "requests: the end comes behind the bytes",
				      "requests go through TCP: uploads would be cut",
				      SELFTEST_REQUESTS },
} };

void selftest_say(struct selftest_result *step, bool passed, const char *format, ...)
{
	va_list args;

	step->run = true;
	step->passed = passed;
	va_start(args, format);
	vsnprintf(step->detail, sizeof(step->detail), format, args);
	va_end(args);
}

/* The host. */

static void look_at_namespace(struct selftest_result *step)
{
	struct stat st;

	if (stat("/proc/self/ns/cgroup", &st))
		selftest_say(step, false, "%s", strerror(errno));
	else
		selftest_say(step, st.st_ino == HOST_CGROUP_NAMESPACE, "it is %s",
			     st.st_ino == HOST_CGROUP_NAMESPACE ? "the host's" : "another");
}

bool selftest_foreign(char *detail, size_t size)
{
	return datapath_foreign_sockmaps(detail, size);
}

static void look_for_foreign(struct selftest_result *step)
{
	char detail[sizeof(step->detail)];
	bool found = selftest_foreign(detail, sizeof(detail));

	selftest_say(step, !found, "%s", found ? detail : "no foreign sockmap, sk_msg or sk_skb");
}

/* The process around it. */

static int loopback_up(void)
{
	struct ifreq request = { .ifr_name = "lo", .ifr_flags = IFF_UP | IFF_RUNNING };
	int fd = socket(AF_INET, SOCK_DGRAM | SOCK_CLOEXEC, 0), err;

	if (fd < 0)
		return -errno;
	err = ioctl(fd, SIOCSIFFLAGS, &request) ? -errno : 0;
	close(fd);
	return err;
}

static int join(const char *cgroup)
{
	char procs[600];
	int fd, err;

	if (mkdir(cgroup, 0755))
		return -errno;
	snprintf(procs, sizeof(procs), "%s/cgroup.procs", cgroup);
	fd = open(procs, O_WRONLY | O_CLOEXEC);
	if (fd < 0)
		return -errno;
	err = write(fd, "0", 1) == 1 ? 0 : -errno;
	close(fd);
	return err;
}

static int listen_here(struct selftest_bench *bench)
{
	socklen_t len = sizeof(bench->address);
	struct sockaddr_in address = { .sin_family = AF_INET,
				       .sin_addr.s_addr = htonl(INADDR_LOOPBACK) };

	bench->listener = socket(AF_INET, SOCK_STREAM | SOCK_CLOEXEC, 0);
	if (bench->listener < 0 ||
	    bind(bench->listener, (struct sockaddr *)&address, sizeof(address)) ||
	    listen(bench->listener, 16) ||
	    getsockname(bench->listener, (struct sockaddr *)&bench->address, &len))
		return -errno;
	return 0;
}

/* The programs act only for what the maps hold. */
static int publish(struct selftest_bench *bench)
{
	static const struct route_limits limits = { .routes = 1, .backends = 1 };
	struct route_source source = { .id = "selftest", .name = "selftest", .group = "selftest" };
	const struct route_source *sources[] = { &source };
	struct route_table *table = NULL;
	unsigned int fits;
	int err;

	source.address = bench->address;
	source.labels.domain_count = 1;
	snprintf(source.labels.domains[0], sizeof(source.labels.domains[0]), DOMAIN);
	err = route_table_build(sources, 1, &limits, true, NULL, &table);
	if (!err)
		err = datapath_publish(bench->datapath, NULL, table, &fits);
	route_table_put(&table);
	return err;
}

static void try_all(struct selftest *out, const char *cgroup)
{
	struct selftest_result *load = &out->steps[SELFTEST_LOAD];
	struct datapath_options options = { .cgroup = cgroup, .programs = true, .workers = 1,
					    .max_routes = 1, .max_conns = SELFTEST_CONNS };
	struct selftest_bench bench = { .listener = -1 };
	int err = datapath_open(&options, &bench.datapath, load->detail);

	load->run = true;
	load->passed = !err;
	if (err)
		return;
	selftest_say(load, true, "two of sock_ops, two of sk_msg");
	err = engine_slots_init(&bench.slots, 0, SELFTEST_CONNS);
	if (!err)
		err = listen_here(&bench);
	if (!err)
		err = publish(&bench);
	if (err)
		selftest_say(&out->steps[SELFTEST_ENROL], false, "sockets of our own: %s",
			     strerror(-err));
	else
		selftest_sockets(out, &bench);
	datapath_close(&bench.datapath);
}

/* It must not outlive the agent, nor hold its listening sockets and locks for it. */
static void let_go(int pipe_fd)
{
	prctl(PR_SET_PDEATHSIG, SIGKILL);
	dup2(pipe_fd, STDERR_FILENO + 1);
	close_range(STDERR_FILENO + 2, ~0u, 0);
	signal(SIGPIPE, SIG_IGN);
}

static void child(struct selftest *out, const char *cgroup, int pipe_fd)
{
	struct selftest_result *load = &out->steps[SELFTEST_LOAD];
	char own[512];
	int err;

	let_go(pipe_fd);
	err = unshare(CLONE_NEWNET) ? -errno : loopback_up();
	/* mounted read-only, as in compose: the agent's own will do, seen by nobody else's sockets */
	if (!err && cgroup && join(cgroup) && !datapath_own_cgroup(own, sizeof(own)))
		cgroup = own;
	if (err) {
		selftest_say(load, false, "no network namespace for the self-test, which needs "
					  "CAP_SYS_ADMIN and CAP_NET_ADMIN: %s", strerror(-err));
	} else if (!cgroup) {
		selftest_say(load, false, "no cgroup v2 is known: see --cgroup");
	}
	if (!load->run)
		try_all(out, cgroup);
	_exit(0);
}

static uint64_t now_ms(void)
{
	struct timespec now;

	clock_gettime(CLOCK_MONOTONIC, &now);
	return (uint64_t)now.tv_sec * 1000 + (uint64_t)now.tv_nsec / 1000000;
}

/* Until the child ends, and with it its end of the pipe; it is killed where it does not. */
static bool wait_for_child(int fd, pid_t pid)
{
	struct pollfd poll_fd = { .fd = fd, .events = POLLIN };
	bool ended = poll(&poll_fd, 1, ALL_MS) == 1;

	if (!ended)
		kill(pid, SIGKILL);
	waitpid(pid, NULL, 0);
	return ended;
}

/* A step that hangs does not take the verdicts before it with it: they are in memory of both. */
static void run_child(struct selftest *shared, const char *cgroup)
{
	struct selftest_result *load = &shared->steps[SELFTEST_LOAD];
	int ends[2];
	pid_t pid;

	if (pipe2(ends, O_CLOEXEC)) {
		selftest_say(load, false, "no pipe: %s", strerror(errno));
		return;
	}
	fflush(NULL);
	pid = fork();
	if (!pid)
		child(shared, cgroup, ends[1]);
	close(ends[1]);
	if (pid < 0)
		selftest_say(load, false, "no process for it: %s", strerror(errno));
	else if (!wait_for_child(ends[0], pid))
		selftest_say(load, false, "the self-test does not come to an end");
	close(ends[0]);
}

/* A cgroup can be removed a moment after its last process has ended. */
static void remove_cgroup(const char *cgroup)
{
	for (int i = 0; i < 200 && rmdir(cgroup) && errno == EBUSY; i++)
		poll(NULL, 0, 1);
}

/* What a killed predecessor left; one in use is busy, and stays. */
static void remove_left_cgroups(const char *root)
{
	DIR *dir = opendir(root);
	struct dirent *entry;

	while (dir && (entry = readdir(dir))) {
		if (!strncmp(entry->d_name, CGROUP_NAME, sizeof(CGROUP_NAME) - 1))
			unlinkat(dirfd(dir), entry->d_name, AT_REMOVEDIR);
	}
	if (dir)
		closedir(dir);
}

void selftest_run(struct selftest *out, const char *cgroup)
{
	uint64_t begun_ms = now_ms();
	char own[512] = "";
	struct selftest *shared = mmap(NULL, sizeof(*shared), PROT_READ | PROT_WRITE,
				       MAP_SHARED | MAP_ANONYMOUS, -1, 0);

	*out = none;
	look_at_namespace(&out->steps[SELFTEST_NAMESPACE]);
	look_for_foreign(&out->steps[SELFTEST_FOREIGN]);
	if (shared == MAP_FAILED) {
		selftest_say(&out->steps[SELFTEST_LOAD], false, "out of memory");
		return;
	}
	*shared = *out;
	if (cgroup) {
		remove_left_cgroups(cgroup);
		snprintf(own, sizeof(own), "%.400s/" CGROUP_NAME "%d", cgroup, getpid());
	}
	run_child(shared, cgroup ? own : NULL);
	*out = *shared;
	munmap(shared, sizeof(*shared));
	if (*own)
		remove_cgroup(own);
	out->ms = (unsigned int)(now_ms() - begun_ms);
}

bool selftest_allows(const struct selftest *selftest, enum selftest_gate gate)
{
	for (int i = 0; i < SELFTEST_STEPS; i++) {
		const struct selftest_result *step = &selftest->steps[i];

		if ((step->gate == SELFTEST_SHORT || step->gate == gate) && !step->passed &&
		    !step->absent)
			return false;
	}
	return true;
}
