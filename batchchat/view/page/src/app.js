// The page: state comes in by events, rows are asked for as they are seen.
import { ask, listen, url } from "./api.js";
import { VERDICTS, pairColumns, runColumns } from "./columns.js";
import { Detail } from "./detail.js";
import { byId, el, setText } from "./dom.js";
import { Filters } from "./filters.js";
import { count } from "./format.js";
import { showHead } from "./head.js";
import { Plots } from "./plots.js";
import { Rows } from "./rows.js";
import { Table } from "./table.js";

const MOST_COPIED = 10_000;
const page = { states: [], file: 0, comparing: false, verdicts: "", pairText: "", generations: "", fieldsOf: "" };
const filters = new Filters(() => renew());
const plots = new Plots();
const detail = new Detail({
  close: () => page.table?.element.focus({ preventScroll: true }),
  step: (by) => {
    page.table.select(page.table.selected + by);
    page.table.open();
  },
});

function build() {
  page.rows?.reset();
  const fetchPage = page.comparing
    ? (offset, limit, signal) => ask("/api/pairs", { offset, limit, verdict: page.verdicts, text: page.pairText }, signal)
    : (offset, limit, signal) => ask("/api/rows", { ...filters.query, file: page.file, offset, limit }, signal);
  page.rows = new Rows(fetchPage, () => shown());
  page.table = new Table(page.comparing ? pairColumns : runColumns, page.rows, {
    open: (number, row) => openRow(row),
    sort: (key) => filters.sortBy(key),
    selected: () => {},
  });
  const sides = page.comparing ? "table pairs" : "table";
  byId("table").className = sides;
  byId("table").replaceChildren(...(page.comparing ? [verdictBar()] : []), page.table.element);
  byId("filters").hidden = page.comparing;
  byId("plots").hidden = page.comparing;
  page.table.showSort(filters.values.sort, filters.values.descending === "true");
  page.table.render();
}

function openRow(row) {
  if (page.comparing) detail.show([[0, row.left?.row ?? null], [1, row.right?.row ?? null]], row.verdict);
  else detail.show([[page.file, row.row]]);
}

/** Other filters, another order or another file: everything from the start. */
function renew() {
  page.table.toTop();
  page.rows.reset();
  page.table.showSort(filters.values.sort, filters.values.descending === "true");
  showDownloads();
}

function shown() {
  const { rows, table } = page;
  const info = rows.info;
  if (info && !page.comparing) {
    const share = info.complete ? "" : `, looked at ${count(info.looked_at)}`;
    setText(byId("found"), filters.any ? `${count(rows.count)} of ${count(info.total)} rows${share}` : `${count(info.total)} rows`);
  }
  if (info?.counts) showVerdicts(info.counts, info.total);
  if (rows.trouble) table.say(rows.trouble);
  else if (rows.count || !info) table.say("");
  else if (!info.complete) table.say("Searching …");
  else if (page.comparing) table.say("No prompt is like this in the two files.");
  else if (info.total) table.say("No row matches. Clear the filters to see all.");
  else table.say(page.states[page.file]?.running ? "No prompt has ended yet." : "There are no results in this file.");
  table.render();
}

function onStates(states) {
  page.states = states;
  showFiles();
  const state = states[page.file];
  showHead(state);
  plots.follow(page.file, state);
  document.title = `${state.running ? "▶ " : ""}${base(state.name)} – batchchat`;
  filters.offerKinds(Object.keys(state.failures));
  offerFields(state);
  const generations = states.map((each) => each.generation).join();
  const rows = states.map((each) => each.rows).join();
  if (page.generations && page.generations !== generations) renew();
  else if (page.rowsOf !== rows || page.rows.trouble) page.rows.grown();
  page.generations = generations;
  page.rowsOf = rows;
}

async function offerFields(state) {
  const key = `${page.file} ${state.generation} ${Math.min(state.rows, 100)}`;
  if (!state.rows || page.fieldsOf === key) return;
  page.fieldsOf = key;
  filters.offerFields(await ask("/api/fields", { file: page.file }).catch(() => []));
}

