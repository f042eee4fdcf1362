/* Draws the page of a case: verdicts, tensors, pictures, pairs, specification. Loaded before script.js, whose building
   blocks it uses once that has run. */
"use strict";

function drawCase(item) {
  waiting.clear();
  const ordered = [...item.verdicts].sort((a, b) => (b.unexpected || 0) - (a.unexpected || 0) || gravity(b) - gravity(a));
  page.replaceChildren(
    make(
      "header",
      {},
      neighbours(item),
      make("h1", { tabindex: "-1" }, item.id),
      make("p", { class: "prose" }, item.why),
      make("p", { class: "quiet command" }, `${item.file}:${item.line}`, copyButton(location.href, "Copy the address of this case", "Copy link")),
    ),
    section("Verdicts", "", ...ordered.map((verdict) => drawVerdict(item, verdict))),
    ...drawTensors(item),
    ...drawRunning(item),
    ...drawPairs(item),
    ...drawQuestion(item),
  );
}

function neighbours(item) {
  const order = visible.some((one) => one.id === item.id) ? visible : data.cases;
  const place = order.findIndex((one) => one.id === item.id);
  const link = (to, name, rel) => (to === undefined ? null : make("a", { href: caseLink(to.id), rel }, name));
  return make(
    "nav",
    { "aria-label": "Cases" },
    make("a", { href: left.address, id: "back" }, "← All cases"),
    link(order[place - 1], "Previous", "prev"),
    link(order[place + 1], "Next", "next"),
    make("span", { class: "quiet" }, `${(place + 1).toLocaleString("en")} of ${order.length.toLocaleString("en")}`),
    make("span", { class: "quiet keys" }, "keys: j next, k previous, Esc back"),
  );
}

// Verdicts.

/* The gravest verdict comes first; one that this page does not know is the gravest. */
const GRAVITY = ["conforms", "inexpressible", "refused", "conventional", "inaccurate", "divergent", "timeout", "crashed", "broken"];
const gravity = (verdict) => (GRAVITY.includes(verdict.verdict) ? GRAVITY.indexOf(verdict.verdict) : GRAVITY.length);

function drawVerdict(item, verdict) {
  const name = data.targets[verdict.target || 0];
  const seconds = verdict.seconds >= 1 ? `${number(verdict.seconds)} s` : `${number(1000 * (verdict.seconds || 0))} ms`;
  const because = verdict.because && verdict.error && !verdict.unexpected ? `Expected, because ${verdict.because}` : verdict.because;
  const wanted = verdict.unexpected ? `expected ${verdict.expected}` : "";
  const small = make("small", {}, [wanted, seconds].filter(Boolean).join(" · "));
  return make(
    "article",
    { class: "target" },
    make("h3", {}, name),
    make(
      "div",
      { class: "target-text" },
      make("p", {}, word(verdict.verdict), " ", flag(verdict.unexpected), " ", small),
      because ? make("p", { class: "prose" }, because) : null,
      verdict.diagnosis ? make("p", { class: "quiet" }, make("code", {}, verdict.diagnosis)) : null,
      drawDiagnosed(verdict),
      drawTried(verdict),
      verdict.received ? make("p", { class: "received" }, make("code", {}, verdict.received)) : null,
      verdict.error ? make("pre", { class: "error" }, verdict.error.join(": ")) : null,
      ...(verdict.facts || []).map((fact) => make("p", { class: "quiet" }, fact)),
      command(`conformance explain ${quoted(item.id)} -t ${quoted(name)}`),
      verdict.repro ? command(`conformance repro ${quoted(item.id)} -t ${quoted(name)}`) : null,
      drawScript(verdict, name),
    ),
  );
}

/* What was wrong before the diagnosis, and what is left under it. */
function drawDiagnosed(verdict) {
  if (!verdict.diagnosed) return null;
  const [under, before] = verdict.diagnosed;
  const row = (name, told) => make("div", {}, make("dt", {}, name), make("dd", {}, told));
  return make("dl", { class: "diagnosed" }, row("before the diagnosis", before), row("under it", `every tensor is within ${under} of its bound`));
}

