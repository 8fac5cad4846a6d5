/** One segmentation in a worker, which is ended to cancel; tried again with less memory or without the GPU. */

import { UserError } from "./errors.js";
import type { Answer, Backend, Order } from "./messages.js";
import type { Phase, Segmentation } from "./segment.js";

export interface JobEvents {
  progress: (phase: Phase, share: number) => void;
  engine: (description: string) => void;
  /** Called once the image has been read, with whether there is room to show it. */
  view: (isRoom: boolean) => void;
}

/** Thrown when somebody cancels. */
export class Cancelled extends Error {
  override name = "Cancelled";
}

export class Job {
  private worker: Worker | null = null;
  private stop: (reason: Error) => void = () => undefined;

  constructor(private readonly events: JobEvents) {}

  /** Segment; see `Order` for what it needs. */
  async run(order: Omit<Order, "sparing">): Promise<Segmentation> {
    let backend: Backend = order.backend;
    let sparing = false;
    for (;;) {
      const answer = await this.attempt({ ...order, backend, sparing });
      if (answer.type === "done") return answer.result;
      if (answer.reason === "user") throw new UserError(answer.message);
      if (answer.reason === "engine") {
        backend = "wasm";
      } else if (answer.reason === "memory" && (backend === "webgpu" || !sparing)) {
        // The memory of a graphics processor may be less than that of the machine.
        if (sparing) backend = "wasm";
        sparing = true;
      } else if (answer.reason === "memory") {
        throw new UserError(
          `The memory of this machine is too small for this volume (${answer.message}). Close other pages, cut the ` +
            "image, or use `seg25d predict` with the same model.",
        );
      } else {
        throw new Error(answer.message);
      }
    }
  }

  /** End the worker at once, whatever it does. */
  cancel(): void {
    this.stop(new Cancelled("cancelled"));
  }

  private attempt(order: Order): Promise<Extract<Answer, { type: "done" | "failed" }>> {
    const worker = new Worker(new URL("./worker.ts", import.meta.url), { type: "module" });
    this.worker = worker;
    return new Promise<Extract<Answer, { type: "done" | "failed" }>>((resolve, reject) => {
      this.stop = reject;
      worker.onerror = (event) => reject(new Error(event.message || "the worker of the page could not start"));
      worker.onmessage = ({ data }: MessageEvent<Answer>) => {
        if (data.type === "progress") this.events.progress(data.phase, data.share);
        else if (data.type === "engine") this.events.engine(data.description);
        else if (data.type === "view") this.events.view(data.isRoom);
        else resolve(data);
      };
      worker.postMessage(order);
    }).finally(() => {
      worker.terminate();
      if (this.worker === worker) this.worker = null;
    });
  }
}

/** WebGPU if the browser offers an adapter that is not made of software, else WebAssembly; `?backend=wasm` chooses. */
export async function chooseBackend(search: string): Promise<Backend> {
  const asked = new URLSearchParams(search).get("backend");
  if (asked === "wasm" || asked === "webgpu") return asked;
  const gpu = (navigator as { gpu?: { requestAdapter(): Promise<GpuAdapter | null> } }).gpu;
  const adapter = await gpu?.requestAdapter().catch(() => null);
  return adapter && !(adapter.info?.isFallbackAdapter ?? adapter.isFallbackAdapter) ? "webgpu" : "wasm";
}

interface GpuAdapter {
  isFallbackAdapter?: boolean;
  info?: { isFallbackAdapter?: boolean };
}
