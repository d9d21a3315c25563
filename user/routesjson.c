// SPDX-License-Identifier: MIT
#include "routesjson.h"

#include <errno.h>
#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

enum { AT_KEY = -2, AT_VALUE = -1 };

struct parse {
	const char *text;
	size_t len;
	unsigned int max_targets;
	unsigned int member; /* the one that is being read, */
	int element;	     /* and which of its array; or one of these: */
	struct routesjson out;
	struct routesjson_error *error;
};

static unsigned int line_at(const struct parse *parse, size_t at)
{
	unsigned int line = 1;

	for (size_t i = 0; i < at && i < parse->len; i++)
		line += parse->text[i] == '\n';
	return line;
}

__attribute__((format(printf, 3, 4))) static int fault(struct parse *parse, size_t at,
						       const char *format, ...)
{
	va_list args;

	parse->error->line = line_at(parse, at);
	va_start(args, format);
	vsnprintf(parse->error->reason, sizeof(parse->error->reason), format, args);
	va_end(args);
	/* a part of the file stands in it, perhaps cut inside of a character */
	for (char *p = parse->error->reason; *p; p++) {
		if (*p < 0x20 || *p == 0x7f)
			*p = '?';
	}
	return -EINVAL;
}

/*
 * The parser does not say where a value stood, so what is wrong about one is looked for again in
 * the text, which is JSON by then.
 */

static size_t behind_blanks(const struct parse *parse, size_t at)
{
	while (at < parse->len && (unsigned char)parse->text[at] <= ' ')
		at++;
	return at;
}

static size_t behind_string(const struct parse *parse, size_t at)
{
	for (at++; at < parse->len && parse->text[at] != '"'; at++)
		at += parse->text[at] == '\\';
	return at + 1;
}

/* Where a child of the object or array that opens at `at` begins. */
static size_t child_at(const struct parse *parse, size_t at, unsigned int wanted)
{
	unsigned int depth = 0, commas = 0;

	while (at < parse->len) {
		char c = parse->text[at];

		depth += c == '{' || c == '[';
		depth -= c == '}' || c == ']';
		commas += depth == 1 && c == ',';
		if (depth == 1 && commas == wanted)
			break;
		at = c == '"' ? behind_string(parse, at) : at + 1;
	}
	return behind_blanks(parse, at + 1);
}

/* Where that stands which is being read. */
static size_t place(const struct parse *parse)
{
	const char *open = memchr(parse->text, '{', parse->len);
	size_t at = child_at(parse, (size_t)(open - parse->text), parse->member);

	if (parse->element == AT_KEY)
		return at;
	at = behind_blanks(parse, behind_string(parse, at)); /* the colon */
	at = behind_blanks(parse, at + 1);
	return parse->element == AT_VALUE ? at : child_at(parse, at, (unsigned int)parse->element);
}

/* What is wrong with a target, or NULL. */
static const char *read_target(const char *text, struct sockaddr_storage *out)
{
	const struct in6_addr *v6 = &((struct sockaddr_in6 *)out)->sin6_addr;
	const char *colon = strrchr(text, ':');
	bool brackets = *text == '[';
	char host[INET6_ADDRSTRLEN];
	uint64_t port;
	size_t len;

	if (strstr(text, "://"))
		return "is a URL: give address:port alone";
	if (!colon || (brackets && colon[-1] != ']'))
		return "has no port: give address:port";
	len = (size_t)(colon - text);
	if (!brackets && memchr(text, ':', len))
		return "is an IPv6 address without brackets: give [address]:port";
	if (number_parse(colon + 1, strlen(colon + 1), 1, 65535, &port))
		return "has no port from 1 to 65535";
	if (brackets) {
		text++;
		len -= 2;
	}
	snprintf(host, sizeof(host), "%.*s", (int)len, text);
	if (len >= sizeof(host) || address_parse(host, (uint16_t)port, out) ||
	    brackets != (out->ss_family == AF_INET6))
		return "is no address with a port: names are not looked up, give address:port";
	/* one spelling for each address, as whoever compares them expects */
	if (brackets && IN6_IS_ADDR_V4MAPPED(v6))
		return "is an IPv4 address: write it as one";
	if (!strcmp(host, "0.0.0.0") || (brackets && IN6_IS_ADDR_UNSPECIFIED(v6)))
		return "is nobody's address: give 127.0.0.1 for this host";
	return NULL;
}

