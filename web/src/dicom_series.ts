/**
 * Series of DICOM files, and why they are no regular volume: the rules of seg25d/data/dicom_series.py, in its words.
 *
 * Unlike `predict`, the page leaves it to its converter to divide phases, and to read mosaics.
 */

import { CURE_OF_DAMAGE } from "./dicom_elements.js";
import { dot, parseDecimal, readDicomHeader } from "./dicom_header.js";
import type { DicomHeader, Slice } from "./dicom_header.js";
import { UserError } from "./errors.js";
import { inParts } from "./parts.js";

/** A slice may be as far from its regular place as the larger of both. */
const [MAX_OFF_MM, MAX_OFF_STEPS] = [0.03, 0.02];
/** A stack may lean by a quarter of a pixel in all, or less than half a degree where it has few slices. */
const [MAX_ASIDE_PIXELS, MAX_TILT_DEGREES] = [0.25, 0.5];
const SAME_COSINES = 1e-3;
const SAME_SPACING = 1e-3;
/** Slices closer than both are at one place (seg25d/data/dicom_phases.py). */
const [SAME_PLACE_MM, SAME_PLACE_PIXELS] = [0.05, 0.2];
/** Attributes that all slices of a volume share, if they have them. */
const ORIGIN = ["PatientID", "Modality", "RescaleType", "PhotometricInterpretation"] as const;
/** Attributes that either all slices of a volume have, or none. */
const RESCALE = [
  ["RescaleIntercept", "Rescale Intercept"],
  ["RescaleSlope", "Rescale Slope"],
] as const;
/** Attributes that slices of one volume share; those that single slices have, of seg25d/data/dicom_phases.py. */
const ONE_PER_VOLUME = [
  "TemporalPositionIdentifier",
  "NominalPercentageOfCardiacPhase",
  "EchoNumbers",
  "EchoTime",
  "InversionTime",
  "DiffusionBValue",
  "ImageType",
  "ConvolutionKernel",
] as const;
/** Letters of a description (PS3.5, table 6.2-1: LO). */
const LONGEST_NAME = 64;
/** Names in a message. */
const LISTED = 5;

const CURE_OF_TILT = "straighten it with `seg25d convert --from dicom --resample-tilt`";
const CURE_OF_GAPS = "add what is missing, or interpolate with `seg25d convert --from dicom --accept-gaps`";

/** Both ends of a window of intensities. */
export type Window = [lower: number, upper: number];

/** The files of one series. */
export interface Series {
  /** Its number and its description, in letters that names of files may have. */
  name: string;
  /** In the order of their names. */
  headers: DicomHeader[];
}

/**
 * Read the headers of DICOM files, and put together what belongs together; what holds no image is left out.
 *
 * @param others Files beside them that are not DICOM.
 * @param signal Ends it.
 */
export async function findSeries(
  files: readonly File[],
  others: readonly File[],
  signal?: AbortSignal,
): Promise<Series[]> {
  const series = new Map<string, DicomHeader[]>();
  const patterns = new Set<string>();
  const sorted = [...files].sort((a, b) => (placeOf(a) < placeOf(b) ? -1 : 1));
  for (const header of await inParts(sorted, readDicomHeader, signal)) {
    const { file, isImage, problem, cure } = header;
    if (!isImage) continue;
    // Nobody knows which series lacks it.
    if (problem && !header.series) throw refusal(`${file.name}: ${problem}`, cure);
    if (!series.has(header.series)) series.set(header.series, []);
    series.get(header.series)!.push(header);
    patterns.add(patternOf(file));
  }
  const spoilt = others.find((file) => patterns.has(patternOf(file)));
  if (spoilt) {
    const problem = "the file is called like the DICOM images beside it and is none: it is empty, cut off or damaged";
    throw refusal(`${spoilt.name}: ${problem}`, `${CURE_OF_DAMAGE}, or move it away`);
  }
  const names = new Set<string>();
  return [...series.values()].map((headers) => {
    const name = nameOf(headers[0], names);
    names.add(name);
    return { name, headers };
  });
}

/** The path of a file within the folder that was chosen or dropped. */
export function placeOf(file: File & { _webkitRelativePath?: string }): string {
  return file.webkitRelativePath || file._webkitRelativePath || file.name;
}

/** Folder and name of a file without the digits of its name, which files of one series share. */
function patternOf(file: File): string {
  const place = placeOf(file);
  return place.slice(0, place.length - file.name.length) + file.name.replace(/\d+/g, "");
}

