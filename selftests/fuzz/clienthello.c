// SPDX-License-Identifier: MIT
/* The server name in a TLS ClientHello: user/clienthello.c. */
#include <errno.h>

#include "clienthello.h"
#include "fuzz.h"

#define UNTOUCHED '?' /* in no name */

struct reader {
	int verdict;
	size_t at; /* bytes that had come when it fell */
	char name[HOSTNAME_MAX + 1];
};

/* Once it has fallen it stands, and nothing but a name is ever written. */
static void look_at(void *state, const char *data, size_t len)
{
	struct reader *reader = state;
	char name[HOSTNAME_MAX + 1];
	int verdict;

	*name = UNTOUCHED;
	verdict = clienthello_parse(data, len, name);

	expect(!verdict || verdict == 1 || verdict == -EBADMSG);
	expect(verdict == 1 || *name == UNTOUCHED);
	if (reader->verdict) {
		expect(verdict == reader->verdict);
		expect(verdict != 1 || !strcmp(name, reader->name));
		return;
	}
	reader->verdict = verdict;
	reader->at = len;
	if (verdict != 1)
		return;
	expect_normalised(name);
	strcpy(reader->name, name);
}

static void expect_same(const struct reader *a, const struct reader *b)
{
	expect(a->verdict == b->verdict && !strcmp(a->name, b->name));
}

/* The bytes in the records of `data`, one after the other. */
static size_t join_records(const uint8_t *data, size_t len, uint8_t *out)
{
	size_t joined = 0;

	for (size_t at = 0; at + 5 <= len;) {
		size_t payload = (size_t)data[at + 3] << 8 | data[at + 4];

		at += 5;
		if (payload > len - at)
			payload = len - at;
		memcpy(out + joined, data + at, payload);
		joined += payload;
		at += payload;
	}
	return joined;
}

static size_t split_records(const uint8_t *message, size_t len, size_t payload, uint8_t *out)
{
	size_t to = 0;

	for (size_t at = 0; at < len; at += payload) {
		if (payload > len - at)
			payload = len - at;
		memcpy(out + to, (uint8_t[]){ 22, 3, 3, payload >> 8 & 0xff, payload & 0xff }, 5);
		memcpy(out + to + 5, message + at, payload);
		to += 5 + payload;
	}
	return to;
}

/* How a hello is cut into records changes nothing about it. */
static void expect_same_in_other_records(const struct reader *reader, const uint8_t *data,
					 size_t len)
{
	static uint8_t message[WINDOW_MAX], wire[7 * WINDOW_MAX];
	size_t payload = 1 + input_hash(data, len) % 700;
	struct reader other = { 0 };

	if (reader->verdict != 1)
		return;
	len = join_records(data, reader->at, message);
	len = split_records(message, len, payload, wire);
	if (len > CLIENTHELLO_MAX)
		return;
	look_at(&other, (const char *)wire, len);
	expect_same(reader, &other);
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t len);
int LLVMFuzzerTestOneInput(const uint8_t *data, size_t len)
{
	struct reader readers[DELIVERIES] = { 0 };

	for (unsigned int how = WHOLE; how < DELIVERIES; how++) {
		deliver(how, data, len, look_at, &readers[how]);
		expect_same(&readers[WHOLE], &readers[how]);
	}
	expect_same_in_other_records(&readers[BYTES], data, len);
	return 0;
}
