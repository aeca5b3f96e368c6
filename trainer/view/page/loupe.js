/* The magnifier: the patch under the pointer and two around it on every side, with their words, at any zoom. */

const Loupe = (() => {
  const SIDE = 5, CELL = 68;
  const root = document.getElementById("loupe");
  const canvas = make("canvas", { width: SIDE * CELL, height: SIDE * CELL });
  const cells = Array.from({ length: SIDE * SIDE }, () => make("div", { className: "cell" }, make("bdi", {})));
  root.append(canvas, ...cells);
  let on = false;

  function paint(i, image) {
    const [left, top, width, height] = Grid.box(i), context = canvas.getContext("2d");
    context.clearRect(0, 0, canvas.width, canvas.height);
    if (!image || !image.complete || !image.naturalWidth)
      return;
    const w = image.naturalWidth, h = image.naturalHeight, around = (SIDE - 1) / 2;
    context.drawImage(image, (left - around * width) * w, (top - around * height) * h, SIDE * width * w,
      SIDE * height * h, 0, 0, canvas.width, canvas.height);
  }
  /* Beside the element, inside the window of the browser. */
  function place(node) {
    const at = node.getBoundingClientRect(), size = SIDE * CELL + 4, gap = 14;
    const right = at.right + gap + size <= document.documentElement.clientWidth;
    const left = right ? at.right + gap : Math.max(at.left - gap - size, 4);
    root.style.left = Math.min(left, Math.max(document.documentElement.clientWidth - size - 4, 4)) + "px";
    root.style.top = Math.min(Math.max(at.top + at.height / 2 - size / 2, 4), innerHeight - size - 4) + "px";
  }
  /* i: the patch in the middle, node: its element; image: the picture. */
  function show(view, i, node, image) {
    if (!on || i < 0 || !Grid.isPatch(i) || !node)
      return hide();
    paint(i, image);
    for (let n = 0; n < SIDE * SIDE; n++) {
      const j = Grid.near(i, Math.floor(n / SIDE) - 2, n % SIDE - 2), cell = cells[n];
      cell.dataset.i = j;
      Words.put(cell.firstChild, j < 0 ? "" : Words.of(view, j, view.state), CELL, CELL);
    }
    root.hidden = false;
    place(node);
  }
  function hide() {
    root.hidden = true;
  }
  return { show, hide, get on() { return on; }, set on(value) { on = value; if (!value) hide(); } };
})();
