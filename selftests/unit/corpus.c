// SPDX-License-Identifier: MIT
/*
 * The corpus (selftests/corpus, whose README says how it is written) against the parser: the bytes
 * of a connection are read request by request, as the agent does, and each byte that may pass is
 * handed to its container. Whole, cut in two, in small steps: verdict and bytes must be the same.
 */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <cmocka.h>

#include <ctype.h>
#include <dirent.h>
#include <errno.h>

#include "http1.h"

#define CASES_MIN 280
#define SMALL 4096 /* up to here every cut is tried */
#define SAMPLES 40 /* of the cuts of what is larger */
#define NAMES_MAX 16
#define FILES_MAX 32

enum { CONTAINERS = 3, NOBODY = CONTAINERS, VERDICTS_MAX = 4 };
enum { OK = 1, CLOSE, MORE }; /* other verdicts are the status */

struct bytes {
	char *data;
	size_t len, room;
};

static void append(struct bytes *to, const char *data, size_t len)
{
	if (!len)
		return;
	if (to->len + len > to->room) {
		to->room = 2 * (to->len + len);
		to->data = realloc(to->data, to->room);
		assert_non_null(to->data);
	}
	memcpy(to->data + to->len, data, len);
	to->len += len;
}

static void drop(struct bytes *bytes)
{
	free(bytes->data);
	*bytes = (struct bytes){ 0 };
}

/* The text */

struct test_case {
	char *title;
	struct bytes input, wanted[CONTAINERS];
	int verdicts[VERDICTS_MAX];
};

struct file {
	char name[64], path[512];
	unsigned int line, cases;
	struct {
		char name[32];
		struct bytes value;
	} names[NAMES_MAX];
	size_t name_count;
};

#define bad_line(file, ...)                                                                        \
	do {                                                                                       \
		print_error("# %s:%u: ", (file)->name, (file)->line);                              \
		print_error(__VA_ARGS__);                                                          \
		fail_msg("%s cannot be read", (file)->name);                                       \
	} while (0)

static int hex_digit(const struct file *file, char c)
{
	static const char digits[] = "0123456789abcdef";
	const char *at = c ? strchr(digits, c) : NULL;

	if (!at)
		bad_line(file, "'%c' is no hexadecimal digit\n", c);
	return (int)(at - digits);
}

/* What stands behind a backslash; *text moves behind it. */
static char unescape(const struct file *file, const char **text)
{
	char c = *(*text)++;

	switch (c) {
	case 'r':
		return '\r';
	case 'n':
		return '\n';
	case 't':
		return '\t';
	case '\\':
	case '"':
		return c;
	case 'x':
		*text += 2;
		return (char)(hex_digit(file, (*text)[-2]) << 4 | hex_digit(file, (*text)[-1]));
	}
	bad_line(file, "unknown escape '\\%c'\n", c);
	return 0;
}

static void read_string(const struct file *file, const char **text, struct bytes *out)
{
	for ((*text)++; **text != '"';) {
		char c = *(*text)++;

		if (!c)
			bad_line(file, "a string has no end\n");
		if (c == '\\')
			c = unescape(file, text);
		append(out, &c, 1);
	}
	(*text)++;
}

static void read_name(const struct file *file, const char **text, struct bytes *out)
{
	size_t len = strcspn(*text, " ");

	for (size_t i = 0; i < file->name_count; i++) {
		if (strlen(file->names[i].name) == len &&
		    !memcmp(file->names[i].name, *text, len)) {
			append(out, file->names[i].value.data, file->names[i].value.len);
			*text += len;
			return;
		}
	}
	bad_line(file, "'%.*s' is not defined\n", (int)len, *text);
}

static void read_term(const struct file *file, const char **text, struct bytes *out)
{
	struct bytes once = { 0 };
	unsigned long times = 1;

	if (isdigit((unsigned char)**text)) {
		times = strtoul(*text, (char **)text, 10);
		if (*(*text)++ != '*')
			bad_line(file, "no '*' behind the number\n");
	}
	if (**text == '"')
		read_string(file, text, &once);
	else
		read_name(file, text, &once);
	while (times--)
		append(out, once.data, once.len);
	drop(&once);
}

