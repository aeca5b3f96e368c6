"""Writes vlens/_bindings.py from the public headers, so that Python sees exactly the structures that libvlens has.

    python build_bindings.py INCLUDE_DIRECTORY OUT_DIRECTORY

The headers are C without macros worth keeping: directives, the export mark, C++ guards and inline functions go, and the
rest is what cffi reads (ABI mode: nothing is compiled, and pycparser is not needed afterwards)."""
import pathlib
import re
import sys

import cffi

TYPES = "typedef _Bool bool;\n"


def headers(include):
    """The public headers in an order in which each finds what it needs."""
    done, order = set(), []

    def visit(name):
        if name in done:
            return
        done.add(name)
        text = (include / name).read_text(encoding="utf-8")
        for other in re.findall(r"#include <(vlens/[\w]+\.h)>", text):
            visit(other)
        order.append(text)

    visit("vlens/vlens.h")
    return order


def declarations(text):
    """One header as cffi reads it."""
    text = re.sub(r"/\*.*?\*/", " ", text, flags=re.DOTALL)
    text = re.sub(r"#ifdef __cplusplus.*?#endif", "", text, flags=re.DOTALL)
    text = re.sub(r"^\s*#(?:[^\n]*\\\n)*[^\n]*$", "", text, flags=re.MULTILINE)
    text = re.sub(r"^static inline[^{]*\{.*?^\}", "", text, flags=re.MULTILINE | re.DOTALL)
    text = re.sub(r"__attribute__\s*\(\((?:[^()]|\([^()]*\))*\)\)", "", text)
    return text.replace("VL_API ", "")


def main():
    include, out = pathlib.Path(sys.argv[1]), pathlib.Path(sys.argv[2])
    ffi = cffi.FFI()
    ffi.cdef("\n".join(declarations(text) for text in headers(include)))
    ffi.set_source("vlens._bindings", None)
    (out / "vlens").mkdir(parents=True, exist_ok=True)
    ffi.compile(tmpdir=str(out))


if __name__ == "__main__":
    main()
