/** What the page and its worker say to each other. */

import type { PageModel } from "./model.js";
import type { ChannelFile, Phase, Segmentation } from "./segment.js";

/** How networks are computed. */
export type Backend = "webgpu" | "wasm";

export interface Order {
  files: ChannelFile[];
  model: PageModel;
  /** Address of the folder with the page. */
  base: string;
  backend: Backend;
  /** Bytes that the page may take; workers cannot tell. */
  budget: number;
  sparing: boolean;
}

export type Answer =
  | { type: "progress"; phase: Phase; share: number }
  | { type: "engine"; description: string }
  /** Whether there is room to show the image. */
  | { type: "view"; isRoom: boolean }
  | { type: "done"; result: Segmentation }
  /** `memory`: try again with smaller windows; `engine`: try again without the GPU; `fault`: one of ours. */
  | { type: "failed"; reason: "user" | "memory" | "engine" | "fault"; message: string };
