"""Experts behind a gate: second heads that decode the frames in which a sensor is unwell.

Shapes: B samples, V cameras.
"""

from __future__ import annotations

import copy
from collections.abc import Mapping, Sequence
from typing import Any

import torch
from mmdet3d.registry import MODELS
from mmdet3d.structures import Det3DDataSample
from mmengine.model import ModuleDict
from mmengine.runner import CheckpointLoader
from torch import Tensor

from .detector import CmtDetector
from .feature_cache.frozen_features import BRANCHES
from .freezing import FreezePolicy, freeze
from .head import MODALITIES
from .health import Health, attach_health

_FEATURES = {part for parts in BRANCHES.values() for part in parts}


@MODELS.register_module()
class ExpertDetector(CmtDetector):
    """A :class:`CmtDetector` with a second head for frames with a damaged sensor.

    The health monitor is the gate. Where it reports the LiDAR or a camera below the threshold of
    that sensor, the expert of the sensor computes the boxes of the frame from the same features;
    elsewhere the head of the detector does, so that a sound frame keeps its boxes. An expert is a
    head that was fine-tuned under failures of its sensor, by a config that freezes all else.
    Nothing but the monitor trains here.

    Args:
        experts: for ``lidar``, ``camera`` or both, the checkpoint of a detector with the same head
            whose weights the expert takes when a training starts; ``None`` where ``load_from``
            contains those of the expert.
        below: health under which the expert of a sensor decodes, from 0 to 1.
        config: that of a :class:`CmtDetector`, with a ``health_monitor``.

    Raises:
        ValueError: no or an unknown sensor, another threshold, a config without a monitor, one with
            a part that trains, or one with a planner, which reads one head alone; when weights are
            loaded for a training, an expert that was trained on other features, or whose weights
            are not those of its file.
    """

    def __init__(
        self,
        *,
        experts: Mapping[str, str | None],
        below: Mapping[str, float],
        **config: Any,
    ) -> None:
        _check(experts, below, config)
        super().__init__(**config)
        if self._trained_parts() - {'health_monitor'}:
            raise ValueError(
                'experts know the features of a frozen detector: set frozen=True in the config of '
                'every part, as configs/_base_/frozen_detector.py does'
            )
        self.below = {sensor: below[sensor] for sensor in experts}
        self.experts = ModuleDict()  # mmengine's, which passes on `init_weights`
        for sensor, checkpoint in experts.items():
            expert = copy.deepcopy(self.pts_bbox_head)
            if checkpoint is not None:
                expert.init_cfg = dict(
                    type='Pretrained', checkpoint=checkpoint, prefix='pts_bbox_head.'
                )
            self.experts[sensor] = freeze(expert, FreezePolicy(frozen=True, norm_eval=True))
        self._checkpoints = {name: file for name, file in experts.items() if file is not None}
        self._to_compare: dict[str, str] = {}
        self.register_load_state_dict_post_hook(ExpertDetector._compare_features)

    def init_weights(self) -> None:
        """Loads the weights of the experts from their files."""
        super().init_weights()
        # The features that they were trained on are compared once the detector has its own.
        self._to_compare = self._checkpoints

    def _compare_features(self, incompatible_keys: object) -> None:
        own = self.state_dict()
        for sensor, file in self._to_compare.items():
            content = CheckpointLoader.load_checkpoint(file, map_location='cpu')
            for name, weight in content.get('state_dict', content).items():
                part, _, rest = name.partition('.')
                place = f'experts.{sensor}.{rest}' if part == 'pts_bbox_head' else name
                if place == name and part not in _FEATURES:
                    continue
                # A published checkpoint is rounded to half precision.
                found = own.get(place)
                if found is not None and torch.equal(found.cpu().to(weight.dtype), weight):
                    continue
                raise ValueError(_difference(sensor, name, file, in_head=place != name))
        self._to_compare = {}

    def predict_from(
        self,
        features: tuple[Tensor, Tensor],
        batch_inputs_dict: Mapping,
        batch_data_samples: Sequence[Det3DDataSample],
    ) -> Sequence[Det3DDataSample]:
        """Returns the samples with boxes and health, as :meth:`CmtDetector.predict` does.

        Their metadata get ``expert``: the sensor whose expert computed the boxes, or None.
        """
        logits, cameras = self._health(features, batch_inputs_dict, batch_data_samples)
        chosen = self.choose(logits, cameras.camera_mask)
        found = {}
        for expert in dict.fromkeys(chosen):
            index = [i for i, name in enumerate(chosen) if name == expert]
            head = self.pts_bbox_head if expert is None else self.experts[expert]
            some = [batch_data_samples[i] for i in index]
            boxes = head.predict(*(maps[index] for maps in features), some)
            found.update(zip(index, boxes, strict=True))
        samples = self.add_pred_to_datasample(
            batch_data_samples, [found[i] for i in range(len(chosen))]
        )
        for sample, expert in zip(samples, chosen, strict=True):
            sample.set_metainfo(dict(expert=expert))
        attach_health(samples, logits, batch_inputs_dict.get('health'))
        return samples

    def choose(self, logits: Health, camera_mask: Tensor) -> list[str | None]:
        """Returns the sensor whose expert decodes each sample; None for the detector's own head.

        Of two sensors below their thresholds, the one that is further below.

        Args:
            logits: of the monitor.
            camera_mask: (B, V), bool: cameras that a sample has.
        """
        worst = logits.cameras.masked_fill(~camera_mask, torch.inf).amin(dim=1)
        health = dict(lidar=logits.lidar.sigmoid(), camera=worst.sigmoid())
        margins = torch.stack([health[name] - limit for name, limit in self.below.items()])
        margin, index = margins.min(dim=0)
        names = [*self.below, None]
        return [names[i] for i in index.masked_fill(margin >= 0, len(self.below)).tolist()]


def _difference(sensor: str, name: str, file: str, *, in_head: bool) -> str:
    message = f'experts.{sensor}: {name} of {file} is not that of '
    if in_head:
        return message + (
            'the expert, since the head differs from that of this config or load_from has an '
            'expert of its own; take the config that it was trained with, and load_from of a CMT'
        )
    return message + (
        'the detector, so the expert knows other features; fine-tune its head alone, from the '
        'same load_from, as configs/cmt/*_expert.py do'
    )


def _check(experts: Mapping, below: Mapping, config: Mapping) -> None:
    if not experts or set(experts) - set(MODALITIES):
        raise ValueError(f'experts are of {list(experts)}; name some of {list(MODALITIES)}')
    if set(below) != set(experts) or not all(0 <= limit <= 1 for limit in below.values()):
        raise ValueError(f'below is {dict(below)}; give a health from 0 to 1 for {list(experts)}')
    if config.get('health_monitor') is None:
        raise ValueError('ExpertDetector asks a health monitor which sensor is unwell: give one')
    if config.get('planner') is not None:
        raise ValueError('a planner reads one head alone: use CmtDetector, or leave it out')
