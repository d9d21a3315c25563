/* SPDX-License-Identifier: MIT */
/* A thin layer over cJSON, which json.c alone includes. Every getter takes NULL for "not there". */
#ifndef KKM_JSON_H
#define KKM_JSON_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

struct json; /* a cJSON node */

/* NULL where the text is no JSON, or trailed by something else. The caller frees the root. */
struct json *json_parse(const char *text, size_t len);
/* As json_parse(); where it is NULL, *wrong_at is how far the text could be read. */
struct json *json_parse_at(const char *text, size_t len, size_t *wrong_at);
void json_free(struct json **root);

const struct json *json_get(const struct json *object, const char *name);
/* By a path of names: json_at(root, "Actor", "Attributes", NULL). */
const struct json *json_at(const struct json *object, ...) __attribute__((sentinel));
/* The text of a string member, `otherwise` where it is missing or no string. */
const char *json_str(const struct json *object, const char *name, const char *otherwise);
/* The value of a string node itself, NULL where it is no string. */
const char *json_text(const struct json *node);
int64_t json_int(const struct json *object, const char *name, int64_t otherwise);
bool json_flag(const struct json *object, const char *name); /* true, and not missing */
bool json_is_array(const struct json *node);
bool json_is_object(const struct json *node);
const struct json *json_first(const struct json *container);
const struct json *json_next(const struct json *node);
const char *json_name(const struct json *node);

#define json_each(node, container)                                                                 \
	for (const struct json *node = json_first(container); node; node = json_next(node))

/* Building. An allocation that fails leaves the member out. The container owns what is added. */
struct json *json_object(void);
struct json *json_add_object(struct json *parent, const char *name);
struct json *json_add_array(struct json *parent, const char *name);
struct json *json_append_object(struct json *array);
void json_add_str(struct json *object, const char *name, const char *text);
void json_add_int(struct json *object, const char *name, int64_t value);
void json_add_bool(struct json *object, const char *name, bool value);
void json_add_null(struct json *object, const char *name);
/* Malloced, the caller frees it; NULL without memory. */
char *json_print(const struct json *root, bool pretty);
const char *json_library_version(void);

/*
 * Cuts a stream of JSON objects, as Docker's /events sends it, at their ends. Give it bytes as they
 * arrive; `object` is called with each whole one. 0, or -EMSGSIZE when one is larger than `limit`
 * and -EPROTO when something else than an object stands between two.
 */
struct json_stream {
	char *data;
	size_t len, capacity, limit;
	unsigned int depth;
	bool in_string, escaped;
};

int json_stream_feed(struct json_stream *stream, const char *data, size_t len,
		     void (*object)(void *ctx, const char *text, size_t len), void *ctx);
void json_stream_reset(struct json_stream *stream);

#endif
