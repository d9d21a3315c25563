// SPDX-License-Identifier: MIT
#include "http1.h"

#include <errno.h>
#include <string.h>
#include <sys/types.h>

#define LENGTH_MAX INT64_MAX /* one of the peers takes 2^64 for 0 */
#define EARLY_MAX 64 /* bytes of an incomplete chunk-size line that are looked at */

struct span {
	const char *at;
	size_t len;
};

static const bool token_chars[256] = {
	['!'] = true,	      ['#' ... '\''] = true, ['*'] = true, ['+'] = true,
	['-'] = true,	      ['.'] = true,	     ['|'] = true, ['~'] = true,
	['0' ... '9'] = true, ['A' ... 'Z'] = true,  ['^' ... 'z'] = true,
};

static bool is_token_char(char c)
{
	return token_chars[(unsigned char)c];
}

static bool is_blank(char c)
{
	return c == ' ' || c == '\t';
}

/* field-vchar, SP, HTAB and obs-text (RFC 9110, 5.5): no control, no DEL. */
static bool is_text_char(char c)
{
	unsigned char u = (unsigned char)c;

	return (u >= 0x20 && u != 0x7f) || u == '\t';
}

static bool is_token(struct span text)
{
	for (size_t i = 0; i < text.len; i++) {
		if (!is_token_char(text.at[i]))
			return false;
	}
	return text.len > 0;
}

static bool is_text(struct span text)
{
	for (size_t i = 0; i < text.len; i++) {
		if (!is_text_char(text.at[i]))
			return false;
	}
	return true;
}

static bool is_exactly(struct span text, const char *word)
{
	return text.len == strlen(word) && !memcmp(text.at, word, text.len);
}

/* In any case; `word` is in lower case. Not strncasecmp: that asks the locale. */
static bool is_word(struct span text, const char *word)
{
	if (text.len != strlen(word))
		return false;
	for (size_t i = 0; i < text.len; i++) {
		char c = text.at[i];

		if (c >= 'A' && c <= 'Z')
			c = (char)(c - 'A' + 'a');
		if (c != word[i])
			return false;
	}
	return true;
}

static struct span trim(struct span text)
{
	while (text.len && is_blank(*text.at)) {
		text.at++;
		text.len--;
	}
	while (text.len && is_blank(text.at[text.len - 1]))
		text.len--;
	return text;
}

/* "name: value". A token has no blank before its colon, and no folded line begins with one. */
static int split_field(struct span line, struct span *name, struct span *value)
{
	const char *colon = memchr(line.at, ':', line.len);

	if (!colon)
		return -EBADMSG;
	*name = (struct span){ line.at, (size_t)(colon - line.at) };
	*value = trim((struct span){ colon + 1, line.len - name->len - 1 });
	return is_token(*name) && is_text(*value) ? 0 : -EBADMSG;
}

static void note_connection(struct http1_scan *scan, struct span list)
{
	for (;;) {
		const char *comma = memchr(list.at, ',', list.len);
		size_t len = comma ? (size_t)(comma - list.at) : list.len;
		struct span option = trim((struct span){ list.at, len });

		scan->connection_close |= is_word(option, "close");
		scan->connection_upgrade |= is_word(option, "upgrade");
		scan->connection_keep_alive |= is_word(option, "keep-alive");
		if (!comma)
			break;
		list.at += len + 1;
		list.len -= len + 1;
	}
}

static int note_host(struct http1_scan *scan, const char *data, struct span value)
{
	char name[HOSTNAME_MAX + 1];

	if (scan->has_host || hostname_from_authority(value.at, value.len, name))
		return -400;
	scan->has_host = true;
	scan->host_at = (uint32_t)(value.at - data);
	scan->host_len = (uint32_t)value.len;
	return 0;
}

static int note_length(struct http1_scan *scan, struct span value)
{
	if (scan->has_length || number_parse(value.at, value.len, 0, LENGTH_MAX, &scan->length))
		return -400;
	scan->has_length = true;
	return 0;
}

