// SPDX-License-Identifier: MIT
/*
 * What the agent has around it in the guest: a Docker daemon, containers, a client. Linked
 * statically, and small, since the guest has little else.
 *
 *	peers docker SOCKET	answers what the agent asks Docker: the containers below
 *	peers container NAME	echoes requests and, upgraded, messages
 *	peers client PORT NAME	speaks to NAME.example, compares every byte, prints TAP
 *
 * The containers have the host's network, as with `docker run --network host`.
 */
#include <arpa/inet.h>
#include <netinet/in.h>
#include <netinet/tcp.h>
#include <signal.h>
#include <stdbool.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/socket.h>
#include <sys/time.h>
#include <sys/un.h>
#include <unistd.h>

#define HEAD_MAX 4096
#define BODY_MAX (1 << 20)
#define WAIT_S 20
#define EXCHANGES 90

static const struct peer {
	const char *name;
	int port, protocol;
} peers[] = {
	{ "tcp", 8000, IPPROTO_TCP },
	{ "mptcp", 8001, IPPROTO_MPTCP }, /* as servers in Go listen */
};

#define PEERS (sizeof(peers) / sizeof(*peers))

static void die(const char *what)
{
	perror(what);
	exit(1);
}

static const struct peer *find_peer(const char *name)
{
	for (size_t i = 0; i < PEERS; i++) {
		if (!strcmp(peers[i].name, name))
			return &peers[i];
	}
	fprintf(stderr, "no such peer: %s\n", name);
	exit(1);
}

/* Bytes are a function of their place, so that loss, doubling and disorder all show. */
static void fill(char *data, size_t len)
{
	for (size_t i = 0; i < len; i++)
		data[i] = (char)((i * 2654435761u) >> 13);
}

static bool send_all(int fd, const char *data, size_t len)
{
	while (len) {
		ssize_t n = send(fd, data, len, MSG_NOSIGNAL);

		if (n <= 0)
			return false;
		data += n;
		len -= (size_t)n;
	}
	return true;
}

static bool receive_all(int fd, char *data, size_t len)
{
	while (len) {
		ssize_t n = recv(fd, data, len, 0);

		if (n <= 0)
			return false;
		data += n;
		len -= (size_t)n;
	}
	return true;
}

static struct sockaddr_in loopback(int port)
{
	return (struct sockaddr_in){ .sin_family = AF_INET,
				     .sin_port = htons((uint16_t)port),
				     .sin_addr.s_addr = htonl(INADDR_LOOPBACK) };
}

/* Each connection is served by a child of its own; never returns. */
static void serve(int listener, void (*talk)(int fd))
{
	signal(SIGCHLD, SIG_IGN);
	for (;;) {
		int fd = accept(listener, NULL, NULL);

		if (fd < 0)
			die("accept");
		if (!fork()) {
			close(listener);
			talk(fd);
			exit(0);
		}
		close(fd);
	}
}

/* A request's head, whole and with its end; 0 where the connection ends before. */
static size_t receive_head(int fd, char head[HEAD_MAX + 1])
{
	size_t len = 0;

	while (len < 4 || memcmp(head + len - 4, "\r\n\r\n", 4)) {
		if (len == HEAD_MAX || recv(fd, head + len, 1, 0) != 1)
			return 0;
		len++;
	}
	head[len] = '\0';
	return len;
}

static size_t content_length(const char *head)
{
	const char *field = strstr(head, "\r\nContent-Length: ");

	return field ? strtoul(field + 18, NULL, 10) : 0;
}

/* Docker: what user/docker.c asks for, and no more. */

static void docker_answers(int fd, const char *body)
{
	char text[HEAD_MAX];
	int len = snprintf(text, sizeof(text),
			   "HTTP/1.1 200 OK\r\nContent-Type: application/json\r\n"
			   "Content-Length: %zu\r\n\r\n%s", strlen(body), body);

	send_all(fd, text, (size_t)len);
}