/* The explanations that were tried, and how far each leaves the tensors. */
function drawTried(verdict) {
  const tried = verdict.tried || [];
  if (!tried.length) return null;
  const rows = tried.map(([name, off]) => make("tr", {}, make("td", { class: "number" }, number(off)), make("td", {}, make("code", {}, name))));
  const summary = make("summary", {}, `${tried.length} other ${tried.length === 1 ? "explanation" : "explanations"} tried`);
  const heads = head(numeric("Off by"), "If it were");
  return make("details", {}, summary, make("table", { class: "tried" }, heads, make("tbody", {}, ...rows)), make("p", { class: "quiet" }, "Off by: the largest error over its bound that would be left; 1 or less explains it."));
}

/* A command with a button that copies it. */
function command(text) {
  return make("p", { class: "command" }, make("code", {}, text), copyButton(text, "Copy the command"));
}

function drawScript(verdict, name) {
  if (!verdict.script) return null;
  const lines = verdict.script.split("\n").length;
  const summary = make("summary", {}, `Reproduce in plain ${name}, ${lines} lines`);
  return make("details", { class: "script" }, summary, make("div", {}, copyButton(verdict.script, "Copy the script"), make("pre", { tabindex: "0" }, verdict.script)));
}

function copyButton(text, name, label = "Copy") {
  const button = make("button", { type: "button", "aria-label": name }, label);
  button.addEventListener("click", async () => {
    button.textContent = (await copied(text)) ? "Copied" : "Select and copy by hand";
    setTimeout(() => button.replaceChildren(label), 2000);
  });
  return button;
}

async function copied(text) {
  try {
    await navigator.clipboard.writeText(text);
    return true;
  } catch {
    const area = make("textarea", { class: "copying", "aria-hidden": "true" });
    area.value = text;
    document.body.append(area);
    area.select();
    const done = document.execCommand("copy");
    area.remove();
    return done;
  }
}

/* A word for a POSIX shell. */
function quoted(value) {
  return /^[\w./=,:@-]+$/.test(value) ? value : `'${value.replaceAll("'", "'\\''")}'`;
}

// Tensors.

const over = (tensor) => Boolean(tensor.problem) || (!tensor.exact && (tensor.ratio === undefined || tensor.ratio > 1));
const size = (tensor) => (tensor.exact ? 0 : tensor.problem || tensor.ratio === undefined ? Infinity : tensor.ratio);
const stepOf = (name) => (/\[(\d+)\]/.exec(name) || ["", ""])[1];

function drawTensors(item) {
  const judged = item.verdicts.filter((verdict) => verdict.tensors);
  if (!judged.length) return [];
  const found = judged.flatMap((verdict) => verdict.tensors.map((tensor) => ({ ...tensor, target: verdict.target || 0 })));
  const names = [...new Set(found.map((tensor) => tensor.name))];
  const targets = [...new Set(found.map((tensor) => tensor.target))];
  const at = new Map(found.map((tensor) => [`${tensor.target}\n${tensor.name}`, tensor]));
  const closer = make("div", { class: "closer", "aria-live": "polite" });
  const read = new Map(judged.map((verdict) => [verdict.target || 0, reading(verdict)]));
  const explained = new Set(found.filter((tensor) => tensor.under !== undefined).map((tensor) => tensor.target));
  const look = (name) => {
    for (const button of buttons) button.setAttribute("aria-pressed", String(button.textContent === name));
    closer.replaceChildren(...lookCloser(name, targets.map((target) => at.get(`${target}\n${name}`)).filter(Boolean), read));
  };
  const body = names.map((name, place) =>
    make(
      "tr",
      { class: place && stepOf(name) !== stepOf(names[place - 1]) ? "next" : "" },
      make("th", { scope: "row" }, make("button", { type: "button", class: "look" }, name)),
      ...targets.flatMap((target) => cells(at.get(`${target}\n${name}`), data.targets[target], explained.has(target))),
    ),
  );
  const heads = head(
    "Tensor",
    ...targets.flatMap((target) => {
      const before = noted(data.targets[target], read.get(target));
      return explained.has(target) ? [before, noted(data.targets[target], "under the diagnosis")] : [before];
    }),
  );
  const table = make("table", { class: "tensors" }, heads, make("tbody", {}, ...body));
  const buttons = [...table.querySelectorAll("button.look")];
  for (const button of buttons) button.addEventListener("click", () => look(button.textContent));
  look([...found].sort((a, b) => size(b) - size(a))[0].name);
  const note =
    "largest error as a fraction of its bound: above 1 is more than rounding explains. What a target is held against stands " +
    "below its name. The strip is the same along the tensor, in 64 parts. Choose a tensor to look closer.";
  const wrong = found.filter(over).sort((a, b) => size(b) - size(a));
  const side = make("div", { class: "side" }, make("div", { class: "wide" }, table), closer);
  return [section("Tensors", note, wrong.length ? beyond(wrong, read) : null, side)];
}

