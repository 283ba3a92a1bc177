// A chart of lines with bands, in SVG.

function roundTicks(top, count = 5) {
  const raw = top / count;
  const power = 10 ** Math.floor(Math.log10(raw));
  const step = [1, 2, 5, 10].find((one) => one * power >= raw) * power;
  return Array.from({ length: Math.floor(top / step + 1e-9) + 1 }, (_, n) => n * step);
}

function isNarrow() {
  return matchMedia("(max-width: 640px)").matches;
}

/*
  lines: [{label, colour, dash, points: [{x, y, low, high, open, dots}]}], y null where it is not known
  ticks: [{at, text}] of the x axis; from, to: its ends; shade: [from, to] or null
  columns: [{from, to, title, pressed, onclick, onenter}], what lies behind the lines and can be clicked
*/
function lineChart({ label, title, unit, lines, ticks, from, to, shade = null, columns = [] }) {
  const [width, height, left, bottom] = isNarrow() ? [360, 300, 44, 40] : [760, 340, 52, 40];
  const legend = legendRows(lines, width - left);
  const top = 14 + 16 * legend.length;
  const known = lines.flatMap((line) => line.points.filter((point) => point.y !== null));
  const highest = Math.max(
    0.05, ...known.map((point) => Math.max(point.y, ...(point.dots || []), Math.min(point.high ?? 0, 1.3 * point.y))),
  ) * 1.04; // prettier-ignore
  const x = (value) => left + ((value - from) / (to - from)) * (width - left - 10);
  const y = (value) => height - bottom - (Math.min(value, highest) / highest) * (height - bottom - top);
  const chart = drawn("svg", { viewBox: `0 0 ${width} ${height}`, role: "img", "aria-label": label, "font-size": 11 });
  if (shade) {
    const ends = shade.map((one) => x(Math.min(Math.max(one, from), to)));
    const area = { x: ends[0], y: top, width: ends[1] - ends[0], height: height - bottom - top };
    chart.append(drawn("rect", { ...area, fill: "currentColor", opacity: 0.06 }));
    if (ends[1] - ends[0] > 90) chart.append(text("seen in training", (ends[0] + ends[1]) / 2, top + 11, "middle", 0.75));
  }
  for (const value of roundTicks(highest)) {
    const line = { x1: left, x2: width - 10, y1: y(value), y2: y(value), stroke: "currentColor", opacity: 0.15 };
    chart.append(drawn("line", line), text(+value.toPrecision(3), left - 6, y(value) + 4, "end"));
  }
  const apart = isNarrow() ? 34 : 26;
  let last = -Infinity;
  for (const { at, text: words } of ticks) {
    if (x(at) - last < apart) continue;
    last = x(at);
    const half = 3.2 * String(words).length; // of its width: the last one must not be cut off
    chart.append(text(words, Math.min(x(at), width - half), height - bottom + 15, "middle"));
  }
  chart.append(text(unit, (left + width) / 2, height - 6, "middle"), text(title, 2, 11, "start"));
  for (const column of columns) chart.append(columnOf(column, x, top, height - bottom));
  for (const line of lines) chart.append(...lineOf(line, x, y));
  legend.forEach((row, n) => row.forEach(({ line, at }) => chart.append(...legendOf(line, left + at, 23 + 16 * n))));
  return chart;
}

function text(words, x, y, anchor, opacity = 1) {
  return drawn("text", { x, y, "text-anchor": anchor, fill: "currentColor", opacity, text: words });
}

function legendRows(lines, room) {
  const rows = [[]];
  const seen = new Set();
  let at = 0;
  for (const line of lines) {
    if (seen.has(line.label)) continue;
    seen.add(line.label);
    const size = 44 + 6.4 * line.label.length;
    if (at && at + size > room) {
      rows.push([]);
      at = 0;
    }
    rows.at(-1).push({ line, at });
    at += size;
  }
  return rows;
}

function legendOf(line, x, y) {
  const stroke = { x1: x, x2: x + 26, y1: y - 4, y2: y - 4, stroke: line.colour, "stroke-width": 2.5 };
  return [drawn("line", { ...stroke, "stroke-dasharray": line.dash }), text(line.label, x + 31, y, "start")];
}

function columnOf({ from, to, title, pressed, onclick, onenter }, x, top, bottom) {
  const area = { x: x(from), width: x(to) - x(from), y: top, height: bottom - top };
  const handlers = { onclick, onpointerenter: onenter };
  return drawn("rect", { ...area, ...handlers, class: pressed ? "column pressed" : "column" }, drawn("title", { text: title }));
}

// A line is broken where the next point does not lie to the right, as at the first bin beyond training.
function lineOf(line, x, y) {
  const pieces = [];
  let before = null;
  for (const point of line.points.filter((one) => one.y !== null)) {
    if (before === null || point.x <= before.x) pieces.push([]);
    pieces.at(-1).push(point);
    before = point;
  }
  const made = [];
  for (const piece of pieces) {
    const banded = piece.filter((point) => point.low !== null && point.low !== undefined);
    if (banded.length > 1) {
      const over = banded.map((point) => `${x(point.x)},${y(point.high)}`);
      const under = banded.map((point) => `${x(point.x)},${y(Math.max(point.low, 0))}`).reverse();
      made.push(drawn("polygon", { points: [...over, ...under].join(" "), fill: line.colour, opacity: 0.16 }));
    }
    const points = piece.map((point) => `${x(point.x)},${y(point.y)}`).join(" ");
    const stroke = { fill: "none", stroke: line.colour, "stroke-width": line.width || 2, "stroke-dasharray": line.dash };
    made.push(drawn("polyline", { points, ...stroke, opacity: line.opacity || 1 }));
    if (line.plain) continue;
    for (const point of piece) {
      for (const dot of point.dots || []) {
        made.push(drawn("circle", { cx: x(point.x), cy: y(dot), r: 1.4, fill: line.colour, opacity: 0.7 }));
      }
      const filling = point.open ? { fill: "var(--ground, #ffffff)", stroke: line.colour, "stroke-width": 2 } : { fill: line.colour };
      made.push(drawn("circle", { cx: x(point.x), cy: y(point.y), r: 3.6, ...filling }));
    }
  }
  for (const one of made) one.setAttribute("pointer-events", "none");
  return made;
}
