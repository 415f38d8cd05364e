// A bundle in JavaScript, for Node and the browser: mono waveform in, unit embedding and chroma out.
import { readNpz } from "./npz.mjs";

const CHROMA_TOLERANCE = 0.01; // of a value in [0, 1]

export class Bundle {
  // `ort` is onnxruntime-node or onnxruntime-web; `read(name)` resolves to a file of the bundle as an ArrayBuffer.
  static async open(ort, read) {
    const contract = JSON.parse(new TextDecoder().decode(await read("contract.json")));
    const { contract_version } = contract;
    if (![1, 2].includes(contract_version)) {
      throw new Error(`contract version ${contract_version}: this program knows versions 1 and 2`);
    }
    const session = await ort.InferenceSession.create(new Uint8Array(await read("model.onnx")));
    return Object.assign(new Bundle(), { ort, read, contract, session });
  }

  // Of a Float32Array at the contract's `sample_rate`, full scale 1: the `embedding`, a Float32Array of `embedding_dim`
  // numbers, and `chroma`, an array of frames, each a Float32Array; null where the bundle has no second stage.
  async hear(waveform) {
    const { shortest_samples, minimum_samples, sample_rate, silence_peak } = this.contract;
    if (waveform.length < shortest_samples) {
      const seconds = (waveform.length / sample_rate).toFixed(2);
      throw new Error(`too short: ${seconds} s, ${shortest_samples / sample_rate} s are needed`);
    }
    const peak = waveform.reduce((highest, sample) => Math.max(highest, Math.abs(sample)), 0);
    if (!Number.isFinite(peak)) throw new Error("damaged: samples that are not numbers");
    if (peak < silence_peak) throw new Error(`silent: no sample above ${20 * Math.log10(silence_peak)} dBFS`);
    const copies = Math.ceil(minimum_samples / waveform.length);
    const repeated = new Float32Array(copies * waveform.length);
    for (let copy = 0; copy < copies; copy++) repeated.set(waveform, copy * waveform.length);
    const input = new this.ort.Tensor("float32", repeated, [1, repeated.length]);
    const { embedding, chroma } = await this.session.run({ waveform: input });
    return { embedding: embedding.data, chroma: chroma ? this.ownFrames(chroma, waveform.length) : null };
  }

  // The frames of chroma (1, frames, channels) of the waveform itself: what follows is of its copies.
  ownFrames({ data, dims }, samples) {
    const { front_end, chroma } = this.contract;
    const inFrames = (1 + Math.floor(samples / front_end.hop_length)) * front_end.hop_length;
    const frame = (_, i) => data.slice(i * dims[2], (i + 1) * dims[2]);
    return Array.from({ length: Math.floor(inFrames / chroma.frame_samples) }, frame);
  }

  // For each waveform of golden.npz and each output, the largest difference from it and the `tolerance` of that.
  async check() {
    const golden = readNpz(await this.read("golden.npz"));
    const checks = [];
    for (const name of ["long", "short"]) {
      const heard = await this.hear(Float32Array.from(golden[`${name}_waveform`], (sample) => sample / 32768));
      const add = (output, values, tolerance) => {
        const expected = golden[`${name}_${output}`];
        const difference = Math.max(...expected.map((x, i) => Math.abs(x - values[i])));
        checks.push({ golden: name, output, difference, tolerance });
      };
      add("embedding", heard.embedding, this.contract.parity_tolerance);
      if (heard.chroma) add("chroma", heard.chroma.flatMap((frame) => [...frame]), CHROMA_TOLERANCE);
    }
    return checks;
  }
}

export const similarity = (a, b) => a.reduce((sum, x, i) => sum + x * b[i], 0);
