/**
 * The closest anatomical orientation of a file's axes: the rules of seg25d/data/image_geometry.py.
 *
 * Canonical axes are (D, H, W) = (inferior to superior, anterior to posterior, right to left): LPS seen as an array.
 */

import { mapAxes, type Shape, type Spacing, type Triple } from "./grid.js";

/** How the voxels of a file (x fastest) lie on the canonical grid. */
export interface Orientation {
  shape: Shape;
  spacing: Spacing;
  /** From one voxel to the next along (D, H, W), in voxels of the file. */
  strides: Triple;
  /** Place of the canonical voxel (0, 0, 0) in the file. */
  first: number;
}

/**
 * @param sizes Voxels along the file's axes (x, y, z).
 * @param spacing Millimetres per voxel along them.
 * @param direction The 3 x 3 matrix, `direction[world][file axis]`, world axes (L, P, S).
 */
export function orientationOf(sizes: Triple, spacing: Triple, direction: Triple<Triple>): Orientation {
  const fileStrides: Triple = [1, sizes[0], sizes[0] * sizes[1]];
  const remaining = direction.map((row) => row.map(Math.abs));
  const axes: Triple = [0, 0, 0];
  const flipped: Triple<boolean> = [false, false, false];
  // The best aligned pair of axes first; if two axes of the file match one canonical axis, the better one gets it.
  for (let round = 0; round < 3; round++) {
    let world = 0;
    let file = 0;
    for (let row = 0; row < 3; row++) {
      for (let column = 0; column < 3; column++) {
        if (remaining[row][column] > remaining[world][file]) [world, file] = [row, column];
      }
    }
    axes[2 - world] = file;
    flipped[2 - world] = direction[world][file] < 0;
    remaining[world].fill(-1);
    for (const row of remaining) row[file] = -1;
  }
  const shape = mapAxes((axis) => sizes[axes[axis]]);
  const strides = mapAxes((axis) => (flipped[axis] ? -1 : 1) * fileStrides[axes[axis]]);
  const first = [0, 1, 2].reduce((at, axis) => at - (flipped[axis] ? (shape[axis] - 1) * strides[axis] : 0), 0);
  return { shape, spacing: mapAxes((axis) => spacing[axes[axis]]), strides, first };
}

/** Call `each` for every row along W: its place in the canonical volume, and that of its first voxel in the file. */
export function forEachRow(
  { shape, strides, first }: Orientation,
  each: (canonical: number, file: number) => void,
): void {
  for (let d = 0, at = 0; d < shape[0]; d++) {
    for (let h = 0; h < shape[1]; h++, at += shape[2]) each(at, first + d * strides[0] + h * strides[1]);
  }
}

/** Bring labels (D, H, W) back to the order of the file. */
export function toFileOrder<T extends Uint8Array | Uint16Array | Int32Array>(labels: T, orientation: Orientation): T {
  const result = labels.slice();
  const width = orientation.shape[2];
  const stride = orientation.strides[2];
  forEachRow(orientation, (canonical, file) => {
    for (let w = 0; w < width; w++) result[file + w * stride] = labels[canonical + w];
  });
  return result as T;
}
