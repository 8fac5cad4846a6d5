/** The whole way from files to a segmentation; knows neither the page nor how networks are computed. */

import { removeComponents } from "./components.js";
import type { Window } from "./dicom_series.js";
import { UserError } from "./errors.js";
import { labelsFromSlabs } from "./export.js";
import { refinedSlabs, type FineModels } from "./fine.js";
import { AXES, contentBox, crop, boxShape, planGrid, product, separateAxisOf, type Grid, type Shape } from "./grid.js";
import { countIndices, decode } from "./labels.js";
import {
  checkComputing,
  checkReading,
  checkRefining,
  computingBytes,
  coverWithin,
  refiningBytes,
  viewerBytes,
} from "./memory.js";
import type { PageModel, Structure } from "./model.js";
import { labelFile, readBytes, readFileHeader, voxelsOf, type NiftiHeader } from "./nifti.js";
import { extremes, normalize, windowInWords } from "./normalize.js";
import { toFileOrder } from "./orientation.js";
import { predictSlabs } from "./predict.js";
import { resampleImage } from "./resample.js";
import { coverVolume, type Cover } from "./windows.js";

/** A file with one channel. */
export interface ChannelFile {
  name: string;
  file: Blob;
  /** Whether it was made of DICOM files. */
  isDicom?: boolean;
  /** The window in its headers; null: there is none. */
  window?: Window | null;
}

export type Phase = "reading" | "preparing" | "loading" | "segmenting" | "writing";

export interface Measured extends Structure {
  voxels: number;
  millilitres: number;
}

export interface Segmentation {
  /** NIfTI with the values of label files, not compressed. */
  labels: Uint8Array<ArrayBuffer>;
  /** NIfTI with internal indices, for the viewer. */
  indices: Uint8Array<ArrayBuffer>;
  structures: Measured[];
  /** Why the result may be worth nothing, if there is a reason. */
  doubts: string[];
}

export interface Options {
  /** Whether windows have the planned size, as memory ran out with larger ones. */
  sparing: boolean;
  /** Bytes that the page may take. */
  budget: number;
  progress: (phase: Phase, share: number) => void;
  /** Called once the image has been read, with whether there is room to show it. */
  view: (isRoom: boolean) => void;
}

/** Tolerances of grids, as in seg25d/data/image_geometry.py. */
const TOLERANCE = 1e-3;
const ORIGIN_TOLERANCE = 1e-2;
/** How many times smaller or larger than all training cases voxels or volumes are before that is doubted. */
const UNUSUAL = 2;

/**
 * Segment an image.
 *
 * @param files One per channel, in the order of the model's.
 * @param model What `page.json` says.
 * @param load Loads the networks, once all that can be wrong with the files is known.
 */
export async function segment(
  files: readonly ChannelFile[],
  model: PageModel,
  load: () => Promise<FineModels>,
  options: Options,
): Promise<Segmentation> {
  const { budget, progress } = options;
  progress("reading", 0);
  const { image, header } = await readChannels(files, model, budget, (share) => progress("reading", share));
  progress("preparing", 0);
  const grid = gridOf(image, header, model);
  const doubts = [...doubtsAbout(image, grid, model), ...doubtsAboutWindows(files, model)];
  const { cover, coverCrop } = makeRoom(grid, header, model, options);
  const sampled = resampled(image, grid, withWindows(model, files), (share) => progress("preparing", share));
  progress("loading", 0);
  const { fine, coarse } = await load();
  progress("segmenting", 0);
  const passes = (done: number, all: number): void => progress("segmenting", done / all);
  const slabs = model.fine
    ? refinedSlabs({ fine, coarse }, sampled, grid.shape, {
        rules: model.windows,
        coarse: model.fine,
        meaning: { ...model.meaning, score_thresholds: model.fine.score_thresholds },
        cover,
        coverCrop,
        progress: passes,
      })
    : predictSlabs(fine, sampled, grid.shape, model.windows, cover, passes);
  const indices = await labelsFromSlabs(slabs, grid, model.windows.outputs, model.meaning);
  progress("writing", 0);
  if (model.postprocessing) {
    removeComponents(indices, grid.canonicalShape, product(grid.canonicalSpacing), model.postprocessing);
  }
  const counts = countIndices(indices);
  const voxelMl = product(header.spacing) / 1000;
  const ordered = toFileOrder(indices, header.orientation);
  return {
    labels: labelFile(decode(ordered, model.meaning.values), header),
    indices: labelFile(ordered, header),
    structures: model.structures.map((structure) => {
      const voxels = structure.members.reduce((sum, index) => sum + counts[index], 0);
      return { ...structure, voxels, millilitres: voxels * voxelMl };
    }),
    doubts,
  };
}

