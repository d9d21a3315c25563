// SPDX-License-Identifier: MIT
#include "config.h"

#include <errno.h>
#include <stddef.h>
#include <stdlib.h>
#include <string.h>

#include "hostname.h"

const char *const config_datapath_names[] = {
	[DATAPATH_AUTO] = "auto",
	[DATAPATH_RELAY] = "relay",
	[DATAPATH_SOCKMAP] = "sockmap",
	[DATAPATH_HANDOVER] = "handover",
};

static const char *const requests_names[] = {
	[REQUESTS_AUTO] = "auto",
	[REQUESTS_ON] = "on",
	[REQUESTS_OFF] = "off",
};

struct option {
	const char *env; /* NULL: of `command` flags */
	const char *flag; /* without the dashes */
	const char *standard;
	const char *meaning;
	/* 0, or -EINVAL with *expected saying what would be right */
	int (*set)(struct config *config, size_t member, const char *value, const char **expected);
	size_t member;
	unsigned int command; /* CONFIG_JSON …, where not every command takes it */
};

static int set_text(struct config *config, size_t member, const char *value, const char **expected)
{
	(void)expected;
	*(const char **)((char *)config + member) = *value ? value : NULL;
	return 0;
}

static int set_bool(struct config *config, size_t member, const char *value, const char **expected)
{
	static const char *const words[][2] = {
		{ "false", "true" }, { "0", "1" }, { "no", "yes" }, { "off", "on" }
	};

	for (size_t i = 0; i < sizeof(words) / sizeof(*words); i++) {
		for (int truth = 0; truth < 2; truth++) {
			if (!strcmp(value, words[i][truth])) {
				*(bool *)((char *)config + member) = truth;
				return 0;
			}
		}
	}
	*expected = "true or false";
	return -EINVAL;
}

/* A flag without a value. */
static int set_switch(struct config *config, size_t member, const char *value,
		      const char **expected)
{
	(void)value;
	(void)expected;
	*(bool *)((char *)config + member) = true;
	return 0;
}

static int set_number(struct config *config, size_t member, const char *value, uint64_t max,
		      const char *text, const char **expected)
{
	uint64_t number;

	*expected = text;
	if (number_parse(value, strlen(value), 1, max, &number))
		return -EINVAL;
	*(unsigned int *)((char *)config + member) = (unsigned int)number;
	return 0;
}

static int set_workers(struct config *config, size_t member, const char *value,
		       const char **expected)
{
	return set_number(config, member, value, CONFIG_MAX_WORKERS, "a number from 1 to 256",
			  expected);
}

static int set_count(struct config *config, size_t member, const char *value,
		     const char **expected)
{
	return set_number(config, member, value, 10000000, "a number from 1 to 10000000", expected);
}

static int set_routes(struct config *config, size_t member, const char *value,
		      const char **expected)
{
	return set_number(config, member, value, 1000000, "a number from 1 to 1000000", expected);
}

static int set_duration(struct config *config, size_t member, const char *value,
			const char **expected)
{
	static const struct {
		const char *unit;
		uint64_t ms;
	} units[] = { { "ms", 1 }, { "s", 1000 }, { "m", 60000 }, { "h", 3600000 } };
	size_t digits = strspn(value, "0123456789");
	uint64_t number;

	*expected = "a time such as 500ms, 10s, 5m or 1h";
	for (size_t i = 0; i < sizeof(units) / sizeof(*units); i++) {
		if (strcmp(value + digits, units[i].unit))
			continue;
		if (number_parse(value, digits, 1, 30 * 24 * 3600000ULL / units[i].ms, &number))
			return -EINVAL;
		*(uint64_t *)((char *)config + member) = number * units[i].ms;
		return 0;
	}
	return -EINVAL;
}

static int set_word(struct config *config, size_t member, const char *value,
		    const char *const *words, size_t count)
{
	for (size_t i = 0; i < count; i++) {
		if (!strcmp(value, words[i])) {
			*(unsigned int *)((char *)config + member) = (unsigned int)i;
			return 0;
		}
	}
	return -EINVAL;
}

static int set_datapath(struct config *config, size_t member, const char *value,
			const char **expected)
{
	*expected = "auto, relay, sockmap or handover";
	return set_word(config, member, value, config_datapath_names, DATAPATH_HANDOVER + 1);
}

static int set_requests(struct config *config, size_t member, const char *value,
			const char **expected)
{
	*expected = "auto, on or off";
	return set_word(config, member, value, requests_names, REQUESTS_OFF + 1);
}

