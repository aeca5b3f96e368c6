#!/usr/bin/env python3
"""Writes torch_samples.h: what torchvision and transformers make of pictures and of their sizes.

    python3 -m venv venv && venv/bin/pip install 'transformers==5.24.0' 'torch==2.15.0' 'torchvision==0.29.2' 'pillow==11.0.0'
    venv/bin/python make_torch_samples.py

The pictures come from the formula of make_image_samples.py, the sizes from a seeded generator.
"""
import hashlib
import os
import random

import numpy as np
import torch
import torchvision
import transformers
from torchvision.transforms.v2 import functional as F
from transformers import image_processing_utils
from transformers.models.gemma3.image_processing_gemma3 import Gemma3ImageProcessor
from transformers.models.got_ocr2.image_processing_got_ocr2 import get_optimal_tiled_canvas
from transformers.models.idefics3 import image_processing_idefics3 as idefics3
from transformers.models.llava_next.modeling_llava_next import unpad_image
from transformers.models.qwen2_vl.image_processing_qwen2_vl import smart_resize

assert (transformers.__version__, torchvision.__version__.split('+')[0]) == ('5.24.0', '0.29.2')
MODES = {1: F.InterpolationMode.LANCZOS, 2: F.InterpolationMode.BILINEAR, 3: F.InterpolationMode.BICUBIC}
CANVASES = [(336, 672), (672, 336), (672, 672), (1008, 336), (336, 1008)]
ONEVISION = [(384 * i, 384 * j) for i in range(1, 7) for j in range(1, 7)]


