"""Writes tests/robust/malformed: small hostile files, and verdicts.txt with what the reference library says of each
(Pillow 11.0 for pictures, tokenizers 0.20 for tokenizers, safetensors 0.8.0, h5py 3 for caches; for configurations, the
rule that is broken).

A line of verdicts.txt: KIND NAME accepted|rejected REFERENCE. Run once, with these packages; the result is committed.
"""

import io
import json
import os
import struct
import zlib

import h5py
import numpy as np
import safetensors
import tokenizers
from PIL import Image

ROOT = os.path.join(os.path.dirname(os.path.abspath(__file__)), "malformed")
verdicts = []


def put(kind, name, data, verdict, why):
    os.makedirs(f"{ROOT}/{kind}", exist_ok=True)
    with open(f"{ROOT}/{kind}/{name}", "wb") as f:
        f.write(data)
    verdicts.append(f"{kind} {name} {verdict} {why}")


# ---- pictures


def chunk(kind, data, crc=None):
    body = kind + data
    return struct.pack(">I", len(data)) + body + struct.pack(">I", zlib.crc32(body) if crc is None else crc)


def png(width, height, depth, color, rows, extra=b""):
    head = struct.pack(">IIBBBBB", width, height, depth, color, 0, 0, 0)
    return b"\x89PNG\r\n\x1a\n" + chunk(b"IHDR", head) + extra + chunk(b"IDAT", zlib.compress(rows, 9)) + chunk(b"IEND", b"")


def picture(name, data):
    try:
        with Image.open(io.BytesIO(data)) as image:
            if image.format not in ("PNG", "JPEG", "BMP"):
                put("image", name, data, "rejected", f"{image.format}: not read by design")
                return
            image.convert("RGB")
        put("image", name, data, "accepted", "Pillow")
    except Exception as e:  # noqa: BLE001
        put("image", name, data, "rejected", f"Pillow: {type(e).__name__}")


