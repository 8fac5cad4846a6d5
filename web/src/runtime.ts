/** Networks by onnxruntime-web, on the GPU by WebGPU or on the processor by WebAssembly. */

import type * as Ort from "onnxruntime-web";
import { UserError } from "./errors.js";
import type { FineModels } from "./fine.js";
import type { Backend } from "./messages.js";
import type { Graph, PageModel } from "./model.js";
import type { Model } from "./predict.js";
import { gridFor } from "./super_image.js";
import type { WindowRules } from "./windows.js";

/** Version of onnxruntime-web, put here by the build (vite.config.ts). */
declare const __ORT_VERSION__: string;

/** Threads beyond which small convolutions only wait for each other. */
const MOST_THREADS = 8;
/** Where the build puts the files of onnxruntime-web, unchanged. */
const RUNTIMES = `ort/${__ORT_VERSION__}`;
const MODULES: Record<Backend, string> = {
  webgpu: `${RUNTIMES}/ort.webgpu.min.mjs`,
  wasm: `${RUNTIMES}/ort.wasm.min.mjs`,
};
/** Largest difference of scores, as a share of the largest score, between a graphics processor and WebAssembly. */
const TOLERANCE = 0.01;

export interface Engine extends FineModels {
  /** How networks are computed, in words. */
  description: string;
}

/** A graph as it was loaded. */
interface Source {
  bytes: Uint8Array;
  rules: WindowRules;
  model: PageModel;
  base: string;
}

/**
 * Load the networks of all folds.
 *
 * @param base Address of the folder with the page.
 * @param progress Called with the share that is loaded.
 */
export async function loadModels(
  model: PageModel,
  base: string,
  backend: Backend,
  progress: (share: number) => void,
): Promise<Engine> {
  const fine = model.graphs.map((graph) => ({ graph, rules: model.windows }));
  const coarse = model.fine?.graphs.map((graph) => ({ graph, rules: model.fine!.windows })) ?? [];
  const all = [...fine, ...coarse].reduce((sum, { graph }) => sum + graph.bytes, 0);
  let loaded = 0;
  const models: Model[] = [];
  for (const { graph, rules } of [...fine, ...coarse]) {
    const source: Source = { bytes: await fetchGraph(graph, base), rules, model, base };
    const { run } = await open(source, backend);
    models.push(backend === "webgpu" && models.length === 0 ? compared(run, source) : run);
    progress((loaded += graph.bytes) / all);
  }
  const onProcessor = threads() > 1 ? `WebAssembly in ${threads()} threads` : "WebAssembly in one thread";
  return {
    fine: models.slice(0, fine.length),
    coarse: models.slice(fine.length),
    description: backend === "webgpu" ? "WebGPU, on the graphics processor" : onProcessor,
  };
}

/** Threads of WebAssembly, which need a page that is cross-origin isolated. */
function threads(): number {
  return globalThis.crossOriginIsolated ? Math.min(MOST_THREADS, navigator.hardwareConcurrency || 1) : 1;
}

/** Load a graph; its address says what is in it, and the browser checks that. */
async function fetchGraph({ file, integrity }: Graph, base: string): Promise<Uint8Array> {
  const address = new URL(`${file}?${encodeURIComponent(integrity)}`, base);
  const response = await fetch(address, { integrity }).catch(() => null);
  if (!response?.ok) {
    throw new UserError(
      `${file} cannot be loaded, or it is not the one that page.json names: perhaps another model was exported ` +
        "to the folder. Reload the page; if that does not help, serve the whole folder that was exported.",
    );
  }
  return new Uint8Array(await response.arrayBuffer());
}

/** Make a graph ready to compute. */
async function open(
  { bytes, rules, model, base }: Source,
  backend: Backend,
): Promise<{ run: Model; release: () => Promise<void> }> {
  const ort = (await import(/* @vite-ignore */ new URL(MODULES[backend], base).href)) as typeof Ort;
  ort.env.wasm.numThreads = threads();
  ort.env.logLevel = "error";
  const session = await ort.InferenceSession.create(bytes, {
    executionProviders: backend === "webgpu" ? ["webgpu", "wasm"] : ["wasm"],
    graphOptimizationLevel: "all",
  });
  const channels = model.channels.length;
  const run: Model = async (volume, shape) => {
    const given: Record<string, Ort.Tensor> = {
      [model.input]: new ort.Tensor("float32", volume, [1, channels, ...shape]),
    };
    if (rules.grid) {
      const [rows, columns] = gridFor(shape, rules.grid);
      given[rules.grid.input] = new ort.Tensor("float32", new Float32Array(rows * columns), [rows, columns]);
    }
    const scores = (await session.run(given))[model.output];
    const data = (await scores.getData(true)) as Float32Array;
    scores.dispose();
    return data;
  };
  return { run, release: () => session.release() };
}

/** Drivers of graphics processors have faults: the first scores are computed a second time, by WebAssembly. */
function compared(run: Model, source: Source): Model {
  let isCompared = false;
  return async (volume, shape) => {
    const scores = await run(volume, shape);
    if (isCompared) return scores;
    const reference = await open(source, "wasm");
    const wanted = await reference.run(volume, shape);
    await reference.release();
    let largest = 0;
    let difference = 0;
    for (let index = 0; index < wanted.length; index++) {
      largest = Math.max(largest, Math.abs(wanted[index]));
      difference = Math.max(difference, Math.abs(wanted[index] - scores[index]));
    }
    // Not the other way round, as either may be no number.
    if (!(difference <= TOLERANCE * largest)) {
      throw new Error(`the graphics processor computes other scores: a difference of ${difference} of ${largest}`);
    }
    isCompared = true;
    return scores;
  };
}