/** Read the channels of a case, after all of their headers have been checked. */
export async function readChannels(
  files: readonly ChannelFile[],
  model: PageModel,
  budget: number,
  progress: (share: number) => void,
): Promise<{ image: Float32Array[]; header: NiftiHeader }> {
  if (files.length !== model.channels.length) {
    throw new UserError(
      `The model takes ${model.channels.length} file(s), one per channel (` +
        `${model.channels.map((each) => each.channel).join(", ")}); got ${files.length}.`,
    );
  }
  const headers: NiftiHeader[] = [];
  for (const { file, name } of files) headers.push(await readFileHeader(file, name));
  headers.forEach((header, index) => checkSameGrid(headers[0], header, files[0].name, files[index].name));
  checkReading(
    files.map(({ name }, index) => ({ name, bytes: headers[index].length, voxels: product(headers[index].sizes) })),
    budget,
  );
  const image: Float32Array[] = [];
  for (const [index, { file, name }] of files.entries()) {
    const bytes = await readBytes(file, name, headers[index]);
    image.push(voxelsOf(bytes, headers[index], name));
    progress((index + 1) / files.length);
  }
  return { image, header: headers[0] };
}

/**
 * Choose windows for which there is memory, and say whether there is room for the viewer.
 *
 * @returns The windows of the model that sees the whole volume, and those of the fine model in crops.
 */
function makeRoom(
  grid: Grid,
  header: NiftiHeader,
  model: PageModel,
  { sparing, budget, view }: Options,
): { cover: Cover; coverCrop: (size: Shape) => Cover } {
  const channels = model.channels.length;
  const rules = model.fine?.windows ?? model.windows;
  const bytesOf = (cover: Cover): number => computingBytes(grid, channels, rules, cover, model.fine !== null);
  const least = bytesOf(coverVolume(grid.shape, rules, true));
  checkComputing(least, budget, grid);
  const ofViewer = viewerBytes(header.length, product(header.sizes));
  const isShown = least + ofViewer <= budget;
  view(isShown);
  const left = isShown ? budget - ofViewer : budget;
  const coverCrop = (size: Shape): Cover => {
    const ofCrop = (cover: Cover): number => refiningBytes(grid, size, channels, model.windows, cover);
    const chosen = coverWithin(left, size, model.windows, sparing, ofCrop);
    checkRefining(ofCrop(chosen), budget, size);
    return chosen;
  };
  return { cover: coverWithin(left, grid.shape, rules, sparing, bytesOf), coverCrop };
}

/** The grids of an image, from its channels (D, H, W). */
function gridOf(image: readonly Float32Array[], header: NiftiHeader, model: PageModel): Grid {
  const { shape, spacing } = header.orientation;
  return planGrid(shape, spacing, contentBox(image, shape), model.spacing_mm, model.common_shape);
}

/**
 * Crop to content, normalise, resample.
 *
 * @param image Channels (D, H, W); emptied, as memory is short.
 */
function resampled(
  image: Float32Array[],
  grid: Grid,
  model: PageModel,
  progress: (share: number) => void,
): Float32Array[] {
  const number = image.length;
  return Array.from({ length: number }, (_, index) => {
    const part = crop(image.shift()!, grid.canonicalShape, grid.box);
    normalize(part, model.channels[index]);
    const within = (share: number): void => progress((index + share) / number);
    const result = resampleImage(part, boxShape(grid.box), grid.shape, separateAxisOf(grid), within);
    progress((index + 1) / number);
    return result;
  });
}

