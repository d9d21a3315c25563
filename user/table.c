// SPDX-License-Identifier: MIT
#include "table.h"

#include <stdarg.h>
#include <stdint.h>
#include <stdlib.h>
#include <string.h>

#define GAP 2	     /* between columns */
#define CUT_MIN 12   /* a column that is cut shows so much, or nothing */
#define WRAP_GOOD 40 /* what goes on below itself has so much, or others are cut, */
#define WRAP_MIN 24  /* and at least so much, or a row is a paragraph */
#define COLUMNS_MAX 16

struct cell {
	char *text; /* clean; NULL: out of memory, shown as nothing */
	unsigned int width;
	enum table_style style;
};

struct table {
	const struct table_column *columns;
	unsigned int column_count;
	struct cell *cells;
	size_t count, capacity;
};

/* Characters. */

/* One character of UTF-8 (RFC 3629): how many bytes it has, 0 where there is none. */
static size_t decode(const char *text, uint32_t *out)
{
	static const uint32_t lowest[] = { 0, 0, 0x80, 0x800, 0x10000 };
	const unsigned char *p = (const unsigned char *)text;
	size_t len = *p < 0x80	? 1
		     : *p >= 0xf0 && *p < 0xf5 ? 4
		     : *p >= 0xe0 && *p < 0xf0 ? 3
		     : *p >= 0xc2 && *p < 0xe0 ? 2
					       : 0;

	if (len == 1)
		*out = *p;
	else if (len)
		*out = *p & (0x7fu >> len);
	for (size_t i = 1; i < len; i++) {
		if ((p[i] & 0xc0) != 0x80)
			return 0;
		*out = *out << 6 | (p[i] & 0x3f);
	}
	return len > 1 && (*out < lowest[len] || *out > 0x10ffff || (*out >> 11) == 0x1b) ? 0 : len;
}

struct range {
	uint32_t first, last;
};

static bool is_in(uint32_t character, const struct range *ranges, size_t count)
{
	for (size_t i = 0; i < count; i++) {
		if (character >= ranges[i].first && character <= ranges[i].last)
			return true;
	}
	return false;
}

/* Controls of both sets, and what has no width or turns the direction (Unicode's Cc, Cf, Zl, Zp). */
static bool is_shown(uint32_t character)
{
	static const struct range hidden[] = {
		{ 0, 0x1f },	     { 0x7f, 0x9f },	 { 0xad, 0xad },     { 0x600, 0x605 },
		{ 0x61c, 0x61c },    { 0x180e, 0x180e }, { 0x200b, 0x200f }, { 0x2028, 0x202e },
		{ 0x2060, 0x206f },  { 0xfe00, 0xfe0f }, { 0xfeff, 0xfeff }, { 0xfff0, 0xfffb },
		{ 0xe0000, 0x10ffff },
	};

	return !is_in(character, hidden, sizeof(hidden) / sizeof(*hidden));
}

