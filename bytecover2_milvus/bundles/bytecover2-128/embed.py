"""Compare recordings: python embed.py MODEL_DIR a.wav b.wav ... prints the cosine similarity of every pair, of one file
alone its embedding, with --chroma embedding and chroma of each file (a bundle of version 1 has no chroma), and without
files how far this machine is from golden.npz; needs numpy, onnxruntime, soundfile.
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


def hear(session, contract, waveform, name):
    """Embedding (D,) and, from version 2 on, chroma (frames, channels) of mono float32 at the contract's rate."""
    if len(waveform) < contract["shortest_samples"] or not contract["silence_peak"] <= np.abs(waveform).max() < np.inf:
        raise SystemExit(f"{name}: too short, silent or damaged: the embedding would mean nothing")
    repeated = np.tile(waveform, -(-contract["minimum_samples"] // len(waveform)))  # whole copies, rounded up
    outputs = ["embedding", "chroma"][: contract["contract_version"]]
    heard = [rows[0].tolist() for rows in session.run(outputs, {"waveform": repeated[None]})]
    for chroma in heard[1:]:  # none in version 1; only the frames of the waveform's own length
        hop = contract["front_end"]["hop_length"]
        del chroma[(1 + len(waveform) // hop) * hop // contract["chroma"]["frame_samples"] :]
    return dict(zip(outputs, heard, strict=True))


def main(folder, *arguments):
    with open(f"{folder}/contract.json", encoding="utf-8") as file:
        contract = json.load(file)
    version, paths = contract["contract_version"], [argument for argument in arguments if argument != "--chroma"]
    if version not in (1, 2):
        raise SystemExit(f"contract version {version}: this program knows versions 1 and 2")
    session = onnxruntime.InferenceSession(f"{folder}/model.onnx", providers=["CPUExecutionProvider"])
    if version == 1 and (not paths or "--chroma" in arguments):
        print(f"{folder}: contract version 1 has no second stage: no chroma", file=sys.stderr)
    for name in () if paths else ("long", "short"):
        golden = np.load(f"{folder}/golden.npz")
        heard = hear(session, contract, golden[f"{name}_waveform"].astype(np.float32) / 32768, name)
        for output, tolerance in zip(heard, (contract["parity_tolerance"], 0.01), strict=False):
            difference = float(np.abs(heard[output] - golden[f"{name}_{output}"]).max())
            print(json.dumps({"golden": name, "output": output, "difference": difference}))
            if not difference <= tolerance:
                raise SystemExit(f"{name}: {output} differs by more than {tolerance}")
    recordings = [{"file": path} | hear(session, contract, load(path, contract["sample_rate"]), path) for path in paths]
    for recording in recordings:
        if "--chroma" in arguments:
            print(json.dumps(recording))
        elif len(paths) == 1:
            print(json.dumps(recording["embedding"]))
    for a, b in itertools.combinations(recordings, 2):
        print(json.dumps({"a": a["file"], "b": b["file"], "similarity": float(np.dot(a["embedding"], b["embedding"]))}))


if __name__ == "__main__":
    try:
        main(*sys.argv[1:]) if sys.argv[1:] else sys.exit(__doc__)
    except Exception as error:  # ONNX Runtime's are of no other class
        sys.exit(f"embed.py: {error}")
