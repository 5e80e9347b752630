// Pillow's resize and rotate for grey pictures, to the bit (src/libImaging/Resample.c and Geometry.c of Pillow).
//
// A picture here is {pixels: Uint8Array of width * height greys, row by row, width, height}.

const PRECISION = 2 ** 22; // of the weights, which Pillow keeps as whole numbers

// Return a picture resized by the bilinear filter, which antialiases.
// box: [left, top, right, bottom], real numbers, the part of the picture that is resized; default: all of it.
export function resized(picture, width, height, box = [0, 0, picture.width, picture.height]) {
  const [left, top, right, bottom] = box.map(Math.fround); // as Pillow keeps them
  const across = weights(picture.width, left, right, width);
  const down = weights(picture.height, top, bottom, height);
  const first = down.first[0];
  const end = down.first[height - 1] + down.counts[height - 1];
  const rows = new Uint8Array(width * (end - first));
  for (let y = first; y < end; y++) {
    for (let x = 0; x < width; x++) rows[(y - first) * width + x] = weighed(picture.pixels, y * picture.width, 1, across, x);
  }
  const pixels = new Uint8Array(width * height);
  for (let y = 0; y < height; y++) {
    for (let x = 0; x < width; x++) pixels[y * width + x] = weighed(rows, x - first * width, width, down, y);
  }
  return { pixels, width, height };
}

// Return a new pixel: the weighted mean of old ones that lie a stride apart.
function weighed(pixels, start, stride, { first, counts, values, most }, index) {
  let sum = PRECISION / 2;
  let position = start + first[index] * stride;
  for (let one = index * most; one < index * most + counts[index]; one++, position += stride) sum += pixels[position] * values[one];
  return Math.min(Math.max(Math.floor(sum / PRECISION), 0), 255);
}

// Return of each new pixel along one side: the first old one, how many, and their weights (at most `most` each).
function weights(size, start, end, newSize) {
  const scale = (end - start) / newSize;
  const support = Math.max(scale, 1);
  const most = Math.ceil(support) * 2 + 1;
  const [first, counts, values] = [new Int32Array(newSize), new Int32Array(newSize), new Int32Array(newSize * most)];
  for (let index = 0; index < newSize; index++) {
    const centre = start + (index + 0.5) * scale;
    first[index] = Math.max(Math.trunc(centre - support + 0.5), 0);
    counts[index] = Math.min(Math.trunc(centre + support + 0.5), size) - first[index];
    const heights = Array.from({ length: counts[index] }, (_, one) => {
      return Math.max(1 - Math.abs((one + first[index] - centre + 0.5) * (1 / support)), 0);
    });
    const sum = heights.reduce((total, height) => total + height, 0);
    heights.forEach((height, one) => (values[index * most + one] = Math.trunc(0.5 + (height / sum) * PRECISION)));
  }
  return { first, counts, values, most };
}

// Return a picture turned counter-clockwise by so many degrees around a point; black where there was nothing.
export function rotated({ pixels, width, height }, degrees, [x, y]) {
  const matrix = turn(degrees, x, y);
  const result = new Uint8Array(width * height);
  for (let down = 0; down < height; down++) {
    for (let across = 0; across < width; across++) {
      const fromX = matrix[0] * (across + 0.5) + matrix[1] * (down + 0.5) + matrix[2];
      const fromY = matrix[3] * (across + 0.5) + matrix[4] * (down + 0.5) + matrix[5];
      if (fromX >= 0 && fromX < width && fromY >= 0 && fromY < height) {
        result[down * width + across] = between(pixels, width, height, fromX - 0.5, fromY - 0.5);
      }
    }
  }
  return { pixels: result, width, height };
}

// Return the matrix from a turned picture's points to the picture's, rounded as Pillow rounds it.
function turn(degrees, x, y) {
  const angle = -(degrees * (Math.PI / 180));
  const [cosine, sine] = [Number(Math.cos(angle).toFixed(15)), Number(Math.sin(angle).toFixed(15))];
  return [cosine, sine, cosine * -x + sine * -y + x, -sine, cosine, -sine * -x + cosine * -y + y];
}

// Return the grey between four pixels, cut to a whole number; beyond the edge it is repeated.
function between(pixels, width, height, x, y) {
  const [left, top] = [Math.floor(x), Math.floor(y)];
  const [across, down] = [x - left, y - top];
  const row = (number) => {
    const start = number * width;
    const one = pixels[start + Math.min(Math.max(left, 0), width - 1)];
    return one + (pixels[start + Math.min(Math.max(left + 1, 0), width - 1)] - one) * across;
  };
  const upper = row(Math.min(Math.max(top, 0), height - 1));
  const lower = top + 1 >= 0 && top + 1 < height ? row(top + 1) : upper;
  return Math.trunc(upper + (lower - upper) * down);
}
