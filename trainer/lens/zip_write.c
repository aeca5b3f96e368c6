#include <string.h>

#include "trainer/base/mem.h"
#include "trainer/lens/zip.h"

/* 1980-01-01: equal lenses give equal bytes. */
enum { ZIP_DATE_1980 = 0x21, VERSION_STORED = 20, VERSION_ZIP64 = 45, EXTRA_ZIP64 = 1 };
/* The extra field that PyTorch pads with (caffe2/serialize/inline_container.cc, "FB"). */
enum { EXTRA_PADDING = 0x4246, LOCAL_HEADER_BYTES = 30, EXTRA_HEADER_BYTES = 4 };

void vl_crc32_init(vl_crc32 *crc)
{
    for (uint32_t i = 0; i < 256; i++) {
        uint32_t c = i;
        for (int k = 0; k < 8; k++)
            c = c & 1 ? 0xedb88320u ^ (c >> 1) : c >> 1;
        crc->table[i] = c;
    }
}

uint32_t vl_crc32_update(const vl_crc32 *crc, uint32_t value, const void *data, size_t size)
{
    const uint8_t *p = data;
    value = ~value;
    for (size_t i = 0; i < size; i++)
        value = crc->table[(value ^ p[i]) & 0xff] ^ (value >> 8);
    return ~value;
}

void vl_zip_begin(vl_zip_writer *zip, FILE *stream)
{
    *zip = (vl_zip_writer){.stream = stream, .directory = VL_STR_INIT};
    vl_crc32_init(&zip->crc);
}

void vl_zip_drop(vl_zip_writer *zip)
{
    vl_str_clear(&zip->directory);
}

/* A little-endian field of `bytes` bytes. */
static void put(vl_str *s, uint64_t value, int bytes)
{
    for (int i = 0; i < bytes; i++)
        vl_str_putc(s, (char)(value >> (8 * i) & 0xff));
}

static void emit(vl_zip_writer *zip, const void *data, size_t n)
{
    if (n)
        fwrite(data, 1, n, zip->stream);
    zip->offset += n;
}

typedef struct member {
    const char *name;
    uint64_t size, offset;
    uint32_t crc;
    bool wide_size, wide_offset; /* in a ZIP64 field */
} member;

/* The fields that the local header and the central directory share, from "version needed" on. */
static void put_common(vl_str *s, const member *m, size_t extra)
{
    uint64_t size = m->wide_size ? UINT32_MAX : m->size;
    put(s, m->wide_size || m->wide_offset ? VERSION_ZIP64 : VERSION_STORED, 2);
    put(s, 0, 2); /* flags */
    put(s, 0, 2); /* stored */
    put(s, 0, 2); /* time */
    put(s, ZIP_DATE_1980, 2);
    put(s, m->crc, 4);
    put(s, size, 4);
    put(s, size, 4);
    put(s, strlen(m->name), 2);
    put(s, extra, 2);
}

static void put_local(vl_str *s, const member *m, int alignment)
{
    size_t wide = m->wide_size ? EXTRA_HEADER_BYTES + 16 : 0, padding = 0;
    if (alignment) {
        uint64_t start = m->offset + LOCAL_HEADER_BYTES + strlen(m->name) + wide + EXTRA_HEADER_BYTES;
        padding = EXTRA_HEADER_BYTES + (size_t)((uint64_t)alignment - start % (uint64_t)alignment) % (size_t)alignment;
    }
    put(s, 0x04034b50u, 4);
    put_common(s, m, wide + padding);
    vl_str_puts(s, m->name);
    if (wide) {
        put(s, EXTRA_ZIP64, 2);
        put(s, 16, 2);
        put(s, m->size, 8);
        put(s, m->size, 8);
    }
    if (padding) {
        put(s, EXTRA_PADDING, 2);
        put(s, padding - EXTRA_HEADER_BYTES, 2);
        for (size_t i = EXTRA_HEADER_BYTES; i < padding; i++)
            vl_str_putc(s, 'Z');
    }
}

static void put_central(vl_str *s, const member *m)
{
    size_t wide = (m->wide_size ? 16 : 0) + (m->wide_offset ? 8 : 0);
    put(s, 0x02014b50u, 4);
    put(s, VERSION_ZIP64, 2);
    put_common(s, m, wide ? EXTRA_HEADER_BYTES + wide : 0);
    put(s, 0, 2); /* comment */
    put(s, 0, 2); /* disk */
    put(s, 0, 2); /* attributes */
    put(s, 0, 4);
    put(s, m->wide_offset ? UINT32_MAX : m->offset, 4);
    vl_str_puts(s, m->name);
    if (!wide)
        return;
    put(s, EXTRA_ZIP64, 2);
    put(s, wide, 2);
    if (m->wide_size) {
        put(s, m->size, 8);
        put(s, m->size, 8);
    }
    if (m->wide_offset)
        put(s, m->offset, 8);
}

vl_status vl_zip_add(vl_zip_writer *zip, const char *name, const vl_zip_piece *pieces, int n, vl_error *err)
{
    member m = {.name = name, .offset = zip->offset};
    vl_str local = VL_STR_INIT;
    for (int i = 0; i < n; i++) {
        m.crc = vl_crc32_update(&zip->crc, m.crc, pieces[i].data, pieces[i].size);
        m.size += pieces[i].size;
    }
    m.wide_size = zip->always_zip64 || m.size >= UINT32_MAX;
    m.wide_offset = zip->always_zip64 || m.offset >= UINT32_MAX;
    put_local(&local, &m, zip->alignment);
    put_central(&zip->directory, &m);
    bool failed = local.failed || zip->directory.failed;
    if (!failed) {
        emit(zip, local.data, local.size);
        for (int i = 0; i < n; i++)
            emit(zip, pieces[i].data, pieces[i].size);
        zip->n_entries++;
    }
    vl_str_clear(&local);
    return failed ? vl_fail_nomem(err, name) : VL_OK;
}

vl_status vl_zip_finish(vl_zip_writer *zip, vl_error *err)
{
    vl_str end = VL_STR_INIT;
    uint64_t start = zip->offset, size = zip->directory.size, n = zip->n_entries;
    bool wide = zip->always_zip64 || n >= UINT16_MAX || start >= UINT32_MAX || size >= UINT32_MAX;
    if (wide) {
        put(&end, 0x06064b50u, 4); /* ZIP64 end of central directory */
        put(&end, 44, 8);
        put(&end, VERSION_ZIP64, 2);
        put(&end, VERSION_ZIP64, 2);
        put(&end, 0, 4);
        put(&end, 0, 4);
        put(&end, n, 8);
        put(&end, n, 8);
        put(&end, size, 8);
        put(&end, start, 8);
        put(&end, 0x07064b50u, 4); /* its locator */
        put(&end, 0, 4);
        put(&end, start + size, 8);
        put(&end, 1, 4);
    }
    put(&end, 0x06054b50u, 4); /* end of central directory */
    put(&end, 0, 2);
    put(&end, 0, 2);
    put(&end, wide ? UINT16_MAX : n, 2);
    put(&end, wide ? UINT16_MAX : n, 2);
    put(&end, wide ? UINT32_MAX : size, 4);
    put(&end, wide ? UINT32_MAX : start, 4);
    put(&end, 0, 2);
    bool failed = end.failed || zip->directory.failed;
    if (!failed) {
        emit(zip, zip->directory.data, zip->directory.size);
        emit(zip, end.data, end.size);
    }
    vl_str_clear(&end);
    return failed ? vl_fail_nomem(err, "zip archive") : VL_OK;
}
