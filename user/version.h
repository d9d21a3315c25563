/* SPDX-License-Identifier: MIT */
#ifndef KKM_VERSION_H
#define KKM_VERSION_H

extern const char version_number[], version_commit[];

#endif
