/* SPDX-License-Identifier: MIT */
/*
 * The configuration: one table of options makes flags, environment variables, help and `check`.
 * A flag wins over its variable, an empty variable counts as unset. Pure: nothing is opened here.
 */
#ifndef KKM_CONFIG_H
#define KKM_CONFIG_H

#include <stdbool.h>
#include <stdint.h>
#include <stdio.h>
#include <sys/socket.h>

#include "log.h"

#define CONFIG_MAX_LISTEN 16
#define CONFIG_MAX_CIDRS 64
#define CONFIG_MAX_WORKERS 256
#define CONFIG_ERROR_LEN 320

enum config_requests { REQUESTS_AUTO, REQUESTS_ON, REQUESTS_OFF };
enum config_color { COLOR_AUTO, COLOR_ALWAYS, COLOR_NEVER };
enum config_datapath { DATAPATH_AUTO, DATAPATH_RELAY, DATAPATH_SOCKMAP, DATAPATH_HANDOVER };
extern const char *const config_datapath_names[DATAPATH_HANDOVER + 1];

struct config_listen {
	struct sockaddr_storage addresses[CONFIG_MAX_LISTEN];
	unsigned int count; /* 0: off */
	bool asked;	    /* not the default: what cannot be bound is an error */
};

struct config_cidrs {
	struct config_cidr {
		struct sockaddr_storage address; /* without port; bits behind the prefix are 0 */
		unsigned int bits;
	} cidrs[CONFIG_MAX_CIDRS];
	unsigned int count;
};

/* Strings belong to argv or the environment, `docker_unix` and `docker_tcp` exclude each other. */
struct config {
	bool docker_enabled;
	const char *docker_unix; /* path of the socket */
	const char *docker_tcp;	 /* host:port */
	const char *control_url;
	const char *api_key;
	const char *api_key_file;
	struct config_listen http;
	struct config_listen tls;
	struct config_listen admin;
	enum config_datapath datapath;
	enum config_requests sockmap_requests; /* whether sockmap may carry requests too */
	const char *routes_file;
	struct config_cidrs proxy_protocol_from;
	bool access_log;
	const char *run_dir;
	const char *bpf_dir;
	const char *cgroup;    /* NULL: found in /proc/mounts */
	unsigned int workers;  /* 0: number of CPUs */
	enum log_level log_level;
	enum log_format log_format;
	uint64_t head_timeout_ms;
	uint64_t connect_timeout_ms;
	uint64_t idle_timeout_ms;
	uint64_t drain_timeout_ms;
	unsigned int max_connections; /* 0: from RLIMIT_NOFILE */
	unsigned int max_legs;	      /* to containers, above which idle ones are closed; computed */
	unsigned int max_routes;
	const char *operand; /* what stands behind the command's name */
	enum config_color color;
	bool json;
	bool watch;
	bool help;
	unsigned int given; /* of CONFIG_JSON … */
};

/*
 * Flags of argv[0..argc) over environment over defaults. `operand` receives an argument that is no
 * flag, where it is not NULL; otherwise one is an error. 0 or -EINVAL with one line in error.
 */
int config_parse(struct config *config, int argc, char *const *argv,
		 const char *(*env)(const char *name), const char **operand,
		 char error[CONFIG_ERROR_LEN]);

/* Whether one of them holds the address. One that is IPv4 mapped into IPv6 counts as both. */
bool config_cidrs_match(const struct config_cidrs *cidrs, const struct sockaddr_storage *address);

/* The table as help text. */
void config_print_help(FILE *out);

/* Flags that belong to some commands only; they have no environment variable. */
#define CONFIG_JSON 1u
#define CONFIG_COLOR 2u
#define CONFIG_WATCH 4u
/* The name of one that was given and is not among these, or NULL. */
const char *config_unexpected(const struct config *config, unsigned int flags);

#endif