/* What the numbers of a target are held against. */
function reading(verdict) {
  if (verdict.diagnosed || (verdict.tensors || []).some((tensor) => tensor.under !== undefined)) return "before the diagnosis";
  if (verdict.verdict === "conventional") return "by its conventions";
  return verdict.verdict === "conforms" ? "exact arithmetic" : "by what its profile declares";
}

/* The name of a column, with a note below it. */
const noted = (name, note) => ({ name: [name, make("small", {}, note)] });

/* A target's cells of a tensor: before a diagnosis and, where there is one, what is left under it. */
function cells(tensor, target, explained) {
  const before = ratioCell(tensor);
  before.setAttribute("data-label", explained ? `${target}, before the diagnosis` : target);
  if (!explained) return [before];
  const under = tensor && tensor.under !== undefined ? (tensor.under === 0 ? "exact" : number(tensor.under)) : "";
  return [before, make("td", { class: "under", "data-label": `${target}, under it` }, under)];
}

const BEYOND = 10;

/* The tensors out of bound, the worst first. */
function beyond(wrong, read) {
  const rows = wrong.slice(0, BEYOND).map((tensor) => {
    const [exact, seen, bound] = tensor.worst || [];
    const said = (label, value) => make("td", { class: "number", "data-label": label }, tensor.worst ? value : "");
    return make(
      "tr",
      {},
      make("th", { scope: "row" }, make("code", {}, tensor.name)),
      make("td", {}, data.targets[tensor.target], " ", make("small", {}, read.get(tensor.target))),
      ...(tensor.problem
        ? [make("td", { class: "over", colspan: 6 }, tensor.problem)]
        : [
            make("td", { class: "number over", "data-label": "of bound" }, number(tensor.ratio)),
            make("td", { "data-label": "worst at" }, tensor.at ? `[${tensor.at.join(", ")}]` : ""),
            said("reference", digits(exact)),
            said("observed", digits(seen)),
            said("bound", `±${number(bound)}`),
            make("td", { class: "number", "data-label": "ULP" }, number(tensor.ulp ?? 0)),
          ]),
    );
  });
  const heads = head("Out of bound", "Target", numeric("Of bound"), "Worst at", numeric("Reference"), numeric("Observed"), numeric("Bound"), numeric("ULP"));
  const left = wrong.length > BEYOND ? make("p", { class: "quiet" }, `and ${wrong.length - BEYOND} more, below`) : null;
  return make("div", { class: "beyond wide" }, make("table", {}, heads, make("tbody", {}, ...rows)), left);
}

function ratioCell(tensor) {
  if (!tensor) return make("td", {});
  if (tensor.problem) return make("td", { class: "over" }, "✗", make("small", {}, tensor.problem));
  if (tensor.exact) return make("td", { class: "quiet" }, "exact");
  const cell = make("td", { class: over(tensor) ? "over" : "" }, make("span", {}, number(tensor.ratio)));
  if (tensor.strip) cell.append(strip(tensor, ""));
  return cell;
}

