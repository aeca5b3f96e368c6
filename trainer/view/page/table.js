/* The table: a row per position, a column per state, the top-1 token in each cell. */

const Table = (() => {
  const rows = [];  /* rows[i] = the element of position i */
  const cells = []; /* cells[i][s] */
  const heads = [];
  const NAMES = { text: "text", image: "patches", last: "last", generated: "generated" };

  function headRow() {
    const row = make("tr", {}, make("th", { className: "name", scope: "col" }, "position"));
    for (let s = 0; s < Data.nStates; s++) {
      const title = "State " + s + (s === Data.nStates - 1 ? ": the model itself" : "");
      heads[s] = make("th", { scope: "col", title }, String(s));
      row.append(heads[s]);
    }
    return row;
  }

  function bodyRow(i) {
    const p = page.positions[i];
    const name = make("th", { className: "name", scope: "row", title: "position " + p.position + ", " + p.class },
      make("span", { className: "number" }, String(p.position)), make("bdi", {}, rowName(i)));
    const row = make("tr", { className: "is-" + p.class + " is-part" + p.part }, name);
    row.dataset.i = i;
    rows[i] = row;
    cells[i] = [];
    for (let s = 0; s < Data.nStates; s++) {
      const cell = make("td", {}, make("bdi", {}));
      cell.dataset.s = s;
      cells[i][s] = cell;
      row.append(cell);
    }
    return row;
  }

  /* A box per kind of row; `kinds` is [[class of its rows, its name]]. */
  function filters(table, kinds) {
    for (const [kind, name] of kinds.length > 1 ? kinds : []) {
      const box = make("input", { type: "checkbox", checked: true });
      box.addEventListener("change", () => table.classList.toggle("no-" + kind, !box.checked));
      document.getElementById("filters").append(make("label", {}, box, " " + name));
    }
  }

  function build(handlers) {
    const root = document.getElementById("table");
    const body = make("tbody", {}), table = make("table", {}, make("thead", {}, headRow()), body);
    for (let i = 0; i < Data.nPositions; i++)
      body.append(bodyRow(i));
    root.append(table);
    filters(table, Object.entries(NAMES).filter(([c]) => page.positions.some(p => p.class === c)));
    filters(table, Array.from({ length: nParts }, (_, part) => ["part" + part, partName(part)]));
    const under = event => {
      const row = event.target.closest("tr[data-i]"), cell = event.target.closest("td");
      return [row ? Number(row.dataset.i) : -1, cell ? Number(cell.dataset.s) : undefined];
    };
    body.addEventListener("pointerover", event => {
      const [i, s] = under(event);
      handlers.hover(i, "table", s);
    });
    body.addEventListener("pointerleave", () => handlers.hover(-1, "table"));
    body.addEventListener("click", event => {
      const [i, s] = under(event);
      handlers.lock(i, s);
    });
  }

  /* In the difference both tokens stand in a cell where the lenses do not agree. */
  function label(view, i, s) {
    if (view.lens !== "difference")
      return tokenText(Data.first(view.lens, i, s));
    const [a, b] = ["logit", "tuned"].map(lens => tokenText(Data.first(lens, i, s)));
    return a === b ? a : a + "→" + b;
  }

  function draw(view, scale) {
    for (let i = 0; i < Data.nPositions; i++)
      for (let s = 0; s < Data.nStates; s++) {
        const cell = cells[i][s], x = Colour.value(view, i, s), colour = Colour.of(x, scale);
        cell.firstChild.textContent = label(view, i, s);
        cell.style.background = colour ? colour.background : "";
        cell.style.color = colour ? colour.text : "";
        cell.dataset.value = Number.isNaN(x) ? "" : x;
      }
  }

  function mark(i, name) {
    for (const node of document.querySelectorAll("#table tr." + name))
      node.classList.remove(name);
    if (rows[i])
      rows[i].classList.add(name);
  }
  function markState(s) {
    heads.forEach((head, n) => head.classList.toggle("now", n === s));
    for (const node of document.querySelectorAll("#table td.now"))
      node.classList.remove("now");
    cells.forEach(row => row[s].classList.add("now"));
  }
  /* Both scroll inside the table only: the page stays where it is. */
  function revealState(s) {
    const root = document.getElementById("table"), head = heads[s], name = root.querySelector(".name").offsetWidth;
    const left = head.offsetLeft, right = left + head.offsetWidth;
    if (left - name < root.scrollLeft || right > root.scrollLeft + root.clientWidth)
      root.scrollLeft = left - (root.clientWidth + name - head.offsetWidth) / 2;
  }
  function reveal(i, s) {
    const root = document.getElementById("table"), row = rows[i];
    if (!row || !row.offsetParent)
      return;
    const head = root.querySelector("thead").offsetHeight, top = row.offsetTop;
    if (top - head < root.scrollTop || top + row.offsetHeight > root.scrollTop + root.clientHeight)
      root.scrollTop = top - (root.clientHeight - row.offsetHeight) / 2;
    revealState(s);
  }
  return { build, draw, mark, markState, reveal, revealState };
})();
