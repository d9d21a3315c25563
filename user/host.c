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

struct network {
	unsigned int index; /* of the interface */
	bool bridge;
	struct sockaddr_storage address, mask;
};

struct host {
	struct loop *loop;
	struct loop_io links; /* rtnetlink's, RTNLGRP_LINK */
	struct network *networks;
	unsigned int count;
	bool known;
	void (*unplugged)(void *ctx, unsigned int index);
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

bool host_is_on(struct host *host, const struct sockaddr_storage *address, unsigned int index)
{
	read_networks(host);
	for (unsigned int i = 0; i < host->count; i++) {
		const struct network *network = &host->networks[i];

		if (network->bridge && (!index || network->index == index) &&
		    match(&network->address, address, &network->mask))
			return true;
	}
	return false;
}

/*
 * A bridge tells of a port that it loses by RTM_DELLINK of family AF_BRIDGE, with itself as the
 * master (net/bridge/br_if.c, del_nbp()). That is before Docker gives the address to somebody else:
 * it deletes an endpoint's interface and releases the address afterwards.
 */
static void look_at(struct host *host, const struct nlmsghdr *message)
{
	const struct ifinfomsg *info = NLMSG_DATA(message);
	int len = (int)IFLA_PAYLOAD(message);
	unsigned int master = 0;

	if (message->nlmsg_type != RTM_DELLINK || message->nlmsg_len < NLMSG_LENGTH(sizeof(*info)) ||
	    info->ifi_family != AF_BRIDGE)
		return;
	for (const struct rtattr *attribute = IFLA_RTA(info); RTA_OK(attribute, len);
	     attribute = RTA_NEXT(attribute, len)) {
		if (attribute->rta_type == IFLA_MASTER && RTA_PAYLOAD(attribute) >= sizeof(master))
			memcpy(&master, RTA_DATA(attribute), sizeof(master));
	}
	if (master && host->unplugged)
		host->unplugged(host->ctx, master);
}

static void links_ready(struct loop_io *io, uint32_t events)
{
	struct host *host = (struct host *)((char *)io - offsetof(struct host, links));
	static char messages[MESSAGES_LEN] __attribute__((aligned(8)));

	(void)events;
	for (int i = 0; i < READS_A_TURN; i++) {
		ssize_t n = recv(io->fd, messages, sizeof(messages), MSG_DONTWAIT);
		int len = (int)n;

		if (n < 0 && errno == ENOBUFS && host->unplugged) {
			host->unplugged(host->ctx, 0);
			continue;
		}
		if (n <= 0)
			break;
		for (const struct nlmsghdr *message = (void *)messages; NLMSG_OK(message, len);
		     message = NLMSG_NEXT(message, len))
			look_at(host, message);
	}
}

static int watch_links(struct host *host)
{
	struct sockaddr_nl address = { .nl_family = AF_NETLINK, .nl_groups = RTMGRP_LINK };
	int fd = socket(AF_NETLINK, SOCK_RAW | SOCK_CLOEXEC | SOCK_NONBLOCK, NETLINK_ROUTE);
	int err;

	if (fd < 0)
		return -errno;
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
	free(host);
}

void host_on_unplug(struct host *host, void (*unplugged)(void *ctx, unsigned int index), void *ctx)
{
	host->unplugged = unplugged;
	host->ctx = ctx;
}
