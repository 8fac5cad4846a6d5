/**
 * Runs parts of the page on arrays of files, for tests/web: `node checks.mjs FOLDER`.
 *
 * FOLDER/jobs.json is a list of jobs `{ task, arrays, ...arguments }`; `arrays` names files of float32 numbers there.
 * FOLDER/answers.json gets the answers: JSON, or `{ "file": name, "type": ... }` for arrays.
 */

import { readFileSync, writeFileSync } from "node:fs";
import { basename, join } from "node:path";
import { assignChannels, checkNumber } from "../src/channels.js";
import { removeComponents, smallComponents } from "../src/components.js";
import { isDicom } from "../src/dicom_elements.js";
import { checkSeries, findSeries, windowOf, type Series } from "../src/dicom_series.js";
import { UserError } from "../src/errors.js";
import { findVolumes } from "../src/files.js";
import { contentBox, planGrid, separateAxisOf, inverseSeparateAxisOf, product, type Shape } from "../src/grid.js";
import { labelsFromSlabs } from "../src/export.js";
import type { FineModels } from "../src/fine.js";
import { decode, indicesFromScores } from "../src/labels.js";
import { checkConverting, lacksMemory, memoryBudget } from "../src/memory.js";
import { labelFile, readBytes, readFileHeader, voxelsOf } from "../src/nifti.js";
import { normalize } from "../src/normalize.js";
import { toFileOrder } from "../src/orientation.js";
import type { Model, Slab } from "../src/predict.js";
import { resample, type Order } from "../src/resample.js";
import { segment } from "../src/segment.js";
import { gridFor } from "../src/super_image.js";
import { coverVolume } from "../src/windows.js";

type Job = { task: string; arrays?: string[] } & Record<string, any>;
type Numbers = Float32Array | Uint8Array | Uint16Array | Int32Array;

const folder = process.argv[2];

function read(name: string): Float32Array {
  const bytes = readFileSync(join(folder, name));
  return new Float32Array(bytes.buffer.slice(bytes.byteOffset, bytes.byteOffset + bytes.byteLength) as ArrayBuffer);
}

function blob(name: string): Blob {
  return new Blob([readFileSync(join(folder, name))]);
}

function file(name: string): File {
  return new File([readFileSync(join(folder, name))], basename(name));
}

/** Counts how parts of files are read. */
class Tally {
  reads = 0;
  /** Bytes of the longest part. */
  longest = 0;
  /** Parts that were read at the same time, at most. */
  together = 0;
  private open = 0;

  /** @param counted Called when a part is read, with how many there were. */
  constructor(private readonly counted: (reads: number) => void) {}

  of(file: File): File {
    const slice = (start?: number, stop?: number): Blob => {
      const part = File.prototype.slice.call(file, start, stop);
      const buffer = (): Promise<ArrayBuffer> => this.count(part, () => Blob.prototype.arrayBuffer.call(part));
      const text = async (): Promise<string> => new TextDecoder().decode(await buffer());
      return Object.assign(part, { arrayBuffer: buffer, text });
    };
    return Object.assign(file, { slice });
  }

  private async count<T>(part: Blob, read: () => Promise<T>): Promise<T> {
    this.longest = Math.max(this.longest, part.size);
    this.together = Math.max(this.together, ++this.open);
    this.counted(++this.reads);
    return read().finally(() => this.open--);
  }
}

/** What becomes of a series: the order of its files and its window, or why it is none. */
function described({ name, headers }: Series): unknown {
  try {
    const { slices, places, step } = checkSeries(headers);
    return { name, slices: slices.map((slice) => slice.name), places, step, window: windowOf(slices[0]?.header ?? headers[0]) };
  } catch (error) {
    if (!(error instanceof UserError)) throw error;
    return { name, message: error.message };
  }
}

/**
 * A stand-in for networks that a test can write in numpy, too: score k of a voxel is a weighted sum of the channels,
 * with the neighbours along `axis` (the outermost repeated) and a place-dependent part within the window.
 */
