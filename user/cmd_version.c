// SPDX-License-Identifier: MIT
#include "cmd.h"


#include "admin.h"
#include "datapath.h"
#include "http.h"
#include "version.h"

int cmd_version(struct config *config)
{
	const char *const parts[][2] = {
		{ "version", version_number },
		{ "commit", version_commit },
		{ "libbpf", datapath_library_version() },
		{ "libcurl", http_library_version() },
		{ "cjson", json_library_version() },
		{ "libmicrohttpd", admin_library_version() },
	};
	struct json *root;

	if (config->json) {
		root = cmd_document(NULL);
		for (size_t i = 0; i < sizeof(parts) / sizeof(*parts); i++)
			json_add_str(root, parts[i][0], parts[i][1]);
		return cmd_print(&root, true);
	}
	printf("kakuremichi-agent %s\n", version_number);
	for (size_t i = 1; i < sizeof(parts) / sizeof(*parts); i++)
		printf("%-14s %s\n", parts[i][0], parts[i][1]);
	return 0;
}