function checkSameGrid(first: NiftiHeader, other: NiftiHeader, firstName: string, name: string): void {
  const fail = (what: string, mine: readonly number[], its: readonly number[]): never => {
    throw new UserError(
      `${name}: its grid differs from that of ${firstName}: ${what} ${its.join(" x ")} against ${mine.join(" x ")}. ` +
        "Give channels of one examination, resampled to one grid.",
    );
  };
  const { sizes, spacing, origin } = first;
  if (sizes.some((size, axis) => size !== other.sizes[axis])) fail("size", sizes, other.sizes);
  if (spacing.some((step, axis) => Math.abs(step - other.spacing[axis]) > TOLERANCE * step)) {
    fail("spacing in mm", spacing, other.spacing);
  }
  if (origin.some((at, axis) => Math.abs(at - other.origin[axis]) > ORIGIN_TOLERANCE * Math.min(...spacing))) {
    fail("origin in mm", origin, other.origin);
  }
  const directions = other.direction.flat();
  if (first.direction.flat().some((value, index) => Math.abs(value - directions[index]) > TOLERANCE)) {
    fail("direction", first.direction.flat(), directions);
  }
}

/** Why the image may not be what the model was trained on. */
export function doubtsAbout(image: readonly Float32Array[], grid: Grid, model: PageModel): string[] {
  const doubts: string[] = [];
  const words = ["head to foot", "front to back", "right to left"];
  const trained = model.trained_on;
  for (const axis of trained ? AXES : []) {
    const step = grid.canonicalSpacing[axis];
    const extent = grid.canonicalShape[axis] * step;
    const [thinnest, thickest] = trained!.spacing_mm[axis];
    const [shortest, longest] = trained!.extent_mm[axis];
    if (step < thinnest / UNUSUAL || step > thickest * UNUSUAL) {
      doubts.push(
        `Its voxels are ${inMm(step)} from ${words[axis]}; those of the training cases were ` +
          `${inMm(thinnest)} to ${inMm(thickest)}.`,
      );
    }
    if (extent < shortest / UNUSUAL || extent > longest * UNUSUAL) {
      doubts.push(
        `It is ${inMm(extent)} long from ${words[axis]}; the training cases were ` +
          `${inMm(shortest)} to ${inMm(longest)}.`,
      );
    }
  }
  image.forEach((channel, index) => {
    const { lowest, highest } = extremes(channel);
    const settings = model.channels[index];
    const { lower, upper } = settings;
    if (lowest === highest) {
      doubts.push(`All voxels of ${settings.channel} have the same value, ${lowest}.`);
    } else if (lower !== null && upper !== null && (highest <= lower || lowest >= upper || outOfScale(lowest, lower))) {
      doubts.push(
        `The values of ${settings.channel} go from ${lowest} to ${highest}; those of the structures in training went ` +
          `from ${Math.round(lower)} to ${Math.round(upper)}. Are they Hounsfield units?`,
      );
    }
  });
  return doubts;
}

/** The model with the windows of DICOM headers for the channels that are clipped to them, where there are such. */
function withWindows(model: PageModel, files: readonly ChannelFile[]): PageModel {
  const channels = model.channels.map((channel, index) => {
    const { window } = files[index];
    if (channel.scheme !== "ct_window_dicom" || !window) return channel;
    return { ...channel, lower: window[0], upper: window[1] };
  });
  return { ...model, channels };
}

/** Where predict takes windows of headers, and those of the DICOM files have none, or none of their one volume. */
function doubtsAboutWindows(files: readonly ChannelFile[], model: PageModel): string[] {
  return model.channels
    .filter((channel, index) => channel.scheme === "ct_window_dicom" && files[index].isDicom && !files[index].window)
    .map(
      (channel) =>
        `The headers of the DICOM files have no window for ${channel.channel}: it was clipped to the plan's, ` +
        `${windowInWords(channel)}.`,
    );
}

/** Whether values look as if Hounsfield units had been shifted: nothing below 0 where the model knows such values. */
function outOfScale(lowest: number, lower: number): boolean {
  return lowest >= 0 && lower < 0;
}

function inMm(value: number): string {
  return `${Number(value.toPrecision(3))} mm`;
}
