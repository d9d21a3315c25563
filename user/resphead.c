// SPDX-License-Identifier: MIT
#include "resphead.h"

static int status_of(const char line[13])
{
	int status = 0;

	if (line[7] < '0' || line[7] > '9' || line[8] != ' ' || (line[12] != ' ' && line[12] != '\r'))
		return -1;
	for (int i = 9; i < 12; i++) {
		if (line[i] < '0' || line[i] > '9')
			return -1;
		status = status * 10 + line[i] - '0';
	}
	return status >= 100 ? status : -1;
}

int resphead_feed(struct resphead *head, const char *data, size_t len)
{
	for (size_t i = 0; i < len; i++) {
		if (head->interim) {
			if (data[i] == '\n')
				head->newlines++;
			else if (data[i] != '\r')
				head->newlines = 0;
			if (head->newlines == 2)
				*head = (struct resphead){ .interim_seen = true };
			continue;
		}
		/* nothing else can become one */
		if (head->len < 7 && data[i] != "HTTP/1."[head->len])
			return -1;
		head->line[head->len++] = data[i];
		if (head->len == sizeof(head->line)) {
			int status = status_of(head->line);

			if (status < 0 || status == 101 || status >= 200)
				return status;
			head->interim = status;
			head->interim_seen = true;
			head->newlines = data[i] == '\n';
		}
	}
	return 0;
}
