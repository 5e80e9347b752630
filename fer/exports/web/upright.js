// A picture turned by OpenCV's warpAffine, bilinear, to the bit (modules/imgproc/src/imgwarp.cpp of OpenCV 4).

import { even } from "./cascade.js";

const GROUND = 127; // grey around a turned picture: flat, so searched at once
const FINE = 1024; // parts of a pixel in which positions are added up
const PARTS = 32; // of a pixel between which greys are interpolated

// Return a picture turned back by an angle in degrees clockwise, whole on a larger ground, and the way back. That is
// the matrix [a, b, c, d, e, f]. It takes (x, y) of the turned picture to (ax + by + c, dx + ey + f) of the picture.
export function upright(grey, tilt) {
  const { width, height } = grey;
  const angle = (tilt * Math.PI) / 180;
  const [cosine, sine] = [Math.cos(angle), Math.sin(angle)];
  const newWidth = Math.ceil(width * Math.abs(cosine) + height * Math.abs(sine));
  const newHeight = Math.ceil(width * Math.abs(sine) + height * Math.abs(cosine));
  const [x, y] = [width / 2, height / 2];
  const there = [
    cosine, sine, (1 - cosine) * x - sine * y + (newWidth - width) / 2,
    -sine, cosine, sine * x + (1 - cosine) * y + (newHeight - height) / 2,
  ];
  const back = inverse(there);
  return { picture: warped(grey, back, newWidth, newHeight), back };
}

function inverse([a, b, c, d, e, f]) {
  const scale = 1 / (a * e - b * d);
  const [ia, ib, id, ie] = [e * scale, -b * scale, -d * scale, a * scale];
  return [ia, ib, -ia * c - ib * f, id, ie, -id * c - ie * f];
}

// Return the point to which a matrix takes (x, y).
export function mapped([a, b, c, d, e, f], x, y) {
  return [a * x + b * y + c, d * x + e * y + f];
}

function warped({ pixels, width, height }, [a, b, c, d, e, f], newWidth, newHeight) {
  const result = new Uint8Array(newWidth * newHeight);
  const along = Int32Array.from({ length: newWidth }, (_, x) => even(a * x * FINE));
  const aside = Int32Array.from({ length: newWidth }, (_, x) => even(d * x * FINE));
  const half = FINE / PARTS / 2;
  const at = (x, y) => (x >= 0 && x < width && y >= 0 && y < height ? pixels[y * width + x] : GROUND);
  for (let down = 0; down < newHeight; down++) {
    const [startX, startY] = [even((b * down + c) * FINE) + half, even((e * down + f) * FINE) + half];
    for (let across = 0; across < newWidth; across++) {
      const [x, y] = [(startX + along[across]) >> 5, (startY + aside[across]) >> 5]; // in PARTS of a pixel
      const [left, top] = [x >> 5, y >> 5];
      const [right, lower] = [x & (PARTS - 1), y & (PARTS - 1)];
      const upperRow = at(left, top) * (PARTS - right) + at(left + 1, top) * right;
      const lowerRow = at(left, top + 1) * (PARTS - right) + at(left + 1, top + 1) * right;
      result[down * newWidth + across] = (upperRow * (PARTS - lower) + lowerRow * lower + 512) >> 10;
    }
  }
  return { pixels: result, width: newWidth, height: newHeight };
}
