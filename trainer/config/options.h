/* config/options.h - one table of every configuration key, from which reading, writing, --set, help, the manual page
 * and completion all follow. */
#ifndef VL_CONFIG_OPTIONS_H
#define VL_CONFIG_OPTIONS_H

#include <stddef.h>

#include <vlens/config.h>

typedef enum vl_option_type {
    VL_OPTION_TEXT,     /* char *, owned */
    VL_OPTION_INT,      /* int64_t */
    VL_OPTION_COUNT,    /* int64_t, or "all" */
    VL_OPTION_BYTES,    /* int64_t, with a suffix: KiB MiB GiB TiB kB MB GB TB */
    VL_OPTION_DOUBLE,   /* double */
    VL_OPTION_BOOL,     /* bool */
    VL_OPTION_ENUM,     /* int, one of `names` */
    VL_OPTION_SET,      /* unsigned bit mask over `names`, written as a list */
    VL_OPTION_INTERVAL, /* vl_interval: N (steps) | Ns | Nmin | Nh */
    VL_OPTION_LAYERS,   /* two int64_t: all | N | N-M */
} vl_option_type;

typedef struct vl_option {
    const char *key;
    vl_option_type type;
    size_t offset;
    unsigned affects;    /* vl_affects bits: what is no longer what it was when this key changes */
    const char *initial; /* as text; "" is NULL for VL_OPTION_TEXT */
    const char *names;   /* "a|b|c" in the order of the enum */
    double min, max;     /* of numbers */
    const char *help;
} vl_option;

extern const vl_option vl_options[];
extern const int vl_options_count;

/* NULL where no such key exists. */
const vl_option *vl_option_find(const char *key);
/* The known key that is nearest by edit distance. Never NULL. */
const char *vl_option_nearest(const char *key);
/* Sets a value from its text; for VL_OPTION_SET the text is "a,b,c". The message does not name the key's place. */
vl_status vl_option_set(vl_config *config, const vl_option *option, const char *text, vl_error *err);
/* The value as text that vl_option_set reads back to the same value; freed by vl_free, NULL when out of memory. */
char *vl_option_text(const vl_config *config, const vl_option *option);

#endif
