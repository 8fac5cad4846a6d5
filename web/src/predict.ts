/**
 * Scores of a volume from overlapping windows, given away plane by plane when no further window overlaps them.
 *
 * Letters: C channels, K scores, D H W volume, n planes, h w the plane's axes in the order (D, H, W).
 */

import { UserError } from "./errors.js";
import { extremes } from "./normalize.js";
import { mapAxes, product, type Shape, type Triple } from "./grid.js";
import { mirrorings, type Cover, type WindowRules } from "./windows.js";

/** One model: from a volume (C, D, H, W) of a shape (D, H, W) to its scores (K, D, H, W). */
export type Model = (volume: Float32Array, shape: Shape) => Promise<Float32Array>;

/** Final scores of successive planes across one axis; valid until the next ones are asked for. */
export interface Slab {
  axis: number;
  start: number;
  /** Each (K, h, w). */
  planes: Float32Array[];
  /** h, w. */
  size: [number, number];
}

/** Voxels of slices that pass through a network at a time: 4 of 256 x 256, as memory of WebAssembly ends at 4 GiB. */
const PART_VOXELS = 1 << 18;

/** The two other axes, in ascending order. */
export function otherAxes(axis: number): [number, number] {
  const [first, second] = [0, 1, 2].filter((other) => other !== axis);
  return [first!, second!];
}

/**
 * Slide windows over a volume and give the scores, averaged over windows, mirrorings and models.
 *
 * @param models At least one.
 * @param image Channels, each (D, H, W).
 * @param progress Called with the passes of windows through models that are done, or parts of them, and of all.
 */
export async function* predictSlabs(
  models: readonly Model[],
  image: readonly Float32Array[],
  shape: Shape,
  rules: WindowRules,
  cover: Cover,
  progress: (done: number, all: number) => void,
): AsyncGenerator<Slab> {
  const { axis, window, starts, padded, offset } = cover;
  const lowest = image.map((channel) => (rules.padded_with_lowest ? extremes(channel).lowest : 0));
  const mirrors = mirrorings(rules.mirror_axes);
  const [rows, columns] = otherAxes(axis);
  const size: [number, number] = [padded[rows], padded[columns]];
  const sums = new Sums(axis, rules.outputs, window[axis], size);
  const all = product(starts.map((each) => each.length)) * mirrors.length * models.length;
  const share = 1 / (models.length * mirrors.length);
  let done = 0;
  for (const [number, start] of starts[axis].entries()) {
    sums.moveTo(start);
    for (const corner of corners(starts, axis, start)) {
      const place = mapAxes((each) => corner[each] - offset[each]);
      const part = cutOut(image, shape, window, place, lowest, rules.repeated_axis);
      const weights = mapAxes((each) => cover.weights[each].get(corner[each])!);
      for (const mirror of mirrors) {
        const seen = mirrored(part, image.length, window, mirror);
        for (const model of models) {
          const within = (slices: number): void => progress(done + slices, all);
          const scores = await scoresOf(model, seen, image.length, window, rules, within);
          sums.add(corner, mirror, scores, window, weights, share);
          progress(++done, all);
        }
      }
    }
    const stop = starts[axis][number + 1] ?? padded[axis];
    const first = Math.max(start, offset[axis]);
    const end = Math.min(stop, offset[axis] + shape[axis]);
    if (end > first) {
      const inside: [number, number] = [shape[rows], shape[columns]];
      const planes = sums.planes(first, end, [offset[rows], offset[columns]], inside);
      planes.forEach(checkFinite);
      yield { axis, start: first - offset[axis], planes, size: inside };
    }
  }
}

/** Corners of the windows that start at `start` along an axis. */
function* corners(starts: Triple<number[]>, axis: number, start: number): Generator<Shape> {
  const along = mapAxes((each) => (each === axis ? [start] : starts[each]));
  for (const d of along[0]) for (const h of along[1]) for (const w of along[2]) yield [d, h, w];
}

