/* config/settings.h - what a cache, checkpoint, lens or result was made with, as text. One format, one place.
 *
 * Lines "key=value": first the keys of the option table that affect it, in the table's order, with the values that
 * vl_option_text gives; then facts that no key states, such as the digest of the rows. Keys that hold a path are left
 * out: a path does not say what lies there, so whoever compares adds a fact for it. */
#ifndef VL_CONFIG_SETTINGS_H
#define VL_CONFIG_SETTINGS_H

#include <vlens/config.h>

#include "trainer/base/status.h"

typedef struct vl_fact {
    const char *name, *value; /* without newlines; the name without '=' */
} vl_fact;

/* In `affects`: leave out the keys that also affect x, which whoever compares has values of its own for. */
#define VL_SETTINGS_BUT(x) ((unsigned)(x) << 8)

/* `affects`: vl_affects bits; a key takes part where it has one of them. The caller frees with vl_free. */
vl_status vl_settings_make(char **out, const vl_config *config, unsigned affects, const vl_fact *facts, int n_facts,
                           vl_error *err);

enum { VL_SETTINGS_KEY = 160, VL_SETTINGS_VALUE = 144 };

/* The first key whose value is not what it was. */
typedef struct vl_settings_difference {
    char key[VL_SETTINGS_KEY]; /* "": there is none */
    char then[VL_SETTINGS_VALUE], now[VL_SETTINGS_VALUE];
} vl_settings_difference;

/* Compares what was stored with what is wanted, in the order of `wanted`. A key that was not stored had its default:
 * it did not exist then. A fact that was not stored differs. Keys that only `stored` has are of no concern. Values are
 * compared as the option reads them, so that 0.05 and 0.050000000000000003 are the same. `stored` may be of an earlier
 * form: a JSON object of texts (caches of version 1). */
vl_status vl_settings_compare(vl_settings_difference *out, const char *stored, const char *wanted, vl_error *err);
/* The value of a key or fact in a text of this form, freed with vl_free; NULL where it has none (or no memory). */
char *vl_settings_find(const char *settings, const char *key);

#endif
