#!/usr/bin/env python3
"""Peak anonymous memory of vlens on a synthetic cache with the shape of LLaVA-1.5-7B: 32 adapters of 4096 x 4096.

    memory.py FOLDER --vlens PATH [--layers-in-flight N] [--rows N] [--steps N]

Trains with Adam from the closed form (strength given) with a checkpoint half way, then evaluates on the held-out
samples, and prints the largest RssAnon of each that /proc showed. Needs h5py. FOLDER (about 1 GiB) is left behind;
a cache that lies there is used again."""
import argparse
import json
import os
import subprocess
import time

import h5py
import numpy as np

SAMPLE = 64  # rows


def write_cache(path, a):
    rng = np.random.default_rng(0)
    samples = a.rows // SAMPLE
    os.makedirs(path, exist_ok=True)
    with h5py.File(os.path.join(path, "index.h5"), "w") as f:
        f.attrs.update({"format": "vlens-cache", "version": 1, "complete": 1, "d_model": a.d, "n_layers": a.layers,
                        "vocab_size": a.vocabulary})
        kind = h5py.h5t.IEEE_F32LE.copy()  # bfloat16: the upper half of a float32
        kind.set_fields(15, 7, 8, 0, 7)
        kind.set_size(2)
        kind.set_ebias(127)
        space = h5py.h5s.create_simple((a.layers + 1, a.rows, a.d))
        plist = h5py.h5p.create(h5py.h5p.DATASET_CREATE)
        plist.set_chunk((1, SAMPLE, a.d))
        states = h5py.h5d.create(f.id, b"states", kind, space, plist)
        x = rng.standard_normal((1, a.rows, a.d), np.float32)
        for i in range(a.layers + 1):
            x += 0.2 * rng.standard_normal(x.shape, np.float32)
            space = states.get_space()
            space.select_hyperslab((i, 0, 0), x.shape)
            states.write(h5py.h5s.create_simple(x.shape), space, (x.view(np.uint32) >> 16).astype(np.uint16), kind)
        head = h5py.h5d.create(f.create_group("head").id, b"weight", kind,
                               h5py.h5s.create_simple((a.vocabulary, a.d)))
        weight = (0.02 * rng.standard_normal((a.vocabulary, a.d), np.float32)).view(np.uint32) >> 16
        head.write(h5py.h5s.ALL, h5py.h5s.ALL, weight.astype(np.uint16), kind)
        f["head/norm_weight"] = np.ones(a.d, np.float32)
        f["head"].attrs.update({"norm": "rms", "eps": 1e-5})
        row = np.arange(a.rows)
        for name, values in {"id": row % 100, "next_id": row % 100, "position": row % SAMPLE, "sample": row // SAMPLE,
                             "image": row * 0 - 1}.items():
            f["tokens/" + name] = values.astype(np.int32)
        f["tokens/class"] = np.zeros(a.rows, np.uint8)
        f["tokens/patch"] = np.full((a.rows, 3), -1, np.int16)
        f["samples/id"] = np.arange(samples)
        f["samples/split"] = (np.arange(samples) % 4 == 3).astype(np.uint8)
        f.create_dataset("samples/prompt", data=[f"sample {i}" for i in range(samples)], dtype=h5py.string_dtype())


def largest(command):
    """Runs it; returns the largest RssAnon in GiB and the seconds."""
    began, peak = time.monotonic(), 0
    process = subprocess.Popen(command, stdout=subprocess.DEVNULL)
    while process.poll() is None:
        try:
            with open(f"/proc/{process.pid}/status", encoding="ascii") as f:
                peak = max([peak] + [int(line.split()[1]) for line in f if line.startswith("RssAnon")])
        except OSError:
            pass
        time.sleep(0.02)
    if process.returncode:
        raise SystemExit(f"{command}: exit code {process.returncode}")
    return round(peak / (1 << 20), 2), round(time.monotonic() - began, 1)


def main():
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("folder")
    parser.add_argument("--vlens", required=True)
    parser.add_argument("--layers-in-flight", type=int, default=0, help="0: all")
    parser.add_argument("--rows", type=int, default=2048)
    parser.add_argument("--steps", type=int, default=20)
    parser.add_argument("--d", type=int, default=4096)
    parser.add_argument("--layers", type=int, default=32)
    parser.add_argument("--vocabulary", type=int, default=32000)
    a = parser.parse_args()
    name = f"{a.layers}-{a.rows}-{a.d}-{a.vocabulary}"
    cache = os.path.join(a.folder, "cache-" + name)
    lens = os.path.join(a.folder, f"lens-{name}-{a.layers_in_flight}")
    if not os.path.exists(os.path.join(cache, "index.h5")):
        write_cache(cache, a)
    config = lens + ".yaml"
    with open(config, "w", encoding="utf-8") as f:
        f.write(f"output: {lens}\ncache: {{dir: {cache}}}\nlens: {{ridge: 0.01}}\n"
                "eval: {bootstrap: 0, max_tokens: 128}\n"
                f"fit: {{optimizer: adam, steps: {a.steps}, tokens_per_step: 64, checkpoint_every: {a.steps // 2}, "
                f"validate_every: {a.steps // 2}, layers_in_flight: {a.layers_in_flight}}}\n")
    train = largest([a.vlens, "train", config, "--fresh", "--quiet"])
    evaluation = largest([a.vlens, "eval", config, "--quiet"])
    print(json.dumps({"layers": a.layers, "d": a.d, "rows": a.rows, "steps": a.steps,
                      "layers_in_flight": a.layers_in_flight or a.layers, "train_rss_anon_gib": train[0],
                      "train_seconds": train[1], "eval_rss_anon_gib": evaluation[0],
                      "eval_seconds": evaluation[1]}))


if __name__ == "__main__":
    main()
