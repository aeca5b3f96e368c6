#!/usr/bin/env python3
"""`vlens topk` on terminals of several widths and in a pipe: no line is wider than the terminal, colour comes only where it is
wanted, and every token that is shown is one of the JSON. terminal_test.py VLENS SOURCE"""
import fcntl
import json
import os
import pathlib
import pty
import re
import struct
import subprocess
import sys
import termios
import unicodedata

PROMPT = "What shape is red? Answer with one word."


def on_terminal(command, columns, **environment):
    """What a command writes on a terminal so wide."""
    ours, theirs = pty.openpty()
    fcntl.ioctl(theirs, termios.TIOCSWINSZ, struct.pack("HHHH", 24, columns, 0, 0))
    env = {k: v for k, v in os.environ.items() if k != "NO_COLOR"}
    process = subprocess.Popen(command, stdout=theirs, stderr=subprocess.DEVNULL, env={**env, "TERM": "xterm", **environment})
    os.close(theirs)
    out = b""
    try:
        while data := os.read(ours, 65536):
            out += data
    except OSError:
        pass  # Linux: the other end is closed
    os.close(ours)
    assert process.wait() == 0
    return out.decode().replace("\r\n", "\n")


def wide(line):
    return sum(2 if unicodedata.east_asian_width(c) in "WF" else 1 for c in line)


def main():
    vlens, source = sys.argv[1], pathlib.Path(sys.argv[2])
    command = [vlens, "topk", "--model", str(source / "data/demo/model"), "--image", str(source / "data/demo/images/002.png"),
               "--prompt", PROMPT]
    reading = json.loads(subprocess.run([*command, "--json"], check=True, stdout=subprocess.PIPE).stdout)
    states = reading["positions"][0]["states"]
    piped = subprocess.run(command, check=True, stdout=subprocess.PIPE).stdout.decode()
    assert "\033" not in piped
    for columns in (200, 100, 80, 40):
        coloured = on_terminal(command, columns)
        plain = re.sub(r"\033\[\d*m", "", coloured)
        assert ("\033[1m" in coloured) == any(s["logit"]["top"][0]["p"] >= 0.5 for s in states), columns
        assert on_terminal(command, columns, NO_COLOR="1") == plain
        assert on_terminal(command, columns, TERM="dumb") == plain
        lines = plain.rstrip("\n").split("\n")
        for line in lines:
            assert wide(line.rstrip()) <= columns, (columns, wide(line), line)
        rows = [line for line in lines if re.match(r" *\d+  ", line)]
        assert len(rows) == len(states)
        for row, state in zip(rows, states):
            first = state["logit"]["top"][0]
            assert first["token"].strip()[:8].replace("\n", "\\n") in row and f"{first['p']:.2f}" in row, (row, first)
        if columns >= 100:
            assert plain == piped, columns


if __name__ == "__main__":
    main()
