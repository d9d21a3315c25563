// SPDX-License-Identifier: MIT
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <cmocka.h>

#include <errno.h>

#include "config.h"
#include "hostname.h"

/* name, value, name, value, …, NULL */
static const char *const *environment;

static const char *env(const char *name)
{
	for (const char *const *p = environment; p && *p; p += 2) {
		if (!strcmp(*p, name))
			return p[1];
	}
	return NULL;
}

static struct config config;
static char error[CONFIG_ERROR_LEN];

#define ENV(...)                                                                                   \
	(const char *const[])                                                                      \
	{                                                                                          \
		__VA_ARGS__, NULL                                                                  \
	}
#define ARGS(...)                                                                                  \
	(char *[])                                                                                 \
	{                                                                                          \
		__VA_ARGS__, NULL                                                                  \
	}
#define NO_ENV NULL
#define NO_ARGS                                                                                    \
	(char *[])                                                                                 \
	{                                                                                          \
		NULL                                                                               \
	}

static int parse(const char *const *variables, char *const *argv)
{
	int argc = 0;

	while (argv[argc])
		argc++;
	environment = variables;
	memset(error, 0, sizeof(error));
	return config_parse(&config, argc, argv, env, NULL, error);
}

#define ASSERT_TAKEN(...)                                                                          \
	do {                                                                                       \
		if (parse(__VA_ARGS__))                                                            \
			fail_msg("refused: %s", error);                                            \
	} while (0)

static void assert_listen(const struct config_listen *listen, const char *expected)
{
	char text[1024] = "", one[ADDRESS_TEXT_MAX];

	for (unsigned int i = 0; i < listen->count; i++) {
		strcat(text, i ? "," : "");
		strcat(text, address_print(&listen->addresses[i], one));
	}
	assert_string_equal(text, expected);
}

static void defaults(void **state)
{
	(void)state;
	ASSERT_TAKEN(NO_ENV, NO_ARGS);
	assert_true(config.docker_enabled);
	assert_string_equal(config.docker_unix, "/var/run/docker.sock");
	assert_null(config.docker_tcp);
	assert_null(config.control_url);
	assert_null(config.api_key);
	assert_null(config.api_key_file);
	assert_listen(&config.http, "0.0.0.0:80,[::]:80");
	assert_listen(&config.tls, "0.0.0.0:443,[::]:443");
	assert_listen(&config.admin, "127.0.0.1:9180");
	assert_false(config.http.asked);
	assert_false(config.tls.asked);
	assert_false(config.admin.asked);
	assert_int_equal(config.datapath, DATAPATH_AUTO);
	assert_int_equal(config.sockmap_requests, REQUESTS_AUTO);
	assert_null(config.routes_file);
	assert_int_equal(config.proxy_protocol_from.count, 0);
	assert_false(config.access_log);
	assert_string_equal(config.run_dir, "/run/kakuremichi");
	assert_string_equal(config.bpf_dir, "/sys/fs/bpf/kakuremichi");
	assert_null(config.cgroup);
	assert_int_equal(config.workers, 0);
	assert_int_equal(config.log_level, LOG_LEVEL_INFO);
	assert_int_equal(config.log_format, LOG_FORMAT_JSON);
	assert_int_equal(config.head_timeout_ms, 10000);
	assert_int_equal(config.connect_timeout_ms, 3000);
	assert_int_equal(config.idle_timeout_ms, 3600000);
	assert_int_equal(config.drain_timeout_ms, 30000);
	assert_int_equal(config.max_connections, 0);
	assert_false(config.json);
	assert_false(config.help);
}

