// The whole interface: a picture comes in by file, drop, paste or camera; its faces are marked and described.

import { describe, predict } from "./backend.js";
import { upright } from "./orientation.js";

const $ = (id) => document.getElementById(id);
const SVG = "http://www.w3.org/2000/svg";
const HINT = "Profiles, masked faces, faces tilted by more than 45 degrees and faces below 24 pixels are not found.";
let about = null; // of the network and its limits
let loading = false; // whether `about` is on its way
let early = null; // [file, words] that was chosen before there was `about`
let shown = null; // {blob, address, words} of the picture on the page: `words` are said beside its answer
let by = "all"; // whose coverage the sets promise: that of all faces together, or of the faces of each class
let asking = null; // AbortController of the prediction on its way
let opening = null; // {} of the camera that the browser was asked for
let following = null; // {} of the live predictions that run, see `follow`

const LIVE_SIDE = 640; // pixels of the longer side of a live frame
const RATED = 20; // answers, of which the rate of live predictions is
const SPOKEN_MS = 2000; // between two sentences of a live prediction, for screen readers

// --- parts of the page -------------------------------------------------------------------------------------------

function element(name, attributes = {}, ...children) {
  const made = document.createElement(name);
  for (const [key, value] of Object.entries(attributes)) made.setAttribute(key, value);
  made.append(...children);
  return made;
}

function drawn(name, attributes, ...children) {
  const made = document.createElementNS(SVG, name);
  for (const [key, value] of Object.entries(attributes)) made.setAttribute(key, value);
  made.append(...children);
  return made;
}

const perCent = (share) => `${Math.round(100 * share)} %`;
const either = (names) => names.join(" or ");
const count = (number, noun) => `${number} ${noun}${number === 1 ? "" : "s"}`;

function say(text) {
  $("status").textContent = text;
}

function report(problem) {
  $("problem").textContent = problem;
  $("problem").hidden = !problem;
}

// --- a face ------------------------------------------------------------------------------------------------------

// How sure an answer is, in plain words; the first is the class of its mark.
function trust(face) {
  const [, , width, height] = face.box;
  const fits = either(face.emotions.length ? face.emotions : [face.emotion]);
  if (Math.sqrt(width * height) < about.limits.small_side)
    return ["unsure", `Uncertain: the face is smaller than ${about.limits.small_side} pixels. It may be ${fits}; nothing is promised.`];
  if (!face.uncertain) return ["sure", face.emotions.length ? `Only ${fits} fits.` : `Most probable: ${fits}.`];
  return ["unsure", face.emotions.length > 1 ? `Uncertain: it may be ${fits}.` : "Uncertain: no emotion reaches 50 %."];
}

function promise() {
  if (about.coverage === null) return "This network has no prediction sets. An answer is uncertain where no emotion reaches 50 %.";
  const scope = by === "class"
    ? [`cases of each emotion.`, about.unpromised.length ? ` Nothing is promised for ${either(about.unpromised)}: there were too few faces to calibrate on.` : ""].join("")
    : "cases, over all faces together. Of a single emotion it may be fewer.";
  return `The bold emotions are the likely ones. For faces like those of the data set that the network was trained on, they include the label that people gave in ${Math.round(1000 * about.coverage) / 10} of 100 ${scope}`;
}

function bars(face) {
  const rows = Object.entries(face.probabilities)
    .sort((one, other) => other[1] - one[1])
    .map(([name, probability]) => {
      const bar = element("div");
      bar.style.width = `${100 * probability}%`; // set by script: the page's policy allows no style attribute
      const track = element("td", { "aria-hidden": "true" }, element("div", { class: "track" }, bar));
      const inSet = face.emotions.length ? face.emotions.includes(name) : name === face.emotion;
      const row = element("tr", inSet ? { class: "in-set" } : {});
      row.append(element("th", { scope: "row" }, name), track, element("td", {}, perCent(probability)));
      return row;
    });
  return element("table", { "aria-label": "Probabilities" }, element("tbody", {}, ...rows));
}