static int set_color(struct config *config, size_t member, const char *value,
		     const char **expected)
{
	static const char *const words[] = { "auto", "always", "never" };

	*expected = "auto, always or never";
	return set_word(config, member, value, words, COLOR_NEVER + 1);
}

static int set_log_level(struct config *config, size_t member, const char *value,
			 const char **expected)
{
	static const char *const words[] = { "debug", "info", "warn", "error" };

	*expected = "debug, info, warn or error";
	return set_word(config, member, value, words, 4);
}

static int set_log_format(struct config *config, size_t member, const char *value,
			  const char **expected)
{
	static const char *const words[] = { "json", "text" };

	*expected = "json or text";
	return set_word(config, member, value, words, 2);
}

/* "192.0.2.1:80", "[::]:80" or ":80", which is both wildcards. */
static int add_listen(struct config_listen *listen, const char *text, size_t len)
{
	const char *colon = memrchr(text, ':', len);
	char host[INET6_ADDRSTRLEN + 2];
	size_t host_len;
	uint64_t port;

	if (!colon)
		return -EINVAL;
	host_len = (size_t)(colon - text);
	if (number_parse(colon + 1, len - host_len - 1, 1, 65535, &port))
		return -EINVAL;
	if (listen->count + (host_len ? 1 : 2) > CONFIG_MAX_LISTEN || host_len >= sizeof(host))
		return -EINVAL;
	if (!host_len) {
		address_parse("0.0.0.0", (uint16_t)port, &listen->addresses[listen->count++]);
		address_parse("::", (uint16_t)port, &listen->addresses[listen->count++]);
		return 0;
	}
	if (*text == '[' && host_len > 2 && text[host_len - 1] == ']') {
		text++;
		host_len -= 2;
	} else if (memchr(text, ':', host_len)) {
		return -EINVAL;
	}
	memcpy(host, text, host_len);
	host[host_len] = '\0';
	if (address_parse(host, (uint16_t)port, &listen->addresses[listen->count]))
		return -EINVAL;
	listen->count++;
	return 0;
}

static int set_listen(struct config *config, size_t member, const char *value,
		      const char **expected)
{
	struct config_listen *out = (struct config_listen *)((char *)config + member);
	struct config_listen listen = { .asked = true };

	*expected = "addresses with ports, such as 0.0.0.0:80,[::]:80, or off";
	if (!strcmp(value, "off")) {
		*out = listen;
		return 0;
	}
	for (const char *p = value;;) {
		size_t len = strcspn(p, ",");

		if (add_listen(&listen, p, len))
			return -EINVAL;
		if (!p[len])
			break;
		p += len + 1;
	}
	*out = listen;
	return 0;
}

/* A name or an address, in brackets where it is IPv6, and a port; nothing behind it. */
static bool is_host_and_port(const char *text)
{
	const char *colon = strrchr(text, ':');
	char host[HOSTNAME_MAX + 1];
	uint64_t port;

	return colon && !number_parse(colon + 1, strlen(colon + 1), 1, 65535, &port) &&
	       !hostname_from_authority(text, strlen(text), host) && *host;
}

static uint8_t *address_bytes(struct sockaddr_storage *address)
{
	return address->ss_family == AF_INET
		       ? (uint8_t *)&((struct sockaddr_in *)address)->sin_addr
		       : ((struct sockaddr_in6 *)address)->sin6_addr.s6_addr;
}

/* Of the byte at `index`, the bits that belong to a prefix. */
static uint8_t prefix_mask(unsigned int bits, unsigned int index)
{
	unsigned int here = bits > 8 * index ? bits - 8 * index : 0;

	return here >= 8 ? 0xff : (uint8_t)(0xff00 >> here);
}

/* "192.0.2.0/24" or "2001:db8::1", which is that address alone. */
static int parse_cidr(const char *text, size_t len, struct config_cidr *out)
{
	size_t host_len = strcspn(text, "/,");
	char host[INET6_ADDRSTRLEN];
	unsigned int full;
	uint64_t bits;

	if (host_len >= sizeof(host))
		return -EINVAL;
	memcpy(host, text, host_len);
	host[host_len] = '\0';
	if (address_parse(host, 0, &out->address))
		return -EINVAL;
	full = out->address.ss_family == AF_INET ? 32 : 128;
	bits = full;
	if (host_len < len && number_parse(text + host_len + 1, len - host_len - 1, 0, full, &bits))
		return -EINVAL;
	out->bits = (unsigned int)bits;
	for (unsigned int i = 0; i < full / 8; i++)
		address_bytes(&out->address)[i] &= prefix_mask(out->bits, i);
	return 0;
}

