// The page: send a file, follow its job, show boxes as pages are done, let people correct and download them.

import { buttonOf, describe, place, sheetOf, stateOf } from "./boxes.js";
import { asCoco, asJson, cropOf, pageName, save, stemOf, zipOf } from "./export.js";

const LOWEST = 0.1; // the server is asked for every box above this; the slider filters here
const POLL = 400;
const REMEDY = {
  overloaded: "Try again in a moment.",
  damaged: "Open it in a PDF viewer, print it to a new PDF, and send that.",
  format: "Send a PDF, or an image as PNG, JPEG, WebP, TIFF, BMP, GIF or AVIF.",
  not_pdf: "Send a PDF, or an image as PNG, JPEG, WebP, TIFF, BMP, GIF or AVIF.",
  password: "Remove the password first.",
  too_many_pages: "Split it, and send the parts.",
  truncated: "It was cut off on its way; copy it again.",
  token: "Reload the page and enter the token as password.",
  timeout: "Try fewer pages.",
};
const $ = (id) => document.getElementById(id);

let model = { name: "", labels: null, thresholds: {} };
let limits = null;
let job = null;
let source = "";
let sheets = new Map();
let items = [];
let selected = null;
let threshold = null; // null: the thresholds of the model
let adding = false;
let changes = []; // what undo puts back: an item, and how it was

async function ask(path, options) {
  const answer = await fetch(path, options);
  if (answer.ok) return answer;
  let problem = {};
  try {
    problem = await answer.json();
  } catch {
    // an answer from something in between, without problem details
  }
  const error = new Error(problem.detail || `The server answered ${answer.status}.`);
  error.reason = problem.reason;
  throw error;
}

async function loadModel() {
  try {
    const answer = await (await ask("v1/models")).json();
    limits = answer.limits;
    if (answer.models.length === 0) return void setTimeout(loadModel, 1000);
    model = answer.models[0];
    $("model").textContent = `Model ${model.name}${model.labels ? `: ${model.labels.join(", ")}` : ""}`;
    $("limits").textContent =
      `At most ${Math.floor(limits.body / 2 ** 20)} MB and ${limits.pages} pages. ` +
      "It stays on this server and is removed after a while.";
  } catch (error) {
    showError(error);
  }
}

function showError(error) {
  const text = error instanceof TypeError ? "The server cannot be reached." : error.message;
  const named = error.reason && source && !text.startsWith(source) ? `${source}: ${text}` : text;
  $("error").textContent = [named, REMEDY[error.reason]].filter(Boolean).join(" ");
  $("error").hidden = false;
}

async function send(file) {
  if (job) await cancel();
  $("error").hidden = true;
  if (limits && file.size > limits.body) {
    return showError(new Error(`${file.name} has ${(file.size / 2 ** 20).toFixed(1)} MB; at most ${Math.floor(limits.body / 2 ** 20)} MB are taken.`));
  }
  clear(file.name || "screenshot.png");
  working("Sending…");
  const form = new FormData();
  form.append("file", file, source);
  try {
    const answer = await ask(`v1/extract?conf=${LOWEST}`, { method: "POST", body: form, headers: { Prefer: "respond-async" } });
    job = await answer.json();
    await followJob(job.id);
  } catch (error) {
    showError(error);
  }
  $("work").hidden = true;
}

function clear(name) {
  source = name;
  sheets = new Map();
  items = [];
  changes = [];
  selected = null;
  $("pages").replaceChildren();
  $("result").hidden = true;
  draw();
}

function working(text, progress) {
  $("work").hidden = false;
  $("status").textContent = text;
  if (progress && progress.total) {
    $("progress").max = progress.total;
    $("progress").value = progress.done;
  } else {
    $("progress").removeAttribute("value");
  }
}

async function followJob(id) {
  for (;;) {
    const state = await (await ask(`v1/jobs/${id}`)).json();
    if (!job || job.id !== id) return;
    for (const page of state.pages) if (!sheets.has(page.index)) addPage(id, page);
    const { done, total } = state.progress;
    working(state.status === "queued" ? "Waiting for a free worker…" : `${done} of ${total ?? "?"} pages done`, state.progress);
    if (!["queued", "running"].includes(state.status)) return finish(id, state);
    await new Promise((resolve) => setTimeout(resolve, POLL));
  }
}

async function finish(id, state) {
  job = null;
  if (state.status === "failed" || state.status === "partial") {
    const error = new Error(state.message);
    error.reason = state.reason;
    showError(error);
  }
  if (state.status !== "ok" && state.status !== "partial") return;
  const record = await (await ask(`v1/jobs/${id}/document`)).json();
  for (const found of record.figures) {
    const [x1, y1, x2, y2] = found.bbox_pixels;
    for (const item of items) {
      const [x, y] = [(item.bbox[0] + item.bbox[2]) / 2, (item.bbox[1] + item.bbox[3]) / 2];
      if (item.page === found.page && x1 <= x && x <= x2 && y1 <= y && y <= y2) {
        Object.assign(item, { title: found.label, caption: found.caption });
      }
    }
  }
  $("result").hidden = false;
  draw();
}

