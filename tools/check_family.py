#!/usr/bin/env python3
"""Proves that a family of models is one folder and one row: no other source names it.

Looks for the names of the folders of trainer/model/families in code, comments left out, as whole words or parts of
identifiers ("vl_gpt2_x"), in trainer/, kernels/ and include/. Allowed: the folder itself, other families (one may stand on
another), and the row in families/table.c. Exit 1 with one line per violation."""
import pathlib
import re
import sys

FAMILIES = "trainer/model/families"
# a value of rope_type; GPT-2's way of cutting words, which many tokenizers have; names of the rules in a model's digest;
# the example of the manual page; formats of data sets
EXCUSED = re.compile(r"llama3|VL_ROPE_LLAMA3|GPT2_REGEX|mllama-(mask|intermediate)|llava\\\\-|VL_FORMAT_LLAVA|LLaVA or ShareGPT|LLaVA conversations|prompt\|llava\|sharegpt", re.IGNORECASE)
# ways of fitting a picture that are named after where they come from
EXAMPLES = {"trainer/image/sizes.c", "trainer/image/sizes.h"}


def strip_comments(text):
    return re.sub(r"//[^\n]*", "", re.sub(r"/\*.*?\*/", lambda m: "\n" * m.group().count("\n"), text, flags=re.DOTALL))


def main():
    root = pathlib.Path(sys.argv[1] if len(sys.argv) > 1 else ".")
    families = sorted(p.name for p in (root / FAMILIES).iterdir() if p.is_dir())
    rows = (root / FAMILIES / "table.c").read_text(encoding="utf-8")
    names = re.compile(r"(?<![a-z0-9])(" + "|".join(sorted(families, key=len, reverse=True)) + r")(?![a-z0-9])",
                       re.IGNORECASE)
    bad = checked = 0
    for folder in ("trainer", "kernels", "include"):
        for file in sorted((root / folder).rglob("*")):
            path = file.relative_to(root).as_posix()
            if file.suffix not in (".c", ".h", ".cu", ".cuh", ".cpp", ".txt") or path.startswith(FAMILIES + "/"):
                continue
            checked += 1
            for number, line in enumerate(strip_comments(file.read_text(encoding="utf-8")).split("\n"), 1):
                found = names.search(EXCUSED.sub("", line))
                if found and path not in EXAMPLES:
                    bad += 1
                    print(f"{path}:{number}: names the family {found.group()}: only its folder and its row may")
    for family in families:
        row = re.search(rf"ROW\({family}\)", rows)
        own = any("const vl_family vl_family_" + family in f.read_text(encoding="utf-8")
                  for f in (root / FAMILIES / family).glob("*.c"))
        if bool(row) != own:
            bad += 1
            print(f"{FAMILIES}/{family}: " + ("has no row in table.c" if own else "has a row, but no vl_family"))
    print(f"{checked} files checked against {len(families)} families, {bad} violations")
    return 1 if bad or not checked else 0


if __name__ == "__main__":
    sys.exit(main())
