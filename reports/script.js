/* Draws the list of cases, and shows what the address asks for, from the data embedded by conformance/report_data.py.
   Texts reach the page as text nodes only, never as markup. The address says what is shown:
   #case=ID a case, #topic=…&target=…&verdict=…&status=…&q=… a part of the list. */
"use strict";

const data = JSON.parse(document.getElementById("data").textContent);
const text = (place) => (place === undefined ? "" : data.texts[place]);
const byId = new Map(data.cases.map((item) => [item.id, item]));
const overview = document.getElementById("overview");
const page = document.getElementById("case");
const list = document.getElementById("list");
const form = document.getElementById("filter");
const title = document.title;

// Building blocks.

function make(tag, attributes, ...children) {
  const element = document.createElement(tag);
  for (const [name, value] of Object.entries(attributes || {})) {
    if (value !== null && value !== "") element.setAttribute(name, value);
  }
  element.append(...children.filter((child) => child !== null && child !== ""));
  return element;
}

function word(verdict) {
  const mark = make("i", { class: `mark v-${verdict}`, "aria-hidden": "true" });
  return make("span", { class: `word v-${verdict}` }, mark, verdict);
}

function flag(unexpected) {
  return unexpected ? make("b", { class: "flag" }, "unexpected") : null;
}

function bar(share) {
  const svg = document.getElementById("bar").content.firstElementChild.cloneNode(true);
  svg.firstElementChild.setAttribute("width", String(Math.min(100, 100 * share)));
  return svg;
}

const SUPERSCRIPTS = { "-": "⁻", 0: "⁰", 1: "¹", 2: "²", 3: "³", 4: "⁴", 5: "⁵", 6: "⁶", 7: "⁷", 8: "⁸", 9: "⁹" };

function number(value) {
  if (value === null || value === undefined) return "∞";
  const size = Math.abs(value);
  if (size !== 0 && (size >= 1e5 || size < 1e-3)) {
    const [digits, exponent] = value.toExponential().split("e");
    return `${digits}×10${[...exponent.replace("+", "")].map((one) => SUPERSCRIPTS[one]).join("")}`;
  }
  return value.toLocaleString("en", { maximumSignificantDigits: 3 });
}

function caseLink(id) {
  return `#case=${encodeURIComponent(id)}`;
}

/* The name of a column of numbers. */
const numeric = (name) => ({ name, class: "number" });

function head(...columns) {
  const cells = columns.map((column) => make("th", { scope: "col", class: column.class || "" }, column.name || column));
  return make("thead", {}, make("tr", {}, ...cells));
}

function section(name, note, ...content) {
  const heading = make("h2", {}, name, note ? make("small", {}, note) : null);
  return make("section", {}, heading, make("div", { class: "wide" }, ...content));
}

// The list of cases.

const rows = [];
let visible = [];
const judged = new Set(data.cases.flatMap((item) => item.verdicts.map((verdict) => verdict.target || 0)));
const columns = [...data.targets.keys()].filter((place) => judged.has(place));

function drawList() {
  list.append(head("Case", ...columns.map((place) => data.targets[place])));
  const bodies = new Map();
  let told = null;
  for (const item of data.cases) {
    const topic = text(item.topic);
    if (!bodies.has(topic)) bodies.set(topic, topicBody(item));
    const why = item.why === told ? null : text(item.why);
    told = item.why;
    const row = listRow(item, why);
    rows.push({ item, topic, row, body: bodies.get(topic), words: null });
    bodies.get(topic).append(row);
  }
  list.append(...bodies.values());
}

function topicBody(item) {
  const about = item.about ? make("small", {}, text(item.about)) : null;
  const cell = make("th", { class: "topic", scope: "rowgroup", colspan: columns.length + 1 }, text(item.topic), about);
  return make("tbody", {}, make("tr", {}, cell));
}

