// A file as pixels, as fer.data.readers.images.to_grey and to_colour make them; the browser decodes it.

import { orientation, turned } from "./orientation.js";

const ROWS = 512; // that are read from a canvas at a time
const ORDERS = { RGBA: [0, 1, 2], RGBX: [0, 1, 2], BGRA: [2, 1, 0], BGRX: [2, 1, 0] }; // of a frame's red, green and blue
let bytes = new Uint8Array(0); // of the frame before

// Return the upright picture {pixels, width, height, bands} of a file, or of a bitmap, which is closed.
// pixels: its greys. bands: red, green and blue; undefined unless colour is true.
// limits: {pixels}, the most that are decoded. Errors are sentences for the page.
export async function read(blob, limits, colour = false) {
  if (blob instanceof ImageBitmap) return (await ofFrame(blob, colour)) ?? pixelsOf(blob, limits, colour);
  const head = new Uint8Array(await blob.slice(0, 2 ** 18).arrayBuffer());
  if (!head.length) throw new Error("This file is empty.");
  const size = sizeOf(head);
  if (size && size[0] * size[1] > limits.pixels) throw new Error(tooLarge(...size, limits));
  return pixelsOf(turned(await decoded(blob, head), await orientation(blob)), limits, colour);
}

// Return a frame of the camera, or null where the browser cannot copy it. What a canvas gives would stay in memory
// until the browser collects it, at 1 MB a frame up to 1 GB. These bytes are used again.
async function ofFrame(bitmap, colour) {
  if (!globalThis.VideoFrame) return null; // in Firefox since 2024
  const frame = new VideoFrame(bitmap, { timestamp: 0 });
  try {
    const { width, height } = bitmap;
    const order = ORDERS[frame.format];
    if (!order || frame.allocationSize() !== 4 * width * height) return null;
    if (bytes.length !== 4 * width * height) bytes = new Uint8Array(4 * width * height);
    await frame.copyTo(bytes);
    const picture = empty(width, height, colour);
    fill(picture, bytes, 0, order);
    bitmap.close();
    return picture;
  } finally {
    frame.close();
  }
}

function pixelsOf(bitmap, limits, colour) {
  try {
    if (bitmap.width * bitmap.height > limits.pixels) throw new Error(tooLarge(bitmap.width, bitmap.height, limits));
    return drawn(bitmap, colour);
  } finally {
    bitmap.close();
  }
}

async function decoded(blob, head) {
  try {
    // as Pillow: turned by EXIF, colours without their profile
    return await createImageBitmap(blob, { imageOrientation: "from-image", colorSpaceConversion: "none" });
  } catch {
    const heic = /^ftyp(heic|heix|hevc|mif1|msf1)/.test(text(head, 4, 12));
    throw new Error(heic
      ? "This browser does not decode HEIC. Convert the picture to JPEG first."
      : "This is no picture that the browser can decode. Expected JPEG, PNG, GIF, WebP, BMP or AVIF, undamaged.");
  }
}

function tooLarge(width, height, limits) {
  return `This picture has ${width}x${height} pixels; the limit is ${limits.pixels / 1e6} million.`;
}

// Return a bitmap as a picture; transparent pixels are black.
function drawn(bitmap, colour) {
  const { width, height } = bitmap;
  const canvas = new OffscreenCanvas(width, Math.min(ROWS, height));
  const context = canvas.getContext("2d", { willReadFrequently: true });
  const picture = empty(width, height, colour);
  for (let top = 0; top < height; top += ROWS) {
    const rows = Math.min(ROWS, height - top);
    context.fillRect(0, 0, width, rows);
    context.drawImage(bitmap, 0, top, width, rows, 0, 0, width, rows);
    const { data } = context.getImageData(0, 0, width, rows);
    fill(picture, data, top * width, ORDERS.RGBA);
  }
  return picture;
}

function empty(width, height, colour) {
  const plane = () => new Uint8Array(width * height);
  return { pixels: plane(), width, height, bands: colour ? [plane(), plane(), plane()] : undefined };
}

// Write colours, four bytes each, into a picture from an index on: as greys (ITU-R 601), and where it has bands as colours.
function fill({ pixels, bands }, data, start, order) {
  const [red, green, blue] = order;
  for (let index = 0, pixel = start; index < data.length; index += 4, pixel++) {
    pixels[pixel] = (data[index + red] * 19595 + data[index + green] * 38470 + data[index + blue] * 7471 + 32768) >> 16;
  }
  bands?.forEach((band, channel) => {
    for (let index = order[channel], pixel = start; index < data.length; index += 4, pixel++) band[pixel] = data[index];
  });
}

// --- width and height by a file's header: a small file may hold more pixels than there is memory for ----------------

function text(bytes, start, end) {
  return String.fromCharCode(...bytes.subarray(start, end));
}

// Return [width, height], or null for other formats, which are decoded without.
function sizeOf(bytes) {
  const view = new DataView(bytes.buffer);
  try {
    if (text(bytes, 1, 4) === "PNG") return [view.getUint32(16), view.getUint32(20)];
    if (text(bytes, 0, 3) === "GIF") return [view.getUint16(6, true), view.getUint16(8, true)];
    if (text(bytes, 0, 2) === "BM") return [Math.abs(view.getInt32(18, true)), Math.abs(view.getInt32(22, true))];
    if (text(bytes, 8, 12) === "WEBP") return ofWebp(view, text(bytes, 12, 16));
    if (view.getUint16(0) === 0xffd8) return ofJpeg(view);
  } catch {
    return null; // cut off; the decoder reports it
  }
  return null;
}

// By the first chunk: of an extended, a lossless or a lossy WebP.
function ofWebp(view, chunk) {
  if (chunk === "VP8X") return [24, 27].map((offset) => (view.getUint32(offset, true) & 0xffffff) + 1);
  if (chunk === "VP8L") return [0, 14].map((bit) => ((view.getUint32(21, true) >> bit) & 0x3fff) + 1);
  if (chunk === "VP8 ") return [26, 28].map((offset) => view.getUint16(offset, true) & 0x3fff);
  return null;
}

function ofJpeg(view) {
  for (let offset = 2; offset + 9 < view.byteLength; offset += 2 + view.getUint16(offset + 2)) {
    const mark = view.getUint8(offset + 1);
    const frame = mark >= 0xc0 && mark <= 0xcf && ![0xc4, 0xc8, 0xcc].includes(mark);
    if (frame) return [view.getUint16(offset + 7), view.getUint16(offset + 5)];
  }
  return null;
}
