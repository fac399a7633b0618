#!/usr/bin/env bash
# Compares frozen encoders, projectors and choices of layers on the synthetic database, see
# docs/encoders.md: pretrains two tiny ViTs, trains a CMT on each variant with the same budget, and
# scores all of them. Interrupted, the same command goes on where it stopped.
#
#   benchmarks/encoders/compare.sh [VARIANT...]
#
#   PRETRAIN_EPOCHS=20 EPOCHS=6   of the encoders and of each variant
#   DATA_ROOT=data/synthetic_encoders/   the database
#   CONDITIONS="view_drop"      rows of tools/test_robustness.py; FRAMES limits the frames
set -euo pipefail
cd "$(dirname "${BASH_SOURCE[0]}")/../.."
export PYTHONPATH=. OMP_WAIT_POLICY=passive
PYTHON=${PYTHON:-python}
OUT=work_dirs/encoders
CONFIGS=configs/cmt_encoders
DUAL=$CONFIGS/cmt_tiny_dinov2_siglip_synthetic.py
ALL='[0,1,2,3]'
PRETRAIN_EPOCHS=${PRETRAIN_EPOCHS:-20}
EPOCHS=${EPOCHS:-6}
DATA_ROOT=${DATA_ROOT:-data/synthetic_nuscenes/}
CONDITIONS=${CONDITIONS:-lidar_drop view_drop camera_loss_2}
read -ra VARIANTS <<< "${*:-resnet dinov2 siglip dual mlp moe last concat weighted adaptive}"

train() {  # config, folder and further arguments; only an interrupted run is resumed
  local resume=()
  if [[ -e $2/last_checkpoint ]]; then resume=(--resume); fi
  $PYTHON tools/train.py "$1" --work-dir "$2" --seed 0 "${resume[@]}" --cfg-options "${@:3}"
}

layers() { echo "model.img_backbone.first.layers=$1 model.img_backbone.second.layers=$1"; }

variant() {  # config and options of a variant
  case $1 in
    resnet)   echo $CONFIGS/cmt_tiny_resnet_synthetic.py ;;
    dinov2)   echo $CONFIGS/cmt_tiny_dinov2_synthetic.py ;;
    siglip)   echo $CONFIGS/cmt_tiny_siglip_synthetic.py ;;
    dual)     echo $DUAL ;;
    mlp)      echo $DUAL model.img_neck.type=FusedMLPProjector ;;
    moe)      echo $DUAL model.img_neck.type=MoEProjector ;;
    last)     echo $DUAL "$(layers '[-1]')" ;;
    concat)   echo $DUAL "$(layers "$ALL")" model.img_neck.in_channels=768 ;;
    weighted) echo $DUAL "$(layers "$ALL")" model.img_neck.combine.type=WeightedLayers \
                model.img_neck.combine.num_layers=4 ;;
    adaptive) echo $CONFIGS/cmt_tiny_dinov2_siglip_synthetic_moe.py ;;
    *)        echo "unknown variant $1" >&2; exit 2 ;;
  esac
}

for name in dinov2 siglip; do
  [[ -e $OUT/tiny_$name/model.safetensors ]] && continue
  config=benchmarks/encoders/pretrain_$name.py
  train $config $OUT/pretrain_$name data_root="$DATA_ROOT" max_epochs="$PRETRAIN_EPOCHS"
  $PYTHON -m benchmarks.encoders.export $config "$(cat $OUT/pretrain_$name/last_checkpoint)" \
    $OUT/tiny_$name
done

models=()
for name in "${VARIANTS[@]}"; do
  read -ra arguments <<< "$(variant "$name")"
  options=(data_root="$DATA_ROOT" max_epochs="$EPOCHS" feature_cache.directory=$OUT/features
    "${arguments[@]:1}")
  if [[ ! -e $OUT/$name/epoch_$EPOCHS.pth ]]; then
    $PYTHON tools/cache_features.py "${arguments[0]}" --data train --cfg-options "${options[@]}"
    train "${arguments[0]}" $OUT/"$name" "${options[@]}"
  fi
  ln -sf "$name/epoch_$EPOCHS.pth" $OUT/"$name".pth
  models+=(--model "$name" "$(ls $OUT/"$name"/*.py)" $OUT/"$name".pth)
done

read -ra conditions <<< "$CONDITIONS"
$PYTHON tools/test_robustness.py "${models[@]:2:2}" "${models[@]:4}" \
  --conditions "${conditions[@]}" ${FRAMES:+--frames "$FRAMES"} --work-dir $OUT/scores
