/** NIfTI-1 files: headers and what is wrong with them, voxels in canonical orientation, and label files. */

import { UserError } from "./errors.js";
import { AXES, mapAxes, product, type Triple } from "./grid.js";
import { uncompressed } from "./gzip.js";
import { forEachRow, orientationOf, type Orientation } from "./orientation.js";

const HEADER_SIZE = 348;
const NIFTI_2_SIZE = 540;
/** Where voxels begin at the earliest: after the header and four bytes that announce extensions. */
const SHORTEST_OFFSET = 352;
const LONGEST_OFFSET = 1 << 24;
/** What lies outside is no size of a voxel (seg25d/data/image_geometry.py). */
const SMALLEST_MM = 1e-6;
const LARGEST_MM = 1e4;
type Values = ArrayLike<number | bigint>;
/** Sizes by `datatype`; colours and complex numbers are refused by name. */
const TYPES: Record<number, { bytes: number; read: (buffer: ArrayBuffer, start: number, count: number) => Values }> = {
  2: { bytes: 1, read: (...place) => new Uint8Array(...place) },
  4: { bytes: 2, read: (...place) => new Int16Array(...place) },
  8: { bytes: 4, read: (...place) => new Int32Array(...place) },
  16: { bytes: 4, read: (...place) => new Float32Array(...place) },
  64: { bytes: 8, read: (...place) => new Float64Array(...place) },
  256: { bytes: 1, read: (...place) => new Int8Array(...place) },
  512: { bytes: 2, read: (...place) => new Uint16Array(...place) },
  768: { bytes: 4, read: (...place) => new Uint32Array(...place) },
  1024: { bytes: 8, read: (...place) => new BigInt64Array(...place) },
  1280: { bytes: 8, read: (...place) => new BigUint64Array(...place) },
};
const COLOURS = [128, 2304];
const COMPLEX = [32, 1792, 2048];
/** Fields of the header that are the geometry: pixdim[0..3], xyzt_units, and all of qform and sform. */
const GEOMETRY: [start: number, stop: number, bytes: number][] = [
  [76, 92, 4],
  [123, 124, 1],
  [252, 256, 2],
  [256, 328, 4],
];
/** Millimetres per unit of length by the lowest bits of `xyzt_units`: metres and micrometres; all else is mm. */
const UNITS: Record<number, number> = { 1: 1000, 3: 0.001 };

export interface NiftiHeader {
  /** The 348 bytes. */
  view: DataView;
  littleEndian: boolean;
  /** Voxels along (x, y, z). */
  sizes: Triple;
  datatype: number;
  offset: number;
  /** Of the whole uncompressed file, in bytes. */
  length: number;
  slope: number;
  intercept: number;
  /** Millimetres per voxel along (x, y, z). */
  spacing: Triple;
  /** Directions of the axes, `direction[world][axis]`, world axes (L, P, S). */
  direction: Triple<Triple>;
  /** Position of the first voxel (L, P, S). */
  origin: Triple;
  orientation: Orientation;
}

/**
 * Read the header of a file, and check what it says.
 *
 * @param bytes The beginning of the uncompressed file.
 * @param name For messages.
 */
