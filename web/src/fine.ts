/**
 * Coarse-to-fine prediction: one model finds the object, another predicts a crop around it until that hardly changes;
 * the rules of seg25d/inference/fine_predictor.py and fixed_point.py.
 */

import { smallComponents } from "./components.js";
import { boxShape, crop, mapAxes, product, type Box, type Shape } from "./grid.js";
import { indicesFromScores, type Meaning } from "./labels.js";
import type { Graph } from "./model.js";
import { otherAxes, predictSlabs, type Model, type Slab } from "./predict.js";
import type { Cover, WindowRules } from "./windows.js";

/** What `page.json` says of the coarse model. */
export interface FineRules {
  graphs: Graph[];
  windows: WindowRules;
  /** Voxels around the object along (D, H, W). */
  margin: Shape;
  max_rounds: number;
  /** Dice of two successive masks from which on no further round follows. */
  stop_dice: number;
  /** Whether after each round small components become background. */
  large_components: boolean;
  /** Of both models, as in `Meaning`: those of post-processing are for the result alone. */
  score_thresholds: number[] | null;
}

/** Fine models and the coarse models of the same folds. */
export interface FineModels {
  fine: readonly Model[];
  coarse: readonly Model[];
}

export interface FineOptions {
  /** Of the fine models. */
  rules: WindowRules;
  coarse: FineRules;
  meaning: Meaning;
  /** Windows of the coarse models. */
  cover: Cover;
  /** Windows of the fine models in a crop of a size; fails where there is no room for it. */
  coverCrop: (size: Shape) => Cover;
  progress: (done: number, all: number) => void;
}

/** Score of foreground where nothing is found. */
const NOTHING = -100;

interface Refined {
  box: Box;
  /** Planes across D, each (K, h, w). */
  planes: Float32Array[];
  mask: Uint8Array;
}

/**
 * Scores of a volume: those of the last round that found something, with background around it; the coarse models' if
 * nothing was found.
 *
 * @param image Channels, each (D, H, W).
 */
export async function* refinedSlabs(
  models: FineModels,
  image: readonly Float32Array[],
  shape: Shape,
  options: FineOptions,
): AsyncGenerator<Slab> {
  const { rules, coarse, meaning, cover, coverCrop, progress } = options;
  let stage = 0;
  // Nobody knows how many rounds there will be: each stage has half of what is left.
  const within = (done: number, all: number): void => progress(1 - 0.5 ** stage * (1 - done / all / 2), 1);
  const coarsely = (): AsyncGenerator<Slab> =>
    predictSlabs(models.coarse, image, shape, coarse.windows, cover, within);
  let mask: Uint8Array = await foreground(coarsely(), shape, meaning, coarse.large_components);
  let last: Refined | null = null;
  for (let round = 0; round < coarse.max_rounds; round++) {
    const found = boundingBox(mask, shape);
    const box = found && withMargin(found, coarse.margin, shape);
    if (!box || (last && String(box) === String(last.box))) break;
    stage++;
    const size = boxShape(box);
    const part = image.map((channel) => crop(channel, shape, box));
    const slabs = predictSlabs(models.fine, part, size, rules, coverCrop(size), within);
    const planes = emptyPlanes(size, rules.outputs);
    const refined = { box, planes, mask: await foreground(slabs, size, meaning, coarse.large_components, planes) };
    if (!refined.mask.includes(1)) break;
    const before = mask;
    mask = inserted(refined, shape);
    last = refined;
    if (dice(before, mask) >= coarse.stop_dice) break;
  }
  if (last) yield* framed(last, shape, rules.outputs, meaning);
  else yield* coarsely();
}

function emptyPlanes([depth, height, width]: Shape, outputs: number): Float32Array[] {
  return Array.from({ length: depth }, () => new Float32Array(outputs * height * width));
}

/**
 * The foreground of a volume, all classes together: 1.
 *
 * @param onlyLarge Whether small components are left out.
 * @param planes Planes of scores (K, h, w) across D, to be filled, with those of background for what is left out; none
 *   where only the foreground is needed.
 */
