/**
 * Elements of DICOM files, explicit and implicit, little and big endian, with and without the mark (DICOM PS3.5, 7;
 * PS3.10, 7.1).
 */

/** The mark of DICOM files, and where it stands. */
const MARK = "DICM";
const MARK_AT = 128;
/** Endings of files that are DICOM without the mark, too, as old programs wrote them (seg25d/data/cases.py). */
const ENDINGS = /\.(dcm|ima)$/i;
/** Bytes that are read at a time. */
const CHUNK = 1 << 16;
/** Bytes of the longest text that is read, as many as most explicit elements can have (PS3.5, 7.1.2). */
const LONGEST = 0xffff;
export const UNDEFINED_LENGTH = 0xffffffff;
/** Beginnings of items, and ends of items and of sequences. */
const [ITEM, ITEM_END, SEQUENCE_END] = [0xfffee000, 0xfffee00d, 0xfffee0dd];
const BIG_ENDIAN = "1.2.840.10008.1.2.2";
const DEFLATED = "1.2.840.10008.1.2.1.99";
/** Value representations whose length has four bytes (PS3.5, table 7.1-1). */
const LONG = new Set(["OB", "OD", "OF", "OL", "OV", "OW", "SQ", "SV", "UC", "UN", "UR", "UT", "UV"]);
/** Attributes that are read, by their keywords in PS3.6. */
export const TAG = {
  TransferSyntaxUID: 0x00020010,
  ImageType: 0x00080008,
  SOPClassUID: 0x00080016,
  SOPInstanceUID: 0x00080018,
  StudyDate: 0x00080020,
  StudyTime: 0x00080030,
  Modality: 0x00080060,
  SeriesDescription: 0x0008103e,
  PatientID: 0x00100020,
  SliceThickness: 0x00180050,
  EchoTime: 0x00180081,
  InversionTime: 0x00180082,
  EchoNumbers: 0x00180086,
  SpacingBetweenSlices: 0x00180088,
  ConvolutionKernel: 0x00181210,
  DiffusionBValue: 0x00189087,
  SeriesInstanceUID: 0x0020000e,
  SeriesNumber: 0x00200011,
  ImagePositionPatient: 0x00200032,
  ImageOrientationPatient: 0x00200037,
  TemporalPositionIdentifier: 0x00200100,
  NominalPercentageOfCardiacPhase: 0x00209241,
  SamplesPerPixel: 0x00280002,
  PhotometricInterpretation: 0x00280004,
  NumberOfFrames: 0x00280008,
  Rows: 0x00280010,
  Columns: 0x00280011,
  PixelSpacing: 0x00280030,
  BitsAllocated: 0x00280100,
  WindowCenter: 0x00281050,
  WindowWidth: 0x00281051,
  RescaleIntercept: 0x00281052,
  RescaleSlope: 0x00281053,
  RescaleType: 0x00281054,
  SharedFunctionalGroupsSequence: 0x52009229,
  PerFrameFunctionalGroupsSequence: 0x52009230,
};
const WANTED = new Set(Object.values(TAG));
/** Those of them that are numbers of two and of eight bytes; all others are texts, or sequences. */
const SHORTS = new Set([TAG.SamplesPerPixel, TAG.Rows, TAG.Columns, TAG.BitsAllocated]);
const DOUBLES = new Set([TAG.DiffusionBValue, TAG.NominalPercentageOfCardiacPhase]);
/** Functional groups that all frames share, and those in them that say where slices lie: sequences of one item. */
const GROUPS = new Set([TAG.SharedFunctionalGroupsSequence, 0x00209113, 0x00209116, 0x00289110]);
/** Attributes whose places are kept. */
const PLACED = new Set([TAG.StudyDate, TAG.StudyTime]);
/** Voxels: of integers, and of single and double precision. */
const PIXELS = new Set([0x7fe00010, 0x7fe00008, 0x7fe00009]);

export const CURE_OF_DAMAGE = "copy or export it again";
const CUT_OFF = "the DICOM file is cut off or damaged";

/** Attributes by their tags, as texts. */
export type Texts = Map<number, string>;
/** Where a value begins, and how many bytes it has; an undefined length where it is compressed. */
export type Span = { at: number; length: number };

/** What is wrong with a file. */
export class Damage extends Error {
  constructor(
    message: string,
    readonly cure = CURE_OF_DAMAGE,
  ) {
    super(message);
  }
}

/** Whether a file is a DICOM file: by its mark, or by its ending. */
export async function isDicom(file: File): Promise<boolean> {
  return ENDINGS.test(file.name) || (await file.slice(MARK_AT, MARK_AT + MARK.length).text()) === MARK;
}

/** How elements are written. */
interface Format {
  explicit: boolean;
  little: boolean;
}

interface Element {
  tag: number;
  representation: string;
  length: number;
}

/** The bytes of a file one after the other. */
class Bytes {
  at = 0;
  private chunk = new DataView(new ArrayBuffer(0));
  private start = 0;

  constructor(private readonly file: Blob) {}

  get isAtEnd(): boolean {
    return this.at >= this.file.size;
  }

  /** The next bytes, without going on. */
  async peek(length: number): Promise<DataView> {
    if (this.at + length > this.file.size) throw new Damage(CUT_OFF);
    if (this.at < this.start || this.at + length > this.start + this.chunk.byteLength) {
      const part = this.file.slice(this.at, this.at + Math.max(length, CHUNK));
      [this.chunk, this.start] = [new DataView(await part.arrayBuffer()), this.at];
    }
    return new DataView(this.chunk.buffer, this.at - this.start, length);
  }

