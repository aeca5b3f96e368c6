/* hf/image_jpeg.c - JPEG by libjpeg-turbo with its default settings (accurate integer DCT, fancy upsampling), which
 * are those of Pillow (libImaging/JpegDecode.c): the pixels are the same. */
#include <setjmp.h>
#include <stdbool.h>
#include <stdio.h>

#include <jpeglib.h>
#include <jerror.h>

#include "trainer/base/mem.h"
#include "trainer/image/image_decode.h"

/* A progressive file may revisit every coefficient in each scan; real ones have about ten scans, and a hostile one
 * of a few hundred KiB could otherwise keep the decoder busy for hours. */
enum { MAX_SCANS = 500 };

struct reader {
    struct jpeg_decompress_struct jpeg; /* first: libjpeg's callbacks get a pointer to it */
    struct jpeg_error_mgr errors;
    struct jpeg_progress_mgr progress;
    jmp_buf escape;
    char message[JMSG_LENGTH_MAX];
    uint8_t *pixels;
    uint8_t *cmyk_row; /* only for four components */
};

static void leave(j_common_ptr jpeg)
{
    struct reader *reader = (struct reader *)jpeg;
    reader->errors.format_message(jpeg, reader->message);
    longjmp(reader->escape, 1);
}

/* Warnings pass, as in Pillow (bytes before a marker, a restart marker that came late), but for the one that says
 * that the file has ended: libjpeg would fill the rest with gray. */
static void take_warning(j_common_ptr jpeg, int level)
{
    if (level < 0 && jpeg->err->msg_code == JWRN_JPEG_EOF)
        leave(jpeg);
}

static void count_scans(j_common_ptr jpeg)
{
    struct reader *reader = (struct reader *)jpeg;
    if (reader->jpeg.input_scan_number > MAX_SCANS) {
        snprintf(reader->message, sizeof reader->message, "more than %d scans", MAX_SCANS);
        longjmp(reader->escape, 1);
    }
}

/* Adobe writes CMYK inverted, and Pillow takes every CMYK JPEG to be so (rawmode "CMYK;I"). Then its cmyk2rgb
 * (libImaging/Convert.c): white minus black, times what the ink leaves, with the division by 255 by shifts. */
static void cmyk_to_rgb(uint8_t *rgb, const uint8_t *inverted, int n)
{
    for (int i = 0; i < n; i++, rgb += 3, inverted += 4) {
        const int light = inverted[3];
        for (int c = 0; c < 3; c++) {
            int product = (255 - inverted[c]) * light + 128;
            rgb[c] = (uint8_t)(light - (((product >> 8) + product) >> 8));
        }
    }
}

static vl_status read_header(struct reader *reader, const vl_image_bytes *bytes, vl_error *err)
{
    struct jpeg_decompress_struct *jpeg = &reader->jpeg;
    jpeg_read_header(jpeg, TRUE);
    VL_TRY(vl_image_check_size(bytes, jpeg->image_width, jpeg->image_height, err));
    if (jpeg->num_components != 1 && jpeg->num_components != 3 && jpeg->num_components != 4)
        return vl_fail(err, VL_EUNSUPPORTED, "%s: a JPEG of %d components, expected 1, 3 or 4", bytes->name,
                       jpeg->num_components);
    jpeg->out_color_space = jpeg->num_components == 1 ? JCS_GRAYSCALE : jpeg->num_components == 3 ? JCS_RGB : JCS_CMYK;
    return VL_OK;
}

static vl_status read_pixels(vl_pixels *out, struct reader *reader, const vl_image_bytes *bytes, vl_error *err)
{
    struct jpeg_decompress_struct *jpeg = &reader->jpeg;
    const bool cmyk = jpeg->out_color_space == JCS_CMYK;
    jpeg_start_decompress(jpeg);
    out->width = (int)jpeg->output_width;
    out->height = (int)jpeg->output_height;
    out->channels = jpeg->num_components == 1 ? 1 : 3;
    const size_t row_bytes = (size_t)out->width * (size_t)out->channels;
    reader->pixels = vl_alloc((size_t)out->height, row_bytes);
    if (cmyk)
        reader->cmyk_row = vl_alloc((size_t)out->width, 4);
    if (!reader->pixels || (cmyk && !reader->cmyk_row))
        return vl_fail_nomem(err, bytes->name);
    while (jpeg->output_scanline < jpeg->output_height) {
        uint8_t *to = reader->pixels + jpeg->output_scanline * row_bytes;
        uint8_t *row = cmyk ? reader->cmyk_row : to;
        jpeg_read_scanlines(jpeg, &row, 1);
        if (cmyk)
            cmyk_to_rgb(to, row, out->width);
    }
    /* No jpeg_finish_decompress: all pixels are here, and what follows them is of no interest. */
    return VL_OK;
}

vl_status vl_decode_jpeg(vl_pixels *out, const vl_image_bytes *bytes, vl_error *err)
{
    struct reader *reader = vl_calloc(1, sizeof *reader);
    if (!reader)
        return vl_fail_nomem(err, bytes->name);
    vl_status status;
    reader->jpeg.err = jpeg_std_error(&reader->errors);
    reader->errors.error_exit = leave;
    reader->errors.emit_message = take_warning;
    reader->progress.progress_monitor = count_scans;
    if (setjmp(reader->escape)) {
        const bool memory = reader->errors.msg_code == JERR_OUT_OF_MEMORY;
        status = memory ? vl_fail_nomem(err, bytes->name)
                        : vl_fail(err, VL_EFORMAT, "%s: damaged JPEG: %s", bytes->name, reader->message);
    } else {
        jpeg_create_decompress(&reader->jpeg);
        reader->jpeg.progress = &reader->progress;
        jpeg_mem_src(&reader->jpeg, bytes->data, (unsigned long)bytes->size);
        status = read_header(reader, bytes, err);
        if (status == VL_OK)
            status = read_pixels(out, reader, bytes, err);
    }
    jpeg_destroy_decompress(&reader->jpeg);
    if (status == VL_OK)
        out->data = reader->pixels;
    else
        vl_free(reader->pixels);
    vl_free(reader->cmyk_row);
    vl_free(reader);
    return status;
}
