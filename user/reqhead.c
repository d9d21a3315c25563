// SPDX-License-Identifier: MIT
#include "reqhead.h"

#include <errno.h>
#include <string.h>
#include <strings.h>

#define OVERHEAD_MAX 16384 /* bytes of one chunk's extension, and of a trailer section */
#define LENGTH_MAX INT64_MAX

struct span {
	const char *at;
	size_t len;
};

static bool is_token_char(unsigned char c)
{
	return (c >= '0' && c <= '9') || (c >= 'a' && c <= 'z') || (c >= 'A' && c <= 'Z') ||
	       (c && strchr("!#$%&'*+-.^_`|~", c));
}

static bool is_token(struct span text)
{
	for (size_t i = 0; i < text.len; i++) {
		if (!is_token_char((unsigned char)text.at[i]))
			return false;
	}
	return text.len > 0;
}

/* field-vchar, SP, HTAB and obs-text (RFC 9110, 5.5): no control, no DEL. */
static bool is_field_value(struct span text)
{
	for (size_t i = 0; i < text.len; i++) {
		unsigned char c = (unsigned char)text.at[i];

		if ((c < 0x20 && c != '\t') || c == 0x7f)
			return false;
	}
	return true;
}

static bool is_word(struct span text, const char *word)
{
	return text.len == strlen(word) && !strncasecmp(text.at, word, text.len);
}

static struct span trim(struct span text)
{
	while (text.len && (*text.at == ' ' || *text.at == '\t')) {
		text.at++;
		text.len--;
	}
	while (text.len && (text.at[text.len - 1] == ' ' || text.at[text.len - 1] == '\t'))
		text.len--;
	return text;
}

/* Is `word` one of a comma-separated list? */
static bool list_has(struct span list, const char *word)
{
	while (list.len) {
		const char *comma = memchr(list.at, ',', list.len);
		size_t len = comma ? (size_t)(comma - list.at) : list.len;

		if (is_word(trim((struct span){ list.at, len }), word))
			return true;
		if (!comma)
			break;
		list.at += len + 1;
		list.len -= len + 1;
	}
	return false;
}

/* What the fields said, before they are weighed against each other. */
struct fields {
	unsigned int count;
	unsigned int hosts, lengths, codings;
	bool chunked, upgrade, connection_upgrade;
	uint64_t length;
	char target_host[HOSTNAME_MAX + 1];
	bool absolute;
	bool version_1_0;
};

/* The authority of an absolute-form target; -400 where there is none that could be routed. */
static int parse_absolute(struct span target, struct fields *fields)
{
	struct span rest;
	size_t len;

	if (target.len > 7 && !strncasecmp(target.at, "http://", 7))
		rest = (struct span){ target.at + 7, target.len - 7 };
	else if (target.len > 8 && !strncasecmp(target.at, "https://", 8))
		rest = (struct span){ target.at + 8, target.len - 8 };
	else
		return -400;
	for (len = 0; len < rest.len && !strchr("/?#", rest.at[len]); len++) {
		if (rest.at[len] == '@') /* userinfo: RFC 9110, 4.2.4 */
			return -400;
	}
	if (!len || hostname_from_authority(rest.at, len, fields->target_host) ||
	    !*fields->target_host)
		return -400;
	fields->absolute = true;
	return 0;
}

static int parse_target(struct span target, struct fields *fields, bool options)
{
	for (size_t i = 0; i < target.len; i++) {
		unsigned char c = (unsigned char)target.at[i];

		if (c <= 0x20 || c >= 0x7f)
			return -400;
	}
	if (!target.len)
		return -400;
	if (*target.at == '/')
		return 0;
	if (target.len == 1 && *target.at == '*')
		return options ? 0 : -400;
	return parse_absolute(target, fields);
}

/* method SP target SP HTTP/1.x, single spaces (RFC 9112, 3). */
static int parse_request_line(struct span line, struct fields *fields, struct reqhead *out)
{
	const char *first = memchr(line.at, ' ', line.len);
	const char *last = memrchr(line.at, ' ', line.len);
	struct span method, target, version;

	if (!first || first == last)
		return -400;
	method = (struct span){ line.at, (size_t)(first - line.at) };
	target = (struct span){ first + 1, (size_t)(last - first) - 1 };
	version = (struct span){ last + 1, (size_t)(line.at + line.len - last) - 1 };
	if (!is_token(method))
		return -400;
	if (version.len != 8 || memcmp(version.at, "HTTP/1.", 7) || version.at[7] < '0' ||
	    version.at[7] > '1')
		return -400;
	fields->version_1_0 = version.at[7] == '0';
	if (method.len == 7 && !memcmp(method.at, "CONNECT", 7))
		return -405;
	out->head = method.len == 4 && !memcmp(method.at, "HEAD", 4);
	return parse_target(target, fields,
			    method.len == 7 && !memcmp(method.at, "OPTIONS", 7));
}

