#!/usr/bin/env python3
"""How long until a lens is as good as the one that the Python package's algorithm makes of the same cache.

    time_to_quality.py baseline FOLDER --cache CACHE --vlens PATH --budget TOKENS [--lr 0.1,0.3,1.0,adam] [--init ridge]
    time_to_quality.py ours     FOLDER --cache CACHE --vlens PATH --budget TOKENS
    time_to_quality.py report   FOLDER --rate TOKEN_LAYERS_PER_SECOND

`baseline` runs the package's algorithm (from zero; SGD-Nesterov with weight decay 1e-3 or Adam; 1,024 tokens a step,
linear decay, clipping at 1, every position) in vlens, which follows the PyTorch loop step for step
(peer_train.py follow), and asks only what KL it ends at. Its time is its tokens times its layers over --rate: what
PyTorch was measured to do on this machine (peer_train.py speed). `ours` runs vlens by its defaults and takes the time
that passes, the closed form and validation included; a budget of 0 is the closed form alone. Every run lies in a
folder of its own: what is finished is not made again, what was interrupted goes on. `report` prints the table. Means
are over held-out text at positions 2 and later."""
import argparse
import glob
import json
import os
import subprocess

STEP = 1024
COMMON = {"fit.tokens_per_step": STEP, "eval.first_positions": 2, "eval.bootstrap": 0, "eval.max_tokens": 8192,
          "eval.wrong_picture": "false"}
PACKAGE = {"fit.validation": 0, "fit.early_stop": "false", "fit.schedule": "linear", "fit.clip": 1}


def call(a, command, keys):
    line = [a.vlens, command, a.empty, "--json", "--quiet"]
    for key, value in keys.items():
        line += ["--set", f"{key}={value}"]
    return json.loads(subprocess.run(line, check=True, stdout=subprocess.PIPE, text=True).stdout)


def run(a, name, keys):
    """Fits and evaluates; {"name", "kl": {state: KL}, "seconds", ...} in FOLDER/name.json."""
    result_path = os.path.join(a.folder, name + ".json")
    if os.path.exists(result_path):
        return
    keys = {"output": os.path.join(a.folder, name), "cache.dir": a.cache, **COMMON, **keys}
    fit = call(a, "train", keys)
    classes = {c["class"]: c for c in call(a, "eval", keys)["classes"]}
    states = classes["text"]["states"][:-1]
    result = {"name": name, "cache": a.cache, "budget": a.budget, "kl": [s["tuned"]["kl"] for s in states],
              "logit_lens": [s["logit"]["kl"] for s in states], "seconds": fit["seconds"],
              "resumed": fit["resumed_from_step"] > 0, "layers": len(states)}
    with open(result_path, "w", encoding="utf-8") as f:
        json.dump(result, f)
    print(name, [round(k, 3) for k in result["kl"]], f"{fit['seconds']:.1f} s", flush=True)


def baseline(a):
    steps = a.budget // STEP
    for lr in a.lr.split(","):
        keys = {**PACKAGE, "lens.init": a.init, "fit.steps": steps, "fit.checkpoint_every": 64}
        if a.init == "ridge":
            keys["lens.ridge"] = 1e-4
        if lr == "adam":
            keys |= {"fit.optimizer": "adam", "fit.learning_rate": 1e-3, "fit.warmup": 0.2}
        else:
            keys |= {"fit.optimizer": "sgd", "fit.learning_rate": lr, "fit.weight_decay": 1e-3, "fit.warmup": 0}
        run(a, f"package-{a.init}-{lr}-{a.budget}", keys)


def ours(a):
    keys = {"lens.skip_positions": 2}
    keys |= {"fit.steps": a.budget // STEP} if a.budget else {"fit.epochs": 0}
    run(a, f"vlens-{os.path.basename(a.cache)}-{a.budget}", keys)


def report(a):
    runs = []
    for path in sorted(glob.glob(os.path.join(a.folder, "*.json"))):
        with open(path, encoding="utf-8") as f:
            runs.append(json.load(f))
    print(f"{'run':28} {'layers':>6} {'seconds':>9}  KL of each state")
    for r in runs:
        seconds = r["seconds"]
        if r["name"].startswith("package"):
            seconds = r["budget"] * r["layers"] / a.rate
        print(f"{r['name']:28} {r['layers']:6} {seconds:9.1f}  " + " ".join(f"{k:.3f}" for k in r["kl"]))


def main():
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("what", choices=["baseline", "ours", "report"])
    parser.add_argument("folder")
    parser.add_argument("--cache")
    parser.add_argument("--vlens")
    parser.add_argument("--budget", type=int, default=65536, help="tokens")
    parser.add_argument("--lr", default="0.1,0.3,1.0,adam")
    parser.add_argument("--init", default="zero", choices=["zero", "ridge"])
    parser.add_argument("--rate", type=float, default=1000, help="of PyTorch, token-layers a second")
    a = parser.parse_args()
    os.makedirs(a.folder, exist_ok=True)
    a.empty = os.path.join(a.folder, "empty.yaml")
    with open(a.empty, "w", encoding="utf-8") as f:
        f.write("{}\n")
    {"baseline": baseline, "ours": ours, "report": report}[a.what](a)


if __name__ == "__main__":
    main()
