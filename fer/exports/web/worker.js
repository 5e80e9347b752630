// Pictures one after the other, outside the page's own thread: decoded, searched for faces, predicted.

import { Cascade } from "./cascade.js";
import { cropped, input } from "./crop.js";
import { Detector, side } from "./faces.js";
import { json } from "./loaded.js";
import { mapped } from "./maps.js";
import { Network } from "./network.js";
import { read } from "./picture.js";

const dropped = new Set(); // numbers of pictures that nobody waits for any more
let loading = load(); // promise of {about, detector, network}
loading.catch(() => {}); // the next picture loads them again
let before = Promise.resolve();

addEventListener("message", ({ data }) => {
  if (data.dropped) dropped.add(data.dropped);
  else before = before.then(() => handled(data));
});

async function load() {
  const [about, cascade] = await Promise.all([json("network.json"), json("cascade.json")]);
  return { about, detector: new Detector(new Cascade(cascade), about.search), network: await Network.loaded(about) };
}

// Return what `load` returns; where it has failed before, for a moment without a connection, it is tried once more.
async function ready() {
  return loading.catch(() => (loading = load()));
}

async function handled({ number, blob, maps, by }) {
  if (dropped.delete(number)) return;
  try {
    const answer = await answered(await ready(), number, blob, maps, by);
    if (answer) postMessage({ number, answer });
  } catch (error) {
    postMessage({ number, error: error.message || String(error) });
  }
}

// Whether nobody waits for a picture any more; messages arrive in between the parts of the work alone.
async function left(number) {
  await new Promise((resolve) => setTimeout(resolve));
  return dropped.delete(number);
}

// Return the answer to a picture, or null once nobody waits for it.
async function answered({ about, detector, network }, number, blob, maps, by) {
  const began = performance.now();
  const picture = await read(blob, about.limits, about.channels === 3);
  const decoded = performance.now();
  if (await left(number)) return null;
  const found = detector.faces(picture);
  const large = found.filter((face) => side(face.box) >= about.limits.least_side);
  const searched = performance.now();
  const crops = large.map((face) => cropped(picture, face.box, about.size, about.crop, face.tilt).pixels);
  const inputs = large.map((face, index) => input(crops[index], picture, face.box, about.size, about.crop, face.tilt));
  const rows = await network.probabilities(inputs);
  const predicted = performance.now();
  const faces = large.map((face, index) => network.record(face, rows[index], by));
  const mapCount = maps ? Math.min(faces.length, about.limits.maps) : 0;
  for (let index = 0; index < mapCount; index++) {
    if (await left(number)) return null;
    faces[index].map = await mapped(network, crops[index], inputs[index], rows[index]);
  }
  const milliseconds = { decode: decoded - began, search: searched - decoded, predict: predicted - searched };
  const tooSmall = found.length - large.length;
  return { width: picture.width, height: picture.height, faces, too_small: tooSmall, notes: notes(tooSmall, maps, faces, about), milliseconds };
}

function notes(tooSmall, maps, faces, { limits }) {
  const words = [];
  if (tooSmall) words.push(`${tooSmall} face${tooSmall === 1 ? "" : "s"} below ${limits.least_side} pixels left out.`);
  if (maps && faces.length > limits.maps) words.push(`The ${limits.maps} largest of ${faces.length} faces have a map.`);
  return words;
}