static int parse_host(struct span value, struct fields *fields, struct reqhead *out)
{
	if (fields->hosts++)
		return -400;
	return hostname_from_authority(value.at, value.len, out->host) ? -400 : 0;
}

/* One name and value whose line has been found to be well-formed. */
static int note_field(struct span name, struct span value, struct fields *fields,
		      struct reqhead *out)
{
	if (is_word(name, "host"))
		return parse_host(value, fields, out);
	if (is_word(name, "content-length")) {
		if (fields->lengths++)
			return -400;
		return number_parse(value.at, value.len, 0, LENGTH_MAX, &fields->length) ? -400 : 0;
	}
	if (is_word(name, "transfer-encoding")) {
		fields->codings++;
		fields->chunked = is_word(value, "chunked");
	} else if (is_word(name, "upgrade")) {
		fields->upgrade = fields->upgrade || value.len;
	} else if (is_word(name, "connection")) {
		fields->connection_upgrade |= list_has(value, "upgrade");
	}
	return 0;
}

static int parse_field(struct span line, struct fields *fields, struct reqhead *out)
{
	const char *colon = memchr(line.at, ':', line.len);
	struct span name, value;

	if (++fields->count > REQHEAD_MAX_FIELDS)
		return -431;
	/* a name that is a token has no blank before the colon, and no folded line begins with one */
	if (!colon)
		return -400;
	name = (struct span){ line.at, (size_t)(colon - line.at) };
	value = trim((struct span){ colon + 1, line.len - name.len - 1 });
	if (!is_token(name) || !is_field_value(value))
		return -400;
	return note_field(name, value, fields, out);
}

static int weigh(const struct fields *fields, struct reqhead *out)
{
	if (fields->lengths && fields->codings)
		return -400;
	if (fields->codings && fields->version_1_0)
		return -400; /* RFC 9112, 6.1: framing is faulty */
	if (fields->codings && (fields->codings > 1 || !fields->chunked))
		return -501;
	if (!fields->hosts && !fields->version_1_0)
		return -400;
	if (fields->absolute) {
		if (fields->hosts && strcmp(out->host, fields->target_host))
			return -400;
		memcpy(out->host, fields->target_host, sizeof(out->host));
	}
	out->has_host = *out->host;
	if (!out->has_host && !fields->version_1_0)
		return -400; /* an empty Host names nobody */
	if (fields->codings) {
		out->body = BODY_CHUNKED;
	} else if (fields->length) {
		out->body = BODY_LENGTH;
		out->length = fields->length;
	}
	out->upgrade = fields->upgrade && fields->connection_upgrade && !fields->version_1_0;
	return 0;
}

static int parse_lines(const char *data, size_t len, struct reqhead *out)
{
	const char *p = data, *end = data + len;
	struct fields fields = { 0 };
	bool first = true;

	memset(out, 0, sizeof(*out));
	for (;;) {
		const char *lf = memchr(p, '\n', (size_t)(end - p));
		struct span line = { p, (size_t)(lf - p) - 1 };
		int err;

		/* is_token, is_field_value and the target refuse a CR anywhere but here */
		if (lf == p || lf[-1] != '\r')
			return -400;
		if (!line.len && !first)
			return weigh(&fields, out);
		if (first && !line.len)
			return -400;
		err = first ? parse_request_line(line, &fields, out)
			    : parse_field(line, &fields, out);
		if (err)
			return err;
		first = false;
		p = lf + 1;
	}
}

/* Find the end of the head's last line from *scanned on; 0 where it has not come yet. */
static size_t find_end(const char *data, size_t len, size_t *scanned)
{
	size_t line = *scanned; /* where a line begins */

	while (line < len) {
		const char *lf = memchr(data + line, '\n', len - line);
		size_t next;

		if (!lf)
			break;
		next = (size_t)(lf - data) + 1;
		if (next - line == 2 || next - line == 1)
			return next;
		line = next;
	}
	*scanned = line;
	return 0;
}

