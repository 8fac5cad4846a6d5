/** Normalisation of intensities, channel by channel, as planned: the schemes of seg25d/preprocessing/normalize.py. */

import { UserError } from "./errors.js";

/** Normalisation of a channel, as it stands in a plan. */
export interface Normalization {
  channel: string;
  scheme: Scheme;
  lower: number | null;
  upper: number | null;
  mean: number | null;
  std: number | null;
}
export type Scheme =
  | "ct"
  | "zscore"
  | "rescale_0_1"
  | "rgb_0_1"
  | "none"
  | "ct_window"
  | "ct_window_dicom"
  | "zscore_offset";

/** Added to the standard deviation by `zscore_offset`. */
const STD_OFFSET = 1e-3;
/** Standard deviation below which a channel counts as constant. */
const SMALLEST_STD = 1e-8;
/** Largest value of a colour, by which `rgb_0_1` divides. */
const RGB_MAXIMUM = 255;

/** Normalise the voxels of a channel in place; a constant one becomes 0 where a scheme would divide by its spread. */
export function normalize(channel: Float32Array, settings: Normalization): void {
  switch (settings.scheme) {
    case "ct": {
      clip(channel, number(settings, "lower"), number(settings, "upper"));
      const std = Math.max(number(settings, "std"), SMALLEST_STD);
      shiftAndDivide(channel, number(settings, "mean"), std);
      return;
    }
    case "zscore": {
      const { mean, std } = statistics(channel);
      // The mean of equal values can be off by a rounding error, which must not be magnified.
      if (std < Math.max(SMALLEST_STD, 1e-7 * Math.abs(mean))) channel.fill(0);
      else shiftAndDivide(channel, mean, std);
      return;
    }
    case "zscore_offset": {
      const { mean, std } = statistics(channel);
      shiftAndDivide(channel, mean, std + STD_OFFSET);
      return;
    }
    case "rescale_0_1": {
      const { lowest, highest } = extremes(channel);
      toUnitRange(channel, lowest, highest);
      return;
    }
    case "rgb_0_1": {
      const { lowest, highest } = extremes(channel);
      if (lowest < 0 || highest > RGB_MAXIMUM) {
        throw new UserError(
          `Channel ${settings.channel}: expected colours from 0 to ${RGB_MAXIMUM}, got values from ${lowest} to ` +
            `${highest}. Give images like those that the model was trained with.`,
        );
      }
      shiftAndDivide(channel, 0, RGB_MAXIMUM);
      return;
    }
    case "ct_window":
    case "ct_window_dicom":
      toUnitRange(channel, number(settings, "lower"), number(settings, "upper"));
      return;
    case "none":
      return;
    default:
      throw new UserError(`The page does not know the normalisation ${String(settings.scheme)}. Export it again.`);
  }
}

/** Smallest and largest value. */
export function extremes(values: Float32Array): { lowest: number; highest: number } {
  let lowest = Infinity;
  let highest = -Infinity;
  for (let index = 0; index < values.length; index++) {
    const value = values[index];
    if (value < lowest) lowest = value;
    if (value > highest) highest = value;
  }
  return { lowest, highest };
}

function statistics(values: Float32Array): { mean: number; std: number } {
  const mean = meanOf(values, (value) => value);
  return { mean, std: Math.sqrt(meanOf(values, (value) => (value - mean) * (value - mean))) };
}

/** The mean of a function of the values, summed up in parts, as one long sum would lose digits. */
function meanOf(values: Float32Array, term: (value: number) => number): number {
  const step = 4096;
  let total = 0;
  for (let start = 0; start < values.length; start += step) {
    const stop = Math.min(start + step, values.length);
    let sum = 0;
    for (let index = start; index < stop; index++) sum += term(values[index]);
    total += sum;
  }
  return total / values.length;
}

function clip(values: Float32Array, lower: number, upper: number): void {
  const least = Math.fround(lower);
  const most = Math.fround(upper);
  for (let index = 0; index < values.length; index++) {
    const value = values[index];
    values[index] = value < least ? least : value > most ? most : value;
  }
}

/** Subtract and divide in single precision, in two steps as numpy does. */
function shiftAndDivide(values: Float32Array, shift: number, divisor: number): void {
  const subtracted = Math.fround(shift);
  const by = Math.fround(divisor);
  for (let index = 0; index < values.length; index++) values[index] = Math.fround(values[index] - subtracted) / by;
}

function toUnitRange(values: Float32Array, lower: number, upper: number): void {
  if (upper - lower < SMALLEST_STD) {
    values.fill(0);
    return;
  }
  clip(values, lower, upper);
  shiftAndDivide(values, lower, upper - lower);
}

function number(settings: Normalization, name: "lower" | "upper" | "mean" | "std"): number {
  const value = settings[name];
  if (value === null) {
    throw new UserError(
      `Channel ${settings.channel}: the normalisation ${settings.scheme} lacks its number ${name}. Export it again.`,
    );
  }
  return value;
}

/** Both ends of the window of a channel, in words. */
export function windowInWords({ lower, upper }: Normalization): string {
  return `${short(lower)} .. ${short(upper)}`;
}

/** A number to four digits. */
export function short(value: number | null): string {
  return value === null ? "?" : String(Number(value.toPrecision(4)));
}