/* Of domain and target: a backend that stays keeps its id, whatever else the file holds. */
static unsigned long long hash(const char *domain, const char *target)
{
	unsigned long long value = 14695981039346656037u; /* FNV-1a */

	for (; *domain; domain++)
		value = (value ^ (unsigned char)*domain) * 1099511628211u;
	value *= 1099511628211u;
	for (; *target; target++)
		value = (value ^ (unsigned char)*target) * 1099511628211u;
	return value;
}

static void add_source(struct parse *parse, const char *domain,
		       const struct sockaddr_storage *address)
{
	struct route_source *source = &parse->out.sources[parse->out.count];
	char target[ADDRESS_TEXT_MAX];

	address_print(address, target);
	source->owner = KKM_FILE;
	source->state = KKM_ACTIVE;
	source->address = *address;
	source->order = parse->out.count++;
	snprintf(source->id, sizeof(source->id), "file:%016llx", hash(domain, target));
	snprintf(source->name, sizeof(source->name), "file:%s", target);
	snprintf(source->group, sizeof(source->group), "%s", domain);
	snprintf(source->via, sizeof(source->via), "given by the routes file");
	source->labels.port = address_port(address);
	source->labels.domain_count = 1;
	snprintf(source->labels.domains[0], sizeof(source->labels.domains[0]), "%s", domain);
}

static int add_target(struct parse *parse, const char *domain, const struct json *value,
		      unsigned int first)
{
	const char *text = json_text(value), *wrong;
	struct sockaddr_storage address;

	if (!text)
		return fault(parse, place(parse),
			     "%.100s: a target is a string: give \"address:port\"", domain);
	wrong = read_target(text, &address);
	if (wrong)
		return fault(parse, place(parse), "%.100s: target '%.48s' %s", domain, text, wrong);
	for (unsigned int i = first; i < parse->out.count; i++) {
		if (address_equal(&parse->out.sources[i].address, &address))
			return fault(parse, place(parse), "%.100s: target '%.48s' is there twice",
				     domain, text);
	}
	if (parse->out.count - first == ROUTE_MAX_BACKENDS)
		return fault(parse, place(parse), "%.100s: more than %d targets", domain,
			     ROUTE_MAX_BACKENDS);
	if (parse->out.count == parse->max_targets)
		return fault(parse, place(parse), "more than %u targets: raise --max-routes",
			     parse->max_targets);
	add_source(parse, domain, &address);
	return 0;
}

static int add_member(struct parse *parse, const struct json *value)
{
	const char *name = json_name(value), *wrong;
	unsigned int first = parse->out.count;
	char domain[HOSTNAME_MAX + 1];
	int err = 0;

	parse->element = AT_KEY;
	if (hostname_parse(name, strlen(name), domain, &wrong))
		return fault(parse, place(parse), "'%.64s' is no host name: it %s", name, wrong);
	parse->element = AT_VALUE;
	if (!json_is_array(value))
		return add_target(parse, domain, value, first);
	if (!json_first(value))
		return fault(parse, place(parse), "%.100s: no target in its list", domain);
	json_each(target, value) {
		parse->element++;
		err = add_target(parse, domain, target, first);
		if (err)
			break;
	}
	return err;
}

struct claim {
	const char *domain;
	unsigned int member;
};

static int compare_claims(const void *a, const void *b)
{
	const struct claim *x = a, *y = b;
	int order = strcmp(x->domain, y->domain);

	return order ? order : x->member < y->member ? -1 : 1;
}