int reqhead_parse(const char *data, size_t len, size_t *scanned, struct reqhead *out)
{
	size_t end;
	int err;

	/* what cannot become a method is refused at once: a TLS hello would never bring a line end */
	if (len && !is_token_char((unsigned char)*data))
		return -400;
	end = find_end(data, len < REQHEAD_MAX ? len : REQHEAD_MAX, scanned);
	if (!end)
		return len >= REQHEAD_MAX ? -431 : 0;
	err = parse_lines(data, end, out);
	return err ? err : (int)end;
}

void reqbody_start(struct reqbody *body, const struct reqhead *head)
{
	*body = (struct reqbody){ .state = REQBODY_DONE };
	if (head->body == BODY_LENGTH) {
		body->state = REQBODY_LENGTH;
		body->left = head->length;
	} else if (head->body == BODY_CHUNKED) {
		body->state = REQBODY_SIZE;
	}
}

uint64_t reqbody_opaque(const struct reqbody *body)
{
	return body->state == REQBODY_LENGTH || body->state == REQBODY_DATA ? body->left : 0;
}

void reqbody_skip(struct reqbody *body, uint64_t n)
{
	body->left -= n;
	if (body->left)
		return;
	if (body->state == REQBODY_LENGTH)
		body->state = REQBODY_DONE;
	else if (body->state == REQBODY_DATA)
		body->state = REQBODY_DATA_CR;
}

static int hex_digit(char c)
{
	if (c >= '0' && c <= '9')
		return c - '0';
	c |= 0x20;
	return c >= 'a' && c <= 'f' ? c - 'a' + 10 : -1;
}

static bool step_size(struct reqbody *body, char c)
{
	int digit = hex_digit(c);

	if (digit >= 0) {
		if (++body->digits > 16 || body->left > (uint64_t)LENGTH_MAX >> 4)
			return false;
		body->left = body->left << 4 | (uint64_t)digit;
		return true;
	}
	if (!body->digits)
		return false;
	body->overhead = 0;
	body->state = c == ';' ? REQBODY_EXTENSION : REQBODY_SIZE_LF;
	return c == ';' || c == '\r';
}

/* One byte of an extension or a trailer field: printable, and not without end. */
static bool step_text(struct reqbody *body, char c, enum reqbody_state at_cr)
{
	unsigned char u = (unsigned char)c;

	if (c == '\r') {
		body->state = at_cr;
		return true;
	}
	return (u >= 0x20 || u == '\t') && u != 0x7f && ++body->overhead <= OVERHEAD_MAX;
}

static bool expect(struct reqbody *body, char c, char wanted, enum reqbody_state next)
{
	body->state = next;
	return c == wanted;
}

static bool step_trailer(struct reqbody *body, char c)
{
	if (c == '\r') {
		body->state = REQBODY_END_LF;
		return true;
	}
	body->state = REQBODY_FIELD;
	return is_token_char((unsigned char)c) && ++body->overhead <= OVERHEAD_MAX;
}

/* One byte of a chunked body's frame; false where it is not allowed there. */
static bool step(struct reqbody *body, char c)
{
	switch (body->state) {
	case REQBODY_SIZE:
		return step_size(body, c);
	case REQBODY_EXTENSION:
		return step_text(body, c, REQBODY_SIZE_LF);
	case REQBODY_SIZE_LF:
		body->digits = 0;
		body->overhead = 0;
		return expect(body, c, '\n', body->left ? REQBODY_DATA : REQBODY_TRAILER);
	case REQBODY_DATA_CR:
		return expect(body, c, '\r', REQBODY_DATA_LF);
	case REQBODY_DATA_LF:
		return expect(body, c, '\n', REQBODY_SIZE);
	case REQBODY_TRAILER:
		return step_trailer(body, c);
	case REQBODY_FIELD:
		return step_text(body, c, REQBODY_FIELD_LF);
	case REQBODY_FIELD_LF:
		return expect(body, c, '\n', REQBODY_TRAILER);
	case REQBODY_END_LF:
		return expect(body, c, '\n', REQBODY_DONE);
	default:
		return false;
	}
}

size_t reqbody_feed(struct reqbody *body, const char *data, size_t len, int *err)
{
	size_t at = 0;

	*err = 0;
	while (at < len && body->state != REQBODY_DONE) {
		uint64_t opaque = reqbody_opaque(body);

		if (opaque) {
			uint64_t n = opaque < len - at ? opaque : len - at;

			reqbody_skip(body, n);
			at += n;
		} else if (step(body, data[at])) {
			at++;
		} else {
			*err = -400;
			break;
		}
	}
	return at;
}
