/** Series of DICOM files as NIfTI, by dcm2niix in a worker of its own. */

import { Dcm2niix } from "@niivue/dcm2niix";
import { UserError } from "./errors.js";
import { isNiftiName } from "./nifti.js";
import type { ChannelFile } from "./segment.js";

/** The mark of DICOM files, and where it stands. */
const MARK = "DICM";
const MARK_AT = 128;

/** Whether a file is a DICOM file by its mark. */
export async function isDicom(file: Blob): Promise<boolean> {
  return (await file.slice(MARK_AT, MARK_AT + MARK.length).text()) === MARK;
}

/**
 * Convert DICOM files.
 *
 * @param signal Ends the work at once.
 * @returns A volume per series, the largest first.
 */
export async function convertDicom(files: readonly File[], signal: AbortSignal): Promise<ChannelFile[]> {
  const volumes = await convert(files, signal);
  if (volumes.length === 0) {
    throw new UserError(
      `The ${files.length} DICOM files hold no volume. Choose the folder of one series with all of its slices.`,
    );
  }
  return volumes;
}

async function convert(files: readonly File[], signal: AbortSignal): Promise<ChannelFile[]> {
  signal.throwIfAborted();
  const converter = new Dcm2niix();
  // What a worker was asked for is never answered once it has ended.
  const ended = new Promise<never>((_, reject) => {
    signal.addEventListener("abort", () => reject(signal.reason), { once: true });
  });
  try {
    await Promise.race([converter.init(), ended]);
    const order = converter.input([...files]).b("n").z("n").p("n").f("%s_%d");
    const written = await Promise.race([order.run(), ended]);
    const volumes = written.filter((file) => isNiftiName(file.name)).sort((a, b) => b.size - a.size);
    return volumes.map((file) => ({ name: file.name, file, isDicom: true }));
  } catch (error) {
    signal.throwIfAborted();
    throw new UserError(
      `The DICOM files cannot be read (${error instanceof Error ? error.message : String(error)}). ` +
        "Choose the folder of one series, or convert it to NIfTI.",
    );
  } finally {
    converter.worker?.terminate();
  }
}