function described(face, index) {
  const [kind, words] = trust(face);
  const parts = element("div", { class: "parts" }, bars(face));
  if (face.map) parts.append(element("img", { class: "map", src: face.map, alt: `What speaks for ${face.emotion} on face ${index + 1}` }));
  const item = element("li", {}, element("h3", {}, `Face ${index + 1}: ${either(face.emotions.length ? face.emotions : [face.emotion])}`));
  item.append(element("p", { class: kind }, words), parts);
  return item;
}

function boxed(face, index) {
  const [x, y, width, height] = face.box;
  const turn = `rotate(${face.tilt} ${x + width / 2} ${y + height / 2})`;
  return drawn("g", { transform: turn },
    drawn("rect", { class: "edge", x, y, width, height }),
    drawn("rect", { class: "box", x, y, width, height }),
    drawn("rect", { class: "plate", x, y }),
    drawn("text", { x, y, dx: "0.79em", dy: "0.79em" }, String(index + 1))); // the middle of the plate
}

// Numbers on boxes have the same size on the screen, whatever the size of the picture there: page.css multiplies by it.
function fit(boxes) {
  const width = boxes.viewBox.baseVal?.width; // in Firefox there is no viewBox before the first answer
  if (width) boxes.style.setProperty("--unit", width / (boxes.parentElement.clientWidth || width)); // of a pixel on the screen
}

// A face and its box light up together.
function linked(item, box) {
  const light = (on) => [item, box].forEach((one) => one.classList.toggle("lit", on));
  item.addEventListener("pointerenter", () => light(true));
  item.addEventListener("pointerleave", () => light(false));
}

// --- an answer ---------------------------------------------------------------------------------------------------

function show(answer, maps) {
  const { width, height, faces, notes } = answer;
  $("result").hidden = false;
  $("image").alt = faces.length ? `The picture; ${count(faces.length, "face")} marked` : "The picture; no face found";
  $("picture").style.aspectRatio = `${width} / ${height}`; // also where the browser cannot show the picture
  $("boxes").setAttribute("viewBox", `0 0 ${width} ${height}`);
  fit($("boxes"));
  const boxes = faces.map(boxed);
  const items = faces.map(described);
  items.forEach((item, index) => linked(item, boxes[index]));
  $("boxes").replaceChildren(...boxes);
  $("faces").replaceChildren(...items);
  const words = faces.length ? [promise(), ...notes] : notes;
  $("notes").replaceChildren(...words.map((text) => element("p", { class: "soft" }, text)));
  $("result-title").textContent = faces.length ? count(faces.length, "face") : "No face found";
  $("maps").hidden = !faces.length;
  $("maps").setAttribute("aria-pressed", String(maps));
  $("key").hidden = !maps;
  const names = faces.map((face, index) => `face ${index + 1} ${either(face.emotions.length ? face.emotions : [face.emotion])}`);
  sayOf(faces.length ? `${count(faces.length, "face")} found: ${names.join(", ")}.` : `No face found on this picture. ${HINT}`);
}

async function ask(maps) {
  asking?.abort();
  const mine = (asking = new AbortController());
  const picture = shown;
  report("");
  sayOf(maps ? "Asking what the network looks at…" : "Looking for faces…");
  $("choose").setAttribute("aria-busy", "true");
  try {
    const waiting = (seconds) => say(`The server is busy. Trying again in ${count(seconds, "second")}.`);
    const answer = await predict(picture.blob, { maps, by, signal: mine.signal, waiting });
    await see(picture);
    if (mine === asking) show(answer, maps);
  } catch (error) {
    if (mine !== asking) return; // another picture has come meanwhile
    sayOf("");
    report(error.message);
  } finally {
    if (mine === asking) $("choose").removeAttribute("aria-busy");
  }
}

// Give up the answer to a picture, shown or still to come.
function forget() {
  asking?.abort();
  asking = null;
  $("choose").removeAttribute("aria-busy");
  $("result").hidden = true;
}

// Take a picture; `words` are said beside its answer.
async function take(blob, words = "") {
  if (!blob) return;
  if (!about) return wait(blob, words);
  close();
  forget(); // the picture before
  if (shown?.address) URL.revokeObjectURL(shown.address);
  const mine = (shown = { blob: null, address: null, words });
  sayOf("");
  report("");
  if (blob.size > about.limits.bytes) {
    report(`This file has ${Math.ceil(blob.size / 2 ** 20)} MB; the limit is ${Math.floor(about.limits.bytes / 2 ** 20)} MB.`);
    return;
  }
  try {
    mine.blob = await held(blob);
  } catch {
    if (mine === shown) report("This file cannot be read. Is it a folder, or was it moved or changed? Choose it again.");
    return;
  }
  if (mine === shown) ask(false);
}

