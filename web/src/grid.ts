/**
 * Shapes, spacings and boxes of voxel grids: the rules of seg25d/core/grids.py and seg25d/preprocessing/grid.py.
 *
 * Axes are always (D, H, W) = (inferior to superior, anterior to posterior, right to left).
 */

export type Triple<T = number> = [T, T, T];
/** Voxels along (D, H, W). */
export type Shape = Triple;
/** Millimetres per voxel along (D, H, W). */
export type Spacing = Triple;
/** Half-open ranges of voxels along (D, H, W). */
export type Box = Triple<[number, number]>;
/** Size that all cases are resized to along an axis; null: the axis is resampled by its spacing. */
export type CommonShape = Triple<number | null>;

export const AXES = [0, 1, 2] as const;
/** Ratio of the coarsest to the finest spacing above which an axis is handled apart. */
const ANISOTROPY = 3;

/** From the canonical grid of a file, through the crop, to the grid of the model. */
export interface Grid {
  canonicalShape: Shape;
  canonicalSpacing: Spacing;
  /** The part that is kept, on the canonical grid. */
  box: Box;
  spacing: Spacing;
  shape: Shape;
  commonShape: CommonShape | null;
}

export const product = (sizes: readonly number[]): number => sizes.reduce((all, size) => all * size, 1);

export const mapAxes = <T>(make: (axis: number) => T): Triple<T> => [make(0), make(1), make(2)];

export const boxShape = (box: Box): Shape => mapAxes((axis) => box[axis][1] - box[axis][0]);

/** Whole number nearest to a value, the even one of two that are equally near, as Python's round. */
export function roundHalfEven(value: number): number {
  const below = Math.floor(value);
  const above = value - below;
  if (above !== 0.5) return above < 0.5 ? below : below + 1;
  return below % 2 === 0 ? below : below + 1;
}

/**
 * The box of everything that is not zero in any channel; the whole volume if all is zero.
 *
 * @param channels Each (D, H, W).
 */
export function contentBox(channels: readonly Float32Array[], shape: Shape): Box {
  const [depth, height, width] = shape;
  const low: Shape = [depth, height, width];
  const high: Shape = [-1, -1, -1];
  for (const channel of channels) {
    for (let d = 0, at = 0; d < depth; d++) {
      for (let h = 0; h < height; h++, at += width) {
        let first = 0;
        while (first < width && channel[at + first] === 0) first++;
        if (first === width) continue;
        let last = width - 1;
        while (channel[at + last] === 0) last--;
        low[0] = Math.min(low[0], d);
        high[0] = Math.max(high[0], d);
        low[1] = Math.min(low[1], h);
        high[1] = Math.max(high[1], h);
        low[2] = Math.min(low[2], first);
        high[2] = Math.max(high[2], last);
      }
    }
  }
  return mapAxes((axis) => (high[axis] < 0 ? [0, shape[axis]] : [low[axis], high[axis] + 1]));
}

/** The part of a volume inside a box; the volume itself if the box is all of it. */
export function crop(volume: Float32Array, shape: Shape, box: Box): Float32Array {
  const [depth, height, width] = boxShape(box);
  if (depth === shape[0] && height === shape[1] && width === shape[2]) return volume;
  const part = new Float32Array(depth * height * width);
  for (let d = 0, to = 0; d < depth; d++) {
    for (let h = 0; h < height; h++, to += width) {
      const from = ((box[0][0] + d) * shape[1] + box[1][0] + h) * shape[2] + box[2][0];
      part.set(volume.subarray(from, from + width), to);
    }
  }
  return part;
}

/** The grid that a cropped volume gets at the planned spacing, or in the planned size: there nothing is cropped. */
export function planGrid(
  canonicalShape: Shape,
  canonicalSpacing: Spacing,
  content: Box,
  target: Spacing,
  commonShape: CommonShape | null,
): Grid {
  const common = (axis: number): number | null => commonShape?.[axis] ?? null;
  const box = mapAxes<[number, number]>((axis) => (common(axis) ? [0, canonicalShape[axis]] : content[axis]));
  const kept = boxShape(box);
  const sizeOf = (axis: number): number => canonicalShape[axis] * canonicalSpacing[axis];
  return {
    canonicalShape,
    canonicalSpacing,
    box,
    spacing: mapAxes((axis) => (common(axis) ? sizeOf(axis) / common(axis)! : target[axis])),
    shape: mapAxes(
      (axis) =>
        common(axis) ?? Math.max(1, roundHalfEven((kept[axis] * canonicalSpacing[axis]) / target[axis])),
    ),
    commonShape,
  };
}

