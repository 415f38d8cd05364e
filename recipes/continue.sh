#!/usr/bin/env bash
# Training that goes on for as long as it is let: from the last weights in RUN if there are any, else from the bundle that ships,
# or on a GPU from new weights with the paper's backbone. It may be killed at any moment; the same command goes on from what was
# saved last. Tracks that were heard HEARINGS times are replaced by new ones, so the cache stays as large as it is; what is
# validated and saved is a moving average of the weights. RUN may stay the same when songs, settings or the code have changed.
#
#   recipes/continue.sh RUN [SCORES]
#
# RUN receives log.jsonl (one line for each validation: step, hours, samples, scores), best.safetensors, last.safetensors and, in
# cache, about 0.2 MB for each song. SCORES holds scores as docs/songs.md names them, and need not have all; without it songs are
# composed. What comes of it becomes a bundle by `fit-pca RUN/best.safetensors` and `export`, as in bytecover2-128.sh.
#
# A machine with a GPU needs this repository and `pip install ".[cuda,train]"`; SCORES; with SOUND_FONT the font and the program
# fluidsynth; and RUN without its cache, to go on from where another machine was. Nothing is downloaded. The first minutes go into
# reading scores, playing what is validated on, and measuring tones.
#
# From the environment, all optional:
#   PHASE         "chroma" trains the chroma network beside the backbone, which stays as it is
#   INIT          the checkpoint or bundle to start from; RUN's own weights come before it
#   SOUND_FONT    a General MIDI sound font that plays some of the parts, which needs FluidSynth
#   SONGS, HELD_OUT   the songs in place of those named here, as --songs takes them, with blanks between
#   HEARINGS      of a track before another takes its place, 4 unless given
#   RATE          the learning rate, 5e-4 unless given, 3e-3 of a chroma network
#   SETTINGS      further settings, as --set takes them, with blanks between
#   SPECTRAL      share of the tracks that are drawn, 0.995 unless given; the others are played
#   NICE          how far others go first, 19 unless given
#   WORKERS       processes that make tracks beside the training, one for each core unless given
#   PYTHON        the interpreter
set -euo pipefail
run=${1:?"folder of the run"}
scores=${2:-${SCORES:-}}
here=$(dirname "$0")
python=${PYTHON:-python}
mkdir -p "$run"
exec 9> "$run/lock"  # stays with the training, and is free some seconds after that is gone
flock --timeout 30 9 || { echo "$run: a training is at it already" >&2; exit 1; }
find "$run" -name '*.part' -delete  # left by a process that was killed
[ ! -d "$run/cache" ] || find "$run/cache" -name '*.npy' -mtime +30 -delete  # of songs or code that are no more

sources=(composed@0-2500)
validation=(composed@1000000-1000020)
if [ -n "$scores" ]; then
  for part in pop909@0-850 lieder@0-1250; do [ ! -d "$scores/${part%@*}" ] || sources+=("$scores/$part"); done
  if [ -e "$scores/variants/index.csv" ]; then
    "$python" "$here/works.py" "$scores" "$run/works.csv"
    sources+=("$run/works.csv@train")
  elif [ -d "$scores/cre" ]; then
    sources+=("$scores/cre@0-1000")
  fi
  for part in pop909@850-865 cre@1100-1110 lieder@1250-1265; do
    [ ! -d "$scores/${part%@*}" ] || validation+=("$scores/$part")
  done
fi
[ -z "${SONGS:-}" ] || read -ra sources <<< "${SONGS//$'\n'/ }"
[ -z "${HELD_OUT:-}" ] || read -ra validation <<< "${HELD_OUT//$'\n'/ }"
read -ra more <<< "${SETTINGS:-}"

phase=${PHASE:-bytecover}
gpu=$("$python" -c 'import torch; print(int(torch.cuda.is_available()))')
settings=()
if [ -e "$run/last.safetensors" ]; then
  settings+=(--init "$run/last.safetensors")
elif [ -n "${INIT:-}" ]; then
  settings+=(--init "$INIT")
elif [ "$gpu" = 1 ] && [ "$phase" = bytecover ]; then
  settings+=(
    --set front_end.time_pooling=40 --set 'front_end.scale="sqrt"' --set 'network.transpositions=[-3, 0, 3]'
    --set 'network.stage_blocks=[3, 4, 6, 3]' --set network.base_width=64
  )
else
  settings+=(--init "$("$python" -c 'from bytecover2_milvus.embedding.bundle import default_bundle; print(default_bundle())')")
fi
[ "$gpu" = 0 ] || settings+=(--set training.works_per_batch=256 --set training.tracks_per_work=4)
if [ "$phase" = chroma ]; then
  settings+=(--config "$here/chroma.toml" --arrangements 2 --set training.learning_rate="${RATE:-3e-3}")
else
  settings+=(--config "$here/continue.toml" --arrangements 4 --set training.learning_rate="${RATE:-5e-4}")
  settings+=(--set 'network.feature_dim="none"')
fi

# glibc would give large tensors back to the system after every step.
export MALLOC_MMAP_THRESHOLD_=33554432 MALLOC_TRIM_THRESHOLD_=4000000000
exec nice -n "${NICE:-19}" "$python" -m bytecover2_milvus train --go-on --out "$run" --cache "$run/cache" \
  "${sources[@]/#/--songs=}" "${validation[@]/#/--validation-songs=}" --spectral "${SPECTRAL:-0.995}" --degraded 0.8 \
  ${SOUND_FONT:+--sound-font "$SOUND_FONT"} --workers "${WORKERS:-$(nproc)}" \
  "${settings[@]}" --set training.hearings="${HEARINGS:-4.0}" "${more[@]/#/--set=}"
