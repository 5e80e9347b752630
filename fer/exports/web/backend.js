// Who predicts: here this tab, in a worker, so that the page stays responsive. Nothing is sent anywhere: after the files
// of this folder are loaded, no request is made.
//
//   describe() -> {network, classes, card, coverage, coverage_by, unpromised, limits: {bytes, pixels, small_side}, live,
//     thresholds, privacy, made}
//   predict(blob or ImageBitmap, {maps, by, signal}) -> {width, height, faces: [record…], notes: [text…]}
//
// A record has the fields of `fer predict`'s JSON lines, and with maps `map`, a picture as a data URL.

import { json } from "./loaded.js";

// A worker that is loaded from its file would not be bound by the page's policy; one from a blob is.
const start = new Blob([`import ${JSON.stringify(new URL("./worker.js", import.meta.url).href)};`], { type: "text/javascript" });
const open = new Map(); // number of a picture -> its promise's {resolve, reject}
let last = 0;
let worker = started(); // null: it does not run; the next picture starts another

function started() {
  const made = new Worker(URL.createObjectURL(start), { type: "module" });
  made.addEventListener("message", ({ data: { number, answer, error } }) => {
    const promise = open.get(number);
    open.delete(number);
    if (error === undefined) promise?.resolve(answer);
    else promise?.reject(new Error(error));
  });
  made.addEventListener("error", (event) => {
    made.terminate();
    worker = null;
    const broken = new Error(`The page's scripts do not run (${event.message || "one is missing"}). Is the folder complete, the connection working, and the browser of 2023 or later?`);
    for (const promise of open.values()) promise.reject(broken);
    open.clear();
  });
  return made;
}

export function describe() {
  return json("network.json");
}

export function predict(blob, { maps = false, by = "all", signal } = {}) {
  worker ??= started();
  const number = ++last;
  return new Promise((resolve, reject) => {
    open.set(number, { resolve, reject });
    signal?.addEventListener("abort", () => {
      if (!open.delete(number)) return; // it is answered
      worker?.postMessage({ dropped: number });
      reject(signal.reason);
    });
    worker.postMessage({ number, blob, maps, by }, blob instanceof ImageBitmap ? [blob] : []);
  });
}