async function foreground(
  slabs: AsyncIterable<Slab>,
  shape: Shape,
  meaning: Meaning,
  onlyLarge: boolean,
  planes?: readonly Float32Array[],
): Promise<Uint8Array> {
  const [, height, width] = shape;
  const labels = new Uint8Array(product(shape));
  for await (const slab of slabs) {
    const others = otherAxes(slab.axis);
    for (const [number, plane] of slab.planes.entries()) {
      const at: Shape = [0, 0, 0];
      at[slab.axis] = slab.start + number;
      const indices = indicesFromScores(plane, slab.size[0] * slab.size[1], meaning);
      const outputs = plane.length / indices.length;
      for (let row = 0, from = 0; row < slab.size[0]; row++) {
        for (let column = 0; column < slab.size[1]; column++, from++) {
          at[others[0]] = row;
          at[others[1]] = column;
          const place = at[1] * width + at[2];
          labels[at[0] * height * width + place] = indices[from];
          const scores = planes?.[at[0]];
          for (let k = 0; scores && k < outputs; k++) {
            scores[k * height * width + place] = plane[k * indices.length + from];
          }
        }
      }
    }
  }
  for (const [start, stop] of onlyLarge ? smallComponents(labels, shape) : []) {
    labels.fill(0, start, stop);
    const plane = Math.floor(start / (height * width));
    const [from, to] = [start, stop].map((place) => place - plane * height * width);
    if (planes) fillBackground(planes[plane], height * width, meaning, from, to);
  }
  for (let at = 0; at < labels.length; at++) if (labels[at] > 0) labels[at] = 1;
  return labels;
}

/** Give pixels of a plane (K, h, w) the scores of background. */
function fillBackground(plane: Float32Array, pixels: number, { paint }: Meaning, from: number, to: number): void {
  for (let k = 0; k * pixels < plane.length; k++) {
    plane.fill(k === 0 && !paint ? 0 : NOTHING, k * pixels + from, k * pixels + to);
  }
}

/** The smallest box that holds every voxel that is not 0; null if there is none. */
export function boundingBox(mask: Uint8Array, shape: Shape): Box | null {
  const low: Shape = [...shape];
  const high: Shape = [0, 0, 0];
  for (let d = 0, at = 0; d < shape[0]; d++) {
    for (let h = 0; h < shape[1]; h++) {
      for (let w = 0; w < shape[2]; w++, at++) {
        if (mask[at] === 0) continue;
        [d, h, w].forEach((index, axis) => {
          low[axis] = Math.min(low[axis], index);
          high[axis] = Math.max(high[axis], index + 1);
        });
      }
    }
  }
  return high[0] === 0 ? null : mapAxes<[number, number]>((axis) => [low[axis], high[axis]]);
}

function withMargin(box: Box, margin: Shape, shape: Shape): Box {
  return mapAxes<[number, number]>((axis) => [
    Math.max(0, box[axis][0] - margin[axis]),
    Math.min(shape[axis], box[axis][1] + margin[axis]),
  ]);
}

/** The mask of a crop in the whole volume. */
function inserted({ box, mask }: Refined, shape: Shape): Uint8Array {
  const whole = new Uint8Array(product(shape));
  const [depth, height, width] = boxShape(box);
  for (let d = 0, from = 0; d < depth; d++) {
    for (let h = 0; h < height; h++, from += width) {
      const to = ((box[0][0] + d) * shape[1] + box[1][0] + h) * shape[2] + box[2][0];
      whole.set(mask.subarray(from, from + width), to);
    }
  }
  return whole;
}

/** Dice of two masks, of which at least one is not empty. */
function dice(first: Uint8Array, second: Uint8Array): number {
  let both = 0;
  let all = 0;
  for (let index = 0; index < first.length; index++) {
    both += first[index] & second[index];
    all += first[index] + second[index];
  }
  return (2 * both) / all;
}

/** The scores of a crop with those of background around it, plane by plane. */
function* framed({ box, planes }: Refined, shape: Shape, outputs: number, meaning: Meaning): Generator<Slab> {
  const [, height, width] = shape;
  const [depth, rows, columns] = boxShape(box);
  for (let d = 0; d < shape[0]; d++) {
    const plane = new Float32Array(outputs * height * width);
    fillBackground(plane, height * width, meaning, 0, height * width);
    const within = d - box[0][0];
    for (let k = 0; within >= 0 && within < depth && k < outputs; k++) {
      for (let row = 0; row < rows; row++) {
        const from = (k * rows + row) * columns;
        const to = (k * height + box[1][0] + row) * width + box[2][0];
        plane.set(planes[within].subarray(from, from + columns), to);
      }
    }
    yield { axis: 0, start: d, planes: [plane], size: [height, width] };
  }
}
