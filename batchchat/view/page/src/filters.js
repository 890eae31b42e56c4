// The row of filters, and the same in the address so that it can be kept and gone back to.
import { byId, el } from "./dom.js";

const EMPTY = { text: "", kind: "", min_latency_s: "", max_latency_s: "", min_attempts: "", field: "", value: "", sort: "file", descending: "" };
const TYPING_MS = 250;

/** Filters of an address's part behind "#"; what is not known is left out. */
export function readFilters(hash) {
  const given = new URLSearchParams(hash.replace(/^#/, ""));
  return Object.fromEntries(Object.entries(EMPTY).map(([key, value]) => [key, given.get(key) ?? value]));
}

export function writeFilters(filters) {
  const given = Object.entries(filters).filter(([key, value]) => value !== EMPTY[key] && !(key === "value" && !filters.field));
  return given.length ? `#${new URLSearchParams(given)}` : "";
}

export class Filters {
  /** @param onChange called with the filters when a person changed them */
  constructor(onChange) {
    this.onChange = onChange;
    this.values = readFilters(location.hash);
    this.build(byId("filters"));
    addEventListener("hashchange", () => {
      if (writeFilters(this.values) === location.hash) return;
      this.values = readFilters(location.hash);
      this.show();
      this.onChange();
    });
  }

  build(form) {
    const typed = (key, label, attributes) =>
      el("label.field", {}, el("span", {}, label), el("input", { name: key, ...attributes, oninput: () => this.typed() }));
    this.kinds = el("select", { name: "kind", onchange: () => this.changed() }, el("option", { value: "" }, "all outcomes"));
    this.fields = el("select", { name: "field", onchange: () => this.changed() }, el("option", { value: "" }, "no field"));
    this.downloads = el("span.downloads", {});
    this.form = form;
    form.append(
      typed("text", "Search", { type: "search", placeholder: "Search in all texts ( / )", maxlength: "1000", "aria-keyshortcuts": "/" }),
      el("label.field", {}, el("span", {}, "Outcome"), this.kinds),
      el("fieldset.field.range", {}, el("legend", {}, "Latency, s"), this.number("min_latency_s", "from", "0.1"), this.number("max_latency_s", "to", "0.1")),
      el("label.field.narrow", {}, el("span", {}, "Attempts"), this.number("min_attempts", "from", "1")),
      el("fieldset.field.pair", {}, el("legend", {}, "Input field"), this.fields, el("input", { name: "value", type: "text", "aria-label": "Text of the field", placeholder: "contains", oninput: () => this.typed() })),
      el("button.plain", { type: "button", title: "Show all rows", onclick: () => this.clear() }, "Clear"),
      el("output.found", { id: "found", "aria-live": "polite" }),
      this.downloads,
    );
    form.querySelector("input[name=text]").parentElement.classList.add("search");
    form.addEventListener("submit", (event) => event.preventDefault());
    this.show();
  }

  number(name, label, step) {
    return el("input", { name, type: "number", min: "0", step, inputmode: "decimal", placeholder: label, "aria-label": label, oninput: () => this.typed() });
  }

  show() {
    for (const [key, value] of Object.entries(this.values)) {
      const input = this.form.elements[key];
      if (!input) continue;
      if (input.tagName === "SELECT" && value && ![...input.options].some((option) => option.value === value)) input.append(el("option", { value }, value));
      if (input.value !== value) input.value = value;
    }
  }

  /** Fills the list of outcomes that there are. */
  offerKinds(kinds) {
    offer(this.kinds, ["answered", "failed", ...kinds].map((kind) => [kind, kind.replaceAll("_", " ")]));
  }

  offerFields(names) {
    offer(this.fields, names.map((name) => [name, name]));
  }

  /** What the server is asked for. */
  get query() {
    const { field, value, ...others } = this.values;
    return { ...others, ...(field && value ? { field, value } : {}) };
  }

  get any() {
    return Object.entries(this.query).some(([key, value]) => value !== "" && value !== EMPTY[key] && key !== "sort" && key !== "descending");
  }

  sortBy(key) {
    // The first click shows the largest first, the second the smallest, the third the order of the file.
    const { sort, descending } = this.values;
    const next = sort !== key ? [key, key === "index" ? "" : "true"] : (descending === "true") === (key !== "index") ? [key, key === "index" ? "true" : ""] : ["file", ""];
    this.values = { ...this.values, sort: next[0], descending: next[1] };
    this.tell();
  }

  clear() {
    this.values = { ...EMPTY };
    this.show();
    this.tell();
  }

  typed() {
    clearTimeout(this.timer);
    this.timer = setTimeout(() => this.changed(), TYPING_MS);
  }

  changed() {
    for (const key of Object.keys(EMPTY)) {
      const input = this.form.elements[key];
      if (input && input.validity.valid) this.values[key] = input.value;
    }
    this.tell();
  }

  tell() {
    history.replaceState(null, "", writeFilters(this.values) || location.pathname);
    this.onChange();
  }
}

function offer(select, pairs) {
  for (const [value, text] of pairs) {
    if (![...select.options].some((option) => option.value === value)) select.append(el("option", { value }, text));
  }
}
