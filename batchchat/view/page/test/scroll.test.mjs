import assert from "node:assert/strict";
import { test } from "node:test";
import { MOST_PIXELS, place, reveal } from "../src/scroll.js";

for (const rows of [0, 1, 5, 1000, 416_666, 416_667, 1_000_000, 50_000_000]) {
  for (const [height, view] of [[36, 600], [64, 333]]) {
    test(`${rows} rows of ${height} px in ${view} px: every row can be seen, none stands outside`, () => {
      const { whole } = place(rows, height, view, 0);
      assert.ok(whole <= MOST_PIXELS);
      const end = place(rows, height, view, whole);
      assert.equal(end.first + end.count, rows);
      for (let step = 0; step <= 200; step += 1) {
        const top = (Math.max(0, whole - view) * step) / 200;
        const now = place(rows, height, view, top);
        assert.ok(now.count <= Math.ceil(view / height) + 1);
        // The first row begins at the view's upper edge or above it, the last one ends at its lower edge or below.
        assert.ok(!now.count || now.offset <= top + 0.01);
        assert.ok(!now.count || now.first + now.count === rows || now.offset + now.count * height >= top + view - 0.01);
      }
    });
    test(`${rows} rows of ${height} px in ${view} px: a row that is revealed is seen as a whole`, () => {
      for (const row of [0, 1, Math.floor(rows / 2), rows - 2, rows - 1].filter((each) => each >= 0 && each < rows)) {
        for (const from of [0, 1e5, MOST_PIXELS]) {
          const top = reveal(row, rows, height, view, from);
          const now = place(rows, height, view, top);
          const at = now.offset + (row - now.first) * height;
          assert.ok(at >= Math.min(top, Math.max(0, now.whole - view)) - 1 && at + height <= Math.max(top, 0) + view + 1, `${row} ${from}`);
        }
      }
    });
  }
}