static void note_coding(struct http1_scan *scan, struct span value)
{
	scan->not_chunked |= scan->has_coding || !is_word(value, "chunked");
	scan->has_coding = true;
}

static int parse_field(struct http1_scan *scan, const char *data, struct span line)
{
	struct span name, value;

	/* an answer is as long as its container likes, within HTTP1_HEAD_MAX */
	if (++scan->fields > HTTP1_FIELDS_MAX && !scan->status)
		return -431;
	if (split_field(line, &name, &value))
		return -400;
	if (is_word(name, "host") && !scan->status)
		return note_host(scan, data, value);
	if (is_word(name, "content-length"))
		return note_length(scan, value);
	if (is_word(name, "transfer-encoding"))
		note_coding(scan, value);
	else if (is_word(name, "connection"))
		note_connection(scan, value);
	else if (is_word(name, "upgrade"))
		scan->upgrade |= value.len > 0;
	return 0;
}

/* The authority of an absolute-form target; -400 where there is none that could be routed. */
static int parse_absolute(struct http1_scan *scan, const char *data, struct span target)
{
	char name[HOSTNAME_MAX + 1];
	struct span authority;
	size_t scheme = 0;

	if (target.len > 7 && is_word((struct span){ target.at, 7 }, "http://"))
		scheme = 7;
	else if (target.len > 8 && is_word((struct span){ target.at, 8 }, "https://"))
		scheme = 8;
	else
		return -400;
	authority = (struct span){ target.at + scheme, 0 };
	while (authority.len < target.len - scheme && authority.at[authority.len] != '/' &&
	       authority.at[authority.len] != '?')
		authority.len++;
	/* an '@', of userinfo (RFC 9110, 4.2.4), is in no host name */
	if (!authority.len || hostname_from_authority(authority.at, authority.len, name))
		return -400;
	scan->target_at = (uint32_t)(authority.at - data);
	scan->target_len = (uint32_t)authority.len;
	return 0;
}

static int parse_target(struct http1_scan *scan, const char *data, struct span method,
			struct span target)
{
	for (size_t i = 0; i < target.len; i++) {
		/* a fragment is no part of a target */
		if (target.at[i] <= ' ' || target.at[i] > '~' || target.at[i] == '#')
			return -400;
	}
	if (!target.len)
		return -400;
	if (is_exactly(method, "CONNECT"))
		return -405;
	if (*target.at == '/')
		return 0;
	if (is_exactly(target, "*"))
		return is_exactly(method, "OPTIONS") ? 0 : -400;
	return parse_absolute(scan, data, target);
}

/* "HTTP/1.0" or "HTTP/1.1", and nothing else of that length. */
static int parse_version(struct http1_scan *scan, struct span version)
{
	scan->version_1_0 = is_exactly(version, "HTTP/1.0");
	return scan->version_1_0 || is_exactly(version, "HTTP/1.1") ? 0 : -400;
}

/* method SP target SP version, single blanks (RFC 9112, 3). */
static int parse_request_line(struct http1_scan *scan, const char *data, struct span line)
{
	const char *first = memchr(line.at, ' ', line.len);
	const char *last = memrchr(line.at, ' ', line.len);
	const char *end = line.at + line.len;
	struct span method;

	if (!first)
		return -400;
	method = (struct span){ line.at, (size_t)(first - line.at) };
	if (!is_token(method))
		return -400;
	scan->method_len = (uint16_t)method.len;
	if (first == last ||
	    parse_version(scan, (struct span){ last + 1, (size_t)(end - last) - 1 }))
		return -400;
	return parse_target(scan, data, method,
			    (struct span){ first + 1, (size_t)(last - first) - 1 });
}

/* version SP 3DIGIT, then SP and a reason or nothing (RFC 9112, 4). */
static int parse_status_line(struct http1_scan *scan, const char *data, struct span line)
{
	uint64_t status;

	(void)data;
	if (line.len < 12 || parse_version(scan, (struct span){ line.at, 8 }) ||
	    line.at[8] != ' ' || number_parse(line.at + 9, 3, 100, 999, &status))
		return -502;
	if ((line.len > 12 && line.at[12] != ' ') || !is_text(line))
		return -502;
	scan->status = (uint16_t)status;
	return 0;
}

