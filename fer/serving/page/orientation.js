// WebP that lies on its side or is mirrored, by the note in its EXIF. Pillow turns it by that; browsers turn JPEG and
// PNG, and not all of them WebP.

const PLACE = 0x0112; // of the orientation among the tags of EXIF
const MARK = "Exif\0\0"; // of JPEG, before the EXIF; some programs write it to WebP too
// a, b, c and d of a canvas's transform, by the orientation
const TURNS = { 2: [-1, 0, 0, 1], 3: [-1, 0, 0, -1], 4: [1, 0, 0, -1], 5: [0, 1, 1, 0], 6: [0, 1, -1, 0], 7: [0, -1, -1, 0], 8: [0, -1, 1, 0] };
// A WebP of 2x1 pixels of orientation 6: upright it is 1 pixel wide.
const PROBE = "UklGRk4AAABXRUJQVlA4WAoAAAAIAAAAAQAAAAAAVlA4TA4AAAAvAQAAAAcQEf0PRET/A0VYSUYaAAAATU0AKgAAAAgAAQESAAMAAAABAAYAAAAAAAA=";
let honoured = null; // promise of whether this browser turns WebP by itself

// Return the orientation by which a file has still to be turned after the browser has decoded it: 1 for upright, up to 8.
export async function orientation(blob) {
  const noted = inWebp(new DataView(await blob.slice(0, 21).arrayBuffer())) ? ofWebp(new DataView(await blob.arrayBuffer())) : 1;
  if (!(noted in TURNS)) return 1;
  honoured ??= honours();
  return (await honoured) ? 1 : noted;
}

// Return a bitmap turned by an orientation; the bitmap is closed.
export function turned(bitmap, way) {
  if (!(way in TURNS)) return bitmap;
  const { width, height } = bitmap;
  const canvas = new OffscreenCanvas(...(way > 4 ? [height, width] : [width, height]));
  const context = canvas.getContext("2d");
  const [a, b, c, d] = TURNS[way];
  context.imageSmoothingEnabled = false; // pixels fall on pixels
  context.setTransform(a, b, c, d, a + c < 0 ? canvas.width : 0, b + d < 0 ? canvas.height : 0);
  context.drawImage(bitmap, 0, 0);
  bitmap.close();
  return canvas.transferToImageBitmap();
}

// Return a file that the browser shows upright: itself, or a turned copy.
export async function upright(blob) {
  try {
    const way = await orientation(blob);
    if (way === 1) return blob;
    const bitmap = turned(await createImageBitmap(blob), way);
    const canvas = new OffscreenCanvas(bitmap.width, bitmap.height);
    canvas.getContext("bitmaprenderer").transferFromImageBitmap(bitmap);
    return await canvas.convertToBlob();
  } catch {
    return blob; // which the browser cannot decode
  }
}

async function honours() {
  const bytes = Uint8Array.from(atob(PROBE), (letter) => letter.charCodeAt(0));
  const bitmap = await createImageBitmap(new Blob([bytes], { type: "image/webp" }), { imageOrientation: "from-image" });
  const { width } = bitmap;
  bitmap.close();
  return width === 1;
}

function text(view, start, length) {
  return String.fromCharCode(...new Uint8Array(view.buffer, start, length));
}

// Whether a file begins as a WebP that has EXIF.
function inWebp(view) {
  return view.byteLength >= 21 && text(view, 0, 4) === "RIFF" && text(view, 8, 8) === "WEBPVP8X" && Boolean(view.getUint8(20) & 8);
}

// Return the orientation of a WebP, a sequence of chunks: a name, a length, and contents of an even number of bytes.
function ofWebp(view) {
  const end = Math.min(view.byteLength, 8 + view.getUint32(4, true));
  for (let offset = 12; offset + 8 <= end; ) {
    const [name, length] = [text(view, offset, 4), view.getUint32(offset + 4, true)];
    offset += 8;
    if (name === "EXIF") return ofExif(new DataView(view.buffer, offset, Math.min(length, end - offset)));
    offset += length + (length % 2);
  }
  return 1;
}

function ofExif(view) {
  try {
    while (text(view, view.byteOffset, MARK.length) === MARK) view = new DataView(view.buffer, view.byteOffset + MARK.length);
    const little = text(view, view.byteOffset, 2) === "II";
    const tags = view.getUint32(4, little);
    for (let tag = 0; tag < view.getUint16(tags, little); tag++) {
      const offset = tags + 2 + 12 * tag;
      if (view.getUint16(offset, little) !== PLACE) continue;
      return view.getUint16(offset + 2, little) === 4 ? view.getUint32(offset + 8, little) : view.getUint16(offset + 8, little);
    }
  } catch {
    // cut off
  }
  return 1;
}
