/* hf/load.h - integers out of bytes, in either order. */
#ifndef VL_HF_LOAD_H
#define VL_HF_LOAD_H

#include <stdint.h>

static inline uint32_t vl_load_be32(const uint8_t *p)
{
    return (uint32_t)p[0] << 24 | (uint32_t)p[1] << 16 | (uint32_t)p[2] << 8 | p[3];
}

static inline uint32_t vl_load_be16(const uint8_t *p)
{
    return (uint32_t)p[0] << 8 | p[1];
}

static inline uint32_t vl_load_le32(const uint8_t *p)
{
    return (uint32_t)p[3] << 24 | (uint32_t)p[2] << 16 | (uint32_t)p[1] << 8 | p[0];
}

static inline uint32_t vl_load_le16(const uint8_t *p)
{
    return (uint32_t)p[1] << 8 | p[0];
}

#endif
