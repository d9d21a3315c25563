// SPDX-License-Identifier: MIT
/* Docker's answers as they look on the wire, API 1.24 to 1.55. */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <cmocka.h>

#include <errno.h>
#include <glob.h>
#include <signal.h>

#include "dockerjson.h"

#define ID "0123456789abcdef0123456789abcdef0123456789abcdef0123456789abcdef"
#define ID2 "fedcba9876543210fedcba9876543210fedcba9876543210fedcba9876543210"
#define LABELS                                                                                     \
	"\"kakuremichi.enabled\":\"true\",\"kakuremichi.domain\":\"a.example\","                   \
	"\"kakuremichi.port\":\"8080\""
#define COMPOSE "\"com.docker.compose.project\":\"shop\",\"com.docker.compose.service\":\"web\""
#define NETWORK(name, ip)                                                                          \
	"\"" name "\":{\"IPAMConfig\":null,\"Links\":null,\"Aliases\":null,"                       \
	"\"NetworkID\":\"77\",\"EndpointID\":\"88\",\"Gateway\":\"172.17.0.1\",\"IPAddress\":"     \
	"\"" ip "\",\"IPPrefixLen\":16,\"IPv6Gateway\":\"\",\"GlobalIPv6Address\":\"\","           \
	"\"GlobalIPv6PrefixLen\":0,\"MacAddress\":\"02:42:ac:11:00:02\",\"DriverOpts\":null}"

struct parts {
	const char *labels, *state, *status, *mode, *networks, *ports, *image;
};

/* One element of GET /containers/json; NULL parts are those of a plain running container. */
static struct json *container(const struct parts *parts)
{
	char text[8192];
	int len = snprintf(
		text, sizeof(text),
		"{\"Id\":\"" ID "\",\"Names\":[\"/shop-web-1\",\"/other/alias\"],\"Image\":\"%s\","
		"\"ImageID\":\"sha256:4bb4\",\"Command\":\"nginx -g 'daemon off;'\","
		"\"Created\":1700000000,\"Ports\":[%s],\"Labels\":{%s},\"State\":\"%s\","
		"\"Status\":\"%s\",\"HostConfig\":{\"NetworkMode\":\"%s\"},"
		"\"NetworkSettings\":{\"Networks\":{%s}},\"Mounts\":[]}",
		parts->image ? parts->image : "nginx:1.25", parts->ports ? parts->ports : "",
		parts->labels ? parts->labels : LABELS, parts->state ? parts->state : "running",
		parts->status ? parts->status : "Up 3 minutes",
		parts->mode ? parts->mode : "bridge",
		parts->networks ? parts->networks : NETWORK("bridge", "172.17.0.2"));
	struct json *node = json_parse(text, (size_t)len);

	assert_true(len < (int)sizeof(text));
	assert_non_null(node);
	return node;
}

/* What host_reach() would say: 198.18.0.0/16 and 172.0.0.0/8 are on bridges, 10.0.0.0/8 nearby, nothing else. */
static int rank(void *ctx, const struct sockaddr_storage *address)
{
	char text[ADDRESS_TEXT_MAX];

	(void)ctx;
	address_print(address, text);
	return !strncmp(text, "198.18.", 7) || !strncmp(text, "172.", 4) ? 2 : !strncmp(text, "10.", 3) ? 1 : 0;
}

static const struct dockerjson_reach reach = { .rank = rank };
static struct dockerjson_container last;

/* Valid until the next one. */
static int parse(const struct parts *parts, struct dockerjson_container *out)
{
	struct json *node = container(parts);
	int err = dockerjson_container(node, &reach, out);

	json_free(&node);
	dockerjson_container_free(&last);
	if (!err)
		last = *out;
	return err;
}

#define PARTS(...) (&(struct parts){ __VA_ARGS__ })

static void assert_address(const struct dockerjson_container *c, const char *expected)
{
	char text[ADDRESS_TEXT_MAX];

	assert_string_equal(c->sources->error.reason, "");
	assert_string_equal(address_print(&c->sources->address, text), expected);
}

static void plain(void **state)
{
	struct dockerjson_container c;

	(void)state;
	assert_int_equal(parse(PARTS(.mode = "default"), &c), 0);
	assert_int_equal(c.sources->owner, KKM_DOCKER);
	assert_int_equal(c.sources->state, KKM_ACTIVE);
	assert_string_equal(c.sources->id, ID);
	assert_string_equal(c.sources->name, "shop-web-1");
	assert_int_equal(c.sources->created, 1700000000);
	assert_string_equal(c.sources->labels.domains[0], "a.example");
	assert_string_equal(c.follows, "");
	assert_address(&c, "172.17.0.2:8080");
}

