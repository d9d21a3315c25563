// SPDX-License-Identifier: MIT
#include "proxyproto.h"

#include <errno.h>
#include <netinet/in.h>
#include <stdbool.h>
#include <string.h>

#include "hostname.h"

#define V1_MAX 107 /* bytes of a line with its CRLF; section 2.1 */
#define V2_HEADER 16
#define V2_MAX_LEN (PROXYPROTO_MAX - V2_HEADER)

static const char signature[] = "\r\n\r\n\0\r\nQUIT\n"; /* section 2.2 */
#define SIGNATURE_LEN (sizeof(signature) - 1)

enum { V2_LOCAL = 0x20, V2_PROXY = 0x21 }; /* version and command */
/* family and transport, the halves of the next byte */
enum { V2_UNSPEC = 0, V2_INET = 1, V2_INET6 = 2, V2_UNIX = 3 };
enum { V2_STREAM = 1, V2_DATAGRAM = 2 };

static const size_t block_len[] = { [V2_INET] = 12, [V2_INET6] = 36, [V2_UNIX] = 216 };

struct addresses {
	struct sockaddr_storage source, destination;
};

static bool begins_like(const char *data, size_t len, const char *text, size_t text_len)
{
	return !memcmp(data, text, len < text_len ? len : text_len);
}

/* The next word of a line, with one space behind it unless it is the last one. */
static bool take_word(const char **at, const char *end, bool last, char *out, size_t size)
{
	const char *space = memchr(*at, ' ', (size_t)(end - *at));
	size_t len = (size_t)((space ? space : end) - *at);

	if (!space != last || len >= size)
		return false;
	memcpy(out, *at, len);
	out[len] = '\0';
	*at += len + !last;
	return true;
}

static bool parse_v1_port(const char *text, struct sockaddr_storage *address)
{
	size_t len = strlen(text);
	uint64_t port;

	if ((len > 1 && *text == '0') || number_parse(text, len, 0, UINT16_MAX, &port))
		return false;
	if (address->ss_family == AF_INET)
		((struct sockaddr_in *)address)->sin_port = htons((uint16_t)port);
	else
		((struct sockaddr_in6 *)address)->sin6_port = htons((uint16_t)port);
	return true;
}

static bool parse_v1_addresses(const char *at, const char *end, int family, struct addresses *out)
{
	char from[INET6_ADDRSTRLEN], to[INET6_ADDRSTRLEN], from_port[6], to_port[6];

	return take_word(&at, end, false, from, sizeof(from)) &&
	       take_word(&at, end, false, to, sizeof(to)) &&
	       take_word(&at, end, false, from_port, sizeof(from_port)) &&
	       take_word(&at, end, true, to_port, sizeof(to_port)) &&
	       !address_parse(from, 0, &out->source) && out->source.ss_family == family &&
	       !address_parse(to, 0, &out->destination) && out->destination.ss_family == family &&
	       parse_v1_port(from_port, &out->source) && parse_v1_port(to_port, &out->destination);
}

/* False where the line, or the beginning of one, is wrong whatever follows. */
static bool parse_v1_line(const char *line, size_t len, bool whole, struct addresses *out)
{
	static const struct {
		const char *words, *characters;
		int family;
	} kinds[] = {
		{ "PROXY TCP4 ", "0123456789. ", AF_INET },
		{ "PROXY TCP6 ", "0123456789abcdefABCDEF:. ", AF_INET6 },
		{ "PROXY UNKNOWN", NULL, AF_UNSPEC },
	};

	for (size_t i = 0; i < sizeof(kinds) / sizeof(*kinds); i++) {
		size_t at = strlen(kinds[i].words);

		if (!begins_like(line, len, kinds[i].words, at))
			continue;
		if (len < at)
			return !whole;
		if (kinds[i].family == AF_UNSPEC)
			return true; /* whatever follows means nothing */
		for (size_t j = at; j < len; j++) {
			if (!line[j] || !strchr(kinds[i].characters, line[j]))
				return false;
		}
		return !whole || parse_v1_addresses(line + at, line + len, kinds[i].family, out);
	}
	return false;
}

static int parse_v1(const char *data, size_t len, struct addresses *out)
{
	size_t end = 0;

	if (len > V1_MAX)
		len = V1_MAX;
	while (end < len && data[end] != '\r' && data[end] != '\n')
		end++;
	if (!parse_v1_line(data, end, end < len, out))
		return -EBADMSG;
	if ((end < len && data[end] != '\r') || (end + 1 < len && data[end + 1] != '\n'))
		return -EBADMSG;
	if (end + 1 < len)
		return (int)end + 2;
	return end + 2 <= V1_MAX ? 0 : -EBADMSG;
}