static void read_terms(const struct file *file, const char *text, struct bytes *out)
{
	while (*text) {
		read_term(file, &text, out);
		if (*text && *text++ != ' ')
			bad_line(file, "no blank between terms\n");
	}
}

static void read_definition(struct file *file, const char *text)
{
	size_t len = strcspn(text, " "), i = file->name_count;

	if (i == NAMES_MAX || !text[len] || len >= sizeof(file->names[i].name))
		bad_line(file, "a bad definition, or one too many\n");
	memcpy(file->names[i].name, text, len);
	read_terms(file, text + len + 1, &file->names[i].value);
	file->name_count++;
}

static int read_verdict(const struct file *file, const char *word)
{
	static const char *const words[] = { [OK] = "ok", [CLOSE] = "close", [MORE] = "more" };
	static const int statuses[] = { 400, 404, 405, 431, 501 };

	for (int i = OK; i <= MORE; i++) {
		if (!strcmp(word, words[i]))
			return i;
	}
	for (size_t i = 0; i < sizeof(statuses) / sizeof(*statuses); i++) {
		if (atoi(word) == statuses[i])
			return statuses[i];
	}
	bad_line(file, "unknown verdict '%s'\n", word);
	return 0;
}

static void read_verdicts(const struct file *file, char *text, struct test_case *out)
{
	char *rest = NULL;
	size_t count = 0;

	for (char *word = strtok_r(text, " ", &rest); word; word = strtok_r(NULL, " ", &rest)) {
		if (count == VERDICTS_MAX)
			bad_line(file, "too many verdicts\n");
		out->verdicts[count++] = read_verdict(file, word);
	}
	if (!count || !out->title)
		bad_line(file, "no verdict, or no case\n");
}

static void read_bytes(const struct file *file, char who, const char *text, struct test_case *out)
{
	const char *name = strchr("abc-", who);
	struct bytes piece = { 0 };

	if (!name || !out->title)
		bad_line(file, "a line that is none, or no case\n");
	read_terms(file, text, &piece);
	append(&out->input, piece.data, piece.len);
	if (who != '-')
		append(&out->wanted[who - 'a'], piece.data, piece.len);
	drop(&piece);
}

/* One line; true where it ends a case. */
static bool read_line(struct file *file, char *line, struct test_case *out)
{
	file->line++;
	line[strcspn(line, "\n")] = '\0';
	if (!*line || *line == '#')
		return false;
	if (!strncmp(line, "def ", 4)) {
		read_definition(file, line + 4);
	} else if (!strncmp(line, "case ", 5)) {
		if (out->title)
			bad_line(file, "the case before has no verdict\n");
		out->title = strdup(line + 5);
	} else if (line[1] != ' ') {
		bad_line(file, "a line that is none\n");
	} else if (*line == '=') {
		read_verdicts(file, line + 2, out);
		return true;
	} else {
		read_bytes(file, *line, line + 2, out);
	}
	return false;
}

/* The connection's reader */

struct reader {
	struct http1_scan scan;
	struct http1_request request;
	struct http1_body body;
	struct bytes got[CONTAINERS];
	size_t at; /* in the input */
	int container, verdict;
	bool under_way; /* a body follows */
	bool skips;	/* opaque bytes are not looked at */
};

static int route(const char *host)
{
	static const char *const domains[CONTAINERS] = { "a.test", "b.test", "c.test" };

	for (int i = 0; i < CONTAINERS; i++) {
		if (!strcmp(host, domains[i]))
			return i;
	}
	return NOBODY;
}

static void end_request(struct reader *reader)
{
	reader->under_way = false;
	if (!reader->request.keep_alive)
		reader->verdict = CLOSE;
}

