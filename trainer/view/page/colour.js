/* From a number to a colour, and the key of it. Cividis: perceptually uniform, and the same to people with and
 * without red-green blindness. Differences run from blue over neutral to orange. */

const Colour = (() => {
  const CIVIDIS = [[0, 34, 78], [18, 53, 112], [59, 73, 108], [87, 93, 109], [112, 113, 115], [138, 134, 120],
    [165, 156, 116], [195, 179, 105], [225, 204, 85], [254, 232, 56]];
  const DIVERGING_LIGHT = [[20, 80, 150], [118, 170, 214], [244, 243, 238], [236, 172, 98], [166, 84, 0]];
  const DIVERGING_DARK = [[140, 196, 248], [52, 104, 156], [42, 44, 48], [156, 96, 24], [252, 184, 96]];

  const mix = (stops, t) => {
    const x = Math.min(Math.max(t, 0), 1) * (stops.length - 1), n = Math.min(Math.floor(x), stops.length - 2);
    return stops[n].map((a, c) => Math.round(a + (stops[n + 1][c] - a) * (x - n)));
  };
  const linear = v => (v /= 255) <= 0.04045 ? v / 12.92 : ((v + 0.055) / 1.055) ** 2.4;
  const luminance = rgb => 0.2126 * linear(rgb[0]) + 0.7152 * linear(rgb[1]) + 0.0722 * linear(rgb[2]);

  const sequential = (view, high) => view.log ? { low: high / 1e4, high, log: true } : { low: 0, high };

  /* {low, high, diverging, log} of what the page is coloured by: the same for all states and both lenses, so that
   * colours can be compared while the slider moves. */
  function range(view) {
    if (view.lens !== "difference" && view.colour === "top1")
      return sequential(view, 1);
    let high = 0;
    for (let i = 0; i < Data.nPositions; i++)
      for (let s = 0; s < Data.nStates; s++)
        for (const x of view.lens === "difference" ? [difference(view, i, s)]
          : Data.lenses.map(lens => Data.value(lens, i, s, view.colour, view.token)))
          if (Math.abs(x) > high && isFinite(x))
            high = Math.abs(x);
    high = high || 1;
    return view.lens === "difference" ? { low: -high, high, diverging: true } : sequential(view, high);
  }
  /* tuned minus logit; four digits again, as both have no more */
  function difference(view, i, s) {
    const [a, b] = ["tuned", "logit"].map(lens => Data.value(lens, i, s, view.colour, view.token));
    return Number((a - b).toPrecision(4));
  }
  function value(view, i, s) {
    return view.lens === "difference" ? difference(view, i, s)
      : Data.value(view.lens, i, s, view.colour, view.token);
  }
  /* Where a number stands on the scale, from 0 to 1; what is below a logarithmic scale stands at its end. */
  function place(x, scale) {
    if (scale.log)
      return x <= scale.low ? 0 : Math.log(x / scale.low) / Math.log(scale.high / scale.low);
    return (x - scale.low) / (scale.high - scale.low);
  }
  /* How much of a colour lies over a photograph, from 0 to 1: the more the higher the number. */
  const strength = (x, scale) => {
    const t = place(x === Infinity ? scale.high : x, scale);
    return Math.min(Math.max(scale.diverging ? Math.abs(2 * t - 1) : t, 0), 1);
  };
  function rgbOf(x, scale) {
    const stops = !scale.diverging ? CIVIDIS : Theme.isDark() ? DIVERGING_DARK : DIVERGING_LIGHT;
    return mix(stops, place(x, scale));
  }
  /* {background, text}; null where there is no number */
  function of(x, scale) {
    if (Number.isNaN(x))
      return null;
    const rgb = rgbOf(x === Infinity ? scale.high : x, scale);
    return { background: "rgb(" + rgb.join(",") + ")", text: luminance(rgb) > 0.179 ? "#000" : "#fff" };
  }
  function legend(node, scale, name, text) {
    const stops = Array.from({ length: 11 }, (_, n) => scale.log ? scale.low * (scale.high / scale.low) ** (n / 10)
      : scale.low + (scale.high - scale.low) * n / 10);
    const bar = make("span", { className: "bar" });
    bar.style.background = "linear-gradient(to right," + stops.map(x => of(x, scale).background).join(",") + ")";
    const end = x => make("span", { className: "end" }, x === 0 ? "0" : x === 1 ? "1" : text(x));
    node.replaceChildren(...(scale.log ? ["≤"] : []), end(scale.low), bar, end(scale.high));
    node.setAttribute("aria-label", name + " from " + scale.low + " to " + scale.high);
  }
  return { of, range, value, strength, legend };
})();
