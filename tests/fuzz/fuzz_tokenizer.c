#include <string.h>

#include <vlens/tokenizer.h>

#include "tests/fuzz/fuzz_file.h"

/* A tokenizer.json; what opens must encode and decode a fixed text. */
int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size)
{
    static const char text[] = "The cat, 12 caf\xc3\xa9s <s>\n\n  \xf0\x9f\x90\x88 end";
    vl_tokenizer *tokenizer = NULL;
    vl_token_ids ids = {NULL, 0};
    vl_decoded decoded = {NULL, 0};
    vl_error err = VL_ERROR_INIT;
    fuzz_file("tokenizer.json", data, size);
    if (vl_tokenizer_open(&tokenizer, fuzz_folder(), &err) == VL_OK &&
        vl_tokenizer_encode(&ids, tokenizer, text, strlen(text), true, &err) == VL_OK) {
        (void)vl_tokenizer_decode(&decoded, tokenizer, ids.ids, ids.n, false, &err);
        for (int64_t i = 0; i < ids.n; i++)
            (void)vl_tokenizer_piece(tokenizer, ids.ids[i]);
    }
    vl_release(ids.ids);
    vl_release(decoded.text);
    vl_tokenizer_close(tokenizer);
    return 0;
}
