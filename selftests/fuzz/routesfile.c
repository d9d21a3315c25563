// SPDX-License-Identifier: MIT
/* The text of a routes file: user/routesjson.c. */
#include <errno.h>

#include "fuzz.h"
#include "routesjson.h"

#define MAX_TARGETS 6

static unsigned int count_lines(const char *text, size_t len)
{
	unsigned int lines = 1;

	for (size_t i = 0; i < len; i++)
		lines += text[i] == '\n';
	return lines;
}

static bool is_blank(const char *text, size_t len)
{
	for (size_t i = 0; i < len; i++) {
		if ((unsigned char)text[i] > ' ')
			return false;
	}
	return true;
}

static void expect_source(const struct route_source *source, unsigned int order)
{
	const char *domain = source->labels.domains[0], *reason;
	char again[HOSTNAME_MAX + 1], target[ADDRESS_TEXT_MAX];

	expect(source->owner == KKM_FILE && source->state == KKM_ACTIVE);
	expect(source->order == order && source->labels.domain_count == 1);
	expect(!hostname_parse(domain, strlen(domain), again, &reason) && !strcmp(domain, again));
	expect(!strcmp(source->group, domain));
	expect(address_port(&source->address) && address_port(&source->address) == source->labels.port);
	address_print(&source->address, target);
	expect(!strncmp(source->name, "file:", 5) && !strcmp(source->name + 5, target));
	expect(!*source->error.reason);
}

/* A domain's targets stand together, and no target of it twice. */
static void expect_routes(const struct routesjson *routes)
{
	unsigned int domains = 0;

	expect(routes->count <= MAX_TARGETS);
	for (unsigned int i = 0; i < routes->count; i++) {
		const struct route_source *a = &routes->sources[i];
		bool first = true;

		expect_source(a, i);
		for (unsigned int j = 0; j < i; j++) {
			const struct route_source *b = &routes->sources[j];
			bool same = !strcmp(a->group, b->group);

			first &= !same;
			expect(!same || !strcmp(a->group, a[-1].group));
			expect(!same || !address_equal(&a->address, &b->address));
			expect(strcmp(a->id, b->id));
		}
		domains += first;
	}
	expect(routes->domains == domains);
}

/* Written anew, it is read as the same. */
static void expect_round_trip(const struct routesjson *routes)
{
	char text[MAX_TARGETS * (HOSTNAME_MAX + ADDRESS_TEXT_MAX + 16)];
	struct routesjson_error error;
	struct routesjson again;
	size_t len = 0;

	text[len++] = '{';
	for (unsigned int i = 0; i < routes->count; i++) {
		const struct route_source *source = &routes->sources[i];
		bool first = !i || strcmp(source->group, source[-1].group);

		len += (size_t)sprintf(text + len, first ? "%s\n\"%s\":[\"%s\"" : "%s%.0s\"%s\"",
				       !i ? "" : first ? "]," : ",", source->group,
				       source->name + 5);
	}
	len += (size_t)sprintf(text + len, routes->count ? "]}" : "}");
	expect(!routesjson_parse(text, len, MAX_TARGETS, &again, &error));
	expect(again.count == routes->count && again.domains == routes->domains);
	expect(!memcmp(again.sources, routes->sources, routes->count * sizeof(*routes->sources)));
	free(again.sources);
}

/* A line in front changes nothing but the number. */
static void expect_next_line(const char *text, size_t len, const struct routesjson_error *error)
{
	static char moved[WINDOW_MAX + 1];
	struct routesjson_error other;
	struct routesjson out;

	/* a byte order mark is one only at the beginning, and behind blanks nothing has a place */
	if (is_blank(text, len) || *text == '\xef')
		return;
	moved[0] = '\n';
	memcpy(moved + 1, text, len);
	expect(routesjson_parse(moved, len + 1, MAX_TARGETS, &out, &other) == -EINVAL);
	expect(other.line == error->line + 1);
	/* this one names another line */
	expect(strstr(error->reason, " is there twice") || !strcmp(other.reason, error->reason));
}

static void look_at(void *state, const char *text, size_t len)
{
	struct routesjson_error error;
	struct routesjson out = { .count = 99 };
	int *verdict = state;

	*verdict = routesjson_parse(text, len, MAX_TARGETS, &out, &error);
	if (!*verdict) {
		expect(!error.line && !*error.reason);
		expect_routes(&out);
		expect_round_trip(&out);
		free(out.sources);
		return;
	}
	expect(*verdict == -EINVAL && out.count == 99);
	expect(error.line && error.line <= count_lines(text, len));
	expect(*error.reason);
	for (const char *p = error.reason; *p; p++)
		expect((unsigned char)*p >= ' ' && *p != 0x7f);
	expect_next_line(text, len, &error);
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t len);
int LLVMFuzzerTestOneInput(const uint8_t *data, size_t len)
{
	int verdicts[DELIVERIES];

	for (unsigned int how = WHOLE; how < DELIVERIES; how++) {
		deliver(how, data, len, look_at, &verdicts[how]);
		expect(verdicts[how] == verdicts[WHOLE]);
	}
	return 0;
}