/* As terminals draw them: marks upon what stands before, and East Asian Width W and F (UAX #11). */
static unsigned int character_width(uint32_t character)
{
	static const struct range marks[] = {
		{ 0x300, 0x36f },   { 0x483, 0x489 },	{ 0x591, 0x5bd },   { 0x610, 0x61a },
		{ 0x64b, 0x65f },   { 0xe31, 0xe31 },	{ 0xe34, 0xe3a },   { 0xe47, 0xe4e },
		{ 0x1ab0, 0x1aff }, { 0x1dc0, 0x1dff }, { 0x20d0, 0x20ff }, { 0x3099, 0x309a },
		{ 0xfe20, 0xfe2f },
	};
	static const struct range wide[] = {
		{ 0x1100, 0x115f },   { 0x231a, 0x231b },   { 0x23e9, 0x23ec },
		{ 0x25fd, 0x25fe },   { 0x2614, 0x2615 },   { 0x2648, 0x2653 },
		{ 0x26a1, 0x26a1 },   { 0x26bd, 0x26be },   { 0x26c4, 0x26c5 },
		{ 0x26d4, 0x26d4 },   { 0x2705, 0x2705 },   { 0x2728, 0x2728 },
		{ 0x274c, 0x274e },   { 0x2753, 0x2757 },   { 0x2795, 0x2797 },
		{ 0x2b1b, 0x2b1c },   { 0x2b50, 0x2b55 },   { 0x2e80, 0x303e },
		{ 0x3041, 0x33ff },   { 0x3400, 0x4dbf },   { 0x4e00, 0x9fff },
		{ 0xa000, 0xa4cf },   { 0xa960, 0xa97f },   { 0xac00, 0xd7a3 },
		{ 0xf900, 0xfaff },   { 0xfe30, 0xfe6f },   { 0xff01, 0xff60 },
		{ 0xffe0, 0xffe6 },   { 0x16fe0, 0x18dff }, { 0x1b000, 0x1b2ff },
		{ 0x1f004, 0x1f004 }, { 0x1f0cf, 0x1f0cf }, { 0x1f18e, 0x1f19a },
		{ 0x1f200, 0x1f320 }, { 0x1f32d, 0x1f64f }, { 0x1f680, 0x1f6fc },
		{ 0x1f7e0, 0x1f7eb }, { 0x1f90c, 0x1faff }, { 0x20000, 0x3fffd },
	};

	if (character < 0x300)
		return 1;
	if (is_in(character, marks, sizeof(marks) / sizeof(*marks)))
		return 0;
	return is_in(character, wide, sizeof(wide) / sizeof(*wide)) ? 2 : 1;
}

char *table_clean(const char *text)
{
	char *out = malloc(strlen(text) + 1), *end = out;
	uint32_t character;

	while (out && *text) {
		size_t len = decode(text, &character);

		if (len && is_shown(character)) {
			memcpy(end, text, len);
			end += len;
		} else {
			*end++ = '?';
		}
		text += len ? len : 1;
	}
	if (out)
		*end = '\0';
	return out;
}

char *table_clean_json(const char *json)
{
	/* a byte becomes six at most; a character of four bytes two times six */
	char *out = malloc(6 * strlen(json) + 1), *end = out;
	uint32_t character;

	while (out && *json) {
		size_t len = decode(json, &character);

		if (!len) {
			end += sprintf(end, "\\ufffd");
		} else if (character < 0x20 || is_shown(character)) {
			memcpy(end, json, len);
			end += len;
		} else if (character < 0x10000) {
			end += sprintf(end, "\\u%04x", character);
		} else {
			end += sprintf(end, "\\u%04x\\u%04x", 0xd7c0 + (character >> 10),
				       0xdc00 + (character & 0x3ff));
		}
		json += len ? len : 1;
	}
	if (out)
		*end = '\0';
	return out;
}

/* Bytes of clean text that take up to `width` columns; *taken is how many they take. */
static size_t fit(const char *text, unsigned int width, unsigned int *taken)
{
	const char *p = text;
	uint32_t character;

	*taken = 0;
	while (*p) {
		size_t len = decode(p, &character);
		unsigned int columns = character_width(character);

		if (!len || *taken + columns > width)
			break;
		*taken += columns;
		p += len;
	}
	return (size_t)(p - text);
}

unsigned int table_width(const char *text)
{
	unsigned int width;

	fit(text, (unsigned int)-1, &width);
	return width;
}

/* Building. */

struct table *table_new(const struct table_column *columns, unsigned int count)
{
	struct table *table = calloc(1, sizeof(*table));

	if (!table)
		return NULL;
	table->columns = columns;
	table->column_count = count < COLUMNS_MAX ? count : COLUMNS_MAX;
	return table;
}

void table_free(struct table **table)
{
	for (size_t i = 0; *table && i < (*table)->count; i++)
		free((*table)->cells[i].text);
	if (*table)
		free((*table)->cells);
	free(*table);
	*table = NULL;
}

void table_add(struct table *table, enum table_style style, const char *text)
{
	struct cell *cells;

	if (!table)
		return;
	if (table->count == table->capacity) {
		table->capacity = table->capacity ? 2 * table->capacity : 64;
		cells = realloc(table->cells, table->capacity * sizeof(*cells));
		if (!cells) {
			table->capacity = table->count;
			return;
		}
		table->cells = cells;
	}
	cells = &table->cells[table->count++];
	cells->style = style;
	cells->text = table_clean(text);
	cells->width = cells->text ? table_width(cells->text) : 0;
}

