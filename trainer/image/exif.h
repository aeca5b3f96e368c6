/* hf/exif.h - which way up a picture is. */
#ifndef VL_HF_EXIF_H
#define VL_HF_EXIF_H

#include <stddef.h>
#include <stdint.h>

#include "trainer/base/status.h"

/* The EXIF orientation 1-8 of a JPEG file (APP1 segment) or PNG file (eXIf chunk, or the "Raw profile type exif" text
 * that ImageMagick writes) in memory, as Pillow's Image.getexif finds it. 1 (upright) where there is none, where it
 * is out of range and where the data is damaged: a picture is not refused for its EXIF. XMP is not consulted. */
int vl_exif_orientation(const uint8_t *data, size_t size);

/* Turns a picture [height, width, 3] upright, as Pillow's ImageOps.exif_transpose does. *rgb may become another
 * block (the old one is freed); on failure nothing has changed. Error: VL_ENOMEM. */
vl_status vl_exif_transpose(uint8_t **rgb, int *width, int *height, int orientation, vl_error *err);

#endif
