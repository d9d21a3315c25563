// SPDX-License-Identifier: MIT
#include "host.h"

#include <errno.h>
#include <ifaddrs.h>
#include <linux/ethtool.h>
#include <linux/netlink.h>
#include <linux/rtnetlink.h>
#include <linux/sockios.h>
#include <net/if.h>
#include <netinet/in.h>
#include <stdint.h>
#include <stdlib.h>
#include <string.h>
#include <sys/ioctl.h>
#include <unistd.h>

#define READS_A_TURN 64

/* Where the netlink messages that are read here go; a link's is about 1.5 KiB. */
#define MESSAGES_LEN 32768
#define LEARNT_MAX 8192
#define RECEIVE_BUFFER (4 << 20) /* a daemon that starts moves hundreds of interfaces at once */

struct network {
	unsigned int index; /* of the interface */
	bool bridge;
	struct sockaddr_storage address, mask;
};

/* An address that this host has spoken to, and the bridge's port that it was behind. */
struct learnt {
	struct sockaddr_storage address;
	uint8_t mac[6];
	struct host_port port;
};

struct host {
	struct loop *loop;
	struct loop_io links; /* rtnetlink's, RTNLGRP_LINK */
	struct network *networks;
	unsigned int count;
	bool known;
	struct learnt *learnt; /* by address, but for those that are being added */
	unsigned int learnt_count, sorted_count;
	bool (*wanted)(void *ctx, const struct sockaddr_storage *address); /* while learning */
	void *wanted_ctx;
	void (*unplugged)(void *ctx, const struct host_port *port);
	void *ctx;
};

/* The driver's name is the kind of a virtual interface (br_device.c, br_getinfo()). */
static bool is_bridge(const char *name)
{
	struct ethtool_drvinfo info = { .cmd = ETHTOOL_GDRVINFO };
	struct ifreq request = { .ifr_data = (void *)&info };
	int fd = socket(AF_INET, SOCK_DGRAM | SOCK_CLOEXEC, 0);
	bool bridge;

	strncpy(request.ifr_name, name, sizeof(request.ifr_name) - 1);
	bridge = fd >= 0 && !ioctl(fd, SIOCETHTOOL, &request) && !strcmp(info.driver, "bridge");
	if (fd >= 0)
		close(fd);
	return bridge;
}

static size_t family_len(const struct sockaddr *address)
{
	return address->sa_family == AF_INET ? sizeof(struct sockaddr_in)
					     : sizeof(struct sockaddr_in6);
}

static void add_network(struct host *host, const struct ifaddrs *entry)
{
	struct network *network = &host->networks[host->count];

	if (!entry->ifa_addr || !entry->ifa_netmask ||
	    (entry->ifa_addr->sa_family != AF_INET && entry->ifa_addr->sa_family != AF_INET6))
		return;
	/* every container's veth has one, and nobody is routed to one */
	if (entry->ifa_addr->sa_family == AF_INET6 &&
	    IN6_IS_ADDR_LINKLOCAL(&((const struct sockaddr_in6 *)entry->ifa_addr)->sin6_addr))
		return;
	memset(network, 0, sizeof(*network));
	network->index = if_nametoindex(entry->ifa_name);
	network->bridge = is_bridge(entry->ifa_name);
	memcpy(&network->address, entry->ifa_addr, family_len(entry->ifa_addr));
	memcpy(&network->mask, entry->ifa_netmask, family_len(entry->ifa_addr));
	host->count++;
}

static void read_networks(struct host *host)
{
	struct ifaddrs *list = NULL;
	unsigned int count = 0;

	if (host->known)
		return;
	free(host->networks);
	host->networks = NULL;
	host->count = 0;
	if (getifaddrs(&list))
		return;
	for (struct ifaddrs *entry = list; entry; entry = entry->ifa_next)
		count++;
	host->networks = calloc(count + 1, sizeof(*host->networks));
	for (struct ifaddrs *entry = list; entry && host->networks; entry = entry->ifa_next)
		add_network(host, entry);
	freeifaddrs(list);
	host->known = host->networks;
}

void host_forget(struct host *host)
{
	host->known = false;
}

static const uint8_t *bytes_of(const struct sockaddr_storage *address, size_t *len)
{
	*len = address->ss_family == AF_INET ? 4 : 16;
	return address->ss_family == AF_INET
		       ? (const uint8_t *)&((const struct sockaddr_in *)address)->sin_addr
		       : ((const struct sockaddr_in6 *)address)->sin6_addr.s6_addr;
}

