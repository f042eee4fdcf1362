/* Draws the list of cases and shows what the address asks for, from the data that conformance/report_data.py packs into
   this file. Texts reach the page as text nodes only, never as markup. The address says what is shown:
   #case=ID a case; #topic=…&target=…&verdict=…&status=…&cause=…&tensor=…&dtype=…&q=… a part of the list, and
   #differ=A~B, #because=…, #how=…, #odd=TARGET, #proof=ROW, #finding=WORDS the cases behind a number above. */
"use strict";

const overview = document.getElementById("overview");
const page = document.getElementById("case");
const list = document.getElementById("list");
const more = document.getElementById("more");
const form = document.getElementById("filter");
const title = document.title;
let data = null;
let byId = new Map();

// Building blocks.

function make(tag, attributes, ...children) {
  const element = document.createElement(tag);
  for (const [name, value] of Object.entries(attributes || {})) {
    if (value !== null && value !== "") element.setAttribute(name, value);
  }
  element.append(...children.filter((child) => child !== null && child !== undefined && child !== ""));
  return element;
}

function word(verdict) {
  const mark = make("i", { class: `mark v-${verdict}`, "aria-hidden": "true" });
  return make("span", { class: `word v-${verdict}` }, mark, verdict);
}

function flag(unexpected) {
  return unexpected ? make("b", { class: "flag" }, "unexpected") : null;
}

const SUPERSCRIPTS = { "-": "⁻", 0: "⁰", 1: "¹", 2: "²", 3: "³", 4: "⁴", 5: "⁵", 6: "⁶", 7: "⁷", 8: "⁸", 9: "⁹" };

function number(value, digits = 3) {
  if (value === null || value === undefined) return "∞";
  if (typeof value === "string") return value;
  const size = Math.abs(value);
  if (size !== 0 && (size >= 10 ** Math.max(5, digits) || size < 1e-3)) {
    const [mantissa, exponent] = Number(value.toPrecision(digits)).toExponential().split("e");
    return `${mantissa}×10${[...exponent.replace("+", "")].map((one) => SUPERSCRIPTS[one]).join("")}`;
  }
  return value.toLocaleString("en", { maximumSignificantDigits: digits, useGrouping: digits < 6 }).replace("-", "−");
}

const caseLink = (id) => `#case=${encodeURIComponent(id)}`;

/* The name of a column of numbers. */
const numeric = (name) => ({ name, class: "number" });

function head(...columns) {
  const cells = columns.map((column) => make("th", { scope: "col", class: column.class || "" }, ...[column.name || column].flat()));
  return make("thead", {}, make("tr", {}, ...cells));
}

function section(name, note, ...content) {
  const heading = make("h2", {}, name, note ? make("small", {}, note) : null);
  return make("section", {}, heading, make("div", { class: "wide" }, ...content));
}

// The data: base64 of deflated JSON.

async function unpacked(element) {
  const bytes = Uint8Array.from(atob(element.textContent), (one) => one.charCodeAt(0));
  const stream = new Blob([bytes]).stream().pipeThrough(new DecompressionStream("deflate"));
  return JSON.parse(await new Response(stream).text());
}

const parts = new Map();

/* A case with its details, which are unpacked when they are first asked for. */
async function detailed(item) {
  const place = Math.floor(item.place / data.part);
  if (!parts.has(place)) parts.set(place, unpacked(document.querySelectorAll(".details")[place]));
  return { ...item, ...(await parts.get(place))[item.place % data.part] };
}

// The list of cases: drawn as far as it is looked at.

const BATCH = 120;
let columns = [];
let visible = [];
let drawn = 0;
let told = null;

function drawMore(count = BATCH) {
  for (const item of visible.slice(drawn, drawn + count)) {
    const topic = item.topic || "";
    let body = list.lastElementChild;
    if (!drawn || visible[drawn - 1].topic !== item.topic) {
      const about = item.about ? make("small", {}, item.about) : null;
      const cell = make("th", { class: "topic", scope: "rowgroup", colspan: columns.length + 1 }, topic, about);
      body = make("tbody", {}, make("tr", {}, cell));
      list.append(body);
    }
    body.append(listRow(item, topic));
    told = item.why;
    drawn += 1;
  }
  more.hidden = drawn >= visible.length;
}

