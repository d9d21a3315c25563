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

#include "labels.h"

#define ENABLED "\"kakuremichi.enabled\":\"true\""
#define DOMAIN "\"kakuremichi.domain\":\"a.example\""
#define PORT "\"kakuremichi.port\":\"80\""
#define GOOD ENABLED "," DOMAIN "," PORT

static int parse(const char *text, struct labels *out, struct labels_error *error)
{
	struct json *root = json_parse(text, strlen(text));
	struct labels *services = NULL;
	unsigned int count;
	int err;

	assert_non_null(root);
	err = labels_parse(root, &services, &count, error);
	json_free(&root);
	if (!err) {
		assert_int_equal(count, 1);
		*out = services[0];
	}
	free(services);
	return err;
}

static void required_and_optional(void **state)
{
	struct labels_error error;
	struct labels labels;

	(void)state;
	assert_int_equal(parse("{" GOOD "}", &labels, &error), 0);
	assert_int_equal(labels.domain_count, 1);
	assert_string_equal(labels.domains[0], "a.example");
	assert_int_equal(labels.port, 80);
	assert_string_equal(labels.description, "");
	assert_string_equal(labels.network, "");
	assert_false(labels.no_sockmap);
	assert_false(labels.tls);
	assert_int_equal(labels.tls_port, 0);
	assert_false(labels.proxy_protocol);
	assert_string_equal(error.reason, "");
	assert_int_equal(parse("{" GOOD ",\"kakuremichi.description\":\"My \\u00e4pp\","
			       "\"kakuremichi.network\":\"front\",\"kakuremichi.sockmap\":\"off\","
			       "\"com.docker.compose.project\":\"p\",\"kakuremichi\":\"x\","
			       "\"kakuremichix\":\"y\",\"\":\"z\"}",
			       &labels, &error),
			 0);
	assert_string_equal(labels.description, "My \xc3\xa4pp");
	assert_string_equal(labels.network, "front");
	assert_true(labels.no_sockmap);
	/* the order of labels means nothing */
	assert_int_equal(parse("{" PORT "," DOMAIN "," ENABLED "}", &labels, &error), 0);
}

static void not_ours(void **state)
{
	static const char *const cases[] = {
		"{}",
		"{\"x\":\"y\"}",
		"{" DOMAIN "," PORT "}",
		"{\"kakuremichi.enabled\":\"false\"," DOMAIN "," PORT "}",
		"{\"kakuremichi.enabled\":\"\"}",
		"{\"kakuremichi.enabled\":true}",
		/* whoever is not enabled may have any label */
		"{\"kakuremichi.port\":\"x\",\"kakuremichi.nonsense\":\"y\"}",
	};

	(void)state;
	for (size_t i = 0; i < sizeof(cases) / sizeof(*cases); i++) {
		struct labels_error error;
		struct labels labels;

		if (parse(cases[i], &labels, &error) != -ENOENT)
			fail_msg("%s is ours", cases[i]);
	}
}

static void null_labels(void **state)
{
	struct labels_error error;
	struct labels labels, *services;
	unsigned int count;

	(void)state;
	assert_int_equal(labels_parse(NULL, &services, &count, &error), -ENOENT);
	assert_int_equal(parse("null", &labels, &error), -ENOENT);
}