/* Names that differ in spelling only are one domain too. */
static int check_unique(struct parse *parse, struct claim *claims)
{
	const struct claim *again = NULL, *first = NULL;
	unsigned int line;

	if (parse->out.domains)
		qsort(claims, parse->out.domains, sizeof(*claims), compare_claims);
	for (unsigned int i = 1; i < parse->out.domains; i++) {
		if (!strcmp(claims[i].domain, claims[i - 1].domain) &&
		    (!again || claims[i].member < again->member)) {
			first = &claims[i - 1];
			again = &claims[i];
		}
	}
	if (!again)
		return 0;
	parse->element = AT_KEY;
	parse->member = first->member;
	line = line_at(parse, place(parse));
	parse->member = again->member;
	return fault(parse, place(parse), "%.100s is there twice: in line %u too", again->domain,
		     line);
}

static int add_members(struct parse *parse, const struct json *root, struct claim *claims)
{
	json_each(member, root) {
		unsigned int first = parse->out.count;
		int err;

		parse->member = parse->out.domains;
		err = add_member(parse, member);
		if (err)
			return err;
		claims[parse->out.domains++] = (struct claim){
			parse->out.sources[first].labels.domains[0], parse->member
		};
	}
	return check_unique(parse, claims);
}

/* How many there may be: not more than the limit, behind which reading ends. */
static unsigned int count_targets(const struct parse *parse, const struct json *root)
{
	unsigned int count = 0;

	json_each(member, root) {
		if (!json_is_array(member))
			count++;
		else
			json_each(target, member)
				count++;
		if (count >= parse->max_targets)
			return parse->max_targets;
	}
	return count;
}

static int add_all(struct parse *parse, const struct json *root)
{
	unsigned int count = count_targets(parse, root);
	struct claim *claims = calloc((size_t)count + 1, sizeof(*claims));
	int err = -ENOMEM;

	parse->out.sources = calloc((size_t)count + 1, sizeof(*parse->out.sources));
	if (claims && parse->out.sources)
		err = add_members(parse, root, claims);
	else
		snprintf(parse->error->reason, sizeof(parse->error->reason), "out of memory");
	free(claims);
	return err;
}

/* What the JSON parser takes and would end a name early. */
static int check_zeros(struct parse *parse)
{
	const char *zero = memchr(parse->text, '\0', parse->len);

	if (!zero)
		zero = memmem(parse->text, parse->len, "\\u0000", 6);
	return zero ? fault(parse, (size_t)(zero - parse->text), "has a NUL character") : 0;
}

/* The parser ends at what it does not take, or one behind. */
static int no_json(struct parse *parse, size_t at)
{
	size_t from = at, to = at;

	while (from && at - from < 16 && parse->text[from - 1] != '\n')
		from--;
	while (to < parse->len && to - at < 24 && parse->text[to] != '\n')
		to++;
	from = behind_blanks(parse, from);
	if (from >= to)
		return fault(parse, at, "is no JSON, or ends early");
	return fault(parse, at, "is no JSON, or ends early, near '%.*s'", (int)(to - from),
		     parse->text + from);
}

int routesjson_parse(const char *text, size_t len, unsigned int max_targets,
		     struct routesjson *out, struct routesjson_error *error)
{
	struct parse parse = { .text = text, .len = len, .max_targets = max_targets,
			       .error = error };
	struct json *root = NULL;
	size_t wrong_at;
	int err;

	memset(error, 0, sizeof(*error));
	err = check_zeros(&parse);
	if (err)
		return err;
	root = json_parse_at(text, len, &wrong_at);
	if (!root)
		return no_json(&parse, wrong_at);
	if (json_is_object(root))
		err = add_all(&parse, root);
	else
		err = fault(&parse, behind_blanks(&parse, 0),
			    "is no object: give {\"domain\": \"address:port\"}");
	json_free(&root);
	if (err)
		free(parse.out.sources);
	else
		*out = parse.out;
	return err;
}