/* Every option, by its variable and by its flag in both spellings. */
static const struct {
	const char *variable, *flag, *value;
} every[] = {
	{ "DOCKER_ENABLED", "--docker-enabled", "false" },
	{ "DOCKER_SOCKET", "--docker-socket", "/tmp/d.sock" },
	{ "CONTROL_URL", "--control-url", "wss://control.example/x" },
	{ "API_KEY", "--api-key", "secret" },
	{ "API_KEY_FILE", "--api-key-file", "/run/secrets/key" },
	{ "KAKUREMICHI_LISTEN_HTTP", "--listen-http", "127.0.0.1:8080" },
	{ "KAKUREMICHI_LISTEN_TLS", "--listen-tls", "[::1]:8443" },
	{ "KAKUREMICHI_ADMIN", "--admin", "127.0.0.1:1" },
	{ "KAKUREMICHI_DATAPATH", "--datapath", "sockmap" },
	{ "KAKUREMICHI_SOCKMAP_REQUESTS", "--sockmap-requests", "on" },
	{ "KAKUREMICHI_ROUTES_FILE", "--routes-file", "/etc/routes.json" },
	{ "KAKUREMICHI_PROXY_PROTOCOL_FROM", "--proxy-protocol-from",
	  "192.0.2.0/24,2001:db8::/32" },
	{ "KAKUREMICHI_ACCESS_LOG", "--access-log", "on" },
	{ "KAKUREMICHI_RUN_DIR", "--run-dir", "/tmp/run" },
	{ "KAKUREMICHI_BPF_DIR", "--bpf-dir", "/sys/fs/bpf/x" },
	{ "KAKUREMICHI_CGROUP", "--cgroup", "/sys/fs/cgroup/y" },
	{ "KAKUREMICHI_WORKERS", "--workers", "3" },
	{ "KAKUREMICHI_LOG_LEVEL", "--log-level", "debug" },
	{ "KAKUREMICHI_LOG_FORMAT", "--log-format", "text" },
	{ "KAKUREMICHI_HEAD_TIMEOUT", "--head-timeout", "1s" },
	{ "KAKUREMICHI_CONNECT_TIMEOUT", "--connect-timeout", "1500ms" },
	{ "KAKUREMICHI_IDLE_TIMEOUT", "--idle-timeout", "2m" },
	{ "KAKUREMICHI_DRAIN_TIMEOUT", "--drain-timeout", "1h" },
	{ "KAKUREMICHI_MAX_CONNECTIONS", "--max-connections", "77" },
};
#define EVERY (sizeof(every) / sizeof(*every))

static void assert_cidr(unsigned int index, const char *prefix, unsigned int bits)
{
	const struct config_cidr *cidr = &config.proxy_protocol_from.cidrs[index];
	struct sockaddr_storage address;

	assert_int_equal(address_parse(prefix, 0, &address), 0);
	assert_true(address_equal(&cidr->address, &address));
	assert_int_equal(cidr->bits, bits);
}

static void assert_every_value(void)
{
	assert_false(config.docker_enabled);
	assert_string_equal(config.docker_unix, "/tmp/d.sock");
	assert_string_equal(config.control_url, "wss://control.example/x");
	assert_string_equal(config.api_key, "secret");
	assert_string_equal(config.api_key_file, "/run/secrets/key");
	assert_listen(&config.http, "127.0.0.1:8080");
	assert_listen(&config.tls, "[::1]:8443");
	assert_listen(&config.admin, "127.0.0.1:1");
	assert_true(config.http.asked && config.tls.asked && config.admin.asked);
	assert_int_equal(config.datapath, DATAPATH_SOCKMAP);
	assert_int_equal(config.sockmap_requests, REQUESTS_ON);
	assert_string_equal(config.routes_file, "/etc/routes.json");
	assert_int_equal(config.proxy_protocol_from.count, 2);
	assert_cidr(0, "192.0.2.0", 24);
	assert_cidr(1, "2001:db8::", 32);
	assert_true(config.access_log);
	assert_string_equal(config.run_dir, "/tmp/run");
	assert_string_equal(config.bpf_dir, "/sys/fs/bpf/x");
	assert_string_equal(config.cgroup, "/sys/fs/cgroup/y");
	assert_int_equal(config.workers, 3);
	assert_int_equal(config.log_level, LOG_LEVEL_DEBUG);
	assert_int_equal(config.log_format, LOG_FORMAT_TEXT);
	assert_int_equal(config.head_timeout_ms, 1000);
	assert_int_equal(config.connect_timeout_ms, 1500);
	assert_int_equal(config.idle_timeout_ms, 120000);
	assert_int_equal(config.drain_timeout_ms, 3600000);
	assert_int_equal(config.max_connections, 77);
}

static void every_option_by_variable(void **state)
{
	const char *variables[EVERY * 2 + 1] = { NULL };

	(void)state;
	for (size_t i = 0; i < EVERY; i++) {
		variables[i * 2] = every[i].variable;
		variables[i * 2 + 1] = every[i].value;
	}
	ASSERT_TAKEN(variables, NO_ARGS);
	assert_every_value();
}

