#!/usr/bin/env python3
"""The rules of tools/check_style.py fail where they should: each is shown a file that breaks it, in a tree of its own."""
import pathlib
import subprocess
import sys
import tempfile

ROOT = pathlib.Path(sys.argv[1])
CASES = [  # path, source, what the checker says; None: nothing
    ("trainer/fit/second.c", "static int f(void)\n{\n    return vl_cache_read(a, b, 0, 0, 1, e);\n}\n", "second.c:3: a second loop"),
    ("trainer/eval/second.c", "int f(void)\n{\n    return vl_head_logits(h, a, b, e);\n}\n", "second.c:3: a second loop"),
    ("trainer/view/second.c", "/* vl_cache_read(...) is not called here */\nint x;\n", None),
    ("trainer/readout/walk.c", "int f(void)\n{\n    return vl_cache_read(a, b, 0, 0, 1, e);\n}\n", None),
    ("trainer/lens/half.c", "float f(void)\n{\n    return vl_bf16_to_f32(x);\n}\n", "half.c:3: half precision by hand"),
    ("trainer/fit/exit.c", "void f(void)\n{\n    exit(1);\n}\n", "exit.c:3: a library does not end its program"),
    ("trainer/fit/env.c", "void f(void)\n{\n    getenv(x);\n}\n", "env.c:3: a library does not read the environment"),
    ("trainer/fit/global.c", "static int count = 0;\n", "global.c:1: a library holds no mutable global"),
    ("trainer/fit/long.c", "int x;\n" * 601, "long.c:0: 601 lines"),
]


def main():
    bad = 0
    for path, source, wanted in CASES:
        with tempfile.TemporaryDirectory() as folder:
            file = pathlib.Path(folder) / path
            file.parent.mkdir(parents=True)
            file.write_text(source, encoding="utf-8")
            ran = subprocess.run([sys.executable, ROOT / "tools/check_style.py", folder], capture_output=True, text=True)
            right = ran.returncode == (wanted is not None) and (wanted or "0 violations") in ran.stdout
            bad += not right
            print(f"{'ok' if right else 'WRONG'}: {path}: {ran.stdout.strip()}")
    return 1 if bad else 0


if __name__ == "__main__":
    sys.exit(main())
