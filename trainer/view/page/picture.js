/* The pictures with their patch grids. Patches are elements, so that they can be pointed at, focused and tested. */

const Picture = (() => {
  const patches = new Map(); /* position -> element */
  const grids = [];          /* {image, at: Map "row,column" -> position} */

  function patchElement(i) {
    const p = page.positions[i];
    const node = make("div", { className: "patch" }, make("bdi", {}));
    node.dataset.i = i;
    node.style.gridArea = p.patch[1] + 1 + " / " + (p.patch[2] + 1);
    patches.set(i, node);
    return node;
  }

  /* "A" where each part has one picture, else its number. */
  function pictureName(picture, number) {
    const row = page.positions.find(p => p.image === picture.image);
    return nParts === page.pictures.length && nParts > 1 && row ? partName(row.part) : String(number + 1);
  }

  function figure(picture, number) {
    const rows = picture.rows, columns = picture.columns, at = new Map();
    const grid = make("div", { className: "grid", tabIndex: 0 });
    grid.setAttribute("role", "application");
    grid.setAttribute("aria-label", "Patches of picture " + pictureName(picture, number) + ": arrow keys move, Enter locks");
    grid.style.gridTemplate = `repeat(${rows || 1}, 1fr) / repeat(${columns || 1}, 1fr)`;
    page.positions.forEach((p, i) => {
      if (p.class === "image" && p.image === picture.image && p.patch[1] >= 0) {
        at.set(p.patch[1] + "," + p.patch[2], i);
        grid.append(patchElement(i));
      }
    });
    grids.push({ image: picture.image, at, rows, columns });
    const frame = make("div", { className: "frame" });
    frame.style.aspectRatio = picture.width + " / " + picture.height;
    if (picture.src)
      frame.append(make("img", { src: picture.src, alt: "The picture as the model saw it", draggable: false }));
    if (rows && at.size)
      frame.append(grid);
    const notes = [picture.note], weights = make("figcaption", {});
    if (!rows)
      notes.push("This model's patches are not rows of its residual stream: there is no lens on them, only on the text. " +
        (Attention.exists ? "The colours say what the chosen position takes from each patch." : ""));
    else if (at.size < rows * columns)
      notes.push(at.size + " of " + rows * columns + " patches are stored.");
    if (page.pictures.length > 1)
      notes.unshift("Picture " + pictureName(picture, number) + ".");
    const caption = notes.filter(Boolean).join(" ");
    if (Attention.exists && picture.tiles_high) {
      Attention.overlay(picture, frame, weights);
      return make("figure", {}, frame, make("figcaption", {}, caption), weights);
    }
    return make("figure", {}, frame, ...(caption ? [make("figcaption", {}, caption)] : []));
  }

  function build(handlers) {
    const root = document.getElementById("pictures");
    root.append(...page.pictures.map(figure));
    root.hidden = page.pictures.length === 0;
    root.classList.toggle("several", page.pictures.length > 1);
    document.getElementById("picture-tools").hidden = patches.size === 0;
    const under = event => {
      const node = event.target.closest(".patch");
      return node ? Number(node.dataset.i) : -1;
    };
    root.addEventListener("pointerover", event => handlers.hover(under(event), "picture"));
    root.addEventListener("pointerleave", () => handlers.hover(-1, "picture"));
    root.addEventListener("click", event => under(event) >= 0 && handlers.lock(under(event)));
    document.getElementById("strength").addEventListener("input", event =>
      root.style.setProperty("--strength", event.target.value / 100));
    document.getElementById("words").addEventListener("change", draw_words);
    new ResizeObserver(draw_words).observe(root);
  }

  /* Tokens are written on patches only where they can be read. */
  function draw_words() {
    const root = document.getElementById("pictures"), first = patches.values().next().value;
    const room = first ? first.getBoundingClientRect().width : 0;
    root.classList.toggle("words", document.getElementById("words").checked && room >= 34);
  }

  function draw(view, scale) {
    const lens = view.lens === "logit" ? "logit" : Data.lenses[Data.lenses.length - 1];
    for (const [i, node] of patches) {
      const x = Colour.value(view, i, view.state, view.colour, view.token), colour = Colour.of(x, scale);
      node.style.setProperty("--fill", colour ? colour.background : "transparent");
      node.style.setProperty("--ink", colour ? colour.text : "inherit");
      node.classList.toggle("empty", !colour);
      node.dataset.value = Number.isNaN(x) ? "" : x;
      node.firstChild.textContent = tokenText(Data.first(lens, i, view.state)).replace(/^·/, "");
    }
  }

  function mark(i, name) {
    for (const node of document.querySelectorAll("#pictures .patch." + name))
      node.classList.remove(name);
    if (patches.has(i))
      patches.get(i).classList.add(name);
    const other = i >= 0 ? counterpart(i) : -1;
    if (name === "hovered" && patches.has(other))
      patches.get(other).classList.add("hovered");
  }

  /* The stored patch one step away, or i itself. */
  function neighbour(i, rows, columns) {
    const p = page.positions[i], grid = p && grids.find(g => g.image === p.image);
    if (!grid || p.class !== "image")
      return patches.size ? patches.keys().next().value : i;
    let row = p.patch[1] + rows, column = p.patch[2] + columns;
    while (row >= 0 && row < grid.rows && column >= 0 && column < grid.columns) {
      if (grid.at.has(row + "," + column))
        return grid.at.get(row + "," + column);
      row += rows;
      column += columns;
    }
    return i;
  }

  return { build, draw, mark, neighbour };
})();
