/** Whether a volume fits into the memory of this machine, before any is taken. */

import { UserError } from "./errors.js";
import { boxShape, product, type Grid, type Shape } from "./grid.js";
import { voxelsPerPass } from "./predict.js";
import { coverVolume, type Cover, type WindowRules } from "./windows.js";

const GIB = 2 ** 30;
/** Of the machine's memory, the part that a page may take; some browsers do not name it. */
const SHARE = 0.6;
const MOST_GIB = 8;
/** Of phones and tablets: they end pages that take much more, whatever memory they name. */
const PHONE_GIB = 3;
/** Bytes of a voxel of a window in the features of a network: 5 maps of 32 channels in single precision. */
const FEATURE_BYTES = 640;
/** WebAssembly has no more than 4 GiB for features, weights and all else. */
const MOST_FEATURES = 3 * GIB;
/** Masks of the whole volume that coarse-to-fine has at a time: of this round, of the one before, and a new one. */
const MASKS = 3;
/** Times that the viewer has the voxels of the image as they are in the file: to keep, and reoriented to be drawn. */
const VIEWED_COPIES = 2;
/** Bytes of a voxel in the viewer beside these: colours of image and structures (4 each), structures as files (4). */
const VIEWED_BYTES = 12;
/** Times that the converter of DICOM files has them: as they were read, and as files of its own. */
const CONVERTED_FILES = 2;
/** Times that it has the voxels beside the result: where it converts them, and as a file of its own. */
const CONVERTED_VOXELS = 2;

/** What a browser says of its machine. */
export interface Machine {
  /** In GiB. */
  deviceMemory?: number;
  userAgent?: string;
  maxTouchPoints?: number;
}

/**
 * Bytes that the page may take.
 *
 * @param machine `navigator` of the page: that of a worker says nothing of touch.
 */
export function memoryBudget({ deviceMemory, userAgent = "", maxTouchPoints = 0 }: Machine): number {
  // iPads say that they are Macintoshes, which have no touch.
  const isTablet = /Macintosh/.test(userAgent) && maxTouchPoints > 1;
  const isPhone = isTablet || /Mobi|Android|iPhone|iPad/.test(userAgent);
  return Math.min(deviceMemory ?? Infinity, isPhone ? PHONE_GIB : MOST_GIB) * GIB * SHARE;
}

/** Refuse to read files that would take too much memory, by their headers. */
export function checkReading(
  files: readonly { name: string; bytes: number; voxels: number }[],
  budget: number,
): void {
  const floats = files.reduce((sum, file) => sum + 4 * file.voxels, 0);
  const needed = floats + Math.max(...files.map((file) => 2 * file.bytes));
  const names = files.map((file) => file.name).join(", ");
  refuse(needed, budget, `${names}: the image has ${rounded(files[0].voxels)} voxels`);
}

/**
 * Refuse to convert series of DICOM files, one after the other, that would take too much memory; results are kept.
 *
 * @param series How many files each has, their bytes, and those of their voxels.
 */
export function checkConverting(
  series: readonly { files: number; bytes: number; voxelBytes: number }[],
  budget: number,
): void {
  const kept = series.reduce((sum, each) => sum + each.voxelBytes, 0);
  const atOnce = series.map((each) => CONVERTED_FILES * each.bytes + CONVERTED_VOXELS * each.voxelBytes);
  const files = series.reduce((sum, each) => sum + each.files, 0);
  const bytes = series.reduce((sum, each) => sum + each.bytes, 0);
  const parts = series.length > 1 ? ` in ${series.length} series (one of them may do)` : "";
  refuse(kept + Math.max(0, ...atOnce), budget, `${files} DICOM files${parts} have ${(bytes / GIB).toFixed(1)} GB`);
}

/**
 * Bytes that resampling and scores take at their peak.
 *
 * @param isCoarse Whether coarse-to-fine follows.
 */
