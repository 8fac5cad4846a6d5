/**
 * Headers of DICOM files: which series a file is of, where its slices lie, and what is wrong with the file.
 *
 * What is refused is what seg25d/data/dicom_frames.py refuses.
 */

import { CURE_OF_DAMAGE, Damage, readTexts, TAG, UNDEFINED_LENGTH, type Span, type Texts } from "./dicom_elements.js";

/** SOP classes of CT, MR and PET, enhanced or not, which are images even where these are cut off (PS3.4, B.5). */
const IMAGES = /^1\.2\.840\.10008\.5\.1\.4\.1\.1\.(2|4|128|2\.1|4\.1|130)$/;
/** SOP classes of segmentations (seg25d/data/cases.py), spectroscopy and raw data: no images to segment. */
const NO_IMAGES = /^1\.2\.840\.10008\.5\.1\.4\.1\.1\.(66\.4|66\.7|4\.2|66)$/;
/** Directions of headers have few digits; those that are further off are damaged (seg25d/data/dicom_values.py). */
const UNIT_TOLERANCE = 1e-2;

/** Where a slice lies. */
export interface Slice {
  /** Name for messages. */
  name: string;
  /** Distances of rows and of columns in mm. */
  spacing: number[] | null;
  /** Distance to the next slice, or else thickness. */
  thickness: number | null;
  /** Unit vectors of a row (x, y, z in LPS), then of a column. */
  orientation: number[] | null;
  /** Centre of the first voxel, (x, y, z) in LPS. */
  position: number[] | null;
}

/** What a file says. */
export interface DicomHeader {
  file: File;
  /** Whether it is to hold an image; reports, plans and segmentations do not. */
  isImage: boolean;
  /** What is wrong with it; null: nothing that its header tells. */
  problem: string | null;
  /** What to do about that. */
  cure: string;
  /** Series Instance UID; "" where there is none. */
  series: string;
  /** SOP Instance UID; "" where there is none. */
  instance: string;
  seriesNumber: string;
  description: string;
  isScout: boolean;
  isColour: boolean;
  /** Whether it is an image of several slices side by side, which only the converter knows. */
  isMosaic: boolean;
  rows: number;
  columns: number;
  /** Bytes of its voxels, decoded. */
  voxelBytes: number;
  /** One, or one per frame. */
  slices: Slice[];
  /** Places of date and time of the study, none of them of undefined length. */
  study: Span[];
  /** An attribute word for word, "" where it is missing; several values are separated by backslashes. */
  said: (name: keyof typeof TAG) => string;
}

/** Read the header of a file. */
export async function readDicomHeader(file: File): Promise<DicomHeader> {
  const texts: Texts = new Map();
  const frames: Texts[] = [];
  const study: Span[] = [];
  const text = (tag: number): string => texts.get(tag) ?? "";
  const count = (tag: number, otherwise: number): number => Number.parseInt(text(tag), 10) || otherwise;
  let [problem, cure]: [string | null, string] = [null, CURE_OF_DAMAGE];
  let pixels: Span | null = null;
  let slices: Slice[] = [];
  let isImage = true;
  const types = (): string[] => text(TAG.ImageType).toUpperCase().split("\\");
  const isMosaic = (): boolean => types().includes("MOSAIC");
  try {
    pixels = await readTexts(file, texts, frames, study);
    const kind = text(TAG.SOPClassUID);
    const hasSize = texts.has(TAG.Rows) || pixels !== null;
    isImage = !NO_IMAGES.test(kind) && (hasSize || kind === "" || IMAGES.test(kind));
    if (isImage) {
      checkPixels(file, text, count, pixels);
      if (!isMosaic()) slices = slicesOf(file, texts, frames, count(TAG.NumberOfFrames, 1));
    }
  } catch (error) {
    if (!(error instanceof Damage)) throw error;
    [problem, cure] = [error.message, error.cure];
  }
  return {
    file,
    isImage,
    problem,
    cure,
    series: text(TAG.SeriesInstanceUID),
    instance: text(TAG.SOPInstanceUID),
    seriesNumber: text(TAG.SeriesNumber),
    description: text(TAG.SeriesDescription),
    isScout: types().some((type) => /LOCALIZER|SCOUT/.test(type)),
    isColour: isColour(text, count),
    isMosaic: isMosaic(),
    rows: count(TAG.Rows, 0),
    columns: count(TAG.Columns, 0),
    voxelBytes: voxelBytes(count),
    slices,
    study,
    said: (name) => text(TAG[name]),
  };
}

