"""Export of a detector to ONNX, in three parts: image branch, BEV branch and head with router.

Voxels and sparse encoder stay in PyTorch: ONNX has no sparse convolutions. The sizes of the inputs
are those of the config, except for the batch, which is free.

Shapes: B batch, V cameras, Q queries of all tasks, C channels, M token groups.
"""

import logging
import warnings
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import NamedTuple
from unittest import mock

import numpy as np
import torch
import torch.nn.functional as F
from mmdet3d.registry import MODELS
from mmengine.config import Config
from mmengine.logging import print_log
from mmengine.registry import init_default_scope
from mmengine.runner import load_checkpoint
from torch import Tensor, nn

from .cameras import Cameras, batch_cameras
from .detector import CmtDetector, bev_shape
from .doctor.decoder_inputs import NUM_CAMERAS
from .doctor.random_sample import random_batch
from .files import replacing
from .head import CmtHead
from .matching.box_coder import decode_boxes
from .task_head import CLASS_BRANCH
from .usage_error import UsageError

# Opset 16 is the first that scatters sums and maxima, and 18 the first that does so for any type.
OPSET = 18
TOLERANCE = 1e-4


class Part(NamedTuple):
    """One exported graph, with inputs of a batch."""

    module: nn.Module
    inputs: dict[str, Tensor]
    outputs: list[str]


class ImageBranch(nn.Module):
    """Normalised images (B, V, 3, H, W) -> image maps (B, V, C, h, w)."""

    def __init__(self, model: CmtDetector) -> None:
        super().__init__()
        self.model = model

    def forward(self, imgs: Tensor) -> Tensor:
        return self.model.extract_img_feat({'imgs': imgs})


class BevBranch(nn.Module):
    """Output of the sparse encoder (B, C, height, width) -> BEV map."""

    def __init__(self, model: CmtDetector) -> None:
        super().__init__()
        self.backbone, self.neck = model.pts_backbone, model.pts_neck

    def forward(self, encoded: Tensor) -> Tensor:
        return self.neck(self.backbone(encoded))[0]


class Head(nn.Module):
    """Maps and calibration -> boxes (B, Q, 9), scores (B, Q, classes) and weights (B, Q, M).

    Boxes are (x, y, z, dx, dy, dz, yaw, vx, vy), z at the centre, metres in the LiDAR frame.

    Args:
        head: of a model in which cross-attention has the back end ``dense``.
        inputs: names of the inputs: ``bev`` (B, C, height, width); ``images`` (B, V, C, h, w),
            ``lidar2img`` and its inverse ``img2lidar``, each (B, V, 4, 4).
        image_shape: height and width of the padded images, pixels; ``None`` without images.
    """

    def __init__(
        self, head: CmtHead, inputs: Sequence[str], image_shape: tuple[int, int] | None
    ) -> None:
        super().__init__()
        self.head, self.names, self.image_shape = head, tuple(inputs), image_shape

    def forward(self, *inputs: Tensor) -> list[Tensor]:
        given = dict(zip(self.names, inputs, strict=True))
        cameras = None
        if 'images' in given:
            lidar2img, img2lidar = given['lidar2img'], given['img2lidar']
            every = torch.ones_like(lidar2img[..., 0, 0], dtype=torch.bool)
            cameras = Cameras(lidar2img, img2lidar, every, True, self.image_shape)
        found = self.head.compute(given.get('bev'), given.get('images'), cameras=cameras)
        tasks, router = found.tasks, found.router
        boxes = [decode_boxes(self.head.box_coder.join(task)[-1]) for task in tasks]
        outputs = [torch.cat(boxes, dim=1), torch.cat(self._scores(tasks), dim=1)]
        return outputs if router is None else [*outputs, router.weights]

    def _scores(self, tasks: Sequence[Mapping[str, Tensor]]) -> list[Tensor]:
        """(B, queries of a task, all classes) of each task, zero for the classes of others."""
        scores, before = [], 0
        for task in tasks:
            own = task[CLASS_BRANCH][-1].sigmoid()
            after = self.head.num_classes - before - own.shape[-1]
            scores.append(F.pad(own, (before, after)))
            before += own.shape[-1]
        return scores


def build_for_export(cfg: Config, checkpoint: str) -> CmtDetector:
    """The detector of a config as it can be exported, in evaluation mode, with its weights.

    Args:
        cfg: changed in place: without fast paths, cross-attention by the back end ``dense``.
        checkpoint: file or URL of the weights; none may be missing.

    Raises:
        UsageError: the detector has experts.
    """
    cfg.merge_from_dict(
        {'model.fast_path': None, 'model.pts_bbox_head.transformer.attention': 'dense'}
    )
    init_default_scope(cfg.get('default_scope', 'mmdet3d'))
    model = MODELS.build(cfg.model)
    if hasattr(model, 'experts'):
        raise UsageError(
            f'{type(model).__name__}: the choice of an expert is not exported, and its own head '
            'alone would be another model; export the CmtDetector that it is made of'
        )
    for part in ('health_monitor', 'planner'):
        if getattr(model, part) is not None:
            print_log(f'the {part} is not exported', logger='current', level=logging.WARNING)
    load_checkpoint(model, checkpoint, map_location='cpu', strict=True)
    return model.eval().requires_grad_(False)


