#!/usr/bin/env python3
"""What the CUDA backend asks of a device, on models of full width: counted exactly on a device that computes nothing.

    timeline_test.py VLENS HOLLOW_CACHE SCENARIO [--keep DIR]

Every piece behind the first (a step, a batch) must show the numbers of `expected`, which follow from the shapes. What a
model of three cards makes of the trace is printed beside them and never asserted: it is a prediction."""
import argparse
import json
import math
import os
import pathlib
import subprocess
import sys
import tempfile

ROOT = pathlib.Path(__file__).resolve().parents[2]
sys.path.insert(0, str(ROOT / "tools" / "timeline"))
import replay
import traces

READ = 12.0  # GB/s of the thread that reads the cache, for the predictions
DRY = {"VL_CUDA_ON_CPU_DRY": "1", "VL_CUDA_ON_CPU_MEMORY": "143000", "VL_CUDA_ON_CPU_CAPABILITY": "90",
       "VLENS_GUARD_SECONDS": "300", "VLENS_GUARD_MIB": "4096"}
# ---------------------------------------------------------------- what the shapes ask for

def fit_step(v, dtype, streamed=False, layers=8, rows=8192, tile=1024, d=4096):
    """One step of Muon. Of the states nothing travels, unless they do not fit; the host waits once, to read what has come of
    the step."""
    f16 = dtype == "float16"
    tiles = rows // tile
    parts = math.ceil(tile / min(tile, (64 << 20) // v // 64 * 64))  # of a tile, by logits (kernels/cuda/unembed_loss.cu)
    # states, weights and targets: taken from where they lie, or uploaded, copied into place and widened
    load = 1
    # fp16: rows to fp16, product, rows back, loss, product, row weights; bf16: rows to bf16, product, loss, product
    head = 6 if f16 else 4
    # load, bias, h A^T (two operands rounded), norm; norm back, its bias (two kernels), dA (two operands), sum of losses
    cell = load + 1 + 3 + 1 + parts * head + 1 + 2 + 3 + 1
    teacher = load + 1 + (3 if f16 else 2) + 1
    # two norms of two kernels and the clip; direction, its norm, 5 x 3 products, widened, applied; the bias by Adam
    update = 2 * 2 + 1 + 1 + 3 + 15 + 1 + 1 + 1
    launches = tiles * (0 if streamed else 2) + tiles * (teacher + layers * cell) + layers * update
    uploads = tiles * (layers + 1 + 2) if streamed else 0
    heads, own = tiles * (1 + 2 * layers * parts), 2 * tiles * layers + 15 * layers
    products = {"products f16": heads, "products bf16": own} if f16 else {"products bf16": heads + own}
    return {**products, "launches": launches, "fills": layers, "host waits": uploads + 1, "dh copies": 1,
            "dh bytes": layers * 4 * 8, "hd copies": uploads, "dd copies": uploads,
            "hd bytes": tiles * (layers + 1) * tile * d * 2 + 2 * rows * 4 if streamed else 0}


def llava_batch(dtype, blocks, pictures=4):
    """24 blocks of CLIP of which the last is not needed, the projector, the decoder's blocks."""
    products = pictures + 23 * 6 + 2 + blocks * 7
    return {"products " + dtype: products, "dh copies": blocks + 2, "kernels.pack_rows": (blocks + 1) * pictures,
            "kernels.attend": (23 + blocks) * pictures, "allocations": 5, "frees": 5,
            "kernels.convert": 0 if dtype == "f16" else products}


# ---------------------------------------------------------------- scenarios

FIT = """device: cuda_on_cpu
output: {work}/fit
cache: {{dir: {work}/states}}
lens: {{init: zero}}
fit: {{tokens_per_step: {rows}, layers_in_flight: 8, steps: 3, validation: 0, early_stop: false, checkpoint_every: 1000}}
"""
CACHE = """model: {model}
device: cuda_on_cpu
output: {work}/fit
data: {{samples: {work}/samples.jsonl, images: {images}, heldout: 0.5}}
cache: {{dir: {work}/cached, batch_tokens: {tokens}, positions: {{image: 2, text: 4, last: all}}}}
"""


class Runner:
    def __init__(self, args, work):
        self.args, self.work = args, work

    def call(self, *command, **environment):
        done = subprocess.run([str(c) for c in command], env={**os.environ, **environment}, stdout=subprocess.PIPE,
                              stderr=subprocess.STDOUT, text=True)
        if done.returncode:
            raise SystemExit(f"{command[0]} ended with {done.returncode}:\n{done.stdout[-2000:]}")

    def traced(self, command, text, **settings):
        (self.work / "run.yaml").write_text(text)
        trace = self.work / "trace"
        self.call(self.args.vlens, command, self.work / "run.yaml", "--quiet", VL_CUDA_ON_CPU_TRACE=str(trace),
                  **{**DRY, **settings})
        return traces.read(trace)

    def fit(self, d, v, dtype, rows=8192, **settings):
        self.call(self.args.hollow_cache, self.work / "states", d, v, 8, 12288, dtype)
        return self.traced("train", FIT.format(work=self.work, rows=rows), **settings)

    def samples(self, n):
        line = '{{"prompt": "What is in it?", "image": "picture{}.bmp"}}\n'
        (self.work / "samples.jsonl").write_text("".join(line.format(i % 3) for i in range(n)))

    def cache(self, model, dtype, blocks, tokens, n):
        folder = self.work / "model"
        self.call(sys.executable, ROOT / "tests/bench/make_full_size.py", model, folder, "--hollow", "--dtype", dtype,
                  "--blocks", blocks)
        self.samples(n)
        return self.traced("cache", CACHE.format(work=self.work, model=folder, images=folder, tokens=tokens))


# name: (what runs, where a piece ends, what each piece must show)
SCENARIOS = {
    "fit-llava-f16": (lambda r: r.fit(4096, 32064, "float16"), "adam_step:8", fit_step(32064, "float16")),
    # 3 GB: eight layers fit, but not their states
    "fit-llava-f16-streamed": (lambda r: r.fit(4096, 32064, "float16", VL_CUDA_ON_CPU_MEMORY="3000"), "adam_step:8",
                               fit_step(32064, "float16", streamed=True)),
    "fit-llama-bf16": (lambda r: r.fit(4096, 128256, "bfloat16"), "adam_step:8", fit_step(128256, "bfloat16")),
    "cache-llava-f16": (lambda r: r.cache("llava-1.5-7b", "f16", 4, 2400, 16), "gather:1", llava_batch("f16", 4)),
    "cache-llava-bf16": (lambda r: r.cache("llava-1.5-7b", "bf16", 4, 2400, 16), "gather:1", llava_batch("bf16", 4)),
}


# After the first piece, unless a scenario says otherwise.
NOTHING = dict.fromkeys(["products f32", "products f16", "products bf16", "pageable copies", "algorithms chosen",
                         "allocations", "frees"], 0)


def flat(count):
    """Kernels and products under their group's name, the rest as it is."""
    out = {**count["all"], **count["copies"]}
    for group in ("kernels", "products"):
        out.update({f"{group}.{name}": n for name, n in count[group].items()})
    return out


def compare(calls, mark, expected):
    """Lines about what is not as expected."""
    where, wrong = traces.cuts(calls, mark), []
    expected = {**NOTHING, **expected}
    for piece, (a, b) in enumerate(zip(where[1 if len(where) > 2 else 0:], where[2 if len(where) > 2 else 1:]), 1):
        found = flat(traces.count(calls[a + 1:b + 1]))
        wrong += [f"piece {piece}: {key}: {found.get(key, 0)}, expected {n}" for key, n in expected.items()
                  if found.get(key, 0) != n]
    return wrong


def main():
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("vlens", type=pathlib.Path)
    parser.add_argument("hollow_cache", type=pathlib.Path)
    parser.add_argument("scenario", choices=SCENARIOS)
    parser.add_argument("--keep", type=pathlib.Path, help="leave the trace and what it was made from here")
    args = parser.parse_args()
    with tempfile.TemporaryDirectory() as temporary:
        work = args.keep or pathlib.Path(temporary)
        work.mkdir(parents=True, exist_ok=True)
        run, mark, expected = SCENARIOS[args.scenario]
        calls = run(Runner(args, work))
    wrong = compare(calls, mark, expected)
    where = traces.cuts(calls, mark)
    print(json.dumps(traces.count(calls[where[-2] + 1:where[-1] + 1])["all"]))
    for card in replay.CARDS:
        replay.show(replay.figures(replay.replay(calls, replay.RATES[card], READ), calls, mark), card)
    for line in wrong:
        print(line)
    return bool(wrong)


if __name__ == "__main__":
    sys.exit(main())
