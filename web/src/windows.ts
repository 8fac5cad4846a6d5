/** How windows cover a volume: the rules of seg25d/inference/predictor.py and seg25d/inference/sliding_window.py. */

import { UserError } from "./errors.js";
import { AXES, mapAxes, product, roundHalfEven, type Shape, type Triple } from "./grid.js";
import type { PlannedGrid } from "./super_image.js";

/** What the sliding window has to know of a model (`windows` and `graph` of a PortableModel). */
export interface WindowRules {
  /** The planned window. */
  window: Shape;
  /** Scores per voxel, K. */
  outputs: number;
  /** Sizes of windows must be multiples of these. */
  divisors: Triple;
  /** Axes along which windows may have another size than planned. */
  resizable_axes: number[];
  /** Axes along which the network convolves: there a window may have any size, elsewhere that of the volume. */
  convolved_axes: number[];
  /** Axes of mirroring; scores are averaged over all combinations. */
  mirror_axes: number[];
  /** Largest step between windows as a share of the window. */
  step_size: Triple;
  /** The axis along which slices see only their neighbours; null if there is none. */
  free_axis: number | null;
  /** Neighbours per side along `free_axis`. */
  context: number;
  /** Axis along which windows start at multiples of a step and all of their voxels have the same weight. */
  regular: { axis: number; step: number; flush: boolean } | null;
  /** Whether volumes are padded with the lowest value of each channel instead of 0. */
  padded_with_lowest: boolean;
  /** The axis along which end slices are repeated instead, as blank ones would be mixed into others; null: none. */
  repeated_axis: number | null;
  /** Windows per batch of seg25d's own prediction, which decides how deep windows of slices are. */
  batch_size: number;
  /** Of super images; null: the graph has one input. */
  grid: PlannedGrid | null;
}

/** The windows of a volume. */
export interface Cover {
  window: Shape;
  /** Starts of the windows along each axis of the padded volume. */
  starts: Triple<number[]>;
  /** Position of the volume in the padded one. */
  offset: Shape;
  /** Weights of a window's voxels along each axis, by its start. */
  weights: Triple<Map<number, Float64Array>>;
  /** Axis across which finished planes are given away. */
  axis: number;
  /** Size of the padded volume. */
  padded: Shape;
}

/** Standard deviation of the Gaussian, as a share of the window. */
const SIGMA = 1 / 8;
/** Minimum weight of a voxel along an axis, as a share of the largest weight. */
const SMALLEST_WEIGHT = 1e-3;
/** The window is stretched to the whole volume along axes where the volume is up to this many times its size. */
const STRETCH_AXIS = 1.5;
/** Maximum number of voxels of a stretched window, as a multiple of the planned window. */
const STRETCH_VOXELS = 2;
/** Maximum memory of the scores of a window that was stretched. */
const BATCH_SCORES_BYTES = 128 << 20;
/** Passes for one volume beyond which nobody would wait. */
const MAX_WINDOWS = 1_000_000;

/**
 * Choose the windows of a volume.
 *
 * @param shape On the model's grid.
 * @param sparing Whether windows have the planned size, as memory ran out with larger ones.
 */
export function coverVolume(shape: Shape, rules: WindowRules, sparing: boolean): Cover {
  const window = sparing ? rules.window : deepened(coveringWindow(rules, shape), rules, shape);
  const steps = mapAxes((axis) => stepOf(rules, window, axis));
  const starts = mapAxes((axis) =>
    rules.regular?.axis === axis
      ? regularStarts(shape[axis], window[axis], rules.regular.step, rules.regular.flush)
      : windowStarts(shape[axis], window[axis], steps[axis]),
  );
  const number = starts[0].length * starts[1].length * starts[2].length * 2 ** rules.mirror_axes.length;
  if (number > MAX_WINDOWS) {
    throw new UserError(
      `The volume of ${shape.join(" x ")} voxels would take ${number} passes of windows of ${window.join(" x ")}. ` +
        "Cut it to the part that the model is for, or correct the spacing in its header.",
    );
  }
  const reached = mapAxes((axis) => Math.max(shape[axis], starts[axis].at(-1)! + window[axis]));
  const offset = mapAxes((axis) =>
    rules.regular?.axis === axis ? 0 : Math.floor((reached[axis] - shape[axis]) / 2),
  );
  const weights = mapAxes((axis) =>
    axisWeights(reached[axis], window[axis], starts[axis], rules.regular?.axis === axis),
  );
  // The axis along which the fewest voxels are kept at a time.
  const kept = (axis: number): number => (Math.min(window[axis], reached[axis]) * product(reached)) / reached[axis];
  const axis = AXES.reduce<number>((best, each) => (kept(each) < kept(best) ? each : best), 0);
  return { window, starts, offset, weights, axis, padded: reached };
}