export function readHeader(bytes: Uint8Array, name: string): NiftiHeader {
  const fail = (problem: string): UserError => new UserError(`${name}: ${problem}`);
  const start = new DataView(bytes.buffer, bytes.byteOffset, bytes.byteLength);
  const size = (little: boolean): number => (bytes.length >= 4 ? start.getInt32(0, little) : 0);
  if (size(true) === NIFTI_2_SIZE || size(false) === NIFTI_2_SIZE) {
    throw fail(
      "the file is NIfTI-2, expected is NIfTI-1. Convert it, for instance in Python: image = nibabel.load(OLD); " +
        "nibabel.save(nibabel.Nifti1Image(image.dataobj, image.affine), NEW).",
    );
  }
  const littleEndian = size(true) === HEADER_SIZE;
  if (bytes.length < HEADER_SIZE || (!littleEndian && size(false) !== HEADER_SIZE)) {
    throw fail("the file is not a NIfTI image, or it is damaged. Choose a .nii or .nii.gz file, or copy it again.");
  }
  const view = new DataView(bytes.slice(0, HEADER_SIZE).buffer);
  const mark = String.fromCharCode(...bytes.subarray(344, 348));
  if (mark !== "n+1\0") {
    const kind = mark === "ni1\0" ? "the header of a pair .hdr and .img" : "an ANALYZE file, or its header is damaged";
    throw fail(`the file lacks the mark of NIfTI: it is ${kind}. Convert it to .nii.gz.`);
  }
  const int16 = (at: number): number => view.getInt16(at, littleEndian);
  const float = (at: number): number => view.getFloat32(at, littleEndian);
  const axes = int16(40);
  if (axes < 1 || axes > 7) throw damaged(name, `it has ${axes} axes, expected are 1 to 7`);
  const dimensions = Array.from({ length: axes }, (_, axis) => int16(42 + 2 * axis));
  if (Math.min(...dimensions) < 1) throw damaged(name, `its size is ${dimensions.join(" x ")}`);
  if (axes < 3) {
    throw fail(`the file is ${axes}D, expected is a 3D volume. Stack the slices into a volume.`);
  }
  if (dimensions.slice(3).some((extent) => extent > 1)) {
    const sizes = dimensions.join(" x ");
    throw fail(`the file is ${axes}D (${sizes}), expected is 3D. Save each volume as a file of its own.`);
  }
  const datatype = int16(70);
  if (COLOURS.includes(datatype)) {
    throw fail("the file has several numbers per voxel (colours), expected is one. Save each as a file of its own.");
  }
  if (COMPLEX.includes(datatype)) {
    throw fail("the file has complex numbers, expected are real ones. Save magnitude or phase alone.");
  }
  const type = TYPES[datatype];
  if (!type) {
    throw fail(`the type of its voxels (${datatype}) is not known. Save it as a usual one, such as int16 or float32.`);
  }
  const offset = Math.trunc(float(108));
  if (!(offset >= SHORTEST_OFFSET && offset <= LONGEST_OFFSET)) {
    throw damaged(name, `its voxels begin at byte ${float(108)}, expected is ${SHORTEST_OFFSET} or more`);
  }
  const sizes: Triple = [dimensions[0], dimensions[1], dimensions[2]];
  const slope = float(112);
  const scaled = Number.isFinite(slope) && slope !== 0;
  const intercept = float(116);
  const spacing = spacingOf(float, view, name);
  const { direction, origin } = placeOf(float, int16, view, name);
  return {
    view,
    littleEndian,
    sizes,
    datatype,
    offset,
    length: offset + product(sizes) * type.bytes,
    slope: scaled ? slope : 1,
    intercept: scaled && Number.isFinite(intercept) ? intercept : 0,
    spacing,
    direction,
    origin,
    orientation: orientationOf(sizes, spacing, direction),
  };
}

function damaged(name: string, problem: string): UserError {
  return new UserError(`${name}: the header of the file is damaged: ${problem}. Copy the file again or correct it.`);
}

/** Millimetres per unit of length. */
function unitOf(view: DataView): number {
  return UNITS[view.getUint8(123) & 7] ?? 1;
}

function spacingOf(float: (at: number) => number, view: DataView, name: string): Triple {
  const unit = unitOf(view);
  const spacing = mapAxes((axis) => Math.abs(float(80 + 4 * axis)) * unit);
  if (!spacing.every((step) => step >= SMALLEST_MM && step <= LARGEST_MM)) {
    throw damaged(name, `the spacing is ${spacing.join(" x ")} mm, expected is ${SMALLEST_MM} to ${LARGEST_MM} mm`);
  }
  return spacing;
}

