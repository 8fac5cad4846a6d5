/** From scores to labels: the rules of `Labels.from_scores` and `Labels.decode` (seg25d/data/labels.py). */

/** Meaning of the scores of a model. */
export interface Meaning {
  /** Value of label files for each internal index; the first is background. */
  values: number[];
  /** The index that each region (sigmoid) is painted with, in this order; null: classes (softmax). */
  paint: number[] | null;
  /**
   * Lowest scores of each region, or of the only class: the logits of thresholds; null: above 0 for regions, the
   * largest for classes.
   */
  score_thresholds: number[] | null;
}

/**
 * Choose the internal index of every pixel.
 *
 * @param scores (K, n).
 * @param count n.
 */
export function indicesFromScores(scores: Float32Array, count: number, meaning: Meaning): Uint8Array {
  const indices = new Uint8Array(count);
  const numOutputs = scores.length / count;
  const { paint, score_thresholds: lowest } = meaning;
  if (paint) {
    paint.forEach((index, region) => {
      const from = region * count;
      for (let pixel = 0; pixel < count; pixel++) {
        const score = scores[from + pixel];
        if (lowest ? score >= lowest[region] : score > 0) indices[pixel] = index;
      }
    });
    return indices;
  }
  if (lowest) {
    for (let pixel = 0; pixel < count; pixel++) {
      const difference = Math.fround(scores[count + pixel] - scores[pixel]);
      if (difference >= lowest[0]) indices[pixel] = 1;
    }
    return indices;
  }
  // The first of equal scores.
  const best = scores.slice(0, count);
  for (let index = 1; index < numOutputs; index++) {
    const from = index * count;
    for (let pixel = 0; pixel < count; pixel++) {
      const score = scores[from + pixel];
      if (score > best[pixel]) {
        best[pixel] = score;
        indices[pixel] = index;
      }
    }
  }
  return indices;
}

/** Turn internal indices into the values of label files, in the smallest type that holds all of them. */
export function decode(indices: Uint8Array, values: readonly number[]): Uint8Array | Uint16Array | Int32Array {
  const top = Math.max(...values);
  const result =
    top <= 255
      ? new Uint8Array(indices.length)
      : top <= 65535
        ? new Uint16Array(indices.length)
        : new Int32Array(indices.length);
  for (let index = 0; index < indices.length; index++) result[index] = values[indices[index]];
  return result;
}

/** Voxels per internal index. */
export function countIndices(indices: Uint8Array): number[] {
  const counts = new Array<number>(256).fill(0);
  for (let index = 0; index < indices.length; index++) counts[indices[index]]++;
  return counts;
}
