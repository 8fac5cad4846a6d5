/** Which of several files is which channel. */

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