static void every_option_by_flag(void **state)
{
	char joined[EVERY][128], *one[EVERY + 1] = { NULL }, *two[EVERY * 2 + 1] = { NULL };

	(void)state;
	for (size_t i = 0; i < EVERY; i++) {
		snprintf(joined[i], sizeof(joined[i]), "%s=%s", every[i].flag, every[i].value);
		one[i] = joined[i];
		two[i * 2] = (char *)every[i].flag;
		two[i * 2 + 1] = (char *)every[i].value;
	}
	ASSERT_TAKEN(NO_ENV, one);
	assert_every_value();
	ASSERT_TAKEN(NO_ENV, two);
	assert_every_value();
}

static void flag_wins_over_variable(void **state)
{
	(void)state;
	ASSERT_TAKEN(ENV("KAKUREMICHI_WORKERS", "7", "DOCKER_ENABLED", "false"),
		     ARGS("--workers=2"));
	assert_int_equal(config.workers, 2);
	assert_false(config.docker_enabled);
	ASSERT_TAKEN(ENV("DOCKER_SOCKET", "tcp://proxy:2375"), ARGS("--docker-socket=/a"));
	assert_string_equal(config.docker_unix, "/a");
	assert_null(config.docker_tcp);
	ASSERT_TAKEN(NO_ENV, ARGS("--workers=2", "--workers=3"));
	assert_int_equal(config.workers, 3);
}

static void empty_variable_is_unset(void **state)
{
	const char *variables[EVERY * 2 + 3] = { NULL };

	(void)state;
	for (size_t i = 0; i < EVERY; i++) {
		variables[i * 2] = every[i].variable;
		variables[i * 2 + 1] = "";
	}
	variables[EVERY * 2] = "DOCKER_HOST";
	variables[EVERY * 2 + 1] = "";
	ASSERT_TAKEN(variables, NO_ARGS);
	ASSERT_TAKEN(variables, NO_ARGS);
	assert_true(config.docker_enabled);
	assert_string_equal(config.docker_unix, "/var/run/docker.sock");
	assert_null(config.api_key);
	assert_false(config.http.asked);
}

static void docker_host(void **state)
{
	(void)state;
	ASSERT_TAKEN(ENV("DOCKER_HOST", "unix:///a/b"), NO_ARGS);
	assert_string_equal(config.docker_unix, "/a/b");
	assert_null(config.docker_tcp);
	ASSERT_TAKEN(ENV("DOCKER_HOST", "tcp://proxy:2375"), NO_ARGS);
	assert_null(config.docker_unix);
	assert_string_equal(config.docker_tcp, "proxy:2375");
	ASSERT_TAKEN(ENV("DOCKER_HOST", "tcp://proxy:2375", "DOCKER_SOCKET", "/a/b"), NO_ARGS);
	assert_string_equal(config.docker_unix, "/a/b");
	assert_null(config.docker_tcp);
	ASSERT_TAKEN(ENV("DOCKER_HOST", "tcp://proxy:2375", "DOCKER_SOCKET", ""), NO_ARGS);
	assert_string_equal(config.docker_tcp, "proxy:2375");
	ASSERT_TAKEN(ENV("DOCKER_HOST", "tcp://proxy:2375"), ARGS("--docker-socket", "/c"));
	assert_string_equal(config.docker_unix, "/c");
	assert_null(config.docker_tcp);
	ASSERT_TAKEN(ENV("DOCKER_SOCKET", "unix:///a/b"), NO_ARGS);
	assert_string_equal(config.docker_unix, "/a/b");
	assert_int_equal(parse(ENV("DOCKER_HOST", "ssh://host"), NO_ARGS), -EINVAL);
	assert_non_null(strstr(error, "DOCKER_HOST"));
}

/* It is honoured where DOCKER_SOCKET is unset, so it cannot be wrong where that is set. */
static void docker_host_that_does_not_count(void **state)
{
	(void)state;
	ASSERT_TAKEN(ENV("DOCKER_HOST", "ssh://host", "DOCKER_SOCKET", "/a/b"), NO_ARGS);
	assert_string_equal(config.docker_unix, "/a/b");
	ASSERT_TAKEN(ENV("DOCKER_HOST", "ssh://host"), ARGS("--docker-socket=/a/b"));
	assert_string_equal(config.docker_unix, "/a/b");
}

