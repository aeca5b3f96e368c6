#!/usr/bin/env python3
"""Pictures at the sizes that models cut them into, in headless Chromium: words that can be read at 24 x 24 and beyond, the
magnifier, zoom and pan, a word that is asked for, tiles and dynamic grids, permalinks, the keyboard, contrast.

grid_test.py CHROMIUM OUTPUT   (OUTPUT holds the grid-*.html and grid-24.json of test_page)"""
import json
import pathlib
import sys

from browser import Browser, Steps, same

# words that are whole, at least 9 px high, inside their patch and inside the window of the picture, and over no other
LEGIBLE = """(() => {
  const frame = document.querySelector(".window").getBoundingClientRect(), boxes = [];
  for (const word of document.querySelectorAll("#pictures .grid:not([hidden]) .patch bdi")) {
    if (!word.textContent || word.classList.contains("cut") || parseFloat(getComputedStyle(word).fontSize) < 9)
      continue;
    const r = word.getBoundingClientRect(), p = word.parentNode.getBoundingClientRect(), e = 1;
    if (r.left < p.left - e || r.right > p.right + e || r.top < p.top - e || r.bottom > p.bottom + e)
      continue;
    if (r.left >= frame.left - e && r.right <= frame.right + e && r.top >= frame.top - e && r.bottom <= frame.bottom + e)
      boxes.push(r);
  }
  const overlaps = boxes.some((a, n) => boxes.some((b, m) => m > n && a.left < b.right - 1 && b.left < a.right - 1 &&
    a.top < b.bottom - 1 && b.top < a.bottom - 1));
  return overlaps ? -1 : boxes.length;
})()"""


