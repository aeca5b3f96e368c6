/* The numbers of the page, decoded. trainer/view/page_data.h says how they are packed. */

const Data = (() => {
  const bytesOf = text => Uint8Array.from(atob(text), c => c.charCodeAt(0));
  const integers = (text, width) => {
    const bytes = bytesOf(text);
    const out = width === 4 ? new Uint32Array(bytes.length / 4) : new Uint16Array(bytes.length / 2);
    for (let i = 0; i < out.length; i++)
      for (let b = width - 1; b >= 0; b--)
        out[i] = out[i] * 256 + bytes[i * width + b];
    return out;
  };
  /* Every code as a number: decimal text, so that the four digits come out as they went in. */
  const valuesOf = lowest => Float64Array.from({ length: 65536 }, (_, code) => {
    if (code === 0)
      return 0;
    if (code === 65535)
      return Infinity;
    const exponent = Math.floor((code - 1) / 9000) + lowest;
    return Number((code - 1) % 9000 + 1000 + "e" + (exponent - 3));
  });
  const probabilities = valuesOf(page.lowest_p), nats = valuesOf(page.lowest_nats);
  const unpack = packed => ({
    top: integers(packed.top, page.index_bytes),
    p: integers(packed.p, 2),
    entropy: integers(packed.entropy, 2),
    kl: integers(packed.kl, 2),
    tracked: integers(packed.tracked, 2),
  });
  const lenses = { logit: unpack(page.logit) };
  if (page.has_lens)
    lenses.tuned = unpack(page.tuned);
  const S = page.n_states, K = page.k, N = page.tracked.length;

  /* Whole paths: of the words that lead at a position, also where they are not among its top k. */
  const paths = new Map(); /* lens -> [position] -> Map token -> index of its first number */
  for (const [lens, packed] of Object.entries(page.paths || {})) {
    const tokens = integers(packed.tokens, page.index_bytes), p = integers(packed.p, 2);
    let n = 0;
    const at = packed.counts.map(count => new Map(Array.from({ length: count }, () => [tokens[n], S * n++])));
    paths.set(lens, { at, p });
  }

  return {
    lenses: Object.keys(lenses),
    nStates: S,
    nPositions: page.positions.length,
    /* [{token, p}] falling by probability; token is an index into page.vocab */
    top(lens, i, s) {
      const { top, p } = lenses[lens], at = (i * S + s) * K;
      return Array.from({ length: K }, (_, j) => ({ token: top[at + j], p: probabilities[p[at + j]] }));
    },
    first(lens, i, s) {
      return lenses[lens].top[(i * S + s) * K];
    },
    /* The lens whose words are shown: the tuned one also in the difference. */
    shown: view => view.lens === "difference" ? "tuned" : view.lens,
    rank(lens, i, s, token) {
      const { top } = lenses[lens], at = (i * S + s) * K;
      for (let j = 0; j < K; j++)
        if (top[at + j] === token)
          return j;
      return -1;
    },
    /* "top1", "entropy", "kl", or "token": its probability, NaN where it is neither tracked, nor among the top, nor
     * followed at this position */
    value(lens, i, s, quantity, token) {
      const l = lenses[lens], cell = i * S + s, at = cell * K;
      if (quantity === "entropy" || quantity === "kl")
        return nats[l[quantity][cell]];
      if (quantity === "top1")
        return probabilities[l.p[at]];
      const tracked = page.tracked.indexOf(token);
      if (tracked >= 0)
        return probabilities[l.tracked[cell * N + tracked]];
      for (let j = 0; j < K; j++)
        if (l.top[at + j] === token)
          return probabilities[l.p[at + j]];
      const path = paths.get(lens), start = path && path.at[i].get(token);
      return start === undefined ? NaN : probabilities[path.p[start + s]];
    },
    /* The largest probability that each token of the vocabulary reaches anywhere; 1 for tracked ones. */
    peaks() {
      const out = new Float64Array(page.vocab.length);
      for (const l of Object.values(lenses))
        l.top.forEach((token, n) => { out[token] = Math.max(out[token], probabilities[l.p[n]]); });
      for (const token of page.tracked)
        out[token] = Math.max(out[token], 1); /* what was asked for comes first */
      return out;
    },
  };
})();

const tokenTexts = []; /* each is made once: a table of a page asks for a hundred thousand */
const tokenText = token => tokenTexts[token] ??= shown(page.vocab[token]);

const probabilityText = p => digits(p, "1e-7");
const natsText = x => digits(x, "1e-4");
const quantityText = (x, quantity) => quantity === "entropy" || quantity === "kl" ? natsText(x) : probabilityText(x);

/* The same prompt read with another picture: parts A, B. */
const nParts = 1 + Math.max(...page.positions.map(p => p.part));
const partName = part => String.fromCharCode(65 + part);
/* The row of the next part that stands at the same place of its sequence, -1 where there is none. */
const counterpart = (() => {
  const at = new Map(page.positions.map((p, i) => [p.part + ":" + p.position, i]));
  return i => nParts < 2 ? -1
    : at.get((page.positions[i].part + 1) % nParts + ":" + page.positions[i].position) ?? -1;
})();

/* What a row is, in full: counted from 0, as everywhere. */
function placeName(i) {
  const p = page.positions[i];
  if (p.class !== "image" || p.patch[1] < 0)
    return p.class;
  return "patch in " + (p.patch[0] > 0 ? "tile " + p.patch[0] + ", " : "") + "row " + p.patch[1] + ", column " + p.patch[2];
}

/* What a row is: "patch 3,4" ("2: patch 3,4" in the second of several pictures, "B: " in the second part), or its
 * token. */
function rowName(i) {
  const p = page.positions[i], part = nParts > 1 ? partName(p.part) + ": " : "";
  const picture = nParts === 1 && page.pictures.length > 1
    ? page.pictures.findIndex(q => q.image === p.image) + 1 + ": " : "";
  if (p.class === "image" && p.patch[1] >= 0)
    return part + picture + (p.patch[0] > 0 ? "tile " + p.patch[0] + " " : "") + "patch " + p.patch[1] + "," + p.patch[2];
  return part + shown(p.token);
}
