#!/usr/bin/env python3
"""Opens pages of `vlens view` in headless Chromium and does what a reader does: slider, pointer, keys, switches.
Every number is compared with the JSON of the same reading. Screenshots stay in the output folder.

page_test.py CHROMIUM VLENS SOURCE OUTPUT   (OUTPUT holds hostile.html and large.html of test_page)"""
import json
import os
import pathlib
import shutil
import subprocess
import sys
import time
import xml.dom.minidom

from browser import Browser, Steps, four_digits, same

PROMPT = "What shape is red? Answer with one word."
CONFIG = """
model: {source}/data/demo/model
output: lens
data: {{samples: samples.jsonl, images: {source}/data/demo, heldout: 0.4}}
cache: {{dir: cache, positions: {{image: 16}}}}
fit: {{tokens_per_step: 128, epochs: 2, validation: 0.1}}
"""


def make_pages(vlens, source, folder):
    """A lens of a few scenes, a page of a model with its JSON, and a page of the cache with some of the patches."""
    def run(*arguments):
        return subprocess.run([vlens, *arguments], cwd=folder, check=True, stdout=subprocess.PIPE,
                              stderr=subprocess.PIPE).stdout
    lines = (source / "data/demo/samples.jsonl").read_text().split("\n")[:60]
    (folder / "samples.jsonl").write_text("\n".join(lines) + "\n")
    (folder / "view.yaml").write_text(CONFIG.format(source=source))
    for left_over in ("lens", "cache"):
        shutil.rmtree(folder / left_over, ignore_errors=True)
    run("train", "view.yaml", "--quiet")
    model = ["--model", str(source / "data/demo/model"), "--image", str(source / "data/demo/images/002.png"),
             "--prompt", PROMPT, "--lens", "lens"]
    reading = json.loads(run("view", *model, "--json", "--out", "page.html"))
    run("view", "--cache", "cache", "--sample", "3", "--lens", "lens", "--out", "cache.html")
    run("view", *model[:-2], "--out", "logit.html")
    tracked = json.loads(run("view", *model, "--track", "red", "--track", "ASSISTANT", "--json", "--out", "track.html"))
    # topk reads the same without the generated rows
    run("view", *model, "--generate", "0", "--out", "topk.html")
    topk = json.loads(run("topk", *model, "--position", "all", "--json"))
    reading["paths"] = json.loads(run("topk", *model, "--position", "all", "--format", "json-v2"))["tracked"]
    run("topk", *model, "--svg", "topk.svg")
    compared = json.loads(run("view", *model, "--compare", str(source / "data/demo/images/005.png"), "--generate", "0",
                              "--json", "--out", "compare.html"))
    alone = json.loads(run("view", "--model", model[1], "--image", str(source / "data/demo/images/005.png"),
                           *model[4:], "--generate", "0", "--json", "--out", "alone.html"))
    second = [p for p in compared["positions"] if p["part"] == 1]
    same([p["states"] for p in second], [p["states"] for p in alone["positions"]], "numbers of the second picture")
    same([p["states"] for p in compared["positions"] if p["part"] == 0], [p["states"] for p in topk["positions"]],
         "numbers of the first picture")
    mllama = json.loads(run("view", "--model", str(source / "tests/golden/fixtures/models/mllama-base-bf16"), "--image",
                            str(source / "data/demo/images/000.png"), "--prompt", "What color is it?", "--json",
                            "--out", "mllama.html"))
    return reading, tracked, topk, compared, mllama


def digits(x, lowest):
    """A number as the page writes it."""
    if x < 10.0 ** lowest:
        return f"<1e-{-lowest}"
    return four_digits(x)


def shown(text):
    return text.replace(" ", "·").replace("\n", "↵") or "∅"


