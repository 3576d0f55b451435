// SPDX-License-Identifier: Apache-2.0
"use strict";

const data = JSON.parse(document.getElementById("data").textContent);
const byId = (id) => document.getElementById(id);
const canvas = byId("map");
const context = canvas.getContext("2d");
const GUTTER = 92, EDGE = 14, CLOSEST = 48;
const UNITS = ["B", "KiB", "MiB", "GiB", "TiB", "PiB"];

const count = Math.ceil(data.size / data.cell);
const columns = data.columns;
const rows = Math.ceil(count / columns);
const stretch = rows * 2 <= columns ? 2 : 1; // how much higher than wide a dot is, for a map that is about square
let cells, owners, shown = null, mark = 0, hover = null;
const tall = () => zoom * stretch;
let zoom = 1, left = 0, top_ = 0, width = 0, height = 0, image = null;

/* ------------------------------------------------------------------------------------------------ what there is -- */

async function unpacked(text) {
  const packed = Uint8Array.from(atob(text), (character) => character.charCodeAt(0));
  const stream = new Blob([packed]).stream().pipeThrough(new DecompressionStream("deflate"));
  return new Uint8Array(await new Response(stream).arrayBuffer());
}

const hex = (address) => "0x" + address.toString(16);

function amount(size) {
  let unit = 0;
  for (; size >= 1024 && unit < UNITS.length - 1; unit++) size /= 1024;
  return (Math.round(size * 10) / 10) + " " + UNITS[unit];
}

function place(address) {
  let unit = 0;
  for (; address && address % 1024 === 0 && unit < UNITS.length - 1; unit++) address /= 1024;
  return address ? address + " " + UNITS[unit] : "0";
}

function runOf(cell) {
  const content = cells[cell];
  let first = cell, last = cell;
  while (first > 0 && cells[first - 1] === content) first--;
  while (last + 1 < count && cells[last + 1] === content) last++;
  return [first, last];
}

function kindOf(address) {
  const range = data.ranges.find(([start, size]) => start < address + data.cell && address < start + size);
  return range ? range[2] : "none";
}

/* ---------------------------------------------------------------------------------------------------- how it looks */

const isDark = () => document.documentElement.dataset.theme === "dark";
const ink = (name) => getComputedStyle(document.documentElement).getPropertyValue(name).trim();

function paint() {
  const pixels = new ImageData(columns, rows);
  const words = new Uint32Array(pixels.data.buffer);
  const palette = data.contents.map((content, number) => {
    const value = parseInt((isDark() ? content.dark : content.light).slice(1), 16);
    const faded = shown !== null && shown !== number ? 0x30 : 0xff;
    return ((faded << 24) | ((value & 0xff) << 16) | (value & 0xff00) | (value >> 16)) >>> 0;
  });
  for (let cell = 0; cell < count; cell++) words[cell] = palette[cells[cell]];
  image = new OffscreenCanvas(columns, rows);
  image.getContext("2d").putImageData(pixels, 0, 0);
  for (const [number, content] of data.contents.entries()) {
    const swatch = document.querySelector(`[data-content="${number}"] .swatch`);
    if (swatch) swatch.style.background = isDark() ? content.dark : content.light;
  }
  draw();
}

function step() {
  let size = columns * data.cell;
  while ((size / (columns * data.cell)) * tall() < 26) size *= 2;
  return size;
}

function draw() {
  const ratio = window.devicePixelRatio || 1;
  context.setTransform(ratio, 0, 0, ratio, 0, 0);
  context.clearRect(0, 0, width, height);
  context.save();
  context.beginPath();
  context.rect(GUTTER, 0, width - GUTTER, height);
  context.clip();
  context.imageSmoothingEnabled = zoom < 1;
  context.drawImage(image, left, top_, columns * zoom, rows * tall());
  context.strokeStyle = ink("--line");
  context.strokeRect(left - 0.5, top_ - 0.5, columns * zoom + 1, rows * tall() + 1);
  if (hover !== null && hover !== mark) outline(hover, ink("--faint"), 1);
  outline(mark, ink("--ink"), 2);
  context.restore();
  axis();
}

function outline(cell, colour, thick) {
  const wide = Math.max(zoom, 7), high = Math.max(tall(), 7);
  const x = left + (cell % columns + 0.5) * zoom - wide / 2 - 1, y = top_ + (Math.floor(cell / columns) + 0.5) * tall() - high / 2 - 1;
  context.lineWidth = thick + 2;
  context.strokeStyle = ink("--card");
  context.strokeRect(x, y, wide + 2, high + 2);
  context.lineWidth = thick;
  context.strokeStyle = colour;
  context.strokeRect(x, y, wide + 2, high + 2);
  context.lineWidth = 1;
}

