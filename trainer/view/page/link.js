/* The address of what is shown: #state=14&patch=9,11&token=eyes&lens=tuned. A row that is no patch is `position=42`. */

const Link = (() => {
  function write(view) {
    const parts = new URLSearchParams(), i = view.locked;
    parts.set("state", view.state);
    parts.set("lens", view.lens);
    if (i >= 0 && Grid.isPatch(i)) {
      const [tile, row, column] = page.positions[i].patch;
      parts.set("patch", row + "," + column);
      if (tile > 0)
        parts.set("tile", tile);
      if (Grid.grids.length > 1)
        parts.set("picture", 1 + Grid.grids.indexOf(Grid.of(i)));
    } else if (i >= 0) {
      parts.set("position", page.positions[i].position);
      if (page.positions[i].part > 0)
        parts.set("part", page.positions[i].part);
    }
    if (view.token >= 0)
      parts.set("token", page.vocab[view.token]);
    if (view.colour !== "top1" && view.colour !== "token")
      parts.set("colour", view.colour);
    try {
      history.replaceState(null, "", "#" + parts.toString().replace(/%2C/g, ","));
    } catch {
      /* a browser that lets pages of files have no address, or has seen too many of them */
    }
  }
  /* {state, lens, i, token, colour} of an address, each undefined where it does not say or does not fit. */
  function read(hash) {
    const parts = new URLSearchParams(hash.replace(/^#/, "")), out = {};
    const number = name => /^\d{1,9}$/.test(parts.get(name) || "") ? Number(parts.get(name)) : undefined;
    const state = number("state"), position = number("position");
    if (state !== undefined && state < Data.nStates)
      out.state = state;
    if ((parts.get("lens") === "difference" && page.has_lens) || Data.lenses.includes(parts.get("lens")))
      out.lens = parts.get("lens");
    const at = /^(\d{1,4}),(\d{1,4})$/.exec(parts.get("patch") || ""), tile = number("tile") || 0;
    const grid = Grid.grids[(number("picture") || 1) - 1];
    if (at && grid)
      out.i = grid.at.get(tile + "," + Number(at[1]) + "," + Number(at[2]));
    else if (position !== undefined)
      out.i = page.positions.findIndex(p => p.position === position && p.part === (number("part") || 0));
    if (parts.get("token"))
      out.token = parts.get("token");
    if (["top1", "entropy", "kl"].includes(parts.get("colour")))
      out.colour = parts.get("colour");
    return out;
  }
  return { write, read };
})();
