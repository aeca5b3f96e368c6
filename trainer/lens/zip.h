/* export/zip.h - ZIP archives whose members are stored, not packed: what NumPy's .npz and PyTorch's .pt files are.
 *
 * By PKWARE's APPNOTE 6.3.10, with ZIP64 records where a size or an offset needs them. */
#ifndef VL_EXPORT_ZIP_H
#define VL_EXPORT_ZIP_H

#include <stdbool.h>
#include <stdint.h>
#include <stdio.h>

#include "trainer/base/file.h"
#include "trainer/base/str.h"

/* CRC-32 of ISO 3309, as ZIP uses it. */
typedef struct vl_crc32 {
    uint32_t table[256];
} vl_crc32;

void vl_crc32_init(vl_crc32 *crc);
/* `value` is 0 for the first piece. */
uint32_t vl_crc32_update(const vl_crc32 *crc, uint32_t value, const void *data, size_t size);

/* ---- writing ----------------------------------------------------------------------------------------------- */

typedef struct vl_zip_writer {
    FILE *stream; /* of a vl_atomic_file: a failed write shows at its commit */
    uint64_t offset;
    uint64_t n_entries;
    vl_str directory; /* the central directory, written last */
    vl_crc32 crc;
    int alignment;     /* the data of a member start on a multiple of this; 0: anywhere */
    bool always_zip64; /* ZIP64 records although small: for tests */
} vl_zip_writer;

typedef struct vl_zip_piece {
    const void *data;
    size_t size;
} vl_zip_piece;

void vl_zip_begin(vl_zip_writer *zip, FILE *stream);
/* One member out of pieces that follow each other. */
vl_status vl_zip_add(vl_zip_writer *zip, const char *name, const vl_zip_piece *pieces, int n, vl_error *err);
vl_status vl_zip_finish(vl_zip_writer *zip, vl_error *err);
void vl_zip_drop(vl_zip_writer *zip); /* frees */

/* ---- reading ----------------------------------------------------------------------------------------------- */

typedef struct vl_zip_entry {
    char *name;
    const uint8_t *data; /* in the map */
    size_t size;
    uint32_t crc;
} vl_zip_entry;

typedef struct vl_zip {
    char *path;
    vl_map map;
    vl_zip_entry *entries;
    size_t n;
} vl_zip;

/* Reads the central directory and checks that every member lies inside the file. Packed or encrypted members and
 * archives of several files are VL_EUNSUPPORTED, everything else that is wrong VL_EFORMAT. */
vl_status vl_zip_open(vl_zip *out, const char *path, vl_error *err);
void vl_zip_close(vl_zip *zip);
/* NULL where there is none. */
const vl_zip_entry *vl_zip_find(const vl_zip *zip, const char *name);
/* Compares the CRC of a member's bytes with the one on record. */
vl_status vl_zip_check(const vl_zip *zip, const vl_zip_entry *entry, vl_error *err);

#endif