static void listen_lists(void **state)
{
	(void)state;
	ASSERT_TAKEN(NO_ENV, ARGS("--listen-http=off", "--listen-tls", "off", "--admin=off"));
	assert_int_equal(config.http.count, 0);
	assert_int_equal(config.tls.count, 0);
	assert_int_equal(config.admin.count, 0);
	ASSERT_TAKEN(NO_ENV, ARGS("--listen-http=192.0.2.1:80,[2001:db8::1]:8080,:81"));
	assert_listen(&config.http, "192.0.2.1:80,[2001:db8::1]:8080,0.0.0.0:81,[::]:81");
	assert_true(config.http.asked);
	assert_false(config.tls.asked);
	/* the default's text given by somebody is asked for all the same */
	ASSERT_TAKEN(ENV("KAKUREMICHI_LISTEN_HTTP", "0.0.0.0:80,[::]:80"), NO_ARGS);
	assert_true(config.http.asked);
}

static int parse_listeners(unsigned int count)
{
	char text[1024] = "--listen-http=";

	for (unsigned int i = 0; i < count; i++)
		sprintf(text + strlen(text), "%s127.0.0.1:%u", i ? "," : "", 1000 + i);
	return parse(NO_ENV, ARGS(text));
}

static void as_many_listeners_as_there_is_room(void **state)
{
	(void)state;
	assert_int_equal(parse_listeners(CONFIG_MAX_LISTEN + 1), -EINVAL);
	assert_int_equal(parse_listeners(CONFIG_MAX_LISTEN - 1), 0);
	assert_int_equal(config.http.count, CONFIG_MAX_LISTEN - 1);
	if (parse_listeners(CONFIG_MAX_LISTEN))
		fail_msg("%d listeners are refused: %s", CONFIG_MAX_LISTEN, error);
}

static void durations(void **state)
{
	static const struct {
		char *flag;
		uint64_t ms;
	} cases[] = {
		{ "--head-timeout=1ms", 1 },	  { "--head-timeout=500ms", 500 },
		{ "--head-timeout=10s", 10000 },  { "--head-timeout=5m", 300000 },
		{ "--head-timeout=1h", 3600000 }, { "--head-timeout=24h", 86400000 },
		{ "--head-timeout=010s", 10000 },
	};

	(void)state;
	for (size_t i = 0; i < sizeof(cases) / sizeof(*cases); i++) {
		ASSERT_TAKEN(NO_ENV, ARGS(cases[i].flag));
		assert_int_equal(config.head_timeout_ms, cases[i].ms);
	}
}

static void booleans(void **state)
{
	static char *const yes[] = { "true", "1", "yes", "on" }, *const no[] = { "false", "0", "no",
										 "off" };

	(void)state;
	for (size_t i = 0; i < 4; i++) {
		ASSERT_TAKEN(NO_ENV, ARGS("--access-log", yes[i], "--docker-enabled", no[i]));
		assert_true(config.access_log);
		assert_false(config.docker_enabled);
	}
}

