"""The page docs/own_data.md, run from files to a score and a picture on a made-up data set."""

import importlib
import json
import pickle
import re
import runpy
import sys
from pathlib import Path

import numpy as np
import pytest
import torch
from mmdet3d.registry import DATASETS, MODELS
from mmengine.config import Config
from mmengine.dataset import pseudo_collate
from yard import CAMERAS, FRAMES, NAMES, SPLITS, make_yard

from projects.cmt_aqr.data_preparation.check_infos import check_info_file
from projects.cmt_aqr.data_preparation.info_files import collect_own_objects
from projects.cmt_aqr.datasets.object_sampling import ObjectDatabase
from projects.cmt_aqr.hooks.data_fit_hook import misfits

EXAMPLE = re.compile(r'^```python\n# (my_project/\w+\.py)\n(.*?)^```', re.DOTALL | re.MULTILINE)
CLASSES = ('van', 'worker', 'crate')
CONFIG = 'my_project/cmt_tiny_yard_small.py'
QUICK = [
    'train_cfg.max_epochs=1',
    'train_cfg.val_interval=1',
    'train_dataloader.num_workers=0',
    'train_dataloader.persistent_workers=False',
    'val_dataloader.num_workers=0',
    'val_dataloader.persistent_workers=False',
    'test_dataloader.num_workers=0',
    'test_dataloader.persistent_workers=False',
]


@pytest.fixture(scope='module')
def root(repo_root, tmp_path_factory):
    """A folder with the files of the page and the made-up data, whose info files are written."""
    root = tmp_path_factory.mktemp('root')
    (root / 'my_project').mkdir()
    (root / 'configs').symlink_to(repo_root / 'configs')
    for name, code in EXAMPLE.findall((repo_root / 'docs/own_data.md').read_text()):
        (root / name).write_text(code)
    make_yard(root / 'data/yard')
    with pytest.MonkeyPatch.context() as patch:
        patch.syspath_prepend(root)
        patch.chdir(root)
        importlib.import_module('my_project.yard_infos').main(Path('data/yard'))
        yield root


@pytest.fixture
def tool(root, repo_root, monkeypatch):
    """A function that runs a command of the page in this process."""

    def run(name: str, *options: str) -> None:
        command = repo_root / 'tools' / name
        monkeypatch.setattr(sys, 'argv', [str(command), *options])
        monkeypatch.syspath_prepend(command.parent)
        runpy.run_path(str(command), run_name='__main__')

    return run


def dataset_of(loader: str, **changes):
    settings = Config.fromfile(CONFIG)[loader].dataset
    return DATASETS.build({**settings, **changes})


def test_every_block_of_code_is_an_example(repo_root):
    text = (repo_root / 'docs/own_data.md').read_text()
    assert len(EXAMPLE.findall(text)) == text.count('```python') == 3


def test_samples_have_the_cameras_and_points_of_the_files(root):
    dataset = dataset_of('test_dataloader')
    assert len(dataset) == len(SPLITS['val']) * FRAMES
    sample = dataset[0]
    inputs, item = sample['inputs'], sample['data_samples']
    assert inputs['img'].shape == (len(CAMERAS), 3, 64, 96)
    cloud = np.fromfile(root / 'data/yard/clouds/south/000000.bin', np.float32).reshape(-1, 4)
    np.testing.assert_array_equal(inputs['points'][:, :4].numpy(), cloud)
    assert (inputs['points'][:, 4] == 0).all()  # the age
    labels = json.loads((root / 'data/yard/labels/south/000000.json').read_text())
    boxes = item.eval_ann_info['gt_bboxes_3d']
    centres = [label['centre'] for label in labels]
    torch.testing.assert_close(boxes.gravity_center, torch.tensor(centres))
    names = [label['class'] for label in labels]
    assert [CLASSES[i] for i in item.eval_ann_info['gt_labels_3d']] == names
    assert set(names) <= set(NAMES.values())


