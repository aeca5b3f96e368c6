"""Writes a cache in the form of docs/reference/formats.md: shards that appear whole, then an index over them."""
from __future__ import annotations

import dataclasses
import json
import os
import pathlib
import uuid
from typing import Any

import h5py
import numpy as np
import numpy.typing as npt

COLUMNS = {"id": np.int32, "next_id": np.int32, "position": np.int32, "sample": np.int32, "class": np.uint8,
           "image": np.int32, "patch": np.int16}
_TEXT = h5py.string_dtype("utf-8")


@dataclasses.dataclass
class Sample:
    """One sample, ready to be written. N rows."""

    number: int
    prompt: str
    answer: str
    heldout: bool
    images: list[dict[str, Any]]  # path, sha256, width, height
    columns: dict[str, npt.NDArray[Any]]  # [N] each; patch [N, 3]; image counts from the sample's own first picture
    states: npt.NDArray[Any]  # [L + 1, N, D]; bfloat16 as uint16


def state_type(dtype: str) -> h5py.h5t.TypeID:
    """The HDF5 type of an element: bfloat16 is a float of 16 bits with 8 bits of exponent."""
    if dtype != "bfloat16":
        return h5py.h5t.py_create(np.dtype(dtype))
    kind = h5py.h5t.IEEE_F32LE.copy()
    kind.set_fields(15, 7, 8, 0, 7)
    kind.set_size(2)
    kind.set_ebias(127)
    return kind


