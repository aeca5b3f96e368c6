#!/usr/bin/env python3
"""What a training step of one layer costs on a GPU at the least: bytes and operations of every op of the CUDA backend,
counted from its sources, over the peaks of the data sheets. Calculated, nothing here was measured.

    tools/roofline.py                     prints the tables
    tools/roofline.py --check docs/results/gpu.md    exit 1 where the document holds other tables"""
import pathlib
import re
import sys

ROOT = pathlib.Path(__file__).resolve().parent.parent
# Dense, without sparsity. H100 SXM5: NVIDIA H100 data sheet; A40: NVIDIA A40 data sheet. `shared`: KiB that a block may
# use (CUDA C++ Programming Guide, compute capability 9.0 and 8.6).
CARDS = {
    "H100": {"bf16": 989e12, "fp32": 67e12, "fp64": 34e12, "bandwidth": 3.35e12, "shared": 227},
    "A40": {"bf16": 149.7e12, "fp32": 37.4e12, "fp64": 0.58e12, "bandwidth": 696e9, "shared": 99},
}
SIZES = [("LLaVA-1.5-7B", 4096, 32000, 32), ("Llama-3.2-11B-Vision", 4096, 128256, 40)]
ROWS = 1024  # fit.tokens_per_step, the default


def constant(path, name):
    text = (ROOT / path).read_text()
    value = re.search(rf"\b{name} = ([0-9 <]+)", text).group(1)
    return eval(value, {"__builtins__": {}})  # digits and shifts only


def ops(card, d, v, layers):
    """(name, kind of product, operations, bytes) of one step of one layer; M rows of f32 states, a bf16 head."""
    m = ROWS
    loss = "kernels/cuda/loss.cu"
    threads, other = constant(loss, "THREADS"), constant(loss, "OTHER_SHARED")
    room = (card["shared"] * 1024 - other) // 4
    kept = v if v <= room else room // (4 * threads) * (4 * threads)
    tile = "kernels/cuda/unembed_loss.cu"
    rows = min(constant(tile, "TILE_ELEMENTS") // v // constant(tile, "FEWEST_ROWS") * constant(tile, "FEWEST_ROWS"),
               constant(tile, "TILE_ROWS"), m)
    tiles = -(-m // rows)
    yield "teacher's logits and log-sum-exp, a layer's share", "bf16", 2 * m * d * v / layers, \
        (8 * m * v + 2 * d * v * tiles) / layers
    yield "states to fp32, h + b", "", 0, 14 * m * d
    yield "h and A to bf16", "", 0, 6 * m * d + 6 * d * d
    yield "u = h + b + h A^T", "bf16", 2 * m * d * d, 2 * d * d + 10 * m * d
    yield "norm", "", 0, 8 * m * d
    yield "states to bf16", "", 0, 6 * m * d
    yield "logits = x W^T", "bf16", 2 * m * d * v, 2 * d * v * tiles + 2 * m * d + 4 * m * v
    yield "loss and gradient in place", "", 0, m * (10 * v + 4 * (v - kept))
    yield "dx = gradient W", "bf16", 2 * m * d * v, 2 * d * v * tiles + 2 * m * v + 4 * m * d
    yield "norm backward", "", 0, 12 * m * d
    yield "gradient of b", "", 0, 4 * m * d
    yield "h and du to bf16", "", 0, 12 * m * d
    yield "gradient of A", "bf16", 2 * m * d * d, 4 * m * d + 4 * d * d
    yield "norm of the gradient", "fp64", 2 * d * d, 4 * d * d
    yield "Adam", "", 0, 28 * d * d
    # per step of five: three products, each after converting both operands, and two sums
    yield "or Muon", "bf16", 30 * d**3, 5 * (3 * (2 * 6 + 8) + 2 * 12) * d * d


def seconds(card, kind, operations, size):
    return max(operations / card[kind] if kind else 0, size / card["bandwidth"])


def table(name, d, v, layers):
    lines = [f"### {name}: d = {d}, V = {v}, {layers} layers, {ROWS} rows a step, bf16 head", "",
             "| op, of one layer | GFLOP | MB | H100, µs | A40, µs |", "|---|---|---|---|---|"]
    totals = {card: 0.0 for card in CARDS}
    products = dict(totals)
    for row in zip(*(list(ops(card, d, v, layers)) for card in CARDS.values())):
        title, kind, operations, _ = row[0]
        times = {card: seconds(CARDS[card], *r[1:]) for card, r in zip(CARDS, row)}
        sizes = " / ".join(dict.fromkeys(f"{r[3] / 1e6:,.0f}" for r in row))
        work = f"{operations / 1e9:,.1f} {kind}" if kind else "-"
        lines.append(f"| {title} | {work} | {sizes} | " + " | ".join(f"{times[c] * 1e6:,.0f}" for c in CARDS) + " |")
        for card in CARDS:
            if not title.startswith("or "):
                totals[card] += times[card]
                products[card] += operations / CARDS[card]["bf16"] if kind == "bf16" else 0
    lines.append("| **sum with Adam** | | | " + " | ".join(f"**{totals[c] * 1e6:,.0f}**" for c in CARDS) + " |")
    lines.append("| its products alone, at the peak | | | "
                 + " | ".join(f"{products[c] * 1e6:,.0f}" for c in CARDS) + " |")
    lines.append("| left above them | | | "
                 + " | ".join(f"{100 * (totals[c] / products[c] - 1):.0f} %" for c in CARDS) + " |")
    lines.append(f"| **a step of {layers} layers** | | | "
                 + " | ".join(f"**{totals[c] * layers * 1e3:,.0f} ms**" for c in CARDS) + " |")
    return "\n".join(lines)


def main():
    text = "\n\n".join(table(*size) for size in SIZES)
    if sys.argv[1:2] == ["--check"]:
        if text not in pathlib.Path(sys.argv[2]).read_text():
            sys.exit(f"{sys.argv[2]}: its roofline is not what {pathlib.Path(__file__).name} calculates from the sources")
        return
    print(text)


if __name__ == "__main__":
    main()