def picture(width, height):
    return np.array([(x * x * 7 + y * 31 + c * 85 + x * y) % 256 if (x // 3 + y // 2) % 3 else 255 * (c == x % 3)
                     for y in range(height) for x in range(width) for c in range(3)],
                    np.uint8).reshape(height, width, 3)


def sha(array):
    return hashlib.sha256(np.ascontiguousarray(array).tobytes()).hexdigest()


def resizes():
    for size, new in (((31, 17), (64, 40)), ((200, 150), (56, 42)), ((200, 150), (56, 150)), ((97, 201), (97, 13)),
                      ((1, 1), (5, 3)), ((400, 3), (7, 9)), ((33, 33), (33, 33)), ((640, 425), (101, 67)),
                      ((23, 11), (24, 12))):
        for number, mode in MODES.items():
            tensor = torch.from_numpy(picture(*size)).permute(2, 0, 1)
            done = F.resize(tensor, [new[1], new[0]], mode, antialias=True).permute(1, 2, 0).numpy()
            yield f'{{{size[0]}, {size[1]}, {new[0]}, {new[1]}, {number}, "{sha(done)}"}}'


def pictures(n, seed):
    """Sizes of all kinds: ordinary, tiny, extreme, and those whose ratios are exact."""
    r = random.Random(seed)
    for i in range(n):
        kind = i % 4
        if kind == 0:
            yield r.randint(1, 3000), r.randint(1, 3000)
        elif kind == 1:
            yield r.randint(1, 80), r.randint(1, 80)
        elif kind == 2:
            yield r.randint(1, 4000), r.randint(10, 60)
        else:
            k = r.choice((14, 28, 30, 56, 96, 112, 384, 448))
            yield k * r.randint(1, 20), k * r.randint(1, 20)


def cut(h, w, rows, columns):
    """What unpad_image takes off a map whose cells know where they are."""
    cells = torch.arange(rows * columns).reshape(1, rows, columns)
    kept = unpad_image(cells, (h, w))
    if kept.numel() == 0:
        return (rows - kept.shape[1]) // 2, (columns - kept.shape[2]) // 2
    first = int(kept[0, 0, 0])
    return first // columns, first % columns


def blank(h, w):
    """A picture whose pixels nobody reads."""
    return torch.zeros(1, 1, 1, 1).expand(1, 3, h, w)


def tiled_size(size, tile):
    asked = []
    processor = idefics3.Idefics3ImageProcessor()
    processor.resize = lambda image, size, **_: asked.append((size.height, size.width))
    processor.resize_for_vision_encoder(blank(*size), tile)
    return asked[0]


def crop_grid(h, w, crop, most, ratio):
    n = len(Gemma3ImageProcessor().pan_and_scan_batched(blank(h, w), crop, most, ratio))
    return (0, 0) if n == 0 else (1, n) if w >= h else (n, 1)


def anyres(h, w, number):
    canvases, tile, g = ((CANVASES, 336, 24), (ONEVISION, 384, 27))[number]
    best = image_processing_utils.select_best_resolution((h, w), canvases)
    fitted = image_processing_utils.get_patch_output_size(np.broadcast_to(np.uint8(0), (h, w, 3)), best, 'channels_last')
    return number, canvases.index(best), *fitted, *cut(h, w, best[0] // tile * g, best[1] // tile * g)


def rows():
    """The table of every rule."""
    table = {'SMART': [], 'ANYRES': [], 'TILED': [], 'IDEFICS3': [], 'PAN': []}
    for h, w in pictures(96, 1):
        for how in ((28, 3136, 12845056), (28, 3136, 1003520), (32, 65536, 16777216), (8, 256, 1280)):
            if max(h, w) / min(h, w) <= 200:
                table['SMART'].append((h, w, *how, *smart_resize(h, w, *how)))
        table['ANYRES'] += [(h, w, *anyres(h, w, number)) for number in (0, 1)]
        for tile, low, high in ((448, 1, 12), (28, 1, 12), (384, 2, 6)):
            columns, grid_rows = get_optimal_tiled_canvas((h, w), (tile, tile), low, high)
            table['TILED'].append((h, w, tile, low, high, grid_rows, columns))
        for longest, tile in ((1536, 384), (2048, 512), (5000, 364), (112, 28)):
            first = idefics3.get_resize_output_image_size(blank(h, w), longest)
            table['IDEFICS3'].append((h, w, longest, tile, *first, *tiled_size(first, tile)))
        for crop, most, ratio in ((256, 4, 12), (32, 4, 12), (10, 8, 15)):
            table['PAN'].append((h, w, crop, most, ratio, *crop_grid(h, w, crop, most, ratio / 10)))
    return table


FIELDS = {'SMART': 'height, width, factor; long long min_pixels, max_pixels; int out_height, out_width',
          'ANYRES': 'height, width, list, best, fitted_height, fitted_width, cut_height, cut_width',
          'TILED': 'height, width, tile, min_tiles, max_tiles, rows, columns',
          'IDEFICS3': 'height, width, longest, tile, first_height, first_width, second_height, second_width',
          'PAN': 'height, width, crop, most, ratio_10, rows, columns'}


def main():
    out = ['/* Written by make_torch_samples.py: what torchvision 0.29.2 and transformers 5.24.0 make of pictures. */\n',
           '#ifndef VL_TEST_TORCH_SAMPLES_H\n#define VL_TEST_TORCH_SAMPLES_H\n\n/* clang-format off */\n',
           'static const struct torch_resize {\n    int width, height, new_width, new_height, filter;\n',
           '    const char *rgb; /* SHA-256 */\n} TORCH_RESIZES[] = {\n']
    out += [f'    {line},\n' for line in resizes()] + ['};\n']
    for name, lines in rows().items():
        out.append(f'\nstatic const struct {name.lower()}_sample {{\n    int {FIELDS[name]};\n}} {name}[] = {{\n')
        text = [('{' + ', '.join(map(str, line)) + '},') for line in lines]
        out += ['    ' + ' '.join(text[i:i + 4]) + '\n' for i in range(0, len(text), 4)] + ['};\n']
    out.append('/* clang-format on */\n\n#endif\n')
    with open(os.path.join(os.path.dirname(os.path.abspath(__file__)), 'torch_samples.h'), 'w') as f:
        f.write(''.join(out))


main()
