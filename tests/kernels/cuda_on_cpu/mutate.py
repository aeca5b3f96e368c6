#!/usr/bin/env python3
"""mutate.py BUILD [--jobs N] [--only TEXT] [--fresh] [--list]: how many errors in kernels the tests of operations find.

Changes the CUDA sources in one place at a time: removes a __syncthreads or __syncwarp, shortens a dynamic shared
allocation or a scratch area by 16 bytes, moves a bound in device code by one (< to <=, > to >=, and back). Compiles
what uses it for the race detector, and runs the tests of the operation with warps as far apart as they can get: small
cases, then all. Killed is a mutant that does not compile, fails, is accused, or takes twice as long. Survivors
are printed with their reason where equivalent_mutants.txt has one: they change nothing that a correct program can
show, and do not count. Exit 1 below 95 % killed, or where a line of equivalent_mutants.txt fits nothing that survived.

BUILD/mutants.log keeps what was found, with a digest of the plug-in, the tests and the change, so that a run that
was cut short goes on; --fresh begins anew."""
import concurrent.futures
import functools
import hashlib
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
KINDS = ("barrier", "shared", "scratch", "bound")
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


def program_of(family):
    return BUILD.folder / "tests/kernels/ops" / f"test_ops_{family}"


def run_test(scratch, family, size, limit):
    """(passed, processor seconds). Ends at the first test that fails. size: what goes behind the device."""
    program = scratch / program_of(family).name
    if not program.exists():
        shutil.copy(program_of(family), program)
    before = resource.getrusage(resource.RUSAGE_CHILDREN)
    environment = dict(os.environ, VL_CUDA_ON_CPU_SCHEDULE="warp-greedy", VL_CUDA_ON_CPU_LAZY="1")
    process = subprocess.Popen([str(program), "cuda_on_cpu:race", *size], env=environment, text=True,
                               stdout=subprocess.PIPE, stderr=subprocess.STDOUT, errors="replace",
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
    return sorted(found, key=lambda m: KINDS.index(m.what))


def tests_of(source):
    name = pathlib.Path(source).stem
    return TESTS.get(name, [name])


def check(mutant):
    """What became of the mutant. A header's is compiled into one user after the other, cheap tests first."""
    with tempfile.TemporaryDirectory(prefix="vlens-mutant-") as folder:
        scratch = pathlib.Path(folder)
        changed = scratch / "overlay/kernels/cuda" / mutant.path.name
        changed.parent.mkdir(parents=True)
        text = mutant.path.read_text(encoding="utf-8")
        changed.write_text(text[:mutant.at] + mutant.new + text[mutant.at + len(mutant.old):], encoding="utf-8")
        compiled, sources = [], sorted(mutant.sources, key=lambda s: sum(COST[f] for f in tests_of(s)))
        known = mutant.key() in EQUIVALENT
        for source in sources[:1] if known else sources:  # what changes nothing need not be seen everywhere
            if not BUILD.compile_one(scratch, source):
                return "killed by the compiler"
            compiled.append(source)
            BUILD.link(scratch, compiled)
            for family in tests_of(source):
                if not run_test(scratch, family, ["small"], limit_of(family))[0]:
                    return f"killed by {family}"
        for family in () if known else sorted({f for s in sources for f in tests_of(s)}):
            if not run_test(scratch, family, [], 3600)[0]:
                return f"killed by {family}, all cases"
        return "survived"


def read_equivalents():
    known = {}
    for line in (pathlib.Path(__file__).parent / "equivalent_mutants.txt").read_text(encoding="utf-8").splitlines():
        if line and not line.startswith("#"):
            key, reason = line.split(": ", 1)
            known[key] = reason
    return known


def limit_of(family):
    return int(2 * COST[family]) + 2


def measure(family):
    """What the small cases take as they are, which limits what mutants may; they must pass."""
    with tempfile.TemporaryDirectory(prefix="vlens-mutant-") as folder:
        scratch = pathlib.Path(folder)
        shutil.copy(BUILD.folder / f"lib{PLUGIN}.so", scratch)
        passed, seconds = run_test(scratch, family, ["small"], 3600)
        return seconds if passed else None


def measure_all(mutants, jobs):
    families = sorted({f for m in mutants for s in m.sources for f in tests_of(s)})
    with concurrent.futures.ProcessPoolExecutor(jobs) as pool:
        COST.update(zip(families, pool.map(measure, families)))
    failing = [f for f in families if COST[f] is None]
    if failing:
        sys.exit(f"these tests fail without any change: {', '.join(failing)}")
    print(f"{len(mutants)} mutants; the small cases take {sum(COST.values()):.0f} s", flush=True)


class Log:
    """What was found before, by the digest of all that it depends on."""

    def __init__(self, fresh):
        self.path = BUILD.folder / "mutants.log"
        if fresh:
            self.path.unlink(missing_ok=True)
        self.found = {}
        if self.path.exists():
            for line in self.path.read_text(encoding="utf-8").splitlines():
                digest, outcome = line.split(" ", 1)
                self.found[digest] = outcome.split(": ", 1)[0]

    @staticmethod
    @functools.lru_cache(maxsize=None)
    def digest_of_file(path):
        return hashlib.sha256(path.read_bytes()).hexdigest()

    def digest(self, mutant):
        families = sorted({f for s in mutant.sources for f in tests_of(s)})
        files = [BUILD.folder / f"lib{PLUGIN}.so", *map(program_of, families)]
        parts = [str(mutant), str(mutant.key() in EQUIVALENT), *map(self.digest_of_file, files)]
        return hashlib.sha256("\n".join(parts).encode()).hexdigest()[:24]

    def add(self, mutant, outcome):
        with self.path.open("a", encoding="utf-8") as file:
            file.write(f"{self.digest(mutant)} {outcome}: {mutant}\n")


def check_all(mutants, jobs, fresh):
    """The outcome of each mutant, in order."""
    log = Log(fresh)
    outcomes = {m: log.found[log.digest(m)] for m in mutants if log.digest(m) in log.found}
    if outcomes:
        print(f"{len(outcomes)} of {len(mutants)} mutants were judged before ({log.path})", flush=True)
    rest = [m for m in mutants if m not in outcomes]
    if rest:
        measure_all(rest, jobs)
    with concurrent.futures.ProcessPoolExecutor(jobs) as pool:
        for mutant, outcome in zip(rest, pool.map(check, rest)):
            outcomes[mutant] = outcome
            log.add(mutant, outcome)
            print(f"{outcome}: {mutant}", flush=True)
    return [outcomes[m] for m in mutants]


def report(mutants, outcomes, whole):
    survivors = [m for m, outcome in zip(mutants, outcomes) if outcome == "survived"]
    equivalent = [m for m in survivors if m.key() in EQUIVALENT]
    open_ones = [m for m in survivors if m.key() not in EQUIVALENT]
    for mutant in equivalent:
        print(f"equivalent: {mutant}: {EQUIVALENT[mutant.key()]}")
    for mutant in open_ones:
        print(f"SURVIVED: {mutant} [{mutant.key()}]\n          {mutant.text}")
    for what in (*KINDS, None):
        of_kind, same, alive = (sum(what in (m.what, None) for m in some) for some in (mutants, equivalent, open_ones))
        counted = of_kind - same
        print(f"{what or 'all'}: killed {counted - alive} of {counted} mutants "
              f"({100 * (counted - alive) / max(counted, 1):.1f} %); {same} more are equivalent")
    stale = set(EQUIVALENT) - {m.key() for m in survivors} if whole else set()
    for key in sorted(stale):
        print(f"equivalent_mutants.txt names what did not survive: {key}")
    return 1 if stale or len(open_ones) > (1 - GOAL) * (len(mutants) - len(equivalent)) else 0


def main():
    arguments = sys.argv[2:]
    jobs = int(arguments[arguments.index("--jobs") + 1]) if "--jobs" in arguments else 2
    only = arguments[arguments.index("--only") + 1] if "--only" in arguments else ""
    mutants = [m for m in all_mutants() if only in f"{m} {m.key()}"]
    if "--list" in arguments:
        print("\n".join(f"{m} [{m.key()}]\n    {m.text}" for m in mutants))
        return 0
    start = time.monotonic()
    outcomes = check_all(mutants, jobs, "--fresh" in arguments)
    code = report(mutants, outcomes, not only)
    print(f"{time.monotonic() - start:.0f} s")
    return code


BUILD = Build(pathlib.Path(sys.argv[1]).resolve())
COST = {}  # of the small cases of a family, in seconds
EQUIVALENT = read_equivalents()

if __name__ == "__main__":
    sys.exit(main())
