/* cache/tables.h - everything in a cache but the states: the columns of /tokens, /samples and /images in memory.
 *
 * One description of each column drives growing, writing, reading, joining and freeing. */
#ifndef VL_CACHE_TABLES_H
#define VL_CACHE_TABLES_H

#include <stdbool.h>
#include <stdint.h>

#include "trainer/cache/h5.h"

typedef struct vl_rows {
    int64_t n, capacity;
    int32_t *id, *next_id, *position, *sample, *image; /* [n] */
    uint8_t *token_class;                              /* [n] */
    int16_t *patch;                                    /* [n, 3] */
    int16_t *turn;                                     /* [n] -1: none, or a file that does not say */
    uint64_t *visible;                                 /* [n] or NULL */
} vl_rows;

typedef struct vl_sample_table {
    int64_t n, capacity;
    int64_t *id;      /* [n] */
    char **key;       /* [n], owned (data/key.h); or NULL: caches of version 1 and of others */
    uint8_t *heldout; /* [n] a split of its own; or NULL: chosen where a lens is fitted or judged */
    char **prompt;    /* [n], owned */
    char **answer;    /* [n], owned, entries may be NULL; or NULL */
} vl_sample_table;

typedef struct vl_image_table {
    int64_t n, capacity;
    char **path, **sha256;            /* [n], owned */
    int32_t *sample, *width, *height; /* [n] */
    int64_t *bytes, *mtime;           /* [n] of the file, in nanoseconds, or both NULL */
} vl_image_table;

typedef struct vl_tables {
    vl_rows rows;
    vl_sample_table samples;
    vl_image_table images;
} vl_tables;

/* Optional columns. */
enum { VL_COLUMN_ASKED = 1, VL_COLUMN_KEY = 2, VL_COLUMN_SPLIT = 4 }; /* visible, answer; key, bytes, mtime; split */
/* Room for `more` further entries; optional columns only where they exist already or are asked for.
 * New entries are not initialised, texts are NULL. */
vl_status vl_rows_reserve(vl_rows *rows, int64_t more, bool visible, vl_error *err);
vl_status vl_samples_reserve(vl_sample_table *samples, int64_t more, unsigned columns, vl_error *err);
vl_status vl_images_reserve(vl_image_table *images, int64_t more, vl_error *err);

/* Joins `from` to the end of `to`: texts are copied, image rows of the tokens shift. */
vl_status vl_tables_append(vl_tables *to, const vl_tables *from, vl_error *err);
/* Joins one sample with its rows and pictures, as number `number`. `first_*`, `n_*`: where they lie in `from`. */
typedef struct vl_tables_slice {
    int64_t sample, first_row, n_rows, first_image, n_images;
} vl_tables_slice;
vl_status vl_tables_append_sample(vl_tables *to, const vl_tables *from, const vl_tables_slice *slice, int64_t number,
                                  vl_error *err);
/* Frees all columns; an empty (zeroed) table is left. */
void vl_tables_clear(vl_tables *tables);

/* Writes the groups /tokens, /samples and /images. */
vl_status vl_tables_write(vl_h5 file, const vl_tables *tables, vl_error *err);
/* Reads and checks them: every length, every value (class, image row, ids against the vocabulary), every sample
 * number found in /samples/id. n_tokens is what /states has. */
vl_status vl_tables_read(vl_tables *out, vl_h5 file, int64_t n_tokens, int64_t vocab_size, vl_error *err);

/* rows[i] of /samples for numbers[i] of n (rows may be NULL: only checked); a number that is not there is VL_EFORMAT
 * (`what` names the column). */
vl_status vl_tables_find_samples(int32_t *rows, vl_h5 file, const vl_sample_table *samples, const int32_t *numbers,
                                 int64_t n, const char *what, vl_error *err);

#endif
