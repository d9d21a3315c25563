// SPDX-License-Identifier: MIT
/*
 * Bytes both ways that nobody looks at: behind a 101, and TLS. Ends and resets pass through each
 * way on its own.
 */
#include <sys/socket.h>

#include "connection_impl.h"

#define MAX_NO_ROOM 64 /* messages in a row */

void tunnel_begin(struct connection *c)
{
	c->up.approved = c->down.approved = 0;
	exchange_drop_replay(c);
	connection_enter(c, TUNNEL, c->worker->shared->config->idle_timeout_ms);
	c->active_ms = connection_now_ms(c);
	if (c->tls)
		c->worker->stats->tls_connections++;
	else
		c->worker->stats->upgrades++;
	connection_account(c);
	engine_begin(&c->leg->engine);
}

static bool pump(struct flow *flow, struct side *from, struct side *to)
{
	uint64_t left = RELAY_NO_LIMIT;
	bool waiting = flow->relay.len || flow->relay.piped;

	if (to->reset || (waiting ? !to->writable : !from->readable || from->ended))
		return false;
	return exchange_pump(flow, from, to, &left);
}

/*
 * Where an application cannot see how much is waiting for it on an enrolled socket, it is taken out
 * before anything is sent to it.
 */
static void protect_reader(struct connection *c)
{
	if (c->leg->engine.engine != KKM_SOCKMAP || !c->worker->shared->small_reads ||
	    c->leg->engine.requests || (!c->up.relay.len && !c->client.readable))
		return;
	engine_leave(&c->leg->engine);
	c->worker->stats->sockmap_left++;
}

/* `from` has ended, or was reset, and all that it sent has been passed on. */
static void settle(struct connection *c, const struct flow *flow, const struct side *from,
		   struct side *to)
{
	if (!from->ended || to->shut || to->reset || flow->relay.len || flow->relay.piped)
		return;
	if (from->reset) {
		connection_pass_reset(c);
		return;
	}
	shutdown(to->io.fd, SHUT_WR);
	to->shut = true;
}

/*
 * Both have ended, or one was reset that had ended before, or has been told of an end: what is queued
 * for the other still goes. To a client that knows the end already, the container's reset only says
 * that it heard something behind it.
 */
static void settle_end(struct connection *c)
{
	const struct side *client = &c->client, *server = &c->leg->side;

	if ((client->shut && server->shut) || (client->reset && server->reset))
		connection_close(c, client->reset || server->reset);
	else if (client->shut && server->reset)
		connection_linger(c);
	else if (server->shut && client->reset)
		connection_pass_reset(c);
}

/* A client that never has room: each message would be tried in vain. */
static void give_up(struct connection *c)
{
	const struct kkm_slot *slot = c->leg->engine.slot;

	if (c->leg->engine.engine != KKM_SOCKMAP || !slot || slot->no_room < MAX_NO_ROOM)
		return;
	engine_leave(&c->leg->engine);
	c->worker->stats->sockmap_left++;
}

void tunnel_run(struct connection *c)
{
	struct side *server = &c->leg->side;
	bool more;

	protect_reader(c);
	give_up(c);
	more = pump(&c->down, server, &c->client);
	/* what is counted late is passed instead of short-circuited, never lost: see kkm_response */
	connection_account(c);
	more |= pump(&c->up, &c->client, server);
	connection_account(c);
	settle(c, &c->up, &c->client, server);
	if (c->state == TUNNEL)
		settle(c, &c->down, server, &c->client);
	if (c->state == TUNNEL)
		settle_end(c);
	if (c->state == TUNNEL && (c->client.reset || server->reset))
		connection_watch_reset(c);
	if (c->state == TUNNEL && more)
		loop_next_turn(c->worker->loop, &c->task);
}
