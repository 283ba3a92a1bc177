"use strict";
// What every part of the explorer uses: elements, the packed data, the state, keyboard groups and downloads.

// ---- elements

function fill(made, attributes, children) {
  for (const [name, value] of Object.entries(attributes)) {
    if (value === null || value === undefined || value === false) continue;
    if (name.startsWith("on")) made.addEventListener(name.slice(2), value);
    else if (name === "text") made.textContent = value;
    else made.setAttribute(name, value === true ? "" : value);
  }
  made.append(...children);
  return made;
}

function element(tag, attributes = {}, ...children) {
  return fill(document.createElement(tag), attributes, children);
}

function drawn(tag, attributes = {}, ...children) {
  return fill(document.createElementNS("http://www.w3.org/2000/svg", tag), attributes, children);
}

function choice(label, options, value, onchange) {
  const select = element("select", { onchange: () => onchange(select.value) });
  for (const [name, text] of options) select.append(element("option", { value: name, text }));
  select.value = value;
  return element("label", { class: "choice" }, element("span", { text: label }), select);
}

// A token as a reader can see it.
function visible(token = "") {
  if (!/[ \n\t\p{M}]/u.test(token)) return token;
  const shown = token.replace(/ /g, "\u2423").replace(/\n/g, "\\n").replace(/\t/g, "\\t");
  return /^\p{M}/u.test(shown) ? "\u25cc" + shown : shown;
}

function number(value, digits = 3) {
  return value === null || value === undefined ? "\u2013" : value.toFixed(digits).replace("-", "\u2212");
}

function plural(count, noun) {
  return `${count.toLocaleString("en")} ${noun}${count === 1 ? "" : "s"}`;
}

// ---- the data of the file

async function inflated(text) {
  const bytes = Uint8Array.from(atob(text.trim()), (letter) => letter.charCodeAt(0));
  const stream = new Blob([bytes]).stream().pipeThrough(new DecompressionStream("deflate"));
  return new Uint8Array(await new Response(stream).arrayBuffer());
}

let study = null;
const packedMaps = document.getElementById("maps").textContent.slice(1).split("\n");

async function readStudy() {
  study = JSON.parse(new TextDecoder().decode(await inflated(document.getElementById("study").textContent)));
  study.arms.forEach((arm, k) => (arm.dash = ["", "7 3", "7 3 2 3", "2 2"][k % 4]));
}

// The weights of an example: for each arm q [T, S] row by row, or null. The weight itself is (q / 255)^2.
// head 0 is the mean over heads; an arm with fewer heads than asked for gives its mean.
async function readWeights(place, head = 0) {
  const example = study.examples[place];
  if (!example.outputs.some((output) => output.maps)) return example.outputs.map(() => null);
  const all = await inflated(packedMaps[place]);
  let at = 0;
  return example.outputs.map((output) => {
    if (!output.maps) return null;
    const size = output.tokens.length * example.source.length;
    const first = at + (head < output.maps ? head * size : 0);
    at += output.maps * size;
    return all.subarray(first, first + size);
  });
}

function weightOf(q) {
  return (q / 255) ** 2;
}

// ---- the state, which the URL's fragment keeps

const state = {};
let defaults = {};
const parts = []; // {keys, draw}: what is drawn again when one of the keys changes

function setDefaults(values) {
  defaults = values;
  Object.assign(state, values);
}

function readFragment() {
  const given = new URLSearchParams(location.hash.slice(1));
  for (const [key, value] of Object.entries(defaults)) {
    const text = given.get(key);
    state[key] = text === null ? value : typeof value === "number" ? Math.max(0, Math.round(+text) || 0) : text;
  }
  const last = study.arms.length - 1;
  state.arms = [...state.arms.split(".")].filter((one) => one !== "" && +one <= last).join(".") || defaults.arms;
  if (!study.metrics.some((metric) => metric.name === state.metric)) state.metric = defaults.metric;
  if (!study.axes.some((axis) => axis.name === state.length)) state.length = defaults.length;
  if (!study.axes.length) state.bin = "";
  if (state.bin !== "" && !currentAxis().bins[+state.bin]) state.bin = "";
}

