#!/usr/bin/env python3
"""How often a lens names an object at the patches that lie on it: over held-out scenes, the share of patches inside an
object whose top-5 (--top) holds its colour or its shape, minus the same share of patches outside every object, per state
and lens, with a 95 % bootstrap interval over scenes. The control asks for the objects of another scene, where they would lie there.
Chance asks, at the patches inside an object, for the words that any other object of these scenes would have.
Words that stand in the prompt are not counted. Standard library only.

patch_words.py VLENS CACHE LENS DATA [--top 5] [--scenes 100] [--heldout 0.4] [--seed 42] [--json FILE]
DATA: a folder with samples.jsonl, what the cache was made from (data.heldout and data.seed as there), its pictures, and
objects.jsonl, {"image": ..., "objects": [{"shape": ..., "color": ..., "patches": [[row, column], ...]}, ...]}"""
import argparse
import hashlib
import json
import pathlib
import random
import re
import subprocess
import sys

LENSES = ("logit", "tuned")
RESAMPLES = 1000


def is_heldout(image, seed, share):
    """The rule of trainer/data/split.h for a sample with one picture."""
    key = hashlib.sha256(image.read_bytes()).hexdigest()
    number = int.from_bytes(hashlib.sha256(f"{seed}:{key}".encode()).digest()[:8], "big")
    return number / 2**64 < share


def heldout_samples(data, objects, args):
    """(sample number, image) of the first sample of each held-out scene: the number is its line in the JSONL."""
    seen, out = set(), []
    lines = (data / "samples.jsonl").read_text(encoding="utf-8").splitlines()
    for number, line in enumerate(lines):
        image = json.loads(line)["image"]
        if image in objects and image not in seen and is_heldout(data / image, args.seed, args.heldout):
            seen.add(image)
            out.append((number, image))
    return out[:args.scenes]


def words(text):
    return re.findall(r"[a-z]+", text.lower())


def rates(cells, side_patches, objects, prompt, kinds=()):
    """[inside hits, inside patches, outside hits, outside patches, inside hits of the words of another kind of object]: the
    last is the mean over those of `kinds`, (shape, color), that share neither word with the object."""
    covered = {tuple(p) for o in objects for p in o["patches"]}
    counts = [0, 0, 0, 0, 0]
    for o in objects:
        names = {o["color"], o["shape"]} - set(prompt)
        if not names:
            continue
        inside = {tuple(p) for p in o["patches"]}
        others = [{word for word, own in zip(kind, (o["shape"], o["color"])) if own in names} for kind in kinds
                  if kind[0] != o["shape"] and kind[1] != o["color"]]
        for patch in side_patches:
            if patch in inside:
                counts[0] += bool(names & cells[patch])
                counts[1] += 1
                counts[4] += sum(bool(other & cells[patch]) for other in others) / max(len(others), 1)
            elif patch not in covered:
                counts[2] += bool(names & cells[patch])
                counts[3] += 1
    return counts


def difference(scenes):
    inside = [sum(s[0] for s in scenes), sum(s[1] for s in scenes)]
    outside = [sum(s[2] for s in scenes), sum(s[3] for s in scenes)]
    return inside[0] / max(inside[1], 1), outside[0] / max(outside[1], 1)


def estimate(scenes, rng):
    inside, outside = difference(scenes)
    draws = sorted((lambda d: d[0] - d[1])(difference(rng.choices(scenes, k=len(scenes)))) for _ in range(RESAMPLES))
    chance = sum(s[4] for s in scenes) / max(sum(s[1] for s in scenes), 1)
    return {"inside": inside, "outside": outside, "chance": chance, "difference": inside - outside,
            "low": draws[int(0.025 * RESAMPLES)], "high": draws[int(0.975 * RESAMPLES)]}


def read_scene(args, number):
    """{(state, lens): {patch: words of its top-k}} and the prompt's words."""
    run = subprocess.run([args.vlens, "topk", "--cache", args.cache, "--sample", str(number), "--lens", args.lens,
                          "--position", "all", "-k", str(args.top), "--json"], check=True, stdout=subprocess.PIPE)
    reading = json.loads(run.stdout)
    cells = {}
    for p in reading["positions"]:
        if p["class"] != "image":
            continue
        for state in p["states"]:
            for name in LENSES:
                top = {t["token"].strip().lower() for t in state[name]["top"]}
                cells.setdefault((state["state"], name), {})[tuple(p["patch"][1:])] = top
    return cells, words(reading["prompt"]), reading["n_states"]


def main():
    parser = argparse.ArgumentParser(description=__doc__.split("\n")[0])
    parser.add_argument("vlens")
    parser.add_argument("cache")
    parser.add_argument("lens")
    parser.add_argument("data", type=pathlib.Path)
    parser.add_argument("--top", type=int, default=5)
    parser.add_argument("--scenes", type=int, default=100)
    parser.add_argument("--heldout", type=float, default=0.4)
    parser.add_argument("--seed", type=int, default=42)
    parser.add_argument("--json")
    args = parser.parse_args()
    lines = (args.data / "objects.jsonl").read_text(encoding="utf-8").splitlines()
    objects = {entry["image"]: entry["objects"] for entry in map(json.loads, lines)}
    samples = heldout_samples(args.data, objects, args)
    if len(samples) < 2:
        sys.exit(f"{args.data}: {len(samples)} held-out scenes with objects, at least 2 are needed")
    kinds = sorted({(o["shape"], o["color"]) for scene in objects.values() for o in scene})
    counts, wrong, n_states = {}, {}, 0
    for k, (number, image) in enumerate(samples):
        cells, prompt, n_states = read_scene(args, number)
        other = objects[samples[(k + 1) % len(samples)][1]]
        for key, grid in cells.items():
            counts.setdefault(key, []).append(rates(grid, grid.keys(), objects[image], prompt, kinds))
            wrong.setdefault(key, []).append(rates(grid, grid.keys(), other, prompt))
        if sys.stderr.isatty():
            print(f"\r{k + 1} of {len(samples)} scenes", end="", file=sys.stderr)
    rng = random.Random(42)
    print(f"{len(samples)} held-out scenes; top-{args.top} holds the object's colour or shape")
    print(f"{'state':>5} " + "  ".join(f"{n + ': inside':>13}  chance outside  difference [95 %]      other scene" for n in LENSES))
    result = []
    for state in range(n_states):
        row = {"state": state}
        text = f"{state:>5} "
        for name in LENSES:
            e, w = estimate(counts[state, name], rng), estimate(wrong[state, name], rng)
            row[name] = {**e, "other_scene": w}
            text += (f"{e['inside']:>13.3f} {e['chance']:>7.3f} {e['outside']:>7.3f} {e['difference']:>6.3f} [{e['low']:.3f}, {e['high']:.3f}] "
                     f"{w['difference']:>12.3f}  ")
        print(text.rstrip())
        result.append(row)
    if args.json:
        with open(args.json, "w", encoding="utf-8") as file:
            json.dump({"format": "vlens-patch-words", "version": 1, "scenes": len(samples), "top": args.top, "states": result}, file,
                      indent=1)


if __name__ == "__main__":
    main()