static void bad_labels(void **state)
{
	static const struct {
		const char *text, *label;
	} cases[] = {
		{ "{" ENABLED "}", "kakuremichi.domain" },
		{ "{" ENABLED "," PORT "}", "kakuremichi.domain" },
		{ "{" ENABLED "," DOMAIN "}", "kakuremichi.port" },
#define WITH_DOMAIN(value)                                                                         \
	"{" ENABLED "," PORT ",\"kakuremichi.domain\":" value "}", "kakuremichi.domain"
		{ WITH_DOMAIN("\"\"") },
		{ WITH_DOMAIN("\" \"") },
		{ WITH_DOMAIN("\"a b\"") },
		{ WITH_DOMAIN("\"a.example,\"") },
		{ WITH_DOMAIN("\",a.example\"") },
		{ WITH_DOMAIN("\"a.example,,b.example\"") },
		{ WITH_DOMAIN("\"a.example,b..example\"") },
		{ WITH_DOMAIN("\"http://a.example\"") },
		{ WITH_DOMAIN("\"a.example:80\"") },
		{ WITH_DOMAIN("\"a.example/x\"") },
		{ WITH_DOMAIN("\"a.*.example\"") },
		{ WITH_DOMAIN("\"*a.example\"") },
		{ WITH_DOMAIN("\"a\\nb\"") },
		{ WITH_DOMAIN("\"a.example\\n\"") },
		{ WITH_DOMAIN("\"\\u001b[31m.example\"") },
		{ WITH_DOMAIN("\"b\\u00fc cher.example\"") },
		{ WITH_DOMAIN("\"\\u2100.example\"") },
		{ WITH_DOMAIN("\"a.example,*b\\u00fc.example\"") },
		{ WITH_DOMAIN("\"-a.example\"") },
		{ WITH_DOMAIN("80") },
		{ WITH_DOMAIN("null") },
		{ WITH_DOMAIN("[\"a.example\"]") },
#define WITH_PORT(value)                                                                           \
	"{" ENABLED "," DOMAIN ",\"kakuremichi.port\":" value "}", "kakuremichi.port"
		{ WITH_PORT("\"\"") },
		{ WITH_PORT("\"0\"") },
		{ WITH_PORT("\"65536\"") },
		{ WITH_PORT("\"4294967376\"") },
		{ WITH_PORT("\"18446744073709551696\"") },
		{ WITH_PORT("\"-80\"") },
		{ WITH_PORT("\"+80\"") },
		{ WITH_PORT("\" 80\"") },
		{ WITH_PORT("\"80 \"") },
		{ WITH_PORT("\"80/tcp\"") },
		{ WITH_PORT("\"http\"") },
		{ WITH_PORT("\"0x50\"") },
		{ WITH_PORT("\"80,81\"") },
		{ WITH_PORT("80") },
		{ "{" GOOD ",\"kakuremichi.network\":\"\"}", "kakuremichi.network" },
		{ "{" GOOD ",\"kakuremichi.sockmap\":\"\"}", "kakuremichi.sockmap" },
		{ "{" GOOD ",\"kakuremichi.sockmap\":\"of\"}", "kakuremichi.sockmap" },
#define TLS "\"kakuremichi.tls\":\"passthrough\""
		{ "{" GOOD ",\"kakuremichi.tls\":\"\"}", "kakuremichi.tls" },
		{ "{" GOOD ",\"kakuremichi.tls\":\"on\"}", "kakuremichi.tls" },
		{ "{" GOOD ",\"kakuremichi.tls\":\"Passthrough\"}", "kakuremichi.tls" },
		{ "{" GOOD ",\"kakuremichi.tls\":true}", "kakuremichi.tls" },
		{ "{" GOOD ",\"kakuremichi.tls.port\":\"443\"}", "kakuremichi.tls.port" },
		{ "{" GOOD "," TLS ",\"kakuremichi.tls.port\":\"0\"}", "kakuremichi.tls.port" },
		{ "{" GOOD "," TLS ",\"kakuremichi.tls.port\":\"\"}", "kakuremichi.tls.port" },
		{ "{" GOOD "," TLS ",\"kakuremichi.tls.port\":\"65536\"}",
		  "kakuremichi.tls.port" },
		{ "{" GOOD ",\"kakuremichi.proxy-protocol\":\"\"}",
		  "kakuremichi.proxy-protocol" },
		{ "{" GOOD ",\"kakuremichi.proxy-protocol\":\"v1\"}",
		  "kakuremichi.proxy-protocol" },
		{ "{" GOOD ",\"kakuremichi.proxy-protocol\":\"V2\"}",
		  "kakuremichi.proxy-protocol" },
		{ "{" GOOD ",\"kakuremichi.description\":5}", "kakuremichi.description" },
		{ "{" GOOD ",\"kakuremichi.prot\":\"80\"}", "kakuremichi.prot" },
		{ "{" GOOD ",\"kakuremichi.\":\"80\"}", "kakuremichi." },
		{ "{" GOOD ",\"kakuremichi.Port\":\"80\"}", "kakuremichi.Port" },
		{ "{" GOOD ",\"kakuremichi.web.nonsense\":\"80\"}", "kakuremichi.web.nonsense" },
	};

	(void)state;
	for (size_t i = 0; i < sizeof(cases) / sizeof(*cases); i++) {
		struct labels_error error;
		struct labels labels;

		if (parse(cases[i].text, &labels, &error) != -EINVAL)
			fail_msg("%s is taken", cases[i].text);
		if (strcmp(error.label, cases[i].label))
			fail_msg("%s: label '%s'", cases[i].text, error.label);
		if (!*error.reason)
			fail_msg("%s: no reason", cases[i].text);
	}
}

