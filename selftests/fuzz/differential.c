// SPDX-License-Identifier: MIT
/*
 * user/http1.c against http-parser (Debian's libhttp-parser): what ours takes, theirs takes too,
 * and both read the same in it. The other way round nothing is expected: theirs is lenient by
 * design. Where they differ and the RFCs say that theirs is wrong, is said at each place below.
 */
#include <ctype.h>
#include <http_parser.h>

#include "fuzz.h"
#include "http1.h"

struct span {
	const char *at;
	size_t len;
};

/* How http-parser reads one message. */
struct theirs {
	http_parser parser;
	bool skip_body;
	size_t head, end; /* lengths; 0 where it has not come to that */
	enum http_errno err;
	uint64_t length;
	bool chunked, keep_alive, upgrade, to_eof;
	struct span target, field, host;
	bool names_upgrade, has_proxy_connection;
	bool odd_connection, coding_tab;
	bool longer_coding; /* a name that begins with Transfer-Encoding */
};

static bool is_named(struct span field, const char *name)
{
	return field.len == strlen(name) && !strncasecmp(field.at, name, field.len);
}

static bool is_token_char(char c)
{
	return c > 0 && (isalnum(c) || strchr("!#$%&'*+-.^_`|~", c));
}

/* As "clo": the comma behind it goes by unseen, and the next element with it. */
static bool is_beginning(const char *at, size_t len)
{
	static const char *const names[] = { "close", "keep-alive", "upgrade" };

	for (size_t i = 0; i < sizeof(names) / sizeof(*names); i++) {
		if (len < strlen(names[i]) && !strncasecmp(at, names[i], len))
			return true;
	}
	return false;
}

/*
 * Theirs loses its way in a Connection field at a TAB, at an element that is empty or the beginning
 * of a name it looks for, and at what is no token. The first three are allowed (RFC 9110, 5.6.1.2
 * and 5.6.3), and the last is no reason not to hear a close.
 */
static bool is_odd_list(const char *at, size_t len)
{
	size_t begin = 0;

	for (size_t i = 0; i < len; i++) {
		if (at[i] == ',' && is_beginning(at + begin, i - begin))
			return true;
		if (at[i] != ',' && at[i] != ' ' && !is_token_char(at[i]))
			return true;
		if (at[i] == ',' || (at[i] == ' ' && begin == i))
			begin = i + 1;
	}
	return false;
}

static int on_url(http_parser *parser, const char *at, size_t len)
{
	((struct theirs *)parser->data)->target = (struct span){ at, len };
	return 0;
}

static int on_field(http_parser *parser, const char *at, size_t len)
{
	struct theirs *theirs = parser->data;

	theirs->field = (struct span){ at, len };
	theirs->longer_coding |= len > strlen("Transfer-Encoding") &&
				 !strncasecmp(at, "Transfer-Encoding", strlen("Transfer-Encoding"));
	return 0;
}

static int on_value(http_parser *parser, const char *at, size_t len)
{
	struct theirs *theirs = parser->data;

	if (theirs->head)
		return 0; /* a trailer */
	if (is_named(theirs->field, "Host"))
		theirs->host = (struct span){ at, len };
	theirs->names_upgrade |= is_named(theirs->field, "Upgrade") && len;
	theirs->has_proxy_connection |= is_named(theirs->field, "Proxy-Connection");
	theirs->odd_connection |= is_named(theirs->field, "Connection") && is_odd_list(at, len);
	theirs->coding_tab |= is_named(theirs->field, "Transfer-Encoding") && memchr(at, '\t', len);
	return 0;
}

/* Paused here, it says where it stands. 1: there is no body, which is for its user to know. */
static int on_head(http_parser *parser)
{
	struct theirs *theirs = parser->data;

	theirs->length = parser->content_length;
	theirs->chunked = parser->flags & F_CHUNKED;
	theirs->upgrade = parser->upgrade;
	http_parser_pause(parser, 1);
	/* RFC 9112, 6.3: a 304 has none either, whatever it says of its length; theirs reads one */
	return theirs->skip_body || (parser->type == HTTP_RESPONSE && parser->status_code == 304);
}

static int on_end(http_parser *parser)
{
	http_parser_pause(parser, 1);
	return 0;
}

