"""The activation cache: every state of every kept token."""
from __future__ import annotations

import os
from typing import Any

import numpy as np
import numpy.typing as npt

from vlens._native import Device, call, ffi, lib, path, text
from vlens.lens import F32, _tensor

_DTYPES = {"float32": np.float32, "float16": np.float16, "bfloat16": np.uint16}


class Head:
    """The final norm and the unembedding that travel with a cache."""

    def __init__(self, cache: Cache) -> None:
        out = ffi.new("vl_head **")
        call(lib.vl_cache_head, out, cache._pointer, Device.get("cpu").pointer, lib.VL_PRECISION_EXACT)
        self._cache = cache
        self._pointer = ffi.gc(out[0], lib.vl_head_close)
        info = lib.vl_head_get_info(self._pointer)
        self.d_model: int = info.d_model
        self.vocab_size: int = info.vocab_size
        self.n_layers: int = info.n_layers
        self.fingerprint: str = text(info.fingerprint)

    def logits(self, states: npt.ArrayLike) -> F32:
        """unembed(final_norm(states)): [..., D] -> [..., V], in fp32 on the processor."""
        rows = np.ascontiguousarray(states, dtype=np.float32)
        if rows.shape[-1:] != (self.d_model,):
            raise ValueError(f"states of shape {rows.shape}, expected [..., {self.d_model}]")
        n = rows.size // self.d_model
        out = np.empty((*rows.shape[:-1], self.vocab_size), np.float32)
        call(lib.vl_head_logits, self._pointer, _tensor(out, n, self.vocab_size), _tensor(rows, n, self.d_model))
        return out


class Cache:
    """A cache folder, opened and checked. Columns of its rows are NumPy arrays [N].

    >>> cache = vlens.Cache.open(CACHE)
    >>> cache.states(0, rows=slice(0, 4)).shape
    (4, 128)
    >>> cache.classes[:3]
    ['text', 'image', 'last']
    >>> rows = cache.rows(token_class="last")
    >>> bool((cache.token_class[rows] == 2).all())
    True
    """

    def __init__(self, pointer: Any) -> None:
        self._pointer = ffi.gc(pointer, lib.vl_cache_close)
        info = lib.vl_cache_get_info(self._pointer)
        self.path: str = text(info.path)
        self.n_tokens: int = info.n_tokens
        self.n_states: int = info.n_states
        self.d_model: int = info.d_model
        self.vocab_size: int = info.vocab_size
        self.model_id: str = text(info.model_id)
        self.fingerprint: str = text(info.fingerprint)
        self.dtype: str = text(lib.vl_dtype_name(info.dtype))
        tokens = lib.vl_cache_get_tokens(self._pointer)
        self.id = self._column(tokens.id, np.int32)
        self.next_id = self._column(tokens.next_id, np.int32)
        self.position = self._column(tokens.position, np.int32)
        self.sample = self._column(tokens.sample, np.int32)
        self.image = self._column(tokens.image, np.int32)
        self.token_class = self._column(tokens.token_class, np.uint8)
        self.patch = self._column(tokens.patch, np.int16, 3)
        samples = lib.vl_cache_get_samples(self._pointer)
        n = info.n_samples
        self.sample_id = np.frombuffer(ffi.buffer(samples.id, 8 * n), np.int64).copy() if n else np.empty(0, np.int64)
        self.prompt: list[str] = [text(samples.prompt[i]) for i in range(n)]
        self.classes: list[str] = [text(lib.vl_token_class_name(i)) for i in range(lib.VL_CLASS_COUNT)]

    @classmethod
    def open(cls, folder: str | os.PathLike[str]) -> Cache:
        """Opens a cache folder, or its index.h5. Raises VlensError where it is none or not complete."""
        out = ffi.new("vl_cache **")
        call(lib.vl_cache_open, out, path(folder))
        return cls(out[0])

    def __repr__(self) -> str:
        return (f"<vlens.Cache {self.path}: {self.n_tokens} rows, {self.n_states} states of width {self.d_model} "
                f"({self.dtype}), of {self.model_id or '?'}>")

    def _column(self, pointer: Any, dtype: Any, width: int = 1) -> npt.NDArray[Any]:
        size = self.n_tokens * width * np.dtype(dtype).itemsize
        column: npt.NDArray[Any] = np.frombuffer(ffi.buffer(ffi.cast("char *", pointer), size), dtype).copy()
        return column.reshape(-1, width) if width > 1 else column

    def rows(self, token_class: str | None = None, sample: int | None = None) -> npt.NDArray[np.int64]:
        """The numbers of the rows of a token class, of a sample, or of both."""
        keep = np.ones(self.n_tokens, bool)
        if token_class is not None:
            if token_class not in self.classes:
                raise ValueError(f"token class {token_class!r}, expected one of {', '.join(self.classes)}")
            keep &= self.token_class == self.classes.index(token_class)
        if sample is not None:
            keep &= self.sample == sample
        return np.flatnonzero(keep)

    def states(self, state: int, rows: slice | npt.ArrayLike | None = None) -> F32:
        """Rows of one state as float32 [n, D]: all, a slice, or given numbers in any order."""
        if not 0 <= state < self.n_states:
            raise IndexError(f"state {state}: this cache has states 0 to {self.n_states - 1}")
        if rows is None or isinstance(rows, slice):
            first, last, step = (rows or slice(None)).indices(self.n_tokens)
            numbers = np.arange(first, last, step)
        else:
            numbers = np.asarray(rows, np.int64)
        if numbers.size and not (0 <= numbers.min() and numbers.max() < self.n_tokens):
            raise IndexError(f"rows {numbers.min()} to {numbers.max()}: this cache has rows 0 to {self.n_tokens - 1}")
        order = np.argsort(numbers, kind="stable")
        out = np.empty((numbers.size, self.d_model), np.float32)
        start = 0
        while start < numbers.size:  # neighbours are read together
            end = start + 1
            while end < numbers.size and numbers[order[end]] == numbers[order[end - 1]] + 1:
                end += 1
            out[order[start:end]] = self._read(state, int(numbers[order[start]]), end - start)
            start = end
        return out

    def _read(self, state: int, first: int, n: int) -> F32:
        raw = np.empty((n, self.d_model), _DTYPES[self.dtype])
        call(lib.vl_cache_read, ffi.cast("void *", raw.ctypes.data), self._pointer, state, first, n)
        if self.dtype == "bfloat16":  # the upper half of a float32
            return (raw.astype(np.uint32) << 16).view(np.float32)
        return raw.astype(np.float32)

    def head(self) -> Head:
        """The head that travels with the cache."""
        return Head(self)
