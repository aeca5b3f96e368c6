/* Where patches lie. A picture is cut into tiles, a tile into rows and columns; trainer/view/page_data.h says how they
 * are stored. Tiles that lie over each other (the whole picture, then its pieces) are layers, of which one is shown. */

const Grid = (() => {
  const overlap = (a, b) => {
    const [l, t, w, h] = a.box, [l2, t2, w2, h2] = b.box, little = 1e-6;
    return l < l2 + w2 - little && l2 < l + w - little && t < t2 + h2 - little && t2 < t + h - little;
  };
  /* The layer of each tile: the first that it fits into. */
  function layersOf(tiles) {
    const layers = [];
    return tiles.map(tile => {
      let n = layers.findIndex(layer => !layer.some(other => overlap(tile, other)));
      if (n < 0)
        n = layers.push([]) - 1;
      layers[n].push(tile);
      return n;
    });
  }
  const grids = page.pictures.map(picture => ({ picture, layers: layersOf(picture.tiles), at: new Map(), shown: 0 }));
  const byImage = new Map(grids.map(grid => [grid.picture.image, grid]));
  const key = (tile, row, column) => tile + "," + row + "," + column;

  page.positions.forEach((p, i) => {
    const grid = byImage.get(p.image);
    if (p.class === "image" && grid && p.patch[1] >= 0 && grid.picture.tiles[Math.max(p.patch[0], 0)])
      grid.at.set(key(Math.max(p.patch[0], 0), p.patch[1], p.patch[2]), i);
  });

  const of = i => byImage.get(page.positions[i].image);
  const isPatch = i => i >= 0 && page.positions[i].class === "image" && page.positions[i].patch[1] >= 0 && !!of(i) &&
    of(i).at.size > 0;
  const tileNumber = i => Math.max(page.positions[i].patch[0], 0);
  const layer = i => of(i).layers[tileNumber(i)];

  /* [left, top, width, height] of a patch, each from 0 to 1 of its picture */
  function box(i) {
    const [, row, column] = page.positions[i].patch, tile = of(i).picture.tiles[tileNumber(i)];
    const width = tile.box[2] / tile.columns, height = tile.box[3] / tile.rows;
    return [tile.box[0] + column * width, tile.box[1] + row * height, width, height];
  }
  /* The patch of a layer that lies at a point of the picture; -1 where none is, or none is stored. */
  function find(grid, layer, x, y) {
    for (const [n, tile] of grid.picture.tiles.entries()) {
      const u = (x - tile.box[0]) / tile.box[2], v = (y - tile.box[1]) / tile.box[3];
      if (grid.layers[n] === layer && u >= 0 && u < 1 && v >= 0 && v < 1)
        return grid.at.get(key(n, Math.floor(v * tile.rows), Math.floor(u * tile.columns))) ?? -1;
    }
    return -1;
  }
  /* The patch so many rows and columns away, over the edges of tiles; -1 where none is. */
  function near(i, rows, columns) {
    const [left, top, width, height] = box(i);
    return find(of(i), layer(i), left + (columns + 0.5) * width, top + (rows + 0.5) * height);
  }
  /* The next stored patch in a direction, or i itself. */
  function neighbour(i, rows, columns) {
    const tiles = of(i).picture.tiles, most = tiles.reduce((n, t) => n + Math.max(t.rows, t.columns), 0);
    for (let n = 1; n <= most; n++) {
      const found = near(i, n * rows, n * columns);
      if (found >= 0)
        return found;
    }
    return i;
  }
  return { grids, of, isPatch, layer, box, near, neighbour,
    first: () => page.positions.findIndex((_, i) => isPatch(i)),
    nLayers: grid => grid.layers.length ? 1 + Math.max(...grid.layers) : 0 };
})();
