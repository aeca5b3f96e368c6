/* Asks the server: pictures up, a question, its progress, and the page of the reading in a frame. */

const Ask = (() => {
  const at = id => document.getElementById(id);
  const pictures = []; /* {id, name, url} */
  const asked = new Map(); /* reading -> what was asked */
  let job = 0, events = null, shown = 0;

  const say = text => { at("status").textContent = text; };
  async function post(path, body) {
    const answer = await fetch(path, { method: "POST", body });
    const json = await answer.json().catch(() => ({}));
    if (!answer.ok)
      throw new Error(json.error || "the server answered " + answer.status);
    return json;
  }

  /* ---- pictures ---- */

  function drawPictures() {
    at("uploads").replaceChildren(...pictures.map((p, n) => {
      const remove = make("button", { type: "button", title: "Leave " + p.name + " out" }, "remove");
      remove.addEventListener("click", () => {
        URL.revokeObjectURL(p.url);
        pictures.splice(n, 1);
        drawPictures();
      });
      return make("div", {}, make("img", { src: p.url, alt: p.name }), remove);
    }));
  }
  async function upload(files) {
    for (const file of files)
      try {
        if (file.size > page.max_upload)
          throw new Error(`it is larger than ${page.max_upload / 1048576} MiB`);
        const { picture } = await post("picture", file);
        pictures.push({ id: picture, name: file.name || "picture", url: URL.createObjectURL(file) });
        say("");
      } catch (error) {
        say(`${file.name || "the picture"}: ${error.message}`);
      }
    drawPictures();
  }

  /* ---- a question ---- */

  const words = () => at("track").value.split(",").map(w => w.trim()).filter(Boolean);
  function question() {
    return { prompt: at("prompt").value, pictures: pictures.map(p => p.id), lens: Number(at("lens").value),
      k: Number(at("k").value), generate: Number(at("generate").value), track: words(), raw: at("raw").checked };
  }
  function busy(on) {
    at("cancel").disabled = !on;
    at("ask").disabled = on;
    if (!on)
      job = 0;
  }
  function follow(what) {
    events = new EventSource("events?job=" + job);
    events.onmessage = message => {
      const state = JSON.parse(message.data), total = state.total || 1;
      at("progress").value = state.state === "done" ? 1 : state.total ? state.done / total : 0;
      say(state.state === "running" ? `${state.stage}${state.total ? ` ${state.done} of ${state.total}` : ""}`
        : state.state === "waiting" ? "waiting for the question before" : state.message || state.state);
      if (["done", "failed", "cancelled"].includes(state.state)) {
        events.close();
        busy(false);
        if (state.state === "done") {
          asked.set(state.reading, what);
          show(state.reading);
          list();
        }
      }
    };
    events.onerror = () => {
      events.close();
      busy(false);
      say("the server does not answer");
    };
  }
  async function ask() {
    const what = question();
    try {
      busy(true);
      job = (await post("ask", JSON.stringify(what))).job;
      follow({ ...what, names: pictures.map(p => p.name) });
    } catch (error) {
      busy(false);
      say(error.message);
    }
  }

  /* ---- readings ---- */

  function show(reading) {
    shown = reading;
    at("reading").src = "reading/" + reading;
    at("reading").hidden = at("actions").hidden = false;
    for (const node of at("readings").children)
      node.setAttribute("aria-pressed", String(node.dataset.reading === String(reading)));
  }
  async function list() {
    const all = await (await fetch("readings")).json();
    at("readings").replaceChildren(...all.map(({ reading, title }) => {
      const node = make("button", { type: "button", title }, `${reading}: ${title}`);
      node.dataset.reading = reading;
      node.setAttribute("aria-pressed", String(reading === shown));
      node.addEventListener("click", () => show(reading));
      return node;
    }));
  }
  async function save(address, name) {
    const blob = await (await fetch(address)).blob(), url = URL.createObjectURL(blob);
    make("a", { href: url, download: name }).click();
    setTimeout(() => URL.revokeObjectURL(url), 10000);
  }
  /* As typed into a shell. */
  const quoted = text => "'" + text.replace(/'/g, "'\\''") + "'";
  function command() {
    const q = asked.get(shown) || question();
    const parts = ["vlens view --model", quoted(page.model), ...(q.names || []).map(n => "--image " + quoted(n)),
      "--prompt", quoted(q.prompt), ...(q.lens >= 0 ? ["--lens " + quoted(page.lenses[q.lens])] : []), "-k " + q.k,
      "--generate " + q.generate, ...q.track.map(w => "--track " + quoted(w)), ...(q.raw ? ["--raw-prompt"] : [])];
    navigator.clipboard.writeText(parts.join(" ")).then(() => say("copied: " + parts.join(" ")),
      () => say(parts.join(" ")));
  }

  /* ---- start ---- */

  function listen() {
    at("file").addEventListener("change", event => {
      upload([...event.target.files]);
      event.target.value = "";
    });
    for (const kind of ["dragover", "dragleave", "drop"])
      at("drop").addEventListener(kind, event => {
        event.preventDefault();
        at("drop").classList.toggle("over", kind === "dragover");
        if (kind === "drop")
          upload([...event.dataTransfer.files]);
      });
    addEventListener("paste", event => {
      const files = [...event.clipboardData.files];
      if (files.length)
        upload(files);
    });
    at("form").addEventListener("submit", event => {
      event.preventDefault();
      ask();
    });
    at("prompt").addEventListener("keydown", event => event.key === "Enter" && (event.ctrlKey || event.metaKey) &&
      at("form").requestSubmit());
    at("cancel").addEventListener("click", () => post("cancel?job=" + job).catch(error => say(error.message)));
    at("download").addEventListener("click", () => save("reading/" + shown, `reading-${shown}.html`));
    at("json").addEventListener("click", () => save(`reading/${shown}.json`, `reading-${shown}.json`));
    at("command").addEventListener("click", command);
    /* the page in the frame asks for a word that it does not hold */
    addEventListener("message", event => {
      const word = event.data && event.data.track;
      if (event.origin !== location.origin || typeof word !== "string" || job)
        return;
      at("track").value = [...new Set([...words(), word])].join(", ");
      ask();
    });
  }
  at("lens").append(make("option", { value: -1 }, "logit lens alone"),
    ...page.lenses.map((name, n) => make("option", { value: n }, name)));
  at("lens").value = page.lenses.length ? 0 : -1;
  at("about").append(make("span", {}, make("b", {}, "model "), make("bdi", {}, page.model)),
    make("span", {}, make("b", {}, "states "), String(page.n_states)));
  at("drop").hidden = !page.sees_images;
  Theme.listen(at("theme"), () => {});
  listen();
  list();
  return { ask, upload };
})();