// A copy in memory: the file may be moved or changed before it is asked for again, for its maps.
async function held(blob) {
  return new File([await blob.arrayBuffer()], blob.name || "picture", { type: blob.type });
}

// Keep a picture until the page is ready, for which it is loaded again where that has failed.
function wait(blob, words) {
  early = [blob, words];
  say("The page is still loading. The picture is looked at as soon as it is ready.");
  if (!loading) begin();
}

// Show a picture as it is predicted: upright.
async function see(picture) {
  if (picture.address) return;
  const copy = await upright(picture.blob);
  if (picture !== shown || picture.address) return; // another has come meanwhile
  picture.address = URL.createObjectURL(copy);
  unseen(false);
  $("image").src = picture.address;
}

// Say something of the picture on the page.
function sayOf(text) {
  say([text, shown?.words].filter(Boolean).join(" "));
}

// Another promise gives other sets: of the picture that is shown or still to come, and of the live frames from now on.
function choose() {
  by = $("each").checked ? "class" : "all";
  if (asking || !$("result").hidden) ask($("maps").getAttribute("aria-pressed") === "true");
}

// Whether the browser cannot show the picture, of which there are the boxes all the same.
function unseen(is) {
  $("unseen").hidden = !is;
  $("image").hidden = is;
}

function first(files) {
  if (!files.length) report("That holds no file. Save the picture first, then choose or drop the file.");
  else take(files[0], files.length > 1 ? `Of ${files.length} files the first alone was taken: ${files[0].name}.` : "");
}

// --- camera ------------------------------------------------------------------------------------------------------

async function open() {
  if ($("video").srcObject) return $("shoot").focus();
  if (opening) return; // the browser is asking already
  report("");
  say(""); // of a camera that was closed
  if (!navigator.mediaDevices) {
    report("Browsers give the camera to pages of this machine or over HTTPS alone. Open http://127.0.0.1 on this machine.");
    return;
  }
  const mine = (opening = {});
  try {
    const stream = await navigator.mediaDevices.getUserMedia({ video: { width: { ideal: 1280 } } });
    if (mine !== opening) return stop(stream); // another picture has come meanwhile, or the tab was hidden
    for (const track of stream.getTracks()) track.addEventListener("ended", () => lose(stream));
    $("video").srcObject = stream;
    $("viewfinder").hidden = false;
    $("shoot").focus();
  } catch (error) {
    if (mine === opening) report(error.name === "NotAllowedError" ? "The browser refuses the camera. Allow it for this page, then try again." : `No camera can be used (${error.name}).`);
  } finally {
    if (mine === opening) opening = null;
  }
}

function stop(stream) {
  stream?.getTracks().forEach((track) => track.stop());
}

function close() {
  opening = null;
  unfollow();
  stop($("video").srcObject);
  $("video").srcObject = null;
  const focused = $("viewfinder").contains(document.activeElement); // which would be lost with it
  $("viewfinder").hidden = true;
  if (focused) $("camera").focus({ preventScroll: true });
}

// A camera that was unplugged, or taken away by the browser: its last picture would be predicted for ever.
function lose(stream) {
  if ($("video").srcObject !== stream) return;
  close();
  say("");
  report("The camera was lost. Connect it, or allow it for this page, then try again.");
}

// Whether a video has a picture; its size is known earlier, and the time runs from its first picture on.
function playing(video) {
  return video.readyState >= video.HAVE_CURRENT_DATA && video.currentTime > 0;
}

function shoot() {
  const video = $("video");
  if (!playing(video)) return say("The camera has no picture yet.");
  const canvas = element("canvas");
  [canvas.width, canvas.height] = [video.videoWidth, video.videoHeight];
  canvas.getContext("2d").drawImage(video, 0, 0);
  canvas.toBlob(take, "image/jpeg", 0.95);
}

// --- live: one frame after the other, each as soon as the one before is predicted --------------------------------------

