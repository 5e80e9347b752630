// OpenCV's detectMultiScale for a Haar cascade, box for box and score for score (modules/objdetect/src/cascadedetect.cpp
// of OpenCV 4). The arithmetic is OpenCV's: 32-bit floats, integers that wrap, halves rounded to the even number.
//
// A picture here is {pixels: Uint8Array of width * height greys, row by row, width, height}.

const NODE = 16; // numbers of a node in the table of nodes
const WEIGHT = 12; // index of its first weight; weights are whole, so that the sums below are exact in OpenCV's floats too
const STEP_BELOW = 2; // of the scale; below it every second window is searched
const FLAT = 0.1; // windows of hardly any contrast show no face
const SAME = 0.2; // of a box's side: how far the sides of boxes of one group lie apart
const MANY = 3; // members of a group that larger groups around it swallow only if they have more

// Return a number rounded as the processor does: halves to the even neighbour.
export function even(value) {
  const below = Math.floor(value);
  const rest = value - below;
  if (rest === 0.5) return below + (below & 1);
  return rest < 0.5 ? below : below + 1;
}

export class Cascade {
  // described: the JSON that fer writes of OpenCV's XML.
  constructor(described) {
    this.side = described.side;
    this.stages = Float32Array.from(described.stages, (stage) => Math.fround(stage.threshold) - Math.fround(1e-5));
    const trees = described.stages.flatMap((stage) => stage.trees);
    this.ends = new Int32Array(described.stages.length); // of each stage: the number of the first tree behind it
    described.stages.forEach((stage, number) => {
      this.ends[number] = stage.trees.length + (number ? this.ends[number - 1] : 0);
    });
    const nodes = trees.flatMap((tree) => tree.nodes);
    this.roots = new Int32Array(trees.length);
    this.next = new Int32Array(2 * nodes.length); // node, or ~leaf, where the value is below the threshold and where not
    this.thresholds = Float32Array.from(nodes, (node) => node[3]);
    this.leaves = Float32Array.from(trees.flatMap((tree) => tree.leaves));
    this.#link(trees);
    this.rectangles = nodes.map((node) => described.features[node[2]]);
    this.nodes = new Int32Array(NODE * nodes.length); // of each: offsets of the corners of three rectangles, their weights
    this.rectangles.forEach((feature, node) => feature.forEach((one, index) => (this.nodes[NODE * node + WEIGHT + index] = one[4])));
    this.inner = new Int32Array(4); // likewise, of a window without its outermost pixels
  }

