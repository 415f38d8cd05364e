"""Compare recordings with the bundle in MODEL_DIR; needs numpy, onnxruntime and soundfile, nothing else.

python embed.py MODEL_DIR a.wav b.wav ...    cosine similarity of every pair
python embed.py MODEL_DIR a.wav              the embedding, as JSON
python embed.py MODEL_DIR                    check this machine against golden.npz
"""

import itertools
import json
import pathlib
import sys

import numpy as np
import onnxruntime
import soundfile


def load(path, rate):
    """Mono float32 at `rate` Hz; resampled by cutting, or filling with zeros, the spectrum of the whole recording."""
    channels, file_rate = soundfile.read(path, dtype="float32", always_2d=True)
    waveform = channels.mean(axis=1)
    if file_rate == rate or not len(waveform):
        return waveform
    n = round(len(waveform) * rate / file_rate)
    spectrum = np.fft.rfft(waveform)[: n // 2 + 1]
    return (np.fft.irfft(spectrum, n) * (n / len(waveform))).astype(np.float32)


def embed(session, contract, waveform):
    """Unit embedding (D,) of a mono float32 waveform at the contract's sample rate."""
    if len(waveform) < contract["shortest_samples"] or np.abs(waveform).max() < contract["silence_peak"]:
        raise SystemExit("too short or silent: the embedding would mean nothing")
    copies = -(-contract["minimum_samples"] // len(waveform))  # whole copies, rounded up
    return session.run(["embedding"], {"waveform": np.tile(waveform, copies)[None]})[0][0]


def main(folder, *paths):
    folder = pathlib.Path(folder)
    contract = json.loads((folder / "contract.json").read_text())
    if contract["contract_version"] != 1:
        raise SystemExit("this program knows contract version 1")
    session = onnxruntime.InferenceSession(folder / "model.onnx", providers=["CPUExecutionProvider"])
    if not paths:
        golden = np.load(folder / "golden.npz")
        for name in ("long", "short"):
            embedding = embed(session, contract, golden[f"{name}_waveform"].astype(np.float32) / 32768)
            difference = float(np.abs(embedding - golden[f"{name}_embedding"]).max())
            print(json.dumps({"golden": name, "difference": difference}))
            if not difference <= contract["parity_tolerance"]:
                raise SystemExit(f"{name}: differs by more than {contract['parity_tolerance']}")
    embeddings = {path: embed(session, contract, load(path, contract["sample_rate"])) for path in paths}
    if len(paths) == 1:
        print(json.dumps(embeddings[paths[0]].tolist()))
    for a, b in itertools.combinations(embeddings, 2):
        print(json.dumps({"a": a, "b": b, "similarity": float(embeddings[a] @ embeddings[b])}))


if __name__ == "__main__":
    main(*sys.argv[1:])