static void not_ours_or_not_docker(void **state)
{
	static const char *const bad[] = {
		"[]",
		"\"x\"",
		"null",
		"5",
		"{}",
		"{\"Id\":\"\"}",
		"{\"Id\":\"0123456789a\"}",
		"{\"Id\":\"../../containers/json\",\"Labels\":{" LABELS "}}",
		"{\"Id\":\"0123456789ABCDEF\",\"Labels\":{" LABELS "}}",
		"{\"Id\":\"" ID "0\",\"Labels\":{" LABELS "}}",
		"{\"Id\":5,\"Labels\":{" LABELS "}}",
	};
	struct dockerjson_container c;

	(void)state;
	assert_int_equal(parse(PARTS(.labels = ""), &c), -ENOENT);
	assert_int_equal(parse(PARTS(.labels = "\"kakuremichi.enabled\":\"false\""), &c), -ENOENT);
	for (size_t i = 0; i < sizeof(bad) / sizeof(*bad); i++) {
		struct json *node = json_parse(bad[i], strlen(bad[i]));

		if (dockerjson_container(node, NULL, &c) != -EPROTO)
			fail_msg("%s is taken", bad[i]);
		json_free(&node);
	}
}

/* Only what was asked for may be missing; whatever has another type must do no harm. */
static void odd_types(void **state)
{
	static const char *const odd[] = {
		"{\"Id\":\"" ID "\",\"Labels\":{" LABELS "}}",
		"{\"Id\":\"" ID "\",\"Labels\":{" LABELS
		"},\"Names\":null,\"State\":5,\"Status\":null,"
		"\"HostConfig\":null,\"NetworkSettings\":null,\"Ports\":null,\"Created\":\"x\","
		"\"Image\":[]}",
		"{\"Id\":\"" ID "\",\"Labels\":{" LABELS
		"},\"Names\":[],\"NetworkSettings\":{\"Networks\":[]}}",
		"{\"Id\":\"" ID "\",\"Labels\":{" LABELS
		"},\"Names\":[5],\"NetworkSettings\":{\"Networks\":"
		"{\"a\":null,\"b\":5,\"c\":{\"IPAddress\":5}}},\"Ports\":[null,5,{}]}",
		"{\"Id\":\"" ID "\",\"Labels\":{" LABELS "},\"NetworkSettings\":{\"Networks\":"
		"{\"a\":{\"IPAddress\":\"not an address\"}}}}",
	};
	struct dockerjson_container c;

	(void)state;
	for (size_t i = 0; i < sizeof(odd) / sizeof(*odd); i++) {
		struct json *node = json_parse(odd[i], strlen(odd[i]));

		assert_non_null(node);
		assert_int_equal(dockerjson_container(node, NULL, &c), 0);
		assert_int_equal(c.count, 1);
		assert_true(*c.sources->error.reason || !c.sources->address.ss_family);
		dockerjson_container_free(&c);
		json_free(&node);
	}
}

static void bad_labels_are_listed(void **state)
{
	struct dockerjson_container c;

	(void)state;
	assert_int_equal(parse(PARTS(.labels = "\"kakuremichi.enabled\":\"true\","
					       "\"kakuremichi.domain\":\"a.example\""),
			       &c),
			 0);
	assert_string_equal(c.sources->error.label, "kakuremichi.port");
	assert_string_equal(c.sources->name, "shop-web-1");
	assert_string_equal(c.sources->id, ID);
}

static void network_modes(void **state)
{
	struct dockerjson_container c;

	(void)state;
	assert_int_equal(parse(PARTS(.mode = "host", .networks = NETWORK("host", "")), &c), 0);
	assert_address(&c, "127.0.0.1:8080");
	assert_int_equal(parse(PARTS(.mode = "shop_default",
				     .networks = NETWORK("shop_default", "172.20.0.3")),
			       &c),
			 0);
	assert_address(&c, "172.20.0.3:8080");
	assert_int_equal(parse(PARTS(.mode = "container:" ID2, .networks = ""), &c), 0);
	assert_string_equal(c.follows, ID2);
	assert_string_equal(c.sources->error.reason, "");
	assert_int_equal(parse(PARTS(.mode = "container:", .networks = ""), &c), 0);
	assert_true(*c.sources->error.reason);
	assert_int_equal(parse(PARTS(.mode = "container:../x", .networks = ""), &c), 0);
	assert_true(*c.sources->error.reason);
	assert_int_equal(parse(PARTS(.mode = "none", .networks = NETWORK("none", "")), &c), 0);
	assert_true(*c.sources->error.reason);
	assert_int_equal(parse(PARTS(.networks = ""), &c), 0);
	assert_true(*c.sources->error.reason);
}