/** Directions of the axes and position of the first voxel, by the sform or the qform as ITK chooses. */
function placeOf(
  float: (at: number) => number,
  int16: (at: number) => number,
  view: DataView,
  name: string,
): { direction: Triple<Triple>; origin: Triple } {
  const [qformCode, sformCode] = [int16(252), int16(254)];
  const rows = mapAxes<Triple>((row) => mapAxes((column) => float(280 + 16 * row + 4 * column)));
  const lengths = mapAxes((column) => Math.hypot(rows[0][column], rows[1][column], rows[2][column]));
  const sform = mapAxes<Triple>((row) => mapAxes((column) => rows[row][column] / lengths[column]));
  const qform = qformCode > 0 ? rotationOf(float) : identity();
  const usable = sformCode > 0 && lengths.every((length) => length > 0) && Math.abs(determinant(sform)) > 1e-3;
  if (sformCode > 0 && qformCode <= 0 && !usable) {
    throw damaged(name, "its sform spans no volume, and it has no qform");
  }
  // The sform where it is alone, or where it is that of the scanner and orthogonal; else the qform.
  const preferred = usable && (qformCode <= 0 || (sformCode === 1 && isOrthogonal(sform)));
  const chosen = preferred ? sform : qform;
  const shifts = mapAxes((row) => (preferred ? float(292 + 16 * row) : qformCode > 0 ? float(268 + 4 * row) : 0));
  if (![...chosen.flat(), ...shifts].every(Number.isFinite)) {
    throw damaged(name, "its orientation holds numbers that are not finite");
  }
  // From (R, A, S) to (L, P, S), which is what the axes of a file without codes are taken for.
  const isKnown = qformCode > 0 || preferred;
  const unit = unitOf(view);
  const turned = (row: number): number => (isKnown && row < 2 ? -1 : 1);
  return {
    direction: mapAxes<Triple>((row) => mapAxes((column) => turned(row) * chosen[row][column])),
    origin: mapAxes((row) => turned(row) * shifts[row] * unit),
  };
}

function identity(): Triple<Triple> {
  return mapAxes<Triple>((row) => mapAxes((column) => (row === column ? 1 : 0)));
}

/** The rotation of the quaternion (nifti1.h, "METHOD 2"); the last column is turned round where `pixdim[0]` says so. */
function rotationOf(float: (at: number) => number): Triple<Triple> {
  let [b, c, d] = [float(256), float(260), float(264)];
  let a = 1 - (b * b + c * c + d * d);
  if (a < 1e-7) {
    const scale = 1 / Math.sqrt(b * b + c * c + d * d);
    [a, b, c, d] = [0, b * scale, c * scale, d * scale];
  } else {
    a = Math.sqrt(a);
  }
  const turn = float(76) < 0 ? -1 : 1;
  return [
    [a * a + b * b - c * c - d * d, 2 * (b * c - a * d), turn * 2 * (b * d + a * c)],
    [2 * (b * c + a * d), a * a + c * c - b * b - d * d, turn * 2 * (c * d - a * b)],
    [2 * (b * d - a * c), 2 * (c * d + a * b), turn * (a * a + d * d - c * c - b * b)],
  ];
}

function determinant(m: Triple<Triple>): number {
  return (
    m[0][0] * (m[1][1] * m[2][2] - m[1][2] * m[2][1]) -
    m[0][1] * (m[1][0] * m[2][2] - m[1][2] * m[2][0]) +
    m[0][2] * (m[1][0] * m[2][1] - m[1][1] * m[2][0])
  );
}

function isOrthogonal(m: Triple<Triple>): boolean {
  const dot = (i: number, j: number): number => AXES.reduce((sum: number, row) => sum + m[row][i] * m[row][j], 0);
  return [dot(0, 1), dot(0, 2), dot(1, 2)].every((value) => Math.abs(value) < 1e-4);
}

/**
 * Read the header of a file, compressed or not, without its voxels.
 *
 * @param name For messages.
 */
export async function readFileHeader(file: Blob, name: string): Promise<NiftiHeader> {
  const reader = (await uncompressed(file, name)).getReader();
  try {
    return readHeader(await readUpTo(reader, HEADER_SIZE, name), name);
  } finally {
    await reader.cancel().catch(() => undefined);
  }
}

/** Read a whole file, compressed or not: its bytes as the header says how many, all that a viewer needs. */
export async function readBytes(file: Blob, name: string, header: NiftiHeader): Promise<Uint8Array<ArrayBuffer>> {
  const reader = (await uncompressed(file, name)).getReader();
  const bytes = new Uint8Array(header.length);
  let filled = 0;
  // Also what follows the voxels is read, as only the end tells whether compressed data are intact.
  for (;;) {
    const chunk = await nextChunk(reader, name);
    if (!chunk) break;
    bytes.set(chunk.subarray(0, header.length - filled), filled);
    filled = Math.min(header.length, filled + chunk.length);
  }
  if (filled < header.length) {
    throw new UserError(
      `${name}: the file is truncated: ${filled} of ${header.length} bytes are there. Copy it again.`,
    );
  }
  return bytes;
}

