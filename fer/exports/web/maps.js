// What speaks for the predicted emotion on a face, by occlusion: fer.inference.explain.occlusion in the tab.

import { even } from "./cascade.js";
import { resized } from "./resample.js";

const LEAST_PROBABILITY = 1e-12;

// Return a tinted face as the data URL of a PNG.
// crop: its greys. input: of crop.js. row: its probabilities.
export async function mapped(network, crop, input, row) {
  const { size, maps } = network.about;
  const values = await occlusion(network, input, row);
  return picture(crop, values, size, maps);
}

// Return of each pixel how much log probability the predicted emotion loses where a patch of the mean grey, or mean colour, covers
// it.
export async function occlusion(network, input, row) {
  const { size, maps } = network.about;
  const patch = even(size * maps.patch);
  const steps = Math.min(maps.positions, size - patch + 1);
  const corners = Array.from({ length: steps }, (_, step) => even(((size - patch) * step) / (steps - 1)));
  const best = row.indexOf(Math.max(...row));
  const views = corners.flatMap((top) => corners.map((left) => covered(input, size, top, left, patch)));
  const rows = await network.probabilities(views);
  const log = (probability) => Math.log(Math.max(probability, LEAST_PROBABILITY));
  const lost = rows.map((one) => log(row[best]) - log(one[best]));
  const weights = Array.from({ length: size }, (_, pixel) => between(corners.map((corner) => corner + (patch - 1) / 2), pixel));
  return Float64Array.from({ length: size * size }, (_, index) => {
    const [down, across] = [weights[Math.floor(index / size)], weights[index % size]];
    const upper = mixed(lost[down.first * steps + across.first], lost[down.first * steps + across.second], across.share);
    const lower = mixed(lost[down.second * steps + across.first], lost[down.second * steps + across.second], across.share);
    return mixed(upper, lower, down.share);
  });
}

function covered(input, size, top, left, patch) {
  const view = input.slice();
  for (let start = 0; start < input.length; start += size * size) {
    const channel = view.subarray(start, start + size * size);
    const mean = even(channel.reduce((sum, value) => sum + value, 0) / channel.length);
    for (let row = top; row < top + patch; row++) channel.fill(mean, row * size + left, row * size + left + patch);
  }
  return view;
}

// Return between which two positions a pixel lies, and its share of the way; constant beyond the outermost.
function between(positions, pixel) {
  const second = positions.findIndex((position) => position >= pixel);
  if (second === 0) return { first: 0, second: 0, share: 0 };
  if (second < 0) return { first: positions.length - 1, second: positions.length - 1, share: 0 };
  return { first: second - 1, second, share: (pixel - positions[second - 1]) / (positions[second] - positions[second - 1]) };
}

function mixed(one, other, share) {
  return one + (other - one) * share;
}

function picture(crop, values, size, { side, tint, colours }) {
  const face = resized({ pixels: crop, width: size, height: size }, side, side).pixels;
  const strongest = values.reduce((most, value) => Math.max(most, Math.abs(value)), 0) || 1;
  const canvas = new OffscreenCanvas(side, side);
  const context = canvas.getContext("2d");
  const image = context.createImageData(side, side);
  for (let index = 0; index < side * side; index++) {
    const [down, across] = [Math.floor(index / side), index % side].map((pixel) => Math.floor(((pixel + 0.5) * size) / side));
    const strength = values[down * size + across] / strongest;
    const colour = strength > 0 ? colours.for : colours.against;
    const share = tint * Math.abs(strength);
    for (const channel of [0, 1, 2]) image.data[4 * index + channel] = mixed(face[index], colour[channel], share);
    image.data[4 * index + 3] = 255;
  }
  context.putImageData(image, 0, 0);
  return canvas.convertToBlob({ type: "image/png" }).then((blob) => new FileReaderSync().readAsDataURL(blob));
}
