"""Training steps of the detector, timed by phase and branch."""

import multiprocessing
import tempfile
from concurrent.futures import ProcessPoolExecutor

import torch
from mmengine.logging import MMLogger
from mmengine.optim import build_optim_wrapper
from torch import Tensor, nn

from projects.cmt_aqr.feature_cache import FeatureStore, frozen_features
from projects.cmt_aqr.feature_cache.store import Entry

from . import workload
from .timing import Stopwatch, Times
from .workload import Workload

BRANCHES = ('camera', 'lidar', 'head')
# Children of the detector that belong to no backbone branch.
_NO_PARTS = ('pts_bbox_head', 'data_preprocessor', 'grid_mask')
_KEY = '0' * 64  # of the sample in the feature cache


class TrainingStep:
    """Repeated training steps on one sample, with random weights.

    The graph is cut at the feature maps of the two branches: the backward pass of the head stops
    there, and its gradient then enters each branch, so that the backward pass is timed by branch.
    The gradients equal those of an uncut step.

    Attributes:
        model: the detector, in training mode.
        batch: the sample, collated.
    """

    def __init__(self, given: Workload, *, device: torch.device) -> None:
        cfg, self.model, self.batch = given.build()
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
        """Number of trained parameters, and the names of frozen parts."""
        return {
            'trainable': sum(p.numel() for p in self.model.parameters() if p.requires_grad),
            'frozen_parts': [name for name, part in self.parts.items() if _is_frozen(part)],
        }

    def __call__(self) -> Times:
        """Take a step.

        Returns:
            seconds of ``input`` (transfer to the device, voxels), ``forward``, ``backward``,
            ``update`` (gradient clipping and optimizer) and their sum ``step``; of
            ``forward/BRANCH`` and ``backward/BRANCH``; and of the forward pass of each part as
            ``part/NAME``. On a CPU also the processor time of each as ``cpu/...``.
        """
        self._watch.reset()
        workload.seed()
        self.differentiate()
        with self._watch.lap('update'):
            self.optim_wrapper.step()
            self.optim_wrapper.zero_grad()
        return self._watch.times(_with_sums)

    def differentiate(self) -> None:
        """Forward and backward pass; leaves the gradients of all trained parameters."""
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
            _continue_backward(bev, cut_bev)
        with lap('backward/camera'):
            _continue_backward(images, cut_images)

    def _time(self, name: str, part: nn.Module) -> None:
        """Time every forward pass of a part."""
        laps = []

        def start(*_: object) -> None:
            laps.append(self._watch.lap(f'part/{name}'))
            laps[-1].__enter__()

        def stop(*_: object) -> None:
            laps.pop().__exit__(None, None, None)

        part.register_forward_pre_hook(start)
        part.register_forward_hook(stop)


class CachedTrainingStep(TrainingStep):
    """A :class:`TrainingStep` that reads the features of frozen parts from a feature cache.

    Reading and verifying their file, which the page cache of Linux holds, counts as input.
    """

    def __init__(self, given: Workload, *, device: torch.device) -> None:
        super().__init__(given, device=device)
        self._directory = tempfile.TemporaryDirectory(prefix='features_')
        self._store = FeatureStore(directory=self._directory.name)
        # In another process, so that the memory for it does not count here.
        spawn = multiprocessing.get_context('spawn')
        with ProcessPoolExecutor(max_workers=1, mp_context=spawn) as pool:
            self._folders, shape = pool.submit(_fill, given, device, self._store).result()
        for sample in self.batch['data_samples']:
            sample.set_metainfo(dict(pad_shape=shape, batch_input_shape=shape))

    def differentiate(self) -> None:
        """Run forward and backward from the features on disk."""
        with self._watch.lap('input'):
            features = {}
            for folder in self._folders:
                maps = self._store.read(folder, _KEY).maps
                features[folder.partition('/')[0]] = [[m] for m in maps]
            self.batch['inputs'] = {'features': features}
        super().differentiate()


def _fill(
    given: Workload, device: torch.device, store: FeatureStore
) -> tuple[list[str], tuple[int, int]]:
    """Store the features of the sample; returns their folders and the size of the images."""
    MMLogger.get_current_instance().setLevel('WARNING')
    step = TrainingStep(given, device=device)
    folders = [
        frozen_features.feature_folder(step.model, branch, dtype=store.dtype, training=True)
        for branch in frozen_features.BRANCHES
    ]
    with torch.no_grad():
        inputs = step.model.data_preprocessor(step.batch, True)['inputs']
        for folder in folders:
            module = folder.partition('/')[0]
            maps = frozen_features.compute_output(step.model, module, inputs)
            store.write(folder, _KEY, Entry([m[0] for m in maps], {}))
    return folders, tuple(inputs['imgs'].shape[-2:])


def _cut(features: Tensor | None) -> Tensor | None:
    """The features as a leaf of the graph, with a gradient if they have one."""
    if features is None:
        return None
    return features.detach().requires_grad_(features.requires_grad)


def _continue_backward(features: Tensor | None, cut: Tensor | None) -> None:
    """Pass the gradient of the cut into the branch, if anything in it trains."""
    if features is not None and features.requires_grad:
        features.backward(cut.grad)


def _is_frozen(part: nn.Module) -> bool:
    """Whether a part has parameters and none of them trains."""
    trains = [p.requires_grad for p in part.parameters()]
    return bool(trains) and not any(trains)


def _with_sums(laps: Times) -> Times:
    sums = {
        phase: sum(laps[f'{phase}/{branch}'] for branch in BRANCHES)
        for phase in ('forward', 'backward')
    }
    step = laps['input'] + sums['forward'] + sums['backward'] + laps['update']
    return {'step': step, **sums, **laps}