void table_addf(struct table *table, enum table_style style, const char *format, ...)
{
	char text[1024];
	va_list args;

	va_start(args, format);
	vsnprintf(text, sizeof(text), format, args);
	va_end(args);
	table_add(table, style, text);
}

bool table_is_empty(const struct table *table)
{
	return !table || table->count < table->column_count;
}

/* Printing. */

static void begin_style(const struct table_screen *screen, enum table_style style)
{
	static const char *const codes[] = {
		[TABLE_PLAIN] = "", [TABLE_BOLD] = "\033[1m",	   [TABLE_DIM] = "\033[2m",
		[TABLE_GOOD] = "\033[32m", [TABLE_DOUBTFUL] = "\033[33m", [TABLE_BAD] = "\033[31m",
	};
	_Static_assert(sizeof(codes) / sizeof(*codes) == TABLE_BAD + 1, "one a style");

	if (screen->color)
		fputs(codes[style], screen->out);
}

static void end_style(const struct table_screen *screen, enum table_style style)
{
	if (screen->color && style != TABLE_PLAIN)
		fputs("\033[0m", screen->out);
}

static void put(const struct table_screen *screen, enum table_style style, const char *text,
		size_t len)
{
	if (!len)
		return;
	begin_style(screen, style);
	fwrite(text, 1, len, screen->out);
	end_style(screen, style);
}

static void put_blanks(const struct table_screen *screen, unsigned int count)
{
	fprintf(screen->out, "%*s", (int)count, "");
}

void table_text(const struct table_screen *screen, enum table_style style, const char *text)
{
	char *clean = table_clean(text);

	if (clean)
		put(screen, style, clean, strlen(clean));
	free(clean);
}

static bool has_titles(const struct table *table)
{
	return table->columns[0].title;
}

/* Widths of the columns, if there were room for everything; 0 for one in which nothing stands. */
static void natural_widths(const struct table *table, unsigned int widths[COLUMNS_MAX])
{
	memset(widths, 0, COLUMNS_MAX * sizeof(*widths));
	for (size_t i = 0; i < table->count; i++) {
		unsigned int *width = &widths[i % table->column_count];

		if (table->cells[i].width > *width)
			*width = table->cells[i].width;
	}
	for (unsigned int i = 0; i < table->column_count && has_titles(table); i++) {
		unsigned int title = (unsigned int)strlen(table->columns[i].title);

		/* what nobody has needs no column */
		if (widths[i] && widths[i] < title)
			widths[i] = title;
	}
}

static unsigned int total(const unsigned int *widths, unsigned int count)
{
	unsigned int sum = 0;

	for (unsigned int i = 0; i < count; i++)
		sum += widths[i] ? widths[i] + (sum ? GAP : 0) : 0;
	return sum;
}

/* Make columns of this kind narrower by what is too much, the last first. */
static void shrink(const struct table *table, unsigned int screen, unsigned int *widths, int kind,
		   unsigned int least)
{
	for (unsigned int i = table->column_count; i-- > 0;) {
		unsigned int all = total(widths, table->column_count);

		if (all <= screen || (int)table->columns[i].fit != kind || widths[i] <= least)
			continue;
		widths[i] = all - screen > widths[i] - least ? least : widths[i] - (all - screen);
	}
}

/* False where it cannot be done with columns. */
static bool fit_widths(const struct table *table, unsigned int screen, unsigned int *widths)
{
	natural_widths(table, widths);
	if (!screen)
		return true;
	shrink(table, screen, widths, TABLE_WRAP, WRAP_GOOD);
	shrink(table, screen, widths, TABLE_CUT, CUT_MIN);
	shrink(table, screen, widths, TABLE_WRAP, WRAP_MIN);
	for (unsigned int i = table->column_count; i-- > 0;) {
		if (table->columns[i].fit == TABLE_CUT &&
		    total(widths, table->column_count) > screen)
			widths[i] = 0;
	}
	return total(widths, table->column_count) <= screen;
}

