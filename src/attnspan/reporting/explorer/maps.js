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

// The colours of the page, which are read once: to read them while an example is being built costs a layout.
let palette = null;

function colours() {
  if (palette) return palette;
  const style = getComputedStyle(document.documentElement);
  palette = Object.fromEntries(["map", "ink", "gold"].map((name) => [name, style.getPropertyValue(`--${name}`).trim()]));
  return palette;
}

// ---- heat map

/*
  The canvas is painted once: its cells pixel by pixel, which takes 2 ms where ten thousand rectangles take 40. What is
  looked at is framed by elements above it, so that pointing paints nothing again.
*/
function heatMap(panel, { onpoint, onleave, onclick }) {
  const { T, S, example, output } = panel;
  const label = `Heat map of the attention of ${panel.arm.label}: ${T} output tokens, the rows, by ${S} source tokens, the columns`;
  const named = Math.max(T, S) <= 40;
  const canvas = element("canvas", { role: "img", "aria-label": label });
  const cell = named ? 20 : 4; // of many cells the page makes larger ones: pixels take time
  const context = canvas.getContext("2d");
  context.font = "12px sans-serif";
  const longest = (tokens) => Math.min(90, Math.max(...tokens.map((token) => context.measureText(visible(token)).width)));
  const left = named ? Math.ceil(longest(output.tokens)) + 8 : 0;
  const upright = named && example.source.every((token) => [...token].length < 3);
  const top = named ? (upright ? 18 : Math.ceil(longest(example.source)) + 8) : 0;
  const [width, height] = [left + S * cell, top + T * cell];
  const [row, column] = [element("div", { hidden: true }), element("div", { hidden: true })];
  const node = element("div", { class: named ? "heat" : "heat coarse" }, canvas, row, column);
  let painted = false;

  function paintCells() {
    const image = new ImageData(S * cell, T * cell);
    const pixels = new Uint32Array(image.data.buffer);
    const colour = pixelOf(colours().map);
    for (let t = 0; t < T; t++) {
      const first = t * cell * S * cell;
      for (let j = 0; j < S; j++) pixels.fill(colour(strength(panel.q[t * S + j])), first + j * cell, first + (j + 1) * cell);
      for (let line = 1; line < cell; line++) pixels.copyWithin(first + line * S * cell, first, first + S * cell);
    }
    context.putImageData(image, left, top);
  }

  function names() {
    context.fillStyle = colours().ink;
    context.font = "12px sans-serif";
    context.textBaseline = "middle";
    context.textAlign = "right";
    output.tokens.forEach((token, t) => context.fillText(visible(token), left - 5, top + (t + 0.5) * cell, left - 5));
    example.source.forEach((token, j) => {
      context.save();
      context.translate(left + (j + 0.5) * cell, top - 5);
      context.textAlign = upright ? "center" : "left";
      if (!upright) context.rotate(-Math.PI / 2);
      context.fillText(visible(token), 0, upright ? -4 : 0, upright ? cell : top - 5);
      context.restore();
    });
  }

  function paintAll() {
    painted = true;
    Object.assign(canvas, { width, height }); // which also clears it
    paintCells();
    if (named) names();
    context.strokeStyle = colours().gold;
    const wide = (context.lineWidth = named ? 2 : 1);
    panel.gold.forEach((sources, r) => {
      if (panel.ofReference[r] < 0) return;
      const y = top + panel.ofReference[r] * cell + wide / 2;
      for (const j of sources) context.strokeRect(left + j * cell + wide / 2, y, cell - wide, cell - wide);
    });
  }

  // In shares of the canvas, which may be shown larger or smaller than it is.
  function frame(made, shown, x, y, wide, high) {
    made.hidden = !shown;
    const share = (part, whole) => `${(100 * part) / whole}%`;
    Object.assign(made.style, { left: share(x, width), top: share(y, height), width: share(wide, width), height: share(high, height) });
  }

  // t, j: the row and the column that are looked at, -1 for none
  function paint(t, j) {
    if (!painted) paintAll();
    frame(row, t >= 0, left, top + t * cell, S * cell, cell);
    frame(column, j >= 0, left + j * cell, top, cell, T * cell);
  }

  function cellAt(event) {
    const box = canvas.getBoundingClientRect();
    const t = Math.floor((((event.clientY - box.y) / box.height) * height - top) / cell);
    const j = Math.floor((((event.clientX - box.x) / box.width) * width - left) / cell);
    return t >= 0 && t < T && j >= 0 && j < S ? [t, j] : null;
  }

  canvas.addEventListener("pointermove", (event) => cellAt(event) && onpoint(...cellAt(event)));
  canvas.addEventListener("pointerleave", onleave);
  canvas.addEventListener("click", (event) => cellAt(event) && onclick(...cellAt(event)));
  return { node, paint, forget: () => (painted = false) };
}

