// The top of the page: how the run stands, in tiles.
import { byId, el, setText } from "./dom.js";
import { count, money, seconds, short, speed, visible } from "./format.js";

const total = (object) => Object.values(object ?? {}).reduce((sum, value) => sum + value, 0);

/** [label, value, note, class] of every tile; a value that is not known has none. */
export function tilesOf(state) {
  const { live, summary } = state;
  const failed = total(state.failures);
  const all = state.running ? live?.total ?? null : summary?.total ?? null;
  const pending = all === null ? null : Math.max(0, all - state.answered - failed);
  const share = all ? ` of ${count(all)}` : "";
  const tiles = [
    ["Answered", count(state.answered), all ? `${percent(state.answered, all)}${share}` : "", "good"],
    ["Failed", count(failed), failures(state.failures), failed ? "bad" : ""],
    ["Pending", count(pending), pending === null ? "not known yet" : "", ""],
  ];
  if (live) {
    tiles.push(
      ["In flight", count(live.in_flight), live.concurrency ? `of ${count(live.concurrency)}` : "", ""],
      ["Retrying", count(live.retrying), live.waiting ? `${count(live.waiting)} wait to be sent` : "", ""],
      ["Sending", speed(live.per_s), `limit ${live.rates.join(", ") || "none"}`, ""],
      ["Left", live.left_s === null ? "–" : seconds(live.left_s), live.left_s === null ? "cannot be told yet" : "at this pace", ""],
    );
  } else if (state.rate_per_s) tiles.push(["Rate", speed(state.rate_per_s), `limit ${(summary?.rate ?? []).join(", ") || "none"}`, ""]);
  if (state.tokens) tiles.push(["Tokens", short(state.tokens[0] + state.tokens[1]), `${short(state.tokens[0])} in, ${short(state.tokens[1])} out`, ""]);
  if (state.cost_usd !== null && state.cost_usd !== undefined) tiles.push(["Cost", money(state.cost_usd), "", ""]);
  return tiles;
}

/** The run's state as a word and a sentence. */
export function stateOf(state) {
  const { live, summary } = state;
  if (state.running) {
    const holds = (live?.holds ?? []).map((hold) => hold.why).join(", ");
    const wait = live?.service_wait_s ? `; the service asks to wait ${seconds(live.service_wait_s)}` : "";
    return ["running", `${live?.state ?? "running"}${holds ? `: ${holds}` : ""}${wait}`];
  }
  if (!summary) return ["ended", "no run is going on"];
  if (!summary.finished_at) return ["broken", "no run is going on; the latest one did not end by itself"];
  const code = summary.exit_code === null ? "" : `, exit code ${summary.exit_code}`;
  const message = summary.message ? `: ${visible(summary.message)}` : "";
  return [summary.exit_code === 0 ? "good" : "ended", `ended: ${summary.reason ?? "unknown"}${code}${message}`];
}

export function showHead(state) {
  const element = byId("tiles");
  const tiles = tilesOf(state);
  while (element.children.length > tiles.length) element.lastChild.remove();
  while (element.children.length < tiles.length) element.append(el("div.tile", {}, el("span.label"), el("strong.value"), el("span.note")));
  tiles.forEach(([label, value, note, look], at) => {
    const tile = element.children[at];
    tile.className = `tile ${look}`;
    [label, value, note].forEach((text, part) => setText(tile.children[part], text));
    tile.children[2].title = note;
  });
  const [look, sentence] = stateOf(state);
  const place = byId("state");
  place.className = `state ${look}`;
  setText(place, sentence);
  const trouble = [
    state.trouble,
    state.odd ? `${count(state.odd)} ${state.odd === 1 ? "line is" : "lines are"} no result and not shown` : "",
    state.read_bytes === state.size_bytes && state.size_bytes - state.counted_bytes > 2e6
      ? `counting for the plots: ${percent(state.counted_bytes, state.size_bytes)}` : "",
    state.read_bytes < state.size_bytes ? `reading: ${percent(state.read_bytes, state.size_bytes)} of the file` : "",
  ].filter(Boolean).join("; ");
  setText(byId("trouble"), visible(trouble));
  byId("trouble").hidden = !trouble;
}

function failures(kinds) {
  return Object.entries(kinds ?? {}).sort((a, b) => b[1] - a[1]).map(([name, number]) => `${name.replaceAll("_", " ")} ${count(number)}`).join(", ");
}

function percent(part, whole) {
  const share = (100 * part) / whole;
  return part >= whole ? "100 %" : `${share < 10 ? share.toFixed(1) : Math.min(99, Math.floor(share))} %`;
}