/** A window (C, d, h, w) of the image; where it reaches beyond it, its end slices along an axis, or the given values. */
function cutOut(
  image: readonly Float32Array[],
  shape: Shape,
  window: Shape,
  start: Shape,
  outside: readonly number[],
  repeated: number | null,
): Float32Array {
  const voxels = product(window);
  const part = new Float32Array(image.length * voxels);
  const first = Math.max(0, -start[2]);
  const stop = Math.min(window[2], shape[2] - start[2]);
  const within = (axis: number, place: number): number =>
    axis === repeated ? Math.min(Math.max(place, 0), shape[axis]! - 1) : place;
  image.forEach((channel, index) => {
    const own = part.subarray(index * voxels, (index + 1) * voxels);
    if (outside[index] !== 0) own.fill(outside[index]);
    for (let d = 0; d < window[0]; d++) {
      const z = within(0, start[0] + d);
      if (z < 0 || z >= shape[0]) continue;
      for (let h = 0; h < window[1]; h++) {
        const y = within(1, start[1] + h);
        if (y < 0 || y >= shape[1]) continue;
        const from = (z * shape[1] + y) * shape[2] + start[2];
        const row = own.subarray((d * window[1] + h) * window[2], (d * window[1] + h + 1) * window[2]);
        row.set(channel.subarray(from + first, from + stop), first);
        if (repeated === 2) row.fill(row[first]!, 0, first).fill(row[stop - 1]!, stop);
      }
    }
  });
  return part;
}

/** A window (C, d, h, w) mirrored along axes; itself if there are none. */
function mirrored(part: Float32Array, channels: number, window: Shape, axes: readonly number[]): Float32Array {
  if (axes.length === 0) return part;
  const result = new Float32Array(part.length);
  const [depth, height, width] = window;
  const place = (index: number, axis: number): number => (axes.includes(axis) ? window[axis] - 1 - index : index);
  const backwards = axes.includes(2);
  for (let c = 0, to = 0; c < channels; c++) {
    for (let d = 0; d < depth; d++) {
      for (let h = 0; h < height; h++, to += width) {
        const from = ((c * depth + place(d, 0)) * height + place(h, 1)) * width;
        const row = result.subarray(to, to + width);
        row.set(part.subarray(from, from + width));
        if (backwards) row.reverse();
      }
    }
  }
  return result;
}

/** Slices of a window that pass through a network at a time; all of them where they are seen together. */
function slicesPerPass(window: Shape, rules: WindowRules): number {
  const axis = rules.free_axis;
  if (axis === null || rules.divisors[axis] !== 1 || !rules.resizable_axes.includes(axis)) return Infinity;
  // Networks that mix slices see all of a window.
  if (rules.context >= rules.window[axis]) return Infinity;
  return Math.max(1, Math.floor((PART_VOXELS * window[axis]) / product(window)));
}

/** Voxels that a network sees at a time, of a window. */
export function voxelsPerPass(window: Shape, rules: WindowRules): number {
  const slices = slicesPerPass(window, rules) + 2 * rules.context;
  const axis = rules.free_axis ?? 0;
  return (product(window) * Math.min(window[axis], slices)) / window[axis];
}

/** Scores of a window; of slices a few at a time, with the neighbours that they see. */
async function scoresOf(
  model: Model,
  part: Float32Array,
  channels: number,
  window: Shape,
  rules: WindowRules,
  progress: (share: number) => void,
): Promise<Float32Array> {
  const axis = rules.free_axis;
  const slices = slicesPerPass(window, rules);
  if (axis === null || slices >= window[axis]) return model(part, window);
  const result = new Float32Array(rules.outputs * product(window));
  for (let first = 0; first < window[axis]; first += slices) {
    const stop = Math.min(first + slices, window[axis]);
    const low = Math.max(0, first - rules.context);
    const high = Math.min(window[axis], stop + rules.context);
    const shape = mapAxes((each) => (each === axis ? high - low : window[each]));
    const scores = await model(range(part, channels, window, axis, low, high), shape);
    copyRange(scores, shape, first - low, result, window, first, stop - first, axis, rules.outputs);
    progress(stop / window[axis]);
  }
  return result;
}

/** Planes `low` to `high` across an axis of (C, d, h, w). */
function range(
  part: Float32Array,
  channels: number,
  window: Shape,
  axis: number,
  low: number,
  high: number,
): Float32Array {
  const shape = mapAxes((each) => (each === axis ? high - low : window[each]));
  const result = new Float32Array(channels * product(shape));
  copyRange(part, window, low, result, shape, 0, high - low, axis, channels);
  return result;
}