static bool read_head(struct reader *reader, const char *data, size_t len)
{
	struct http1_request *request = &reader->request;
	int taken = http1_request(&reader->scan, data, len, request);

	if (taken < 0)
		reader->verdict = -taken;
	if (taken <= 0)
		return false;
	assert_true((size_t)taken <= len);
	assert_true(request->skip < (size_t)taken);
	reader->container = route(request->host);
	if (reader->container == NOBODY) {
		reader->verdict = 404;
		return false;
	}
	append(&reader->got[reader->container], data + request->skip, taken - request->skip);
	reader->at += taken;
	reader->scan = (struct http1_scan){ 0 };
	http1_body_start(&reader->body, request->framing, request->length);
	reader->under_way = reader->body.state != HTTP1_BODY_DONE;
	if (!reader->under_way)
		end_request(reader);
	return !reader->verdict;
}

static size_t skip_opaque(struct reader *reader, size_t len)
{
	uint64_t n = http1_body_opaque(&reader->body);

	if (!reader->skips || !n)
		return 0;
	n = n < len ? n : len;
	http1_body_skip(&reader->body, n);
	return n;
}

static bool read_body(struct reader *reader, const char *data, size_t len)
{
	size_t taken = skip_opaque(reader, len);
	int err = 0;

	if (!taken)
		taken = http1_body_feed(&reader->body, data, len, &err);
	assert_true(taken <= len);
	append(&reader->got[reader->container], data, taken);
	reader->at += taken;
	if (err) {
		assert_int_equal(err, -EBADMSG);
		reader->verdict = 400;
	} else if (reader->body.state == HTTP1_BODY_DONE) {
		end_request(reader);
		return !reader->verdict;
	}
	return taken && !err;
}

/*
 * The first `len` bytes of the input have come. They are copied, so that a look at those behind
 * them is an error; large ones are not, for the time that it takes.
 */
static void feed(struct reader *reader, const struct bytes *input, size_t len)
{
	bool goes_on = !reader->verdict;

	while (goes_on && reader->at < len) {
		const char *data = input->data + reader->at;
		size_t left = len - reader->at;
		char *copy = left <= SMALL ? malloc(left) : NULL;

		if (copy)
			data = memcpy(copy, data, left);
		goes_on = reader->under_way ? read_body(reader, data, left) :
					      read_head(reader, data, left);
		free(copy);
	}
}

/* Judging */

static bool is_wanted(const struct test_case *test, int verdict)
{
	for (size_t i = 0; i < VERDICTS_MAX; i++) {
		if (test->verdicts[i] && test->verdicts[i] == verdict)
			return true;
	}
	return false;
}

static bool same(const struct bytes *a, const struct bytes *b)
{
	return a->len == b->len && (!a->len || !memcmp(a->data, b->data, a->len));
}

static bool judge(const struct file *file, const struct test_case *test, struct reader *reader,
		  const char *how, size_t cut)
{
	bool good;

	if (!reader->verdict)
		reader->verdict = reader->under_way || reader->at < test->input.len ? MORE : OK;
	good = is_wanted(test, reader->verdict);
	if (!good)
		print_error("# %s: %s: %s %zu: verdict %d, expected %d\n", file->name, test->title,
			    how, cut, reader->verdict, test->verdicts[0]);
	for (int i = 0; i < CONTAINERS; i++) {
		if (good && !same(&reader->got[i], &test->wanted[i])) {
			print_error("# %s: %s: %s %zu: %c got %zu bytes, expected %zu\n",
				    file->name, test->title, how, cut, 'a' + i,
				    reader->got[i].len, test->wanted[i].len);
			good = false;
		}
		drop(&reader->got[i]);
	}
	return good;
}

static bool cut_in_two(const struct file *file, const struct test_case *test, size_t at, bool skips)
{
	struct reader reader = { .skips = skips };

	feed(&reader, &test->input, at);
	feed(&reader, &test->input, test->input.len);
	return judge(file, test, &reader, skips ? "skipping, cut at" : "cut at", at);
}

