// The page: takes images, has the worker classify them one after another, and shows the answers.
"use strict";

const $ = (id) => document.getElementById(id);
const settings = JSON.parse($("settings").textContent);
const PALETTE = [[0, 0, 4], [40, 11, 84], [101, 21, 110], [159, 42, 99], [212, 72, 66], [245, 125, 21], [250, 193, 39], [252, 255, 164]]; // inferno
const OPACITY = 0.75; // of the largest value of a map

// ---- the worker, which holds the engine

let worker = null;
const calls = new Map();
let turn = Promise.resolve(); // a call waits for the one before it
let number = 0;

function startWorker() {
  const source = new Blob([$("worker").textContent], { type: "text/javascript" });
  worker = new Worker(URL.createObjectURL(source));
  worker.onmessage = ({ data: { id, result, error } }) => {
    const { resolve, reject } = calls.get(id);
    calls.delete(id);
    if (error === undefined) resolve(result);
    else reject(new Error(error));
  };
  worker.onerror = ({ message }) => {
    for (const { reject } of calls.values()) reject(new Error(message));
    calls.clear();
  };
}

function call(kind, job, transfer = []) {
  const done = turn.then(
    () =>
      new Promise((resolve, reject) => {
        const id = number++;
        calls.set(id, { resolve, reject });
        worker.postMessage({ id, kind, ...job }, transfer);
      }),
  );
  turn = done.catch(() => {});
  return done;
}

function bytesOf(id) {
  return Uint8Array.from(atob($(id).textContent), (c) => c.charCodeAt(0));
}

function unzipped(bytes) {
  const stream = new Blob([bytes]).stream().pipeThrough(new DecompressionStream("gzip"));
  return new Response(stream).arrayBuffer();
}

async function start() {
  try {
    startWorker();
    const [code, weights] = [await unzipped(bytesOf("engine")), bytesOf("weights").buffer];
    await call("load", { code, weights }, [code, weights]);
    say("");
  } catch (error) {
    $("status").className = "failed";
    say(`This browser cannot run the model (${error.message}). Chrome 91, Firefox 113, Safari 16.4 and later can.`);
    for (const button of [$("choose"), $("camera")]) button.disabled = true;
  }
}

function say(text) {
  $("status").textContent = text;
}

// ---- words

// As people say it: without the WordNet id, or the name once more, that lists of names begin with.
function shortName(id) {
  const name = settings.names[id];
  const [first, ...rest] = name.split(" ");
  const others = rest.join(" ");
  return others && (others === first || /^n\d{8}$/.test(first)) ? others : name;
}

const percent = (p) => `${(100 * p).toFixed(1)} %`;

// ---- a card: an image, its first classes, and the map of one of them

// Fills a card with an answer; called again for the next frame of a camera.
function fill(card, result) {
  card.result = result;
  const facts = [`${result.width} × ${result.height}`, `${result.ms.toFixed(0)} ms`];
  if (!result.exact) facts.push("transparent parts read as black");
  card.querySelector(".facts").textContent = facts.join(" · ");
  const verdict = card.querySelector(".verdict");
  verdict.hidden = !result.isNone;
  verdict.textContent = result.isNone ? `${settings.none}; nearest:` : "";
  card.classList.toggle("refused", result.isNone);
  const list = card.querySelector(".classes");
  while (list.children.length < result.ids.length) list.append(classRow(card, list.children.length));
  result.ids.forEach((id, i) => {
    const button = list.children[i].firstChild;
    const share = percent(result.probabilities[i]);
    button.querySelector(".name").textContent = shortName(id);
    button.querySelector(".share").textContent = share;
    button.style.setProperty("--width", `${100 * result.probabilities[i]}%`);
    button.title = shortName(id);
    button.setAttribute("aria-label", `${shortName(id)}, ${share}; show where it is seen`);
  });
  card.querySelector(".frame").style.setProperty("--ratio", result.width / result.height);
  place(card.querySelector("canvas"), result);
  drawMap(card);
}

function classRow(card, index) {
  const row = document.createElement("li");
  const button = document.createElement("button");
  button.type = "button";
  button.setAttribute("aria-pressed", "false");
  button.innerHTML = '<span class="name"></span><span class="share"></span>';
  const look = (shown) => () => {
    card.pointed = shown;
    drawMap(card);
  };
  button.onpointerenter = (event) => event.pointerType === "mouse" && look(index)();
  button.onpointerleave = (event) => event.pointerType === "mouse" && look(null)();
  button.onfocus = () => button.matches(":focus-visible") && look(index)();
  button.onblur = look(null);
  button.onclick = () => {
    card.pinned = card.pinned === index ? null : index;
    for (const each of card.querySelectorAll(".classes button")) {
      each.setAttribute("aria-pressed", String(each === button && card.pinned === index));
    }
    drawMap(card);
  };
  row.append(button);
  return row;
}

