/* The families that are known: one row each, in the order in which messages list them. */
#include <string.h>

#include "trainer/model/family.h"

/* clang-format off */
#define FAMILIES(ROW) \
    ROW(llama)        \
    ROW(llava)        \
    ROW(mllama)       \
    ROW(qwen2)        \
    ROW(qwen3)        \
    ROW(mistral)      \
    ROW(gemma2)       \
    ROW(gemma3_text)  \
    ROW(gpt2)         \
    ROW(gpt_neox)     \
    ROW(olmo2)        \
    ROW(phi3)         \
    ROW(opt)          \
    ROW(qwen2_vl)     \
    ROW(qwen2_5_vl)   \
    ROW(gemma3)       \
    ROW(smolvlm)      \
    ROW(idefics3)     \
    ROW(llava_next)   \
    ROW(qwen3_vl)     \
    ROW(internvl)     \
    ROW(llava_onevision)
/* clang-format on */

#define DECLARE(name) extern const vl_family vl_family_##name;
FAMILIES(DECLARE)

#define POINT(name) &vl_family_##name,
static const vl_family *const table[] = {FAMILIES(POINT)};

const vl_family *vl_family_at(size_t i)
{
    return i < sizeof table / sizeof *table ? table[i] : NULL;
}

const vl_family *vl_family_find(const char *model_type)
{
    for (size_t i = 0; i < sizeof table / sizeof *table; i++)
        if (strcmp(table[i]->model_type, model_type) == 0)
            return table[i];
    return NULL;
}
