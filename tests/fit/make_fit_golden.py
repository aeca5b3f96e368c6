"""Losses of whole fits in PyTorch, float64: writes fit_golden.json, which test_fit_golden.c compares vlens with.

    build/release/tests/fit/test_fit_golden cache DIR
    python tests/fit/make_fit_golden.py DIR > tests/fit/fit_golden.json        (PyTorch, h5py)

A step takes all training rows, so that their order does not matter. The closed form and the optimisers are written out
from their papers; gradients are autograd's."""
import json
import sys

import h5py
import torch

STEPS, CLIP, MOMENTUM = 6, 1.0, 0.9
torch.set_default_dtype(torch.float64)
COMMON = ["precision=exact", "lens.skip_positions=1", "fit.validation=0", f"fit.steps={STEPS}",
          "fit.tokens_per_step=100000", "fit.tile_tokens=64", "fit.warmup=0.3"]
CASES = [("muon", "kl", "zero"), ("adam", "kl", "zero"), ("sgd", "kl", "zero"), ("sgd", "ce", "zero"),
         ("sgd", "reverse_kl", "zero"), ("adam", "js", "zero"), ("muon", "kl", "ridge"), ("adam", "kl", "mean")]
RATE = {"muon": 0.02, "adam": 0.003, "sgd": 0.5}
RIDGE = 0.03


class Data:
    def __init__(self, folder):
        with h5py.File(f"{folder}/index.h5") as f:
            tokens, samples = f["tokens"], f["samples"]
            held = dict(zip(samples["id"][()], samples["split"][()] == 1))
            position = torch.tensor(tokens["position"][()].astype("int64"))
            train = torch.tensor([not held[s] for s in tokens["sample"][()]])
            keep = train & (position >= 1)
            self.states = torch.tensor(f["states"][()].astype("float64"))[:, keep]
            self.target = torch.tensor(tokens["next_id"][()].astype("int64"))[keep]
            self.cls = torch.tensor(tokens["class"][()].astype("int64"))[keep]
            self.head = torch.tensor(f["head/weight"][()].astype("float64"))
            self.gain = torch.tensor(f["head/norm_weight"][()].astype("float64"))
            self.eps = float(f["head"].attrs["eps"])

    def choose(self, keep):
        other = object.__new__(Data)
        other.__dict__ = {**self.__dict__, "states": self.states[:, keep], "target": self.target[keep],
                          "cls": self.cls[keep]}
        return other

    def weights(self):
        """Every class that occurs has the same share."""
        count = torch.bincount(self.cls, minlength=4)
        n, classes = len(self.cls), (count > 0).sum()
        return n / (classes * count[self.cls])

    def log_q(self, u):
        x = u * torch.rsqrt((u * u).mean(-1, keepdim=True) + self.eps) * self.gain
        return torch.log_softmax(x @ self.head.T, -1)


def row_losses(data, kind, log_q, log_p):
    p, q = log_p.exp(), log_q.exp()
    if kind == "kl":
        return (p * (log_p - log_q)).sum(-1)
    if kind == "ce":
        return -log_q.gather(1, data.target[:, None])[:, 0]
    if kind == "reverse_kl":
        return (q * (log_q - log_p)).sum(-1)
    log_m = torch.log((p + q) / 2)
    return ((p * (log_p - log_m)).sum(-1) + (q * (log_q - log_m)).sum(-1)) / 2


def start(data, layer, init):
    """A, b and the spread of the states: root mean square about the mean, per column."""
    h, y, w = data.states[layer], data.states[-1] - data.states[layer], data.weights()
    d = h.shape[1]
    mean_h, mean_y = (w @ h) / w.sum(), (w @ y) / w.sum()
    x, r = h - mean_h, y - mean_y
    variance = (w @ (x * x)).sum() / d
    spread = torch.sqrt(variance / w.sum())
    a, b = torch.zeros(d, d), torch.zeros(d)
    if init == "ridge":
        gram = x.T @ (w[:, None] * x) + RIDGE * variance * torch.eye(d)
        a = torch.linalg.solve(gram, x.T @ (w[:, None] * r)).T
    if init != "zero":
        b = mean_y - a @ mean_h
    return a.clone().requires_grad_(), b.clone().requires_grad_(), float(spread)


def schedule(step):
    warmup = int(0.3 * STEPS)
    return (step + 1) / (warmup + 1) if step < warmup else (STEPS - step) / (STEPS - warmup)


def orthogonalised(m):
    """Five steps of the quintic Newton-Schulz iteration (Jordan et al. 2024)."""
    x = m / m.norm()
    for _ in range(5):
        g = x @ x.T
        x = 3.4445 * x + (-4.7750 * g + 2.0315 * g @ g) @ x
    return x


def nesterov(state, gradient):
    state["m"] = gradient if "m" not in state else MOMENTUM * state["m"] + gradient
    return gradient + MOMENTUM * state["m"]


def adam(state, gradient, step):
    state["m"] = state.get("m", 0) * 0.9 + 0.1 * gradient
    state["v"] = state.get("v", 0) * 0.999 + 0.001 * gradient**2
    return (state["m"] / (1 - 0.9**(step + 1))) / (torch.sqrt(state["v"] / (1 - 0.999**(step + 1))) + 1e-8)


def move(optimizer, p, state, rate, step, scale):
    gradient = p.grad * scale
    if optimizer == "sgd":
        change = nesterov(state, gradient)
    elif optimizer == "muon" and p.ndim == 2:
        change = orthogonalised(nesterov(state, gradient))
    else:
        change = adam(state, gradient, step)
    with torch.no_grad():
        p -= rate * schedule(step) * change
    p.grad = None


def fit(data, layer, optimizer, kind, init):
    a, b, spread = start(data, layer, init)
    bias_rate = RATE[optimizer] * (1 if optimizer == "sgd" else spread)
    states, losses = ({}, {}), []
    for step in range(STEPS):
        h = data.states[layer]
        rows = row_losses(data, kind, data.log_q(h + h @ a.T + b), data.log_q(data.states[-1]))
        loss = (data.weights() * rows).sum() / len(rows)
        losses.append(loss.item())
        loss.backward()
        norm = torch.sqrt(a.grad.pow(2).sum() + b.grad.pow(2).sum()).item()
        scale = min(1.0, CLIP / norm)
        move(optimizer, a, states[0], RATE[optimizer], step, scale)
        move(optimizer, b, states[1], bias_rate, step, scale)
    return {"loss": losses, "a_norm": a.norm().item(), "b_norm": b.norm().item()}


def main():
    data = Data(sys.argv[1])
    with_target = data.choose(data.target >= 0)
    cases = []
    for optimizer, kind, init in CASES:
        rows = with_target if kind == "ce" else data
        settings = COMMON + [f"fit.optimizer={optimizer}", f"fit.learning_rate={RATE[optimizer]}", f"lens.loss={kind}",
                             f"lens.init={init}"] + ([f"lens.ridge={RIDGE}"] if init == "ridge" else [])
        layers = [fit(rows, i, optimizer, kind, init) for i in range(len(data.states) - 1)]
        cases.append({"name": f"{optimizer}, {kind}, {init}", "settings": settings, "layers": layers})
    json.dump({"torch": torch.__version__, "cases": cases}, sys.stdout, indent=1)
    print()


main()
