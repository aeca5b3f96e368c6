#!/usr/bin/env python3
"""The measured tables of the documents, out of the JSON files in docs/results/data. No number in them is typed by hand.

    results.py [--check]                      writes the tables of all documents anew; --check: exit 1 where one differs
    results.py eval NAME EVAL.json CLASS METRIC STATES COMMAND
                                              records a table out of what `vlens eval --json` wrote
    import results; results.record(...)       what the scripts in tests/bench call

A file is {command, note, machine, date, columns, rows}; a note may be missing. A document says where its table goes, and what stands between the two marks
is written by this program:

    <!-- data: NAME -->
    <!-- end -->"""
import datetime
import json
import os
import pathlib
import re
import sys

ROOT = pathlib.Path(__file__).resolve().parent.parent
DATA = ROOT / "docs/results/data"
MARK = re.compile(r"(<!-- data: ([\w-]+)(?: columns: ([^>]*?))? -->\n)(.*?)(<!-- end -->)", re.S)
# tables that other scripts write and check
OTHERS = re.compile(r"<!-- (kernels|counts|table|border)[ :].*?<!-- (kernels: )?end( of \w+)? -->", re.S)


def machine():
    """Processor, threads and memory of this machine, and how busy it is."""
    model = re.search(r"model name\s*: (.*)", pathlib.Path("/proc/cpuinfo").read_text(encoding="utf-8"))
    gib = os.sysconf("SC_PHYS_PAGES") * os.sysconf("SC_PAGE_SIZE") / 2**30
    return f"{os.cpu_count()} threads of {model.group(1) if model else '?'}, {gib:.0f} GiB, load {os.getloadavg()[0]:.0f}"


def record(name, command, columns, rows):
    """Writes docs/results/data/NAME.json; cells are texts or numbers, as they shall stand in the table."""
    DATA.mkdir(exist_ok=True)
    write(DATA / f"{name}.json", {"command": command, "machine": machine(), "date": datetime.date.today().isoformat(),
                                  "columns": columns, "rows": rows})


def write(path, data):
    """One row a line, so that a diff shows which number moved."""
    head = "".join(f" {json.dumps(key)}: {json.dumps(data[key], ensure_ascii=False)},\n" for key in data if key != "rows")
    rows = ",\n".join("  " + json.dumps(row, ensure_ascii=False) for row in data["rows"])
    path.write_text("{\n" + head + ' "rows": [\n' + rows + "\n ]\n}\n", encoding="utf-8")


def table(name, only):
    """The table as Markdown, and where it comes from. `only`: names of columns, or None for all."""
    data = json.loads((DATA / f"{name}.json").read_text(encoding="utf-8"))
    columns = data["columns"]
    for row in data["rows"]:
        if len(row) != len(columns):
            raise SystemExit(f"{name}.json: a row of {len(row)} cells under {len(columns)} columns")
    chosen = range(len(columns)) if only is None else [columns.index(c.strip()) for c in only.split("|")]
    lines = ["| " + " | ".join(columns[i] for i in chosen) + " |", "|" + "---|" * len(chosen)]
    lines += ["| " + " | ".join(str(row[i]) for i in chosen) + " |" for row in data["rows"]]
    source = [f"`{data['command']}`" if data["command"] else "", data.get("note"), data["machine"], data["date"]]
    return "\n".join(lines) + "\n\n" + "; ".join(part for part in source if part) + "\n"


def documents():
    return [ROOT / "README.md", *sorted((ROOT / "docs").rglob("*.md"))]


def bare_tables(text):
    """Line numbers of tables with decimal numbers that no file is behind."""
    inside = {i for m in [*MARK.finditer(text), *OTHERS.finditer(text)]
              for i in range(text[:m.start()].count("\n"), text[:m.end()].count("\n") + 1)}
    for number, line in enumerate(text.split("\n")):
        if line.startswith("|") and number not in inside and re.search(r"\| \**-?\d+\.\d+[ *|]", line):
            yield number + 1


def main():
    if len(sys.argv) > 1 and sys.argv[1] == "eval":
        return from_eval(*sys.argv[2:])
    check, wrong, used = "--check" in sys.argv, 0, set()
    for document in documents():
        old = document.read_text(encoding="utf-8")
        used |= {m.group(2) for m in MARK.finditer(old)}
        new = MARK.sub(lambda m: m.group(1) + table(m.group(2), m.group(3)) + m.group(5), old)
        if new != old:
            wrong += 1
            print(f"{document.relative_to(ROOT)}: " + ("is not what its data say; `make results`" if check else "written"))
            if not check:
                document.write_text(new, encoding="utf-8")
        if document.is_relative_to(ROOT / "docs/results"):
            for number in bare_tables(old):
                wrong += 1
                print(f"{document.relative_to(ROOT)}:{number}: a table of numbers without a file in docs/results/data")
    for name in sorted({file.stem for file in DATA.glob("*.json")} - used):
        wrong += 1
        print(f"docs/results/data/{name}.json: no document shows it")
    print(f"{len(used)} tables")
    return bool(wrong and check)


def from_eval(name, path, group, metric, states, command):
    data = json.loads(pathlib.Path(path).read_text(encoding="utf-8"))
    found = next(c for c in data["classes"] if c["class"] == group)
    lenses = [lens for lens in ("logit", "baseline", "tuned", "wrong_picture") if lens in found["states"][0]]
    titles = {"logit": "logit lens", "baseline": "bias-only lens", "tuned": "tuned lens", "wrong_picture": "wrong picture"}
    rows = [[s["state"], *(f"{s[lens][metric]:.3f}" for lens in lenses)]
            for s in found["states"] if s["state"] in map(int, states.split(","))]
    record(name, command, ["state", *(titles[lens] for lens in lenses)], rows)
    return 0


if __name__ == "__main__":
    sys.exit(main())