function nameOf({ seriesNumber, description }: DicomHeader, taken: ReadonlySet<string>): string {
  const words = [seriesNumber, description]
    .map((text) => text.slice(0, LONGEST_NAME))
    .map((text) => text.replace(/[^\w.-]+/g, "_").replace(/^[_.]+|_+$/g, ""));
  const name = words.filter(Boolean).join("_") || "series";
  let number = 1;
  while (taken.has(number > 1 ? `${name}_${number}` : name)) number++;
  return number > 1 ? `${name}_${number}` : name;
}

/** A slice and its file. */
interface Frame extends Slice {
  header: DicomHeader;
}

/** Slices that are regular. */
export interface Stack {
  /** From first to last along their normal; empty where only the converter knows them. */
  slices: Frame[];
  /** How many there are of each phase. */
  places: number;
  /** Their distance in mm; null where there is one. */
  step: number | null;
}

/** Refuse what is no regular volume. */
export function checkSeries(headers: readonly DicomHeader[]): Stack {
  const damaged = headers.find((header) => header.problem);
  if (damaged) throw refusal(`${damaged.file.name}: ${damaged.problem}`, damaged.cure);
  const frames = headers.flatMap((header) => header.slices.map((slice) => ({ ...slice, header })));
  const scouts = frames.filter((frame) => frame.header.isScout);
  if (scouts.length > 0) {
    const isPart = scouts.length < frames.length;
    throw refusal(
      `${listed(scouts)} of ${frames.length} are localizers (scouts), which are no slices of a volume`,
      isPart ? "move them away" : "give the series that was planned with them",
    );
  }
  const instances = new Map<string, DicomHeader>();
  for (const header of headers) {
    const other = header.instance ? instances.get(header.instance) : undefined;
    if (other) {
      const [copy, first] = [header, other].map((each) => each.file.name);
      throw refusal(`${copy} is a copy of ${first} (both say they are the same image)`, "remove one of the two");
    }
    instances.set(header.instance, header);
  }
  if (headers.some((header) => header.isMosaic)) return { slices: [], places: 0, step: null };
  checkSame(frames);
  return stacked(frames);
}

/** Check that all slices have positions, one size, one spacing and one orientation. */
function checkSame(frames: readonly Frame[]): void {
  const wanted: [string, keyof Slice][] = [
    ["position (Image Position, Patient)", "position"],
    ["orientation (Image Orientation, Patient)", "orientation"],
    ["pixel spacing", "spacing"],
  ];
  for (const [what, name] of wanted) {
    const missing = frames.filter((frame) => frame[name] === null);
    if (missing.length === 0) continue;
    throw refusal(
      `${listed(missing)} of ${frames.length} say no ${what}, so that order and size are not known`,
      "export the series again with all attributes of its images",
    );
  }
  for (const [name, words] of RESCALE) {
    const missing = frames.filter(({ header }) => header.said(name) === "");
    if (missing.length === 0 || missing.length === frames.length) continue;
    throw refusal(
      `${listed(missing)} of ${frames.length} say no ${words}, the others do`,
      "export the series again with all attributes of its images",
    );
  }
  const bad = frames.filter((frame) => Math.min(...frame.spacing!) <= 0);
  if (bad.length > 0) throw refusal(`${listed(bad)}: the pixel spacing is not positive`, CURE_OF_DAMAGE);
  checkOne(frames, "sizes", ({ header }) => [header.rows, header.columns], 0);
  checkOne(frames, "pixel spacings", (frame) => frame.spacing!, (usual) => SAME_SPACING * Math.max(...usual));
  checkOne(frames, "orientations", (frame) => frame.orientation!, SAME_COSINES);
  for (const name of ORIGIN) {
    const having = frames.filter(({ header }) => header.said(name) !== "");
    const usual = mostCommon(having.map(({ header }) => header.said(name)));
    const others = having.filter(({ header }) => header.said(name) !== usual);
    if (others.length === 0) continue;
    throw refusal(
      `the slices differ in ${name}: ${listed(others)} of ${frames.length}, ${others[0].header.said(name)} ` +
        `against ${usual}`,
      "put what belongs to another image into a separate folder",
    );
  }
}

