#include "trainer/cache/tables.h"

#include <stddef.h>
#include <stdlib.h>
#include <string.h>

#include <vlens/model.h>

#include "trainer/base/mem.h"

/* Always written; -1 where an old file lacks it. */
enum { COLUMN_NEW = 1 << 16 };

typedef struct column {
    const char *name;
    vl_h5_type type;
    size_t offset;     /* of the pointer in its table */
    int width;         /* values per entry */
    unsigned optional; /* 0, or one of VL_COLUMN_* */
    int64_t min, max;
} column;

typedef struct table {
    const char *group, *first; /* `first` is the dataset that says how long the table is */
    const column *columns;
    int n_columns;
} table;

#define ROW(member)    offsetof(vl_rows, member)
#define SAMPLE(member) offsetof(vl_sample_table, member)
#define IMAGE(member)  offsetof(vl_image_table, member)

static const column row_columns[] = {
    {"/tokens/id", VL_H5_I32, ROW(id), 1, 0, 0, INT32_MAX},
    {"/tokens/next_id", VL_H5_I32, ROW(next_id), 1, 0, -1, INT32_MAX},
    {"/tokens/position", VL_H5_I32, ROW(position), 1, 0, 0, INT32_MAX},
    {"/tokens/sample", VL_H5_I32, ROW(sample), 1, 0, 0, INT32_MAX},
    {"/tokens/class", VL_H5_CLASS, ROW(token_class), 1, 0, 0, VL_CLASS_COUNT - 1},
    {"/tokens/image", VL_H5_I32, ROW(image), 1, 0, -1, INT32_MAX},
    {"/tokens/patch", VL_H5_I16, ROW(patch), 3, 0, -1, INT16_MAX},
    {"/tokens/turn", VL_H5_I16, ROW(turn), 1, COLUMN_NEW, -1, INT16_MAX},
    {"/tokens/visible", VL_H5_U64, ROW(visible), 1, VL_COLUMN_ASKED, 0, 0},
};
static const column sample_columns[] = {
    {"/samples/id", VL_H5_I64, SAMPLE(id), 1, 0, 0, INT32_MAX}, /* tokens name them in 32 bits */
    {"/samples/prompt", VL_H5_TEXT, SAMPLE(prompt), 1, 0, 0, 0},
    {"/samples/key", VL_H5_TEXT, SAMPLE(key), 1, VL_COLUMN_KEY, 0, 0},
    {"/samples/split", VL_H5_SPLIT, SAMPLE(heldout), 1, VL_COLUMN_SPLIT, 0, 1},
    {"/samples/answer", VL_H5_TEXT, SAMPLE(answer), 1, VL_COLUMN_ASKED, 0, 0},
};
static const column image_columns[] = {
    {"/images/path", VL_H5_TEXT, IMAGE(path), 1, 0, 0, 0},
    {"/images/sha256", VL_H5_TEXT, IMAGE(sha256), 1, 0, 0, 0},
    {"/images/sample", VL_H5_I32, IMAGE(sample), 1, 0, 0, INT32_MAX},
    {"/images/width", VL_H5_I32, IMAGE(width), 1, 0, 0, INT32_MAX},
    {"/images/height", VL_H5_I32, IMAGE(height), 1, 0, 0, INT32_MAX},
    {"/images/bytes", VL_H5_I64, IMAGE(bytes), 1, VL_COLUMN_KEY, 0, INT64_MAX},
    {"/images/mtime", VL_H5_I64, IMAGE(mtime), 1, VL_COLUMN_KEY, INT64_MIN, INT64_MAX},
};
#define COUNT(array) ((int)(sizeof(array) / sizeof *(array)))
static const table row_table = {"/tokens", "/tokens/id", row_columns, COUNT(row_columns)};
static const table sample_table = {"/samples", "/samples/id", sample_columns, COUNT(sample_columns)};
static const table image_table = {"/images", "/images/path", image_columns, COUNT(image_columns)};

/* All three structs start with n and capacity. */
typedef struct table_head {
    int64_t n, capacity;
} table_head;

static void *get_column(const void *data, const column *c)
{
    void *pointer;
    memcpy(&pointer, (const char *)data + c->offset, sizeof pointer);
    return pointer;
}

static void set_column(void *data, const column *c, void *pointer)
{
    memcpy((char *)data + c->offset, &pointer, sizeof pointer);
}