function axis() {
  context.font = '12px ui-monospace, "DejaVu Sans Mono", monospace';
  context.textAlign = "right";
  context.textBaseline = "middle";
  context.strokeStyle = ink("--faint");
  const size = step(), edge = Math.max(left, GUTTER);
  for (let address = 0; address < data.size; address += size) {
    const y = top_ + Math.floor(address / data.cell / columns) * tall();
    if (y < -1 || y > height) continue;
    context.fillStyle = ink("--faint");
    context.fillText(place(address), edge - 10, Math.max(y, 8));
    context.beginPath();
    context.moveTo(edge - 6, Math.round(y) + 0.5);
    context.lineTo(edge, Math.round(y) + 0.5);
    context.stroke();
  }
}

function tell() {
  const cell = hover ?? mark, address = cell * data.cell, [first, last] = runOf(cell);
  const content = data.contents[cells[cell]];
  byId("where").textContent = hex(address) + " – " + hex(Math.min(address + data.cell, data.size) - 1);
  byId("content").textContent = content.name;
  byId("run").textContent = amount(Math.min((last + 1) * data.cell, data.size) - first * data.cell) + " from " + hex(first * data.cell);
  byId("kind").textContent = kindOf(address);
  byId("owner").textContent = data.names[owners ? owners[cell] : 0] || "not known";
}

/* ------------------------------------------------------------------------------------------------- moving about --- */

function bound() {
  const room = width - GUTTER - EDGE, wide = columns * zoom, high = rows * tall();
  left = wide <= room ? GUTTER + (room - wide) / 2 : Math.min(GUTTER, Math.max(left, width - EDGE - wide));
  top_ = high <= height - 2 * EDGE ? EDGE : Math.min(EDGE, Math.max(top_, height - EDGE - high));
}

const fitting = () => Math.min((width - GUTTER - EDGE) / columns, (height - 2 * EDGE) / rows / stretch);

function zoomTo(wanted, x, y) {
  const before = zoom;
  zoom = Math.min(Math.max(wanted, fitting()), CLOSEST);
  left = x - (x - left) * zoom / before;
  top_ = y - (y - top_) * zoom / before;
  bound();
  draw();
}

function zoomAtMark(factor) {
  zoomTo(zoom * factor, left + (mark % columns + 0.5) * zoom, top_ + (Math.floor(mark / columns) + 0.5) * tall());
  reveal();
}

function fit() {
  zoom = fitting();
  bound();
  draw();
}

function reveal() {
  const x = left + (mark % columns) * zoom, y = top_ + Math.floor(mark / columns) * tall();
  if (x < GUTTER) left += GUTTER - x;
  if (x + zoom > width - EDGE) left -= x + zoom - width + EDGE;
  if (y < EDGE) top_ += EDGE - y;
  if (y + tall() > height - EDGE) top_ -= y + tall() - height + EDGE;
  bound();
  draw();
}

function goTo(cell) {
  mark = Math.min(Math.max(cell, 0), count - 1);
  hover = null;
  reveal();
  tell();
}

function cellAt(event) {
  const box = canvas.getBoundingClientRect();
  const column = Math.floor((event.clientX - box.left - left) / zoom), row = Math.floor((event.clientY - box.top - top_) / tall());
  const cell = row * columns + column;
  return column >= 0 && column < columns && row >= 0 && cell < count && event.clientX - box.left >= GUTTER ? cell : null;
}

function show(content) {
  shown = shown === content ? null : content;
  for (const button of document.querySelectorAll("#legend button")) {
    button.setAttribute("aria-pressed", String(Number(button.dataset.content) === shown));
  }
  paint();
}

function toggleTheme() {
  document.documentElement.dataset.theme = isDark() ? "light" : "dark";
  paint();
}

/* ------------------------------------------------------------------------------------------------- what one does -- */

