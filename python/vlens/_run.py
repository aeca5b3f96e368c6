"""Runs the vlens program and turns its one line of error into an exception."""
from __future__ import annotations

import json
import subprocess
from typing import Any

from vlens._native import VlensError, program

_STATUS = {1: "failed", 2: "wrong usage", 130: "interrupted", 143: "interrupted"}


def run(*arguments: str) -> str:
    """What the program prints on stdout. Raises VlensError with the last line of stderr where it fails."""
    done = subprocess.run([program(), *arguments], capture_output=True, check=False)
    if done.returncode != 0:
        lines = done.stderr.decode("utf-8", "replace").strip().splitlines()
        raise VlensError(_STATUS.get(done.returncode, f"exit code {done.returncode}"), lines[-1] if lines else "")
    return done.stdout.decode("utf-8")


def run_json(*arguments: str) -> Any:
    """The JSON that the program prints."""
    return json.loads(run(*arguments, "--json", "--quiet"))


def settings(values: dict[str, Any]) -> list[str]:
    """{"eval.bootstrap": 100} as --set options."""
    out = []
    for key, value in values.items():
        shown = str(value).lower() if isinstance(value, bool) else str(value)
        out += ["--set", f"{key}={shown}"]
    return out
