#!/usr/bin/env python3
"""Runs a command and says how much anonymous memory it held at most: peak_memory.py COMMAND ...

Anonymous memory is what a process holds beyond the files that it maps. RssAnon of /proc/PID/status is the kernel's own
count, looked at a hundred times a second; once a second it is compared with the sum over all mappings in smaps_rollup.
"""
import subprocess
import sys
import time


def read(path, key):
    try:
        with open(path) as file:
            return next((int(line.split()[1]) for line in file if line.startswith(key)), 0)
    except (FileNotFoundError, ProcessLookupError, PermissionError):
        return 0


def main():
    began, peak, rollup, mapped, looked = time.time(), 0, 0, 0, 0.0
    child = subprocess.Popen(sys.argv[1:])
    while child.poll() is None:
        peak = max(peak, read(f"/proc/{child.pid}/status", "RssAnon:"))
        if time.time() - looked > 1:
            looked = time.time()
            rollup = max(rollup, read(f"/proc/{child.pid}/smaps_rollup", "Anonymous:"))
            mapped = max(mapped, read(f"/proc/{child.pid}/status", "RssFile:"))
        time.sleep(0.01)
    print(f"peak anonymous memory {peak / 1024:.0f} MiB (smaps_rollup, once a second: {rollup / 1024:.0f} MiB), "
          f"mapped files in memory {mapped / 1024:.0f} MiB, {time.time() - began:.1f} s", file=sys.stderr)
    return child.returncode


if __name__ == "__main__":
    sys.exit(main())
