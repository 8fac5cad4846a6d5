/**
 * Answers requests of the page with the headers that make it cross-origin isolated and that bind its workers, from the
 * network where there is one, else from what it keeps.
 *
 * A server may have another model under the same address from one day to the next. So only what is addressed by its
 * content comes from the cache first.
 */

const worker = self as unknown as ServiceWorkerGlobalScope;
/** Digest of all files; seg25d/portable/web_page.py puts it here, so that another model is another worker. */
const VERSION = "__SEG25D_VERSION__";
const { scope } = worker.registration;
const PREFIX = `seg25d ${scope} `;
const CACHE = PREFIX + VERSION;
/** Lists the addresses that any browser needs; those for graphics processors are kept once they have been loaded. */
const FILES = "files.json";
/** ONNX Runtime, in a folder of its version. */
const RUNTIMES = `${scope}ort/`;
/** Files with a hash of their content or a version in their names. */
const FIXED = [`${scope}assets/`, RUNTIMES];
/** How the addresses of graphs end: `?` and what the browser is to check, as `page.json` says it. */
const INTEGRITY = /^\?sha256-/;
/** From this status on it is the server that fails: as good as no network. */
const SERVER_FAILS = 500;
/** Longest wait for a network that does not answer, where something is kept. */
const PATIENCE_MS = 3000;
/** How long nothing is expected of it then, unless it answers after all. */
const SILENCE_MS = 60_000;
/** Content security policy of the page, put here by the build (vite.config.ts). */
declare const __POLICY__: string;
let silentUntil = 0;

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
  const { method, url, destination } = event.request;
  if (method !== "GET" || !url.startsWith(scope)) return;
  const answered = answer(url.split("#")[0]);
  // The policy in the page does not bind its workers: theirs is that of their own scripts.
  event.respondWith(destination === "worker" ? answered.then(bound) : answered);
});

/** Keep all files of the model that the server has now, and none of another one. */
async function keepAll(client: Client | ServiceWorker | MessagePort | null): Promise<void> {
  const cache = await caches.open(CACHE);
  const list = await answer(new URL(FILES, scope).href);
  const names = (await list.json()) as string[];
  const addresses = ["./", FILES, ...names].map((name) => new URL(name, scope).href);
  for (const address of addresses) {
    const kept = await cache.match(address);
    if (kept && isAddressedByContent(address)) continue;
    const asked = fetchFresh(address);
    const response = await (kept ? inTime(asked) : asked);
    if (response?.ok) await cache.put(address, response);
    else if (!kept) return;
  }
  const others = (await cache.keys()).filter(({ url }) => !addresses.includes(url) && !url.startsWith(RUNTIMES));
  await Promise.all(others.map((other) => cache.delete(other)));
  client?.postMessage("kept");
}

async function answer(address: string): Promise<Response> {
  // Without room, or where a browser lets nothing be kept, the page works as long as there is a network.
  const cache = await caches.open(CACHE).catch(() => null);
  const isFixed = isAddressedByContent(address);
  // The page is the same whatever stands behind `?`.
  const kept = await cache?.match(address, { ignoreSearch: !isFixed });
  if (kept && isFixed) return isolated(kept);
  const asked = fetchAndKeep(address, cache);
  if (!kept) return isolated(await asked);
  const response = await inTime(asked);
  return isolated(response && response.status < SERVER_FAILS ? response : kept);
}

/** What the network answers; null if it fails, or does not answer in time. */
async function inTime(asked: Promise<Response>): Promise<Response | null> {
  let timer = 0;
  const late = new Promise<null>((resolve) => {
    const patience = performance.now() < silentUntil ? 0 : PATIENCE_MS;
    timer = setTimeout(() => {
      silentUntil = performance.now() + SILENCE_MS;
      resolve(null);
    }, patience);
  });
  const answered = asked.then(
    (response) => {
      silentUntil = 0;
      return response;
    },
    () => null,
  );
  return Promise.race([answered, late]).finally(() => clearTimeout(timer));
}

function isAddressedByContent(address: string): boolean {
  return FIXED.some((folder) => address.startsWith(folder)) || INTEGRITY.test(new URL(address).search);
}

/** Fetch, and keep it in place of what was there. */
async function fetchAndKeep(address: string, cache: Cache | null): Promise<Response> {
  const response = await fetchFresh(address);
  if (response.status === 200) await cache?.put(address, response.clone()).catch(() => undefined);
  return response;
}

/**
 * Fetch; fails if the content is not that of the address. What has another content tomorrow is asked for as if it was
 * for the first time: servers that go by times say of an older file that nothing has changed.
 */
function fetchFresh(address: string): Promise<Response> {
  const { search } = new URL(address);
  const integrity = INTEGRITY.test(search) ? decodeURIComponent(search.slice(1)) : "";
  const cache = isAddressedByContent(address) ? "default" : "reload";
  return fetch(address, { cache, credentials: "same-origin", integrity });
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

/** The script of a worker, with the policy that binds it. */
function bound(response: Response): Response {
  const headers = new Headers(response.headers);
  headers.set("Content-Security-Policy", __POLICY__);
  return new Response(response.body, { status: response.status, statusText: response.statusText, headers });
}
