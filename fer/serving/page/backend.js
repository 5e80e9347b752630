// Who predicts: here `fer serve`, over HTTP. A folder for static hosting replaces this file by one that predicts in the
// tab; page.js knows the two functions alone.
//
//   describe() -> {network, classes, card, coverage, coverage_by, unpromised, limits: {bytes, pixels, small_side}, live,
//     thresholds, privacy, made}
//   predict(blob, {maps, by, signal, waiting}) -> {width, height, faces: [record…], notes: [text…]}
//
// `live`: frames of the camera may follow each other. `thresholds`: `by` may be "all" or "class". Both are missing here:
// each answer is one request, and the server was started with one promise.
// A record has the fields of `fer predict`'s JSON lines, and with maps `map`, a picture as a data URL.

const TRIES = 8; // of a picture while the server is busy

export async function describe() {
  return answered(await reached("about"));
}

// waiting(seconds) is called when the server asks to come back later.
export async function predict(blob, { maps = false, signal, waiting = () => {} } = {}) {
  for (let tried = 1; ; tried++) {
    const form = new FormData();
    form.append("picture", blob, blob.name || "picture");
    const response = await reached(`predict?maps=${maps}`, { method: "POST", body: form, signal });
    const seconds = Number(response.headers.get("Retry-After")); // of a busy server alone; other failures have none
    if (response.status !== 503 || !seconds || tried === TRIES) return answered(response);
    waiting(seconds);
    await new Promise((resolve) => setTimeout(resolve, 1000 * seconds));
    signal?.throwIfAborted();
  }
}

async function reached(address, options) {
  try {
    return await fetch(address, options);
  } catch (error) {
    if (error.name === "AbortError") throw error;
    throw new Error("The server does not answer. Is fer serve still running?");
  }
}

async function answered(response) {
  const body = await response.json().catch(() => ({ error: `the server answered ${response.status}` }));
  if (!response.ok) throw new Error(body.error || `the server answered ${response.status}`);
  return body;
}
