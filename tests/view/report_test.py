#!/usr/bin/env python3
"""Opens a page of `vlens eval --report` in headless Chromium: every number of its table is compared with the JSON of the
same evaluation, and the switches do what they say. Screenshots stay in the output folder.

report_test.py CHROMIUM VLENS SOURCE OUTPUT"""
import json
import pathlib
import shutil
import subprocess
import sys
import time

from browser import Browser, four_digits, same

CONFIG = """
model: {source}/data/demo/model
output: report-lens
data: {{samples: report.jsonl, images: {source}/data/demo, heldout: 0.4}}
cache: {{dir: report-cache, positions: {{image: 16}}}}
fit: {{tokens_per_step: 128, epochs: 2, validation: 0.1}}
eval: {{bootstrap: 100}}
"""
LENSES = ("tuned", "logit", "baseline", "wrong_picture")
NOT_METRICS = ("rows", "kl", "kl_low", "kl_high", "minus_tuned")


def text(x):
    """A number as the page writes it: four significant digits."""
    if x is None:
        return "–"
    if x == 0:
        return "0"
    return ("−" if x < 0 else "") + four_digits(abs(x))


def interval(mean, low, high):
    return text(mean) if low is None else f"{text(mean)} [{text(low)}, {text(high)}]"


def expected_row(state, lenses, metrics):
    row = [str(state["state"])]
    for lens in lenses:
        cell = state.get(lens)
        row.append(interval(cell["kl"], cell["kl_low"], cell["kl_high"]) if cell else "–")
    gain = state.get("logit", {}).get("minus_tuned")
    row.append(interval(gain["mean"], gain["low"], gain["high"]) if gain else "–")
    return row + [text(state["tuned"][m]) for m in metrics]


def check_table(browser, group):
    lenses = [name for name in LENSES if any(name in s for s in group["states"])]
    metrics = [m for m in group["states"][0]["tuned"]
               if m not in NOT_METRICS and any(s["tuned"][m] is not None for s in group["states"])]
    got = browser.js("[...document.querySelectorAll('#states tbody tr')].map(r => [...r.cells].map(c => c.textContent))")
    for state, row in zip(group["states"], got, strict=True):
        same(row, expected_row(state, lenses, metrics), f"class {group['class']}, state {state['state']}")
    return sum(len(row) - 1 for row in got)


def main():
    chromium, vlens, source, output = sys.argv[1:]
    folder = pathlib.Path(output) / "report"
    shutil.rmtree(folder, ignore_errors=True)
    folder.mkdir(parents=True)
    lines = (pathlib.Path(source) / "data/demo/samples.jsonl").read_text().split("\n")[:60]
    (folder / "report.jsonl").write_text("\n".join(lines) + "\n")
    (folder / "report.yaml").write_text(CONFIG.format(source=source))

    def run(*arguments):
        return subprocess.run([vlens, *arguments], cwd=folder, check=True, stdout=subprocess.PIPE).stdout
    run("train", "report.yaml", "--quiet")
    result = json.loads(run("eval", "report.yaml", "--quiet", "--json", "--report", "report.html"))
    metrics = json.loads((folder / "report-lens/metrics.json").read_text())
    browser = Browser(chromium)
    try:
        browser.size(1280, 1000)
        browser.open(folder / "report.html")
        numbers = 0
        for n, group in enumerate(result["classes"]):
            browser.js(f"document.querySelector('#classes input[value=\"{n}\"]').click()")
            numbers += check_table(browser, group)
        print(f"{numbers} numbers equal those of the JSON")
        # the chart follows class and quantity
        browser.js("(s => { s.value = 'entropy'; s.dispatchEvent(new Event('change', {bubbles: true})); })"
                   "(document.getElementById('metric'))")
        if browser.js("typeof Chart !== 'undefined'"):
            line = browser.js("Chart.getChart('chart-metric').data.datasets[0].data.map(p => p.y)")
            same(line, [s["tuned"]["entropy"] for s in result["classes"][-1]["states"]], "entropy in the chart")
            curve = browser.js("Chart.getChart('chart-training').data.datasets[0].data.map(p => [p.x, p.y])")
            stored = metrics["layers"][0]["curve"]
            same(curve, [list(p) for p in zip(stored["step"], stored["objective"])], "training curve of state 0")
        same(browser.js("document.querySelectorAll('#layers tbody tr').length"), len(metrics["layers"]), "fitted layers")
        config = browser.js("document.getElementById('config').textContent")
        if "report-lens" not in config:
            raise AssertionError("the configuration is not on the page")
        for width, height, mobile in ((1280, 1000, False), (390, 844, True)):
            browser.size(width, height, mobile)
            time.sleep(0.3)
            for scheme in ("light", "dark"):
                browser.scheme(scheme)
                same(browser.js("document.documentElement.scrollWidth"), width, "width that the page needs")
                browser.screenshot(str(folder / f"report-{width}-{scheme}.png"), full=True)
        same(browser.complaints(), [], "console output, errors or requests")
    finally:
        browser.close()
    return 0


if __name__ == "__main__":
    sys.exit(main())
