#!/usr/bin/env python3
"""Nothing is removed that vlens did not write, and a file that cannot be opened is not a damaged file.

Every place that unlinks, renames over or truncates, with a file of someone else in its way:

    cache, train     index.h5, shard-N.h5       refused; --fresh moves aside
    cache            shard-N.h5 that is damaged moved aside, made again
    train            checkpoint*.safetensors    left alone, or refused; --fresh moves aside
    train            lens.safetensors, metrics.json   refused; --fresh moves aside
    import           lens.safetensors, metrics.json   refused
    export           lens.safetensors, config.json, params.pt   refused
    all of them      .lock                      refused
    study            index.html and its neighbours    refused
    view             page.html (the name that nobody gave)   refused
    init             the file                   refused without --force

A file whose name the user gives (--out, --report, export of one file) is replaced, as cp does.
owner_test.py VLENS SOURCE OUTPUT [NAME ...]"""
import fcntl
import os
import pathlib
import shutil
import sys

from common import main, need

FOREIGN = b"measurements of another program\n"


def replaced(folder, name):
    return sorted(p.name for p in folder.glob(f"{name}.replaced-*"))


def foreign_index(make):
    place = make()
    index = place.folder / "cache/index.h5"
    for command in ("cache", "train"):
        shutil.rmtree(index.parent, ignore_errors=True)
        index.parent.mkdir()
        index.write_bytes(FOREIGN)
        place.refused(command, "c.yaml", "-q", words=["index.h5", "--fresh"])
        need(index.read_bytes() == FOREIGN, command, "replaced index.h5")
    place.run("cache", "c.yaml", "-q", "--fresh")
    need(replaced(index.parent, "index.h5") == ["index.h5.replaced-1"], "not moved aside")
    need((index.parent / "index.h5.replaced-1").read_bytes() == FOREIGN, "the file that was moved aside has changed")


def foreign_shard(make):
    place = make()
    shard = place.folder / "cache/shard-00001.h5"
    shard.parent.mkdir()
    shard.write_bytes(FOREIGN)
    place.run("cache", "c.yaml", "-q")
    need((shard.parent / "shard-00001.h5.replaced-1").read_bytes() == FOREIGN, "the foreign shard is lost")
    place.run("verify", "cache", "-q")


def damaged_shard_is_kept(make):
    place = make()
    place.run("cache", "c.yaml", "-q")
    shard = place.folder / "cache/shard-00001.h5"
    whole = shard.read_bytes()
    shard.write_bytes(whole[:3000])
    place.run("cache", "c.yaml", "-q")
    need(shard.read_bytes() == whole, "the shard was not made again")
    need((shard.parent / "shard-00001.h5.replaced-1").read_bytes() == whole[:3000], "the damaged file is lost")
    place.run("verify", "cache", "-q")


def own_cache_is_moved_aside(make):
    """A cache of the user's own has no settings: refused, and with --fresh moved aside, never removed."""
    place = make()
    own = place.folder / "cache/index.h5"
    own.parent.mkdir()
    shutil.copy(place.source / "tests/robust/malformed/cache/ok.h5", own)
    own.chmod(0o644)
    before = own.read_bytes()
    place.refused("cache", "c.yaml", "-q", words=["not made by vlens cache", "--fresh"])
    need(own.read_bytes() == before, "replaced")
    place.run("cache", "c.yaml", "-q", "--fresh")
    need((own.parent / "index.h5.replaced-1").read_bytes() == before, "removed")


def locked_index(make):
    """A lock is a lock: nothing is mended, and the way out is named."""
    place = make()
    place.run("cache", "c.yaml", "-q")
    index = place.folder / "cache/index.h5"
    before = index.read_bytes()
    with open(index, "rb") as held:
        fcntl.flock(held, fcntl.LOCK_EX)
        for command in (["cache", "c.yaml", "-q"], ["train", "c.yaml", "-q"], ["eval", "c.yaml", "-q"],
                        ["train", "c.yaml", "-q", "--set", "model="]):
            place.refused(*command, words=["index.h5", "lock", "HDF5_USE_FILE_LOCKING"])
    need(index.read_bytes() == before, "replaced")
    with open(place.folder / "cache/shard-00000.h5", "rb") as held:
        fcntl.flock(held, fcntl.LOCK_EX)
        place.refused("cache", "c.yaml", "-q", words=["shard-00000.h5", "lock"])
    need(not list(index.parent.glob("*.replaced-*")), "moved aside")
    place.run("cache", "c.yaml", "-q")


