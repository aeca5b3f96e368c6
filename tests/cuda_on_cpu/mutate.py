#!/usr/bin/env python3
"""mutate.py BUILD [--jobs N] [--only TEXT] [--list]: how many errors in kernels the tests of operations would find.

Changes the CUDA sources in one place at a time: removes a __syncthreads or __syncwarp, shortens a dynamic shared
allocation or a scratch area by 16 bytes, moves a bound in device code by one (< to <=, > to >=, and back). Compiles
what uses it for the race detector, and runs the tests of the operation with warps as far apart as they can get. Killed
is a mutant that does not compile, fails, is accused, or takes ten times as long. Survivors are printed with their reason
where equivalent_mutants.txt has one: they change nothing that a correct program can show, and do not count.
Exit 1 below 95 % killed, or where a line of equivalent_mutants.txt fits nothing that survived."""
import concurrent.futures
import json
import os
import pathlib
import re
import resource
import shlex
import shutil
import subprocess
import sys
import tempfile
import time

ROOT = pathlib.Path(__file__).resolve().parents[2]
CUDA = ROOT / "kernels/cuda"
PLUGIN = "vlens_cuda_on_cpu_race"
GOAL = 0.95
# the tests of what is no op of its own name; cheap ones first
TESTS = {"embed": ["linear"], "loss": ["unembed_loss"], "patchify": ["elementwise"], "reduce": ["elementwise"],
         "gemm": ["linear"], "unembed_loss": ["unembed_loss"], "transfer": ["cast"], "backend": ["cast"]}
SHIFTED = {"<": "<=", "<=": "<", ">": ">=", ">=": ">"}
BOUND = re.compile(r" (<=|>=|<|>) (?!-?[0-9.]+f\b)")
LAUNCH = re.compile(r"VL_LAUNCH\((?:\([^()]*\)|\w+),")
SCRATCH = re.compile(r"vl_cuda_scratch\(\w+, ")
FUNCTION = re.compile(r"^(?!typedef|struct|enum|#|/\*| \*)[^\s{}#/].*?((?!__launch_bounds__)\b\w+)\(", re.MULTILINE)


def strip_comments(text):
    return re.sub(r"/\*.*?\*/", lambda m: re.sub(r"[^\n]", " ", m.group()), text, flags=re.DOTALL)


def functions(text):
    """(name, first, last, is device code) of each function at the top level."""
    for match in FUNCTION.finditer(text):
        opening = re.search(r"\n\{\n|;", text[match.start():])
        if not opening or opening.group() == ";":
            continue
        first = match.start() + opening.end()
        last = text.index("\n}", first - 1)
        start = text.rfind("\n\n", 0, match.start())
        yield match.group(1), first, last, "__device__" in text[start:first] or "__global__" in text[start:first]


def argument_end(text, at):
    depth = 0
    while text[at] not in ",)" or depth:
        depth += {"(": 1, ")": -1}.get(text[at], 0)
        at += 1
    return at


def mutations(path):
    """(what, function, offset, old, new) for each place of the file."""
    text = strip_comments(path.read_text(encoding="utf-8"))
    for name, first, last, device in functions(text):
        body = text[first:last]
        for match in re.finditer(r"__sync(threads|warp)\([^;]*\);", body):
            yield "barrier", name, first + match.start(), match.group(), ";"
        for match in BOUND.finditer(body) if device else ():
            yield "bound", name, first + match.start(1), match.group(1), SHIFTED[match.group(1)]
        for match in LAUNCH.finditer(body):
            at = first + match.end()
            for _ in range(2):  # over the grid and the block
                at = argument_end(text, at) + 1
            old = text[at:argument_end(text, at)]
            if old.strip() != "0":
                yield "shared", name, at, old, f" ({old.strip()}) - 16"
        for match in SCRATCH.finditer(body):
            at = first + match.end()
            old = text[at:argument_end(text, at)]
            yield "scratch", name, at, old, f"({old}) - 16"


def users(header, name):
    """The .cu files that use a function of a header, also through others of headers."""
    headers = {p: strip_comments(p.read_text(encoding="utf-8")) for p in sorted(CUDA.glob("*.cuh"))}
    names, grown = {name}, True
    while grown:
        grown = False
        for text in headers.values():
            for other, first, last, _ in functions(text):
                if other not in names and any(re.search(rf"\b{n}\b", text[first:last]) for n in names):
                    names.add(other)
                    grown = True
    found = [p for p in sorted(CUDA.glob("*.cu"))
             if any(re.search(rf"\b{n}\b", strip_comments(p.read_text(encoding="utf-8"))) for n in names)]
    return found or [header]


