// The examples as rows: source, reference, and what each arm wrote with its edits marked.

const ORDERS = {
  id: "by id",
  errors: "most errors first",
  gap: "largest disagreement of the arms first",
  longest: "longest source first",
  shortest: "shortest source first",
};
const ROWS = 5;

// The edits of an output in order, as {kind, output, reference}: places of tokens, -1 where there is none.
function stepsOf(output) {
  let h = 0;
  let r = 0;
  return [...output.path].map((kind) => ({
    kind,
    output: kind === "d" ? -1 : h++,
    reference: kind === "i" ? -1 : r++,
  }));
}

function errorRate(example, k) {
  return example.outputs[k].edits / Math.max(example.reference.length, 1);
}

function inBin(axis) {
  const every = study.examples.map((_, place) => place);
  return state.bin === "" ? every : axis.bins[+state.bin].examples;
}

function matches(example) {
  const arms = shownArms();
  const words = state.find.toLowerCase();
  const texts = () => [example.id, joined(example.source, "source"), joined(example.reference, "reference"), ...arms.map((k) => textOf(example.outputs[k]))];
  return (
    (state.kind === "" || arms.some((k) => (example.outputs[k].kinds || []).includes(state.kind))) &&
    (state.wrong === "" || !example.outputs[+state.wrong].exact) &&
    (state.right === "" || example.outputs[+state.right].exact) &&
    (words === "" || texts().some((one) => one.toLowerCase().includes(words)))
  );
}

function joined(tokens, side) {
  return tokens.join(study.separators[side]);
}

function textOf(output) {
  return output.tokens ? joined(output.tokens, "reference") : output.text;
}

// The places of the examples that the filters leave, in the chosen order.
function chosenExamples() {
  const rates = (example) => shownArms().map((k) => errorRate(example, k));
  const sum = (all) => all.reduce((a, b) => a + b, 0);
  const keys = {
    id: () => 0,
    errors: (one) => -sum(rates(one)),
    gap: (one) => Math.min(...rates(one)) - Math.max(...rates(one)),
    longest: (one) => -one.source.length,
    shortest: (one) => one.source.length,
  };
  const key = keys[state.sort] || keys.id;
  const kept = inBin(currentAxis()).filter((place) => matches(study.examples[place]));
  return kept.sort((a, b) => key(study.examples[a]) - key(study.examples[b]) || a - b);
}

// An output as text, its edits marked: underlined another token, framed one too much, struck through one missing.
function marked(example, output) {
  if (!output.tokens) return [output.text];
  if (!output.path) return [element("i", { text: "nothing" })];
  const space = study.separators.reference;
  const pieces = [];
  for (const { kind, output: h, reference: r } of stepsOf(output)) {
    const written = h < 0 ? "" : visibleIn(output.tokens[h], space);
    const wanted = r < 0 ? "" : visibleIn(example.reference[r], space);
    if (pieces.length && space) pieces.push(space);
    if (kind === "=") pieces.push(written);
    else if (kind === "s") pieces.push(element("mark", { title: `instead of ${wanted}`, text: written }));
    else if (kind === "i") pieces.push(element("ins", { title: "too much", text: written }));
    else pieces.push(element("del", { title: "missing", text: wanted }));
  }
  return pieces;
}

function visibleIn(token, space) {
  return space === "" && token === " " ? token : visible(token);
}

function rowOf(place) {
  const example = study.examples[place];
  const pressed = state.example === example.id;
  const open = element("button", {
    text: example.id, title: "Show its attention", "aria-pressed": pressed, onclick: () => openExample(example.id),
  }); // prettier-ignore
  const lengths = `${plural(example.source.length, "source token")}, ${plural(example.reference.length, "reference token")}`;
  const lines = [
    ["source", sourceOf(example)], ["reference", joined(example.reference, "reference")],
  ].map(([name, content]) => [element("dt", { text: name }), element("dd", {}, content)]); // prettier-ignore
  for (const k of shownArms()) {
    const output = example.outputs[k];
    const kinds = study.kinds.filter(([kind]) => (output.kinds || []).includes(kind)).map(([, label]) => label);
    const count = [plural(output.edits, "edit"), ...kinds].join(", ");
    const words = element("dd", {}, ...marked(example, output), " ", element("span", { class: "quiet", text: `(${count})` }));
    lines.push([element("dt", {}, study.arms[k].label), words]);
  }
  return element("li", {}, element("p", {}, open, " ", element("span", { class: "quiet", text: lengths })), element("dl", {}, ...lines.flat()));
}