function showFiles() {
  const names = page.states.map((state) => state.name);
  const key = `${names.join("\n")} ${page.file} ${page.comparing}`;
  if (page.filesOf === key) return;
  page.filesOf = key;
  if (names.length === 1) return byId("files").replaceChildren(el("span.name", { dir: "auto", title: names[0] }, base(names[0])));
  const tab = (text, title, on, choose) => el("button.tab", { type: "button", title, "aria-pressed": String(on), dir: "auto", onclick: choose }, text);
  byId("files").replaceChildren(
    ...names.map((name, at) => tab(`${at ? "Right" : "Left"}: ${base(name)}`, name, !page.comparing && page.file === at, () => turnTo(at, false))),
    tab("Compare", "Both side by side", page.comparing, () => turnTo(0, true)),
  );
}

function turnTo(file, comparing) {
  Object.assign(page, { file, comparing });
  if (detail.isOpen) detail.close();
  build();
  showDownloads();
  onStates(page.states);
}

function verdictBar() {
  page.verdictButtons = ["", ...Object.keys(VERDICTS)].map((verdict) =>
    el("button.tab", { type: "button", "aria-pressed": String(page.verdicts === verdict), "data-verdict": verdict, onclick: () => {
      page.verdicts = verdict;
      page.verdictButtons.forEach((button) => button.setAttribute("aria-pressed", String(button.dataset.verdict === verdict)));
      renew();
    } }, verdict ? VERDICTS[verdict] : "all"));
  let timer = 0;
  const search = el("input", { type: "search", name: "text", value: page.pairText, placeholder: "Search in both ( / )", "aria-label": "Search in both", maxlength: "1000", oninput: () => {
    clearTimeout(timer);
    timer = setTimeout(() => {
      page.pairText = search.value;
      renew();
    }, 250);
  } });
  return el("div.verdicts", { role: "group", "aria-label": "Verdicts" }, page.verdictButtons, search);
}

function showVerdicts(counts, total) {
  for (const button of page.verdictButtons) {
    const { verdict } = button.dataset;
    setText(button, `${verdict ? VERDICTS[verdict] : "all"} ${count(verdict ? counts[verdict] : total)}`);
  }
}

function showDownloads() {
  const link = (form) => el("a.plain", { href: url("/api/download", { ...filters.query, file: page.file, form }), download: "" }, form.toUpperCase());
  const copy = el("button.plain", { type: "button", title: "Copy the rows that match, as JSONL", onclick: () => copyRows(copy) }, "Copy");
  filters.downloads.replaceChildren(copy, "Download ", link("jsonl"), link("csv"));
}

/** Puts the lines of all matching rows into the clipboard, as long as they are few enough for one. */
async function copyRows(button) {
  let said = "Copied";
  if (page.rows.count > MOST_COPIED) said = `At most ${count(MOST_COPIED)} rows`;
  else {
    try {
      const response = await fetch(url("/api/download", { ...filters.query, file: page.file, form: "jsonl" }));
      await navigator.clipboard.writeText(await response.text());
    } catch {
      said = "Not allowed";
    }
  }
  setText(button, said);
  setTimeout(() => setText(button, "Copy"), 2000);
}

const base = (path) => path.split(/[\\/]/).at(-1);

addEventListener("keydown", (event) => {
  if (event.ctrlKey || event.metaKey || event.altKey) return;
  const typing = event.target.closest?.("input, select, textarea");
  if (event.key === "/" && !typing) {
    document.querySelector(page.comparing ? ".verdicts input" : "#filters input[name=text]").focus();
    event.preventDefault();
  } else if (event.key === "Escape" && typing) page.table.element.focus();
  else if (event.key === "Escape" && detail.isOpen) detail.close();
  else if (["j", "k"].includes(event.key) && !typing && event.target === document.body) {
    page.table.element.focus();
    page.table.key(Object.defineProperty(event, "target", { value: page.table.scroller }));
  } else if (event.key === "Enter" && event.target.name === "text") page.table.element.focus();
});

build();
showDownloads();
listen(onStates, (connected) => {
  document.body.classList.toggle("gone", !connected);
  if (!connected && page.states.length) {
    byId("state").className = "state broken";
    setText(byId("state"), "batchchat view has ended, or cannot be reached");
  } else if (connected && page.states.length) showHead(page.states[page.file]);
});
