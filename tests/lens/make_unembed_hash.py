"""Prints the expected values of test_unembed_hash.c: sha256 of numpy.array_str(W, precision=1), as tuned-lens takes it.

Needs NumPy. Usage: python3 tests/lens/make_unembed_hash.py"""
import hashlib

import numpy as np

V, D = 40, 30
SCALES = [4000.0, 8.0, 1.0, 0.3, 0.04, 2e-3, 3e-5, 0.0]


def matrix(scale, dtype):
    i, j = np.arange(V, dtype=np.uint64)[:, None], np.arange(D, dtype=np.uint64)[None, :]
    u = (i * np.uint64(2654435761) + j * np.uint64(40503) * np.uint64(65599)) % np.uint64(1 << 32)
    x = ((u.astype(np.float64) / 4294967296.0 - 0.5) * scale).astype(np.float32)
    if dtype == "VL_F16":
        x = x.astype(np.float16).astype(np.float32)
    if dtype == "VL_BF16":  # cut off, not rounded
        x = (x.view(np.uint32) & np.uint32(0xFFFF0000)).view(np.float32)
    return x


for scale in SCALES:
    for dtype in ("VL_F32", "VL_F16", "VL_BF16"):
        x = matrix(scale, dtype)
        if np.isfinite(x).all():
            text = np.array_str(x, precision=1)
            print(f'    {{{scale!r}, {dtype}, "{hashlib.sha256(text.encode()).hexdigest()}"}},')
