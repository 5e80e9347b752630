// From a face's box to the square that the network is given: the contract of fer.data.crop.

import { resized, rotated } from "./resample.js";

const SPARE = 2; // pixels around a region, for the filter

// Return a face as {pixels, width: size, height: size}.
// grey: the upright picture. box: {x, y, width, height}, real numbers. how: {margin, shift} of the detector.
// tilt: by how many degrees the face is turned clockwise; it is turned back.
export function cropped(grey, box, size, { margin, shift }, tilt = 0) {
  const side = margin * Math.sqrt(box.width * box.height);
  const [x, y] = [box.x + box.width / 2, box.y + box.height / 2 + shift * box.height];
  if (grey.width === size && grey.height === size && !tilt && x === size / 2 && y === size / 2 && side === size) return grey;
  const reach = (side / 2) * (tilt ? Math.sqrt(2) : 1);
  let { region, left, top } = surrounding(grey, x - reach, y - reach, x + reach, y + reach);
  if (tilt) region = rotated(region, tilt, [x - left, y - top]);
  const corners = [x - left - side / 2, y - top - side / 2, x - left + side / 2, y - top + side / 2];
  return resized(region, size, size, corners);
}

// Return what the network is given of a face: its channels one after the other, size * size values each.
// crop: the face's greys. picture: grey, in colour with its bands red, green and blue, each a Uint8Array.
export function input(crop, picture, box, size, how, tilt = 0) {
  if (!picture.bands) return crop;
  const { width, height, bands } = picture;
  const channels = bands.map((pixels) => cropped({ pixels, width, height }, box, size, how, tilt).pixels);
  const together = new Uint8Array(channels.length * size * size);
  channels.forEach((channel, index) => together.set(channel, index * size * size));
  return together;
}

// Return the part of a picture around a rectangle, its edges repeated where the picture ends, and its corner.
function surrounding(grey, left, top, right, bottom) {
  const [x, y] = [Math.floor(left) - SPARE, Math.floor(top) - SPARE];
  const [width, height] = [Math.ceil(right) + SPARE - x, Math.ceil(bottom) + SPARE - y];
  const pixels = new Uint8Array(width * height);
  for (let down = 0; down < height; down++) {
    const row = Math.min(Math.max(y + down, 0), grey.height - 1) * grey.width;
    for (let across = 0; across < width; across++) {
      pixels[down * width + across] = grey.pixels[row + Math.min(Math.max(x + across, 0), grey.width - 1)];
    }
  }
  return { region: { pixels, width, height }, left: x, top: y };
}