/** Copy `count` planes across an axis of (C, ...) from one array to another that differs in size along that axis. */
function copyRange(
  source: Float32Array,
  sourceShape: Shape,
  from: number,
  target: Float32Array,
  targetShape: Shape,
  to: number,
  count: number,
  axis: number,
  channels: number,
): void {
  const inner = product(sourceShape.slice(axis + 1));
  const outer = channels * product(sourceShape.slice(0, axis));
  for (let part = 0; part < outer; part++) {
    const start = (part * sourceShape[axis] + from) * inner;
    target.set(source.subarray(start, start + count * inner), (part * targetShape[axis] + to) * inner);
  }
}

/** Weighted sums of scores over the planes that further windows may still overlap. */
class Sums {
  private readonly buffer: Float32Array;
  private readonly plane: number;
  private first = 0;

  constructor(
    private readonly axis: number,
    private readonly outputs: number,
    private readonly depth: number,
    private readonly size: [number, number],
  ) {
    this.plane = outputs * size[0] * size[1];
    this.buffer = new Float32Array(depth * this.plane);
  }

  /** Drop the planes before `first` and add as many new ones at the end. */
  moveTo(first: number): void {
    const shift = first - this.first;
    if (shift <= 0) return;
    this.buffer.copyWithin(0, shift * this.plane);
    this.buffer.fill(0, Math.max(0, this.depth - shift) * this.plane);
    this.first = first;
  }

  /** Add the scores (K, d, h, w) of a window, which was mirrored along some axes. */
  add(
    corner: Shape,
    mirror: readonly number[],
    scores: Float32Array,
    window: Shape,
    weights: Triple<Float64Array>,
    share: number,
  ): void {
    const [rows, columns] = otherAxes(this.axis);
    const strides: Triple = [0, 0, 0];
    strides[this.axis] = this.plane;
    strides[rows] = this.size[1];
    strides[columns] = 1;
    const start = mapAxes((each) => (each === this.axis ? corner[each] - this.first : corner[each]));
    const [depth, height, width] = window;
    const step = mirror.includes(2) ? -1 : 1;
    const across = weights[2];
    for (let k = 0; k < this.outputs; k++) {
      for (let d = 0; d < depth; d++) {
        const z = mirror.includes(0) ? depth - 1 - d : d;
        for (let h = 0; h < height; h++) {
          const y = mirror.includes(1) ? height - 1 - h : h;
          const weight = weights[0][d] * weights[1][h] * share;
          let from = ((k * depth + z) * height + y) * width + (step < 0 ? width - 1 : 0);
          let to =
            k * this.size[0] * this.size[1] +
            (start[0] + d) * strides[0] +
            (start[1] + h) * strides[1] +
            start[2] * strides[2];
          for (let w = 0; w < width; w++, from += step, to += strides[2]) {
            this.buffer[to] += scores[from] * weight * across[w];
          }
        }
      }
    }
  }

  /** Copies of planes (K, h, w) from `first` to `stop`, without what was padded. */
  planes(first: number, stop: number, offset: [number, number], inside: [number, number]): Float32Array[] {
    const result: Float32Array[] = [];
    for (let index = first; index < stop; index++) {
      const plane = new Float32Array(this.outputs * inside[0] * inside[1]);
      for (let k = 0, to = 0; k < this.outputs; k++) {
        for (let row = 0; row < inside[0]; row++, to += inside[1]) {
          const from =
            (index - this.first) * this.plane + (k * this.size[0] + offset[0] + row) * this.size[1] + offset[1];
          plane.set(this.buffer.subarray(from, from + inside[1]), to);
        }
      }
      result.push(plane);
    }
    return result;
  }
}

/** Refuse scores that are no numbers: the largest of them would be nothing, as background is. */
function checkFinite(plane: Float32Array): void {
  for (let index = 0; index < plane.length; index++) {
    if (!Number.isFinite(plane[index])) {
      throw new UserError(
        "The scores of the model are no finite numbers: it is damaged, or this machine computes it wrongly. " +
          "Reload the page, or try another browser.",
      );
    }
  }
}