static void bad_values(void **state)
{
	static char long_path[] = "/xxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxx"
				  "xxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxx";
	static const struct {
		char *variable, *flag, *value;
	} cases[] = {
#define DOCKER_ENABLED_BAD(v) { "DOCKER_ENABLED", "--docker-enabled", v }
		DOCKER_ENABLED_BAD("maybe"),
		DOCKER_ENABLED_BAD("2"),
		DOCKER_ENABLED_BAD("true "),
#define DOCKER_SOCKET_BAD(v) { "DOCKER_SOCKET", "--docker-socket", v }
		DOCKER_SOCKET_BAD("relative"),
		DOCKER_SOCKET_BAD("ssh://x"),
		DOCKER_SOCKET_BAD("http://x:1"),
		DOCKER_SOCKET_BAD("unix://x"),
		DOCKER_SOCKET_BAD("tcp://x"),
		DOCKER_SOCKET_BAD(long_path),
		{ "CONTROL_URL", "--control-url", "http://control" },
		{ "CONTROL_URL", "--control-url", "control.example" },
#define HTTP_BAD(v) { "KAKUREMICHI_LISTEN_HTTP", "--listen-http", v }
		HTTP_BAD("80"),
		HTTP_BAD("x:80"),
		HTTP_BAD("0.0.0.0"),
		HTTP_BAD("0.0.0.0:"),
		HTTP_BAD("0.0.0.0:0"),
		HTTP_BAD("0.0.0.0:65536"),
		HTTP_BAD("0.0.0.0:-1"),
		HTTP_BAD("0.0.0.0:http"),
		HTTP_BAD("::1:80"),
		HTTP_BAD("[::1]"),
		HTTP_BAD("[::1:80"),
		HTTP_BAD("[]:80"),
		HTTP_BAD("[localhost]:80"),
		HTTP_BAD("127.0.0.1:80,"),
		HTTP_BAD(",127.0.0.1:80"),
		HTTP_BAD("127.0.0.1:80,,127.0.0.1:81"),
		HTTP_BAD("off,127.0.0.1:80"),
		HTTP_BAD("OFF"),
		{ "KAKUREMICHI_LISTEN_TLS", "--listen-tls", "443" },
		{ "KAKUREMICHI_ADMIN", "--admin", "localhost:9180" },
		{ "KAKUREMICHI_DATAPATH", "--datapath", "xdp" },
		{ "KAKUREMICHI_SOCKMAP_REQUESTS", "--sockmap-requests", "true" },
		{ "KAKUREMICHI_DATAPATH", "--datapath", "Relay" },
		{ "KAKUREMICHI_ACCESS_LOG", "--access-log", "file" },
#define WORKERS_BAD(v) { "KAKUREMICHI_WORKERS", "--workers", v }
		WORKERS_BAD("0"),
		WORKERS_BAD("-1"),
		WORKERS_BAD("x"),
		WORKERS_BAD("257"),
		WORKERS_BAD("1.5"),
		WORKERS_BAD("4294967297"),
		WORKERS_BAD("18446744073709551617"),
		{ "KAKUREMICHI_LOG_LEVEL", "--log-level", "loud" },
		{ "KAKUREMICHI_LOG_FORMAT", "--log-format", "xml" },
#define TIMEOUT_BAD(v) { "KAKUREMICHI_HEAD_TIMEOUT", "--head-timeout", v }
		TIMEOUT_BAD("10"),
		TIMEOUT_BAD("s"),
		TIMEOUT_BAD("0s"),
		TIMEOUT_BAD("-1s"),
		TIMEOUT_BAD("1.5s"),
		TIMEOUT_BAD("1 s"),
		TIMEOUT_BAD("1d"),
		TIMEOUT_BAD("1sec"),
		TIMEOUT_BAD("1m30s"),
		TIMEOUT_BAD("99999999999999999999h"),
		TIMEOUT_BAD("5124095576030432h"),
		{ "KAKUREMICHI_CONNECT_TIMEOUT", "--connect-timeout", "soon" },
		{ "KAKUREMICHI_IDLE_TIMEOUT", "--idle-timeout", "never" },
		{ "KAKUREMICHI_DRAIN_TIMEOUT", "--drain-timeout", "1" },
		{ "KAKUREMICHI_MAX_CONNECTIONS", "--max-connections", "0" },
		{ "KAKUREMICHI_MAX_CONNECTIONS", "--max-connections", "many" },
	};

	(void)state;
	for (size_t i = 0; i < sizeof(cases) / sizeof(*cases); i++) {
		if (parse(ENV(cases[i].variable, cases[i].value), NO_ARGS) != -EINVAL)
			fail_msg("%s=%s is taken", cases[i].variable, cases[i].value);
		if (!strstr(error, cases[i].variable) || strchr(error, '\n'))
			fail_msg("%s=%s: '%s'", cases[i].variable, cases[i].value, error);
		if (parse(NO_ENV, ARGS(cases[i].flag, cases[i].value)) != -EINVAL)
			fail_msg("%s %s is taken", cases[i].flag, cases[i].value);
		if (!strstr(error, cases[i].flag) || strchr(error, '\n'))
			fail_msg("%s %s: '%s'", cases[i].flag, cases[i].value, error);
	}
}

