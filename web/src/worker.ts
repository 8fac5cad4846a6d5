/** The worker that segments, so that the page stays responsive; it is ended to cancel. */

import { UserError } from "./errors.js";
import type { FineModels } from "./fine.js";
import type { Answer, Order } from "./messages.js";
import { lacksMemory } from "./memory.js";
import { loadModels } from "./runtime.js";
import { segment } from "./segment.js";

const say = (answer: Answer, transfer: Transferable[] = []): void => self.postMessage(answer, { transfer });

/** Between two messages about progress. */
const PAUSE_MS = 100;

self.addEventListener("message", ({ data }: MessageEvent<Order>) => {
  void work(data);
});

async function work({ files, model, base, backend, budget, sparing }: Order): Promise<void> {
  let computing = false;
  let said = 0;
  let phaseSaid = "";
  try {
    const load = async (): Promise<FineModels> => {
      computing = true;
      const engine = await loadModels(model, base, backend, (share) =>
        say({ type: "progress", phase: "loading", share }),
      );
      say({ type: "engine", description: engine.description });
      return engine;
    };
    const result = await segment(files, model, load, {
      sparing,
      budget,
      view: (isRoom) => say({ type: "view", isRoom }),
      progress: (phase, share) => {
        if (phase === phaseSaid && share < 1 && performance.now() - said < PAUSE_MS) return;
        [said, phaseSaid] = [performance.now(), phase];
        say({ type: "progress", phase, share });
      },
    });
    say({ type: "done", result }, [result.labels.buffer, result.indices.buffer]);
  } catch (error) {
    const isNumber = typeof error === "number";
    const said = isNumber ? `ONNX Runtime ended with ${error}` : String(error);
    const message = error instanceof Error ? error.message : said;
    const reason =
      error instanceof UserError
        ? "user"
        : lacksMemory(error)
          ? "memory"
          : computing && backend === "webgpu"
            ? "engine"
            : "fault";
    say({ type: "failed", reason, message });
  }
}
