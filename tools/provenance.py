#!/usr/bin/env python3
"""Writes the table of docs/reference/provenance.md (each key, and what is made again when it changes) from the program's
own option table, or checks that it is current.

provenance.py VLENS FILE [--check]"""
import pathlib
import subprocess
import sys

BEGIN, END = "<!-- keys: written by tools/provenance.py -->", "<!-- end of keys -->"
# what a key affects: what no longer holds when it changes
INVALIDATES = {
    "forward": "the states of all samples: another cache",
    "rows": "the rows of all samples, or which samples there are",
    "split": "lens and results; no state",
    "fit": "the lens",
    "eval": "results",
    "view": "pages and tables",
    "machine": "nothing",
}
CONTENT = {"data.samples", "data.text", "data.images"}  # compared by what lies there: only what is new runs


def keys(vlens):
    """(key, affects) of every row of `vlens help --markdown`."""
    text = subprocess.run([vlens, "help", "--markdown"], check=True, stdout=subprocess.PIPE, text=True).stdout
    for line in text.splitlines():
        cells = [cell.strip() for cell in line.replace("\\|", "/").strip("|").split("|")]
        if line.startswith("| `") and len(cells) >= 5:
            yield cells[0].strip("`"), [word.strip() for word in cells[-1].split(",")]


def table(vlens):
    lines = ["| key | affects | what it invalidates |", "|---|---|---|"]
    for key, affects in keys(vlens):
        what = "; ".join(INVALIDATES[word] for word in affects)
        if key in CONTENT:
            what = "the samples whose content is new, and those alone"
        if key == "model":
            what = "everything, where the digest differs; nothing, where only the name does"
        lines.append(f"| `{key}` | {', '.join(affects)} | {what} |")
    return "\n".join(lines)


def main():
    vlens, file = sys.argv[1], pathlib.Path(sys.argv[2])
    text = file.read_text(encoding="utf-8")
    before, rest = text.split(BEGIN)
    after = rest.split(END)[1]
    new = before + BEGIN + "\n" + table(vlens) + "\n" + END + after
    if new.count("| `") < 50:
        sys.exit("provenance.py: no keys were found")
    if "--check" not in sys.argv:
        file.write_text(new, encoding="utf-8")
    elif new != text:
        sys.exit(f"{file} is not current: tools/provenance.py {vlens} {file} writes it")


if __name__ == "__main__":
    main()
