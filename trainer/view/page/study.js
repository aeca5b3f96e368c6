/* The page over the folder of a study. */

const Study = (() => {
  const at = id => document.getElementById(id);
  const LENSES = [["tuned", "tuned lens"], ["logit", "logit lens"], ["baseline", "baseline"],
    ["wrong_picture", "tuned lens, wrong picture"]];
  const view = { group: Math.max(page.kl.findIndex(g => g.class === "all-text"), 0) };
  const last = page.n_states - 1;

  function draw() {
    const g = page.kl[view.group];
    for (const input of document.querySelectorAll("#classes input"))
      input.checked = Number(input.value) === view.group;
    Plot.draw("chart-kl", LENSES.filter(([key]) => g[key]).map(([key, name], n) =>
      Plot.line(name, n, Plot.points(g[key].map((y, s) => [s, y]), true))),
    { title: `KL from the model (nats), ${g.class} rows`, x: "state", log: true });
  }

  const link = (href, text) => make("a", { href }, text);
  const share = state => 100 * state / Math.max(last, 1) + "%";
  function strip(q) {
    const node = make("span", { className: "strip", title: `tuned lens: state ${q.tuned.settled}, logit lens: state ` +
      q.logit.settled });
    for (const lens of ["tuned", "logit"]) {
      const mark = make("i", { className: lens });
      mark.style.left = share(q[lens].settled);
      node.append(mark);
    }
    node.setAttribute("aria-hidden", "true"); /* the numbers stand beside it */
    return node;
  }
  const thumbnail = q => q.picture
    ? [make("img", { src: q.picture, loading: "lazy", alt: q.images.join(", "), width: 56, height: 56 })] : [];
  /* [head, what it sorts by, its cell] */
  const COLUMNS = [
    ["#", q => q.number, q => make("td", { className: "number" }, link("#q" + q.number, String(q.number)))],
    ["picture", q => q.images.join(), q => make("td", {}, ...thumbnail(q))],
    ["question", q => q.prompt, q => make("td", { className: "words" }, make("bdi", {}, link(q.page, q.prompt)))],
    ["expected", q => q.expected, q => make("td", {}, make("bdi", {}, q.expected))],
    ["the model says", q => q.said, q => make("td", {}, make("bdi", {}, q.said))],
    ["stands from state", q => q.tuned.settled - q.logit.settled, q => make("td", {}, strip(q))],
    ["tuned lens", q => q.tuned.settled, q => make("td", { className: "number" }, String(q.tuned.settled))],
    ["logit lens", q => q.logit.settled, q => make("td", { className: "number" }, String(q.logit.settled))],
  ];
  const order = { column: 0, falling: false };
  function sorted() {
    const key = COLUMNS[order.column][1], sign = order.falling ? -1 : 1;
    return [...page.questions].sort((a, b) => sign * (typeof key(a) === "number" ? key(a) - key(b)
      : String(key(a)).localeCompare(String(key(b)))) || a.number - b.number);
  }
  function head([name], n) {
    const button = make("button", { type: "button", title: "Sort by it" }, name +
      (n === order.column ? order.falling ? " ▼" : " ▲" : ""));
    const node = make("th", { scope: "col" }, button);
    node.setAttribute("aria-sort", n !== order.column ? "none" : order.falling ? "descending" : "ascending");
    button.addEventListener("click", () => {
      order.falling = order.column === n && !order.falling;
      order.column = n;
      list();
      at("list").querySelectorAll("thead button")[n].focus();
    });
    return node;
  }
  function list() {
    at("list").replaceChildren(make("table", {}, make("thead", {}, make("tr", {}, ...COLUMNS.map(head))),
      make("tbody", {}, ...sorted().map(q => make("tr", {}, ...COLUMNS.map(([, , cell]) => cell(q)))))));
  }
  function question(q) {
    const pair = page.compare.find(c => c.first === q.number || c.second === q.number);
    const links = make("p", { className: "links" }, link(q.page, "every patch and token"), link(q.graph, "graph"),
      link(q.table, "table (CSV)"), ...(pair ? [link(pair.page, "beside the other picture")] : []));
    const graph = make("div", { className: "graph" }, make("img", { src: q.graph, loading: "lazy",
      alt: "Top tokens of every state at the last token of the prompt, logit lens and tuned lens" }));
    const text = make("div", {}, make("h3", {}, make("bdi", {}, q.prompt)), make("p", {}, "The model says “",
      make("bdi", {}, q.said), `”${q.expected ? `, expected “${q.expected}”` : ""}. Its first token stands from state ` +
      `${q.tuned.settled} of ${last} through the tuned lens, from ${q.logit.settled} through the logit lens.`),
    links, graph);
    const picture = q.picture ? [make("img", { className: "picture", src: q.picture, alt: q.images.join(", ") })] : [];
    return make("article", { className: "question", id: "q" + q.number }, make("div", {}, ...picture), text);
  }

  /* ---- fidelity ---- */

  const cells = (tag, texts) => texts.map(text => make(tag, tag === "th" ? { scope: "col" } : {}, text));
  const short = x => x === null ? "–" : (x < 0 ? "−" : "") + Math.abs(x).toPrecision(3);
  const interval = e => e.low === null ? short(e.mean) : `${short(e.mean)} [${short(e.low)}, ${short(e.high)}]`;
  function fidelity() {
    const f = page.fidelity, names = { tuned: "tuned lens", logit: "logit lens", random: "random directions",
      control: "control lens" };
    at("fidelity").hidden = !f;
    if (!f)
      return;
    const lenses = Object.keys(names).filter(lens => f.states.some(s => s[lens]));
    const heads = ["state", ...lenses.flatMap(l => [names[l] + ": correlation", "partial", "agreement"])];
    const row = s => make("tr", {}, make("th", { scope: "row" }, String(s.state)), ...cells("td", lenses.flatMap(l =>
      s[l] ? ["correlation", "partial", "alignment"].map(key => interval(s[l][key])) : ["–", "–", "–"])));
    at("fidelity-table").replaceChildren(make("table", {}, make("thead", {}, make("tr", {}, ...cells("th", heads))),
      make("tbody", {}, ...f.states.map(row))));
    transfer(f.transfer);
  }
  /* Shaded by how close an adapter comes to the state's own. */
  function transfer(matrix) {
    at("transfer").hidden = !matrix;
    if (!matrix)
      return;
    const body = matrix.map((kls, i) => make("tr", {}, make("th", { scope: "row" }, String(i)), ...kls.map((kl, j) => {
      const node = make("td", { className: i === j ? "own" : "" }, short(kl));
      const near = kl > 0 ? Math.min(1, Math.min(...kls.filter(x => x > 0)) / kl) : 0;
      node.style.background = `color-mix(in srgb, var(--bar) ${Math.round(100 * near)}%, transparent)`;
      return node;
    })));
    at("transfer-table").replaceChildren(make("table", {}, make("thead", {}, make("tr", {},
      ...cells("th", ["", ...matrix.map((_, j) => String(j))]))), make("tbody", {}, ...body)));
  }

  for (const [name, value] of [["model", page.model], ["lens", page.lens]])
    at("about").append(make("span", {}, make("b", {}, name + " "), make("bdi", {}, value)));
  page.kl.forEach((g, n) => at("classes").append(make("label", {},
    make("input", { type: "radio", name: "class", value: n }), make("span", {}, g.class))));
  at("classes").addEventListener("change", event => { view.group = Number(event.target.value); draw(); });
  Theme.listen(at("theme"), draw);
  list();
  fidelity();
  at("questions").append(...page.questions.map(question));
  at("note").textContent = `State 0: the embeddings; state ${last}: the model itself. The numbers lie in study.json ` +
    `and eval.json. vlens ${page.vlens}.`;
  draw();
  return { view };
})();
