/** A stand-in for the converter of DICOM files: a volume without voxels, cut off where a file is called odd. */

/** Bytes of a header of NIfTI-1, and where it has the number of slices and their distance. */
const [HEADER, SLICES_AT, STEP_AT] = [348, 46, 88];

export class Dcm2niix {
  readonly worker = null;

  init(): Promise<boolean> {
    return Promise.resolve(true);
  }

  input(files: readonly File[]): Order {
    return new Order(files);
  }
}

class Order {
  constructor(private readonly files: readonly File[]) {}

  b = (): this => this;
  z = (): this => this;
  p = (): this => this;
  x = (): this => this;
  i = (): this => this;
  m = (): this => this;
  f = (): this => this;

  async run(): Promise<File[]> {
    const header = new DataView(new ArrayBuffer(HEADER));
    header.setInt16(SLICES_AT, this.files.length, true);
    header.setFloat32(STEP_AT, 1, true);
    const isOdd = this.files.some((file) => file.name.startsWith("odd"));
    return [new File([isOdd ? header.buffer.slice(0, 9) : header], "v.nii")];
  }
}
