// One prompt as a whole, beside the table; or two answers to it, with what differs marked.
import { ask, url } from "./api.js";
import { diff } from "./diff.js";
import { byId, el } from "./dom.js";
import { count, seconds, visible } from "./format.js";
import { MOST_CHARS, markdown } from "./markdown.js";

const MOST_DIFFED = 60_000;

export class Detail {
  /** @param on {close(), step(by)} */
  constructor(on) {
    this.on = on;
    this.element = byId("detail");
    this.tab = "Rendered";
    this.asked = 0;
    this.element.addEventListener("keydown", (event) => this.key(event));
  }

  get isOpen() {
    return !this.element.hidden;
  }

  key(event) {
    if (event.ctrlKey || event.metaKey || event.altKey) return;
    if (event.key === "Escape") this.close();
    else if (event.target.closest("input, textarea, [role=tab]")) return;
    else if (event.key === "j") this.on.step(1);
    else if (event.key === "k") this.on.step(-1);
    else return;
    event.preventDefault();
  }

  close() {
    this.element.hidden = true;
    document.body.classList.remove("with-detail");
    this.asked += 1;
    this.on.close();
  }

  /** Shows the rows [[file, row], …]: one, or one of each file. */
  async show(places, verdict = "") {
    const asked = (this.asked += 1);
    this.element.hidden = false;
    document.body.classList.add("with-detail");
    let sides;
    try {
      sides = await Promise.all(places.map(([file, row]) => (row === null ? null : ask(`/api/row/${row}`, { file }))));
    } catch (error) {
      sides = [];
      if (asked === this.asked) this.fill([el("p.trouble", {}, error.message)], "");
    }
    if (asked !== this.asked || !sides.length) return;
    const id = (sides[0] ?? sides[1]).id;
    this.fill(sides.length === 1 ? this.one(sides[0], places[0]) : this.two(sides, verdict), typeof id === "string" ? id : id.text);
  }

  fill(parts, id) {
    const had = this.element.contains(document.activeElement);
    this.element.replaceChildren(
      el("div.bar", {},
        el("h2", { dir: "auto", title: visible(id) }, visible(id) || "(no id)"),
        el("button.plain", { type: "button", title: "Previous (k)", "aria-label": "Previous", onclick: () => this.on.step(-1) }, "↑"),
        el("button.plain", { type: "button", title: "Next (j)", "aria-label": "Next", onclick: () => this.on.step(1) }, "↓"),
        el("button.plain.close", { type: "button", title: "Close (Esc)", "aria-label": "Close", onclick: () => this.close() }, "✕")),
      el("div.body", { tabindex: "0" }, parts),
    );
    if (had) this.element.focus();
  }

  one(side, [file]) {
    return [
      badges(side),
      section("Prompt", side.messages.map((message) => el("div.message", {}, el("span.role", { dir: "auto" }, visible(message.role)), pre(message)))),
      this.answer(side),
      attempts(side),
      side.fields?.length ? section("Input fields", [table(side.fields)]) : null,
      section("Facts", [table(side.facts)]),
      this.settings(file),
      el("p.more", {}, el("a.plain", { href: url(`/api/line/${side.row}`, { file }), download: "" }, "Download this line")),
    ];
  }

  /** How the latest run was set up; asked for when somebody wants to see it. */
  settings(file) {
    const inside = el("div", {});
    const made = el("details.settings", { ontoggle: async () => {
      if (!made.open) return;
      const rows = await ask("/api/settings", { file }).catch((error) => [["", error.message]]);
      inside.replaceChildren(rows.length ? table(rows.map(([name, text]) => [name, { text, cut: 0 }])) : el("p.note", {}, "No summary stands beside the results."));
    } }, el("summary", {}, "Settings of the latest run"), inside);
    return made;
  }

  two(sides, verdict) {
    const texts = sides.map((side) => (side ? side.response?.text ?? side.error?.message.text ?? "" : ""));
    const small = texts.every((text) => text.length <= MOST_DIFFED);
    const marked = verdict === "differs" && small ? diff(...texts) : texts.map((text) => [[text, false]]);
    const there = sides[0] ?? sides[1];
    return [
      section("Prompt", there.messages.map((message) => el("div.message", {}, el("span.role", { dir: "auto" }, visible(message.role)), pre(message)))),
      el("div.sides", {}, sides.map((side, at) => el("div.side", {},
        el("h3", {}, at ? "Right" : "Left"),
        side ? [badges(side), el("pre.text", { dir: "auto" }, marked[at].map(([text, only]) => (only ? el(at ? "ins" : "del", {}, visible(text)) : visible(text))))] : el("p.empty", {}, "not in this file"),
      ))),
    ];
  }