static void docker_lists(int fd)
{
	char list[HEAD_MAX / 2] = "[";
	size_t len = 1;

	for (size_t i = 0; i < PEERS; i++)
		len += (size_t)snprintf(
			list + len, sizeof(list) - len,
			"%s{\"Id\":\"%064zx\",\"Names\":[\"/%s\"],\"Image\":\"peers\","
			"\"Created\":%zu,\"State\":\"running\",\"Status\":\"Up\",\"Labels\":{"
			"\"kakuremichi.enabled\":\"true\",\"kakuremichi.domain\":\"%s.example\","
			"\"kakuremichi.port\":\"%d\"},\"HostConfig\":{\"NetworkMode\":\"host\"}}",
			i ? "," : "", i + 1, peers[i].name, i + 1, peers[i].name, peers[i].port);
	snprintf(list + len, sizeof(list) - len, "]");
	docker_answers(fd, list);
}

static void docker_talks(int fd)
{
	static const char events[] = "HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n";
	char head[HEAD_MAX + 1];

	while (receive_head(fd, head)) {
		head[strcspn(head, "?\r")] = '\0'; /* nothing behind the path is needed */
		if (strstr(head, "/events")) {
			send_all(fd, events, sizeof(events) - 1); /* and nothing ever happens */
			recv(fd, head, 1, 0);
			return;
		}
		if (strstr(head, "/version"))
			docker_answers(fd, "{\"ApiVersion\":\"1.41\",\"MinAPIVersion\":\"1.12\"}");
		else if (strstr(head, "/containers/json"))
			docker_lists(fd);
		else
			docker_answers(fd, "{\"Config\":{}}");
	}
}

static void docker(const char *path)
{
	struct sockaddr_un address = { .sun_family = AF_UNIX };
	int listener = socket(AF_UNIX, SOCK_STREAM, 0);

	snprintf(address.sun_path, sizeof(address.sun_path), "%s", path);
	if (listener < 0 || bind(listener, (struct sockaddr *)&address, sizeof(address)) ||
	    listen(listener, 16))
		die(path);
	serve(listener, docker_talks);
}

/* The answer to `request`: the request itself, and as many bytes more as its path says. */
static size_t make_answer(char *out, const char *request, size_t len)
{
	size_t more = strtoul(strchr(request, '/') + 1, NULL, 10);
	int head = sprintf(out, "HTTP/1.1 200 OK\r\nContent-Length: %zu\r\n\r\n", len + more);

	memcpy(out + head, request, len);
	fill(out + head + len, more);
	return (size_t)head + len + more;
}

static const char switching[] =
	"HTTP/1.1 101 Switching Protocols\r\nConnection: Upgrade\r\nUpgrade: echo\r\n\r\n";

static void container_echoes(int fd)
{
	static char data[BODY_MAX];
	ssize_t n;

	send_all(fd, switching, sizeof(switching) - 1);
	while ((n = recv(fd, data, sizeof(data), 0)) > 0)
		send_all(fd, data, (size_t)n);
}

/* Head and body of an answer are one message, as from nginx that proxies or node. */
static void container_talks(int fd)
{
	static char request[HEAD_MAX + BODY_MAX], answer[2 * (HEAD_MAX + BODY_MAX)];
	size_t len, body;

	while ((len = receive_head(fd, request))) {
		if (strstr(request, "\r\nUpgrade: ")) {
			container_echoes(fd);
			return;
		}
		body = content_length(request);
		if (body > BODY_MAX || !receive_all(fd, request + len, body) ||
		    !send_all(fd, answer, make_answer(answer, request, len + body)))
			return;
	}
}

static void container(const struct peer *peer)
{
	struct sockaddr_in address = loopback(peer->port);
	int listener = socket(AF_INET, SOCK_STREAM, peer->protocol);

	if (listener < 0 || bind(listener, (struct sockaddr *)&address, sizeof(address)) ||
	    listen(listener, 16))
		die(peer->name);
	serve(listener, container_talks);
}

