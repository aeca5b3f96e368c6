#!/usr/bin/env python3
"""Rebuild or check the fixtures of the vision-language families.

    make_vision.py            rebuild tests/golden/vision and vision.lock
    make_vision.py --check    verify that every file has the sha256 of vision.lock

--check needs the standard library only; building needs requirements-vision.txt.
"""
import argparse
import hashlib
import json
import os
import pathlib
import shutil
import sys

HERE = pathlib.Path(__file__).resolve().parent
FOLDER, LOCK, IMAGES = HERE / "vision", HERE / "vision.lock", HERE / "fixtures" / "images"


def hashes():
    return {p.relative_to(FOLDER).as_posix(): hashlib.sha256(p.read_bytes()).hexdigest()
            for p in sorted(FOLDER.rglob("*")) if p.is_file()}


def build():
    os.environ.update(TRANSFORMERS_VERBOSITY="error", HF_HUB_OFFLINE="1", TOKENIZERS_PARALLELISM="false")
    import torch

    from visiongen import families, goldens

    torch.set_num_threads(1)
    torch.use_deterministic_algorithms(True)
    shutil.rmtree(FOLDER, ignore_errors=True)
    for name, (_, family, _) in families.MODELS.items():
        folder, golden_folder = FOLDER / family / name, FOLDER / family / "goldens"
        folder.mkdir(parents=True)
        golden_folder.mkdir(exist_ok=True)
        model, processor = families.make(name, folder)
        for key in goldens.CASES:
            if key[0] == name:
                goldens.write(model, processor, key, IMAGES, golden_folder / f"{'__'.join(key)}.safetensors")
        asked = FOLDER / family / "chat.jsonl"
        lines = [json.dumps(line) for line in goldens.chat(processor, name, IMAGES)]
        asked.write_text((asked.read_text() if asked.exists() else "") + "\n".join(lines) + "\n")
        print(name, flush=True)
    for path in FOLDER.rglob("*"):
        path.is_symlink() or path.chmod(0o755 if path.is_dir() else 0o644)
    LOCK.write_text(json.dumps(hashes(), indent=1) + "\n")
    print(sum(p.lstat().st_size for p in FOLDER.rglob("*") if p.is_file()), "bytes")


def main():
    parser = argparse.ArgumentParser(description=__doc__.split("\n")[0])
    parser.add_argument("--check", action="store_true", help="verify the committed files, build nothing")
    if not parser.parse_args().check:
        return build()
    locked, found = json.loads(LOCK.read_text()), hashes()
    wrong = sorted(n for n in locked.keys() | found.keys() if locked.get(n) != found.get(n))
    print("\n".join(wrong) or f"all {len(found)} files are as locked")
    return 1 if wrong else 0


if __name__ == "__main__":
    sys.exit(main())
