/* SPDX-License-Identifier: MIT */
/* How values are shown, in the log, in text and in JSON alike. Pure. */
#ifndef KKM_TEXT_H
#define KKM_TEXT_H

#include "kakuremichi.h"

#define TEXT_TIME_MAX 40

/* Names of enum values; "?" for one that is none. */
const char *text_state(enum kkm_state state);
const char *text_owner(enum kkm_owner owner);
const char *text_engine(enum kkm_engine engine);
/* Milliseconds since the epoch as RFC 3339, UTC. Returns out. */
const char *text_time(__u64 ms, char out[TEXT_TIME_MAX]);

#endif
