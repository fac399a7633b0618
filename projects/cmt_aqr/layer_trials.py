"""Trials of encoder layers: which of them gives the least detection loss.

The label of a batch, from which :class:`~projects.cmt_aqr.necks.AdaptiveLayers` learns.

Shapes: B samples, V cameras, C channels.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import torch
from mmdet3d.registry import MODELS
from mmdet3d.structures import Det3DDataSample
from mmengine.logging import MessageHub
from torch import Tensor

from .detector import CmtDetector
from .necks import AdaptiveLayers


@MODELS.register_module()
class LayerTrialDetector(CmtDetector):
    """A :class:`CmtDetector` that labels the layers of :class:`AdaptiveLayers` in its ``img_neck``.

    In every ``interval``-th training step, neck and head compute the detection loss of each of the
    ``top_k`` layers, without gradients, dropout or denoising queries. The layer with the least loss
    is the label of the batch, with which the step continues. A trial costs one forward pass of neck
    and head, with a matching on the host; the backbones run once a step. In testing it is a
    `CmtDetector`.

    Args:
        config: that of a :class:`CmtDetector`.

    Raises:
        ValueError: ``img_neck`` has no :class:`AdaptiveLayers`, or several.
    """

    def __init__(self, **config: Any) -> None:
        super().__init__(**config)
        self._selector.has_trials = True

    def loss(
        self, batch_inputs_dict: Mapping, batch_data_samples: Sequence[Det3DDataSample]
    ) -> dict[str, Tensor]:
        """Losses of a batch, see :meth:`CmtDetector.loss`."""
        selector = self._selector
        iteration = MessageHub.get_current_instance().get_info('iter', 0)
        if iteration % selector.interval or not selector.training:  # it is not if frozen
            return super().loss(batch_inputs_dict, batch_data_samples)
        inputs = self._with_features(batch_inputs_dict)
        selector.label = self._best_layer(inputs, batch_data_samples)
        try:
            return super().loss(inputs, batch_data_samples)
        finally:
            selector.label = None

    @property
    def _selector(self) -> AdaptiveLayers:
        neck = getattr(self, 'img_neck', None)
        found = [m for m in neck.modules() if isinstance(m, AdaptiveLayers)] if neck else []
        if len(found) != 1:
            raise ValueError(
                f'LayerTrialDetector needs one AdaptiveLayers in img_neck, which has {len(found)}: '
                "set combine=dict(type='AdaptiveLayers', ...) of a projector, or use CmtDetector"
            )
        return found[0]

    def _with_features(self, inputs: Mapping) -> dict:
        """The inputs with the features of the batch, so that no backbone runs again."""
        features = dict(inputs.get('features', {}))
        bev = self.extract_pts_feat(inputs)
        if bev is not None:
            features['pts_neck'] = [bev, *self._statistics('lidar', inputs)]
        if 'img_backbone' not in features and inputs.get('imgs') is not None:
            maps = self.image_maps(inputs['imgs'])
            features['img_backbone'] = [*maps, *self._statistics('camera', inputs)]
        return {**inputs, 'features': features}

    def _statistics(self, branch: str, inputs: Mapping) -> list[Tensor]:
        """Statistics that a health monitor expects after the cached maps of a branch."""
        monitor = self.health_monitor
        return [] if monitor is None else [monitor.statistics_of(branch, inputs)]

    @torch.no_grad()
    def _best_layer(self, inputs: Mapping, samples: Sequence[Det3DDataSample]) -> Tensor:
        """The layer () with the least detection loss of those that are tried."""
        selector, parts = self._selector, (self.img_neck, self.pts_bbox_head)
        modes = [part.training for part in parts]
        for part in parts:
            part.eval()
        maps = self._cached_maps(inputs['features'], 'img_backbone')
        # Without images too, since every rank has to call the same collectives.
        tried = torch.arange(selector.top_k)
        if maps is not None:
            tried = selector.candidates([m.flatten(0, 1) for m in maps])
        losses = []
        for layer in tried:
            selector.label = layer
            losses.append(self._detection_loss(inputs, samples))
        for part, mode in zip(parts, modes, strict=True):
            part.train(mode)
        # Autocast keeps the weights that it has cast, here without a graph; torch below 2.11 would
        # take them in the step as well, which then has no gradients.
        torch.clear_autocast_cache()
        return tried[torch.stack(losses).argmin().to(tried.device)]

    def _detection_loss(self, inputs: Mapping, samples: Sequence[Det3DDataSample]) -> Tensor:
        head = self.pts_bbox_head
        outputs = head(*self.extract_feat(inputs), [sample.metainfo for sample in samples])
        return sum(head.losses(outputs.tasks, head.ground_truth(samples), None).values())