// Lays the canvas over the part of the image that the network sees.
function place(canvas, { width, height }) {
  const { resize, resize_size: resized, crop_size: crop, longest_side: longest } = settings;
  const short = Math.min(width, height);
  const share = [width, height].map((side) => {
    const kept = resize === "squash" ? side : Math.min(side, short * longest);
    const becomes = resize === "squash" ? resized : Math.floor((resized * kept) / short);
    return (crop / becomes) * (kept / side);
  });
  canvas.style.width = `${100 * share[0]}%`;
  canvas.style.height = `${100 * share[1]}%`;
  canvas.style.left = `${50 * (1 - share[0])}%`;
  canvas.style.top = `${50 * (1 - share[1])}%`;
}

function drawMap(card) {
  const shown = card.pointed ?? card.pinned;
  const map = shown === "any" ? card.anyMap : card.result?.maps[shown];
  card.querySelector(".frame").classList.toggle("mapped", map !== undefined);
  if (map === undefined) return;
  const canvas = card.querySelector("canvas");
  const side = (canvas.width = canvas.height = Math.sqrt(map.length));
  const pixels = new ImageData(side, side);
  map.forEach((value, i) => pixels.data.set([...color(value / 255), OPACITY * value], 4 * i));
  canvas.getContext("2d").putImageData(pixels, 0, 0);
}

function color(value) {
  const at = value * (PALETTE.length - 1);
  const i = Math.min(Math.floor(at), PALETTE.length - 2);
  return PALETTE[i].map((low, c) => low + (at - i) * (PALETTE[i + 1][c] - low));
}

function newCard(title) {
  const card = $("card").content.firstElementChild.cloneNode(true);
  card.querySelector("h3").textContent = title;
  card.pointed = card.pinned = null;
  return card;
}

// ---- images

const waiting = [];
let working = false;
let added = 0;

function add(files) {
  if (files.length === 0) return;
  for (const file of files) {
    const card = newCard(file.name);
    card.file = file;
    card.classList.add("waiting");
    const item = document.createElement("li");
    item.append(card);
    $("cards").append(item);
    waiting.push(card);
    added++;
  }
  if (!working) work();
}

async function work() {
  working = true;
  while (waiting.length) {
    const card = waiting.shift();
    count();
    try {
      finish(card, await call("classify", { file: card.file, withPreview: true }));
    } catch (error) {
      refuse(card, error.message);
    }
  }
  working = false;
  count();
}

function finish(card, result) {
  const { preview, ...answer } = result;
  const image = card.querySelector("img");
  image.src = URL.createObjectURL(preview);
  image.onload = () => URL.revokeObjectURL(image.src);
  image.alt = card.file.name;
  const picture = card.querySelector(".picture");
  picture.setAttribute("aria-label", `${card.file.name}, enlarge`);
  picture.onclick = () => enlarge(card);
  card.classList.remove("waiting");
  fill(card, answer);
}

function refuse(card, reason) {
  card.parentElement.remove();
  const problem = document.createElement("li");
  problem.textContent = `${card.file.name}: ${reason}.`;
  $("problems").append(problem);
  $("problems").hidden = false;
}

const answered = () => Array.from($("cards").querySelectorAll(".card:not(.waiting)"));

function count() {
  const cards = answered();
  const images = (n) => `${n.toLocaleString("en")} image${n === 1 ? "" : "s"}`;
  $("results").hidden = added === 0;
  $("csv").disabled = cards.length === 0;
  if (working) {
    $("count").textContent = `${cards.length} of ${images($("cards").children.length)}`;
    say("Classifying…");
    return;
  }
  const ms = cards.map((card) => card.result.ms).sort((a, b) => a - b)[cards.length >> 1];
  const time = cards.length ? `, ${ms.toFixed(0)} ms${cards.length > 1 ? " each" : ""}` : "";
  $("count").textContent = images(cards.length) + time;
  const last = cards.at(-1);
  say(last ? `${last.file.name}: ${verdictOf(last.result)}` : "");
}

function verdictOf({ isNone, ids, probabilities }) {
  return isNone ? settings.none : `${shortName(ids[0])}, ${percent(probabilities[0])}`;
}

$("clear").onclick = () => {
  waiting.length = 0;
  added = 0;
  for (const list of [$("cards"), $("problems")]) list.replaceChildren();
  $("problems").hidden = true;
  count();
  say("");
  $("choose").focus();
};

// ---- the table, with the columns of `squeezenet infer --format csv`

