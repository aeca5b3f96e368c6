#include <stdlib.h>
#include <string.h>

#include "trainer/base/mem.h"
#include "trainer/lens/zip.h"
#include "trainer/base/load.h"

enum {
    END_BYTES = 22,
    LOCATOR_BYTES = 20,
    END64_BYTES = 56,
    CENTRAL_BYTES = 46,
    LOCAL_BYTES = 30,
    MAX_COMMENT = 65535,
    MAX_ENTRIES = 1 << 20
};

static uint64_t load_le64(const uint8_t *p)
{
    return (uint64_t)vl_load_le32(p + 4) << 32 | vl_load_le32(p);
}

/* Where the central directory lies and what it promises. */
typedef struct directory {
    uint64_t offset, size, n;
} directory;

static vl_status refuse(const vl_zip *zip, vl_error *err, const char *what)
{
    return vl_fail(err, VL_EFORMAT, "%s: damaged ZIP archive: %s", zip->path, what);
}

/* The end record stands last, before a comment of any length. NULL where there is none. */
static const uint8_t *find_end(const vl_zip *zip)
{
    size_t size = zip->map.size;
    for (size_t back = END_BYTES; back <= size && back <= END_BYTES + MAX_COMMENT; back++) {
        const uint8_t *p = zip->map.data + size - back;
        if (vl_load_le32(p) == 0x06054b50u && vl_load_le16(p + 20) == back - END_BYTES)
            return p;
    }
    return NULL;
}

static vl_status find_directory(directory *out, const vl_zip *zip, vl_error *err)
{
    const uint8_t *base = zip->map.data, *end = find_end(zip);
    if (!end)
        return vl_fail(err, VL_EFORMAT, "%s: no ZIP archive (cut off, or written by PyTorch before 1.6)", zip->path);
    *out = (directory){vl_load_le32(end + 16), vl_load_le32(end + 12), vl_load_le16(end + 10)};
    size_t at = (size_t)(end - base);
    if (at >= LOCATOR_BYTES && vl_load_le32(end - LOCATOR_BYTES) == 0x07064b50u) {
        uint64_t where = load_le64(end - LOCATOR_BYTES + 8);
        if (at < LOCATOR_BYTES + END64_BYTES || where > at - LOCATOR_BYTES - END64_BYTES ||
            vl_load_le32(base + where) != 0x06064b50u)
            return refuse(zip, err, "the ZIP64 end record is not where its locator says");
        *out = (directory){load_le64(base + where + 48), load_le64(base + where + 40), load_le64(base + where + 32)};
    } else if (vl_load_le16(end + 4) != 0) {
        return vl_fail(err, VL_EUNSUPPORTED, "%s: a ZIP archive of several files", zip->path);
    }
    if (out->offset > at || out->size > at - out->offset)
        return refuse(zip, err, "the central directory lies outside the file");
    if (out->n > out->size / CENTRAL_BYTES || out->n > MAX_ENTRIES)
        return refuse(zip, err, "more members than its directory can hold");
    return VL_OK;
}

/* The 64-bit values of a ZIP64 extra field, in the order of the fields that are all ones. */
static bool read_wide(uint64_t *fields[3], const uint8_t *extra, size_t n)
{
    for (size_t at = 0; n - at >= 4;) {
        size_t size = vl_load_le16(extra + at + 2);
        if (size > n - at - 4)
            return false;
        if (vl_load_le16(extra + at) == 1) {
            size_t used = 0;
            for (int k = 0; k < 3; k++) {
                if (*fields[k] != UINT32_MAX)
                    continue;
                if (size - used < 8)
                    return false;
                *fields[k] = load_le64(extra + at + 4 + used);
                used += 8;
            }
            return true;
        }
        at += 4 + size;
    }
    return true;
}

/* Data behind the local header, whose name must be that of the directory. */
static vl_status locate(vl_zip_entry *entry, const vl_zip *zip, uint64_t offset, uint64_t end, vl_error *err)
{
    const uint8_t *p = offset <= end && end - offset >= LOCAL_BYTES ? zip->map.data + offset : NULL;
    if (!p || vl_load_le32(p) != 0x04034b50u)
        return refuse(zip, err, "a member's local header is not where the directory says");
    size_t name = vl_load_le16(p + 26), skip = LOCAL_BYTES + name + vl_load_le16(p + 28);
    if (skip > end - offset || entry->size > end - offset - skip)
        return refuse(zip, err, "a member's data lie outside the file");
    if (name != strlen(entry->name) || memcmp(p + LOCAL_BYTES, entry->name, name) != 0)
        return refuse(zip, err, "a member has two names");
    entry->data = p + skip;
    return VL_OK;
}

