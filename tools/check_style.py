#!/usr/bin/env python3
"""Habits that a compiler does not check: file length, what a library must not do, leftovers. Exit 1 on a violation."""
import pathlib
import re
import sys

MAX_LINES = 600
MAX_WIDTH = 120
# the command line prints and exits; the library never does
LIBRARY_BANS = [
    (re.compile(r"(?<![\w.])(exit|abort|_exit|quick_exit)\s*\("), "a library does not end its program"),
    (re.compile(r"(?<![\w.])(printf|puts|putchar|perror|vprintf)\s*\("), "a library does not print"),
    (re.compile(r"(?<![\w.])(getenv|secure_getenv)\s*\("), "a library does not read the environment"),
    (re.compile(r"(?<![\w.])(strcpy|strcat|sprintf|vsprintf|gets|atoi|atol|atof|strtok|rand|srand)\s*\("),
     "unbounded or unchecked function"),
]
LEFTOVERS = re.compile(r"\b(" + "|".join(["TO" + "DO", "FIX" + "ME", "X" + "XX", "HA" + "CK"]) + r")\b")
# the simulated device of the tests is a machine, not a library: it stops, and one file of it reads settings
SIMULATED = "kernels/cuda_on_cpu/"
SETTINGS = "kernels/cuda_on_cpu/settings.cpp"
# Rows are walked and read out in one room (trainer/readout/readout.h). Whoever reads states or makes logits of them
# elsewhere has written that loop again.
READOUT = re.compile(r"\b(vl_cache_read|vl_prefetch_take|vl_loader_(?:next|read|load)|vl_head_logits|vl_op_logsumexp|"
                     r"vl_op_metrics|vl_op_unembed_loss)\s*\(")
READOUT_ROOMS = ("trainer/readout/", "trainer/cache/", "trainer/model/", "trainer/bench/", "trainer/cli/")
# Half precision is widened and rounded by vl_widen and vl_narrow (trainer/base/half.h) and by the kernels.
HALF = re.compile(r"\bvl_(bf16|f16)_to_f32\b|\bvl_f32_to_(bf16|f16)\b")
MUTABLE_GLOBAL = re.compile(r"^static (?!const\b|inline\b|_Noreturn\b|vl_status\b)(?:(?:unsigned|struct) )?\w+ \*?\w+(\[[^]]*\])*( = [^;]*)?;$")


def strip_comments(text):
    text = re.sub(r"/\*.*?\*/", lambda m: "\n" * m.group().count("\n"), text, flags=re.DOTALL)
    text = re.sub(r'"(\\.|[^"\\\n])*"', '""', text)
    return re.sub(r"//[^\n]*", "", text)


def check(path, text):
    lines = text.split("\n")
    generated = lines[0].startswith("/* Written by ")  # bytes of data: long lines are what they are
    if len(lines) - 1 > MAX_LINES:
        yield 0, f"{len(lines) - 1} lines, at most {MAX_LINES}"
    if text and not text.endswith("\n"):
        yield len(lines), "no newline at the end"
    for number, line in enumerate(lines, 1):
        if len(line) > MAX_WIDTH and not generated:
            yield number, f"{len(line)} columns, at most {MAX_WIDTH}"
        if line != line.rstrip():
            yield number, "space at the end of the line"
        if "\t" in line:
            yield number, "a tab"
        if LEFTOVERS.search(line):
            yield number, "a leftover note"
    if path.startswith(SIMULATED) and path != SETTINGS and "getenv" in strip_comments(text):
        yield 0, f"only {SETTINGS} reads the environment"
    if path.startswith(("trainer/", "kernels/")) and not path.startswith(("trainer/cli/", SIMULATED)):
        for number, line in enumerate(strip_comments(text).split("\n"), 1):
            for pattern, reason in LIBRARY_BANS:
                if pattern.search(line):
                    yield number, reason
            if MUTABLE_GLOBAL.match(line):
                yield number, "a library holds no mutable global"
            if path.startswith("trainer/") and not path.startswith(READOUT_ROOMS) and READOUT.search(line):
                yield number, "a second loop over states: vl_readout_walk is the one"
            if path.startswith("trainer/") and not path.startswith("trainer/base/") and HALF.search(line):
                yield number, "half precision by hand: vl_widen or vl_narrow"


def main():
    root = pathlib.Path(sys.argv[1] if len(sys.argv) > 1 else ".")
    bad = checked = 0
    for folder in ("trainer", "kernels", "include", "tests"):
        for file in sorted((root / folder).rglob("*")):
            if file.suffix not in (".c", ".h", ".cu", ".cuh", ".cpp"):
                continue
            checked += 1
            path = file.relative_to(root).as_posix()
            for number, reason in check(path, file.read_text(encoding="utf-8")):
                bad += 1
                print(f"{path}:{number}: {reason}")
    print(f"{checked} files checked, {bad} violations")
    return 1 if bad or not checked else 0


if __name__ == "__main__":
    sys.exit(main())
