"""Float64 references: gradients of the tuned-lens objectives, and optimiser trajectories."""
import json

import torch

from . import rng, save_tensors

ROWS, WIDTH, VOCAB = 7, 24, 61
EPS = {"rms": 1e-5, "layer": 1e-5}
STEPS = 10


def normal(name, shape, std=1.0, mean=0.0):
    return torch.from_numpy(rng(name).normal(mean, std, shape))


# ---------------------------------------------------------------- lens gradients

def norm(kind, x, p):
    if kind == "layer":
        return torch.nn.functional.layer_norm(x, (WIDTH,), p["norm_weight"], p["norm_bias"], EPS[kind])
    return x * torch.rsqrt(x.square().mean(-1, keepdim=True) + EPS[kind]) * p["norm_weight"]


def log_probs(kind, x, p):
    logits = norm(kind, x, p) @ p["head_weight"].T
    if "head_bias" in p:
        logits = logits + p["head_bias"]
    return logits, logits.log_softmax(-1)


def kl(log_a, log_b):
    return (log_a.exp() * (log_a - log_b)).sum(-1)


def row_losses(loss, teacher, student, targets):
    """[M] from log-probabilities [M,V] of the teacher (p) and of the lens (q)."""
    if loss == "kl":
        return kl(teacher, student)
    if loss == "reverse_kl":
        return kl(student, teacher)
    if loss == "js":
        middle = ((teacher.exp() + student.exp()) / 2).log()
        return (kl(teacher, middle) + kl(student, middle)) / 2
    return -student.gather(-1, targets[:, None])[:, 0]  # ce


def lens_problem(kind):
    p = {
        "h": normal(kind + " h", (ROWS, WIDTH), 1.5),
        "A": normal(kind + " A", (WIDTH, WIDTH), 0.1),
        "b": normal(kind + " b", (WIDTH,), 0.3),
        "norm_weight": normal(kind + " norm weight", (WIDTH,), 0.3, mean=1.0),
        "head_weight": normal(kind + " head", (VOCAB, WIDTH), 0.4),
        "teacher_hidden": normal(kind + " teacher", (ROWS, WIDTH), 1.5),
        "row_weights": torch.tensor([0.5, 1.0, 0.25, 0.0, 2.0, 1.0, 0.125], dtype=torch.float64),
        "targets": torch.from_numpy(rng(kind + " targets").integers(0, VOCAB, ROWS)),
    }
    if kind == "layer":
        p["norm_bias"] = normal(kind + " norm bias", (WIDTH,), 0.3)
        p["head_bias"] = normal(kind + " head bias", (VOCAB,), 0.5)
    return p


def write_lens_gradients(kind, path):
    p = lens_problem(kind)
    teacher_logits, teacher = log_probs(kind, p["teacher_hidden"], p)
    out = {**p, "teacher_logits": teacher_logits}
    for loss in ("kl", "reverse_kl", "js", "ce"):
        A, b = p["A"].clone().requires_grad_(), p["b"].clone().requires_grad_()
        u = p["h"] + p["h"] @ A.T + b
        u.retain_grad()
        logits, student = log_probs(kind, u, p)
        rows = row_losses(loss, teacher, student, p["targets"])
        total = (p["row_weights"] * rows).sum()
        total.backward()
        out |= {"u": u.detach(), "logits": logits.detach(), f"{loss}.rows": rows.detach(),
                f"{loss}.loss": total.detach(), f"{loss}.dA": A.grad, f"{loss}.db": b.grad, f"{loss}.du": u.grad}
    save_tensors(out, path, {"norm": kind, "eps": repr(EPS[kind]), "loss": "sum over rows of row_weights * rows"})


# ---------------------------------------------------------------- optimisers

OPTIMISERS = {
    "sgd": (torch.optim.SGD, dict(lr=0.1, momentum=0.9, nesterov=True, weight_decay=1e-3)),
    "adam": (torch.optim.Adam, dict(lr=1e-3, betas=(0.9, 0.999), eps=1e-8)),
    "adamw": (torch.optim.AdamW, dict(lr=1e-3, betas=(0.9, 0.999), eps=1e-8, weight_decay=1e-2)),
}
SHAPES = {"A": (5, 4), "b": (5,)}


def write_optimisers(path):
    """initial.X, grad.X [10, ...], and for each optimiser the parameters after every step."""
    initial = {k: normal("optim initial " + k, s) for k, s in SHAPES.items()}
    grads = {k: normal("optim grad " + k, (STEPS, *s), 0.5) for k, s in SHAPES.items()}
    grads["A"][3] = 0.0    # a step without gradient for one tensor
    grads["A"][7] *= 1e-4  # and one with a tiny gradient
    out = {f"initial.{k}": v for k, v in initial.items()} | {f"grad.{k}": v for k, v in grads.items()}
    for name, (optimiser_class, settings) in OPTIMISERS.items():
        params = {k: v.clone().requires_grad_() for k, v in initial.items()}
        optimiser = optimiser_class(list(params.values()), **settings)
        steps = {k: [] for k in params}
        for i in range(STEPS):
            for k, parameter in params.items():
                parameter.grad = grads[k][i].clone()
            optimiser.step()
            for k, parameter in params.items():
                steps[k].append(parameter.detach().clone())
        out |= {f"{name}.{k}": torch.stack(v) for k, v in steps.items()}
    save_tensors(out, path, {n: json.dumps(s) for n, (_, s) in OPTIMISERS.items()})