static void several_networks(void **state)
{
	static const char two[] = NETWORK("back", "10.0.1.2") "," NETWORK("front", "10.0.2.2");
	struct dockerjson_container c;

	(void)state;
	assert_int_equal(
		parse(PARTS(.networks = two, .labels = LABELS ",\"kakuremichi.network\":\"front\""),
		      &c),
		0);
	assert_address(&c, "10.0.2.2:8080");
	assert_int_equal(
		parse(PARTS(.networks = two, .labels = LABELS ",\"kakuremichi.network\":\"back\""),
		      &c),
		0);
	assert_address(&c, "10.0.1.2:8080");
	assert_int_equal(
		parse(PARTS(.networks = two, .labels = LABELS ",\"kakuremichi.network\":\"other\""),
		      &c),
		0);
	assert_string_equal(c.sources->error.label, "kakuremichi.network");
	/* the first has no address (disconnected, or a driver without) */
	assert_int_equal(
		parse(PARTS(.networks = NETWORK("a", "") "," NETWORK("b", "10.0.3.2")), &c), 0);
	assert_address(&c, "10.0.3.2:8080");
	assert_int_equal(parse(PARTS(.networks = "\"six\":{\"IPAddress\":\"\","
						 "\"GlobalIPv6Address\":\"2001:db8::5\"}"),
			       &c),
			 0);
	assert_address(&c, "[2001:db8::5]:8080");
}

#define PORT(ip, private, public, type)                                                            \
	"{\"IP\":\"" ip                                                                            \
	"\",\"PrivatePort\":" private ",\"PublicPort\":" public ",\"Type\":\"" type "\"}"

static void published_ports(void **state)
{
	struct dockerjson_container c;

	(void)state;
	/* an address of its own wins, and the container's port with it */
	assert_int_equal(parse(PARTS(.ports = PORT("0.0.0.0", "8080", "80", "tcp")), &c), 0);
	assert_address(&c, "172.17.0.2:8080");
	assert_int_equal(parse(PARTS(.networks = "",
				     .ports = PORT("0.0.0.0", "8080", "8081",
						   "tcp") "," PORT("::", "8080", "8081", "tcp")),
			       &c),
			 0);
	assert_address(&c, "127.0.0.1:8081");
	assert_int_equal(
		parse(PARTS(.networks = "", .ports = PORT("::", "8080", "8081", "tcp")), &c), 0);
	assert_address(&c, "[::1]:8081");
	assert_int_equal(
		parse(PARTS(.networks = "", .ports = PORT("192.0.2.7", "8080", "8082", "tcp")), &c),
		0);
	assert_address(&c, "192.0.2.7:8082");
	/* another port, another protocol, or only exposed */
	assert_int_equal(parse(PARTS(.networks = "",
				     .ports = PORT("0.0.0.0", "9090", "8080", "tcp") "," PORT(
					     "0.0.0.0", "8080", "53",
					     "udp") ",{\"PrivatePort\":8080,\"Type\":\"tcp\"}"),
			       &c),
			 0);
	assert_string_equal(c.sources->error.label, "kakuremichi.port");
}

static void states(void **state)
{
	static const struct {
		const char *state, *status;
		enum kkm_state expected;
	} cases[] = {
		{ "running", "Up 3 minutes", KKM_ACTIVE },
		{ "running", "Up Less than a second", KKM_ACTIVE },
		{ "running", "Up 3 minutes (healthy)", KKM_ACTIVE },
		{ "running", "Up 3 seconds (health: starting)", KKM_STARTING },
		{ "running", "Up 3 minutes (unhealthy)", KKM_UNHEALTHY },
		{ "paused", "Up 3 minutes (Paused)", KKM_PAUSED },
		{ "stopping", "Stopping", KKM_DRAINING },
		{ "restarting", "Restarting (1) 5 seconds ago", KKM_STARTING },
	};
	static const char *const stopped[] = { "exited", "created", "dead", "removing" };
	struct dockerjson_container c;

	(void)state;
	for (size_t i = 0; i < sizeof(cases) / sizeof(*cases); i++) {
		assert_int_equal(
			parse(PARTS(.state = cases[i].state, .status = cases[i].status), &c), 0);
		if (c.sources->state != cases[i].expected)
			fail_msg("%s: state %d", cases[i].status, c.sources->state);
	}
	assert_true(c.restarts);
	for (size_t i = 0; i < sizeof(stopped) / sizeof(*stopped); i++)
		assert_int_equal(parse(PARTS(.state = stopped[i]), &c), -ENOENT);
}

