"""A training step of the detector, timed by phase and branch."""

from collections.abc import Mapping

import numpy as np
import torch
from mmdet3d.registry import MODELS
from mmengine.config import Config
from mmengine.optim import build_optim_wrapper
from mmengine.registry import init_default_scope
from torch import Tensor, nn

from .inputs import first_batch, random_batch, resize_images
from .timing import Stopwatch, Times

BRANCHES = ('camera', 'lidar', 'head')
# The head is a branch of its own; the others only prepare the batch.
_NO_PARTS = ('pts_bbox_head', 'data_preprocessor', 'grid_mask')


class TrainingStep:
    """One training step after another, on the same sample, each timed.

    The weights are random: this is about time and memory. The step is that of the detector, but cut
    at the two feature maps: the head's gradient stops there, is kept, and then goes on into each
    branch, so that the backward pass is seen by branch. Gradients are those of the whole step.

    Args:
        config: file of the config.
        options: settings to change in it.
        data_root: whose first sample is trained on; ``None`` makes one at random.
        device: to train on.
        image_size: height and width to bring images to; ``None`` takes the config's.

    Attributes:
        model: in training mode.
        batch: the sample, as it is collated.
    """

    def __init__(
        self,
        *,
        config: str,
        options: Mapping,
        data_root: str | None,
        device: torch.device,
        image_size: tuple[int, int] | None = None,
    ) -> None:
        cfg = Config.fromfile(config)
        cfg.merge_from_dict(dict(options))
        if image_size is not None:
            resize_images(cfg, image_size)
        init_default_scope('mmdet3d')
        self.device = device
        _fix_chance()
        self.batch = random_batch(cfg) if data_root is None else first_batch(cfg, data_root)
        self.model = MODELS.build(cfg.model)
        self.model.init_weights()
        self.model.to(device).train()
        self.optim_wrapper = build_optim_wrapper(self.model, cfg.optim_wrapper)
        self._watch = Stopwatch(device)
        for name, part in self.parts.items():
            self._time(name, part)

    @property
    def parts(self) -> dict[str, nn.Module]:
        """Backbones, necks and encoders by name."""
        return {n: part for n, part in self.model.named_children() if n not in _NO_PARTS}

    @property
    def facts(self) -> dict:
        """What of the model trains, what is frozen, and which parts compute activations again."""
        return {
            'parameters': sum(p.numel() for p in self.model.parameters()),
            'trainable': sum(p.numel() for p in self.model.parameters() if p.requires_grad),
            'frozen_parts': [name for name, part in self.parts.items() if _is_frozen(part)],
            'checkpointed_parts': [
                name
                for name, part in self.parts.items()
                if not _is_frozen(part) and any(_is_checkpointed(m) for m in part.modules())
            ],
        }

    def __call__(self) -> Times:
        """Take a step.

        Returns:
            seconds of ``input`` (the move to the device, voxels), ``forward``, ``backward``,
            ``update`` (clipping and the optimizer) and their sum ``step``; of ``forward/BRANCH``
            and ``backward/BRANCH``; and of the forward pass of every part as ``part/NAME``. On a
            CPU all of these also as ``cpu/...``, in processor time of all threads.
        """
        self._watch.reset()
        _fix_chance()  # so that denoising and masks ask for the same work in every step
        self.differentiate()
        with self._watch.lap('update'):
            self.optim_wrapper.step()
            self.optim_wrapper.zero_grad()
        return self._watch.times(_with_sums)

    def differentiate(self) -> None:
        """Run forward and backward, so that every parameter that trains has its gradient."""
        lap, model = self._watch.lap, self.model
        with lap('input'):
            data = model.data_preprocessor(self.batch, True)
        inputs = data['inputs']
        with lap('forward/camera'):
            images = model.extract_img_feat(inputs)
        with lap('forward/lidar'):
            bev = model.extract_pts_feat(inputs)
        cut_images, cut_bev = _cut(images), _cut(bev)
        with lap('forward/head'):
            losses = model.pts_bbox_head.loss(cut_bev, cut_images, data['data_samples'])
            loss = sum(value for name, value in losses.items() if 'loss' in name)
        with lap('backward/head'):
            loss.backward()
        with lap('backward/lidar'):
            _go_on(bev, cut_bev)
        with lap('backward/camera'):
            _go_on(images, cut_images)

    def _time(self, name: str, part: nn.Module) -> None:
        """Let the watch run while a part does its forward pass."""
        laps = []

        def start(*_: object) -> None:
            laps.append(self._watch.lap(f'part/{name}'))
            laps[-1].__enter__()

        def stop(*_: object) -> None:
            laps.pop().__exit__(None, None, None)

        part.register_forward_pre_hook(start)
        part.register_forward_hook(stop)


def _fix_chance() -> None:
    torch.manual_seed(0)
    np.random.seed(0)


def _cut(features: Tensor | None) -> Tensor | None:
    """The same features as a leaf, which takes a gradient where they would have passed it on."""
    if features is None:
        return None
    return features.detach().requires_grad_(features.requires_grad)


def _go_on(features: Tensor | None, cut: Tensor | None) -> None:
    """Take the gradient from where it was cut into the branch, if anything there trains."""
    if features is not None and features.requires_grad:
        features.backward(cut.grad)


def _is_frozen(part: nn.Module) -> bool:
    """Whether a part with parameters has none that trains."""
    trains = [p.requires_grad for p in part.parameters()]
    return bool(trains) and not any(trains)


def _is_checkpointed(module: nn.Module) -> bool:
    """Whether a block of mmdet computes its activations again in the backward pass."""
    return getattr(module, 'with_cp', False) is True


def _with_sums(laps: Times) -> Times:
    sums = {
        phase: sum(laps[f'{phase}/{branch}'] for branch in BRANCHES)
        for phase in ('forward', 'backward')
    }
    step = laps['input'] + sums['forward'] + sums['backward'] + laps['update']
    return {'step': step, **sums, **laps}
