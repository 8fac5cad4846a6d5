/** Whether a volume fits into the memory of this machine, before any is taken. */

import { UserError } from "./errors.js";
import { boxShape, product, type Grid } from "./grid.js";
import { voxelsPerPass } from "./predict.js";
import type { Cover, WindowRules } from "./windows.js";

const GIB = 2 ** 30;
/** Of the machine's memory, the part that a page may take; browsers name at most 8 GiB, some nothing. */
const SHARE = 0.6;
const UNKNOWN_GIB = 8;
/** Of phones that do not say it. */
const PHONE_GIB = 3;
/** Bytes of a voxel of a window in the features of a network: 5 maps of 32 channels in single precision. */
const FEATURE_BYTES = 640;
/** WebAssembly has no more than 4 GiB for features, weights and all else. */
const MOST_FEATURES = 3 * GIB;

/** Bytes that the page may take. */
export function memoryBudget(): number {
  const machine = globalThis.navigator as { deviceMemory?: number; userAgent: string } | undefined;
  const isPhone = /Mobi|Android|iPhone|iPad/.test(machine?.userAgent ?? "");
  return (machine?.deviceMemory ?? (isPhone ? PHONE_GIB : UNKNOWN_GIB)) * GIB * SHARE;
}

/** Refuse to read files that would take too much memory, by their headers. */
export function checkReading(files: readonly { name: string; bytes: number; voxels: number }[]): void {
  const floats = files.reduce((sum, file) => sum + 4 * file.voxels, 0);
  const needed = floats + Math.max(...files.map((file) => 2 * file.bytes));
  refuse(needed, `${files.map((file) => file.name).join(", ")}: the image has ${rounded(files[0].voxels)} voxels`);
}

/** Bytes that resampling and scores take at their peak. */
export function computingBytes(grid: Grid, channels: number, rules: WindowRules, cover: Cover): number {
  const cropped = product(boxShape(grid.box));
  const sampled = product(grid.shape);
  const plane = product(cover.padded) / cover.padded[cover.axis];
  const wholePlane = cropped / boxShape(grid.box)[cover.axis];
  const resampling = 4 * channels * (cropped + sampled) + 4 * Math.max(cropped, sampled);
  const scores = 4 * rules.outputs * (2 * plane * cover.window[cover.axis] + 4 * wholePlane);
  const features = Math.min(MOST_FEATURES, FEATURE_BYTES * voxelsPerPass(cover.window, rules));
  const computing = 4 * channels * sampled + scores + features + 2 * product(grid.canonicalShape);
  return Math.max(resampling, computing);
}

export function fits(bytes: number): boolean {
  return bytes <= memoryBudget();
}

/** Refuse volumes for whose resampling and scores there is no room. */
export function checkComputing(grid: Grid, channels: number, rules: WindowRules, cover: Cover): void {
  const inWords = (steps: readonly number[]): string => steps.map((step) => Number(step.toPrecision(4))).join(" x ");
  refuse(
    computingBytes(grid, channels, rules, cover),
    `${boxShape(grid.box).join(" x ")} voxels of ${inWords(grid.canonicalSpacing)} mm become ` +
      `${grid.shape.join(" x ")} of ${inWords(grid.spacing)} mm for the model`,
  );
}

function refuse(needed: number, what: string): void {
  if (fits(needed)) return;
  const budget = memoryBudget();
  throw new UserError(
    `The volume is too large for this machine: ${what}, which takes about ${(needed / GIB).toFixed(1)} GB of memory; ` +
      `${(budget / GIB).toFixed(1)} GB are allowed here. Cut the image, correct its spacing if it is wrong, or use ` +
      "a machine with more memory, where `seg25d predict` takes the same model.",
  );
}

function rounded(voxels: number): string {
  return voxels >= 1e6 ? `${Math.round(voxels / 1e6)} million` : String(voxels);
}
