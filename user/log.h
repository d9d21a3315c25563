/* SPDX-License-Identifier: MIT */
/*
 * One line a record on stdout, JSON or text, any thread: a line is one write(2). Attribute values
 * are escaped, since peers and container labels are among them.
 *
 *	log_info("Adding Docker tunnel", "domain", domain, "target", target, NULL);
 *
 * Attributes are pairs of strings ended by NULL; a value may be NULL (the pair is left out). A name
 * that begins with '#' is printed without it and its value as a number.
 */
#ifndef KKM_LOG_H
#define KKM_LOG_H

#include <stdbool.h>

enum log_level {
	LOG_LEVEL_DEBUG,
	LOG_LEVEL_INFO,
	LOG_LEVEL_WARN,
	LOG_LEVEL_ERROR,
	LOG_LEVEL_ACCESS, /* an event that was asked for: always written, as INFO */
};
enum log_format { LOG_FORMAT_JSON, LOG_FORMAT_TEXT };

void log_setup(enum log_level level, enum log_format format);
bool log_enabled(enum log_level level);
void log_write(enum log_level level, const char *msg, ...) __attribute__((sentinel));

#define log_debug(...)                                                                             \
	do {                                                                                       \
		if (log_enabled(LOG_LEVEL_DEBUG))                                                  \
			log_write(LOG_LEVEL_DEBUG, __VA_ARGS__);                                   \
	} while (0)
#define log_info(...) log_write(LOG_LEVEL_INFO, __VA_ARGS__)
#define log_warn(...) log_write(LOG_LEVEL_WARN, __VA_ARGS__)
#define log_error(...) log_write(LOG_LEVEL_ERROR, __VA_ARGS__)

/* A number as a string, valid until the eighth following call in this thread. */
const char *log_number(long long n);

#endif
