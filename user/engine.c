// SPDX-License-Identifier: MIT
#include "engine.h"

#include <errno.h>
#include <linux/sockios.h>
#include <linux/tcp.h>
#include <netinet/in.h>
#include <sched.h>
#include <stdatomic.h>
#include <stdlib.h>
#include <string.h>
#include <sys/ioctl.h>
#include <sys/socket.h>
#include <time.h>

#define PROGRAMS_MS 500 /* for a program that was preempted */
#define MAX_TURNS 16	/* between bulk and small; more of them cost more than they save */
#define TCP_CLOSE 7	/* of include/net/tcp_states.h */

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
static void claim_slot(struct engine_leg *leg, enum kkm_mode mode)
{
	struct kkm_slot *slot = leg->slot;

	slot->forwarded = 0;
	slot->stop = 0;
	slot->mode = mode;
	slot->enrolled = slot->no_room = 0;
	slot->armed = slot->begun = slot->whole = slot->goes_on = slot->status = slot->left = 0;
	slot->passed = 0;
	slot->short_bytes = slot->short_messages = 0;
	slot->short_up_bytes = slot->short_up_messages = 0;
	slot->down_bytes = slot->up_bytes = 0;
	slot->read_up = UINT64_MAX;
	slot->put = slot->bulk = slot->puts = 0;
	__atomic_store_n(&slot->leg, leg->cookie, __ATOMIC_SEQ_CST);
}

static uint64_t now_ms(void)
{
	struct timespec now;

	clock_gettime(CLOCK_MONOTONIC, &now);
	return (uint64_t)now.tv_sec * 1000 + (uint64_t)now.tv_nsec / 1000000;
}

/*
 * No program that has begun to decide about this leg is still at it when this returns true. One runs
 * for a microsecond; where it was preempted, its thread gets this CPU.
 */
static bool wait_for_programs(struct engine_leg *leg)
{
	uint64_t begun_ms = 0;

	for (unsigned int i = 0; __atomic_load_n(&leg->slot->running, __ATOMIC_SEQ_CST); i++) {
		if (i % 64 == 1) {
			if (!begun_ms)
				begun_ms = now_ms();
			if (now_ms() - begun_ms > PROGRAMS_MS)
				return false;
		}
		sched_yield();
	}
	return true;
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
	conn->up = leg->requests ? leg->engine : KKM_RELAY;
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
	leg->upstream_fd = request->upstream_fd;
	claim_slot(leg, request->mode);
	if (request->engine == KKM_SOCKMAP) {
		client_cookie = cookie_of(request->client_fd);
		if (!datapath_client_add(datapath, client_cookie, request->client_fd))
			leg->engine = KKM_SOCKMAP;
	}
	leg->announced = leg->engine == KKM_SOCKMAP;
	leg->requests = leg->announced && request->requests;
	set_conn(&conn, leg, request, client_cookie);
	if (datapath_conn_add(datapath, leg->cookie, &conn)) {
		release_slot(leg);
		leg->engine = KKM_RELAY;
		leg->requests = false;
	}
}

bool engine_arm(struct engine_leg *leg)
{
	if (leg->engine != KKM_SOCKMAP)
		return false;
	leg->quiet = false;
	leg->passed = __atomic_load_n(&leg->slot->passed, __ATOMIC_ACQUIRE);
	leg->exchange++;
	__atomic_store_n(&leg->slot->armed, leg->exchange, __ATOMIC_SEQ_CST);
	return true;
}

bool engine_has_answered(const struct engine_leg *leg)
{
	return __atomic_load_n(&leg->slot->whole, __ATOMIC_ACQUIRE) == leg->exchange;
}

bool engine_take_answer(struct engine_leg *leg, struct engine_answer *out)
{
	struct kkm_slot *slot = leg->slot;
	bool ended;

	__atomic_exchange_n(&slot->armed, 0, __ATOMIC_SEQ_CST);
	/* a program that was armed by then may still begin the answer; later ones may go on with it */
	ended = wait_for_programs(leg);
	__atomic_exchange_n(&slot->goes_on, 0, __ATOMIC_SEQ_CST);
	ended = ended && wait_for_programs(leg);
	out->begun = slot->begun == leg->exchange;
	out->status = slot->status;
	out->left = engine_has_answered(leg) ? 0 : slot->left;
	out->whole_ns = slot->whole_ns;
	leg->quiet = out->begun && !out->left;
	return ended;
}

