#!/usr/bin/env python3
"""`vlens figure`: every token and number of the SVG is that of `vlens topk --json` and of the evaluation; PDF and PNG are
whole; captions say where it comes from; what cannot be drawn is refused and leaves no file.

figure_test.py VLENS SOURCE OUTPUT"""
import json
import pathlib
import shutil
import struct
import subprocess
import sys
import xml.dom.minidom

PROMPT = "What shape is <red>? Answer with one word."
STATES = [0, 6, 12]
# what `vlens eval --json` writes, as far as a graph of it needs; a state whose KL is 0 has no place on the axis
EVAL = {"format": "vlens-eval", "version": 1, "model": "some/model", "lens": "some-lens", "split": "heldout",
        "baseline": "", "classes": [
            {"class": "image", "states": [{"state": 0, "tuned": {"kl": 9, "kl_low": 8, "kl_high": 10}}]},
            {"class": "all-text", "states": [
                {"state": 0, "tuned": {"kl": 2.5, "kl_low": 2.25, "kl_high": 2.75}, "logit": {"kl": 7.5, "kl_low": 7, "kl_high": 8}},
                {"state": 1, "tuned": {"kl": 0.125, "kl_low": 0.1, "kl_high": 0.15}, "logit": {"kl": 3.0, "kl_low": None, "kl_high": None}},
                {"state": 2, "tuned": {"kl": 0.0, "kl_low": 0, "kl_high": 0}, "logit": {"kl": 0.0, "kl_low": 0, "kl_high": 0}}]}]}


def same(a, b, what):
    if a != b:
        raise AssertionError(f"{what}: got {a!r}, expected {b!r}")


def texts(path):
    document = xml.dom.minidom.parse(str(path))
    return [n.firstChild.data if n.firstChild else "" for n in document.getElementsByTagName("text")]


