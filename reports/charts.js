/* Pictures of a case, as SVG: errors along a tensor, histograms of units in the last place, running statistics over the
   steps. conformance/evidence.py describes the data. Colours and strokes are classes of the style. */
"use strict";

const LEVELS = "ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789-_";
const WITHIN = 32;
const SVG = document.getElementById("bar").content.firstElementChild.namespaceURI;

function svg(tag, attributes, ...children) {
  const element = document.createElementNS(SVG, tag);
  for (const [name, value] of Object.entries(attributes)) element.setAttribute(name, value);
  element.append(...children);
  return element;
}

/* Pictures that nobody has looked at yet; printing looks at all. */
const waiting = new Map();
window.addEventListener("beforeprint", () => waiting.forEach((draw) => draw()));

/* A picture that is drawn once it is looked at. */
function whenSeen(width, height, name, draw) {
  const picture = svg("svg", { viewBox: `0 0 ${width} ${height}`, role: "img", "aria-label": name, class: "picture" });
  picture.style.aspectRatio = `${width} / ${height}`;
  const watch = new IntersectionObserver((seen) => seen.some((one) => one.isIntersecting) && waiting.get(picture)?.());
  waiting.set(picture, () => {
    watch.disconnect();
    waiting.delete(picture);
    picture.append(...draw());
  });
  watch.observe(picture);
  return picture;
}

/* The class of a level of error: 0 none, 1 to 5 within the bound by octaves, 6 and 7 beyond it, 8 no number. */
function shade(level) {
  if (level === 0) return 0;
  if (level === LEVELS.length - 1) return 8;
  if (level > WITHIN) return level > WITHIN + 6 ? 7 : 6;
  return Math.max(1, 5 - Math.floor((WITHIN - level) / 4));
}

/* The error over the bound that a level stands for at most. */
function ratioOf(level) {
  if (level === 0) return "no error";
  if (level === LEVELS.length - 1) return "no number where there should be one, or one where there should be none";
  return `up to ${number(2 ** ((level - WITHIN) / 2), 2)} of the bound`;
}

function strip(tensor, name) {
  const codes = tensor.strip || "A";
  const step = 100 / codes.length;
  const size = (tensor.shape || []).reduce((a, b) => a * b, 1);
  const draw = () =>
    [...codes].map((code, place) => {
      const level = LEVELS.indexOf(code);
      const from = Math.floor((place * size) / codes.length);
      const to = Math.max(from, Math.floor(((place + 1) * size) / codes.length) - 1);
      const told = `${from === to ? `element ${from}` : `elements ${from} to ${to}`}: ${ratioOf(level)}`;
      const box = { x: place * step, y: 0, width: step + 0.05, height: 10, class: `s${shade(level)}` };
      return svg("rect", box, svg("title", {}, told));
    });
  const picture = whenSeen(100, 10, name, draw);
  picture.setAttribute("preserveAspectRatio", "none");
  picture.classList.add("strip");
  return picture;
}

/* Counts of 0, up to ½, 1, 2, 4 … units in the last place; the class beyond 2²⁰ is the last of conformance.evidence. */
const OPEN_CLASS = 23;

const ulpName = (place) => (place === OPEN_CLASS ? ">2²⁰" : place === 0 ? "0" : place === 1 ? "½" : place < 12 ? String(2 ** (place - 2)) : `2${[...String(place - 2)].map((one) => SUPERSCRIPTS[one]).join("")}`);

