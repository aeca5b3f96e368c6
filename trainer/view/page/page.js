/* What is shown, and what changes it: controls, pointer, keys. */

const Page = (() => {
  const at = id => document.getElementById(id);
  const last = Data.nStates - 1;
  const view = {
    lens: Data.lenses[Data.lenses.length - 1], /* or "logit", "difference" */
    colour: "top1",
    log: false,       /* colours by the logarithm, down to a ten-thousandth of the largest value */
    token: -1,        /* index into page.vocab */
    state: Math.round(last * 0.75),
    locked: -1,
    hovered: -1,
    hoveredState: undefined,
  };
  let scale, timer = 0, chartRequest = 0, nextTheme;

  /* The position that card and chart are about. */
  function focus() {
    if (view.locked >= 0)
      return view.locked;
    if (view.hovered >= 0)
      return view.hovered;
    const prompt = page.positions.findIndex(p => p.class === "last");
    return prompt >= 0 ? prompt : Data.nPositions - 1;
  }

  /* ---- drawing ---- */

  function drawFocus() {
    const i = focus(), free = view.locked < 0;
    Trajectory.card(i, free && view.hovered >= 0 && view.hoveredState !== undefined ? view.hoveredState : view.state,
      !free);
    at("unlock").hidden = free;
    if (!chartRequest)
      chartRequest = requestAnimationFrame(() => {
        chartRequest = 0;
        Trajectory.draw(view, focus());
        Attention.draw(focus());
        Picture.loupe(view, loupeAt());
      });
  }
  /* The magnifier follows the pointer, and without one the chosen patch while the picture has the keys. */
  const loupeAt = () => view.hovered >= 0 ? view.hovered
    : document.activeElement.classList.contains("grid") ? view.locked : -1;
  function drawState() {
    at("layer").value = view.state;
    at("layer-value").textContent = view.state + " of " + last + (view.state === last ? " (the model)" : "");
    at("layer").setAttribute("aria-valuetext", "state " + at("layer-value").textContent);
    Picture.draw(view, scale);
    Table.markState(view.state);
    Ask.draw(view);
    drawFocus();
    Link.write(view);
  }
  function drawAll() {
    const names = { top1: "top-1 probability", entropy: "entropy", kl: "KL",
      token: view.token >= 0 ? "p(" + tokenText(view.token) + ")" : "probability" };
    scale = Colour.range(view);
    Colour.legend(at("legend"), scale, names[view.colour],
      x => Number(x.toPrecision(3)).toString());
    for (const radio of document.querySelectorAll("#lenses input"))
      radio.checked = radio.value === view.lens;
    at("colour").value = view.colour;
    at("log").checked = view.log;
    at("log").disabled = scale.diverging;
    Table.draw(view, scale);
    drawState();
  }

  /* ---- what a person does ---- */

  function setState(s) {
    view.state = Math.min(Math.max(s, 0), last);
    drawState();
    Table.revealState(view.state);
  }
  function hover(i, from, state) {
    if (i === view.hovered && state === view.hoveredState)
      return;
    view.hovered = i;
    view.hoveredState = state;
    Picture.mark(i, "hovered");
    Table.mark(i, "hovered");
    if (from === "picture" && i >= 0)
      Table.reveal(i);
    if (view.locked < 0)
      drawFocus();
    else
      Picture.loupe(view, loupeAt());
  }
  function setLock(i) {
    view.locked = i;
    Picture.mark(i, "locked");
    if (i >= 0)
      Table.reveal(i, true);
    Table.mark(i, "locked");
    drawFocus();
    Link.write(view);
  }
  /* A second click on the same cell or patch unlocks. */
  function lock(i, state) {
    const same = i === view.locked && (state === undefined || state === view.state);
    if (state !== undefined && state !== view.state)
      setState(state);
    setLock(same ? -1 : i);
  }
  function setLens(lens) {
    if (lens !== "logit" && !page.has_lens)
      return;
    view.lens = lens;
    drawAll();
  }
  function setColour(colour) {
    view.colour = colour;
    at("message").textContent = "";
    if (colour === "token" && view.token < 0)
      findToken(at("token").value || page.vocab[Data.first("logit", focus(), last)]);
    drawAll();
  }
  const peaks = Data.peaks();
  /* By its exact text first, then without regard to case and the space in front; of several the likeliest. */
  function findToken(text, exactly) {
    const bare = t => t.replace(/^[ ·]/, "").toLowerCase();
    const best = test => page.vocab.reduce((found, t, n) =>
      test(t) && (found < 0 || peaks[n] > peaks[found]) ? n : found, -1);
    let token = exactly ?? best(t => t === text || shown(t) === text);
    if (token < 0)
      token = best(t => bare(t) === bare(text));
    const missing = token < 0;
    if (!missing) {
      view.token = token;
      view.colour = "token";
      at("token").value = tokenText(token);
    }
    if (missing && parent !== window) { /* the server that the page came from can follow any word */
      parent.postMessage({ track: text.trim() }, location.origin);
      at("message").textContent = `“${text}” is stored nowhere on this page: the model is asked for it.`;
      return false;
    }
    at("message").textContent = missing
      ? `“${text}” is in no top-${page.k} of this page, so its probability is not stored: vlens view --track ` +
        `${text.trim().includes(" ") ? "WORD" : text.trim()} keeps it at every cell.`
      : `Coloured by the probability of ${tokenText(token)} (id ${page.ids[token]})` +
        (page.tracked.includes(token) ? ", tracked at every cell."
          : `; framed where it is first, dotted where it is among the top-${page.k}.`);
    return !missing;
  }
  function choose(token) {
    view.token = token;
    if (token >= 0)
      findToken(page.vocab[token], token);
    else if (view.colour === "token")
      view.colour = "top1";
    if (token < 0)
      at("message").textContent = at("token").value = "";
    drawAll();
  }
  function go(i, s) {
    setState(s);
    setLock(i);
  }
  function play(on) {
    clearInterval(timer);
    timer = on ? setInterval(() => setState(view.state === last ? 0 : view.state + 1), 600) : 0;
    at("play").textContent = on ? "Pause" : "Play";
    at("play").setAttribute("aria-pressed", String(on));
  }
  const step = (list, now) => list[(list.indexOf(now) + 1) % list.length];

  /* Rows that a filter hides are passed over. */
  function movePosition(by) {
    let i = focus() + by;
    while (i >= 0 && i < Data.nPositions && !Table.isShown(i))
      i += by;
    if (i >= 0 && i < Data.nPositions)
      setLock(i);
  }

  function onKey(event) {
    const target = event.target, typing = target.matches("input:not([type=radio]):not([type=checkbox]), select");
    if (event.ctrlKey || event.metaKey || event.altKey)
      return;
    if (event.key === "Escape") {
      if (typing)
        target.blur();
      else
        setLock(-1);
      return;
    }
    if (typing || (target.matches("button, summary") && (event.key === " " || event.key === "Enter")) ||
        (target.matches("[type=radio]") && event.key.startsWith("Arrow")) ||
        (target.matches("[type=radio], [type=checkbox]") && event.key === " "))
      return;
    const inPicture = target.classList.contains("grid");
    const patch = (rows, columns) => setLock(Picture.neighbour(focus(), rows, columns));
    const lenses = page.has_lens ? ["logit", "tuned", "difference"] : ["logit"];
    const keys = {
      ArrowLeft: () => inPicture ? patch(0, -1) : setState(view.state - 1),
      ArrowRight: () => inPicture ? patch(0, 1) : setState(view.state + 1),
      ArrowUp: () => inPicture ? patch(-1, 0) : movePosition(-1),
      ArrowDown: () => inPicture ? patch(1, 0) : movePosition(1),
      Enter: () => setLock(focus()),
      " ": () => play(!timer),
      l: () => setLens(step(lenses, view.lens)),
      c: () => setColour(step(["top1", "entropy", "kl", "token"], view.colour)),
      d: () => nextTheme(),
      a: () => Attention.next(),
      f: () => Picture.widen(),
      m: () => at("magnifier").click(),
      "+": () => Zoom.step(1, Picture.element(view.locked)),
      "=": () => Zoom.step(1, Picture.element(view.locked)),
      "-": () => Zoom.step(-1, Picture.element(view.locked)),
      0: () => Zoom.step(0),
      "[": () => leaveTo("previous"),
      "]": () => leaveTo("next"),
      "/": () => at("token").focus(),
    };
    if (!Object.hasOwn(keys, event.key))
      return;
    event.preventDefault();
    keys[event.key]();
  }

  /* ---- start ---- */

  function describe() {
    const isSpecial = p => /^<.*>$/.test(p.token);
    const answer = part => { /* cut where it does not end with a token that ends it */
      const said = page.positions.filter(p => p.part === part && p.class === "generated");
      const text = said.filter(p => !isSpecial(p)).map(p => p.token).join("").trim();
      return text && !isSpecial(said[said.length - 1]) ? text + " …" : text;
    };
    const answers = Array.from({ length: nParts }, (_, part) =>
      ["the model says" + (nParts > 1 ? " of " + partName(part) : ""), answer(part)]);
    const parts = [["model", page.model], ["lens", page.lens || "logit lens only"], ...answers,
      ["expected", page.answer]];
    at("prompt").textContent = page.prompt || "Every layer of one prompt";
    document.title = (page.prompt ? page.prompt + " – " : "") + "vlens";
    for (const [name, text] of parts)
      if (text)
        at("about").append(make("span", {}, make("b", {}, name + " "), make("bdi", {}, text)));
    at("warning").textContent = page.warning;
    at("warning").hidden = !page.warning;
    at("rounding").textContent = `${Data.nPositions} positions, ${Data.nStates} states (0: the embeddings, ` +
      `${last}: the model's own distribution), top-${page.k}. ` +
      "Numbers are those of vlens topk --json, rounded to four significant " +
      `digits; probabilities under 1e-7 and nats under 1e-4 are not told from 0. vlens ${page.vlens}.`;
  }
  /* The way through a study. */
  function linkStudy() {
    if (!page.study)
      return;
    const links = [["index", "↑ the study"], ["previous", "← previous question ([)"], ["next", "next question (]) →"]];
    at("study").append(...links.filter(([name]) => page.study[name]).map(([name, text]) =>
      make("a", { href: page.study[name], id: "to-" + name }, text)));
    at("study").hidden = false;
  }
  const leaveTo = name => at("to-" + name) && at("to-" + name).click();
  function listTokens() {
    const order = [...page.vocab.keys()].sort((a, b) => peaks[b] - peaks[a]).slice(0, 1000);
    at("tokens").append(...order.map(n => make("option", { value: tokenText(n) })));
  }
  function listen() {
    at("layer").addEventListener("input", event => setState(Number(event.target.value)));
    at("play").addEventListener("click", () => play(!timer));
    at("colour").addEventListener("change", event => setColour(event.target.value));
    at("token").addEventListener("change", event => event.target.value && findToken(event.target.value) && drawAll());
    at("log").addEventListener("change", event => {
      view.log = event.target.checked;
      drawAll();
    });
    at("lenses").addEventListener("change", event => setLens(event.target.value));
    nextTheme = Theme.listen(at("theme"), drawAll);
    at("unlock").addEventListener("click", () => setLock(-1));
    at("numbers").addEventListener("toggle", () => Trajectory.draw(view, focus()));
    document.addEventListener("keydown", onKey);
  }

  /* Shows what an address says. */
  function follow(link) {
    Object.assign(view, Object.fromEntries(["state", "lens", "colour"].filter(k => link[k] !== undefined)
      .map(k => [k, link[k]])));
    if (link.token !== undefined)
      findToken(link.token);
    if (link.colour !== undefined)
      view.colour = link.colour;
    drawAll();
    if (link.i >= 0)
      setLock(link.i);
    if (link.state !== undefined)
      Table.revealState(view.state);
  }

  at("layer").max = last;
  at("lenses").hidden = !page.has_lens;
  describe();
  linkStudy();
  listTokens();
  Picture.build({ hover, lock });
  Attention.build(drawFocus);
  Table.build({ hover, lock });
  Ask.build({ choose, go });
  listen();
  follow(Link.read(location.hash));
  addEventListener("hashchange", () => follow(Link.read(location.hash)));
  return { view };
})();