typedef int parse_line(struct http1_scan *scan, const char *data, struct span line);

/* Every line that has ended since the last call: the head's length, 0, or a status. */
static int read_lines(struct http1_scan *scan, const char *data, size_t len, parse_line *first_line)
{
	size_t limit = len < HTTP1_HEAD_MAX ? len : HTTP1_HEAD_MAX;
	const char *lf;

	while ((lf = memchr(data + scan->seen, '\n', limit - scan->seen))) {
		struct span line = { data + scan->line, (size_t)(lf - data) - scan->line };
		int err;

		/* no rule for a line's content allows a CR: it is here or nowhere */
		if (!line.len || line.at[--line.len] != '\r')
			return -400;
		scan->line = scan->seen = (uint32_t)(lf - data) + 1;
		if (scan->first_done && !line.len)
			return (int)scan->line;
		err = scan->first_done ? parse_field(scan, data, line)
				       : first_line(scan, data, line);
		if (err)
			return err;
		scan->first_done = true;
	}
	scan->seen = (uint32_t)limit;
	return len < HTTP1_HEAD_MAX ? 0 : -431;
}

/* One empty line before the request is none of its own; 1: what follows may begin a request. */
static int skip_empty_line(struct http1_scan *scan, const char *data, size_t len)
{
	if (!scan->skip && len && *data == '\r') {
		if (len == 1)
			return 0;
		if (data[1] != '\n')
			return -400;
		scan->skip = scan->line = scan->seen = 2;
	}
	if (len == scan->skip)
		return 0;
	/* what cannot become a method is refused at once: a TLS hello may never bring a line end */
	return is_token_char(data[scan->skip]) ? 1 : -400;
}

static int weigh_host(const struct http1_scan *scan, const char *data, struct http1_request *out)
{
	char target[HOSTNAME_MAX + 1];

	if (scan->has_host &&
	    hostname_from_authority(data + scan->host_at, scan->host_len, out->host))
		return -400;
	if (scan->target_len) {
		if (hostname_from_authority(data + scan->target_at, scan->target_len, target))
			return -400;
		if (scan->has_host && strcmp(out->host, target))
			return -400;
		memcpy(out->host, target, strlen(target) + 1);
	}
	/* the field has to be there in HTTP/1.1, and to name somebody */
	return (scan->has_host && *out->host) || scan->version_1_0 ? 0 : -400;
}

/* Everything that is wrong comes before what is only not supported. */
static int weigh_request(const struct http1_scan *scan, const char *data, struct http1_request *out)
{
	if (scan->has_length && scan->has_coding)
		return -400;
	if (scan->has_coding && scan->version_1_0)
		return -400; /* RFC 9112, 6.1: framing is faulty */
	if (weigh_host(scan, data, out))
		return -400;
	if (scan->not_chunked)
		return -501;
	if (scan->has_coding)
		out->framing = HTTP1_CHUNKED;
	else if (scan->length)
		out->framing = HTTP1_LENGTH;
	out->length = scan->length;
	out->upgrade = scan->upgrade && scan->connection_upgrade && !scan->version_1_0;
	out->keep_alive = (!scan->version_1_0 || scan->connection_keep_alive) &&
			  !scan->connection_close;
	return 0;
}

static bool is_repeatable(struct span method)
{
	static const char *const methods[] = { "GET", "HEAD", "OPTIONS", "TRACE", "PUT", "DELETE" };

	for (size_t i = 0; i < sizeof(methods) / sizeof(*methods); i++) {
		if (is_exactly(method, methods[i]))
			return true;
	}
	return false;
}

/* What the request line said, whatever became of it. */
static void tell_first_line(const struct http1_scan *scan, const char *data,
			    struct http1_request *out)
{
	struct span method = { data + scan->skip, scan->method_len };
	size_t kept = method.len < HTTP1_METHOD_MAX ? method.len : HTTP1_METHOD_MAX;

