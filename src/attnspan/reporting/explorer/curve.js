// The curve against length: measure, length and arms are chosen here, and the bin whose examples are read below.

function valueAt(axis, arm, bin, metric) {
  for (const [ofArm, ofBin, values] of axis.points) {
    if (ofArm === arm && ofBin === bin && values[metric]) return values[metric];
  }
  return null;
}

// A value with its interval; where the seeds fall into groups, their means instead, which have none.
function interval([value, low, high, , groups], digits) {
  return groups || number(value, digits) + (low === null ? "" : ` [${number(low, digits)}, ${number(high, digits)}]`);
}

function curveLines(axis, metric) {
  return shownArms().map((k) => {
    const arm = study.arms[k];
    const ofArm = axis.points.filter(([one, bin, values]) => one === k && !axis.bins[bin].total && values[metric]);
    const points = ofArm.map(([, bin, values]) => {
      const [y, low, high, dots] = values[metric];
      return { x: axis.bins[bin].mean, y, low, high, dots, open: axis.bins[bin].side === "extrapolation" };
    });
    return { label: arm.shown, colour: arm.colour, dash: arm.dash, points };
  });
}

function curveChart(axis, metric, columns) {
  const { title, label } = study.metrics[metric];
  return lineChart({
    label: `${title} against ${axis.noun}; the table below has the numbers`,
    title: label,
    unit: axis.title,
    lines: curveLines(axis, metric),
    ticks: axis.edges.map((at) => ({ at, text: +at.toFixed(2) })),
    from: axis.edges[0],
    to: axis.edges.at(-1),
    shade: axis.trained.length === 1 ? axis.trained[0] : null,
    columns,
  });
}

// What a bin holds, in a sentence.
function reading(axis, place, metric) {
  const bin = axis.bins[place];
  const where = bin.total ? `all ${bin.side}` : `${bin.words}, ${bin.side}`;
  const values = shownArms().map((k) => [study.arms[k].shown, valueAt(axis, k, place, metric)]).filter(([, one]) => one);
  const each = values.map(([name, one]) => `${name} ${interval(one, study.metrics[metric].digits)}`);
  return `${where}, ${plural(bin.n, "example")}. ${study.metrics[metric].title}: ${each.join("; ") || "not known"}.`;
}

function curveRows(axis, metric) {
  const { name } = study.metrics[metric];
  const rows = [["arm", "length", "lengths", "side", "examples", "mean_length", name, `${name}_low`, `${name}_high`]];
  for (const [k, place, values] of axis.points) {
    if (!values[metric] || !shownArms().includes(k)) continue;
    const { label, side, total, n, mean } = axis.bins[place];
    rows.push([study.arms[k].label, axis.name, total ? "all" : label, side, n, mean, ...values[metric].slice(0, 3)]);
  }
  return rows;
}

function curveTable(axis, metric) {
  const head = ["lengths", "", "examples", ...shownArms().map((k) => study.arms[k].shown)];
  const body = axis.bins.map((bin, place) => {
    const values = shownArms().map((k) => valueAt(axis, k, place, metric));
    const cells = values.map((one) => element("td", { text: one ? interval(one, study.metrics[metric].digits) : "\u2013" }));
    const name = element("th", { scope: "row", text: bin.total ? "all" : bin.label });
    return element("tr", {}, name, element("td", { text: bin.side }), element("td", { text: bin.n }), ...cells);
  });
  return table(`${study.metrics[metric].title} by ${axis.noun}, with 95% intervals`, head, body);
}

function table(caption, head, body) {
  const columns = head.map((name) => (name ? element("th", { scope: "col", text: name }) : element("td")));
  const made = element("table", {}, element("caption", { text: caption }), element("thead", {}, element("tr", {}, ...columns)), element("tbody", {}, ...body));
  return element("div", { class: "scroll", tabindex: 0, role: "region", "aria-label": caption }, made);
}

