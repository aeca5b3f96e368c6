"""Headless Chromium over --remote-debugging-pipe: JSON messages, each ended by a NUL, on file descriptors 3 and 4.
Standard library only. Everything that the page logs, throws or requests is kept, so that a test can want none."""
import base64
import decimal
import json
import os
import select
import shutil
import subprocess
import sys
import tempfile
import time


def four_digits(x):
    """x > 0 as a page writes it, with an exponent below 0.001. Ties go up, as in JavaScript's
    toPrecision (ECMA-262, Number.prototype.toPrecision)."""
    rounded = decimal.Context(prec=4, rounding=decimal.ROUND_HALF_UP).create_decimal(x)
    mantissa, exponent = f"{rounded:.3e}".split("e")
    exponent = int(exponent)
    return f"{mantissa}e{exponent:+d}" if rounded < decimal.Decimal("1e-3") else f"{rounded:.{max(3 - exponent, 0)}f}"


CONTRAST = """(() => {
  const parse = c => (c.match(/[\\d.]+/g) || []).map((v, n) => /^color\\(srgb/.test(c) && n < 3 ? 255 * v : Number(v));
  const linear = v => (v /= 255) <= 0.04045 ? v / 12.92 : ((v + 0.055) / 1.055) ** 2.4;
  const light = c => 0.2126 * linear(c[0]) + 0.7152 * linear(c[1]) + 0.0722 * linear(c[2]);
  const over = (a, b) => a.slice(0, 3).map((v, n) => v * (a[3] ?? 1) + b[n] * (1 - (a[3] ?? 1)));
  const ground = (node, ink) => {
    const layers = [];
    for (let n = node; n; n = n.parentElement) {
      const c = parse(getComputedStyle(n).backgroundColor);
      if (n.classList.contains("grid") || n.id === "loupe") {
        layers.push(light(ink) > 0.2 ? [255, 255, 255] : [0, 0, 0]);
        break;
      }
      if (c.length && c[3] !== 0)
        layers.push(c);
      if (c.length && (c[3] ?? 1) === 1)
        break;
    }
    return layers.reverse().reduce((below, c) => over(c, below), [255, 255, 255]);
  };
  const bad = [];
  for (const node of document.querySelectorAll("body *")) {
    const own = [...node.childNodes].some(n => n.nodeType === 3 && n.textContent.trim());
    if (!own || !node.checkVisibility() || node.closest("script, style, datalist, option, :disabled"))
      continue;
    const ink = parse(getComputedStyle(node).color), under = ground(node, ink), a = light(over(ink, under)), b = light(under);
    let faint = 1;
    for (let n = node; n; n = n.parentElement)
      faint *= Number(getComputedStyle(n).opacity);
    const ratio = (Math.max(a, b) + 0.05) / (Math.min(a, b) + 0.05);
    if (ratio < 4.5 || (faint < 1 && ratio * faint < 4.5))
      bad.push([ratio.toFixed(2), faint, node.tagName, node.id, node.className, node.textContent.slice(0, 30)].join(" "));
  }
  return bad;
})()"""


def same(a, b, what):
    if a != b:
        raise AssertionError(f"{what}: got {a!r}, expected {b!r}")


class Steps:
    """Runs the steps of a browser test: each prints a line, none may leave errors, console output or requests."""

    def __init__(self, browser, server=None):
        self.browser, self.server, self.failed = browser, server, 0

    def run(self, name, function, *arguments):
        try:
            function(*arguments)
            same(self.browser.complaints(self.server), [], "errors, console output and requests")
            print("ok      " + name)
        except (AssertionError, RuntimeError, TimeoutError) as error:
            self.failed += 1
            print(f"FAILED  {name}: {error}")
        sys.stdout.flush()
        self.browser.events.clear()