  // Turn a tree's own numbers of nodes and leaves into those of the arrays.
  #link(trees) {
    let node = 0;
    let leaf = 0;
    trees.forEach((tree, number) => {
      this.roots[number] = node;
      tree.nodes.forEach((one, index) => {
        for (const side of [0, 1]) this.next[2 * (node + index) + side] = one[side] > 0 ? node + one[side] : ~(leaf - one[side]);
      });
      node += tree.nodes.length;
      leaf += tree.leaves.length;
    });
  }

  // Return the boxes of a picture, [{x, y, width, height, score}]: detectMultiScale3 with outputRejectLevels.
  // scale: step between two sizes. neighbours: more windows than that make a box; 0: each window is one.
  // smallest, largest: sides in pixels; 0 is no bound.
  search(picture, scale, neighbours, smallest = 0, largest = 0) {
    const { width, height } = picture;
    const columns = width + 1;
    this.#setOffsets(columns);
    const tables = { columns, sums: new Int32Array(columns * (height + 1)), squares: new Int32Array(columns * (height + 1)) };
    const found = [];
    let stripes = 0; // that OpenCV searches side by side, by the largest copy; they decide on a last row
    for (const one of this.#scales(width, height, scale, smallest, largest)) {
      const copy = scaled(picture, even(Math.fround(width / one)), even(Math.fround(height / one)));
      stripes ||= Math.ceil((copy.width + 1 - this.side) / 32);
      integrals(copy, tables);
      this.#windows(copy, tables, one, stripes, found);
    }
    return clipped(neighbours ? grouped(found, neighbours) : found, width, height);
  }

  // Return how many times smaller the copies are in which windows of one side are searched.
  #scales(width, height, scale, smallest, largest) {
    const scales = [];
    for (let factor = 1; even(this.side * factor) <= Math.min(largest || Infinity, width, height); factor *= scale) {
      if (even(this.side * factor) >= smallest) scales.push(Math.fround(factor));
    }
    return scales;
  }

  // Set the offsets of all rectangles' corners for tables of so many columns.
  #setOffsets(columns) {
    const corners = ([x, y, width, height]) => [0, height * columns].flatMap((down) => [0, width].map((across) => x + across + y * columns + down));
    this.inner.set(corners([1, 1, this.side - 2, this.side - 2]));
    this.rectangles.forEach((feature, node) => feature.forEach((one, index) => this.nodes.set(corners(one), NODE * node + 4 * index)));
  }

  // Add the windows of one scale that pass all stages.
  #windows(copy, tables, scale, stripes, found) {
    const step = scale >= STEP_BELOW ? 1 : 2;
    const across = copy.width + 1 - this.side;
    const down = copy.height + 1 - this.side;
    const stripe = Math.max(Math.floor((Math.floor(down / step) + stripes - 1) / stripes), 1) * step;
    const end = Math.min(stripe * stripes, down); // stripes of whole steps may leave out the last row
    const side = even(Math.fround(this.side * scale));
    const score = new Float64Array(1);
    for (let y = 0; y < end; y += step) {
      for (let x = 0; x < across; x += step) {
        const passed = this.#passed(tables, x + y * tables.columns, score);
        if (passed === this.stages.length) {
          found.push({ x: even(Math.fround(x * scale)), y: even(Math.fround(y * scale)), width: side, height: side, score: score[0] });
        }
        if (passed === 0) x += step; // far from a face
      }
    }
  }

  // Return how many stages the window at an upper left corner passes, -1 for one without contrast; score gets the sum of the last one.
  #passed(tables, corner, score) {
    const norm = this.#norm(tables, corner);
    if (!norm) return -1;
    const { ends, stages, roots, next, thresholds, leaves, nodes } = this;
    const { sums } = tables;
    let tree = 0;
    for (let stage = 0; stage < stages.length; stage++) {
      const end = ends[stage];
      let total = 0;
      for (; tree < end; tree++) {
        let node = roots[tree];
        do {
          const at = NODE * node;
          let value = Math.imul(nodes[at + WEIGHT], area(sums, nodes, at, corner)) + Math.imul(nodes[at + WEIGHT + 1], area(sums, nodes, at + 4, corner));
          const third = nodes[at + WEIGHT + 2];
          if (third !== 0) value += Math.imul(third, area(sums, nodes, at + 8, corner));
          node = next[2 * node + (Math.fround(value * norm) < thresholds[node] ? 0 : 1)];
        } while (node >= 0);
        total += leaves[~node];
      }
      if (total < stages[stage]) return stage;
      score[0] = total;
    }
    return stages.length;
  }

  // Return what makes the values of a window's features independent of its contrast; 0 for a flat window.
  #norm({ sums, squares }, corner) {
    const count = (this.side - 2) * (this.side - 2);
    const sum = area(sums, this.inner, 0, corner);
    const square = area(squares, this.inner, 0, corner) >>> 0;
    const spread = count * square - sum * sum;
    if (spread <= 0) return 0;
    const norm = Math.fround(1 / Math.sqrt(spread));
    return count * norm < FLAT ? norm : 0;
  }
}

// Return the sum of a table's rectangle: at is where its four corners stand in offsets.
function area(table, offsets, at, corner) {
  return (table[corner + offsets[at]] - table[corner + offsets[at + 1]] - table[corner + offsets[at + 2]] + table[corner + offsets[at + 3]]) | 0;
}

// Return a picture resized by OpenCV's INTER_LINEAR_EXACT: weights of 8 binary digits, nothing rounded in between.
export function scaled({ pixels, width, height }, newWidth, newHeight) {
  if (newWidth === width && newHeight === height) return { pixels, width, height };
  const across = weighted(width, newWidth);
  const down = weighted(height, newHeight);
  const rows = [new Int32Array(newWidth), new Int32Array(newWidth)]; // of the picture, resized to the width
  const numbers = [-1, -1]; // of the old rows
  const result = new Uint8Array(newWidth * newHeight);
  const row = (y) => {
    const slot = y & 1;
    if (numbers[slot] !== y) {
      numbers[slot] = y;
      for (let x = 0; x < newWidth; x++) {
        const from = y * width + across.first[x];
        rows[slot][x] = across.weight[x] ? pixels[from] * (256 - across.weight[x]) + pixels[from + 1] * across.weight[x] : pixels[from] << 8;
      }
    }
    return rows[slot];
  };
  for (let y = 0; y < newHeight; y++) {
    const weight = down.weight[y];
    const upper = row(down.first[y]);
    const lower = weight ? row(down.first[y] + 1) : upper;
    for (let x = 0; x < newWidth; x++) result[y * newWidth + x] = (upper[x] * (256 - weight) + lower[x] * weight + 32768) >>> 16;
  }
  return { pixels: result, width: newWidth, height: newHeight };
}