class Writer:
    """Samples go in; whole shards stay on disk, and `finish` writes the index. `open` goes on from whole shards."""

    def __init__(self, out: pathlib.Path, attributes: dict[str, Any], dtype: str, shard_tokens: int) -> None:
        self._out, self._attributes, self._dtype, self._shard_tokens = out, attributes, dtype, shard_tokens
        self._pending: list[Sample] = []
        self._settings = json.dumps(attributes | {"dtype": dtype, "shard_tokens": shard_tokens}, sort_keys=True)
        self._shards: list[pathlib.Path] = []

    def open(self) -> int:
        """The number of samples in whole shards of an interrupted recording with the same settings."""
        done = 0
        while (path := self._path(len(self._shards))).exists():
            with h5py.File(path, "r") as f:
                if f.attrs.get("settings") != self._settings:
                    raise FileExistsError(f"{path} was recorded with other settings; fresh=True starts over")
                done += len(f["samples/id"])
            self._shards.append(path)
        return done

    def _path(self, number: int) -> pathlib.Path:
        return self._out / f"shard-{number:05d}.h5"

    def add(self, sample: Sample) -> None:
        self._pending.append(sample)
        if sum(s.states.shape[1] for s in self._pending) >= self._shard_tokens:
            self._flush()

    def _flush(self) -> None:
        if not self._pending:
            return
        samples, self._pending = self._pending, []
        path = self._path(len(self._shards))
        temporary = path.with_suffix(f".h5.tmp-{os.getpid()}")
        try:
            with h5py.File(temporary, "w", libver=("earliest", "v110")) as f:
                self._write_tables(f, samples)
                states = np.concatenate([s.states for s in samples], axis=1)
                kind, space = state_type(self._dtype), h5py.h5s.create_simple(states.shape)
                plist = h5py.h5p.create(h5py.h5p.DATASET_CREATE)
                plist.set_chunk((1, min(256, states.shape[1]), states.shape[2]))
                plist.set_fletcher32()
                data = h5py.h5d.create(f.id, b"states", kind, space, plist)
                data.write(h5py.h5s.ALL, h5py.h5s.ALL, np.ascontiguousarray(states), mtype=kind)
                f.attrs["uuid"] = str(uuid.uuid4())
                f.attrs["settings"] = self._settings
                self._close(f)
            os.replace(temporary, path)
        finally:
            temporary.unlink(missing_ok=True)
        self._shards.append(path)

    def _close(self, f: h5py.File) -> None:
        f.attrs.update(self._attributes)
        f.attrs["complete"] = 1

    def _write_tables(self, f: h5py.File, samples: list[Sample]) -> None:
        first_image, parts = 0, []
        for s in samples:
            image = s.columns["image"]
            parts.append(s.columns | {"image": np.where(image >= 0, image + first_image, -1)})
            first_image += len(s.images)
        for name, kind in COLUMNS.items():
            f["tokens/" + name] = np.concatenate([p[name] for p in parts]).astype(kind)
        f["samples/id"] = np.array([s.number for s in samples], np.int64)
        f["samples/split"] = np.array([s.heldout for s in samples], np.uint8)
        f.create_dataset("samples/prompt", data=[s.prompt for s in samples], dtype=_TEXT)
        f.create_dataset("samples/answer", data=[s.answer for s in samples], dtype=_TEXT)
        images = [(s.number, i) for s in samples for i in s.images]
        for name in ("path", "sha256"):
            f.create_dataset("images/" + name, data=[i[name] for _, i in images], dtype=_TEXT, shape=(len(images),))
        f["images/sample"] = np.array([n for n, _ in images], np.int32)
        for name in ("width", "height"):
            f["images/" + name] = np.array([i[name] for _, i in images], np.int32)

    def finish(self, head: Any, pieces: list[str]) -> None:
        """Writes index.h5 over all shards. `head` is _inspect.Head."""
        self._flush()
        if not self._shards:
            raise ValueError("no samples were given")
        temporary = self._out / f"index.h5.tmp-{os.getpid()}"
        try:
            with h5py.File(temporary, "w", libver=("earliest", "v110")) as f:
                self._join(f)
                _write_head(f, head)
                f.create_dataset("vocab/text", data=pieces, dtype=_TEXT)
                self._close(f)
            os.replace(temporary, self._out / "index.h5")
        finally:
            temporary.unlink(missing_ok=True)

    def _join(self, f: h5py.File) -> None:
        """The tables of all shards one after the other, and their states as one virtual dataset."""
        tables: dict[str, list[Any]] = {}
        sizes, uuids, first_image = [], [], 0
        for path in self._shards:
            with h5py.File(path, "r") as shard:
                for group in ("tokens", "samples", "images"):
                    for name, data in shard[group].items():
                        text = h5py.check_string_dtype(data.dtype) is not None
                        value = data.asstr()[:] if text else data[:]
                        if (group, name) == ("tokens", "image"):
                            value = np.where(value >= 0, value + first_image, -1).astype(np.int32)
                        tables.setdefault(f"{group}/{name}", []).append(value)
                first_image += len(shard["images/sample"])
                sizes.append(shard["states"].shape)
                uuids.append(shard.attrs["uuid"])
        for name, parts in tables.items():
            joined = np.concatenate(parts)
            f.create_dataset(name, data=joined, dtype=_TEXT if joined.dtype == object else joined.dtype)
        names = [p.name for p in self._shards]
        f.create_dataset("shards/name", data=names, dtype=_TEXT)
        f.create_dataset("shards/uuid", data=uuids, dtype=_TEXT)
        f["shards/n_tokens"] = np.array([s[1] for s in sizes], np.int64)
        total = sum(s[1] for s in sizes)
        plist, first = h5py.h5p.create(h5py.h5p.DATASET_CREATE), 0
        for name, shape in zip(names, sizes):
            space = h5py.h5s.create_simple((shape[0], total, shape[2]))
            space.select_hyperslab((0, first, 0), shape)
            plist.set_virtual(space, name.encode(), b"/states", h5py.h5s.create_simple(shape))
            first += shape[1]
        h5py.h5d.create(f.id, b"states", state_type(self._dtype),
                        h5py.h5s.create_simple((sizes[0][0], total, sizes[0][2])), plist)


def _write_head(f: h5py.File, head: Any) -> None:
    for name in ("weight", "bias", "norm_weight", "norm_bias"):
        value = getattr(head, name)
        if value is not None:
            f["head/" + name] = value.detach().float().cpu().numpy()
    f["head"].attrs["norm"] = head.norm
    f["head"].attrs["eps"] = head.eps
    if head.softcap:
        f["head"].attrs["softcap"] = head.softcap