class Test:
    def __init__(self, browser, output, reading):
        self.b, self.output, self.reading = browser, output, reading
        self.positions = reading["positions"]
        self.patches = [i for i, p in enumerate(self.positions) if p["class"] == "image"]
        self.last = reading["n_states"] - 1

    def cell(self, i, state, lens):
        return self.positions[i]["states"][state][lens]

    def text(self, selector):
        return self.b.js(f"document.querySelector({json.dumps(selector)}).textContent")

    def state(self):
        return self.b.js("Page.view.state")

    def check_card(self, i, state):
        """The card: both lenses, tokens and numbers."""
        same(self.b.js("[+card.dataset.i, +card.dataset.s]"), [i, state], "what the card is about")
        for lens in ("logit", "tuned"):
            cell = self.cell(i, state, lens)
            got = self.b.js(f"[...document.querySelectorAll('#card-{lens} li')].map(li => "
                            "[li.querySelector('.token').textContent, li.querySelector('.p').textContent])")
            same(got, [[shown(t["token"]), digits(t["p"], -7)] for t in cell["top"]], f"card, {lens}, {i}, {state}")
            got = self.b.js(f"[...document.querySelectorAll('#card-{lens} .nats span')].map(n => n.textContent)")
            same(got, [digits(max(cell["entropy"], 0), -4), digits(max(cell["kl"], 0), -4)], f"nats, {lens}")

    def check_patches(self, expected, what):
        """expected(i): the number of patch i, None where it is unknown. Up to the four digits of the page."""
        got = self.b.js("Object.fromEntries([...document.querySelectorAll('.patch')].map(p => "
                        "[p.dataset.i, p.dataset.value]))")
        same(sorted(map(int, got)), self.patches, "patches")
        for i in self.patches:
            want = expected(i)
            if want is None:
                same(got[str(i)], "", f"{what} of patch {i}")
            elif abs(float(got[str(i)]) - want) > 5.1e-4 * abs(want) + 1e-4:
                raise AssertionError(f"{what} of patch {i}: {got[str(i)]}, expected {want}")

    # ---- what a reader does ----

    def all_numbers(self, reading):
        """Every cell of the page, in its own decoding."""
        got = self.b.js("page.positions.map((_, i) => [...Array(Data.nStates).keys()].map(s => Data.lenses.map(lens => "
                        "[Data.top(lens, i, s).map(t => [page.ids[t.token], probabilityText(t.p)]), "
                        "natsText(Data.value(lens, i, s, 'entropy')), natsText(Data.value(lens, i, s, 'kl'))])))")
        same(len(got), len(reading["positions"]), "positions")
        n = 0
        for i, p in enumerate(reading["positions"]):
            for s, state in enumerate(p["states"]):
                for l, lens in enumerate(("logit", "tuned")):
                    cell = state[lens]
                    same(got[i][s][l], [[[t["id"], digits(t["p"], -7)] for t in cell["top"]],
                                        digits(max(cell["entropy"], 0), -4), digits(max(cell["kl"], 0), -4)],
                         f"position {i}, state {s}, {lens}")
                    n += len(cell["top"]) + 2
        print(f"    {n} numbers equal those of the JSON")

    def slider(self):
        before = self.state()
        self.b.js("document.getElementById('layer').focus()")
        self.b.key("ArrowLeft")
        same(self.state(), before - 1, "state after the left arrow on the slider")
        self.b.js("(layer => { layer.value = 3; layer.dispatchEvent(new Event('input')); })"
                  "(document.getElementById('layer'))")
        same(self.text("#layer-value"), f"3 of {self.last}", "label of the slider")
        same(self.b.js("[...document.querySelectorAll('thead th.now')].map(n => n.textContent)"), ["3"], "column")
        self.check_patches(lambda i: self.cell(i, 3, "tuned")["top"][0]["p"], "top-1 probability")
        self.b.mouse("#play", click=True)
        time.sleep(1.5)
        self.b.mouse("#play", click=True)
        state = self.state()
        if not 3 < state < self.last:
            raise AssertionError(f"state {state} after about 1.5 s of play, 0.6 s a state, from state 3")
        time.sleep(0.8)
        same(self.state(), state, "state after a pause")
        self.b.js("document.activeElement.blur()")

    def pointer(self):
        patch, other, state = self.patches[9], self.patches[30], self.state()
        self.b.mouse(f".patch[data-i='{patch}']")
        self.check_card(patch, state)
        same(self.b.js("[...document.querySelectorAll('tr.hovered')].map(r => +r.dataset.i)"), [patch], "hovered row")
        visible = self.b.js(f"(r => {{ const t = document.getElementById('table').getBoundingClientRect(); return "
                            f"r.top >= t.top && r.bottom <= t.bottom + 1; }})"
                            f"(document.querySelector('tr[data-i=\"{patch}\"]').getBoundingClientRect())")
        same(visible, True, "the hovered row is in sight")
        self.b.mouse(f"tr[data-i='{patch + 1}'] td[data-s='{state}']")
        same(self.b.js("[...document.querySelectorAll('.patch.hovered')].map(r => +r.dataset.i)"), [patch + 1], "patch")
        self.check_card(patch + 1, state)
        self.b.mouse(f".patch[data-i='{patch}']", click=True)
        self.b.mouse(f".patch[data-i='{other}']")
        self.check_card(patch, state)
        same(self.b.js("[...document.querySelectorAll('.locked')].map(r => +r.dataset.i)"), [patch, patch], "locked")
        self.chart(patch, "tuned")
        self.b.key("Escape")
        same(self.b.js("document.querySelectorAll('.locked').length"), 0, "locked after Escape")

    def chart(self, i, lens):
        """The lines of the chart, and the table under it."""
        best = {}
        for s in range(self.last + 1):
            for t in self.cell(i, s, lens)["top"]:
                best[t["token"]] = max(best.get(t["token"], 0), t["p"])
        if self.b.js("typeof Chart === 'undefined'"):
            print("    no chart in this build")
        else:
            lines = self.b.js("Chart.getChart('chart-p').data.datasets.map(d => [d.label, d.data])")
            same(lines[0][0], shown(max(best, key=best.get)), "first line of the chart")
            for label, data in lines:
                path = next(path for token, path in self.reading["paths"][i].items() if shown(token) == label)
                same([digits(p, -7) for p in data], [digits(p, -7) for p in path], f"the whole path of {label}")
            nats = dict(self.b.js("Chart.getChart('chart-nats').data.datasets.map(d => [d.label, d.data])"))
            for s, x in enumerate(nats["KL, tuned"]):
                same(digits(x, -4), digits(max(self.cell(i, s, "tuned")["kl"], 0), -4), f"KL at state {s}")
        self.b.js("document.getElementById('numbers').open = true")
        rows = self.b.js("[...document.querySelectorAll('#numbers-table tbody tr')].map(r => "
                         "[...r.cells].map(c => c.textContent))")
        for s, row in enumerate(rows):
            same(row[0], str(s), "state")
            for n, name in enumerate(("logit", "tuned")):
                cell = self.cell(i, s, name)
                same(row[1 + 3 * n], "".join(f"{shown(t['token'])} {digits(t['p'], -7)}" for t in cell["top"]), "top")
                same(row[3 + 3 * n], digits(max(cell["kl"], 0), -4), "KL")
        self.b.js("document.getElementById('numbers').open = false")

    def lenses(self):
        s = self.state()
        self.b.mouse("#lenses input[value=logit]", click=True)
        self.check_patches(lambda i: self.cell(i, s, "logit")["top"][0]["p"], "logit top-1")
        i = self.patches[5]
        self.b.js(f"Table.reveal({i})")
        same(self.text(f"tr[data-i='{i}'] td[data-s='{s}']"), shown(self.cell(i, s, "logit")["top"][0]["token"]),
             "cell")
        self.b.mouse("#lenses input[value=difference]", click=True)
        self.check_patches(lambda i: self.cell(i, s, "tuned")["top"][0]["p"] - self.cell(i, s, "logit")["top"][0]["p"],
                           "difference of top-1")
        self.b.mouse("#lenses input[value=tuned]", click=True)
        self.check_patches(lambda i: self.cell(i, s, "tuned")["top"][0]["p"], "tuned top-1")

    def colours(self):
        s = self.state()
        for name in ("entropy", "kl"):
            self.b.js(f"(n => {{ n.value = '{name}'; n.dispatchEvent(new Event('change')); }})"
                      "(document.getElementById('colour'))")
            self.check_patches(lambda i: max(self.cell(i, s, "tuned")[name], 0), name)
        token = self.cell(self.patches[5], s, "tuned")["top"][0]["token"]
        self.b.js("document.getElementById('token').focus()")
        self.b.js("document.getElementById('token').value = ''")
        self.b.call("Input.insertText", text=shown(token))
        self.b.key("Enter", text="\r")
        self.b.js("document.activeElement.blur()")
        same(self.b.js("document.getElementById('colour').value"), "token", "colour after a token was typed")

        def stored(i):
            path = self.reading["paths"][i].get(token)
            return path[s] if path else None
        self.check_patches(stored, f"p({token})")
        self.b.js("(n => { n.value = 'zebra crossing'; n.dispatchEvent(new Event('change')); })"
                  "(document.getElementById('token'))")
        if "vlens view --track" not in self.text("#message"):
            raise AssertionError("an unknown token is not explained: " + self.text("#message"))
        colour = f"getComputedStyle(document.querySelector('tr[data-i=\"{self.patches[9]}\"] td[data-s=\"{s}\"]'))"
        self.b.js(f"Table.reveal({self.patches[9]})")
        self.b.js("(n => { n.value = 'kl'; n.dispatchEvent(new Event('change')); })(document.getElementById('colour'))")
        before = self.b.js(colour + ".backgroundColor")
        self.b.mouse("#log", click=True)
        same(self.b.js("document.getElementById('log').checked"), True, "log scale")
        if self.b.js(colour + ".backgroundColor") == before:
            raise AssertionError("the log scale changes no colour")
        self.b.mouse("#log", click=True)
        worst = self.b.js("Math.min(...Array.from({length: 101}, (_, n) => { const c = Colour.of(n / 100, "
                          "{low: 0, high: 1}); const l = t => t.match(/[0-9.]+/g).map(v => (v /= 255) <= 0.04045 ? "
                          "v / 12.92 : ((v + 0.055) / 1.055) ** 2.4).reduce((s, v, n) => s + v * "
                          "[0.2126, 0.7152, 0.0722][n], 0); const a = l(c.background), b = c.text === '#fff' ? 1 : 0; "
                          "return (Math.max(a, b) + 0.05) / (Math.min(a, b) + 0.05); }))")
        if worst < 4.5:
            raise AssertionError(f"contrast {worst} of a cell's text, at least 4.5")

    def tracked(self):
        same([shown(t["token"]) for t in self.reading["tracked"]], ["·red", "·ASSISTANT"], "tracked tokens")
        s = self.state()
        self.b.js("(n => { n.value = 'red'; n.dispatchEvent(new Event('change')); })(document.getElementById('token'))")
        self.check_patches(lambda i: self.cell(i, s, "tuned")["tracked"][0], "p(red)")
        got = self.b.js("page.positions.map((_, i) => [...Array(Data.nStates).keys()].map(s => Data.lenses.map(lens => "
                        "page.tracked.map(t => probabilityText(Data.value(lens, i, s, 'token', t))))))")
        for i, p in enumerate(self.positions):
            for state in range(self.last + 1):
                for n, lens in enumerate(("logit", "tuned")):
                    cell = self.cell(i, state, lens)
                    same(got[i][state][n], [digits(x, -7) for x in cell["tracked"]], "tracked probability")
                    for t in cell["top"]:  # a tracked token among the top ones has the same probability there
                        if shown(t["token"]) == "·red":
                            same(t["p"], cell["tracked"][0], "p(red) in top-k")
        self.b.mouse(f".patch[data-i='{self.patches[9]}']")
        same(self.b.js("document.querySelectorAll('#card-tuned .tracked').length"), 2, "tracked tokens in the card")
        self.b.screenshot(str(self.output / "track.png"))

    def keys(self):
        self.b.js("document.activeElement.blur()")
        self.b.key("Escape")
        state = self.state()
        self.b.key("ArrowRight")
        same(self.state(), state + 1, "state after the right arrow")
        self.b.key("ArrowLeft")
        last = next(i for i, p in enumerate(self.positions) if p["class"] == "last")
        self.b.mouse("footer")
        self.b.key("ArrowUp")
        same(self.b.js("Page.view.locked"), last - 1, "position after the up arrow")
        self.b.key("l", text="l")
        same(self.b.js("Page.view.lens"), "difference", "lens after l")
        self.b.key("l", text="l")
        self.b.key("l", text="l")
        self.b.js("document.querySelector('.grid').focus()")
        self.b.key("ArrowRight")
        first = self.b.js("Page.view.locked")
        same(first, self.patches[0], "the first patch")
        self.b.key("ArrowRight")
        self.b.key("ArrowDown")
        same(self.b.js("Page.view.locked"), self.patches[0] + 1 + 8, "a step right and a step down")
        same(self.state(), state, "state while moving in the picture")
        before = self.b.js("Page.view.colour")
        self.b.key("c", text="c")
        if self.b.js("Page.view.colour") == before:
            raise AssertionError("c does not change the colour")
        self.b.key("/", text="/")
        same(self.b.js("document.activeElement.id"), "token", "focus after /")
        self.b.key("Escape")
        self.b.key("Escape")
        same(self.b.js("Page.view.locked"), -1, "lock after Escape")
        # all controls are reached by Tab and have names
        names = self.b.js("[...document.querySelectorAll('input, select, button, [tabindex]')]"
                          ".filter(n => n.offsetParent).filter(n => !(n.labels && n.labels.length) && "
                          "!n.getAttribute('aria-label') && "
                          "!n.textContent.trim()).map(n => n.outerHTML)")
        same(names, [], "controls without a name")

    def compared(self):
        """Two pictures under one prompt: the second reading equals one of that picture alone, and a patch of one
        picture brings its counterpart in the other."""
        second = [i for i, p in enumerate(self.positions) if p["part"] == 1]
        same(self.b.js("[...document.querySelectorAll('figcaption')].map(n => n.textContent)"),
             ["Picture A.", "Picture B."], "captions")
        patch = self.patches[9]
        other = next(i for i in second if self.positions[i]["position"] == self.positions[patch]["position"])
        self.b.mouse(f".patch[data-i='{patch}']")
        same(self.b.js("[...document.querySelectorAll('.patch.hovered')].map(p => +p.dataset.i)"), [patch, other],
             "hovered patches")
        state = self.state()
        self.check_card(patch, state)
        for lens in ("logit", "tuned"):
            got = self.b.js(f"[...document.querySelectorAll('#card-other-{lens} li')].map(li => "
                            "[li.querySelector('.token').textContent, li.querySelector('.p').textContent])")
            same(got, [[shown(t["token"]), digits(t["p"], -7)] for t in self.cell(other, state, lens)["top"]],
                 "card of the counterpart")
        self.b.screenshot(str(self.output / "compare.png"))

    def themes(self):
        ground = "getComputedStyle(document.body).backgroundColor"
        self.b.scheme("light")
        light = self.b.js(ground)
        self.b.scheme("dark")
        dark = self.b.js(ground)
        if light == dark:
            raise AssertionError("the page does not follow prefers-color-scheme")
        self.b.mouse("#theme", click=True)
        same(self.b.js(ground), light, "ground after the switch to light")
        self.b.mouse("#theme", click=True)
        same(self.b.js(ground), dark, "ground after the switch to dark")
        self.b.mouse("#theme", click=True)
        self.b.scheme("light")

    def widths(self, name):
        for width, height, mobile in ((1280, 1000, False), (390, 844, True)):
            self.b.size(width, height, mobile)
            time.sleep(0.3)  # the charts follow the new width
            for scheme in ("light", "dark"):
                self.b.scheme(scheme)
                same(self.b.js("document.documentElement.scrollWidth"), width, "width that the page needs")
                self.b.screenshot(str(self.output / f"{name}-{width}-{scheme}.png"), full=True)
        self.b.scheme("light")
        self.b.size(1280, 1000)