/* Equal, in the bits of `mask`, or of all where it is NULL. */
static bool match(const struct sockaddr_storage *a, const struct sockaddr_storage *b,
		  const struct sockaddr_storage *mask)
{
	size_t len;
	const uint8_t *x = bytes_of(a, &len), *y = bytes_of(b, &len);
	const uint8_t *bits = mask ? bytes_of(mask, &len) : NULL;

	if (a->ss_family != b->ss_family)
		return false;
	for (size_t i = 0; i < len; i++) {
		if ((x[i] ^ y[i]) & (bits ? bits[i] : 0xff))
			return false;
	}
	return true;
}

static bool is_loopback(const struct sockaddr_storage *address)
{
	if (address->ss_family == AF_INET)
		return ntohl(((const struct sockaddr_in *)address)->sin_addr.s_addr) >> 24 == 127;
	return IN6_IS_ADDR_LOOPBACK(&((const struct sockaddr_in6 *)address)->sin6_addr);
}

bool host_is_own(struct host *host, const struct sockaddr_storage *address)
{
	if (is_loopback(address))
		return true;
	read_networks(host);
	for (unsigned int i = 0; i < host->count; i++) {
		if (match(&host->networks[i].address, address, NULL))
			return true;
	}
	return false;
}

int host_reach(struct host *host, const struct sockaddr_storage *address)
{
	int best = 0;

	read_networks(host);
	for (unsigned int i = 0; i < host->count && best < 2; i++) {
		const struct network *network = &host->networks[i];

		if (match(&network->address, address, &network->mask))
			best = network->bridge ? 2 : 1;
	}
	return best;
}

static const void *attribute_of(const struct rtattr *attribute, int len, unsigned short type,
				size_t size)
{
	for (; RTA_OK(attribute, len); attribute = RTA_NEXT(attribute, len)) {
		if (attribute->rta_type == type && RTA_PAYLOAD(attribute) >= size)
			return RTA_DATA(attribute);
	}
	return NULL;
}

/* Of struct learnt the first member; a key is an address alone. */
static int compare_learnt(const void *a, const void *b)
{
	const struct sockaddr_storage *one = a, *other = b;
	size_t len;
	const uint8_t *x = bytes_of(one, &len), *y = bytes_of(other, &len);

	if (one->ss_family != other->ss_family)
		return one->ss_family < other->ss_family ? -1 : 1;
	return memcmp(x, y, len);
}

static struct learnt *find_learnt(struct host *host, const struct sockaddr_storage *address)
{
	return host->sorted_count ? bsearch(address, host->learnt, host->sorted_count,
					    sizeof(*host->learnt), compare_learnt)
				  : NULL;
}

/* Behind what was learnt before; sorted when all have been added. */
static struct learnt *add_learnt(struct host *host, const struct sockaddr_storage *address)
{
	struct learnt *grown;

	if (host->learnt_count == LEARNT_MAX)
		return NULL;
	grown = realloc(host->learnt, (host->learnt_count + 1) * sizeof(*grown));
	if (!grown)
		return NULL;
	host->learnt = grown;
	grown[host->learnt_count] = (struct learnt){ .address = *address };
	return &grown[host->learnt_count++];
}

static bool is_bridge_index(const struct host *host, unsigned int index)
{
	for (unsigned int i = 0; i < host->count; i++) {
		if (host->networks[i].bridge && host->networks[i].index == index)
			return true;
	}
	return false;
}

/* Neighbours: address -> MAC. */
static void add_neighbour(struct host *host, const struct ndmsg *info, int len)
{
	const struct rtattr *attributes = (const void *)((const char *)info +
							 NLMSG_ALIGN(sizeof(*info)));
	size_t size = info->ndm_family == AF_INET ? 4 : 16, key_len;
	const void *address = attribute_of(attributes, len, NDA_DST, size);
	const void *mac = attribute_of(attributes, len, NDA_LLADDR, 6);
	struct sockaddr_storage key = { .ss_family = info->ndm_family };
	struct learnt *learnt;

	if (!address || !mac || (size == 16 && info->ndm_family != AF_INET6) ||
	    !is_bridge_index(host, (unsigned int)info->ndm_ifindex))
		return;
	memcpy((uint8_t *)bytes_of(&key, &key_len), address, size);
	if (!host->wanted(host->wanted_ctx, &key))
		return;
	learnt = find_learnt(host, &key);
	if (!learnt)
		learnt = add_learnt(host, &key);
	if (!learnt || !memcmp(learnt->mac, mac, sizeof(learnt->mac)))
		return;
	/* a new one's port is not known yet */
	memcpy(learnt->mac, mac, sizeof(learnt->mac));
	learnt->port = (struct host_port){ 0 };
}

