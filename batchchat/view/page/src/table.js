// A grid of as many rows as there are, of which only the seen ones exist; for keyboards and screen readers as well.
import { el, setText } from "./dom.js";
import { place, reveal } from "./scroll.js";

export class Table {
  /**
   * @param columns [{key, title, sort, className, fill(cell, row)}]
   * @param rows a Rows
   * @param on {open(number, row), sort(key), selected(number)}
   */
  constructor(columns, rows, on) {
    Object.assign(this, { columns, rows, on, selected: -1, opening: -2, pool: [] });
    this.head = el("div.row.head", { role: "row", "aria-rowindex": "1" }, columns.map((column) => this.headCell(column)));
    this.space = el("div.space", { role: "presentation" });
    this.empty = el("p.nothing", { hidden: true });
    this.scroller = el("div.scroller", { role: "grid", id: "grid", tabindex: "0", "aria-label": "Prompts and responses" },
      el("div.sticky", { role: "rowgroup" }, this.head), this.space, this.empty);
    this.element = this.scroller;
    this.scroller.addEventListener("scroll", () => this.soon(), { passive: true });
    this.scroller.addEventListener("keydown", (event) => this.key(event));
    new ResizeObserver(() => this.soon()).observe(this.scroller);
  }

  headCell(column) {
    const inside = column.sort
      ? el("button.sort", { type: "button", tabindex: "-1", title: `Sort by ${column.title.toLowerCase()}`, onclick: () => this.on.sort(column.sort) }, column.title)
      : column.title;
    return el(`div.cell.${column.className}`, { role: "columnheader", "data-sort": column.sort ?? "" }, inside);
  }

  /** Marks by which column rows are sorted. */
  showSort(key, descending) {
    for (const cell of this.head.children) {
      const is = cell.dataset.sort !== "" && cell.dataset.sort === key;
      if (is) cell.setAttribute("aria-sort", descending ? "descending" : "ascending");
      else cell.removeAttribute("aria-sort");
    }
  }

  soon() {
    if (this.frame) return;
    this.frame = requestAnimationFrame(() => {
      this.frame = 0;
      this.render();
    });
  }

  rowHeight() {
    return Number.parseFloat(getComputedStyle(this.scroller).getPropertyValue("--row")) || 36;
  }

  view() {
    return Math.max(0, this.scroller.clientHeight - this.head.offsetHeight);
  }

  render() {
    const height = this.rowHeight();
    const now = place(this.rows.count, height, this.view(), this.scroller.scrollTop);
    this.space.style.height = `${now.whole}px`;
    this.scroller.setAttribute("aria-rowcount", String(this.rows.count + 1));
    this.rows.need(now.first, Math.max(1, now.count));
    while (this.pool.length < now.count) this.pool.push(this.makeRow());
    this.pool.forEach((made, at) => {
      made.element.hidden = at >= now.count;
      if (at < now.count) this.fill(made, now.first + at, now.offset + at * height);
    });
    const active = this.pool.find((made) => !made.element.hidden && made.number === this.selected);
    if (active) this.scroller.setAttribute("aria-activedescendant", active.element.id);
    else this.scroller.removeAttribute("aria-activedescendant");
    if (this.opening === this.selected && this.rows.get(this.selected)) this.open();
  }

  makeRow() {
    const cells = this.columns.map((column, at) => el(`div.cell.${column.className}`, { role: "gridcell", "aria-colindex": String(at + 1) }));
    const element = el("div.row", { role: "row", id: `row-${this.pool.length}` }, cells);
    const made = { element, cells, number: -1, shown: null };
    element.addEventListener("click", () => {
      this.select(made.number);
      this.open();
    });
    this.space.append(element);
    return made;
  }

  fill(made, number, top) {
    const row = this.rows.get(number);
    made.element.style.transform = `translateY(${top}px)`;
    made.element.setAttribute("aria-selected", String(number === this.selected));
    if (made.number !== number) {
      made.number = number;
      made.element.setAttribute("aria-rowindex", String(number + 2));
    }
    if (made.shown === row && row) return;
    made.shown = row;
    made.element.classList.toggle("waiting", !row);
    this.columns.forEach((column, at) => {
      if (row) column.fill(made.cells[at], row);
      else setText(made.cells[at], "");
    });
  }

  /** Shows a sentence in the place of rows; none where there are some. */
  say(text) {
    setText(this.empty, text);
    this.empty.hidden = !text;
  }

  toTop() {
    this.scroller.scrollTop = 0;
    this.selected = -1;
  }

  select(number) {
    if (!this.rows.count) return;
    this.selected = Math.min(Math.max(0, number), this.rows.count - 1);
    this.scroller.scrollTop = reveal(this.selected, this.rows.count, this.rowHeight(), this.view(), this.scroller.scrollTop);
    this.render();
    this.on.selected(this.selected);
  }

  /** Opens the selected row, as soon as it is there. */
  open() {
    const row = this.rows.get(this.selected);
    this.opening = row ? -2 : this.selected;
    if (row) this.on.open(this.selected, row);
  }

  key(event) {
    if (event.ctrlKey || event.metaKey || event.altKey || event.target !== this.scroller) return;
    const page = Math.max(1, Math.floor(this.view() / this.rowHeight()) - 1);
    const steps = { ArrowDown: 1, j: 1, ArrowUp: -1, k: -1, PageDown: page, PageUp: -page, Home: -Infinity, End: Infinity };
    if (event.key in steps) {
      const step = steps[event.key];
      this.select(step === -Infinity ? 0 : step === Infinity ? this.rows.count - 1 : this.selected < 0 && step > 0 ? 0 : this.selected + step);
    } else if (event.key === "Enter" || event.key === " ") this.open();
    else return;
    event.preventDefault();
  }
}