/* No address, and one is to be expected: the domain is known, and nobody is sent anywhere. */
static void waiting(void **state)
{
	struct dockerjson_container c;

	(void)state;
	assert_int_equal(parse(PARTS(.networks = NETWORK("front", "")), &c), 0);
	assert_string_equal(c.sources->error.reason, "");
	assert_int_equal(c.sources->address.ss_family, AF_UNSPEC);
	assert_int_equal(address_port(&c.sources->address), 8080);
	assert_int_equal(c.sources->state, KKM_STARTING);
	assert_int_equal(parse(PARTS(.networks = NETWORK("front", ""), .state = "restarting",
				     .labels = LABELS ",\"kakuremichi.network\":\"back\""),
			       &c),
			 0);
	assert_string_equal(c.sources->error.reason, "");
	assert_int_equal(c.sources->address.ss_family, AF_UNSPEC);
}

/* Reached best, then by name; and the reason is told. */
static void reached_first(void **state)
{
	static const struct {
		const char *networks, *address, *via;
	} cases[] = {
		{ NETWORK("a", "192.0.2.2") "," NETWORK("b", "198.18.0.9") "," NETWORK("c",
										       "10.0.0.2"),
		  "198.18.0.9:8080", "network b, the first by name that this host reaches" },
		{ NETWORK("a", "192.0.2.2") "," NETWORK("c", "10.0.0.2"), "10.0.0.2:8080",
		  "network c, the first by name that this host reaches" },
		{ NETWORK("z", "198.18.0.8") "," NETWORK("b", "198.18.0.9"), "198.18.0.9:8080",
		  "network b, the first by name that this host reaches" },
		{ NETWORK("z", "192.0.2.3") "," NETWORK("y", "192.0.2.2"), "192.0.2.2:8080",
		  "network y, the first by name: this host reaches none directly" },
		{ NETWORK("z", "198.18.0.8"), "198.18.0.8:8080", "network z" },
	};
	struct dockerjson_container c;

	(void)state;
	for (size_t i = 0; i < sizeof(cases) / sizeof(*cases); i++) {
		assert_int_equal(parse(PARTS(.networks = cases[i].networks), &c), 0);
		assert_address(&c, cases[i].address);
		assert_string_equal(c.sources->via, cases[i].via);
	}
	/* what nobody here reaches may be published */
	assert_int_equal(parse(PARTS(.networks = NETWORK("z", "192.0.2.3"),
				     .ports = PORT("0.0.0.0", "8080", "8081", "tcp")),
			       &c),
			 0);
	assert_address(&c, "127.0.0.1:8081");
	assert_non_null(strstr(c.sources->via, "published port"));
}

static void several_services(void **state)
{
	struct dockerjson_container c;

	(void)state;
	assert_int_equal(
		parse(PARTS(.labels = LABELS ",\"kakuremichi.api.domain\":\"api.example\","
					     "\"kakuremichi.api.port\":\"9090\"",
			    .networks = "",
			    .ports = PORT("0.0.0.0", "8080", "81", "tcp") "," PORT("0.0.0.0", "9090",
										   "82", "tcp")),
		      &c),
		0);
	assert_int_equal(c.count, 2);
	assert_address(&c, "127.0.0.1:81");
	assert_string_equal(c.sources[1].labels.service, "api");
	assert_int_equal(address_port(&c.sources[1].address), 82);
	assert_string_not_equal(c.sources[0].group, c.sources[1].group);
}

static void stop_timeout(void **state)
{
	static const struct {
		const char *text;
		unsigned int expected;
	} cases[] = {
		{ "{\"Config\":{\"StopTimeout\":3}}", 3 },
		{ "{\"Config\":{\"StopTimeout\":0}}", 0 },
		{ "{\"Config\":{\"StopTimeout\":-1}}", 86400 },
		{ "{\"Config\":{\"StopTimeout\":null}}", 10 },
		{ "{\"Config\":{}}", 10 },
		{ "{}", 10 },
	};

	(void)state;
	for (size_t i = 0; i < sizeof(cases) / sizeof(*cases); i++) {
		struct json *node = json_parse(cases[i].text, strlen(cases[i].text));

		assert_int_equal(dockerjson_stop_timeout_s(node), cases[i].expected);
		json_free(&node);
	}
}

