// Reads a DICOM segmentation with dcmjs, the library of web viewers, and prints it as JSON.
// node dicom_reader.mjs FOLDER_OF_NODE_MODULES FILE
import { readFileSync } from "node:fs";
import { createRequire } from "node:module";

const [modules, path] = process.argv.slice(2);
const dcmjs = createRequire(`${modules}/`)("dcmjs");
dcmjs.log.setLevel("error");
const { DicomMessage, DicomMetaDictionary, BitArray } = dcmjs.data;
const listed = (value) => (value === undefined ? [] : Array.isArray(value) ? value : [value]);
const first = (value) => listed(value)[0];
const numbers = (value) => listed(value).map(Number);

const bytes = readFileSync(path);
const message = DicomMessage.readFile(bytes.buffer.slice(bytes.byteOffset, bytes.byteOffset + bytes.length));
const dataset = DicomMetaDictionary.naturalizeDataset(message.dict);
const meta = DicomMetaDictionary.naturalizeDataset(message.meta);
const size = dataset.Rows * dataset.Columns;
const count = Number(dataset.NumberOfFrames);
const stored = first(dataset.PixelData);
let voxels;
if (dataset.BitsAllocated === 1) {
    voxels = Array.from(BitArray.unpack(stored)).map((each) => (each ? 1 : 0));
} else if (dataset.BitsAllocated === 8) {
    voxels = Array.from(new Uint8Array(stored));
} else {
    voxels = Array.from(new Uint16Array(stored));
}
const shared = first(dataset.SharedFunctionalGroupsSequence);
const group = (own, name) => first(own[name] ?? shared[name]);
const code = (sequence) => {
    const item = first(sequence);
    return item && [item.CodeValue ?? item.LongCodeValue, item.CodingSchemeDesignator, item.CodeMeaning];
};
const frames = listed(dataset.PerFrameFunctionalGroupsSequence).map((own, index) => {
    const source = first(first(own.DerivationImageSequence)?.SourceImageSequence);
    return {
        segment: group(own, "SegmentIdentificationSequence")?.ReferencedSegmentNumber ?? null,
        position: numbers(group(own, "PlanePositionSequence").ImagePositionPatient),
        orientation: numbers(group(own, "PlaneOrientationSequence").ImageOrientationPatient),
        spacing: numbers(group(own, "PixelMeasuresSequence").PixelSpacing),
        instance: source?.ReferencedSOPInstanceUID ?? null,
        frame: source?.ReferencedFrameNumber === undefined ? null : Number(first(source.ReferencedFrameNumber)),
        voxels: voxels.slice(index * size, (index + 1) * size),
    };
});
const series = first(dataset.ReferencedSeriesSequence);
const result = {
    sop_class: meta.MediaStorageSOPClassUID,
    kind: dataset.SegmentationType,
    overlap: dataset.SegmentsOverlap,
    shape: [dataset.Rows, dataset.Columns],
    num_frames: count,
    study: dataset.StudyInstanceUID,
    frame_of_reference: dataset.FrameOfReferenceUID,
    patient: String(first(dataset.PatientName)?.Alphabetic ?? ""),
    patient_id: dataset.PatientID ?? "",
    series: series?.SeriesInstanceUID ?? null,
    instances: listed(series?.ReferencedInstanceSequence).map((each) => each.ReferencedSOPInstanceUID),
    segments: listed(dataset.SegmentSequence).map((each) => ({
        number: each.SegmentNumber,
        label: each.SegmentLabel,
        type: code(each.SegmentedPropertyTypeCodeSequence),
        category: code(each.SegmentedPropertyCategoryCodeSequence),
    })),
    frames,
};
process.stdout.write(JSON.stringify(result));
