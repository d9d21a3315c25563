// SPDX-License-Identifier: MIT
#include "hostname.h"

#include <arpa/inet.h>
#include <errno.h>
#include <idn2.h>
#include <stdio.h>
#include <string.h>

static char lower(char c)
{
	return c >= 'A' && c <= 'Z' ? (char)(c - 'A' + 'a') : c;
}

static bool is_name_char(char c)
{
	c = lower(c);
	return (c >= 'a' && c <= 'z') || (c >= '0' && c <= '9') || c == '-' || c == '_';
}

/* Labels of 1 to 63 letters, digits, hyphens (not at the ends) and underscores. */
static const char *check_labels(const char *text, size_t len)
{
	size_t start = 0;

	for (size_t i = 0; i <= len; i++) {
		if (i < len && text[i] != '.') {
			if (!is_name_char(text[i]))
				return "has a character that no host name has";
			continue;
		}
		if (i == start)
			return "has an empty label";
		if (i - start > 63)
			return "has a label of more than 63 characters";
		if (text[start] == '-' || text[i - 1] == '-')
			return "has a label that begins or ends with a hyphen";
		start = i + 1;
	}
	return NULL;
}

static int parse_ascii(const char *text, size_t len, char *out, const char **reason)
{
	size_t skip = 0;

	*reason = NULL;
	if (len && text[len - 1] == '.' && !(len == 2 && *text == '*'))
		len--;
	if (!len)
		*reason = "is empty";
	else if (len > HOSTNAME_MAX)
		*reason = "has more than 253 characters";
	else if (len >= 2 && text[0] == '*' && text[1] == '.')
		skip = 2;
	else if (len == 1 && text[0] == '*')
		skip = 1;
	if (!*reason && !(skip == 1 && len == 1))
		*reason = check_labels(text + skip, len - skip);
	if (*reason)
		return -EINVAL;
	for (size_t i = 0; i < len; i++)
		out[i] = lower(text[i]);
	out[len] = '\0';
	return 0;
}

static bool is_ascii(const char *text, size_t len)
{
	for (size_t i = 0; i < len; i++) {
		if (text[i] & 0x80)
			return false;
	}
	return true;
}

/* Letters are mapped as browsers do (UTS #46), so that both sides come to the same A-labels. */
static int parse_unicode(const char *text, size_t len, char *out, const char **reason)
{
	size_t skip = len > 2 && text[0] == '*' && text[1] == '.' ? 2 : 0;
	char copy[8 * HOSTNAME_MAX];
	char *ascii;
	int err = -EINVAL;

	*reason = "is no valid internationalised name";
	if (len >= sizeof(copy) || memchr(text, '\0', len))
		return -EINVAL;
	memcpy(copy, text, len);
	copy[len] = '\0';
	if (idn2_to_ascii_8z(copy + skip, &ascii, IDN2_NFC_INPUT | IDN2_NONTRANSITIONAL) != IDN2_OK)
		return -EINVAL;
	/* a wildcard is what is written as one, not what letters turn into */
	if (*ascii != '*' && strlen(ascii) < sizeof(copy) - skip) {
		strcpy(copy + skip, ascii);
		err = parse_ascii(copy, strlen(copy), out, reason);
	}
	idn2_free(ascii);
	return err;
}

int hostname_parse(const char *text, size_t len, char *out, const char **reason)
{
	return is_ascii(text, len) ? parse_ascii(text, len, out, reason)
				   : parse_unicode(text, len, out, reason);
}

/* UTF-8 is for people, who write labels; on the wire a name is in A-labels. */
int hostname_from_sni(const char *text, size_t len, char *out)
{
	const char *reason;

	if (len && *text == '*')
		return -EINVAL;
	return parse_ascii(text, len, out, &reason);
}

int number_parse(const char *text, size_t len, uint64_t min, uint64_t max, uint64_t *out)
{
	uint64_t value = 0;

	if (!len)
		return -EINVAL;
	for (size_t i = 0; i < len; i++) {
		uint64_t digit = (uint64_t)(text[i] - '0');

		if (text[i] < '0' || text[i] > '9' || value > (UINT64_MAX - digit) / 10)
			return -EINVAL;
		value = value * 10 + digit;
	}
	if (value < min || value > max)
		return -EINVAL;
	*out = value;
	return 0;
}