/** Check that all slices share a value, and name those that have not the usual one. */
function checkOne(
  frames: readonly Frame[],
  what: string,
  valueOf: (frame: Frame) => readonly number[],
  tolerance: number | ((usual: readonly number[]) => number),
): void {
  const common = mostCommon(frames.map((frame) => String(valueOf(frame))));
  const usual = valueOf(frames.find((frame) => String(valueOf(frame)) === common)!);
  const allowed = typeof tolerance === "number" ? tolerance : tolerance(usual);
  const others = frames.filter((frame) =>
    valueOf(frame).some((value, index) => Math.abs(value - usual[index]) > allowed),
  );
  if (others.length === 0) return;
  const inWords = (values: readonly number[]): string => values.map((value) => short(value, 4)).join(" x ");
  throw refusal(
    `the slices have several ${what}: ${listed(others)} of ${frames.length}, ` +
      `${inWords(valueOf(others[0]))} against ${inWords(usual)}`,
    "put what belongs to another image (such as a scout) into a separate folder",
  );
}

/** The text that occurs most often, the first of several. */
function mostCommon(texts: readonly string[]): string | undefined {
  const counts = new Map<string, number>();
  for (const text of texts) counts.set(text, (counts.get(text) ?? 0) + 1);
  const most = Math.max(...counts.values());
  return texts.find((text) => counts.get(text) === most);
}

/** A slice, where it lies along the normal, and along columns and rows, in mm. */
interface Placed {
  frame: Frame;
  along: number;
  aside: [number, number];
}

/** Check that slices lie at equal distances and straight behind each other. */
function stacked(frames: readonly Frame[]): Stack {
  const [row, column] = [frames[0].orientation!.slice(0, 3), frames[0].orientation!.slice(3)];
  const normal = cross(row, column);
  const placed: Placed[] = frames.map((frame) => ({
    frame,
    along: dot(frame.position!, normal),
    aside: [dot(frame.position!, column), dot(frame.position!, row)],
  }));
  placed.sort((a, b) => a.along - b.along);
  const places = groupByPlace(placed).map(([first]) => first);
  const slices = placed.map(({ frame }) => frame);
  if (places.length === 1) {
    if (slices[0].thickness !== null) return { slices, places: 1, step: null };
    throw refusal(
      `${slices[0].name} is a single slice that does not say how thick it is`,
      "add the other slices, or write Slice Thickness into its header",
    );
  }
  if (slices.length === places.length) checkPhases(slices);
  checkTilt(placed);
  return { slices, places: places.length, step: checkGaps(places) };
}

/** Slices that lie at one place, of each phase one; phases have a slice at each place. */
function groupByPlace(slices: readonly Placed[]): Placed[][] {
  const closest = Math.min(SAME_PLACE_MM, SAME_PLACE_PIXELS * Math.min(...slices[0].frame.spacing!));
  const places: Placed[][] = [];
  slices.forEach((slice, index) => {
    if (index > 0 && slice.along - slices[index - 1].along <= closest) places.at(-1)!.push(slice);
    else places.push([slice]);
  });
  const most = places.reduce((a, b) => (b.length > a.length ? b : a));
  if (places.some((place) => place.length < most.length)) {
    throw refusal(
      `several slices lie at the same place, and fewer at others: ${listed(most.map(({ frame }) => frame))}`,
      "remove those that are there twice, add those that are missing, or make a case of each phase with " +
        "`seg25d convert --from dicom --split-phases`",
    );
  }
  return places;
}

/** Refuse slices of several phases that lie between each other. */
function checkPhases(slices: readonly Frame[]): void {
  for (const name of ONE_PER_VOLUME) {
    const phases = new Map<string, number[]>();
    slices.forEach(({ header }, index) => {
      const value = header.said(name);
      if (!phases.has(value)) phases.set(value, []);
      phases.get(value)!.push(index);
    });
    const numbers = [...phases.values()];
    // Those that lie one behind the other are parts of one volume.
    const isMixed = numbers.every(([start], index) => index === 0 || numbers[index - 1].at(-1)! > start);
    if (numbers.length === 1 || !isMixed || numbers.some((each) => each.length === 1)) continue;
    const parts = [...phases].map(([value, each]) => `${value} (${listed(each.map((index) => slices[index]))})`);
    throw refusal(
      `the series has ${numbers.length} phases, told apart by ${name}: ${parts.slice(0, LISTED).join("; ")}`,
      "make a case of each with `seg25d convert --from dicom --split-phases`, or keep one phase",
    );
  }
}