static void group_of(const struct parts *parts, char out[KKM_NAME_LEN * 2])
{
	struct dockerjson_container c;

	assert_int_equal(parse(parts, &c), 0);
	strcpy(out, c.sources->group);
	assert_true(*out);
}

static void replicas(void **state)
{
	char a[KKM_NAME_LEN * 2], b[KKM_NAME_LEN * 2];

	(void)state;
	/* Compose: project and service alone decide */
	group_of(PARTS(.labels = LABELS "," COMPOSE), a);
	group_of(
		PARTS(.labels = LABELS "," COMPOSE ",\"com.docker.compose.container-number\":\"2\"",
		      .image = "nginx:1.26"),
		b);
	assert_string_equal(a, b);
	group_of(PARTS(.labels = LABELS ",\"com.docker.compose.project\":\"other\","
					"\"com.docker.compose.service\":\"web\""),
		 b);
	assert_string_not_equal(a, b);
	group_of(PARTS(.labels = LABELS ",\"com.docker.compose.project\":\"shop\","
					"\"com.docker.compose.service\":\"api\""),
		 b);
	assert_string_not_equal(a, b);
	/* Swarm */
	group_of(PARTS(.labels = LABELS ",\"com.docker.swarm.service.name\":\"web\","
					"\"com.docker.swarm.task.id\":\"1\""),
		 a);
	group_of(PARTS(.labels = LABELS ",\"com.docker.swarm.service.name\":\"web\","
					"\"com.docker.swarm.task.id\":\"2\""),
		 b);
	assert_string_equal(a, b);
	/* neither: image and labels */
	group_of(PARTS(.mode = "bridge"), a);
	group_of(PARTS(.mode = "default"), b);
	assert_string_equal(a, b);
	group_of(PARTS(.image = "nginx:1.26"), b);
	assert_string_not_equal(a, b);
	group_of(PARTS(.labels = LABELS ",\"x\":\"y\""), b);
	assert_string_not_equal(a, b);
	group_of(PARTS(.labels = LABELS ",\"x\":\"yz\""), a);
	group_of(PARTS(.labels = LABELS ",\"xy\":\"z\""), b);
	assert_string_not_equal(a, b);
}

/* Equal ends of long Compose names must not make replicas of strangers. */
static void long_names_stay_apart(void **state)
{
	char a[KKM_NAME_LEN * 2], b[KKM_NAME_LEN * 2], labels[1024];

	(void)state;
	for (int i = 0; i < 2; i++) {
		snprintf(labels, sizeof(labels),
			 LABELS ",\"com.docker.compose.project\":\"%0*d\","
				"\"com.docker.compose.service\":\"web\"",
			 120, i);
		group_of(PARTS(.labels = labels), i ? a : b);
	}
	if (!strcmp(a, b))
		fail_msg("two projects are one group: %s", a);
}

static void stop_signals(void **state)
{
	static const struct {
		const char *text;
		int number;
	} cases[] = {
		{ "{}", SIGTERM },
		{ "{\"Config\":{}}", SIGTERM },
		{ "{\"Config\":{\"StopSignal\":\"\"}}", SIGTERM },
		{ "{\"Config\":{\"StopSignal\":\"SIGQUIT\"}}", SIGQUIT },
		{ "{\"Config\":{\"StopSignal\":\"QUIT\"}}", SIGQUIT },
		{ "{\"Config\":{\"StopSignal\":\"3\"}}", SIGQUIT },
		{ "{\"Config\":{\"StopSignal\":\"SIGRTMIN+3\"}}", 37 },
		{ "{\"Config\":{\"StopSignal\":\"SIGRTMAX-4\"}}", 60 },
		{ "{\"Config\":{\"StopSignal\":\"nonsense\"}}", SIGTERM },
		/* Docker takes any case and keeps it: moby's signal.ParseSignal() */
		{ "{\"Config\":{\"StopSignal\":\"sigint\"}}", SIGINT },
	};

	(void)state;
	assert_int_equal(dockerjson_stop_signal(NULL), SIGTERM);
	for (size_t i = 0; i < sizeof(cases) / sizeof(*cases); i++) {
		struct json *node = json_parse(cases[i].text, strlen(cases[i].text));
		int number = dockerjson_stop_signal(node);

		json_free(&node);
		if (number != cases[i].number)
			fail_msg("%s gives %d", cases[i].text, number);
	}
}