function addPage(id, page) {
  const view = sheetOf(page, `v1/jobs/${id}/pages/${page.index + 1}`, on);
  view.sheet.classList.toggle("adding", adding);
  sheets.set(page.index, view);
  const after = [...sheets.keys()].filter((index) => index > page.index).sort((a, b) => a - b)[0];
  $("pages").insertBefore(view.figure, after === undefined ? null : sheets.get(after).figure);
  for (const region of page.regions) {
    items.push({ page: page.index, label: region.label, bbox: region.bbox, score: region.score, found: region, edited: false, removed: false });
  }
  $("result").hidden = false;
  draw();
}

function least(label) {
  return threshold ?? model.thresholds[label] ?? 0.5;
}

function isShown(item) {
  return !item.removed && (item.edited || item.score >= least(item.label));
}

function shownItems() {
  return items.filter(isShown).sort((a, b) => a.page - b.page || a.bbox[1] - b.bbox[1] || a.bbox[0] - b.bbox[0]);
}

const on = {
  adding: () => adding,
  select(item, jump = false) {
    selected = item;
    draw();
    if (jump) item.button.scrollIntoView({ block: "center" });
    (jump ? item.entry : item.button).focus({ preventScroll: true });
  },
  change(item, before) {
    changes.push([item, before]);
    item.edited = true;
    draw();
    item.button.focus({ preventScroll: true });
  },
  remove(item) {
    changes.push([item, stateOf(item)]);
    item.removed = true;
    selected = null;
    draw();
    $("found").focus({ preventScroll: true });
  },
  add(page, bbox) {
    const item = { page: page.index, label: labels()[0], bbox, score: null, edited: true, removed: false };
    items.push(item);
    changes.push([item, { ...stateOf(item), removed: true }]);
    setAdding(false);
    on.select(item);
  },
};

function undo() {
  const [item, before] = changes.pop();
  Object.assign(item, before);
  selected = item.removed ? null : item;
  draw();
}

function labels() {
  return [...new Set([...(model.labels || []), ...items.map((item) => item.label)])];
}

function draw() {
  const visible = shownItems();
  if (selected && !visible.includes(selected)) selected = null;
  for (const item of items) {
    const view = sheets.get(item.page);
    if (!visible.includes(item)) {
      item.button?.remove();
    } else {
      item.button ??= buttonOf(item, view.page, on);
      if (!item.button.isConnected) view.sheet.append(item.button);
      place(item.button, item, view.page, item === selected);
    }
  }
  drawList(visible);
  drawTools(visible);
}

function drawList(visible) {
  const rows = visible.map((item) => {
    item.row ??= rowOf(item);
    const [thumb, words] = item.entry.children;
    const [title, caption, place_] = words.children;
    drawThumb(thumb, item);
    title.textContent = item.title || item.label;
    caption.textContent = item.caption || "";
    place_.textContent = describe(item).split(", ").slice(-2).join(", ");
    item.entry.setAttribute("aria-current", String(item === selected));
    return item.row;
  });
  const list = $("list");
  if (rows.length !== list.children.length || rows.some((row, index) => row !== list.children[index])) {
    list.replaceChildren(...rows);
  }
}

function rowOf(item) {
  const row = document.createElement("li");
  item.entry = document.createElement("button");
  item.entry.type = "button";
  const caption = document.createElement("span");
  caption.className = "caption";
  const words = document.createElement("span");
  words.className = "words";
  words.append(document.createElement("b"), caption, document.createElement("span"));
  const thumb = document.createElement("canvas");
  thumb.setAttribute("aria-hidden", "true");
  item.entry.append(thumb, words);
  item.entry.addEventListener("click", () => on.select(item, true));
  for (const name of ["pointerenter", "focus"]) item.entry.addEventListener(name, () => item.button.classList.add("lit"));
  for (const name of ["pointerleave", "blur"]) item.entry.addEventListener(name, () => item.button.classList.remove("lit"));
  row.append(item.entry);
  return row;
}

// The part of the page inside the box, as large as the canvas allows; drawn again only when the box has changed.
async function drawThumb(canvas, item) {
  const [x1, y1, x2, y2] = item.bbox;
  canvas.classList.toggle("table", item.label === "table");
  if (canvas.dataset.bbox === item.bbox.join()) return;
  canvas.dataset.bbox = item.bbox.join();
  [canvas.width, canvas.height] = [264, 216];
  const { image } = sheets.get(item.page);
  await image.decode().catch(() => {});
  if (canvas.dataset.bbox !== item.bbox.join() || !image.naturalWidth) return;
  const scale = Math.min(canvas.width / (x2 - x1), canvas.height / (y2 - y1));
  const [width, height] = [(x2 - x1) * scale, (y2 - y1) * scale];
  const brush = canvas.getContext("2d");
  brush.imageSmoothingQuality = "high";
  brush.drawImage(image, x1, y1, x2 - x1, y2 - y1, (canvas.width - width) / 2, (canvas.height - height) / 2, width, height);
}