bool engine_is_quiet(const struct engine_leg *leg)
{
	return leg->quiet && leg->slot &&
	       __atomic_load_n(&leg->slot->passed, __ATOMIC_ACQUIRE) == leg->passed;
}

uint64_t engine_queued(int client_fd)
{
	struct tcp_info info = { 0 };
	socklen_t len = sizeof(info);
	int queued = 0;

	/* in this order: what is acknowledged in between is missing in the sum, never counted twice */
	if (getsockopt(client_fd, IPPROTO_TCP, TCP_INFO, &info, &len) ||
	    ioctl(client_fd, SIOCOUTQ, &queued) || info.tcpi_state == TCP_CLOSE)
		return UINT64_MAX;
	return info.tcpi_bytes_acked + (uint64_t)queued;
}

/*
 * A message that goes through the program is copied on its way, which splice(2) avoids. The agent's
 * own socket can be taken out: nobody puts anything into it.
 */
void engine_set_bulk(struct engine_leg *leg, bool bulk)
{
	if (!leg->requests || leg->engine != KKM_SOCKMAP || (!bulk && leg->turns > MAX_TURNS))
		return;
	leg->slot->bulk = bulk;
	/* while what was put in may be unread, the program has to see that nothing overtakes it */
	if (leg->bulk == bulk || (bulk && leg->slot->put))
		return;
	leg->bulk = bulk;
	leg->turns++;
	if (bulk)
		datapath_upstream_delete(leg->datapath, leg->cookie);
	else if (datapath_upstream_add(leg->datapath, leg->cookie, leg->upstream_fd))
		leg->bulk = true;
}

/*
 * A socket whose message was dropped drops all that follow, without asking the program again
 * (tcp_bpf_send_verdict() leaves psock->eval as it is): so it is given a new psock.
 */
void engine_retry(struct engine_leg *leg)
{
	if (!leg->requests)
		return;
	datapath_upstream_delete(leg->datapath, leg->cookie);
	if (datapath_upstream_add(leg->datapath, leg->cookie, leg->upstream_fd))
		leg->bulk = true; /* the container has half-closed: what follows goes through TCP */
}

void engine_begin(struct engine_leg *leg)
{
	if (leg->slot)
		__atomic_store_n(&leg->slot->mode, KKM_STREAM, __ATOMIC_RELEASE);
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
	bool ended;

	if (leg->engine != KKM_SOCKMAP)
		return;
	leg->engine = KKM_RELAY;
	__atomic_exchange_n(&leg->slot->stop, 1, __ATOMIC_SEQ_CST);
	ended = wait_for_programs(leg);
	if (leg->requests && !leg->slot->put)
		datapath_upstream_delete(leg->datapath, leg->cookie);
	/* what it has not read of what was put into it would be gone with its entry; undoing needs it */
	if (ended && (!leg->slot->short_up_bytes || leg->slot->read_up == leg->slot->up_bytes))
		datapath_container_delete(leg->datapath, leg->cookie);
}

bool engine_sync(struct engine_leg *leg)
{
	struct kkm_slot *slot = leg->slot;
	struct kkm_conn_bytes bytes;

	if (!slot)
		return false;
	bytes = (struct kkm_conn_bytes){
		.up_short = slot->short_up_bytes,
		.up_passed = slot->up_bytes - slot->short_up_bytes,
		.down_short = engine_moved(leg),
		.down_passed = slot->down_bytes,
	};
	if (bytes.up_short + bytes.up_passed + bytes.down_short + bytes.down_passed == leg->synced)
		return false;
	leg->synced = bytes.up_short + bytes.up_passed + bytes.down_short + bytes.down_passed;
	datapath_conn_update(leg->datapath, leg->cookie, &bytes,
			     leg->requests && !leg->bulk ? leg->engine : KKM_RELAY,
			     slot->enrolled ? leg->engine : KKM_RELAY);
	return true;
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
