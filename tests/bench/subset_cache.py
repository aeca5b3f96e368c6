#!/usr/bin/env python3
"""A smaller cache out of a cache: some states, some samples. Layers are independent, so that six of them cost a fifth.

    subset_cache.py CACHE OUT --states 1,6,12,18,24,29 [--train N] [--heldout N]

The last state (the teacher) always comes along. --train and --heldout keep the first N samples of each split.
State numbers become 0, 1, 2 ... in OUT."""
import argparse
import os

import h5py
import numpy as np

PIECE = 1 << 16  # rows

def copy_states(source, group, states, rows):
    """As stored: the element type is read and written without conversion."""
    kind, width = source.get_type(), source.shape[2]
    plist = h5py.h5p.create(h5py.h5p.DATASET_CREATE)
    plist.set_chunk((1, 256, width))
    out = h5py.h5d.create(group, b"states", kind, h5py.h5s.create_simple((len(states), len(rows), width)), plist)
    raw = {2: np.uint16, 4: np.uint32}[kind.get_size()]

    def slab(space, state, first, n):
        space.select_hyperslab((state, first, 0), (1, n, width))
        return h5py.h5s.create_simple((1, n, width))

    for i, state in enumerate(states):
        at = 0
        for run in np.split(rows, np.flatnonzero(np.diff(rows) != 1) + 1):
            for first in range(run[0], run[-1] + 1, PIECE):
                n = min(PIECE, run[-1] + 1 - first)
                values = np.empty((1, n, width), raw)
                space = source.get_space()
                source.read(slab(space, state, first, n), space, values, kind)
                space = out.get_space()
                out.write(slab(space, i, at, n), space, values, kind)
                at += n


def main():
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("cache")
    parser.add_argument("out")
    parser.add_argument("--states", required=True, help="such as 1,6,12")
    parser.add_argument("--train", type=int, help="samples of the training split")
    parser.add_argument("--heldout", type=int, help="held-out samples")
    a = parser.parse_args()
    os.makedirs(a.out, exist_ok=True)
    with h5py.File(os.path.join(a.cache, "index.h5")) as f, h5py.File(os.path.join(a.out, "index.h5"), "w") as g:
        states = [int(s) for s in a.states.split(",")] + [f["states"].shape[0] - 1]
        split = f["samples/split"][:]
        wanted = np.concatenate([np.flatnonzero(split == 0)[:a.train], np.flatnonzero(split == 1)[:a.heldout]])
        wanted.sort()
        samples = f["samples/id"][:][wanted]
        rows = np.flatnonzero(np.isin(f["tokens/sample"][:], samples))
        g.attrs["format"], g.attrs["version"], g.attrs["complete"] = "vlens-cache", 1, 1
        g.attrs["d_model"], g.attrs["vocab_size"] = f.attrs["d_model"], f.attrs["vocab_size"]
        g.attrs["n_layers"] = len(states) - 1
        for name in ("id", "next_id", "position", "sample", "class", "image", "patch"):
            f_set = f["tokens/" + name]
            g.create_dataset("tokens/" + name, data=f_set[:][rows], dtype=f_set.dtype)
        for name in ("id", "prompt", "split"):
            f_set = f["samples/" + name]
            g.create_dataset("samples/" + name, data=f_set[:][wanted], dtype=f_set.dtype)
        f.copy("head", g)
        copy_states(f["states"].id, g.id, states, rows)
        print(f"{a.out}: {len(rows)} rows of {len(samples)} samples, states {states}")


if __name__ == "__main__":
    main()
