// A page with its boxes: drawn, selected, moved, resized and added, by pointer and by keyboard.

const MIN_SIDE = 4; // pixels of the page image

export function describe(item) {
  const score = item.score == null ? "by hand" : `${Math.round(item.score * 100)} %`;
  return `${item.title || item.label}, page ${item.page + 1}, ${item.edited ? "corrected" : score}`;
}

// What can be changed of an item, and put back.
export function stateOf({ label, bbox, edited, removed }) {
  return { label, bbox, edited, removed };
}

// `on` has select(item), change(item, before), add(page, bbox), remove(item) and adding().
export function sheetOf(page, source, on) {
  const figure = document.createElement("figure");
  figure.id = `page-${page.index + 1}`;
  const title = document.createElement("figcaption");
  title.textContent = `Page ${page.index + 1}`;
  const sheet = document.createElement("div");
  sheet.className = "sheet";
  const image = new Image(page.width, page.height);
  image.alt = `Page ${page.index + 1} of the document`;
  image.draggable = false;
  image.src = source;
  sheet.append(image);
  figure.append(title, sheet);
  sheet.addEventListener("pointerdown", (event) => {
    if (on.adding() && event.button === 0) startNew(event, sheet, page, on);
  });
  return { figure, sheet, image, page };
}

export function buttonOf(item, page, on) {
  const button = document.createElement("button");
  button.type = "button";
  button.className = "box";
  const tag = document.createElement("span");
  tag.className = "tag";
  button.append(tag);
  for (const x of [1, 2]) {
    for (const y of [1, 2]) {
      const corner = document.createElement("span");
      corner.className = "corner";
      corner.dataset.x = x;
      corner.dataset.y = y;
      button.append(corner);
    }
  }
  button.addEventListener("click", () => on.select(item));
  button.addEventListener("pointerdown", (event) => startDrag(event, button, item, page, on));
  button.addEventListener("keydown", (event) => onKey(event, item, page, on));
  return button;
}

export function place(button, item, page, selected) {
  const [x1, y1, x2, y2] = item.bbox;
  button.style.left = `${(100 * x1) / page.width}%`;
  button.style.top = `${(100 * y1) / page.height}%`;
  button.style.width = `${(100 * (x2 - x1)) / page.width}%`;
  button.style.height = `${(100 * (y2 - y1)) / page.height}%`;
  button.classList.toggle("table", item.label === "table");
  button.setAttribute("aria-pressed", String(selected));
  button.setAttribute("aria-label", describe(item));
  button.firstChild.textContent = item.title || item.label;
}

function pointOn(event, sheet, page) {
  const frame = sheet.getBoundingClientRect();
  return [
    ((event.clientX - frame.left) / frame.width) * page.width,
    ((event.clientY - frame.top) / frame.height) * page.height,
  ];
}

function follow(target, event, move, end) {
  event.preventDefault();
  target.setPointerCapture(event.pointerId);
  const finish = () => {
    target.removeEventListener("pointermove", move);
    target.removeEventListener("pointerup", finish);
    target.removeEventListener("pointercancel", finish);
    end();
  };
  target.addEventListener("pointermove", move);
  target.addEventListener("pointerup", finish);
  target.addEventListener("pointercancel", finish);
}

function startDrag(event, button, item, page, on) {
  if (event.button !== 0 || on.adding() || button.getAttribute("aria-pressed") !== "true") return;
  const sheet = button.parentElement;
  const [startX, startY] = pointOn(event, sheet, page);
  const before = stateOf(item);
  const from = item.bbox;
  const { x, y } = event.target.dataset;
  const move = (later) => {
    const [atX, atY] = pointOn(later, sheet, page);
    item.bbox = changed(from, atX - startX, atY - startY, x, y, page);
    place(button, item, page, true);
  };
  follow(button, event, move, () => {
    if (from.some((value, index) => value !== item.bbox[index])) on.change(item, before);
  });
  button.focus();
}

function changed(from, dx, dy, x, y, page) {
  let [x1, y1, x2, y2] = from;
  if (!x) {
    dx = Math.min(Math.max(dx, -x1), page.width - x2);
    dy = Math.min(Math.max(dy, -y1), page.height - y2);
    return [x1 + dx, y1 + dy, x2 + dx, y2 + dy].map(rounded);
  }
  if (x === "1") x1 = Math.min(Math.max(x1 + dx, 0), x2 - MIN_SIDE);
  else x2 = Math.max(Math.min(x2 + dx, page.width), x1 + MIN_SIDE);
  if (y === "1") y1 = Math.min(Math.max(y1 + dy, 0), y2 - MIN_SIDE);
  else y2 = Math.max(Math.min(y2 + dy, page.height), y1 + MIN_SIDE);
  return [x1, y1, x2, y2].map(rounded);
}

function rounded(value) {
  return Math.round(value * 100) / 100;
}

function onKey(event, item, page, on) {
  const steps = { ArrowLeft: [-1, 0], ArrowRight: [1, 0], ArrowUp: [0, -1], ArrowDown: [0, 1] };
  if (event.key === "Delete" || event.key === "Backspace") {
    event.preventDefault();
    on.remove(item);
  } else if (steps[event.key] && event.currentTarget.getAttribute("aria-pressed") === "true") {
    event.preventDefault();
    const before = stateOf(item);
    const size = page.width / 250;
    const [dx, dy] = steps[event.key].map((step) => step * size);
    item.bbox = changed(item.bbox, dx, dy, event.shiftKey ? "2" : undefined, "2", page);
    on.change(item, before);
  }
}

function startNew(event, sheet, page, on) {
  const [startX, startY] = pointOn(event, sheet, page);
  const ghost = document.createElement("span");
  ghost.className = "box";
  sheet.append(ghost);
  const inside = (value, most) => Math.min(Math.max(value, 0), most);
  let bbox = null;
  const move = (later) => {
    const [atX, atY] = pointOn(later, sheet, page);
    const xs = [inside(startX, page.width), inside(atX, page.width)].sort((a, b) => a - b);
    const ys = [inside(startY, page.height), inside(atY, page.height)].sort((a, b) => a - b);
    bbox = [xs[0], ys[0], xs[1], ys[1]].map(rounded);
    ghost.style.left = `${(100 * bbox[0]) / page.width}%`;
    ghost.style.top = `${(100 * bbox[1]) / page.height}%`;
    ghost.style.width = `${(100 * (bbox[2] - bbox[0])) / page.width}%`;
    ghost.style.height = `${(100 * (bbox[3] - bbox[1])) / page.height}%`;
  };
  follow(sheet, event, move, () => {
    ghost.remove();
    if (bbox && bbox[2] - bbox[0] >= MIN_SIDE && bbox[3] - bbox[1] >= MIN_SIDE) on.add(page, bbox);
  });
}
