/** Series of DICOM files as NIfTI, by dcm2niix in workers of their own. */

import { Dcm2niix } from "@niivue/dcm2niix";
import { checkSeries, findSeries, placeOf, refusal, windowOf, type Series, type Stack } from "./dicom_series.js";
import type { DicomHeader } from "./dicom_header.js";
import { UserError } from "./errors.js";
import { checkConverting } from "./memory.js";
import { isNiftiName } from "./nifti.js";
import type { ChannelFile } from "./segment.js";

/** What the converter calls its results; it adds to that what tells them apart. */
const STEM = "v";
/** Where headers of NIfTI-1 have the number of slices, their distance, and the third column of the sform. */
const [SLICES_AT, STEP_AT, COLUMN_AT] = [46, 88, [288, 304, 320]];
const NIFTI_HEADER = 348;
/** Volumes that it adds where it takes slices for irregular; what comes to it is regular by our rules. */
const INTERPOLATED = /_(Eq|Tilt)/;
const CURE = "use `seg25d predict`, or make a NIfTI file with `seg25d convert --from dicom`";

/** What became of files. */
export interface Found {
  volumes: ChannelFile[];
  /** Series that are no volume, and why. */
  leftOut: string[];
  /** Whether these are none by their nature: localizers, and pictures in colour. */
  isClear: boolean;
}

/**
 * Convert DICOM files, each series on its own.
 *
 * @param others Files beside them that are not DICOM.
 * @param budget Bytes that the page may take.
 * @param signal Ends the work at once.
 * @returns A volume or more per series that is one, the largest first.
 */
export async function convertDicom(
  files: readonly File[],
  others: readonly File[],
  budget: number,
  signal: AbortSignal,
): Promise<Found> {
  const found: Found = { volumes: [], leftOut: [], isClear: true };
  const attempt = async <T>({ name, headers }: Series, work: () => T | Promise<T>): Promise<T | null> => {
    try {
      return await work();
    } catch (error) {
      signal.throwIfAborted();
      const count = headers.length === 1 ? "1 file" : `${headers.length} files`;
      found.leftOut.push(`Left out: ${name} (${count}): ${refusalOf(error).message}`);
      found.isClear &&= headers.every((header) => header.isScout || header.isColour);
      return null;
    }
  };
  const regular: { series: Series; stack: Stack }[] = [];
  for (const series of await findSeries(files, others, signal)) {
    const stack = await attempt(series, () => checkSeries(series.headers));
    if (stack) regular.push({ series, stack });
  }
  checkConverting(regular.map(({ series }) => sizesOf(series)), budget);
  for (const { series, stack } of regular) {
    found.volumes.push(...((await attempt(series, () => convertSeries(series, stack, signal))) ?? []));
  }
  found.volumes.sort((a, b) => b.file.size - a.file.size);
  return found;
}

/** A bug, or a browser that cannot do something, costs the series alone. */
function refusalOf(error: unknown): UserError {
  if (error instanceof UserError) return error;
  console.error(error);
  return refusal(`the page cannot read it (${detailOf(error)})`, CURE);
}

function detailOf(error: unknown): string {
  return error instanceof Error ? error.message : String(error);
}

function sizesOf({ headers }: Series): { files: number; bytes: number; voxelBytes: number } {
  const sum = (sizeOf: (header: DicomHeader) => number): number => headers.reduce((all, each) => all + sizeOf(each), 0);
  return { files: headers.length, bytes: sum(({ file }) => file.size), voxelBytes: sum((header) => header.voxelBytes) };
}

async function convertSeries({ name, headers }: Series, stack: Stack, signal: AbortSignal): Promise<ChannelFile[]> {
  const isOnePhase = stack.places > 0 && stack.slices.length === stack.places;
  const files = headers.map(isOnePhase ? withoutTimes : ({ file }) => file);
  const written = await convert(files, isOnePhase, signal);
  const volumes = written.filter(({ name }) => isNiftiName(name) && !INTERPOLATED.test(name));
  if (volumes.length === 0) throw refusal("dcm2niix makes no volume of it", CURE);
  if (volumes.length > 1 && isOnePhase) {
    throw refusal(`dcm2niix makes ${volumes.length} volumes of its ${stack.places} slices`, CURE);
  }
  // The first slice of several volumes is that of one of them.
  const window = volumes.length === 1 ? windowOf(stack.slices[0]?.header ?? headers[0]) : null;
  return Promise.all(
    volumes.map(async (volume) => {
      const file = stack.places > 0 ? await withStep(volume, stack) : volume;
      return { name: name + volume.name.slice(STEM.length), file, isDicom: true, window };
    }),
  );
}

/**
 * A file whose study has no date and time: dcm2niix takes slices apart where these differ, and programs that write one
 * file after the other make them anew for each.
 */
function withoutTimes({ file, study }: DicomHeader): File {
  const parts: BlobPart[] = [];
  let start = 0;
  for (const { at, length } of study) {
    parts.push(file.slice(start, at), "0".repeat(length));
    start = at + length;
  }
  return Object.assign(new File([...parts, file.slice(start)], file.name), { _webkitRelativePath: placeOf(file) });
}

/** A volume with the mean distance of slices: dcm2niix takes that of the first two. */
async function withStep(volume: File, { places, step }: Stack): Promise<Blob> {
  const header = new DataView(await volume.slice(0, NIFTI_HEADER).arrayBuffer());
  const slices = header.getInt16(SLICES_AT, true);
  if (slices !== places) throw refusal(`dcm2niix makes a volume of ${slices} slices of its ${places}`, CURE);
  if (step === null) return volume;
  const ratio = step / header.getFloat32(STEP_AT, true);
  for (const at of [STEP_AT, ...COLUMN_AT]) header.setFloat32(at, header.getFloat32(at, true) * ratio, true);
  return new Blob([header, volume.slice(NIFTI_HEADER)]);
}

async function convert(files: readonly File[], merging: boolean, signal: AbortSignal): Promise<File[]> {
  signal.throwIfAborted();
  const converter = new Dcm2niix();
  // What a worker was asked for is never answered once it has ended.
  const ended = new Promise<never>((_, reject) => {
    signal.addEventListener("abort", () => reject(signal.reason), { once: true });
  });
  try {
    await Promise.race([converter.init(), ended]);
    const order = converter.input(files).b("n").z("n").p("n").x("i").m(merging ? "y" : "2").f(STEM);
    return await Promise.race([order.run(), ended]);
  } catch (error) {
    signal.throwIfAborted();
    throw refusal(`dcm2niix cannot read it (${detailOf(error)})`, CURE);
  } finally {
    converter.worker?.terminate();
  }
}
