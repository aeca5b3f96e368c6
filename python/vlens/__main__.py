"""The command `vlens` of the Python package: the program itself, and `vlens demo`."""
from __future__ import annotations

import os
import sys


def main() -> None:
    """Becomes the vlens program; `demo` runs everything on the model that the package carries."""
    from vlens._native import program

    if sys.argv[1:2] == ["demo"]:
        from vlens.demo import main as demo

        sys.exit(demo(sys.argv[2:]))
    os.execv(program(), ["vlens", *sys.argv[1:]])


if __name__ == "__main__":
    main()
