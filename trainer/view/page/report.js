/* An evaluation as a page: the numbers of vlens eval --json, those of the fit, and what was run. */

const Report = (() => {
  const at = id => document.getElementById(id);
  const result = page.eval, training = page.training;
  /* By the last part of its path. */
  function baselineName() {
    const name = (result.baseline || "").replace(/\/+$/, "").split("/").pop();
    return name ? "baseline: " + name : "baseline";
  }
  const LENSES = [["tuned", "tuned lens"], ["logit", "logit lens"], ["baseline", baselineName()],
    ["wrong_picture", "tuned lens, wrong picture"]];
  const NAMES = { kl: "KL from the model (nats)", ce: "cross-entropy of the next token (nats)",
    entropy: "entropy (nats)", top1: "share of rows with the model's first token first",
    top5: "share of rows with the model's first token among five", rank: "rank of the model's first token",
    js: "Jensen-Shannon divergence (nats)", tv: "total variation",
    bias: "marginal bias: KL of the mean distributions (nats)", ece: "calibration error of the first token's probability" };
  const NOT_METRICS = ["rows", "kl_low", "kl_high", "minus_tuned"];
  const view = { group: 0, metric: "kl", log: true };

  const group = () => result.classes[view.group];
  const lensesOf = g => LENSES.filter(([key]) => g.states.some(s => s[key]));
  const { line, band, text } = Plot;
  const nameOf = metric => NAMES[metric] || metric;

  /* ---- charts ---- */

  const byState = (g, log, pick) => Plot.points(g.states.map(s => [s.state, pick(s)]), log);

  function drawMetric() {
    const g = group();
    Plot.draw("chart-metric", lensesOf(g).flatMap(([key, name], n) => {
      const of = field => byState(g, view.log, s => s[key] ? s[key][field] : null);
      return view.metric === "kl" ? band(name, n, of("kl"), of("kl_low"), of("kl_high"))
        : [line(name, n, of(view.metric))];
    }), { title: nameOf(view.metric), x: "state", log: view.log });
    at("chart-name").textContent = `${nameOf(view.metric)}, ${g.class} rows`;
  }
  function drawGain() {
    const g = group();
    const sets = lensesOf(g).flatMap(([key, name], n) => {
      if (!g.states.some(s => s[key] && s[key].minus_tuned))
        return [];
      const of = field => byState(g, false, s => s[key] && s[key].minus_tuned ? s[key].minus_tuned[field] : null);
      return band(name + " minus tuned lens", n, of("mean"), of("low"), of("high"));
    });
    Plot.draw("chart-gain", sets, { title: "KL gained by the tuned lens (nats)", x: "state", log: false });
  }
  function drawTraining() {
    const layers = training.layers.filter(l => l.curve && l.curve.step.length);
    const chosen = layers.length <= 6 ? layers
      : Array.from({ length: 6 }, (_, n) => layers[Math.round(n * (layers.length - 1) / 5)]);
    Plot.draw("chart-training", chosen.map((l, n) => line("state " + l.layer, n,
      Plot.points(l.curve.step.map((s, k) => [s, l.curve.objective[k]]), true), { pointRadius: 0 })),
    { title: "objective on training rows (nats)", x: "step", log: true });
    Plot.draw("chart-start", [["start", "start"], ["validation", "kept"]].map(([key, name], n) =>
      line(name, n, Plot.points(training.layers.map(l => [l.layer, l[key]]), true))),
    { title: "objective on validation rows (nats)", x: "state", log: true });
  }

  /* ---- tables ---- */

  function table(node, heads, rows) {
    node.replaceChildren(make("table", {}, make("thead", {}, make("tr", {}, ...heads.map(h =>
      make("th", { scope: "col" }, h)))), make("tbody", {}, ...rows.map(cells => make("tr", {}, ...cells.map((c, n) =>
      make(n ? "td" : "th", {}, ...[c].flat())))))));
  }
  const interval = (mean, low, high) => low === null || low === undefined ? text(mean)
    : [text(mean), make("small", {}, ` [${text(low)}, ${text(high)}]`)];

  function drawTable() {
    const g = group(), lenses = lensesOf(g);
    const metrics = Object.keys(g.states[0].tuned || g.states[0].logit).filter(m =>
      !NOT_METRICS.includes(m) && m !== "kl" && g.states.some(s => s.tuned && s.tuned[m] !== null));
    table(at("states"), ["state", ...lenses.map(([, name]) => "KL, " + name), "logit − tuned",
      ...metrics.map(m => m + " (tuned)")],
    g.states.map(s => [String(s.state),
      ...lenses.map(([key]) => s[key] ? interval(s[key].kl, s[key].kl_low, s[key].kl_high) : "–"),
      s.logit && s.logit.minus_tuned
        ? interval(s.logit.minus_tuned.mean, s.logit.minus_tuned.low, s.logit.minus_tuned.high) : "–",
      ...metrics.map(m => s.tuned ? text(s.tuned[m]) : "–")]));
    at("message").textContent = `${g.rows} rows of ${g.clusters} pictures or samples` +
      (g.wrong_picture_rows ? `; ${g.wrong_picture_rows} rows with a wrong picture` : "") + ".";
  }
  function drawLayers() {
    const columns = ["start", "validation", "train", "steps", "best_step", "tokens", "ridge", "learning_rate", "seconds"];
    table(at("layers"), ["state", ...columns.map(c => c.replace("_", " "))],
      training.layers.map(l => [String(l.layer), ...columns.map(c => Number.isInteger(l[c]) ? String(l[c]) : text(l[c]))]));
  }

  /* ---- start ---- */

  function draw() {
    for (const input of document.querySelectorAll("#classes input"))
      input.checked = Number(input.value) === view.group;
    at("metric").value = view.metric;
    at("log").checked = view.log;
    drawMetric();
    drawGain();
    drawTable();
    if (training)
      drawTraining();
  }
  function controls() {
    result.classes.forEach((g, n) => at("classes").append(make("label", {},
      make("input", { type: "radio", name: "class", value: n }), make("span", {}, g.class))));
    const cell = result.classes[0].states[0];
    const metrics = Object.keys(cell.tuned || cell.logit).filter(m => !NOT_METRICS.includes(m));
    at("metric").append(...metrics.map(m => make("option", { value: m }, nameOf(m))));
    at("classes").addEventListener("change", event => { view.group = Number(event.target.value); draw(); });
    at("metric").addEventListener("change", event => { view.metric = event.target.value; draw(); });
    at("log").addEventListener("change", event => { view.log = event.target.checked; draw(); });
    Theme.listen(at("theme"), draw);
  }
  function describe() {
    for (const [name, value] of [["model", result.model], ["lens", result.lens], ["cache", result.cache]])
      at("about").append(make("span", {}, make("b", {}, name + " "), make("bdi", {}, value)));
    at("warning").textContent = result.other_model ? "The lens was fitted for another model (fingerprints differ)." : "";
    at("warning").hidden = !result.other_model;
    for (const [name, value] of page.provenance)
      at("provenance").append(make("dt", {}, name), make("dd", {}, value));
    at("config").textContent = page.config;
    at("rounding").textContent = "Numbers are those of vlens eval --json, rounded to four significant digits. " +
      `Intervals: 95 %, ${result.bootstrap} bootstrap resamples of pictures (of samples where there are none), seed ` +
      `${result.bootstrap_seed}. State ${result.n_layers} is the model itself. vlens ${result.vlens_version}.`;
    at("training").hidden = !training;
  }
  view.group = Math.max(result.classes.findIndex(g => g.class === "all-text"), 0);
  describe();
  controls();
  if (training)
    drawLayers();
  draw();
  return { view };
})();
