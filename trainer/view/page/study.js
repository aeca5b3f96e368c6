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
    Plot.draw("chart-settled", [["tuned", "tuned lens"], ["logit", "logit lens"]].map(([key, name], n) =>
      Plot.line(name, n, Plot.points(page.questions.map(q => [q.number, q[key].settled]), false), { showLine: false })),
    { title: "state from which the answer stands", x: "question", log: false });
  }

  const link = (href, text) => make("a", { href }, text);
  function table() {
    const heads = ["", "question", "expected", "said", "answer stands from state: logit", "tuned"];
    const rows = page.questions.map(q => make("tr", {}, make("th", { scope: "row" }, link("#q" + q.number,
      String(q.number))), make("td", { className: "words" }, q.prompt), make("td", {}, q.expected),
    make("td", {}, q.said), make("td", {}, String(q.logit.settled)), make("td", {}, String(q.tuned.settled))));
    at("table").replaceChildren(make("table", {}, make("thead", {}, make("tr", {}, ...heads.map(h =>
      make("th", { scope: "col" }, h)))), make("tbody", {}, ...rows)));
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

  for (const [name, value] of [["model", page.model], ["lens", page.lens]])
    at("about").append(make("span", {}, make("b", {}, name + " "), make("bdi", {}, value)));
  page.kl.forEach((g, n) => at("classes").append(make("label", {},
    make("input", { type: "radio", name: "class", value: n }), make("span", {}, g.class))));
  at("classes").addEventListener("change", event => { view.group = Number(event.target.value); draw(); });
  Theme.listen(at("theme"), draw);
  table();
  at("questions").append(...page.questions.map(question));
  at("note").textContent = `State 0: the embeddings; state ${last}: the model itself. The numbers lie in study.json ` +
    `and eval.json. vlens ${page.vlens}.`;
  draw();
  return { view };
})();
