"""Walks over faults in a tiny run of the program: cache, train, export.

    walk.py io VLENS SOURCE INTERPOSER STRIDE    every STRIDE-th call that writes or reads fails (tests/robust/io_fault.c)
    walk.py kill VLENS SOURCE COUNT              SIGKILL at COUNT random instants

After each fault: exit code 0 or 1 with one line of error, nothing with a final name that is not whole; then the same
command without a fault ends, and with the same bits as a run that nothing disturbed. Counts are printed.
"""

import hashlib
import json
import os
import random
import shutil
import signal
import struct
import subprocess
import sys
import tempfile
import time
import zipfile

KINDS = ("ENOSPC", "EIO", "EDQUOT", "short", "read")
VLENS, SOURCE = sys.argv[2:4]


def write_config(folder, steps):
    model = f"{SOURCE}/tests/golden/fixtures/models/llama-base-f32"
    with open(f"{folder}/samples.jsonl", "w") as f:
        for i in range(12):
            f.write(json.dumps({"prompt": f"sentence number {i} of a dozen"}) + "\n")
    with open(f"{folder}/run.yaml", "w") as f:
        f.write(f"model: {model}\noutput: {folder}/lens\nprecision: exact\nthreads: 1\n"
                f"data: {{samples: {folder}/samples.jsonl, heldout: 0.3}}\n"
                "cache: {shard_tokens: 60, batch_tokens: 30}\n"
                f"fit: {{steps: {steps}, tokens_per_step: 16, checkpoint_every: 4, validation: 0.2}}\n")


def commands(folder):
    return [[VLENS, "cache", f"{folder}/run.yaml", "--quiet"], [VLENS, "train", f"{folder}/run.yaml", "--quiet"],
            [VLENS, "export", f"{folder}/lens", "--format", "npz", "--out", f"{folder}/lens.npz"]]


def run(command, env=None):
    return subprocess.run(command, capture_output=True, text=True, env={**os.environ, **(env or {})})


def tensors(path):
    """The bytes of a safetensors file without what depends on the clock (metadata)."""
    data = open(path, "rb").read()
    n = struct.unpack("<Q", data[:8])[0]
    header = json.loads(data[8 : 8 + n])
    return [(k, v["dtype"], v["shape"], data[8 + n :][slice(*v["data_offsets"])])
            for k, v in sorted(header.items()) if k != "__metadata__"]


def digest(folder):
    """Results by name, as far as they must be equal."""
    found = {}
    for name in sorted(os.listdir(f"{folder}/lens/cache")):
        if name.startswith("shard-"):
            found[name] = hashlib.sha256(open(f"{folder}/lens/cache/{name}", "rb").read()).hexdigest()
    with zipfile.ZipFile(f"{folder}/lens.npz") as exported:
        found["npz"] = {name: exported.read(name) for name in exported.namelist()}
    found["lens"] = hashlib.sha256(repr(tensors(f"{folder}/lens/lens.safetensors")).encode()).hexdigest()
    return found


def leftovers(folder):
    return [name for _, _, names in os.walk(folder) for name in names if ".tmp-" in name or name == ".lock"]


class Tally:
    def __init__(self):
        self.faults = self.survived = self.reported = self.lost = 0
        self.wrong = []

    def check(self, result, what):
        """One command with a fault in it."""
        lines = [line for line in result.stderr.splitlines() if line.startswith("vlens")]
        self.faults += 1
        if result.returncode == 0:
            self.survived += 1
        elif result.returncode == 1 and len(lines) == 1:
            self.reported += 1
        else:
            self.wrong.append(f"{what}: exit code {result.returncode}: {result.stderr[-300:]}")

    def same(self, folder, expected, what):
        if digest(folder) == expected:
            return True
        self.wrong.append(f"{what}: other bits than an unbroken run")
        self.lost += 1
        return False

    def compare(self, folder, expected, what):
        for command in commands(folder):
            result = run(command)
            if result.returncode != 0:
                self.wrong.append(f"{what}, and then {command[1]}: {result.stderr[-300:]}")
                self.lost += 1
                return
        if self.same(folder, expected, what) and leftovers(folder):
            self.wrong.append(f"{what}: left behind: {leftovers(folder)}")

    def end(self, name):
        for line in self.wrong[:20]:
            print(line)
        print(f"{name}: {self.faults} faults injected, {self.survived} survived at once, {self.reported} reported in one line, "
              f"{len(self.wrong)} wrong; runs that lost something after going on: {self.lost}")
        sys.exit(1 if self.wrong or not self.faults else 0)


