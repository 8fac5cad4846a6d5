/** The page: takes files, shows what is done and what came of it. */

import "../../seg25d/report/assets/report.css";
import "./style.css";
import { aboutModel, OFFLINE } from "./about.js";
import { assignChannels, caseName, checkNumber } from "./channels.js";
import { element, make, save, show } from "./dom.js";
import { UserError } from "./errors.js";
import { droppedFiles, findVolumes } from "./files.js";
import { Cancelled, chooseBackend, Job } from "./job.js";
import type { Backend } from "./messages.js";
import { memoryBudget } from "./memory.js";
import { fetchModel, type PageModel } from "./model.js";
import { product } from "./grid.js";
import { compressed } from "./gzip.js";
import { readFileHeader } from "./nifti.js";
import { startOffline } from "./offline.js";
import { Progress } from "./progress.js";
import type { ChannelFile, Measured, Segmentation } from "./segment.js";
import { duration } from "./timing.js";
import { MOST_VOXELS, Viewer, type Layout } from "./viewer.js";

/** What the page does; `data-state` of its body says it, also to those who drive the page by scripts. */
type State = "starting" | "ready" | "reading" | "assigning" | "running" | "done" | "failed" | "cancelled";

/** Longest wait for the service worker, without which the page works in one thread. */
const PATIENCE_MS = 4000;
const NO_ROOM = " The image is not drawn, as that takes more memory than there is; the segmentation can be saved.";
const SLIDERS = ["sagittal", "coronal", "axial"] as const;

class Page {
  private job: Job | null = null;
  /** Ends the reading of DICOM files. */
  private reading: AbortController | null = null;
  private viewer: Promise<Viewer | null> | null = null;
  /** Ends when the image is shown, or cannot be. */
  private drawing: Promise<void> = Promise.resolve();
  private volumes: ChannelFile[] = [];
  private leftOut: string[] = [];
  private engine = "";
  /** Why the image is not drawn. */
  private undrawn = "";
  private progress = new Progress();
  private result: { segmentation: Segmentation; name: string } | null = null;
  /** Counts what was begun, so that what was overtaken keeps quiet. */
  private turn = 0;

  constructor(
    private readonly model: PageModel,
    private readonly backend: Backend,
  ) {}

  start(): void {
    const template = element<HTMLTemplateElement>("input-template");
    template.replaceWith(template.content);
    this.describe();
    this.listen();
    show("starting", false);
    show("model-section", true);
    this.enter("ready");
  }

  private enter(state: State, said = ""): void {
    const wasBusy = this.isBusy;
    document.body.dataset.state = state;
    element("status").textContent = said;
    const isBusy = state === "running" || state === "reading";
    show("work", isBusy);
    if (!isBusy) this.progress.end();
    show("assign", state === "assigning");
    show("result", state === "done");
    for (const id of ["files", "folder"]) element<HTMLInputElement>(id).disabled = isBusy;
    // What had the focus is hidden or disabled from now on.
    if (isBusy && !wasBusy) element("work").focus({ preventScroll: true });
  }

  private describe(): void {
    const { model } = this;
    const names = model.structures.map((structure) => structure.name).join(", ");
    const channels = model.channels.map((channel) => channel.channel).join(", ");
    document.title = `${model.dataset_name} · seg25d`;
    element("title").textContent = model.dataset_name;
    element("about").textContent = `Finds ${names} in images of ${channels}.`;
    const isOffline = document.body.dataset.offline === "ready";
    for (const [term, text, id] of aboutModel(model, this.backend, isOffline)) {
      element("model").append(make("dt", { textContent: term }), make("dd", { textContent: text, ...(id && { id }) }));
    }
  }

  private listen(): void {
    for (const id of ["files", "folder"]) {
      const input = element<HTMLInputElement>(id);
      input.addEventListener("change", () => {
        const files = [...(input.files ?? [])];
        input.value = "";
        if (files.length > 0) void this.take(() => Promise.resolve(files));
      });
    }
    const drop = element("drop");
    const isOver = (over: boolean) => (event: DragEvent): void => {
      event.preventDefault();
      drop.classList.toggle("over", over);
    };
    // Anywhere on the page, as a browser would leave the page for a file that is dropped beside its place.
    document.addEventListener("dragover", isOver(true));
    document.addEventListener("dragleave", isOver(false));
    document.addEventListener("drop", (event) => {
      isOver(false)(event);
      const items = event.dataTransfer?.items;
      if (items && items.length > 0 && !this.isBusy) {
        const files = droppedFiles(items);
        void this.take(() => files);
      }
    });
    element<HTMLFormElement>("assign").addEventListener("submit", (event) => {
      event.preventDefault();
      void this.segmentAssigned();
    });
    element("cancel").addEventListener("click", () => {
      this.turn++;
      this.reading?.abort();
      this.job?.cancel();
      this.job = null;
      this.enter("cancelled", "Cancelled. Choose an image to begin again.");
      element("files").focus();
    });
    element("save").addEventListener("click", () => void this.saveResult());
    element("again").addEventListener("click", () => {
      this.clear();
      this.enter("ready", "Choose another image.");
      element("files").focus();
    });
    this.listenToControls();
    window.addEventListener("beforeunload", (event) => {
      if (this.isBusy) event.preventDefault();
    });
  }

