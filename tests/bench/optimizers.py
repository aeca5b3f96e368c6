#!/usr/bin/env python3
"""Which optimiser, by its default rate and after the closed-form start, gets furthest for its processor time.

    optimizers.py FOLDER --vlens PATH --cache NAME=CACHE=16,32,64 ... [--svg FILE] [--record]

One fit for each cache, optimiser and number of steps (each with its own linear decay), then the held-out KL: the mean
over layers of class all at positions 2 and later. Time is that of the processor, user and system, of the whole fit with
closed form and validation: it says the same on a busy machine. What is in FOLDER is not made again."""
import argparse
import json
import os
import resource
import subprocess
import sys

sys.path.insert(0, os.path.join(os.path.dirname(os.path.abspath(__file__)), "..", "..", "tools"))
import results as documents  # noqa: E402

OPTIMIZERS = {"muon": "#0a5", "adam": "#06c", "sgd": "#c50"}


def cpu_seconds():
    usage = resource.getrusage(resource.RUSAGE_CHILDREN)
    return usage.ru_utime + usage.ru_stime


def measure(a, name, cache, optimizer, steps):
    out = os.path.join(a.folder, f"{name}-{optimizer}-{steps}")
    if os.path.exists(out + ".json"):
        with open(out + ".json", encoding="utf-8") as f:
            return json.load(f)
    empty = os.path.join(a.folder, "empty.yaml")
    with open(empty, "w", encoding="utf-8") as f:
        f.write("{}\n")
    keys = {"output": out, "cache.dir": cache, "fit.optimizer": optimizer, "fit.tokens_per_step": a.tokens,
            "lens.skip_positions": a.skip, "eval.first_positions": a.skip, "eval.bootstrap": 0,
            "eval.max_tokens": 8192, "eval.wrong_picture": "false"}
    keys |= {"fit.steps": steps} if steps else {"fit.epochs": 0}
    sets = [part for key, value in keys.items() for part in ("--set", f"{key}={value}")]
    began = cpu_seconds()
    subprocess.run([a.vlens, "train", empty, "--quiet", *sets], check=True, stdout=subprocess.DEVNULL)
    seconds = cpu_seconds() - began
    result = subprocess.run([a.vlens, "eval", empty, "--json", "--quiet", *sets], check=True, stdout=subprocess.PIPE)
    classes = {c["class"]: c for c in json.loads(result.stdout)["classes"]}
    states = (classes.get("all") or classes["text"])["states"][:-1]
    kl = sum(s["tuned"]["kl"] for s in states) / len(states)
    point = {"steps": steps, "cpu_seconds": round(seconds, 2), "kl": kl}
    with open(out + ".json", "w", encoding="utf-8") as f:
        json.dump(point, f)
    return point


def plot(results, path):
    width, height, gap = 260, 190, 64
    total = len(results) * (width + gap) + 30
    parts = [f'<svg xmlns="http://www.w3.org/2000/svg" width="{total}" height="{height + 100}" '
             'font-family="sans-serif" font-size="12"><rect width="100%" height="100%" fill="white"/>']
    for i, (name, curves) in enumerate(results.items()):
        points = [p for curve in curves.values() for p in curve]
        left, top = gap + i * (width + gap), 24
        most_x = 1.08 * max(p["cpu_seconds"] for p in points)
        low, high = min(p["kl"] for p in points), max(p["kl"] for p in points)
        low, high = low - 0.1 * (high - low), high + 0.05 * (high - low)

        def place(p):
            return left + width * p["cpu_seconds"] / most_x, top + height * (high - p["kl"]) / (high - low)

        parts.append(f'<path d="M{left} {top}V{top + height}H{left + width}" fill="none" stroke="black"/>'
                     f'<text x="{left}" y="{top - 8}">{name}: mean held-out KL, nats</text>'
                     f'<text x="{left + width / 2}" y="{top + height + 34}" '
                     'text-anchor="middle">processor seconds</text>')
        for k in range(5):
            value, x = low + (high - low) * k / 4, most_x * k / 4
            y = top + height * (1 - k / 4) + 4
            parts.append(f'<text x="{left - 4}" y="{y:.0f}" text-anchor="end">{value:.3f}</text>'
                         f'<text x="{left + width * k / 4:.0f}" y="{top + height + 16}" '
                         f'text-anchor="middle">{x:.3g}</text>')
        for optimizer, curve in curves.items():
            line = " ".join("{:.1f},{:.1f}".format(*place(p)) for p in curve)
            parts.append(f'<polyline points="{line}" fill="none" stroke="{OPTIMIZERS[optimizer]}" stroke-width="2"/>')
            parts += ['<circle cx="{:.1f}" cy="{:.1f}" r="3" fill="{}"/>'.format(*place(p), OPTIMIZERS[optimizer])
                      for p in curve]
    for i, (optimizer, color) in enumerate(OPTIMIZERS.items()):
        parts.append(f'<text x="{gap + 70 * i}" y="{height + 88}" fill="{color}">{optimizer}</text>')
    parts.append(f'<text x="{gap + 220}" y="{height + 88}">First point: closed form alone.</text></svg>')
    with open(path, "w", encoding="utf-8") as f:
        f.write("\n".join(parts) + "\n")


def main():
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("folder")
    parser.add_argument("--vlens", required=True)
    parser.add_argument("--cache", action="append", required=True, metavar="NAME=CACHE=STEPS",
                        help="steps of its fits, such as 16,32")
    parser.add_argument("--tokens", type=int, default=1024)
    parser.add_argument("--skip", type=int, default=2, help="positions at the start of a sample left out")
    parser.add_argument("--svg")
    parser.add_argument("--record", action="store_true", help="write the table of the documents (docs/results/data)")
    a = parser.parse_args()
    os.makedirs(a.folder, exist_ok=True)
    results = {}
    for pair in a.cache:
        name, cache, steps = pair.split("=")
        start = measure(a, name, cache, "muon", 0)
        results[name] = {o: [start] + [measure(a, name, cache, o, int(s)) for s in steps.split(",")]
                         for o in OPTIMIZERS}
        for optimizer, curve in results[name].items():
            text = "  ".join(f"{p['kl']:.4f} ({p['cpu_seconds']:.1f} s)" for p in curve)
            print(f"{name:12} {optimizer:5}", text, flush=True)
    if a.record:
        rows = [[name, points[0]["steps"], *(f"{p['kl']:.4f} ({p['cpu_seconds']:.1f} s)" for p in points)]
                for name, curves in results.items() for points in zip(*curves.values())]
        documents.record("optimizers", "tests/bench/optimizers.py", ["cache", "steps", *OPTIMIZERS], rows)
    if a.svg:
        plot(results, a.svg)


if __name__ == "__main__":
    main()
