/**
 * From scores on the model's grid to labels on the canonical grid of the file, plane by plane: the convention of
 * seg25d/inference/export.py. At most three planes of scores exist at a time.
 */

import { boxShape, exportPositions, type Grid, type Positions } from "./grid.js";
import { indicesFromScores, type Meaning } from "./labels.js";
import { otherAxes, type Slab } from "./predict.js";

/**
 * @param slabs Consecutive slabs that cover the model's grid.
 * @param outputs Scores per voxel, K.
 * @returns Internal indices (D, H, W) on the whole canonical grid; 0 outside the crop of preprocessing.
 */
export async function labelsFromSlabs(
  slabs: AsyncIterable<Slab>,
  grid: Grid,
  outputs: number,
  meaning: Meaning,
): Promise<Uint8Array> {
  const result = new Uint8Array(grid.canonicalShape[0] * grid.canonicalShape[1] * grid.canonicalShape[2]);
  const cropped = boxShape(grid.box);
  let previous: Float32Array | null = null;
  let done = 0;
  for await (const slab of slabs) {
    const [rows, columns] = otherAxes(slab.axis);
    const along = exportPositions(grid, slab.axis);
    const size: [number, number] = [cropped[rows], cropped[columns]];
    const inPlane: [Positions, Positions] = [exportPositions(grid, rows), exportPositions(grid, columns)];
    for (const [number, plane] of slab.planes.entries()) {
      const source = slab.start + number;
      const current = resamplePlane(plane, outputs, slab.size, size, inPlane);
      while (done < along.high.length && along.high[done] === source) {
        const scores: Float32Array =
          along.low[done] === source || previous === null ? current : between(previous, current, along.fraction[done]);
        const indices = indicesFromScores(scores, size[0] * size[1], meaning);
        place(indices, size, result, grid, slab.axis, done);
        done++;
      }
      previous = current;
    }
  }
  return result;
}

/** A plane between two, as `torch.lerp` has it. */
function between(first: Float32Array, second: Float32Array, fraction: number): Float32Array {
  const result = new Float32Array(first.length);
  for (let index = 0; index < first.length; index++) {
    result[index] = first[index] + fraction * (second[index] - first[index]);
  }
  return result;
}

/** Resample a plane (K, h, w) linearly; the same plane if nothing has to be done. */
function resamplePlane(
  plane: Float32Array,
  outputs: number,
  size: [number, number],
  newSize: [number, number],
  [rows, columns]: [Positions, Positions],
): Float32Array {
  if (size[0] === newSize[0] && size[1] === newSize[1]) return plane;
  const result = new Float32Array(outputs * newSize[0] * newSize[1]);
  const line = new Float64Array(size[1]);
  for (let k = 0, to = 0; k < outputs; k++) {
    const start = k * size[0] * size[1];
    for (let row = 0; row < newSize[0]; row++) {
      const low = start + rows.low[row] * size[1];
      const high = start + rows.high[row] * size[1];
      const down = rows.fraction[row];
      for (let column = 0; column < size[1]; column++) {
        line[column] = plane[low + column] + down * (plane[high + column] - plane[low + column]);
      }
      for (let column = 0; column < newSize[1]; column++, to++) {
        const left = line[columns.low[column]];
        result[to] = left + columns.fraction[column] * (line[columns.high[column]] - left);
      }
    }
  }
  return result;
}

/** Put a plane of the crop into the whole volume. */
function place(
  indices: Uint8Array,
  size: [number, number],
  volume: Uint8Array,
  grid: Grid,
  axis: number,
  index: number,
): void {
  const shape = grid.canonicalShape;
  const strides = [shape[1] * shape[2], shape[2], 1];
  const [rows, columns] = otherAxes(axis);
  const start =
    (grid.box[axis][0] + index) * strides[axis] +
    grid.box[rows][0] * strides[rows] +
    grid.box[columns][0] * strides[columns];
  for (let row = 0, from = 0; row < size[0]; row++) {
    for (let column = 0; column < size[1]; column++, from++) {
      volume[start + row * strides[rows] + column * strides[columns]] = indices[from];
    }
  }
}
