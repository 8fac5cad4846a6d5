/** What `page.json` says of the model, as seg25d/portable/page_model.py has it. */

import { UserError } from "./errors.js";
import type { PostProcessing } from "./components.js";
import type { FineRules } from "./fine.js";
import type { CommonShape, Spacing, Triple } from "./grid.js";
import type { Meaning } from "./labels.js";
import type { Normalization } from "./normalize.js";
import type { WindowRules } from "./windows.js";

export const SCHEMA_VERSION = 1;

/** A class or region. */
export interface Structure {
  name: string;
  /** Internal indices that belong to it. */
  members: number[];
  /** The index that it is painted with. */
  index: number;
  /** #rrggbb. */
  colour: string;
}

/** What the model was trained on; ranges over all training cases. */
export interface TrainedOn {
  cases: number;
  /** Along (D, H, W). */
  extent_mm: Triple<[number, number]>;
  spacing_mm: Triple<[number, number]>;
}

export interface Graph {
  file: string;
  bytes: number;
  /** What its content has to be, in the form of `fetch`; its address ends with it, after `?`. */
  integrity: string;
}

export interface PageModel {
  schema_version: number;
  dataset_name: string;
  configuration: string;
  folds: string[];
  channels: Normalization[];
  spacing_mm: Spacing;
  common_shape: CommonShape | null;
  /** One per fold. */
  graphs: Graph[];
  input: string;
  output: string;
  windows: WindowRules;
  /** The coarse model, where this is a fine one; null: it sees whole volumes. */
  fine: FineRules | null;
  meaning: Meaning;
  /** Of the labels; null: there is none. */
  postprocessing: PostProcessing | null;
  structures: Structure[];
  trained_on: TrainedOn | null;
  licence: string | null;
  versions: Record<string, string>;
}

/** Read `page.json` beside the page. */
export async function fetchModel(base: string): Promise<PageModel> {
  const response = await fetch(new URL("page.json", base), { cache: "reload" }).catch(() => null);
  if (!response?.ok) {
    throw new UserError(
      "page.json is missing beside this page. Serve the whole folder that `seg25d export_model --format web` wrote.",
    );
  }
  const model = (await response.json()) as PageModel;
  if (model.schema_version !== SCHEMA_VERSION) {
    throw new UserError(
      `page.json is of version ${model.schema_version}, this page reads ${SCHEMA_VERSION}. Export the model again.`,
    );
  }
  return model;
}
