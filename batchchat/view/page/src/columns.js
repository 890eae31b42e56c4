// What stands in the columns of the tables.
import { setText } from "./dom.js";
import { count, moment, seconds, visible } from "./format.js";

function text(cell, value) {
  setText(cell, value);
  cell.dir = "auto";
}

const kind = (cell, row) => {
  setText(cell, row.kind.replaceAll("_", " "));
  cell.classList.toggle("good", row.kind === "answered");
  cell.classList.toggle("bad", row.kind !== "answered");
};

export const runColumns = [
  { title: "#", className: "number-index", sort: "index", fill: (cell, row) => setText(cell, count(row.index)) },
  { title: "Id", className: "id", fill: (cell, row) => text(cell, visible(row.id)) },
  { title: "Outcome", className: "kind", sort: "kind", fill: kind },
  { title: "Prompt", className: "prompt", fill: (cell, row) => text(cell, visible(row.prompt)) },
  { title: "Response", className: "response", fill: (cell, row) => text(cell, visible(row.response)) },
  { title: "Latency", className: "latency", sort: "latency", fill: (cell, row) => setText(cell, seconds(row.latency_s)) },
  { title: "Attempts", className: "attempts", sort: "attempts", fill: (cell, row) => setText(cell, count(row.attempts)) },
  { title: "Tokens", className: "tokens", sort: "tokens", fill: (cell, row) => setText(cell, count(row.tokens)) },
  { title: "Finished", className: "finished", sort: "finished", fill: (cell, row) => setText(cell, moment(row.finished_ms)) },
];

export const VERDICTS = {
  differs: "differs",
  same: "same",
  one_failed: "one failed",
  both_failed: "both failed",
  only_left: "only left",
  only_right: "only right",
};

const side = (name) => (cell, row) => {
  const there = row[name];
  text(cell, there ? visible(there.response) : "");
  cell.classList.toggle("bad", Boolean(there) && there.kind !== "answered");
  cell.classList.toggle("absent", !there);
};

export const pairColumns = [
  { title: "Id", className: "id", fill: (cell, row) => text(cell, visible((row.left ?? row.right).id)) },
  {
    title: "Verdict", className: "verdict",
    fill: (cell, row) => {
      setText(cell, VERDICTS[row.verdict]);
      cell.dataset.verdict = row.verdict;
    },
  },
  { title: "Prompt", className: "prompt", fill: (cell, row) => text(cell, visible((row.left ?? row.right).prompt)) },
  { title: "Left response", className: "response", fill: side("left") },
  { title: "Right response", className: "response", fill: side("right") },
];
