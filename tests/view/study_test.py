#!/usr/bin/env python3
"""`vlens study` on a few scenes: every file that the index names is there, its numbers are those of `vlens topk` and
`vlens eval`, and what cannot be read is refused with the line it stands in.

study_test.py VLENS SOURCE OUTPUT [CHROMIUM]   (with a browser the index page is opened as well)"""
import json
import pathlib
import shutil
import subprocess
import sys

from browser import Browser, same

CONFIG = """
model: {source}/data/demo/model
precision: exact
output: study-lens
data: {{samples: rows.jsonl, images: {source}/data/demo, heldout: 0.4}}
cache: {{dir: study-cache, positions: {{image: 8}}}}
fit: {{tokens_per_step: 128, epochs: 1, validation: 0.1}}
eval: {{bootstrap: 20}}
fidelity: {{layers: 2, directions: 4, samples: 3, max_rows: 32, transfer_rows: 16}}
study: {{samples: asked.jsonl, images: {source}/data/demo, dir: study, k: 3, fidelity: true}}
"""
CLOSE = 9e-6  # relative; measured 2.4e-6: a product of one row rounds otherwise than one of many (in bf16 2.4e-4)
ASKED = [
    {"image": "images/010.png", "prompt": "What color is the cross? Answer with one word.", "answer": "green"},
    {"image": "images/013.png", "prompt": "What color is the cross? Answer with one word.", "answer": "white"},
    {"prompt": "What color is <b>it</b>? Answer with one word."},
]


def write(folder, asked):
    (folder / "asked.jsonl").write_text("".join(json.dumps(line) + "\n" for line in asked))


def check_question(question, topk):
    """A question of study.json against the same reading by `vlens topk --json`."""
    states = topk["positions"][0]["states"]
    for lens in ("logit", "tuned"):
        tops = [s[lens]["top"][0] for s in states]
        same([s["token"] for s in question[lens]["states"]], [t["token"] for t in tops], f"top tokens, {lens} lens")
        for s, t in zip(question[lens]["states"], tops):
            assert abs(s["p"] - t["p"]) <= CLOSE * t["p"], (s, t)
        settled = len(tops) - 1
        while settled > 0 and tops[settled - 1]["id"] == tops[-1]["id"]:
            settled -= 1
        same(question[lens]["settled"], settled, f"where the {lens} lens settles")