  async take(length: number): Promise<DataView> {
    const view = await this.peek(length);
    this.at += length;
    return view;
  }

  skip(length: number): void {
    this.at += length;
    if (this.at > this.file.size) throw new Damage(CUT_OFF);
  }
}

/**
 * Read the wanted attributes of a file up to its voxels.
 *
 * @param frames Gets those of each frame.
 * @param study Gets the places of date and time of the study.
 * @returns The place of the voxels.
 */
export async function readTexts(file: Blob, texts: Texts, frames: Texts[], study: Span[]): Promise<Span | null> {
  const bytes = new Bytes(file);
  const behind = MARK_AT + MARK.length;
  // One reading gives mark and elements.
  if (file.size >= behind && latin(await bytes.peek(behind), MARK_AT, MARK.length) === MARK) bytes.at = behind;
  const ofFile: Format = { explicit: true, little: true };
  while (!bytes.isAtEnd && (await bytes.peek(2)).getUint16(0, true) === 2) {
    await readValue(bytes, await readStart(bytes, ofFile), ofFile, texts);
  }
  const syntax = texts.get(TAG.TransferSyntaxUID);
  if (syntax === DEFLATED) {
    throw new Damage("the file is deflated, which the page does not read", "use `seg25d predict`, which does");
  }
  const start = await bytes.peek(6);
  const little = syntax !== BIG_ENDIAN;
  if (start.getUint16(0, little) !== 8) throw new Damage(CUT_OFF);
  // Some files have another kind than they announce, and those without the mark announce none.
  const format: Format = { explicit: /^[A-Z]{2}$/.test(latin(start, 4, 2)), little };
  while (!bytes.isAtEnd) {
    const element = await readStart(bytes, format);
    const place = { at: bytes.at, length: element.length };
    if (PIXELS.has(element.tag)) return place;
    if (PLACED.has(element.tag) && place.length <= LONGEST) study.push(place);
    if (element.tag === TAG.PerFrameFunctionalGroupsSequence) {
      await readItems(bytes, element, format, () => frames[frames.push(new Map()) - 1]);
    } else {
      await readValue(bytes, element, format, texts);
    }
  }
  return null;
}

async function readStart(bytes: Bytes, { explicit, little }: Format): Promise<Element> {
  const start = await bytes.take(8);
  const tag = start.getUint16(0, little) * 0x10000 + start.getUint16(2, little);
  if (!explicit || tag >= ITEM) return { tag, representation: "", length: start.getUint32(4, little) };
  const representation = latin(start, 4, 2);
  if (!LONG.has(representation)) return { tag, representation, length: start.getUint16(6, little) };
  return { tag, representation, length: (await bytes.take(4)).getUint32(0, little) };
}

/** Keep the value of an element if it is wanted, and step over it if not. */
async function readValue(bytes: Bytes, element: Element, format: Format, texts: Texts | null): Promise<void> {
  const { tag, representation, length } = element;
  if (texts && GROUPS.has(tag)) {
    await readItems(bytes, element, format, () => texts);
  } else if (length === UNDEFINED_LENGTH) {
    // Sequences of unknown kind are implicit (PS3.5, 6.2.2).
    const inner = representation === "UN" ? { explicit: false, little: true } : format;
    await readItems(bytes, element, inner, () => null);
  } else if (!texts || !WANTED.has(tag) || length > LONGEST) {
    bytes.skip(length);
  } else {
    const value = await bytes.take(length);
    if (DOUBLES.has(tag) && length === 8) texts.set(tag, String(value.getFloat64(0, format.little)));
    else if (!SHORTS.has(tag)) texts.set(tag, trimmed(value));
    else if (length >= 2) texts.set(tag, String(value.getUint16(0, format.little)));
  }
}

/**
 * Read the items of a sequence, of defined length or not.
 *
 * @param textsOf Called for each item, what gets its attributes; null: they are stepped over.
 */
async function readItems(
  bytes: Bytes,
  { length }: Element,
  format: Format,
  textsOf: () => Texts | null,
): Promise<void> {
  const end = length === UNDEFINED_LENGTH ? Infinity : bytes.at + length;
  while (bytes.at < end) {
    const item = await readStart(bytes, format);
    if (item.tag === SEQUENCE_END) return;
    if (item.tag !== ITEM) throw new Damage(CUT_OFF);
    const texts = textsOf();
    const stop = item.length === UNDEFINED_LENGTH ? Infinity : bytes.at + item.length;
    if (!texts && stop < Infinity) bytes.skip(item.length);
    while (bytes.at < stop) {
      const element = await readStart(bytes, format);
      if (element.tag === ITEM_END) break;
      await readValue(bytes, element, format, texts);
    }
  }
}

/** A text without the blanks before it, and the blanks and zeros behind it. */
function trimmed(value: DataView): string {
  let length = value.byteLength;
  while (length > 0 && [0, 0x20].includes(value.getUint8(length - 1))) length--;
  return latin(value, 0, length).trimStart();
}

function latin(view: DataView, start: number, length: number): string {
  return new TextDecoder("latin1").decode(new Uint8Array(view.buffer, view.byteOffset + start, length));
}