def hostile(b, output):
    b.open(output / "hostile.html")
    same(b.js("document.images.length"), 2, "images: the picture and its small map")
    same(b.js("[...document.scripts].length"), 3, "scripts")
    text = "</script><img src=x onerror=\"document.title='owned'\">"
    same(b.js("document.querySelector('h1').textContent"), text, "prompt")
    same(b.js("document.title"), text + " – vlens", "title")
    b.mouse("#lenses input[value=logit]", click=True)
    found = b.js("[...document.querySelectorAll('td')].filter(n => n.textContent === " +
                 json.dumps(text.replace(" ", "·")) + ").length")
    if not found:
        raise AssertionError("the hostile token stands in no cell")
    b.screenshot(str(output / "hostile.png"))


def cross_attention(b, output, reading):
    """A model whose patches are no rows: every weight of the page is that of the model up to its 5.6 % step, seen in
    the tile sums, and the picture follows the position and the block."""
    b.open(output / "mllama.html")
    positions = reading["positions"]
    blocks = [a["block"] for a in positions[0]["attention"]]
    got = b.js("page.attention.layers")
    same(got, blocks, "blocks")
    for n in range(len(blocks)):
        b.js(f"(s => {{ s.value = '{n}'; s.dispatchEvent(new Event('change')); }})(document.getElementById('cross'))")
        per = "1 + page.attention.rows * page.attention.columns"
        sums = b.js(f"page.positions.map((_, i) => Array.from({{length: page.attention.tiles}}, (_, t) => Array.from("
                    f"{{length: {per}}}, (_, k) => Attention.weight(i, t * ({per}) + k)).reduce((a, b) => a + b)))")
        for i, p in enumerate(positions):
            for tile, want in enumerate(p["attention"][n]["tiles"]):
                if abs(sums[i][tile] - want) > 0.03 * want + 1e-4:
                    raise AssertionError(f"position {i}, block {blocks[n]}, tile {tile}: {sums[i][tile]}, not {want}")
    before = b.js("document.querySelector('canvas.weights').toDataURL()")
    b.key("a", text="a")
    if b.js("document.querySelector('canvas.weights').toDataURL()") == before:
        raise AssertionError("another block, the same picture")
    b.mouse("canvas.weights")
    caption = b.js("[...document.querySelectorAll('figcaption')].pop().textContent")
    if "patch" not in caption or f"Block {blocks[0]}" not in caption:
        raise AssertionError("the pointer does not say what is under it: " + caption)
    b.screenshot(str(output / "mllama.png"))


