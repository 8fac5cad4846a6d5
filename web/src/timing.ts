/** How long something will still take, in words. */

/** Below this share a rate says little. */
const SMALLEST_SHARE = 0.02;
const FIRST_MS = 1500;

/**
 * @param elapsedMs Since the work began.
 * @param share Of the work that is done.
 * @returns Words, or null while too little is known.
 */
export function timeLeft(elapsedMs: number, share: number): string | null {
  if (share < SMALLEST_SHARE || elapsedMs < FIRST_MS) return null;
  const seconds = ((elapsedMs / share) * (1 - share)) / 1000;
  if (seconds < 10) return "a few seconds left";
  if (seconds < 55) return `about ${5 * Math.round(seconds / 5)} seconds left`;
  const minutes = Math.max(1, Math.round(seconds / 60));
  if (minutes >= 90) return `about ${Math.round(minutes / 60)} hours left`;
  return `about ${minutes} minute${minutes === 1 ? "" : "s"} left`;
}

/** A duration in words. */
export function duration(ms: number): string {
  const seconds = Math.round(ms / 1000);
  return seconds < 100 ? `${Math.max(1, seconds)} s` : `${Math.floor(seconds / 60)} min ${seconds % 60} s`;
}
