#!/usr/bin/env python3
"""A dry run makes the calls of a run that computes: the demo model, both ways. dry_test.py VLENS"""
import os
import pathlib
import subprocess
import sys
import tempfile

ROOT = pathlib.Path(__file__).resolve().parents[2]
sys.path.insert(0, str(ROOT / "tools" / "timeline"))
import traces

CONFIG = """model: {demo}/model
device: cuda_on_cpu
output: {work}/lens
data: {{samples: {work}/samples.jsonl, images: {demo}, heldout: 0}}
cache: {{dir: {work}/cache, batch_tokens: 128, positions: {{image: 4}}}}
lens: {{init: zero, layers: 0-1}}
fit: {{tokens_per_step: 48, tile_tokens: 32, steps: 2, validation: 0, early_stop: false}}
"""


def run(vlens, work, command, **settings):
    trace = work / "trace"
    subprocess.run([vlens, command, work / "run.yaml", "--quiet"], check=True, stdout=subprocess.DEVNULL,
                   env={**os.environ, "VL_CUDA_ON_CPU_TRACE": str(trace), **settings})
    return traces.read(trace)


def shape(call):
    """What must be equal: arguments have padding and learning rates among them."""
    return call.kind, call.stream, call.name, call.fields[:5] if call.kind == "kernel" else call.fields


def compare(what, computed, dry):
    for i, (a, b) in enumerate(zip(computed, dry)):
        if shape(a) != shape(b):
            return [f"{what}: call {i} is {shape(a)} where it computes, and {shape(b)} in a dry run"]
    if len(computed) != len(dry):
        return [f"{what}: {len(computed)} calls where it computes, {len(dry)} in a dry run"]
    print(f"{what}: {len(dry)} calls, the same")
    return []


def main():
    with tempfile.TemporaryDirectory() as temporary:
        work, demo, wrong = pathlib.Path(temporary), ROOT / "data" / "demo", []
        lines = (demo / "samples.jsonl").read_text().splitlines(keepends=True)
        (work / "samples.jsonl").write_text("".join(lines[:6]))
        (work / "run.yaml").write_text(CONFIG.format(demo=demo, work=work))
        dry = run(sys.argv[1], work, "cache", VL_CUDA_ON_CPU_DRY="1")
        subprocess.run(["rm", "-r", work / "cache"], check=True)
        wrong += compare("cache", run(sys.argv[1], work, "cache"), dry)
        dry = run(sys.argv[1], work, "train", VL_CUDA_ON_CPU_DRY="1")
        subprocess.run(["rm", "-r", work / "lens"], check=True)
        wrong += compare("train", run(sys.argv[1], work, "train"), dry)
    for line in wrong:
        print(line)
    return bool(wrong)


if __name__ == "__main__":
    sys.exit(main())
