/* One reading behind another: two pictures under one prompt, on one page. */
#include <string.h>

#include "trainer/base/mem.h"
#include "trainer/base/status.h"
#include "trainer/view/reading.h"

enum { LENSES = 2 };

/* An array [groups, positions, row] of each reading; `row` in bytes. */
typedef struct part {
    const void *a, *b;
    int groups; /* lenses, or blocks of an attention map */
    size_t row;
} part;

/* The positions of b behind those of a, group by group. */
static void *join(const part *p, int64_t n_a, int64_t n_b)
{
    size_t bytes_a = (size_t)n_a * p->row, bytes_b = (size_t)n_b * p->row;
    char *out = vl_alloc((size_t)p->groups, bytes_a + bytes_b);
    for (int g = 0; out && g < p->groups; g++) {
        char *to = out + (size_t)g * (bytes_a + bytes_b);
        memcpy(to, (const char *)p->a + (size_t)g * bytes_a, bytes_a);
        memcpy(to + bytes_a, (const char *)p->b + (size_t)g * bytes_b, bytes_b);
    }
    return out;
}

enum { PARTS = 6 };
typedef struct joined {
    void *cells[PARTS]; /* ids, probability, entropy, kl, tracked_probability, attention weights */
    vl_reading_position *positions;
    vl_picture *pictures;
} joined;

static void joined_clear(joined *j)
{
    for (int i = 0; i < PARTS; i++)
        vl_free(j->cells[i]);
    vl_free(j->positions);
    vl_free(j->pictures);
}

static bool joined_fill(joined *j, const vl_reading *a, const vl_reading *b)
{
    const size_t cell = (size_t)a->n_states * sizeof(float);
    const part parts[PARTS] = {
        {a->ids, b->ids, LENSES, cell * (size_t)a->k},
        {a->probability, b->probability, LENSES, cell * (size_t)a->k},
        {a->entropy, b->entropy, LENSES, cell},
        {a->kl, b->kl, LENSES, cell},
        {a->tracked_probability, b->tracked_probability, LENSES, cell * (size_t)a->n_tracked},
        {a->attention.weights, b->attention.weights, a->attention.n_layers,
         sizeof(float) * (size_t)a->attention.n_keys},
    };
    for (int i = 0; i < PARTS; i++) {
        if (!parts[i].row)
            continue;
        j->cells[i] = join(&parts[i], a->n_positions, b->n_positions);
        if (!j->cells[i])
            return false;
    }
    j->positions = vl_alloc((size_t)(a->n_positions + b->n_positions), sizeof *j->positions);
    j->pictures = vl_alloc((size_t)(a->pictures.n + b->pictures.n) + 1, sizeof *j->pictures);
    return j->positions && j->pictures;
}

/* The texts of tokens that only `other` has change their owner; then every position points at a text of `reading`. */
static void take_pieces(vl_reading *reading, vl_reading *other, vl_reading_position *of_other)
{
    for (int64_t id = 0; id < reading->vocab_size; id++)
        if (!reading->pieces[id] && other->pieces[id]) {
            reading->pieces[id] = other->pieces[id];
            other->pieces[id] = NULL;
        }
    for (int64_t i = 0; i < other->n_positions; i++) {
        const char *piece = vl_reading_piece(reading, of_other[i].id);
        if (*piece)
            of_other[i].piece = piece;
    }
}

/* The first number that no picture of a reading has. */
static int32_t next_image(const vl_reading *r)
{
    int32_t next = 0;
    for (int64_t i = 0; i < r->n_positions; i++)
        next = r->positions[i].image >= next ? r->positions[i].image + 1 : next;
    for (int i = 0; i < r->pictures.n; i++)
        next = r->pictures.items[i].image >= next ? r->pictures.items[i].image + 1 : next;
    return next;
}

vl_status vl_reading_append(vl_reading *reading, vl_reading *other, vl_error *err)
{
    joined j = {0};
    if (reading->n_states != other->n_states || reading->k != other->k || reading->d != other->d ||
        reading->vocab_size != other->vocab_size || reading->has_lens != other->has_lens ||
        reading->n_tracked != other->n_tracked || reading->attention.n_layers != other->attention.n_layers ||
        reading->attention.n_keys != other->attention.n_keys || reading->trajectories || other->trajectories ||
        strcmp(reading->model_id, other->model_id) != 0)
        return vl_fail(err, VL_EINVAL, "only readings of the same model, lens and tracked words can be joined");
    if (!joined_fill(&j, reading, other)) {
        joined_clear(&j);
        return vl_fail_nomem(err, "reading");
    }
    memcpy(j.positions, reading->positions, (size_t)reading->n_positions * sizeof *j.positions);
    vl_reading_position *second = j.positions + reading->n_positions;
    memcpy(second, other->positions, (size_t)other->n_positions * sizeof *j.positions);
    take_pieces(reading, other, second);
    int shift = next_image(reading), n_pictures = reading->pictures.n;
    for (int64_t i = 0; i < other->n_positions; i++) {
        second[i].part += reading->n_parts;
        second[i].image += second[i].image >= 0 ? shift : 0;
    }
    for (int i = 0; i < n_pictures; i++)
        j.pictures[i] = reading->pictures.items[i];
    for (int i = 0; i < other->pictures.n; i++) {
        j.pictures[n_pictures + i] = other->pictures.items[i];
        j.pictures[n_pictures + i].image += shift;
    }
    /* from here on nothing fails */
    joined old = {{reading->ids, reading->probability, reading->entropy, reading->kl, reading->tracked_probability,
                   reading->attention.weights},
                  reading->positions,
                  reading->pictures.items};
    joined_clear(&old);
    vl_free(other->pictures.items);
    reading->ids = j.cells[0];
    reading->probability = j.cells[1];
    reading->entropy = j.cells[2];
    reading->kl = j.cells[3];
    reading->tracked_probability = j.cells[4];
    reading->attention.weights = j.cells[5];
    reading->attention.n_positions += other->n_positions;
    reading->positions = j.positions;
    reading->pictures = (vl_pictures){j.pictures, n_pictures + other->pictures.n};
    reading->n_positions += other->n_positions;
    reading->n_parts += other->n_parts;
    other->pictures = (vl_pictures){0};
    other->n_positions = 0;
    return VL_OK;
}
