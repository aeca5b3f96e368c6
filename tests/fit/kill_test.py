#!/usr/bin/env python3
"""A fit that is killed (SIGKILL) at random instants goes on from its last checkpoint and ends with the bits of a fit that
was left alone.

    kill_test.py PROGRAM [KILLS]        `PROGRAM cache DIR` and `PROGRAM fit CACHE OUTPUT`: test_fit_golden"""
import pathlib
import random
import signal
import subprocess
import sys
import tempfile
import time

PROGRAM = pathlib.Path(sys.argv[1]).resolve()
KILLS = int(sys.argv[2]) if len(sys.argv) > 2 else 4
random.seed(1)


def command(output):
    return [PROGRAM, "fit", "cache", output]


def tensors(folder):
    """The bytes behind the header: what was fitted. The header holds the folder's name."""
    data = (folder / "lens.safetensors").read_bytes()
    return data[8 + int.from_bytes(data[:8], "little"):]


def main():
    with tempfile.TemporaryDirectory() as name:
        work = pathlib.Path(name)
        subprocess.run([PROGRAM, "cache", work / "cache"], check=True)
        began = time.monotonic()
        subprocess.run(command("whole"), cwd=work, check=True, capture_output=True)
        took = time.monotonic() - began
        reached, kills = 0, 0
        while True:
            run = subprocess.Popen(command("killed"), cwd=work, stdout=subprocess.PIPE, text=True)
            if kills < KILLS:
                time.sleep(random.uniform(0.1, 0.9) * took / 2)
                run.send_signal(signal.SIGKILL)
            out = run.communicate()[0].split(maxsplit=1)
            if run.returncode == 0:
                reached = int(out[0])
                break
            if run.returncode != -signal.SIGKILL:
                sys.exit(f"ended with {run.returncode}: {out}")
            kills += 1
        same = tensors(work / "whole") == tensors(work / "killed")
        print(f"{kills} kills, the last run went on from step {reached}: {'the same bits' if same else 'OTHER BITS'}")
        if not same or kills == 0 or reached == 0:
            sys.exit(1)


main()
