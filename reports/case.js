/* Draws the page of a case: verdicts, tensors, pairs, specification. Loaded before script.js, whose building blocks it
   uses once that has run. */
"use strict";

function drawCase(item) {
  const ordered = [...item.verdicts].sort((a, b) => (b.unexpected || 0) - (a.unexpected || 0));
  page.replaceChildren(
    make(
      "header",
      {},
      neighbours(item),
      make("h1", { tabindex: "-1" }, item.id),
      make("p", { class: "prose" }, text(item.why)),
      make("p", { class: "quiet" }, `${text(item.file)}:${item.line}`),
      make("p", { class: "quiet" }, "Explain: ", make("code", {}, `conformance explain ${quoted(item.id)}`)),
    ),
    section("Verdicts", "", ...ordered.map((verdict) => drawVerdict(item, verdict))),
    ...drawTensors(item),
    ...drawPairs(item),
    section("Specification", "as the case says it, defaults left out", make("pre", {}, text(item.spec))),
  );
}

function neighbours(item) {
  const order = visible.includes(item.id) ? visible : data.cases.map((one) => one.id);
  const place = order.indexOf(item.id);
  const link = (id, name, rel) => (id === undefined ? null : make("a", { href: caseLink(id), rel }, name));
  return make(
    "nav",
    { "aria-label": "Cases" },
    make("a", { href: left.address, id: "back" }, "← All cases"),
    link(order[place - 1], "Previous", "prev"),
    link(order[place + 1], "Next", "next"),
    make("span", { class: "quiet" }, `${place + 1} of ${order.length}`),
  );
}

function drawVerdict(item, verdict) {
  const name = data.targets[verdict.target || 0];
  const seconds = verdict.seconds >= 1 ? `${number(verdict.seconds)} s` : `${number(1000 * (verdict.seconds || 0))} ms`;
  const reason = text(verdict.because);
  const because = reason && verdict.error && !verdict.unexpected ? `Expected, because ${reason}` : reason;
  const message = verdict.error ? make("pre", { class: "error" }, verdict.error.map(text).join(": ")) : null;
  const wanted = verdict.unexpected ? `expected ${text(verdict.expected)}` : "";
  return make(
    "article",
    { class: "target" },
    make("h3", {}, name),
    make(
      "div",
      { class: "target-text" },
      make("p", {}, word(text(verdict.verdict)), " ", flag(verdict.unexpected), " ", make("small", {}, [wanted, seconds].filter(Boolean).join(" · "))),
      because ? make("p", { class: "prose" }, because) : null,
      verdict.diagnosis ? make("p", { class: "quiet" }, make("code", {}, text(verdict.diagnosis))) : null,
      verdict.received ? make("p", {}, make("code", {}, text(verdict.received))) : null,
      message,
      ...(verdict.facts || []).map((fact) => make("p", { class: "quiet" }, text(fact))),
      make("p", { class: "quiet" }, "See: ", make("code", {}, `conformance explain ${quoted(item.id)} -t ${quoted(name)}`)),
    ),
  );
}

/* A word for a POSIX shell. */
function quoted(value) {
  return /^[\w./=,:@-]+$/.test(value) ? value : `'${value.replaceAll("'", "'\\''")}'`;
}

function drawTensors(item) {
  const judged = item.verdicts.filter((verdict) => verdict.tensors);
  if (!judged.length) return [];
  const found = judged.flatMap((verdict) => verdict.tensors.map((row) => tensorOf(row, data.targets[verdict.target || 0])));
  const names = [...new Set(found.map((tensor) => tensor.name))];
  const targets = [...new Set(found.map((tensor) => tensor.target))];
  const over = found.filter((tensor) => tensor.over).sort((a, b) => size(b) - size(a));
  const rest = names.flatMap((name) => found.filter((tensor) => tensor.name === name && !tensor.over && !tensor.exact));
  return [
    section(
      "Tensors",
      "largest error as a fraction of its bound, against the reading that the verdict names; above 1 is more than rounding explains",
      compared(names, targets, found),
      over.length ? measured(over, "Out of bound, the worst first") : null,
      rest.length ? make("details", {}, make("summary", {}, "Errors within their bounds"), measured(rest, "")) : null,
    ),
  ];
}

