"""Small pictures drawn with NumPy, and what CLIPImageProcessor makes of them."""
import json

import numpy as np
import torch
from PIL import Image
from transformers import CLIPImageProcessor

from . import rng, save_tensors

CLIP_MEAN = [0.48145466, 0.4578275, 0.40821073]
CLIP_STD = [0.26862954, 0.26130258, 0.27577711]

# Settings of the preprocessing goldens: shortest edge -> crop (rows, columns).
PREPROCESS = {
    "e28c28": (28, (28, 28)),   # what the tiny models use: shrinks most pictures, enlarges small.png
    "e40c32": (40, (32, 32)),   # enlarges all but palette.png, crop smaller than the edge
    "e31c24x30": (31, (24, 30)),  # odd edge, crop not square
}


def draw_scene(name, height, width):
    """A gradient background, a disc, a bar and some noise: [H, W, 3] uint8."""
    random = rng("image " + name)
    y, x = np.mgrid[0:height, 0:width]
    picture = np.stack([255 * x / max(width - 1, 1), 255 * y / max(height - 1, 1),
                        127 + 120 * np.sin(0.4 * x + 0.3 * y)], axis=-1)
    disc = (y - 0.45 * height) ** 2 + (x - 0.6 * width) ** 2 < (0.25 * min(height, width)) ** 2
    picture[disc] = random.integers(0, 256, 3)
    picture[int(0.7 * height):int(0.85 * height), int(0.1 * width):int(0.5 * width)] = random.integers(0, 256, 3)
    picture += random.normal(0, 12, picture.shape)
    return np.clip(picture, 0, 255).astype(np.uint8)


def draw(name):
    """The picture called `name` as a Pillow image."""
    if name == "alpha.png":
        rgb = draw_scene(name, 33, 35)
        alpha = np.linspace(0, 255, 33 * 35).reshape(33, 35, 1).astype(np.uint8)
        return Image.fromarray(np.concatenate([rgb, alpha], axis=-1), "RGBA")
    if name == "gray.png":
        return Image.fromarray(draw_scene(name, 37, 50)[..., 2], "L")
    if name == "palette.png":
        return Image.fromarray(draw_scene(name, 40, 45), "RGB").quantize(16, dither=Image.Dither.NONE)
    height, width = {"scene.png": (31, 40), "wide.png": (24, 90), "tall.png": (64, 19),
                     "small.png": (9, 12), "square.png": (28, 28)}[name]
    return Image.fromarray(draw_scene(name, height, width), "RGB")


IMAGES = ["scene.png", "wide.png", "tall.png", "small.png", "square.png", "alpha.png", "gray.png", "palette.png"]


def write_images(folder):
    folder.mkdir()
    for name in IMAGES:
        draw(name).save(folder / name, optimize=True)


def processor(edge, crop):
    return CLIPImageProcessor(size={"shortest_edge": edge},
                              crop_size={"height": crop[0], "width": crop[1]},
                              image_mean=CLIP_MEAN, image_std=CLIP_STD)


def write_preprocess(folder, path):
    """<picture>.rgb u8 [H,W,3], and for each setting <picture>.<setting> f32 [3,crop,crop]."""
    tensors = {}
    for name in IMAGES:
        image, stem = Image.open(folder / name), name.removesuffix(".png")
        tensors[f"{stem}.rgb"] = torch.from_numpy(np.array(image.convert("RGB")))
        for setting, (edge, crop) in PREPROCESS.items():
            pixels = processor(edge, crop)(image, return_tensors="pt")["pixel_values"][0]
            tensors[f"{stem}.{setting}"] = pixels
    settings = {k: {"shortest_edge": e, "crop_height": c[0], "crop_width": c[1]}
                for k, (e, c) in PREPROCESS.items()}
    save_tensors(tensors, path, {"settings": json.dumps(settings), "images": json.dumps(IMAGES)})