function listRow(item, topic) {
  const link = make("a", { href: caseLink(item.id) }, item.id.slice(topic.length).replace(/^\//, "") || item.id);
  const why = item.why && item.why !== told ? make("p", {}, item.why) : null;
  return make("tr", {}, make("th", { scope: "row" }, link, why), ...columns.map((place) => listCell(item, place)));
}

function listCell(item, place) {
  const cell = make("td", { "data-target": data.targets[place] });
  const verdict = item.verdicts.find((one) => (one.target || 0) === place);
  if (!verdict) return cell;
  const cause = shortCause(verdict.label || "");
  cell.append(make("span", {}, word(verdict.verdict), flag(verdict.unexpected), cause ? make("small", {}, cause) : null));
  return cell;
}

function shortCause(diagnosis) {
  const names = diagnosis.split(/\+(?=[a-z])/);
  return names.length > 2 ? `${names[0]} and ${names.length - 1} more` : names.join(" + ");
}

// Filters: those of the form, and those that only a link sets.

const CHIPS = {
  differ: (value) => `${value.replaceAll("~", " and ")} differ`,
  because: (value) => `because of ${value || "nothing known"}`,
  odd: (value) => `${value} alone differs`,
  proof: (value) => `proof of ${value}`,
  finding: (value) => value,
  how: (value) => value,
};
const FIELDS = ["q", "target", "verdict", "status", "topic", "tensor", "dtype", "cause"];
let linked = {};

function asked() {
  const said = Object.fromEntries(FIELDS.map((name) => [name, form.elements[name].value.trim()]));
  return { ...said, ...linked };
}

function words(item) {
  if (!item.words) {
    const said = item.verdicts.flatMap((one) => [...(one.causes || []), one.label, one.said]);
    item.words = [item.id, item.why, ...said].join("\n").toLowerCase();
  }
  return item.words;
}

function fits(item, wanted, terms, proved) {
  if (wanted.topic && item.topic !== wanted.topic) return false;
  if (wanted.odd && item.odd !== wanted.odd) return false;
  if (proved && !proved.has(item.place)) return false;
  if (wanted.dtype && !(item.dtypes || []).includes(wanted.dtype)) return false;
  if (wanted.tensor && !(item.tensors || []).includes(wanted.tensor)) return false;
  if (wanted.differ && !differs(item, wanted)) return false;
  if (terms.length && !terms.every((term) => words(item).includes(term))) return false;
  if (!wanted.target && !wanted.verdict && !wanted.status && !wanted.cause) return true;
  return item.verdicts.some(
    (one) =>
      (!wanted.target || data.targets[one.target || 0] === wanted.target) &&
      (!wanted.verdict || one.verdict === wanted.verdict) &&
      (!wanted.cause || (one.causes || []).includes(wanted.cause)) &&
      (!wanted.status || (wanted.status === "unexpected") === Boolean(one.unexpected)),
  );
}

function differs(item, wanted) {
  return (item.differ || []).some(
    (one) =>
      one.pair === wanted.differ &&
      (wanted.because === undefined || (one.because || "") === wanted.because) &&
      (wanted.how === undefined || (one.how || "differ") === wanted.how),
  );
}

/* Answers that differ come first, cases that one of the two did not answer last. */
const orderOf = (item, wanted) => item.differ.find((one) => one.pair === wanted.differ).order || 0;

function applyFilter() {
  if (!data) return;
  const wanted = asked();
  const terms = wanted.q.toLowerCase().split(/\s+/).filter(Boolean);
  const row = wanted.proof ?? wanted.finding;
  const proved = row === undefined ? null : new Set(data.proofs[row] || []);
  visible = data.cases.filter((item) => fits(item, wanted, terms, proved));
  if (wanted.differ) visible.sort((a, b) => orderOf(a, wanted) - orderOf(b, wanted));
  list.replaceChildren(head("Case", ...columns.map((place) => data.targets[place])));
  drawn = 0;
  told = null;
  drawMore();
  const total = data.cases.length;
  const all = total.toLocaleString("en");
  const some = visible.length === total ? all : `${visible.length.toLocaleString("en")} of ${all}`;
  document.getElementById("shown").textContent = `${some} ${total === 1 ? "case" : "cases"}`;
  document.getElementById("nothing").hidden = visible.length > 0 || total === 0;
  list.hidden = visible.length === 0;
  document.body.classList.toggle("filtered", visible.length < total);
  drawChips();
}

function drawChips() {
  const chips = document.getElementById("chips");
  const names = Object.keys(linked);
  chips.hidden = !names.length;
  const said = names.map((name) => make("span", {}, CHIPS[name](linked[name])));
  const clear = make("button", { type: "button" }, "Show all cases");
  clear.addEventListener("click", () => form.reset());
  chips.replaceChildren("Only where ", ...said, clear);
}

function setFilter(wanted) {
  for (const name of FIELDS) form.elements[name].value = wanted.get(name) || "";
  linked = Object.fromEntries(Object.keys(CHIPS).filter((name) => wanted.has(name)).map((name) => [name, wanted.get(name)]));
  applyFilter();
}

function filterAddress() {
  const wanted = Object.entries(asked()).filter(([name, value]) => value || (name === "because" && value === ""));
  return wanted.length ? `#${new URLSearchParams(wanted)}` : "#cases";
}

// Addresses.

const left = { address: "#cases", scroll: null, focus: null };

const here = () => location.hash || "#overview";

function caseAsked() {
  if (!location.hash.startsWith("#case=")) return null;
  const asked = location.hash.slice("#case=".length);
  try {
    return decodeURIComponent(asked);
  } catch {
    return asked;
  }
}

function route() {
  const id = caseAsked();
  if (id !== null && byId.has(id)) return showCase(byId.get(id));
  const returning = !page.hidden;
  page.hidden = true;
  overview.hidden = false;
  document.title = title;
  if (returning && here() === left.address && left.scroll !== null) return comeBack();
  if (location.hash.includes("=") && id === null) {
    setFilter(new URLSearchParams(location.hash.slice(1)));
    goTo(document.getElementById("cases"));
  } else if (id !== null) {
    form.elements.q.value = id;
    applyFilter();
    goTo(document.getElementById("cases"));
  } else {
    const named = document.getElementById(location.hash.slice(1));
    const within = named && named.closest("details");
    if (within) within.open = true;
    if (returning || within) goTo(named || overview);
  }
}

function goTo(element) {
  element.scrollIntoView();
  const heading = element.querySelector("h2[tabindex]");
  if (heading) heading.focus({ preventScroll: true });
}

function comeBack() {
  if (left.focus && left.focus.isConnected) left.focus.focus({ preventScroll: true });
  window.scrollTo(0, left.scroll);
  requestAnimationFrame(() => window.scrollTo(0, left.scroll));
}

async function showCase(item) {
  const whole = await detailed(item);
  if (caseAsked() !== item.id) return;
  overview.hidden = true;
  drawCase(whole);
  page.hidden = false;
  document.title = `${item.id} – ${title}`;
  page.querySelector("h1").focus({ preventScroll: true });
  window.scrollTo(0, 0);
}

document.addEventListener("click", (event) => {
  const link = event.target.closest("a[href^='#case=']");
  if (link && page.hidden) Object.assign(left, { address: here(), scroll: window.scrollY, focus: link });
});

document.addEventListener("keydown", (event) => {
  const typing = event.target.closest("input, select, textarea");
  if (event.ctrlKey || event.metaKey || event.altKey || typing) return;
  const follow = { j: "next", k: "prev" }[event.key];
  if (event.key === "/" && page.hidden) {
    event.preventDefault();
    form.elements.q.focus();
  } else if (event.key === "Escape" && !page.hidden) {
    location.hash = left.address;
  } else if (follow && !page.hidden) {
    page.querySelector(`a[rel="${follow}"]`)?.click();
  }
});

form.addEventListener("input", () => {
  applyFilter();
  history.replaceState(null, "", filterAddress());
});
form.addEventListener("reset", () => {
  linked = {};
  setTimeout(() => form.dispatchEvent(new Event("input")));
});
form.addEventListener("submit", (event) => event.preventDefault());
more.firstElementChild.addEventListener("click", () => drawMore(Infinity));
new IntersectionObserver((seen) => seen[0].isIntersecting && data && drawMore(), { rootMargin: "600px" }).observe(more);
window.addEventListener("beforeprint", () => visible.length <= 1000 && drawMore(Infinity));
window.addEventListener("hashchange", () => data && route());

async function start() {
  if (!("DecompressionStream" in window)) {
    document.getElementById("packed").hidden = false;
    return;
  }
  data = await unpacked(document.getElementById("data"));
  data.cases.forEach((item, place) => Object.assign(item, { place }));
  byId = new Map(data.cases.map((item) => [item.id, item]));
  const judged = new Set(data.cases.flatMap((item) => item.verdicts.map((verdict) => verdict.target || 0)));
  columns = [...data.targets.keys()].filter((place) => judged.has(place));
  form.hidden = false;
  applyFilter();
  await route();
  document.body.dataset.ready = "yes";
}

start();