#define ACTOR(attributes) "\"Actor\":{\"ID\":\"" ID "\",\"Attributes\":{" attributes "}}"
#define STAMP "\"scope\":\"local\",\"time\":1700000000,\"timeNano\":1700000000000000000"
/* as the API did before 1.52, and as it does since */
#define OLD(action, attributes)                                                                    \
	"{\"status\":\"" action "\",\"id\":\"" ID "\",\"from\":\"nginx\",\"Type\":\"container\","  \
	"\"Action\":\"" action "\"," ACTOR(attributes) "," STAMP "}"
#define NEW(type, action, attributes)                                                              \
	"{\"Type\":\"" type "\",\"Action\":\"" action "\"," ACTOR(attributes) "," STAMP "}"

static const struct {
	const char *text;
	enum dockerjson_action action;
	const char *id;
	bool enabled;
	int signal;
} events[] = {
	{ OLD("start", LABELS ",\"image\":\"nginx\""), DOCKER_CHANGED, ID, true, 0 },
	{ NEW("container", "start", LABELS), DOCKER_CHANGED, ID, true, 0 },
	{ NEW("container", "start", "\"image\":\"nginx\""), DOCKER_CHANGED, ID, false, 0 },
	{ NEW("container", "kill", LABELS ",\"signal\":\"15\""), DOCKER_KILL, ID, true, SIGTERM },
	{ NEW("container", "kill", "\"signal\":\"9\""), DOCKER_KILL, ID, false, SIGKILL },
	{ NEW("container", "kill", "\"signal\":\"SIGHUP\""), DOCKER_KILL, ID, false, SIGHUP },
	{ NEW("container", "die", LABELS ",\"exitCode\":\"0\""), DOCKER_DIED, ID, true, 0 },
	{ NEW("container", "destroy", LABELS), DOCKER_DESTROYED, ID, true, 0 },
	{ NEW("container", "pause", ""), DOCKER_STATE, ID, false, 0 },
	{ NEW("container", "unpause", ""), DOCKER_CHANGED, ID, false, 0 },
	{ NEW("container", "rename", "\"oldName\":\"/x\""), DOCKER_CHANGED, ID, false, 0 },
	{ NEW("container", "health_status: healthy", LABELS), DOCKER_CHANGED, ID, true, 0 },
	{ NEW("container", "health_status: unhealthy", LABELS), DOCKER_STATE, ID, true, 0 },
	{ NEW("container", "exec_start: curl localhost", LABELS), DOCKER_OTHER, NULL, true, 0 },
	{ NEW("container", "exec_die", LABELS ",\"signal\":\"9\""), DOCKER_OTHER, NULL, true, 9 },
	{ NEW("container", "oom", LABELS), DOCKER_CHANGED, ID, true, 0 },
	{ NEW("container", "died", LABELS), DOCKER_DIED, ID, true, 0 },
	{ NEW("container", "attach", ""), DOCKER_OTHER, NULL, false, 0 },
	{ NEW("container", "starting", ""), DOCKER_OTHER, NULL, false, 0 },
	{ NEW("network", "connect", "\"container\":\"" ID2 "\",\"name\":\"front\""), DOCKER_CHANGED,
	  ID2, false, 0 },
	{ NEW("network", "disconnect", "\"container\":\"" ID2 "\""), DOCKER_CHANGED, ID2, false,
	  0 },
	{ NEW("network", "connect", "\"name\":\"web\""), DOCKER_CHANGED, ID, false, 0 }, /* Podman */
	{ NEW("network", "destroy", "\"name\":\"front\""), DOCKER_OTHER, NULL, false, 0 },
	{ NEW("volume", "destroy", ""), DOCKER_OTHER, NULL, false, 0 },
	{ NEW("image", "delete", ""), DOCKER_OTHER, NULL, false, 0 },
	{ NEW("daemon", "kill", "\"signal\":\"15\""), DOCKER_OTHER, NULL, false, 0 },
	{ "{\"Type\":\"container\",\"Action\":\"start\",\"Actor\":{\"ID\":\"../x\"}}", DOCKER_OTHER,
	  NULL, false, 0 },
	{ "{\"Type\":\"container\",\"Action\":\"start\"}", DOCKER_OTHER, NULL, false, 0 },
	{ "{\"status\":\"start\",\"id\":\"" ID "\"}", DOCKER_CHANGED, ID, false, 0 },
	{ "{}", DOCKER_OTHER, NULL, false, 0 },
};
#define EVENTS (sizeof(events) / sizeof(*events))

