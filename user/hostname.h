/* SPDX-License-Identifier: MIT */
/* Names and addresses as text: pure. */
#ifndef KKM_HOSTNAME_H
#define KKM_HOSTNAME_H

#include <netinet/in.h>
#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>
#include <sys/socket.h>

#define HOSTNAME_MAX 253

/*
 * A domain as a label gives it: lower case, without a trailing dot. `*.example.com` and `*` are
 * names too. What is written in other letters (UTF-8) comes out in A-labels (RFC 5890, UTS #46).
 * 0, or -EINVAL with *reason saying what is wrong; `out` holds HOSTNAME_MAX + 1 bytes.
 */
int hostname_parse(const char *text, size_t len, char *out, const char **reason);

/*
 * The value of a Host field or of a URI's authority: name or address, optional port. The name is
 * written in lower case and without a trailing dot, an IPv6 address without its brackets; an empty
 * value gives an empty name. 0 or -EINVAL.
 */
int hostname_from_authority(const char *text, size_t len, char *out);

/* The name in a TLS ClientHello: one host name (RFC 6066, 3), no wildcard, written as above. */
int hostname_from_sni(const char *text, size_t len, char *out);

/* "192.0.2.1" or "2001:db8::1" -> address and port; 0 or -EINVAL. */
int address_parse(const char *text, uint16_t port, struct sockaddr_storage *out);
/*
 * "192.0.2.1:80", "[2001:db8::1]:80", "-:80" without an address; `out` holds ADDRESS_TEXT_MAX bytes.
 * Returns out.
 */
#define ADDRESS_TEXT_MAX (INET6_ADDRSTRLEN + 8)
const char *address_print(const struct sockaddr_storage *address, char *out);
socklen_t address_len(const struct sockaddr_storage *address);
uint16_t address_port(const struct sockaddr_storage *address);
bool address_is_wildcard(const struct sockaddr_storage *address); /* 0.0.0.0 or :: */
bool address_same_host(const struct sockaddr_storage *a, const struct sockaddr_storage *b);
bool address_equal(const struct sockaddr_storage *a, const struct sockaddr_storage *b);

/* A decimal number without sign, blank or rest, within [min, max]; 0 or -EINVAL. */
int number_parse(const char *text, size_t len, uint64_t min, uint64_t max, uint64_t *out);

#endif
