#include "tests/fuzz/fuzz_file.h"
#include "trainer/serve/ask.h"

/* A question as a client sends it. */
int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size)
{
    vl_ask ask;
    vl_error err = VL_ERROR_INIT;
    if (vl_ask_parse(&ask, (const char *)data, size, 2, &err) == VL_OK)
        vl_ask_clear(&ask);
    return 0;
}