// The text of a source, or its picture.
function sourceOf(example) {
  if (!example.picture) return joined(example.source, "source");
  const { src, width, height } = example.picture;
  return element("img", { src, width: 2 * width, height: 2 * height, alt: `picture of ${width} by ${height} pixels` });
}

function openExample(id) {
  change({ example: id, ref: 0 });
  document.getElementById("attention").scrollIntoView();
}

function rowsSection() {
  const controls = element("div", { class: "controls" });
  const said = element("p", { role: "status" });
  const list = element("ol", { class: "rows" });
  const more = element("button", { text: "Show more", onclick: () => showMore() });
  let shown = [];
  let count = ROWS;

  function drawControls() {
    const arms = study.arms.map((arm, k) => [k, arm.label]);
    const has = (kind) => study.examples.some((one) => one.outputs.some((output) => (output.kinds || []).includes(kind)));
    const kinds = study.kinds.filter(([kind]) => has(kind)).map(([kind, label]) => [kind, `output ${label}`]);
    const find = element("input", { type: "search", oninput: () => change({ find: find.value }) });
    find.value = state.find;
    controls.replaceChildren(
      choice("Order", Object.entries(ORDERS), state.sort, (sort) => change({ sort })),
      choice("With an error by", [["", "(all examples)"], ...arms], state.wrong, (wrong) => change({ wrong })),
      choice("Without an error by", [["", "(all examples)"], ...arms], state.right, (right) => change({ right })),
      ...(kinds.length ? [choice("With", [["", "(all outputs)"], ...kinds], state.kind, (kind) => change({ kind }))] : []),
      element("label", { class: "choice" }, element("span", { text: "Search" }), find),
    );
  }

  function draw() {
    shown = chosenExamples();
    count = ROWS;
    const bin = state.bin === "" ? "" : ` of ${currentAxis().bins[+state.bin].words}, ${currentAxis().bins[+state.bin].side}`;
    const all = inBin(currentAxis()).length;
    const picked = shown.length < all || state.sort !== "id";
    const rule = picked ? " These are chosen, not typical." : "";
    const order = state.sort === "id" ? "" : `, ${ORDERS[state.sort]}`;
    said.textContent = `${shown.length} of the ${plural(all, "example")}${bin} that are in this file${order}.${rule}`;
    list.replaceChildren(...shown.slice(0, count).map(rowOf));
    more.hidden = shown.length <= count;
  }

  function showMore() {
    const from = count;
    count += ROWS;
    list.append(...shown.slice(from, count).map(rowOf));
    more.hidden = shown.length <= count;
    list.children[from].querySelector("button").focus();
  }

  function press() {
    for (const item of list.querySelectorAll("button")) item.setAttribute("aria-pressed", item.textContent === state.example);
  }

  parts.push({ keys: [], draw: drawControls });
  parts.push({ keys: ["bin", "length", "arms", "sort", "find", "kind", "wrong", "right"], draw });
  parts.push({ keys: ["example"], draw: press });
  const marks = element("p", { class: "quiet" }, "In an output, ", element("mark", { text: "underlined" }), " is another token than in the reference, ", element("ins", { text: "framed" }), " one too much, ", element("del", { text: "struck through" }), " one that is missing. ", study.chosen);
  return element("section", { id: "examples" }, element("h2", { text: "Examples" }), controls, said, marks, list, more);
}