/* A bridge's table: MAC -> port. */
static void add_port(struct host *host, const struct ndmsg *info, int len)
{
	const struct rtattr *attributes = (const void *)((const char *)info +
							 NLMSG_ALIGN(sizeof(*info)));
	const void *mac = attribute_of(attributes, len, NDA_LLADDR, 6);
	const void *master = attribute_of(attributes, len, NDA_MASTER, sizeof(unsigned int));

	/* the bridge's own entries are permanent (net/bridge/br_fdb.c, fdb_to_nud()) */
	if (!mac || !master || info->ndm_state & NUD_PERMANENT)
		return;
	for (unsigned int i = 0; i < host->learnt_count; i++) {
		struct learnt *learnt = &host->learnt[i];

		if (memcmp(learnt->mac, mac, 6))
			continue;
		learnt->port.port = (unsigned int)info->ndm_ifindex;
		memcpy(&learnt->port.bridge, master, sizeof(learnt->port.bridge));
	}
}

static void dump_neighbours(struct host *host, unsigned char family,
			    void (*each)(struct host *host, const struct ndmsg *info, int len))
{
	struct {
		struct nlmsghdr header;
		struct ndmsg message;
	} request = {
		.header = { .nlmsg_len = sizeof(request), .nlmsg_type = RTM_GETNEIGH,
			    .nlmsg_flags = NLM_F_REQUEST | NLM_F_DUMP },
		.message = { .ndm_family = family },
	};
	static char messages[MESSAGES_LEN] __attribute__((aligned(8)));
	int fd = socket(AF_NETLINK, SOCK_RAW | SOCK_CLOEXEC, NETLINK_ROUTE);
	bool more = fd >= 0 && send(fd, &request, sizeof(request), 0) == sizeof(request);

	/* a dump's messages are there when they are asked for: recv() does not wait */
	while (more) {
		int len = (int)recv(fd, messages, sizeof(messages), MSG_DONTWAIT);

		more = len > 0;
		for (const struct nlmsghdr *m = (void *)messages; more && NLMSG_OK(m, len);
		     m = NLMSG_NEXT(m, len)) {
			more = m->nlmsg_type != NLMSG_DONE && m->nlmsg_type != NLMSG_ERROR;
			if (m->nlmsg_type == RTM_NEWNEIGH &&
			    m->nlmsg_len >= NLMSG_LENGTH(sizeof(struct ndmsg)))
				each(host, NLMSG_DATA(m),
				     (int)(m->nlmsg_len - NLMSG_SPACE(sizeof(struct ndmsg))));
		}
	}
	if (fd >= 0)
		close(fd);
}

void host_learn(struct host *host, bool (*wanted)(void *ctx, const struct sockaddr_storage *address),
		void *ctx)
{
	unsigned int kept = 0;

	read_networks(host);
	host->wanted = wanted;
	host->wanted_ctx = ctx;
	for (unsigned int i = 0; i < host->learnt_count; i++) {
		if (wanted(ctx, &host->learnt[i].address))
			host->learnt[kept++] = host->learnt[i];
	}
	host->learnt_count = host->sorted_count = kept;
	dump_neighbours(host, AF_INET, add_neighbour);
	dump_neighbours(host, AF_INET6, add_neighbour);
	if (host->learnt_count)
		qsort(host->learnt, host->learnt_count, sizeof(*host->learnt), compare_learnt);
	host->sorted_count = host->learnt_count;
	dump_neighbours(host, AF_BRIDGE, add_port);
}

bool host_was_behind(struct host *host, const struct sockaddr_storage *address,
		     const struct host_port *port)
{
	const struct learnt *learnt;
	bool on_bridge = false;

	read_networks(host);
	for (unsigned int i = 0; i < host->count; i++) {
		const struct network *network = &host->networks[i];

		on_bridge |= network->bridge &&
			     (!port->bridge || network->index == port->bridge) &&
			     match(&network->address, address, &network->mask);
	}
	learnt = on_bridge && port->port ? find_learnt(host, address) : NULL;
	return learnt && learnt->port.port ? learnt->port.port == port->port : on_bridge;
}