static size_t entry_size(const column *c)
{
    return vl_h5_type_size(c->type) * (size_t)c->width;
}

/* An optional column that starts late is zero (or "") in the entries before. */
static vl_status reserve(const table *t, void *data, int64_t more, unsigned optional, vl_error *err)
{
    table_head *head = data;
    int64_t capacity = head->capacity;
    if (more > INT64_MAX / 4 - head->n)
        return vl_fail_nomem(err, t->group);
    if (head->n + more > capacity)
        capacity = head->n + more > 2 * capacity ? head->n + more : 2 * capacity;
    if (capacity == 0)
        capacity = 1;
    for (int i = 0; i < t->n_columns; i++) {
        const column *c = &t->columns[i];
        char *old = get_column(data, c);
        if (c->optional && c->optional != COLUMN_NEW && !old && !(c->optional & optional))
            continue;
        if (old && capacity == head->capacity)
            continue;
        char *grown = vl_realloc(old, (size_t)capacity, entry_size(c));
        if (!grown)
            return vl_fail_nomem(err, c->name);
        size_t keep = old ? (size_t)head->capacity * entry_size(c) : 0;
        memset(grown + keep, 0, (size_t)capacity * entry_size(c) - keep);
        set_column(data, c, grown);
    }
    head->capacity = capacity;
    return VL_OK;
}

vl_status vl_rows_reserve(vl_rows *rows, int64_t more, bool visible, vl_error *err)
{
    return reserve(&row_table, rows, more, visible ? VL_COLUMN_ASKED : 0, err);
}

vl_status vl_samples_reserve(vl_sample_table *samples, int64_t more, unsigned columns, vl_error *err)
{
    return reserve(&sample_table, samples, more, columns, err);
}

vl_status vl_images_reserve(vl_image_table *images, int64_t more, vl_error *err)
{
    return reserve(&image_table, images, more, VL_COLUMN_KEY, err);
}

/* Copies texts one by one. The entries beyond n are NULL (reserve), so that a failure can be freed. */
static bool copy_texts(char **to, char *const *from, int64_t n)
{
    for (int64_t i = 0; i < n; i++)
        if (from[i] && !(to[i] = vl_strdup(from[i])))
            return false;
    return true;
}

/* Entries [first, first + n) of `from` to the end of `to`. */
static vl_status append(const table *t, void *to, const void *from, int64_t first, int64_t n, vl_error *err)
{
    table_head *head = to;
    unsigned optional = 0;
    for (int i = 0; i < t->n_columns; i++)
        optional |= get_column(from, &t->columns[i]) ? t->columns[i].optional : 0;
    VL_TRY(reserve(t, to, n, optional, err));
    int64_t start = head->n;
    head->n += n; /* texts that were copied before a failure are freed with the table */
    for (int i = 0; i < t->n_columns; i++) {
        const column *c = &t->columns[i];
        const char *source = get_column(from, c);
        char *target = get_column(to, c);
        if (!source || n == 0)
            continue;
        source += (size_t)first * entry_size(c);
        target += (size_t)start * entry_size(c);
        if (c->type != VL_H5_TEXT)
            memcpy(target, source, (size_t)n * entry_size(c));
        else if (!copy_texts((char **)(void *)target, (char *const *)(const void *)source, n))
            return vl_fail_nomem(err, c->name);
    }
    return VL_OK;
}

vl_status vl_tables_append_sample(vl_tables *to, const vl_tables *from, const vl_tables_slice *slice, int64_t number,
                                  vl_error *err)
{
    int64_t row = to->rows.n, image = to->images.n, shift = image - slice->first_image;
    if (image + slice->n_images > INT32_MAX)
        return vl_fail(err, VL_EUNSUPPORTED, "more than %d images in one cache", INT32_MAX);
    VL_TRY(append(&row_table, &to->rows, &from->rows, slice->first_row, slice->n_rows, err));
    VL_TRY(append(&sample_table, &to->samples, &from->samples, slice->sample, 1, err));
    VL_TRY(append(&image_table, &to->images, &from->images, slice->first_image, slice->n_images, err));
    to->samples.id[to->samples.n - 1] = number;
    for (; image < to->images.n; image++)
        to->images.sample[image] = (int32_t)number;
    for (; row < to->rows.n; row++) {
        to->rows.sample[row] = (int32_t)number;
        if (to->rows.image[row] >= 0)
            to->rows.image[row] += (int32_t)shift;
    }
    return VL_OK;
}

