// What NumPy's savez wrote, without a library: its Zip entries are stored, not compressed.

// The int16 and float32 arrays of an uncompressed .npz, by name.
export function readNpz(buffer) {
  const view = new DataView(buffer);
  const text = (start, length) => new TextDecoder().decode(new Uint8Array(buffer, start, length));
  const arrays = {};
  let entry = view.getUint32(buffer.byteLength - 6, true); // of the central directory: NumPy's local headers lack sizes
  while (view.getUint32(entry, true) === 0x02014b50) {
    const [nameLength, extraLength, commentLength] = [28, 30, 32].map((at) => view.getUint16(entry + at, true));
    const local = view.getUint32(entry + 42, true);
    const npy = local + 30 + view.getUint16(local + 26, true) + view.getUint16(local + 28, true);
    const data = npy + 10 + view.getUint16(npy + 8, true);
    const dtype = text(npy, data - npy).includes("'<i2'") ? Int16Array : Float32Array;
    const name = text(entry + 46, nameLength).replace(".npy", "");
    arrays[name] = new dtype(buffer.slice(data, npy + view.getUint32(entry + 24, true)));
    entry += 46 + nameLength + extraLength + commentLength;
  }
  return arrays;
}