static void read_theirs(struct theirs *theirs, enum http_parser_type type, const char *data,
			size_t len)
{
	static const http_parser_settings settings = {
		.on_url = on_url,
		.on_header_field = on_field,
		.on_header_value = on_value,
		.on_headers_complete = on_head,
		.on_message_complete = on_end,
	};
	size_t at;

	http_parser_init(&theirs->parser, type);
	theirs->parser.data = theirs;
	at = http_parser_execute(&theirs->parser, &settings, data, len);
	theirs->err = HTTP_PARSER_ERRNO(&theirs->parser);
	if (theirs->err != HPE_PAUSED)
		return;
	theirs->head = at + 1; /* it stands on the last LF, and reads that once more */
	theirs->keep_alive = http_should_keep_alive(&theirs->parser);
	http_parser_pause(&theirs->parser, 0);
	at += http_parser_execute(&theirs->parser, &settings, data + at, len - at);
	theirs->err = HTTP_PARSER_ERRNO(&theirs->parser);
	if (theirs->err == HPE_PAUSED)
		theirs->end = at;
	if (theirs->err != HPE_OK)
		return;
	http_parser_execute(&theirs->parser, &settings, data + len, 0);
	theirs->to_eof = HTTP_PARSER_ERRNO(&theirs->parser) == HPE_PAUSED;
}

/*
 * Where the message ends whose body begins here. One that we refuse theirs may take: it looks
 * neither at what stands where a chunk's CRLF should, nor into extensions and trailers.
 */
static void expect_end(const struct theirs *theirs, const char *data, size_t len,
		       enum http1_framing framing, uint64_t length)
{
	struct http1_body body;
	size_t end;
	int err;

	http1_body_start(&body, framing, length);
	end = theirs->head + http1_body_feed(&body, data + theirs->head, len - theirs->head, &err);
	if (!err)
		expect(theirs->end == (body.state == HTTP1_BODY_DONE ? end : 0));
}

/* A name as we write it, from the value of a field or a URL's authority, in another way. */
static void normalise(struct span text, char out[HOSTNAME_MAX + 1])
{
	char copy[1024] = "", *end;
	struct in6_addr address;

	while (text.len && (text.at[text.len - 1] == ' ' || text.at[text.len - 1] == '\t'))
		text.len--;
	expect(text.len < sizeof(copy));
	memcpy(copy, text.at, text.len);
	if (*copy == '[') {
		*strchr(copy, ']') = '\0';
		expect(inet_pton(AF_INET6, copy + 1, &address) == 1);
		inet_ntop(AF_INET6, &address, out, INET6_ADDRSTRLEN);
		return;
	}
	copy[strcspn(copy, ":")] = '\0';
	end = copy + strlen(copy);
	if (end > copy && end[-1] == '.')
		*--end = '\0';
	for (char *p = copy; *p; p++)
		*p = (char)(*p >= 'A' && *p <= 'Z' ? *p + 32 : *p);
	expect(strlen(copy) <= HOSTNAME_MAX);
	strcpy(out, copy);
}

static bool has_empty_port(struct span target)
{
	const char *end = target.at + target.len;
	const char *at = (const char *)memmem(target.at, target.len, "://", 3) + 3;

	while (at < end && *at != '/' && *at != '?')
		at++;
	return at[-1] == ':';
}

/* Both the field and an absolute target name the host, and no other. */
static void expect_host(const struct theirs *theirs, const struct http1_request *ours)
{
	struct http_parser_url url;
	char name[HOSTNAME_MAX + 1];
	struct span authority;

	if (theirs->host.at) {
		normalise(theirs->host, name);
		expect(!strcmp(name, ours->host));
	}
	if (*theirs->target.at == '/' || *theirs->target.at == '*') {
		expect(theirs->host.at || !*ours->host);
		return;
	}
	http_parser_url_init(&url);
	if (http_parser_parse_url(theirs->target.at, theirs->target.len, 0, &url)) {
		/* RFC 3986, 3.2.3 allows a ':' without a port behind it */
		expect(has_empty_port(theirs->target));
		return;
	}
	expect(!(url.field_set & 1 << UF_USERINFO));
	authority = (struct span){ theirs->target.at + url.field_data[UF_HOST].off,
				   url.field_data[UF_HOST].len };
	if (authority.at[-1] == '[') {
		authority.at--;
		authority.len += 2;
	}
	normalise(authority, name);
	expect(!strcmp(name, ours->host));
}

/* Theirs takes Proxy-Connection for Connection. */
static bool reads_connection(const struct theirs *theirs)
{
	return !theirs->has_proxy_connection && !theirs->odd_connection;
}

