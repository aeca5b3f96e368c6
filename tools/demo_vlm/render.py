#!/usr/bin/env python3
"""Scenes of coloured shapes for the demo model: pictures, captions, questions.

As a module it makes scenes from a seed.  As a program it writes the held-back
demo set (pictures, samples.jsonl, objects.jsonl):

    python render.py --out ../../data/demo --images 640

A scene is one to four shapes on a textured ground.  Each shape sits near the
middle of one of the nine cells of a 3x3 grid; no two shapes overlap.
"""
import argparse
import json
import pathlib
from dataclasses import dataclass

import numpy as np

SIZE = 64    # pixels per side
PATCH = 8    # pixels per side of a patch of the vision tower
SHAPES = ("circle", "square", "triangle", "cross", "star")
COLORS = {
    "red": (212, 40, 40),
    "green": (45, 165, 60),
    "blue": (45, 85, 220),
    "yellow": (238, 218, 50),
    "purple": (145, 50, 180),
    "orange": (242, 132, 30),
    "white": (243, 243, 240),
    "black": (20, 20, 24),
}
NUMBERS = ("one", "two", "three", "four")
PLACES = (
    "top left", "top", "top right",
    "left", "center", "right",
    "bottom left", "bottom", "bottom right",
)
# Corners are less frequent: only the other five places have a one-word name.
PLACE_WEIGHTS = np.array([1, 2, 1, 2, 2, 2, 1, 2, 1]) / 14
ANSWERS = {
    "color": tuple(COLORS),
    "shape": SHAPES,
    "where": tuple(p for p in PLACES if " " not in p),
    "count": NUMBERS,
}
ONE_WORD = " Answer with one word."
CAPTION_PROMPT = "Describe the picture."

# Streams of random numbers.  The demo set and the training set never meet.
TRAIN_STREAM, TEST_STREAM, DEMO_STREAM = 1, 2, 3

_ROWS, _COLS = np.mgrid[0:SIZE, 0:SIZE].astype(np.float32) + 0.5


@dataclass(frozen=True)
class Thing:
    """One shape of a scene; x, y and radius are pixels."""
    shape: str
    color: str
    place: int      # index into PLACES
    x: float
    y: float
    radius: float   # of the circle around the shape
    angle: float    # radians

    @property
    def name(self):
        return f"{self.color} {self.shape}"


@dataclass(frozen=True)
class Scene:
    things: tuple        # in reading order of their places
    pixels: np.ndarray   # [SIZE, SIZE, 3] uint8
    masks: np.ndarray    # [things, SIZE, SIZE] float32: how much of a pixel is covered

    def patch_cover(self):
        """[things, rows, cols]: the part of every patch that a thing covers."""
        n = SIZE // PATCH
        return self.masks.reshape(-1, n, PATCH, n, PATCH).mean(axis=(2, 4))


def coverage(thing):
    """Anti-aliased mask of one shape, from its signed distance to the outline."""
    dx, dy = _COLS - thing.x, _ROWS - thing.y
    c, s = np.cos(thing.angle), np.sin(thing.angle)
    u, v = c * dx + s * dy, c * dy - s * dx
    r = thing.radius
    if thing.shape == "circle":
        d = np.hypot(u, v) - 0.9 * r
    elif thing.shape == "square":
        d = np.maximum(abs(u), abs(v)) - 0.72 * r
    elif thing.shape == "triangle":
        d = np.maximum(v, abs(u) * np.float32(np.sqrt(0.75)) - v / 2) - r / 2
    elif thing.shape == "cross":
        a, b = np.maximum(abs(u), abs(v)), np.minimum(abs(u), abs(v))
        d = np.maximum(a - 0.95 * r, b - 0.33 * r)
    elif thing.shape == "star":
        # Fold the plane into one tenth of the star: from a tip to the notch beside it.
        tenth = np.pi / 5
        phi = abs((np.arctan2(u, -v) + tenth) % (2 * tenth) - tenth)
        rho, notch = np.hypot(u, v), 0.46 * r
        nx, ny = notch * np.sin(tenth), r - notch * np.cos(tenth)   # normal of that edge
        d = ((rho * np.cos(phi) - r) * nx + rho * np.sin(phi) * ny) / np.hypot(nx, ny)
    else:
        raise ValueError(thing.shape)
    return np.clip(0.5 - d, 0, 1).astype(np.float32)


