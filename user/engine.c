// SPDX-License-Identifier: MIT
#include "engine.h"

#include <errno.h>
#include <sched.h>
#include <stdatomic.h>
#include <stdlib.h>
#include <string.h>
#include <sys/socket.h>
#include <time.h>

int engine_slots_init(struct engine_slots *slots, uint32_t first, uint32_t count)
{
	slots->spare = calloc(count ? count : 1, sizeof(*slots->spare));
	if (!slots->spare)
		return -ENOMEM;
	slots->count = count;
	for (uint32_t i = 0; i < count; i++)
		slots->spare[i] = first + count - 1 - i;
	return 0;
}

void engine_slots_free(struct engine_slots *slots)
{
	free(slots->spare);
	*slots = (struct engine_slots){ 0 };
}

static uint64_t cookie_of(int fd)
{
	uint64_t cookie = 0;
	socklen_t len = sizeof(cookie);

	getsockopt(fd, SOL_SOCKET, SO_COOKIE, &cookie, &len);
	return cookie;
}

/*
 * `running` is not reset: a program that still runs for the slot's last owner takes back what it
 * added.
 */
static void claim_slot(struct engine_leg *leg, bool hold)
{
	struct kkm_slot *slot = leg->slot;

	slot->forwarded = 0;
	slot->stop = 0;
	slot->hold = hold;
	slot->enrolled = 0;
	slot->short_bytes = slot->short_messages = 0;
	slot->down_bytes = slot->up_bytes = 0;
	__atomic_store_n(&slot->leg, leg->cookie, __ATOMIC_SEQ_CST);
}

/*
 * No program decides about this leg any more when this returns. A program runs for a microsecond;
 * where it was preempted, its thread gets this CPU.
 */
static void stop_programs(struct engine_leg *leg)
{
	__atomic_exchange_n(&leg->slot->stop, 1, __ATOMIC_SEQ_CST);
	for (int i = 0; i < 10000 && __atomic_load_n(&leg->slot->running, __ATOMIC_SEQ_CST); i++)
		sched_yield();
}

static void release_slot(struct engine_leg *leg)
{
	__atomic_store_n(&leg->slot->leg, 0, __ATOMIC_SEQ_CST);
	leg->slots->spare[leg->slots->count++] = leg->index;
	leg->slot = NULL;
	leg->datapath = NULL;
}

static void set_conn(struct kkm_conn *conn, const struct engine_leg *leg,
		     const struct engine_request *request, uint64_t client_cookie)
{
	struct timespec now;

	clock_gettime(CLOCK_REALTIME, &now);
	memset(conn, 0, sizeof(*conn));
	datapath_backend_key(&conn->backend, request->domain, request->backend);
	datapath_address_bytes(request->client, conn->client_address, conn->client_address6);
	conn->client_port = address_port(request->client);
	conn->slot = leg->index;
	conn->up = KKM_RELAY;
	conn->down = leg->engine;
	conn->client_cookie = client_cookie;
	conn->opened_ms = (uint64_t)now.tv_sec * 1000 + (uint64_t)now.tv_nsec / 1000000;
}

void engine_open(struct engine_leg *leg, struct datapath *datapath, struct engine_slots *slots,
		 const struct engine_request *request)
{
	uint64_t client_cookie = 0;
	struct kkm_conn conn;

	*leg = (struct engine_leg){ .engine = KKM_RELAY };
	if (!datapath || !slots->count)
		return;
	leg->cookie = cookie_of(request->upstream_fd);
	if (!leg->cookie)
		return;
	leg->datapath = datapath;
	leg->slots = slots;
	leg->index = slots->spare[--slots->count];
	leg->slot = datapath_slot(datapath, leg->index);
	claim_slot(leg, request->hold);
	if (request->engine == KKM_SOCKMAP) {
		client_cookie = cookie_of(request->client_fd);
		if (!datapath_client_add(datapath, client_cookie, request->client_fd))
			leg->engine = KKM_SOCKMAP;
	}
	leg->announced = leg->engine == KKM_SOCKMAP;
	set_conn(&conn, leg, request, client_cookie);
	if (datapath_conn_add(datapath, leg->cookie, &conn)) {
		release_slot(leg);
		leg->engine = KKM_RELAY;
	}
}

void engine_begin(struct engine_leg *leg)
{
	if (leg->slot)
		__atomic_store_n(&leg->slot->hold, 0, __ATOMIC_RELEASE);
}

void engine_relayed(struct engine_leg *leg, uint64_t down, uint64_t up)
{
	struct kkm_slot *slot = leg->slot;

	if (!slot)
		return;
	slot->down_bytes += down;
	slot->up_bytes += up;
	/* after the write that it counts: whoever sees the sum finds the bytes in the client's queue */
	__atomic_store_n(&slot->forwarded, slot->forwarded + (uint32_t)down, __ATOMIC_RELEASE);
}

uint64_t engine_moved(const struct engine_leg *leg)
{
	return leg->slot ? __atomic_load_n(&leg->slot->short_bytes, __ATOMIC_ACQUIRE) : 0;
}

void engine_leave(struct engine_leg *leg)
{
	if (leg->engine != KKM_SOCKMAP)
		return;
	leg->engine = KKM_RELAY;
	stop_programs(leg);
	datapath_container_delete(leg->datapath, leg->cookie);
}

void engine_close(struct engine_leg *leg)
{
	if (!leg->datapath)
		return;
	/* an application that does not close its socket shall not keep a place in the map */
	if (leg->announced)
		engine_leave(leg);
	datapath_conn_delete(leg->datapath, leg->cookie, leg->announced && !leg->slot->enrolled);
	leg->engine = KKM_RELAY;
	release_slot(leg);
}
