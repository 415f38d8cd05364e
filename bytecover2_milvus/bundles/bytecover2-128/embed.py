"""Compare recordings: python embed.py MODEL_DIR a.wav b.wav ... prints the cosine similarity of every pair, of one file
alone its embedding, and without files how far this machine is from golden.npz; needs numpy, onnxruntime, soundfile.
"""

import contextlib
import itertools
import json
import os
import sys

os.environ.setdefault("ORT_DISABLE_TELEMETRY", "1")  # read once, when onnxruntime is imported

import numpy as np
import onnxruntime
import soundfile


def load(path, rate):
    """Mono float32 at `rate` Hz; resampled by cutting, or filling with zeros, the spectrum of the whole recording."""
    with open(path, "rb") as file, contextlib.suppress(soundfile.LibsndfileError), soundfile.SoundFile(file) as sound:
        if sound.format != "MP3" and sound.frames < 2**63 - 1:  # libsndfile may read a part of these, or nothing
            waveform = sound.read(dtype="float32", always_2d=True).mean(axis=1)
            n = round(len(waveform) * rate / sound.samplerate)
            if sound.samplerate == rate or not n:
                return waveform
            return (np.fft.irfft(np.fft.rfft(waveform)[: n // 2 + 1], n) * (n / len(waveform))).astype(np.float32)
    raise SystemExit(f"{path}: convert it first: ffmpeg -i IN -ar {rate} OUT.wav")


def embed(session, contract, waveform, name):
    """Unit embedding (D,) of a mono float32 waveform at the contract's sample rate."""
    if len(waveform) < contract["shortest_samples"] or not contract["silence_peak"] <= np.abs(waveform).max() < np.inf:
        raise SystemExit(f"{name}: too short, silent or damaged: the embedding would mean nothing")
    repeated = np.tile(waveform, -(-contract["minimum_samples"] // len(waveform)))  # whole copies, rounded up
    return session.run(["embedding"], {"waveform": repeated[None]})[0][0]


def main(folder, *paths):
    with open(f"{folder}/contract.json", encoding="utf-8") as file:
        contract = json.load(file)
    if contract["contract_version"] not in (1, 2):
        raise SystemExit("this program knows contract versions 1 and 2")
    session = onnxruntime.InferenceSession(f"{folder}/model.onnx", providers=["CPUExecutionProvider"])
    for name in () if paths else ("long", "short"):
        golden = np.load(f"{folder}/golden.npz")
        embedding = embed(session, contract, golden[f"{name}_waveform"].astype(np.float32) / 32768, name)
        difference = float(np.abs(embedding - golden[f"{name}_embedding"]).max())
        print(json.dumps({"golden": name, "difference": difference}))
        if not difference <= contract["parity_tolerance"]:
            raise SystemExit(f"{name}: differs by more than {contract['parity_tolerance']}")
    embedded = [(path, embed(session, contract, load(path, contract["sample_rate"]), path)) for path in paths]
    if len(paths) == 1:
        print(json.dumps(embedded[0][1].tolist()))
    for (a, one), (b, other) in itertools.combinations(embedded, 2):
        print(json.dumps({"a": a, "b": b, "similarity": float(one @ other)}))


if __name__ == "__main__":
    try:
        main(*sys.argv[1:]) if sys.argv[1:] else sys.exit(__doc__)
    except Exception as error:  # ONNX Runtime's are of no other class
        sys.exit(f"embed.py: {error}")