function fragment() {
  const kept = Object.entries(state).filter(([key, value]) => value !== defaults[key]);
  return "#" + new URLSearchParams(kept.map(([key, value]) => [key, String(value)]));
}

function change(values) {
  const changed = Object.keys(values).filter((key) => state[key] !== values[key]);
  Object.assign(state, values);
  // Inside a frame of a notebook there is no address to keep it in.
  if (location.protocol !== "about:") history.replaceState(null, "", fragment());
  for (const part of parts) if (part.keys.some((key) => changed.includes(key))) part.draw();
}

function drawAll() {
  for (const part of parts) part.draw();
}

function currentAxis() {
  return study.axes.find((axis) => axis.name === state.length);
}

function currentMetric() {
  return study.metrics.findIndex((metric) => metric.name === state.metric);
}

// The places of the arms that are shown.
function shownArms() {
  return state.arms.split(".").map(Number);
}

// ---- keyboard

// One tab stop for a group; arrow keys, Home and End move inside it.
function roving(group) {
  const items = () => [...group.querySelectorAll("button:not([disabled])")];
  group.addEventListener("keydown", (event) => {
    const all = items();
    const at = all.indexOf(document.activeElement);
    const step = { ArrowRight: 1, ArrowDown: 1, ArrowLeft: -1, ArrowUp: -1 }[event.key];
    const next = event.key === "Home" ? 0 : event.key === "End" ? all.length - 1 : step ? at + step : -1;
    if (at < 0 || !all[next]) return;
    event.preventDefault();
    all[next].focus();
  });
  group.addEventListener("focusin", (event) => {
    for (const item of items()) item.tabIndex = item === event.target ? 0 : -1;
  });
  return group;
}

function oneTabStop(group, chosen) {
  const all = [...group.querySelectorAll("button")];
  const stop = all.find(chosen) || all[0];
  for (const item of all) item.tabIndex = item === stop ? 0 : -1;
}

// ---- downloads

function save(name, type, content) {
  const url = URL.createObjectURL(new Blob([content], { type }));
  element("a", { href: url, download: name }).click();
  setTimeout(() => URL.revokeObjectURL(url), 10000);
}

// A picture of the page as a file of its own: dark on white, whatever the page is.
function standalone(picture) {
  const copy = picture.cloneNode(true);
  const [, , width, height] = copy.getAttribute("viewBox").split(" ");
  fill(copy, { xmlns: "http://www.w3.org/2000/svg", width, height, color: "#1c1f23", "font-family": "sans-serif" }, []);
  for (const unseen of copy.querySelectorAll(".column")) unseen.remove();
  copy.prepend(drawn("rect", { width, height, fill: "#ffffff" }));
  return { text: new XMLSerializer().serializeToString(copy), width: +width, height: +height };
}

async function savePng(name, picture) {
  const { text, width, height } = standalone(picture);
  const image = new Image();
  image.src = "data:image/svg+xml;charset=utf-8," + encodeURIComponent(text);
  await image.decode();
  const canvas = element("canvas", { width: 2 * width, height: 2 * height });
  canvas.getContext("2d").drawImage(image, 0, 0, 2 * width, 2 * height);
  canvas.toBlob((blob) => save(name + ".png", "image/png", blob));
}

function csv(rows) {
  const cell = (value) => (/[",\n\r]/.test(value) ? `"${String(value).replace(/"/g, '""')}"` : String(value ?? ""));
  return rows.map((row) => row.map(cell).join(",")).join("\n") + "\n";
}

// Buttons for a picture, which may be drawn on demand, and for the rows of its numbers, the first one the columns' names.
function downloads(name, picture, rows) {
  const button = (text, onclick) => element("button", { class: "small", text, onclick, title: `Download as ${text}` });
  return element(
    "p", { class: "downloads" }, "Download: ",
    button("SVG", () => save(name() + ".svg", "image/svg+xml", standalone(picture()).text)),
    button("PNG", () => savePng(name(), picture())),
    button("CSV", () => save(name() + ".csv", "text/csv", csv(rows()))),
  );
}
