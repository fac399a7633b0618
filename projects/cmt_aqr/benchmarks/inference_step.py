"""Inference of the detector, timed by branch and part."""

from collections.abc import Mapping

import torch
from mmdet3d.registry import MODELS
from mmengine.config import Config
from mmengine.registry import init_default_scope
from torch import nn

from .flops import count_flops
from .inputs import first_batch, random_batch
from .timing import Stopwatch, Times

HEAD = 'pts_bbox_head'


class InferenceStep:
    """From one sample to its boxes, again and again; the weights are random.

    Args:
        config: file of the config.
        options: settings to change in it.
        data_root: whose first sample is looked at; ``None`` makes one at random.
        device: to work on.

    Attributes:
        model: in evaluation mode.
        batch: the sample, as it is collated.
    """

    def __init__(
        self, *, config: str, options: Mapping, data_root: str | None, device: torch.device
    ) -> None:
        cfg = Config.fromfile(config)
        cfg.merge_from_dict(dict(options))
        init_default_scope('mmdet3d')
        torch.manual_seed(0)
        self.device = device
        self.batch = random_batch(cfg) if data_root is None else first_batch(cfg, data_root)
        self.model = MODELS.build(cfg.model)
        self.model.init_weights()
        self.model.eval()
        self._watch = Stopwatch(device)
        self()  # the first call also makes and checks the copies that compute what is frozen
        self._flops = count_flops(self.parts, self)
        self.model.to(device)

    @property
    def parts(self) -> dict[str, nn.Module]:
        """Parts of the model that have parameters, by name, in the order of the data flow."""
        named = dict(self.model.named_children())
        names = [*(name for name in named if name != HEAD), HEAD]
        return {n: named[n] for n in names if any(True for _ in named[n].parameters())}

    @property
    def facts(self) -> dict[str, dict[str, int]]:
        """For each part: parameters that train, that are frozen, and operations of the sample."""
        return {
            name: {
                'trainable': sum(p.numel() for p in part.parameters() if p.requires_grad),
                'frozen': sum(p.numel() for p in part.parameters() if not p.requires_grad),
                'flops': self._flops[name],
            }
            for name, part in self.parts.items()
        }

    @torch.no_grad()
    def __call__(self) -> Times:
        """Find the boxes once.

        Returns:
            seconds of ``input`` (the move to the device, voxels), ``lidar``, ``camera``, ``head``
            (decoder and boxes) and their sum ``inference``. On a CPU all of these also as
            ``cpu/...``, in processor time of all threads.
        """
        self._watch.reset()
        lap, model = self._watch.lap, self.model
        with lap('input'):
            data = model.data_preprocessor(self.batch, False)
        inputs = data['inputs']
        with lap('lidar'):
            bev = model.extract_pts_feat(inputs)
        with lap('camera'):
            images = model.extract_img_feat(inputs)
        with lap('head'):
            model.pts_bbox_head.predict(bev, images, data['data_samples'])
        return self._watch.times(_with_sum)


def _with_sum(laps: Times) -> Times:
    return {'inference': sum(laps.values()), **laps}