def heat_maps(b, output):
    """SVG is XML: a parser refuses what is not escaped."""
    for name in ("topk.svg", "hostile.svg"):
        document = xml.dom.minidom.parse(str(output / name))
        tags = {n.tagName for n in document.getElementsByTagName("*")}
        same(tags, {"svg", "style", "rect", "text"}, "elements of " + name)
        b.open(output / name)
        b.screenshot(str(output / (name + ".png")))


def large(b, output):
    start = time.monotonic()
    b.open(output / "large.html")
    b.js("0")
    loaded = time.monotonic() - start
    switch = b.js("(t => { document.querySelector('#lenses input[value=difference]').click(); "
                  "return performance.now() - t; })(performance.now())")
    slide = b.js("(t => { const l = document.getElementById('layer'); for (let n = 0; n < 10; n++) { l.value = n; "
                 "l.dispatchEvent(new Event('input')); } return (performance.now() - t) / 10; })(performance.now())")
    print(f"    {os.path.getsize(output / 'large.html')} bytes: open {loaded:.2f} s, lens switch {switch:.0f} ms, "
          f"one state {slide:.0f} ms")
    b.screenshot(str(output / "large.png"))


def main():
    program, vlens, source, output = sys.argv[1], sys.argv[2], pathlib.Path(sys.argv[3]), pathlib.Path(sys.argv[4])
    reading, tracked, topk, compared, mllama = make_pages(os.path.abspath(vlens), source.resolve(), output)
    b = Browser(program)
    steps = Steps(b)
    step = steps.run
    try:
        b.size(1280, 1000)
        b.scheme("light")
        t = Test(b, output, reading)
        step("page of a model", b.open, output / "page.html")
        step("all numbers", t.all_numbers, reading)
        for name in ("slider", "pointer", "lenses", "colours", "keys", "themes"):
            step(name, getattr(t, name))
        step("widths", t.widths, "page")
        step("page without generated tokens", b.open, output / "topk.html")
        step("all numbers of topk --json", t.all_numbers, topk)
        step("page with tracked words", b.open, output / "track.html")
        step("tracked words", Test(b, output, tracked).tracked)
        step("page of two pictures", b.open, output / "compare.html")
        step("all numbers of both", t.all_numbers, compared)
        step("two pictures", Test(b, output, compared).compared)
        step("widths of them", t.widths, "compare")
        step("page of a cache", b.open, output / "cache.html")
        step("widths of it", t.widths, "cache")
        step("page without a lens", b.open, output / "logit.html")
        step("widths of that", t.widths, "logit")
        step("hostile tokens", hostile, b, output)
        step("cross-attention", cross_attention, b, output, mllama)
        step("heat maps", heat_maps, b, output)
        step("large page", large, b, output)
    finally:
        b.close()
    return 1 if steps.failed else 0


if __name__ == "__main__":
    sys.exit(main())
