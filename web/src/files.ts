/** Files that were chosen or dropped, and the volumes among them. */

import { convertDicom, type Found } from "./dicom.js";
import { isDicom } from "./dicom_elements.js";
import { UserError } from "./errors.js";
import { isNiftiName } from "./nifti.js";
import { inParts } from "./parts.js";

/** Also those that macOS writes beside others, called like them behind `._`. */
const HIDDEN = /^\./;
/** Files of a folder that are no images. */
const BESIDE = /^(DICOMDIR$|Thumbs\.db$)|\.(json|txt|csv|xml|pdf|html)$/i;
const OTHER_IMAGES = /\.(nrrd|mha|mhd|png|jpe?g|bmp|tiff?|hdr|img)$/i;

/** All files of what was dropped, those in folders too. */
export async function droppedFiles(items: DataTransferItemList): Promise<File[]> {
  // The list is emptied once the handler of the event has returned.
  const entries = [...items].map((item) => item.webkitGetAsEntry?.() ?? null);
  const plain = [...items].map((item) => item.getAsFile());
  const found = await Promise.all(
    entries.map(async (entry, index) => {
      const file = plain[index];
      return entry ? filesIn(entry) : file ? [file] : [];
    }),
  );
  return found.flat();
}

async function filesIn(entry: FileSystemEntry): Promise<File[]> {
  if (entry.isFile) {
    const file = await new Promise<File>((resolve, reject) => (entry as FileSystemFileEntry).file(resolve, reject));
    // dcm2niix asks for this, as files of one name in several folders are one to it without.
    return [Object.assign(file, { _webkitRelativePath: entry.fullPath.replace(/^\//, "") })];
  }
  const reader = (entry as FileSystemDirectoryEntry).createReader();
  const files: File[] = [];
  for (;;) {
    // A folder is read in portions of a hundred entries.
    const entries = await new Promise<FileSystemEntry[]>((resolve, reject) => reader.readEntries(resolve, reject));
    if (entries.length === 0) return files;
    for (const each of entries) files.push(...(await filesIn(each)));
  }
}

/** How files are read. */
export interface Reading {
  /** Called when DICOM files are read. */
  converting: () => void;
  /** Bytes that the page may take. */
  budget: number;
  /** Ends the reading of DICOM files at once, and the look for them. */
  signal: AbortSignal;
}

/** The volumes among files, at least one: each NIfTI file, and each series of DICOM files. */
export async function findVolumes(all: readonly File[], { converting, budget, signal }: Reading): Promise<Found> {
  const files = all.filter((file) => !HIDDEN.test(file.name));
  const named = files.filter((file) => isNiftiName(file.name));
  const others = files.filter((file) => !isNiftiName(file.name) && !BESIDE.test(file.name));
  const flags = await inParts(others, isDicom, signal);
  const dicom = others.filter((_, index) => flags[index]);
  const unknown = others.filter((_, index) => !flags[index]);
  const found: Found = { volumes: named.map((file) => ({ name: file.name, file })), leftOut: [], isClear: true };
  if (dicom.length > 0) {
    converting();
    const converted = await convertDicom(dicom, unknown, budget, signal);
    Object.assign(found, converted, { volumes: [...found.volumes, ...converted.volumes] });
  }
  if (found.volumes.length > 0) return found;
  if (dicom.length > 0) {
    const why = found.leftOut.join(" ") || "Choose the folder of one series with all of its slices.";
    throw new UserError(`The ${dicom.length} DICOM files hold no volume that the page can take. ${why}`);
  }
  const first = unknown[0]?.name;
  if (first === undefined) {
    throw new UserError("There is no image among the files. Choose .nii, .nii.gz or DICOM files.");
  }
  const kind = OTHER_IMAGES.test(first) ? "is an image of another format" : "is neither a NIfTI nor a DICOM file";
  throw new UserError(`${first} ${kind}. The page reads .nii, .nii.gz and folders of DICOM files: convert it.`);
}