class Build:
    """How the plug-in is compiled and linked."""

    def __init__(self, folder):
        self.folder = folder
        self.compile, self.objects = {}, []
        for entry in json.loads((folder / "compile_commands.json").read_text(encoding="utf-8")):
            words = shlex.split(entry["command"])
            output = words[words.index("-o") + 1]
            if f"/{PLUGIN}" not in output:
                continue
            self.objects.append(output)
            if entry["file"].endswith(".cu"):
                words = [w for w in words if w not in ("ccache",) and "ccache" not in pathlib.Path(w).name]
                self.compile[pathlib.Path(entry["file"]).name] = (words, output)

    def compile_one(self, scratch, source):
        """False where it does not compile. Files of scratch/overlay go before those of the checkout."""
        words = list(self.compile[source][0])
        words[words.index("-o") + 1] = str(scratch / (source + ".o"))
        words.remove("-g")
        overlay = scratch / "overlay"
        changed = overlay / "kernels/cuda" / source
        words[-1] = str(changed if changed.exists() else CUDA / source)
        words.insert(1, f"-I{overlay}")
        return subprocess.run(words, cwd=self.folder, capture_output=True, check=False).returncode == 0

    def link(self, scratch, sources):
        replaced = {self.compile[s][1]: str(scratch / (s + ".o")) for s in sources}
        words = ["c++", "-shared", "-o", str(scratch / f"lib{PLUGIN}.so")]
        words += [replaced.get(o, o) for o in self.objects] + ["-ldl", "-lm"]
        subprocess.run(words, cwd=self.folder, capture_output=True, check=True)


def run_test(scratch, family, limit):
    """(passed, processor seconds). Ends at the first test that fails."""
    program = scratch / f"test_ops_{family}"
    if not program.exists():
        shutil.copy(BUILD.folder / "tests/ops" / program.name, program)
    before = resource.getrusage(resource.RUSAGE_CHILDREN)
    environment = dict(os.environ, VL_CUDA_ON_CPU_SCHEDULE="warp-greedy", VL_CUDA_ON_CPU_LAZY="1")
    process = subprocess.Popen([str(program), "cuda_on_cpu:race"], env=environment, text=True, stdout=subprocess.PIPE,
                               stderr=subprocess.STDOUT, errors="replace",
                               preexec_fn=lambda: resource.setrlimit(resource.RLIMIT_CPU, (limit, limit)))
    failed = False
    for line in process.stdout:
        if "FAILED  ]" in line or "cuda_on_cpu: " in line:
            failed = True
            process.kill()
            break
    process.stdout.read()
    code = process.wait()
    after = resource.getrusage(resource.RUSAGE_CHILDREN)
    return code == 0 and not failed, after.ru_utime + after.ru_stime - before.ru_utime - before.ru_stime


class Mutant:
    def __init__(self, path, what, function, place):
        self.path, self.what, self.function = path, what, function
        self.at, self.old, self.new = place
        text = path.read_text(encoding="utf-8")
        self.line = text.count("\n", 0, self.at + len(self.old) - len(self.old.lstrip())) + 1
        self.text = text.split("\n")[self.line - 1].strip()
        self.sources = [path.name]
        if path.suffix == ".cuh":
            self.sources = [p.name for p in users(path, function)]

    def __str__(self):
        return f"{self.path.name}:{self.line}: {self.what} in {self.function}: {self.old.strip()} -> {self.new.strip()}"

    def key(self):
        """What a line of equivalent_mutants.txt names: file, function, which of its mutants of this kind."""
        return f"{self.path.name} {self.function} {self.what} {self.number}"


def all_mutants():
    found = []
    for path in sorted(CUDA.glob("*.cu")) + sorted(CUDA.glob("*.cuh")):
        if path.name == "cuda.cuh":
            continue
        counts = {}
        for what, function, at, old, new in mutations(path):
            mutant = Mutant(path, what, function, (at, old, new))
            counts[function, what] = counts.get((function, what), 0) + 1
            mutant.number = counts[function, what]
            found.append(mutant)
    order = {"barrier": 0, "shared": 1, "scratch": 2, "bound": 3}
    return sorted(found, key=lambda m: order[m.what])