function summary(visible) {
  const counts = labels().map((label) => [visible.filter((item) => item.label === label).length, label]);
  const parts = counts.filter(([count]) => count).map(([count, label]) => `${count} ${label}${count > 1 ? "s" : ""}`);
  return `${source}, ${sheets.size} ${sheets.size === 1 ? "page" : "pages"}${parts.length ? `: ${parts.join(", ")}` : ""}`;
}

function drawTools(visible) {
  $("drop").classList.toggle("small", sheets.size > 0);
  $("found-title").textContent = `Found: ${visible.length}`;
  $("summary").textContent = summary(visible);
  $("nothing").hidden = visible.length > 0;
  $("undo").disabled = changes.length === 0;
  $("own").hidden = threshold === null;
  $("shown").textContent = threshold === null ? "model's own" : threshold.toFixed(2);
  for (const id of ["get-json", "get-coco", "get-data"]) $(id).disabled = sheets.size === 0;
  $("get-crops").disabled = visible.length === 0;
  $("edit").hidden = !selected;
  if (selected) {
    const options = labels().map((label) => new Option(label, label, false, label === selected.label));
    $("label").replaceChildren(...options);
    $("reset").disabled = !selected.found || !selected.edited;
  }
}

function setAdding(value) {
  adding = value;
  $("add").setAttribute("aria-pressed", String(value));
  for (const view of sheets.values()) view.sheet.classList.toggle("adding", value);
}

async function cancel() {
  const ended = job;
  job = null;
  $("work").hidden = true;
  if (ended) await ask(`v1/jobs/${ended.id}`, { method: "DELETE" }).catch(() => {});
}

function pages() {
  return [...sheets.values()].map((view) => view.page).sort((a, b) => a.index - b.index);
}

function cropName(item) {
  const title = (item.title || item.label).replace(/[^\p{L}\p{N}]+/gu, "-").toLowerCase();
  return `${stemOf(source)}-${title}-p${item.page + 1}`;
}

async function getCrops() {
  const files = [];
  for (const item of shownItems()) {
    const taken = files.filter(([name]) => name.startsWith(`${cropName(item)}.`) || name.startsWith(`${cropName(item)}_`)).length;
    const name = `${cropName(item)}${taken ? `_${taken + 1}` : ""}.png`;
    files.push([name, await cropOf(sheets.get(item.page).image, item.bbox)]);
  }
  save(`${stemOf(source)}-crops.zip`, await zipOf(files));
}

function coco() {
  return JSON.stringify(asCoco(source, labels(), pages(), shownItems()), null, 1);
}

async function getData() {
  const files = [["annotations.json", coco()]];
  for (const view of sheets.values()) {
    files.push([`images/${pageName(source, view.page.index)}`, await (await ask(view.image.src)).blob()]);
  }
  save(`${stemOf(source)}-data.zip`, await zipOf(files));
}

const guarded = (action) => () => Promise.resolve(action()).catch(showError);
$("file").addEventListener("change", () => {
  if ($("file").files.length) send($("file").files[0]);
  $("file").value = "";
});
document.addEventListener("dragover", (event) => {
  event.preventDefault();
  $("drop").classList.add("over");
});
document.addEventListener("dragleave", () => $("drop").classList.remove("over"));
document.addEventListener("drop", (event) => {
  event.preventDefault();
  $("drop").classList.remove("over");
  if (event.dataTransfer.files.length) send(event.dataTransfer.files[0]);
});
document.addEventListener("paste", (event) => {
  const file = [...event.clipboardData.files][0];
  if (file) send(file);
});
document.addEventListener("keydown", (event) => {
  if (event.key === "z" && (event.ctrlKey || event.metaKey) && changes.length) {
    event.preventDefault();
    undo();
  }
  if (event.key === "Escape") {
    setAdding(false);
    selected = null;
    draw();
  }
});
$("threshold").addEventListener("input", () => {
  threshold = Number($("threshold").value);
  draw();
});
$("own").addEventListener("click", () => {
  threshold = null;
  $("threshold").focus();
  draw();
});
$("undo").addEventListener("click", undo);
$("cancel").addEventListener("click", guarded(cancel));
$("label").addEventListener("change", () => {
  const before = stateOf(selected);
  selected.label = $("label").value;
  on.change(selected, before);
  $("label").focus();
});
$("remove").addEventListener("click", () => on.remove(selected));
$("reset").addEventListener("click", () => {
  changes.push([selected, stateOf(selected)]);
  Object.assign(selected, { label: selected.found.label, bbox: selected.found.bbox, edited: false });
  draw();
});
$("crop").addEventListener("click", guarded(async () =>
  save(`${cropName(selected)}.png`, await cropOf(sheets.get(selected.page).image, selected.bbox))));
$("add").addEventListener("click", () => setAdding(!adding));
$("get-json").addEventListener("click", () =>
  save(`${stemOf(source)}.json`, JSON.stringify(asJson(source, model.name, pages(), shownItems()), null, 1), "application/json"));
$("get-coco").addEventListener("click", () => save(`${stemOf(source)}-coco.json`, coco(), "application/json"));
$("get-crops").addEventListener("click", guarded(getCrops));
$("get-data").addEventListener("click", guarded(getData));
draw();
loadModel();