def ground(rng):
    """A muted textured background, [SIZE, SIZE, 3] float32."""
    def muted():
        return rng.uniform(85, 165) + rng.uniform(-16, 16, size=3)

    first = muted()
    second = first + rng.uniform(14, 40) * rng.choice([-1, 1]) + rng.uniform(-8, 8, size=3)
    angle = rng.uniform(0, 2 * np.pi)
    along = (np.cos(angle) * (_COLS - SIZE / 2) + np.sin(angle) * (_ROWS - SIZE / 2)) / SIZE
    kind = rng.integers(4)
    if kind == 0:      # gradient
        t = np.clip(along + 0.5, 0, 1)
    elif kind == 1:    # stripes
        t = (np.sin(2 * np.pi * along * rng.uniform(4, 10)) > 0).astype(np.float32)
    elif kind == 2:    # checks
        side = rng.integers(4, 11)
        t = ((_COLS // side + _ROWS // side) % 2).astype(np.float32)
    else:              # grain
        grain = int(rng.choice([2, 4]))
        t = rng.random((SIZE // grain, SIZE // grain)).astype(np.float32)
        t = t.repeat(grain, 0).repeat(grain, 1)
    flat = first + (second - first) * t[..., None]
    speckle = 5 * (rng.integers(0, 8, size=(SIZE, SIZE, 1)) == 0)
    return (flat + speckle).astype(np.float32)


def place_things(rng):
    """One to four shapes that do not touch, in reading order."""
    count = rng.integers(1, 5)
    while True:
        things = []
        places = rng.choice(len(PLACES), size=count, replace=False, p=PLACE_WEIGHTS)
        for place in sorted(int(p) for p in places):
            row, col = divmod(place, 3)
            r = rng.uniform(9, 12)
            x, y = np.clip(np.array([12, 32, 52])[[col, row]] + rng.uniform(-3, 3, size=2),
                           r + 0.5, SIZE - r - 0.5)
            things.append(Thing(str(rng.choice(SHAPES)), str(rng.choice(list(COLORS))), place,
                                float(x), float(y), float(r), float(rng.uniform(-0.3, 0.3))))
        apart = all(np.hypot(a.x - b.x, a.y - b.y) > a.radius + b.radius + 1
                    for i, a in enumerate(things) for b in things[:i])
        if apart:
            return tuple(things)


def make_scene(stream, index):
    """The scene number `index` of a stream: always the same one."""
    rng = np.random.default_rng([stream, index])
    things = place_things(rng)
    pixels = ground(rng)
    masks = np.stack([coverage(t) for t in things])
    for thing, mask in zip(things, masks):
        color = np.array(COLORS[thing.color]) + rng.uniform(-14, 14, size=3)
        pixels += mask[..., None] * (color - pixels)
    return Scene(things, np.clip(np.rint(pixels), 0, 255).astype(np.uint8), masks)


def only(items, key):
    """The items whose key no other item has."""
    keys = [key(i) for i in items]
    return [i for i, k in zip(items, keys) if keys.count(k) == 1]


def caption(scene):
    parts = [f"{'an' if t.color == 'orange' else 'a'} {t.name} at the {PLACES[t.place]}"
             for t in scene.things]
    text = ", ".join(parts[:-1]) + " and " + parts[-1] if len(parts) > 1 else parts[0]
    return text[0].upper() + text[1:] + "."


def questions(scene, full_names=True):
    """All well-posed (kind, prompt, answer) of a scene.

    full_names adds "Where is the red circle?" to "Where is the circle?".
    """
    things = scene.things
    asked = [("count", "How many shapes are there?", NUMBERS[len(things) - 1])]
    for t in only(things, lambda t: t.shape):
        asked.append(("color", f"What color is the {t.shape}?", t.color))
        if PLACES[t.place] in ANSWERS["where"]:
            asked.append(("where", f"Where is the {t.shape}?", PLACES[t.place]))
    for t in only(things, lambda t: t.color):
        asked.append(("shape", f"What shape is {t.color}?", t.shape))
    for t in only(things, lambda t: t.name) if full_names else ():
        if PLACES[t.place] in ANSWERS["where"]:
            asked.append(("where", f"Where is the {t.name}?", PLACES[t.place]))
    return [(kind, prompt + ONE_WORD, answer) for kind, prompt, answer in asked]


def demo_questions(scene, index):
    """One or two questions of a demo picture; the kinds take turns."""
    by_kind = {"caption": [("caption", CAPTION_PROMPT, caption(scene))]}
    for q in questions(scene, full_names=False):
        by_kind.setdefault(q[0], []).append(q)
    rng = np.random.default_rng([DEMO_STREAM, index, 1])
    turn = ("color", "shape", "where", "color", "shape", "where", "count", "caption")
    wanted = [turn[(index + step) % len(turn)] for step in (0, 3, 1, 4)]
    kinds = list(dict.fromkeys(k for k in wanted if k in by_kind))[:1 + (index % 5 < 4)]
    return [by_kind[k][rng.integers(len(by_kind[k]))] for k in kinds or ["count"]]


def describe(thing, mask, cover):
    """A line of objects.jsonl for one thing; the box ends before x1 and y1."""
    ys, xs = np.nonzero(mask > 0.5)
    return {
        "shape": thing.shape,
        "color": thing.color,
        "place": PLACES[thing.place],
        "box": [int(xs.min()), int(ys.min()), int(xs.max()) + 1, int(ys.max()) + 1],
        "patches": np.argwhere(cover > 0.5).tolist(),
    }


def write_demo(out, images):
    from PIL import Image

    (out / "images").mkdir(parents=True, exist_ok=True)
    samples, objects = [], []
    for index in range(images):
        scene, name = make_scene(DEMO_STREAM, index), f"images/{index:03d}.png"
        Image.fromarray(scene.pixels).save(out / name, optimize=True)
        for _, prompt, answer in demo_questions(scene, index):
            samples.append({"image": name, "prompt": prompt, "answer": answer})
        objects.append({"image": name, "objects": [
            describe(*one) for one in zip(scene.things, scene.masks, scene.patch_cover())]})
    for file, rows in (("samples.jsonl", samples), ("objects.jsonl", objects)):
        (out / file).write_text("".join(json.dumps(row) + "\n" for row in rows))
    print(f"{images} pictures, {len(samples)} samples in {out}")


if __name__ == "__main__":
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--out", type=pathlib.Path, required=True, help="folder of the demo set")
    parser.add_argument("--images", type=int, default=640)
    args = parser.parse_args()
    write_demo(args.out, args.images)
