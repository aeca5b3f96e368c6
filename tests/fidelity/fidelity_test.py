#!/usr/bin/env python3
"""`vlens fidelity` on the demo model: what it promises of its numbers, and that a lens fitted on shuffled targets, which
can know nothing about its rows, does not move as the model does. fidelity_test.py VLENS SOURCE OUTPUT"""
import json
import pathlib
import sys

sys.path.insert(0, str(pathlib.Path(__file__).resolve().parent.parent / "support"))
from program import prepare

CONFIG = """
model: {source}/data/demo/model
output: fidelity-lens
data: {{samples: {source}/data/demo/samples.jsonl, images: {source}/data/demo, max_samples: 300, heldout: 0.4}}
cache: {{dir: fidelity-cache, positions: {{image: 8}}}}
fit: {{tokens_per_step: 512, epochs: 4}}
eval: {{bootstrap: 100}}
fidelity: {{layers: 4, directions: 12, samples: 6, max_rows: 96, transfer_rows: 64, control: fidelity-shuffled}}
"""
# Four rank correlations of twelve directions: their mean has a standard deviation of about 0.15 where nothing is ranked.
RANK_NOISE = 0.3


def mean(values):
    return sum(values) / len(values)


def ranks(values):
    return [sum(w < v for w in values) + (sum(w == v for w in values) + 1) / 2 for v in values]


def pearson(x, y):
    x, y = [v - mean(x) for v in x], [v - mean(y) for v in y]
    return sum(a * b for a, b in zip(x, y)) / (sum(a * a for a in x) * sum(b * b for b in y)) ** 0.5


def residuals(y, x):
    """What is left of y after a linear regression on x."""
    deviation = [v - mean(x) for v in x]
    slope = sum(a * b for a, b in zip(deviation, y)) / sum(a * a for a in deviation)
    return [b - mean(y) - slope * a for a, b in zip(deviation, y)]


def check_ranks(cell):
    lens, model, moved = (ranks(cell[k]) for k in ("lens_kl", "model_kl", "displacement"))
    plain, partial = pearson(lens, model), pearson(residuals(lens, moved), residuals(model, moved))
    assert abs(cell["correlation"]["mean"] - plain) < 1e-8, (cell["correlation"], plain)
    assert abs(cell["partial"]["mean"] - partial) < 1e-8, (cell["partial"], partial)


def check_cell(cell, basis):
    assert len(cell["lens_kl"]) == len(cell["model_kl"]) == len(cell["displacement"]) == 12
    assert all(x > 0 for x in cell["displacement"]), cell["displacement"]
    check_ranks(cell)
    assert all(x >= -1e-6 for x in cell["lens_kl"] + cell["model_kl"]), cell
    for c in (cell["correlation"], cell["partial"]):
        assert -1 <= c["low"] <= c["high"] <= 1, c
    assert cell["correlation"]["low"] <= cell["correlation"]["mean"] <= cell["correlation"]["high"], cell["correlation"]
    assert -1 <= cell["alignment"]["mean"] <= 1
    if basis:  # each direction is the strongest that was found in what is left
        half = len(cell["lens_kl"]) // 2
        assert mean(cell["lens_kl"][:half]) > mean(cell["lens_kl"][half:]), cell["lens_kl"]


def main():
    source = pathlib.Path(sys.argv[2])
    folder, run = prepare(sys.argv[1], source, pathlib.Path(sys.argv[3]) / "fidelity", CONFIG)
    run("train", "run.yaml", "--quiet")
    run("train", "run.yaml", "--quiet", "--set", "lens.targets=shuffled", "--set", "output=fidelity-shuffled")
    message = run("train", "run.yaml", "--quiet", "--set", "lens.targets=shuffled", code=1)
    assert "lens.targets" in message, message  # the finished lens was fitted on its own targets
    text = run("fidelity", "run.yaml", "--quiet", "--json", "--out", "fidelity.json")
    result = json.loads(text)
    assert result == json.loads((folder / "fidelity.json").read_text())
    assert run("fidelity", "run.yaml", "--quiet", "--json") == text, "the same seed gives the same bits"
    rho, partial, alignment = {}, {}, {}
    for state in result["states"]:
        for lens in ("tuned", "logit", "random", "control"):
            check_cell(state[lens], lens != "random")
            rho.setdefault(lens, []).append(state[lens]["correlation"]["mean"])
            partial.setdefault(lens, []).append(state[lens]["partial"]["mean"])
            alignment.setdefault(lens, []).append(state[lens]["alignment"]["mean"])
    for name, found in (("rank correlation", rho), ("partial", partial), ("alignment", alignment)):
        print(f"mean {name} over states: " + ", ".join(f"{k} {mean(v):.2f}" for k, v in found.items()))
    assert mean(rho["tuned"]) > max(mean(rho["random"]), mean(rho["control"])), rho
    assert mean(rho["control"]) <= mean(rho["random"]) + RANK_NOISE, rho
    assert mean(partial["tuned"]) > mean(partial["control"]), partial
    assert mean(partial["control"]) <= mean(partial["random"]) + RANK_NOISE, partial
    assert mean(alignment["tuned"]) > mean(alignment["random"]) > mean(alignment["control"]), alignment
    layers = len(result["transfer"])
    for i, row in enumerate(result["transfer"]):
        assert len(row) == layers and all(x > 0 for x in row)
        assert row[i] < row[0 if i >= layers / 2 else layers - 1], f"state {i} is read better by the farthest adapter"
    message = run("fidelity", "run.yaml", "--quiet", "--set", "fidelity.directions=128", code=2)
    assert "fidelity.directions" in message, message


if __name__ == "__main__":
    main()
