#!/usr/bin/env python3
"""A cache is a set of samples by content, not of a file's lines, and the split is chosen where a lens is fitted or judged.
samples_test.py VLENS SOURCE OUTPUT [NAME ...]"""
import json
import os
import random
import shutil

from common import main, need


def lines(n, first=0):
    return [{"prompt": f"number {i} and some more words"} for i in range(first, first + n)]


def cache(place, *arguments):
    return json.loads(place.run("cache", "c.yaml", "-q", "--json", *arguments))


def rows(place):
    """What the cache says of each sample, by its prompt."""
    found = {}
    for number, prompt in enumerate(json.loads(line)["prompt"]
                                    for line in (place.folder / "s.jsonl").read_text().splitlines()):
        reading = json.loads(place.run("topk", "--cache", "cache", "--sample", number, "--position", "all", "-k", "2",
                                       "--json", "--device", "cpu"))
        found[prompt] = [(p["id"], p["states"]) for p in reading["positions"]]
    return found


def split_recomputes_nothing(make):
    place = make()
    place.run("train", "c.yaml", "-q")
    shards = {p.name: p.stat().st_mtime_ns for p in (place.folder / "cache").glob("shard-*.h5")}
    tables = set()
    for change in (["data.heldout=0.5"], ["data.seed=7"], ["data.seed=7", "data.max_samples=30"]):
        sets = [word for assignment in change for word in ("--set", assignment)]
        done = cache(place, *sets)
        need(done["run_samples"] == 0 and done["forward_tokens"] == 0, change, "ran", done)
        place.run("train", "c.yaml", "-q", *sets, "--set", "output=lens-" + "-".join(change).replace(".", "-"))
        tables.add(place.run("eval", "c.yaml", "-q", *sets, "--set", "output=lens-" + "-".join(change).replace(".", "-")))
    need(len(tables) == 3, "other splits give the same table")
    now = {p.name: p.stat().st_mtime_ns for p in (place.folder / "cache").glob("shard-*.h5")}
    need(shards == now, "shards were written again")


def fewer_and_more_samples(make):
    place = make()
    done = cache(place, "--set", "data.max_samples=25")
    need(done["samples"] == 25 and done["run_samples"] == 25, done)
    place.run("train", "c.yaml", "-q", "--set", "data.max_samples=25")
    place.refused("eval", "c.yaml", "-q", words=["data.max_samples"])  # 40 are asked for, 25 are there
    done = cache(place)
    need(done["samples"] == 40 and done["run_samples"] == 15, done)
    need(cache(place, "--set", "data.max_samples=10")["run_samples"] == 0, "fewer samples ran")


def append_delete_edit_reorder(make):
    place = make()
    all_lines = lines(50)
    place.samples(all_lines[:40])
    need(cache(place)["run_samples"] == 40, "first")
    before = rows(place)
    place.samples(all_lines)
    done = cache(place)
    need(done["run_samples"] == 10 and done["samples"] == 50, "appended:", done)
    after = rows(place)
    need(all(after[k] == before[k] for k in before), "appending changed what was there")
    place.samples(all_lines[:7] + all_lines[12:])
    done = cache(place)
    need(done["run_samples"] == 0 and done["samples"] == 45, "deleted:", done)
    shuffled = all_lines[:7] + all_lines[12:]
    random.Random(1).shuffle(shuffled)
    place.samples(shuffled)
    done = cache(place)
    need(done["run_samples"] == 0, "reordered:", done)
    now = rows(place)
    need(all(now[line["prompt"]] == after[line["prompt"]] for line in shuffled), "reordering mixed rows up")
    shuffled[3] = {"prompt": "another line in its place"}
    place.samples(shuffled)
    need(cache(place)["run_samples"] == 1, "edited")
    place.samples(all_lines)  # what was deleted is still in its shard
    need(cache(place)["run_samples"] == 0, "back again")
    place.run("verify", "cache", "-q")
    place.run("train", "c.yaml", "-q")
    place.run("eval", "c.yaml", "-q")


def pictures(place, n=12):
    source = place.source / "data/demo/images"
    (place.folder / "p").mkdir()
    names = sorted(p.name for p in source.iterdir())[:n]
    for name in names:
        shutil.copy(source / name, place.folder / "p" / name)
        (place.folder / "p" / name).chmod(0o644)
    place.samples([{"image": name, "prompt": f"what is it {k}?"} for name in names for k in range(2)])
    place.configure(data__images="p", data__template="auto")
    return names


def picture_replaced(make):
    """Noticed when the cache is whole too; only its samples run again."""
    place = make(model="llava-base-f32")
    names = pictures(place)
    need(cache(place)["run_samples"] == 24, "first")
    shutil.copy(place.source / "data/demo/images/030.png", place.folder / "p" / names[4])
    done = cache(place)
    need(done["run_samples"] == 2, "a replaced picture:", done)
    os.utime(place.folder / "p" / names[5])  # touched: the same picture
    need(cache(place)["run_samples"] == 0, "a touched picture")
    shutil.move(place.folder / "p", place.folder / "q")
    need(cache(place, "--set", "data.images=q")["run_samples"] == 0, "moved pictures")
    place.run("verify", "cache", "-q")


def corpus_grows(make):
    place = make()
    words = [f"word{i} and more of it." for i in range(400)]
    (place.folder / "t.txt").write_text(" ".join(words))
    place.configure(data__samples="", data__text="t.txt", data__max_tokens="16")
    first = cache(place)
    (place.folder / "t.txt").write_text(" ".join(words + ["something behind it."] * 20))
    done = cache(place)
    need(0 < done["run_samples"] < first["samples"] / 4, "the corpus grew:", done)
    need(cache(place)["run_samples"] == 0, "again")


def positions_have_a_seed(make):
    place = make()
    place.configure(cache__positions__text="4")
    place.run("cache", "c.yaml", "-q")
    one = rows(place)
    need(cache(place, "--set", "data.seed=9")["run_samples"] == 0, "data.seed chooses positions")
    place.refused("cache", "c.yaml", "-q", "--set", "cache.seed=9", words=["cache.seed"])
    place.run("cache", "c.yaml", "-q", "--set", "cache.seed=9", "--set", "cache.dir=other")
    shutil.rmtree(place.folder / "cache")
    shutil.move(place.folder / "other", place.folder / "cache")
    need(rows(place) != one, "cache.seed chooses nothing")


def interrupted_append(make):
    """A missing shard costs its own samples; the old index stays until the new one is whole."""
    place = make()
    whole = cache(place)
    shard = place.folder / "cache/shard-00003.h5"
    content = shard.read_bytes()
    shard.unlink()
    done = cache(place)
    need(0 < done["run_samples"] < whole["samples"] / 2, "one shard:", done)
    need(shard.read_bytes() == content, "the shard that is made again differs")


def shared_by_equal_samples(make):
    """The same line twice is two samples; deleting one leaves the other."""
    place = make()
    place.samples(lines(5) + lines(5))
    need(cache(place)["samples"] == 10, "equal lines")
    place.samples(lines(5))
    need(cache(place)["run_samples"] == 0, "one of two")
    place.samples(lines(5) + lines(5))
    need(cache(place)["run_samples"] == 0, "both again")


if __name__ == "__main__":
    main("samples", [split_recomputes_nothing, fewer_and_more_samples, append_delete_edit_reorder, picture_replaced,
                     corpus_grows, positions_have_a_seed, interrupted_append, shared_by_equal_samples])