function lookCloser(name, tensors, read) {
  const classes = Math.max(2, ...tensors.map((tensor) => (tensor.ulps || []).length));
  return [
    make("h3", {}, name, ...(tensors[0].shape ? [make("small", {}, ` of shape [${tensors[0].shape.join(", ")}]`)] : [])),
    ...tensors.map((tensor) => closerOf(tensor, classes, read.get(tensor.target))),
    tensors.some((tensor) => tensor.strip) ? scale() : null,
  ].filter(Boolean);
}

function closerOf(tensor, classes, against) {
  const target = data.targets[tensor.target];
  const told = [];
  if (tensor.problem) told.push(make("p", { class: "over" }, tensor.problem));
  else if (tensor.exact) told.push(make("p", {}, "Equal to the reference in every element."));
  else told.push(worst(tensor));
  if (tensor.strip) told.push(strip(tensor, `${tensor.name} on ${target}: error over bound along the tensor`));
  if (tensor.ulps) {
    const caption = make("figcaption", {}, "elements by error in units in the last place (ULP), up to");
    told.push(make("figure", {}, caption, histogram(tensor.ulps, classes, `${tensor.name} on ${target}: histogram of errors in ULP`)));
  }
  if (tensor.under !== undefined) told.push(make("p", {}, `Under the diagnosis: ${tensor.under === 0 ? "no error" : tensor.under === "no number" ? tensor.under : `${number(tensor.under)} of the bound`}.`));
  return make("article", {}, make("h4", {}, target, " ", make("small", {}, against)), ...told);
}

/* The worst element in numbers. */
function worst(tensor) {
  const [exact, seen, bound] = tensor.worst || [];
  const pairs = [
    ["error", `${number(tensor.ratio)} of the bound`],
    ["worst at", tensor.at ? `[${tensor.at.join(", ")}]` : ""],
    ["reference", tensor.worst ? digits(exact) : ""],
    ["observed", tensor.worst ? digits(seen) : ""],
    ["bound", tensor.worst ? `±${number(bound)}` : ""],
    ["largest error", number(tensor.abs ?? 0)],
    ["largest in ULP", number(tensor.ulp ?? 0)],
  ];
  return make("dl", { class: "worst" }, ...pairs.filter(([, value]) => value).map(([key, value]) => make("div", {}, make("dt", {}, key), make("dd", { class: key === "error" && over(tensor) ? "over" : "" }, value))));
}

const digits = (value) => (typeof value === "number" ? String(value).replace("-", "−").replace(/e\+?/, "e") : String(value));

/* What the shades of a strip mean. */
function scale() {
  const names = ["none", "tiny", "", "", "", "near the bound", "beyond it", "far beyond", "no number"];
  const boxes = names.map((name, place) => make("span", {}, svg("svg", { viewBox: "0 0 10 10", class: "swatch", "aria-hidden": "true" }, svg("rect", { width: 10, height: 10, class: `s${place}` })), name));
  return make("p", { class: "scale quiet" }, "error: ", ...boxes);
}

// Running statistics over the steps.

function drawRunning(item) {
  const figures = ["running_mean", "running_var"].flatMap((statistic) => {
    const series = item.verdicts.map((verdict) => ofStatistic(verdict, statistic)).filter((one) => one.steps.length > 1);
    if (!series.length) return [];
    const channels = Math.max(...series.map((one) => one.steps[0][0].length));
    return Array.from({ length: channels }, (_, channel) => runningFigure(statistic, channel, series));
  });
  if (!figures.length) return [];
  const shown = item.verdicts.filter((verdict) => ofStatistic(verdict, "running_mean").steps.length > 1);
  const legend = make(
    "p",
    { class: "quiet legends" },
    ...shown.map((verdict) => make("span", {}, legendMark(verdict.target || 0), data.targets[verdict.target || 0])),
    make("span", {}, svg("svg", { viewBox: "0 0 20 6", class: "legend line" }, svg("path", { d: "M0 3H20", class: "reference" })), "the reference"),
    make("span", {}, svg("svg", { viewBox: "0 0 20 6", class: "legend line" }, svg("path", { d: "M0 3H20", class: "declared" })), "the reference, read as the verdict says"),
  );
  return [section("Running statistics", "over the steps, from 0; the first channels", legend, make("div", { class: "figures" }, ...figures))];
}

