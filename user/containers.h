/* SPDX-License-Identifier: MIT */
/*
 * The containers of ours that Docker has told of, and what becomes of them: by lists, by events that
 * are ahead of the lists, and by time. No descriptor and no clock: time is given, CLOCK_MONOTONIC in
 * milliseconds.
 */
#ifndef KKM_CONTAINERS_H
#define KKM_CONTAINERS_H

#include "dockerjson.h"

#define CONTAINERS_MAX 65536

struct containers;

/* 0 or -ENOMEM; `reach` is copied. */
int containers_new(const struct dockerjson_reach *reach, struct containers **out);
void containers_free(struct containers **containers);
/*
 * Health and the host's network are in no list of Podman's, and in no event: containers are inspected
 * for them.
 */
void containers_set_podman(struct containers *containers, bool podman);

/*
 * An answer to GET /containers/json, about all containers or about some. What it shows is not taken
 * for one that has died, or changed its state, by a later event. False where it is no list.
 */
bool containers_apply(struct containers *containers, const struct json *list, uint64_t now_ms);
/* After it: it was about this one; or about all. Those that it did not show are no more. */
void containers_asked(struct containers *containers, const char *id);
void containers_asked_all(struct containers *containers);
/* The list to come is the first of a new connection: who died may have been started unseen. */
void containers_trust_list(struct containers *containers, uint64_t now_ms);

/* Is it about one of ours, or of one that starts to be? */
bool containers_concerns(struct containers *containers, const struct dockerjson_event *event);
/* True where the container has to be looked at again. */
bool containers_event(struct containers *containers, const struct dockerjson_event *event,
		      uint64_t now_ms);
/* Those that share this one's network, whosever it is, have to know. */
void containers_owner_event(struct containers *containers, const struct dockerjson_event *event,
			    uint64_t now_ms);
/*
 * Somebody may have another container's address by now: until they have been listed again, those of
 * whose address `doubted` says so get no requests. Returns how many.
 */
unsigned int containers_doubt(struct containers *containers,
			      bool (*doubted)(void *ctx, const struct sockaddr_storage *address),
			      void *ctx);

/*
 * What time has brought; without `listed`, while nobody tells what happens, nothing that has died is
 * taken to be no more. `look` is called with those that have to be looked at again. Returns when to
 * call it again, 0: not before something else happens.
 */
uint64_t containers_expire(struct containers *containers, uint64_t now_ms, bool listed,
			   void (*look)(void *ctx, const char *id), void *ctx);

/* Whom to ask Docker for: the id of a container whose network another shares, or NULL; */
const char *containers_next_followed(struct containers *containers);
/* its node in a list, NULL where it does not run; not taken if something has happened to it since; */
void containers_followed(struct containers *containers, const char *id, const struct json *node,
			 uint64_t now_ms);
/* one that has not been inspected yet, or NULL, which counts as done then; and its answer. */
const char *containers_next_inspect(struct containers *containers);
void containers_inspected(struct containers *containers, const char *id, const struct json *root,
			  uint64_t now_ms);
/* There was none: ask again then. */
void containers_inspect_again(struct containers *containers, const char *id, uint64_t at_ms);

/* Is one of them reached at this address, whatever the port? */
bool containers_have_address(const struct containers *containers,
			     const struct sockaddr_storage *address);
/* Has anything changed for routes since the last call? */
bool containers_take_changed(struct containers *containers);
unsigned int containers_count(const struct containers *containers);
/* Malloced array of borrowed pointers, valid until a function here changes anything. 0 or -ENOMEM. */
int containers_sources(const struct containers *containers, const struct route_source ***out,
		       size_t *count);

#endif