def test_every_image_fills_its_part_in_training_whatever_its_resolution(root):
    dataset = dataset_of('train_dataloader')
    dataset.pipeline.transforms = [
        step
        for step in dataset.pipeline.transforms
        if type(step).__name__ not in ('DrawIndex', 'RandomFailure')
    ]
    for _ in range(5):
        images = dataset[0]['inputs']['img'].float().amax(dim=1)
        covered = (images > 0).float().mean(dim=(1, 2))
        assert covered.max() - covered.min() < 0.05
        assert covered.min() > 0.85


def test_from_files_to_a_score_and_pictures(root, tool):
    tool('create_data.py', 'data/yard', '--infos', 'yard_train.pkl')
    options = ['--work-dir', 'run', '--cfg-options', *QUICK]
    tool('train.py', CONFIG, *options)
    (run_info,) = (root / 'run').glob('*/run_info.json')
    scores = json.loads(run_info.read_text())['scores'][-1]
    expected = {'mAP', 'mAP_present', 'mATE', 'mASE', 'mAOE', *(f'AP_{c}' for c in CLASSES)}
    assert {f'detection/{name}' for name in expected} <= set(scores)
    of_training = 'test_dataloader.dataset.ann_file=yard_train.pkl'
    tool('test.py', CONFIG, 'run/epoch_1.pth', *options, of_training)
    draw = ['data/yard/yard_val.pkl', '--checkpoint', 'run/epoch_1.pth', '--out', 'found']
    tool('infer.py', CONFIG, *draw, '--score-threshold', '0.05')
    (picture,) = (root / 'found').glob('*.png')
    assert picture.stat().st_size > 20_000
    tool('visualize.py', 'failures', CONFIG, '--suite', 'mome', '--out', 'failures.png')
    assert (root / 'failures.png').stat().st_size > 20_000


def test_a_failure_is_scored_alone_and_the_suite_is_refused(root, tool, capsys):
    torch.save(MODELS.build(Config.fromfile(CONFIG).model).state_dict(), 'random.pth')
    options = ['--work-dir', 'failed', '--cfg-options', *QUICK]
    tool('test.py', CONFIG, 'random.pth', '--failure', 'lidar_drop', *options)
    assert [*(root / 'failed').glob('*/run_info.json')]
    with pytest.raises(SystemExit):
        tool('test_robustness.py', CONFIG, 'random.pth')
    line = capsys.readouterr().err.splitlines()[-1]
    assert f"the test_evaluator of {CONFIG} is not nuScenes' metric" in line
    assert '--failure NAME' in line


def test_scenes_are_scored_alone(root):
    assert len(dataset_of('test_dataloader', ann_file='yard_train.pkl', scenes=['east'])) == FRAMES
    with pytest.raises(ValueError, match="no 'eest'; did you mean 'east'"):
        dataset_of('test_dataloader', ann_file='yard_train.pkl', scenes=['eest'])


def test_the_data_fit_the_model_and_others_do_not(root):
    head = MODELS.build(Config.fromfile(CONFIG).model).pts_bbox_head
    assert [*misfits(dataset_of('train_dataloader'), head)] == []
    (line,) = misfits(dataset_of('train_dataloader', metainfo=dict(classes=['van'])), head)
    assert "['van']" in line
    assert "['van', 'worker', 'crate']" in line


