#!/usr/bin/env python3
"""The training loop of the Python package tuned-lens in PyTorch, on a vlens cache, beside `vlens train` on its rows.

    peer_train.py speed  CACHE --vlens PATH [--steps N] [--tokens N]   tokens x layers / s of both, and the ratio
    peer_train.py follow CACHE --vlens PATH [--steps N]                losses step for step on a cache of 1,024 rows

Both run one after the other on the same threads. The loop is that of tuned_lens 0.2.0, scripts/train_loop.py: the
teacher's log-probabilities of the step, then layer by layer under bf16 autocast: translator, norm, unembedding,
KL over all tokens, backward; one clipping over all layers; SGD with Nesterov momentum, weight decay 1e-3, linear decay.
The teacher is made from the cached last state, as the model itself is not run. Needs torch and h5py."""
import argparse
import json
import os
import resource
import subprocess
import tempfile
import time

import h5py
import numpy as np
import torch


class Norm(torch.nn.Module):
    """As in transformers: statistics in fp32."""

    def __init__(self, head):
        super().__init__()
        self.eps, self.weight = float(head.attrs["eps"]), torch.tensor(head["norm_weight"][:], dtype=torch.float32)
        if head.attrs["norm"] not in ("rms", b"rms"):
            raise SystemExit("only RMS norms here")

    def forward(self, x):
        x = x.float()
        return self.weight * (x * torch.rsqrt(x.pow(2).mean(-1, keepdim=True) + self.eps))


class Cache:
    def __init__(self, path, exact):
        self.file = h5py.File(os.path.join(path, "index.h5"))
        self.states = self.file["states"]
        self.n_layers, self.d = self.states.shape[0] - 1, self.states.shape[2]
        heldout = self.file["samples/id"][:][self.file["samples/split"][:] == 1]
        self.train = np.flatnonzero(~np.isin(self.file["tokens/sample"][:], heldout))
        self.heldout = np.flatnonzero(np.isin(self.file["tokens/sample"][:], heldout))
        self.norm = Norm(self.file["head"])
        dtype = torch.float32 if exact else torch.bfloat16
        self.weight = torch.tensor(self.file["head/weight"][:], dtype=torch.float32).to(dtype)

    def rows(self, rows):
        """[L + 1, n, D] in the element type of the head; neighbours in one read."""
        pieces = np.split(rows, np.flatnonzero(np.diff(rows) != 1) + 1)
        states = np.concatenate([self.states[:, p[0]:p[-1] + 1] for p in pieces], axis=1)
        return torch.tensor(states).to(self.weight.dtype)


def unembed(cache, h):
    return torch.nn.functional.linear(cache.norm(h), cache.weight)


def train(cache, steps, tokens, a):
    """Returns [L, steps] losses, and the seconds of the steps by the clock and of the processor, reading excluded."""
    layers = [torch.nn.Linear(cache.d, cache.d) for _ in range(cache.n_layers)]
    parameters = [p for layer in layers for p in layer.parameters()]
    for p in parameters:
        p.data.zero_()
    optimizer = torch.optim.SGD(parameters, lr=a.lr, momentum=0.9, nesterov=True, weight_decay=1e-3)
    schedule = torch.optim.lr_scheduler.LambdaLR(optimizer, lambda step: 1 - step / steps)
    losses, seconds, cpu = np.zeros((cache.n_layers, steps)), [], []
    for step in range(steps):
        first = step * tokens % (len(cache.train) - tokens + 1)
        states = cache.rows(cache.train[first:first + tokens])
        began, cpu_began = time.monotonic(), time.process_time()
        with torch.no_grad(), torch.autocast("cpu", dtype=torch.bfloat16, enabled=not a.exact):
            labels = unembed(cache, states[-1]).float().log_softmax(-1)
        for i, layer in enumerate(layers):
            h = states[i]
            with torch.autocast("cpu", dtype=torch.bfloat16, enabled=not a.exact):
                logits = unembed(cache, h + layer(h))
                loss = torch.sum(labels.exp() * (labels - logits.log_softmax(-1)), dim=-1).mean()
            losses[i, step] = loss.item()
            loss.backward()
        torch.nn.utils.clip_grad_norm_(parameters, 1.0)
        optimizer.step()
        optimizer.zero_grad(set_to_none=False)
        schedule.step()
        seconds.append(time.monotonic() - began)
        cpu.append(time.process_time() - cpu_began)
    return losses, seconds, cpu


