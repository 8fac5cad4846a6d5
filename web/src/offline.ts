/**
 * The service worker: it makes the page cross-origin isolated, which threads of WebAssembly need, on any static server,
 * and keeps all files for use without a network.
 */

const TRIED = "seg25d-isolation-tried";

/**
 * Register the service worker; reloads the page once if that makes it isolated.
 *
 * @param kept Called when all files are kept.
 */
export async function startOffline(kept: () => void): Promise<void> {
  // Only secure addresses (https, localhost) have service workers; the page works without, in one thread.
  if (!("serviceWorker" in navigator) || !window.isSecureContext) return;
  const container = navigator.serviceWorker;
  const registration = await container.register("service-worker.js");
  container.addEventListener("message", ({ data }) => {
    // What a worker keeps goes with it when another version takes its place.
    if (data === "kept" && !registration.installing && !registration.waiting) kept();
  });
  container.addEventListener("controllerchange", () => container.controller?.postMessage("keep"));
  const { active } = await container.ready;
  if (!globalThis.crossOriginIsolated && !sessionStorage.getItem(TRIED)) {
    sessionStorage.setItem(TRIED, "yes");
    if (document.body.dataset.state === "starting") {
      location.reload();
      await new Promise(() => undefined);
    }
  }
  // Another version is looked for at once, so that nothing is kept for one that goes; nobody waits for that.
  void registration
    .update()
    .catch(() => undefined)
    .then(() => active?.postMessage("keep"));
}
