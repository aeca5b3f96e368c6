/* base/sha256.h - SHA-256 (FIPS 180-4). */
#ifndef VL_BASE_SHA256_H
#define VL_BASE_SHA256_H

#include <stddef.h>
#include <stdint.h>

#include "trainer/base/status.h"

typedef struct vl_sha256 {
    uint32_t state[8];
    uint64_t length;
    uint8_t block[64];
} vl_sha256;

enum { VL_SHA256_BYTES = 32, VL_SHA256_HEX = 65 };

void vl_sha256_init(vl_sha256 *hash);
void vl_sha256_update(vl_sha256 *hash, const void *data, size_t size);
void vl_sha256_final(vl_sha256 *hash, uint8_t digest[VL_SHA256_BYTES]);
/* Lower-case hex with its NUL. */
void vl_sha256_hex(const uint8_t digest[VL_SHA256_BYTES], char hex[VL_SHA256_HEX]);
/* Hash of a whole file. */
vl_status vl_sha256_file(const char *path, char hex[VL_SHA256_HEX], vl_error *err);

#endif
