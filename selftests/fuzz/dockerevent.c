// SPDX-License-Identifier: MIT
/* Docker's stream of events: json_stream_feed() of user/json.c, and user/dockerjson.c. */
#include <errno.h>
#include <signal.h>

#include "dockerjson.h"
#include "fuzz.h"
#include "json.h"

#define OBJECT_MAX 1500 /* small enough for an input to exceed it */

struct reader {
	struct json_stream stream;
	const char *data;  /* all that has come */
	size_t fed, taken; /* of it; and up to the end of the last object */
	int err;	   /* at which feeding ends, as a connection does */
	unsigned int objects, events;
	uint32_t seen; /* a hash of what all events said */
};

static void see(struct reader *reader, const void *data, size_t len)
{
	reader->seen = reader->seen * 31 + input_hash(data, len);
}

static void look_at_event(struct reader *reader, const char *text, size_t len)
{
	struct dockerjson_event event;
	int err = dockerjson_event(text, len, &event);

	expect(err == -EPROTO || (!err && text[len - 1] == '}'));
	see(reader, &err, sizeof(err));
	if (err)
		return;
	reader->events++;
	expect(event.action <= DOCKER_CHANGED && event.name);
	expect(memchr(event.id, '\0', sizeof(event.id)));
	if (event.action != DOCKER_OTHER)
		expect(dockerjson_is_id(event.id));
	if (event.action == DOCKER_KILL)
		expect(event.signal >= 0 && event.signal <= SIGRTMAX);
	if (event.action == DOCKER_STATE)
		expect(event.state <= KKM_PAUSED);
	see(reader, event.name, strlen(event.name));
	see(reader, event.id, strlen(event.id));
	see(reader, &event.action, sizeof(event.action));
	see(reader, &event.time_ns, sizeof(event.time_ns));
}

/* It is what comes next on the wire, but for what may stand between two objects. */
static void take_object(void *ctx, const char *text, size_t len)
{
	struct reader *reader = ctx;
	char *copy = malloc(len); /* whose end the sanitizer knows */

	expect(len >= 2 && len <= OBJECT_MAX && text[0] == '{');
	expect(text[len - 1] == '}' || text[len - 1] == ']'); /* which the parser refuses */
	while (reader->data[reader->taken] != '{') {
		expect(strchr(" \t\r\n", reader->data[reader->taken]));
		reader->taken++;
	}
	expect(!memcmp(reader->data + reader->taken, text, len));
	reader->taken += len;
	reader->objects++;
	expect(copy);
	memcpy(copy, text, len);
	look_at_event(reader, copy, len);
	free(copy);
}

static void look_at(void *state, const char *data, size_t len)
{
	struct reader *reader = state;

	if (reader->err)
		return;
	reader->data = data;
	reader->err = json_stream_feed(&reader->stream, data + reader->fed, len - reader->fed,
				       take_object, reader);
	reader->fed = len;
	expect(!reader->err || reader->err == -EMSGSIZE || reader->err == -EPROTO);
	expect(reader->stream.len <= OBJECT_MAX);
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t len);
int LLVMFuzzerTestOneInput(const uint8_t *data, size_t len)
{
	struct reader readers[DELIVERIES] = { 0 };

	for (unsigned int how = WHOLE; how < DELIVERIES; how++) {
		const struct reader *first = &readers[WHOLE], *reader = &readers[how];

		readers[how].stream.limit = OBJECT_MAX;
		deliver(how, data, len, look_at, &readers[how]);
		expect(reader->err == first->err && reader->objects == first->objects);
		expect(reader->events == first->events && reader->seen == first->seen);
		json_stream_reset(&readers[how].stream);
	}
	return 0;
}
