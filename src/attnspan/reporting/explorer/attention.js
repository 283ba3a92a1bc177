// One example: what every arm wrote, and where it looked. The slider runs over the reference, so that arms whose outputs
// have other lengths stand at the same word.

const MOST_PANELS = 4;
const SECONDS_A_STEP = 0.8;

let panels = [];
let pointed = null; // what is pointed at: {out: [panel, t]} or {source: j}; null for the step of the slider

// The row that a panel shows, and the column, -1 for none.
function lookedAt(panel) {
  if (pointed && "source" in pointed) return [-1, pointed.source];
  if (pointed && pointed.panel === panel) return [pointed.t, -1];
  const reference = pointed ? pointed.panel.referenceOf[pointed.t] : state.ref;
  return [reference < 0 ? -1 : panel.ofReference[reference] ?? -1, -1];
}

// ---- what is said and tabulated of a step

function sentence() {
  const { reference, source } = panels[0].example;
  if (pointed && "source" in pointed) {
    const j = pointed.source;
    return `Source token ${j + 1} of ${source.length}, ${visible(source[j])}: ${panels.map((panel) => lookers(panel, j)).join("; ")}.`;
  }
  const place = pointed ? pointed.panel.referenceOf[pointed.t] : state.ref;
  const noun = study.withoutReference ? "output" : "reference";
  const wanted = place < 0 ? "a token too much" : `${noun} token ${place + 1} of ${reference.length}, ${visible(reference[place])}`;
  const written = pointed && `Output token ${pointed.t + 1} of ${pointed.panel.arm.label}`;
  const where = !written ? wanted[0].toUpperCase() + wanted.slice(1) : study.withoutReference ? written : `${written}, ${wanted}`;
  return `${where}: ${panels.map(looks).join("; ")}.`;
}

function looks(panel) {
  const [t] = lookedAt(panel);
  const name = panel.arm.label;
  if (!panel.output.tokens) return `${name} is not known in tokens`;
  if (t < 0) return `${name} misses it`;
  const written = `${name} writes ${visible(panel.output.tokens[t])}`;
  if (!panel.q) return written;
  const best = largest(panel, t);
  return `${written} from ${visible(panel.example.source[best])} (${best + 1}, ${number(weightAt(panel, t, best), 2)})`;
}

function largest(panel, t) {
  let best = 0;
  for (let j = 1; j < panel.S; j++) if (panel.q[t * panel.S + j] > panel.q[t * panel.S + best]) best = j;
  return best;
}

// The output tokens that look most at source token j.
function lookers(panel, j) {
  if (!panel.q || !panel.T) return `${panel.arm.label} has no attention`;
  const rows = Array.from({ length: panel.T }, (_, t) => [weightAt(panel, t, j), t]).filter(([weight]) => weight >= 0.1);
  const named = rows.sort((a, b) => b[0] - a[0]).slice(0, 3);
  const words = named.map(([weight, t]) => `${visible(panel.output.tokens[t])} (${t + 1}, ${number(weight, 2)})`);
  return `${panel.arm.label} ${words.length ? "for " + words.join(", ") : "hardly at all"}`;
}

function weightsTable() {
  const seen = panels.filter((panel) => panel.q);
  const { source, reference } = panels[0].example;
  const rows = source.map((token, j) => {
    const cells = seen.map((panel) => {
      const [t] = lookedAt(panel);
      const q = t < 0 ? null : panel.q[t * panel.S + j];
      const shown = q === null ? "\u2013" : q === 0 ? "0" : weightOf(q) < 0.001 ? "< 0.001" : number(weightOf(q));
      return element("td", { text: shown });
    });
    const gold = (panels[0].gold[state.ref] || []).includes(j) ? " (gold)" : "";
    return element("tr", {}, element("th", { scope: "row", text: `${j + 1} ${visible(token)}${gold}` }), ...cells);
  });
  const place = pointed && pointed.panel ? pointed.panel.referenceOf[pointed.t] : state.ref;
  const caption = `Weights for reference token ${place + 1}, ${visible(reference[place] ?? "")}, each to within 0.004; 0 is exactly 0`;
  return table(caption, ["source token", ...seen.map((panel) => panel.arm.label)], rows);
}

function weightRows() {
  const rows = [["example", "arm", "seed", "head", "output_position", "output", "source_position", "source", "weight"]];
  for (const panel of panels.filter((one) => one.q)) {
    for (let t = 0; t < panel.T; t++) {
      for (let j = 0; j < panel.S; j++) {
        const names = [panel.example.id, panel.arm.label, panel.arm.seed, state.head || "mean", t + 1, panel.output.tokens[t], j + 1, panel.example.source[j]];
        rows.push([...names, weightAt(panel, t, j).toPrecision(3)]);
      }
    }
  }
  return rows;
}

// ---- the tokens of one arm as buttons

