/* Words on patches: as large as they fit, over two or three lines where a patch is high enough, and none where no word
 * could be read. */

const Words = (() => {
  const SMALLEST = 9, LEADING = 1.08, FAMILY = 'system-ui, "DejaVu Sans", sans-serif';
  const context = document.createElement("canvas").getContext("2d");
  const widths = new Map(); /* character -> pixels at 10 px */
  const fitted = new Map(); /* size and text -> {text, size, cut} */
  const bare = []; /* token -> its text without the space in front */
  context.font = "500 10px " + FAMILY;

  /* The sum of its characters: exact to a pixel, and a thousand words are measured in a millisecond. */
  function measure(text) {
    let sum = 0;
    for (const c of text) {
      if (!widths.has(c))
        widths.set(c, context.measureText(c).width);
      sum += widths.get(c);
    }
    return sum;
  }
  /* A text cut into n lines of about the same width, between characters. */
  function lines(text, n) {
    const characters = [...text], out = [], share = Math.ceil(characters.length / n);
    for (let at = 0; at < characters.length; at += share)
      out.push(characters.slice(at, at + share).join(""));
    return out;
  }
  /* {text, size, cut} of a word in a box of so many pixels; null where nothing can be read. */
  function fit(text, width, height) {
    const room = width - 5; /* sizes are whole pixels: few fonts, each shaped once */
    if (room < 9 || height < SMALLEST * LEADING)
      return null;
    const largest = Math.min(18, Math.max(10, 0.36 * width)); /* the photograph shows around a word */
    for (let n = 1; n <= 4 && n * SMALLEST * LEADING <= height; n++) {
      const parts = n === 1 ? [text] : lines(text, n);
      const widest = Math.max(...parts.map(measure));
      const size = Math.floor(Math.min(largest, 10 * room / widest, height / (parts.length * LEADING)));
      if (size >= SMALLEST)
        return { text: parts.join("\n"), size, cut: false };
    }
    const most = Math.max(1, Math.floor(height / (SMALLEST * LEADING)));
    const per = Math.max(1, Math.floor(10 * room / SMALLEST / (measure(text) / [...text].length)));
    const kept = [...text].slice(0, Math.max(1, per * most - 1)).join("") + "…";
    return { text: lines(kept, most).join("\n"), size: SMALLEST, cut: true };
  }
  /* Writes a word into an element, or clears it. */
  function put(node, text, width, height) {
    const key = width + "," + height + "," + text;
    if (!fitted.has(key))
      fitted.set(key, fit(text, width, height));
    const word = fitted.get(key), shown = word ? word.text : "", size = word ? word.size + "px" : "";
    if (node.textContent !== shown)
      node.textContent = shown;
    if (node.style.fontSize !== size)
      node.style.fontSize = size;
    node.classList.toggle("cut", !!word && word.cut);
    if (fitted.size > 20000) /* many sizes after much zooming */
      fitted.clear();
  }
  /* Wide enough for two letters at least. */
  const readable = (width, height) => width >= 20 && height >= SMALLEST * LEADING;
  return { put, readable, of(view, i, s) {
    const token = Data.first(Data.shown(view), i, s);
    return bare[token] ??= tokenText(token).replace(/^·(?=.)/, "");
  } };
})();
