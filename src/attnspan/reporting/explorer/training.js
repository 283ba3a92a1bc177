// How the runs learned: the loss of every validation, and the error by length as training went on.

function lossChart() {
  const shown = study.training.losses.filter((run) => shownArms().includes(run.arm));
  const updates = shown.flatMap((run) => run.points.map(([update]) => update));
  const last = Math.max(...updates, 1);
  return lineChart({
    label: "Validation loss of every run against updates; the CSV file has the numbers",
    title: "validation loss (nats per token)",
    unit: "updates",
    lines: shown.map((run) => ({
      label: study.arms[run.arm].shown, colour: study.arms[run.arm].colour, dash: study.arms[run.arm].dash, width: 1.3, plain: true,
      points: run.points.map(([x, y]) => ({ x, y })),
    })), // prettier-ignore
    ticks: roundTicks(last).map((at) => ({ at, text: at.toLocaleString("en") })),
    from: 0,
    to: last,
  });
}

function lossRows() {
  const rows = [["arm", "seed", "updates", "validation_loss"]];
  for (const run of study.training.losses) for (const point of run.points) rows.push([study.arms[run.arm].label, run.seed, ...point]);
  return rows;
}

// The updates at which any arm was decoded, in order.
function decodedAt() {
  const all = study.training.errors.flatMap((one) => one.points.map((point) => point.updates));
  return [...new Set(all)].sort((a, b) => a - b);
}

function learnedChart(updates) {
  const labels = [...new Set(study.training.errors.flatMap((one) => one.points.flatMap((point) => point.rates.map(([label]) => label))))];
  const lines = study.training.errors.filter((one) => shownArms().includes(one.arm)).map((one) => {
    const arm = study.arms[one.arm];
    const point = one.points.findLast((it) => it.updates <= updates);
    const points = point ? point.rates.map(([label, y]) => ({ x: labels.indexOf(label) + 0.5, y })) : [];
    return { label: arm.shown, colour: arm.colour, dash: arm.dash, points };
  }); // prettier-ignore
  return lineChart({
    label: `Error rate of validation by ${study.training.side} length after ${updates} updates`,
    title: `error rate of validation after ${updates.toLocaleString("en")} updates`,
    unit: `${study.training.side} length (tokens)`,
    lines,
    ticks: labels.map((words, n) => ({ at: n + 0.5, text: words })),
    from: 0,
    to: labels.length,
  });
}

function learnedRows() {
  const rows = [["arm", "updates", "lengths", "error_rate"]];
  for (const one of study.training.errors) {
    for (const point of one.points) for (const rate of point.rates) rows.push([study.arms[one.arm].label, point.updates, ...rate]);
  }
  return rows;
}

function trainingSection() {
  const made = element("section", {}, element("h2", { text: "Training" }));
  const draws = [];
  if (study.training.losses.length) {
    const figure = element("div", { class: "figure" });
    draws.push(() => figure.replaceChildren(lossChart()));
    made.append(element("p", { class: "quiet", text: "A line is a run: the loss of validation, teacher-forced." }), figure, downloads(() => `${study.data}-loss`, lossChart, lossRows));
  }
  if (study.training.errors.length) {
    const at = decodedAt();
    const figure = element("div", { class: "figure" });
    const slider = element("input", { type: "range", min: 0, max: at.length - 1, step: 1, oninput: () => drawLearned() });
    const drawLearned = () => {
      const updates = at[+slider.value];
      slider.setAttribute("aria-valuetext", plural(updates, "update"));
      figure.replaceChildren(learnedChart(updates));
    };
    slider.value = at.length - 1;
    draws.push(drawLearned);
    const label = element("label", { class: "slider" }, element("span", { text: "Updates" }), slider);
    const rule = "Free-running on validation, the mean over the runs of an arm, at the last decoding up to then.";
    made.append(element("p", { class: "quiet", text: rule }), label, figure, downloads(() => `${study.data}-learning`, () => learnedChart(at[+slider.value]), learnedRows));
  }
  const draw = () => draws.forEach((one) => one());
  parts.push({ keys: ["arms"], draw });
  matchMedia("(max-width: 640px)").addEventListener("change", draw);
  return draws.length ? made : element("span");
}
