"""Pasting of sampled objects into points and images."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

import numpy as np
import torch
from mmcv.transforms import BaseTransform
from mmdet3d.datasets.transforms import ObjectSample
from mmdet3d.registry import TRANSFORMS
from mmdet3d.structures import BaseInstance3DBoxes

from ...samples import sample_name
from ..failures.base import DrawnFailure
from .database import StoredObject
from .occlusion import hidden_boxes, hidden_points
from .painting import paint
from .sampler import JointDataBaseSampler
from .views import NO_BOX, View, view_boxes


@TRANSFORMS.register_module()
class JointObjectSample(BaseTransform):
    """Pastes objects of other samples into the points and into all images.

    As in UVTR (Li et al., NeurIPS 2022) and CMT, an object keeps the place that it had in its own
    sample. Its points replace those within its box, and in every camera that saw it, its patch
    fills the rectangle around its box. Patches, and in the same way the parts of the image around
    the sample's own boxes, are painted from far to near, each mixed with the image below. A sample
    without images gets the points only. In a sensor that was dropped, the objects do not appear.

    The transform stands after the loading of points, images and boxes, and before any augmentation
    of the scene or of the images. A :class:`~projects.cmt_aqr.hooks.StopObjectSampleHook` stops it
    for the last epochs.

    Args:
        db_sampler: arguments of :class:`.sampler.JointDataBaseSampler`.
        mixup_rate: weight of a patch, above 0 and up to 1; 0.5 in CMT.
        drop_hidden: whether to remove boxes that no camera sees behind nearer boxes, and single
            points behind them, see :mod:`.occlusion`; needs images. CMT was trained without.

    Raises:
        ValueError: ``mixup_rate`` is out of its range.
        FileNotFoundError: there is no database of objects.
    """

    def __init__(
        self, *, db_sampler: Mapping, mixup_rate: float = 1.0, drop_hidden: bool = False
    ) -> None:
        if not 0 < mixup_rate <= 1:
            raise ValueError(f'mixup_rate is {mixup_rate}; it must be above 0 and at most 1')
        self.db_sampler = TRANSFORMS.build({'type': JointDataBaseSampler, **db_sampler})
        self.mixup_rate = mixup_rate
        self.drop_hidden = drop_hidden
        self._stopped = torch.zeros(1, dtype=torch.bool)

    def set_stopped(self, stopped: bool) -> None:
        """Stops or resumes pasting in all workers."""
        # Shared here, before the first workers start: a copy of the dataset would lose it.
        self._stopped.share_memory_().fill_(stopped)

    def transform(self, results: dict) -> dict:
        """Modifies ``points``, ``gt_bboxes_3d``, ``gt_labels_3d`` and, if it exists, ``img``.

        Raises:
            ValueError: failures that pasted objects would not show were drawn for the sample.
            KeyError: there are images, but no ``lidar2img``.
            SampleError: a file of the database is missing or damaged.
        """
        if self._stopped:
            return results
        partial = [drawn for drawn in _failures(results) if not drawn.reaches_pasted_objects]
        if partial:
            raise ValueError(
                f'failures {partial} were drawn for sample {sample_name(results)}, and pasted '
                'objects would not show them: take JointObjectSample out of the pipeline'
            )
        objects = self.db_sampler.draw(results['gt_bboxes_3d'].numpy(), results['gt_labels_3d'])
        if len(objects) and self.drop_hidden and 'img' in results:
            objects = self._drop_hidden_boxes(results, objects)
        if len(objects):
            self._paste(results, objects)
        return results

    def _drop_hidden_boxes(self, results: dict, objects: np.ndarray) -> np.ndarray:
        """Removes hidden boxes from the sample, and returns the objects that are not hidden."""
        num_real = len(results['gt_bboxes_3d'])
        hidden = hidden_boxes(self._views(results, objects), num_real=num_real)
        kept = np.array([box not in hidden for box in range(num_real)], dtype=bool)
        results['gt_bboxes_3d'] = results['gt_bboxes_3d'][kept]
        results['gt_labels_3d'] = results['gt_labels_3d'][kept]
        return objects[[box not in hidden for box in range(num_real, num_real + len(objects))]]

    def _paste(self, results: dict, objects: np.ndarray) -> None:
        num_real = len(results['gt_bboxes_3d'])
        views = self._views(results, objects)
        boxes = _join(results['gt_bboxes_3d'], objects)
        kept = ObjectSample.remove_points_in_boxes(results['points'], boxes[num_real:].numpy())
        stored = [self._load(results, row, views, box) for box, row in enumerate(objects, num_real)]
        clouds = [kept, *(kept.new_point(item.points) for item in stored)]
        points = kept.cat(clouds)
        if self.drop_hidden:
            owner = np.repeat([NO_BOX, *range(num_real, len(boxes))], [len(c) for c in clouds])
            points = points[~hidden_points(points.coord.numpy(), owner, views, num_real=num_real)]
        labels = self.db_sampler.labels_of(objects)
        results['gt_labels_3d'] = np.concatenate([results['gt_labels_3d'], labels])
        results['gt_bboxes_3d'] = boxes
        results['points'] = points
        for index, view in enumerate(views):
            camera = results['camera_names'][index]
            patches = {
                box: item.patches[camera]
                for box, item in enumerate(stored, num_real)
                if camera in item.patches
            }
            if patches:
                image = paint(results['img'][index], view, patches, self.mixup_rate)
                for drawn in _failures(results):
                    image = drawn.damage_image(image, camera)
                results['img'][index] = image

    def _load(self, results: dict, row: np.void, views: Sequence[View], box: int) -> StoredObject:
        """Reads an object, with the patches of the cameras that see its box."""
        names = results['camera_names'] if views else ()
        cameras = [name for name, view in zip(names, views, strict=True) if view.seen[box]]
        item = self.db_sampler.load(row, cameras, results)
        points = item.points
        for drawn in _failures(results):
            points = drawn.damage_points(points, np.eye(4), age=0.0)
        return item._replace(points=points)

    def _views(self, results: dict, objects: np.ndarray) -> list[View]:
        """Returns all boxes in every camera; a pasted box is visible where it has a patch."""
        if 'img' not in results:
            return []
        if not self.db_sampler.database.cameras:
            raise ValueError(
                f'{self.db_sampler.database.folder} has no image patches, so pasted objects would '
                'be invisible in the images: make it anew without --lidar-only'
            )
        if 'lidar2img' not in results:
            raise KeyError('lidar2img not in the sample: ComputeLidar2Img before JointObjectSample')
        real = results['gt_bboxes_3d']
        corners = _join(real, objects).corners.numpy()
        views = []
        for name, image, lidar2img in zip(
            results['camera_names'], results['img'], results['lidar2img'], strict=True
        ):
            candidates = [*np.full(len(real), True), *self.db_sampler.seen_by(objects, name)]
            views.append(view_boxes(corners, lidar2img, image.shape[:2], candidates=candidates))
        return views

    def __repr__(self) -> str:
        return (
            f'{type(self).__name__}(database={str(self.db_sampler.database.folder)!r}, '
            f'mixup_rate={self.mixup_rate}, drop_hidden={self.drop_hidden})'
        )


def _failures(results: dict) -> Sequence[DrawnFailure]:
    return results.get('failures', ())


def _join(real: BaseInstance3DBoxes, objects: np.ndarray) -> BaseInstance3DBoxes:
    """Returns the boxes of a sample followed by those of objects."""
    return real.new_box(np.concatenate([real.numpy(), objects['box']]))
