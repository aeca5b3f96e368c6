#!/usr/bin/env python3
"""Writes image_samples.h: small picture files, and what Pillow 11.0.0 makes of them.

    python3 -m venv venv && venv/bin/pip install 'pillow==11.0.0' && venv/bin/python make_image_samples.py

The pictures come from a formula. The expectations are SHA-256 of the RGB bytes: of convert("RGB"), of the
composition on white that MllamaImageProcessor does, of exif_transpose, and of Image.resize.
"""
import hashlib
import io
import os
import struct
import textwrap
import zlib

from PIL import Image, ImageOps, __version__

assert __version__ == '11.0.0', __version__
FILTERS = {'LANCZOS': 1, 'BILINEAR': 2, 'BICUBIC': 3, 'BOX': 4}


def picture(width, height):
    """The same formula stands in test_preprocess.c."""
    return Image.frombytes('RGB', (width, height), bytes(
        (x * x * 7 + y * 31 + c * 85 + x * y) % 256 if (x // 3 + y // 2) % 3 else 255 * (c == x % 3)
        for y in range(height) for x in range(width) for c in range(3)))


def chunk(name, data):
    return struct.pack('>I', len(data)) + name + data + struct.pack('>I', zlib.crc32(name + data))


def png(width, height, depth, color, rows, *between, interlaced=0):
    """Kinds of PNG that Pillow does not write; `between` go in front of the pixels."""
    return (b'\x89PNG\r\n\x1a\n' +
            chunk(b'IHDR', struct.pack('>IIBBBBB', width, height, depth, color, 0, 0, interlaced)) +
            b''.join(between) + chunk(b'IDAT', zlib.compress(b''.join(b'\0' + r for r in rows), 9)) +
            chunk(b'IEND', b''))


def adam7(image):
    """The rows of the seven passes of an RGB picture."""
    for x0, y0, dx, dy in ((0, 0, 8, 8), (4, 0, 8, 8), (0, 4, 4, 8), (2, 0, 4, 4), (0, 2, 2, 4), (1, 0, 2, 2),
                           (0, 1, 1, 2)):
        for y in range(y0, image.height, dy):
            row = b''.join(bytes(image.getpixel((x, y))) for x in range(x0, image.width, dx))
            if row:
                yield row


def bmp(width, height, bits, body, compression=0, header=40, palette=b'', masks=b''):
    info = struct.pack('<IiiHHIIiiII', header, width, height, 1, bits, compression, 0, 0, 0, 0, 0) + masks
    info += bytes(max(0, header - len(info)))
    start = 14 + len(info) + len(palette)
    return b'BM' + struct.pack('<IHHI', start + len(body), 0, 0, start) + info + palette + body


def noise(n, step=37):
    return bytes((i * step + i * i) % 256 for i in range(n))


def exif(orientation, big=False):
    end, head = ('>', b'MM\0*') if big else ('<', b'II*\0')
    return head + struct.pack(end + 'IHHHIHHI', 8, 1, 0x112, 3, 1, orientation, 0, 0)


def saved(image, kind, **options):
    out = io.BytesIO()
    image.save(out, kind, **options)
    return out.getvalue()


def files():
    rgb = picture(7, 5)
    alpha = Image.frombytes('L', (7, 5), noise(35))
    rgba = rgb.copy()
    rgba.putalpha(alpha)
    gray_alpha = Image.merge('LA', (rgb.convert('L'), alpha))
    palette = rgb.quantize(13)
    yield 'png_rgb', saved(rgb, 'PNG')
    yield 'png_rgba', saved(rgba, 'PNG')
    yield 'png_gray', saved(rgb.convert('L'), 'PNG')
    yield 'png_gray_alpha', saved(gray_alpha, 'PNG')
    yield 'png_gray_trns', saved(rgb.convert('L'), 'PNG', transparency=rgb.convert('L').getpixel((2, 1)))
    yield 'png_rgb_trns', saved(rgb, 'PNG', transparency=rgb.getpixel((2, 1)))
    yield 'png_palette', saved(palette, 'PNG')
    yield 'png_palette_trns', saved(palette, 'PNG', transparency=bytes(range(0, 260, 20)))
    yield 'png_palette_trns_one', saved(palette, 'PNG', transparency=3)
    yield 'png_bit', saved(rgb.convert('1'), 'PNG')
    yield 'png_palette_short', png(4, 2, 8, 3, [bytes([0, 1, 2, 200]), bytes([2, 255, 1, 0])],
                                   chunk(b'PLTE', bytes([9, 8, 7, 60, 50, 40, 250, 251, 252])))
    for depth, value in ((1, 0), (1, 1), (2, 2), (4, 0), (4, 5), (8, 37), (16, 255), (16, 40)):
        rows = [noise((5 * depth + 7) // 8, 11 + y) for y in range(4)]
        if depth == 16:
            rows = [bytes(b for i in range(5) for b in ((i + y) % 3 // 2, (i * 40 + 255 * (y % 2)) % 256))
                    for y in range(4)]
        yield f'png_gray{depth}_trns{value}', png(5, 4, depth, 0, rows, chunk(b'tRNS', struct.pack('>H', value)))
    for color, channels in ((2, 3), (4, 2), (6, 4)):
        yield f'png_16bit_color{color}', png(3, 3, 16, color, [noise(6 * channels, 5 + y) for y in range(3)])
    yield 'png_interlaced', png(11, 9, 8, 2, adam7(picture(11, 9)), interlaced=1)
    yield 'png_exif', png(3, 2, 8, 2, [noise(9), noise(9, 5)], chunk(b'eXIf', exif(6, big=True)))
    raw = b'\nexif\n%8d\n' % (6 + len(exif(8))) + (b'Exif\0\0' + exif(8)).hex().encode() + b'\n'
    yield 'png_exif_raw', png(3, 2, 8, 2, [noise(9), noise(9, 5)], chunk(b'tEXt', b'Raw profile type exif\0' + raw))
    yield 'png_exif_ztxt', png(3, 2, 8, 2, [noise(9), noise(9, 5)],
                               chunk(b'zTXt', b'Raw profile type exif\0\0' + zlib.compress(raw)))

    photo = picture(19, 13)
    yield 'jpeg_420', saved(photo, 'JPEG', quality=80, subsampling=2)
    yield 'jpeg_422', saved(photo, 'JPEG', quality=80, subsampling=1)
    yield 'jpeg_gray', saved(photo.convert('L'), 'JPEG')
    yield 'jpeg_cmyk', saved(photo.convert('CMYK'), 'JPEG', optimize=True)
    yield 'jpeg_rgb', saved(photo, 'JPEG', keep_rgb=True, optimize=True)
    yield 'jpeg_progressive', saved(photo, 'JPEG', progressive=True)
    yield 'jpeg_restart', saved(photo, 'JPEG', restart_marker_blocks=1, optimize=True)
    for orientation in range(2, 9):
        yield f'jpeg_exif{orientation}', saved(picture(8, 4), 'JPEG', optimize=True,
                                               exif=b'Exif\0\0' + exif(orientation, orientation % 2 == 0))

    yield 'webp_alpha', saved(rgba, 'WEBP', quality=70)
    yield 'webp_lossless_exif', saved(picture(4, 2), 'WEBP', lossless=True, exif=b'Exif\0\0' + exif(6))
    yield 'bmp_24', saved(rgb, 'BMP')
    yield 'bmp_8', saved(palette, 'BMP')
    yield 'bmp_1', saved(rgb.convert('1'), 'BMP')
    yield 'bmp_32', bmp(3, 2, 32, noise(24))
    yield 'bmp_32_alpha', bmp(3, -2, 32, noise(24), 3, 108, masks=struct.pack('<4I', 0xff0000, 0xff00, 0xff, 255 << 24))
    yield 'bmp_4', bmp(5, 3, 4, noise(12), palette=noise(64, 9))
    yield 'bmp_16', bmp(5, 3, 16, noise(36))
    yield 'bmp_565', bmp(5, 3, 16, noise(36), 3, masks=struct.pack('<3I', 0xf800, 0x7e0, 0x1f))


def on_white(image):
    if image.mode == 'RGB':
        return image
    image = image.convert('RGBA')
    return Image.alpha_composite(Image.new('RGBA', image.size, (255, 255, 255)), image).convert('RGB')


def sha(image):
    return hashlib.sha256(image.tobytes()).hexdigest()


def array(name, data):
    text = ' '.join(f'{b},' for b in data)
    lines = textwrap.wrap(text, 200)
    return f'static const unsigned char {name}[] = {{\n' + '\n'.join(lines).replace(' ', '') + '};\n'


def main():
    out = ['/* Written by make_image_samples.py: small picture files, and what Pillow 11.0.0 makes of them. */\n',
           '#ifndef VL_TEST_IMAGE_SAMPLES_H\n#define VL_TEST_IMAGE_SAMPLES_H\n\n/* clang-format off */\n']
    table = []
    for name, data in files():
        image = Image.open(io.BytesIO(data))
        upright = ImageOps.exif_transpose(image)
        table.append(f'    {{"{name}", {name}, sizeof {name}, {image.width}, {image.height},\n'
                     f'     "{sha(image.convert("RGB"))}",\n     "{sha(on_white(image))}",\n'
                     f'     {upright.width}, {upright.height}, "{sha(upright.convert("RGB"))}"}},\n')
        out.append(array(name, data))
    out.append('\nstatic const struct sample {\n    const char *name;\n    const unsigned char *data;\n'
               '    size_t size;\n    int width, height;\n'
               '    const char *dropped, *on_white; /* SHA-256 of the RGB */\n'
               '    int upright_width, upright_height;\n    const char *upright;\n} SAMPLES[] = {\n')
    out += table + ['};\n\nstatic const struct resize_sample {\n    int width, height, new_width, new_height, filter;\n'
                    '    const char *rgb; /* SHA-256 */\n} RESIZES[] = {\n']
    for size, new in (((31, 17), (64, 40)), ((200, 150), (56, 42)), ((200, 150), (56, 150)), ((97, 201), (97, 13)),
                      ((1, 1), (5, 3)), ((400, 3), (7, 9)), ((33, 33), (33, 33)), ((640, 425), (101, 67))):
        for name, number in FILTERS.items():
            done = picture(*size).resize(new, getattr(Image.Resampling, name))
            out.append(f'    {{{size[0]}, {size[1]}, {new[0]}, {new[1]}, {number}, "{sha(done)}"}},\n')
    out.append('};\n/* clang-format on */\n\n#endif\n')
    with open(os.path.join(os.path.dirname(os.path.abspath(__file__)), 'image_samples.h'), 'w') as f:
        f.write(''.join(out))


main()