static void check_event(size_t i, const struct dockerjson_event *event)
{
	if (event->action != events[i].action)
		fail_msg("%s: action %d", events[i].text, event->action);
	if (events[i].id)
		assert_string_equal(event->id, events[i].id);
	if (events[i].action != DOCKER_OTHER) {
		assert_int_equal(event->enabled, events[i].enabled);
		assert_int_equal(event->signal, events[i].signal);
	}
	assert_non_null(event->name);
}

static void every_event(void **state)
{
	(void)state;
	for (size_t i = 0; i < EVENTS; i++) {
		struct dockerjson_event event;

		assert_int_equal(dockerjson_event(events[i].text, strlen(events[i].text), &event),
				 0);
		check_event(i, &event);
		if (strstr(events[i].text, "timeNano"))
			assert_int_equal(event.time_ns, 1700000000000000000);
	}
}

static void not_events(void **state)
{
	static const char *const bad[] = { "", "x", "[]", "5", "\"start\"", "null", "{", "{}{}" };

	(void)state;
	for (size_t i = 0; i < sizeof(bad) / sizeof(*bad); i++) {
		struct dockerjson_event event;

		if (dockerjson_event(bad[i], strlen(bad[i]), &event) != -EPROTO)
			fail_msg("'%s' is taken", bad[i]);
	}
}

static void note_event(void *ctx, const char *text, size_t len)
{
	struct dockerjson_event event;
	size_t *count = ctx;

	assert_int_equal(dockerjson_event(text, len, &event), 0);
	check_event((*count)++ % EVENTS, &event);
}

static void event_stream_cut_anywhere(void **state)
{
	static char text[EVENTS * 1024];
	size_t len = 0;

	(void)state;
	for (size_t i = 0; i < EVENTS; i++)
		len += (size_t)snprintf(text + len, sizeof(text) - len, "%s\n", events[i].text);
	for (size_t cut = 0; cut <= len; cut++) {
		struct json_stream stream = { .limit = 65536 };
		size_t count = 0;

		/* a few bytes around the cut suffice: whole streams are as many cuts long */
		if (cut % 7 && cut > 1500)
			continue;
		assert_int_equal(json_stream_feed(&stream, text, cut, note_event, &count), 0);
		assert_int_equal(
			json_stream_feed(&stream, text + cut, len - cut, note_event, &count), 0);
		assert_int_equal(count, EVENTS);
		json_stream_reset(&stream);
	}
}

static void versions(void **state)
{
	static const struct {
		const char *text, *version;
		int err;
	} cases[] = {
#define VERSION(api, min)                                                                          \
	"{\"Platform\":{\"Name\":\"\"},\"Version\":\"20.10.24\",\"ApiVersion\":\"" api             \
	"\",\"MinAPIVersion\":\"" min "\",\"Os\":\"linux\"}"
		{ VERSION("1.24", "1.12"), "1.24", 0 },
		{ VERSION("1.41", "1.12"), "1.41", 0 },
		{ VERSION("1.55", "1.44"), "1.55", 0 },
		{ VERSION("1.56", "1.44"), "1.55", 0 },
		{ VERSION("1.60", "1.55"), "1.55", 0 },
		{ VERSION("1.60", "1.56"), "1.56", -EOPNOTSUPP },
		{ VERSION("1.23", "1.12"), "1.23", -EOPNOTSUPP },
		{ "{\"ApiVersion\":\"1.41\"}", "1.41", 0 },
		{ "{\"ApiVersion\":\"2.0\"}", NULL, -EPROTO },
		{ "{\"ApiVersion\":\"1.\"}", NULL, -EPROTO },
		{ "{\"ApiVersion\":\"1.x\"}", NULL, -EPROTO },
		{ "{\"ApiVersion\":1.41}", NULL, -EPROTO },
		{ "{}", NULL, -EPROTO },
		{ "404 page not found", NULL, -EPROTO },
		{ "", NULL, -EPROTO },
	};

	(void)state;
	for (size_t i = 0; i < sizeof(cases) / sizeof(*cases); i++) {
		char out[DOCKERJSON_VERSION_LEN] = "";
		int err = dockerjson_version(cases[i].text, strlen(cases[i].text), out);

		if (err != cases[i].err)
			fail_msg("%s gives %d", cases[i].text, err);
		if (cases[i].version)
			assert_string_equal(out, cases[i].version);
	}
}

