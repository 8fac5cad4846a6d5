/** Which of several files is which channel. */

import { UserError } from "./errors.js";
import { readFileHeader } from "./nifti.js";
import type { ChannelFile } from "./segment.js";

/**
 * Refuse fewer files than there are channels.
 *
 * @param leftOut Why series of DICOM files are not among them.
 */
export async function checkNumber(
  volumes: readonly ChannelFile[],
  channels: readonly string[],
  leftOut: readonly string[],
): Promise<void> {
  const [{ name, file }, ...more] = volumes;
  if (volumes.length >= channels.length) return;
  const names = channels.join(", ");
  const said = more.length === 0 ? await readFileHeader(file, name).then(() => "", String) : "";
  if (new RegExp(`the file is 4D \\(.* x ${channels.length}\\)`).test(said)) {
    throw new UserError(
      `${name}: the file is 4D, and its fourth axis has as many volumes as the model has channels (${names}). Save ` +
        "each volume as a file of its own and choose all of them at once: `seg25d convert --from msd` does so for " +
        "data sets of the Medical Segmentation Decathlon.",
    );
  }
  throw new UserError(
    [
      `The model needs ${channels.length} images, one for each channel (${names}); got ${volumes.length}.`,
      "Choose all of them at once.",
      ...leftOut,
    ].join(" "),
  );
}

/**
 * Guess which volume is which channel, by nnU-Net's numbers in names (CASE_0000), else by the channels' names.
 *
 * @returns The index of a volume per channel; null where it cannot be told.
 */
export function assignChannels(names: readonly string[], channels: readonly string[]): (number | null)[] {
  if (channels.length === 1 && names.length === 1) return [0];
  const stems = names.map((name) => name.replace(/\.nii(\.gz)?$/i, ""));
  const only = (fits: (stem: string) => boolean): number | null => {
    const matching = stems.flatMap((stem, index) => (fits(stem) ? [index] : []));
    return matching.length === 1 ? matching[0] : null;
  };
  const words = (text: string): string[] => text.toLowerCase().split(/[^a-z0-9]+/);
  const guessed = channels.map((channel, number) => {
    const byNumber = only((stem) => stem.endsWith(`_${String(number).padStart(4, "0")}`));
    const byName = (): number | null => only((stem) => words(stem).includes(channel.toLowerCase()));
    return byNumber ?? byName();
  });
  // The same file for two channels is no guess.
  return guessed.map((index) => (guessed.filter((other) => other === index).length > 1 ? null : index));
}

/** Name of the case: that of its first file, without channel and ending. */
export function caseName(name: string): string {
  return name.replace(/\.nii(\.gz)?$/i, "").replace(/_\d{4}$/, "");
}
