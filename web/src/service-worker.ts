/** Answers requests of the page from the cache, with the headers that make it cross-origin isolated. */

const worker = self as unknown as ServiceWorkerGlobalScope;
/** Digest of all files; seg25d/portable/web_page.py puts it here, so that another model is another worker. */
const VERSION = "__SEG25D_VERSION__";
const PREFIX = `seg25d ${worker.registration.scope} `;
const CACHE = PREFIX + VERSION;
/** Lists the files that any browser needs; those for graphics processors are kept once they have been loaded. */
const FILES = "files.json";

worker.addEventListener("install", () => void worker.skipWaiting());

worker.addEventListener("activate", (event) => {
  event.waitUntil(
    caches
      .keys()
      .then((names) => names.filter((name) => name.startsWith(PREFIX) && name !== CACHE))
      .then((old) => Promise.all(old.map((name) => caches.delete(name))))
      .then(() => worker.clients.claim()),
  );
});

worker.addEventListener("message", (event) => {
  if (event.data === "keep") event.waitUntil(keepAll(event.source).catch(() => undefined));
});

worker.addEventListener("fetch", (event) => {
  const { method, url } = event.request;
  if (method === "GET" && url.startsWith(worker.registration.scope)) event.respondWith(answer(url.split("#")[0]));
});

async function keepAll(client: Client | ServiceWorker | MessagePort | null): Promise<void> {
  const cache = await caches.open(CACHE);
  const list = await answer(new URL(FILES, worker.registration.scope).href);
  const names = (await list.json()) as string[];
  for (const name of ["./", ...names]) {
    const address = new URL(name, worker.registration.scope).href;
    if (await cache.match(address)) continue;
    const response = await fetchFresh(address);
    if (!response.ok) return;
    await cache.put(address, response);
  }
  client?.postMessage("kept");
}

async function answer(address: string): Promise<Response> {
  // Without room, or where a browser lets nothing be kept, the page works as long as there is a network.
  const cache = await caches.open(CACHE).catch(() => null);
  const found = await cache?.match(address, { ignoreSearch: true });
  if (found) return isolated(found);
  const response = await fetchFresh(address);
  if (response.status === 200) await cache?.put(address, response.clone()).catch(() => undefined);
  return isolated(response);
}

function fetchFresh(address: string): Promise<Response> {
  return fetch(address, { cache: "no-cache", credentials: "same-origin" });
}

function isolated(response: Response): Response {
  const headers = new Headers(response.headers);
  // Servers that do not know these endings say nothing that a browser runs (nginx's mime.types has no mjs).
  const path = new URL(response.url || "http://none/").pathname;
  if (path.endsWith(".mjs")) headers.set("Content-Type", "text/javascript");
  if (path.endsWith(".wasm")) headers.set("Content-Type", "application/wasm");
  headers.set("Cross-Origin-Opener-Policy", "same-origin");
  headers.set("Cross-Origin-Embedder-Policy", "require-corp");
  headers.set("Cross-Origin-Resource-Policy", "same-origin");
  return new Response(response.body, { status: response.status, statusText: response.statusText, headers });
}