/* Text that goes on below itself from column `indent` on, cut at blanks where there are any. */
static void put_wrapped(const struct table_screen *screen, const struct cell *cell,
			unsigned int indent, unsigned int width)
{
	const char *text = cell->text;

	for (;;) {
		unsigned int taken;
		size_t len = fit(text, width, &taken), cut = len;

		if (!text[len]) {
			put(screen, cell->style, text, len);
			return;
		}
		while (cut && text[cut] != ' ')
			cut--;
		if (!cut)
			cut = len ? len : strlen(text);
		put(screen, cell->style, text, cut);
		text += cut + (text[cut] == ' ');
		if (!*text)
			return;
		fputc('\n', screen->out);
		put_blanks(screen, indent);
	}
}

/* Returns how many columns it took. */
static unsigned int put_cut(const struct table_screen *screen, const struct cell *cell,
			    unsigned int width)
{
	bool whole = cell->width <= width;
	unsigned int taken;
	size_t len = fit(cell->text, whole ? width : width - 1, &taken);

	begin_style(screen, cell->style);
	fwrite(cell->text, 1, len, screen->out);
	if (!whole)
		fputs("…", screen->out);
	end_style(screen, cell->style);
	return whole ? taken : taken + 1;
}

static void print_row(const struct table *table, const struct table_screen *screen,
		      const unsigned int *widths, const struct cell *cells)
{
	unsigned int at = 0, due = 0; /* blanks are due only where something follows them */

	for (unsigned int i = 0; i < table->column_count; i++) {
		const struct cell *cell = &cells[i];
		unsigned int blank = 0;

		if (!widths[i])
			continue;
		if (table->columns[i].fit == TABLE_RIGHT && cell->width < widths[i])
			blank = widths[i] - cell->width;
		if (cell->text && *cell->text) {
			put_blanks(screen, due + blank);
			due = 0;
			if (table->columns[i].fit == TABLE_WRAP && screen->width)
				put_wrapped(screen, cell, at, widths[i]);
			else
				due = widths[i] - blank - put_cut(screen, cell, widths[i]);
		} else {
			due += widths[i];
		}
		due += GAP;
		at += widths[i] + GAP;
	}
	fputc('\n', screen->out);
}

static void print_titles(const struct table *table, const struct table_screen *screen,
			 const unsigned int *widths)
{
	struct cell cells[COLUMNS_MAX];

	for (unsigned int i = 0; i < table->column_count; i++) {
		cells[i].text = (char *)table->columns[i].title;
		cells[i].width = (unsigned int)strlen(table->columns[i].title);
		cells[i].style = TABLE_DIM;
	}
	print_row(table, screen, widths, cells);
}

static void print_paragraph(const struct table *table, const struct table_screen *screen,
			    const struct cell *cells)
{
	unsigned int indent = 0;

	for (unsigned int i = 0; i < table->column_count && has_titles(table); i++) {
		unsigned int width = (unsigned int)strlen(table->columns[i].title);

		if (width + GAP > indent)
			indent = width + GAP;
	}
	for (unsigned int i = 0; i < table->column_count; i++) {
		if (!cells[i].text || !*cells[i].text)
			continue;
		if (has_titles(table)) {
			put(screen, TABLE_DIM, table->columns[i].title,
			    strlen(table->columns[i].title));
			put_blanks(screen, indent - (unsigned int)strlen(table->columns[i].title));
		}
		put_wrapped(screen, &cells[i], indent,
			    screen->width > indent + 8 ? screen->width - indent : 8);
		fputc('\n', screen->out);
	}
}

void table_print(const struct table *table, const struct table_screen *screen)
{
	unsigned int widths[COLUMNS_MAX];
	size_t rows = table ? table->count / table->column_count : 0;
	bool columns = rows && fit_widths(table, screen->width, widths);

	if (columns && has_titles(table))
		print_titles(table, screen, widths);
	for (size_t i = 0; i < rows; i++) {
		const struct cell *cells = &table->cells[i * table->column_count];

		if (columns) {
			print_row(table, screen, widths, cells);
			continue;
		}
		if (i && has_titles(table))
			fputc('\n', screen->out);
		print_paragraph(table, screen, cells);
	}
}