async function follow() {
  const mine = (following = { times: [], said: "", spoken: -Infinity });
  $("live").setAttribute("aria-pressed", "true");
  forget(); // the picture before
  report("");
  say("Predicting live.");
  try {
    while (mine === following) {
      if (playing($("video"))) await frame(mine);
      await new Promise(requestAnimationFrame);
    }
  } catch (error) {
    if (mine !== following) return;
    unfollow();
    report(error.message);
  }
}

async function frame(mine) {
  const { videoWidth: width, videoHeight: height } = $("video");
  const scale = Math.min(1, LIVE_SIDE / Math.max(width, height));
  const size = { resizeWidth: Math.round(width * scale), resizeHeight: Math.round(height * scale), resizeQuality: "medium" };
  const answer = await predict(await createImageBitmap($("video"), size), { by });
  if (mine !== following) return; // stopped meanwhile
  showLive(answer, mine);
}

function showLive({ width, height, faces }, mine) {
  $("live-boxes").setAttribute("viewBox", `0 0 ${width} ${height}`);
  fit($("live-boxes"));
  $("live-boxes").replaceChildren(...faces.map(boxed));
  $("live-faces").replaceChildren(...faces.map(described));
  const now = performance.now();
  mine.times = [...mine.times.slice(-RATED), now];
  const rate = (1000 * (mine.times.length - 1)) / (now - mine.times[0]);
  $("live-promise").textContent = faces.length ? promise() : "";
  if (mine.times.length > 1) $("rate").textContent = `${rate.toFixed(1)} pictures per second`;
  const words = faces.length ? `${count(faces.length, "face")}: ${faces.map((face) => either(face.emotions.length ? face.emotions : [face.emotion])).join(", ")}.` : "No face found.";
  if (words === mine.said || now - mine.spoken < SPOKEN_MS) return;
  [mine.said, mine.spoken] = [words, now];
  say(words);
}

function unfollow() {
  if (following) say("");
  following = null;
  $("live").setAttribute("aria-pressed", "false");
  for (const part of ["live-boxes", "live-faces", "live-promise", "rate"]) $(part).replaceChildren();
}

// A tab that nobody sees keeps neither the camera nor the processor.
function hide() {
  if (!document.hidden || !(opening || $("video").srcObject)) return;
  close();
  say("The camera was closed, since this tab was hidden.");
}

// --- beginning ---------------------------------------------------------------------------------------------------

function listen() {
  $("open").addEventListener("click", () => $("file").click());
  $("file").addEventListener("change", () => {
    take($("file").files[0]);
    $("file").value = ""; // so that the same file can be chosen again
  });
  $("camera").addEventListener("click", open);
  $("shoot").addEventListener("click", shoot);
  $("stop").addEventListener("click", close);
  $("maps").addEventListener("click", () => ask($("maps").getAttribute("aria-pressed") !== "true"));
  $("each").addEventListener("change", choose);
  $("image").addEventListener("error", () => unseen(true));
  document.addEventListener("dragover", (event) => { event.preventDefault(); document.body.classList.add("over"); });
  document.addEventListener("dragleave", () => document.body.classList.remove("over"));
  document.addEventListener("drop", (event) => {
    event.preventDefault();
    document.body.classList.remove("over");
    first(event.dataTransfer.files);
  });
  document.addEventListener("paste", (event) => first(event.clipboardData.files));
  $("live").addEventListener("click", () => (following ? unfollow() : follow()));
  document.addEventListener("visibilitychange", hide);
  addEventListener("pagehide", close);
  const resized = new ResizeObserver((changes) => changes.forEach(({ target }) => fit(target.querySelector("svg"))));
  ["picture", "stage"].forEach((part) => resized.observe($(part)));
}

async function begin() {
  loading = true;
  report("");
  try {
    about = await describe();
  } catch (error) {
    say("");
    report(error.message);
    return;
  } finally {
    loading = false;
  }
  $("card").href = about.card;
  $("live").hidden = !about.live;
  by = about.coverage_by;
  $("each").checked = by === "class";
  $("promise").hidden = !about.thresholds;
  $("privacy").textContent = about.privacy;
  $("made").textContent = about.made;
  document.documentElement.dataset.ready = "true";
  if (early) take(...early);
  early = null;
}

listen();
begin();
