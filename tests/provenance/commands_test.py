#!/usr/bin/env python3
"""A number belongs to what was asked: commands compare the configuration with the cache and the lens that they read, a
--set that does nothing is refused, and evaluating leaves the lens alone.
commands_test.py VLENS SOURCE OUTPUT [NAME ...]"""
import json
import shutil

from common import main, need


def eval_compares(make):
    """A complete cache: another model, split, data or forward is not evaluated in its place."""
    place = make()
    place.run("train", "c.yaml", "-q")
    place.run("eval", "c.yaml", "-q")
    shutil.copytree(place.model, place.folder / "other")
    config = json.loads((place.folder / "other/config.json").read_text())
    config["rms_norm_eps"] = 1e-2
    (place.folder / "other/config.json").write_text(json.dumps(config))
    (place.folder / "few.jsonl").write_text('{"prompt": "few"}\n')
    cases = {"model=other": "model", "model=missing": "missing", "data.samples=MISSING": "MISSING",
             "data.samples=few.jsonl": "data.samples", "data.exif=false": "data.exif",
             "cache.positions.text=3": "cache.positions.text", "lens.loss=ce": "lens.loss",
             "fit.momentum=0.5": "fit.momentum"}
    for assignment, word in cases.items():
        for command in ("eval", "fidelity"):
            place.refused(command, "c.yaml", "-q", "--set", assignment, words=[word])
    # moved, but the same: nothing to say
    place.run("eval", "c.yaml", "-q", "--set", "data.samples=" + str(shutil.copy(place.folder / "s.jsonl",
                                                                               place.folder / "t.jsonl")))
    # a lens that is given is taken as it is, and arithmetic is the evaluation's own
    place.run("eval", "c.yaml", "-q", "--set", "fit.momentum=0.5", "--lens", "lens")
    place.run("eval", "c.yaml", "-q", "--set", "precision=exact")


def train_without_model_compares(make):
    place = make()
    place.run("cache", "c.yaml", "-q")
    place.refused("train", "c.yaml", "-q", "--set", "model=", "--set", "data.exif=false", words=["data.exif"])
    place.run("train", "c.yaml", "-q", "--set", "model=")


def useless_set_is_refused(make):
    place = make()
    place.run("train", "c.yaml", "-q")
    cases = [(["cache", "c.yaml"], "fit.steps=4"), (["cache", "c.yaml"], "eval.bootstrap=3"),
             (["train", "c.yaml"], "eval.seed=3"), (["eval", "c.yaml"], "fidelity.samples=3"),
             (["fidelity", "c.yaml"], "eval.metrics=kl"), (["eval", "c.yaml"], "study.k=3"),
             (["topk", "--model", "model", "--prompt", "a"], "fit.steps=4"),
             (["topk", "--model", "model", "--prompt", "a"], "cache.dtype=float32"),
             (["topk", "--cache", "cache", "--sample", "0"], "data.exif=false"),
             (["topk", "--cache", "cache", "--sample", "0"], "data.template=none"),
             (["view", "--cache", "cache", "--sample", "0"], "model=model")]
    for command, assignment in cases:
        place.refused(*command, "--set", assignment, code=2, words=[assignment.split("=")[0], "use"])


def topk_obeys(make):
    """data.template and data.exif of --set do what the options do."""
    place = make(model="llava-base-f32", n=1)
    ask = ["topk", "--model", "model", "--prompt", "what?", "-k", "1", "--json", "--device", "cpu", "--position", "all"]
    raw = place.run(*ask, "--raw-prompt")
    need(place.run(*ask, "--set", "data.template=none") == raw, "data.template=none is not --raw-prompt")
    need(place.run(*ask) != raw, "the template does nothing here: the test shows nothing")


def eval_leaves_the_lens(make):
    place = make()
    place.run("train", "c.yaml", "-q")
    file = place.folder / "lens/lens.safetensors"
    before, stamp = file.read_bytes(), file.stat().st_mtime_ns
    kl = json.loads(place.run("info", "lens", "--json"))["adapters"]
    need(all(a["heldout_kl"] is not None for a in kl), "train did not record the held-out KL")
    whole = json.loads(place.run("eval", "c.yaml", "-q", "--json"))
    tuned = [s["tuned"]["kl"] for s in whole["classes"][-1]["states"][:-1]]
    need(all(abs(a["heldout_kl"] - b) <= 1e-6 * abs(b) for a, b in zip(kl, tuned)), "held-out KL", kl, tuned)
    part = json.loads(place.run("eval", "c.yaml", "-q", "--json", "--set", "eval.max_tokens=100"))
    need(file.read_bytes() == before and file.stat().st_mtime_ns == stamp, "eval wrote the lens")
    kept = {p.name: json.loads(p.read_text()) for p in (place.folder / "lens").glob("eval-*.json")}
    need(kept == {f"eval-{r['digest']}.json": r for r in (whole, part)}, "results kept:", list(kept))
    again = json.loads(place.run("eval", "c.yaml", "-q", "--json"))
    need(again == whole, "the same evaluation has another result")


def outputs_are_tried_first(make):
    """A place that cannot be written is found before the work; a write that fails late does not cost the table."""
    place = make()
    place.run("train", "c.yaml", "-q")
    (place.folder / "lens/lens.safetensors").chmod(0o444)
    for option in ("--out", "--report"):
        shutil.move(place.folder / "cache", place.folder / "away")  # no work can begin
        place.refused("eval", "c.yaml", "-q", option, "missing/file", words=["missing/file", option])
        shutil.move(place.folder / "away", place.folder / "cache")
    place.refused("eval", "c.yaml", "-q", "--out", "-", words=["--json"], code=2)
    need(not (place.folder / "-").exists(), "a file named '-'")
    (place.folder / "folder").mkdir()
    done = place.call("eval", "c.yaml", "-q", "--out", "folder")  # renaming a file over a folder fails, late
    need(done.returncode == 1 and "folder" in done.stderr, "exit code", done.returncode, done.stderr)
    need("state" in done.stdout and "tuned" in done.stdout, "the table is not printed")


def nothing_held_out(make):
    place = make(n=2)
    place.configure(data__heldout="0")
    done = place.call("train", "c.yaml")
    need(done.returncode == 0 and "nothing is held out" in done.stderr, "train is silent:", done.stderr)
    place.refused("eval", "c.yaml", "-q", words=["data.heldout", "none of its 2 samples"], code=2)


if __name__ == "__main__":
    main("commands", [eval_compares, train_without_model_compares, useless_set_is_refused, topk_obeys,
                      eval_leaves_the_lens, outputs_are_tried_first, nothing_held_out])
