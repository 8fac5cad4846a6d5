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
  navigator.serviceWorker.addEventListener("message", ({ data }) => {
    if (data === "kept") kept();
  });
  await navigator.serviceWorker.register("service-worker.js");
  const { active } = await navigator.serviceWorker.ready;
  if (!globalThis.crossOriginIsolated && !sessionStorage.getItem(TRIED)) {
    sessionStorage.setItem(TRIED, "yes");
    if (document.body.dataset.state === "starting") {
      location.reload();
      await new Promise(() => undefined);
    }
  }
  active?.postMessage("keep");
}
