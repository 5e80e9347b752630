// The faces of a picture: the searches of fer.inference.detect.Haar, whose constants come with the network.

import { even } from "./cascade.js";
import { resized } from "./resample.js";
import { mapped, upright } from "./upright.js";

export class Detector {
  // cascade: of cascade.js. rules: the constants of fer.inference.detect, in small letters.
  constructor(cascade, rules) {
    this.cascade = cascade;
    this.rules = rules;
  }

  // Return the faces of an upright grey picture, largest first: [{box: {x, y, width, height}, score, tilt}].
  // A tilt is in degrees clockwise; the box of a tilted face is the one that it has when it is turned upright.
  faces(grey) {
    const { scale, turned_scale, neighbours, tilt } = this.rules;
    const { copy, factor } = this.#searched(grey);
    const sides = [this.#smallest(Math.max(copy.width, copy.height)), 0];
    let found = this.#turned(copy, 0, scale, neighbours, sides);
    if (!found.length) found = [-tilt, tilt].flatMap((angle) => this.#turned(copy, angle, turned_scale, neighbours, sides));
    const sure = this.#strongest(found).map((face) => this.#confirmed(copy, face)).filter(Boolean);
    return sure.map((face) => zoomed(face, factor)).sort((one, other) => side(other.box) - side(one.box));
  }

  // Return the copy of a picture that is searched, and the factor from its pixels to those of the picture.
  #searched(grey) {
    const { longest: most } = this.rules;
    const longest = Math.max(grey.width, grey.height);
    if (longest <= most) return { copy: grey, factor: 1 };
    const [width, height] = [grey.width, grey.height].map((length) => Math.max(1, even((length * most) / longest)));
    return { copy: resized(grey, width, height), factor: longest / most };
  }

  // Return the side in pixels of the smallest face that is searched for, by the longer side of the copy.
  #smallest(longest) {
    const { small_picture, smallest_there, smallest, smallest_share } = this.rules;
    return longest <= small_picture ? smallest_there : Math.max(smallest, even(smallest_share * longest));
  }

  // Return the faces that are tilted by an angle: the picture is turned back first.
  #turned(grey, angle, scale, neighbours, sides) {
    const { picture, back } = angle ? upright(grey, angle) : { picture: grey };
    const boxes = this.cascade.search(picture, scale, neighbours, ...sides).filter((box) => box.score >= this.rules.least_score);
    return boxes.flatMap(({ score, ...box }) => {
      if (!back) return [{ box, score, tilt: 0 }];
      const [x, y] = mapped(back, box.x + box.width / 2, box.y + box.height / 2);
      if (!(x >= 0 && x < grey.width && y >= 0 && y < grey.height)) return [];
      return [{ box: { ...box, x: x - box.width / 2, y: y - box.height / 2 }, score, tilt: angle }];
    });
  }

  // Return detections of which no two are the same face; of each face the one with the highest score.
  #strongest(found) {
    const kept = [];
    for (const face of [...found].sort((one, other) => other.score - one.score)) {
      if (kept.every((other) => overlap(face.box, other.box) <= this.rules.same_face)) kept.push(face);
    }
    return kept;
  }

  // Return a face at the tilt at which the cascade is surest, or null where one tilt alone shows a tilted face.
  #confirmed(grey, face) {
    const { refined, scale, confirming, same_face, tilt: most, patch } = this.rules;
    const { picture, left, top } = part(grey, face.box, patch);
    const sides = [even(0.7 * side(face.box)), even(1.4 * side(face.box))];
    const same = [face.tilt - refined, face.tilt + refined]
      .flatMap((angle) => this.#turned(picture, angle, scale, confirming, sides))
      .map((other) => ({ ...other, box: { ...other.box, x: other.box.x + left, y: other.box.y + top } }))
      .filter((other) => overlap(other.box, face.box) > same_face);
    if (face.tilt && !same.length) return null;
    return same.filter((other) => Math.abs(other.tilt) <= most).reduce((best, one) => (one.score > best.score ? one : best), face);
  }
}

// Return the part of a picture around a box, a multiple of its side wide, and the part's left and upper edge.
function part(grey, box, multiple) {
  const [x, y] = [box.x + box.width / 2, box.y + box.height / 2];
  const reach = (multiple * side(box)) / 2;
  const [left, top] = [Math.max(0, Math.floor(x - reach)), Math.max(0, Math.floor(y - reach))];
  const width = Math.min(Math.max(0, Math.ceil(x + reach)), grey.width) - left;
  const height = Math.min(Math.max(0, Math.ceil(y + reach)), grey.height) - top;
  const pixels = new Uint8Array(width * height);
  for (let row = 0; row < height; row++) {
    const start = (top + row) * grey.width + left;
    pixels.set(grey.pixels.subarray(start, start + width), row * width);
  }
  return { picture: { pixels, width, height }, left, top };
}

// Return the area of the intersection of two boxes, as a share of the union.
function overlap(one, other) {
  const across = Math.min(one.x + one.width, other.x + other.width) - Math.max(one.x, other.x);
  const down = Math.min(one.y + one.height, other.y + other.height) - Math.max(one.y, other.y);
  const shared = Math.max(across, 0) * Math.max(down, 0);
  const whole = one.width * one.height + other.width * other.height - shared;
  return whole > 0 ? shared / whole : 0;
}

// Return the side of a square of the same area, in pixels.
export function side(box) {
  return Math.sqrt(box.width * box.height);
}

function zoomed(face, scale) {
  const { x, y, width, height } = face.box;
  return { ...face, box: { x: x * scale, y: y * scale, width: width * scale, height: height * scale } };
}