/* The fields by which a connection goes on or becomes another. */
static void expect_same_future(const struct theirs *theirs, const struct http1_request *ours)
{
	if (!reads_connection(theirs))
		return;
	/* RFC 9112, 9.3: in HTTP/1.0 too, close comes first; theirs looks for keep-alive alone */
	expect(ours->keep_alive == theirs->keep_alive ||
	       (ours->version_1_0 && theirs->parser.flags & F_CONNECTION_CLOSE));
	/* RFC 9110, 7.8: no Upgrade in HTTP/1.0, nor an empty one, which names no protocol */
	if (!ours->version_1_0 && theirs->names_upgrade)
		expect(ours->upgrade == theirs->upgrade);
	else
		expect(!ours->upgrade);
}

/* What theirs cannot read though it is right. */
static bool knows_too_little(const struct theirs *theirs, const char *data, size_t head)
{
	/* theirs has a list of methods, and another opinion on what a target begins with */
	if (theirs->err == HPE_INVALID_METHOD || theirs->err == HPE_INVALID_URL)
		return true;
	/* to theirs a name is Transfer-Encoding that only begins so */
	if (theirs->longer_coding)
		return true;
	/* RFC 9110, 5.6.3: a TAB around a value is a blank as any other */
	return theirs->coding_tab || (theirs->err == HPE_INVALID_CONTENT_LENGTH &&
				      !theirs->head && memchr(data, '\t', head));
}

static void request(const char *data, size_t len)
{
	struct http1_request ours;
	struct http1_scan scan = { 0 };
	struct theirs theirs = { 0 };
	int head = http1_request(&scan, data, len, &ours);

	if (head <= 0)
		return;
	read_theirs(&theirs, HTTP_REQUEST, data, len);
	if (knows_too_little(&theirs, data, (size_t)head))
		return;
	expect(theirs.head == (size_t)head);
	expect(!strcmp(http_method_str(theirs.parser.method), ours.method));
	expect(theirs.parser.http_major == 1 && theirs.parser.http_minor == !ours.version_1_0);
	expect(theirs.chunked == (ours.framing == HTTP1_CHUNKED));
	expect(theirs.length == ours.length || (!ours.length && theirs.length == UINT64_MAX));
	expect_host(&theirs, &ours);
	expect_same_future(&theirs, &ours);
	expect_end(&theirs, data, len, ours.framing, ours.length);
}

static void expect_same_framing(const struct theirs *theirs, const struct http1_response *ours)
{
	expect(theirs->to_eof == (ours->framing == HTTP1_TO_EOF));
	if (ours->framing == HTTP1_CHUNKED)
		expect(theirs->chunked);
	if (ours->framing == HTTP1_LENGTH)
		expect(!theirs->chunked && theirs->length == ours->length);
	/* as with requests */
	if (reads_connection(theirs))
		expect(ours->keep_alive == theirs->keep_alive ||
		       (theirs->parser.http_minor == 0 &&
			theirs->parser.flags & F_CONNECTION_CLOSE));
}

static void response(const char *data, size_t len, const struct http1_request *asked)
{
	struct http1_response ours;
	struct http1_scan scan = { 0 };
	struct theirs theirs = { .skip_body = asked->head };
	int head = http1_response(&scan, data, len, asked, &ours);

	if (head <= 0)
		return;
	read_theirs(&theirs, HTTP_RESPONSE, data, len);
	if (knows_too_little(&theirs, data, (size_t)head))
		return;
	expect(theirs.head == (size_t)head);
	expect(theirs.parser.status_code == ours.status);
	/* behind a 101 is no HTTP, which theirs believes only where Upgrade says so once more */
	if (ours.status == 101)
		return;
	expect_same_framing(&theirs, &ours);
	expect_end(&theirs, data, len, ours.framing, ours.length);
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t len);
int LLVMFuzzerTestOneInput(const uint8_t *data, size_t len)
{
	static const struct http1_request questions[] = {
		{ .method = "GET", .keep_alive = true },
		{ .method = "HEAD", .head = true, .keep_alive = true },
		{ .method = "GET", .upgrade = true, .keep_alive = true },
	};

	request((const char *)data, len);
	for (size_t i = 0; i < sizeof(questions) / sizeof(*questions); i++)
		response((const char *)data, len, &questions[i]);
	return 0;
}
