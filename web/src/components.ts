/**
 * Connected components of labels. Post-processing keeps only the largest one and none that is too small, by the rules
 * of seg25d/inference/postprocessing.py; coarse-to-fine leaves out what is small beside the largest one of its class,
 * by those of seg25d/inference/components.py.
 */

import type { Shape } from "./grid.js";

/** Voxels that share a side are connected, or also those that share a corner: how far neighbouring runs reach. */
const SIDES = 0;
const CORNERS = 1;
/** Minimum size of a component to be kept, as a share of the largest component of its class. */
const LARGE = 0.5;

/** What becomes of the components of a class or region. */
export interface ComponentRule {
  /** Internal indices that belong to it. */
  members: number[];
  /** The index that removed voxels get. */
  beneath: number;
  /** Whether only the largest one is kept. */
  largest: boolean;
  /** Minimum volume. */
  smallest_mm3: number;
}

/** Steps in their order. */
export interface PostProcessing {
  /** Whether only the largest component of all foreground is kept, before all else. */
  largest_foreground: boolean;
  components: ComponentRule[];
  /** All that is done, thresholds too, in words. */
  steps: string[];
}

/** The components of each kind of voxels, by their runs along W, in the order of the volume. */
interface Components {
  /** First voxel of each run in the volume, and the one behind its last. */
  starts: number[];
  stops: number[];
  /** The kind of each run. */
  kinds: number[];
  /** The component of each run: the number of its first run. */
  roots: number[];
  /** Voxels, by the number of a component. */
  sizes: number[];
}

/**
 * Remove components.
 *
 * @param indices Internal indices (D, H, W), which are changed.
 * @param voxelMm3 Volume of a voxel.
 */
export function removeComponents(
  indices: Uint8Array,
  shape: Shape,
  voxelMm3: number,
  { largest_foreground, components }: PostProcessing,
): void {
  if (largest_foreground) {
    const foreground = Array.from({ length: 255 }, (_, index) => index + 1);
    keep(indices, shape, { members: foreground, beneath: 0, largest: true, smallest_mm3: 0 }, voxelMm3);
  }
  for (const rule of components) keep(indices, shape, rule, voxelMm3);
}

/** Keep the components that a rule lets be. */
function keep(indices: Uint8Array, shape: Shape, rule: ComponentRule, voxelMm3: number): void {
  const kindOf = new Uint8Array(256);
  for (const index of rule.members) kindOf[index] = 1;
  const { starts, stops, roots, sizes } = findComponents(indices, shape, kindOf, CORNERS);
  // The first of equal ones.
  const largest = sizes.reduce((best, size, root) => (size > (sizes[best] ?? 0) ? root : best), 0);
  roots.forEach((root, run) => {
    const isKept = sizes[root] * voxelMm3 >= rule.smallest_mm3 && (!rule.largest || root === largest);
    if (!isKept) indices.fill(rule.beneath, starts[run], stops[run]);
  });
}

/**
 * Runs of voxels in the components with less than half of the voxels of the largest one of their class.
 *
 * @param indices Internal indices (D, H, W); 0 is background.
 * @returns First voxel of each run in the volume, and the one behind its last.
 */
export function smallComponents(indices: Uint8Array, shape: Shape): [start: number, stop: number][] {
  const each = Uint8Array.from({ length: 256 }, (_, index) => index);
  const { starts, stops, kinds, roots, sizes } = findComponents(indices, shape, each, SIDES);
  const most = new Float64Array(256);
  sizes.forEach((size, run) => (most[kinds[run]] = Math.max(most[kinds[run]], size)));
  return roots.flatMap((root, run): [number, number][] =>
    sizes[root] < LARGE * most[kinds[run]] ? [[starts[run], stops[run]]] : [],
  );
}

/**
 * Find the components of each kind of voxels in one pass, row by row: runs take less memory than voxels.
 *
 * @param kindOf The kind of each of the 256 indices; 0: of none.
 * @param reach `SIDES` or `CORNERS`.
 */
function findComponents(
  indices: Uint8Array,
  [depth, height, width]: Shape,
  kindOf: Uint8Array,
  reach: number,
): Components {
  const starts: number[] = [];
  const stops: number[] = [];
  const kinds: number[] = [];
  const roots: number[] = [];
  /** The first run of each row, and the number of all behind the last. */
  const rows = new Int32Array(depth * height + 1);
  const rootOf = (run: number): number => {
    while (roots[run] !== run) run = roots[run] = roots[roots[run]];
    return run;
  };
  const join = (first: number, second: number): void => {
    const [one, other] = [rootOf(first), rootOf(second)];
    roots[Math.max(one, other)] = Math.min(one, other);
  };
  /** Join the runs of a row with those of their kind in an earlier one that they touch. */
  const joinRows = (row: number, earlier: number): void => {
    const shift = (row - earlier) * width;
    let first = rows[earlier];
    for (let run = rows[row]; run < rows[row + 1]; run++) {
      while (first < rows[earlier + 1] && stops[first] + shift + reach <= starts[run]) first++;
      for (let other = first; other < rows[earlier + 1] && starts[other] + shift < stops[run] + reach; other++) {
        if (kinds[run] === kinds[other]) join(run, other);
      }
    }
  };
  for (let row = 0, at = 0; row < depth * height; row++) {
    for (const end = at + width; at < end; ) {
      const start = at;
      const kind = kindOf[indices[at++]];
      while (at < end && kindOf[indices[at]] === kind) at++;
      if (kind === 0) continue;
      roots.push(starts.length);
      starts.push(start);
      stops.push(at);
      kinds.push(kind);
    }
    rows[row + 1] = starts.length;
    if (rows[row + 1] === rows[row]) continue;
    const h = row % height;
    if (h > 0) joinRows(row, row - 1);
    if (row < height) continue;
    for (let other = Math.max(0, h - reach); other <= Math.min(height - 1, h + reach); other++) {
      joinRows(row, row - h - height + other);
    }
  }
  const sizes = new Array<number>(starts.length).fill(0);
  roots.forEach((_, run) => {
    roots[run] = rootOf(run);
    sizes[roots[run]] += stops[run] - starts[run];
  });
  return { starts, stops, kinds, roots, sizes };
}