def main():
    vlens, source, folder = sys.argv[1], pathlib.Path(sys.argv[2]).resolve(), pathlib.Path(sys.argv[3]) / "figure"
    shutil.rmtree(folder, ignore_errors=True)
    folder.mkdir(parents=True)
    image = str(source / "data/demo/images/002.png")
    reading = ["--model", str(source / "data/demo/model"), "--image", image, "--prompt", PROMPT, "-k", "3"]

    def run(*arguments, code=0):
        done = subprocess.run([vlens, *arguments], cwd=folder, stdout=subprocess.PIPE, stderr=subprocess.PIPE)
        same(done.returncode, code, f"exit code of {arguments}: {done.stderr.decode()}")
        return done.stdout.decode() if code == 0 else done.stderr.decode()
    positions = json.loads(run("topk", *reading, "--position", "all", "--json", "--track", "red"))["positions"]
    tops = [[s["logit"]["top"] for s in p["states"]] for p in positions]

    run("figure", "topk", *reading, "--out", "topk.svg")
    found = texts(folder / "topk.svg")
    numbers = [f"{t['p']:.4g}" for top in tops[-1] for t in top]
    same([t for t in found if t in set(numbers)], numbers, "probabilities of the top-k graph")
    caption = " ".join(found[-3:])
    for part in ("some token", PROMPT, image, "logit lens", "vlens 0"):
        if part != "some token" and part not in caption:
            raise AssertionError(f"the caption lacks {part}: {caption}")

    run("figure", "patches", *reading, "--states", ",".join(map(str, STATES)), "--out", "patches.svg")
    patches = [i for i, p in enumerate(positions) if p["class"] == "image"]
    want = [tops[i][s][0]["token"].strip(" ").replace("\n", "\\n") for s in STATES for i in patches]
    words = [t for t in texts(folder / "patches.svg") if not t.startswith("state ")]
    start = words.index("Logit lens") + 1
    same(words[start:start + len([w for w in want if w])], [w for w in want if w], "words on the patches")
    run("figure", "patches", *reading, "--states", "6", "--word", "red", "--no-words", "--out", "word.svg")
    document = xml.dom.minidom.parse(str(folder / "word.svg"))
    covers = [float(n.getAttribute("fill-opacity")) for n in document.getElementsByTagName("rect")
              if n.getAttribute("fill-opacity")]
    strong = [0.6 * positions[i]["states"][6]["logit"]["tracked"][0] for i in patches]
    for got, expected in zip(covers, strong, strict=True):
        if abs(got - expected) > 6e-4 * max(expected, 1e-3) + 1e-6 and abs(got - expected) > 5.1e-3 * expected:
            raise AssertionError(f"cover {got}, expected {expected}")

    (folder / "eval.json").write_text(json.dumps(EVAL))
    run("figure", "kl", "--eval", "eval.json", "--out", "kl.svg")
    document = xml.dom.minidom.parse(str(folder / "kl.svg"))
    lines = [[tuple(map(float, p.split(","))) for p in n.getAttribute("points").split()]
             for n in document.getElementsByTagName("polyline")]
    grid = {float(t.firstChild.data): float(t.getAttribute("y")) - 3 for t in document.getElementsByTagName("text")
            if t.getAttribute("text-anchor") == "end"}
    same(sorted(grid), [0.1, 1, 10], "numbers at the axis")
    decade = grid[0.1] - grid[1]

    def height(kl):
        import math
        return grid[1] - decade * math.log10(kl)
    curves = [line for line in lines if len(line) == 2 and line[0][1] != line[1][1]]
    for curve, kls in zip(curves, ([7.5, 3.0], [2.5, 0.125]), strict=True):
        for (_, y), kl in zip(curve, kls):
            assert abs(y - height(kl)) < 0.01, (y, height(kl), kl)
    bands = [[tuple(map(float, p.split(","))) for p in n.getAttribute("points").split()]
             for n in document.getElementsByTagName("polygon")]
    assert any(abs(b[0][1] - height(2.25)) < 0.01 and abs(b[3][1] - height(2.75)) < 0.01 for b in bands), bands

    for what, arguments in (("patches", reading), ("topk", reading), ("kl", ["--eval", "eval.json"])):
        done = subprocess.run([vlens, "figure", what, *arguments, "--out", what + ".pdf"], cwd=folder, stderr=subprocess.PIPE)
        if b"built without Cairo" in done.stderr:
            print("    this build has no Cairo: SVG only")
            break
        pdf = (folder / (what + ".pdf")).read_bytes()
        assert pdf.startswith(b"%PDF-") and pdf.rstrip().endswith(b"%%EOF") and b"DejaVu" in pdf, what
        run("figure", what, *arguments, "--out", what + ".png")
        png = (folder / (what + ".png")).read_bytes()
        width, height_ = struct.unpack(">II", png[16:24])
        svg = xml.dom.minidom.parse(str(folder / (what + ".svg"))).documentElement
        if what != "patches":  # that SVG is of other states
            for got, name in ((width, "width"), (height_, "height")):
                assert abs(got - 3 * float(svg.getAttribute(name))) <= 3, (what, name, got)

    refused = [(2, "is no figure", ["moon", "--out", "x.svg"]), (2, "--out is missing", ["kl", "--eval", "eval.json"]),
               (2, "ends with .svg, .pdf or .png", ["topk", *reading, "--out", "x.gif"]),
               (2, "states are 0 to 12", ["patches", *reading, "--states", "99", "--out", "x.svg"]),
               (2, "expected numbers", ["patches", *reading, "--states", "1,x", "--out", "x.svg"]),
               (2, "no single token", ["patches", *reading, "--word", "hippopotamus", "--out", "x.svg"]),
               (2, "no picture", ["patches", *reading[:2], "--prompt", "hello", "--out", "x.svg"]),
               (2, "no token class moon", ["kl", "--eval", "eval.json", "--class", "moon", "--out", "x.svg"]),
               (1, "not what vlens eval", ["kl", "--eval", str(source / "data/demo/model/config.json"), "--out", "x.svg"]),
               (1, "nowhere", ["kl", "--eval", "eval.json", "--out", "nowhere/x.svg"])]
    for code, message, arguments in refused:
        got = run("figure", *arguments, code=code)
        assert message in got and len(got.strip().split("\n")) == 1, got
    same([f.name for f in folder.iterdir() if f.name.startswith("x")], [], "files of refused figures")


if __name__ == "__main__":
    main()
