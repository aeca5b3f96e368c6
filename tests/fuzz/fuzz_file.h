/* fuzz/fuzz_file.h - bytes as a file, for readers that take paths. */
#ifndef FUZZ_FILE_H
#define FUZZ_FILE_H

#include <stddef.h>
#include <stdint.h>

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size);

/* Writes the bytes as `name` in a folder of this process (made once, under TMPDIR); the path is borrowed. */
const char *fuzz_file(const char *name, const uint8_t *data, size_t size);
/* Reads as a use of the byte, which a compiler must not leave out. */
void fuzz_touch(uint8_t byte);
/* That folder. */
const char *fuzz_folder(void);

#endif