static int set_cidrs(struct config *config, size_t member, const char *value, const char **expected)
{
	struct config_cidrs *out = (struct config_cidrs *)((char *)config + member);

	*expected = "up to 64 CIDRs such as 192.0.2.0/24,2001:db8::/32";
	out->count = 0;
	for (const char *p = value;;) {
		size_t len = strcspn(p, ",");

		if (out->count == CONFIG_MAX_CIDRS || parse_cidr(p, len, &out->cidrs[out->count]))
			return -EINVAL;
		out->count++;
		if (!p[len])
			return 0;
		p += len + 1;
	}
}

static bool cidr_holds(const struct config_cidr *cidr, const struct sockaddr_storage *address)
{
	struct sockaddr_storage prefix = cidr->address, other = *address;
	const uint8_t *a = address_bytes(&prefix), *b = address_bytes(&other);

	if (prefix.ss_family != other.ss_family)
		return false;
	for (unsigned int i = 0; 8 * i < cidr->bits; i++) {
		if (a[i] != (b[i] & prefix_mask(cidr->bits, i)))
			return false;
	}
	return true;
}

bool config_cidrs_match(const struct config_cidrs *cidrs, const struct sockaddr_storage *address)
{
	const struct in6_addr *v6 = &((const struct sockaddr_in6 *)address)->sin6_addr;
	struct sockaddr_storage unmapped = *address;

	if (address->ss_family == AF_INET6 && IN6_IS_ADDR_V4MAPPED(v6)) {
		memset(&unmapped, 0, sizeof(unmapped));
		unmapped.ss_family = AF_INET;
		memcpy(address_bytes(&unmapped), v6->s6_addr + 12, 4);
	}
	for (unsigned int i = 0; i < cidrs->count; i++) {
		if (cidr_holds(&cidrs->cidrs[i], address) ||
		    cidr_holds(&cidrs->cidrs[i], &unmapped))
			return true;
	}
	return false;
}

static int set_docker(struct config *config, size_t member, const char *value,
		      const char **expected)
{
	(void)member;
	*expected = "a path, unix:///path or tcp://host:port";
	config->docker_unix = config->docker_tcp = NULL;
	if (!strncmp(value, "unix://", 7))
		value += 7;
	if (*value == '/') {
		config->docker_unix = value;
		return strlen(value) < 108 ? 0 : -EINVAL; /* sun_path, unix(7) */
	}
	if (strncmp(value, "tcp://", 6) || !is_host_and_port(value + 6))
		return -EINVAL;
	config->docker_tcp = value + 6;
	return 0;
}

static int set_control(struct config *config, size_t member, const char *value,
		       const char **expected)
{
	size_t scheme = !strncmp(value, "ws://", 5) ? 5 : !strncmp(value, "wss://", 6) ? 6 : 0;

	*expected = "a ws:// or wss:// address";
	if (!scheme || !value[scheme] || strchr("/:?#", value[scheme]))
		return -EINVAL;
	return set_text(config, member, value, expected);
}

#define DOCKER_SOCKET_STANDARD "/var/run/docker.sock"
#define MEMBER(name) offsetof(struct config, name), 0
#define MEMBER_OF(name, command) offsetof(struct config, name), command

