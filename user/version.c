// SPDX-License-Identifier: MIT
/* Alone, so that a new commit compiles just this. */
#include "version.h"

const char version_number[] = KKM_VERSION;
const char version_commit[] = KKM_COMMIT;
