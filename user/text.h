/* SPDX-License-Identifier: MIT */
/* How values are shown, in the log, in text and in JSON alike. Pure. */
#ifndef KKM_TEXT_H
#define KKM_TEXT_H

#include "kakuremichi.h"

#define TEXT_TIME_MAX 40
#define TEXT_SIZE_MAX 32

/* Names of enum values; "?" for one that is none. */
const char *text_state(enum kkm_state state);
const char *text_owner(enum kkm_owner owner);
const char *text_engine(enum kkm_engine engine);
/* Milliseconds since the epoch as RFC 3339, UTC. Returns out. */
const char *text_time(__u64 ms, char out[TEXT_TIME_MAX]);
/* For eyes: "999 B", "1.5 MiB"; "3.2 s", "5m 07s", "2d 04h". Return out. */
const char *text_size(__u64 bytes, char out[TEXT_SIZE_MAX]);
const char *text_age(__u64 ms, char out[TEXT_SIZE_MAX]);

#endif