const page = () => Math.max(Math.floor(height / tall() / 2), 1) * columns;
const KEYS = {
  ArrowLeft: (times) => goTo(mark - times), ArrowRight: (times) => goTo(mark + times),
  ArrowUp: (times) => goTo(mark - columns * times), ArrowDown: (times) => goTo(mark + columns * times),
  PageUp: () => goTo(mark - page()), PageDown: () => goTo(mark + page()),
  Home: () => goTo(0), End: () => goTo(count - 1),
  "+": () => zoomAtMark(1.5), "=": () => zoomAtMark(1.5), "-": () => zoomAtMark(1 / 1.5), 0: fit,
  n: () => goTo(runOf(mark)[1] + 1), p: () => goTo(runOf(Math.max(runOf(mark)[0] - 1, 0))[0]),
  g: () => byId("address").focus(), t: toggleTheme, Escape: () => { if (shown !== null) show(shown); },
};

document.addEventListener("keydown", (event) => {
  if (event.ctrlKey || event.metaKey || event.altKey || event.target.tagName === "INPUT") return;
  const number = Number(event.key) - 1;
  if (event.key !== "0" && number >= 0 && number < data.contents.length) show(number);
  else if (Object.hasOwn(KEYS, event.key)) KEYS[event.key](event.shiftKey ? 16 : 1);
  else return;
  event.preventDefault();
});

let pressed = null;
canvas.addEventListener("pointerdown", (event) => {
  pressed = { x: event.clientX, y: event.clientY, left, top: top_, moved: false };
  canvas.setPointerCapture(event.pointerId);
});
canvas.addEventListener("pointermove", (event) => {
  if (pressed) {
    pressed.moved ||= Math.hypot(event.clientX - pressed.x, event.clientY - pressed.y) > 4;
    if (pressed.moved) {
      left = pressed.left + event.clientX - pressed.x;
      top_ = pressed.top + event.clientY - pressed.y;
      bound();
    }
  }
  hover = cellAt(event);
  draw();
  tell();
});
canvas.addEventListener("pointerup", (event) => {
  const cell = cellAt(event);
  if (pressed && !pressed.moved && cell !== null) goTo(cell);
  pressed = null;
});
canvas.addEventListener("pointerleave", () => { hover = null; draw(); tell(); });
canvas.addEventListener("wheel", (event) => {
  event.preventDefault();
  const box = canvas.getBoundingClientRect();
  zoomTo(zoom * Math.exp(-event.deltaY / 300), event.clientX - box.left, event.clientY - box.top);
}, { passive: false });

byId("go").addEventListener("submit", (event) => {
  event.preventDefault();
  const address = Number(byId("address").value.trim());
  const there = byId("address").value.trim() !== "" && address >= 0 && address < data.size;
  byId("address").classList.toggle("wrong", !there);
  if (!there) return;
  canvas.focus();
  zoom = Math.max(zoom, 6);
  goTo(Math.floor(address / data.cell));
});
byId("in").addEventListener("click", () => zoomAtMark(1.5));
byId("out").addEventListener("click", () => zoomAtMark(1 / 1.5));
byId("fit").addEventListener("click", fit);
byId("theme").addEventListener("click", toggleTheme);

function resize() {
  const fitted = image === null || Math.abs(zoom - fitting()) < 0.001, ratio = window.devicePixelRatio || 1;
  width = canvas.clientWidth;
  height = canvas.clientHeight;
  canvas.width = Math.round(width * ratio);
  canvas.height = Math.round(height * ratio);
  if (image === null) return;
  if (fitted) fit();
  bound();
  draw();
}

function legend() {
  for (const [number, content] of data.contents.entries()) {
    if (!content.bytes) continue;
    const button = document.createElement("button");
    button.type = "button";
    button.dataset.content = number;
    button.title = "Show these alone (" + (number + 1) + ")";
    button.setAttribute("aria-pressed", "false");
    for (const [name, text] of [["swatch", ""], ["name", content.name], ["share", amount(content.bytes) + " · " + content.share], ["meaning", content.meaning]]) {
      const part = document.createElement("span");
      part.className = name;
      part.textContent = text;
      button.append(part);
    }
    button.addEventListener("click", () => show(number));
    byId("legend").append(button);
  }
}

async function start() {
  document.documentElement.dataset.theme = matchMedia("(prefers-color-scheme: dark)").matches ? "dark" : "light";
  cells = await unpacked(data.cells);
  if (data.owners) owners = new Uint16Array((await unpacked(data.owners)).buffer);
  legend();
  resize();
  zoom = fitting();
  bound();
  paint();
  new ResizeObserver(resize).observe(canvas);
  const asked = Number(location.hash.slice(1));
  if (location.hash && asked >= 0 && asked < data.size) goTo(Math.floor(asked / data.cell));
  tell();
  document.documentElement.dataset.ready = "yes";
}

start();
