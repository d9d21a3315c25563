// SPDX-License-Identifier: MIT
/* Headers of the PROXY protocol, read and written: user/proxyproto.c. */
#include <errno.h>

#include "fuzz.h"
#include "proxyproto.h"

struct reader {
	int verdict;
	size_t at; /* bytes that had come when it fell */
	struct sockaddr_storage source, destination;
};

static bool is_same(const struct sockaddr_storage *a, const struct sockaddr_storage *b)
{
	return a->ss_family == AF_UNSPEC ? b->ss_family == AF_UNSPEC : address_equal(a, b);
}

static bool has_address(const struct sockaddr_storage *address)
{
	return address->ss_family == AF_INET || address->ss_family == AF_INET6;
}

/* Once it has fallen it stands, and no address is written before. */
static void look_at(void *state, const char *data, size_t len)
{
	struct reader *reader = state;
	struct sockaddr_storage source = { .ss_family = AF_UNIX }, destination = source;
	int verdict = proxyproto_parse(data, len, &source, &destination);

	expect(verdict >= 0 ? (size_t)verdict <= len : verdict == -EBADMSG);
	expect(verdict <= PROXYPROTO_MAX);
	expect((source.ss_family == AF_UNIX) == (verdict <= 0));
	expect(source.ss_family == destination.ss_family);
	if (reader->verdict) {
		expect(verdict == reader->verdict);
		expect(verdict < 0 || (is_same(&source, &reader->source) &&
				       is_same(&destination, &reader->destination)));
		return;
	}
	reader->verdict = verdict;
	reader->at = len;
	reader->source = source;
	reader->destination = destination;
}

static void expect_same(const struct reader *a, const struct reader *b)
{
	expect(a->verdict == b->verdict);
	expect(a->verdict <= 0 ||
	       (is_same(&a->source, &b->source) && is_same(&a->destination, &b->destination)));
}

/* What is written is read as the same, and where there is nothing to say as none. */
static void expect_round_trip(const struct sockaddr_storage *source,
			      const struct sockaddr_storage *destination)
{
	uint8_t out[PROXYPROTO_OUT_MAX];
	size_t len = proxyproto_write(source, destination, out);
	bool has_both = has_address(source) && source->ss_family == destination->ss_family;
	struct reader reader = { 0 };

	expect(len <= PROXYPROTO_OUT_MAX);
	deliver(CUT, out, len, look_at, &reader);
	expect(reader.verdict == (int)len && reader.at == len);
	expect(has_both ? is_same(source, &reader.source) : !has_address(&reader.source));
	expect(has_both ? is_same(destination, &reader.destination)
			: !has_address(&reader.destination));
}

/* An address made of the first bytes. */
static size_t make_address(const uint8_t *data, size_t len, struct sockaddr_storage *out)
{
	static const sa_family_t families[] = { AF_INET, AF_INET6, AF_INET, AF_INET6, AF_UNSPEC,
						AF_UNIX };
	size_t used = len < 19 ? len : 19;
	uint8_t bytes[19] = { 0 };

	memcpy(bytes, data, used);
	memset(out, 0, sizeof(*out));
	out->ss_family = families[bytes[0] % (sizeof(families) / sizeof(*families))];
	if (out->ss_family == AF_INET) {
		memcpy(&((struct sockaddr_in *)out)->sin_port, bytes + 1, 2);
		memcpy(&((struct sockaddr_in *)out)->sin_addr, bytes + 3, 4);
	} else if (out->ss_family == AF_INET6) {
		memcpy(&((struct sockaddr_in6 *)out)->sin6_port, bytes + 1, 2);
		memcpy(&((struct sockaddr_in6 *)out)->sin6_addr, bytes + 3, 16);
	}
	return used;
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t len);
int LLVMFuzzerTestOneInput(const uint8_t *data, size_t len)
{
	struct reader readers[DELIVERIES] = { 0 };
	struct sockaddr_storage source, destination;
	size_t used;

	for (unsigned int how = WHOLE; how < DELIVERIES; how++) {
		deliver(how, data, len, look_at, &readers[how]);
		expect_same(&readers[WHOLE], &readers[how]);
	}
	/* complete with its last byte and not later */
	expect(readers[BYTES].verdict <= 0 || (size_t)readers[BYTES].verdict == readers[BYTES].at);
	if (readers[WHOLE].verdict > 0)
		expect_round_trip(&readers[WHOLE].source, &readers[WHOLE].destination);
	used = make_address(data, len, &source);
	make_address(data + used, len - used, &destination);
	expect_round_trip(&source, &destination);
	return 0;
}