function checkTilt(slices: readonly Placed[]): void {
  const [first, last] = [slices[0], slices.at(-1)!];
  const spacing = Math.min(...first.frame.spacing!);
  const aside = slices.map((slice) => slice.aside.map((value, axis) => value - first.aside[axis]));
  const lean = aside.at(-1)!.map((value) => value / (last.along - first.along));
  const astray = slices.map((slice, index) =>
    Math.max(...lean.map((slope, axis) => Math.abs(aside[index][axis] - (slice.along - first.along) * slope))),
  );
  const allowed = Math.max(MAX_OFF_MM, MAX_ASIDE_PIXELS * spacing);
  const worst = Math.max(...astray);
  if (worst > allowed) {
    const name = slices[astray.indexOf(worst)].frame.name;
    throw refusal(
      `${name} lies ${short(worst, 3)} mm aside of the line through the other slices`,
      "leave out slices of other images, or export the series again",
    );
  }
  const drift = Math.max(...aside.at(-1)!.map(Math.abs));
  const angle = (Math.atan(Math.hypot(...lean)) * 180) / Math.PI;
  if (drift <= MAX_OFF_MM || (drift <= allowed && angle <= MAX_TILT_DEGREES)) return;
  throw refusal(
    `the gantry was tilted: from ${first.frame.name} to ${last.frame.name} the slices lie up to ` +
      `${short(drift, 3)} mm aside of each other (${short(angle, 3)} degrees)`,
    CURE_OF_TILT,
  );
}

/** Check that slices lie at equal distances; gives the mean of these. */
function checkGaps(slices: readonly Placed[]): number {
  const names = slices.map(({ frame }) => frame.name);
  const along = slices.map((slice) => slice.along);
  const regular = (along.at(-1)! - along[0]) / (slices.length - 1);
  const off = Math.max(...along.map((place, index) => Math.abs(place - along[0] - regular * index)));
  if (off <= Math.max(MAX_OFF_MM, MAX_OFF_STEPS * regular)) return regular;
  const distances = along.slice(1).map((place, index) => place - along[index]);
  const least = Math.min(...distances);
  const usual = distances.filter((distance) => distance < 1.5 * least);
  const step = usual.reduce((sum, distance) => sum + distance, 0) / usual.length;
  const multiples = distances.map((distance) => distance / step);
  const gaps = multiples.flatMap((multiple, index) => (multiple > 1.5 ? [index] : []));
  const broken = Math.max(...multiples.map((multiple) => Math.abs(multiple - Math.round(multiple)))) * step;
  const isWhole = broken <= 2 * Math.max(MAX_OFF_MM, MAX_OFF_STEPS * step);
  if (isWhole && gaps.length > 0) {
    const missing = gaps.reduce((sum, gap) => sum + Math.round(multiples[gap]) - 1, 0);
    const between = gaps.slice(0, LISTED).map((gap) => `${names[gap]} and ${names[gap + 1]}`);
    throw refusal(
      `${missing === 1 ? "1 slice is" : `${missing} slices are`} missing between ${between.join(", between ")}; ` +
        `the others are ${short(step, 4)} mm apart`,
      CURE_OF_GAPS,
    );
  }
  const centre = isWhole ? step : median(distances);
  const apart = distances.map((distance) => Math.abs(distance - centre));
  const worst = apart.indexOf(Math.max(...apart));
  throw refusal(
    `the slices are ${short(least, 4)} to ${short(Math.max(...distances), 4)} mm apart, such as ` +
      `${short(distances[worst], 4)} mm between ${names[worst]} and ${names[worst + 1]}`,
    CURE_OF_GAPS,
  );
}

/**
 * The window in the header of a slice; null where there is none.
 *
 * Its ends are centre - width / 2 and centre + width / 2, and the first of several counts, as in `parse_window` of
 * seg25d/preprocessing/header_windows.py.
 */
export function windowOf({ said }: DicomHeader): Window | null {
  const [centre, width] = [said("WindowCenter"), said("WindowWidth")].map((text) => parseDecimal(text.split("\\")[0]));
  return [centre, width].every(Number.isFinite) && width > 0 ? [centre - width / 2, centre + width / 2] : null;
}

/** An error of problem and cure. */
export function refusal(problem: string, cure: string): UserError {
  return new UserError(`${problem}. ${cure[0].toUpperCase()}${cure.slice(1)}.`);
}

function listed(frames: readonly Frame[]): string {
  const names = frames.slice(0, LISTED).map((frame) => frame.name);
  return names.join(", ") + (frames.length > LISTED ? ` and ${frames.length - LISTED} more` : "");
}

function cross([a, b, c]: readonly number[], [d, e, f]: readonly number[]): number[] {
  return [b * f - c * e, c * d - a * f, a * e - b * d];
}

function median(values: readonly number[]): number {
  const sorted = [...values].sort((a, b) => a - b);
  const middle = sorted.length / 2;
  return sorted.length % 2 === 1 ? sorted[Math.floor(middle)] : (sorted[middle - 1] + sorted[middle]) / 2;
}

function short(value: number, digits: number): string {
  return String(Number(value.toPrecision(digits)));
}
