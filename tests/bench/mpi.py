#!/usr/bin/env python3
"""mpi.py VLENS SOURCE [ROUNDS]: how much faster two processes of one thread fit the demo than one, layers split.

Each round runs both, one after the other, and prints two ratios: of the clock, which other load on the machine spoils,
and of the processor time of the busier process (waiting takes none), which is what the split itself allows."""
import json, os, subprocess, sys, tempfile

CHILD = """import os, resource, subprocess, sys
out = subprocess.run(sys.argv[2:], stdout=subprocess.PIPE, stderr=subprocess.DEVNULL, check=True).stdout.decode()
used = resource.getrusage(resource.RUSAGE_CHILDREN)
rank = os.environ["OMPI_COMM_WORLD_RANK"]
open(sys.argv[1] + "/used-" + rank, "w").write(str(used.ru_utime + used.ru_stime))
if out:
    open(sys.argv[1] + "/result", "w").write(out)
"""


def fit(vlens, work, processes):
    subprocess.run(["rm", "-rf", work + "/lens"], check=True)
    subprocess.run(
        ["mpirun", "--allow-run-as-root", "--bind-to", "core", "-n", str(processes), sys.executable, "-c", CHILD, work,
         vlens, "train", "configs/demo.yaml", "--json", "--quiet", "--threads", "1", "--set", "output=" + work + "/lens",
         "--set", "cache.dir=" + work + "/cache", "--set", "model=", "--set", "fit.epochs=6"], check=True)
    used = max(float(open(f"{work}/used-{rank}").read()) for rank in range(processes))
    return json.load(open(work + "/result"))["seconds"], used


def main():
    vlens, source = os.path.abspath(sys.argv[1]), sys.argv[2]
    os.chdir(source)
    with tempfile.TemporaryDirectory() as work:
        subprocess.run([vlens, "cache", "configs/demo.yaml", "--quiet", "--set", "cache.dir=" + work + "/cache"],
                       check=True, stdout=subprocess.DEVNULL)
        for number in range(int(sys.argv[3]) if len(sys.argv) > 3 else 5):
            (clock1, used1), (clock2, used2) = fit(vlens, work, 1), fit(vlens, work, 2)
            print(f"round {number + 1}: 1 process {clock1:.2f} s ({used1:.2f} s of processor), 2 processes {clock2:.2f} s "
                  f"({used2:.2f} s), ratio {clock1 / clock2:.2f} ({used1 / used2:.2f}), load {os.getloadavg()[0]:.1f}",
                  flush=True)


main()