/**
 * Voxels in canonical orientation, with slope and intercept applied; refuses what is not a finite number.
 *
 * @param bytes The uncompressed file; the order of its bytes may be turned round.
 */
export function voxelsOf(bytes: Uint8Array<ArrayBuffer>, header: NiftiHeader, name: string): Float32Array {
  const { orientation, slope, intercept } = header;
  const type = TYPES[header.datatype];
  const isAligned = header.offset % type.bytes === 0;
  const data = isAligned ? bytes.subarray(header.offset) : bytes.slice(header.offset);
  if (!header.littleEndian) swapBytes(data, type.bytes);
  const values = type.read(data.buffer, data.byteOffset, data.byteLength / type.bytes);
  const result = new Float32Array(values.length);
  const width = orientation.shape[2];
  const stride = orientation.strides[2];
  const scaled = slope !== 1 || intercept !== 0;
  let bad = 0;
  forEachRow(orientation, (canonical, file) => {
    for (let w = 0; w < width; w++) {
      const stored = Number(values[file + w * stride]);
      const value = scaled ? Math.fround(stored) * slope + intercept : stored;
      if (!Number.isFinite(value)) bad++;
      result[canonical + w] = value;
    }
  });
  if (bad > 0) {
    const cure = "Replace them, for instance by the value of air or by 0.";
    throw new UserError(`${name}: ${bad} voxels are no numbers (NaN or infinite). ${cure}`);
  }
  return result;
}

/** Whether a file begins as NIfTI or gzip data do. */
export function isNiftiName(name: string): boolean {
  return /\.nii(\.gz)?$/i.test(name);
}

/**
 * A label file with the geometry of the image that it belongs to, to the last digit.
 *
 * @param labels In the order of the file.
 */
export function labelFile(labels: Uint8Array | Uint16Array | Int32Array, image: NiftiHeader): Uint8Array<ArrayBuffer> {
  const bytes = new Uint8Array(SHORTEST_OFFSET + labels.byteLength);
  const view = new DataView(bytes.buffer);
  view.setInt32(0, HEADER_SIZE, true);
  view.setUint8(38, "r".charCodeAt(0));
  [3, ...image.sizes, 1, 1, 1, 1].forEach((size, axis) => view.setInt16(40 + 2 * axis, size, true));
  view.setInt16(70, labels instanceof Uint8Array ? 2 : labels instanceof Uint16Array ? 512 : 8, true);
  view.setInt16(72, 8 * labels.BYTES_PER_ELEMENT, true);
  view.setFloat32(108, SHORTEST_OFFSET, true);
  view.setFloat32(112, 1, true);
  for (const [start, stop, size] of GEOMETRY) {
    const field = new Uint8Array(image.view.buffer.slice(start, stop));
    if (!image.littleEndian) swapBytes(field, size);
    bytes.set(field, start);
  }
  bytes.set([..."n+1\0"].map((letter) => letter.charCodeAt(0)), 344);
  bytes.set(new Uint8Array(labels.buffer, labels.byteOffset, labels.byteLength), SHORTEST_OFFSET);
  return bytes;
}

function swapBytes(bytes: Uint8Array, size: number): void {
  for (let start = 0; start < bytes.length; start += size) bytes.subarray(start, start + size).reverse();
}

async function nextChunk(
  reader: ReadableStreamDefaultReader<Uint8Array>,
  name: string,
): Promise<Uint8Array | undefined> {
  try {
    return (await reader.read()).value;
  } catch {
    throw new UserError(
      `${name}: the file cannot be read, its compressed data are damaged or cut off, or in several parts that do not ` +
        "say their sizes. Copy it again, or compress it anew: gzip -dc OLD | gzip > NEW.",
    );
  }
}

async function readUpTo(
  reader: ReadableStreamDefaultReader<Uint8Array>,
  length: number,
  name: string,
): Promise<Uint8Array> {
  const bytes = new Uint8Array(length);
  let filled = 0;
  while (filled < length) {
    const chunk = await nextChunk(reader, name);
    if (!chunk) break;
    bytes.set(chunk.subarray(0, length - filled), filled);
    filled = Math.min(length, filled + chunk.length);
  }
  return bytes.subarray(0, filled);
}
