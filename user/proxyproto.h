/* SPDX-License-Identifier: MIT */
/*
 * The PROXY protocol (haproxy.org, doc/proxy-protocol.txt), versions 1 and 2: the parser of a header
 * and the writer of version 2. Pure: no descriptor, no clock, no allocation.
 */
#ifndef KKM_PROXYPROTO_H
#define KKM_PROXYPROTO_H

#include <stddef.h>
#include <stdint.h>
#include <sys/socket.h>

#define PROXYPROTO_MAX 65536 /* bytes of a header that is accepted, with its TLVs */
#define PROXYPROTO_OUT_MAX 52

/*
 * Parse the header at the beginning of a connection, either version. Returns its length, 0 where it
 * is not complete yet, or -EBADMSG where this is none. `source` and `destination` are written where
 * the header carries addresses (TCP over IPv4 or IPv6), else (LOCAL, UNKNOWN, other families) their
 * ss_family is AF_UNSPEC: then the connection's own addresses hold. TLVs are skipped.
 */
int proxyproto_parse(const char *data, size_t len, struct sockaddr_storage *source,
		     struct sockaddr_storage *destination);

/*
 * A version 2 header of a proxied TCP connection. Both addresses are of one family (AF_INET or
 * AF_INET6); otherwise what is written is a LOCAL header, which carries none. Returns its length.
 */
size_t proxyproto_write(const struct sockaddr_storage *source,
			const struct sockaddr_storage *destination, uint8_t out[PROXYPROTO_OUT_MAX]);

#endif
