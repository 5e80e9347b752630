// What belongs to one configuration lights up together; any two runs are tested against each other.
const parts = key => document.querySelectorAll(`[id$="-${key}"], [data-group="${key}"]`);
let pinned = null;

function light(key) {
  document.querySelectorAll(".lit").forEach(part => part.classList.remove("lit"));
  document.querySelectorAll(".drawing").forEach(box => box.classList.toggle("pointing", key !== null));
  if (key !== null) parts(key).forEach(part => (part.closest("tr") || part).classList.add("lit"));
}

document.querySelectorAll(".drawing [id]").forEach(part => {
  if (/-r\d+g\d+$/.test(part.id)) part.classList.add("part");
});
document.querySelectorAll("[data-group]").forEach(mark => {
  const place = mark.closest("tr") || mark, key = mark.dataset.group;
  place.addEventListener("mouseenter", () => light(key));
  place.addEventListener("mouseleave", () => light(pinned));
  if (mark.tagName === "BUTTON")
    mark.addEventListener("click", () => { pinned = pinned === key ? null : key; light(pinned); });
});

// --- McNemar's exact test ---------------------------------------------------------------------------------------

const held = JSON.parse(document.getElementById("answers").textContent);
const bits = text => Uint8Array.from(atob(text), letter => letter.charCodeAt(0));
const ones = byte => { let count = 0; for (; byte; byte &= byte - 1) count += 1; return count; };

function mcnemar(first, second) {
  const a = bits(first.bits), b = bits(second.bits);
  let left = 0, right = 0;
  for (let place = 0; place < a.length; place += 1) {
    left += ones(a[place] & ~b[place] & 255);
    right += ones(b[place] & ~a[place] & 255);
  }
  return { left, right, p: coin(Math.min(left, right), left + right) };
}

// two-sided probability of at most `fewer` heads or tails; sums in proportion to the largest term, which cannot vanish
function coin(fewer, tosses) {
  let logarithm = -tosses * Math.LN2, sum = 1, term = 1;
  for (let heads = 1; heads <= fewer; heads += 1) logarithm += Math.log((tosses - heads + 1) / heads);
  for (let heads = fewer; heads > 0; heads -= 1) { term *= heads / (tosses - heads + 1); sum += term; }
  return Math.min(1, 2 * sum * Math.exp(logarithm));
}

// fer.ranking.chance
const chance = p => p < 0.0001 ? "< 0.0001" : p.toFixed(p < 0.01 ? 4 : p < 0.1 ? 3 : 2);

// fer.significance.paired_difference of one network each
function difference(found, faces, quantile) {
  const middle = (found.left - found.right) / (faces + 2), all = found.left + found.right + 2;
  const half = quantile * Math.sqrt((all / (faces + 2) - middle * middle) / (faces + 2));
  return [(found.left - found.right) / faces, middle - half, middle + half].map(share => 100 * share);
}

const form = document.getElementById("pair");
const told = document.getElementById("told");
const points = value => (value < 0 ? "−" : "+") + Math.abs(value).toFixed(2);

function test() {
  const [first, second] = [form.first, form.second].map(menu => held.runs[menu.value]);
  if (first === second) told.textContent = "One run: choose two.";
  else if (first.faces !== second.faces)
    told.textContent = "These two were scored on different faces: no paired test can take them.";
  else {
    const found = mcnemar(first, second), { n, quantile } = held.faces[first.faces];
    const [value, low, high] = difference(found, n, quantile);
    told.textContent = `Only A is right on ${found.left.toLocaleString("en")} faces, only B on `
      + `${found.right.toLocaleString("en")}, of ${n.toLocaleString("en")}: A − B = ${points(value)} points, 95 % for other `
      + `faces ${points(low)} to ${points(high)}. Exact p ${found.p < 0.0001 ? "" : "= "}${chance(found.p)}.`;
  }
}

if (form) {
  form.hidden = false;
  form.addEventListener("change", test);
  test();
}
