#!/usr/bin/env python3
"""Proves from the #include lines that dependencies point one way (docs/ARCHITECTURE.md).

A file may include headers of its own layer and of the layers before it; the command line only the public headers and
its own; kernels/cpu and kernels/cuda* are seen by nobody outside kernels/; hdf5.h only in trainer/cache; CUDA headers
only in kernels/cuda*. Exit 1 with one line per violation."""
import pathlib
import re
import sys

LAYERS = ["trainer/base", "trainer/config", "trainer/image", "kernels", "trainer/hf", "trainer/model", "trainer/data",
          "trainer/cache", "trainer/lens", "trainer/readout", "trainer/fit", "trainer/eval", "trainer/fidelity",
          "trainer/view", "trainer/serve", "trainer/bench"]
# rooms beside each other: neither sees the other
SIBLINGS = {("trainer/image", "trainer/config"), ("kernels", "trainer/config"), ("kernels", "trainer/image")}
# the command line's one window beside the public headers: benchmarks are no part of the API
BENCHMARKS = "trainer/bench/bench.h"
INCLUDE = re.compile(r'^\s*#\s*include\s+([<"])([^>"]+)[>"]', re.MULTILINE)


def layer_of(path):
    for layer in LAYERS + ["trainer/cli", "include"]:
        if path.startswith(layer + "/"):
            return layer
    return None


def violation(path, quote, target):
    own = layer_of(path)
    other = layer_of(target)
    if target == "hdf5.h" and own != "trainer/cache":
        return "hdf5.h belongs to trainer/cache"
    if re.match(r"(cuda|cublas|cudnn)", target) and not path.startswith("kernels/cuda"):
        return "CUDA headers belong to kernels/cuda"
    if target.startswith(("kernels/cpu/", "kernels/cuda")) and own != "kernels":
        return "a backend is seen only inside kernels/"
    if own == "include" and quote == '"':
        return "a public header includes public headers only"
    if own == "trainer/cli" and other not in (None, "trainer/cli") and target != BENCHMARKS:
        return "the command line uses the public headers alone"
    if own in LAYERS and other in LAYERS:
        if LAYERS.index(other) > LAYERS.index(own) or (own, other) in SIBLINGS:
            return f"{own} must not depend on {other}"
    if own in LAYERS and other == "trainer/cli":
        return "nothing depends on the command line"
    return None


def main():
    root = pathlib.Path(sys.argv[1] if len(sys.argv) > 1 else ".")
    bad = checked = 0
    for folder in ("trainer", "kernels", "include"):
        for file in sorted((root / folder).rglob("*")):
            if file.suffix not in (".c", ".h", ".cu", ".cuh", ".cpp"):
                continue
            path = file.relative_to(root).as_posix()
            checked += 1
            for quote, target in INCLUDE.findall(file.read_text(encoding="utf-8")):
                reason = violation(path, quote, target)
                if reason:
                    bad += 1
                    print(f"{path}: includes {target}: {reason}")
    print(f"{checked} files checked, {bad} violations")
    return 1 if bad or not checked else 0


if __name__ == "__main__":
    sys.exit(main())