function tensorOf(row, target) {
  const [name, ratio = 0, maxAbs = 0, maxUlp = 0, at = null, problem] = row;
  const over = problem !== undefined || ratio === null || ratio > 1;
  return { name: text(name), target, ratio, maxAbs, maxUlp, at, problem: text(problem), over, exact: row.length === 1 };
}

const size = (tensor) => (tensor.problem || tensor.ratio === null ? Infinity : tensor.ratio);
const stepOf = (name) => (/\[(\d+)\]/.exec(name) || ["", ""])[1];

function compared(names, targets, found) {
  const at = new Map(found.map((tensor) => [`${tensor.target}\n${tensor.name}`, tensor]));
  const body = names.map((name, place) =>
    make(
      "tr",
      { class: place && stepOf(name) !== stepOf(names[place - 1]) ? "next" : "" },
      make("th", { scope: "row" }, name),
      ...targets.map((target) => ratioCell(at.get(`${target}\n${name}`))),
    ),
  );
  return make("table", { class: "tensors" }, head("Tensor", ...targets.map(numeric)), make("tbody", {}, ...body));
}

function ratioCell(tensor) {
  if (!tensor) return make("td", { class: "number" });
  if (tensor.problem) return make("td", { class: "number over" }, "✗", make("small", {}, tensor.problem));
  if (tensor.exact) return make("td", { class: "number quiet" }, "exact");
  return make("td", { class: tensor.over ? "number over" : "number" }, number(tensor.ratio), bar(tensor.over ? 1 : tensor.ratio));
}

function measured(tensors, name) {
  const names = ["Tensor", "Target", numeric("Of bound"), numeric("Largest error"), numeric("ULP"), "Worst at", "Problem"];
  const columns = tensors.some((tensor) => tensor.problem) ? names : names.slice(0, -1);
  const body = tensors.map((tensor) => make("tr", {}, ...measuredCells(tensor).slice(0, columns.length)));
  const caption = name ? make("caption", {}, name) : null;
  return make("div", { class: "wide" }, make("table", { class: "tensors" }, caption, head(...columns), make("tbody", {}, ...body)));
}

function measuredCells(tensor) {
  const told = (value) => make("td", { class: "number" }, tensor.problem && value === null ? "" : number(value));
  const ratio = told(tensor.ratio);
  ratio.classList.toggle("over", tensor.over);
  return [
    make("th", { scope: "row" }, tensor.name),
    make("td", {}, tensor.target),
    ratio,
    told(tensor.maxAbs),
    told(tensor.maxUlp),
    make("td", {}, tensor.at ? `[${tensor.at.join(", ")}]` : ""),
    make("td", { class: "problem" }, tensor.problem),
  ];
}

function drawPairs(item) {
  if (!item.pairs.length) return [];
  const body = item.pairs.map((pair) =>
    make(
      "tr",
      {},
      make("th", { scope: "row" }, pair.pair.map((place) => data.targets[place]).join(" ~ ")),
      make("td", {}, pair.agree ? "agree" : make("b", {}, "differ")),
      make("td", {}, text(pair.because), make("small", {}, pairNote(pair))),
    ),
  );
  return [section("Pairs", "", make("table", { class: "pairs" }, head("Pair", "Agreement", "Because"), make("tbody", {}, ...body)))];
}

function pairNote(pair) {
  const tensors = (pair.tensors || []).map((row) => tensorOf(row, ""));
  const told = tensors.map((one) => `${one.name} ${one.problem || `${number(one.ratio)} of the bound`}`).join(", ");
  if (!pair.differing) return pair.compared ? ` worst of ${pair.compared}: ${told}` : "";
  const more = pair.differing - tensors.length;
  return ` ${pair.differing} of ${pair.compared} tensors: ${told}${more ? `, and ${more} more` : ""}`;
}
