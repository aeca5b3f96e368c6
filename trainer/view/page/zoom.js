/* Zoom and pan of a picture: Ctrl and the wheel, two fingers, a drag, buttons. The picture scrolls inside its window,
 * so that a finger, the wheel and the keys pan it as they pan anything; a small map shows which part is seen. */

const Zoom = (() => {
  const STEP = 1.5, MOST = 24;
  const all = [];

  /* Keeps the point of the picture that lies under (x, y) of the window where it is. */
  function set(z, factor, x, y) {
    const { window: node, frame } = z, old = z.factor;
    z.factor = Math.min(Math.max(factor, 1), MOST);
    if (z.factor === old)
      return;
    const px = x ?? node.clientWidth / 2, py = y ?? node.clientHeight / 2;
    const left = (node.scrollLeft + px) / old * z.factor - px, top = (node.scrollTop + py) / old * z.factor - py;
    frame.style.width = 100 * z.factor + "%";
    node.classList.toggle("zoomed", z.factor > 1);
    node.scrollLeft = left;
    node.scrollTop = top;
    map(z);
    z.changed();
  }
  function map(z) {
    const { window: node, map, seen } = z;
    map.hidden = z.factor <= 1;
    if (map.hidden)
      return;
    const part = (at, all) => 100 * at / all + "%";
    seen.style.left = part(node.scrollLeft, node.scrollWidth);
    seen.style.top = part(node.scrollTop, node.scrollHeight);
    seen.style.width = part(node.clientWidth, node.scrollWidth);
    seen.style.height = part(node.clientHeight, node.scrollHeight);
  }

  function wheel(z, event) {
    if (!event.ctrlKey && !event.metaKey)
      return;
    event.preventDefault();
    const box = z.window.getBoundingClientRect();
    set(z, z.factor * Math.exp(-event.deltaY / 300), event.clientX - box.left, event.clientY - box.top);
  }
  function drag(z) {
    let from = null;
    z.window.addEventListener("pointerdown", event => {
      if (event.pointerType === "mouse" && event.button === 0 && z.factor > 1)
        from = { x: event.clientX, y: event.clientY, left: z.window.scrollLeft, top: z.window.scrollTop, moved: false };
    });
    window.addEventListener("pointermove", event => {
      if (!from)
        return;
      const dx = event.clientX - from.x, dy = event.clientY - from.y;
      from.moved = from.moved || Math.hypot(dx, dy) > 4;
      if (from.moved) {
        z.window.scrollLeft = from.left - dx;
        z.window.scrollTop = from.top - dy;
      }
    });
    window.addEventListener("pointerup", () => {
      z.dragged = !!from && from.moved;
      from = null;
    });
    /* the click that ends a drag chooses nothing */
    z.window.addEventListener("click", event => {
      if (z.dragged)
        event.stopPropagation();
      z.dragged = false;
    }, true);
  }
  function pinch(z) {
    const fingers = new Map();
    let apart = 0;
    const distance = () => {
      const [a, b] = [...fingers.values()];
      return Math.hypot(a.x - b.x, a.y - b.y);
    };
    z.window.addEventListener("touchstart", event => event.touches.length > 1 && event.preventDefault(),
      { passive: false });
    z.window.addEventListener("touchmove", event => {
      if (event.touches.length !== 2)
        return;
      event.preventDefault();
      for (const [n, t] of [...event.touches].entries())
        fingers.set(n, { x: t.clientX, y: t.clientY });
      const now = distance(), box = z.window.getBoundingClientRect(), [a, b] = [...fingers.values()];
      if (apart)
        set(z, z.factor * now / apart, (a.x + b.x) / 2 - box.left, (a.y + b.y) / 2 - box.top);
      apart = now;
    }, { passive: false });
    z.window.addEventListener("touchend", () => { apart = 0; fingers.clear(); });
  }

  /* node: the window; frame: what lies in it; picture: its source for the small map. */
  function attach(node, frame, source, changed) {
    const seen = make("div", { className: "seen" });
    const small = make("div", { className: "map", hidden: true }, make("img", { src: source, alt: "" }), seen);
    small.setAttribute("aria-hidden", "true");
    const z = { window: node, frame, factor: 1, map: small, seen, changed };
    all.push(z);
    node.parentNode.append(small);
    node.addEventListener("wheel", event => wheel(z, event), { passive: false });
    node.addEventListener("scroll", () => { map(z); changed(); }, { passive: true });
    small.addEventListener("pointerdown", event => {
      const box = small.getBoundingClientRect();
      node.scrollLeft = (event.clientX - box.left) / box.width * node.scrollWidth - node.clientWidth / 2;
      node.scrollTop = (event.clientY - box.top) / box.height * node.scrollHeight - node.clientHeight / 2;
    });
    drag(z);
    pinch(z);
    return z;
  }
  /* All pictures by a step, about the middle or about the element that is chosen. */
  function step(direction, about) {
    for (const z of all) {
      const node = about && z.frame.contains(about) ? about.getBoundingClientRect() : null;
      const box = z.window.getBoundingClientRect();
      const inside = node && node.left >= box.left && node.right <= box.right && node.top >= box.top &&
        node.bottom <= box.bottom;
      set(z, direction === 0 ? 1 : z.factor * STEP ** direction,
        ...(inside ? [node.left + node.width / 2 - box.left, node.top + node.height / 2 - box.top] : []));
    }
  }
  /* Brings an element of a zoomed picture into its window. */
  function reveal(node) {
    const z = all.find(z => z.frame.contains(node));
    if (!z || z.factor <= 1)
      return;
    const box = z.window.getBoundingClientRect(), at = node.getBoundingClientRect();
    const over = (low, high, from, to) => low < from ? low - from : high > to ? high - to : 0;
    z.window.scrollLeft += over(at.left, at.right, box.left, box.right);
    z.window.scrollTop += over(at.top, at.bottom, box.top, box.bottom);
  }
  return { attach, step, reveal, get factor() { return all.length ? all[0].factor : 1; } };
})();