function table() {
  const rows = [["image", "rank", "class_id", "probability", "name"]];
  for (const { file, result } of answered()) {
    const lines = Array.from(result.ids, (id, i) => [id, result.probabilities[i].toFixed(7), settings.names[id]]);
    if (result.isNone) lines.unshift(["", "", settings.none]);
    lines.forEach((line, i) => rows.push([file.name, i + 1, ...line]));
  }
  const quoted = (value) => (/[",\r\n]/.test(value) ? `"${String(value).replaceAll('"', '""')}"` : value);
  return rows.map((row) => row.map(quoted).join(",") + "\n").join("");
}

$("csv").onclick = () => {
  const link = document.createElement("a");
  link.href = URL.createObjectURL(new Blob([table()], { type: "text/csv" }));
  link.download = "classes.csv";
  link.click();
  setTimeout(() => URL.revokeObjectURL(link.href), 10_000);
};

// ---- an image enlarged, and the map of any class

function enlarge(from) {
  const card = newCard("");
  card.file = from.file;
  const image = card.querySelector("img");
  image.src = URL.createObjectURL(from.file);
  image.alt = from.file.name;
  card.querySelector(".picture").tabIndex = -1;
  fill(card, from.result);
  $("large-title").textContent = from.file.name;
  $("large-body").replaceChildren(card);
  $("any").value = "";
  $("any").onchange = () => showAny(card);
  $("large").onclose = () => {
    URL.revokeObjectURL(image.src);
    $("large-body").replaceChildren();
  };
  $("large").showModal();
}

async function showAny(card) {
  const id = settings.names.findIndex((_, i) => shortName(i) === $("any").value);
  card.pinned = null;
  if (id >= 0) {
    const { maps } = await call("classify", { file: card.file, shown: [id] });
    card.anyMap = maps[0];
    card.pinned = "any";
  }
  drawMap(card);
}

$("class-names").append(
  ...settings.names.map((_, i) => {
    const option = document.createElement("option");
    option.value = shortName(i);
    return option;
  }),
);

// ---- the camera

let stream = null;

async function openCamera() {
  if (!navigator.mediaDevices) {
    say("This browser gives pages that were opened as files no camera.");
    return;
  }
  $("camera").disabled = true; // while the browser asks
  try {
    stream = await navigator.mediaDevices.getUserMedia({ video: { facingMode: "environment" } });
  } catch (error) {
    say(`No camera: ${error.message}.`);
    return;
  } finally {
    $("camera").disabled = false;
  }
  const card = newCard("Camera");
  const video = document.createElement("video");
  Object.assign(video, { muted: true, playsInline: true, srcObject: stream });
  card.querySelector("img").replaceWith(video);
  card.querySelector(".picture").tabIndex = -1;
  const keep = document.createElement("button");
  keep.type = "button";
  keep.textContent = "Keep this image";
  keep.onclick = () => keepFrame(video);
  const actions = document.createElement("p");
  actions.className = "actions";
  actions.append(keep);
  card.querySelector(".text").append(actions);
  $("live").replaceChildren(card);
  $("live").hidden = false;
  $("camera").setAttribute("aria-pressed", "true");
  await video.play();
  say("");
  const own = stream;
  while (stream === own) {
    const bitmap = await createImageBitmap(video);
    const result = await call("classify", { bitmap }, [bitmap]);
    fill(card, result);
  }
}

function closeCamera() {
  for (const track of stream.getTracks()) track.stop();
  stream = null;
  $("live").hidden = true;
  $("live").replaceChildren();
  $("camera").setAttribute("aria-pressed", "false");
}

function keepFrame(video) {
  const canvas = document.createElement("canvas");
  [canvas.width, canvas.height] = [video.videoWidth, video.videoHeight];
  canvas.getContext("2d").drawImage(video, 0, 0);
  const time = new Date().toTimeString().slice(0, 8).replaceAll(":", ".");
  canvas.toBlob((blob) => add([new File([blob], `camera ${time}.png`, { type: "image/png" })]));
}

$("camera").onclick = () => (stream === null ? openCamera() : closeCamera());

// ---- what a person does

$("choose").onclick = () => $("files").click();
$("files").onchange = () => {
  add($("files").files);
  $("files").value = "";
};
document.onpaste = ({ clipboardData }) => add(clipboardData.files);

let depth = 0; // of the elements that what is dragged is over
const dragging = (change) => (event) => {
  event.preventDefault();
  depth += change;
  document.documentElement.classList.toggle("over", depth > 0);
};
document.ondragenter = dragging(1);
document.ondragleave = dragging(-1);
document.ondragover = (event) => event.preventDefault();
document.ondrop = (event) => {
  depth = 0;
  dragging(0)(event);
  add(event.dataTransfer.files);
};

$("about-open").onclick = () => $("about").showModal();
for (const dialog of document.querySelectorAll("dialog")) {
  dialog.onclick = ({ target }) => (target === dialog || "close" in target.dataset) && dialog.close();
}

start();
