// SPDX-License-Identifier: MIT
/*
 * The chunked coding: http1_body_feed() and its passing of bytes unseen, against a second reading
 * of the grammar (RFC 9112, 7.1).
 */
#include <ctype.h>
#include <errno.h>

#include "fuzz.h"
#include "http1.h"

/* A reader that goes back and forth in a text which is all there. */
struct text {
	const char *at, *end;
};

static bool next_is(struct text *text, const char *one_of)
{
	return text->at < text->end && *text->at && strchr(one_of, *text->at);
}

static bool read_token(struct text *text)
{
	const char *begin = text->at;

	while (text->at < text->end && ((*text->at > 0 && isalnum(*text->at)) ||
					next_is(text, "!#$%&'*+-.^_`|~")))
		text->at++;
	return text->at > begin;
}

static void read_blanks(struct text *text)
{
	while (next_is(text, " \t"))
		text->at++;
}

static bool is_printed(char c)
{
	return c == '\t' || ((unsigned char)c >= ' ' && c != 0x7f);
}

static bool read_quoted(struct text *text)
{
	for (text->at++; text->at < text->end && *text->at != '"'; text->at++) {
		if (*text->at == '\\')
			text->at++;
		if (text->at >= text->end || !is_printed(*text->at))
			return false;
	}
	return text->at++ < text->end;
}

/* Behind the size, up to the CRLF. Blanks before the first ';' and at the end are refused. */
static bool read_extensions(struct text *text)
{
	for (bool first = true; text->at < text->end; first = false) {
		if (!first)
			read_blanks(text);
		if (!next_is(text, ";"))
			return false;
		text->at++;
		read_blanks(text);
		if (!read_token(text))
			return false;
		if (text->at == text->end)
			break;
		struct text ahead = *text;

		read_blanks(&ahead);
		if (!next_is(&ahead, "="))
			continue;
		*text = ahead;
		text->at++;
		read_blanks(text);
		if (next_is(text, "\"") ? !read_quoted(text) : !read_token(text))
			return false;
	}
	return true;
}

static bool read_size(struct text *line, uint64_t *size)
{
	const char *begin = line->at;
	char digits[17] = "";

	while (line->at < line->end && *line->at > 0 && isxdigit(*line->at))
		line->at++;
	if (line->at == begin)
		return false;
	while (begin < line->at && *begin == '0')
		begin++;
	if (line->at - begin > 16)
		return false;
	memcpy(digits, begin, (size_t)(line->at - begin));
	*size = strtoull(digits, NULL, 16);
	return *size <= INT64_MAX && read_extensions(line);
}

static bool read_trailer(struct text *line)
{
	static const char *const late[] = { "Host:", "Content-Length:", "Transfer-Encoding:" };
	const char *begin = line->at;

	if (!read_token(line) || !next_is(line, ":"))
		return false;
	for (size_t i = 0; i < sizeof(late) / sizeof(*late); i++) {
		/* no longer than what there is: libFuzzer's own hook in strncasecmp() reads it all */
		if (line->at + 1 - begin == (ssize_t)strlen(late[i]) &&
		    !strncasecmp(begin, late[i], strlen(late[i])))
			return false;
	}
	while (line->at < line->end && is_printed(*line->at))
		line->at++;
	return line->at == line->end;
}

/* A line without its CRLF; false where there is none, whole and well ended. */
static bool read_line(struct text *text, struct text *line)
{
	const char *lf = memchr(text->at, '\n', (size_t)(text->end - text->at));

	if (!lf || lf == text->at || lf[-1] != '\r')
		return false;
	*line = (struct text){ text->at, lf - 1 };
	text->at = lf + 1;
	return true;
}

/* How many bytes of the input are whole lines and data of a body; *all: the body ends there. */
static size_t second_reading(const char *data, size_t len, bool *all)
{
	struct text text = { data, data + len }, line, rest = text;
	uint64_t size;

	*all = false;
	while (read_line(&rest, &line)) {
		if (!read_size(&line, &size))
			return (size_t)(text.at - data);
		text = rest;
		if (!size)
			break;
		if ((uint64_t)(text.end - text.at) < size)
			return len;
		text.at += size;
		rest = text;
		if (!read_line(&rest, &line) || line.at != line.end)
			return (size_t)(text.at - data);
		text = rest;
	}
	if (text.at == data || rest.at != text.at || size)
		return (size_t)(text.at - data);
	while (read_line(&rest, &line)) {
		if (line.at == line.end)
			*all = true;
		else if (!read_trailer(&line))
			break;
		text = rest;
		if (*all)
			break;
	}
	return (size_t)(text.at - data);
}

struct reader {
	struct http1_body body;
	size_t at;
	int err;
	bool unseen; /* what may pass unseen does */
};

/* As the agent does when data goes from socket to socket without it. */
static void pass_unseen(struct reader *reader, size_t len)
{
	uint64_t n = http1_body_opaque(&reader->body);

	if (n > len - reader->at)
		n = len - reader->at;
	http1_body_skip(&reader->body, n);
	reader->at += (size_t)n;
}

static void look_at(void *state, const char *data, size_t len)
{
	struct reader *reader = state;
	size_t n;

	if (reader->err)
		return;
	if (reader->unseen)
		pass_unseen(reader, len);
	n = http1_body_feed(&reader->body, data + reader->at, len - reader->at, &reader->err);
	expect(n <= len - reader->at);
	reader->at += n;
	expect(!reader->err || reader->err == -EBADMSG);
	if (!reader->err)
		return;
	/* nothing behind a fault may pass, however often one asks */
	expect(!http1_body_feed(&reader->body, data + reader->at, len - reader->at, &reader->err));
	expect(reader->err == -EBADMSG);
}

static void expect_same(const struct reader *a, const struct reader *b)
{
	expect(a->at == b->at && a->err == b->err && a->body.state == b->body.state);
	expect(a->body.left == b->body.left);
	expect(a->body.trailer_bytes == b->body.trailer_bytes);
	expect(a->body.trailer_fields == b->body.trailer_fields);
}

/* Except for the limits, which the second reading does not know. */
static void expect_right(const struct reader *reader, const char *data, size_t len)
{
	bool all;
	size_t right = second_reading(data, len, &all);
	bool limited = len > HTTP1_LINE_MAX || reader->body.trailer_fields == HTTP1_FIELDS_MAX;

	expect(limited || reader->at == right);
	expect(limited || all == (reader->body.state == HTTP1_BODY_DONE));
	/* a line that has ended is right or wrong, but not incomplete */
	if (reader->body.state != HTTP1_BODY_DONE && !reader->err)
		expect(!memchr(data + reader->at, '\n', len - reader->at));
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t len);
int LLVMFuzzerTestOneInput(const uint8_t *data, size_t len)
{
	struct reader readers[DELIVERIES] = { 0 };

	for (unsigned int how = WHOLE; how < DELIVERIES; how++) {
		readers[how].unseen = input_hash(data, len) >> how & 1;
		http1_body_start(&readers[how].body, HTTP1_CHUNKED, 0);
		deliver(how, data, len, look_at, &readers[how]);
		expect_same(&readers[WHOLE], &readers[how]);
	}
	expect_right(&readers[WHOLE], (const char *)data, len);
	return 0;
}
