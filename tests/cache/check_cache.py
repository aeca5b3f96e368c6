"""Reads an activation cache as a stranger would: with h5py and docs/reference/formats.md alone.

    check_cache.py CACHE            checks the schema, the virtual dataset against the shards, the split
    check_cache.py --self-test PROGRAM
                                    lets the program write caches (`PROGRAM --write DIR`) and checks them, then writes caches of
                                    its own, good and spoilt, for the program to open (`PROGRAM --open DIR`)
"""

import hashlib
import json
import os
import subprocess
import sys
import tempfile

import h5py
import numpy as np

CLASSES = {"text": 0, "image": 1, "last": 2, "generated": 3}
SPLIT = {"train": 0, "heldout": 1}


def need(condition, what):
    if not condition:
        sys.exit(f"check_cache: {what}")


def texts(dataset):
    return [t.decode() if isinstance(t, bytes) else t for t in dataset[()]]


def check_attributes(f):
    need(f.attrs["format"] in ("vlens-cache", b"vlens-cache"), "format")
    need(f.attrs["version"] == 1, "version")
    need(f.attrs["complete"] == 1, "complete")
    for name in ("d_model", "n_layers", "vocab_size"):
        need(f.attrs[name] > 0, name)


def check_tables(f, n):
    tokens = f["tokens"]
    types = {"id": "i4", "next_id": "i4", "position": "i4", "sample": "i4", "class": "u1", "image": "i4"}
    for name, dtype in types.items():
        need(tokens[name].shape == (n,) and tokens[name].dtype == np.dtype(dtype), f"/tokens/{name}")
    need(tokens["patch"].shape == (n, 3) and tokens["patch"].dtype == np.int16, "/tokens/patch")
    need(h5py.check_enum_dtype(tokens["class"].dtype) == CLASSES, "the enum of /tokens/class")
    need(h5py.check_enum_dtype(f["samples/split"].dtype) == SPLIT, "the enum of /samples/split")
    need(f["samples/id"].dtype == np.int64, "/samples/id")
    ids = f["samples/id"][()]
    need(len(np.unique(ids)) == len(ids), "sample numbers are unique")
    need(np.isin(tokens["sample"][()], ids).all(), "/tokens/sample is found in /samples/id")
    images = f["images/path"].shape[0]
    for name in ("path", "sha256", "sample", "width", "height"):
        need(f["images"][name].shape == (images,), f"/images/{name}")
    image, cls = tokens["image"][()], tokens["class"][()]
    need(((image >= 0) == (cls == 1)).all() and image.max(initial=-1) < images, "/tokens/image")
    need(((tokens["patch"][()] >= 0).all(axis=1) <= (cls == 1)).all(), "/tokens/patch")
    next_id = tokens["next_id"][()]
    need(next_id.min(initial=-1) >= -1 and next_id.max(initial=-1) < f.attrs["vocab_size"], "/tokens/next_id")


def read_settings(text):
    """Lines "key=value"; an earlier form was a JSON object of texts."""
    if text.startswith("{"):
        return json.loads(text)
    return dict(line.split("=", 1) for line in text.splitlines())


def check_split(f):
    """The rule of the format, where the settings say which seed and share were used."""
    settings = read_settings(f.attrs.get("settings", ""))
    if "data.samples" not in settings:
        return
    seed, share = settings["data.seed"], float(settings["data.heldout"])
    sha, owner = texts(f["images/sha256"]), f["images/sample"][()]
    groups = {}
    parent = {int(i): int(i) for i in f["samples/id"][()]}

    def root(i):
        while parent[i] != i:
            i = parent[i]
        return i

    first = {}
    for s, o in zip(sha, owner):
        first.setdefault(int(o), s)
        groups.setdefault(s, []).append(int(o))
    for members in groups.values():
        for m in members[1:]:
            parent[root(m)] = root(members[0])
    smallest = {}
    for i, prompt in zip(f["samples/id"][()], texts(f["samples/prompt"])):
        key = first.get(int(i), prompt)
        u = int.from_bytes(hashlib.sha256(f"{seed}:{key}".encode()).digest()[:8], "big")
        smallest[root(int(i))] = min(u, smallest.get(root(int(i)), u))
    for i, side in zip(f["samples/id"][()], f["samples/split"][()]):
        need(side == (smallest[root(int(i))] / 2**64 < share), f"the split of sample {i}")


def fingerprint(f):
    head, h = f["head"], hashlib.sha256()
    norm = head.attrs["norm"]
    line = f"{f.attrs['d_model']} {f.attrs['n_layers']} {f.attrs['vocab_size']} {norm} {'%.9g' % head.attrs['eps']}"
    h.update(f"vlens-head-1\n{line}\n".encode())
    for name in ("norm_weight", "norm_bias", "weight", "bias"):
        if name in head:
            h.update(raw(head[name]))
    return h.hexdigest()


