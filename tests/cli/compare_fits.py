#!/usr/bin/env python3
"""compare_fits.py [--bits] A B: two folders of lenses from a zero start.

Losses of every step: at most 1e-5 apart, relative to 1 + the loss. Adapters: norm(difference) / norm(adapter) <= 1e-4.
With --bits, the tensors of both are equal."""
import array
import json
import math
import struct
import sys


def tensors(folder):
    with open(f"{folder}/lens.safetensors", "rb") as file:
        data = file.read()
    n = struct.unpack("<Q", data[:8])[0]
    header = json.loads(data[8:8 + n])
    return {name: data[8 + n:][slice(*entry["data_offsets"])] for name, entry in header.items()
            if name != "__metadata__"}


def curves(folder):
    with open(f"{folder}/metrics.json", encoding="utf-8") as file:
        return [layer["curve"] for layer in json.load(file)["layers"]]


def numbers(curve):
    """Every number below a curve, whatever its form."""
    if isinstance(curve, (int, float)):
        return [float(curve)]
    return [x for item in (curve.values() if isinstance(curve, dict) else curve) for x in numbers(item)]


def main():
    bits = sys.argv[1] == "--bits"
    first, second = sys.argv[1 + bits:]
    a, b = tensors(first), tensors(second)
    assert a.keys() == b.keys() and a
    if bits:
        assert all(a[name] == b[name] for name in a), "bits differ"
        return
    worst = {"loss": 0.0, "adapter": 0.0}
    for x, y in zip(curves(first), curves(second)):
        x, y = numbers(x), numbers(y)
        assert len(x) == len(y) and len(x) >= 20
        worst["loss"] = max([worst["loss"]] + [abs(p - q) / (1 + abs(p)) for p, q in zip(x, y)])
    for layer in {name.rsplit(".", 1)[0] for name in a}:
        x, y = (array.array("f", t[f"{layer}.weight"] + t[f"{layer}.bias"]) for t in (a, b))
        size = math.sqrt(sum(p * p for p in x))
        difference = math.sqrt(sum((p - q) ** 2 for p, q in zip(x, y)))
        assert math.isfinite(size) and size > 0, layer
        worst["adapter"] = max(worst["adapter"], difference / size)
    print(f"{first} and {second}: loss {worst['loss']:.1e}, adapter {worst['adapter']:.1e}")
    assert worst["loss"] <= 1e-5 and worst["adapter"] <= 1e-4, worst


if __name__ == "__main__":
    main()