/* Network order on the wire as in the structures: bytes are moved as they are. */
static void read_v2_addresses(const uint8_t *block, unsigned int family, struct addresses *out)
{
	struct sockaddr_in *from4 = (struct sockaddr_in *)&out->source;
	struct sockaddr_in *to4 = (struct sockaddr_in *)&out->destination;
	struct sockaddr_in6 *from6 = (struct sockaddr_in6 *)&out->source;
	struct sockaddr_in6 *to6 = (struct sockaddr_in6 *)&out->destination;

	if (family == V2_INET) {
		from4->sin_family = to4->sin_family = AF_INET;
		memcpy(&from4->sin_addr, block, 4);
		memcpy(&to4->sin_addr, block + 4, 4);
		memcpy(&from4->sin_port, block + 8, 2);
		memcpy(&to4->sin_port, block + 10, 2);
	} else {
		from6->sin6_family = to6->sin6_family = AF_INET6;
		memcpy(&from6->sin6_addr, block, 16);
		memcpy(&to6->sin6_addr, block + 16, 16);
		memcpy(&from6->sin6_port, block + 32, 2);
		memcpy(&to6->sin6_port, block + 34, 2);
	}
}

static int parse_v2(const uint8_t *data, size_t len, struct addresses *out)
{
	bool proxied = len > SIGNATURE_LEN && data[12] == V2_PROXY;
	unsigned int family, transport;
	size_t rest;

	if (len > SIGNATURE_LEN && data[12] != V2_LOCAL && !proxied)
		return -EBADMSG;
	if (len <= SIGNATURE_LEN + 1)
		return 0;
	family = data[13] >> 4;
	transport = data[13] & 0xf;
	/* of a connection of the proxy's own, not even the family counts */
	if (proxied && (family > V2_UNIX || transport > V2_DATAGRAM))
		return -EBADMSG;
	if (len < V2_HEADER)
		return 0;
	rest = (size_t)data[14] << 8 | data[15];
	if (rest > V2_MAX_LEN || (proxied && rest < block_len[family]))
		return -EBADMSG;
	if (len < V2_HEADER + rest)
		return 0;
	if (proxied && transport == V2_STREAM && (family == V2_INET || family == V2_INET6))
		read_v2_addresses(data + V2_HEADER, family, out);
	return (int)(V2_HEADER + rest);
}

int proxyproto_parse(const char *data, size_t len, struct sockaddr_storage *source,
		     struct sockaddr_storage *destination)
{
	struct addresses found = { .source.ss_family = AF_UNSPEC };
	int err;

	if (begins_like(data, len, signature, SIGNATURE_LEN))
		err = parse_v2((const uint8_t *)data, len, &found);
	else
		err = parse_v1(data, len, &found);
	if (err > 0) {
		*source = found.source;
		*destination = found.destination;
	}
	return err;
}

static void write_v2_addresses(const struct sockaddr_storage *source,
			       const struct sockaddr_storage *destination, uint8_t *block)
{
	const struct sockaddr_in *from4 = (const struct sockaddr_in *)source;
	const struct sockaddr_in *to4 = (const struct sockaddr_in *)destination;
	const struct sockaddr_in6 *from6 = (const struct sockaddr_in6 *)source;
	const struct sockaddr_in6 *to6 = (const struct sockaddr_in6 *)destination;

	if (source->ss_family == AF_INET) {
		memcpy(block, &from4->sin_addr, 4);
		memcpy(block + 4, &to4->sin_addr, 4);
		memcpy(block + 8, &from4->sin_port, 2);
		memcpy(block + 10, &to4->sin_port, 2);
	} else {
		memcpy(block, &from6->sin6_addr, 16);
		memcpy(block + 16, &to6->sin6_addr, 16);
		memcpy(block + 32, &from6->sin6_port, 2);
		memcpy(block + 34, &to6->sin6_port, 2);
	}
}

size_t proxyproto_write(const struct sockaddr_storage *source,
			const struct sockaddr_storage *destination, uint8_t out[PROXYPROTO_OUT_MAX])
{
	unsigned int family = source->ss_family == AF_INET    ? V2_INET
			      : source->ss_family == AF_INET6 ? V2_INET6
							      : V2_UNSPEC;

	_Static_assert(V2_HEADER + 36 == PROXYPROTO_OUT_MAX, "a header with two IPv6 addresses");
	memcpy(out, signature, SIGNATURE_LEN);
	if (source->ss_family != destination->ss_family)
		family = V2_UNSPEC;
	out[12] = family ? V2_PROXY : V2_LOCAL;
	out[13] = (uint8_t)(family ? family << 4 | V2_STREAM : 0);
	out[14] = 0;
	out[15] = (uint8_t)block_len[family];
	if (family)
		write_v2_addresses(source, destination, out + V2_HEADER);
	return V2_HEADER + block_len[family];
}
