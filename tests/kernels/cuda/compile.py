#!/usr/bin/env python3
"""Compiles every CUDA source for every architecture and looks at what the assembler says of each kernel.

    compile.py NVCC SOURCE_DIR VERSION [--write docs/results/gpu.md]

Fails on any warning and on any register that a kernel spills to memory. Prints registers and static shared memory of
each kernel; --write puts the table between the marks of that file."""
import argparse
import concurrent.futures
import pathlib
import re
import subprocess
import sys
import tempfile

ARCHITECTURES = ["75", "80", "86", "89", "90", "100", "120"]
ENTRY = re.compile(r"Compiling entry function '(\w+)' for 'sm_(\w+)'")
SPILL = re.compile(r"(\d+) bytes stack frame, (\d+) bytes spill stores, (\d+) bytes spill loads")
USED = re.compile(r"Used (\d+) registers(?:.*?, (\d+) bytes smem)?")
BEGIN, END = "<!-- kernels: written by tests/kernels/cuda/compile.py -->", "<!-- kernels: end -->"


def command(nvcc, root, version, source, out):
    generate = [f"-gencode=arch=compute_{a},code=sm_{a}" for a in ARCHITECTURES]
    generate.append(f"-gencode=arch=compute_{ARCHITECTURES[-1]},code=compute_{ARCHITECTURES[-1]}")
    return [nvcc, "-std=c++17", "-O3", "-c", *generate, "-Xptxas=-v", "-Xcompiler=-Wall,-Wextra,-fno-math-errno",
            f'-DVLENS_VERSION="{version}"', f"-I{root}", f"-I{root}/include", "-o", out, str(source)]


def read_report(text):
    """{(kernel, architecture): (registers, shared, spilled bytes)}, and the lines that are no report."""
    found, other, entry, spilled = {}, [], None, 0
    for line in text.splitlines():
        if match := ENTRY.search(line):
            entry = match.groups()
        elif match := SPILL.search(line):
            spilled = int(match.group(2)) + int(match.group(3))
        elif (match := USED.search(line)) and entry:
            found[entry] = int(match.group(1)), int(match.group(2) or 0), spilled
            entry = None
        elif not re.search(r"ptxas info|^\s*$|bytes gmem", line):
            other.append(line)
    return found, other


def readable(names):
    """Names without arguments: 'attend<8>'."""
    plain = subprocess.run(["c++filt", *names], capture_output=True, text=True, check=True).stdout.splitlines()
    return {name: re.sub(r"^(?:void )?(?:\(anonymous namespace\)::)?(\w+(?:<[^(]*>)?).*$", r"\1",
                         re.sub(r"\((int|bool|vl_\w+)\)", "", text)) for name, text in zip(names, plain)}


def table_of(results):
    shown = ["75", "80", "90", "100", "120"]
    lines = ["| file | kernel | registers " + " / ".join(f"sm_{a}" for a in shown) + " | static shared (bytes) |",
             "|---|---|---|---|"]
    for source, found in results:
        names = readable(sorted({name for name, _ in found}))
        for name in sorted(names, key=names.get):
            registers = " / ".join(str(found[name, a][0]) for a in shown)
            lines.append(f"| {source} | `{names[name]}` | {registers} | {max(found[name, a][1] for a in shown)} |")
    return lines


def write_table(path, lines):
    text = path.read_text(encoding="utf-8")
    before, rest = text.split(BEGIN)
    after = rest.split(END)[1]
    path.write_text(f"{before}{BEGIN}\n" + "\n".join(lines) + f"\n{END}{after}", encoding="utf-8")


def main():
    parser = argparse.ArgumentParser()
    parser.add_argument("nvcc")
    parser.add_argument("root", type=pathlib.Path)
    parser.add_argument("version")
    parser.add_argument("--write", type=pathlib.Path)
    args = parser.parse_args()
    sources = sorted((args.root / "kernels/cuda").glob("*.cu"))
    results, bad = [], 0
    with tempfile.TemporaryDirectory() as folder, concurrent.futures.ThreadPoolExecutor(2) as pool:
        runs = pool.map(lambda s: subprocess.run(command(args.nvcc, args.root, args.version, s, f"{folder}/{s.stem}.o"),
                                                 capture_output=True, text=True), sources)
        for source, run in zip(sources, runs):
            found, other = read_report(run.stdout + run.stderr)
            if run.returncode != 0 or other:
                bad += 1
                print(f"{source.name}: nvcc ended with {run.returncode}\n" + "\n".join(other))
            for (kernel, architecture), (registers, _, spilled) in found.items():
                if spilled:
                    bad += 1
                    print(f"{source.name}: {kernel} for sm_{architecture}: {registers} registers, {spilled} bytes spilled")
            if found:
                results.append((source.name, found))
    lines = table_of(results)
    print("\n".join(lines))
    kernels = sum(len({name for name, _ in found}) for _, found in results)
    print(f"{len(sources)} files, {kernels} kernels, {len(ARCHITECTURES)} architectures, {bad} complaints")
    if args.write and not bad:
        write_table(args.write, lines)
    return 1 if bad or not kernels else 0


if __name__ == "__main__":
    sys.exit(main())