static void tls_and_proxy_protocol(void **state)
{
	struct labels_error error;
	struct labels labels;

	(void)state;
	assert_int_equal(parse("{" GOOD "," TLS "}", &labels, &error), 0);
	assert_true(labels.tls);
	assert_int_equal(labels.tls_port, 0);
	assert_false(labels.proxy_protocol);
	/* in any order */
	assert_int_equal(parse("{" GOOD "," TLS ",\"kakuremichi.tls.port\":\"8443\"}", &labels,
			       &error),
			 0);
	assert_int_equal(labels.tls_port, 8443);
	assert_int_equal(parse("{\"kakuremichi.tls.port\":\"8443\"," TLS "," GOOD "}", &labels,
			       &error),
			 0);
	assert_true(labels.tls);
	assert_int_equal(labels.tls_port, 8443);
	assert_int_equal(labels.port, 80);
	assert_int_equal(parse("{" GOOD ",\"kakuremichi.proxy-protocol\":\"v2\"}", &labels,
			       &error),
			 0);
	assert_true(labels.proxy_protocol);
	assert_false(labels.tls);
	/* what is wrong says what would be right */
	assert_int_equal(parse("{" GOOD ",\"kakuremichi.tls.port\":\"443\"}", &labels, &error),
			 -EINVAL);
	assert_non_null(strstr(error.reason, "kakuremichi.tls=passthrough"));
	assert_int_equal(parse("{" GOOD ",\"kakuremichi.proxy-protocol\":\"v1\"}", &labels,
			       &error),
			 -EINVAL);
	assert_non_null(strstr(error.reason, "give v2"));
}

static void several_names(void **state)
{
	struct labels_error error;
	struct labels labels;

	(void)state;
	assert_int_equal(parse("{" ENABLED "," PORT ",\"kakuremichi.domain\":"
			       "\"A.example, *.b.example ,\\tc.example.,*,"
			       " B\\u00fccher.example,*.\\u65e5\\u672c\\u8a9e\\u3002jp\"}",
			       &labels, &error),
			 0);
	assert_int_equal(labels.domain_count, 6);
	assert_string_equal(labels.domains[0], "a.example");
	assert_string_equal(labels.domains[1], "*.b.example");
	assert_string_equal(labels.domains[2], "c.example");
	assert_string_equal(labels.domains[3], "*");
	assert_string_equal(labels.domains[4], "xn--bcher-kva.example");
	assert_string_equal(labels.domains[5], "*.xn--wgv71a119e.jp");
}

static int parse_names(unsigned int count, struct labels *labels, struct labels_error *error)
{
	char text[2048];
	int len = snprintf(text, sizeof(text), "{" ENABLED "," PORT ",\"kakuremichi.domain\":\"");

	for (unsigned int i = 0; i < count; i++)
		len += snprintf(text + len, sizeof(text) - (size_t)len, "%sn%u.example",
				i ? "," : "", i);
	snprintf(text + len, sizeof(text) - (size_t)len, "\"}");
	return parse(text, labels, error);
}

static void limits(void **state)
{
	static char text[4096], long_text[1024];
	struct labels_error error;
	struct labels labels;

	(void)state;
	assert_int_equal(parse_names(LABELS_MAX_DOMAINS, &labels, &error), 0);
	assert_int_equal(labels.domain_count, LABELS_MAX_DOMAINS);
	assert_int_equal(parse_names(LABELS_MAX_DOMAINS + 1, &labels, &error), -EINVAL);
	assert_string_equal(error.label, "kakuremichi.domain");
	memset(long_text, 'x', sizeof(long_text) - 1);
	snprintf(text, sizeof(text), "{" GOOD ",\"kakuremichi.network\":\"%.*s\"}",
		 KKM_NAME_LEN - 1, long_text);
	assert_int_equal(parse(text, &labels, &error), 0);
	snprintf(text, sizeof(text), "{" GOOD ",\"kakuremichi.network\":\"%.*s\"}", KKM_NAME_LEN,
		 long_text);
	assert_int_equal(parse(text, &labels, &error), -EINVAL);
	snprintf(text, sizeof(text), "{" GOOD ",\"kakuremichi.description\":\"%s\"}", long_text);
	assert_int_equal(parse(text, &labels, &error), 0);
	assert_int_equal(strlen(labels.description), KKM_REASON_LEN - 1);
	/* names and reasons too long to be kept are cut, not written behind their end */
	snprintf(text, sizeof(text), "{" GOOD ",\"kakuremichi.%s\":\"1\"}", long_text);
	assert_int_equal(parse(text, &labels, &error), -EINVAL);
	assert_int_equal(strlen(error.label), KKM_NAME_LEN - 1);
	snprintf(text, sizeof(text), "{" ENABLED "," PORT ",\"kakuremichi.domain\":\"%s\"}",
		 long_text);
	assert_int_equal(parse(text, &labels, &error), -EINVAL);
	assert_true(strlen(error.reason) < KKM_REASON_LEN);
}

