// WAV files without a library: PCM of 8 to 32 bits and floats, any number of channels.

const SAMPLES = {
  // by format tag (1 is integers, 3 is floats) and bits
  "1/8": (view, at) => (view.getUint8(at) - 128) / 128,
  "1/16": (view, at) => view.getInt16(at, true) / 32768,
  "1/24": (view, at) => (view.getUint8(at) + view.getInt16(at + 1, true) * 256) / 8388608,
  "1/32": (view, at) => view.getInt32(at, true) / 2147483648,
  "3/32": (view, at) => view.getFloat32(at, true),
  "3/64": (view, at) => view.getFloat64(at, true),
};
const EXTENSIBLE = 0xfffe; // the format tag is the first two bytes of a GUID

// `{ rate, waveform }` of an ArrayBuffer: Hz and a Float32Array of full scale 1, the mean of the channels.
export function decodeWav(buffer) {
  const { "fmt ": format, data } = chunks(buffer);
  if (!format || !data) throw new Error("a WAV file without format or samples: export it again");
  const [channels, rate, bits] = [format.getUint16(2, true), format.getUint32(4, true), format.getUint16(14, true)];
  const tag = format.getUint16(format.getUint16(0, true) === EXTENSIBLE ? 24 : 0, true);
  const sample = SAMPLES[`${tag}/${bits}`];
  if (!sample || !channels) throw new Error(`WAV format ${tag} of ${bits} bits: convert it to 16-bit PCM`);
  const bytes = bits / 8;
  const waveform = new Float32Array(Math.floor(data.byteLength / (channels * bytes)));
  for (let i = 0, at = 0; i < waveform.length; i++) {
    let sum = 0;
    for (let channel = 0; channel < channels; channel++, at += bytes) sum += sample(data, at);
    waveform[i] = sum / channels;
  }
  return { rate, waveform };
}

// DataViews of the contents of a RIFF file's chunks, by name.
function chunks(buffer) {
  const view = new DataView(buffer);
  const name = (at) => String.fromCharCode(...new Uint8Array(buffer, at, 4));
  const wav = buffer.byteLength >= 12 && name(0) === "RIFF" && name(8) === "WAVE";
  if (!wav) throw new Error("no WAV file: convert it to one");
  const found = {};
  for (let at = 12, size; at + 8 <= buffer.byteLength; at += 8 + size + (size % 2)) {
    size = Math.min(view.getUint32(at + 4, true), buffer.byteLength - at - 8); // who cannot seek back states too much
    found[name(at)] ??= new DataView(buffer, at + 8, size);
  }
  return found;
}