def raw(dataset):
    """The stored bytes: h5py widens bfloat16 to float32, which is undone exactly."""
    values = dataset[()]
    if dataset.id.get_type().get_size() == 2 and values.dtype == np.float32:
        return (values.view(np.uint32) >> 16).astype("<u2").tobytes()
    return values.astype(values.dtype.newbyteorder("<")).tobytes()


def check_bfloat16(dataset):
    kind = dataset.id.get_type()
    if kind.get_size() == 2 and kind.get_fields()[2] == 8:
        need(kind.get_fields() == (15, 7, 8, 0, 7) and kind.get_ebias() == 127, "the fields of bfloat16")
        values = dataset[0, :4]
        need((values.view(np.uint32) & 0xFFFF == 0).all(), "bfloat16 reads as numbers with 8 bits of mantissa")
        return "bfloat16"
    return str(dataset.dtype)


def check_cache(path):
    with h5py.File(os.path.join(path, "index.h5"), "r") as f:
        check_attributes(f)
        states = f["states"]
        n = states.shape[1]
        need(states.shape == (f.attrs["n_layers"] + 1, n, f.attrs["d_model"]), "the shape of /states")
        need(states.is_virtual, "/states of the index is virtual")
        check_tables(f, n)
        check_split(f)
        kind = check_bfloat16(states)
        need(fingerprint(f) == f.attrs["fingerprint"], "the fingerprint")
        v = f.attrs["vocab_size"]
        need(f["head/weight"].shape == (v, f.attrs["d_model"]), "/head/weight")
        if "vocab/text" in f:
            need(len(texts(f["vocab/text"])) == v, "/vocab/text")
        need(sum(f["shards/n_tokens"][()]) == n, "/shards/n_tokens")
        row = image = sample = 0
        for name, count, uuid in zip(texts(f["shards/name"]), f["shards/n_tokens"][()], texts(f["shards/uuid"])):
            with h5py.File(os.path.join(path, name), "r") as shard:
                check_attributes(shard)
                check_tables(shard, count)
                need(shard.attrs["uuid"] == uuid, f"the uuid of {name}")
                part = shard["states"]
                need(part.chunks[0] == 1 and part.chunks[2] == part.shape[2], f"the chunks of {name}")
                need(part.fletcher32, f"the checksum of {name}")
                mine, through = part[()], states[:, row : row + count]
                need(mine.tobytes() == through.tobytes(), f"/states through the index, {name}")
                for column in shard["tokens"]:
                    want = shard["tokens"][column][()]
                    if column == "image":
                        want = np.where(want >= 0, want + image, want)
                    need((f["tokens"][column][row : row + count] == want).all(), f"/tokens/{column} of {name}")
                for column in shard["samples"]:
                    want, have = shard["samples"][column][()], f["samples"][column][sample:]
                    need((have[: len(want)] == want).all(), f"/samples/{column} of {name}")
                row, image = row + count, image + shard["images/path"].shape[0]
                sample += shard["samples/id"].shape[0]
        need(row == n, "the rows of all shards")
        counts = np.bincount(f["tokens/class"][()], minlength=4)
        print(f"{path}: {kind}, {n} tokens {dict(zip(CLASSES, counts.tolist()))}, "
              f"{len(f['samples/id'])} samples ({int(f['samples/split'][()].sum())} held out), "
              f"{len(f['shards/name'])} shards")


