#!/usr/bin/env python3
"""Token ablation of `vlens fidelity` against transformers (patches_golden.json, by make_patches_golden.py), what is summed
up against what is listed, and lines of fidelity.objects that are no good. patches_test.py VLENS SOURCE OUTPUT"""
import json
import pathlib
import sys

sys.path.insert(0, str(pathlib.Path(__file__).resolve().parent.parent / "support"))
from program import prepare

CONFIG = """
model: {source}/data/demo/model
precision: exact
output: patches-lens
data: {{samples: {source}/data/demo/samples.jsonl, max_samples: 40, heldout: 0.4}}
cache: {{dir: patches-cache, positions: {{image: 4}}}}
lens: {{kind: bias, init: mean}}
fit: {{steps: 1, validation: 0}}
fidelity: {{layers: 1, directions: 2, samples: 2, transfer_rows: 0, objects: {source}/data/demo/objects.jsonl}}
"""
BOUND = 8e-6  # probabilities; measured 4.0e-6


def check_sample(found, golden):
    """The largest difference of a probability from transformers'."""
    assert (found["sample"], found["token"]) == (golden["sample"], golden["token"]), (found, golden)
    worst = abs(found["probability"] - golden["probability"])
    taken = {tuple(p) for p in found["both"]["patches"]}
    for name in ("object", "ring", "both"):
        assert found[name]["patches"] == golden[name]["patches"], (name, found, golden)
        elsewhere = {tuple(p) for p in found[name]["elsewhere"]}
        assert len(elsewhere) == len(found[name]["elsewhere"]) == len(found[name]["patches"]), found
        assert not elsewhere & taken and all(0 <= x < 8 for p in elsewhere for x in p), found
        for value in ("mean", "zero"):
            worst = max(worst, abs(found[name][value][0] - golden[name][value]))
    return worst


def check_effect(effect, samples, golden):
    name, value, n = effect["set"], effect["by"], len(samples)
    here, elsewhere = (sum(s[name][value][i] for s in samples) / n for i in range(2))
    for key, expected in (("probability", here), ("probability_elsewhere", elsewhere),
                          ("beyond_elsewhere", elsewhere - here),
                          ("kept", sum(g[name][value + "_kept"] for g in golden) / n)):
        assert abs(effect[key]["mean"] - expected) < 1e-7, (key, effect, expected)
        assert effect[key]["low"] <= effect[key]["mean"] <= effect[key]["high"], effect
    assert abs(effect["patches"] - sum(len(s[name]["patches"]) for s in samples) / n) < 1e-7


def main():
    source = pathlib.Path(sys.argv[2])
    folder, run = prepare(sys.argv[1], source, pathlib.Path(sys.argv[3]) / "patches", CONFIG)
    run("train", "run.yaml", "--quiet")
    result = json.loads(run("fidelity", "run.yaml", "--quiet", "--json"))["patches"]
    golden = json.loads((source / "tests" / "fidelity" / "patches_golden.json").read_text())
    assert result["pictures"] == len(result["samples"]) == len(golden), (result["pictures"], len(golden))
    worst = max(check_sample(*pair) for pair in zip(result["samples"], golden))
    print(f"{len(golden)} pictures, largest difference of a probability {worst:.1e}")
    assert worst < BOUND, worst
    assert len(result["effects"]) == 6
    for effect in result["effects"]:
        check_effect(effect, result["samples"], golden)
    table = run("fidelity", "run.yaml", "--quiet")
    for effect in result["effects"]:
        row = next(line for line in table.splitlines() if line.split()[:2] == [effect["set"], effect["by"]])
        for key in ("probability", "kept", "probability_elsewhere", "kept_elsewhere", "beyond_elsewhere"):
            assert f"{effect[key]['mean']:.2f} [{effect[key]['low']:5.2f}, {effect[key]['high']:5.2f}]" in row, (key, row)
    few = json.loads(run("fidelity", "run.yaml", "--quiet", "--json", "--set", "fidelity.object_samples=3"))["patches"]
    assert [s["sample"] for s in few["samples"]] == [golden[k * len(golden) // 3]["sample"] for k in range(3)]

    lines = (source / "data" / "demo" / "objects.jsonl").read_text().splitlines()
    for bad, part in (('{"image": "images/001.png"}', '"objects"'),
                      ('{"image": "images/001.png", "objects": [{"name": "star"}]}', '"patches"'),
                      ('{"image": "images/001.png", "objects": [{"patches": [[0, 8]]}]}', "grid of 8 x 8"),
                      ('{"image": "images/none.png", "objects": []}', "none.png"), ("{", "expected"),
                      ('{"image": 3, "objects": []}', '"image"')):
        (folder / "bad.jsonl").write_text(lines[0] + "\n\n" + bad + "\n")
        message = run("fidelity", "run.yaml", "--quiet", "--set", "fidelity.objects=bad.jsonl", code=1)
        assert "bad.jsonl:3" in message and part in message, message
    (folder / "bad.jsonl").write_text('{"image": "images/001.png", "objects": []}\n')
    message = run("fidelity", "run.yaml", "--quiet", "--set", "fidelity.objects=bad.jsonl", code=2)
    assert "names one object" in message, message


if __name__ == "__main__":
    main()