	memset(out, 0, sizeof(*out));
	out->skip = scan->skip;
	if (!method.len)
		return;
	memcpy(out->method, method.at, kept);
	out->head = is_exactly(method, "HEAD");
	out->repeatable = is_repeatable(method);
	out->version_1_0 = scan->version_1_0;
}

int http1_request(struct http1_scan *scan, const char *data, size_t len, struct http1_request *out)
{
	int verdict = scan->first_done ? 1 : skip_empty_line(scan, data, len);
	int err;

	if (verdict > 0)
		verdict = read_lines(scan, data, len, parse_request_line);
	tell_first_line(scan, data, out);
	if (verdict <= 0)
		return verdict;
	err = weigh_request(scan, data, out);
	return err ? err : verdict;
}

/* How an answer ends (RFC 9112, 6.3). */
static int weigh_framing(const struct http1_scan *scan, const struct http1_request *asked,
			 struct http1_response *out)
{
	bool bare = scan->status < 200 || scan->status == 204; /* no body, nor its framing */

	if (scan->has_coding && (scan->has_length || scan->not_chunked || scan->version_1_0))
		return -502;
	if (bare && (scan->has_coding || scan->length))
		return -502;
	if (scan->status == 101 && !asked->upgrade)
		return -502;
	out->framing = HTTP1_NONE;
	out->length = 0;
	if (scan->status == 101) {
		out->framing = HTTP1_TO_EOF;
	} else if (bare || scan->status == 304 || asked->head) {
		return 0;
	} else if (scan->has_coding) {
		out->framing = HTTP1_CHUNKED;
	} else if (scan->length) {
		out->framing = HTTP1_LENGTH;
		out->length = scan->length;
	} else if (!scan->has_length) {
		out->framing = HTTP1_TO_EOF;
	}
	return 0;
}

int http1_response(struct http1_scan *scan, const char *data, size_t len,
		   const struct http1_request *asked, struct http1_response *out)
{
	static const char start[] = "HTTP/1.";
	size_t known = len < sizeof(start) - 1 ? len : sizeof(start) - 1;
	int verdict;

	if (!len)
		return 0;
	/* a banner of something else may be shorter than a line, and its sender wait behind it */
	if (memcmp(data, start, known))
		return -502;
	verdict = read_lines(scan, data, len, parse_status_line);
	if (!verdict)
		return 0;
	if (verdict < 0 || weigh_framing(scan, asked, out))
		return -502;
	out->status = scan->status;
	/* who speaks HTTP/1.0 takes the connection for closed unless told otherwise */
	out->keep_alive = out->framing != HTTP1_TO_EOF && !scan->connection_close &&
			  (scan->connection_keep_alive ||
			   !(scan->version_1_0 || asked->version_1_0));
	return verdict;
}

/*
 * Length of the line at data, its CRLF included, 0 where it has not all come, or -EBADMSG where it
 * ends wrongly or not within `max`.
 */
static ssize_t line_length(const char *data, size_t len, size_t max)
{
	const char *lf = memchr(data, '\n', len < max ? len : max);
	size_t n = lf ? (size_t)(lf - data) + 1 : len;
	const char *cr = memchr(data, '\r', n);

	/* the first CR is the one before the LF, or may still become that */
	if (lf)
		return cr && cr + 1 == lf ? (ssize_t)n : -EBADMSG;
	if (len >= max || (cr && cr + 1 != data + len))
		return -EBADMSG;
	return 0;
}

static int hex_digit(char c)
{
	if (c >= '0' && c <= '9')
		return c - '0';
	if (c >= 'A' && c <= 'F')
		return c - 'A' + 10;
	return c >= 'a' && c <= 'f' ? c - 'a' + 10 : -1;
}

/* Chunk extensions (RFC 9112, 7.1.1) from behind the first ';': what leads to which state. */
enum { BAD, BEFORE_NAME, NAME, AFTER_NAME, BEFORE_VALUE, VALUE, QUOTED, ESCAPED, QUOTE_END,
       AFTER_VALUE, STATES };
