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
 * @returns A volume per series, the largest first.
 */
export async function convertDicom(files: readonly File[]): Promise<ChannelFile[]> {
  const volumes = await convert(files);
  if (volumes.length === 0) {
    throw new UserError(
      `The ${files.length} DICOM files hold no volume. Choose the folder of one series with all of its slices.`,
    );
  }
  return volumes;
}

async function convert(files: readonly File[]): Promise<ChannelFile[]> {
  const converter = new Dcm2niix();
  try {
    await converter.init();
    const written = await converter.input([...files]).b("n").z("n").f("%s_%d").run();
    const volumes = written.filter((file) => isNiftiName(file.name)).sort((a, b) => b.size - a.size);
    return volumes.map((file) => ({ name: file.name, file }));
  } catch (error) {
    throw new UserError(
      `The DICOM files cannot be read (${error instanceof Error ? error.message : String(error)}). ` +
        "Choose the folder of one series, or convert it to NIfTI.",
    );
  } finally {
    converter.worker?.terminate();
  }
}
