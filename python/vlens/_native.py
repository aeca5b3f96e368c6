"""libvlens, the program beside it, and how their errors become exceptions."""
from __future__ import annotations

import ctypes.util
import os
import pathlib
import shutil
from typing import Any

from vlens._bindings import ffi as _ffi

ffi: Any = _ffi
_HERE = pathlib.Path(__file__).resolve().parent


class VlensError(RuntimeError):
    """A call failed. The message is the one line that libvlens gave: what, where, expected, found.

    ``status`` is the short name of the kind of error: "io error", "wrong format", "mismatch" ..."""

    def __init__(self, status: str, message: str) -> None:
        super().__init__(message)
        self.status = status


def _find_library() -> str:
    named = os.environ.get("VLENS_LIBRARY")
    if named:
        return named
    for folder in (_HERE / "lib", _HERE.parent / "vlens.libs"):
        for file in sorted(folder.glob("libvlens*.so*")):
            return str(file)
    found = ctypes.util.find_library("vlens")
    if not found:
        raise ImportError("libvlens was not found: neither in the package nor installed; VLENS_LIBRARY can name it")
    return found


lib: Any = ffi.dlopen(_find_library())


def check(status: int, err: Any) -> None:
    """Raises what a call that filled ``err`` (``vl_error *``) returned, unless it is VL_OK."""
    if status != 0:
        name = text(lib.vl_status_name(status))
        raise VlensError(name, text(err.message))


def call(function: Any, *arguments: Any) -> None:
    """``function(*arguments, &err)`` with the error raised."""
    err = ffi.new("vl_error *")
    check(function(*arguments, err), err)


def text(pointer: Any) -> str:
    """A C string as str; "" for NULL."""
    return "" if pointer == ffi.NULL else bytes(ffi.string(pointer)).decode("utf-8", "replace")


def taken(pointer: Any) -> str:
    """A string that libvlens hands over: copied and released."""
    try:
        return text(pointer)
    finally:
        lib.vl_release(pointer)


def path(value: str | os.PathLike[str]) -> bytes:
    return os.fsencode(value)


def library_version() -> str:
    """The version of the library that is loaded."""
    return text(lib.vl_version())


def program() -> str:
    """The path of the vlens program: that of the package, or the one that PATH finds.

    >>> import os, vlens
    >>> os.path.exists(vlens.program())
    True
    """
    own = _HERE / "bin" / "vlens"
    named = os.environ.get("VLENS_PROGRAM") or (str(own) if own.exists() else shutil.which("vlens"))
    if not named:
        raise FileNotFoundError("the vlens program was not found: neither in the package nor on PATH")
    return named


class Device:
    """Where libvlens computes: "auto", "cpu", "cuda", "cuda:1". Opened once per name and number of threads."""

    _open: dict[tuple[str, int], Device] = {}

    def __init__(self, name: str, threads: int) -> None:
        out = ffi.new("vl_device **")
        call(lib.vl_device_open, out, name.encode(), threads)
        self.pointer = out[0]

    @classmethod
    def get(cls, name: str = "auto", threads: int = 0) -> Device:
        key = (name, threads)
        if key not in cls._open:
            cls._open[key] = cls(name, threads)
        return cls._open[key]