enum { C_CONTROL, C_TEXT, C_TOKEN, C_BLANK, C_EQUALS, C_SEMICOLON, C_QUOTE, C_BACKSLASH, CLASSES };

static const unsigned char extension_steps[STATES][CLASSES] = {
	[BEFORE_NAME] = { [C_BLANK] = BEFORE_NAME, [C_TOKEN] = NAME },
	[NAME] = { [C_TOKEN] = NAME, [C_BLANK] = AFTER_NAME, [C_EQUALS] = BEFORE_VALUE,
		   [C_SEMICOLON] = BEFORE_NAME },
	[AFTER_NAME] = { [C_BLANK] = AFTER_NAME, [C_EQUALS] = BEFORE_VALUE,
			 [C_SEMICOLON] = BEFORE_NAME },
	[BEFORE_VALUE] = { [C_BLANK] = BEFORE_VALUE, [C_TOKEN] = VALUE, [C_QUOTE] = QUOTED },
	[VALUE] = { [C_TOKEN] = VALUE, [C_BLANK] = AFTER_VALUE, [C_SEMICOLON] = BEFORE_NAME },
	[QUOTED] = { [C_TEXT ... C_SEMICOLON] = QUOTED, [C_QUOTE] = QUOTE_END,
		     [C_BACKSLASH] = ESCAPED },
	[ESCAPED] = { [C_TEXT ... C_BACKSLASH] = QUOTED },
	[QUOTE_END] = { [C_BLANK] = AFTER_VALUE, [C_SEMICOLON] = BEFORE_NAME },
	[AFTER_VALUE] = { [C_BLANK] = AFTER_VALUE, [C_SEMICOLON] = BEFORE_NAME },
};

static unsigned int class_of(char c)
{
	static const unsigned char classes[] = {
		[' '] = C_BLANK, ['\t'] = C_BLANK, ['='] = C_EQUALS,
		[';'] = C_SEMICOLON, ['"'] = C_QUOTE, ['\\'] = C_BACKSLASH,
	};
	unsigned char u = (unsigned char)c;

	if (u < sizeof(classes) && classes[u])
		return classes[u];
	return is_token_char(c) ? C_TOKEN : is_text_char(c) ? C_TEXT : C_CONTROL;
}

static bool check_extensions(struct span text, bool whole)
{
	unsigned int state = BEFORE_NAME;

	for (size_t i = 0; i < text.len; i++)
		state = extension_steps[state][class_of(text.at[i])]; /* nothing leads out of BAD */
	return whole ? state == NAME || state == VALUE || state == QUOTE_END : state != BAD;
}

/* 1*HEXDIG and extensions, without the CRLF; or, not `whole`, what may become that. */
static int parse_size(struct span line, bool whole, uint64_t *size)
{
	size_t digits;

	*size = 0;
	for (digits = 0; digits < line.len; digits++) {
		int digit = hex_digit(line.at[digits]);

		if (digit < 0)
			break;
		if (*size > LENGTH_MAX >> 4)
			return -EBADMSG;
		*size = *size << 4 | (uint64_t)digit;
	}
	if (!digits)
		return -EBADMSG;
	if (digits == line.len)
		return 0;
	if (line.at[digits] != ';')
		return -EBADMSG;
	line = (struct span){ line.at + digits + 1, line.len - digits - 1 };
	return check_extensions(line, whole) ? 0 : -EBADMSG;
}

static ssize_t step_size(struct http1_body *body, const char *data, size_t len)
{
	ssize_t n = line_length(data, len, HTTP1_LINE_MAX);
	struct span line = { data, 0 };
	bool whole = n > 0;
	uint64_t size;

	if (n < 0)
		return n;
	/* for what is bad already nobody waits; but few bytes are looked at more than once */
	line.len = n ? (size_t)n - 1 : len < EARLY_MAX ? len : EARLY_MAX;
	if (data[line.len - 1] == '\r') {
		line.len--;
		whole = true;
	}
	if (parse_size(line, whole, &size))
		return -EBADMSG;
	if (n) {
		body->left = size;
		body->state = size ? HTTP1_BODY_DATA : HTTP1_BODY_TRAILER;
	}
	return n;
}