/* Of each step: [what the reading has, what was observed, what the canonical reading has where it is another]. */
function ofStatistic(verdict, statistic) {
  const found = (verdict.tensors || []).filter((tensor) => tensor.running && tensor.name.startsWith(`${statistic}[`) && !tensor.name.includes(" "));
  return { target: verdict.target || 0, steps: found.map((tensor) => tensor.running) };
}

function runningFigure(statistic, channel, series) {
  const named = `${statistic}, channel ${channel}`;
  const values = series.map(({ target, steps }) => {
    const of = (place) => steps.map((step) => Number((step[place] || step[0])[channel]));
    return { target, exact: of(0), seen: of(1), canonical: steps.some((step) => step[2]) ? of(2) : [] };
  });
  return make("figure", {}, make("figcaption", {}, named), followed(values, `${named}, over the steps`));
}

// Pairs, and what was asked.

function drawPairs(item) {
  if (!item.pairs || !item.pairs.length) return [];
  const place = (pair) => (pair.agree ? 2 : pair.compared ? 0 : 1);
  const ordered = [...item.pairs].sort((a, b) => place(a) - place(b));
  const body = ordered.map((pair) =>
    make(
      "tr",
      {},
      make("th", { scope: "row" }, pair.pair.map((place) => data.targets[place]).join(" ~ ")),
      make("td", {}, pair.agree ? "agree" : make("b", {}, "differ")),
      make("td", {}, pair.because || "", make("small", {}, pairNote(pair))),
    ),
  );
  const table = make("table", { class: "pairs" }, head("Pair", "", "Because"), make("tbody", {}, ...body));
  return [section("Agreement", "of each target with each other, within the sum of their bounds", table)];
}

function pairNote(pair) {
  const told = (pair.tensors || []).map((one) => `${one.name} ${one.problem || (one.exact ? "equal" : `${number(one.ratio)} of the bound`)}`).join(", ");
  if (!pair.differing) return pair.compared ? ` worst of ${pair.compared}: ${told}` : "";
  const more = pair.differing - (pair.tensors || []).length;
  return ` ${pair.differing} of ${pair.compared} tensors: ${told}${more ? `, and ${more} more` : ""}`;
}

function drawQuestion(item) {
  const asked = [];
  if (item.steps) {
    const extra = item.steps.some((row) => row[5]);
    const names = ["Step", "Mode", "Input", "dtype", "Cotangent of y", "Also"].slice(0, extra ? 6 : 5);
    const rows = item.steps.map((row) => make("tr", {}, ...row.slice(0, names.length).map((value, place) => make("td", { "data-label": names[place] }, value))));
    asked.push(make("table", { class: "asked inputs" }, make("caption", {}, "Inputs"), head(...names), make("tbody", {}, ...rows)));
  }
  if (item.parameters && item.parameters.length) {
    const rows = item.parameters.map(([name, value]) => make("tr", {}, make("th", { scope: "row" }, name), make("td", {}, value)));
    asked.push(make("table", { class: "asked" }, make("caption", {}, item.steps ? "Layer" : "Constructor, as documented"), make("tbody", {}, ...rows)));
  }
  const spec = make("details", {}, make("summary", {}, "The case as its file says it, defaults left out"), make("pre", { tabindex: "0" }, item.spec));
  return [section("What was asked", "the same bits to every target; how each received the parameters is with its verdict", ...asked, spec)];
}
