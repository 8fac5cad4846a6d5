/** Builds `checks/main.ts` for node, with which tests/web compares this code with Python's number for number. */

import { join } from "node:path";
import { defineConfig } from "vite";

export default defineConfig({
  root: import.meta.dirname,
  // The converter needs a browser.
  resolve: { alias: { "@niivue/dcm2niix": join(import.meta.dirname, "checks/dcm2niix.ts") } },
  build: {
    ssr: join(import.meta.dirname, "checks/main.ts"),
    outDir: "build/checks",
    emptyOutDir: true,
    target: "node20",
    rollupOptions: { output: { entryFileNames: "checks.mjs" } },
  },
});