/** The window with which the fewest voxels are computed, the smallest of equal ones (seg25d/inference/windows.py). */
export function coveringWindow(rules: WindowRules, shape: Shape): Shape {
  const most = Math.min(STRETCH_VOXELS * product(rules.window), BATCH_SCORES_BYTES / (4 * rules.outputs));
  const [depths, heights, widths] = mapAxes((axis) => sparingSizes(rules, axis, shape[axis]));
  let best = rules.window;
  let fewest = depths[0][1] * heights[0][1] * widths[0][1];
  for (const [depth, ofDepth] of depths) {
    for (const [height, ofHeight] of heights) {
      for (const [width, ofWidth] of widths) {
        const window: Shape = [depth, height, width];
        const voxels = ofDepth * ofHeight * ofWidth;
        if (product(window) <= most && (voxels < fewest || (voxels === fewest && isBefore(window, best)))) {
          best = window;
          fewest = voxels;
        }
      }
    }
  }
  return best;
}

/**
 * Sizes of a window along an axis, ascending, each with the voxels that all windows have. A size with which no fewer
 * are computed than with a smaller one is of no use, and what is left is few, also where a window may have any size.
 */
function sparingSizes(rules: WindowRules, axis: number, voxels: number): [number, number][] {
  const sparing: [number, number][] = [];
  for (const size of possibleSizes(rules, axis, voxels)) {
    const window = mapAxes((each) => (each === axis ? size : rules.window[each]));
    const computed = size * windowStarts(voxels, size, stepOf(rules, window, axis)).length;
    if (sparing.length === 0 || computed < sparing.at(-1)![1]) sparing.push([size, computed]);
  }
  return sparing;
}

/** Sizes that a window may have along an axis, ascending: multiples of the divisor if there is one, else the volume. */
function possibleSizes(rules: WindowRules, axis: number, voxels: number): number[] {
  const planned = rules.window[axis];
  const sizes = [planned];
  if (voxels <= planned || !rules.resizable_axes.includes(axis) || rules.regular?.axis === axis) return sizes;
  const isConvolved = rules.convolved_axes.includes(axis);
  const divisor = rules.divisors[axis];
  const whole = Math.ceil(voxels / divisor) * divisor;
  const largest = STRETCH_AXIS * planned;
  if (isConvolved) {
    for (let size = planned + divisor; size <= Math.min(whole, largest); size += divisor) sizes.push(size);
  }
  if ((voxels <= largest && largest < whole) || (!isConvolved && whole <= largest)) sizes.push(whole);
  return sizes;
}

/** Largest step between windows along an axis, as a share of the window. */
function stepOf(rules: WindowRules, window: Shape, axis: number): number {
  const step = rules.step_size[axis];
  return axis === rules.free_axis ? Math.max(step, 1 - (2 * rules.context) / window[axis]) : step;
}

function isBefore(first: Shape, second: Shape): boolean {
  const axis = AXES.find((each) => first[each] !== second[each]);
  return axis !== undefined && first[axis] < second[axis];
}

/** One deeper window in place of several, along the axis where the depth makes no difference. */
function deepened(window: Shape, rules: WindowRules, shape: Shape): Shape {
  const axis = rules.free_axis;
  if (axis === null || !rules.resizable_axes.includes(axis) || shape[axis] <= window[axis]) return window;
  const times = Math.min(rules.batch_size, Math.ceil(shape[axis] / window[axis]));
  return mapAxes((each) => (each === axis ? Math.min(shape[axis], times * window[axis]) : window[each]));
}

/** Starts of windows along one axis: evenly spaced, the last one at the end. */
export function windowStarts(size: number, window: number, step: number): number[] {
  const room = size - window;
  if (room <= 0) return [0];
  const steps = Math.ceil(room / (step * window));
  const starts = Array.from({ length: steps + 1 }, (_, index) => roundHalfEven((room / steps) * index));
  return [...new Set(starts)].sort((a, b) => a - b);
}

/** Starts of windows in whole steps; the last one reaches beyond the end, or ends with the volume (`flush`). */
export function regularStarts(size: number, window: number, step: number, flush: boolean): number[] {
  const count = size <= window ? 1 : Math.ceil((size - window) / step) + 1;
  const last = Math.max(0, size - window);
  return Array.from({ length: count }, (_, index) => (flush ? Math.min(index * step, last) : index * step));
}

/** Weights of each window along one axis, which sum to one over the windows that cover a voxel. */
export function axisWeights(
  size: number,
  window: number,
  starts: readonly number[],
  equal: boolean,
): Map<number, Float64Array> {
  const weights = Float64Array.from({ length: window }, (_, index) => {
    const offset = (index - (window - 1) / 2) / (window * SIGMA);
    return equal ? 1 : Math.max(SMALLEST_WEIGHT, Math.exp(-0.5 * offset * offset));
  });
  const total = new Float64Array(size);
  for (const start of starts) weights.forEach((weight, index) => (total[start + index] += weight));
  return new Map(starts.map((start) => [start, weights.map((weight, index) => weight / total[start + index])]));
}

/** All combinations of the axes of mirroring, none first. */
export function mirrorings(axes: readonly number[]): number[][] {
  return axes.reduce<number[][]>((all, axis) => [...all, ...all.map((each) => [...each, axis])], [[]]);
}
