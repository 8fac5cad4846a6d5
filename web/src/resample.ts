/**
 * Resampling of images to the model's grid: the convention of seg25d/preprocessing/resample.py.
 *
 * Voxels are cells: both grids share their outer border, and outside the volume the border voxel is repeated.
 * Interpolation along one axis is linear in the values, also for splines, so that each axis is one sparse matrix.
 */

import { nearestPositions, type Shape } from "./grid.js";

/** Weights below this, less than single precision resolves, are left out. */
const NEGLIGIBLE = 1e-7;
/** Voxels beyond each border that count for a cubic spline, as in scipy.ndimage. */
const PADDING = 12;
/** Pole of the cubic B-spline (Unser 1999, "Splines: a perfect fit", box 2). */
const POLE = Math.sqrt(3) - 2;
/** Sums that are made together, so that they stay in the processor's cache. */
const BLOCK = 4096;

export type Order = 0 | 1 | 3;

/** A sparse matrix (newSize, size): the entries of row i are those from `starts[i]` to `starts[i + 1]`. */
export interface Matrix {
  size: number;
  newSize: number;
  starts: Int32Array;
  columns: Int32Array;
  weights: Float32Array;
}

/**
 * Resample an image with cubic splines.
 *
 * @param image (D, H, W).
 * @param axis The axis that takes the nearest voxel instead, see `separateAxis`.
 * @param progress Called with the share that is done, after each axis.
 * @returns (d, h, w); the input itself, not a copy, if the shape is the same.
 */
export function resampleImage(
  image: Float32Array,
  shape: Shape,
  newShape: Shape,
  axis: number | null,
  progress: (share: number) => void,
): Float32Array {
  return resample(image, shape, newShape, (each) => (each === axis ? 0 : 3), progress);
}

/** The same with a spline of any order for each axis: 0 nearest, 1 linear, 3 cubic. */
export function resample(
  image: Float32Array,
  shape: Shape,
  newShape: Shape,
  orderOf: (axis: number) => Order,
  progress: (share: number) => void = () => undefined,
): Float32Array {
  const sizes: Shape = [...shape];
  let result = image;
  // The axis that shrinks most goes first: the others have less to do.
  const byShrinking = [0, 1, 2].sort((a, b) => newShape[a] / shape[a] - newShape[b] / shape[b]);
  const axes = byShrinking.filter((axis) => shape[axis] !== newShape[axis]);
  axes.forEach((axis, done) => {
    result = applyMatrix(axisMatrix(shape[axis], newShape[axis], orderOf(axis)), result, sizes, axis);
    sizes[axis] = newShape[axis];
    progress((done + 1) / axes.length);
  });
  return result;
}

/** The matrix of the interpolation along one axis, from values on the old voxels to values on the new ones. */
export function axisMatrix(size: number, newSize: number, order: Order): Matrix {
  if (order === 0) {
    const weights = new Float32Array(newSize).fill(1);
    const starts = Int32Array.from({ length: newSize + 1 }, (_, row) => row);
    return { size, newSize, starts, columns: nearestPositions(size, newSize).low, weights };
  }
  // Rows of the new grid, columns of the old one: first those of the border voxels, whose influence reaches furthest.
  const rows: [number, number][][] = Array.from({ length: newSize }, () => []);
  const positions = Float64Array.from({ length: newSize }, (_, row) => ((row + 0.5) * size) / newSize - 0.5);
  for (let column = 0; column < size; column++) {
    const coefficients = order === 3 ? cubicCoefficients(size, column) : null;
    for (let row = 0; row < newSize; row++) {
      const position = positions[row];
      const weight = coefficients ? cubicAt(coefficients, position) : linearAt(column, position, size);
      if (Math.abs(weight) >= NEGLIGIBLE) rows[row].push([column, weight]);
    }
  }
  const starts = new Int32Array(newSize + 1);
  rows.forEach((row, index) => (starts[index + 1] = starts[index] + row.length));
  const entries = rows.flat();
  return {
    size,
    newSize,
    starts,
    columns: Int32Array.from(entries, ([column]) => column),
    weights: Float32Array.from(entries, ([, weight]) => weight),
  };
}

