"""A lens: one affine adapter for each state of a model."""
from __future__ import annotations

import os
import weakref
from typing import TYPE_CHECKING, Any

import numpy as np
import numpy.typing as npt

from vlens._native import Device, call, ffi, lib, path, text

if TYPE_CHECKING:
    from vlens.cache import Cache
    from vlens.torch_lens import TorchLens

F32 = npt.NDArray[np.float32]

_owners: weakref.WeakKeyDictionary[Any, Any] = weakref.WeakKeyDictionary()  # a lens on a device keeps its lens open


class Lens:
    """A lens folder, opened and checked. ``lens_i(h) = unembed(final_norm(h + A_i h + b_i))``.

    >>> lens = vlens.Lens.open(LENS)
    >>> lens.n_layers, lens.d_model
    (12, 128)
    >>> lens.weight(3).shape
    (128, 128)
    >>> lens.weight(3).flags.writeable
    False
    """

    def __init__(self, pointer: Any) -> None:
        self._pointer = ffi.gc(pointer, lib.vl_lens_close)
        self._on_device: Any = None  # made by the first transform
        info = lib.vl_lens_get_info(self._pointer)
        self.path: str = text(info.path)
        self.d_model: int = info.d_model
        self.n_layers: int = info.n_layers
        self.fingerprint: str = text(info.fingerprint)
        self.model_id: str = text(info.model_id)
        self.config: str = text(info.config)
        self.tokens_seen: int = info.tokens_seen
        self.heldout_kl: list[float] | None = (
            [info.heldout_kl[i] for i in range(info.n_layers)] if info.heldout_kl != ffi.NULL else None)

    @classmethod
    def open(cls, folder: str | os.PathLike[str]) -> Lens:
        """Opens a lens folder, or its lens.safetensors. Raises VlensError where it is none."""
        out = ffi.new("vl_lens **")
        call(lib.vl_lens_open, out, path(folder))
        return cls(out[0])

    def __repr__(self) -> str:
        return f"<vlens.Lens {self.path}: {self.n_layers} adapters of width {self.d_model}, of {self.model_id or '?'}>"

    def _view(self, pointer: Any, shape: tuple[int, ...]) -> F32 | None:
        """Memory of the lens as an array without a copy. The array keeps the lens alive."""
        if pointer == ffi.NULL:
            return None
        kept = np.frombuffer(ffi.buffer(pointer, 4 * int(np.prod(shape))), dtype=np.float32).view(_Kept)
        kept.lens = self
        kept.flags.writeable = False
        return kept.reshape(shape)

    def _check_layer(self, layer: int) -> None:
        if not 0 <= layer < self.n_layers:
            raise IndexError(f"adapter {layer}: this lens has adapters 0 to {self.n_layers - 1}")

    def weight(self, layer: int) -> F32 | None:
        """A_i [D, D], row-major [out, in]; None where that state was not fitted or has a bias only. Not a copy."""
        self._check_layer(layer)
        return self._view(lib.vl_lens_weight(self._pointer, layer), (self.d_model, self.d_model))

    def bias(self, layer: int) -> F32 | None:
        """b_i [D]; None where that state was not fitted. Not a copy."""
        self._check_layer(layer)
        return self._view(lib.vl_lens_bias(self._pointer, layer), (self.d_model,))

    def transform(self, layer: int, h: npt.ArrayLike) -> F32:
        """h + A_i h + b_i for rows h [..., D], computed by libvlens on the processor. ``layer`` == n_layers copies."""
        rows = np.ascontiguousarray(h, dtype=np.float32)
        if rows.shape[-1:] != (self.d_model,):
            raise ValueError(f"states of shape {rows.shape}, expected [..., {self.d_model}]")
        out = np.empty_like(rows)
        n = rows.size // self.d_model
        if self._on_device is None:
            moved = ffi.new("vl_device_lens **")
            call(lib.vl_device_lens_new, moved, self._pointer, Device.get("cpu").pointer)
            self._on_device = ffi.gc(moved[0], lib.vl_device_lens_free)
            _owners[self._on_device] = self._pointer  # freed before the lens is closed
        call(lib.vl_device_lens_transform, self._on_device, layer, _tensor(out, n, self.d_model),
             _tensor(rows, n, self.d_model))
        return out

    def logits(self, layer: int, h: npt.ArrayLike, cache: Cache) -> F32:
        """Logits [..., V] of states h [..., D] through this lens and the head that travels with ``cache``.

        Raises VlensError where lens and head belong to different models."""
        head = cache.head()
        call(lib.vl_lens_check, self._pointer, lib.vl_head_get_info(head._pointer), False, ffi.NULL)
        return head.logits(self.transform(layer, h))

    def to_torch(self) -> TorchLens:
        """The adapters as a torch.nn.Module (parameters do not require gradients)."""
        from vlens.torch_lens import TorchLens

        return TorchLens(self)


class _Kept(np.ndarray):
    """An array that keeps the lens whose memory it shows."""

    lens: Any = None

    def __array_finalize__(self, other: Any) -> None:
        self.lens = getattr(other, "lens", None)


def _tensor(array: F32, rows: int, columns: int) -> Any:
    """A vl_tensor over an array's memory; the caller keeps the array."""
    return ffi.new("vl_tensor *", {"data": ffi.cast("void *", array.ctypes.data), "dtype": lib.VL_F32, "ndim": 2,
                                   "shape": [rows, columns, 0, 0], "row_stride": columns})[0]
