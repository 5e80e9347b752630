// Highlights all lines, dots and rows of one configuration; compares any two runs by a test.
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
  const target = mark.closest("tr") || mark, key = mark.dataset.group;
  target.addEventListener("mouseenter", () => light(key));
  target.addEventListener("mouseleave", () => light(pinned));
  if (mark.tagName === "BUTTON")
    mark.addEventListener("click", () => { pinned = pinned === key ? null : key; light(pinned); });
});

// --- McNemar's exact test ---------------------------------------------------------------------------------------

const answers = JSON.parse(document.getElementById("answers").textContent);
const bits = text => Uint8Array.from(atob(text), letter => letter.charCodeAt(0));
const ones = byte => { let count = 0; for (; byte; byte &= byte - 1) count += 1; return count; };

function mcnemar(first, second) {
  const a = bits(first.bits), b = bits(second.bits);
  let left = 0, right = 0;
  for (let index = 0; index < a.length; index += 1) {
    left += ones(a[index] & ~b[index] & 255);
    right += ones(b[index] & ~a[index] & 255);
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

// as fer.runs.ranking.p_text
const chance = p => p < 0.0001 ? "< 0.0001" : p.toFixed(p < 0.01 ? 4 : p < 0.1 ? 3 : 2);

// as fer.metrics.statistics.paired_difference, of one network each
function difference(test, faces, quantile) {
  const middle = (test.left - test.right) / (faces + 2), all = test.left + test.right + 2;
  const half = quantile * Math.sqrt((all / (faces + 2) - middle * middle) / (faces + 2));
  const ends = [Math.max(-1, middle - half), Math.min(1, middle + half)];
  return [(test.left - test.right) / faces, ...ends].map(share => 100 * share);
}

const form = document.getElementById("pair");
const output = document.getElementById("pair-result");
const points = value => (value < 0 ? "−" : "+") + Math.abs(value).toFixed(2);

function showTest() {
  const [first, second] = [form.first, form.second].map(menu => answers.runs[menu.value]);
  if (first === second) output.textContent = "A and B are the same run: choose two.";
  else if (first.faces !== second.faces)
    output.textContent = "These two runs were scored on different faces, so a paired test does not apply.";
  else {
    const test = mcnemar(first, second), { n, quantile } = answers.faces[first.faces];
    const [value, low, high] = difference(test, n, quantile);
    output.textContent = `Only A is correct on ${test.left.toLocaleString("en")} faces, only B on `
      + `${test.right.toLocaleString("en")}, of ${n.toLocaleString("en")}: A − B = ${points(value)} points, 95 % for other `
      + `faces ${points(low)} to ${points(high)}. Exact p ${test.p < 0.0001 ? "" : "= "}${chance(test.p)}.`;
  }
}

if (form) {
  form.hidden = false;
  form.addEventListener("change", showTest);
  showTest();
}
