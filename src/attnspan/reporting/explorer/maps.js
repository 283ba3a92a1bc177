// The weights of one arm on one example: as a heat map on a canvas, as beams, and as a picture to download.

/*
  A panel is {k, arm, example, output, q, steps, T, S, ofReference, referenceOf, gold}: q the weights [T, S] or null,
  ofReference the place in the output of each reference token or -1, referenceOf the reverse, gold the source places of
  each reference token.
*/
function panelOf(example, k, q) {
  const output = example.outputs[k];
  const steps = output.tokens ? stepsOf(output) : [];
  const ofReference = Array(example.reference.length).fill(-1);
  const referenceOf = Array((output.tokens || []).length).fill(-1);
  for (const step of steps) {
    if (step.output < 0 || step.reference < 0) continue;
    ofReference[step.reference] = step.output;
    referenceOf[step.output] = step.reference;
  }
  const gold = example.reference.map(() => []);
  for (const [source, reference] of example.gold || []) gold[reference].push(source);
  return { k, arm: study.arms[k], example, output, q, steps, T: referenceOf.length, S: example.source.length, ofReference, referenceOf, gold };
}

function weightAt(panel, t, j) {
  return weightOf(panel.q[t * panel.S + j]);
}

// How strongly a weight is coloured: 0 is not, and all that is more can be told from 0.
function strength(q) {
  return q === 0 ? 0 : Math.max(q / 255, 0.05);
}

function cssColour(name) {
  return getComputedStyle(document.documentElement).getPropertyValue(name).trim();
}

// ---- heat map

function heatMap(panel, { onpoint, onleave, onclick }) {
  const { T, S, example, output } = panel;
  const label = `Heat map of the attention of ${panel.arm.label}: ${T} output tokens, the rows, by ${S} source tokens, the columns`;
  const named = Math.max(T, S) <= 40;
  const canvas = element("canvas", { role: "img", "aria-label": label, class: named ? "" : "coarse" });
  const cell = named ? 20 : Math.max(3, Math.min(10, Math.floor(600 / Math.max(S, T))));
  const context = canvas.getContext("2d");
  context.font = "12px sans-serif";
  const longest = (tokens) => Math.min(90, Math.max(...tokens.map((token) => context.measureText(visible(token)).width)));
  const left = named ? longest(output.tokens) + 8 : 0;
  const upright = named && example.source.every((token) => [...token].length < 3);
  const top = named ? (upright ? 18 : longest(example.source) + 8) : 0;
  canvas.width = left + S * cell;
  canvas.height = top + T * cell;
  let base = null;

  function paintBase() {
    base = element("canvas", { width: canvas.width, height: canvas.height });
    const to = base.getContext("2d");
    to.fillStyle = cssColour("--map");
    for (let t = 0; t < T; t++) {
      for (let j = 0; j < S; j++) {
        const q = panel.q[t * S + j];
        if (!q) continue;
        to.globalAlpha = strength(q);
        to.fillRect(left + j * cell, top + t * cell, cell, cell);
      }
    }
    to.globalAlpha = 1;
    if (named) names(to);
    to.strokeStyle = cssColour("--gold");
    to.lineWidth = 2;
    panel.gold.forEach((sources, r) => {
      if (panel.ofReference[r] < 0) return;
      for (const j of sources) to.strokeRect(left + j * cell + 1, top + panel.ofReference[r] * cell + 1, cell - 2, cell - 2);
    });
  }

  function names(to) {
    to.fillStyle = cssColour("--ink");
    to.font = "12px sans-serif";
    to.textBaseline = "middle";
    to.textAlign = "right";
    output.tokens.forEach((token, t) => to.fillText(visible(token), left - 5, top + (t + 0.5) * cell, left - 5));
    example.source.forEach((token, j) => {
      to.save();
      to.translate(left + (j + 0.5) * cell, top - 5);
      if (upright) to.textAlign = "center";
      else to.rotate(-Math.PI / 2);
      if (!upright) to.textAlign = "left";
      to.fillText(visible(token), 0, upright ? -4 : 0, upright ? cell : top - 5);
      to.restore();
    });
  }

  // t, j: the row and the column that are looked at, -1 for none
  function paint(t, j) {
    if (!base) paintBase();
    context.clearRect(0, 0, canvas.width, canvas.height);
    context.drawImage(base, 0, 0);
    context.strokeStyle = cssColour("--focus");
    context.lineWidth = 1.5;
    if (t >= 0) context.strokeRect(left + 0.75, top + t * cell, S * cell - 1.5, cell);
    if (j >= 0) context.strokeRect(left + j * cell, top + 0.75, cell, T * cell - 1.5);
  }

  function cellAt(event) {
    const box = canvas.getBoundingClientRect();
    const t = Math.floor((((event.clientY - box.y) / box.height) * canvas.height - top) / cell);
    const j = Math.floor((((event.clientX - box.x) / box.width) * canvas.width - left) / cell);
    return t >= 0 && t < T && j >= 0 && j < S ? [t, j] : null;
  }

  canvas.addEventListener("pointermove", (event) => cellAt(event) && onpoint(...cellAt(event)));
  canvas.addEventListener("pointerleave", onleave);
  canvas.addEventListener("click", (event) => cellAt(event) && onclick(...cellAt(event)));
  return { node: canvas, paint, forget: () => (base = null) };
}

