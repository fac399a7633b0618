"""mmdet3d's converter and dataset class read the database."""

import numpy as np
import pytest
from mmdet3d.datasets import NuScenesDataset
from nuscenes import NuScenes

from projects.cmt_aqr.datasets.info_files import create_info_files

CMT_CLASSES = [
    'car',
    'truck',
    'construction_vehicle',
    'bus',
    'trailer',
    'barrier',
    'motorcycle',
    'bicycle',
    'pedestrian',
    'traffic_cone',
]


def dataset(root, split: str, **options) -> NuScenesDataset:
    return NuScenesDataset(
        data_root=str(root),
        ann_file=f'nuscenes_infos_{split}.pkl',
        data_prefix=dict(pts='samples/LIDAR_TOP', sweeps='sweeps/LIDAR_TOP'),
        metainfo=dict(classes=CMT_CLASSES, version='v1.0-mini'),
        modality=dict(use_lidar=True, use_camera=True),
        **options,
    )


def test_dataset_has_the_annotations_of_the_tables(synthetic_root):
    nusc = NuScenes(version='v1.0-mini', dataroot=str(synthetic_root), verbose=False)
    for split in ('train', 'val'):
        data = dataset(synthetic_root, split)
        assert len(data) == 2 * 3
        for i in range(len(data)):
            info = data.get_data_info(i)
            sample = nusc.get('sample', info['token'])
            kept = [nusc.get('sample_annotation', t) for t in sample['anns']]
            kept = [a for a in kept if a['num_lidar_pts'] > 0]
            names = [a['category_name'] for a in kept]
            labels = info['ann_info']['gt_labels_3d']
            assert len(labels) == len(kept) > 0
            for name in ('car', 'pedestrian.adult', 'trafficcone'):
                cmt = dict(trafficcone='traffic_cone').get(name, name.split('.')[0])
                count = sum(n.endswith(f'.{name}') for n in names)
                assert (labels == CMT_CLASSES.index(cmt)).sum() == count


def test_boxes_are_in_the_lidar_frame(synthetic_root):
    nusc = NuScenes(version='v1.0-mini', dataroot=str(synthetic_root), verbose=False)
    info = dataset(synthetic_root, 'val').get_data_info(1)
    sample = nusc.get('sample', info['token'])
    _, boxes, _ = nusc.get_sample_data(sample['data']['LIDAR_TOP'])
    annotations = [nusc.get('sample_annotation', token) for token in sample['anns']]
    boxes = [b for b, a in zip(boxes, annotations, strict=True) if a['num_lidar_pts'] > 0]
    expected = np.array([b.center for b in boxes])
    got = info['ann_info']['gt_bboxes_3d'].gravity_center.numpy()
    assert got == pytest.approx(expected, abs=1e-4)
    assert np.hypot(*got[:, :2].T).max() < 25.6


def test_sweeps_are_listed(synthetic_root):
    data = dataset(synthetic_root, 'train')
    # Before each keyframe: its sweep, and all the readings of the scene before that.
    assert [len(data.get_data_info(i)['lidar_sweeps']) for i in range(3)] == [1, 3, 5]


def test_no_temporary_folder_stays(synthetic_root):
    assert not [p for p in synthetic_root.iterdir() if p.name.startswith('.')]


def test_missing_tables(tmp_path):
    with pytest.raises(FileNotFoundError, match=r'has no v1\.0-mini tables'):
        create_info_files(tmp_path, version='v1.0-mini')


def test_unknown_version(tmp_path):
    with pytest.raises(ValueError, match="got 'v2'"):
        create_info_files(tmp_path, version='v2')
