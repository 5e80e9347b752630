// The network, by onnxruntime-web, and what is said of its probabilities: as fer.inference.predictor says it.

import { loaded } from "./loaded.js";
import * as ort from "./onnxruntime.js";

const AT_ONCE = 64; // faces

export class Network {
  // about: the contents of network.json.
  constructor(about, session) {
    this.about = about;
    this.session = session;
  }

  static async loaded(about) {
    ort.env.wasm.numThreads = 1; // several threads need headers that not every host can send
    ort.env.wasm.wasmBinary = await unpacked(about.runtime);
    const session = await ort.InferenceSession.create(await loaded(about.file), { executionProviders: ["wasm"] });
    return new Network(about, session);
  }

  // Return the probabilities, one Float32Array a face, of faces: Uint8Arrays of channels * size * size values.
  async probabilities(inputs) {
    const { size, channels, classes } = this.about;
    const length = channels * size * size;
    const rows = [];
    for (let start = 0; start < inputs.length; start += AT_ONCE) {
      const some = inputs.slice(start, start + AT_ONCE);
      const faces = new Uint8Array(some.length * length);
      some.forEach((input, index) => faces.set(input, index * length));
      const answer = await this.session.run({ faces: new ort.Tensor("uint8", faces, [some.length, channels, size, size]) });
      const { data } = answer.probabilities;
      some.forEach((_, index) => rows.push(data.slice(index * classes.length, (index + 1) * classes.length)));
    }
    return rows;
  }

  // Return the record of a face: the fields of fer predict's JSON lines.
  // by: whose coverage the set promises, "all" or "class".
  record({ box, score, tilt }, row, by) {
    const { classes, limits } = this.about;
    const best = row.indexOf(Math.max(...row));
    const emotions = this.#set(row, by);
    const unsure = emotions.length ? emotions.length > 1 : row[best] < limits.sure;
    return {
      box: [box.x, box.y, box.width, box.height].map((value) => rounded(value, 2)),
      tilt,
      emotion: classes[best],
      probability: rounded(row[best], 4),
      probabilities: Object.fromEntries(classes.map((name, index) => [name, rounded(row[index], 4)])),
      emotions,
      uncertain: unsure || Math.sqrt(box.width * box.height) < limits.small_side,
      detector_score: rounded(score, 2),
    };
  }

  // Return the emotions of the prediction set, the most probable first: those with at most the threshold above them.
  #set(row, by) {
    const { classes, threshold, thresholds } = this.about;
    if (threshold === null) return [];
    const limits = by === "class" ? thresholds : classes.map(() => threshold);
    const above = (value) => Math.min(row.reduce((sum, other) => (other > value ? sum + other : sum), 0), 1);
    const inside = [...row.keys()].filter((index) => above(row[index]) <= limits[index]);
    return inside.sort((one, other) => row[other] - row[one]).map((index) => classes[index]);
  }
}

function rounded(value, digits) {
  return Number(value.toFixed(digits));
}

// Return the bytes of a gzip file. A host that marks such files as compressed has let the browser unpack it already.
async function unpacked(file) {
  const bytes = await loaded(file);
  if (bytes[0] !== 0x1f || bytes[1] !== 0x8b) return bytes;
  const stream = new Blob([bytes]).stream().pipeThrough(new DecompressionStream("gzip"));
  return new Uint8Array(await new Response(stream).arrayBuffer());
}
