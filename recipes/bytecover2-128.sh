#!/usr/bin/env bash
# The paper's recipe as four commands, with the settings of the bundle that ships: ByteCover, PCA-FC inserted, PCA-FC
# trained alone, everything trained. Each command resumes where it was cut off.
#
#   recipes/bytecover2-128.sh SCORES RUN
#
# SCORES holds the folders pop909 (MIT), cre (public domain) and lieder (CC0); RUN receives checkpoints and bundle.
set -euo pipefail
scores=${1:?"folder with pop909, cre and lieder"}
run=${2:?"folder for checkpoints"}
songs=(
  --songs composed@0-500 --songs "$scores/pop909@0-350" --songs "$scores/cre@0-200" --songs "$scores/lieder@0-150"
  --arrangements 3 --cache "$run/cache"
)
held_out=(
  --validation-songs composed@900-920 --validation-songs "$scores/pop909@850-865"
  --validation-songs "$scores/cre@1100-1110"
)
settings=(--config "$(dirname "$0")/bytecover2-128.toml")

bytecover2-milvus train "${songs[@]}" "${held_out[@]}" "${settings[@]}" --out "$run/bytecover"
bytecover2-milvus fit-pca "$run/bytecover/best.safetensors" "${songs[@]}" --dim 128 --out "$run/pca.safetensors"
bytecover2-milvus train "${songs[@]}" "${held_out[@]}" "${settings[@]}" --init "$run/pca.safetensors" \
  --set 'training.phase="frozen"' --set training.steps=150 --set training.learning_rate=1e-3 --out "$run/frozen"
bytecover2-milvus train "${songs[@]}" "${held_out[@]}" "${settings[@]}" --init "$run/frozen/best.safetensors" \
  --set 'training.phase="joint"' --set training.steps=300 --set training.learning_rate=3e-4 \
  --set training.triplet_weight=0.1 --out "$run/joint"
bytecover2-milvus export "$run/joint/best.safetensors" --out "$run/bytecover2-128"
