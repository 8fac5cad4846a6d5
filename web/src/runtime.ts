/** Networks by onnxruntime-web, on the GPU by WebGPU or on the processor by WebAssembly. */

import type * as Ort from "onnxruntime-web";
import { UserError } from "./errors.js";
import type { FineModels } from "./fine.js";
import type { Backend } from "./messages.js";
import type { PageModel } from "./model.js";
import type { Model } from "./predict.js";

/** Threads beyond which small convolutions only wait for each other. */
const MOST_THREADS = 8;
/** The files of onnxruntime-web, unchanged, that the build copies into the folder `ort`. */
const MODULES: Record<Backend, string> = { webgpu: "ort/ort.webgpu.min.mjs", wasm: "ort/ort.wasm.min.mjs" };

/** Largest difference of scores, as a share of the largest score, between a graphics processor and WebAssembly. */
const TOLERANCE = 0.01;

export interface Engine extends FineModels {
  /** How they are computed, in words. */
  description: string;
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
  const threads = globalThis.crossOriginIsolated ? Math.min(MOST_THREADS, navigator.hardwareConcurrency || 1) : 1;
  const ort = await runtime(backend, base, threads);
  const graphs = [...model.graphs, ...(model.fine?.graphs ?? [])];
  const all = graphs.reduce((sum, graph) => sum + graph.bytes, 0);
  let loaded = 0;
  const models: Model[] = [];
  for (const graph of graphs) {
    const bytes = await fetchGraph(graph.file, graph.bytes, base);
    const session = await ort.InferenceSession.create(bytes, optionsOf(backend));
    const run = runnerOf(ort, session, model);
    const isFirst = models.length === 0;
    models.push(backend === "webgpu" && isFirst ? compared(run, () => reference(bytes, model, base, threads)) : run);
    progress((loaded += graph.bytes) / all);
  }
  const onProcessor = threads > 1 ? `WebAssembly in ${threads} threads` : "WebAssembly in one thread";
  return {
    fine: models.slice(0, model.graphs.length),
    coarse: models.slice(model.graphs.length),
    description: backend === "webgpu" ? "WebGPU, on the graphics processor" : onProcessor,
  };
}

async function runtime(backend: Backend, base: string, threads: number): Promise<typeof Ort> {
  const ort = (await import(/* @vite-ignore */ new URL(MODULES[backend], base).href)) as typeof Ort;
  ort.env.wasm.numThreads = threads;
  ort.env.logLevel = "error";
  return ort;
}

function optionsOf(backend: Backend): Ort.InferenceSession.SessionOptions {
  const executionProviders = backend === "webgpu" ? ["webgpu", "wasm"] : ["wasm"];
  return { executionProviders, graphOptimizationLevel: "all" };
}

/** Drivers of graphics processors have faults: the first scores are computed a second time, by WebAssembly. */
function compared(run: Model, reference: () => Promise<Model>): Model {
  let isCompared = false;
  return async (volume, shape) => {
    const scores = await run(volume, shape);
    if (isCompared) return scores;
    const wanted = await (await reference())(volume, shape);
    let largest = 0;
    let difference = 0;
    for (let index = 0; index < wanted.length; index++) {
      largest = Math.max(largest, Math.abs(wanted[index]));
      difference = Math.max(difference, Math.abs(wanted[index] - scores[index]));
    }
    if (!(difference <= TOLERANCE * largest)) {
      throw new Error(`the graphics processor computes other scores: a difference of ${difference} of ${largest}`);
    }
    isCompared = true;
    return scores;
  };
}

/** A network by WebAssembly, for one pass. */
async function reference(bytes: Uint8Array, model: PageModel, base: string, threads: number): Promise<Model> {
  const ort = await runtime("wasm", base, threads);
  const session = await ort.InferenceSession.create(bytes, optionsOf("wasm"));
  const run = runnerOf(ort, session, model);
  return async (volume, shape) => {
    const scores = await run(volume, shape);
    await session.release();
    return scores;
  };
}

async function fetchGraph(file: string, bytes: number, base: string): Promise<Uint8Array> {
  const response = await fetch(new URL(file, base)).catch(() => null);
  if (!response?.ok) {
    throw new UserError(`${file} cannot be loaded. Serve the whole folder that was exported, then reload the page.`);
  }
  const content = new Uint8Array(await response.arrayBuffer());
  if (content.length !== bytes) {
    throw new UserError(
      `${file} has ${content.length} bytes, expected are ${bytes}. Copy the folder again, then reload the page.`,
    );
  }
  return content;
}

function runnerOf(ort: typeof Ort, session: Ort.InferenceSession, model: PageModel): Model {
  const channels = model.channels.length;
  return async (volume, shape) => {
    const input = new ort.Tensor("float32", volume, [1, channels, ...shape]);
    const outputs = await session.run({ [model.input]: input });
    const scores = outputs[model.output];
    const data = (await scores.getData(true)) as Float32Array;
    scores.dispose();
    return data;
  };
}

/** Whether a failure says that memory ran out. */
export function lacksMemory(error: unknown): boolean {
  const text = error instanceof Error ? `${error.name} ${error.message}` : String(error);
  return /bad_alloc|out of memory|\boom\b|allocat|access out of bounds|array buffer|typed array length/i.test(text);
}