  private listenToControls(): void {
    const opacity = element<HTMLInputElement>("opacity");
    opacity.addEventListener("input", () => {
      sayPlace(opacity);
      void this.viewer?.then((viewer) => viewer?.setOpacity(Number(opacity.value) / 100));
    });
    document.querySelectorAll<HTMLInputElement>("input[name=layout]").forEach((input) =>
      input.addEventListener("change", () => {
        void this.viewer?.then((viewer) => viewer?.setLayout(input.value as Layout));
      }),
    );
    SLIDERS.forEach((name, axis) => {
      const slider = element<HTMLInputElement>(name);
      slider.addEventListener("input", () => {
        sayPlace(slider);
        void this.viewer?.then((viewer) => viewer?.moveTo(axis as 0 | 1 | 2, Number(slider.value)));
      });
    });
  }

  private get isBusy(): boolean {
    return ["running", "reading"].includes(document.body.dataset.state ?? "");
  }

  private clear(): void {
    this.result = null;
    this.volumes = [];
    this.leftOut = [];
    this.undrawn = "";
    show("view", false);
    show("problem", false);
    show("doubts", false);
  }

  /** Take what was chosen or dropped, and begin if it is clear which file is which channel. */
  private async take(files: () => Promise<File[]>): Promise<void> {
    const turn = ++this.turn;
    this.clear();
    this.progress.begin("reading");
    this.enter("reading", "Reading the files.");
    this.reading = new AbortController();
    const { signal } = this.reading;
    try {
      const converting = (): void => void (element("phase").textContent = "Reading the DICOM files");
      const budget = memoryBudget(navigator);
      const { volumes: found, leftOut, isClear } = await findVolumes(await files(), { converting, budget, signal });
      const channels = this.model.channels.map((channel) => channel.channel);
      await checkNumber(found, channels, leftOut);
      if (turn !== this.turn) return;
      [this.volumes, this.leftOut] = [found, leftOut];
      const assigned = assignChannels(found.map((volume) => volume.name), channels);
      if (isClear && found.length === channels.length && assigned.every((index) => index !== null)) {
        await this.segment(assigned.map((index) => found[index]));
      } else {
        this.ask(assigned);
      }
    } catch (error) {
      if (turn === this.turn) this.fail(error);
    }
  }

  /** Let the user say which file is which channel. */
  private ask(assigned: (number | null)[]): void {
    const rows = this.model.channels.map((channel, number) => {
      const options = this.volumes.map((volume, index) =>
        make("option", { value: String(index), textContent: volume.name, selected: assigned[number] === index }),
      );
      const empty = make("option", { value: "", textContent: "choose a file", selected: assigned[number] === null });
      const select = make("select", { name: `channel-${number}`, required: true }, [empty, ...options]);
      return make("label", { className: "channel" }, [make("span", { textContent: channel.channel }), select]);
    });
    element("channels").replaceChildren(...rows);
    this.warn([]);
    const without = this.leftOut.length > 0 ? `, series left out: ${this.leftOut.length}` : "";
    this.enter("assigning", `Images found: ${this.volumes.length}${without}. Say which is which, then press Segment.`);
    element("channels").querySelector("select")?.focus();
  }

  private async segmentAssigned(): Promise<void> {
    const chosen = [...element("channels").querySelectorAll("select")].map((select) => Number(select.value));
    if (new Set(chosen).size < chosen.length) {
      this.fail(new UserError("One file was chosen for two channels. Choose one for each."), "assigning");
      return;
    }
    show("problem", false);
    await this.segment(chosen.map((index) => this.volumes[index]));
  }

  private async segment(files: ChannelFile[]): Promise<void> {
    const turn = ++this.turn;
    const began = performance.now();
    this.enter("running");
    this.progress.begin("reading");
    let isShown = false;
    const job = new Job({
      progress: (phase, share) => {
        if (turn === this.turn) this.progress.advance(phase, share);
      },
      view: (isRoom) => {
        if (turn !== this.turn || isShown) return;
        isShown = isRoom;
        if (isRoom) this.drawing = this.showImage(files[0], turn);
        else this.undrawn = NO_ROOM;
      },
      engine: (description) => {
        this.engine = description;
        element("engine").textContent = description;
      },
    });
    this.job = job;
    try {
      const base = document.baseURI;
      const budget = memoryBudget(navigator);
      const result = await job.run({ files, model: this.model, base, backend: this.backend, budget });
      if (turn !== this.turn) return;
      await this.showResult(result, files[0].name, performance.now() - began, turn);
    } catch (error) {
      if (turn === this.turn && !(error instanceof Cancelled)) this.fail(error);
    }
  }

