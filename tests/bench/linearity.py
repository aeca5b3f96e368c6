#!/usr/bin/env python3
"""What a fit costs as tokens, layers and vocabulary grow: three points each, as JSON and as a plot.

    linearity.py FOLDER --vlens PATH [--svg FILE] [--record]

Fits synthetic caches (memory.py's) from the logit lens by `vlens bench train`; the seconds are medians of its rounds.
Needs h5py."""
import argparse
import json
import os
import subprocess
import sys
import types

import memory

sys.path.insert(0, os.path.join(os.path.dirname(os.path.abspath(__file__)), "..", "..", "tools"))
import results as documents  # noqa: E402

BASE = {"steps": 4, "layers": 4, "vocabulary": 16384}
POINTS = {"tokens": ("steps", [2, 4, 8]), "layers": ("layers", [2, 4, 8]),
          "vocabulary": ("vocabulary", [8192, 16384, 32768])}
D, ROWS, STEP = 512, 2048, 512


def seconds(a, shape):
    cache = os.path.join(a.folder, f"linear-{shape['layers']}-{shape['vocabulary']}")
    if not os.path.exists(os.path.join(cache, "index.h5")):
        memory.write_cache(cache, types.SimpleNamespace(rows=ROWS, layers=shape["layers"], d=D,
                                                        vocabulary=shape["vocabulary"]))
    config = os.path.join(a.folder, "linear.yaml")
    with open(config, "w", encoding="utf-8") as f:
        f.write(f"output: {a.folder}/unused\ncache: {{dir: {cache}}}\n"
                f"fit: {{tokens_per_step: {STEP}, learning_rate: 0.001, optimizer: adam}}\n")
    command = [a.vlens, "bench", "train", config, "--steps", str(shape["steps"]), "--json"]
    out = json.loads(subprocess.run(command, check=True, stdout=subprocess.PIPE, text=True).stdout)
    return out["results"][0]["lines"][0]["median_seconds"]


def plot(series, path):
    """Three panels; the line goes through the origin and the middle point."""
    width, height, gap = 220, 170, 60
    parts = [f'<svg xmlns="http://www.w3.org/2000/svg" width="{3 * (width + gap) + 20}" height="{height + 90}" '
             'font-family="sans-serif" font-size="12"><rect width="100%" height="100%" fill="white"/>']
    for i, (name, points) in enumerate(series.items()):
        left, top = gap + i * (width + gap), 20
        most_x, most_y = max(x for x, _ in points) * 1.1, max(y for _, y in points) * 1.2

        def place(x, y):
            return left + width * x / most_x, top + height * (1 - y / most_y)

        slope = points[1][1] / points[1][0]
        (x0, y0), (x1, y1) = place(0, 0), place(most_x, min(slope * most_x, most_y))
        parts.append(f'<path d="M{left} {top}V{top + height}H{left + width}" fill="none" stroke="black"/>'
                     f'<path d="M{x0:.1f} {y0:.1f}L{x1:.1f} {y1:.1f}" stroke="#999" stroke-dasharray="4 3"/>')
        for x, y in points:
            px, py = place(x, y)
            parts.append(f'<circle cx="{px:.1f}" cy="{py:.1f}" r="4" fill="#0a5"/>'
                         f'<text x="{px:.1f}" y="{py - 8:.1f}" text-anchor="middle">{y:.2f}</text>'
                         f'<text x="{px:.1f}" y="{top + height + 16}" text-anchor="middle">{x}</text>')
        parts.append(f'<text x="{left + width / 2}" y="{top + height + 36}" text-anchor="middle">{name}</text>'
                     f'<text x="{left - 4}" y="{top - 6}">seconds</text>')
    parts.append(f'<text x="{gap}" y="{height + 80}">Others at {STEP * BASE["steps"]} tokens, {BASE["layers"]} layers, '
                 f'V = {BASE["vocabulary"]}; D = {D}. Dashed: through the origin and the middle point.</text></svg>')
    with open(path, "w", encoding="utf-8") as f:
        f.write("\n".join(parts) + "\n")


def main():
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("folder")
    parser.add_argument("--vlens", required=True)
    parser.add_argument("--svg")
    parser.add_argument("--record", action="store_true", help="write the table of the documents (docs/results/data)")
    a = parser.parse_args()
    os.makedirs(a.folder, exist_ok=True)
    series = {}
    for name, (key, values) in POINTS.items():
        scale = STEP if key == "steps" else 1
        series[name] = [(v * scale, seconds(a, {**BASE, key: v})) for v in values]
    print(json.dumps({name: [{"x": x, "seconds": round(y, 4)} for x, y in points] for name, points in series.items()}))
    if a.record:
        titles = {"tokens": "tokens", "layers": "layers", "vocabulary": "V"}
        columns = [c for name in series for c in (titles[name], f"{titles[name]}: seconds")]
        rows = [[c for x, y in points for c in (f"{x:,}", f"{y:.2f}")] for points in zip(*series.values())]
        documents.record("linearity", "tests/bench/linearity.py", columns, rows)
    if a.svg:
        plot(series, a.svg)


if __name__ == "__main__":
    main()