function curveSection() {
  const heading = element("h2", { text: "Curve" });
  const controls = element("div", { class: "controls" });
  const figure = element("div", { class: "figure" });
  const said = element("p", { class: "reading", role: "status" });
  const bins = roving(element("div", { class: "bins", role: "group", "aria-label": "Lengths of the examples below" }));
  const numbers = element("details", {}, element("summary", { text: "The numbers" }));
  const drawPlain = () => curveChart(currentAxis(), currentMetric(), []);
  const files = downloads(() => `${study.data}-${state.metric}-${state.length}`, drawPlain, () => curveRows(currentAxis(), currentMetric()));

  function drawControls() {
    const metrics = study.metrics.map(({ name, title }) => [name, title]);
    const lengths = study.axes.map(({ name, noun }) => [name, noun]);
    controls.replaceChildren(
      choice("Measure", metrics, state.metric, (metric) => change({ metric })),
      choice("Length", lengths, state.length, (length) => change({ length, bin: "" })),
      armBoxes(),
    );
  }

  function say(place) {
    const hint = "Point at a bin to read its values; choose one to read its examples.";
    said.textContent = place === null ? hint : reading(currentAxis(), place, currentMetric());
  }

  const chosen = () => (state.bin === "" ? null : +state.bin);

  // The same bin again means all lengths. The first example of a bin is opened with it.
  function choose(place) {
    if (String(place) === state.bin) return change({ bin: "" });
    const [first] = currentAxis().bins[place].examples;
    change({ bin: String(place), ...(first === undefined ? {} : { example: study.examples[first].id, ref: 0 }) });
  }

  function draw() {
    const axis = currentAxis();
    heading.textContent = `${study.metrics[currentMetric()].title} by ${axis.noun}`;
    const columns = axis.bins
      .map((bin, place) => ({
        from: bin.above, to: bin.upTo, title: `${bin.words}, ${bin.side}: read the examples`, pressed: String(place) === state.bin,
        total: bin.total, onclick: () => choose(place), onenter: () => say(place),
      })) // prettier-ignore
      .filter((column) => !column.total);
    figure.replaceChildren(curveChart(axis, currentMetric(), columns));
    drawBins(axis);
    say(chosen());
    if (numbers.open) drawNumbers();
  }

  function drawBins(axis) {
    const had = bins.contains(document.activeElement) ? document.activeElement.dataset.bin : null;
    const button = (place, words, title, extra = "") =>
      element("button", {
        text: words, title, class: extra, "data-bin": place, "aria-pressed": String(place) === state.bin,
        onclick: () => (place === "" ? change({ bin: "" }) : choose(place)),
        onfocus: () => say(place === "" ? null : place), onpointerenter: () => say(place === "" ? null : place),
      }); // prettier-ignore
    const made = axis.bins.map((bin, place) =>
      button(place, bin.total ? `all ${bin.side}` : bin.label, `${bin.words}, ${bin.side}`, bin.side === "extrapolation" ? "beyond" : ""),
    );
    bins.replaceChildren(button("", "all", "examples of all lengths"), ...made);
    oneTabStop(bins, (item) => (had === null ? item.getAttribute("aria-pressed") === "true" : item.dataset.bin === had));
    if (had !== null) bins.querySelector("[tabindex='0']").focus();
  }

  function drawNumbers() {
    numbers.replaceChildren(numbers.firstChild, curveTable(currentAxis(), currentMetric()));
  }

  figure.addEventListener("pointerleave", () => say(chosen()));
  bins.addEventListener("pointerleave", () => say(chosen()));
  numbers.addEventListener("toggle", () => numbers.open && drawNumbers());
  matchMedia("(max-width: 640px)").addEventListener("change", draw);
  parts.push({ keys: [], draw: drawControls }, { keys: ["metric", "length", "arms", "bin"], draw });
  const key = "Bands are 95% intervals, small dots single seeds, open markers extrapolation (dashed buttons).";
  return element("section", {}, heading, controls, figure, said, bins, element("p", { class: "quiet", text: key }), files, numbers);
}

// The line of an arm in the charts.
function chip(arm) {
  const line = { x1: 0, x2: 26, y1: 4, y2: 4, stroke: arm.colour, "stroke-width": 3, "stroke-dasharray": arm.dash };
  return drawn("svg", { class: "chip", viewBox: "0 0 26 8", "aria-hidden": "true" }, drawn("line", line));
}

// One box an arm, for the curve, the examples and the attention.
function armBoxes() {
  const boxes = study.arms.map((arm, k) => {
    const box = element("input", { type: "checkbox", id: `arm-${k}` });
    box.checked = shownArms().includes(k);
    box.addEventListener("change", () => {
      const kept = study.arms.map((_, n) => n).filter((n) => (n === k ? box.checked : shownArms().includes(n)));
      if (kept.length) change({ arms: kept.join(".") });
      else box.checked = true;
    });
    return element("label", { class: "box" }, box, chip(arm), arm.shown);
  });
  return element("fieldset", {}, element("legend", { text: "Arms" }), ...boxes);
}