def prepare(folder, steps):
    """The results of a run without faults, and the state before each command."""
    write_config(folder, steps)
    for i, command in enumerate(commands(folder)):
        shutil.copytree(folder, f"{folder}.before-{i}")
        result = run(command)
        if result.returncode != 0:
            sys.exit(f"{command}: {result.stderr}")
    return digest(folder)


def restore(folder, i):
    shutil.rmtree(folder)
    shutil.copytree(f"{folder}.before-{i}", folder)


def io_walk(folder, interposer, stride):
    expected, tally = prepare(folder, 8), Tally()
    env = {"LD_PRELOAD": interposer, "FAULT_ROOT": folder + "/", "FAULT_LOG": folder + ".log"}
    for i in range(3):
        restore(folder, i)
        if run(commands(folder)[i], env).returncode != 0:
            sys.exit("the interposer alone makes the run fail")
        counts = [int(n) for n in open(folder + ".log").read().split()]
        print(f"{commands(folder)[i][1]}: {counts[0]} calls that write, {counts[1]} that read")
        for k, kind in enumerate(KINDS):
            for at in range((k + i) % stride, counts[kind == "read"], stride):
                restore(folder, i)
                what = f"{commands(folder)[i][1]}, {kind} at call {at}"
                tally.check(run(commands(folder)[i], {**env, "FAULT_AT": str(at), "FAULT_KIND": kind}), what)
                tally.compare(folder, expected, what)
    tally.end("I/O walk")


def second_run(tally, folder, child):
    """Another run in the same folder, while the first one is at work."""
    lock = f"{folder}/lens/.lock"
    while child.poll() is None:
        if os.path.exists(lock) and f"pid {child.pid}\n" in open(lock).read():
            break
        time.sleep(0.01)
    result = run(commands(folder)[1])
    said = f"in use by another run: process {child.pid} on host" in result.stderr
    if child.poll() is None and not (result.returncode == 1 and said):
        tally.wrong.append(f"a second run was let in, or not told by whom it is kept out: {result.stderr}")


def kill_until_done(tally, folder, command, length, kills):
    """Kills the command at random instants and gives it again until one is fast enough; returns the kills so far."""
    while True:
        child = subprocess.Popen(command, stdout=subprocess.DEVNULL, stderr=subprocess.PIPE, text=True)
        if kills == 0 and command[1] == "train":
            second_run(tally, folder, child)
        try:
            child.wait(random.uniform(0, 1.1 * length))
            if child.returncode != 0:
                tally.wrong.append(f"after {kills} kills: {child.stderr.read()[-300:]}")
            child.stderr.close()
            return kills
        except subprocess.TimeoutExpired:
            child.send_signal(signal.SIGKILL)
            child.wait()
            child.stderr.close()
            kills += 1


def kill_walk(folder, count):
    """Train, which caches first, and export; the results of each round are compared with those of an unbroken run."""
    random.seed(7)
    expected, tally = prepare(folder, 60), Tally()
    chain, lengths = commands(folder)[1:], []
    restore(folder, 0)
    for command in chain:
        start = time.monotonic()
        run(command)
        lengths.append(time.monotonic() - start)
    kills = 0
    while kills < count:
        restore(folder, 0)
        for command, length in zip(chain, lengths):
            kills = kill_until_done(tally, folder, command, length, kills)
        if tally.same(folder, expected, f"after {kills} kills"):
            tally.compare(folder, expected, f"after {kills} kills")
    tally.faults = tally.survived = kills
    tally.end("kill walk")


def main():
    # In memory where it can be: faults are injected above the file system, and an fsync to a disk takes most of the time.
    memory = "/dev/shm" if "TMPDIR" not in os.environ and os.access("/dev/shm", os.W_OK) else None
    with tempfile.TemporaryDirectory(prefix="vlens-walk-", dir=memory) as base:
        folder = os.path.realpath(base) + "/run"
        os.mkdir(folder)
        if sys.argv[1] == "io":
            io_walk(folder, sys.argv[4], int(sys.argv[5]))
        else:
            kill_walk(folder, int(sys.argv[4]))


main()
