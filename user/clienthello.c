// SPDX-License-Identifier: MIT
#include "clienthello.h"

#include <errno.h>
#include <stdbool.h>
#include <string.h>

#define RECORD_HEADER 5
#define RECORD_MAX 16384 /* RFC 8446, 5.1: bytes of a plain record, without its header */
#define MESSAGE_HEADER 4
#define RANDOM_LEN 32
#define SESSION_ID_MAX 32

enum { TYPE_ALERT = 21, TYPE_HANDSHAKE = 22 };
enum { MESSAGE_CLIENT_HELLO = 1, EXTENSION_SERVER_NAME = 0, NAME_HOST = 0, ALERT_FATAL = 2 };

/* Bytes that the record beginning here carries; 0 while its header is not complete; -EBADMSG. */
static int record_len(const uint8_t *p, size_t len)
{
	int payload;

	if ((len > 0 && p[0] != TYPE_HANDSHAKE) || (len > 1 && p[1] != 3) ||
	    (len > 2 && p[2] > 4) || (len > 3 && p[3] > RECORD_MAX >> 8))
		return -EBADMSG;
	if (len < RECORD_HEADER)
		return 0;
	payload = p[3] << 8 | p[4];
	return payload && payload <= RECORD_MAX ? payload : -EBADMSG;
}

/* Bytes of the message with its header, at least: those not yet there are zero in `head`. */
static size_t message_len(const uint8_t head[MESSAGE_HEADER])
{
	return MESSAGE_HEADER + ((size_t)head[1] << 16 | (size_t)head[2] << 8 | head[3]);
}

static bool head_is_good(const uint8_t head[MESSAGE_HEADER], size_t have)
{
	size_t len = message_len(head);
	size_t records = (len + RECORD_MAX - 1) / RECORD_MAX;

	return (!have || head[0] == MESSAGE_CLIENT_HELLO) &&
	       len + records * RECORD_HEADER <= CLIENTHELLO_MAX;
}

/* The length of the message at the beginning, once all of it is there; 0 before; or -EBADMSG. */
static int find_message(const uint8_t *data, size_t len)
{
	uint8_t head[MESSAGE_HEADER] = { 0 };
	size_t seen = 0;

	for (size_t at = 0;;) {
		int payload = record_len(data + at, len - at);
		size_t here;

		if (payload <= 0)
			return payload;
		at += RECORD_HEADER;
		here = len - at < (size_t)payload ? len - at : (size_t)payload;
		for (size_t i = 0; i < here && seen + i < sizeof(head); i++)
			head[seen + i] = data[at + i];
		seen += here;
		if (!head_is_good(head, seen))
			return -EBADMSG;
		if (seen >= sizeof(head) && seen >= message_len(head))
			return (int)message_len(head);
		if (here < (size_t)payload)
			return 0;
		at += here;
	}
}

/* A part of a message that is all there. Headers of records lie between its bytes. */
struct part {
	const uint8_t *at;
	size_t record; /* bytes up to the next of these headers */
	size_t left;
};

/* The next bytes, to `out` unless that is NULL; false where the part has fewer. */
static bool take(struct part *part, void *out, size_t count)
{
	uint8_t *to = out;

	if (count > part->left)
		return false;
	part->left -= count;
	while (count) {
		size_t here;

		if (!part->record) {
			part->record = (size_t)part->at[3] << 8 | part->at[4];
			part->at += RECORD_HEADER;
		}
		here = count < part->record ? count : part->record;
		if (to)
			to = (uint8_t *)memcpy(to, part->at, here) + here;
		part->at += here;
		part->record -= here;
		count -= here;
	}
	return true;
}

/* A length of `width` bytes, 1 or 2, and as many bytes as it says, which become a part. */
static bool take_vector(struct part *part, size_t width, struct part *out)
{
	uint8_t len[2] = { 0 };

	if (!take(part, len + sizeof(len) - width, width))
		return false;
	*out = *part;
	out->left = (size_t)len[0] << 8 | len[1];
	return take(part, NULL, out->left);
}

/* What is no host name belongs to nobody, just as no name: the hello itself is in order. */
static bool parse_host_name(struct part *entry, char *name)
{
	char text[HOSTNAME_MAX + 1]; /* the longest name with a dot behind it */
	size_t len = entry->left;

	if (len > sizeof(text) || !take(entry, text, len) || hostname_from_sni(text, len, name))
		*name = '\0';
	return len > 0;
}

/* RFC 6066, 3: one name of each type; one of a type still to be invented has a length too. */
static bool parse_server_name(struct part *extension, char *name)
{
	bool seen[UINT8_MAX + 1] = { false };
	struct part list, entry;
	uint8_t type;

	if (!take_vector(extension, 2, &list) || extension->left || !list.left)
		return false;
	while (list.left) {
		if (!take(&list, &type, 1) || !take_vector(&list, 2, &entry) || seen[type])
			return false;
		seen[type] = true;
		if (type == NAME_HOST && !parse_host_name(&entry, name))
			return false;
	}
	return true;
}

static bool parse_extensions(struct part *extensions, char *name)
{
	bool found = false;
	struct part content;
	uint8_t type[2];

	while (extensions->left) {
		if (!take(extensions, type, 2) || !take_vector(extensions, 2, &content))
			return false;
		if ((type[0] << 8 | type[1]) != EXTENSION_SERVER_NAME)
			continue;
		if (found || !parse_server_name(&content, name))
			return false;
		found = true;
	}
	return true;
}

/* The version that is asked for, the suites and the rest are between client and container. */
static bool parse_hello(struct part *hello, char *name)
{
	struct part session_id, suites, methods, extensions;

	if (!take(hello, NULL, 2 + RANDOM_LEN) || !take_vector(hello, 1, &session_id) ||
	    !take_vector(hello, 2, &suites) || !take_vector(hello, 1, &methods))
		return false;
	if (session_id.left > SESSION_ID_MAX || !suites.left || suites.left % 2 || !methods.left)
		return false;
	if (!hello->left)
		return true; /* RFC 5246, 7.4.1.2: whether there are extensions, the length says */
	return take_vector(hello, 2, &extensions) && !hello->left &&
	       parse_extensions(&extensions, name);
}

int clienthello_parse(const char *data, size_t len, char name[HOSTNAME_MAX + 1])
{
	struct part hello = { .at = (const uint8_t *)data };
	char found[HOSTNAME_MAX + 1] = "";
	int message;

	if (len > CLIENTHELLO_MAX)
		len = CLIENTHELLO_MAX;
	message = find_message((const uint8_t *)data, len);
	if (message <= 0)
		return message || len < CLIENTHELLO_MAX ? message : -EBADMSG;
	hello.left = (size_t)message;
	if (!take(&hello, NULL, MESSAGE_HEADER) || !parse_hello(&hello, found))
		return -EBADMSG;
	memcpy(name, found, sizeof(found));
	return 1;
}

/* Version 3.1 in the record: until one is agreed upon, the oldest is what every client reads. */
void clienthello_alert(enum clienthello_alert alert, uint8_t out[CLIENTHELLO_ALERT_LEN])
{
	const uint8_t record[] = { TYPE_ALERT, 3, 1, 0, 2, ALERT_FATAL, (uint8_t)alert };

	_Static_assert(sizeof(record) == CLIENTHELLO_ALERT_LEN, "header, level, description");
	memcpy(out, record, sizeof(record));
}
