/** Work on many files, a few of them at a time. */

/** To read one after the other takes long on shared disks, and what reads all at once cannot be ended. */
const AT_ONCE = 16;

/**
 * Do something with each file.
 *
 * @param signal Ends it before the next few.
 * @returns What came of each, in the order of the files.
 */
export async function inParts<T>(
  files: readonly File[],
  work: (file: File) => Promise<T>,
  signal?: AbortSignal,
): Promise<T[]> {
  const results: T[] = [];
  for (let start = 0; start < files.length; start += AT_ONCE) {
    signal?.throwIfAborted();
    results.push(...(await Promise.all(files.slice(start, start + AT_ONCE).map(work))));
  }
  return results;
}
