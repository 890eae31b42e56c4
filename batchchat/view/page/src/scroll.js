// Where rows of one height stand in a scroller whose height browsers cap; pure.

/** No browser shows elements higher than some 17 million pixels rightly. */
export const MOST_PIXELS = 15_000_000;

/**
 * @param {number} rows how many there are
 * @param {number} height pixels of one
 * @param {number} view pixels that are seen at once
 * @param {number} top how far is scrolled
 * @returns pixels of the whole, the first row that is seen, how many, and where the first one stands
 */
export function place(rows, height, view, top) {
  const wanted = rows * height;
  const whole = Math.min(wanted, MOST_PIXELS);
  const reach = Math.max(0, whole - view);
  const scrolled = Math.min(Math.max(0, top), reach);
  const real = reach === 0 ? 0 : whole === wanted ? scrolled : (scrolled / reach) * (wanted - view);
  const first = Math.min(Math.max(0, rows - 1), Math.floor(real / height));
  const last = Math.min(rows, Math.ceil((real + view) / height));
  return { whole, first, count: Math.max(0, last - first), offset: scrolled - (real - first * height) };
}

/** How far to scroll so that a row is seen, from where the scroller is. */
export function reveal(row, rows, height, view, top) {
  const wanted = rows * height;
  const whole = Math.min(wanted, MOST_PIXELS);
  const reach = Math.max(0, whole - view);
  if (reach === 0) return 0;
  const share = whole === wanted ? 1 : (wanted - view) / reach;
  const real = Math.min(Math.max(0, top), reach) * share;
  if (row * height < real) return (row * height) / share;
  if ((row + 1) * height > real + view) return ((row + 1) * height - view) / share;
  return top;
}
