#!/usr/bin/env python3
"""The body of a model is part of what a cache, a lens and a result belong to, not its head alone.
model_test.py VLENS SOURCE OUTPUT [NAME ...]"""
import ctypes
import json
import os
import shutil
import struct

from common import main, need


def zero_tensor(path, name):
    """Overwrites one tensor with zeros in place; size and time of the file stay."""
    stat = path.stat()
    data = bytearray(path.read_bytes())
    n, = struct.unpack("<Q", data[:8])
    first, end = json.loads(data[8:8 + n])[name]["data_offsets"]
    data[8 + n + first:8 + n + end] = bytes(end - first)
    path.write_bytes(data)
    os.utime(path, ns=(stat.st_atime_ns, stat.st_mtime_ns))


def change_json(path, **members):
    stat = path.stat()
    path.write_text(json.dumps({**json.loads(path.read_text()), **members}))
    os.utime(path, ns=(stat.st_atime_ns, stat.st_mtime_ns))


class Hash128(ctypes.Structure):
    _fields_ = [("low", ctypes.c_uint64), ("high", ctypes.c_uint64)]


def xxh3_128(data):
    library = ctypes.CDLL("libxxhash.so.0")
    library.XXH3_128bits.argtypes, library.XXH3_128bits.restype = [ctypes.c_char_p, ctypes.c_size_t], Hash128
    found = library.XXH3_128bits(data, len(data))
    return f"{found.high:016x}{found.low:016x}"


TENSOR = "model.layers.1.self_attn.q_proj.weight"


def two_bodies_in_one_cache(make):
    """A shard is missing and one tensor of the body has changed: the other shards are not gone on with."""
    place = make()
    place.run("cache", "c.yaml", "-q")
    (place.folder / "cache/index.h5").unlink()
    (place.folder / "cache/shard-00002.h5").unlink()
    zero_tensor(place.model / "model.safetensors", TENSOR)
    place.refused("cache", "c.yaml", "-q", words=[TENSOR, "--fresh"])
    place.run("cache", "c.yaml", "-q", "--fresh")


def whole_cache_of_another_body(make):
    place = make()
    place.run("train", "c.yaml", "-q")
    zero_tensor(place.model / "model.safetensors", TENSOR)
    for command in ("cache", "train"):
        place.refused(command, "c.yaml", "-q", words=[TENSOR])


def configuration_and_tokenizer_count(make):
    place = make()
    place.run("cache", "c.yaml", "-q")
    saved = {p.name: p.read_bytes() for p in place.model.iterdir()}
    cases = [("config.json", {"rms_norm_eps": 1e-3}, "rms_norm_eps"),
             ("config.json", {"rope_theta": 500000.0, "rope_parameters": {"rope_theta": 500000.0, "rope_type": "default"}},
              "rope"),
             ("tokenizer.json", {"version": "1.1"}, "tokenizer.json")]
    for name, members, word in cases:
        change_json(place.model / name, **members)
        place.refused("cache", "c.yaml", "-q", words=[word])
        (place.model / name).write_bytes(saved[name])
    change_json(place.model / "config.json", transformers_version="9.9")  # says nothing about the forward
    place.run("cache", "c.yaml", "-q")


def preprocessing_counts(make):
    place = make(model="llava-base-f32", n=4)
    place.run("cache", "c.yaml", "-q")
    change_json(place.model / "preprocessor_config.json", image_mean=[0.4, 0.4, 0.4])
    place.refused("cache", "c.yaml", "-q", words=["image_mean"])


def a_lens_of_another_body(make):
    """The same head above another body: verify, eval and topk name the tensor; --allow-other-model records it."""
    place = make()
    place.run("train", "c.yaml", "-q")
    shutil.copytree(place.model, place.folder / "other")
    zero_tensor(place.folder / "other/model.safetensors", TENSOR)
    place.run("verify", "lens", "--against", "model")
    place.run("verify", "lens", "--against", "cache")
    place.refused("verify", "lens", "--against", "other", words=[TENSOR])
    place.configure(model="other", cache__dir="cache2", output="lens2")
    place.run("cache", "c.yaml", "-q")
    place.refused("eval", "c.yaml", "-q", "--lens", "lens", words=[TENSOR])
    result = json.loads(place.run("eval", "c.yaml", "-q", "--lens", "lens", "--allow-other-model", "--json"))
    need(result["other_model"] is True, "not recorded")
    need(result["model_digest"] != result["lens_model_digest"], "digests", result)
    ask = ["topk", "--prompt", "a", "--lens", "lens", "-k", "1"]
    place.run(*ask, "--model", "model")
    place.refused(*ask, "--model", "other", words=[TENSOR])
    place.refused("verify", "lens", "--against", "cache2", words=[TENSOR])


def digests_are_shown(make):
    place = make()
    place.run("train", "c.yaml", "-q")
    digests = {line.split()[1] for path in ("model", "cache", "lens")
               for line in place.run("info", path).splitlines() if line.startswith("digest")}
    need(len(digests) == 1 and len(next(iter(digests))) == 32, "digests", digests)
    result = json.loads(place.run("eval", "c.yaml", "-q", "--json"))
    need({result["model_digest"]} == digests and result["rules"], "the result's", result["model_digest"])
    shutil.move(place.model, place.folder / "moved")  # where it lies does not matter
    place.run("cache", "c.yaml", "-q", "--set", "model=moved")


def digest_is_what_the_docs_say(make):
    """The digest, made again from the manifest and the file."""
    place = make()
    place.run("train", "c.yaml", "-q")
    data = (place.folder / "lens/lens.safetensors").read_bytes()
    n, = struct.unpack("<Q", data[:8])
    about = json.loads(data[8:8 + n])["__metadata__"]
    need(xxh3_128(about["model_manifest"].encode()) == about["model_digest"], "the digest of the manifest")
    weights = (place.model / "model.safetensors").read_bytes()
    n, = struct.unpack("<Q", weights[:8])
    header = json.loads(weights[8:8 + n])
    lines = [line for line in about["model_manifest"].splitlines() if line.startswith("tensor.")]
    need(len(lines) == len([k for k in header if k != "__metadata__"]), "tensors", len(lines))
    for line in lines:
        name, value = line[7:].split("=", 1)
        first, end = header[name]["data_offsets"]
        wanted = xxh3_128(weights[8 + n + first:8 + n + end])
        need(value.split()[-1] == wanted and value.startswith(header[name]["dtype"]), line, wanted)


if __name__ == "__main__":
    main("model", [two_bodies_in_one_cache, whole_cache_of_another_body, configuration_and_tokenizer_count,
                   preprocessing_counts, a_lens_of_another_body, digests_are_shown, digest_is_what_the_docs_say])
