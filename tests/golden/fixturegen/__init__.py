"""The parts of make_fixtures.py; see tests/golden/README.md for what each fixture is."""
import json
import struct
import zlib

import numpy as np
from safetensors.torch import save

SEED = 20241


def rng(name):
    """A generator that depends on SEED and `name` only, so that fixtures do not shift each other."""
    return np.random.default_rng([SEED, zlib.crc32(name.encode())])


def write_json(path, value):
    path.write_text(json.dumps(value, indent=2, ensure_ascii=False) + "\n", encoding="utf-8")


def save_tensors(tensors, path, metadata):
    """A safetensors file whose bytes depend on its content only.

    The library writes the metadata in random order, so its header is sorted here.
    """
    blob = save({k: v.detach().contiguous().clone() for k, v in tensors.items()}, metadata)
    end = 8 + struct.unpack("<Q", blob[:8])[0]
    header = json.loads(blob[8:end])
    header["__metadata__"] = dict(sorted(metadata.items()))
    text = json.dumps(header, separators=(",", ":"), ensure_ascii=False).encode()
    text += b" " * (-len(text) % 8)
    path.write_bytes(struct.pack("<Q", len(text)) + text + blob[end:])