class Grids:
    def __init__(self, browser, output):
        self.b, self.output = browser, output
        self.reading = json.loads((output / "grid-24.json").read_text())
        self.positions = self.reading["positions"]

    def top(self, i, state):
        return [t["token"] for t in self.positions[i]["states"][state]["tuned"]["top"]]

    def legible(self, page, width, height, least):
        self.b.size(width, height)
        self.b.open(self.output / page)
        count, zoomed = self.b.js(LEGIBLE), ""
        if count < least:
            self.b.key("+", text="+")
            count, zoomed = self.b.js(LEGIBLE), " after one step of zoom"
        print(f"    {page} at {width} px: {count} words can be read{zoomed}")
        if count < least:
            raise AssertionError(f"{count} words, at least {least}")
        self.b.screenshot(str(self.output / f"{page[:-5]}-{width}.png"))

    def magnifier(self):
        self.b.size(1280, 1000)
        self.b.open(self.output / "grid-24.html")
        self.b.key("m", text="m")
        self.b.mouse(".patch[data-i='300']")  # row 12, column 12
        state = self.b.js("Page.view.state")
        got = self.b.js("[...document.querySelectorAll('#loupe .cell')].map(c => [+c.dataset.i, c.textContent])")
        same([i for i, _ in got], [24 * r + c for r in range(10, 15) for c in range(10, 15)], "patches in the magnifier")
        same(sum(1 for _, text in got if text), 25, "words in the magnifier")
        plain = [(i, text) for i, text in got if self.top(i, state)[0].strip().isalpha()]
        for i, text in plain:
            same(text.replace("\n", ""), self.top(i, state)[0].strip(), f"word of patch {i} in the magnifier")
        self.b.screenshot(str(self.output / "magnifier.png"))
        self.b.key("m", text="m")
        same(self.b.js("document.getElementById('loupe').hidden"), True, "the magnifier is gone")

    def word(self):
        """A typed word lights the patches whose top k holds it, names its strongest ones and its first state."""
        self.b.open(self.output / "grid-24.html")
        self.b.key("/", text="/")
        self.b.call("Input.insertText", text="eyes")
        self.b.key("Enter", text="\r")
        patches = [i for i, p in enumerate(self.positions) if p["class"] == "image"]
        for state in (self.b.js("Page.view.state"), 3):
            self.b.js(f"(l => {{ l.value = {state}; l.dispatchEvent(new Event('input')); }})"
                      "(document.getElementById('layer'))")
            lit = self.b.js("[...document.querySelectorAll('.patch.lit')].map(n => +n.dataset.i)")
            same(lit, [i for i in patches if " eyes" in self.top(i, state)], f"patches that are lit at state {state}")
        states = range(self.reading["n_states"])
        first = next(s for s in states if any(self.top(i, s)[0] == " eyes" for i in patches))
        same(self.b.js("document.querySelector('#word .word').textContent"), f"state {first}", "its first state")

        def strength(i):
            return max((t["p"] for s in states for t in self.positions[i]["states"][s]["tuned"]["top"]
                        if t["token"] == " eyes"), default=0)
        best = sorted(patches, key=lambda i: -float(f"{strength(i):.3e}"))[:1]
        same(self.b.js("Ask.strongest('tuned', Page.view.token)[0].i"), best[0], "where it is strongest")
        counts = {}
        for i in patches:
            counts[self.top(i, 3)[0]] = counts.get(self.top(i, 3)[0], 0) + 1
        got = self.b.js("Ask.counts('tuned', 3).map(([t, n]) => [page.vocab[t], n])")
        same(dict(map(tuple, got)), {t.replace("\udcff", "\ufffd"): n for t, n in counts.items()}, "words at state 3")

    def zoom(self):
        self.b.size(1280, 1000)
        self.b.open(self.output / "grid-24.html")
        x, y = self.b.js("(r => [r.left + 0.27 * r.width, r.top + 0.27 * r.height])"
                         "(document.querySelector('.window').getBoundingClientRect())")
        under = f"document.elementFromPoint({x}, {y}).closest('.patch').dataset.i"
        before = self.b.js(under)
        self.b.call("Input.dispatchMouseEvent", type="mouseWheel", x=x, y=y, deltaX=0, deltaY=-240, modifiers=2)
        self.b.js("new Promise(r => setTimeout(r, 200))")
        if not self.b.js("Zoom.factor") > 1.5:
            raise AssertionError("Ctrl and the wheel do not zoom")
        same(self.b.js(under), before, "the patch under the pointer")
        same(self.b.js("document.querySelector('.map').hidden"), False, "the small map")
        left = self.b.js("document.querySelector('.window').scrollLeft")
        self.b.call("Input.dispatchMouseEvent", type="mousePressed", x=x, y=y, button="left", clickCount=1)
        for step in (10, 40, 60):
            self.b.call("Input.dispatchMouseEvent", type="mouseMoved", x=x - step, y=y, button="left", buttons=1)
        self.b.call("Input.dispatchMouseEvent", type="mouseReleased", x=x - 60, y=y, button="left", clickCount=1)
        same(self.b.js("document.querySelector('.window').scrollLeft"), left + 60, "after a drag by 60 px")
        same(self.b.js("Page.view.locked"), -1, "a drag locks nothing")
        self.b.js("document.querySelector('.grid').focus()")
        for _ in range(30):
            self.b.key("ArrowDown")
        same(self.b.js("Math.floor(Page.view.locked / 24)"), 23, "the row at the foot of the picture")
        inside = self.b.js("(([a, b]) => a.bottom <= b.bottom + 1 && a.left >= b.left - 1)(['.patch.locked', '.window']"
                           ".map(s => document.querySelector(s).getBoundingClientRect()))")
        same(inside, True, "the chosen patch is in the window")
        self.b.key("0", text="0")
        same(self.b.js("Zoom.factor"), 1, "zoom after 0")
        width = self.b.js("document.querySelector('.window').clientWidth")
        self.b.key("f", text="f")
        if not self.b.js("document.querySelector('.window').clientWidth") > 1.4 * width:
            raise AssertionError("the full width is no wider")

    def tiles(self):
        """Five tiles of 12 x 12: the whole picture is one layer, its four pieces are another; arrow keys cross the edges
        of pieces."""
        self.b.size(1280, 1000)
        self.b.open(self.output / "grid-tiles.html")
        seen = "[...document.querySelectorAll('.grid')].map(n => [n.hidden, n.children.length])"
        same(self.b.js(seen), [[False, 144], [True, 576]], "layers")
        self.b.js("(n => { n.value = 1; n.dispatchEvent(new Event('change')); })(document.getElementById('layer-of-tiles'))")
        same(self.b.js(seen), [[True, 144], [False, 576]], "layers")
        corner = 144 + 11 * 12 + 11  # the last patch of the first piece
        self.b.mouse(f".patch[data-i='{corner}']", click=True)
        self.b.js("document.querySelectorAll('.grid')[1].focus()")
        self.b.key("ArrowRight")
        same(self.b.js("Page.view.locked"), 2 * 144 + 11 * 12, "the piece at the right")
        self.b.key("ArrowDown")
        same(self.b.js("Page.view.locked"), 4 * 144, "the piece at the right and below")
        place = self.b.js("(([a, b]) => [(a.left - b.left) / b.width, (a.top - b.top) / b.height].map(x => "
                          "Math.round(100 * x)))(['.patch.locked', '.frame'].map(s => "
                          "document.querySelector(s).getBoundingClientRect()))")
        same(place, [50, 50], "where it lies")

    def link(self):
        self.b.open(self.output / "grid-24.html")
        self.b.js("location.hash = '#state=14&patch=9,11&token=eyes&lens=logit'")
        self.b.js("new Promise(r => setTimeout(r, 100))")
        same(self.b.js("[Page.view.state, Page.view.locked, page.vocab[Page.view.token], Page.view.lens]"),
             [14, 9 * 24 + 11, " eyes", "logit"], "what an address shows")
        self.b.js("document.activeElement.blur()")
        self.b.key("ArrowRight")
        address = self.b.js("location.hash")
        self.b.open(self.output / "grid-dynamic.html")
        self.b.events.clear()
        self.b.call("Page.navigate", url="file://" + str((self.output / "grid-24.html").resolve()) + address)
        self.b.wait_event("Page.loadEventFired")
        same(self.b.js("[Page.view.state, Page.view.locked, page.vocab[Page.view.token], Page.view.lens]"),
             [15, 9 * 24 + 11, " eyes", "logit"], "what the page's own address shows")
        for wrong in ("#state=99&patch=70,80&lens=none&token=%00", "#patch=1,2,3&state=-1", "#%E0%A4%A"):
            self.b.js(f"location.hash = {json.dumps(wrong)}")
            self.b.js("0")

    def table(self):
        """Opens at state 0 and says that there is more; patches are folded; ten thousand rows are a few elements."""
        self.b.size(1280, 1000)
        self.b.open(self.output / "grid-64.html")
        rows = self.b.js("document.querySelectorAll('#table tr').length")
        if rows > 80:
            raise AssertionError(f"{rows} rows are elements")
        self.b.open(self.output / "grid-24.html")
        same(self.b.js("document.getElementById('table').scrollLeft"), 0, "scrolled")
        note = self.b.js("document.getElementById('states-note').textContent")
        if not note.startswith("states 0 to ") or not note.endswith("of 32 →"):
            raise AssertionError("the cue: " + note)
        fold = "document.querySelectorAll('#table .is-fold').length"
        same(self.b.js("document.querySelector('#table .is-fold').textContent.slice(0, 13)"), "▸ patch row 0", "fold")
        before = self.b.js("document.querySelectorAll('#table tr[data-i]').length")
        self.b.mouse("#table .fold", click=True)
        same(self.b.js("document.querySelector('#table tr[data-i]').dataset.i"), "0", "the first patch of an open fold")
        same(self.b.js("document.activeElement.className"), "fold", "the focus stays")
        if self.b.js("document.querySelectorAll('#table tr[data-i]').length") <= before or not self.b.js(fold):
            raise AssertionError("the fold does not open")
        for s in (0, 5):
            same(self.b.js(f"document.querySelector('#table tr[data-i=\"3\"] td[data-s=\"{s}\"]').textContent"),
                 self.b.js(f"tokenText(Data.first('tuned', 3, {s}))"), "cell of a patch")

    def keyboard(self):
        self.b.open(self.output / "grid-tiles.html")
        stops = self.b.tab_stops()
        missed = self.b.js("[...document.querySelectorAll('button, input, select, summary, a, [tabindex=\"0\"]')]"
                           ".filter(n => n.checkVisibility() && !n.disabled && n.tabIndex >= 0 && !n.dataset.tabbed && "
                           "!(n.type === 'radio' && !n.checked)).map(n => n.outerHTML.slice(0, 80))")
        same(missed, [], f"not among the {stops} stops of Tab")

    def contrast(self):
        for scheme in ("light", "dark"):
            self.b.scheme(scheme)
            self.b.open(self.output / "grid-24.html")
            self.b.key("m", text="m")
            self.b.mouse(".patch[data-i='300']")
            self.b.mouse("#said .word", click=True)
            same(self.b.contrast(), [], "faint texts, " + scheme)
            self.b.screenshot(str(self.output / f"grid-24-{scheme}.png"))
        self.b.scheme("light")

    def phone(self):
        self.b.size(390, 844, True)
        for page in ("grid-24.html", "grid-tiles.html"):
            self.b.open(self.output / page)
            same(self.b.js("document.documentElement.scrollWidth"), 390, "width that the page needs")
            self.b.screenshot(str(self.output / f"{page[:-5]}-390.png"), full=True)

    def speed(self):
        """Printed, not judged. By the processor's time of the page's thread: other work on the machine does not count."""
        def busy():
            return next(m["value"] for m in self.b.call("Performance.getMetrics")["metrics"] if m["name"] == "TaskDuration")
        self.b.size(1280, 1000)
        self.b.call("Performance.enable", timeDomain="threadTicks")
        for page in ("grid-24.html", "large.html", "grid-64.html"):
            start = busy()
            self.b.open(self.output / page)
            self.b.js("0")
            opened = busy()
            for _ in range(5):
                self.b.key("ArrowLeft")
            print(f"    {page}: drawn in {1000 * (opened - start):.0f} ms of processor time, a key press in "
                  f"{1000 * (busy() - opened) / 5:.0f} ms")


def main():
    output = pathlib.Path(sys.argv[2])
    b = Browser(sys.argv[1])
    steps, t = Steps(b), Grids(b, output)
    try:
        b.scheme("light")
        for width, height in ((1280, 1000), (1920, 1080)):
            steps.run(f"24 x 24 at {width} px", t.legible, "grid-24.html", width, height, 400)
            steps.run(f"17 x 31 at {width} px", t.legible, "grid-dynamic.html", width, height, 300)
            steps.run(f"tiles at {width} px", t.legible, "grid-tiles.html", width, height, 100)
        for name in ("magnifier", "word", "zoom", "tiles", "link", "table", "keyboard", "contrast", "phone", "speed"):
            steps.run(name, getattr(t, name))
    finally:
        b.close()
    return 1 if steps.failed else 0


if __name__ == "__main__":
    sys.exit(main())