/* One record of the directory at `p`, of which `left` bytes are there; *used is its length. */
static vl_status read_entry(vl_zip_entry *out, size_t *used, const vl_zip *zip, const uint8_t *p, size_t left,
                            uint64_t end, vl_error *err)
{
    if (left < CENTRAL_BYTES || vl_load_le32(p) != 0x02014b50u)
        return refuse(zip, err, "the central directory is cut off");
    uint64_t packed = vl_load_le32(p + 20), size = vl_load_le32(p + 24), offset = vl_load_le32(p + 42);
    size_t name = vl_load_le16(p + 28), extra = vl_load_le16(p + 30), comment = vl_load_le16(p + 32);
    *used = CENTRAL_BYTES + name + extra + comment;
    if (*used > left)
        return refuse(zip, err, "the central directory is cut off");
    if (!name || memchr(p + CENTRAL_BYTES, 0, name))
        return refuse(zip, err, "a member without a proper name");
    if (!read_wide((uint64_t *[3]){&size, &packed, &offset}, p + CENTRAL_BYTES + name, extra))
        return refuse(zip, err, "a ZIP64 field is cut off");
    if (!(out->name = vl_strndup((const char *)p + CENTRAL_BYTES, name)))
        return vl_fail_nomem(err, zip->path);
    if (vl_load_le16(p + 8) & 1 || vl_load_le16(p + 10) != 0 || packed != size)
        return vl_fail(err, VL_EUNSUPPORTED, "%s: a member is packed or encrypted, expected stored ones", zip->path);
    if (size > end)
        return refuse(zip, err, "a member's data lie outside the file");
    out->size = (size_t)size;
    out->crc = vl_load_le32(p + 16);
    return locate(out, zip, offset, end, err);
}

static int by_name(const void *a, const void *b)
{
    return strcmp(((const vl_zip_entry *)a)->name, ((const vl_zip_entry *)b)->name);
}

static vl_status read_directory(vl_zip *zip, vl_error *err)
{
    directory d;
    VL_TRY(find_directory(&d, zip, err));
    if (!d.n)
        return refuse(zip, err, "it is empty");
    if (!(zip->entries = vl_calloc((size_t)d.n, sizeof *zip->entries)))
        return vl_fail_nomem(err, zip->path);
    const uint8_t *p = zip->map.data + d.offset;
    size_t left = (size_t)d.size, used;
    for (; zip->n < d.n; p += used, left -= used) {
        vl_status status = read_entry(&zip->entries[zip->n], &used, zip, p, left, d.offset, err);
        zip->n++; /* counted either way: its name is to be freed */
        VL_TRY(status);
    }
    qsort(zip->entries, zip->n, sizeof *zip->entries, by_name);
    for (size_t i = 1; i < zip->n; i++)
        if (strcmp(zip->entries[i - 1].name, zip->entries[i].name) == 0)
            return refuse(zip, err, "two members of one name");
    return VL_OK;
}

vl_status vl_zip_open(vl_zip *out, const char *path, vl_error *err)
{
    vl_status status = VL_OK;
    *out = (vl_zip){.path = vl_strdup(path)};
    if (!out->path)
        return vl_fail_nomem(err, path);
    VL_GOTO(vl_map_open(&out->map, path, err));
    VL_GOTO(read_directory(out, err));
done:
    if (status != VL_OK)
        vl_zip_close(out);
    return status;
}

void vl_zip_close(vl_zip *zip)
{
    for (size_t i = 0; i < zip->n; i++)
        vl_free(zip->entries[i].name);
    vl_free(zip->entries);
    vl_map_close(&zip->map);
    vl_free(zip->path);
    *zip = (vl_zip){0};
}

const vl_zip_entry *vl_zip_find(const vl_zip *zip, const char *name)
{
    const vl_zip_entry key = {.name = (char *)(uintptr_t)name};
    return zip->n ? bsearch(&key, zip->entries, zip->n, sizeof key, by_name) : NULL;
}

vl_status vl_zip_check(const vl_zip *zip, const vl_zip_entry *entry, vl_error *err)
{
    vl_crc32 crc;
    vl_crc32_init(&crc);
    uint32_t found = vl_crc32_update(&crc, 0, entry->data, entry->size);
    if (found != entry->crc)
        return vl_fail(err, VL_EFORMAT, "%s: damaged: CRC of %.80s is %08x, the file says %08x", zip->path, entry->name,
                       found, entry->crc);
    return VL_OK;
}
