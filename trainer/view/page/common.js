/* What all pages share: text, elements, and the theme. */

const page = JSON.parse(document.getElementById("data").textContent);

/* A token for people: a space and a line end can be seen, nothing is invisible. */
function shown(text) {
  if (text === "")
    return "∅";
  return text.replace(/ /g, "·").replace(/\n/g, "↵").replace(/\t/g, "⇥")
    .replace(/[\u0000-\u001f\u007f-\u009f\u200b-\u200f\u2028-\u202f\u2060-\u206f\ufeff]/g, "�");
}

/* Four significant digits, as stored. */
function digits(x, smallest) {
  if (x === 0)
    return "<" + smallest;
  if (!isFinite(x))
    return Number.isNaN(x) ? "–" : "not finite";
  return x < 1e-3 ? x.toExponential(3) : x.toPrecision(4);
}
/* A new element: make("td", {className: "x"}, "text", child). Text stays text: nothing on this page sets markup. */
function make(tag, properties, ...children) {
  const node = Object.assign(document.createElement(tag), properties);
  node.append(...children);
  return node;
}

/* Automatic, light or dark; the colours and marks of lines in charts. */
const Theme = (() => {
  /* Okabe and Ito's colours without yellow and black, one set for each ground; lines differ in marks as well. */
  const LINES = {
    light: ["#0072b2", "#d55e00", "#007a5a", "#b0457c", "#946000", "#2b7fb0"],
    dark: ["#56b4e9", "#ff9a4d", "#2fd3a0", "#e9a0c8", "#f0c05a", "#a9d8f5"],
  };
  const MARKS = ["circle", "rect", "triangle", "rectRot", "cross", "star"];

  const isDark = () => {
    const theme = document.documentElement.dataset.theme;
    return theme === "dark" || (theme === "auto" && matchMedia("(prefers-color-scheme: dark)").matches);
  };
  /* The next theme in turn, on the root element and in the button; then `drawn` draws what has colours of its own. */
  function listen(button, drawn) {
    const root = document.documentElement, order = ["auto", "light", "dark"];
    const next = () => {
      root.dataset.theme = order[(order.indexOf(root.dataset.theme) + 1) % order.length];
      button.textContent = "Theme: " + root.dataset.theme;
      drawn();
    };
    button.addEventListener("click", next);
    matchMedia("(prefers-color-scheme: dark)").addEventListener("change", drawn);
    return next;
  }
  return {
    isDark,
    listen,
    line: n => LINES[isDark() ? "dark" : "light"][n % LINES.light.length],
    mark: n => MARKS[n % MARKS.length],
  };
})();