def write_foreign(path, dtype=np.float16, spoil=None, n=50, d=6, layers=2, v=30):
    """Bring your own activations: one file, plain numpy types, nothing that is optional."""
    random = np.random.default_rng(1)
    with h5py.File(os.path.join(path, "index.h5"), "w") as f:
        f.create_dataset("states", data=random.normal(size=(layers + 1, n, d)).astype(dtype), compression="gzip")
        sample = np.repeat([4, 9], n // 2)
        f["tokens/id"] = random.integers(0, v, n)
        f["tokens/next_id"] = random.integers(-1, v, n)
        f["tokens/position"] = np.arange(n)
        f["tokens/sample"] = sample
        f["tokens/class"] = np.zeros(n, np.uint8)
        f["tokens/image"] = np.full(n, -1)
        f["tokens/patch"] = np.full((n, 3), -1)
        f["samples/id"] = [4, 9]
        f["samples/prompt"] = ["first", "zweiter \u00e4"]
        f["samples/split"] = np.array([False, True])
        f["head/weight"] = random.normal(size=(v, d)).astype(np.float32)
        f["head/norm_weight"] = np.ones(d, np.float32)
        f["head"].attrs.update({"norm": "rms", "eps": np.float32(1e-5)})
        f.attrs.update({"format": "vlens-cache", "version": 1, "d_model": d, "n_layers": layers, "vocab_size": v})
        f.attrs["complete"] = True
        if spoil:
            spoil(f)
        return float(f["states"][()].astype(np.float64).sum()), fingerprint(f) if "weight" in f["head"] else ""


def replace(name, value, **options):
    def spoil(f):
        del f[name]
        if value is not None:
            f.create_dataset(name, data=value, **options)

    return spoil


def external(f):
    del f["tokens/id"]
    f["tokens/id"] = h5py.ExternalLink("other.h5", "/x")


def virtual(f):
    del f["states"]
    layout = h5py.VirtualLayout((3, 50, 6), np.float16)
    layout[:] = h5py.VirtualSource("nowhere.h5", "states", (3, 50, 6))
    f.create_virtual_dataset("states", layout)


SPOILT = [
    (replace("tokens/id", np.full(50, 2**33)), "/tokens/id[0] is 8589934592"),
    (replace("tokens/id", np.zeros(50)), "/tokens/id does not hold integers"),
    (replace("tokens/id", np.zeros(49, int)), "/tokens/id has 49 entries, expected 50"),
    (replace("tokens/class", np.full(50, 4, np.uint8)), "/tokens/class[0] is 4"),
    (replace("tokens/class", None), "dataset /tokens/class is missing"),
    (replace("tokens/patch", np.zeros((50, 2), int)), "/tokens/patch has shape [50, 2], expected [50, 3]"),
    (replace("tokens/image", np.zeros(50, int)), "/images has 0 entries"),
    (replace("tokens/sample", np.full(50, 5)), "is sample 5, which /samples/id does not hold"),
    (replace("samples/id", [4, 4]), "/samples/id holds 4 twice"),
    (replace("samples/split", [0, 2]), "/samples/split[1] is 2"),
    (replace("samples/prompt", [b"a\xff", b"b"]), "/samples/prompt holds text that is no UTF-8"),
    (replace("states", np.zeros((3, 50, 6))), "element type other than"),
    (replace("states", np.zeros((4, 50, 6), "f4")), "/states has shape [4, 50, 6]"),
    (replace("states", np.zeros((50, 6), "f4")), "/states has 2 dimensions"),
    (replace("head/weight", np.zeros((29, 6), "f4")), "/head/weight has 2 dimensions, the first of 29"),
    (replace("head/weight", None), "dataset /head/weight is missing"),
    (lambda f: f.attrs.modify("complete", 0), "not complete"),
    (lambda f: f.attrs.modify("version", 2), "version 2"),
    (lambda f: f.attrs.modify("format", "other"), "expected \"vlens-cache\""),
    (lambda f: f.attrs.modify("d_model", 7), "d_model = 7"),
    (lambda f: f.attrs.modify("n_layers", -1), "\"n_layers\" is -1"),
    (lambda f: f["head"].attrs.modify("norm", "max"), "expected \"rms\" or \"layer\""),
    (lambda f: f.attrs.create("fingerprint", "0" * 64), "has the fingerprint"),
    (external, "is reached through a link"),
    (virtual, "/states is virtual but there is no /shards"),
    (lambda f: f.create_group("shards"), "dataset /shards/name is missing"),
    (lambda f: f.update({"shards/name": ["../x.h5"], "shards/n_tokens": [50], "shards/uuid": [""]}),
     "expected the name of a file of the same folder"),
]


def try_open(program, folder):
    return subprocess.run([program, "--open", folder], capture_output=True, text=True).stdout.strip()


def check_foreign(program, folder):
    for dtype in ("<f2", ">f2", "<f4", ">f4"):
        total, identity = write_foreign(folder, dtype)
        words = try_open(program, folder).split()
        need(len(words) == 2 and abs(float(words[0]) - total) < 1e-5 and words[1] == identity,
             f"a cache of h5py with {dtype}: {words}, expected {total} {identity}")
    for spoil, expected in SPOILT:
        write_foreign(folder, spoil=spoil)
        found = try_open(program, folder)
        need(expected in found, f'"{found}", expected "{expected}"')
    print(f"{len(SPOILT)} spoilt caches were refused")


def main():
    if len(sys.argv) == 3 and sys.argv[1] == "--self-test":
        with tempfile.TemporaryDirectory() as folder:
            subprocess.run([sys.argv[2], "--write", folder], check=True)
            for name in sorted(os.listdir(folder)):
                check_cache(os.path.join(folder, name))
        with tempfile.TemporaryDirectory() as folder:
            check_foreign(sys.argv[2], folder)
    else:
        need(len(sys.argv) == 2, __doc__)
        check_cache(sys.argv[1])


if __name__ == "__main__":
    main()
