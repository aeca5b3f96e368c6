#!/usr/bin/env python3
"""The page of `vlens serve` in headless Chromium: upload, ask, read the page in the frame, ask it for a word that it does not
hold; the numbers are those of the reading's JSON.

serve_browser_test.py CHROMIUM VLENS SOURCE OUTPUT"""
import base64
import json
import pathlib
import shutil
import sys
import time

from server import Server

sys.path.insert(0, str(pathlib.Path(__file__).resolve().parent.parent / "view"))
from browser import Browser, Steps, same  # noqa: E402

PROMPT = "What shape is red? Answer with one word."
FRAME = "document.getElementById('reading').contentWindow"


def until(b, expression, what, seconds=60):
    deadline = time.monotonic() + seconds
    while not b.js(expression):
        if time.monotonic() > deadline:
            raise AssertionError(f"{what}: not in {seconds} s; the page says {b.js('document.getElementById(`status`).textContent')}")
        time.sleep(0.2)


def ask(b, source):
    picture = base64.b64encode((source / "data/demo/images/002.png").read_bytes()).decode()
    b.js(f"Ask.upload([new File([Uint8Array.from(atob('{picture}'), c => c.charCodeAt(0))], 'scene.png')])")
    same(b.js("document.querySelectorAll('#uploads img').length"), 1, "pictures")
    b.js("document.getElementById('prompt').focus()")
    b.call("Input.insertText", text=PROMPT)
    b.js("document.getElementById('k').value = 2")
    b.mouse("#ask", click=True)
    until(b, "!document.getElementById('reading').hidden", "a reading")
    until(b, f"!!({FRAME}.document.getElementById('card') || {{dataset: {{}}}}).dataset.i", "its page")


def numbers(b, server):
    reading = json.loads(server.get("reading/1.json")[1])
    b.go(server.url + "reading/1")
    got = b.js("page.positions.map((_, i) => Data.top('logit', i, 5).map(t => page.ids[t.token]))")
    same(got, [[t["id"] for t in p["states"][5]["logit"]["top"]] for p in reading["positions"]], "tokens at state 5")
    said = "".join(p["token"] for p in reading["positions"] if p["class"] == "generated" and not p["token"].startswith("<"))
    if said.strip() not in b.js("document.getElementById('about').textContent"):
        raise AssertionError(f"the page does not say what the model says: {said}")


def word(b, server, source):
    """A word that is nowhere among the top: the model is asked again, and follows it at every cell."""
    reading = json.loads(server.get("reading/1.json")[1])
    top = {t["token"].lower().strip() for p in reading["positions"] for s in p["states"] for t in s["logit"]["top"]}
    vocab = json.loads((source / "data/demo/model/tokenizer.json").read_text())["model"]["vocab"]
    words = [w[1:] for w in vocab if w[0] in "\u2581\u0120" and w[1:].isalpha() and len(w) > 3]
    rare = next(w for w in words if w.lower() not in top)
    b.js(f"(n => {{ n.value = '{rare}'; n.dispatchEvent(new Event('change')); }})"
         f"({FRAME}.document.getElementById('token'))")
    until(b, "document.querySelectorAll('#readings button').length === 2", "the second reading")
    second = json.loads(server.get("reading/2.json")[1])
    same([t["token"] for t in second["tracked"]], [" " + rare], "the word that is followed")
    same(b.js("document.getElementById('track').value"), rare, "words to follow")


def looks(b, output):
    same(b.js("[...document.querySelectorAll('#form input, #form select, #form textarea, button')].filter(n => "
              "n.checkVisibility() && !(n.labels && n.labels.length) && !n.textContent.trim()).map(n => n.id)"), [],
         "controls without a name")
    for width, height, mobile, scheme in ((1280, 1000, False, "light"), (390, 844, True, "dark")):
        b.size(width, height, mobile)
        b.scheme(scheme)
        time.sleep(0.3)
        same(b.js("document.documentElement.scrollWidth"), width, "width that the page needs")
        same(b.contrast(), [], "faint texts")
        b.screenshot(str(output / f"serve-{width}.png"))


def main():
    chromium, vlens, source, folder = sys.argv[1], sys.argv[2], pathlib.Path(sys.argv[3]).resolve(), pathlib.Path(sys.argv[4])
    folder = folder / "browser"
    shutil.rmtree(folder, ignore_errors=True)
    folder.mkdir(parents=True)
    server = Server(vlens, source / "data/demo/model", folder)
    b = Browser(chromium)
    steps = Steps(b, f"http://{server.host}/")
    try:
        b.size(1280, 1000)
        b.scheme("light")
        steps.run("the page", b.go, server.url)
        steps.run("ask", ask, b, source)
        steps.run("a word", word, b, server, source)
        steps.run("looks", looks, b, folder)
        steps.run("numbers", numbers, b, server)
    finally:
        b.close()
        server.stop()
    return 1 if steps.failed else 0


if __name__ == "__main__":
    sys.exit(main())
