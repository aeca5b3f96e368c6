/* Lines over states or steps, for the pages that have charts of their own. */

const Plot = (() => {
  const charts = {};
  const text = x => x === null || x === undefined ? "–"
    : x === 0 ? "0" : (x < 0 ? "−" : "") + digits(Math.abs(x), "");

  function line(label, n, data, extra) {
    const colour = Theme.line(n);
    return { label, data, borderColor: colour, backgroundColor: colour, pointStyle: Theme.mark(n),
      pointRadius: 3, borderWidth: 2, tension: 0, ...extra };
  }
  /* A line between two invisible ones, with the colour filled in: its interval. */
  function band(label, n, mean, low, high) {
    const edge = { label: "", pointRadius: 0, borderWidth: 0, tension: 0, backgroundColor: Theme.line(n) + "38" };
    return [line(label, n, mean), { ...edge, data: low, fill: false }, { ...edge, data: high, fill: "-1" }];
  }
  /* [[x, y]]; a logarithmic axis has no place for what is not above 0. */
  const points = (pairs, log) => pairs.map(([x, y]) => ({ x, y: y === null || y === undefined || (log && y <= 0)
    ? null : y }));

  function draw(id, datasets, { title, x, log }) {
    if (typeof Chart === "undefined")
      return;
    const style = getComputedStyle(document.body), ink = style.getPropertyValue("--ink").trim();
    const grid = { color: style.getPropertyValue("--line").trim() };
    const axis = (name, type) => ({ type, title: { display: true, text: name, color: ink }, grid,
      ticks: { color: ink, maxRotation: 0 } });
    if (charts[id])
      charts[id].destroy();
    charts[id] = new Chart(document.getElementById(id), { type: "line", data: { datasets },
      options: { animation: false, responsive: true, maintainAspectRatio: false, spanGaps: false,
        interaction: { mode: "nearest", axis: "x", intersect: false },
        scales: { x: axis(x, "linear"), y: axis(title, log ? "logarithmic" : "linear") },
        plugins: {
          legend: { position: "bottom", labels: { color: ink, usePointStyle: true, boxWidth: 7, boxHeight: 7,
            filter: item => item.text !== "" } },
          tooltip: { filter: item => item.dataset.label !== "",
            callbacks: { label: item => item.dataset.label + " " + text(item.parsed.y) } } } } });
  }
  return { line, band, points, draw, text };
})();
