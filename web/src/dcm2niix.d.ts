/** What the page uses of @niivue/dcm2niix, which has no types of its own. */
declare module "@niivue/dcm2niix" {
  interface Processor {
    /** BIDS sidecar: y or n. */
    b(value: "y" | "n"): Processor;
    /** Compression: n for none. */
    z(value: "n"): Processor;
    /** Numbers of Philips: n for those that are displayed, by rescale slope and intercept, as in other files. */
    p(value: "n"): Processor;
    /** Cropping and turning of 3D acquisitions: i for neither. */
    x(value: "i"): Processor;
    /** Slices of one series as one volume, whatever else differs between them: y; by its own rules: 2. */
    m(value: "y" | "2"): Processor;
    /** Names of the results. */
    f(value: string): Processor;
    run(): Promise<File[]>;
  }
  export class Dcm2niix {
    worker: Worker | null;
    init(): Promise<boolean>;
    input(files: readonly File[]): Processor;
  }
}