class Browser:
    def __init__(self, program, timeout=60):
        self.timeout = timeout
        self.profile = tempfile.mkdtemp(prefix="vlens-chromium-")
        to_browser, self.write_fd = os.pipe()
        self.read_fd, from_browser = os.pipe()

        def child_files():
            # through high numbers first: 3 and 4 may be among the four
            a, b = os.dup2(to_browser, 200), os.dup2(from_browser, 201)
            os.dup2(a, 3, inheritable=True)
            os.dup2(b, 4, inheritable=True)

        command = [program, "--headless", "--no-sandbox", "--disable-gpu", "--hide-scrollbars", "--no-first-run",
                   "--disable-dev-shm-usage", "--disable-background-networking", "--disable-component-update",
                   "--user-data-dir=" + self.profile, "--remote-debugging-pipe", "about:blank"]
        self.process = subprocess.Popen(command, preexec_fn=child_files, close_fds=False,
                                        stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)
        os.close(to_browser)
        os.close(from_browser)
        self.buffer, self.number, self.session = b"", 0, None
        self.events = []
        targets = self.call("Target.getTargets")["targetInfos"]
        page = next(t for t in targets if t["type"] == "page")
        self.session = self.call("Target.attachToTarget", targetId=page["targetId"], flatten=True)["sessionId"]
        for domain in ("Page", "Runtime", "Log", "Network"):
            self.call(domain + ".enable")

    def close(self):
        try:
            self.session = None
            self.call("Browser.close")
            self.process.wait(20)
        except Exception:
            self.process.kill()
            self.process.wait()
        os.close(self.write_fd)
        os.close(self.read_fd)
        shutil.rmtree(self.profile, ignore_errors=True)

    def _message(self, deadline):
        while b"\0" not in self.buffer:
            left = deadline - time.monotonic()
            if left <= 0 or not select.select([self.read_fd], [], [], left)[0]:
                raise TimeoutError("the browser does not answer")
            data = os.read(self.read_fd, 1 << 20)
            if not data:
                raise RuntimeError("the browser ended")
            self.buffer += data
        text, self.buffer = self.buffer.split(b"\0", 1)
        return json.loads(text)

    def call(self, method, **parameters):
        self.number += 1
        message = {"id": self.number, "method": method, "params": parameters}
        if self.session:
            message["sessionId"] = self.session
        data = json.dumps(message).encode() + b"\0"
        while data:
            data = data[os.write(self.write_fd, data):]
        deadline = time.monotonic() + self.timeout
        while True:
            answer = self._message(deadline)
            if answer.get("id") == self.number:
                if "error" in answer:
                    raise RuntimeError(f"{method}: {answer['error']['message']}")
                return answer.get("result", {})
            self.events.append(answer)

    def wait_event(self, method):
        deadline = time.monotonic() + self.timeout
        while not any(e.get("method") == method for e in self.events):
            self.events.append(self._message(deadline))

    def open(self, path):
        self.go("file://" + os.path.abspath(path))

    def go(self, url):
        self.events.clear()
        self.call("Page.navigate", url=url)
        self.wait_event("Page.loadEventFired")

    def size(self, width, height, mobile=False):
        self.call("Emulation.setDeviceMetricsOverride", width=width, height=height, deviceScaleFactor=1, mobile=mobile)

    def scheme(self, name):
        self.call("Emulation.setEmulatedMedia", features=[{"name": "prefers-color-scheme", "value": name}])

    def js(self, expression):
        """The value of an expression, after the frames that the page asked for were drawn."""
        wrapped = ("(async () => { const value = (" + expression + ");"
                   " await new Promise(r => requestAnimationFrame(() => requestAnimationFrame(r))); return value; })()")
        answer = self.call("Runtime.evaluate", expression=wrapped, awaitPromise=True, returnByValue=True)
        if "exceptionDetails" in answer:
            raise AssertionError(expression + ": " + json.dumps(answer["exceptionDetails"])[:600])
        return answer["result"].get("value")

    def mouse(self, selector, click=False):
        """Moves the pointer to the middle of an element, and clicks there. Scrolls it into sight where it is not."""
        self.js("(n => { const r = n.getBoundingClientRect(), y = r.top + r.height / 2; "
                "if (y < 0 || y > innerHeight) n.scrollIntoView({block: 'center'}); })(document.querySelector(" +
                json.dumps(selector) + "))")
        x, y = self.js("(r => [r.left + r.width / 2, r.top + r.height / 2])(document.querySelector(" +
                       json.dumps(selector) + ").getBoundingClientRect())")
        self.call("Input.dispatchMouseEvent", type="mouseMoved", x=x, y=y)
        if click:
            for kind in ("mousePressed", "mouseReleased"):
                self.call("Input.dispatchMouseEvent", type=kind, x=x, y=y, button="left", clickCount=1)
        self.js("0")

    def key(self, key, code=None, text=None):
        for kind in ("keyDown", "keyUp"):
            extra = {"text": text} if text and kind == "keyDown" else {}
            self.call("Input.dispatchKeyEvent", type=kind, key=key, code=code or key, **extra)
        self.js("0")

    def screenshot(self, path, full=False):
        data = self.call("Page.captureScreenshot", captureBeyondViewport=full,
                         **({"clip": {"x": 0, "y": 0, "scale": 1,
                                      "width": self.js("document.documentElement.clientWidth"),
                                      "height": self.js("document.documentElement.scrollHeight")}} if full else {}))
        with open(path, "wb") as file:
            file.write(base64.b64decode(data["data"]))

    def tab_stops(self, most=250):
        """Presses Tab through the whole page: the elements that had the focus, by a mark that this leaves on them."""
        self.js("(document.activeElement.blur(), document.querySelectorAll('[data-tabbed]').forEach(n => "
                "n.removeAttribute('data-tabbed')), scrollTo(0, 0))")
        for n in range(most):
            for kind in ("keyDown", "keyUp"):
                self.call("Input.dispatchKeyEvent", type=kind, key="Tab", code="Tab", windowsVirtualKeyCode=9)
            if not self.call("Runtime.evaluate", returnByValue=True, expression=
                             "(n => n !== document.body && !n.dataset.tabbed && (n.dataset.tabbed = '1'))"
                             "(document.activeElement)")["result"].get("value"):
                return n
        return most

    def contrast(self):
        """The texts in sight whose contrast with what lies under them is below 4.5 (WCAG 2.1, 1.4.3). Under a colour that
        lets a picture through, the worst picture is assumed: white under a dark plate, black under a light one."""
        return self.js(CONTRAST)

    def complaints(self, server=None):
        """What must not happen: exceptions, console output, logged warnings and errors, requests but the page (and those
        to a server)."""
        found = []
        for event in self.events:
            method, parameters = event.get("method"), event.get("params", {})
            if method in ("Runtime.exceptionThrown", "Runtime.consoleAPICalled", "Log.entryAdded",
                          "Page.javascriptDialogOpening"):
                found.append(json.dumps(event)[:400])
            if method == "Network.requestWillBeSent":
                url = parameters["request"]["url"]
                if server and url.startswith((server, "blob:")):
                    continue
                if not url.startswith(("data:", "file:///")) or parameters.get("type") not in ("Document", "Image"):
                    found.append("request: " + url[:200])
        return found
