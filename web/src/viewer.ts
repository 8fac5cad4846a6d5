/** The image in planes and as a solid, with the structures over it, by NiiVue. */

import type { Niivue } from "@niivue/niivue";
import type { Structure } from "./model.js";
import { readBytes, type NiftiHeader } from "./nifti.js";

export type Layout = "both" | "planes" | "solid";

/** Beyond this many voxels a picture would take the memory that the segmentation needs. */
export const MOST_VOXELS = 250e6;

export class Viewer {
  private hiddenIndices = new Set<number>();
  private structures: Structure[] = [];
  private opacity = 0.6;
  private layout: Layout = "both";

  private constructor(
    private readonly nv: Niivue,
    private readonly kit: typeof import("@niivue/niivue"),
  ) {}

  /**
   * @param moved Called with the place of the crosshair, from 0 to 1 along (x, y, z), when somebody moves it.
   * @returns null where the browser has no WebGL 2.
   */
  static async start(canvas: HTMLCanvasElement, moved: (place: number[]) => void): Promise<Viewer | null> {
    if (!document.createElement("canvas").getContext("webgl2")) return null;
    const kit = await import("@niivue/niivue");
    const nv = new kit.Niivue({
      backColor: [0, 0, 0, 1],
      crosshairColor: [1, 1, 0.4, 0.8],
      crosshairWidth: 0.5,
      dragAndDropEnabled: false,
      isColorbar: false,
      isRadiologicalConvention: true,
      loadingText: "",
      multiplanarShowRender: kit.SHOW_RENDER.NEVER,
      sagittalNoseLeft: true,
      show3Dcrosshair: true,
      sliceType: kit.SLICE_TYPE.MULTIPLANAR,
    });
    await nv.attachToCanvas(canvas);
    nv.onLocationChange = () => moved([...nv.scene.crosshairPos]);
    return new Viewer(nv, kit);
  }

  /** Show an image, in place of what was shown; of its file no more than its header announces. */
  async showImage(file: Blob, name: string, header: NiftiHeader): Promise<void> {
    const old = [...this.nv.volumes];
    this.structures = [];
    this.hiddenIndices.clear();
    // The solid is shown with its structures: drawing it takes long where there is no graphics processor.
    this.arrange("planes");
    const shown = name.replace(/\.gz$/i, "");
    const given = new File([await readBytes(file, name, header)], shown);
    const image = await this.kit.NVImage.loadFromFile({ file: given, name: shown, colormap: "gray" });
    this.nv.addVolume(image);
    // Afterwards, as the viewer cannot be without a volume again.
    for (const volume of old) this.nv.removeVolume(volume);
    this.nv.drawScene();
  }

  /** Show structures over the image. */
  async showStructures(indices: Uint8Array<ArrayBuffer>, structures: Structure[]): Promise<void> {
    while (this.nv.volumes.length > 1) this.nv.removeVolume(this.nv.volumes[1]);
    const name = "segmentation.nii";
    const file = new File([indices], name);
    const overlay = await this.kit.NVImage.loadFromFile({ file, name, colormap: "gray", opacity: this.opacity });
    this.structures = structures;
    this.nv.addVolume(overlay);
    this.arrange(this.layout);
    this.paint();
  }

  setOpacity(opacity: number): void {
    this.opacity = opacity;
    if (this.nv.volumes.length > 1) this.nv.setOpacity(1, opacity);
  }

  setShown(index: number, shown: boolean): void {
    if (shown) this.hiddenIndices.delete(index);
    else this.hiddenIndices.add(index);
    this.paint();
  }

  setLayout(layout: Layout): void {
    this.layout = layout;
    if (this.structures.length > 0) this.arrange(layout);
  }

  private arrange(layout: Layout): void {
    const { SHOW_RENDER, SLICE_TYPE } = this.kit;
    this.nv.opts.multiplanarShowRender = layout === "both" ? SHOW_RENDER.ALWAYS : SHOW_RENDER.NEVER;
    this.nv.setSliceType(layout === "solid" ? SLICE_TYPE.RENDER : SLICE_TYPE.MULTIPLANAR);
  }

  /** Move the crosshair to a place from 0 to 1 along x (left to right), y (back to front) or z (feet to head). */
  moveTo(axis: 0 | 1 | 2, place: number): void {
    this.nv.scene.crosshairPos[axis] = place;
    this.nv.drawScene();
  }

  private paint(): void {
    const overlay = this.nv.volumes[1];
    if (!overlay) return;
    const last = Math.max(...this.structures.map((structure) => structure.index));
    const at = Array.from({ length: last + 1 }, (_, index) => this.structures.find((each) => each.index === index));
    const part = (start: number): number[] =>
      at.map((structure) => (structure ? parseInt(structure.colour.slice(start, start + 2), 16) : 0));
    overlay.setColormapLabel({
      R: part(1),
      G: part(3),
      B: part(5),
      A: at.map((structure, index) => (structure && !this.hiddenIndices.has(index) ? 255 : 0)),
      I: at.map((_, index) => index),
      labels: at.map((structure) => structure?.name ?? ""),
    });
    this.nv.setOpacity(1, this.opacity);
    this.nv.updateGLVolume();
  }
}