/** The axis whose voxels are so thick that interpolating across them would invent content; null if there is none. */
export function separateAxis(spacing: Spacing, target: Spacing): number | null {
  for (const each of [spacing, target]) {
    const coarsest = Math.max(...each);
    if (coarsest / Math.min(...each) > ANISOTROPY) {
      return each.filter((step) => step === coarsest).length === 1 ? each.indexOf(coarsest) : null;
    }
  }
  return null;
}

/** The axis that resampling to the model's grid handles separately. */
export function separateAxisOf(grid: Grid): number | null {
  return resampled(grid, separateAxis(grid.canonicalSpacing, grid.spacing));
}

/** The axis that resampling back to the file's grid handles separately, see `separatePositions`. */
export function inverseSeparateAxisOf(grid: Grid): number | null {
  return resampled(grid, separateAxis(grid.spacing, grid.canonicalSpacing));
}

function resampled(grid: Grid, axis: number | null): number | null {
  return axis === null || grid.commonShape?.[axis] ? null : axis;
}

/** Positions of a new grid's voxels on an old one along one axis: between `low` and `high`, at `fraction`. */
export interface Positions {
  low: Int32Array;
  high: Int32Array;
  fraction: Float64Array;
}

/** Positions for linear interpolation, clipped to the first and last voxel centre. */
export function linearPositions(size: number, newSize: number): Positions {
  const low = new Int32Array(newSize);
  const high = new Int32Array(newSize);
  const fraction = new Float64Array(newSize);
  for (let index = 0; index < newSize; index++) {
    const position = Math.min(Math.max(((index + 0.5) * size) / newSize - 0.5, 0), size - 1);
    low[index] = Math.floor(position);
    fraction[index] = position - low[index];
    high[index] = low[index] + (fraction[index] > 0 ? 1 : 0);
  }
  return { low, high, fraction };
}

/** Positions of the nearest neighbours: the voxel that contains the new centre. */
export function nearestPositions(size: number, newSize: number): Positions {
  const low = new Int32Array(newSize);
  for (let index = 0; index < newSize; index++) {
    low[index] = Math.min(Math.trunc(((index + 0.5) * size) / newSize), size - 1);
  }
  return { low, high: low, fraction: new Float64Array(newSize) };
}

/**
 * Positions of slices on a grid of fewer slices that were taken from them: a slice that was taken lies on its own, one
 * between two of them in between by its distance to both (seg25d/preprocessing/positions.py).
 */
export function takenPositions(size: number, newSize: number): Positions {
  const taken = nearestPositions(newSize, size).low;
  const low = new Int32Array(newSize);
  const high = new Int32Array(newSize);
  const fraction = new Float64Array(newSize);
  for (let index = 0, last = 0; index < newSize; index++) {
    while (last + 1 < size && taken[last + 1] <= index) last++;
    low[index] = high[index] = last;
    if (index > taken[last] && last + 1 < size) {
      high[index] = last + 1;
      fraction[index] = (index - taken[last]) / (taken[last + 1] - taken[last]);
    }
  }
  return { low, high, fraction };
}

/**
 * Positions of the voxels of a file on the model's grid along an axis: between slices that the model saw where the file
 * has more of them, the nearest ones where it has no more, and elsewhere between voxel centres.
 */
export function exportPositions(grid: Grid, axis: number): Positions {
  const size = grid.shape[axis];
  const newSize = grid.box[axis][1] - grid.box[axis][0];
  if (size < newSize) return (axis === separateAxisOf(grid) ? takenPositions : linearPositions)(size, newSize);
  return (axis === inverseSeparateAxisOf(grid) ? nearestPositions : linearPositions)(size, newSize);
}
