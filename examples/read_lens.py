#!/usr/bin/env python3
"""Reads a lens with NumPy alone, and applies it. Usage: read_lens.py lens/lens.safetensors"""
import json
import sys

import numpy as np


def read_safetensors(path):
    """The tensors of a file as float32 arrays, and its metadata."""
    with open(path, "rb") as f:
        header = json.loads(f.read(int.from_bytes(f.read(8), "little")))
        data = f.read()
    metadata, tensors = header.pop("__metadata__", {}), {}
    for name, t in header.items():
        raw = np.frombuffer(data[slice(*t["data_offsets"])], {"F32": "<f4", "F16": "<f2", "BF16": "<u2"}[t["dtype"]])
        if t["dtype"] == "BF16":  # the upper half of a float32
            raw = (raw.astype("<u4") << 16).view("<f4")
        tensors[name] = raw.astype(np.float32).reshape(t["shape"])
    return tensors, metadata


def lens_logits(lens, layer, h, norm_weight, head, eps):
    """Logits [N, V] of state `layer` [N, D], for a model with an RMS norm. Without an adapter: the logit lens."""
    weight, bias = lens.get(f"adapter.{layer}.weight"), lens.get(f"adapter.{layer}.bias", 0)
    h = h + bias + (h @ weight.T if weight is not None else 0)
    return h / np.sqrt((h * h).mean(-1, keepdims=True) + eps) * norm_weight @ head.T


if __name__ == "__main__":
    adapters, about = read_safetensors(sys.argv[1])
    print(about.get("model_id"), "layers", about["n_layers"], "held-out KL", about.get("heldout_kl"))
    for name in sorted(adapters):
        print(f"{name:24} {str(adapters[name].shape):14} norm {np.linalg.norm(adapters[name]):.4f}")