/* Whoever is rejected is remembered with all that it asked for, right or wrong. */
static void wanted(void **state)
{
	struct labels_error error;
	struct labels labels;

	(void)state;
	assert_int_equal(parse("{" GOOD "}", &labels, &error), 0);
	assert_string_equal(error.wanted, "");
	assert_int_equal(parse("{" ENABLED "," DOMAIN ",\"kakuremichi.port\":\"x\","
			       "\"kakuremichi.api.domain\":\"b.example, c.example\","
			       "\"domain\":\"d.example\",\"kakuremichi.domains\":\"e.example\"}",
			       &labels, &error),
			 -EINVAL);
	assert_string_equal(error.wanted, "a.example,b.example, c.example");
	assert_int_equal(parse("{" ENABLED "," PORT ",\"kakuremichi.domain\":\"https://x\"}", &labels,
			       &error),
			 -EINVAL);
	assert_string_equal(error.wanted, "https://x");
}

static void several_services(void **state)
{
	static const char text[] =
		"{" GOOD ",\"kakuremichi.web.domain\":\"w.example,*.w.example\","
		"\"kakuremichi.api.port\":\"9000\",\"kakuremichi.web.port\":\"8080\","
		"\"kakuremichi.api.domain\":\"api.example\",\"kakuremichi.network\":\"front\","
		"\"kakuremichi.api.network\":\"back\",\"kakuremichi.api.tls\":\"passthrough\","
		"\"kakuremichi.api.tls.port\":\"9443\",\"kakuremichi.sockmap\":\"off\","
		"\"kakuremichi.off.enabled\":\"false\",\"kakuremichi.off.port\":\"1\"}";
	struct json *root = json_parse(text, strlen(text));
	struct labels_error error;
	struct labels *services;
	unsigned int count;

	(void)state;
	assert_int_equal(labels_parse(root, &services, &count, &error), 0);
	json_free(&root);
	assert_int_equal(count, 3);
	assert_string_equal(services[0].service, "");
	assert_int_equal(services[0].port, 80);
	assert_string_equal(services[1].service, "api");
	assert_string_equal(services[1].domains[0], "api.example");
	assert_int_equal(services[1].port, 9000);
	assert_string_equal(services[1].network, "back");
	assert_int_equal(services[1].tls_port, 9443);
	assert_string_equal(services[2].service, "web");
	assert_int_equal(services[2].domain_count, 2);
	assert_string_equal(services[2].domains[1], "*.w.example");
	assert_false(services[2].tls);
	/* the container's matter */
	assert_string_equal(services[2].network, "front");
	for (unsigned int i = 0; i < count; i++)
		assert_true(services[i].no_sockmap);
	free(services);
}

/* Labels without a name are a service only where they say so. */
static void only_named_services(void **state)
{
	struct labels_error error;
	struct labels labels;

#define NAMED "\"kakuremichi.web.domain\":\"w.example\",\"kakuremichi.web.port\":\"81\""
	(void)state;
	assert_int_equal(parse("{" ENABLED "," NAMED ",\"kakuremichi.sockmap\":\"off\","
			       "\"kakuremichi.description\":\"x\"}",
			       &labels, &error),
			 0);
	assert_string_equal(labels.service, "web");
	assert_true(labels.no_sockmap);
	assert_int_equal(parse("{" ENABLED "," NAMED "," PORT "}", &labels, &error), -EINVAL);
	assert_string_equal(error.label, "kakuremichi.domain");
}

