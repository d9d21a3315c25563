/* SPDX-License-Identifier: MIT */
/*
 * Text for eyes: tables as wide as what is in them, narrower where the terminal is, coloured where
 * there is one. Whatever a cell holds, no control character leaves here.
 */
#ifndef KKM_TABLE_H
#define KKM_TABLE_H

#include <stdbool.h>
#include <stddef.h>
#include <stdio.h>

enum table_style {
	TABLE_PLAIN,
	TABLE_BOLD,
	TABLE_DIM,
	TABLE_GOOD,
	TABLE_DOUBTFUL,
	TABLE_BAD,
};

/* What is written to. */
struct table_screen {
	FILE *out;
	bool color;
	unsigned int width; /* 0: as wide as it gets, as in a file */
};

struct table_column {
	const char *title; /* NULL in all of them: there is no line of titles */
	enum {
		TABLE_KEEP,  /* never cut */
		TABLE_RIGHT, /* a number; never cut */
		TABLE_CUT,   /* cut where the screen is narrow, and left out where it is very narrow */
		TABLE_WRAP,  /* the last one: goes on below itself */
	} fit;
};

struct table;

/* `columns` is borrowed. An allocation that fails, here or later, leaves the table NULL or short. */
struct table *table_new(const struct table_column *columns, unsigned int count);
void table_free(struct table **table);

/* The next cell; rows are filled one after the other. */
void table_add(struct table *table, enum table_style style, const char *text);
__attribute__((format(printf, 3, 4))) void table_addf(struct table *table, enum table_style style,
						      const char *format, ...);
bool table_is_empty(const struct table *table);
/* Where the columns that are never cut do not fit, a row becomes a paragraph. */
void table_print(const struct table *table, const struct table_screen *screen);

/* Text outside of a table: clean, in this style, without an end of line. */
void table_text(const struct table_screen *screen, enum table_style style, const char *text);

/*
 * `text` without what a terminal could obey, or be confused by: control characters of both sets,
 * bytes that are no UTF-8, characters without width and those that turn the direction; each is
 * a '?'. Malloced, or NULL.
 */
char *table_clean(const char *text);
/*
 * JSON without them: escaped within its strings, where alone they can be. What is no UTF-8, as a text
 * that was cut, becomes U+FFFD. Malloced, or NULL.
 */
char *table_clean_json(const char *json);
/* Columns that clean text takes on a terminal. */
unsigned int table_width(const char *text);

#endif