vl_status vl_tables_append(vl_tables *to, const vl_tables *from, vl_error *err)
{
    int64_t first_row = to->rows.n, first_image = to->images.n;
    if (first_image + from->images.n > INT32_MAX)
        return vl_fail(err, VL_EUNSUPPORTED, "more than %d images in one cache", INT32_MAX);
    VL_TRY(append(&row_table, &to->rows, &from->rows, 0, from->rows.n, err));
    VL_TRY(append(&sample_table, &to->samples, &from->samples, 0, from->samples.n, err));
    VL_TRY(append(&image_table, &to->images, &from->images, 0, from->images.n, err));
    for (int64_t i = first_row; i < to->rows.n; i++)
        if (to->rows.image[i] >= 0)
            to->rows.image[i] += (int32_t)first_image;
    return VL_OK;
}

static void clear(const table *t, void *data)
{
    table_head *head = data;
    for (int i = 0; i < t->n_columns; i++) {
        const column *c = &t->columns[i];
        void *pointer = get_column(data, c);
        char **texts = pointer;
        for (int64_t k = 0; pointer && c->type == VL_H5_TEXT && k < head->n; k++)
            vl_free(texts[k]);
        vl_free(pointer);
        set_column(data, c, NULL);
    }
    *head = (table_head){0, 0};
}

void vl_tables_clear(vl_tables *tables)
{
    clear(&row_table, &tables->rows);
    clear(&sample_table, &tables->samples);
    clear(&image_table, &tables->images);
}

/* ---- files ------------------------------------------------------------------------------------------------- */

static vl_status write_table(vl_h5 file, const table *t, const void *data, vl_error *err)
{
    int64_t n = ((const table_head *)data)->n;
    VL_TRY(vl_h5_make_group(file, t->group, err));
    for (int i = 0; i < t->n_columns; i++) {
        const column *c = &t->columns[i];
        const void *values = get_column(data, c);
        vl_h5_shape shape = {c->width > 1 ? 2 : 1, {n, c->width}};
        if (values || !c->optional)
            VL_TRY(vl_h5_write(file, c->name, c->type, shape, values, err));
    }
    return VL_OK;
}

vl_status vl_tables_write(vl_h5 file, const vl_tables *tables, vl_error *err)
{
    VL_TRY(write_table(file, &row_table, &tables->rows, err));
    VL_TRY(write_table(file, &sample_table, &tables->samples, err));
    return write_table(file, &image_table, &tables->images, err);
}

static vl_status read_table(const table *t, void *data, vl_h5 file, int64_t n, vl_error *err)
{
    table_head *head = data;
    head->capacity = n > 0 ? n : 1;
    head->n = n; /* a column that was not read yet is NULL, a failed one holds NULL texts: both can be cleared */
    for (int i = 0; i < t->n_columns; i++) {
        const column *c = &t->columns[i];
        bool has = !c->optional || vl_h5_has(file, c->name);
        if (!has && c->optional != COLUMN_NEW)
            continue;
        if (!has) {
            void *none = vl_alloc((size_t)head->capacity, entry_size(c));
            if (!none)
                return vl_fail_nomem(err, c->name);
            memset(none, 0xff, (size_t)head->capacity * entry_size(c));
            set_column(data, c, none);
            continue;
        }
        /* Opened before memory is taken: a wrong length must not cost an allocation of that length. */
        vl_h5_dataset dataset;
        VL_TRY(vl_h5_dataset_open(&dataset, file, c->name, false, err));
        int64_t found = dataset.shape.size[0];
        vl_h5_dataset_close(&dataset);
        if (found != n)
            return vl_h5_refuse(err, VL_EFORMAT, file, "%s has %lld entries, expected %lld", c->name, (long long)found,
                                (long long)n);
        void *values = vl_calloc((size_t)head->capacity, entry_size(c));
        if (!values)
            return vl_fail_nomem(err, c->name);
        set_column(data, c, values);
        vl_h5_column wanted = {c->name, c->type, {c->width > 1 ? 2 : 1, {n, c->width}}, c->min, c->max};
        VL_TRY(vl_h5_read(values, file, &wanted, err));
    }
    return VL_OK;
}

