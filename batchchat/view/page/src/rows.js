// Pages of rows as they are needed: fetched by offset, few kept, the shown ones renewed when the file has grown.

const BLOCK = 100;
const MOST_KEPT = 60;
const AGAIN_MS = 700;

export class Rows {
  /**
   * @param fetchPage (offset, limit, signal) -> {rows, matched, total, looked_at, complete, generation}
   * @param onChange called when rows or counts have changed
   */
  constructor(fetchPage, onChange) {
    this.fetchPage = fetchPage;
    this.onChange = onChange;
    this.wanted = [0, 0];
    this.again = 0;
    this.reset();
  }

  /** Begins anew: other filters, or another file. */
  reset() {
    for (const each of this.pending?.values() ?? []) each.abort();
    clearTimeout(this.again);
    this.again = 0;
    this.blocks = new Map();
    this.pending = new Map();
    this.count = 0;
    this.info = null;
    this.trouble = "";
    this.age = 0;
    this.need(0, 1);
  }

  /** The row, or undefined where it is still on its way. */
  get(row) {
    return this.blocks.get(Math.floor(row / BLOCK))?.rows[row % BLOCK];
  }

  /** Tells which rows are seen. */
  need(first, count) {
    // After a failure, nothing is asked again until something new is heard of the server.
    if (this.trouble) return;
    this.wanted = [Math.floor(first / BLOCK), Math.floor(Math.max(first, first + count - 1) / BLOCK)];
    for (const [block, controller] of this.pending) {
      if (block >= this.wanted[0] - 1 && block <= this.wanted[1] + 1) continue;
      controller.abort();
      this.pending.delete(block);
    }
    for (let block = this.wanted[0]; block <= this.wanted[1]; block += 1) {
      const known = this.blocks.get(block);
      if (!this.pending.has(block) && (!known || known.age < this.age)) this.load(block);
    }
  }

  /** Rows were added, or may stand elsewhere: what is seen is fetched again soon, what is known stays until then. */
  grown() {
    this.trouble = "";
    if (this.again) return;
    this.again = setTimeout(() => {
      this.again = 0;
      this.age += 1;
      this.need(this.wanted[0] * BLOCK, (this.wanted[1] - this.wanted[0] + 1) * BLOCK);
    }, this.info?.complete === false ? 0 : AGAIN_MS);
  }

  async load(block) {
    const controller = new AbortController();
    const age = this.age;
    this.pending.set(block, controller);
    try {
      const page = await this.fetchPage(block * BLOCK, BLOCK, controller.signal);
      if (this.pending.get(block) !== controller) return;
      this.blocks.delete(block);
      this.blocks.set(block, { rows: page.rows, age });
      this.forget();
      this.info = page;
      this.count = page.matched;
      this.trouble = "";
      this.pending.delete(block);
      this.onChange();
      if (!page.complete) this.grown();
    } catch (error) {
      if (this.pending.get(block) !== controller) return;
      this.pending.delete(block);
      if (error.name === "AbortError") return;
      this.trouble = error.message;
      this.onChange();
    }
  }

  forget() {
    for (const block of this.blocks.keys()) {
      if (this.blocks.size <= MOST_KEPT) return;
      if (block < this.wanted[0] || block > this.wanted[1]) this.blocks.delete(block);
    }
  }
}