type Text = (tag: number) => string;
type Count = (tag: number, otherwise: number) => number;
function isColour(text: Text, count: Count): boolean {
  return count(TAG.SamplesPerPixel, 1) !== 1 || text(TAG.PhotometricInterpretation).includes("PALETTE");
}

function voxelBytes(count: Count): number {
  const voxels = count(TAG.Rows, 0) * count(TAG.Columns, 0) * Math.max(1, count(TAG.NumberOfFrames, 1));
  return Math.ceil((voxels * count(TAG.SamplesPerPixel, 1) * count(TAG.BitsAllocated, 0)) / 8);
}

/** Check that all voxels are there which the header announces. */
function checkPixels(file: File, text: Text, count: Count, pixels: Span | null): void {
  if (!pixels || text(TAG.Rows) === "" || text(TAG.Columns) === "") {
    throw new Damage("the DICOM file ends before its image");
  }
  if (isColour(text, count)) {
    throw new Damage("the file has colours, wanted is one number per voxel", "leave it out, or export it grey");
  }
  const wanted = voxelBytes(count);
  if (wanted <= 0) throw new Damage("the file has no voxels");
  const found = Math.min(pixels.length, file.size - pixels.at);
  if (pixels.length !== UNDEFINED_LENGTH && found < wanted) {
    throw new Damage(`the file is cut off: ${found} of ${wanted} bytes of its image are there`);
  }
}

function slicesOf(file: File, texts: Texts, frames: readonly Texts[], count: number): Slice[] {
  if (frames.length === 0 && count > 1) {
    throw new Damage(
      "the file has several slices, and the page does not know where they lie",
      "make a NIfTI file of it with `seg25d convert --from dicom`",
    );
  }
  if (frames.length > 0 && frames.length !== count) {
    throw new Damage(`the file has ${count} frames and describes ${frames.length}`);
  }
  return (frames.length > 0 ? frames : [texts]).map((own, index) => ({
    name: index === 0 ? file.name : `${file.name} frame ${index + 1}`,
    ...readGeometry((tag) => own.get(tag) ?? texts.get(tag) ?? ""),
  }));
}

function readGeometry(text: Text): Omit<Slice, "name"> {
  const between = numbers(text, "SpacingBetweenSlices", 1)?.[0];
  const thickness = between || numbers(text, "SliceThickness", 1)?.[0];
  return {
    spacing: numbers(text, "PixelSpacing", 2),
    thickness: thickness ? Math.abs(thickness) : null,
    orientation: unitVectors(numbers(text, "ImageOrientationPatient", 6)),
    position: numbers(text, "ImagePositionPatient", 3),
  };
}

/** An attribute as so many numbers; null where it is empty. */
function numbers(text: Text, name: keyof typeof TAG, length: number): number[] | null {
  const said = text(TAG[name]);
  if (said === "") return null;
  const values = said.split("\\").map(parseDecimal);
  if (values.length !== length || !values.every(Number.isFinite)) {
    throw new Damage(`its ${name} is ${said}, expected is ${length} finite number(s)`, "correct its header");
  }
  return values;
}

/** A decimal number; NaN where a text is none. */
export function parseDecimal(text: string): number {
  return /^\s*[+-]?(\d+(\.\d*)?|\.\d+)(e[+-]?\d+)?\s*$/i.test(text) ? Number(text) : NaN;
}

/** Directions of unit length at right angles; headers have rounded ones. */
function unitVectors(cosines: number[] | null): number[] | null {
  if (!cosines) return null;
  const [row, column] = [cosines.slice(0, 3), cosines.slice(3)];
  const isOff = (value: number): boolean => Math.abs(value) > UNIT_TOLERANCE;
  if (isOff(Math.hypot(...row) - 1) || isOff(Math.hypot(...column) - 1) || isOff(dot(row, column))) {
    throw new Damage(`its Image Orientation ${cosines.join(", ")} is no pair of right-angled directions`, "correct it");
  }
  const unit = (vector: number[]): number[] => vector.map((each) => each / Math.hypot(...vector));
  const first = unit(row);
  const along = dot(first, column);
  return [...first, ...unit(column.map((each, index) => each - along * first[index]))];
}

/** The scalar product of two vectors. */
export function dot(first: readonly number[], second: readonly number[]): number {
  return first.reduce((sum, each, index) => sum + each * second[index], 0);
}