export function computingBytes(
  grid: Grid,
  channels: number,
  rules: WindowRules,
  cover: Cover,
  isCoarse: boolean,
): number {
  const cropped = product(boxShape(grid.box));
  const sampled = product(grid.shape);
  const wholePlane = cropped / boxShape(grid.box)[cover.axis];
  const resampling = 4 * channels * (cropped + sampled) + 4 * Math.max(cropped, sampled);
  const exporting = 16 * rules.outputs * wholePlane + 2 * product(grid.canonicalShape);
  const masks = isCoarse ? MASKS * sampled : 0;
  return Math.max(resampling, 4 * channels * sampled + windowBytes(rules, cover) + exporting + masks);
}

/**
 * Bytes of a round of coarse-to-fine: image and masks of the volume, image of the crop, scores and mask of it in this
 * round and in the one before, and the windows in it.
 *
 * @param size Of the crop.
 */
export function refiningBytes(grid: Grid, size: Shape, channels: number, rules: WindowRules, cover: Cover): number {
  const [sampled, crop] = [product(grid.shape), product(size)];
  const kept = 4 * channels * sampled + MASKS * sampled + 2 * product(grid.canonicalShape);
  return kept + (4 * channels + 2 * (4 * rules.outputs + 1)) * crop + windowBytes(rules, cover);
}

/** Bytes of the sums of scores over the windows across planes, and of the features of a network. */
function windowBytes(rules: WindowRules, cover: Cover): number {
  const plane = product(cover.padded) / cover.padded[cover.axis];
  const features = Math.min(MOST_FEATURES, FEATURE_BYTES * voxelsPerPass(cover.window, rules));
  return 8 * rules.outputs * plane * cover.window[cover.axis] + features;
}

/**
 * Bytes that showing an image and its structures takes.
 *
 * @param bytes Of the uncompressed file.
 */
export function viewerBytes(bytes: number, voxels: number): number {
  return VIEWED_COPIES * bytes + VIEWED_BYTES * voxels;
}

/**
 * The windows of a volume: as large as saves work where there is room for that, else of the planned size.
 *
 * @param sparing Whether memory ran out with larger ones.
 */
export function coverWithin(
  budget: number,
  shape: Shape,
  rules: WindowRules,
  sparing: boolean,
  bytesOf: (cover: Cover) => number,
): Cover {
  const cover = coverVolume(shape, rules, sparing);
  return sparing || bytesOf(cover) <= budget ? cover : coverVolume(shape, rules, true);
}

/** Refuse volumes for whose resampling and scores there is no room. */
export function checkComputing(needed: number, budget: number, grid: Grid): void {
  const inWords = (steps: readonly number[]): string => steps.map((step) => Number(step.toPrecision(4))).join(" x ");
  refuse(
    needed,
    budget,
    `${boxShape(grid.box).join(" x ")} voxels of ${inWords(grid.canonicalSpacing)} mm become ` +
      `${grid.shape.join(" x ")} of ${inWords(grid.spacing)} mm for the model`,
  );
}

/** Refuse crops for whose scores there is no room. */
export function checkRefining(needed: number, budget: number, size: Shape): void {
  refuse(needed, budget, `the fine model is to look at a crop of ${size.join(" x ")} voxels`);
}

function refuse(needed: number, budget: number, what: string): void {
  if (needed <= budget) return;
  throw new UserError(
    `The volume is too large for this machine: ${what}, which takes about ${(needed / GIB).toFixed(1)} GB of memory; ` +
      `${(budget / GIB).toFixed(1)} GB are allowed here. Cut the image, correct its spacing if it is wrong, or use ` +
      "a machine with more memory, where `seg25d predict` takes the same model.",
  );
}

function rounded(voxels: number): string {
  return voxels >= 1e6 ? `${Math.round(voxels / 1e6)} million` : String(voxels);
}

/** Whether a failure says that memory ran out. */
export function lacksMemory(error: unknown): boolean {
  // ONNX Runtime lets C++ exceptions out as their addresses; those of its own it turns into errors with words.
  if (typeof error === "number") return true;
  const text = error instanceof Error ? `${error.name} ${error.message}` : String(error);
  return /bad_alloc|out of memory|\boom\b|allocat|access out of bounds|array buffer|typed array length/i.test(text);
}