/* What can be seen to be wrong before anything is touched. */
static void bad_tcp_addresses(void **state)
{
	static char *const bad[] = { "tcp://proxy:",	  "tcp://proxy:x", "tcp://proxy:0",
				     "tcp://proxy:65536", "tcp://:2375",   "tcp://:" };

	(void)state;
	for (size_t i = 0; i < sizeof(bad) / sizeof(*bad); i++) {
		if (parse(NO_ENV, ARGS("--docker-socket", bad[i])) != -EINVAL)
			fail_msg("--docker-socket %s is taken", bad[i]);
	}
	ASSERT_TAKEN(NO_ENV, ARGS("--docker-socket=tcp://[::1]:2375"));
	assert_string_equal(config.docker_tcp, "[::1]:2375");
}

static void bad_control_addresses(void **state)
{
	(void)state;
	if (parse(NO_ENV, ARGS("--control-url=ws://")) != -EINVAL ||
	    parse(NO_ENV, ARGS("--control-url=wss://")) != -EINVAL)
		fail_msg("an address without host is taken");
}

static void bad_cidrs(void **state)
{
	static char *const bad[] = {
		"",		"x",		"192.0.2.0/33",	       "2001:db8::/129",
		"192.0.2.0/24,", ",192.0.2.0/24", "192.0.2.0/24,,::/0", "192.0.2.0/",
		"192.0.2.0/,::", "192.0.2.0/x",	"192.0.2.0/24/24",     "192.0.2.0/-1",
		"192.0.2.0 /24", "192.0.2.0/24 ", "192.0.2/24",	       "[::]/0",
		"/24",		 "192.0.2.0/18446744073709551640",
		"0000:0000:0000:0000:0000:0000:0000:0000:0000:0000:0000:0001/1"
	};

	(void)state;
	for (size_t i = 0; i < sizeof(bad) / sizeof(*bad); i++) {
		if (parse(NO_ENV, ARGS("--proxy-protocol-from", bad[i])) != -EINVAL)
			fail_msg("--proxy-protocol-from %s is taken", bad[i]);
	}
}

static void cidrs(void **state)
{
	(void)state;
	ASSERT_TAKEN(NO_ENV, ARGS("--proxy-protocol-from=192.0.2.77/28,2001:db8:ffff::1/33,::1,"
				  "10.0.0.1,1.2.3.4/0,fe80::1/128,127.0.0.1/31"));
	assert_int_equal(config.proxy_protocol_from.count, 7);
	assert_cidr(0, "192.0.2.64", 28);
	assert_cidr(1, "2001:db8:8000::", 33);
	assert_cidr(2, "::1", 128);
	assert_cidr(3, "10.0.0.1", 32);
	assert_cidr(4, "0.0.0.0", 0);
	assert_cidr(5, "fe80::1", 128);
	assert_cidr(6, "127.0.0.0", 31);
	/* a flag replaces what the variable says, and is not added to it */
	ASSERT_TAKEN(ENV("KAKUREMICHI_PROXY_PROTOCOL_FROM", "10.0.0.0/8,::/0"),
		     ARGS("--proxy-protocol-from=192.0.2.1"));
	assert_int_equal(config.proxy_protocol_from.count, 1);
	assert_cidr(0, "192.0.2.1", 32);
}

static void too_many_cidrs(void **state)
{
	char text[(CONFIG_MAX_CIDRS + 1) * 16] = "";

	(void)state;
	for (unsigned int i = 0; i < CONFIG_MAX_CIDRS; i++)
		snprintf(text + strlen(text), 16, "%s10.0.%u.0/24", i ? "," : "", i);
	ASSERT_TAKEN(NO_ENV, ARGS("--proxy-protocol-from", text));
	assert_int_equal(config.proxy_protocol_from.count, CONFIG_MAX_CIDRS);
	assert_cidr(CONFIG_MAX_CIDRS - 1, "10.0.63.0", 24);
	strcat(text, ",::1");
	assert_int_equal(parse(NO_ENV, ARGS("--proxy-protocol-from", text)), -EINVAL);
	if (!strstr(error, "64"))
		fail_msg("does not say how many: %s", error);
}