def pictures():
    good = io.BytesIO()
    Image.new("RGB", (8, 6), (10, 200, 30)).save(good, "JPEG")
    jpeg = good.getvalue()
    picture("ok.jpg", jpeg)
    picture("cut.jpg", jpeg[: len(jpeg) // 2])
    picture("empty.png", b"")
    picture("ok.png", png(2, 1, 8, 2, b"\0" + bytes(6)))
    picture("bomb.png", png(60000, 60000, 1, 0, b"\0" * 7501))
    # Pillow decodes these; the limit of 16 million pixels is a choice of ours
    put("image", "large-bits.png", png(13000, 13000, 1, 0, b"\0" * (13000 * 1626)), "rejected", "over data.max_pixels")
    put("image", "limit-16.png", png(4000, 4000, 16, 6, b"\0" * (4000 * 32001)), "accepted", "Pillow, the dearest kind")
    # Pillow stops reading where the picture is full; nobody makes such files by accident
    put("image", "zlib-bomb.png", png(200, 100, 8, 2, b"\0" * 300000000), "rejected", "300 MB of data for 60 kB of picture")
    picture("huge-size.png", png(2**31 - 1, 2**31 - 1, 8, 2, b"\0" * 10))
    picture("zero.png", png(0, 5, 8, 2, b""))
    picture("short-rows.png", png(64, 64, 8, 2, b"\0" * 20))
    picture("bad-depth.png", png(2, 1, 7, 2, b"\0" + bytes(6)))
    picture("bad-color.png", png(2, 1, 8, 5, b"\0" + bytes(6)))
    # Pillow takes a missing palette for black; libpng and the PNG standard (11.2.2) refuse it, and so do we
    put("image", "no-palette.png", png(2, 1, 8, 3, b"\0" + bytes(2)), "rejected", "no PLTE: libpng")
    whole = png(2, 1, 8, 2, b"\0" + bytes(6))
    picture("cut.png", whole[:40])
    picture("huge-chunk.png", whole[:33] + struct.pack(">I", 0x7FFFFFFF) + b"IDAT" + b"xx")
    bmp = io.BytesIO()
    Image.new("RGB", (3, 2)).save(bmp, "BMP")
    bmp = bytearray(bmp.getvalue())
    picture("ok.bmp", bytes(bmp))
    for name, at, value in (("huge.bmp", 18, 0x7FFFFFFF), ("zero.bmp", 18, 0), ("offset.bmp", 10, 0xFFFFFF00)):
        bad = bytearray(bmp)
        bad[at : at + 4] = struct.pack("<I", value)
        picture(name, bytes(bad))
    for kind in ("GIF", "TIFF", "PPM"):
        out = io.BytesIO()
        Image.new("RGB", (3, 2)).save(out, kind)
        picture(f"other.{kind.lower()}", out.getvalue())
    picture("radiance.hdr", b"#?RADIANCE\nFORMAT=32-bit_rle_rgbe\n\n-Y 2 +X 2\n" + bytes(16))
    picture("pic.psd", b"8BPS\0\1" + bytes(6) + struct.pack(">HIIHH", 3, 2, 2, 8, 3) + bytes(40))


# ---- safetensors


def weights(name, header, data=bytes(16), length=None):
    raw = header if isinstance(header, bytes) else json.dumps(header).encode()
    name += ".safetensors"
    put("safetensors", name, struct.pack("<Q", len(raw) if length is None else length) + raw + data, "accepted", "safetensors")
    try:
        with safetensors.safe_open(f"{ROOT}/safetensors/{name}", "np"):
            pass
    except Exception as e:  # noqa: BLE001
        verdicts[-1] = f"safetensors {name} rejected safetensors: {type(e).__name__}"


def weight_files():
    def of(shape, start, end, dtype="F32"):
        return {"dtype": dtype, "shape": shape, "data_offsets": [start, end]}

    good = {"a": of([2, 2], 0, 16)}
    text = json.dumps(good).encode()
    weights("ok", good)
    weights("padded", text + b" " * 7)
    weights("unaligned", {"g": of([1], 0, 2, "BF16"), "a": of([2], 2, 10)}, bytes(10))
    weights("length-huge", good, length=2**63)
    weights("length-past-end", good, length=5000)
    weights("deep", b'{"a":' + b"[" * 20000 + b"]" * 20000 + b"}", b"")
    weights("twice", text[:-1] + b"," + json.dumps({"a": of([2, 2], 16, 32)}).encode()[1:], bytes(32))
    weights("hole", {"a": of([1], 0, 4), "b": of([1], 8, 12)}, bytes(12))
    weights("overlap", {**good, "b": of([2], 8, 16)})
    weights("shape-overflow", {"a": of([2**32, 2**32, 4], 0, 16)})
    weights("shape-many", {"a": of([1] * 20000 + [4], 0, 16)})
    verdicts[-1] = "safetensors shape-many.safetensors rejected 8 dimensions are enough (safetensors: accepted)"
    weights("offset-huge", {"a": of([4], 2**63, 2**63 + 16)})
    weights("too-long", good, bytes(17))


# ---- configurations of runs: YAML, of which only a small part is taken


def yamls():
    def yaml(name, text, verdict="rejected", why="rule"):
        put("yaml", f"{name}.yaml", text if isinstance(text, bytes) else text.encode(), verdict, why)

    yaml("ok", "model: m\nfit: {steps: 3}\n", "accepted")
    laughs = "a0: &a0 [x, x]\n" + "".join(f"a{i}: &a{i} [*a{i - 1}, *a{i - 1}]\n" for i in range(1, 40))
    yaml("aliases", laughs, why="no anchors or aliases")
    yaml("merge", "model: m\nfit:\n  <<: {steps: 3}\n", why="unknown key")
    yaml("deep", "fit: " + "[" * 20000, why="levels")
    yaml("deep-maps", "fit: " + "{a: " * 20000, why="levels")
    yaml("twice", "model: m\nmodel: n\n", why="a key twice")
    yaml("unknown", "modell: m\n", why="unknown key")
    yaml("tag", "model: !!python/object/apply:os.system [ls]\n", why="no tags")
    yaml("number-huge", "fit: {steps: 99999999999999999999}\n", why="range")
    yaml("two-documents", "model: m\n---\nmodel: n\n", why="one document")
    yaml("utf8", b"model: \"\xff\xfe\"\n", why="UTF-8")
    yaml("nul", b"model: m\0n\n", why="control characters")
    yaml("list", "- model\n", why="a map of keys")


# ---- tokenizers


def tokenizer(name, data):
    if not isinstance(data, bytes):
        data = json.dumps(data).encode()
    try:
        tokenizers.Tokenizer.from_buffer(data)
        put("tokenizer", name, data, "accepted", "tokenizers")
    except BaseException as e:  # noqa: BLE001 - its panics are no Exception
        put("tokenizer", name, data, "rejected", f"tokenizers: {type(e).__name__}")


def tokenizer_files():
    model = {"type": "BPE", "vocab": {"a": 0, "b": 1, "ab": 2}, "merges": ["a b"]}
    base = {"version": "1.0", "added_tokens": [], "normalizer": None, "pre_tokenizer": None, "post_processor": None,
            "decoder": None, "model": model}
    tokenizer("ok.json", base)
    tokenizer("empty.json", b"")
    tokenizer("cut.json", json.dumps(base).encode()[:90])
    tokenizer("deep.json", b"[" * 20000)
    tokenizer("list.json", [1, 2])
    tokenizer("no-model.json", {**base, "model": None})
    tokenizer("vocab-list.json", {**base, "model": {**model, "vocab": ["a"]}})
    tokenizer("id-text.json", {**base, "model": {**model, "vocab": {"a": "0"}}})
    tokenizer("id-negative.json", {**base, "model": {**model, "vocab": {"a": -1, "b": 1, "ab": 2}}})
    tokenizer("merge-unknown.json", {**base, "model": {**model, "merges": ["a c"]}})
    tokenizer("merge-one.json", {**base, "model": {**model, "merges": ["a"]}})
    tokenizer("merge-number.json", {**base, "model": {**model, "merges": [7]}})
    tokenizer("regex-open.json", {**base, "pre_tokenizer": {"type": "Split", "pattern": {"Regex": "(a"},
              "behavior": "Isolated", "invert": False}})
    tokenizer("utf8.json", json.dumps(base).encode().replace(b'"ab"', b'"\xff\xfe"'))
    tokenizer("unknown-part.json", {**base, "normalizer": {"type": "Magic"}})


# ---- configurations: transformers takes nearly everything, so the rule is given


def configs():
    with open(os.path.join(ROOT, "../../golden/fixtures/models/llama-base-f32/config.json")) as f:
        good = json.load(f)

    def config(name, change, verdict="rejected", why="range"):
        data = change if isinstance(change, bytes) else json.dumps({**good, **change}).encode()
        put("config", name, data, verdict, why)

    config("ok.json", {}, "accepted", "transformers")
    config("empty.json", b"", why="JSON")
    config("list.json", b"[]", why="JSON")
    config("deep.json", b'{"a":' * 4000, why="JSON")
    config("twice.json", json.dumps(good).encode()[:-1] + b', "hidden_size": 4}', why="a key twice")
    config("hidden-zero.json", {"hidden_size": 0})
    config("hidden-negative.json", {"hidden_size": -32})
    config("hidden-huge.json", {"hidden_size": 2**62})
    config("hidden-float.json", {"hidden_size": 32.5}, why="type")
    config("hidden-text.json", {"hidden_size": "32"}, why="type")
    config("layers-huge.json", {"num_hidden_layers": 2**31})
    config("vocab-huge.json", {"vocab_size": 2**53})
    config("heads-zero.json", {"num_attention_heads": 0})
    config("heads-uneven.json", {"num_attention_heads": 4, "num_key_value_heads": 3}, why="not a divisor")
    config("eps-negative.json", {"rms_norm_eps": -1.0})
    config("number-huge.json", json.dumps(good).encode().replace(b"10000.0", b"1e999"), why="JSON number")
    config("type-path.json", {"model_type": "../../etc"}, why="unknown type")


# ---- caches


def cache(name, change, verdict="rejected", rows=4, **kw):
    path = f"{ROOT}/cache/{name}"
    os.makedirs(f"{ROOT}/cache", exist_ok=True)
    d, layers, v = 2, 1, 4
    with h5py.File(path, "w") as f:
        f.create_dataset("states", (layers + 1, rows, d), "f2", chunks=(1, min(rows, 64), d))
        for key, kind in (("id", "i4"), ("next_id", "i4"), ("position", "i4"), ("sample", "i4"), ("class", "u1"),
                          ("image", "i4")):
            f.create_dataset(f"tokens/{key}", (rows,), kind, chunks=(min(rows, 64),),
                             fillvalue=-1 if key in ("next_id", "image") else 0)
        f.create_dataset("tokens/patch", (rows, 3), "i2", chunks=(min(rows, 64), 3), fillvalue=-1)
        f["samples/id"], f["samples/prompt"], f["samples/split"] = np.array([0]), ["what"], np.zeros(1, "u1")
        f["head/weight"], f["head/norm_weight"] = np.zeros((v, d), "f4"), np.ones(d, "f4")
        f["head"].attrs.update({"norm": "rms", "eps": 1e-5})
        f.attrs.update({"format": "vlens-cache", "version": 1, "d_model": d, "n_layers": layers, "vocab_size": v})
        f.attrs["complete"] = 1
        change(f)
    verdicts.append(f"cache {name} {verdict} schema")


def replace(key, value):
    def change(f):
        del f[key]
        f[key] = value
    return change


def caches():
    def attribute(key, value):
        return lambda f: f.attrs.modify(key, value)

    def external(f):
        del f["states"]
        f["states"] = h5py.ExternalLink("/etc/passwd", "/x")

    cache("ok.h5", lambda f: None, "accepted")
    cache("rows-huge.h5", lambda f: None, rows=1 << 31)
    cache("rows-many.h5", lambda f: None, rows=30000000)
    cache("states-huge.h5", attribute("d_model", 1 << 40))
    cache("incomplete.h5", attribute("complete", 0))
    cache("id-outside.h5", replace("tokens/id", np.array([0, 1, 2, -7], "i4")))
    cache("sample-unknown.h5", replace("tokens/sample", np.full(4, 9, "i4")))
    cache("class-unknown.h5", replace("tokens/class", np.full(4, 9, "u1")))
    cache("image-outside.h5", replace("tokens/image", np.full(4, 3, "i4")))
    cache("short-table.h5", replace("tokens/position", np.zeros(3, "i4")))
    cache("external.h5", external)
    cache("group.h5", lambda f: (f.__delitem__("states"), f.create_group("states")))


if __name__ == "__main__":
    pictures()
    weight_files()
    yamls()
    tokenizer_files()
    configs()
    caches()
    with open(f"{ROOT}/verdicts.txt", "w") as f:
        f.write("\n".join(verdicts) + "\n")
    print(len(verdicts), "files")