@torch.no_grad()
def parts_of(
    model: CmtDetector, cfg: Config, *, batch_size: int, num_cameras: int = NUM_CAMERAS
) -> dict[str, Part]:
    """The parts of a model by name, with random inputs of the sizes of its config.

    Args:
        model: of :func:`build_for_export`.
        cfg: its config.
        batch_size: B.
        num_cameras: V.
    """
    inputs, parts = {}, {}
    samples = [random_batch(cfg, num_points=10, num_cameras=num_cameras) for _ in range(batch_size)]
    batch = {
        'inputs': {k: [s['inputs'][k][0] for s in samples] for k in samples[0]['inputs']},
        'data_samples': [s['data_samples'][0] for s in samples],
    }
    image_shape = None
    if 'lidar' in model.pts_bbox_head.modalities:
        encoded = torch.rand(batch_size, *bev_shape(model.pts_middle_encoder))
        parts['bev'] = Part(BevBranch(model), {'encoded': encoded}, ['bev'])
        inputs['bev'] = parts['bev'].module(encoded)
    if 'camera' in model.pts_bbox_head.modalities:
        data = model.data_preprocessor(batch, False)
        imgs = data['inputs']['imgs']
        parts['images'] = Part(ImageBranch(model), {'imgs': imgs}, ['images'])
        inputs['images'] = parts['images'].module(imgs)
        cameras = batch_cameras([s.metainfo for s in data['data_samples']], like=imgs)
        inputs |= {'lidar2img': cameras.lidar2img, 'img2lidar': cameras.img2lidar}
        image_shape = cameras.image_shape
    head = Head(model.pts_bbox_head, [*inputs], image_shape).eval()
    outputs = ['boxes', 'scores'] + ['weights'] * (model.pts_bbox_head.router is not None)
    return {**parts, 'head': Part(head, inputs, outputs)}


@torch.no_grad()
def export_part(part: Part, path: Path) -> None:
    """Write one part as an ONNX file, by tracing.

    The exporter on ``torch.export`` needs another package, and more than five times the time for
    the head of the tiny model.
    """
    names = [*part.inputs]
    with (
        replacing(path) as temporary,
        warnings.catch_warnings(),
        mock.patch.object(Tensor, 'unflatten', _unflatten),
        mock.patch.object(Tensor, 'index_put', _index_put),
        mock.patch.object(Tensor, 'index_add', _index_add),
    ):
        # Of sizes that become constants, as they are to be, and of the choice of the exporter.
        warnings.simplefilter('ignore')
        torch.onnx.export(
            part.module.eval(),
            tuple(part.inputs.values()),
            str(temporary),
            dynamo=False,
            opset_version=OPSET,
            input_names=names,
            output_names=part.outputs,
            dynamic_axes={name: {0: 'batch'} for name in (*names, *part.outputs)},
        )


def _unflatten(x: Tensor, dim: int, sizes: Sequence[int]) -> Tensor:
    """``x.unflatten(dim, sizes)``, whose ONNX form would make the batch a constant."""
    dim %= x.dim()
    return x.reshape(*x.shape[:dim], *sizes, *x.shape[dim + 1 :])


def _index_put(x: Tensor, indices: Sequence[Tensor], values: Tensor, accumulate: bool) -> Tensor:
    """``x.index_put(...)`` with ``accumulate``, whose ONNX form would drop repeated places."""
    assert accumulate
    indices = torch.broadcast_tensors(*indices)
    place = torch.zeros_like(indices[0])
    for index, size in zip(indices, x.shape, strict=False):
        place = place * size + index
    values = values.flatten(0, place.dim() - 1)
    return x.flatten(0, len(indices) - 1).index_add(0, place.flatten(), values).reshape(x.shape)


def _index_add(x: Tensor, dim: int, index: Tensor, source: Tensor) -> Tensor:
    """``x.index_add(...)``, whose ONNX form would drop repeated places."""
    shape = [1] * x.dim()
    shape[dim] = -1
    return x.scatter_add(dim, index.reshape(shape).expand_as(source), source)


@torch.no_grad()
def deviation(part: Part, path: Path) -> float:
    """Largest ``|a - b| / (1 + |b|)`` between the outputs of onnxruntime, a, and PyTorch, b."""
    import onnxruntime  # an optional dependency

    session = onnxruntime.InferenceSession(str(path), providers=['CPUExecutionProvider'])
    found = session.run(part.outputs, {name: x.numpy() for name, x in part.inputs.items()})
    expected = part.module(*part.inputs.values())
    expected = [expected] if torch.is_tensor(expected) else expected
    return max(
        float(np.max(np.abs(a - b.numpy()) / (1 + np.abs(b.numpy()))))
        for a, b in zip(found, expected, strict=True)
    )