static void matching_cidrs(void **state)
{
	static const struct {
		char *cidrs;
		const char *address;
		bool match;
	} cases[] = {
		{ "192.0.2.0/24", "192.0.2.0", true },
		{ "192.0.2.0/24", "192.0.2.255", true },
		{ "192.0.2.0/24", "192.0.3.0", false },
		{ "192.0.2.0/24", "192.0.1.255", false },
		{ "192.0.2.128/25", "192.0.2.127", false },
		{ "192.0.2.128/25", "192.0.2.128", true },
		{ "192.0.2.6/31", "192.0.2.7", true },
		{ "192.0.2.6/31", "192.0.2.8", false },
		{ "192.0.2.6", "192.0.2.6", true },
		{ "192.0.2.6", "192.0.2.7", false },
		{ "128.0.0.0/1", "255.0.0.1", true },
		{ "128.0.0.0/1", "127.255.255.255", false },
		{ "0.0.0.0/0", "255.255.255.255", true },
		{ "0.0.0.0/0", "2001:db8::1", false },
		{ "::/0", "2001:db8::1", true },
		{ "::/0", "192.0.2.1", false },
		{ "2001:db8::/33", "2001:db8:7fff::1", true },
		{ "2001:db8::/33", "2001:db8:8000::1", false },
		{ "::1", "::1", true },
		{ "::1", "::2", false },
		{ "::1", "0.0.0.1", false },
		/* as an IPv6 socket shows an IPv4 client */
		{ "192.0.2.0/24", "::ffff:192.0.2.9", true },
		{ "192.0.2.0/24", "::ffff:192.0.3.9", false },
		{ "192.0.2.0/24", "::192.0.2.9", false },
		{ "::ffff:0:0/96", "::ffff:192.0.2.9", true },
		{ "::ffff:192.0.2.0/120", "::ffff:192.0.3.9", false },
		{ "10.0.0.0/8,192.0.2.0/24,2001:db8::/32", "192.0.2.1", true },
		{ "10.0.0.0/8,192.0.2.0/24,2001:db8::/32", "2001:db8::1", true },
		{ "10.0.0.0/8,192.0.2.0/24,2001:db8::/32", "11.0.0.1", false },
	};
	struct sockaddr_storage address;

	(void)state;
	for (size_t i = 0; i < sizeof(cases) / sizeof(*cases); i++) {
		ASSERT_TAKEN(NO_ENV, ARGS("--proxy-protocol-from", cases[i].cidrs));
		assert_int_equal(address_parse(cases[i].address, 4711, &address), 0);
		if (config_cidrs_match(&config.proxy_protocol_from, &address) != cases[i].match)
			fail_msg("%s in %s", cases[i].address, cases[i].cidrs);
	}
	ASSERT_TAKEN(NO_ENV, NO_ARGS);
	assert_false(config_cidrs_match(&config.proxy_protocol_from, &address));
}

static void errors_are_one_line(void **state)
{
	static char long_value[2000];

	(void)state;
	memset(long_value, 'x', sizeof(long_value) - 1);
	assert_int_equal(parse(ENV("KAKUREMICHI_WORKERS", long_value), NO_ARGS), -EINVAL);
	assert_true(strlen(error) < CONFIG_ERROR_LEN);
	assert_int_equal(parse(ENV("KAKUREMICHI_WORKERS", "1\n2"), NO_ARGS), -EINVAL);
	if (strchr(error, '\n'))
		fail_msg("two lines: %s", error);
}

static void wrong_usage(void **state)
{
	(void)state;
	assert_int_equal(parse(NO_ENV, ARGS("--nonsense")), -EINVAL);
	assert_non_null(strstr(error, "--nonsense"));
	assert_int_equal(parse(NO_ENV, ARGS("--nonsense=5")), -EINVAL);
	assert_int_equal(parse(NO_ENV, ARGS("--worker=5")), -EINVAL);
	assert_int_equal(parse(NO_ENV, ARGS("--workersx=5")), -EINVAL);
	assert_int_equal(parse(NO_ENV, ARGS("--workers")), -EINVAL);
	assert_non_null(strstr(error, "--workers"));
	assert_int_equal(parse(NO_ENV, ARGS("-w")), -EINVAL);
	assert_int_equal(parse(NO_ENV, ARGS("-")), -EINVAL);
	assert_int_equal(parse(NO_ENV, ARGS("--")), -EINVAL);
	assert_int_equal(parse(NO_ENV, ARGS("operand")), -EINVAL);
	assert_int_equal(parse(NO_ENV, ARGS("")), -EINVAL);
	assert_int_equal(parse(NO_ENV, ARGS("--json=true")), -EINVAL);
}