// ---- the picture of a source that is an image: its regions take the colour of the weights of a step

function regions(panel) {
  const { src, width, height, region, grid } = panel.example.picture;
  const label = `Source of ${panel.arm.label}, ${grid[0]} by ${grid[1]} regions coloured by weight`;
  const picture = drawn("svg", { viewBox: `0 0 ${width} ${height}`, role: "img", "aria-label": label, class: "regions" });
  picture.append(drawn("image", { href: src, width, height }));
  const squares = panel.example.source.map((_, j) => {
    const [row, column] = [Math.floor(j / grid[1]), j % grid[1]];
    const place = { x: column * region[1], y: row * region[0], width: region[1], height: region[0] };
    return drawn("rect", { ...place, fill: "#ff6a00", "fill-opacity": 0, onpointerenter: () => point({ source: j }) });
  });
  picture.append(...squares);
  picture.addEventListener("pointerleave", () => point(null));

  function paint(t, j) {
    squares.forEach((square, place) => {
      const q = panel.q && t >= 0 ? panel.q[t * panel.S + place] : 0;
      square.setAttribute("fill-opacity", (0.75 * strength(q)).toFixed(3));
      square.setAttribute("stroke", place === j ? "#0b5cad" : "none");
    });
  }
  return { node: picture, paint };
}

// ---- beams: the source on the left, the output on the right, a line for a weight

const BEAM_ROW = 20;

function beams(panel, { onpoint, onleave, onclick }) {
  const { T, S } = panel;
  const height = BEAM_ROW * Math.max(T, S) + 8;
  const label = `Beams from the source tokens, left, to the output tokens of ${panel.arm.label}, right`;
  const picture = drawn("svg", { viewBox: `0 0 380 ${height}`, role: "img", "aria-label": label, "font-size": 13, class: "beams" });
  const now = drawn("g");
  picture.append(allBeams(panel), now);
  const sources = panel.example.source.map((token, j) => beamName(token, 110, j, "end", { onpointerenter: () => onpoint(-1, j) }));
  const outputs = panel.output.tokens.map((token, t) =>
    beamName(token, 270, t, "start", { onpointerenter: () => onpoint(t, -1), onclick: () => onclick(t, -1) }),
  );
  picture.append(...sources, ...outputs);
  picture.addEventListener("pointerleave", onleave);

  function paint(t, j) {
    now.replaceChildren();
    if (t >= 0) for (let s = 0; s < S; s++) addBeam(now, panel, t, s, "currentColor");
    else if (j >= 0) for (let row = 0; row < T; row++) addBeam(now, panel, row, j, "currentColor");
    outputs.forEach((one, row) => one.setAttribute("font-weight", row === t ? 700 : 400));
    sources.forEach((one, column) => one.setAttribute("font-weight", column === j ? 700 : 400));
  }
  return { node: picture, paint, forget: () => {} };
}

