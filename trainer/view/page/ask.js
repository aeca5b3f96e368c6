/* Words: what the picture says at a state, by number of patches; and of one word, where and when it is read. */

const Ask = (() => {
  const MOST_WORDS = 30, MOST_PATCHES = 6;
  const at = id => document.getElementById(id);
  const patches = page.positions.map((_, i) => i).filter(Grid.isPatch);
  const rows = patches.length ? patches : page.positions.map((_, i) => i);
  const everything = Array.from({ length: Data.nStates }, (_, s) => s);
  let handlers, drawn = "";

  /* Of the chosen word in a cell: 0 where it is first, -1 where it is not among the top k. */
  const rank = (view, i, s) => view.token >= 0 ? Data.rank(Data.shown(view), i, s, view.token) : -1;

  /* [[token, number of patches whose first it is]] at a state, falling */
  function counts(lens, s) {
    const found = new Map();
    for (const i of rows) {
      const token = Data.first(lens, i, s);
      found.set(token, (found.get(token) || 0) + 1);
    }
    return [...found].sort((a, b) => b[1] - a[1] || a[0] - b[0]);
  }
  /* The rows where a word is strongest, at its best state each: [{i, s, p}] falling. */
  function strongest(lens, token) {
    const best = [];
    for (const i of rows) {
      let top = { i, s: 0, p: -1 };
      for (const s of everything) {
        const p = Data.value(lens, i, s, "token", token);
        if (p > top.p)
          top = { i, s, p };
      }
      if (top.p > 0)
        best.push(top);
    }
    return best.sort((a, b) => b.p - a.p || a.i - b.i);
  }
  /* The lowest state at which it is some row's first word, and the row where it is likeliest there; null. */
  function leads(lens, token) {
    for (const s of everything) {
      const first = rows.filter(i => Data.first(lens, i, s) === token);
      if (first.length)
        return { s, n: first.length, i: first.reduce((a, b) =>
          Data.value(lens, b, s, "top1") > Data.value(lens, a, s, "top1") ? b : a) };
    }
    return null;
  }

  function button(text, title, pressed, act, ...more) {
    const node = make("button", { type: "button", className: "word", title }, make("bdi", {}, text), ...more);
    node.setAttribute("aria-pressed", String(pressed));
    node.addEventListener("click", act);
    return node;
  }
  function drawWords(view, lens) {
    const all = counts(lens, view.state);
    const unit = patches.length ? "patch" : "position", name = n => n + " " + unit + (n > 1 ? unit === "patch" ? "es" : "s" : "");
    at("said").replaceChildren(...all.slice(0, MOST_WORDS).map(([token, n]) => button(tokenText(token),
      "first at " + name(n) + "; id " + page.ids[token], token === view.token,
      () => handlers.choose(token === view.token ? -1 : token), make("small", {}, " " + n))));
    at("said-title").textContent = `What the ${patches.length ? "picture says" : "prompt says"} at state ${view.state} ` +
      `(${lens} lens): ${all.length} ${all.length === 1 ? "word" : "words"}` +
      (all.length > MOST_WORDS ? `, the ${MOST_WORDS} commonest` : "");
  }
  function drawWord(view, lens) {
    const node = at("word");
    node.hidden = view.token < 0;
    if (node.hidden)
      return;
    const first = leads(lens, view.token), best = strongest(lens, view.token).slice(0, MOST_PATCHES);
    const go = ({ i, s }) => () => handlers.go(i, s);
    const parts = [make("h3", {}, make("bdi", {}, tokenText(view.token)), ` through the ${lens} lens`)];
    parts.push(first ? make("p", {}, "First in the lead at ", button("state " + first.s, "show it", false,
      go(first)), ` (${rowName(first.i)}${first.n > 1 ? ` and ${first.n - 1} more` : ""}).`)
      : make("p", {}, "It is nowhere the first word."));
    if (best.length)
      parts.push(make("p", {}, "Strongest at ", ...best.map(b => button(rowName(b.i), placeName(b.i) + ", state " + b.s,
        false, go(b), make("small", {}, ` ${probabilityText(b.p)}, state ${b.s}`)))));
    node.replaceChildren(...parts);
  }
  function draw(view) {
    const lens = Data.shown(view), state = [lens, view.state, view.token].join();
    if (state === drawn)
      return;
    const sameWord = drawn && drawn.split(",")[0] === lens && drawn.split(",")[2] === String(view.token);
    drawn = state;
    drawWords(view, lens);
    if (!sameWord)
      drawWord(view, lens);
  }
  return { build(h) { handlers = h; }, draw, rank, counts, strongest, leads };
})();
