/* hf/png_chunks.h - walking the chunks of a PNG file in memory, bounds-checked. */
#ifndef VL_HF_PNG_CHUNKS_H
#define VL_HF_PNG_CHUNKS_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

typedef struct vl_png_chunk {
    const uint8_t *data; /* size bytes; borrowed from the file */
    size_t size;
    char type[5];
    uint32_t crc; /* as stored */
} vl_png_chunk;

/* Where the first chunk starts, after the signature. */
enum { VL_PNG_FIRST_CHUNK = 8 };

/* Reads the chunk at *at and moves *at behind it. False at the end of the file and where a chunk is cut short. */
bool vl_png_next(vl_png_chunk *out, const uint8_t *data, size_t size, size_t *at);
/* Whether type and data have the checksum that is stored. */
bool vl_png_chunk_is_whole(const vl_png_chunk *chunk);

#endif