// tokens: [{text, title, class}]; one listener of a kind for all of them, since an example may have a thousand.
function strip(name, tokens, onpoint, onclick) {
  const buttons = tokens.map((token, n) => element("button", { ...token, tabindex: n ? -1 : 0 }));
  const made = roving(element("div", { class: "tokens", role: "group", "aria-label": name }, ...buttons));
  const at = (event) => buttons.indexOf(event.target.closest("button"));
  const pointed = (event) => (at(event) < 0 ? point(null) : onpoint(at(event)));
  const handlers = { onpointerover: pointed, onfocusin: pointed, onpointerleave: () => point(null), onfocusout: () => point(null) };
  return fill(made, { ...handlers, onclick: (event) => at(event) >= 0 && onclick(at(event)) }, []);
}

function outputStrip(panel) {
  const { steps, output, example } = panel;
  const tokens = steps.map(({ kind, output: t, reference: r }) => {
    const wanted = r < 0 ? "" : visible(example.reference[r]);
    const title = { "=": "as in the reference", s: `instead of ${wanted}`, i: "too much", d: `missing: ${wanted}` }[kind];
    return { text: t < 0 ? wanted : visible(output.tokens[t]), title, class: { "=": null, s: "sub", i: "ins", d: "del" }[kind] };
  });
  const onpoint = (n) => point(steps[n].output < 0 ? null : { panel, t: steps[n].output });
  return strip(`Output of ${panel.arm.label}`, tokens, onpoint, (n) => steps[n].reference >= 0 && change({ ref: steps[n].reference }));
}

function sourceStrip(panel) {
  const tokens = panel.example.source.map((token, j) => ({ text: visible(token), title: `source token ${j + 1}` }));
  return strip(`Source of ${panel.arm.label}`, tokens, (j) => point({ source: j }), () => {});
}

function paintStrips(panel) {
  const [t, j] = lookedAt(panel);
  const hot = (button, q) => (q ? button.style.setProperty("--weight", strength(q).toFixed(3)) : button.style.removeProperty("--weight"));
  const gold = pointed && !pointed.panel ? [] : panel.gold[pointed ? pointed.panel.referenceOf[pointed.t] : state.ref] || [];
  [...panel.source.children].forEach((button, column) => {
    hot(button, panel.q && t >= 0 ? panel.q[t * panel.S + column] : 0);
    button.classList.toggle("gold", gold.includes(column));
    button.classList.toggle("now", column === j);
  });
  panel.steps.forEach(({ output, reference }, n) => {
    const button = panel.written.children[n];
    hot(button, panel.q && j >= 0 && output >= 0 ? panel.q[output * panel.S + j] : 0);
    button.classList.toggle("now", j < 0 && (t >= 0 ? output === t : reference === state.ref && !pointed));
  });
}

// ---- the section

let sayStep = () => {};

function point(what) {
  pointed = what;
  paintPanels();
}

function paintPanels() {
  for (const panel of panels) {
    paintStrips(panel);
    if (panel.map) panel.map.paint(...lookedAt(panel));
    if (panel.regions) panel.regions.paint(...lookedAt(panel));
  }
  sayStep();
}

function panelNode(panel) {
  const { arm, output } = panel;
  const seeds = arm.seeds.length > 1 ? ` (seeds ${arm.seeds.join(", ")}: ${output.edits_by_seed.join(", ")})` : "";
  const edits = study.withoutReference ? "" : `: ${plural(output.edits, "edit")}`;
  const heading = element("h3", {}, chip(arm), ` ${arm.label}, seed ${arm.seed}${edits}`, element("span", { class: "quiet", text: seeds }));
  const node = element("section", { class: "panel", "aria-label": arm.label }, heading);
  panel.written = output.tokens ? outputStrip(panel) : element("p", { text: output.text });
  panel.source = sourceStrip(panel);
  node.append(element("p", { class: "quiet name", text: "output" }), panel.written, element("p", { class: "quiet name", text: "source" }), panel.source);
  if (!output.tokens) panel.steps = [];
  if (panel.example.picture) {
    panel.regions = regions(panel);
    node.append(panel.regions.node);
  }
  if (panel.q && panel.T) {
    const handlers = {
      onpoint: (t, j) => point(t < 0 ? { source: j } : { panel, t }),
      onleave: () => point(null),
      onclick: (t) => panel.referenceOf[t] >= 0 && change({ ref: panel.referenceOf[t] }),
    };
    panel.map = (state.view === "beams" ? beams : heatMap)(panel, handlers);
    node.append(element("div", { class: "map" }, panel.map.node));
  } else {
    const why = !output.tokens ? "Its tokens are not known" : panel.T ? arm.without : "Its output is empty";
    node.append(element("p", { class: "quiet", text: `${why}.` }));
  }
  return node;
}

