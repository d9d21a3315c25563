// SPDX-License-Identifier: MIT
#include "json.h"

#include <cjson/cJSON.h>
#include <errno.h>
#include <stdarg.h>
#include <stdlib.h>
#include <string.h>

static const cJSON *in(const struct json *node)
{
	return (const cJSON *)node;
}

static cJSON *mutable(struct json *node)
{
	return (cJSON *)node;
}

struct json *json_parse_at(const char *text, size_t len, size_t *wrong_at)
{
	const char *end = text;
	cJSON *root = cJSON_ParseWithLengthOpts(text, len, &end, false);

	if (root) {
		while (end < text + len && *end && strchr(" \t\r\n", *end))
			end++;
		if (end == text + len)
			return (struct json *)root;
		cJSON_Delete(root);
	}
	*wrong_at = (size_t)(end - text);
	return NULL;
}

struct json *json_parse(const char *text, size_t len)
{
	size_t wrong_at;

	return json_parse_at(text, len, &wrong_at);
}

void json_free(struct json **root)
{
	cJSON_Delete(mutable(*root));
	*root = NULL;
}

const struct json *json_get(const struct json *object, const char *name)
{
	return (const struct json *)cJSON_GetObjectItemCaseSensitive(in(object), name);
}

const struct json *json_at(const struct json *object, ...)
{
	const char *name;
	va_list names;

	va_start(names, object);
	while (object && (name = va_arg(names, const char *)))
		object = json_get(object, name);
	va_end(names);
	return object;
}

const char *json_text(const struct json *node)
{
	return cJSON_IsString(in(node)) ? in(node)->valuestring : NULL;
}

const char *json_str(const struct json *object, const char *name, const char *otherwise)
{
	const char *text = json_text(json_get(object, name));

	return text ? text : otherwise;
}

int64_t json_int(const struct json *object, const char *name, int64_t otherwise)
{
	const cJSON *node = in(json_get(object, name));

	if (!cJSON_IsNumber(node) || node->valuedouble < -9e18 || node->valuedouble > 9e18)
		return otherwise;
	return (int64_t)node->valuedouble;
}

bool json_is_array(const struct json *node)
{
	return cJSON_IsArray(in(node));
}

bool json_is_object(const struct json *node)
{
	return cJSON_IsObject(in(node));
}

const struct json *json_first(const struct json *container)
{
	return container ? (const struct json *)in(container)->child : NULL;
}

const struct json *json_next(const struct json *node)
{
	return (const struct json *)in(node)->next;
}

const char *json_name(const struct json *node)
{
	return in(node)->string ? in(node)->string : "";
}

struct json *json_object(void)
{
	return (struct json *)cJSON_CreateObject();
}

struct json *json_add_object(struct json *parent, const char *name)
{
	return (struct json *)cJSON_AddObjectToObject(mutable(parent), name);
}

struct json *json_add_array(struct json *parent, const char *name)
{
	return (struct json *)cJSON_AddArrayToObject(mutable(parent), name);
}

struct json *json_append_object(struct json *array)
{
	cJSON *object = cJSON_CreateObject();

	if (object && !cJSON_AddItemToArray(mutable(array), object)) {
		cJSON_Delete(object);
		return NULL;
	}
	return (struct json *)object;
}

void json_add_str(struct json *object, const char *name, const char *text)
{
	if (text)
		cJSON_AddStringToObject(mutable(object), name, text);
	else
		cJSON_AddNullToObject(mutable(object), name);
}

void json_add_int(struct json *object, const char *name, int64_t value)
{
	cJSON_AddNumberToObject(mutable(object), name, (double)value);
}

void json_add_bool(struct json *object, const char *name, bool value)
{
	cJSON_AddBoolToObject(mutable(object), name, value);
}

void json_add_null(struct json *object, const char *name)
{
	cJSON_AddNullToObject(mutable(object), name);
}

char *json_print(const struct json *root, bool pretty)
{
	return pretty ? cJSON_Print(in(root)) : cJSON_PrintUnformatted(in(root));
}

static int keep(struct json_stream *stream, char byte)
{
	if (stream->len == stream->limit)
		return -EMSGSIZE;
	if (stream->len == stream->capacity) {
		size_t capacity = stream->capacity ? stream->capacity * 2 : 4096;
		char *data;

		data = realloc(stream->data, capacity);
		if (!data)
			return -ENOMEM;
		stream->data = data;
		stream->capacity = capacity;
	}
	stream->data[stream->len++] = byte;
	return 0;
}

/* Follows strings and braces only; whether the object is JSON is the parser's business. */
static bool ends_object(struct json_stream *stream, char byte)
{
	if (stream->escaped) {
		stream->escaped = false;
	} else if (stream->in_string) {
		if (byte == '\\')
			stream->escaped = true;
		else if (byte == '"')
			stream->in_string = false;
	} else if (byte == '"') {
		stream->in_string = true;
	} else if (byte == '{' || byte == '[') {
		stream->depth++;
	} else if (byte == '}' || byte == ']') {
		return --stream->depth == 0;
	}
	return false;
}

int json_stream_feed(struct json_stream *stream, const char *data, size_t len,
		     void (*object)(void *ctx, const char *text, size_t len), void *ctx)
{
	for (size_t i = 0; i < len; i++) {
		int err;

		if (!stream->depth) {
			if (data[i] && strchr(" \t\r\n", data[i]))
				continue;
			if (data[i] != '{')
				return -EPROTO;
		}
		err = keep(stream, data[i]);
		if (err)
			return err;
		if (ends_object(stream, data[i])) {
			object(ctx, stream->data, stream->len);
			stream->len = 0;
		}
	}
	return 0;
}

void json_stream_reset(struct json_stream *stream)
{
	size_t limit = stream->limit;

	free(stream->data);
	*stream = (struct json_stream){ .limit = limit };
}

const char *json_library_version(void)
{
	return cJSON_Version();
}

bool json_flag(const struct json *object, const char *name)
{
	return cJSON_IsTrue(in(json_get(object, name)));
}