  private async showImage(volume: ChannelFile, turn: number): Promise<void> {
    try {
      const header = await readFileHeader(volume.file, volume.name);
      if (product(header.sizes) > MOST_VOXELS) {
        this.undrawn = NO_ROOM;
        return;
      }
      this.viewer ??= Viewer.start(element<HTMLCanvasElement>("stage"), (place) =>
        SLIDERS.forEach((name, axis) => {
          const slider = element<HTMLInputElement>(name);
          slider.value = String(place[axis]);
          sayPlace(slider);
        }),
      );
      show("view", true);
      const viewer = await this.viewer;
      if (turn !== this.turn) return;
      if (!viewer) show("view", false);
      else await viewer.showImage(volume.file, volume.name, header);
    } catch {
      // A browser may have no room for it; it is segmented all the same.
      show("view", false);
    }
  }

  private async showResult(segmentation: Segmentation, name: string, spentMs: number, turn: number): Promise<void> {
    this.result = { segmentation, name: `${caseName(name)}_segmentation.nii.gz` };
    const { structures, doubts } = segmentation;
    element("structures").replaceChildren(...structures.map((structure) => this.row(structure)));
    element("spent").textContent = `Took ${duration(spentMs)}, computed by ${this.engine}.${this.undrawn}`;
    this.warn(doubts);
    this.enter("done", `Done: ${structures.map((each) => `${each.name} ${inMl(each.millilitres)} ml`).join(", ")}.`);
    element("result").focus({ preventScroll: true });
    await this.drawing;
    const viewer = await this.viewer;
    if (turn !== this.turn || !viewer || element("view").hidden) return;
    try {
      await viewer.showStructures(segmentation.indices, structures);
      document.body.dataset.shown = "structures";
    } catch {
      // The result is there and can be saved, whatever a browser cannot draw.
      if (turn === this.turn) show("view", false);
    }
  }

  /** Show what there is to doubt about the image, and which series were left out. */
  private warn(doubts: readonly string[]): void {
    const heading = "This image may not be like those that the model was trained on, look closely:";
    const all = [...(doubts.length > 0 ? [heading, ...doubts] : []), ...this.leftOut];
    show("doubts", all.length > 0);
    element("doubts").replaceChildren(...all.map((text) => make("p", { textContent: text })));
  }

  private row(structure: Measured): HTMLTableRowElement {
    const swatch = make("span", { className: "swatch" });
    swatch.style.background = structure.colour;
    const box = make("input", { type: "checkbox", checked: true });
    box.setAttribute("aria-label", `Show ${structure.name}`);
    box.addEventListener("change", () => {
      void this.viewer?.then((viewer) => viewer?.setShown(structure.index, box.checked));
    });
    return make("tr", {}, [
      make("th", { scope: "row" }, [swatch, structure.name]),
      make("td", { textContent: inMl(structure.millilitres) }),
      make("td", { textContent: String(structure.voxels) }),
      make("td", { className: "text" }, [box]),
    ]);
  }

  private async saveResult(): Promise<void> {
    if (!this.result) return;
    save(await compressed(this.result.segmentation.labels), this.result.name);
  }

  private fail(error: unknown, state: State = "failed"): void {
    const known = error instanceof UserError;
    const detail = error instanceof Error ? error.message : String(error);
    const text = known ? detail : `Something went wrong that should not: ${detail}. Reload the page and try again.`;
    this.enter(state);
    element("problem").replaceChildren(make("p", { textContent: text }));
    show("problem", true);
    if (state !== "failed") return;
    show("view", false);
    element("problem").focus();
  }
}

function inMl(value: number): string {
  return value >= 100 ? value.toFixed(0) : value >= 1 ? value.toFixed(1) : value.toFixed(3);
}

/** Tell screen readers where a slider stands. */
function sayPlace(slider: HTMLInputElement): void {
  slider.setAttribute("aria-valuetext", `${Math.round((100 * Number(slider.value)) / Number(slider.max))} per cent`);
}

async function begin(): Promise<void> {
  const offline = startOffline(() => {
    document.body.dataset.offline = "ready";
    const place = document.getElementById("offline");
    if (place) place.textContent = OFFLINE;
  }).catch(() => undefined);
  await Promise.race([offline, new Promise((resolve) => setTimeout(resolve, PATIENCE_MS))]);
  try {
    const [model, backend] = await Promise.all([fetchModel(document.baseURI), chooseBackend(location.search)]);
    new Page(model, backend).start();
  } catch (error) {
    document.body.dataset.state = "failed";
    show("starting", false);
    const text = error instanceof Error ? error.message : String(error);
    element("problem").replaceChildren(make("p", { textContent: text }));
    show("problem", true);
  }
}

void begin();