function attentionSection() {
  const heading = element("h2", { id: "attention", text: "Attention" });
  const words = element("div");
  const slider = element("input", { type: "range", min: 0, step: 1, oninput: () => change({ ref: +slider.value }) });
  const said = element("p", { role: "status" });
  const play = element("button", { text: "Play", onclick: () => toggle() });
  const view = element("span");
  const steps = element("div", { class: "steps" }, element("label", { class: "slider" }, element("span", { text: study.withoutReference ? "Output token" : "Reference token" }), slider), play, view, said);
  const side = element("div", { class: "panels" });
  const more = element("p", { class: "quiet" });
  const numbers = element("details", {}, element("summary", { text: "The weights of this step" }));
  const name = () => `${study.data}-${state.example}`;
  const files = downloads(name, () => attentionPicture(panels.filter((panel) => panel.q && panel.T), state.view), weightRows);
  let timer = null;
  let drawing = 0;

  sayStep = () => {
    said.textContent = sentence();
    slider.setAttribute("aria-valuetext", said.textContent);
    if (numbers.open) numbers.replaceChildren(numbers.firstChild, weightsTable());
  };

  // The example that is asked for, or the first one where there is no such example.
  function drawnId() {
    return (study.examples.find((one) => one.id === state.example) || study.examples[0]).id;
  }

  function toggle() {
    if (timer) {
      clearInterval(timer);
      timer = null;
    } else {
      if (state.ref >= +slider.max) change({ ref: 0 });
      timer = setInterval(() => (state.ref < +slider.max ? change({ ref: state.ref + 1 }) : toggle()), 1000 * SECONDS_A_STEP);
    }
    play.textContent = timer ? "Pause" : "Play";
  }

  function drawView() {
    const most = Math.max(1, ...study.examples.flatMap((one) => one.outputs.map((output) => output.maps || 1)));
    const heads = Array.from({ length: most }, (_, n) => [n, n ? `head ${n}` : "mean over heads"]);
    const head = most > 1 ? [choice("Heads", heads, state.head, (one) => change({ head: +one }))] : [];
    view.replaceChildren(...head, choice("View", [["heat", "heat map"], ["beams", "beams"]], state.view, (one) => change({ view: one })));
  }

  async function draw() {
    const place = study.examples.findIndex((one) => one.id === state.example);
    const unknown = place < 0 && state.example !== "";
    const example = study.examples[Math.max(place, 0)];
    if (!example) return;
    const mine = ++drawing;
    const all = await readWeights(Math.max(place, 0), state.head);
    if (mine !== drawing) return; // another one was opened meanwhile
    const arms = shownArms();
    pointed = null;
    panels = arms.slice(0, MOST_PANELS).map((k) => panelOf(example, k, all[k]));
    heading.textContent = study.withoutReference ? "Attention" : `Attention on ${example.id}`;
    words.replaceChildren(
      ...(unknown ? [element("p", { class: "quiet", text: `There is no example ${state.example} in this file.` })] : []),
      element("p", { class: "words" }, element("span", { class: "quiet", text: study.withoutReference ? "Output " : "Reference " }), joined(example.reference, "reference")),
    );
    slider.max = Math.max(example.reference.length - 1, 0);
    side.replaceChildren(...panels.map(panelNode));
    const hidden = arms.length - panels.length;
    more.textContent = hidden > 0 ? `${plural(hidden, "more arm")}: at most ${MOST_PANELS} are shown side by side. Hide others above.` : "";
    const weighted = panels.some((panel) => panel.q);
    files.hidden = !weighted;
    numbers.hidden = !weighted;
    step();
  }

  function step() {
    if (!panels.length || panels[0].example.id !== drawnId()) return; // another example is on its way
    state.ref = Math.min(state.ref, Math.max(panels[0].example.reference.length - 1, 0));
    slider.value = state.ref;
    paintPanels();
  }

  function browse(by) {
    const list = chosenExamples();
    const at = list.indexOf(study.examples.findIndex((one) => one.id === state.example));
    const next = by === "random" ? list[Math.floor(Math.random() * list.length)] : list[at < 0 ? 0 : (at + by + list.length) % list.length];
    if (next !== undefined) change({ example: study.examples[next].id, ref: 0 });
  }

  numbers.addEventListener("toggle", () => sayStep());
  matchMedia("(prefers-color-scheme: dark)").addEventListener("change", () => {
    palette = null;
    for (const panel of panels) if (panel.map) panel.map.forget();
    paintPanels();
  });
  parts.push({ keys: [], draw: drawView }, { keys: ["example", "arms", "view", "head"], draw }, { keys: ["ref"], draw: step });
  const button = (label, by) => element("button", { text: label, onclick: () => browse(by) });
  const others = element("p", { hidden: !study.axes.length }, button("Previous", -1), " ", button("Next", 1), " ", button("Random", "random"), " example of those above");
  const key = "Point at a token of an output or source, or go to it with Tab and the arrow keys, to see where it looks, or what looks at it. Outputs are decoded free-running. Rows are output tokens, columns source tokens; the colour is the root of the weight, from 0 to 1, and a cell without colour is exactly 0.";
  const gold = study.examples.some((one) => one.gold) ? " Gold frames and dashed lines are the gold alignment." : "";
  return element("section", { "aria-labelledby": "attention" }, heading, others, words, steps, element("p", { class: "quiet", text: key + gold }), side, more, files, numbers);
}
