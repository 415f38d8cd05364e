// Compare recordings with the bundle in MODEL_DIR; needs Node 20, onnxruntime-node and the modules beside this file.
//
// node embed.mjs MODEL_DIR a.wav b.wav ...    cosine similarity of every pair
// node embed.mjs MODEL_DIR a.wav              the embedding, as JSON
// node embed.mjs MODEL_DIR --chroma a.wav ... embedding and chroma of each file (a bundle of version 1 has no chroma)
// node embed.mjs MODEL_DIR                    check this machine against golden.npz
//
// It does not resample: the files are WAV, at the contract's sample rate (ffmpeg -i song.mp3 -ar 22050 song.wav).
import { readFile } from "node:fs/promises";
import { join } from "node:path";
import { Bundle, similarity } from "./bytecover2.mjs";
import { decodeWav } from "./wav.mjs";

process.env.ORT_DISABLE_TELEMETRY ??= "1"; // read once, when onnxruntime-node is imported
const { default: ort } = await import("onnxruntime-node");

const read = async (path) => Uint8Array.from(await readFile(path)).buffer;
const print = (line) => console.log(JSON.stringify(line));

async function hear(bundle, path) {
  try {
    const { rate, waveform } = decodeWav(await read(path));
    const { sample_rate } = bundle.contract;
    if (rate !== sample_rate) throw new Error(`${rate} Hz: resample it to ${sample_rate} Hz`);
    return { file: path, ...(await bundle.hear(waveform)) };
  } catch (error) {
    throw new Error(`${path}: ${error.message}`, { cause: error });
  }
}

// What JSON.stringify takes for a list.
const lists = ({ file, embedding, chroma }) => ({
  file,
  embedding: [...embedding],
  ...(chroma && { chroma: chroma.map((frame) => [...frame]) }),
});

async function main(folder, ...rest) {
  if (!folder) throw new Error("usage: node embed.mjs MODEL_DIR [--chroma] [FILE.wav ...]");
  const paths = rest.filter((argument) => argument !== "--chroma");
  const withChroma = paths.length < rest.length;
  const bundle = await Bundle.open(ort, (name) => read(join(folder, name)));
  if (!bundle.contract.chroma && (withChroma || !paths.length)) {
    console.error(`${folder}: contract version 1 has no second stage: no chroma`);
  }
  for (const { golden, output, difference, tolerance } of paths.length ? [] : await bundle.check()) {
    print({ golden, output, difference });
    if (!(difference <= tolerance)) throw new Error(`${golden}: ${output} differs by more than ${tolerance}`);
  }
  const recordings = [];
  for (const path of paths) recordings.push(await hear(bundle, path));
  if (withChroma) recordings.forEach((recording) => print(lists(recording)));
  else if (recordings.length === 1) print([...recordings[0].embedding]);
  recordings.forEach(({ file: a, embedding }, i) => {
    for (const { file: b, embedding: other } of recordings.slice(i + 1)) {
      print({ a, b, similarity: similarity(embedding, other) });
    }
  });
}

try {
  await main(...process.argv.slice(2));
} catch (error) {
  console.error(`embed.mjs: ${error.message}`);
  process.exitCode = 1;
}