// The pixel of a colour #rrggbb by its opacity, in the order of bytes of this machine.
function pixelOf(hex) {
  const bytes = new Uint8ClampedArray(4);
  const pixel = new Uint32Array(bytes.buffer);
  for (const n of [0, 1, 2]) bytes[n] = parseInt(hex.slice(2 * n + 1, 2 * n + 3), 16);
  return (opacity) => {
    bytes[3] = 255 * opacity;
    return pixel[0];
  };
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
  let bold = [];
  picture.append(allBeams(panel), now);
  const sources = panel.example.source.map((token, j) => beamName(token, 110, j, "end"));
  const outputs = panel.output.tokens.map((token, t) => beamName(token, 270, t, "start"));
  picture.append(...sources, ...outputs);
  const at = (event) => [outputs.indexOf(event.target), sources.indexOf(event.target)];
  picture.addEventListener("pointerover", (event) => Math.max(...at(event)) >= 0 && onpoint(...at(event)));
  picture.addEventListener("click", (event) => at(event)[0] >= 0 && onclick(at(event)[0]));
  picture.addEventListener("pointerleave", onleave);

  function paint(t, j) {
    const row = Array.from({ length: t < 0 ? 0 : S }, (_, s) => [t, s]);
    const column = Array.from({ length: t >= 0 || j < 0 ? 0 : T }, (_, r) => [r, j]);
    now.replaceChildren(...beamPaths(panel, [...row, ...column], "currentColor"));
    for (const one of bold) if (one) one.removeAttribute("font-weight");
    bold = [outputs[t], sources[j]];
    for (const one of bold) if (one) one.setAttribute("font-weight", 700);
  }
  return { node: picture, paint, forget: () => {} };
}

function beamName(token, x, row, anchor) {
  const words = visible(token);
  const cut = [...words].length > 14 ? [...words].slice(0, 13).join("") + "\u2026" : words;
  return drawn("text", { x, y: BEAM_ROW * (row + 0.5) + 8, "text-anchor": anchor, fill: "currentColor", text: cut });
}

function beamLine(t, j) {
  return `M116 ${BEAM_ROW * (j + 0.5) + 4}L264 ${BEAM_ROW * (t + 0.5) + 4}`;
}

// The beams of cells [t, j]. Those of about the same weight are one path: some thousand lines take too long to draw.
function beamPaths(panel, cells, colour) {
  const byStrength = new Map();
  for (const [t, j] of cells) {
    const q = panel.q[t * panel.S + j];
    const level = q && Math.max(8 * Math.round(q / 8), 1);
    if (level) byStrength.set(level, (byStrength.get(level) || "") + beamLine(t, j));
  }
  const looks = (q) => ({ stroke: colour, "stroke-width": (1 + 5 * weightOf(q)).toFixed(2), opacity: strength(q).toFixed(3) });
  return [...byStrength].sort(([a], [b]) => a - b).map(([q, d]) => drawn("path", { d, ...looks(q) }));
}

// Weights of at least 0.05 behind, and the gold links dashed.
function allBeams(panel) {
  const cells = [];
  for (let t = 0; t < panel.T; t++) for (let j = 0; j < panel.S; j++) if (weightAt(panel, t, j) >= 0.05) cells.push([t, j]);
  const gold = panel.gold.flatMap((sources, r) => (panel.ofReference[r] < 0 ? [] : sources.map((j) => beamLine(panel.ofReference[r], j))));
  const links = drawn("path", { d: gold.join(""), stroke: "#B8860B", "stroke-width": 1.5, "stroke-dasharray": "4 3" });
  return drawn("g", {}, drawn("g", { opacity: 0.45 }, ...beamPaths(panel, cells, "#D55E00")), ...(gold.length ? [links] : []));
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