function listRow(item, why) {
  const link = make("a", { href: caseLink(item.id) }, item.id.slice(text(item.topic).length).replace(/^\//, "") || item.id);
  const name = make("th", { scope: "row" }, link, why ? make("p", {}, why) : null);
  return make("tr", {}, name, ...columns.map((place) => listCell(item, place)));
}

function listCell(item, place) {
  const cell = make("td", { "data-target": data.targets[place] });
  const verdict = item.verdicts.find((one) => (one.target || 0) === place);
  if (!verdict) return cell;
  const cause = shortCause(text(verdict.diagnosis)) || (verdict.error ? text(verdict.error[0]) : "");
  const shown = [word(text(verdict.verdict)), flag(verdict.unexpected), cause ? make("small", {}, cause) : null];
  cell.append(make("span", {}, ...shown));
  return cell;
}

function shortCause(diagnosis) {
  const names = diagnosis.split(/\+(?=[a-z])/);
  return names.length > 2 ? `${names[0]} and ${names.length - 1} more` : names.join(" + ");
}

// Filters.

const FIELDS = ["q", "target", "verdict", "status", "topic"];

function asked() {
  return Object.fromEntries(FIELDS.map((name) => [name, form.elements[name].value.trim()]));
}

function words(row) {
  if (row.words === null) {
    const { item } = row;
    const said = item.verdicts.flatMap((one) => [one.diagnosis, one.because, one.received, ...(one.error || [])]);
    row.words = [item.id, ...[item.why, item.file, ...said].map(text)].join("\n").toLowerCase();
  }
  return row.words;
}

function fits(row, wanted, terms) {
  if (wanted.topic && row.topic !== wanted.topic) return false;
  if (terms.length && !terms.every((term) => words(row).includes(term))) return false;
  if (!wanted.target && !wanted.verdict && !wanted.status) return true;
  return row.item.verdicts.some(
    (one) =>
      (!wanted.target || data.targets[one.target || 0] === wanted.target) &&
      (!wanted.verdict || text(one.verdict) === wanted.verdict) &&
      (!wanted.status || (wanted.status === "unexpected") === Boolean(one.unexpected)),
  );
}

function applyFilter() {
  const wanted = asked();
  const terms = wanted.q.toLowerCase().split(/\s+/).filter(Boolean);
  visible = [];
  const shownBodies = new Set();
  for (const row of rows) {
    const fit = fits(row, wanted, terms);
    row.row.hidden = !fit;
    if (fit) {
      visible.push(row.item.id);
      shownBodies.add(row.body);
    }
  }
  for (const { body } of rows) body.hidden = !shownBodies.has(body);
  const all = rows.length.toLocaleString("en");
  const some = visible.length === rows.length ? all : `${visible.length.toLocaleString("en")} of ${all}`;
  document.getElementById("shown").textContent = `${some} ${rows.length === 1 ? "case" : "cases"}`;
  document.getElementById("nothing").hidden = visible.length > 0 || rows.length === 0;
  list.hidden = visible.length === 0;
  document.body.classList.toggle("filtered", visible.length < rows.length);
}

function setFilter(wanted) {
  for (const name of FIELDS) form.elements[name].value = wanted.get(name) || "";
  applyFilter();
}

function filterAddress() {
  const wanted = Object.entries(asked()).filter(([, value]) => value);
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
  } else if (returning) {
    goTo(document.getElementById(location.hash.slice(1)) || overview);
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

function showCase(item) {
  overview.hidden = true;
  drawCase(item);
  page.hidden = false;
  document.title = `${item.id} – ${title}`;
  page.querySelector("h1").focus({ preventScroll: true });
  window.scrollTo(0, 0);
}

function leaveFor(link) {
  Object.assign(left, { address: here(), scroll: window.scrollY, focus: link });
}

document.addEventListener("click", (event) => {
  const link = event.target.closest("a[href^='#case=']");
  if (link && page.hidden) leaveFor(link);
});

document.addEventListener("keydown", (event) => {
  const typing = event.target.closest("input, select, textarea");
  if (event.ctrlKey || event.metaKey || event.altKey || typing) return;
  if (event.key === "/" && page.hidden) {
    event.preventDefault();
    form.elements.q.focus();
  } else if (event.key === "Escape" && !page.hidden) {
    location.hash = left.address;
  }
});

form.addEventListener("input", () => {
  applyFilter();
  history.replaceState(null, "", filterAddress());
});
form.addEventListener("reset", () => setTimeout(() => form.dispatchEvent(new Event("input"))));
form.addEventListener("submit", (event) => event.preventDefault());
window.addEventListener("hashchange", route);

form.hidden = false;
drawList();
applyFilter();
route();
