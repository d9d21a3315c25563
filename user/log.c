// SPDX-License-Identifier: MIT
#include "log.h"

#include <stdarg.h>
#include <stdio.h>
#include <string.h>
#include <time.h>
#include <unistd.h>

#define LINE_MAX_BYTES 4096

struct line {
	char data[LINE_MAX_BYTES];
	size_t len;
	size_t limit; /* leaves room for what must follow */
};

static enum log_level threshold = LOG_LEVEL_INFO;
static enum log_format format = LOG_FORMAT_JSON;

static const char *const level_names[] = {
	[LOG_LEVEL_DEBUG] = "DEBUG",
	[LOG_LEVEL_INFO] = "INFO",
	[LOG_LEVEL_WARN] = "WARN",
	[LOG_LEVEL_ERROR] = "ERROR",
	[LOG_LEVEL_ACCESS] = "INFO",
};
_Static_assert(sizeof(level_names) / sizeof(*level_names) == LOG_LEVEL_ACCESS + 1, "one a level");

void log_setup(enum log_level level, enum log_format fmt)
{
	threshold = level;
	format = fmt;
}

bool log_enabled(enum log_level level)
{
	return level >= threshold;
}

const char *log_number(long long n)
{
	static _Thread_local char ring[8][24];
	static _Thread_local unsigned int next;
	char *out = ring[next++ % 8];

	snprintf(out, sizeof(ring[0]), "%lld", n);
	return out;
}

static void put(struct line *line, const char *text, size_t len)
{
	if (line->len + len > line->limit)
		len = line->limit - line->len;
	memcpy(line->data + line->len, text, len);
	line->len += len;
}

static void put_text(struct line *line, const char *text)
{
	put(line, text, strlen(text));
}

/* Bytes outside of printable ASCII are escaped, whatever their encoding: a log is for terminals. */
static void put_quoted(struct line *line, const char *value)
{
	char escape[8];

	put(line, "\"", 1);
	for (const unsigned char *p = (const unsigned char *)value; *p; p++) {
		if (line->len + 8 > line->limit)
			break;
		if (*p == '"' || *p == '\\') {
			escape[0] = '\\';
			escape[1] = (char)*p;
			put(line, escape, 2);
		} else if (*p < 0x20 || *p >= 0x7f) {
			snprintf(escape, sizeof(escape), "\\u%04x", *p);
			put(line, escape, 6);
		} else {
			put(line, (const char *)p, 1);
		}
	}
	put(line, "\"", 1);
}

static void put_time(struct line *line)
{
	struct timespec now;
	struct tm utc;
	char text[40];
	size_t len;

	clock_gettime(CLOCK_REALTIME, &now);
	gmtime_r(&now.tv_sec, &utc);
	len = strftime(text, sizeof(text), "%Y-%m-%dT%H:%M:%S", &utc);
	snprintf(text + len, sizeof(text) - len, ".%06ldZ", now.tv_nsec / 1000);
	put_text(line, text);
}

static void put_head(struct line *line, enum log_level level, const char *msg)
{
	if (format == LOG_FORMAT_JSON) {
		put_text(line, "{\"time\":\"");
		put_time(line);
		put_text(line, "\",\"level\":\"");
		put_text(line, level_names[level]);
		put_text(line, "\",\"msg\":");
		put_quoted(line, msg);
	} else {
		put_time(line);
		put_text(line, " ");
		put_text(line, level_names[level]);
		put_text(line, " ");
		put_text(line, msg);
	}
}

static void put_attribute(struct line *line, const char *name, const char *value)
{
	bool number = *name == '#';

	name += number;
	if (format == LOG_FORMAT_JSON) {
		put_text(line, ",\"");
		put_text(line, name);
		put_text(line, "\":");
	} else {
		put_text(line, " ");
		put_text(line, name);
		put_text(line, "=");
	}
	if (number)
		put_text(line, value);
	else
		put_quoted(line, value);
}

static size_t quoted_len(const char *value)
{
	size_t len = 2;

	for (const unsigned char *p = (const unsigned char *)value; *p; p++)
		len += *p == '"' || *p == '\\' ? 2 : *p < 0x20 || *p >= 0x7f ? 6 : 1;
	return len;
}

void log_write(enum log_level level, const char *msg, ...)
{
	struct line line = { .limit = LINE_MAX_BYTES - 4 };
	const char *name, *value;
	va_list args;
	ssize_t n;

	if (!log_enabled(level))
		return;
	put_head(&line, level, msg);
	va_start(args, msg);
	while ((name = va_arg(args, const char *))) {
		value = va_arg(args, const char *);
		/* an attribute that does not fit is left out whole, so that the line stays JSON */
		if (value && line.len + strlen(name) + quoted_len(value) + 12 < line.limit)
			put_attribute(&line, name, value);
	}
	va_end(args);
	line.limit = LINE_MAX_BYTES;
	put_text(&line, format == LOG_FORMAT_JSON ? "}\n" : "\n");
	n = write(STDOUT_FILENO, line.data, line.len);
	(void)n; /* nobody is left to be told */
}
