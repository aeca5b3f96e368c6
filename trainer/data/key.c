#include "trainer/data/key.h"

#include <stdio.h>
#include <string.h>

#include "trainer/base/sha256.h"

/* A part with its name and length in front: parts cannot run into each other. */
static void add(vl_sha256 *hash, const char *name, const void *data, size_t size)
{
    char head[64];
    int n = snprintf(head, sizeof head, "%s %zu\n", name, size);
    vl_sha256_update(hash, head, (size_t)n);
    vl_sha256_update(hash, data, size);
}

void vl_sample_key(char hex[65], const vl_sample *sample, const char *const *image_sha256)
{
    vl_sha256 hash;
    uint8_t digest[VL_SHA256_BYTES];
    vl_sha256_init(&hash);
    add(&hash, "vlens-sample", "1", 1);
    if (sample->ids)
        add(&hash, "ids", sample->ids, (size_t)sample->n_ids * sizeof *sample->ids);
    else
        add(&hash, "prompt", sample->prompt, strlen(sample->prompt));
    if (sample->answer)
        add(&hash, "answer", sample->answer, strlen(sample->answer));
    for (int i = 0; i < sample->n_images; i++)
        add(&hash, "image", image_sha256[i], strlen(image_sha256[i]));
    vl_sha256_final(&hash, digest);
    vl_sha256_hex(digest, hex);
}