/* An empty line: 2, 0 where half of it is missing. */
static ssize_t step_crlf(struct http1_body *body, const char *data, size_t len,
			 enum http1_body_state next)
{
	if (*data != '\r' || (len > 1 && data[1] != '\n'))
		return -EBADMSG;
	if (len == 1)
		return 0;
	body->state = next;
	return 2;
}

/* A field that would have framed or routed the message comes too late for that. */
static bool may_trail(struct span line)
{
	struct span name, value;

	return !split_field(line, &name, &value) && !is_word(name, "content-length") &&
	       !is_word(name, "transfer-encoding") && !is_word(name, "host");
}

static ssize_t step_trailer(struct http1_body *body, const char *data, size_t len)
{
	ssize_t n;

	if (*data == '\r')
		return step_crlf(body, data, len, HTTP1_BODY_DONE);
	if (!is_token_char(*data) || body->trailer_fields == HTTP1_FIELDS_MAX)
		return -EBADMSG;
	n = line_length(data, len, HTTP1_LINE_MAX - body->trailer_bytes);
	if (n <= 0)
		return n;
	if (!may_trail((struct span){ data, (size_t)n - 2 }))
		return -EBADMSG;
	body->trailer_bytes += (unsigned int)n;
	body->trailer_fields++;
	return n;
}

static ssize_t step_opaque(struct http1_body *body, size_t len)
{
	uint64_t opaque = http1_body_opaque(body);
	size_t n = opaque < len ? (size_t)opaque : len;

	http1_body_skip(body, n);
	return (ssize_t)n;
}

/* The bytes of what is next that have come, 0 where they are too few to tell, or -EBADMSG. */
static ssize_t step(struct http1_body *body, const char *data, size_t len)
{
	switch (body->state) {
	case HTTP1_BODY_LENGTH:
	case HTTP1_BODY_TO_EOF:
	case HTTP1_BODY_DATA:
		return step_opaque(body, len);
	case HTTP1_BODY_SIZE:
		return step_size(body, data, len);
	case HTTP1_BODY_DATA_END:
		return step_crlf(body, data, len, HTTP1_BODY_SIZE);
	case HTTP1_BODY_TRAILER:
		return step_trailer(body, data, len);
	default:
		return 0;
	}
}

void http1_body_start(struct http1_body *body, enum http1_framing framing, uint64_t length)
{
	*body = (struct http1_body){ .state = HTTP1_BODY_DONE };
	if (framing == HTTP1_TO_EOF) {
		body->state = HTTP1_BODY_TO_EOF;
	} else if (framing == HTTP1_CHUNKED) {
		body->state = HTTP1_BODY_SIZE;
	} else if (framing == HTTP1_LENGTH && length) {
		body->state = HTTP1_BODY_LENGTH;
		body->left = length;
	}
}

size_t http1_body_feed(struct http1_body *body, const char *data, size_t len, int *err)
{
	size_t at = 0;

	*err = 0;
	while (at < len) {
		ssize_t n = step(body, data + at, len - at);

		if (n < 0)
			*err = (int)n;
		if (n <= 0)
			break;
		at += (size_t)n;
	}
	return at;
}

uint64_t http1_body_opaque(const struct http1_body *body)
{
	if (body->state == HTTP1_BODY_TO_EOF)
		return UINT64_MAX;
	return body->state == HTTP1_BODY_LENGTH || body->state == HTTP1_BODY_DATA ? body->left : 0;
}

void http1_body_skip(struct http1_body *body, uint64_t n)
{
	if (body->state != HTTP1_BODY_LENGTH && body->state != HTTP1_BODY_DATA)
		return;
	body->left -= n;
	if (!body->left)
		body->state = body->state == HTTP1_BODY_DATA ? HTTP1_BODY_DATA_END : HTTP1_BODY_DONE;
}