function standIn(channels: number, weights: number[][], axis: number | null): Model {
  return async (volume, shape) => {
    const voxels = product(shape);
    const scores = new Float32Array(weights.length * voxels);
    const strides = [shape[1] * shape[2], shape[2], 1];
    for (let at = 0; at < voxels; at++) {
      const index = [Math.floor(at / strides[0]), Math.floor(at / strides[1]) % shape[1], at % shape[2]];
      weights.forEach((row, k) => {
        let sum = 0;
        for (let c = 0; c < channels; c++) {
          const own = volume[c * voxels + at];
          if (axis === null) {
            sum += row[c] * own * (1 + index[1] / shape[1] + index[2] / shape[2]);
          } else {
            const before = index[axis] > 0 ? volume[c * voxels + at - strides[axis]] : own;
            const after = index[axis] < shape[axis] - 1 ? volume[c * voxels + at + strides[axis]] : own;
            sum += row[c] * (own + 0.5 * before - 0.25 * after);
          }
        }
        scores[k * voxels + at] = sum;
      });
    }
    return scores;
  };
}

const tasks: Record<string, (job: Job) => Promise<unknown> | unknown> = {
  normalize: ({ arrays, settings }) => {
    const channel = read(arrays![0]);
    normalize(channel, settings);
    return channel;
  },
  resample: ({ arrays, shape, new_shape, orders }) =>
    resample(read(arrays![0]), shape, new_shape, (axis) => orders[axis] as Order),
  content_box: ({ arrays, shape }) => contentBox(arrays!.map(read), shape),
  grid: ({ canonical_shape, canonical_spacing, box, target, common_shape }) => {
    const grid = planGrid(canonical_shape, canonical_spacing, box, target, common_shape);
    return { ...grid, separate: separateAxisOf(grid), inverse: inverseSeparateAxisOf(grid) };
  },
  cover: ({ shape, rules }) => {
    const { weights, ...cover } = coverVolume(shape, rules, false);
    // By start, in ascending order.
    const lists = (each: Map<number, Float64Array>): [number, number[]][] =>
      [...each].map(([start, values]) => [start, [...values]]);
    const byStart = weights.map((each) => Object.fromEntries(lists(each)));
    return { ...cover, weights: byStart };
  },
  indices: ({ arrays, meaning }) => {
    const scores = read(arrays![0]);
    return indicesFromScores(scores, scores.length / meaning.outputs, meaning);
  },
  components: ({ arrays, shape, voxel_mm3, rules }) => {
    const indices = Uint8Array.from(read(arrays![0]));
    removeComponents(indices, shape, voxel_mm3, rules);
    return indices;
  },
  small_components: ({ arrays, shape }) => {
    const indices = Uint8Array.from(read(arrays![0]));
    const small = new Uint8Array(indices.length);
    for (const [start, stop] of smallComponents(indices, shape)) small.fill(1, start, stop);
    return small;
  },
  /** How often voxels are looked at. */
  looks_for_small_components: ({ arrays, shape }) => {
    let looks = 0;
    const get = (indices: Uint8Array, name: string | symbol): unknown => {
      if (/^\d/.test(String(name))) looks++;
      const value = Reflect.get(indices, name, indices);
      return typeof value === "function" ? value.bind(indices) : value;
    };
    smallComponents(new Proxy(Uint8Array.from(read(arrays![0])), { get }), shape);
    return looks;
  },
  header: async ({ file }) => {
    const { sizes, spacing, direction, origin, orientation } = await readFileHeader(blob(file), file);
    return { sizes, spacing, direction, origin, orientation };
  },
  voxels: async ({ file }) => {
    const header = await readFileHeader(blob(file), file);
    return voxelsOf(await readBytes(blob(file), file, header), header, file);
  },
  /** Write labels (D, H, W) with the geometry of a file. */
  write: async ({ file, arrays, values, out }) => {
    const header = await readFileHeader(blob(file), file);
    const indices = Uint8Array.from(read(arrays![0]));
    writeFileSync(join(folder, out), labelFile(decode(toFileOrder(indices, header.orientation), values), header));
    return null;
  },
  /** Scores on the model's grid, in slabs along an axis, to labels. */
  export: async ({ arrays, shape, outputs, axis, grid, meaning }) => {
    const scores = read(arrays![0]);
    return labelsFromSlabs(slabsOf(scores, shape, outputs, axis), grid, outputs, meaning);
  },
  segment: async ({ files, model, weights, coarse_weights, axis, out, budget, is_dicom, window }) => {
    const standIns = (all: number[][][]): Model[] => all.map((each) => standIn(model.channels.length, each, axis));
    const load = async (): Promise<FineModels> => ({ fine: standIns(weights), coarse: standIns(coarse_weights ?? []) });
    const named = files.map((name: string) => ({ name, file: blob(name), isDicom: is_dicom ?? false, window }));
    let isShown = false;
    const shares: [string, number][] = [];
    const result = await segment(named, model, load, {
      sparing: false,
      budget: budget ?? memoryBudget({}),
      progress: (phase, share) => shares.push([phase, share]),
      view: (isRoom) => (isShown = isRoom),
    });
    writeFileSync(join(folder, out), result.labels);
    return { structures: result.structures, doubts: result.doubts, isShown, shares };
  },
  /** Series among files, as they are found before dcm2niix has them. */
  dicom: async ({ files }) => {
    const all = files.map(file) as File[];
    const flags = await Promise.all(all.map(isDicom));
    const series = await findSeries(all.filter((_, index) => flags[index]), all.filter((_, index) => !flags[index]));
    return series.map(described);
  },
  /** Volumes and series left out, and how files were read until then; ended by the reading `end_at`. */
  volumes: async ({ files, end_at }) => {
    const ending = new AbortController();
    const tally = new Tally((reads) => reads === end_at && ending.abort());
    const all: File[] = files.map((name: string) => tally.of(file(name)));
    const logged: string[] = [];
    const { error: usual } = console;
    console.error = (error) => logged.push(String(error));
    try {
      const reading = { converting: () => undefined, budget: Infinity, signal: ending.signal };
      const { volumes, leftOut } = await findVolumes(all, reading);
      return { volumes: volumes.map((volume) => volume.name), leftOut, logged, tally };
    } catch (error) {
      if (error !== ending.signal.reason) throw error;
      return { tally };
    } finally {
      console.error = usual;
    }
  },
  converting: ({ series, budget }) => {
    checkConverting(series, budget);
    return null;
  },
  check_number: async ({ files, channels }) => {
    await checkNumber(files.map((name: string) => ({ name, file: blob(name) })), channels, []);
    return null;
  },
  /** Texts stand for errors with them. */
  lacks_memory: ({ thrown }) =>
    thrown.map((each: unknown) => lacksMemory(typeof each === "string" ? new Error(each) : each)),
  budget: ({ machine }) => memoryBudget(machine),
  super_image: ({ shape, planned }) => gridFor(shape, planned),
  assign: ({ names, channels }) => assignChannels(names, channels),
};

