/** What the page says of its model. */

import type { Backend } from "./messages.js";
import type { PageModel } from "./model.js";
import { short, windowInWords, type Normalization } from "./normalize.js";

export const OFFLINE = "works: all files are kept by the browser";
const LATER = "as soon as all files are loaded";
const DICOM =
  "read by dcm2niix; values are the stored ones times rescale slope plus intercept (Hounsfield units in CT)";

/** A term, what stands beside it, and the id of that. */
export type Row = [term: string, text: string, id?: string];

/** One row per fact. */
export function aboutModel(model: PageModel, backend: Backend, isOffline: boolean): Row[] {
  const channels = model.channels.map((channel) => channel.channel).join(", ");
  const rows: (Row | null)[] = [
    ["Data set", model.dataset_name],
    ["Method", `${model.configuration}, fold ${model.folds.join(", ")}`],
    ["Channels", channels],
    ["Structures", model.structures.map((structure) => structure.name).join(", ")],
    model.trained_on && ["Trained on", `${model.trained_on.cases} cases`],
    ["Voxels", `${model.spacing_mm.map(short).join(" x ")} mm (D, H, W)`],
    ["Intensities", model.channels.map((each) => `${each.channel}: ${inWords(each)}`).join("; ")],
    ["DICOM files", DICOM],
    ["Post-processing", model.postprocessing?.steps.join("; ") ?? "none"],
    ["Computed by", backend === "webgpu" ? "WebGPU" : "WebAssembly", "engine"],
    ["Without a network", isOffline ? OFFLINE : LATER, "offline"],
    ["Versions", Object.entries(model.versions).map((each) => each.join(" ")).join(", ")],
    model.licence === null ? null : ["Licence", model.licence],
  ];
  return rows.filter((row) => row !== null);
}

/** What is done with the values of a channel (`normalize`). */
function inWords(settings: Normalization): string {
  const clipped = `clipped to ${windowInWords(settings)}`;
  switch (settings.scheme) {
    case "ct":
      return `${clipped}, then less ${short(settings.mean)}, divided by ${short(settings.std)}`;
    case "zscore":
    case "zscore_offset":
      return "less the mean of the image, divided by its standard deviation";
    case "rescale_0_1":
      return "from 0 to 1 over the image";
    case "rgb_0_1":
      return "divided by 255";
    case "ct_window":
      return `${clipped}, then from 0 to 1`;
    case "ct_window_dicom":
      return `clipped to the window of DICOM headers, else to ${windowInWords(settings)}, then from 0 to 1`;
    case "none":
      return "as they are";
  }
}
