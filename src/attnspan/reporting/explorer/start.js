// Build the page, then show what the address asks for.

async function start() {
  await readStudy();
  setDefaults({
    metric: study.metrics.length ? study.metrics[0].name : "",
    length: study.axes.length ? study.axes[0].name : "",
    bin: "",
    arms: study.arms.map((_, k) => k).join("."),
    sort: "id",
    find: "",
    kind: "",
    wrong: "",
    right: "",
    example: study.examples.length ? study.examples[0].id : "",
    ref: 0,
    view: "heat",
    head: 0,
  });
  readFragment();
  const notes = element("details", {}, element("summary", { text: "Read with care" }), element("ul", {}, ...study.notes.map((one) => element("li", { text: one }))));
  const curves = study.axes.length ? [curveSection()] : [];
  const rows = study.axes.length && study.examples.length ? [rowsSection()] : [];
  const sections = [...curves, ...rows, ...(study.examples.length ? [attentionSection()] : []), trainingSection()];
  document.getElementById("explorer").replaceChildren(...(study.notes.length ? [notes] : []), ...sections);
  drawAll();
  addEventListener("hashchange", () => {
    readFragment();
    drawAll();
  });
}

if (document.getElementById("study").textContent) start();