// Return of each new pixel the first old one, and the weight of the one behind it in 256ths.
function weighted(size, newSize) {
  const scale = 1 / (newSize / size);
  const first = new Int32Array(newSize);
  const weight = new Int32Array(newSize);
  for (let index = 0; index < newSize; index++) {
    const position = scale * (index + 0.5) - 0.5;
    const whole = Math.floor(position);
    first[index] = Math.min(Math.max(whole, 0), size - 1);
    if (whole >= 0 && whole < size - 1) weight[index] = even((position - whole) * 256);
  }
  return { first, weight };
}

// Fill the tables of sums of greys and of their squares above and left of each pixel; both wrap at 32 bits.
function integrals({ pixels, width, height }, { sums, squares, columns }) {
  sums.fill(0, 0, width + 1);
  squares.fill(0, 0, width + 1);
  for (let y = 0; y < height; y++) {
    let [sum, square] = [0, 0];
    let index = (y + 1) * columns;
    sums[index] = squares[index] = 0;
    for (let x = 0; x < width; x++) {
      const value = pixels[y * width + x];
      index++;
      sum += value;
      square = (square + value * value) | 0;
      sums[index] = sums[index - columns] + sum;
      squares[index] = squares[index - columns] + square;
    }
  }
}

// Return the mean boxes of groups of similar boxes, with the highest score of each: OpenCV's groupRectangles.
function grouped(boxes, neighbours) {
  const groups = means(partition(boxes)).filter((one) => one.members > neighbours);
  const kept = groups.filter((one) => !groups.some((other) => other !== one && swallows(other, one)));
  return kept.map(({ members, ...box }) => box);
}

// Return lists of boxes: two are in one list if a chain of similar boxes joins them.
function partition(boxes) {
  const group = boxes.map((_, index) => index);
  const root = (index) => {
    while (group[index] !== index) index = group[index] = group[group[index]];
    return index;
  };
  for (let one = 0; one < boxes.length; one++) {
    for (let other = 0; other < one; other++) if (similar(boxes[one], boxes[other])) group[root(one)] = root(other);
  }
  const lists = new Map();
  boxes.forEach((box, index) => {
    const key = root(index);
    lists.set(key, [...(lists.get(key) ?? []), box]);
  });
  return [...lists.values()];
}

function similar(one, other) {
  const most = SAME * (Math.min(one.width, other.width) + Math.min(one.height, other.height)) * 0.5;
  return Math.abs(one.x - other.x) <= most && Math.abs(one.y - other.y) <= most &&
    Math.abs(one.x + one.width - other.x - other.width) <= most && Math.abs(one.y + one.height - other.y - other.height) <= most;
}

function means(lists) {
  return lists.map((list) => {
    const share = Math.fround(1 / list.length);
    const mean = (key) => even(Math.fround(list.reduce((sum, box) => sum + box[key], 0) * share));
    return {
      x: mean("x"), y: mean("y"), width: mean("width"), height: mean("height"),
      score: Math.max(...list.map((box) => box.score)), members: list.length,
    };
  });
}

// Return whether a box lies within that of a group of more members.
function swallows(large, small) {
  const [across, down] = [even(large.width * SAME), even(large.height * SAME)];
  return (large.members > Math.max(MANY, small.members) || small.members < MANY) &&
    small.x >= large.x - across && small.y >= large.y - down &&
    small.x + small.width <= large.x + large.width + across && small.y + small.height <= large.y + large.height + down;
}

function clipped(boxes, width, height) {
  return boxes.map((box) => {
    const [x, y] = [Math.max(box.x, 0), Math.max(box.y, 0)];
    return { ...box, x, y, width: Math.min(box.x + box.width, width) - x, height: Math.min(box.y + box.height, height) - y };
  }).filter((box) => box.width > 0 && box.height > 0);
}