static bool in_steps(const struct file *file, const struct test_case *test, size_t step)
{
	struct reader reader = { 0 };

	for (size_t len = step; len < test->input.len; len += step)
		feed(&reader, &test->input, len);
	feed(&reader, &test->input, test->input.len);
	return judge(file, test, &reader, "in steps of", step);
}

/* Up to the first way that fails. */
static bool run_case(const struct file *file, const struct test_case *test)
{
	size_t len = test->input.len, step = len > SMALL ? len / SAMPLES : 1;

	if (!cut_in_two(file, test, 0, false) || !cut_in_two(file, test, 0, true))
		return false;
	for (size_t at = 1; at < len; at += step) {
		if (!cut_in_two(file, test, at, false) || !cut_in_two(file, test, at, true))
			return false;
	}
	for (size_t back = 1; len > SMALL && back < 8; back++) {
		if (!cut_in_two(file, test, len - back, false))
			return false;
	}
	return in_steps(file, test, step) && in_steps(file, test, 2 * step + 1);
}

static void drop_case(struct test_case *test)
{
	free(test->title);
	drop(&test->input);
	for (int i = 0; i < CONTAINERS; i++)
		drop(&test->wanted[i]);
	*test = (struct test_case){ 0 };
}

static void run_file(void **state)
{
	struct file *file = *state;
	struct test_case test = { 0 };
	FILE *stream = fopen(file->path, "r");
	unsigned int failed = 0;
	char *line = NULL;
	size_t size = 0;

	assert_non_null(stream);
	while (getline(&line, &size, stream) >= 0) {
		if (!read_line(file, line, &test))
			continue;
		file->cases++;
		failed += !run_case(file, &test);
		drop_case(&test);
	}
	if (test.title)
		bad_line(file, "the last case has no verdict\n");
	free(line);
	fclose(stream);
	for (size_t i = 0; i < file->name_count; i++)
		drop(&file->names[i].value);
	print_message("# %s: %u cases, %u failed\n", file->name, file->cases, failed);
	assert_int_equal(failed, 0);
}

static struct file files[FILES_MAX];
static size_t file_count;

static void enough_cases(void **state)
{
	unsigned int cases = 0;

	(void)state;
	for (size_t i = 0; i < file_count; i++)
		cases += files[i].cases;
	print_message("# %u cases in %zu files\n", cases, file_count);
	assert_in_range(cases, CASES_MIN, 100000);
}

static int by_name(const void *a, const void *b)
{
	return strcmp(((const struct file *)a)->name, ((const struct file *)b)->name);
}

static int find_files(const char *where)
{
	DIR *dir = opendir(where);
	struct dirent *entry;

	if (!dir)
		return -errno;
	while ((entry = readdir(dir)) && file_count < FILES_MAX) {
		struct file *file = &files[file_count];
		size_t len = strlen(entry->d_name);

		if (len < 5 || len >= sizeof(file->name) ||
		    strcmp(entry->d_name + len - 4, ".txt") != 0)
			continue;
		memcpy(file->name, entry->d_name, len + 1);
		snprintf(file->path, sizeof(file->path), "%s/%s", where, entry->d_name);
		file_count++;
	}
	closedir(dir);
	qsort(files, file_count, sizeof(*files), by_name);
	return 0;
}

int main(void)
{
	const char *where = getenv("CORPUS");
	struct CMUnitTest tests[FILES_MAX + 1] = { 0 };
	int err;

	where = where && *where ? where : "selftests/corpus";
	err = find_files(where);
	if (err) {
		fprintf(stderr, "corpus: %s: %s\n", where, strerror(-err));
		return 1;
	}
	for (size_t i = 0; i < file_count; i++)
		tests[i] = (struct CMUnitTest){ files[i].name, run_file, NULL, NULL, &files[i] };
	tests[file_count] = (struct CMUnitTest){ "enough cases", enough_cases, NULL, NULL, NULL };
	return _cmocka_run_group_tests("corpus", tests, file_count + 1, NULL, NULL);
}