/* A mistyped flag must not bring the key to the terminal's scrollback or a supervisor's log. */
static void keys_are_not_printed(void **state)
{
	(void)state;
	assert_int_equal(parse(NO_ENV, ARGS("--api-kye=s3cr3t")), -EINVAL);
	if (strstr(error, "s3cr3t"))
		fail_msg("%s", error);
}

static void switches_and_operands(void **state)
{
	const char *operand = NULL;

	(void)state;
	ASSERT_TAKEN(NO_ENV, ARGS("--json", "--workers", "2", "--help"));
	assert_true(config.json && config.help);
	ASSERT_TAKEN(NO_ENV, ARGS("-h"));
	assert_true(config.help);
	environment = NULL;
	assert_int_equal(config_parse(&config, 3, ARGS("--json", "a.example", "--workers=4"), env,
				      &operand, error),
			 0);
	assert_string_equal(operand, "a.example");
	assert_int_equal(config.workers, 4);
	operand = NULL;
	assert_int_equal(config_parse(&config, 2, ARGS("a", "b"), env, &operand, error), -EINVAL);
}

/* Who takes a flag that only some commands take is main.c's matter. */
static void flags_of_commands(void **state)
{
	(void)state;
	ASSERT_TAKEN(NO_ENV, ARGS("--workers=2"));
	assert_null(config_unexpected(&config, 0));
	assert_int_equal(config.color, COLOR_AUTO);
	ASSERT_TAKEN(NO_ENV, ARGS("--json", "--watch", "--color", "never"));
	assert_true(config.json && config.watch);
	assert_int_equal(config.color, COLOR_NEVER);
	assert_null(config_unexpected(&config, CONFIG_JSON | CONFIG_WATCH | CONFIG_COLOR));
	assert_string_equal(config_unexpected(&config, CONFIG_JSON | CONFIG_COLOR), "watch");
	assert_string_equal(config_unexpected(&config, CONFIG_WATCH | CONFIG_COLOR), "json");
	assert_string_equal(config_unexpected(&config, CONFIG_WATCH | CONFIG_JSON), "color");
	assert_int_equal(parse(NO_ENV, ARGS("--color=blue")), -EINVAL);
	assert_int_equal(parse(NO_ENV, ARGS("--watch=yes")), -EINVAL);
}

static void help_names_everything(void **state)
{
	char *text = NULL;
	size_t size;
	FILE *out = open_memstream(&text, &size);

	(void)state;
	config_print_help(out);
	fclose(out);
	for (size_t i = 0; i < EVERY; i++) {
		if (!strstr(text, every[i].variable) || !strstr(text, every[i].flag))
			fail_msg("help lacks %s or %s", every[i].flag, every[i].variable);
	}
	for (char *line = strtok(text, "\n"); line; line = strtok(NULL, "\n"))
		assert_true(strlen(line) <= 130);
	free(text);
}

int main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test(defaults),
		cmocka_unit_test(every_option_by_variable),
		cmocka_unit_test(every_option_by_flag),
		cmocka_unit_test(flag_wins_over_variable),
		cmocka_unit_test(empty_variable_is_unset),
		cmocka_unit_test(docker_host),
		cmocka_unit_test(docker_host_that_does_not_count),
		cmocka_unit_test(listen_lists),
		cmocka_unit_test(as_many_listeners_as_there_is_room),
		cmocka_unit_test(durations),
		cmocka_unit_test(booleans),
		cmocka_unit_test(bad_values),
		cmocka_unit_test(bad_tcp_addresses),
		cmocka_unit_test(bad_control_addresses),
		cmocka_unit_test(bad_cidrs),
		cmocka_unit_test(cidrs),
		cmocka_unit_test(too_many_cidrs),
		cmocka_unit_test(matching_cidrs),
		cmocka_unit_test(errors_are_one_line),
		cmocka_unit_test(wrong_usage),
		cmocka_unit_test(keys_are_not_printed),
		cmocka_unit_test(switches_and_operands),
		cmocka_unit_test(flags_of_commands),
		cmocka_unit_test(help_names_everything),
	};

	return cmocka_run_group_tests_name("config", tests, NULL, NULL);
}
