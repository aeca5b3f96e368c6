/* vlens/config.h - the one configuration that every command reads.
 *
 * A YAML file, validated against the option table of trainer/config/options.c: every key has a type, a unit and a
 * default; an unknown key is an error that names line, column and the nearest known key. Strings are owned by the
 * configuration; paths in a file are taken relative to the current folder. */
#ifndef VLENS_CONFIG_H
#define VLENS_CONFIG_H

#include <stdbool.h>

#include <vlens/device.h>
#include <vlens/metric.h>
#include <vlens/model.h>

#ifdef __cplusplus
extern "C" {
#endif

typedef enum vl_template { VL_TEMPLATE_AUTO = 0, VL_TEMPLATE_NONE } vl_template;
typedef enum vl_data_format {
    VL_FORMAT_AUTO = 0, /* by what the file holds */
    VL_FORMAT_PROMPT,
    VL_FORMAT_LLAVA,
    VL_FORMAT_SHAREGPT,
    VL_FORMAT_MESSAGES,
    VL_FORMAT_COCO
} vl_data_format;
typedef enum vl_bad_samples { VL_BAD_STOP = 0, VL_BAD_SKIP } vl_bad_samples;
typedef enum vl_too_long { VL_LONG_STOP = 0, VL_LONG_SKIP, VL_LONG_TRUNCATE } vl_too_long;
typedef enum vl_cache_dtype { VL_CACHE_AUTO = 0, VL_CACHE_BF16, VL_CACHE_F16, VL_CACHE_F32 } vl_cache_dtype;
typedef enum vl_lens_kind { VL_LENS_AFFINE = 0, VL_LENS_BIAS } vl_lens_kind;
typedef enum vl_lens_init { VL_INIT_RIDGE = 0, VL_INIT_ZERO, VL_INIT_MEAN } vl_lens_init;
typedef enum vl_targets { VL_TARGETS_OWN = 0, VL_TARGETS_SHUFFLED } vl_targets;
typedef enum vl_split { VL_SPLIT_HELDOUT = 0, VL_SPLIT_TRAIN } vl_split;
typedef enum vl_ablation { VL_ABLATION_MEAN = 0, VL_ABLATION_RESAMPLE } vl_ablation;
typedef enum vl_optimizer { VL_OPTIMIZER_ADAM = 0, VL_OPTIMIZER_SGD, VL_OPTIMIZER_MUON } vl_optimizer;
typedef enum vl_schedule { VL_SCHEDULE_LINEAR = 0, VL_SCHEDULE_CONSTANT, VL_SCHEDULE_COSINE } vl_schedule;

/* How often: by steps or by time. One of them is 0. */
typedef struct vl_interval {
    int64_t steps;
    double seconds;
} vl_interval;

enum { VL_ALL = -1 }; /* "all": every position, every layer */

typedef struct vl_config {
    char *source; /* where it came from, for messages; NULL for defaults */
    char *model;  /* directory or hub id; may be NULL for commands that work on a cache */
    char *device; /* "auto", "cpu", "cuda", "cuda:1" */
    vl_precision precision;
    int64_t device_memory; /* bytes of a GPU to use; 0: all that is free */
    int64_t threads;       /* 0: all */
    char *output;          /* the lens directory */
    struct {
        char *samples;         /* a file of samples, or NULL */
        vl_data_format format; /* of that file */
        char *prompt;          /* what is asked of pictures that come with a caption only; NULL */
        char *template_date;   /* "YYYY-MM-DD", for chat templates that tell the date; NULL */
        vl_bad_samples bad_samples;
        vl_too_long too_long;
        char *images;              /* folder that image paths are relative to; NULL: the folder of the JSONL */
        char *text;                /* a plain corpus cut into windows, or NULL; exactly one of samples and text */
        int64_t max_tokens;        /* window length of text; longest sequence of samples (0: no limit) */
        int64_t max_samples;       /* 0: all */
        double heldout;            /* share of the samples held out, 0..1 */
        int64_t seed;              /* of the split */
        vl_template chat_template; /* data.template */
        bool exif;
        int64_t max_pixels; /* of a picture: larger ones are refused */
        bool allow_outside; /* image paths may leave the image folder */
    } data;
    struct {
        char *dir;                         /* NULL: <output>/cache */
        vl_cache_dtype dtype;              /* auto: bf16 */
        int64_t max_bytes;                 /* hard bound, 0: none */
        int64_t positions[VL_CLASS_COUNT]; /* how many of each class to keep per sample; VL_ALL */
        int64_t seed;                      /* of the positions that are chosen at random */
        int64_t shard_tokens;              /* rows per shard */
        int64_t batch_tokens;              /* rows that share one pass over the weights */
    } cache;
    struct {
        int64_t first_layer, last_layer; /* adapters [first, last]; lens.layers: all | N | N-M ; last VL_ALL */
        vl_lens_kind kind;
        vl_lens_init init;
        double ridge; /* lambda as a share of the mean second moment; 0: chosen on the validation part */
        vl_loss loss;
        vl_targets targets; /* shuffled: a control that can learn nothing about its own row */
        double class_weights[VL_CLASS_COUNT];
        int64_t skip_positions; /* leave out the first N positions of every sample (attention sinks) in the fit */
    } lens;
    struct {
        vl_optimizer optimizer;
        double learning_rate; /* 0: the optimiser's own default */
        double momentum;      /* SGD and Muon */
        double weight_decay;
        vl_schedule schedule;
        double warmup; /* share of the steps */
        double clip;   /* per layer, 0: none */
        int64_t tokens_per_step;
        int64_t steps; /* 0: from epochs */
        double epochs;
        int64_t tile_tokens;      /* rows whose teacher logits are held at once */
        bool read_ahead;          /* read the next rows of the cache in a thread of its own */
        int64_t layers_in_flight; /* 0: all */
        int64_t seed;
        double validation;            /* share of the training samples used to choose, never trained on */
        bool early_stop;              /* keep, per layer, the parameters of the best validation */
        int64_t validate_every;       /* steps; 0: a tenth of the run */
        vl_interval checkpoint_every; /* both 0: only when interrupted */
    } fit;
    struct {
        unsigned metrics;  /* bit (1 << VL_EVAL_*) of each column shown */
        int64_t bootstrap; /* resamples */
        int64_t seed;
        int64_t max_tokens;      /* 0: all held-out rows */
        int64_t first_positions; /* rows at the first N positions are a class of their own, "first" */
        bool wrong_picture;      /* control: states of image A, target of image B */
        vl_split split;          /* which samples: a lens is judged on held-out ones */
        char *baseline;          /* a second lens shown beside this one, e.g. bias-only; NULL */
    } eval;
    struct {
        int64_t layers;     /* states looked at, evenly spaced; 0: all */
        int64_t directions; /* of each basis */
        int64_t samples;    /* held-out samples */
        int64_t max_rows;   /* rows measured, of all samples */
        int64_t max_tokens; /* length of a window of text */
        vl_ablation ablation;
        char *control;          /* a second lens, e.g. one fitted on shuffled targets; NULL */
        int64_t transfer_rows;  /* held-out rows of the transfer matrix; 0: none */
        char *objects;          /* JSONL of an object's patches (docs/reference/formats.md); NULL: no token ablation */
        int64_t object_samples; /* pictures of the token ablation */
    } fidelity;
    struct {
        char *samples;    /* JSONL of pictures and questions, as data.samples; NULL */
        char *images;     /* as data.images; NULL: the folder of the JSONL */
        char *dir;        /* NULL: <output>/study */
        int64_t k;        /* tokens per state */
        int64_t generate; /* tokens that the model adds */
        bool fidelity;    /* also runs vl_fidelity_run, and shows it */
    } study;
} vl_config;

/* All defaults. The caller frees with vl_config_free. */
VL_API vl_status vl_config_new(vl_config **out, vl_error *err);
VL_API void vl_config_free(vl_config *config);
/* Reads a YAML file over the defaults. Errors: VL_EIO; VL_EINVAL with "file:line:column: ...". */
VL_API vl_status vl_config_read(vl_config **out, const char *path, vl_error *err);
/* Sets one key from text, "lens.loss=ce". */
VL_API vl_status vl_config_set(vl_config *config, const char *assignment, vl_error *err);
/* Checks that belong to no single key (exactly one of samples and text, ...). */
VL_API vl_status vl_config_check(const vl_config *config, vl_error *err);
/* The whole configuration as YAML, every key with its comment; freed by vl_release. */
VL_API vl_status vl_config_write(char **out, const vl_config *config, vl_error *err);

/* What a key affects. What a cache, checkpoint, lens or result remembers and compares follows from this. */
typedef enum vl_affects {
    VL_AFFECTS_FORWARD = 1, /* the states of a sample */
    VL_AFFECTS_ROWS = 2,    /* which rows a cache holds, and how they are stored */
    VL_AFFECTS_SPLIT = 4,   /* which samples are trained on and which are held out */
    VL_AFFECTS_FIT = 8,     /* the adapters that come out of a fit */
    VL_AFFECTS_EVAL = 16,   /* the numbers of an evaluation */
    VL_AFFECTS_VIEW = 32,   /* what a page or table shows */
    VL_AFFECTS_MACHINE = 64 /* where and how fast; no number that is compared */
} vl_affects;
enum { VL_AFFECTS_COUNT = 7 };

/* The option table, for help texts, the manual page and completion. */
typedef struct vl_option_info {
    const char *key;     /* "fit.learning_rate" */
    const char *type;    /* "float", "integer", "path", "bytes", "one of a | b | c" ... */
    const char *initial; /* the default as text */
    const char *help;    /* one line, with the unit */
    unsigned affects;    /* vl_affects bits */
} vl_option_info;
VL_API int vl_option_count(void);
VL_API vl_option_info vl_option_get(int index);
/* "forward", "rows", ... of one vl_affects bit. */
VL_API const char *vl_affects_name(vl_affects bit);

#ifdef __cplusplus
}
#endif
#endif
