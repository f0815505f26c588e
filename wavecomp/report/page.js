"use strict";
const { bands, chunks } = JSON.parse(document.getElementById("data").textContent);
const text = document.getElementById("text");
const spans = Array.from(text.children);
const panel = document.getElementById("chunk");
let selected = 0;

function element(name, content, ...children) {
  const made = document.createElement(name);
  if (content !== null) made.textContent = content;
  made.append(...children);
  return made;
}

function figure(name, value) {
  return element("div", null, element("dt", name), element("dd", value));
}

function row(name, middle, value) {
  const made = element("div", null, element("b", name), middle, element("output", value));
  made.className = "row";
  return made;
}

// tiles are [where it begins, how wide it is], in shares of the strip
function strip(tiles) {
  const made = element("div", null);
  made.className = "strip";
  for (const [start, width] of tiles) {
    const tile = element("i", null);
    tile.style.left = `${100 * Math.max(start, 0)}%`;
    tile.style.width = `${100 * (Math.min(start + width, 1) - Math.max(start, 0))}%`;
    made.append(tile);
  }
  return made;
}

function energies(energy) {
  const whole = energy.reduce((sum, x) => sum + x, 0) || 1;
  const rows = energy
    .map((x, band) => row(bands[band], strip([[0, x / whole]]), `${(100 * x / whole).toFixed(1)} %`))
    .filter((_, band) => energy[band]);  // a chunk may have a few bands of many
  return rows.length ? [element("h3", "Energy of its bands"), ...rows] : [];
}

function kept(codes, start, length) {
  if (!codes.length) return [];
  const groups = new Map();
  for (const [level, frequency, from, support] of codes) {
    const name = `${level}, ${frequency.toPrecision(2)}`;
    if (!groups.has(name)) groups.set(name, { frequency, tiles: [] });
    groups.get(name).tiles.push([from / length, support / length]);
  }
  const sorted = Array.from(groups).sort((one, other) => one[1].frequency - other[1].frequency);
  const axis = element("div", null, element("span", `${start}`), element("span", `${start + length - 1}`));
  axis.className = "axis";
  const rows = sorted.map(([name, { tiles }]) => row(name, strip(tiles), `${tiles.length}`));
  return [element("h3", "Codes kept, by level and cycles per byte"), ...rows, row("", axis, "")];
}

function show(number) {
  const [start, length, bits, hidden, energy, codes] = chunks[number];
  panel.replaceChildren(
    element("h2", `Chunk ${number + 1} of ${chunks.length}`),
    element("dl", null,
      figure("bytes", `${start} to ${start + length - 1}`),
      figure("codes kept", `${codes.length}`),
      figure("bits per byte", bits.toFixed(2)),
      figure("codes hidden", hidden.toFixed(2))),
    ...energies(energy),
    ...kept(codes, start, length));
}

function select(number, focus) {
  spans[selected].tabIndex = -1;
  spans[selected].setAttribute("aria-selected", "false");
  selected = Math.min(Math.max(number, 0), spans.length - 1);
  spans[selected].tabIndex = 0;
  spans[selected].setAttribute("aria-selected", "true");
  show(selected);
  if (focus) spans[selected].focus();
}

const steps = { ArrowRight: 1, ArrowDown: 1, ArrowLeft: -1, ArrowUp: -1, Home: -Infinity, End: Infinity };
text.addEventListener("keydown", (event) => {
  if (!(event.key in steps) || event.ctrlKey || event.altKey || event.metaKey) return;
  event.preventDefault();
  select(selected + steps[event.key], true);
});
const numberOf = (event) => spans.indexOf(event.target.closest("#text > span"));
text.addEventListener("focusin", (event) => select(numberOf(event), false));
text.addEventListener("click", (event) => numberOf(event) >= 0 && select(numberOf(event), true));
text.addEventListener("pointerover", (event) => {
  if (event.pointerType === "mouse" && numberOf(event) >= 0) show(numberOf(event));
});
text.addEventListener("pointerleave", () => show(selected));
for (const choice of document.getElementsByName("by")) {
  choice.addEventListener("change", () => { document.querySelector(".page").dataset.by = choice.value; });
}
select(0, false);
panel.setAttribute("aria-live", "polite");
