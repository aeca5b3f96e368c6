/* The table: a row per position, a column per state, the top-1 token in each cell. Only the rows in sight are
 * elements, so that ten thousand positions scroll like fifty. The patches of one row of a picture fold into one line. */

const Table = (() => {
  const HEIGHT = 24, MORE = 8, MANY = 100; /* pixels of a row; rows beyond the window; patches that start folded */
  const NAMES = { text: "text", image: "patches", last: "last", generated: "generated" };
  const root = document.getElementById("table");
  const body = make("tbody", {}), heads = [];
  const hidden = new Set(), open = new Set(); /* names of kinds; keys of folds */
  const marks = { hovered: -1, locked: -1 };
  const seen = { name: 0, lefts: [], width: 0, room: 0, scrolled: 0 };
  const folds = foldsOf();
  let folding = page.positions.filter(p => p.class === "image").length > MANY;
  let lines = [], placeOf = new Map(), view, scale, request = 0, from = -1, to = -1;

  /* The fold of each patch: {key, name, members}. */
  function foldsOf() {
    const found = new Map(), of = new Map();
    page.positions.forEach((p, i) => {
      if (p.class !== "image" || p.patch[1] < 0)
        return;
      const key = [p.part, p.image, p.patch[0], p.patch[1]].join(",");
      if (!found.has(key))
        found.set(key, { key, name: rowName(i).replace(/patch (\d+),.*/, "patch row $1"), members: [] });
      found.get(key).members.push(i);
      of.set(i, found.get(key));
    });
    return of;
  }
  const isShown = i => !hidden.has(page.positions[i].class) && !hidden.has("part" + page.positions[i].part);

  /* What stands in the table, from its top: positions, and folds for their members. */
  function listLines() {
    lines = [];
    placeOf = new Map();
    for (let i = 0; i < Data.nPositions; i++) {
      if (!isShown(i))
        continue;
      const fold = folding ? folds.get(i) : null;
      if (fold && fold.members.length > 1 && fold.members[0] === i)
        lines.push({ fold });
      if (fold && fold.members.length > 1 && !open.has(fold.key)) {
        placeOf.set(i, lines.length - 1);
        continue;
      }
      placeOf.set(i, lines.length);
      lines.push({ i });
    }
    from = to = -1;
  }

  /* ---- cells ---- */

  /* In the difference both tokens stand in a cell where the lenses do not agree. */
  function label(i, s) {
    if (view.lens !== "difference")
      return tokenText(Data.first(view.lens, i, s));
    const [a, b] = ["logit", "tuned"].map(lens => tokenText(Data.first(lens, i, s)));
    return a === b ? a : a + "→" + b;
  }
  /* The commonest token of a fold and how many of its patches show it; the mean of their numbers. */
  function summary(fold, s) {
    const counts = new Map();
    let sum = 0, n = 0;
    for (const i of fold.members) {
      const text = label(i, s), x = Colour.value(view, i, s, view.colour, view.token);
      counts.set(text, (counts.get(text) || 0) + 1);
      if (isFinite(x)) {
        sum += x;
        n++;
      }
    }
    const [text, count] = [...counts].reduce((a, b) => b[1] > a[1] ? b : a);
    return { text: count > 1 ? text + " ×" + count : text, x: n ? sum / n : NaN };
  }
  function cell(line, s) {
    const { text, x } = line.fold ? summary(line.fold, s)
      : { text: label(line.i, s), x: Colour.value(view, line.i, s, view.colour, view.token) };
    const node = make("td", { className: s === view.state ? "now" : "" }, make("bdi", {}, text));
    const colour = Colour.of(x, scale);
    node.dataset.s = s;
    node.dataset.value = Number.isNaN(x) ? "" : x;
    if (colour) {
      node.style.background = colour.background;
      node.style.color = colour.text;
    }
    return node;
  }
  function foldButton(fold) {
    const isOpen = open.has(fold.key), button = make("button", { type: "button", className: "fold", tabIndex: -1 },
      (isOpen ? "▾ " : "▸ ") + fold.name);
    button.setAttribute("aria-expanded", String(isOpen));
    return make("th", { className: "name", scope: "row", title: fold.members.length + " patches" }, button);
  }
  function row(n) {
    const line = lines[n], p = line.fold ? null : page.positions[line.i];
    const name = line.fold ? foldButton(line.fold)
      : make("th", { className: "name", scope: "row", title: "position " + p.position + ", " + placeName(line.i) },
        make("span", { className: "number" }, String(p.position)), make("bdi", {}, rowName(line.i)));
    const node = make("tr", { className: line.fold ? "is-fold" : "is-" + p.class }, name);
    if (!line.fold)
      node.dataset.i = line.i;
    node.dataset.line = n;
    for (let s = 0; s < Data.nStates; s++)
      node.append(cell(line, s));
    return node;
  }

  /* ---- what is in sight ---- */

  function render() {
    const head = heads[0].offsetHeight || HEIGHT;
    const first = Math.max(0, Math.floor((root.scrollTop - head) / HEIGHT) - MORE);
    const end = Math.min(lines.length, Math.ceil((root.scrollTop + root.clientHeight) / HEIGHT) + MORE);
    if (first === from && end === to)
      return;
    from = first;
    to = end;
    const space = rows => make("tr", { className: "space" }, Object.assign(make("td", { colSpan: Data.nStates + 1 }),
      { style: `height: ${rows * HEIGHT}px` }));
    body.replaceChildren(space(from), ...Array.from({ length: to - from }, (_, n) => row(from + n)),
      space(lines.length - to));
    drawMarks();
  }
  const renderSoon = () => {
    if (!request)
      request = requestAnimationFrame(() => { request = 0; render(); measure(); });
  };
  /* Where the columns lie, and what is in sight: measured when it changes, since a measure after a change costs a
   * layout of the whole page. */
  function measure() {
    seen.name = root.querySelector(".name").offsetWidth;
    seen.lefts = heads.map(head => head.offsetLeft);
    seen.width = heads[0].offsetWidth;
    seen.room = root.clientWidth;
    seen.scrolled = root.scrollLeft;
    cue();
  }
  const isSeen = s => seen.lefts[s] >= seen.scrolled + seen.name - 12 &&
    seen.lefts[s] + seen.width <= seen.scrolled + seen.room + 12;
  /* Says which states are in sight where that is not all of them. */
  function cue() {
    const all = heads.map((_, s) => s).filter(isSeen), first = all[0], end = all[all.length - 1];
    const node = document.getElementById("states-note");
    node.hidden = all.length === Data.nStates || !all.length;
    node.textContent = (first > 0 ? "← " : "") + `states ${first} to ${end} of ${Data.nStates - 1}` +
      (end < Data.nStates - 1 ? " →" : "");
    root.classList.toggle("more-left", seen.scrolled > 2);
  }
  function again() {
    from = to = -1;
    render();
  }

  /* ---- marks ---- */

  function drawMarks() {
    for (const [name, i] of Object.entries(marks)) {
      for (const node of body.querySelectorAll("tr." + name))
        node.classList.remove(name);
      const place = placeOf.get(i), node = place === undefined ? null : body.querySelector(`tr[data-line="${place}"]`);
      if (node)
        node.classList.add(name);
    }
  }
  function mark(i, name) {
    marks[name] = i;
    drawMarks();
  }
  function markState(s) {
    heads.forEach((head, n) => head.classList.toggle("now", n === s));
    for (const node of body.querySelectorAll("td.now"))
      node.classList.remove("now");
    for (const node of body.querySelectorAll(`td[data-s="${s}"]`))
      node.classList.add("now");
  }
  /* Both scroll inside the table only: the page stays where it is. */
  function revealState(s) {
    if (!isSeen(s))
      root.scrollLeft = seen.lefts[s] - (seen.room + seen.name - seen.width) / 2;
  }
  /* `unfold`: also where its patch is folded away. */
  function reveal(i, unfold) {
    const fold = folds.get(i);
    if (unfold && folding && fold && !open.has(fold.key) && fold.members.length > 1) {
      open.add(fold.key);
      listLines();
    }
    const place = placeOf.get(i), head = heads[0].offsetHeight;
    if (place === undefined)
      return;
    const top = place * HEIGHT, view = root.clientHeight - head;
    if (top < root.scrollTop || top + HEIGHT > root.scrollTop + view)
      root.scrollTop = top - (view - HEIGHT) / 2;
    render();
  }

  /* ---- start ---- */

  function headRow() {
    const row = make("tr", {}, make("th", { className: "name", scope: "col" }, "position \\ state"));
    for (let s = 0; s < Data.nStates; s++) {
      const title = "State " + s + (s === 0 ? ": the embeddings" : s === Data.nStates - 1 ? ": the model itself" : "");
      heads[s] = make("th", { scope: "col", title }, String(s));
      row.append(heads[s]);
    }
    return row;
  }
  function box(name, checked, changed) {
    const node = make("input", { type: "checkbox", checked });
    node.addEventListener("change", () => {
      changed(node.checked);
      listLines();
      again();
    });
    document.getElementById("filters").append(make("label", {}, node, " " + name));
  }
  /* A box per kind of row. */
  function filters(kinds) {
    for (const [kind, name] of kinds.length > 1 ? kinds : [])
      box(name, true, on => on ? hidden.delete(kind) : hidden.add(kind));
  }
  function build(handlers) {
    root.append(make("table", {}, make("thead", {}, headRow()), body));
    filters(Object.entries(NAMES).filter(([c]) => page.positions.some(p => p.class === c)));
    filters(Array.from({ length: nParts }, (_, part) => ["part" + part, partName(part)]));
    if (folds.size > 1)
      box("fold patches", folding, on => { folding = on; open.clear(); });
    listLines();
    const under = event => {
      const row = event.target.closest("tr[data-line]"), cell = event.target.closest("td[data-s]");
      return [row ? lines[row.dataset.line] : null, cell ? Number(cell.dataset.s) : undefined];
    };
    body.addEventListener("pointerover", event => {
      const [line, s] = under(event);
      handlers.hover(line && !line.fold ? line.i : -1, "table", s);
    });
    body.addEventListener("pointerleave", () => handlers.hover(-1, "table"));
    body.addEventListener("click", event => {
      const [line, s] = under(event);
      if (line && line.fold) {
        open.has(line.fold.key) ? open.delete(line.fold.key) : open.add(line.fold.key);
        listLines();
        again();
        const button = body.querySelector(`tr[data-line="${lines.findIndex(l => l.fold === line.fold)}"] button`);
        if (button)
          button.focus({ preventScroll: true });
      } else if (line) {
        handlers.lock(line.i, s);
      }
    });
    root.addEventListener("scroll", renderSoon, { passive: true });
    new ResizeObserver(renderSoon).observe(root);
  }
  function draw(newView, newScale) {
    view = newView;
    scale = newScale;
    again();
    if (!seen.room)
      measure();
  }
  return { build, draw, mark, markState, reveal, revealState, isShown };
})();