/* The client. */

static int connect_to_agent(int port)
{
	struct sockaddr_in address = loopback(port);
	struct timeval wait = { .tv_sec = WAIT_S };
	int fd = socket(AF_INET, SOCK_STREAM, 0);

	setsockopt(fd, SOL_SOCKET, SO_RCVTIMEO, &wait, sizeof(wait));
	if (fd < 0 || connect(fd, (struct sockaddr *)&address, sizeof(address)))
		die("connect to the agent");
	return fd;
}

/* Reads what must be `wanted`, byte for byte. */
static bool expect(int fd, const char *wanted, size_t len)
{
	static char got[2 * (HEAD_MAX + BODY_MAX)];

	memset(got, 0, len);
	if (!receive_all(fd, got, len)) {
		printf("# less than %zu bytes came\n", len);
		return false;
	}
	for (size_t i = 0; i < len; i++) {
		if (got[i] != wanted[i]) {
			printf("# byte %zu of %zu is another\n", i, len);
			return false;
		}
	}
	return true;
}

static bool exchange(int fd, const char *name, size_t body, size_t more)
{
	static char request[HEAD_MAX + BODY_MAX], answer[2 * (HEAD_MAX + BODY_MAX)];
	int head = sprintf(request,
			   "POST /%zu HTTP/1.1\r\nHost: %s.example\r\nContent-Length: %zu\r\n\r\n",
			   more, name, body);

	fill(request + head, body);
	if (!send_all(fd, request, (size_t)head + body))
		return false;
	return expect(fd, answer, make_answer(answer, request, (size_t)head + body));
}

static bool client_requests(int port, const char *name)
{
	static const size_t sizes[][2] = { { 0, 0 },	  { 0, 100 },  { 10, 1000 }, { 1000, 10 },
					   { 0, 20000 },  { 5000, 0 }, { 1, 300000 }, { 300000, 1 },
					   { 4000, 4000 } };
	const size_t count = sizeof(sizes) / sizeof(*sizes);
	int fd = connect_to_agent(port);
	bool right = true;

	for (size_t i = 0; right && i < EXCHANGES; i++) {
		right = exchange(fd, name, sizes[i % count][0], sizes[i % count][1]);
		if (!right)
			printf("# exchange %zu on its connection\n", i);
	}
	close(fd);
	return right;
}

static bool client_stream(int port, const char *name)
{
	static char data[16384];
	char request[256];
	int fd = connect_to_agent(port);
	int len = snprintf(request, sizeof(request),
			   "GET /0 HTTP/1.1\r\nHost: %s.example\r\nConnection: Upgrade\r\n"
			   "Upgrade: echo\r\n\r\n", name);
	bool right = send_all(fd, request, (size_t)len) &&
		     expect(fd, switching, sizeof(switching) - 1);

	fill(data, sizeof(data));
	for (size_t i = 1; right && i <= 200; i++)
		right = send_all(fd, data + i, i * 64) && expect(fd, data + i, i * 64);
	if (right) {
		shutdown(fd, SHUT_WR);
		right = recv(fd, data, 1, 0) == 0;
	}
	close(fd);
	return right;
}

static int client(int port, const char *name)
{
	bool requests = client_requests(port, name), stream = client_stream(port, name);

	printf("%sok 1 - %s: %d requests on one connection\n", requests ? "" : "not ", name,
	       EXCHANGES);
	printf("%sok 2 - %s: an upgraded stream\n", stream ? "" : "not ", name);
	return requests && stream ? 0 : 1;
}

int main(int argc, char **argv)
{
	if (argc == 3 && !strcmp(argv[1], "docker"))
		docker(argv[2]);
	if (argc == 3 && !strcmp(argv[1], "container"))
		container(find_peer(argv[2]));
	if (argc == 4 && !strcmp(argv[1], "client"))
		return client(atoi(argv[2]), argv[3]);
	fprintf(stderr, "usage: see the beginning of peers.c\n");
	return 1;
}