def tests_of(source):
    name = pathlib.Path(source).stem
    return TESTS.get(name, [name])


def check(mutant):
    """True where the mutant is killed. A header's is compiled into one user after the other, cheap tests first."""
    with tempfile.TemporaryDirectory(prefix="vlens-mutant-") as folder:
        scratch = pathlib.Path(folder)
        changed = scratch / "overlay/kernels/cuda" / mutant.path.name
        changed.parent.mkdir(parents=True)
        text = mutant.path.read_text(encoding="utf-8")
        changed.write_text(text[:mutant.at] + mutant.new + text[mutant.at + len(mutant.old):], encoding="utf-8")
        compiled = []
        for source in sorted(mutant.sources, key=lambda s: sum(COST[f][1] for f in tests_of(s))):
            if not BUILD.compile_one(scratch, source):
                return True
            compiled.append(source)
            BUILD.link(scratch, compiled)
            if not all(run_test(scratch, f, COST[f][1])[0] for f in tests_of(source)):
                return True
        return False


def read_equivalents():
    known = {}
    for line in (pathlib.Path(__file__).parent / "equivalent_mutants.txt").read_text(encoding="utf-8").splitlines():
        if line and not line.startswith("#"):
            key, reason = line.split(": ", 1)
            known[key] = reason
    return known


def measure(family):
    """What the tests take as they are, which limits what mutants may; they must pass."""
    with tempfile.TemporaryDirectory(prefix="vlens-mutant-") as folder:
        scratch = pathlib.Path(folder)
        shutil.copy(BUILD.folder / f"lib{PLUGIN}.so", scratch)
        passed, seconds = run_test(scratch, family, 3600)
        return (seconds, int(10 * seconds) + 10) if passed else None


def measure_all(mutants, jobs):
    families = sorted({f for m in mutants for s in m.sources for f in tests_of(s)})
    with concurrent.futures.ProcessPoolExecutor(jobs) as pool:
        COST.update(zip(families, pool.map(measure, families)))
    failing = [f for f in families if not COST[f]]
    if failing:
        sys.exit(f"these tests fail without any change: {', '.join(failing)}")


def report(mutants, killed):
    known = read_equivalents()
    survivors = [m for m, dead in zip(mutants, killed) if not dead]
    equivalent = [m for m in survivors if m.key() in known]
    open_ones = [m for m in survivors if m.key() not in known]
    for mutant in equivalent:
        print(f"equivalent: {mutant}: {known[mutant.key()]}")
    for mutant in open_ones:
        print(f"SURVIVED: {mutant} [{mutant.key()}]\n          {mutant.text}")
    counted = len(mutants) - len(equivalent)
    dead = counted - len(open_ones)
    for what in ("barrier", "shared", "scratch", "bound"):
        of_kind = [d for m, d in zip(mutants, killed) if m.what == what]
        print(f"{what}: {sum(of_kind)} of {len(of_kind)} killed")
    print(f"killed {dead} of {counted} mutants ({100 * dead / max(counted, 1):.1f} %); {len(equivalent)} more are equivalent")
    stale = set(known) - {m.key() for m in survivors} if len(sys.argv) == 2 else set()
    for key in sorted(stale):
        print(f"equivalent_mutants.txt names what did not survive: {key}")
    return 1 if stale or dead < GOAL * counted else 0


def main():
    arguments = sys.argv[2:]
    jobs = int(arguments[arguments.index("--jobs") + 1]) if "--jobs" in arguments else 2
    only = arguments[arguments.index("--only") + 1] if "--only" in arguments else ""
    mutants = [m for m in all_mutants() if only in str(m)]
    if "--list" in arguments:
        print("\n".join(f"{m} [{m.key()}]\n    {m.text}" for m in mutants))
        return 0
    start = time.monotonic()
    measure_all(mutants, jobs)
    print(f"{len(mutants)} mutants; the tests take {sum(c for c, _ in COST.values()):.0f} s", flush=True)
    killed = []
    with concurrent.futures.ProcessPoolExecutor(jobs) as pool:
        for mutant, dead in zip(mutants, pool.map(check, mutants)):
            killed.append(dead)
            print(f"{'killed  ' if dead else 'survived'} {mutant}", flush=True)
    code = report(mutants, killed)
    print(f"{time.monotonic() - start:.0f} s")
    return code


BUILD = Build(pathlib.Path(sys.argv[1]).resolve())
COST = {}

if __name__ == "__main__":
    sys.exit(main())
