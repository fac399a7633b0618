"""Frames from info files and folders: what the pipeline gets, and what cannot be found."""

import re
import shutil
from pathlib import Path

import numpy as np
import pytest
from mmdet3d.registry import DATASETS
from mmengine.fileio import dump, load

from projects.cmt_aqr.apis import load_frames
from projects.cmt_aqr.usage_error import UsageError


def test_an_info_file_gives_what_the_dataset_of_the_config_gives(detector, info_file):
    (frame,) = load_frames(info_file, detector.cfg, index=2)
    config = dict(
        detector.cfg.test_dataloader.dataset, data_root=str(info_file.parent), pipeline=[]
    )
    config['metainfo'] = dict(config['metainfo'], version='v1.0-mini')
    expected = DATASETS.build(config).get_data_info(2)
    assert frame.name == expected['token']
    assert frame.info['images'] == expected['images']
    assert frame.info['lidar_sweeps'] == expected['lidar_sweeps']
    assert frame.info['lidar_points'] == expected['lidar_points']
    boxes = [info['eval_ann_info']['gt_bboxes_3d'].tensor for info in (frame.info, expected)]
    assert boxes[0].equal(boxes[1])


def test_a_scene_is_in_the_order_of_time(detector, info_file):
    frames = load_frames(info_file, detector.cfg, scene='scene-0103')
    assert len(frames) == 3
    times = [frame.info['timestamp'] for frame in frames]
    assert times == sorted(times)
    with pytest.raises(UsageError, match=r"no scene 'scene-103'; did you mean scene-0103\?"):
        load_frames(info_file, detector.cfg, scene='scene-103')


def test_without_tables_a_scene_has_the_name_of_its_log(detector, info_file, tmp_path):
    """And files that lie beside the info file are found there."""
    infos = load(info_file)
    infos['data_list'] = infos['data_list'][:1]
    dump(infos, tmp_path / 'infos.pkl')
    (entry,) = infos['data_list']
    name = entry['lidar_points']['lidar_path']
    shutil.copy(info_file.parent / 'samples/LIDAR_TOP' / name, tmp_path)
    (frame,) = load_frames(tmp_path, detector.cfg, scene=name.split('__')[0])
    assert frame.info['lidar_path'] == str(tmp_path / name)
    assert frame.ann_file == str(tmp_path / 'infos.pkl')


def test_the_frame_that_the_page_copies_is_that_of_the_database(
    detector, info_file, first_info, repo_root, tmp_path, monkeypatch
):
    page = (repo_root / 'docs/inference.md').read_text()
    (snippet,) = re.findall(r'```python\n(import shutil.*?)```', page, flags=re.DOTALL)
    for there, here in (
        ('data/nuscenes', str(info_file.parent)),
        ('ca9a282c9e77460f8360f564131a8af5', first_info['token']),
        ('nuscenes_infos_train.pkl', info_file.name),
    ):
        assert there in snippet
        snippet = snippet.replace(there, here)
    monkeypatch.chdir(tmp_path)
    exec(snippet, {})
    (frame,) = load_frames('frame', detector.cfg)
    assert frame.name == first_info['token']
    paths = [camera['img_path'] for camera in frame.info['images'].values()]
    assert all(Path(path).is_file() for path in (*paths, frame.info['lidar_path']))
    assert 'eval_ann_info' in frame.info


def test_a_folder_has_no_annotations(detector, folder, first_info):
    (frame,) = load_frames(folder, detector.cfg)
    assert 'eval_ann_info' not in frame.info
    assert frame.ann_file is None
    assert frame.info['lidar_path'] == str(folder / 'cloud.bin')
    camera = frame.info['images']['CAM_BACK']
    np.testing.assert_allclose(camera['lidar2cam'], first_info['images']['CAM_BACK']['lidar2cam'])


def test_what_cannot_be_found_is_said_in_a_line(detector, info_file, folder, tmp_path):
    def wrong(path, message, **which):
        with pytest.raises(UsageError, match=message) as error:
            load_frames(path, detector.cfg, **which)
        assert '\n' not in str(error.value)

    wrong(info_file, r'index must be 0 to 5 in .*, got 6', index=6)
    wrong(folder, 'one frame only: an index or a scene needs an info file', index=1)
    wrong(info_file.with_name('nuscenes_info_val.pkl'), r'did you mean .*nuscenes_infos_val.pkl\?')
    wrong(info_file.parent, 'name one of nuscenes_infos_train.pkl, nuscenes_infos_val.pkl')
    wrong(info_file.parent / 'maps/synthetic.png', 'neither an info file')
    (tmp_path / 'empty').mkdir()
    wrong(tmp_path / 'empty', 'has neither calibration.json, ')
    (tmp_path / 'infos.pkl').write_bytes(b'no pickle')
    wrong(tmp_path / 'infos.pkl', 'is not an info file of MMDetection3D')
    file = folder / 'calibration.json'
    file.write_text(file.read_text().replace('"num_pts_feats": 5', '"num_pts_feats": 4'))
    wrong(folder, r'num_pts_feats is 4, but LoadPointsOfKeyframe of this model reads 5 values')


def test_an_info_file_needs_neither_tokens_nor_times_nor_clouds(detector, info_file, tmp_path):
    """Nor a suffix: a JSON file with samples is no calibration file."""
    infos = load(info_file)
    entries = infos['data_list'] = infos['data_list'][:2]
    for entry in entries:
        for key in ('token', 'timestamp', 'lidar_sweeps'):
            entry.pop(key, None)
        entry['scene'] = 'north'
    dump(infos, tmp_path / 'infos.json')
    frames = load_frames(tmp_path / 'infos.json', detector.cfg, scene='north')
    assert len({frame.name for frame in frames}) == 2
    assert not any('/' in frame.name for frame in frames)
    cfg = detector.cfg.copy()
    cfg.test_dataloader.dataset.modality = dict(use_lidar=False, use_camera=True)
    for entry in entries:
        del entry['lidar_points']
    dump(infos, tmp_path / 'infos.json')
    (frame,) = load_frames(tmp_path / 'infos.json', cfg)
    assert frame.info['images']