async function* slabsOf(scores: Float32Array, shape: Shape, outputs: number, axis: number): AsyncGenerator<Slab> {
  const others = [0, 1, 2].filter((each) => each !== axis);
  const strides = [shape[1] * shape[2], shape[2], 1];
  const size: [number, number] = [shape[others[0]], shape[others[1]]];
  for (let start = 0; start < shape[axis]; start++) {
    const plane = new Float32Array(outputs * size[0] * size[1]);
    for (let k = 0, to = 0; k < outputs; k++) {
      for (let row = 0; row < size[0]; row++) {
        for (let column = 0; column < size[1]; column++, to++) {
          plane[to] =
            scores[
              k * product(shape) + start * strides[axis] + row * strides[others[0]] + column * strides[others[1]]
            ];
        }
      }
    }
    yield { axis, start, planes: [plane], size };
  }
}

const jobs = JSON.parse(readFileSync(join(folder, "jobs.json"), "utf8")) as Job[];
const answers: unknown[] = [];
for (const [number, job] of jobs.entries()) {
  try {
    const answer = await tasks[job.task](job);
    if (ArrayBuffer.isView(answer)) {
      const array = answer as Numbers;
      const file = `answer_${number}.bin`;
      writeFileSync(join(folder, file), new Uint8Array(array.buffer, array.byteOffset, array.byteLength));
      answers.push({ file, type: array.constructor.name });
    } else {
      answers.push(answer);
    }
  } catch (error) {
    if (!(error instanceof UserError)) throw error;
    answers.push({ error: error.message });
  }
}
writeFileSync(join(folder, "answers.json"), JSON.stringify(answers));