static const struct option options[] = {
	{ "DOCKER_ENABLED", "docker-enabled", "true", "discover containers", set_bool,
	  MEMBER(docker_enabled) },
	{ "DOCKER_SOCKET", "docker-socket", DOCKER_SOCKET_STANDARD,
	  "the Docker Engine's socket; where unset, DOCKER_HOST is honoured", set_docker, 0, 0 },
	{ "CONTROL_URL", "control-url", "", "ws:// or wss:// address of Control", set_control,
	  MEMBER(control_url) },
	{ "API_KEY", "api-key", "", "the agent's key at Control", set_text, MEMBER(api_key) },
	{ "API_KEY_FILE", "api-key-file", "", "file that holds it", set_text,
	  MEMBER(api_key_file) },
	{ "KAKUREMICHI_LISTEN_HTTP", "listen-http", "0.0.0.0:80,[::]:80",
	  "plain HTTP listeners, or off", set_listen, MEMBER(http) },
	{ "KAKUREMICHI_LISTEN_TLS", "listen-tls", "0.0.0.0:443,[::]:443",
	  "TLS pass-through listeners, or off", set_listen, MEMBER(tls) },
	{ "KAKUREMICHI_ADMIN", "admin", "127.0.0.1:9180", "/healthz, /readyz; or off", set_listen,
	  MEMBER(admin) },
	{ "KAKUREMICHI_DATAPATH", "datapath", "auto", "auto, relay, sockmap or handover",
	  set_datapath, MEMBER(datapath) },
	{ "KAKUREMICHI_SOCKMAP_REQUESTS", "sockmap-requests", "auto",
	  "whether sockmap carries requests too: auto, on or off", set_requests,
	  MEMBER(sockmap_requests) },
	{ "KAKUREMICHI_ROUTES_FILE", "routes-file", "", "routes without Docker, JSON", set_text,
	  MEMBER(routes_file) },
	{ "KAKUREMICHI_PROXY_PROTOCOL_FROM", "proxy-protocol-from", "",
	  "CIDRs whose connections begin with a PROXY header", set_cidrs,
	  MEMBER(proxy_protocol_from) },
	{ "KAKUREMICHI_ACCESS_LOG", "access-log", "off", "a JSON line per request", set_bool,
	  MEMBER(access_log) },
	{ "KAKUREMICHI_RUN_DIR", "run-dir", "/run/kakuremichi", "the admin socket", set_text,
	  MEMBER(run_dir) },
	{ "KAKUREMICHI_BPF_DIR", "bpf-dir", "/sys/fs/bpf/kakuremichi", "where maps are pinned",
	  set_text, MEMBER(bpf_dir) },
	{ "KAKUREMICHI_CGROUP", "cgroup", "",
	  "the cgroup v2 root that holds the containers; found in /proc/mounts", set_text,
	  MEMBER(cgroup) },
	{ "KAKUREMICHI_WORKERS", "workers", "", "data-path threads; number of CPUs", set_workers,
	  MEMBER(workers) },
	{ "KAKUREMICHI_LOG_LEVEL", "log-level", "info", "debug, info, warn or error",
	  set_log_level, MEMBER(log_level) },
	{ "KAKUREMICHI_LOG_FORMAT", "log-format", "json", "json or text", set_log_format,
	  MEMBER(log_format) },
	{ "KAKUREMICHI_HEAD_TIMEOUT", "head-timeout", "10s", "to receive a whole request head",
	  set_duration, MEMBER(head_timeout_ms) },
	{ "KAKUREMICHI_CONNECT_TIMEOUT", "connect-timeout", "3s", "to connect to a container",
	  set_duration, MEMBER(connect_timeout_ms) },
	{ "KAKUREMICHI_IDLE_TIMEOUT", "idle-timeout", "1h", "a connection with no byte either way",
	  set_duration, MEMBER(idle_timeout_ms) },
	{ "KAKUREMICHI_DRAIN_TIMEOUT", "drain-timeout", "30s",
	  "how long connections may finish when the agent stops", set_duration,
	  MEMBER(drain_timeout_ms) },
	{ "KAKUREMICHI_MAX_CONNECTIONS", "max-connections", "",
	  "past it accepting pauses; from RLIMIT_NOFILE", set_count, MEMBER(max_connections) },
	{ "KAKUREMICHI_MAX_ROUTES", "max-routes", "16384",
	  "size of kkm_routes and kkm_backends; a route too many is rejected", set_routes,
	  MEMBER(max_routes) },
	{ NULL, "json", "", "one JSON document", set_switch, MEMBER_OF(json, CONFIG_JSON) },
	{ NULL, "color", "auto", "when to use colours: auto, always or never",
	  set_color, MEMBER_OF(color, CONFIG_COLOR) },
	{ NULL, "watch", "", "show it again whenever it changes, until ^C", set_switch,
	  MEMBER_OF(watch, CONFIG_WATCH) },
	{ NULL, "help", "", "this text", set_switch, MEMBER(help) },
};

#define OPTIONS (sizeof(options) / sizeof(*options))

static int set(struct config *config, const struct option *option, const char *source,
	       const char *value, char error[CONFIG_ERROR_LEN])
{
	const char *expected = "something else";

	if (!option->set(config, option->member, value, &expected))
		return 0;
	/* the value of a key is never printed; no key gets here, since any text is one */
	snprintf(error, CONFIG_ERROR_LEN, "%s: '%.100s' is not valid: give %s", source, value,
		 expected);
	return -EINVAL;
}

static void set_standards(struct config *config)
{
	char error[CONFIG_ERROR_LEN];

	memset(config, 0, sizeof(*config));
	for (size_t i = 0; i < OPTIONS; i++) {
		if (*options[i].standard)
			set(config, &options[i], options[i].flag, options[i].standard, error);
	}
	config->docker_unix = NULL; /* see set_docker_host() */
	config->http.asked = config->tls.asked = config->admin.asked = false;
}

static int set_from_environment(struct config *config, const char *(*env)(const char *name),
				char error[CONFIG_ERROR_LEN])
{
	for (size_t i = 0; i < OPTIONS; i++) {
		const char *value = options[i].env ? env(options[i].env) : NULL;
		int err;

		if (!value || !*value)
			continue;
		err = set(config, &options[i], options[i].env, value, error);
		if (err)
			return err;
	}
	return 0;
}