def vlens(a, steps, tokens, out):
    """The same algorithm by vlens: its own result as JSON."""
    keys = {"output": out, "cache.dir": a.cache, "lens.init": "zero", "fit.optimizer": "sgd",
            "fit.learning_rate": a.lr,
            "fit.weight_decay": 1e-3, "fit.warmup": 0, "fit.schedule": "linear", "fit.validation": 0,
            "fit.early_stop": "false", "precision": "exact" if a.exact else "auto",
            "fit.steps": steps, "fit.tokens_per_step": tokens}
    config = os.path.join(os.path.dirname(out), "empty.yaml")
    with open(config, "w", encoding="utf-8") as f:
        f.write("{}\n")
    command = [a.vlens, "train", config, "--json", "--quiet", "--threads", str(torch.get_num_threads())]
    for key, value in keys.items():
        command += ["--set", f"{key}={value}"]
    return json.loads(subprocess.run(command, check=True, stdout=subprocess.PIPE, text=True).stdout)


def speed(cache, a, scratch):
    train(cache, 1, a.tokens, a)  # warms up
    _, seconds, cpu = train(cache, a.steps, a.tokens, a)
    theirs = cache.n_layers * a.tokens / np.median(seconds)
    spread = [cache.n_layers * a.tokens / s for s in (max(seconds), min(seconds))]
    rates, cpu_rates = [], []
    for i in range(3):
        steps = 4 * a.steps
        work = cache.n_layers * a.tokens * steps
        before = resource.getrusage(resource.RUSAGE_CHILDREN)
        result = vlens(a, steps, a.tokens, os.path.join(scratch, f"lens{i}"))
        after = resource.getrusage(resource.RUSAGE_CHILDREN)
        rates.append(work / result["seconds"])
        cpu_rates.append(work / (after.ru_utime + after.ru_stime - before.ru_utime - before.ru_stime))
    ours = sorted(rates)[1]
    ours_cpu, theirs_cpu = sorted(cpu_rates)[1], cache.n_layers * a.tokens / np.median(cpu)
    print(json.dumps({
        "layers": cache.n_layers, "d": cache.d, "vocabulary": cache.weight.shape[0], "tokens_per_step": a.tokens,
        "threads": torch.get_num_threads(), "torch": torch.__version__,
        "torch_token_layers_per_second": round(theirs, 1), "torch_range": [round(s, 1) for s in spread],
        "vlens_token_layers_per_second": round(ours, 1), "vlens_range": [round(min(rates), 1), round(max(rates), 1)],
        "ratio": round(ours / theirs, 2), "torch_per_cpu_second": round(theirs_cpu, 1),
        "vlens_per_cpu_second": round(ours_cpu, 1), "cpu_ratio": round(ours_cpu / theirs_cpu, 2)}, indent=1))


def follow(cache, a, scratch):
    """A step takes all training rows, so that their order does not matter."""
    tokens = len(cache.train)
    theirs, _, _ = train(cache, a.steps, tokens, a)
    out = os.path.join(scratch, "lens")
    vlens(a, a.steps, tokens, out)
    with open(os.path.join(out, "metrics.json"), encoding="utf-8") as f:
        layers = json.load(f)["layers"]
    worst = 0
    for i, layer in enumerate(layers):
        ours = np.array(layer["curve"]["objective"])
        if len(ours) != a.steps:
            raise SystemExit(f"--steps {a.steps}: at most 48, one point of the curve for each")
        for step in range(a.steps):
            gap = ours[step] / theirs[i, step] - 1
            worst = max(worst, abs(gap))
            print(f"layer {i} step {step:2d}: torch {theirs[i, step]:9.5f}  vlens {ours[step]:9.5f}  {gap:+.2e}")
    print(f"largest relative difference {worst:.2e}")


def main():
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("what", choices=["speed", "follow"])
    parser.add_argument("cache")
    parser.add_argument("--vlens", required=True)
    parser.add_argument("--steps", type=int, default=5)
    parser.add_argument("--tokens", type=int, default=1024)
    parser.add_argument("--threads", type=int, default=os.cpu_count())
    parser.add_argument("--lr", type=float, default=0.1)
    parser.add_argument("--exact", action="store_true", help="both in fp32, without autocast")
    a = parser.parse_args()
    a.cache, a.vlens = os.path.abspath(a.cache), os.path.abspath(a.vlens)
    torch.set_num_threads(a.threads)
    torch.manual_seed(0)
    with tempfile.TemporaryDirectory() as scratch:
        {"speed": speed, "follow": follow}[a.what](Cache(a.cache, a.exact), a, scratch)


if __name__ == "__main__":
    main()
