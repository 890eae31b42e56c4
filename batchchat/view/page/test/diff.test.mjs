import assert from "node:assert/strict";
import { test } from "node:test";
import { diff } from "../src/diff.js";

const joined = (side) => side.map(([text]) => text).join("");
const only = (side) => side.filter(([, is]) => is).map(([text]) => text);

test("words that are only there are marked", () => {
  const [left, right] = diff("the cat sat on the mat", "the dog sat on a mat");
  assert.deepEqual(only(left), ["cat", "the"]);
  assert.deepEqual(only(right), ["dog", "a"]);
});

test("whatever the texts, both sides are whole", () => {
  const long = Array.from({ length: 5000 }, (_, at) => `w${(at * 7919) % 997}`).join(" ");
  for (const [a, b] of [["", ""], ["", "x"], ["x", ""], ["a a a", "a a"], ["größe 👍", "👍 größe"], [long, long.slice(3) + "!"], [long, [...long].reverse().join("")]]) {
    const [left, right] = diff(a, b);
    assert.equal(joined(left), a);
    assert.equal(joined(right), b);
  }
  assert.deepEqual(only(diff("same", "same")[0]), []);
});
