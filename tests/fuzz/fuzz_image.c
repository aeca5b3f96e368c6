#include "tests/fuzz/fuzz_file.h"
#include "trainer/image/image.h"

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size)
{
    vl_image image = {0};
    vl_image_options options = {.apply_exif = true, .max_pixels = 1 << 20};
    vl_error err = VL_ERROR_INIT;
    (void)vl_image_decode(&image, data, size, "picture", &options, &err);
    vl_image_clear(&image);
    return 0;
}
