// Two recordings, chosen or dropped, are decoded, embedded and compared in the browser.
import { Bundle, similarity } from "../consumers/bytecover2.mjs";

const RUNTIME = "../consumers/node_modules/onnxruntime-web/dist/ort.wasm.bundle.min.mjs";

const element = (id) => document.getElementById(id);
const opening = openBundle();
let running = Promise.resolve();

async function openBundle() {
  const ort = await import(RUNTIME).catch((error) => {
    throw new Error("onnxruntime-web is not there (npm ci in export/consumers)", { cause: error });
  });
  ort.env.wasm.proxy = true; // in a worker: the page answers while the model runs
  const folder = new URL(document.body.dataset.bundle, location.href);
  return Bundle.open(ort, async (name) => {
    const response = await fetch(new URL(name, folder));
    if (!response.ok) throw new Error(`${response.url}: ${response.status} ${response.statusText}`);
    return response.arrayBuffer();
  });
}

// A session runs one thing at a time.
function inTurn(run) {
  const result = running.then(run);
  running = result.catch(() => {});
  return result;
}

// Mono at `rate` Hz: decodeAudioData resamples to the rate of its context, which is there for that and plays nothing.
async function decode(file, rate) {
  const context = new OfflineAudioContext({ length: 1, sampleRate: rate });
  const bytes = await file.arrayBuffer().catch((error) => {
    throw new Error("this browser cannot read it; choose a file that is still there and smaller than 2 GB", { cause: error });
  });
  let audio;
  try {
    audio = await context.decodeAudioData(bytes);
  } catch (error) {
    throw new Error("this browser cannot decode it; choose an MP3, WAV, FLAC, Ogg or M4A file", { cause: error });
  }
  const waveform = new Float32Array(audio.length);
  for (let channel = 0; channel < audio.numberOfChannels; channel++) {
    audio.getChannelData(channel).forEach((sample, i) => (waveform[i] += sample / audio.numberOfChannels));
  }
  return waveform;
}

// Frames of chroma as JSON takes them; four decimals tell far more than the 16 levels that are aligned.
const rounded = (chroma) => chroma.map((frame) => Array.from(frame, (x) => Number(x.toFixed(4))));

function report(status, text, failed = false) {
  status.textContent = text;
  status.classList.toggle("failed", failed);
}

class Recording {
  constructor(section) {
    this.input = section.querySelector("input");
    this.progress = section.querySelector("progress");
    this.canvas = section.querySelector("canvas");
    this.player = section.querySelector("audio");
    this.status = section.querySelector(".status");
    this.input.addEventListener("change", () => this.input.files.length && this.load(this.input.files[0]));
  }

  drop(file) {
    const transfer = new DataTransfer();
    transfer.items.add(file);
    this.input.files = transfer.files;
    this.load(file);
  }

  async load(file) {
    this.file = file;
    this.recording = null;
    this.player.hidden = this.canvas.hidden = true;
    this.progress.hidden = false;
    report(this.status, `Reading ${file.name}`);
    compare();
    try {
      const bundle = await opening;
      const waveform = await decode(file, bundle.contract.sample_rate);
      const { embedding, chroma } = await inTurn(() => bundle.hear(waveform));
      if (file !== this.file) return; // another was chosen meanwhile
      this.show(file, waveform);
      const duration_s = waveform.length / bundle.contract.sample_rate;
      report(this.status, `${file.name}, ${duration_s.toFixed(1)} s`);
      this.recording = { name: file.name, duration_s, embedding: [...embedding], ...(chroma && { chroma: rounded(chroma) }) };
    } catch (error) {
      if (file !== this.file) return;
      report(this.status, `${file.name}: ${error.message}`, true);
    }
    this.progress.hidden = true;
    compare();
  }

  show(file, waveform) {
    URL.revokeObjectURL(this.player.src);
    this.player.src = URL.createObjectURL(file);
    this.player.hidden = this.canvas.hidden = false;
    draw(this.canvas, waveform);
  }
}

