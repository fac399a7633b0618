"""Detectors by the name of a shipped model, or by a config and a checkpoint."""

from __future__ import annotations

import os
from collections.abc import Mapping
from pathlib import Path
from typing import NamedTuple

import torch
from mmdet3d.registry import MODELS
from mmengine.config import Config
from mmengine.fileio import load
from mmengine.registry import DefaultScope

from .. import paths
from ..cli.checkpoints import check_checkpoint, misfits
from ..cli.config_file import read_config_file
from ..detector import CmtDetector
from ..inference import fold_for_inference
from ..usage_error import UsageError, did_you_mean


class ShippedModel(NamedTuple):
    """Files of a model whose weights come with this project."""

    config: Path
    weights: Path


def shipped_models() -> dict[str, ShippedModel]:
    """The shipped models by name, from the metafiles of the configs."""
    entries = [
        entry for file in paths.configs().glob('*/metafile.yml') for entry in load(file)['Models']
    ]
    return {
        entry['Name']: ShippedModel(
            config=paths.configs().parent / entry['Config'],
            weights=paths.weights() / Path(entry['Weights']).name,
        )
        for entry in entries
        if 'Weights' in entry
    }


def init_detector(
    model: str | os.PathLike,
    checkpoint: str | os.PathLike | None = None,
    *,
    device: str | None = None,
    dtype: str | None = None,
    cfg_options: Mapping | None = None,
) -> CmtDetector:
    """Build a detector in evaluation mode; its config is the attribute ``cfg``.

    It is folded for inference, see :func:`~projects.cmt_aqr.inference.fold_for_inference`.

    Args:
        model: name of a shipped model, or a config file.
        checkpoint: file or URL of the weights; None for those of the shipped model.
        device: device of the model; None for the GPU if there is one.
        dtype: 'bfloat16', or 'float16' on a GPU, to compute convolutions and cross-attention in
            this precision; None for that of the weights.
        cfg_options: settings to change in the config.

    Raises:
        UsageError: there is no such model or file, the weights do not fit, or the CPU is to compute
            in float16.
    """
    shipped = shipped_models()
    if str(model) in shipped:
        config, weights = shipped[str(model)]
        checkpoint = checkpoint or weights
    elif Path(model).is_file():
        config = Path(model)
    else:
        hint = did_you_mean(str(model), shipped) or f'; known: {", ".join(shipped)}'
        raise UsageError(f'model {model} is neither a config file nor a shipped model{hint}')
    if checkpoint is None:
        raise UsageError(
            f'config {model} needs a checkpoint; models with their own are {", ".join(shipped)}'
        )
    check_checkpoint(str(checkpoint))
    cfg = read_config_file(config, cfg_options or {})
    return build_model(cfg, checkpoint, device=device, dtype=dtype)


def build_model(
    cfg: Config,
    checkpoint: str | os.PathLike,
    *,
    device: str | None = None,
    dtype: str | None = None,
) -> CmtDetector:
    """The model of a config, with all weights from the checkpoint and folded for inference.

    Args:
        cfg: config, kept as the attribute ``cfg`` of the model.
        checkpoint: file or URL of the weights.
        device: as for :func:`init_detector`.
        dtype: as for :func:`init_detector`.

    Raises:
        UsageError: the checkpoint has missing or unexpected weights, or the CPU is to compute in
            float16.
    """
    with DefaultScope.overwrite_default_scope(cfg.get('default_scope', 'mmdet3d')):
        model = MODELS.build(cfg.model)
    if faults := misfits(model, str(checkpoint)):
        raise UsageError(f'checkpoint {checkpoint} does not fit {cfg.filename}: {faults}')
    model.cfg = cfg
    model = model.to(device or ('cuda' if torch.cuda.is_available() else 'cpu')).eval()
    return fold_for_inference(model, dtype=dtype)
