// Loads a DICOM segmentation over its series as web viewers do, by dcmjs' adapter, and prints its label maps as JSON.
// node dicom_viewer.mjs FOLDER_OF_NODE_MODULES FILE FRAMES_OF_THE_SERIES.json
import { readFileSync } from "node:fs";
import { createRequire } from "node:module";

const [modules, path, series] = process.argv.slice(2);
const dcmjs = createRequire(`${modules}/`)("dcmjs");
dcmjs.log.setLevel("error");
console.warn = (text) => {
    throw new Error(text);
};
const frames = JSON.parse(readFileSync(series));
const images = new Map(
    frames.map((each) => [`case:${each.instance}${each.frame === null ? "" : `&frame=${each.frame - 1}`}`, each]),
);
const provider = {
    get(kind, id) {
        const each = images.get(id);
        return {
            imagePlaneModule: {
                rowCosines: each.orientation.slice(0, 3),
                columnCosines: each.orientation.slice(3),
                rows: each.shape[0],
                columns: each.shape[1],
            },
            imagePixelModule: { rows: each.shape[0], columns: each.shape[1] },
            generalSeriesModule: { seriesInstanceUID: each.series },
            sopCommonModule: { sopInstanceUID: each.instance },
        }[kind];
    },
};
const bytes = readFileSync(path);
const buffer = bytes.buffer.slice(bytes.byteOffset, bytes.byteOffset + bytes.length);
const { labelmapBufferArray, segMetadata } = dcmjs.adapters.Cornerstone.Segmentation.generateToolState(
    [...images.keys()],
    buffer,
    provider,
);
const described = segMetadata.data.filter((each) => each).map((each) => [Number(each.SegmentNumber), each.SegmentLabel]);
const maps = labelmapBufferArray.map((each) => Array.from(new Uint16Array(each)));
process.stdout.write(JSON.stringify({ maps, described, series: segMetadata.seriesInstanceUid }));
