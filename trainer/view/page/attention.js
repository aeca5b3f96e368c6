/* Where cross-attention blocks look: a picture whose patches are no rows of the residual stream is coloured by what the
 * chosen position takes from each patch. trainer/view/page_data.h says how the weights are packed. */

const Attention = (() => {
  const stored = page.attention;
  if (!stored)
    return { exists: false, build() {}, draw() {}, next() {} };
  const codes = Uint8Array.from(atob(stored.weights), c => c.charCodeAt(0));
  const perTile = 1 + stored.rows * stored.columns, n = page.positions.length;
  const keys = codes.length / (stored.layers.length * n);
  const VALUE = Float64Array.from({ length: 256 }, (_, code) => code ? 10 ** (-6 + 6 * (code - 1) / 254) : 0);
  const at = id => document.getElementById(id);
  const maps = []; /* {part, first, picture, canvas, caption} */
  const percent = x => (100 * x).toPrecision(2) + " %";
  let block = stored.layers.length - 1, position = 0, change;

  const weight = (i, key) => VALUE[codes[(block * n + i) * keys + key]];
  /* The part of a picture, and the number of its first key: pictures of a part come in order. */
  function place(picture) {
    const row = page.positions.find(p => p.image === picture.image);
    const part = row ? row.part : Math.floor(page.pictures.indexOf(picture) * nParts / page.pictures.length);
    return { part, first: (page.pictures.indexOf(picture) % (page.pictures.length / nParts)) * stored.tiles * perTile };
  }
  const keyOf = (map, tile, row, column) => map.first + tile * perTile + 1 + row * stored.columns + column;

  /* The frame of a picture gets a canvas as large as the canvas of its tiles: a pixel is a patch. */
  function overlay(picture, frame, caption) {
    const canvas = make("canvas", { className: "weights", width: picture.tiles_wide * stored.columns,
      height: picture.tiles_high * stored.rows });
    canvas.style.width = 100 / picture.cover_width + "%";
    canvas.style.height = 100 / picture.cover_height + "%";
    canvas.setAttribute("role", "img");
    const map = { ...place(picture), picture, canvas, caption, hovered: null };
    canvas.addEventListener("pointermove", event => {
      const box = canvas.getBoundingClientRect();
      const x = Math.floor((event.clientX - box.left) / box.width * canvas.width);
      const y = Math.floor((event.clientY - box.top) / box.height * canvas.height);
      map.hovered = { tile: Math.floor(y / stored.rows) * picture.tiles_wide + Math.floor(x / stored.columns),
        row: y % stored.rows, column: x % stored.columns };
      describe(map);
    });
    canvas.addEventListener("pointerleave", () => { map.hovered = null; describe(map); });
    frame.append(canvas);
    maps.push(map);
  }

  const lookers = map => page.positions[position].part === map.part ? position : counterpart(position);

  function describe(map) {
    const i = lookers(map), used = map.picture.tiles_high * map.picture.tiles_wide;
    if (i < 0)
      return;
    let classRows = 0;
    const sums = Array.from({ length: stored.tiles }, (_, tile) => {
      let sum = 0;
      for (let k = 0; k < perTile; k++)
        sum += weight(i, map.first + tile * perTile + k);
      classRows += weight(i, map.first + tile * perTile);
      return sum;
    });
    const parts = [`Block ${stored.layers[block]} from “${rowName(i)}”, mean over heads.`,
      "Tiles: " + sums.slice(0, used).map(percent).join(", ") + `; of this class rows ${percent(classRows)}.`];
    if (map.hovered) {
      const { tile, row, column } = map.hovered;
      parts.push(`Tile ${tile}, patch ${row},${column}: ${percent(weight(i, keyOf(map, tile, row, column)))}.`);
    }
    map.caption.textContent = parts.join(" ");
  }

  function paint(map) {
    const i = lookers(map), { canvas, picture } = map, context = canvas.getContext("2d");
    context.clearRect(0, 0, canvas.width, canvas.height);
    if (i < 0)
      return;
    const image = context.createImageData(canvas.width, canvas.height);
    let high = 1e-6;
    for (let tile = 0; tile < picture.tiles_high * picture.tiles_wide; tile++)
      for (let k = 1; k < perTile; k++)
        high = Math.max(high, weight(i, map.first + tile * perTile + k));
    const scale = { low: high / 100, high, log: true };
    for (let y = 0; y < canvas.height; y++)
      for (let x = 0; x < canvas.width; x++) {
        const tile = Math.floor(y / stored.rows) * picture.tiles_wide + Math.floor(x / stored.columns);
        const w = weight(i, keyOf(map, tile, y % stored.rows, x % stored.columns));
        const rgb = Colour.of(w, scale).background.match(/\d+/g);
        image.data.set([...rgb.map(Number), 255], 4 * (y * canvas.width + x));
      }
    context.putImageData(image, 0, 0);
    canvas.setAttribute("aria-label", `Weights of block ${stored.layers[block]}, from ${percent(scale.low)} to ` +
      percent(high));
  }

  function draw(i) {
    position = i;
    at("cross").value = block;
    for (const map of maps) {
      paint(map);
      describe(map);
    }
  }
  function build(changed) {
    change = changed;
    at("cross").append(...stored.layers.map((layer, n) => make("option", { value: n }, "block " + layer)));
    at("cross").addEventListener("change", event => { block = Number(event.target.value); change(); });
    at("cross-field").hidden = false;
    at("picture-tools").hidden = false;
    for (const id of ["words", "magnifier", "fade"])
      at(id).parentNode.hidden = true;
  }
  function next() {
    block = (block + 1) % stored.layers.length;
    change();
  }
  return { exists: true, overlay, build, draw, next, weight, maps, get block() { return block; } };
})();
