// Who predicts: here this tab, in a worker, so that the page stays responsive. Nothing is sent anywhere: after the files
// of this folder are loaded, no request is made.
//
//   describe() -> {network, classes, card, coverage, limits: {bytes, pixels, small_side}, live, privacy, made}
//   predict(blob or ImageBitmap, {maps, signal}) -> {width, height, faces: [record…], notes: [text…]}
//
// A record has the fields of `fer predict`'s JSON lines, and with maps `map`, a picture as a data URL.

// A worker that is loaded from its file would not be bound by the page's policy; one from a blob is.
const start = new Blob([`import ${JSON.stringify(new URL("./worker.js", import.meta.url).href)};`], { type: "text/javascript" });
const worker = new Worker(URL.createObjectURL(start), { type: "module" });
const open = new Map(); // number of a picture -> its promise's {resolve, reject}
let last = 0;

worker.addEventListener("message", ({ data: { number, answer, error } }) => {
  const promise = open.get(number);
  open.delete(number);
  if (error === undefined) promise?.resolve(answer);
  else promise?.reject(new Error(error));
});
worker.addEventListener("error", (event) => {
  for (const promise of open.values()) promise.reject(new Error(`This browser cannot run the page's scripts (${event.message}).`));
  open.clear();
});

export async function describe() {
  const response = await fetch(new URL("./network.json", import.meta.url));
  if (!response.ok) throw new Error(`network.json: the host answered ${response.status}. Is the folder complete?`);
  return response.json();
}

export function predict(blob, { maps = false, signal } = {}) {
  const number = ++last;
  return new Promise((resolve, reject) => {
    open.set(number, { resolve, reject });
    signal?.addEventListener("abort", () => {
      worker.postMessage({ dropped: number });
      open.delete(number);
      reject(signal.reason);
    });
    worker.postMessage({ number, blob, maps }, blob instanceof ImageBitmap ? [blob] : []);
  });
}
