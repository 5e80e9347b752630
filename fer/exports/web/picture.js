// A file as pixels, as fer.data.readers.images.to_grey and to_colour make them; the browser decodes it.

const ROWS = 512; // that are read from a canvas at a time

// Return the upright picture {pixels, width, height, bands} of a file, or of a bitmap, which is closed.
// pixels: its greys. bands: red, green and blue; undefined unless colour is true.
// limits: {pixels}, the most that are decoded. Errors are sentences for the page.
export async function read(blob, limits, colour = false) {
  if (blob instanceof ImageBitmap) return pixelsOf(blob, limits, colour); // a frame of the camera
  const head = new Uint8Array(await blob.slice(0, 2 ** 18).arrayBuffer());
  if (!head.length) throw new Error("This file is empty.");
  const size = sizeOf(head);
  if (size && size[0] * size[1] > limits.pixels) throw new Error(tooLarge(...size, limits));
  return pixelsOf(await decoded(blob, head), limits, colour);
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

// Return the ITU-R 601 greys of a bitmap, and its colours where asked for; transparent pixels are black.
function drawn(bitmap, colour) {
  const { width, height } = bitmap;
  const canvas = new OffscreenCanvas(width, Math.min(ROWS, height));
  const context = canvas.getContext("2d", { willReadFrequently: true });
  const pixels = new Uint8Array(width * height);
  const bands = colour ? [0, 1, 2].map(() => new Uint8Array(width * height)) : undefined;
  for (let top = 0; top < height; top += ROWS) {
    const rows = Math.min(ROWS, height - top);
    context.fillRect(0, 0, width, rows);
    context.drawImage(bitmap, 0, top, width, rows, 0, 0, width, rows);
    const { data } = context.getImageData(0, 0, width, rows);
    for (let index = 0, place = top * width; index < data.length; index += 4, place++) {
      pixels[place] = (data[index] * 19595 + data[index + 1] * 38470 + data[index + 2] * 7471 + 32768) >> 16;
      bands?.forEach((band, channel) => (band[place] = data[index + channel]));
    }
  }
  return { pixels, width, height, bands };
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
    if (text(bytes, 8, 16) === "WEBPVP8X") return [24, 27].map((place) => (view.getUint32(place, true) & 0xffffff) + 1);
    if (view.getUint16(0) === 0xffd8) return ofJpeg(view);
  } catch {
    return null; // cut off; the decoder reports it
  }
  return null;
}

function ofJpeg(view) {
  for (let place = 2; place + 9 < view.byteLength; place += 2 + view.getUint16(place + 2)) {
    const mark = view.getUint8(place + 1);
    const frame = mark >= 0xc0 && mark <= 0xcf && ![0xc4, 0xc8, 0xcc].includes(mark);
    if (frame) return [view.getUint16(place + 7), view.getUint16(place + 5)];
  }
  return null;
}
