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

/* One question whose pictures stand first, and at most one answer: all of it is said by prompt, answer and images. */
static bool is_plain(const vl_sample *sample)
{
    int n = sample->n_turns;
    if (n == 0)
        return true;
    const vl_turn *asked = &sample->turns[0];
    if (n > 2 || strcmp(asked->role, "user") != 0 || (n == 2 && strcmp(sample->turns[1].role, "assistant") != 0))
        return false;
    for (int k = 0; k < asked->n_parts; k++)
        if (!asked->parts[k].text != (k < sample->n_images))
            return false;
    return asked->n_parts <= sample->n_images + 1 && (n == 1 || sample->turns[1].n_parts <= 1);
}

static void add_turns(vl_sha256 *hash, const vl_sample *sample)
{
    for (int i = 0; i < sample->n_turns; i++) {
        const vl_turn *turn = &sample->turns[i];
        add(hash, "turn", turn->role, strlen(turn->role));
        for (int k = 0; k < turn->n_parts; k++)
            add(hash, turn->parts[k].text ? "text" : "picture", turn->parts[k].text ? turn->parts[k].text : "",
                turn->parts[k].text ? strlen(turn->parts[k].text) : 0);
    }
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
    if (!is_plain(sample))
        add_turns(&hash, sample);
    for (int i = 0; i < sample->n_images; i++)
        add(&hash, "image", image_sha256[i], strlen(image_sha256[i]));
    vl_sha256_final(&hash, digest);
    vl_sha256_hex(digest, hex);
}
