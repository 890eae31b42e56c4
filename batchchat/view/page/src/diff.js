// What differs between two texts, word by word; pure, and bounded: long texts are told apart as wholes in the middle.

const MOST_CELLS = 4_000_000;

/** @returns for each side a list of [text, whether it is only there] */
export function diff(left, right) {
  const [a, b] = [words(left), words(right)];
  let begin = 0;
  while (begin < a.length && begin < b.length && a[begin] === b[begin]) begin += 1;
  let end = 0;
  while (end < a.length - begin && end < b.length - begin && a[a.length - 1 - end] === b[b.length - 1 - end]) end += 1;
  const [x, y] = [a.slice(begin, a.length - end), b.slice(begin, b.length - end)];
  const [keptX, keptY] = x.length * y.length > MOST_CELLS ? [new Set(), new Set()] : common(x, y);
  const side = (all, inner, kept) =>
    merged([
      ...all.slice(0, begin).map((word) => [word, false]),
      ...inner.map((word, at) => [word, !kept.has(at)]),
      ...all.slice(all.length - end).map((word) => [word, false]),
    ]);
  return [side(a, x, keptX), side(b, y, keptY)];
}

function words(text) {
  return text.match(/\s+|[\p{L}\p{N}_]+|[^\s\p{L}\p{N}_]/gu) ?? [];
}

/** Positions of a longest common subsequence in both. */
function common(x, y) {
  const width = y.length + 1;
  const best = new Uint32Array((x.length + 1) * width);
  for (let i = x.length - 1; i >= 0; i -= 1) {
    for (let j = y.length - 1; j >= 0; j -= 1) {
      best[i * width + j] =
        x[i] === y[j] ? best[(i + 1) * width + j + 1] + 1 : Math.max(best[(i + 1) * width + j], best[i * width + j + 1]);
    }
  }
  const [keptX, keptY] = [new Set(), new Set()];
  for (let i = 0, j = 0; i < x.length && j < y.length; ) {
    if (x[i] === y[j]) {
      keptX.add(i++);
      keptY.add(j++);
    } else if (best[(i + 1) * width + j] >= best[i * width + j + 1]) i += 1;
    else j += 1;
  }
  return [keptX, keptY];
}

function merged(parts) {
  const found = [];
  for (const [text, only] of parts) {
    const last = found.at(-1);
    if (last && last[1] === only) last[0] += text;
    else found.push([text, only]);
  }
  return found;
}
