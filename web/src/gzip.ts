/** Gzip data; also in several members one after the other, as bgzip writes them: browsers read the first one alone. */

import { UserError } from "./errors.js";

/** First bytes of gzip data. */
const MARK = 0x1f8b;
/** The bit of a member's flags that says that there is an extra field (RFC 1952, 2.3.1). */
const HAS_EXTRA = 4;
/** The extra field of bgzip, "BC" and its two bytes: the size of the member less 1 (SAM specification, 4.1). */
const BGZIP = { mark: 0x4243, length: 2, stop: 18 };
/** Bytes of a file that are read at a time, more than a member of bgzip has: to ask for each of them takes long. */
const PART = 1 << 22;

/** Bytes of a file, which are decompressed while reading if they are gzip data. */
export async function uncompressed(file: Blob, name: string): Promise<ReadableStream<Uint8Array>> {
  if (file.size === 0) throw new UserError(`${name}: the file is empty (0 bytes). Copy it again.`);
  const start = new DataView(await file.slice(0, BGZIP.stop).arrayBuffer());
  if (start.byteLength < 2 || start.getUint16(0) !== MARK) return file.stream();
  return memberSize(start, 0) ? bgzipStream(file) : gunzipped(file.stream());
}

/** Compress by gzip. */
export async function compressed(bytes: Uint8Array<ArrayBuffer>): Promise<Blob> {
  const stream = new Blob([bytes]).stream().pipeThrough(new CompressionStream("gzip"));
  return new Response(stream).blob();
}

function gunzipped(stream: ReadableStream<Uint8Array<ArrayBuffer>>): ReadableStream<Uint8Array<ArrayBuffer>> {
  return stream.pipeThrough(new DecompressionStream("gzip"));
}

function bgzipStream(file: Blob): ReadableStream<Uint8Array<ArrayBuffer>> {
  const members = bgzipMembers(file);
  return new ReadableStream({
    async pull(controller) {
      const { value } = await members.next();
      if (value) controller.enqueue(value);
      else controller.close();
    },
  });
}

/** What is in the members of a file of bgzip. */
async function* bgzipMembers(file: Blob): AsyncGenerator<Uint8Array<ArrayBuffer>, void> {
  for (let at = 0; at < file.size; ) {
    const part = await file.slice(at, at + PART).arrayBuffer();
    const view = new DataView(part);
    let used = 0;
    for (;;) {
      const stop = used + memberSize(view, used);
      if (stop === used || stop > part.byteLength) break;
      const member = new Response(part.slice(used, stop)).body!;
      yield new Uint8Array(await new Response(gunzipped(member)).arrayBuffer());
      used = stop;
    }
    if (used === 0) throw new Error("a member of bgzip is cut off or does not say its size");
    at += used;
  }
}

/** Bytes of the member of bgzip that begins at a place; 0 if there is none. */
function memberSize(bytes: DataView, at: number): number {
  const isBgzip =
    at + BGZIP.stop <= bytes.byteLength &&
    bytes.getUint16(at) === MARK &&
    (bytes.getUint8(at + 3) & HAS_EXTRA) > 0 &&
    bytes.getUint16(at + 12) === BGZIP.mark &&
    bytes.getUint16(at + 14, true) === BGZIP.length;
  return isBgzip ? bytes.getUint16(at + 16, true) + 1 : 0;
}