/* An address in brackets: what inet_pton takes, in its shortest form so that names compare. */
static int bracketed(const char *text, size_t len, char *out)
{
	char copy[INET6_ADDRSTRLEN];
	struct in6_addr address;

	if (len >= sizeof(copy))
		return -EINVAL;
	memcpy(copy, text, len);
	copy[len] = '\0';
	if (inet_pton(AF_INET6, copy, &address) != 1)
		return -EINVAL;
	inet_ntop(AF_INET6, &address, out, INET6_ADDRSTRLEN);
	return 0;
}

int hostname_from_authority(const char *text, size_t len, char *out)
{
	const char *end = text + len, *host_end;
	uint64_t port;

	if (!len) {
		*out = '\0';
		return 0;
	}
	if (*text == '[') {
		host_end = memchr(text, ']', len);
		if (!host_end || bracketed(text + 1, (size_t)(host_end - text) - 1, out))
			return -EINVAL;
		host_end++;
	} else {
		host_end = memchr(text, ':', len);
		if (!host_end)
			host_end = end;
		if (hostname_from_sni(text, (size_t)(host_end - text), out))
			return -EINVAL;
	}
	if (host_end == end)
		return 0;
	/* "host:" with an empty port is allowed by RFC 3986, 3.2.3 */
	if (*host_end++ != ':')
		return -EINVAL;
	return host_end == end ? 0 : number_parse(host_end, (size_t)(end - host_end), 1, 65535, &port);
}

int address_parse(const char *text, uint16_t port, struct sockaddr_storage *out)
{
	struct sockaddr_in *v4 = (struct sockaddr_in *)out;
	struct sockaddr_in6 *v6 = (struct sockaddr_in6 *)out;

	memset(out, 0, sizeof(*out));
	if (inet_pton(AF_INET, text, &v4->sin_addr) == 1) {
		v4->sin_family = AF_INET;
		v4->sin_port = htons(port);
		return 0;
	}
	if (inet_pton(AF_INET6, text, &v6->sin6_addr) == 1) {
		v6->sin6_family = AF_INET6;
		v6->sin6_port = htons(port);
		return 0;
	}
	return -EINVAL;
}

socklen_t address_len(const struct sockaddr_storage *address)
{
	return address->ss_family == AF_INET ? sizeof(struct sockaddr_in)
					     : sizeof(struct sockaddr_in6);
}

uint16_t address_port(const struct sockaddr_storage *address)
{
	return ntohs(address->ss_family == AF_INET
			     ? ((const struct sockaddr_in *)address)->sin_port
			     : ((const struct sockaddr_in6 *)address)->sin6_port);
}

const char *address_print(const struct sockaddr_storage *address, char *out)
{
	char host[INET6_ADDRSTRLEN] = "?";

	if (address->ss_family == AF_UNSPEC) {
		snprintf(out, ADDRESS_TEXT_MAX, "-:%u", address_port(address));
	} else if (address->ss_family == AF_INET) {
		inet_ntop(AF_INET, &((const struct sockaddr_in *)address)->sin_addr, host,
			  sizeof(host));
		snprintf(out, ADDRESS_TEXT_MAX, "%s:%u", host, address_port(address));
	} else {
		inet_ntop(AF_INET6, &((const struct sockaddr_in6 *)address)->sin6_addr, host,
			  sizeof(host));
		snprintf(out, ADDRESS_TEXT_MAX, "[%s]:%u", host, address_port(address));
	}
	return out;
}

bool address_is_wildcard(const struct sockaddr_storage *address)
{
	static const struct in6_addr any;

	if (address->ss_family == AF_INET)
		return !((const struct sockaddr_in *)address)->sin_addr.s_addr;
	return !memcmp(&((const struct sockaddr_in6 *)address)->sin6_addr, &any, sizeof(any));
}

bool address_same_host(const struct sockaddr_storage *a, const struct sockaddr_storage *b)
{
	const struct sockaddr_in6 *a6 = (const void *)a, *b6 = (const void *)b;
	const struct sockaddr_in *a4 = (const void *)a, *b4 = (const void *)b;

	if (a->ss_family != b->ss_family)
		return false;
	if (a->ss_family == AF_INET)
		return a4->sin_addr.s_addr == b4->sin_addr.s_addr;
	return !memcmp(&a6->sin6_addr, &b6->sin6_addr, sizeof(a6->sin6_addr));
}

bool address_equal(const struct sockaddr_storage *a, const struct sockaddr_storage *b)
{
	return address_port(a) == address_port(b) && address_same_host(a, b);
}
