/* Draws the list of cases and the page of a case from the data embedded by conformance/report_data.py.
   Texts reach the page as text nodes only, never as markup. The address says what is shown:
   #case=ID a case, #topic=…&target=…&verdict=…&status=…&q=… a part of the list. */
"use strict";

(() => {
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

  function drawList() {
    list.append(head("Case", ...data.targets.filter(ran)));
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

  const used = new Set(data.cases.flatMap((item) => item.verdicts.map((verdict) => verdict.target || 0)));
  const columns = data.targets.map((name, place) => place).filter((place) => used.has(place));
  function ran(name, place) {
    return used.has(place);
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
    cell.append(make("span", {}, word(text(verdict.verdict)), flag(verdict.unexpected) || "", cause ? make("small", {}, cause) : ""));
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

  // The page of a case.

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
    const because = text(verdict.because);
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
        make("p", { class: "quiet" }, "Reproduce: ", make("code", {}, `conformance repro ${quoted(item.id)} -t ${quoted(name)}`)),
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

  // Addresses.

  const left = { address: "#cases", scroll: null, focus: null };

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
    if (returning && location.hash === left.address && left.scroll !== null) return comeBack();
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
    Object.assign(left, { address: location.hash || "#", scroll: window.scrollY, focus: link });
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
})();