static void bad_services(void **state)
{
	static const struct {
		const char *text, *label;
	} cases[] = {
#define WITH(labels) "{" GOOD "," labels "}"
		{ WITH("\"kakuremichi.web.domain\":\"w.example\""), "kakuremichi.web.port" },
		{ WITH("\"kakuremichi.web.port\":\"80\""), "kakuremichi.web.domain" },
		{ WITH(NAMED ",\"kakuremichi.web.port.x\":\"80\""), "kakuremichi.web.port.x" },
		{ WITH(NAMED ",\"kakuremichi.web.web.port\":\"80\""), "kakuremichi.web.web.port" },
		{ WITH(NAMED ",\"kakuremichi.web\":\"80\""), "kakuremichi.web" },
		{ WITH(NAMED ",\"kakuremichi.web.tls.port\":\"80\""), "kakuremichi.web.tls.port" },
		{ WITH("\"kakuremichi.port.domain\":\"w.example\""), "kakuremichi.port.domain" },
		{ WITH("\"kakuremichi.a_b.domain\":\"w.example\""), "kakuremichi.a_b.domain" },
		{ WITH("\"kakuremichi.-a.domain\":\"w.example\""), "kakuremichi.-a.domain" },
		{ WITH("\"kakuremichi.a-.port\":\"80\""), "kakuremichi.a-.port" },
		{ WITH("\"kakuremichi..port\":\"80\""), "kakuremichi..port" },
	};

	(void)state;
	for (size_t i = 0; i < sizeof(cases) / sizeof(*cases); i++) {
		struct labels_error error;
		struct labels labels;

		if (parse(cases[i].text, &labels, &error) != -EINVAL)
			fail_msg("%s is taken", cases[i].text);
		if (strcmp(error.label, cases[i].label))
			fail_msg("%s: label '%s'", cases[i].text, error.label);
	}
}

static void too_many_services(void **state)
{
	static char text[8192];
	struct labels_error error;
	struct labels labels;
	int len = snprintf(text, sizeof(text), "{" GOOD);

	(void)state;
	for (int i = 0; i < LABELS_MAX_SERVICES; i++)
		len += snprintf(text + len, sizeof(text) - (size_t)len,
				",\"kakuremichi.s%d.domain\":\"s%d.example\","
				"\"kakuremichi.s%d.port\":\"80\"", i, i, i);
	snprintf(text + len, sizeof(text) - (size_t)len, "}");
	assert_int_equal(parse(text, &labels, &error), -EINVAL);
	assert_non_null(strstr(error.reason, "more than"));
}

/* Length of the valid UTF-8 at the beginning; enough for two-byte letters. */
static bool is_utf8(const char *text)
{
	for (; *text; text++) {
		if (((unsigned char)*text & 0xc0) == 0x80)
			return false;
		if (((unsigned char)*text & 0xe0) == 0xc0 &&
		    ((unsigned char)*++text & 0xc0) != 0x80)
			return false;
	}
	return true;
}

/* Both go into JSON documents, which are UTF-8 to the last byte. */
static void cut_between_characters(void **state)
{
	struct labels_error error;
	struct labels labels;
	char text[2048], umlauts[601];

	(void)state;
	for (size_t i = 0; i < 600; i += 2)
		memcpy(umlauts + i, "\xc3\xa4", 2);
	umlauts[600] = '\0';
	for (const char *lead = ""; strlen(lead) < 2; lead = "x") {
		snprintf(text, sizeof(text), "{" GOOD ",\"kakuremichi.description\":\"%s%s\"}",
			 lead, umlauts);
		assert_int_equal(parse(text, &labels, &error), 0);
		if (!is_utf8(labels.description))
			fail_msg("the description is cut inside of a character");
		snprintf(text, sizeof(text),
			 "{" ENABLED "," PORT ",\"kakuremichi.domain\":\"%s%s\"}", lead, umlauts);
		assert_int_equal(parse(text, &labels, &error), -EINVAL);
		if (!is_utf8(error.reason))
			fail_msg("the reason is cut inside of a character: %s", error.reason);
		if (*lead)
			break;
	}
}

int main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test(required_and_optional),
		cmocka_unit_test(not_ours),
		cmocka_unit_test(null_labels),
		cmocka_unit_test(bad_labels),
		cmocka_unit_test(wanted),
		cmocka_unit_test(tls_and_proxy_protocol),
		cmocka_unit_test(several_names),
		cmocka_unit_test(several_services),
		cmocka_unit_test(only_named_services),
		cmocka_unit_test(bad_services),
		cmocka_unit_test(too_many_services),
		cmocka_unit_test(limits),
		cmocka_unit_test(cut_between_characters),
	};

	return cmocka_run_group_tests_name("labels", tests, NULL, NULL);
}
