"""Lens, Cache, read and evaluate against the C program's own numbers and NumPy; docstrings as tests."""
import doctest
import json
import subprocess

import numpy as np
import pytest
import torch
import vlens
from conftest import SOURCE

DEMO = SOURCE / "data/demo"


@pytest.fixture(scope="session")
def run(tmp_path_factory):
    """A small run of the demo: configuration, lens and cache."""
    folder = tmp_path_factory.mktemp("run")
    samples = (DEMO / "samples.jsonl").read_text(encoding="utf-8").splitlines()[:60]
    (folder / "samples.jsonl").write_text("\n".join(samples), encoding="utf-8")
    config = folder / "run.yaml"
    config.write_text(f"model: {DEMO}/model\noutput: {folder}/lens\n"
                      f"data: {{samples: {folder}/samples.jsonl, images: {DEMO}, heldout: 0.4}}\n"
                      f"cache: {{dir: {folder}/cache, positions: {{image: 8}}}}\n"
                      "fit: {tokens_per_step: 256, epochs: 2}\neval: {bootstrap: 10}\n", encoding="utf-8")
    subprocess.run([vlens.program(), "train", str(config), "--quiet"], check=True)
    return folder


def test_a_lens_and_its_torch_module_agree(run):
    lens, cache = vlens.Lens.open(run / "lens"), vlens.Cache.open(run / "cache")
    module = lens.to_torch()
    for i in (0, 5, lens.n_layers - 1):
        h = cache.states(i, slice(0, 64))
        want = h.astype(np.float64) + h.astype(np.float64) @ lens.weight(i).T.astype(np.float64) + lens.bias(i)
        for got in (lens.transform(i, h), module.transform_hidden(torch.from_numpy(h), i).numpy()):
            assert np.abs(got - want).max() <= 1e-6 * np.abs(want).max()


def test_weights_are_views_that_outlive_the_lens(run):
    lens = vlens.Lens.open(run / "lens")
    weight = lens.weight(2)
    kept = weight.copy()
    with pytest.raises(ValueError, match="read-only"):
        weight[0, 0] = 1
    del lens
    assert np.array_equal(weight, kept)


def test_rows_by_class_sample_and_state(run):
    import h5py

    cache = vlens.Cache.open(run / "cache")
    with h5py.File(run / "cache/index.h5") as f:
        states = f["states"][3]
    rows = cache.rows("last")[[5, 2, 2, 9]]
    assert np.array_equal(cache.states(3, rows), states[rows])
    assert set(cache.sample[cache.rows(sample=7)]) == {7}
    with pytest.raises(ValueError, match="expected one of text"):
        cache.rows("patch")


def test_reading_shows_what_the_program_says(run):
    image, prompt = DEMO / "images/019.png", "What shape is red? Answer with one word."
    reading = vlens.read(DEMO / "model", prompt, images=[image], lens=run / "lens", k=3)
    said = json.loads(subprocess.run(
        [vlens.program(), "topk", "--model", DEMO / "model", "--image", image, "--prompt", prompt, "--lens",
         run / "lens", "--k", "3", "--position", "all", "--json", "--quiet"], check=True, capture_output=True).stdout)
    prompt_rows = reading.data["positions"][:len(said["positions"])]
    assert [p["states"] for p in prompt_rows] == [p["states"] for p in said["positions"]]
    assert reading.html.startswith("<!") and "srcdoc" in reading._repr_html_()


def test_errors_are_the_one_line_of_the_library(tmp_path):
    with pytest.raises(vlens.VlensError, match="no-such-lens"):
        vlens.Lens.open(tmp_path / "no-such-lens")
    with pytest.raises(vlens.VlensError, match="no-such"):
        vlens.evaluate(tmp_path / "no-such.yaml")


@pytest.mark.parametrize("name", ["__init__", "_native", "lens", "cache", "reading", "evaluation"])
def test_docstrings(name, run, monkeypatch):
    """The examples of the documentation run as they stand."""
    import importlib

    module = importlib.import_module("vlens" if name == "__init__" else f"vlens.{name}")
    names = {"vlens": vlens, "LENS": run / "lens", "CACHE": run / "cache", "CONFIG": run / "run.yaml",
             "MODEL": DEMO / "model", "IMAGE": DEMO / "images/019.png"}
    failed, tried = doctest.testmod(module, extraglobs=names)
    assert failed == 0