static const struct option *find_option(const char *flag, size_t len)
{
	for (size_t i = 0; i < OPTIONS; i++) {
		if (strlen(options[i].flag) == len && !memcmp(options[i].flag, flag, len))
			return &options[i];
	}
	return NULL;
}

/* One flag at argv[*at], with its value there or in the next; *at is moved behind it. */
static int set_from_flag(struct config *config, int argc, char *const *argv, int *at,
			 char error[CONFIG_ERROR_LEN])
{
	const char *flag = argv[(*at)++] + 2;
	size_t len = strcspn(flag, "=");
	const struct option *option = find_option(flag, len);
	char source[64];
	const char *value;

	if (!option) {
		snprintf(error, CONFIG_ERROR_LEN,
			 "unknown option --%.*s: see kakuremichi-agent --help",
			 len < 60 ? (int)len : 60, flag);
		return -EINVAL;
	}
	snprintf(source, sizeof(source), "--%s", option->flag);
	config->given |= option->command;
	if (option->set == set_switch) {
		if (!flag[len])
			return set(config, option, source, "", error);
		snprintf(error, CONFIG_ERROR_LEN, "--%s takes no value", option->flag);
		return -EINVAL;
	}
	if (flag[len] == '=') {
		value = flag + len + 1;
	} else if (*at < argc) {
		value = argv[(*at)++];
	} else {
		snprintf(error, CONFIG_ERROR_LEN, "--%s needs a value: %s", option->flag,
			 option->meaning);
		return -EINVAL;
	}
	return set(config, option, source, value, error);
}

/* Where neither flag nor variable names the socket, what the docker command uses does. */
static int set_docker_host(struct config *config, const char *(*env)(const char *name),
			   char error[CONFIG_ERROR_LEN])
{
	const char *docker_host = env("DOCKER_HOST");
	const char *expected;

	if (config->docker_unix || config->docker_tcp || !config->docker_enabled)
		return 0;
	if (!docker_host || !*docker_host)
		return set_docker(config, 0, DOCKER_SOCKET_STANDARD, &expected);
	if (!set_docker(config, 0, docker_host, &expected))
		return 0;
	snprintf(error, CONFIG_ERROR_LEN,
		 "DOCKER_HOST: '%.100s' cannot be used here: give unix:///path or tcp://host:port",
		 docker_host);
	return -EINVAL;
}

/* What somebody typed stands in it: one line, whatever that was. */
static int one_line(int err, char error[CONFIG_ERROR_LEN])
{
	for (char *p = error; err && *p; p++) {
		if ((unsigned char)*p < 0x20 || *p == 0x7f)
			*p = '?';
	}
	return err;
}

int config_parse(struct config *config, int argc, char *const *argv,
		 const char *(*env)(const char *name), const char **operand,
		 char error[CONFIG_ERROR_LEN])
{
	int err;

	set_standards(config);
	err = set_from_environment(config, env, error);
	for (int i = 0; i < argc && !err;) {
		if (!strncmp(argv[i], "--", 2) && argv[i][2]) {
			err = set_from_flag(config, argc, argv, &i, error);
		} else if (!strcmp(argv[i], "-h")) {
			config->help = true;
			i++;
		} else if (operand && !*operand && *argv[i] != '-') {
			*operand = argv[i++];
		} else {
			snprintf(error, CONFIG_ERROR_LEN,
				 "'%.60s' is not expected here: see kakuremichi-agent --help",
				 argv[i]);
			err = -EINVAL;
		}
	}
	if (!err)
		err = set_docker_host(config, env, error);
	if (!err && !config->run_dir)
		config->run_dir = "/run/kakuremichi";
	if (!err && !config->bpf_dir)
		config->bpf_dir = "/sys/fs/bpf/kakuremichi";
	return one_line(err, error);
}

const char *config_unexpected(const struct config *config, unsigned int flags)
{
	for (size_t i = 0; i < OPTIONS; i++) {
		if (options[i].command & config->given & ~flags)
			return options[i].flag;
	}
	return NULL;
}

void config_print_help(FILE *out)
{
	for (size_t i = 0; i < OPTIONS; i++) {
		fprintf(out, "  --%-20s %s", options[i].flag, options[i].meaning);
		if (*options[i].standard)
			fprintf(out, " [%s]", options[i].standard);
		fputc('\n', out);
		if (options[i].env)
			fprintf(out, "  %-22s %s\n", "", options[i].env);
	}
}
