/** Builds the page into the package, `seg25d/portable/page`, from where `export_model --format web` copies it. */

import { existsSync, readdirSync, readFileSync } from "node:fs";
import { join, resolve } from "node:path";
import { defineConfig, type Plugin } from "vite";

const ROOT = import.meta.dirname;
const PAGE = resolve(ROOT, "../seg25d/portable/page");
const SERVICE_WORKER = "service-worker";
/** What the page loads of onnxruntime-web: one of two modules, with the WebAssembly that it names. */
const RUNTIMES = ["ort.webgpu.min.mjs", "ort.wasm.min.mjs"];
/** Packages whose code is in the page. */
const PACKAGES = ["onnxruntime-web", "@niivue/niivue", "@niivue/dcm2niix"];

function folderOf(name: string): string {
  return join(ROOT, "node_modules", name);
}

function versionOf(name: string): string {
  return JSON.parse(readFileSync(join(folderOf(name), "package.json"), "utf8")).version;
}

/** What the page says in its head. */
function contentSecurityPolicy(): string {
  const page = readFileSync(join(ROOT, "index.html"), "utf8");
  const [, policy] = page.match(/http-equiv="Content-Security-Policy" content="([^"]+)"/) ?? [];
  if (!policy) throw new Error("index.html has no content security policy");
  return policy;
}

/**
 * Copies onnxruntime-web as it is: bundlers break how it starts its threads. Its files name each other, so that they
 * cannot have hashes in their names; the folder of the version makes their addresses change with their content.
 */
function onnxruntime(): Plugin {
  const dist = join(folderOf("onnxruntime-web"), "dist");
  const folder = `ort/${versionOf("onnxruntime-web")}`;
  return {
    name: "onnxruntime",
    apply: "build",
    generateBundle() {
      const known = new Set(readdirSync(dist));
      const files = new Set(RUNTIMES);
      // Modules name others, and these the WebAssembly: what is added while the set is gone through is visited, too.
      for (const name of files) {
        if (!name.endsWith(".mjs")) continue;
        const named = readFileSync(join(dist, name), "utf8").match(/ort-wasm-[\w.-]+?\.(?:mjs|wasm)/g) ?? [];
        named.filter((each) => known.has(each)).forEach((each) => files.add(each));
      }
      for (const name of files) {
        this.emitFile({ type: "asset", fileName: `${folder}/${name}`, source: readFileSync(join(dist, name)) });
      }
    },
  };
}

/** The packages of the page and all that they need. */
function allPackages(names: readonly string[], known = new Set<string>()): Set<string> {
  for (const name of names.filter((each) => !known.has(each) && existsSync(folderOf(each)))) {
    known.add(name);
    const { dependencies = {} } = JSON.parse(readFileSync(join(folderOf(name), "package.json"), "utf8"));
    allPackages(Object.keys(dependencies), known);
  }
  return known;
}

/** Writes the licences of all packages whose code is in the page; some packages name theirs without its text. */
function licences(): Plugin {
  return {
    name: "licences",
    apply: "build",
    generateBundle() {
      const texts = [...allPackages(PACKAGES)].map((name) => {
        const folder = folderOf(name);
        const { version, license } = JSON.parse(readFileSync(join(folder, "package.json"), "utf8"));
        const own = readdirSync(folder).find((each) => /^licen[cs]e/i.test(each));
        const usual = join(ROOT, "licences", `${license}.txt`);
        const text = own ? readFileSync(join(folder, own), "utf8") : existsSync(usual) ? readFileSync(usual, "utf8") : "";
        const notice = own ? "" : `Copyright (c) the authors of ${name}\n\n`;
        return `${name} ${version} (${license})\n\n${notice}${text}`;
      });
      this.emitFile({ type: "asset", fileName: "licences.txt", source: texts.join(`\n\n${"-".repeat(80)}\n\n`) });
    },
  };
}

export default defineConfig({
  root: ROOT,
  base: "./",
  define: {
    __ORT_VERSION__: JSON.stringify(versionOf("onnxruntime-web")),
    __POLICY__: JSON.stringify(contentSecurityPolicy()),
  },
  plugins: [onnxruntime(), licences()],
  worker: { format: "es" },
  build: {
    outDir: PAGE,
    emptyOutDir: true,
    target: "es2022",
    chunkSizeWarningLimit: 4000,
    rollupOptions: {
      input: { index: join(ROOT, "index.html"), [SERVICE_WORKER]: join(ROOT, "src/service-worker.ts") },
      output: {
        entryFileNames: ({ name }) => (name === SERVICE_WORKER ? "[name].js" : "assets/[name]-[hash].js"),
      },
    },
  },
});
