/* One position through all states: the card (this state, both lenses), two charts, and the numbers behind them. */

const Trajectory = (() => {
  const charts = {};

  /* ---- the card ---- */

  const nats = (name, x) => make("p", { className: "nats" }, name, make("span", {}, natsText(x)));

  function column(lens, i, s, id) {
    const list = make("ol", {});
    const top = Data.top(lens, i, s);
    const more = page.tracked.filter(token => !top.some(t => t.token === token))
      .map(token => ({ token, p: Data.value(lens, i, s, "token", token) }));
    for (const { token, p } of [...top, ...more]) {
      const bar = make("span", { className: "bar" });
      bar.style.width = Math.max(p * 100, 0.5) + "%";
      list.append(make("li", { className: page.tracked.includes(token) ? "tracked" : "" },
        make("bdi", { className: "token", title: "id " + page.ids[token] }, tokenText(token)),
        make("span", { className: "p" }, probabilityText(p)), bar));
    }
    return make("div", { className: "lens", id },
      make("h3", {}, lens === "logit" ? "Logit lens" : "Tuned lens"), list,
      nats("entropy", Data.value(lens, i, s, "entropy")), nats("KL to the end", Data.value(lens, i, s, "kl")));
  }

  function card(i, s, locked) {
    const p = page.positions[i], node = document.getElementById("card");
    const title = make("h2", {}, make("bdi", {}, rowName(i)),
      make("small", {}, ` ${placeName(i)} · position ${p.position} · state ${s}${locked ? " · locked" : ""}`));
    const other = counterpart(i), columns = [title, make("div", { className: "columns" },
      ...Data.lenses.map(l => column(l, i, s, "card-" + l)))];
    if (other >= 0)
      columns.push(make("h2", { className: "other" }, make("bdi", {}, rowName(other))), make("div",
        { className: "columns" }, ...Data.lenses.map(l => column(l, other, s, "card-other-" + l))));
    node.replaceChildren(...columns);
    node.dataset.i = i;
    node.dataset.s = s;
  }

  /* ---- the charts ---- */

  /* The tokens that matter at a position: the chosen one, the tracked ones, then those with the largest probability at
   * any state. */
  function leading(lenses, i, limit, chosen) {
    const best = new Map();
    for (const lens of lenses)
      for (let s = 0; s < Data.nStates; s++)
        for (const { token, p } of Data.top(lens, i, s))
          best.set(token, Math.max(best.get(token) || 0, p));
    const order = [...best].sort((a, b) => b[1] - a[1] || a[0] - b[0]).map(([token]) => token);
    const asked = chosen >= 0 ? [chosen, ...page.tracked] : page.tracked;
    return [...new Set([...asked, ...order])].slice(0, Math.max(limit, asked.length));
  }
  const series = (lens, i, quantity, token) => Array.from({ length: Data.nStates }, (_, s) => {
    const x = Data.value(lens, i, s, quantity, token);
    return isFinite(x) ? x : null;
  });
  function line(label, data, n, dashed) {
    const colour = Theme.line(n);
    return { label, data, borderColor: colour, backgroundColor: colour, pointStyle: Theme.mark(n),
      pointRadius: 3, pointHoverRadius: 5, borderWidth: 2, clip: 6, borderDash: dashed ? [6, 4] : [], tension: 0 };
  }
  /* Solid at the position, dashed at its counterpart under the other picture. */
  function comparedLines(lens, i, other, chosen) {
    const tokens = [...new Set([...leading([lens], i, 3, chosen), ...leading([lens], other, 3, chosen)])];
    return tokens.flatMap((token, n) => [i, other].map((row, dashed) =>
      line(tokenText(token) + " " + partName(page.positions[row].part) + (dashed ? " (dashed)" : ""),
        series(lens, row, "token", token), n, dashed)));
  }
  function probabilityLines(view, i) {
    if (view.lens !== "difference" && counterpart(i) >= 0)
      return comparedLines(view.lens, i, counterpart(i), view.token);
    if (view.lens !== "difference")
      return leading([view.lens], i, 6, view.token).map((token, n) =>
        line(tokenText(token), series(view.lens, i, "token", token), n));
    return leading(["logit", "tuned"], i, 3, view.token).flatMap((token, n) => [
      line(tokenText(token) + " tuned", series("tuned", i, "token", token), n),
      line(tokenText(token) + " logit (dashed)", series("logit", i, "token", token), n, true)]);
  }
  function natsLines(i) {
    const names = { tuned: "tuned", logit: page.has_lens ? "logit (dashed)" : "logit" };
    return Data.lenses.flatMap(lens => [
      line("KL, " + names[lens], series(lens, i, "kl"), 0, page.has_lens && lens === "logit"),
      line("entropy, " + names[lens], series(lens, i, "entropy"), 1, page.has_lens && lens === "logit")]);
  }

  /* A vertical line at the state that the page shows. */
  const now = { id: "now", afterDraw(chart, _, options) {
    const x = chart.scales.x.getPixelForValue(options.state), { top, bottom } = chart.chartArea, c = chart.ctx;
    c.save();
    c.strokeStyle = options.colour;
    c.setLineDash([2, 3]);
    c.beginPath();
    c.moveTo(x, top);
    c.lineTo(x, bottom);
    c.stroke();
    c.restore();
  } };

  function options(title, max) {
    const text = max ? probabilityText : natsText;
    const axis = text => ({ title: { display: true, text }, grid: {}, ticks: { maxRotation: 0 } });
    return { animation: false, responsive: true, maintainAspectRatio: false, spanGaps: false,
      interaction: { mode: "index", intersect: false },
      scales: { x: axis("state"), y: { ...axis(title), min: 0, ...(max ? { max } : {}) } },
      plugins: { tooltip: { callbacks: { label: item => item.dataset.label + " " + text(item.parsed.y) } },
        legend: { position: "bottom", labels: { usePointStyle: true, boxWidth: 7, boxHeight: 7, padding: 12 } },
        now: {} } };
  }
  function plot(id, datasets, title, max, state) {
    const style = getComputedStyle(document.body), ink = style.getPropertyValue("--ink").trim();
    const faint = style.getPropertyValue("--line").trim();
    if (!charts[id])
      charts[id] = new Chart(document.getElementById(id), {
        type: "line", data: { labels: Array.from({ length: Data.nStates }, (_, s) => s), datasets: [] },
        options: options(title, max), plugins: [now] });
    const chart = charts[id];
    chart.data.datasets = datasets;
    for (const axis of [chart.options.scales.x, chart.options.scales.y])
      Object.assign(axis, { grid: { color: faint }, ticks: { ...axis.ticks, color: ink },
        title: { ...axis.title, color: ink } });
    chart.options.plugins.legend.labels.color = ink;
    chart.options.plugins.now = { state, colour: ink };
    chart.update("none");
  }

  /* ---- the numbers ---- */

  function numbers(i) {
    const head = make("tr", {}, make("th", { scope: "col" }, "state"));
    for (const lens of Data.lenses)
      for (const name of ["top-" + page.k, "entropy", "KL"])
        head.append(make("th", { scope: "col" }, lens + " " + name));
    const body = make("tbody", {});
    for (let s = 0; s < Data.nStates; s++) {
      const row = make("tr", {}, make("th", { scope: "row" }, String(s)));
      for (const lens of Data.lenses) {
        const top = make("td", { className: "tops" });
        for (const { token, p } of Data.top(lens, i, s))
          top.append(make("span", {}, make("bdi", { className: "token" }, tokenText(token)), " " + probabilityText(p)));
        row.append(top, make("td", {}, natsText(Data.value(lens, i, s, "entropy"))),
          make("td", {}, natsText(Data.value(lens, i, s, "kl"))));
      }
      body.append(row);
    }
    document.getElementById("numbers-table").replaceChildren(make("table", {}, make("thead", {}, head), body));
  }

  function draw(view, i) {
    const details = document.getElementById("numbers");
    document.getElementById("chart-name").replaceChildren(make("bdi", {}, rowName(i)),
      ` (position ${page.positions[i].position}), `,
      view.lens === "difference" ? "both lenses" : view.lens + " lens");
    if (typeof Chart === "undefined") {
      document.getElementById("charts").hidden = true;
      details.open = true;
    } else {
      plot("chart-p", probabilityLines(view, i), "probability", 1, view.state);
      plot("chart-nats", natsLines(i), "nats", 0, view.state);
    }
    if (details.open)
      numbers(i);
  }

  return { card, draw };
})();
