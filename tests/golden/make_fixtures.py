#!/usr/bin/env python3
"""Rebuild or check the fixtures that the C tests compare with.

    make_fixtures.py            rebuild tests/golden/fixtures and fixtures.lock
    make_fixtures.py --check    verify that every file has the sha256 of fixtures.lock
    make_fixtures.py --out DIR  build into another folder and list what differs from fixtures.lock

--check needs the standard library only; building needs requirements.txt.
"""
import argparse
import hashlib
import json
import os
import pathlib
import platform
import shutil
import sys

HERE = pathlib.Path(__file__).resolve().parent
FIXTURES, LOCK = HERE / "fixtures", HERE / "fixtures.lock"
PACKAGES = ("torch", "transformers", "tokenizers", "safetensors", "numpy", "PIL")


def hashes(folder):
    files = sorted(p for p in folder.rglob("*") if p.is_file())
    return {p.relative_to(folder).as_posix(): hashlib.sha256(p.read_bytes()).hexdigest() for p in files}


def differences(folder):
    """One line per file of `folder` that is missing, unexpected or not as locked."""
    locked, found = json.loads(LOCK.read_text())["sha256"], hashes(folder)
    return ([f"missing: {n}" for n in locked if n not in found]
            + [f"not in the lock: {n}" for n in found if n not in locked]
            + [f"differs: {n}" for n in locked if n in found and found[n] != locked[n]])


def build(folder):
    """Everything, from the seed alone, into an empty `folder`."""
    os.environ.update(TRANSFORMERS_VERBOSITY="error", HF_HUB_OFFLINE="1", TOKENIZERS_PARALLELISM="false")
    import torch

    from fixturegen import goldens, images, maths, mllama, models, tokenizers_, write_json

    torch.set_num_threads(1)
    torch.use_deterministic_algorithms(True)
    image_folder = folder / "images"
    images.write_images(image_folder)
    images.write_preprocess(image_folder, folder / "preprocess.safetensors")
    for kind in ("rms", "layer"):
        maths.write_lens_gradients(kind, folder / f"lens_grad_{kind}.safetensors")
    maths.write_optimisers(folder / "optim.safetensors")

    for name in ("models", "goldens", "tokenizers"):
        (folder / name).mkdir()
    flavour_of = {n: f for n, (f, _) in models.LLAMA_MODELS.items()}
    flavour_of |= {n: s["flavour"] for n, s in models.LLAVA_MODELS.items()}
    flavour_of |= mllama.MLLAMA_MODELS
    flavour_of |= {n: flavour_of[other] for n, (other, _) in models.SHARED_MODELS.items()}
    vectors, made = {}, {}
    for name, flavour in flavour_of.items():
        model_folder = folder / "models" / name
        model_folder.mkdir()
        make = {"llama": models.make_llama, "llava": models.make_llava,
                "mllama": models.make_mllama}[name.split("-")[0]]
        if name in models.SHARED_MODELS:
            model, tokenizer = models.make_shared(name, model_folder, made[models.SHARED_MODELS[name][0]])
        else:
            model, tokenizer = make(name, model_folder)
        made[name] = tokenizer
        inputs = [goldens.write_golden(model, tokenizer, key, image_folder,
                                       folder / "goldens" / f"{'__'.join(key)}.safetensors")
                  for key in goldens.CASES if key[0] == name]
        change, tensor = goldens.sensitivity(model, inputs)
        if change < 1e-3:
            sys.exit(f"{name}: {tensor} moves the logits by {change:.1e} only")
        print(f"{name}: least sensitive tensor {tensor} ({change:.1e})")
        if f"{flavour}.jsonl" not in vectors:
            vectors[f"{flavour}.jsonl"] = f"models/{name}/tokenizer.json"
            backend = tokenizers_.backend(tokenizer)
            count = tokenizers_.write_vectors(flavour, backend, folder / "tokenizers" / f"{flavour}.jsonl")
            print(f"{flavour}: {count} texts")
    write_json(folder / "tokenizers" / "index.json", vectors)
    for path in folder.rglob("*"):
        path.is_symlink() or path.chmod(0o755 if path.is_dir() else 0o644)  # safetensors writes 0600


def write_lock(folder):
    from fixturegen import SEED

    versions = {name: sys.modules[name].__version__ for name in PACKAGES}
    lock = {"seed": SEED, "python": platform.python_version(), "versions": versions, "sha256": hashes(folder)}
    LOCK.write_text(json.dumps(lock, indent=1) + "\n")


def fresh(folder):
    shutil.rmtree(folder, ignore_errors=True)
    folder.mkdir(parents=True)
    return folder


def report(folder):
    lines = differences(folder)
    print("\n".join(lines) or f"{folder}: all {len(hashes(folder))} files are as locked")
    return 1 if lines else 0


def main():
    parser = argparse.ArgumentParser(description=__doc__.split("\n")[0])
    parser.add_argument("--check", action="store_true", help="verify the committed files, build nothing")
    parser.add_argument("--out", type=pathlib.Path, help="build here instead (must not exist) and compare")
    args = parser.parse_args()
    if args.check:
        return report(FIXTURES)
    if args.out:
        args.out.mkdir(parents=True)
        build(args.out)
        return report(args.out)
    build(fresh(FIXTURES))
    write_lock(FIXTURES)
    size = sum(p.lstat().st_size for p in FIXTURES.rglob("*") if p.is_file())
    print(f"{FIXTURES}: {len(hashes(FIXTURES))} files, {size} bytes")
    return 0


if __name__ == "__main__":
    sys.exit(main())
