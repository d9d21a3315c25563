// SPDX-License-Identifier: MIT
#include "routelist.h"

#include <errno.h>
#include <stdbool.h>
#include <stdlib.h>
#include <string.h>

struct reading {
	struct routelist *list;
	bool short_of_memory;
};

/* Room for one more: powers of two. */
static void *grown(struct reading *reading, void *array, size_t count, size_t size)
{
	void *out = count & (count - 1) ? array : realloc(array, (count ? count * 2 : 1) * size);

	reading->short_of_memory |= !out;
	return out ? out : array;
}

static void add_backend(void *ctx, const void *key, const void *value)
{
	struct reading *reading = ctx;
	struct routelist *list = reading->list;

	list->backends = grown(reading, list->backends, list->backend_count,
			       sizeof(*list->backends));
	if (reading->short_of_memory)
		return;
	memcpy(&list->backends[list->backend_count].key, key, sizeof(struct kkm_backend_key));
	memcpy(&list->backends[list->backend_count++].value, value, sizeof(struct kkm_backend));
}

static void add_rejected(void *ctx, const void *key, const void *value)
{
	struct reading *reading = ctx;
	struct routelist *list = reading->list;

	list->rejected = grown(reading, list->rejected, list->rejected_count,
			       sizeof(*list->rejected));
	if (reading->short_of_memory)
		return;
	memcpy(&list->rejected[list->rejected_count].key, key, sizeof(struct kkm_rejected_key));
	memcpy(&list->rejected[list->rejected_count++].value, value, sizeof(struct kkm_rejected));
}

static int compare_backends(const void *a, const void *b)
{
	const struct routelist_backend *x = a, *y = b;
	int order = strcmp(x->key.domain, y->key.domain);

	if (!order)
		order = strcmp(x->value.container, y->value.container);
	return order ? order : memcmp(&x->key, &y->key, sizeof(x->key));
}

static int compare_rejected(const void *a, const void *b)
{
	const struct routelist_rejected *x = a, *y = b;
	int order = strcmp(x->value.container, y->value.container);

	return order ? order : memcmp(&x->key, &y->key, sizeof(x->key));
}

int routelist_read(const struct mapview *view, struct routelist *out)
{
	struct routelist list = { .backend_count = 0 };
	struct reading reading = { .list = &list };
	int err = mapview_each(view, "kkm_backends", add_backend, &reading);

	if (!err)
		err = mapview_each(view, "kkm_rejected", add_rejected, &reading);
	if (!err && reading.short_of_memory)
		err = -ENOMEM;
	if (err) {
		routelist_free(&list);
		return err;
	}
	if (list.backend_count)
		qsort(list.backends, list.backend_count, sizeof(*list.backends), compare_backends);
	if (list.rejected_count)
		qsort(list.rejected, list.rejected_count, sizeof(*list.rejected), compare_rejected);
	*out = list;
	return 0;
}

void routelist_free(struct routelist *list)
{
	free(list->backends);
	free(list->rejected);
	memset(list, 0, sizeof(*list));
}

size_t routelist_pool(const struct routelist *list, size_t first)
{
	size_t count = 0;

	while (first + count < list->backend_count &&
	       !strcmp(list->backends[first].key.domain, list->backends[first + count].key.domain))
		count++;
	return count;
}

enum kkm_state routelist_state(const struct routelist_backend *pool, size_t count)
{
	enum kkm_state best = pool[0].value.state;

	for (size_t i = 1; i < count; i++) {
		if (pool[i].value.state < best)
			best = pool[i].value.state;
	}
	return best;
}

const struct routelist_backend *routelist_find(const struct routelist *list, const char *domain,
					       size_t *count)
{
	for (size_t i = 0; i < list->backend_count; i++) {
		if (strcmp(list->backends[i].key.domain, domain))
			continue;
		*count = routelist_pool(list, i);
		return &list->backends[i];
	}
	return NULL;
}