def main():
    vlens, source, output = sys.argv[1], pathlib.Path(sys.argv[2]), pathlib.Path(sys.argv[3])
    folder = output / "study"
    shutil.rmtree(folder, ignore_errors=True)
    folder.mkdir(parents=True)
    rows = (source / "data/demo/samples.jsonl").read_text().split("\n")[:40]
    (folder / "rows.jsonl").write_text("\n".join(rows) + "\n")
    (folder / "study.yaml").write_text(CONFIG.format(source=source))

    def run(*arguments, code=0):
        done = subprocess.run([vlens, *arguments], cwd=folder, stdout=subprocess.PIPE, stderr=subprocess.PIPE)
        same(done.returncode, code, f"exit code of {arguments}: {done.stderr.decode()}")
        return done.stdout if code == 0 else done.stderr.decode()
    write(folder, ASKED)
    summary = json.loads(run("study", "study.yaml", "--json", "--quiet"))
    same(summary, {"questions": 3, "comparisons": 1, "index": "study/index.html"}, "summary")
    study = json.loads((folder / "study/study.json").read_text())
    result = json.loads((folder / "study/eval.json").read_text())
    for g, group in enumerate(study["kl"]):
        same(group["tuned"], [s["tuned"]["kl"] for s in result["classes"][g]["states"]], f"KL of {group['class']}")
    for question, asked in zip(study["questions"], ASKED, strict=True):
        for kind in ("page", "graph", "table", *(["picture"] if "image" in asked else [])):
            assert (folder / "study" / question[kind]).stat().st_size > 100, question[kind]
        image = ["--image", str(source / "data/demo" / asked["image"])] if "image" in asked else []
        topk = run("topk", "--model", str(source / "data/demo/model"), *image, "--prompt", asked["prompt"], "--lens",
                   "study-lens", "--json", "-k", "3", "--set", "precision=exact")
        check_question(question, json.loads(topk))
    measured = json.loads((folder / "study/fidelity.json").read_text())
    same(study["fidelity"]["transfer"], measured["transfer"], "transfer")
    for state, own in zip(study["fidelity"]["states"], measured["states"], strict=True):
        same(state["tuned"]["partial"], own["tuned"]["partial"], "partial correlation")
    same([c["page"] for c in study["compare"]], ["compare/0-1.html"], "comparisons")
    assert (folder / "study/compare/0-1.html").stat().st_size > 1000

    # what a page of the earlier run leaves behind goes, and only that: not a file of somebody else, nor one named by a
    # study.json that was tampered with
    (folder / "study/pages/notes.html").write_text("mine")
    (folder / "mine.html").write_text("mine")
    study["questions"][2]["graph"] = "../mine.html"
    (folder / "study/study.json").write_text(json.dumps(study))
    write(folder, ASKED[:1])
    run("study", "study.yaml", "--quiet")
    same(sorted(f.name for f in (folder / "study/pages").iterdir()), ["0.html", "notes.html"], "pages that are left")
    same([f.name for f in (folder / "study/compare").iterdir()], [], "comparisons that are left")
    same((folder / "mine.html").read_text(), "mine", "a file outside the study")
    same(sorted(f.name for f in (folder / "study/tables").iterdir()), ["0.csv"], "tables that are left")
    write(folder, ASKED)
    run("study", "study.yaml", "--quiet")

    write(folder, [ASKED[0], {**ASKED[1], "image": "images/missing.png"}])
    message = run("study", "study.yaml", "--quiet", code=1)
    assert "asked.jsonl:2" in message and "missing.png" in message, message
    write(folder, ASKED)
    message = run("study", "study.yaml", "--quiet", "--set", "study.samples=", code=2)
    assert "study.samples is not set" in message, message

    if len(sys.argv) > 4:
        browser = Browser(sys.argv[4])
        try:
            for width in (1280, 390):
                browser.size(width, 900)
                browser.open(folder / "study/index.html")
                same(browser.js("document.documentElement.scrollWidth"), width, "width that the page needs")
                same(browser.js("[...document.querySelectorAll('.question')].length"), 3, "questions on the page")
                got = browser.js("[...document.querySelectorAll('#transfer-table tbody tr')].map(r => r.cells.length)")
                same(got, [13] * 12, "cells of the transfer table")
                first = measured["states"][0]["tuned"]["correlation"]["mean"]
                text = browser.js("document.querySelector('#fidelity-table td').textContent")
                assert abs(float(text.split()[0].replace("\u2212", "-")) - first) <= 5e-3 * abs(first), (text, first)
                same(browser.js("document.querySelectorAll('#list .strip i').length"), 6, "marks of both lenses")
                same(browser.js("[...document.querySelectorAll('h3 bdi')].map(n => n.textContent)"),
                     [a["prompt"] for a in ASKED], "prompts, as text")
                browser.screenshot(str(folder / f"study-{width}.png"), full=True)
                for n in (7, 7, 4):  # the logit lens' state, falling; what was said
                    browser.js(f"document.querySelectorAll('#list thead button')[{n}].click()")
                rows = "[...document.querySelectorAll('#list tbody tr')].map(r => r.cells[4].textContent)"
                same(browser.js(rows), sorted(browser.js(rows)), "sorted by what was said")
                same(browser.contrast(), [], "faint texts")
            for page, links in (("0", ["index", "next"]), ("1", ["index", "previous", "next"]), ("2", ["index", "previous"])):
                browser.open(folder / f"study/pages/{page}.html")
                same(browser.js("[...document.querySelectorAll('#study a')].map(a => a.id.slice(3))"), links, "ways out")
            browser.open(folder / "study/pages/0.html")
            browser.key("]", text="]")
            browser.js("new Promise(r => setTimeout(r, 500))")
            same(browser.js("location.pathname.split('/').pop()"), "1.html", "the page after ]")
            bad = [c for c in browser.complaints() if "study/pictures" not in c and "study/graphs" not in c]
            same(bad, [], "console output, errors or requests")
        finally:
            browser.close()


if __name__ == "__main__":
    main()
