#!/usr/bin/env python3
"""The command line's output as whole text. A document in golden/ is prose, and commands with what they print:

        $ vlens trian
        vlens: "trian" is no command; vlens --help lists them
        [2]

Indented by four spaces: a command (`> ` continues it), its standard output, its standard error, and its exit code unless
that is 0. The commands of a document run in one empty folder, one after another; $SOURCE is the folder of the sources.
A failing vlens must print one error line, the last one. Paths, process numbers, times, the device's line and progress bars are left out.

golden.py VLENS SOURCE [--write] DOCUMENT.md ...    --write: puts what the commands print into the documents"""
import difflib
import os
import pathlib
import re
import subprocess
import sys
import tempfile

INDENT = "    "
# What depends on the machine or the moment.
# the bytes of a cache count the paths of its pictures, so they depend on where the sources lie
MASKS = [(r"\.tmp-\d+", ".tmp-PID"), (r"needs \d+ bytes", "needs SOME bytes"), (r"(took|estimated) +[\d.:]+( [a-z]+)?", r"\1 SOME TIME"),
         (r"(truncated file): eof.*", r"\1 ..."), (r"(supported): .*", r"\1: the families"), (r"\d{4}-\d\d-\d\dT[\d:]+Z", "SOME DAY"),
         (r"(steps, \d+ tokens), [\d.]+ s", r"\1, SOME TIME"), (r"(fit_seconds|seconds)(\"?:) [\d.e-]+", r"\1\2 SOME TIME")]
LEFT_OUT = r"\w+ +\[[#.]+\] |device (cpu|cuda).*:"


def blocks(text):
    """Pieces of a document in order: a string of prose, or (command, expected output) of a command."""
    lines, i, prose = text.split("\n"), 0, []
    while i < len(lines):
        if not lines[i].startswith(INDENT + "$ "):
            prose.append(lines[i])
            i += 1
            continue
        yield "\n".join(prose)
        prose, command = [], [lines[i][6:]]
        i += 1
        while i < len(lines) and lines[i].startswith(INDENT + "> "):
            command.append(lines[i][6:])
            i += 1
        start = i
        while i < len(lines) and not lines[i].startswith(INDENT + "$ ") and (not lines[i] or lines[i].startswith(INDENT)):
            i += 1
        while i > start and not lines[i - 1]:
            i -= 1
        yield "\n".join(command), [line[4:] for line in lines[start:i]]
    yield "\n".join(prose)


def run(command, environment, masks):
    done = subprocess.run(["bash", "-c", command], capture_output=True, text=True, env=environment,
                          stdin=subprocess.DEVNULL)
    text = done.stdout + done.stderr
    for pattern, name in masks:
        text = re.sub(pattern, name, text)
    lines = [line.rstrip() for line in text.split("\n") if not re.match(LEFT_OUT, line)]
    while lines and not lines[-1]:
        lines.pop()
    errors = sum(line.startswith("vlens") for line in done.stderr.split("\n"))
    wrong = ""
    if done.returncode and command.startswith("vlens ") and (errors != 1 or not lines[-1].startswith("vlens")):
        wrong = f"{errors} error lines, expected one, at the end"
    return lines + ([f"[{done.returncode}]"] if done.returncode else []), wrong


def check(document, vlens, source, write):
    """The number of commands that print something else than the document says."""
    text, differ, out = document.read_text(encoding="utf-8"), 0, []
    with tempfile.TemporaryDirectory() as work:
        os.chdir(work)
        environment = {"PATH": f"{vlens.parent}:{os.environ['PATH']}", "HOME": work, "SOURCE": str(source), "LC_ALL": "C",
                       "GOMP_SPINCOUNT": "3000"}
        environment |= {k: v for k, v in os.environ.items() if k.startswith(("OPENBLAS_", "ASAN_", "LD_"))}
        masks = [(re.escape(str(source)), "$SOURCE"), (re.escape(work), "$WORK")] + MASKS
        for block in blocks(text):
            if isinstance(block, str):
                out.append(block)
                continue
            command, expected = block
            found, wrong = run(command, environment, masks)
            if found != expected or wrong:
                differ += 1
                print(f"{document.name}: $ {command}" + (f": {wrong}" if wrong else ""))
                for line in difflib.unified_diff(expected, found, "expected", "found", lineterm="", n=1):
                    print("    " + line)
            first, *more = command.split("\n")
            out.append("\n".join([INDENT + "$ " + first] + [INDENT + "> " + line for line in more] +
                                 [(INDENT + line).rstrip() for line in found]))
        os.chdir("/")
    if write:
        document.write_text("\n".join(part for part in out[:-1] if part) + "\n" + out[-1], encoding="utf-8")
    return differ


def main():
    write = "--write" in sys.argv
    vlens, source, *documents = [pathlib.Path(a).resolve() for a in sys.argv[1:] if a != "--write"]
    differ = sum(check(document, vlens, source, write) for document in documents)
    print(f"{differ} commands print something else" if differ else "all as the documents say")
    return bool(differ and not write)


if __name__ == "__main__":
    sys.exit(main())