static void ids(void **state)
{
	(void)state;
	assert_true(dockerjson_is_id(ID));
	assert_true(dockerjson_is_id("0123456789ab"));
	assert_false(dockerjson_is_id("0123456789a"));
	assert_false(dockerjson_is_id(ID "0"));
	assert_false(dockerjson_is_id(""));
	assert_false(dockerjson_is_id("0123456789aG"));
	assert_false(dockerjson_is_id("0123456789ab/json"));
	assert_false(dockerjson_is_id("0123456789AB"));
}

/* What Docker and Podman have said: whoever reads a cut document finds that out, and no more. */
static void each_recorded(const char *pattern,
			  void (*look)(const char *text, size_t len, bool whole))
{
	glob_t found;

	assert_int_equal(glob(pattern, 0, NULL, &found), 0);
	for (size_t i = 0; i < found.gl_pathc; i++) {
		static char text[16384];
		FILE *file = fopen(found.gl_pathv[i], "r");
		size_t len = file ? fread(text, 1, sizeof(text), file) : 0;

		if (!len || len == sizeof(text))
			fail_msg("%s: %zu bytes", found.gl_pathv[i], len);
		fclose(file);
		while (strchr("\n ", text[len - 1]))
			len--;
		for (size_t cut = 0; cut <= len; cut++) {
			char *copy = malloc(cut + !cut); /* whose end the sanitizer knows */

			memcpy(copy, text, cut);
			look(copy, cut, cut == len);
			free(copy);
		}
	}
	globfree(&found);
}

static void look_at_document(const char *text, size_t len, bool whole)
{
	char version[DOCKERJSON_VERSION_LEN];
	struct json *root = json_parse(text, len);

	assert_int_equal(root != NULL, whole);
	assert_true(!dockerjson_version(text, len, version) <= whole);
	if (json_is_array(root)) {
		json_each (node, root) {
			struct dockerjson_container c = { 0 };

			assert_int_equal(dockerjson_container(node, &reach, &c), 0);
			dockerjson_container_free(&c);
		}
	} else {
		assert_true(dockerjson_stop_signal(root) > 0);
	}
	json_free(&root);
}

static void count_event(void *ctx, const char *text, size_t len)
{
	struct dockerjson_event event;
	size_t *count = ctx;

	assert_int_equal(dockerjson_event(text, len, &event), 0);
	assert_int_equal(dockerjson_event(text, len - 1, &event), -EPROTO);
	(*count)++;
}

static void look_at_stream(const char *text, size_t len, bool whole)
{
	struct json_stream stream = { .limit = 65536 };
	size_t count = 0, lines = whole;

	for (size_t i = 0; i < len; i++)
		lines += text[i] == '\n';
	assert_int_equal(json_stream_feed(&stream, text, len, count_event, &count), 0);
	/* an event ends with its brace, not with its line */
	assert_true(count == lines || (count == lines + 1 && text[len - 1] == '}'));
	json_stream_reset(&stream);
}

static void every_prefix(void **state)
{
	(void)state;
	each_recorded("selftests/fuzz/seeds/dockerlist/*", look_at_document);
	each_recorded("selftests/fuzz/seeds/dockerevent/*", look_at_stream);
}

int main(void)
{
	int failed;
	const struct CMUnitTest tests[] = {
		cmocka_unit_test(plain),	   cmocka_unit_test(not_ours_or_not_docker),
		cmocka_unit_test(odd_types),	   cmocka_unit_test(bad_labels_are_listed),
		cmocka_unit_test(network_modes),   cmocka_unit_test(several_networks),
		cmocka_unit_test(published_ports), cmocka_unit_test(states),
		cmocka_unit_test(waiting),	   cmocka_unit_test(reached_first),
		cmocka_unit_test(several_services), cmocka_unit_test(stop_timeout),
		cmocka_unit_test(replicas),	   cmocka_unit_test(long_names_stay_apart),
		cmocka_unit_test(stop_signals),	   cmocka_unit_test(every_event),
		cmocka_unit_test(not_events),	   cmocka_unit_test(event_stream_cut_anywhere),
		cmocka_unit_test(versions),	   cmocka_unit_test(ids),
		cmocka_unit_test(every_prefix),
	};

	failed = cmocka_run_group_tests_name("dockerjson", tests, NULL, NULL);
	dockerjson_container_free(&last);
	return failed;
}
