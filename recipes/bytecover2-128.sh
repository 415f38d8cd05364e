#!/usr/bin/env bash
# The paper's recipe: ByteCover, which settles with little augmentation; PCA-FC inserted, PCA-FC trained alone, everything
# trained; exported with PCA-FC as inserted and at the end. Each command resumes where it was cut off. The bundle that ships
# had INIT and SOUND_FONT besides, and settled in three runs of 1 200, 1 500 and 560 steps; from random weights the whole has
# not been run.
#
#   recipes/bytecover2-128.sh SCORES RUN [CONFIG]
#
# SCORES holds the folders pop909 (MIT), cre (public domain) and lieder (CC0); RUN receives checkpoints and bundle;
# CONFIG is bytecover2-128.toml (two CPU cores) unless given: bytecover2-128-gpu.toml has the paper's backbone.
#
# From the environment, all optional:
#   DIM           width of the embedding, 128 unless given; the paper's other one is 1536
#   INIT          a checkpoint or bundle of the same backbone to go on from, without its PCA-FC
#   SOUND_FONT    a General MIDI sound font that plays some of the parts, which needs FluidSynth
#   COMPOSED      how many songs are composed
#   SONGS         the songs in place of those named here, as --songs takes them, with blanks between; HELD_OUT for validation
#   FROZEN_STEPS, JOINT_STEPS   length of the last two phases
#   ARRANGEMENTS  tracks of each song
#   WORKERS       processes that make tracks, one for each core unless given
#   PYTHON        the interpreter
set -euo pipefail
scores=${1:?"folder with pop909, cre and lieder"}
run=${2:?"folder for checkpoints"}
config=${3:-$(dirname "$0")/bytecover2-128.toml}
bytecover2=("${PYTHON:-python}" -m bytecover2_milvus)
dim=${DIM:-128}
sources=("composed@0-${COMPOSED:-2500}" "$scores/pop909@0-850" "$scores/cre@0-1000" "$scores/lieder@0-1250")
validation=(composed@1000000-1000020 "$scores/pop909@850-865" "$scores/cre@1100-1110" "$scores/lieder@1250-1265")
[ -z "${SONGS:-}" ] || read -ra sources <<< "${SONGS//$'\n'/ }"
[ -z "${HELD_OUT:-}" ] || read -ra validation <<< "${HELD_OUT//$'\n'/ }"
songs=(
  "${sources[@]/#/--songs=}" --arrangements "${ARRANGEMENTS:-18}" --spectral 0.995 --degraded 0.8
  ${SOUND_FONT:+--sound-font "$SOUND_FONT"} --cache "$run/cache" --workers "${WORKERS:-$(nproc)}"
)
held_out=("${validation[@]/#/--validation-songs=}")
settings=(--config "$config")
settled=(  # what augments a crop costs more than it gives once a network has learned; a lower temperature goes with it
  --set training.seed=1 --set training.temperature=0.07 --set training.tuning=0.2 --set training.tempo=1.0
  --set 'training.crop_s=[25.0, 50.0, 75.0, 95.0, 115.0]'
  --set training.equaliser_db=3.0 --set training.compression=0.0 --set training.room_s=0.0 --set training.crowd=0.0
  --set training.silence=0.0
)

"${bytecover2[@]}" train "${songs[@]}" "${held_out[@]}" "${settings[@]}" \
  ${INIT:+--init "$INIT" --set 'network.feature_dim="none"'} --out "$run/bytecover"
"${bytecover2[@]}" train "${songs[@]}" "${held_out[@]}" "${settings[@]}" "${settled[@]}" \
  --init "$run/bytecover/best.safetensors" --out "$run/settled"
[ -e "$run/pca-$dim.safetensors" ] ||
  "${bytecover2[@]}" fit-pca "$run/settled/best.safetensors" "${songs[@]}" --arrangements 2 --dim "$dim" \
    --out "$run/pca-$dim.safetensors"  # half as many tracks as there are songs are enough for the axes
# pca-128 is the bundle that ships, as it validated best; on a backbone that has converged the next two steps should gain.
"${bytecover2[@]}" export "$run/pca-$dim.safetensors" --silence skipped --out "$run/pca-$dim"
"${bytecover2[@]}" train "${songs[@]}" "${held_out[@]}" "${settings[@]}" "${settled[@]}" \
  --init "$run/pca-$dim.safetensors" --set 'training.phase="frozen"' --set training.steps="${FROZEN_STEPS:-150}" \
  --set training.learning_rate=1e-3 --out "$run/frozen-$dim"
# last, not best: where PCA-FC alone gains nothing, best is what it began with, and no classifier would be trained.
"${bytecover2[@]}" train "${songs[@]}" "${held_out[@]}" "${settings[@]}" "${settled[@]}" \
  --init "$run/frozen-$dim/last.safetensors" --set 'training.phase="joint"' --set training.steps="${JOINT_STEPS:-300}" \
  --set training.learning_rate=3e-4 --set training.triplet_weight=0.1 --out "$run/joined-$dim"
"${bytecover2[@]}" export "$run/joined-$dim/best.safetensors" --silence skipped --out "$run/joint-$dim"