/* Length of a table that may be missing as a whole. */
static vl_status table_length(int64_t *n, const table *t, vl_h5 file, bool optional, vl_error *err)
{
    vl_h5_dataset dataset;
    *n = 0;
    if (optional && !vl_h5_has(file, t->group))
        return VL_OK;
    VL_TRY(vl_h5_dataset_open(&dataset, file, t->first, false, err));
    *n = dataset.shape.size[0];
    vl_h5_dataset_close(&dataset);
    return VL_OK;
}

static vl_status check_rows(vl_h5 file, const vl_tables *tables, int64_t vocab_size, vl_error *err)
{
    const vl_rows *rows = &tables->rows;
    for (int64_t i = 0; i < rows->n; i++) {
        if (rows->image[i] >= tables->images.n)
            return vl_h5_refuse(err, VL_EFORMAT, file, "/tokens/image[%lld] is %d, but /images has %lld entries",
                                (long long)i, rows->image[i], (long long)tables->images.n);
        if (rows->next_id[i] >= vocab_size)
            return vl_h5_refuse(err, VL_EFORMAT, file, "/tokens/next_id[%lld] is %d, expected -1 to %lld", (long long)i,
                                rows->next_id[i], (long long)vocab_size - 1);
    }
    return VL_OK;
}

vl_status vl_tables_read(vl_tables *out, vl_h5 file, int64_t n_tokens, int64_t vocab_size, vl_error *err)
{
    vl_status status = VL_OK;
    int64_t n_samples, n_images;
    memset(out, 0, sizeof *out);
    VL_GOTO(table_length(&n_samples, &sample_table, file, false, err));
    VL_GOTO(table_length(&n_images, &image_table, file, true, err));
    VL_GOTO(read_table(&row_table, &out->rows, file, n_tokens, err));
    VL_GOTO(read_table(&sample_table, &out->samples, file, n_samples, err));
    if (vl_h5_has(file, image_table.group))
        VL_GOTO(read_table(&image_table, &out->images, file, n_images, err));
    VL_GOTO(check_rows(file, out, vocab_size, err));
    VL_GOTO(vl_tables_find_samples(NULL, file, &out->samples, out->images.sample, n_images, "/images/sample", err));
    VL_GOTO(vl_tables_find_samples(NULL, file, &out->samples, out->rows.sample, n_tokens, "/tokens/sample", err));
done:
    if (status != VL_OK)
        vl_tables_clear(out);
    return status;
}

/* ---- sample numbers ---------------------------------------------------------------------------------------- */

typedef struct numbered {
    int64_t id;
    int32_t row;
} numbered;

static int by_id(const void *a, const void *b)
{
    const numbered *x = a, *y = b;
    return x->id < y->id ? -1 : x->id > y->id;
}

static const numbered *find(const numbered *sorted, int64_t n, int64_t id)
{
    numbered key = {id, 0};
    return bsearch(&key, sorted, (size_t)n, sizeof key, by_id);
}

vl_status vl_tables_find_samples(int32_t *rows, vl_h5 file, const vl_sample_table *samples, const int32_t *numbers,
                                 int64_t n, const char *what, vl_error *err)
{
    vl_status status = VL_OK;
    numbered *sorted = vl_alloc((size_t)samples->n + 1, sizeof *sorted);
    const numbered *last = NULL;
    if (!sorted)
        return vl_fail_nomem(err, "sample numbers");
    for (int64_t i = 0; i < samples->n; i++)
        sorted[i] = (numbered){samples->id[i], (int32_t)i};
    qsort(sorted, (size_t)samples->n, sizeof *sorted, by_id);
    for (int64_t i = 1; i < samples->n && status == VL_OK; i++)
        if (sorted[i].id == sorted[i - 1].id)
            status = vl_h5_refuse(err, VL_EFORMAT, file, "/samples/id holds %lld twice", (long long)sorted[i].id);
    for (int64_t i = 0; i < n && status == VL_OK; i++) {
        if (!last || last->id != numbers[i]) /* rows of one sample lie together */
            last = find(sorted, samples->n, numbers[i]);
        if (last && rows)
            rows[i] = last->row;
        if (!last)
            status = vl_h5_refuse(err, VL_EFORMAT, file, "%s[%lld] is sample %d, which /samples/id does not hold", what,
                                  (long long)i, numbers[i]);
    }
    vl_free(sorted);
    return status;
}