/** Values of a volume along one axis, times the matrix. */
export function applyMatrix(matrix: Matrix, volume: Float32Array, shape: Shape, axis: number): Float32Array {
  const inner = shape.slice(axis + 1).reduce((all, size) => all * size, 1);
  const outer = shape.slice(0, axis).reduce((all, size) => all * size, 1);
  const result = new Float32Array(outer * matrix.newSize * inner);
  if (inner === 1) applyToRows(matrix, volume, result, outer);
  else applyToPlanes(matrix, volume, result, outer, inner);
  return result;
}

function applyToRows(matrix: Matrix, volume: Float32Array, result: Float32Array, outer: number): void {
  const { size, newSize, starts, columns, weights } = matrix;
  for (let line = 0; line < outer; line++) {
    const from = line * size;
    const to = line * newSize;
    for (let row = 0; row < newSize; row++) {
      let sum = 0;
      for (let entry = starts[row]; entry < starts[row + 1]; entry++) {
        sum += weights[entry] * volume[from + columns[entry]];
      }
      result[to + row] = sum;
    }
  }
}

function applyToPlanes(
  matrix: Matrix,
  volume: Float32Array,
  result: Float32Array,
  outer: number,
  inner: number,
): void {
  const { size, newSize, starts, columns, weights } = matrix;
  const sums = new Float64Array(Math.min(BLOCK, inner));
  for (let part = 0; part < outer; part++) {
    for (let block = 0; block < inner; block += BLOCK) {
      const length = Math.min(BLOCK, inner - block);
      for (let row = 0; row < newSize; row++) {
        sums.fill(0);
        for (let entry = starts[row]; entry < starts[row + 1]; entry++) {
          const weight = weights[entry];
          const from = (part * size + columns[entry]) * inner + block;
          for (let index = 0; index < length; index++) sums[index] += weight * volume[from + index];
        }
        const to = (part * newSize + row) * inner + block;
        for (let index = 0; index < length; index++) result[to + index] = sums[index];
      }
    }
  }
}

/** Beyond the outermost voxels their values go on. */
function linearAt(column: number, position: number, size: number): number {
  return Math.max(0, 1 - Math.abs(Math.min(Math.max(position, 0), size - 1) - column));
}

/**
 * Coefficients of the cubic B-spline through a unit vector whose border values go on outside.
 *
 * @returns size + 2 * PADDING numbers.
 */
function cubicCoefficients(size: number, column: number): Float64Array {
  const length = size + 2 * PADDING;
  const values = new Float64Array(length);
  values.fill(1, column === 0 ? 0 : column + PADDING, column === size - 1 ? length : column + PADDING + 1);
  // The recursive filter of Unser, Aldroubi and Eden 1993, with the values mirrored at the ends of the padding.
  const gain = (1 - POLE) * (1 - 1 / POLE);
  for (let index = 0; index < length; index++) values[index] *= gain;
  const last = POLE ** length;
  const first = values[0];
  let power = POLE;
  let sum = first + last * values[length - 1];
  for (let index = 1; index < length; index++) {
    sum += power * (values[index] + last * values[length - 1 - index]);
    power *= POLE;
  }
  values[0] = (sum * POLE) / (1 - last * last) + first;
  for (let index = 1; index < length; index++) values[index] += POLE * values[index - 1];
  values[length - 1] *= POLE / (POLE - 1);
  for (let index = length - 2; index >= 0; index--) values[index] = POLE * (values[index + 1] - values[index]);
  return values;
}

/** A spline at a position on the old grid. */
function cubicAt(coefficients: Float64Array, position: number): number {
  const start = Math.floor(position);
  const t = position - start;
  const u = 1 - t;
  const at = start + PADDING;
  return (
    ((u * u * u) * coefficients[at - 1] +
      (4 - 3 * t * t * (1 + u)) * coefficients[at] +
      (4 - 3 * u * u * (1 + t)) * coefficients[at + 1] +
      (t * t * t) * coefficients[at + 2]) /
    6
  );
}