def test_lidar_alone_needs_no_images(root, tmp_path):
    """Its infos have no images, annotations of one sample are empty, and its objects are stored."""
    infos = pickle.loads((root / 'data/yard/yard_train.pkl').read_bytes())
    for entry in infos['data_list']:
        del entry['images'], entry['timestamp']
    infos['data_list'][0]['instances'] = []
    (tmp_path / 'clouds').symlink_to(root / 'data/yard/clouds')
    (tmp_path / 'points.pkl').write_bytes(pickle.dumps(infos))
    check_info_file(tmp_path, 'points.pkl')
    (made,) = collect_own_objects(tmp_path, 'points.pkl')
    database = ObjectDatabase(made)
    assert database.classes == CLASSES
    assert database.cameras == ()
    boxes = sum(len(entry['instances']) for entry in infos['data_list'])
    assert len(database.index) == boxes > 3
    assert (database.index['num_points'] > 0).mean() > 0.8

    cfg = Config.fromfile(CONFIG)
    skipped = ('DrawIndex', 'RandomFailure', 'LoadMultiViewImages', 'ComputeLidar2Img')
    *steps, pack = (
        step
        for step in cfg.train_dataloader.dataset.pipeline
        if step.type not in (*skipped, 'ResizeCropFlipImage')
    )
    paste = dict(
        type='JointObjectSample',
        db_sampler=dict(database=str(made), classes=CLASSES, sample_groups=dict(van=3, crate=2)),
    )
    pack.update(keys=['points', 'gt_bboxes_3d', 'gt_labels_3d'])
    dataset = dataset_of(
        'train_dataloader',
        data_root=str(tmp_path),
        ann_file='points.pkl',
        modality=dict(use_lidar=True, use_camera=False),
        pipeline=[*steps[:3], paste, *steps[3:], pack],
    )
    cfg.model.update(grid_mask=None, img_backbone=None, img_neck=None)
    cfg.model.data_preprocessor.update(mean=None, std=None)
    cfg.model.pts_bbox_head.modalities = ('lidar',)
    cfg.model.pts_bbox_head.init_local_attention = None
    model = MODELS.build(cfg.model).train()
    batch = pseudo_collate([dataset[0], dataset[1]])
    losses = model(**model.data_preprocessor(batch, training=True), mode='loss')
    assert all(value.isfinite().all() for value in losses.values())


def test_cameras_alone_need_no_clouds(root, tmp_path):
    infos = pickle.loads((root / 'data/yard/yard_train.pkl').read_bytes())
    for entry in infos['data_list']:
        del entry['lidar_points']
        entry.pop('lidar_sweeps', None)
    (tmp_path / 'images').symlink_to(root / 'data/yard/images')
    (tmp_path / 'images.pkl').write_bytes(pickle.dumps(infos))
    check_info_file(tmp_path, 'images.pkl')
    infos['data_list'][0]['lidar_points'] = dict(lidar_path='clouds/no.bin')
    (tmp_path / 'images.pkl').write_bytes(pickle.dumps(infos))
    with pytest.raises(ValueError, match='lidar_points has no lidar_path'):  # of the other samples
        check_info_file(tmp_path, 'images.pkl')


@pytest.mark.parametrize(
    ('change', 'line'),
    [
        (
            lambda infos: infos['metainfo'].update(point_columns=['x', 'y', 'z', 'unused']),
            'point_columns is .*must name every column',
        ),
        (
            lambda infos: infos['metainfo']['point_columns'].append('ring'),
            'read as 5 columns|not whole points of 5 columns',
        ),
        (
            lambda infos: infos['data_list'][1]['lidar_points'].update(lidar_path='clouds/no.bin'),
            'sample north-000001: .*clouds/no.bin does not exist',
        ),
        (
            lambda infos: infos['data_list'][1].update(token='north-000000'),
            'sample north-000000: another sample has the same token',
        ),
        (
            lambda infos: [move(box) for e in infos['data_list'] for box in e['instances']],
            'boxes contain a point: the boxes are not in the LiDAR frame',
        ),
        (
            lambda infos: [
                in_millimetres(c) for e in infos['data_list'] for c in e['images'].values()
            ],
            'boxes are in an image: lidar2cam does not take LiDAR points',
        ),
    ],
)
def test_mistakes_are_found_in_the_files(root, change, line):
    infos = pickle.loads((root / 'data/yard/yard_train.pkl').read_bytes())
    change(infos)
    file = root / 'data/yard/wrong.pkl'
    file.write_bytes(pickle.dumps(infos))
    with pytest.raises(ValueError, match=line):
        check_info_file('data/yard', file.name)


def move(box: dict) -> None:
    """To nuScenes' frame, in which y points forward."""
    x, y, *rest = box['bbox_3d']
    box['bbox_3d'] = [-y, x, *rest]


def in_millimetres(camera: dict) -> None:
    """As some calibration tools give the translation."""
    for row in camera['lidar2cam'][:3]:
        row[3] *= 1000
