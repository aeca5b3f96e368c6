#!/usr/bin/env python3
"""planted_test.py PLANTED [--race] [--asan]: runs planted.cu's cases, and fails where one is not found, or where a
clean kernel is accused. The numbers of the cases are those of its enum."""
import os
import pathlib
import re
import subprocess
import sys

SCHEDULES = ["forward", "reverse", "random", "warp-greedy"]
# found by the device itself, in every order of threads
BY_DEVICE = {
    "DIVERGENT_BARRIER": "a divergent barrier",
    "EXITED_AT_BARRIER": "a barrier that some threads of the block do not reach",
    "EXITED_LANE": "names a lane that has exited|do not reach|a deadlock",
    "OUTSIDE_MASK": "a shuffle from a lane that takes no part",
    "NOT_IN_MASK": "a lane that its mask does not name",
    "DIFFERENT_OPERATIONS": "different warp operations",
}
# found by their results in this order of threads
BY_VALUE = {"NO_FIRST_BARRIER": SCHEDULES, "NO_LAST_BARRIER": ["warp-greedy"], "NO_SYNCWARP": ["forward", "reverse"],
            "NO_DYNAMIC_INITIALISED": SCHEDULES, "SAME_WORD": SCHEDULES}
BY_DETECTOR = {
    "NO_FIRST_BARRIER": "a race of a|nothing was written",
    "NO_LAST_BARRIER": "a race of a write with an earlier read",
    "NO_SYNCWARP": "a race of a|nothing was written",
    "NOT_INITIALISED": "a read of memory that nothing was written to",
    "NO_DYNAMIC_INITIALISED": "a read of memory that nothing was written to",
    "BEYOND_GLOBAL": "not the device's|beyond the end|nothing was written|a race",
    "BEYOND_DYNAMIC": "not the device's|beyond the end|a race|nothing was written",
    "HOST_POINTER": "not the device's|nothing was written",
    "MISALIGNED": "a misaligned access",
    "SAME_WORD": "a race of two writes",
    "PLAIN_AFTER_ATOMIC": "a race of a",
    "PLAIN_OF_OTHER_BLOCK": "a race of a|nothing was written",
}
BY_ADDRESS_SANITIZER = {"BEYOND_GLOBAL": "heap-buffer-overflow", "BEYOND_DYNAMIC": "heap-buffer-overflow",
                        "BEYOND_STATIC": "global-buffer-overflow"}


def cases():
    text = (pathlib.Path(__file__).parent / "planted.cu").read_text(encoding="utf-8")
    names = re.search(r"enum plant \{(.*?)\};", text, re.DOTALL).group(1)
    return [name.split("=")[0].strip() for name in names.split(",")]


def run(program, number, schedule):
    environment = dict(os.environ, VL_CUDA_ON_CPU_SCHEDULE=schedule, VL_CUDA_ON_CPU_LAZY="1")
    done = subprocess.run([program, str(number)], env=environment, capture_output=True, text=True, timeout=120)
    return done.returncode, done.stdout + done.stderr


def main():
    program, race, asan = sys.argv[1], "--race" in sys.argv, "--asan" in sys.argv
    names = cases()
    expected = [("CLEAN", schedule, None) for schedule in SCHEDULES]
    expected += [(name, schedule, text) for name, text in BY_DEVICE.items() for schedule in SCHEDULES]
    if race:
        expected += [(name, schedule, text) for name, text in BY_DETECTOR.items() for schedule in SCHEDULES]
    else:
        expected += [(name, schedule, "wrong: ") for name, orders in BY_VALUE.items() for schedule in orders]
    if asan:
        expected += [(name, "forward", text) for name, text in BY_ADDRESS_SANITIZER.items()]
    failures = 0
    for name, schedule, text in expected:
        code, output = run(program, names.index(name), schedule)
        good = code == 0 and output == "ok\n" if text is None else code != 0 and re.search(text, output)
        if not good:
            failures += 1
            print(f"{name}, {schedule}: status {code}, expected {text or 'ok'}, got:\n{output}")
    print(f"{len(expected)} runs, {failures} not as expected")
    return 1 if failures else 0


if __name__ == "__main__":
    sys.exit(main())
