#!/usr/bin/env python3
"""A lens remembers what it was fitted on: rows of its own training split are not called held out.
seen_test.py VLENS SOURCE OUTPUT [NAME ...]"""
import json

from common import main, need
from samples_test import pictures


def samples_of_another_seed(make):
    place = make()
    place.run("train", "c.yaml", "-q")
    result = json.loads(place.run("eval", "c.yaml", "-q", "--json"))
    need(result["seen"]["seen"] == 0 and result["seen"]["of"] > 0, result["seen"])
    other = ["--set", "data.seed=7", "--lens", "lens"]
    for command in ("eval", "fidelity"):
        place.refused(command, "c.yaml", "-q", *other, words=["held-out samples", "training split", "--allow-seen"])
    table = place.run("eval", "c.yaml", "-q", *other, "--allow-seen")
    need("training split" in table, "the table does not say it", table)
    seen = json.loads(place.run("eval", "c.yaml", "-q", *other, "--allow-seen", "--json"))["seen"]
    need(0 < seen["seen"] <= seen["of"] and seen["unit"] == "samples", seen)


def pictures_of_another_seed(make):
    """Counted in pictures, also where the questions differ; the count is the one that the split's rule gives."""
    place = make(model="llava-base-f32")
    pictures(place)
    place.configure(data__heldout="0.4")
    place.run("train", "c.yaml", "-q")
    line = place.refused("eval", "c.yaml", "-q", "--set", "data.seed=7", "--lens", "lens",
                         words=["held-out pictures were in this lens' training split"])
    seen, of = int(line.split()[1]), int(line.split()[3])
    need(0 < seen <= of <= 12, line)


def imports_do_not_know(make):
    place = make()
    place.run("train", "c.yaml", "-q")
    place.run("export", "lens", "-f", "npz", "-o", "lens.npz")
    place.run("import", "lens.npz", "-o", "back", "--cache", "cache")
    result = json.loads(place.run("eval", "c.yaml", "-q", "--json", "--lens", "back"))
    need(result["seen"] is None, result["seen"])
    need("unknown" in place.run("eval", "c.yaml", "-q", "--lens", "back"), "the table does not say it")


if __name__ == "__main__":
    main("seen", [samples_of_another_seed, pictures_of_another_seed, imports_do_not_know])
