"""`vlens demo`: cache, train, evaluate and read the small model that comes with the package."""
from __future__ import annotations

import argparse
import pathlib
import subprocess

from vlens._native import program

_DATA = pathlib.Path(__file__).resolve().parent / "demo"
_CONFIG = """model: {data}/model
output: {out}/lens
data: {{samples: {data}/samples.jsonl, heldout: 0.4}}
cache: {{dir: {out}/cache}}
fit: {{tokens_per_step: 2048, epochs: 12}}
"""
_QUESTION = "What shape is red? Answer with one word."


def main(arguments: list[str]) -> int:
    """Runs the demo in a folder; the exit code is that of the first command that failed."""
    parser = argparse.ArgumentParser(prog="vlens demo", description="Runs everything on a small vision-language model "
                                     "that comes with the package: half a minute to two minutes on two cores.")
    parser.add_argument("-o", "--out", default="vlens-demo", help="the folder that is written (default vlens-demo)")
    options = parser.parse_args(arguments)
    out = pathlib.Path(options.out)
    out.mkdir(parents=True, exist_ok=True)
    config, lens = out / "demo.yaml", out / "lens"
    config.write_text(_CONFIG.format(data=_DATA, out=out), encoding="utf-8")
    image = _DATA / "images" / "019.png"
    reading = ["--model", str(_DATA / "model"), "--lens", str(lens), "--image", str(image), "--prompt", _QUESTION]
    steps = [
        ("cache: every state of the model on rendered scenes", ["cache", str(config)]),
        ("train: one affine adapter per layer", ["train", str(config)]),
        ("topk: what each layer would answer", ["topk", *reading, "--k", "4"]),
        ("view: the same at every patch and token, as a page", ["view", *reading, "--out", str(out / "view.html")]),
        ("eval: how far each lens is from the model, on pictures that it never saw",
         ["eval", str(config), "--out", str(out / "eval.json"), "--report", str(out / "report.html")]),
    ]
    for title, command in steps:
        print(f"\n== {title}", flush=True)
        code = subprocess.run([program(), *command], check=False).returncode
        if code != 0:
            return code
    print(f"\nWritten: {lens} (lens), {out / 'eval.json'}. Pages: {out / 'view.html'}, {out / 'report.html'}.")
    return 0