function beamName(token, x, row, anchor, handlers) {
  const words = visible(token);
  const cut = [...words].length > 14 ? [...words].slice(0, 13).join("") + "\u2026" : words;
  return drawn("text", { x, y: BEAM_ROW * (row + 0.5) + 8, "text-anchor": anchor, fill: "currentColor", text: cut, ...handlers });
}

function addBeam(group, panel, t, j, colour) {
  const q = panel.q[t * panel.S + j];
  if (!q) return;
  const ends = { x1: 116, y1: BEAM_ROW * (j + 0.5) + 4, x2: 264, y2: BEAM_ROW * (t + 0.5) + 4 };
  group.append(drawn("line", { ...ends, stroke: colour, "stroke-width": 1 + 5 * weightOf(q), opacity: strength(q) }));
}

// Weights of at least 0.05 behind, and the gold links dashed.
function allBeams(panel) {
  const group = drawn("g", { opacity: 0.45 });
  for (let t = 0; t < panel.T; t++) {
    for (let j = 0; j < panel.S; j++) if (weightAt(panel, t, j) >= 0.05) addBeam(group, panel, t, j, "#D55E00");
  }
  const gold = drawn("g", { stroke: "#B8860B", "stroke-width": 1.5, "stroke-dasharray": "4 3" });
  panel.gold.forEach((sources, r) => {
    const t = panel.ofReference[r];
    if (t < 0) return;
    for (const j of sources) gold.append(drawn("line", { x1: 116, y1: BEAM_ROW * (j + 0.5) + 4, x2: 264, y2: BEAM_ROW * (t + 0.5) + 4 }));
  });
  return drawn("g", {}, group, gold);
}

// ---- the picture of all arms, side by side, for a file

function attentionPicture(panels, view) {
  const made = panels.map((panel) => (view === "beams" ? beamsPicture(panel) : heatPicture(panel)));
  const gap = 24;
  const width = made.reduce((sum, one) => sum + one.width + gap, 0);
  const height = 24 + Math.max(...made.map((one) => one.height));
  const picture = drawn("svg", { viewBox: `0 0 ${width} ${height}`, "font-size": 11 });
  let at = 0;
  made.forEach((one, n) => {
    const title = drawn("text", { x: 0, y: 14, fill: "currentColor", "font-size": 13, text: `${panels[n].arm.label}, seed ${panels[n].arm.seed}` });
    one.node.setAttribute("transform", "translate(0 24)");
    picture.append(drawn("g", { transform: `translate(${at} 0)` }, title, one.node));
    at += one.width + gap;
  });
  return picture;
}

function beamsPicture(panel) {
  const { node } = beams(panel, {});
  return { node: drawn("g", { "font-size": 13 }, ...node.childNodes), width: 380, height: BEAM_ROW * Math.max(panel.T, panel.S) + 8 };
}

function heatPicture(panel) {
  const { T, S, example, output, q } = panel;
  const cell = 14;
  const left = 8 + 7 * Math.max(...output.tokens.map((token) => visible(token).length));
  const top = 8 + 7 * Math.max(...example.source.map((token) => visible(token).length));
  const group = drawn("g");
  output.tokens.forEach((token, t) => group.append(text(visible(token), left - 4, top + t * cell + 11, "end")));
  example.source.forEach((token, j) => {
    const name = text(visible(token), 0, 0, "start");
    name.setAttribute("transform", `translate(${left + j * cell + 11} ${top - 4}) rotate(-90)`);
    group.append(name);
  });
  for (let t = 0; t < T; t++) {
    for (let j = 0; j < S; j++) {
      if (!q[t * S + j]) continue;
      const square = { x: left + j * cell, y: top + t * cell, width: cell, height: cell };
      group.append(drawn("rect", { ...square, fill: "#B43C00", "fill-opacity": strength(q[t * S + j]).toFixed(3) }));
    }
  }
  group.append(drawn("rect", { x: left, y: top, width: S * cell, height: T * cell, fill: "none", stroke: "currentColor", "stroke-width": 0.5 }));
  return { node: group, width: left + S * cell + 4, height: top + T * cell + 4 };
}