  answer(side) {
    if (side.error) {
      return section("Error", [
        el("p.error", { dir: "auto" }, visible(side.error.message.text)),
        side.error.partial ? el("div", {}, el("h4", {}, "What had arrived"), pre(side.error.partial)) : null,
        this.tabs({ JSON: () => pre(side.line) }),
      ]);
    }
    const texts = side.responses?.length ? side.responses : side.choices?.length ? side.choices : side.response ? [side.response] : [];
    const views = texts.length ? { Rendered: () => texts.map(rendered), Text: () => texts.map(pre) } : {};
    if (side.parsed) views.Parsed = () => pre(side.parsed);
    if (side.tool_calls) views["Tool calls"] = () => pre(side.tool_calls);
    views.JSON = () => pre(side.line);
    return section("Response", [this.tabs(views, texts.map((text) => text.text).join("\n\n"))]);
  }

  tabs(views, copied = null) {
    const names = Object.keys(views);
    const panel = el("div.panel", { role: "tabpanel", id: "tabpanel" });
    const buttons = names.map((name) => el("button.tab", { type: "button", role: "tab", "aria-controls": "tabpanel", onclick: () => choose(name, true) }, name));
    const choose = (name, keep) => {
      if (keep) this.tab = name;
      buttons.forEach((button, at) => {
        button.setAttribute("aria-selected", String(names[at] === name));
        button.tabIndex = names[at] === name ? 0 : -1;
      });
      panel.replaceChildren(...[views[name]()].flat(Infinity));
    };
    const list = el("div.tabs", { role: "tablist" }, buttons, copied === null ? null : copyButton(copied));
    list.addEventListener("keydown", (event) => {
      const step = { ArrowRight: 1, ArrowLeft: -1 }[event.key];
      const at = buttons.indexOf(event.target);
      if (!step || at < 0) return;
      const next = (at + step + names.length) % names.length;
      choose(names[next], true);
      buttons[next].focus();
      event.preventDefault();
    });
    choose(names.includes(this.tab) ? this.tab : names[0], false);
    return [list, panel];
  }
}

/** What each attempt came to, the last one with them. */
function attempts(side) {
  const failed = side.failed_attempts ?? [];
  if (!failed.length) return null;
  const line = (number, after, type, text) => el("tr", {}, el("th", { scope: "row" }, `${count(number)}`), el("td.when", {}, seconds(after)), el("td", { class: type === "answered" ? "good" : "bad" }, type.replaceAll("_", " ")), el("td", { dir: "auto" }, text));
  const rows = failed.map((each) => line(each.attempt, each.after_s, visible(each.type), `${each.status ? `HTTP ${each.status}: ` : ""}${visible(each.message.text)}`));
  if (side.kind === "answered") rows.push(line(side.attempts, side.latency_s, "answered", ""));
  const left = side.attempts - rows.length;
  return section("Attempts", [left > 0 ? el("p.note", {}, `The first ${count(left)} are not kept.`) : null, el("table.facts.attempt-list", {}, el("tbody", {}, rows))].filter(Boolean));
}

function section(title, parts) {
  return parts.length ? el("section", {}, el("h3", {}, title), parts) : null;
}

function badges(side) {
  const texts = [
    [side.kind.replaceAll("_", " "), side.kind === "answered" ? "good" : "bad"],
    side.error?.status ? [`HTTP ${side.error.status}`, ""] : null,
    [`${count(side.attempts)} ${side.attempts === 1 ? "attempt" : "attempts"}`, side.attempts > 1 ? "warn" : ""],
    side.latency_s === null ? null : [seconds(side.latency_s), ""],
    side.tokens === null ? null : [`${count(side.tokens)} tokens`, ""],
  ].filter(Boolean);
  return el("p.badges", {}, texts.map(([text, look]) => el("span", { class: `badge ${look}` }, text)));
}

function table(pairs) {
  return el("table.facts", {}, el("tbody", {}, pairs.map(([name, value]) =>
    el("tr", {}, el("th", { scope: "row", dir: "auto" }, visible(name)), el("td", { dir: "auto" }, visible(value.text) || el("i", {}, "empty"), cutNote(value))))));
}

function pre(value) {
  return el("div", {}, el("pre.text", { dir: "auto", tabindex: "0" }, visible(value.text)), cutNote(value));
}

function rendered(value) {
  if (value.text.length > MOST_CHARS) return [el("p.note", {}, `Longer than ${count(MOST_CHARS)} characters, so shown as text.`), pre(value)];
  const made = el("div.markdown", { dir: "auto" });
  made.innerHTML = markdown(visible(value.text));
  return [made, cutNote(value)].filter(Boolean);
}

function cutNote(value) {
  return value.cut ? el("p.note", {}, `${count(value.cut)} more characters are not shown; download the line to have them all.`) : null;
}

function copyButton(text) {
  const button = el("button.plain.copy", { type: "button", onclick: copy }, "Copy");
  async function copy() {
    try {
      await navigator.clipboard.writeText(text);
      button.textContent = "Copied";
    } catch {
      button.textContent = "The browser does not allow it";
    }
    setTimeout(() => (button.textContent = "Copy"), 2000);
  }
  return button;
}