function histogram(counts, classes, name) {
  const width = 14 * classes + 4;
  const most = Math.max(...counts, 1);
  const draw = () => [
    svg("line", { x1: 0, x2: width, y1: 50, y2: 50, class: "axis" }),
    ...counts.map((count, place) => {
      const height = count ? Math.max(1, (44 * count) / most) : 0;
      const told = `${number(count, 6)} ${count === 1 ? "element" : "elements"} ${place === OPEN_CLASS ? "beyond 2²⁰ ULP" : place ? `up to ${ulpName(place)} ULP` : "exact"}`;
      const box = { x: 14 * place + 3, y: 50 - height, width: 12, height, class: "count" };
      return svg("rect", box, svg("title", {}, told));
    }),
    ...Array.from({ length: classes }, (_, place) => place)
      .filter((place) => classes <= 10 || place % 2 === 1)
      .map((place) => svg("text", { x: 14 * place + 9, y: 60 }, ulpName(place))),
  ];
  const picture = whenSeen(width, 64, name, draw);
  picture.classList.add("histogram");
  return picture;
}

const MARKS = [
  (x, y) => svg("circle", { cx: x, cy: y, r: 3 }),
  (x, y) => svg("rect", { x: x - 2.7, y: y - 2.7, width: 5.4, height: 5.4 }),
  (x, y) => svg("path", { d: `M${x} ${y - 3.6}L${x + 3.3} ${y + 2.6}H${x - 3.3}Z` }),
  (x, y) => svg("path", { d: `M${x} ${y - 3.9}L${x + 3.9} ${y}L${x} ${y + 3.9}L${x - 3.9} ${y}Z` }),
];

/* The mark of a target, for a legend. */
function legendMark(target) {
  return svg("svg", { viewBox: "-5 -5 10 10", class: `legend t${target % 4}`, "aria-hidden": "true" }, MARKS[target % 4](0, 0));
}

/* One channel of a statistic over the steps: the reading of each target as a line, what it returned as marks.
   `series`: {target, exact: [value of each step], seen: [...], canonical: [...]}. */
function followed(series, name) {
  const numbers = series.flatMap((one) => [...one.exact, ...one.seen, ...one.canonical]).filter(Number.isFinite);
  const low = Math.min(...numbers), high = Math.max(...numbers);
  const steps = Math.max(...series.map((one) => one.seen.length));
  const x = (step) => (steps === 1 ? 130 : 48 + (step * 200) / (steps - 1));
  const y = (value) => (high === low ? 50 : 88 - (76 * (value - low)) / (high - low));
  const line = (values, kind) => {
    const points = values.map((value, step) => (Number.isFinite(value) ? `${x(step).toFixed(1)},${y(value).toFixed(1)}` : null));
    return svg("polyline", { points: points.filter(Boolean).join(" "), class: kind });
  };
  const draw = () => {
    const reference = series.map((one) => (one.canonical.length ? one.canonical : one.exact)).find((one) => one.length);
    const drawn = [
      svg("line", { x1: 40, x2: 256, y1: 98, y2: 98, class: "axis" }),
      svg("text", { x: 36, y: y(high) + 3, class: "end" }, number(high, 4)),
      ...(high === low ? [] : [svg("text", { x: 36, y: y(low) + 3, class: "end" }, number(low, 4))]),
      ...(steps <= 12 ? Array.from({ length: steps }, (_, step) => svg("text", { x: x(step), y: 108 }, String(step))) : [svg("text", { x: x(0), y: 108 }, "0"), svg("text", { x: x(steps - 1), y: 108 }, String(steps - 1))]),
      line(reference, "reference"),
    ];
    series.forEach((one) => {
      if (one.canonical.length) drawn.push(line(one.exact, "declared"));
    });
    series.forEach((one, place) => {
      const shift = (place - (series.length - 1) / 2) * (steps > 12 ? 0 : 5);
      one.seen.forEach((value, step) => {
        if (!Number.isFinite(value) || (steps > 40 && step % Math.ceil(steps / 40))) return;
        const mark = MARKS[one.target % 4](x(step) + shift, y(value));
        mark.setAttribute("class", `t${one.target % 4}`);
        mark.append(svg("title", {}, `${data.targets[one.target]}, step ${step}: ${number(value, 6)}; reference ${number(one.exact[step], 6)}`));
        drawn.push(mark);
      });
    });
    return drawn;
  };
  return whenSeen(264, 112, name, draw);
}
