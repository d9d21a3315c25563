// SPDX-License-Identifier: MIT
/* Docker's answers: a list of containers, one in detail, the version. user/dockerjson.c. */
#include <errno.h>
#include <signal.h>

#include "dockerjson.h"
#include "fuzz.h"
#include "json.h"

#define STOP_TIMEOUT_MAX (1 << 30)

/* Any order will do, as long as it is one. */
static int rank(void *ctx, const struct sockaddr_storage *address)
{
	const struct sockaddr_in *in = (const void *)address;

	(void)ctx;
	expect(address->ss_family == AF_INET || address->ss_family == AF_INET6);
	return address->ss_family == AF_INET ? ntohl(in->sin_addr.s_addr) % 4 : 1;
}

static const struct dockerjson_reach reach = { .rank = rank };

#define expect_text(array) expect(memchr(array, '\0', sizeof(array)))

static void look_at_labels(const struct labels *labels)
{
	expect_text(labels->service);
	expect_text(labels->network);
	expect_text(labels->description);
	expect(labels->domain_count >= 1 && labels->domain_count <= LABELS_MAX_DOMAINS);
	expect(labels->port);
	for (unsigned int i = 0; i < labels->domain_count; i++) {
		const char *domain = labels->domains[i];

		expect(*domain);
		if (*domain == '*')
			expect(!domain[1] || (domain[1] == '.' && domain[2]));
		expect_normalised(*domain != '*' ? domain : domain[1] ? domain + 2 : "");
	}
}

static void look_at_source(const struct dockerjson_container *container,
			   const struct route_source *source)
{
	uint16_t port;

	expect_text(source->id);
	expect_text(source->name);
	expect_text(source->group);
	expect_text(source->via);
	expect_text(source->error.label);
	expect_text(source->error.reason);
	expect(!strcmp(source->id, container->id));
	expect(source->owner == KKM_DOCKER);
	if (*source->error.reason)
		return;
	expect(*source->group);
	look_at_labels(&source->labels);
	port = ntohs(source->address.ss_family == AF_INET6 ?
			     ((const struct sockaddr_in6 *)&source->address)->sin6_port :
			     ((const struct sockaddr_in *)&source->address)->sin_port);
	if (source->address.ss_family == AF_INET || source->address.ss_family == AF_INET6)
		expect(port);
	else
		expect(source->address.ss_family == AF_UNSPEC);
}

static void look_at_container(const struct json *node)
{
	struct dockerjson_container container;
	int err = dockerjson_container(node, &reach, &container);

	expect(!err || err == -ENOENT || err == -EPROTO);
	if (err)
		return;
	expect(dockerjson_is_id(container.id));
	expect_text(container.name);
	expect_text(container.follows);
	expect(container.count <= LABELS_MAX_SERVICES); /* none where each is disabled by itself */
	for (unsigned int i = 0; i < container.count; i++)
		look_at_source(&container, &container.sources[i]);
	dockerjson_container_free(&container);
}

static void look_at_version(const char *text, size_t len)
{
	char version[DOCKERJSON_VERSION_LEN] = "";
	int err = dockerjson_version(text, len, version);

	expect(!err || err == -EPROTO || err == -EOPNOTSUPP);
	expect_text(version);
	if (err != -EPROTO)
		expect(!strncmp(version, "1.", 2) && strspn(version + 2, "0123456789") ==
							     strlen(version + 2));
}

/* A document, of which nothing may be read before it is whole. */
static void look_at(const uint8_t *data, size_t len)
{
	char *text = malloc(len + !len); /* whose end the sanitizer knows */
	struct json *root;

	expect(text);
	memcpy(text, data, len);
	look_at_version(text, len);
	root = json_parse(text, len);
	free(text); /* a parsed document needs it no more */
	if (!root)
		return;
	if (json_is_array(root)) {
		json_each (node, root)
			look_at_container(node);
	} else {
		int number = dockerjson_stop_signal(root);

		look_at_container(root);
		expect(number > 0 && number <= SIGRTMAX);
		expect(dockerjson_stop_timeout_s(root) <= STOP_TIMEOUT_MAX);
	}
	json_free(&root);
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t len);
int LLVMFuzzerTestOneInput(const uint8_t *data, size_t len)
{
	look_at(data, len);
	look_at(data, input_hash(data, len) % (len + 1)); /* and cut */
	return 0;
}
