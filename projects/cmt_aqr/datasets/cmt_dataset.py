"""Dataset of an info file with any classes, cameras and columns of points."""

from __future__ import annotations

import os.path as osp
from collections.abc import Mapping, Sequence

import numpy as np
from mmdet3d.datasets import Det3DDataset
from mmdet3d.registry import DATASETS
from mmdet3d.structures import LiDARInstance3DBoxes

from .infos import choose, entry_problems, read_infos


@DATASETS.register_module()
class CmtDataset(Det3DDataset):
    """Samples of an info file in MMDetection3D's format 1.1, of nuScenes or of another dataset.

    The info file describes the data: classes, cameras and columns of the points, see
    ``docs/own_data.md``. Infos of nuScenes give the samples of mmdet3d's ``NuScenesDataset``, in
    the version that the info file names. Timestamps, sweeps, velocities, numbers of points and, in
    a test, annotations may be missing. A sample without a token gets the path of its cloud as
    token. Samples without boxes are trained on, unless ``filter_empty_gt`` is set, which replaces
    them by others.

    The metainfo also names the info file and the data root, from which metrics read.

    Args:
        ann_file: the info file, relative to ``data_root``.
        data_root: folder to which the paths in the info file are relative.
        data_prefix: folder of the clouds (``pts``), of the sweeps, and of the images of each
            camera, relative to ``data_root``; for files whose paths in the info file start there.
        metainfo: ``classes``, the names in the order of the labels; by default all categories of
            the info file. Annotations of other categories get the label -1, which is not learned.
        modality: sensors whose files are read.
        scenes: names of the scenes whose samples are used; all by default.
        use_valid_flag: use the boxes with ``bbox_3d_isvalid`` rather than those with LiDAR points.
        filter_empty_gt: as for ``Det3DDataset``.
        options: further arguments of mmdet3d's ``Det3DDataset``.

    Raises:
        ValueError: the info file does not have a class, a scene or a field that a sample needs, or
            is of another version than the metainfo.
    """

    METAINFO: Mapping = {'classes': ()}

    def __init__(
        self,
        *,
        ann_file: str,
        data_root: str = '',
        data_prefix: Mapping[str, str] | None = None,
        metainfo: Mapping | None = None,
        modality: Mapping[str, bool] | None = None,
        scenes: Sequence[str] | None = None,
        use_valid_flag: bool = False,
        filter_empty_gt: bool = False,
        **options,
    ) -> None:
        self.scenes = scenes
        self.use_valid_flag = use_valid_flag
        metainfo = dict(metainfo or {})
        # mmdet3d looks the classes up here; their labels in the info file follow in `_read_labels`.
        self.METAINFO = {'classes': tuple(metainfo.get('classes', ()))}
        super().__init__(
            ann_file=ann_file,
            data_root=data_root,
            data_prefix=dict(data_prefix or {}),
            metainfo=metainfo,
            modality=dict(modality or dict(use_lidar=True, use_camera=True)),
            filter_empty_gt=filter_empty_gt,
            **options,
        )

    def load_data_list(self) -> list[dict]:
        """Reads the info file, checks its entries, and returns the chosen samples.

        Raises:
            ValueError: see the class.
        """
        infos = read_infos(self.ann_file)
        self.declare(infos.metainfo)
        entries = infos.entries
        if self.scenes is not None:
            names = {str(entry.get('scene', 'unnamed')) for entry in entries}
            choose(self.scenes, names, f'scenes: {self.ann_file}')
            entries = [entry for entry in entries if entry.get('scene') in self.scenes]
        if not entries:
            raise ValueError(f'info file {self.ann_file} has no samples')
        return [self._parse_checked(number, entry) for number, entry in enumerate(entries)]

    def declare(self, metainfo: Mapping) -> None:
        """Takes the declarations of an info file: classes, columns of points, version."""
        self._read_labels(metainfo['categories'])
        for key, value in metainfo.items():
            if self._metainfo.setdefault(key, value) != value and key == 'version':
                raise ValueError(
                    f'metainfo.version is {self._metainfo[key]}, but info file {self.ann_file} is '
                    f'of {value}: leave version out of the metainfo'
                )
        self._metainfo.update(ann_file=self.ann_file, data_root=self.data_root)

    def _read_labels(self, categories: Mapping[str, int]) -> None:
        """Maps the labels of the info file to those of the classes, all others to -1."""
        classes = self._metainfo['classes']
        if not classes:
            found = [(label, name) for name, label in categories.items() if label >= 0]
            classes = self._metainfo['classes'] = tuple(name for _, name in sorted(found))
        choose(classes, categories, f'classes: {self.ann_file}')
        self.label_mapping = dict.fromkeys([-1, *categories.values()], -1)
        self.label_mapping |= {categories[name]: label for label, name in enumerate(classes)}
        self.num_ins_per_cat = [0] * len(classes)

    def _parse_checked(self, number: int, entry: dict) -> dict:
        problems = entry_problems(
            entry,
            lidar=self.modality['use_lidar'],
            cameras=self.modality['use_camera'],
            annotated=not self.test_mode,
        )
        for problem in problems:
            name = entry.get('token', number)
            raise ValueError(f'info file {self.ann_file}, sample {name}: {problem}')
        return self.parse_data_info(entry)

    def parse_data_info(self, info: dict) -> dict:
        """Completes the paths of an entry and adds its annotations."""
        if self.modality['use_lidar']:
            self._complete_lidar(info)
        if self.modality['use_camera']:
            for name, camera in info['images'].items():
                if 'img_path' in camera:
                    kind = name if name in self.data_prefix else 'img'
                    camera['img_path'] = self._path(kind, camera['img_path'])
        if 'token' not in info:
            first = next(iter(info['images'].values())) if 'images' in info else {}
            info['token'] = info.get('lidar_path') or first.get('img_path')
        if not self.test_mode:
            info['ann_info'] = self.parse_ann_info(info)
        elif self.load_eval_anns and 'instances' in info:
            info['eval_ann_info'] = self.parse_ann_info(info)
        return info

    def _complete_lidar(self, info: dict) -> None:
        lidar = info['lidar_points']
        lidar['lidar_path'] = self._path('pts', lidar['lidar_path'])
        for key in ('point_columns', 'num_rings'):
            if key in self._metainfo:
                info[key] = self._metainfo[key]
        info['lidar_path'] = lidar['lidar_path']
        for sweep in info.get('lidar_sweeps', ()):
            cloud = sweep['lidar_points']
            if 'sweeps' not in self.data_prefix:
                cloud['lidar_path'] = self._path('pts', cloud['lidar_path'])
                continue
            # The infos of nuScenes have the folder in the paths of sweeps, unlike in the others.
            kind = 'pts' if 'samples' in cloud['lidar_path'] else 'sweeps'
            cloud['lidar_path'] = self._path(kind, osp.basename(cloud['lidar_path']))

    def _path(self, kind: str, name: str) -> str:
        return osp.join(self.data_prefix.get(kind, self.data_root), name)

    def parse_ann_info(self, info: dict) -> dict:
        """Boxes (N, 9) and labels (N,) of the annotations with points, or of all without a count.

        Unknown velocities are zero in training and NaN, which no score counts, in a test.
        """
        used = [instance for instance in info['instances'] if self._is_used(instance)]
        unknown = (np.nan, np.nan)
        boxes = [[*item['bbox_3d'], *item.get('velocity', unknown)] for item in used]
        boxes = np.array(boxes, dtype=np.float32).reshape(-1, 9)
        boxes[np.isnan(boxes[:, 7:]).any(axis=1), 7:] = np.nan if self.test_mode else 0
        labels = [self._label(item['bbox_label_3d']) for item in used]
        for label in labels:
            if label >= 0:
                self.num_ins_per_cat[label] += 1
        return dict(
            gt_bboxes_3d=LiDARInstance3DBoxes(boxes, box_dim=9, origin=(0.5, 0.5, 0.5)),
            gt_labels_3d=np.array(labels, dtype=np.int64),
        )

    def _is_used(self, instance: Mapping) -> bool:
        if self.use_valid_flag:
            return instance.get('bbox_3d_isvalid', True)
        return instance.get('num_lidar_pts', 1) > 0

    def _label(self, label: int) -> int:
        if label not in self.label_mapping:
            raise ValueError(
                f'info file {self.ann_file}: an instance has the label {label}; the categories '
                f'have {sorted(self.label_mapping)}'
            )
        return self.label_mapping[label]
