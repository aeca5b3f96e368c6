/* golden.h - recorded forwards of the reference implementation: found, opened, compared.
 *
 * A golden is a safetensors file with the tensors of one forward and the prompt in its metadata (tests/golden/README.md
 * lists them). Those in tests/golden/fixtures are always there; more are used where the environment names them:
 * VLENS_SHARED_DATA (tiny and trained models) and VLENS_REAL_DIR (downloaded models). */
#ifndef VL_TESTS_GOLDEN_H
#define VL_TESTS_GOLDEN_H

#include <vlens/model.h>

#include "trainer/hf/safetensors.h"

/* cmocka wants these in this order before its own header. */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>

#include <cmocka.h>

enum { GOLDEN_PATH = 512, GOLDEN_IMAGES = 4 };

typedef struct golden_case {
    char name[GOLDEN_PATH];   /* of the file, without its ending */
    char golden[GOLDEN_PATH]; /* the file */
    char model[GOLDEN_PATH];  /* the directory of its model */
    char images[GOLDEN_PATH]; /* the directory of its pictures */
    /* Applied to the model before the prompt is encoded, and to the sequence before the forward: a deliberate wrong. */
    void (*change_model)(vl_model *model);
    void (*change_sequence)(vl_sequence *sequence);
    bool vision;        /* of the vision families: pixels as hashes, stages of the tower in some only */
    const char *device; /* NULL: the processor */
    bool streamed;      /* most weights do not fit on a device that has its own memory */
} golden_case;

/* All goldens that are there, in a fixed order; *out is freed with free(). Prints one line for each environment
 * variable that is not set. */
size_t golden_find(golden_case **out);
/* One of the fixtures, by the name of its file. */
golden_case golden_fixture(const char *name);
/* One of tests/golden/vision, by family and name of its file. */
golden_case golden_vision_fixture(const char *family, const char *name);

/* A golden with its model and its prompt as a sequence. Fails the running test on any error. */
typedef struct golden {
    const golden_case *source;
    vl_safetensors *file;
    vl_device *device;
    vl_model *model;
    vl_sequence *sequence;
    int n_images;
    bool decoded[GOLDEN_IMAGES]; /* the picture was read from its own file, not taken from the golden */
    bool exact[GOLDEN_IMAGES];   /* its decoder is bit exact (PNG) */
} golden;
golden golden_open(const golden_case *source);
void golden_close(golden *g);

/* An f32 tensor of the golden as rows of its last dimension; data is freed with free(). */
typedef struct golden_rows {
    float *data; /* [rows, columns]; NULL where the golden has no such tensor */
    int64_t rows, columns;
} golden_rows;
golden_rows golden_read(const golden *g, const char *name);
/* An i64 vector of the golden as int32; *n = -1 and NULL where there is none. */
int32_t *golden_read_ids(const golden *g, const char *name, int64_t *n);
/* Whether the pixel values of picture i are those of the golden, bit for bit: of a golden of the vision families. */
bool golden_pixels_equal(const golden *g, int i);
/* Puts the golden's pixel values of picture i into the sequence. */
void golden_inject_pixels(golden *g, int i);

typedef struct golden_difference {
    double relative; /* max|a - b| / max|b|; infinite where a value is not finite */
    double cosine;   /* the smallest of a row */
} golden_difference;
golden_difference golden_compare(const float *a, const float *b, int64_t rows, int64_t columns);

/* Fails the running test with the error's message unless the status is VL_OK. */
void golden_ok(vl_status status, const vl_error *err, const char *what);
#define OK(call) golden_ok((call), &err, #call)

/* A copy of a fixture's model directory with one text replaced in one file; the rest are links. `folder` is a template
 * for mkdtemp. */
typedef struct golden_change {
    const char *model, *file, *from, *to;
} golden_change;
void golden_copy_model(char *folder, const golden_change *change);
void golden_remove_copy(const char *folder);

/* Every state of every sequence of a forward, on the host. */
typedef struct golden_states {
    float **data; /* [(L + 1) * n] of [T, D]; NULL where a state was not seen */
    int n_states, n_sequences;
} golden_states;
/* Runs `forward` (its tap and user are replaced) and records. */
golden_states golden_run(const golden *g, vl_forward forward);
static inline float *golden_state(const golden_states *states, int state, int sequence)
{
    return states->data[state * states->n_sequences + sequence];
}
void golden_states_free(golden_states *states);

#endif
