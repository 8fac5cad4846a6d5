/** The grid of a super image: the rules of seg25d/representations/super_image.py. */

import type { Shape } from "./grid.js";

/** The planned grid, which a graph of super images takes as the shape of its second input. */
export interface PlannedGrid {
  /** Name of the input. */
  input: string;
  rows: number;
  columns: number;
  /** The slicing axis. */
  axis: number;
}

/** Aspect ratios up to this count as square. */
const SQUARE_ENOUGH = 4 / 3;

/** Rows and columns for a window: the planned ones, or with more slices than they have room for, the window's own. */
export function gridFor(window: Shape, planned: PlannedGrid): [number, number] {
  const slices = window[planned.axis];
  if (slices <= planned.rows * planned.columns) return [planned.rows, planned.columns];
  const [height, width] = window.filter((_, axis) => axis !== planned.axis);
  return chooseGrid(slices, height, width);
}

/** As square as possible, then the least padding, then the smaller ratio, then more rows than columns. */
function chooseGrid(slices: number, height: number, width: number): [number, number] {
  const candidates: { grid: [number, number]; rank: number[] }[] = [];
  for (let rows = 1; rows <= slices; rows++) {
    const columns = Math.ceil(slices / rows);
    if ((rows - 1) * columns >= slices) continue;
    const sides = [rows * height, columns * width];
    const ratio = Math.max(...sides) / Math.min(...sides);
    const rank = [Math.max(ratio, SQUARE_ENOUGH), rows * columns - slices, ratio, -rows];
    candidates.push({ grid: [rows, columns], rank });
  }
  const difference = (a: number[], b: number[]): number => {
    const at = a.findIndex((value, index) => value !== b[index]);
    return at < 0 ? 0 : a[at] - b[at];
  };
  return candidates.reduce((best, each) => (difference(each.rank, best.rank) < 0 ? each : best)).grid;
}
