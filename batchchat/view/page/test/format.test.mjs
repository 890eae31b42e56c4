import assert from "node:assert/strict";
import { test } from "node:test";
import { bytes, count, money, seconds, short, speed, visible } from "../src/format.js";

test("numbers are short and have their unit", () => {
  assert.deepEqual([null, 0, 1234567].map(count), ["–", "0", "1,234,567"]);
  assert.deepEqual([0, 950, 99999, 123456, 1_000_000, 12_345_678, 4e12].map(short), ["0", "950", "99,999", "123 k", "1 M", "12.3 M", "4 T"]);
  assert.deepEqual([null, 0, 0.0421, 0.9996, 3.214, 63.46, 99.96, 725, 11_520, 187_200].map(seconds),
    ["–", "0 ms", "42 ms", "1.00 s", "3.21 s", "63.5 s", "1m 40s", "12m 05s", "3h 12m", "2d 4h"]);
  assert.deepEqual([0, 0.002, 0.5, 12.04, 1500].map(speed), ["0/s", "7.2/h", "30/min", "12/s", "1,500/s"]);
  assert.deepEqual([0, 0.00123, 1.456, 1234.5].map(money), ["$0", "$0.0012", "$1.46", "$1,234.5"]);
  assert.deepEqual([0, 1500, 2.5e6].map(bytes), ["0 B", "1.5 kB", "2.5 MB"]);
});

test("what hides or turns text is shown", () => {
  assert.equal(visible("a\u202Eb\u0000\u001B[0m\r\nc\td\r"), "a⟨U+202E⟩b⟨U+0000⟩⟨U+001B⟩[0m\nc\td⟨U+000D⟩");
  assert.equal(visible("مرحبا 👩‍👩‍👧"), "مرحبا 👩‍👩‍👧");
});
