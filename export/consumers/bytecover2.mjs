// A bundle in JavaScript, for Node and the browser: mono waveform in, unit embedding out.
import { readNpz } from "./npz.mjs";

export class Bundle {
  // `ort` is onnxruntime-node or onnxruntime-web; `read(name)` resolves to a file of the bundle as an ArrayBuffer.
  static async open(ort, read) {
    const contract = JSON.parse(new TextDecoder().decode(await read("contract.json")));
    const { contract_version } = contract;
    if (contract_version !== 1) throw new Error(`contract version ${contract_version}: this program knows version 1`);
    const session = await ort.InferenceSession.create(new Uint8Array(await read("model.onnx")));
    return Object.assign(new Bundle(), { ort, read, contract, session });
  }

  // Float32Array of `embedding_dim` numbers, of a Float32Array at the contract's `sample_rate`, full scale 1.
  async embed(waveform) {
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
    return (await this.session.run({ waveform: input })).embedding.data;
  }

  // The largest differences from golden.npz, by name; none may be beyond the contract's `parity_tolerance`.
  async differences() {
    const golden = readNpz(await this.read("golden.npz"));
    const differences = {};
    for (const name of ["long", "short"]) {
      const embedding = await this.embed(Float32Array.from(golden[`${name}_waveform`], (sample) => sample / 32768));
      differences[name] = Math.max(...golden[`${name}_embedding`].map((x, i) => Math.abs(x - embedding[i])));
    }
    return differences;
  }
}

export const similarity = (a, b) => a.reduce((sum, x, i) => sum + x * b[i], 0);
