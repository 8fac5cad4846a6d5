/**
 * The service worker: it makes the page cross-origin isolated, which threads of WebAssembly need, on any static server,
 * and keeps all files for use without a network.
 */

/** Begins the key that says that a page was reloaded for isolation. */
const TRIED = "seg25d-isolation-tried ";

/**
 * Register the service worker; reloads the page once if that makes it isolated.
 *
 * @param kept Called when all files are kept.
 */
export async function startOffline(kept: () => void): Promise<void> {
  // Only secure addresses (https, localhost) have service workers; the page works without, in one thread.
  if (!("serviceWorker" in navigator) || !window.isSecureContext) return;
  // For each folder of the origin, and for the next time that a forced reload passes by the worker. What isolated pages
  // remove from the storage of a tab, the others in it still see in Chromium 156.
  const tried = TRIED + document.baseURI;
  if (globalThis.crossOriginIsolated) localStorage.removeItem(tried);
  const container = navigator.serviceWorker;
  const registration = await container.register("service-worker.js");
  container.addEventListener("message", ({ data }) => {
    // What a worker keeps goes with it when another version takes its place.
    if (data === "kept" && !registration.installing && !registration.waiting) kept();
  });
  container.addEventListener("controllerchange", () => container.controller?.postMessage("keep"));
  const { active } = await container.ready;
  if (!globalThis.crossOriginIsolated && !localStorage.getItem(tried) && document.body.dataset.state === "starting") {
    localStorage.setItem(tried, "yes");
    location.reload();
    await new Promise(() => undefined);
  }
  // Another version is looked for at once, so that nothing is kept for one that goes; nobody waits for that.
  void registration
    .update()
    .catch(() => undefined)
    .then(() => active?.postMessage("keep"));
}
