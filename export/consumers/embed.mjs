// Compare recordings with the bundle in MODEL_DIR; needs Node 20, onnxruntime-node and the modules beside this file.
//
// node embed.mjs MODEL_DIR a.wav b.wav ...    cosine similarity of every pair
// node embed.mjs MODEL_DIR a.wav              the embedding, as JSON
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

async function embed(bundle, path) {
  try {
    const { rate, waveform } = decodeWav(await read(path));
    const { sample_rate } = bundle.contract;
    if (rate !== sample_rate) throw new Error(`${rate} Hz: resample it to ${sample_rate} Hz`);
    return [path, await bundle.embed(waveform)];
  } catch (error) {
    throw new Error(`${path}: ${error.message}`, { cause: error });
  }
}

async function main(folder, ...paths) {
  if (!folder) throw new Error("usage: node embed.mjs MODEL_DIR [FILE.wav ...]");
  const bundle = await Bundle.open(ort, (name) => read(join(folder, name)));
  if (!paths.length) {
    const { parity_tolerance } = bundle.contract;
    for (const [golden, difference] of Object.entries(await bundle.differences())) {
      print({ golden, difference });
      if (!(difference <= parity_tolerance)) throw new Error(`${golden}: differs by more than ${parity_tolerance}`);
    }
  }
  const recordings = [];
  for (const path of paths) recordings.push(await embed(bundle, path));
  if (recordings.length === 1) print([...recordings[0][1]]);
  recordings.forEach(([a, embedding], i) => {
    for (const [b, other] of recordings.slice(i + 1)) print({ a, b, similarity: similarity(embedding, other) });
  });
}

try {
  await main(...process.argv.slice(2));
} catch (error) {
  console.error(`embed.mjs: ${error.message}`);
  process.exitCode = 1;
}
