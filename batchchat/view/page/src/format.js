// Numbers and texts as they are shown; pure.

const grouped = new Intl.NumberFormat("en-US");

/** 1234567 -> "1,234,567"; a dash for what is not known. */
export const count = (value) => (value === null || value === undefined ? "–" : grouped.format(value));

/** 12345678 -> "12.3 M": three digits at least, for tiles and axes. */
export function short(value) {
  if (value === null || value === undefined) return "–";
  for (const [size, unit] of [[1e12, "T"], [1e9, "G"], [1e6, "M"]]) {
    if (value >= size) return `${trim((value / size).toPrecision(3))} ${unit}`;
  }
  return value >= 100000 ? `${trim((value / 1000).toPrecision(3))} k` : grouped.format(Math.round(value));
}

/** Seconds in the unit that fits: "840 ms", "3.21 s", "2m 05s", "3h 12m", "2d 4h". */
export function seconds(value) {
  if (value === null || value === undefined || !Number.isFinite(value)) return "–";
  if (value < 0.9995) return `${Math.round(value * 1000)} ms`;
  if (value < 99.95) return `${value.toFixed(value < 9.995 ? 2 : 1)} s`;
  const whole = Math.round(value);
  const [days, hours, minutes] = [Math.floor(whole / 86400), Math.floor(whole / 3600), Math.floor(whole / 60)];
  if (days >= 2) return `${days}d ${hours % 24}h`;
  if (hours) return `${hours}h ${two(minutes % 60)}m`;
  return `${minutes}m ${two(whole % 60)}s`;
}

/** Events a second: "12.5/s", and per minute or hour where that is more telling. */
export function speed(perSecond) {
  if (perSecond === null || perSecond === undefined) return "–";
  if (perSecond === 0) return "0/s";
  if (perSecond >= 100) return `${grouped.format(Math.round(perSecond))}/s`;
  if (perSecond >= 0.995) return `${trim(perSecond.toFixed(1))}/s`;
  if (perSecond * 60 >= 0.995) return `${trim((perSecond * 60).toFixed(1))}/min`;
  return `${trim((perSecond * 3600).toFixed(1))}/h`;
}

export function money(usd) {
  if (usd === null || usd === undefined) return "–";
  return usd !== 0 && usd < 0.01 ? `$${usd.toPrecision(2)}` : `$${grouped.format(Number(usd.toFixed(2)))}`;
}

export function bytes(value) {
  for (const [size, unit] of [[1e9, "GB"], [1e6, "MB"], [1e3, "kB"]]) {
    if (value >= size) return `${trim((value / size).toPrecision(3))} ${unit}`;
  }
  return `${value} B`;
}

/** Moment in local time, to the second. */
export function moment(milliseconds) {
  if (!milliseconds) return "–";
  const at = new Date(milliseconds);
  return `${at.getFullYear()}-${two(at.getMonth() + 1)}-${two(at.getDate())} ${clock(at)}`;
}

export const clock = (at) => `${two(at.getHours())}:${two(at.getMinutes())}:${two(at.getSeconds())}`;

// Control characters, and marks that turn the direction of what follows, shown as what they are.
const HIDDEN = /[\u0000-\u0008\u000b-\u001f\u007f-\u009f\u061c\u200e\u200f\u2028-\u202e\u2066-\u2069\ufeff]/g;

/** The text with every character that could hide or turn something named: a carriage return becomes "⟨U+000D⟩". */
export const visible = (text) =>
  text.replace(/\r\n/g, "\n").replace(HIDDEN, (char) => `⟨U+${char.codePointAt(0).toString(16).toUpperCase().padStart(4, "0")}⟩`);

function two(number) {
  return String(number).padStart(2, "0");
}

function trim(text) {
  return text.includes(".") && !text.includes("e") ? text.replace(/\.?0+$/, "") : text;
}
