/* Runs a fuzz target over files, with an ordinary compiler: each corpus is a test. Every input is also tried cut short
 * and with single bytes changed, which is where readers of lengths and offsets go wrong. */
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "tests/fuzz/fuzz_file.h"

enum { MAX_INPUT = 1 << 20, CUTS = 64, FLIPS = 256 };

static void try_input(uint8_t *data, size_t size)
{
    LLVMFuzzerTestOneInput(data, size);
    for (size_t i = 0; i < CUTS; i++)
        LLVMFuzzerTestOneInput(data, size * i / CUTS);
    /* spread over the whole, dense at the front, where headers are */
    for (size_t i = 0; i < FLIPS && size > 0; i++) {
        size_t at = i < FLIPS / 2 ? i % size : size * (i - FLIPS / 2) / (FLIPS / 2);
        uint8_t old = data[at];
        data[at] = (uint8_t)(old ^ (i % 2 ? 0xff : 1u << i % 8));
        LLVMFuzzerTestOneInput(data, size);
        data[at] = old;
    }
}

int main(int argc, char **argv)
{
    static uint8_t data[MAX_INPUT];
    for (int i = 1; i < argc; i++) {
        FILE *file = fopen(argv[i], "rb");
        if (!file) {
            perror(argv[i]);
            return 1;
        }
        size_t size = fread(data, 1, sizeof data, file);
        fclose(file);
        try_input(data, size);
    }
    printf("%d inputs, %d variants of each\n", argc - 1, 1 + CUTS + FLIPS);
    return argc > 1 ? 0 : 1;
}
