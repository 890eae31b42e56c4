import assert from "node:assert/strict";
import { test } from "node:test";
import { tilesOf, stateOf } from "../src/head.js";

let markdown;
try {
  ({ markdown } = await import("../src/markdown.js"));
} catch {
  // Without npm ci there is no markdown-it; the browser's tests look at what it makes.
}

test("nothing in Markdown becomes HTML of its author's", { skip: !markdown }, () => {
  const made = markdown('<script>x</script> <b onclick="x">\n\n[a](javascript:x) [b](data:text/html,x) ![c](https://e.example/"onerror=x)\n\n|a|\n|-:|\n|1|\n\n[t](https://e.example/"x)');
  assert.doesNotMatch(made, /<(script|b|img)|style=|href="(javascript|data)/);
  assert.match(made, /class="md-right"/);
  assert.match(made, /<a href="https:\/\/e.example\/%22x" rel="noopener noreferrer nofollow" target="_blank"/);
});

test("tiles tell what is known, and a dash for what is not", () => {
  const ended = { answered: 3, failures: { server: 1 }, running: false, live: null, summary: { total: 5, reason: "limit", exit_code: 5, finished_at: "x", message: "m" } };
  assert.deepEqual(tilesOf(ended).map(([label, value, note]) => [label, value, note]), [
    ["Answered", "3", "60 % of 5"], ["Failed", "1", "server 1"], ["Pending", "1", ""],
  ]);
  assert.deepEqual(stateOf(ended), ["ended", "ended: limit, exit code 5: m"]);
  const bare = { answered: 0, failures: {}, running: false, live: null, summary: null };
  assert.deepEqual(tilesOf(bare)[2], ["Pending", "–", "not known yet", ""]);
  assert.deepEqual(stateOf(bare), ["ended", "no run is going on"]);
});