// Peaks from left to right, the highest filling the height.
function draw(canvas, waveform) {
  const peakOf = (samples) => samples.reduce((highest, sample) => Math.max(highest, Math.abs(sample)), 0);
  const highest = peakOf(waveform);
  const width = (canvas.width = canvas.clientWidth * devicePixelRatio);
  const height = (canvas.height = canvas.clientHeight * devicePixelRatio);
  const pen = canvas.getContext("2d");
  pen.fillStyle = getComputedStyle(canvas).color;
  const step = 3 * devicePixelRatio;
  for (let x = 0; x < width; x += step) {
    const peak = peakOf(waveform.subarray((x / width) * waveform.length, ((x + step) / width) * waveform.length));
    const bar = Math.max(devicePixelRatio, (peak / highest) * height);
    pen.fillRect(x, (height - bar) / 2, step * 0.7, bar);
  }
}

const sections = [...document.querySelectorAll(".recording")];
const recordings = sections.map((section) => new Recording(section));

async function compare() {
  const [first, second] = recordings.map(({ recording }) => recording);
  const cosine = first && second ? similarity(first.embedding, second.embedding) : null;
  element("similarity").textContent = cosine === null ? "–" : cosine.toFixed(3);
  element("meter").value = cosine ?? 0;
  element("save").hidden = cosine === null;
  if (cosine === null) return;
  const { model_id, chroma } = (await opening).contract;
  const json = JSON.stringify({ model_id, ...(chroma && { chroma_id: chroma.chroma_id }), recordings: [first, second] });
  element("save").href = `data:application/json,${encodeURIComponent(json)}`;
}

function markDrop(target) {
  for (const section of sections) section.classList.toggle("over", section.contains(target));
}

// Files fall on the recording they are dropped on and then on the other one; elsewhere, on the first that is empty.
function drop(event) {
  event.preventDefault();
  markDrop(null);
  const aimed = sections.findIndex((section) => section.contains(event.target));
  const empty = recordings.findIndex(({ file }) => !file);
  const start = Math.max(0, aimed < 0 ? empty : aimed);
  [...event.dataTransfer.files].slice(0, 2).forEach((file, i) => recordings[(start + i) % 2].drop(file));
}

async function checkBrowser() {
  element("check").disabled = true;
  report(element("checked"), "Computing what golden.npz holds");
  try {
    const checks = await inTurn(async () => (await opening).check());
    const passed = checks.every(({ difference, tolerance }) => difference <= tolerance);
    const sentences = [...new Set(checks.map(({ output }) => output))].map((output) => {
      const of = checks.filter((check) => check.output === output);
      const largest = Math.max(...of.map(({ difference }) => difference));
      const within = `${largest <= of[0].tolerance ? "within" : "beyond"} the tolerance of ${of[0].tolerance}`;
      return `largest difference of ${output} ${largest.toExponential(1)}, ${within}`;
    });
    report(element("checked"), `golden.npz: ${sentences.join("; ")}`, !passed);
  } catch (error) {
    report(element("checked"), `golden.npz: ${error.message}`, true);
  }
  element("check").disabled = false;
}

document.addEventListener("dragover", (event) => {
  event.preventDefault();
  markDrop(event.target);
});
document.addEventListener("dragleave", () => markDrop(null));
document.addEventListener("drop", drop);
element("check").addEventListener("click", checkBrowser);

report(element("model"), "Loading the model");
try {
  const { contract } = await opening;
  const lack = contract.chroma ? "" : "; contract version 1 has no second stage: no chroma";
  report(element("model"), `${contract.name}, model ${contract.model_id.slice(0, 8)}, runs on this device${lack}`);
  if (contract.chroma) element("save").textContent = "Save embeddings and chroma";
  element("check").disabled = false;
} catch (error) {
  report(element("model"), `The model did not load: ${error.message}`, true);
}
