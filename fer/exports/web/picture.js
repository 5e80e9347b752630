// A file as grey pixels, as fer.data.readers.images.to_grey makes them; the browser decodes it.

const ROWS = 512; // that are read from a canvas at a time
const ORDERS = { RGBA: [0, 1, 2], RGBX: [0, 1, 2], BGRA: [2, 1, 0], BGRX: [2, 1, 0] }; // of a frame's red, green and blue
let bytes = new Uint8Array(0); // of the frame before

// Return the upright grey picture {pixels, width, height} of a file, or of a bitmap, which is closed.
// limits: {pixels}, the most that are decoded. Errors are sentences for the page.
export async function grey(blob, limits) {
  if (blob instanceof ImageBitmap) return (await ofFrame(blob)) ?? greyOf(blob, limits);
  const head = new Uint8Array(await blob.slice(0, 2 ** 18).arrayBuffer());
  if (!head.length) throw new Error("This file is empty.");
  const size = sizeOf(head);
  if (size && size[0] * size[1] > limits.pixels) throw new Error(tooLarge(...size, limits));
  return greyOf(await decoded(blob, head), limits);
}

// Return the greys of a frame of the camera, or null where the browser cannot copy it. What a canvas gives would stay in
// memory until the browser collects it, at 1 MB a frame up to 1 GB; these bytes are used again.
async function ofFrame(bitmap) {
  if (!globalThis.VideoFrame) return null; // in Firefox since 2024
  const frame = new VideoFrame(bitmap, { timestamp: 0 });
  try {
    const { width, height } = bitmap;
    const order = ORDERS[frame.format];
    if (!order || frame.allocationSize() !== 4 * width * height) return null;
    if (bytes.length !== 4 * width * height) bytes = new Uint8Array(4 * width * height);
    await frame.copyTo(bytes);
    const pixels = new Uint8Array(width * height);
    weigh(bytes, pixels, 0, order);
    bitmap.close();
    return { pixels, width, height };
  } finally {
    frame.close();
  }
}

function greyOf(bitmap, limits) {
  try {
    if (bitmap.width * bitmap.height > limits.pixels) throw new Error(tooLarge(bitmap.width, bitmap.height, limits));
    return luma(bitmap);
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

// Return the ITU-R 601 greys of a bitmap; transparent pixels are black.
function luma(bitmap) {
  const { width, height } = bitmap;
  const canvas = new OffscreenCanvas(width, Math.min(ROWS, height));
  const context = canvas.getContext("2d", { willReadFrequently: true });
  const pixels = new Uint8Array(width * height);
  for (let top = 0; top < height; top += ROWS) {
    const rows = Math.min(ROWS, height - top);
    context.fillRect(0, 0, width, rows);
    context.drawImage(bitmap, 0, top, width, rows, 0, 0, width, rows);
    const { data } = context.getImageData(0, 0, width, rows);
    weigh(data, pixels, top * width, ORDERS.RGBA);
  }
  return { pixels, width, height };
}

// Write the greys of colours, four bytes each, into pixels from an index on.
function weigh(data, pixels, place, [red, green, blue]) {
  for (let index = 0; index < data.length; index += 4, place++) {
    pixels[place] = (data[index + red] * 19595 + data[index + green] * 38470 + data[index + blue] * 7471 + 32768) >> 16;
  }
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
    if (text(bytes, 8, 16) === "WEBPVP8X") return [24, 27].map((offset) => (view.getUint32(offset, true) & 0xffffff) + 1);
    if (view.getUint16(0) === 0xffd8) return ofJpeg(view);
  } catch {
    return null; // cut off; the decoder reports it
  }
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