def without_locks(make):
    """A file system that has no locks: caches are made and read all the same."""
    place = make()
    library = os.environ.get("VLENS_NO_LOCKS")
    need(library and pathlib.Path(library).exists(), "VLENS_NO_LOCKS names no library")
    env = {**os.environ, "LD_PRELOAD": library}
    place.run("cache", "c.yaml", "-q", env=env)
    place.run("train", "c.yaml", "-q", env=env)
    place.run("verify", "cache", "-q", env=env)
    need(not list((place.folder / "cache").glob("*.replaced-*")), "moved aside")


def foreign_output(make):
    place = make()
    lens = place.folder / "lens"
    lens.mkdir()
    (lens / "checkpoint-1000.safetensors").write_bytes(FOREIGN)  # a fine-tuning run names its files so
    for name in ("lens.safetensors", "metrics.json", "checkpoint.safetensors"):
        for file in lens.iterdir():
            if file.name != "checkpoint-1000.safetensors" and "replaced" not in file.name:
                file.unlink()
        (lens / name).write_bytes(FOREIGN)
        place.refused("train", "c.yaml", "-q", words=[name])
        need((lens / name).read_bytes() == FOREIGN, name, "replaced")
        place.run("train", "c.yaml", "-q", "--fresh")
        need((lens / f"{name}.replaced-1").read_bytes() == FOREIGN, name, "lost")
    need((lens / "checkpoint-1000.safetensors").read_bytes() == FOREIGN, "a checkpoint of another program is lost")


def foreign_import_and_export(make):
    place = make()
    place.run("train", "c.yaml", "-q")
    for name in ("lens.safetensors", "metrics.json"):
        folder = place.folder / f"in-{name}"
        folder.mkdir()
        (folder / name).write_bytes(FOREIGN)
        place.refused("import", "lens", "-o", folder, "--cache", "cache", words=[name])
        need((folder / name).read_bytes() == FOREIGN, name, "replaced by import")
    config = (place.model / "config.json").read_bytes()
    place.refused("export", "lens", "-f", "tuned-lens", "-o", "model", words=["config.json"])
    need((place.model / "config.json").read_bytes() == config, "the model's config.json is lost")
    weights = (place.model / "model.safetensors").read_bytes()
    place.refused("export", "lens", "-f", "safetensors", "-o", "model/model.safetensors", words=["model.safetensors"])
    need((place.model / "model.safetensors").read_bytes() == weights, "the model's weights are lost")
    place.run("export", "lens", "-f", "tuned-lens", "-o", "exported")
    place.run("export", "lens", "-f", "tuned-lens", "-o", "exported")  # its own files again


def foreign_lock(make):
    place = make()
    for folder, command in (("cache", "cache"), ("lens", "train")):
        (place.folder / folder).mkdir(exist_ok=True)
        lock = place.folder / folder / ".lock"
        lock.write_bytes(FOREIGN)
        place.refused(command, "c.yaml", "-q", words=[".lock"])
        need(lock.read_bytes() == FOREIGN, "a foreign .lock is lost")
        lock.unlink()


def foreign_pages(make):
    place = make()
    page = place.folder / "page.html"
    page.write_bytes(FOREIGN)
    place.refused("view", "--model", "model", "--prompt", "the lamp", words=["page.html"])
    need(page.read_bytes() == FOREIGN, "page.html is lost")
    page.unlink()
    for _ in range(2):
        place.run("view", "--model", "model", "--prompt", "the lamp", "-q")
    study = place.folder / "study"
    study.mkdir()
    (study / "index.html").write_bytes(FOREIGN)
    place.refused("study", "c.yaml", "-q", "--set", "study.samples=s.jsonl", "--set", "study.dir=study",
                  words=["index.html"])
    need((study / "index.html").read_bytes() == FOREIGN, "the study's index.html is lost")
    config = place.folder / "mine.yaml"
    config.write_bytes(FOREIGN)
    place.refused("init", "mine.yaml", words=["--force"])
    need(config.read_bytes() == FOREIGN, "the configuration is lost")


if __name__ == "__main__":
    main("owner", [foreign_index, foreign_shard, damaged_shard_is_kept, own_cache_is_moved_aside, locked_index,
                   without_locks, foreign_output, foreign_import_and_export, foreign_lock, foreign_pages])
