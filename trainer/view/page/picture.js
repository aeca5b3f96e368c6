/* The pictures with their patches. Patches are elements, so that they can be pointed at, focused and tested. */

const Picture = (() => {
  const at = id => document.getElementById(id);
  const patches = new Map(); /* position -> element */
  const figures = [];        /* {grid, layers: [element], image, zoom} */
  let shownView, shownScale, wordsRequest = 0;

  /* "A" where each part has one picture, else its number. */
  function pictureName(picture, number) {
    const row = page.positions.find(p => p.image === picture.image);
    return nParts === page.pictures.length && nParts > 1 && row ? partName(row.part) : String(number + 1);
  }
  function patchElement(i) {
    const node = make("div", { className: "patch" }, make("bdi", {}));
    const [left, top, width, height] = Grid.box(i).map(x => 100 * x + "%");
    node.dataset.i = i;
    Object.assign(node.style, { left, top, width, height });
    patches.set(i, node);
    return node;
  }
  function layerElement(grid, layer, name) {
    const node = make("div", { className: "grid", tabIndex: 0, hidden: layer !== grid.shown });
    node.setAttribute("role", "application");
    node.setAttribute("aria-label", "Patches of picture " + name + ": arrow keys move, Enter locks, + and - zoom");
    node.append(...[...grid.at.values()].filter(i => Grid.layer(i) === layer).map(patchElement));
    return node;
  }
  function notesOf(picture, number, grid) {
    const notes = [picture.note], patches = picture.tiles.reduce((n, t) => n + t.rows * t.columns, 0);
    if (!picture.tiles.length)
      notes.push("This model's patches are not rows of its residual stream: there is no lens on them, only on the text. " +
        (Attention.exists ? "The colours say what the chosen position takes from each patch." : ""));
    else if (grid.at.size && grid.at.size < patches)
      notes.push(grid.at.size + " of " + patches + " patches are stored.");
    if (page.pictures.length > 1)
      notes.unshift("Picture " + pictureName(picture, number) + ".");
    return notes.filter(Boolean).join(" ");
  }

  function figure(grid, number) {
    const picture = grid.picture, name = pictureName(picture, number);
    const frame = make("div", { className: "frame" });
    frame.style.aspectRatio = picture.width + " / " + picture.height;
    const image = picture.src ? make("img", { src: picture.src, alt: "The picture as the model saw it", draggable: false })
      : null;
    if (image)
      frame.append(image);
    const one = { grid, image, layers: [] };
    if (grid.at.size)
      for (let layer = 0; layer < Grid.nLayers(grid); layer++)
        one.layers.push(layerElement(grid, layer, name));
    frame.append(...one.layers);
    const scroller = make("div", { className: "window" }, frame), outside = make("div", { className: "outside" }, scroller);
    scroller.style.aspectRatio = frame.style.aspectRatio;
    one.zoom = Zoom.attach(scroller, frame, picture.src, wordsSoon);
    figures.push(one);
    const caption = notesOf(picture, number, grid), weights = make("figcaption", {});
    const node = make("figure", {}, outside, ...(caption ? [make("figcaption", {}, caption)] : []));
    node.style.setProperty("--aspect", picture.width / picture.height);
    if (Attention.exists && picture.tiles_high) {
      Attention.overlay(picture, frame, weights);
      node.append(weights);
    }
    return node;
  }

  /* ---- words ---- */

  const wordsSoon = () => {
    if (!wordsRequest)
      wordsRequest = requestAnimationFrame(() => { wordsRequest = 0; drawWords(); });
  };
  /* Only in the part that is seen, and only where they can be read. */
  function drawWords() {
    if (!shownView)
      return;
    const wanted = at("words").checked;
    let readable = false;
    for (const { grid, layers, zoom } of figures) {
      const { frame, window: node } = zoom, width = frame.offsetWidth, height = frame.offsetHeight;
      const left = node.scrollLeft, top = node.scrollTop, right = left + node.clientWidth, bottom = top + node.clientHeight;
      for (const i of layers.length ? grid.at.values() : []) {
        if (Grid.layer(i) !== grid.shown)
          continue;
        const [x, y, w, h] = Grid.box(i), label = patches.get(i).firstChild;
        const seen = (x + w) * width > left && x * width < right &&
          (y + h) * height > top && y * height < bottom;
        const room = Words.readable(w * width, h * height);
        readable = readable || room;
        if (wanted && seen && room)
          Words.put(label, Words.of(shownView, i, shownView.state), w * width, h * height);
        else if (label.textContent)
          label.textContent = "";
      }
    }
    at("words-note").hidden = readable || !wanted || patches.size === 0;
  }

  /* ---- colours ---- */

  /* The photograph stays in sight: a colour is the stronger the higher its value, and never covers all. */
  function fill(x, colour, scale, strength) {
    const share = at("fade").checked ? Colour.strength(x, scale) : 1;
    return colour.background.replace("rgb(", "rgba(").replace(")", "," + (strength * share).toFixed(3) + ")");
  }
  function draw(view, scale) {
    shownView = view;
    shownScale = scale;
    const strength = at("strength").value / 100;
    for (const [i, node] of patches) {
      const x = Colour.value(view, i, view.state, view.colour, view.token), colour = Colour.of(x, scale);
      node.style.backgroundColor = colour ? fill(x, colour, scale, strength) : "";
      node.classList.toggle("empty", !colour && !at("fade").checked);
      const rank = view.colour === "token" ? Ask.rank(view, i, view.state) : -1;
      node.classList.toggle("lit", rank >= 0);
      node.classList.toggle("first", rank === 0);
      node.dataset.value = Number.isNaN(x) ? "" : x;
    }
    drawWords();
  }

  function mark(i, name) {
    for (const node of document.querySelectorAll("#pictures .patch." + name))
      node.classList.remove(name);
    if (patches.has(i)) {
      const grid = Grid.of(i);
      if (grid.shown !== Grid.layer(i))
        showLayer(Grid.layer(i));
      patches.get(i).classList.add(name);
      if (name === "locked")
        Zoom.reveal(patches.get(i));
    }
    const other = i >= 0 ? counterpart(i) : -1;
    if (name === "hovered" && patches.has(other))
      patches.get(other).classList.add("hovered");
  }
  function loupe(view, i) {
    const one = Grid.isPatch(i) ? figures.find(f => f.grid === Grid.of(i)) : null;
    Loupe.show(view, i, patches.get(i), one && one.image);
  }
  /* The stored patch one step away, the first one where no patch is chosen. */
  const neighbour = (i, rows, columns) => Grid.isPatch(i) ? Grid.neighbour(i, rows, columns)
    : patches.size ? Grid.first() : i;

  /* ---- start ---- */

  function showLayer(layer) {
    at("layer-of-tiles").value = layer;
    for (const { grid, layers } of figures) {
      grid.shown = Math.min(layer, layers.length - 1);
      layers.forEach((node, n) => { node.hidden = n !== grid.shown; });
    }
    wordsSoon();
  }
  function listenTiles() {
    const most = Math.max(0, ...Grid.grids.map(Grid.nLayers));
    const names = n => Grid.grids.map(g => {
      const tiles = g.picture.tiles.filter((_, t) => g.layers[t] === n);
      return tiles.length === 1 ? `${tiles[0].rows} × ${tiles[0].columns} patches` : tiles.length + " tiles";
    }).find(Boolean);
    at("layer-of-tiles").append(...Array.from({ length: most }, (_, n) => make("option", { value: n }, names(n))));
    at("layer-field").hidden = most < 2;
    at("layer-of-tiles").addEventListener("change", event => showLayer(Number(event.target.value)));
  }
  function listen(handlers, root) {
    const under = event => {
      const node = event.target.closest(".patch");
      return node ? Number(node.dataset.i) : -1;
    };
    root.addEventListener("pointerover", event => handlers.hover(under(event), "picture"));
    root.addEventListener("pointerleave", () => handlers.hover(-1, "picture"));
    root.addEventListener("click", event => under(event) >= 0 && handlers.lock(under(event)));
    for (const id of ["strength", "fade"])
      at(id).addEventListener("input", () => {
        root.style.setProperty("--strength", at("strength").value / 100);
        draw(shownView, shownScale);
      });
    at("words").addEventListener("change", drawWords);
    at("magnifier").addEventListener("change", event => { Loupe.on = event.target.checked; });
    const chosen = () => root.querySelector(".patch.locked");
    at("zoom-in").addEventListener("click", () => Zoom.step(1, chosen()));
    at("zoom-out").addEventListener("click", () => Zoom.step(-1, chosen()));
    at("zoom-all").addEventListener("click", () => Zoom.step(0));
    at("wide").addEventListener("click", () => widen());
    new ResizeObserver(wordsSoon).observe(root);
  }
  function widen() {
    const wide = document.querySelector("main").classList.toggle("full");
    at("wide").setAttribute("aria-pressed", String(wide));
    wordsSoon();
  }
  function build(handlers) {
    const root = at("pictures");
    root.append(...Grid.grids.map(figure));
    document.querySelector("main").classList.toggle("no-picture", page.pictures.length === 0);
    root.classList.toggle("several", page.pictures.length > 1);
    at("picture-tools").hidden = patches.size === 0;
    listenTiles();
    listen(handlers, root);
  }

  return { build, draw, mark, neighbour, loupe, widen, element: i => patches.get(i) };
})();