static void forget_port(struct host *host, const struct host_port *port)
{
	unsigned int kept = 0;

	for (unsigned int i = 0; i < host->learnt_count && port->port; i++) {
		if (host->learnt[i].port.port != port->port)
			host->learnt[kept++] = host->learnt[i];
	}
	host->learnt_count = host->sorted_count = kept;
}

static void unplugged(struct host *host, const struct host_port *port)
{
	if (host->unplugged)
		host->unplugged(host->ctx, port);
	forget_port(host, port);
}

/*
 * A bridge tells of a port that it loses by RTM_DELLINK of family AF_BRIDGE, with itself as the
 * master (net/bridge/br_if.c, del_nbp()). That is before Docker gives the address to somebody else:
 * it deletes an endpoint's interface and releases the address afterwards.
 */
static void look_at(struct host *host, const struct nlmsghdr *message)
{
	const struct ifinfomsg *info = NLMSG_DATA(message);
	struct host_port port = { 0 };
	const void *master;

	if (message->nlmsg_type != RTM_DELLINK || message->nlmsg_len < NLMSG_LENGTH(sizeof(*info)) ||
	    info->ifi_family != AF_BRIDGE)
		return;
	master = attribute_of(IFLA_RTA(info), (int)IFLA_PAYLOAD(message), IFLA_MASTER,
			      sizeof(port.bridge));
	if (!master)
		return;
	port.port = (unsigned int)info->ifi_index;
	memcpy(&port.bridge, master, sizeof(port.bridge));
	unplugged(host, &port);
}

static void links_ready(struct loop_io *io, uint32_t events)
{
	struct host *host = (struct host *)((char *)io - offsetof(struct host, links));
	static char messages[MESSAGES_LEN] __attribute__((aligned(8)));
	bool lost = false;

	(void)events;
	for (int i = 0; i < READS_A_TURN; i++) {
		ssize_t n = recv(io->fd, messages, sizeof(messages), MSG_DONTWAIT);
		int len = (int)n;

		if (n < 0 && errno == ENOBUFS) {
			lost = true;
			continue;
		}
		if (n <= 0)
			break;
		for (const struct nlmsghdr *message = (void *)messages; NLMSG_OK(message, len);
		     message = NLMSG_NEXT(message, len))
			look_at(host, message);
	}
	if (lost)
		unplugged(host, &(struct host_port){ 0 });
}

static int watch_links(struct host *host)
{
	struct sockaddr_nl address = { .nl_family = AF_NETLINK, .nl_groups = RTMGRP_LINK };
	int fd = socket(AF_NETLINK, SOCK_RAW | SOCK_CLOEXEC | SOCK_NONBLOCK, NETLINK_ROUTE);
	int size = RECEIVE_BUFFER, err;

	if (fd < 0)
		return -errno;
	setsockopt(fd, SOL_SOCKET, SO_RCVBUFFORCE, &size, sizeof(size)); /* as far as we may */
	err = bind(fd, (struct sockaddr *)&address, sizeof(address))
		      ? -errno
		      : loop_add(host->loop, &host->links, fd, EPOLLIN);
	if (err)
		close(fd);
	return err;
}

int host_new(struct loop *loop, struct host **out)
{
	struct host *host = calloc(1, sizeof(*host));
	int err = 0;

	if (!host)
		return -ENOMEM;
	host->loop = loop;
	host->links.fd = -1;
	host->links.ready = links_ready;
	if (loop)
		err = watch_links(host);
	if (err) {
		host_free(&host);
		return err;
	}
	*out = host;
	return 0;
}

void host_free(struct host **ptr)
{
	struct host *host = *ptr;

	if (!host)
		return;
	*ptr = NULL;
	if (host->loop && host->links.fd >= 0)
		close(loop_del(host->loop, &host->links));
	free(host->networks);
	free(host->learnt);
	free(host);
}

void host_on_unplug(struct host *host, void (*callback)(void *ctx, const struct host_port *port),
		    void *ctx)
{
	host->unplugged = callback;
	host->ctx = ctx;
}
