/* SPDX-License-Identifier: MIT */
/*
 * The server name in a TLS ClientHello (RFC 8446, 4.1.2; RFC 6066, 3), over any number of records.
 * Pure: no descriptor, no clock, no allocation. Nothing is decrypted, nothing changed.
 */
#ifndef KKM_CLIENTHELLO_H
#define KKM_CLIENTHELLO_H

#include <stddef.h>
#include <stdint.h>

#include "hostname.h"

#define CLIENTHELLO_MAX 65536 /* bytes, with the headers of its records */

#define CLIENTHELLO_ALERT_LEN 7
enum clienthello_alert { /* RFC 8446, 6.2 */
	CLIENTHELLO_INTERNAL_ERROR = 80,
	CLIENTHELLO_UNRECOGNIZED_NAME = 112,
};

/*
 * Parse the beginning of a connection. 1 with the name, normalised as hostname_from_authority()
 * does, empty where the hello carries none; 0 where it is not complete yet; -EBADMSG where this is
 * no ClientHello, or larger than CLIENTHELLO_MAX. A name that is no host name counts as none. The
 * verdict does not depend on where the pieces were cut, and costs no more than one walk over the
 * records' headers until the hello is complete.
 */
int clienthello_parse(const char *data, size_t len, char name[HOSTNAME_MAX + 1]);

/* A fatal alert in a record of its own, as an answer to any version's hello. */
void clienthello_alert(enum clienthello_alert alert, uint8_t out[CLIENTHELLO_ALERT_LEN]);

#endif
