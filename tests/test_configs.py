"""Configs parse, their models build, and numbers that depend on each other agree."""

import re
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import pytest
import torch
from mmdet3d.registry import DATASETS, MODELS, TRANSFORMS
from mmengine.config import Config
from mmengine.dataset import pseudo_collate
from mmengine.optim import build_optim_wrapper
from mmengine.registry import PARAM_SCHEDULERS, DefaultScope
from torch import nn

from projects.cmt_aqr.datasets.failures import DrawIndex
from projects.cmt_aqr.detector import bev_shape
from projects.cmt_aqr.head import CmtHead
from projects.cmt_aqr.hooks.pipelines import transforms_of

REPO_ROOT = Path(__file__).resolve().parents[1]
CONFIGS = sorted(REPO_ROOT.glob('configs/cmt*/*.py'))
R50 = 'cmt_voxel0100_r50_800x320_cbgs'
VOV = 'cmt_voxel0075_vov_1600x640_cbgs'
LIDAR = 'cmt_lidar_voxel0075_cbgs'
CAMERA = 'cmt_camera_vov_1600x640_cbgs'
# The released r50 model declares fewer voxels than its range has, see its config.
GRID_OF_0100 = [41, 1024, 1024]
STEPS_PER_EPOCH = 100


@pytest.fixture(autouse=True)
def scope():
    with DefaultScope.overwrite_default_scope('mmdet3d'):
        yield


def read(name: str) -> Config:
    (path,) = (path for path in CONFIGS if path.stem == name)
    return Config.fromfile(path)


@pytest.fixture(scope='module', params=CONFIGS, ids=lambda path: path.stem)
def built(request) -> tuple[Config, nn.Module]:
    """A config and its model; pytest keeps the tests of one config together."""
    cfg = Config.fromfile(request.param)
    with DefaultScope.overwrite_default_scope('mmdet3d'):
        return cfg, MODELS.build(cfg.model)


def pipelines(cfg: Config) -> Iterator[list[dict]]:
    """The pipelines that the dataloaders of a config use."""
    for name in ('train_dataloader', 'val_dataloader', 'test_dataloader'):
        dataset = (cfg.get(name) or {}).get('dataset')
        while dataset is not None:
            if 'pipeline' in dataset:
                yield dataset.pipeline
            dataset = dataset.get('dataset')


def datasets(cfg: Config) -> Iterator[dict]:
    """The datasets of a config that read files, without their wrappers."""
    for name in ('train_dataloader', 'val_dataloader', 'test_dataloader'):
        dataset = (cfg.get(name) or {}).get('dataset')
        while dataset is not None and 'ann_file' not in dataset:
            dataset = dataset.get('dataset')
        if dataset is not None:
            yield dataset


def test_every_config_has_the_hooks_of_every_run(built):
    cfg, _ = built
    hooks = Config.fromfile(REPO_ROOT / 'configs/_base_/default_runtime.py').custom_hooks
    assert len(hooks) == 9
    assert cfg.custom_hooks[: len(hooks)] == hooks


def test_the_model_builds_with_every_part_it_names(built):
    cfg, model = built
    parts = [n for n, value in cfg.model.items() if isinstance(value, dict) and 'type' in value]
    assert model.__class__.__name__ == cfg.model.type
    assert {'data_preprocessor', *parts} <= set(dict(model.named_children()))
    assert all(parameter.isfinite().all() for parameter in model.parameters())


def test_grid_covers_the_range(built):
    cfg, model = built
    encoder = getattr(model, 'pts_middle_encoder', None)
    if encoder is None:
        assert not hasattr(model, 'pts_backbone')
        return
    layer = cfg.model.data_preprocessor.voxel_layer
    low, high = np.split(np.array(layer.point_cloud_range), 2)
    cells = (high - low) / np.array(layer.voxel_size)
    np.testing.assert_allclose(cells, cells.round(), atol=1e-6)
    x, y, z = cells.round().astype(int).tolist()
    expected = [z + 1, y, x]  # one more in z, as in SECOND
    if layer.voxel_size[0] == 0.1:
        assert expected[1:] == [1080, 1080]
        expected = GRID_OF_0100
    assert list(encoder.sparse_shape) == expected


def test_lidar_channels_fit(built):
    _, model = built
    encoder = getattr(model, 'pts_middle_encoder', None)
    if encoder is None:
        assert not hasattr(model, 'pts_neck')
        return
    with torch.no_grad():
        bev = encoder.eval()(torch.ones(1, encoder.in_channels), torch.zeros(1, 4).int(), 1)
    assert bev.shape[1:] == bev_shape(encoder)
    assert bev.shape[1] == model.pts_backbone.blocks[0][0].in_channels
    per_level = [block[0].out_channels for block in model.pts_neck.deblocks]
    assert sum(per_level) == model.pts_bbox_head.shared_conv.conv.in_channels
    # The coarsest map comes back to the size of the finest only if this divides it.
    assert bev.shape[-1] % 2 ** (len(per_level) - 1) == 0


def test_image_channels_fit(built):
    _, model = built
    neck, head = getattr(model, 'img_neck', None), getattr(model, 'pts_bbox_head', None)
    assert neck is not None or not hasattr(head, 'rv_embedding')
    if isinstance(head, CmtHead) and neck is not None:
        assert neck.out_channels == head.hidden_dim


def test_classes_and_range_are_the_same_everywhere(built):
    cfg, model = built
    classes = list(cfg.class_names)
    for dataset in datasets(cfg):
        assert list(dataset.metainfo.classes) == classes
    head = getattr(model, 'pts_bbox_head', None)
    if isinstance(head, CmtHead):
        assert [name for task in cfg.model.pts_bbox_head.tasks for name in task] == classes
        assert head.num_classes == len(classes)
        layer = cfg.model.data_preprocessor.voxel_layer
        ranges = {head.point_cloud_range, tuple((layer or head).point_cloud_range)}
        assert len(ranges) == 1
    for transform in (step for pipeline in pipelines(cfg) for step in pipeline):
        if transform.type == 'ObjectNameFilter':
            assert list(transform.classes) == classes
        if 'point_cloud_range' in transform:
            assert list(transform.point_cloud_range) == list(cfg.point_cloud_range)


def test_training_and_testing_see_images_of_one_size(built):
    cfg, _ = built
    sizes = {
        tuple(step.final_dim)
        for pipeline in pipelines(cfg)
        for step in pipeline
        if step.type == 'ResizeCropFlipImage'
    }
    uses_images = cfg.model.get('img_backbone') is not None and any(
        step.type == 'LoadMultiViewImages' for pipeline in pipelines(cfg) for step in pipeline
    )
    assert len(sizes) == uses_images


def test_images_are_decoded_for_the_size_to_which_they_are_resized(built):
    cfg, _ = built
    for pipeline in pipelines(cfg):
        decoded, resized = (
            {
                tuple(step.final_dim)
                for step in pipeline
                if step.type == kind and 'final_dim' in step
            }
            for kind in ('LoadMultiViewImages', 'ResizeCropFlipImage')
        )
        assert decoded <= resized


def test_models_of_one_sensor_are_parts_of_the_model_of_both():
    shapes = {}
    for name in (VOV, LIDAR, CAMERA):
        cfg = read(name).model
        cfg.pts_bbox_head.pop('final_kernel', None)  # that of the released LiDAR model differs
        shapes[name] = {key: value.shape for key, value in MODELS.build(cfg).state_dict().items()}
    assert shapes[LIDAR] | shapes[CAMERA] == shapes[VOV]
    shared = {key.split('.')[1] for key in shapes[LIDAR].keys() & shapes[CAMERA].keys()}
    assert shared == {'bev_embedding', 'reference_points', 'transformer', 'task_heads'}


@pytest.mark.parametrize(('name', 'size'), [(R50, (320, 800)), (VOV, (640, 1600))])
def test_pipelines_of_the_released_sizes(name, size):
    cfg = read(name)
    train, val = cfg.train_dataloader.dataset.dataset.pipeline, cfg.val_dataloader.dataset.pipeline
    for pipeline in (train, val):
        (images,) = (step for step in pipeline if step.type == 'ResizeCropFlipImage')
        assert tuple(images.final_dim) == size
        (sweeps,) = (step for step in pipeline if step.type == 'LoadPointsOfSweeps')
        assert sweeps.sweeps_num == 10
        assert bool(sweeps.get('test_mode')) == (pipeline is val)
    assert cfg.test_dataloader == cfg.val_dataloader
    types = [step.type for step in train]
    assert types.index('LoadAnnotations3D') + 1 == types.index('JointObjectSample')
    assert types[-2:] == ['ResizeCropFlipImage', 'Pack3DDetInputs']


@pytest.mark.parametrize(
    ('name', 'rate', 'peak', 'multipliers'),
    [
        (R50, 1.4e-4, 6, dict(img_backbone=0.01, img_neck=0.1, pts_bbox_head=1.0)),
        (VOV, 1.0e-4, 8, dict(img_backbone=0.01, img_neck=0.1, pts_bbox_head=1.0)),
        (CAMERA, 1.0e-4, 8, dict(img_backbone=0.01, img_neck=0.1, pts_bbox_head=1.0)),
        (LIDAR, 1.0e-4, 6, dict(pts_bbox_head=1.0)),
    ],
)
def test_schedule_keeps_the_ratios_of_the_groups(name, rate, peak, multipliers):
    cfg = read(name)
    model = nn.ModuleDict({module: nn.Linear(2, 2, bias=False) for module in multipliers})
    wrapper = build_optim_wrapper(model, cfg.optim_wrapper)
    default_args = dict(optimizer=wrapper, epoch_length=STEPS_PER_EPOCH)
    schedulers = [
        PARAM_SCHEDULERS.build(dict(scheduler), default_args=default_args)
        for scheduler in cfg.param_scheduler
    ]
    groups = {
        module: next(g for g in wrapper.param_groups if g['params'][0] is model[module].weight)
        for module in multipliers
    }
    rates, momenta = [], []
    for _ in range(cfg.train_cfg.max_epochs * STEPS_PER_EPOCH):
        rates.append({module: group['lr'] for module, group in groups.items()})
        momenta.append({group['betas'][0] for group in groups.values()})
        wrapper.step()
        for scheduler in schedulers:
            scheduler.step()

    head = np.array([now['pts_bbox_head'] for now in rates])
    for module, multiplier in multipliers.items():
        np.testing.assert_allclose([now[module] for now in rates], head * multiplier, rtol=1e-9)
    turn = 8 * STEPS_PER_EPOCH
    # mmengine leaves out the last step of each half.
    np.testing.assert_allclose(head[[0, turn]], [rate, peak * rate], rtol=1e-5)
    assert np.all(np.diff(head[:turn]) > 0)
    assert np.all(np.diff(head[turn:]) < 0)
    assert groups['pts_bbox_head']['lr'] == pytest.approx(1e-4 * rate, rel=0.2)
    momentum = np.array([value for (value,) in momenta])
    np.testing.assert_allclose(momentum[[0, turn]], [0.9, 0.9 * 0.85 / 0.95], rtol=1e-5)
    assert groups['pts_bbox_head']['betas'][0] == pytest.approx(0.9)


def test_weight_decay_of_the_image_backbone():
    model = nn.ModuleDict(
        {name: nn.Linear(2, 2) for name in ('img_backbone', 'img_neck', 'pts_backbone')}
    )
    wrapper = build_optim_wrapper(model, read(R50).optim_wrapper)
    decays = {group['params'][0]: group['weight_decay'] for group in wrapper.param_groups}
    assert decays[model['img_backbone'].weight] == pytest.approx(0.05)
    assert decays[model['pts_backbone'].weight] == pytest.approx(0.01)


def on_database(dataset: dict, root: Path) -> dict:
    """The dataset of a config, reading another database."""
    inner = dataset.get('dataset', dataset)
    inner.data_root = str(root)
    inner.metainfo.version = 'v1.0-mini'
    for step in inner.pipeline:
        if step.type == 'JointObjectSample':
            step.db_sampler.database = str(root / Path(step.db_sampler.database).name)
        for failure in step.get('failures', ()):
            if 'ann_file' in failure:
                failure.ann_file = str(root / Path(failure.ann_file).name)
    return dataset


@pytest.mark.parametrize('training', [True, False], ids=['train', 'test'])
@pytest.mark.parametrize(
    ('name', 'image_size', 'lidar'),
    [
        (R50, (320, 800), True),
        (VOV, (640, 1600), True),
        (LIDAR, None, True),
        (CAMERA, (640, 1600), False),
        (f'{R50}_failures_finetune', (320, 800), True),
        (f'{VOV}_failures_finetune', (640, 1600), True),
    ],
)
def test_a_sample_goes_through_the_pipeline(object_root, name, image_size, lidar, training):
    cfg = read(name)
    dataloader = cfg.train_dataloader if training else cfg.test_dataloader
    dataset = DATASETS.build(on_database(dataloader.dataset, object_root))
    for draw_index in transforms_of(dataset, DrawIndex):
        draw_index.set_epoch(0)
    batch = pseudo_collate([dataset[0]])
    inputs = MODELS.build(cfg.model.data_preprocessor)(batch, training)['inputs']
    (sample,) = batch['data_samples']

    assert type(dataset).__name__ == ('CBGSDataset' if training else 'CmtDataset')
    assert ('voxels' in inputs) == ('points' in inputs) == lidar
    assert ('imgs' in inputs) == (image_size is not None)
    if lidar:
        (points,) = inputs['points']
        low, high = torch.tensor(cfg.point_cloud_range).split(3)
        assert points.shape[1] == 5
        assert ((points[:, :3] > low) & (points[:, :3] < high)).all()
        assert inputs['voxels']['coors'].shape[1] == 4
    if image_size is not None:
        assert inputs['imgs'].shape == (1, 6, 3, *image_size)
        assert sample.lidar2img.shape == (6, 4, 4)
        assert sample.pad_shape == image_size
    if training:
        instances = sample.gt_instances_3d
        assert instances.bboxes_3d.tensor.shape == (len(instances.labels_3d), 9)
        assert len(instances) > 0
        assert instances.labels_3d.max() < len(cfg.class_names)


@pytest.mark.parametrize(
    ('name', 'pasted'),
    [
        (R50, True),
        (VOV, True),
        (LIDAR, True),
        (CAMERA, False),
        (f'{R50}_finetune', False),
        (f'{VOV}_finetune', False),
        (f'cmt_aqr_{R50.removeprefix("cmt_")}', False),
    ],
)
def test_objects_are_pasted_except_in_the_last_epochs_and_in_fine_tuning(name, pasted):
    cfg = read(name)
    train = cfg.train_dataloader.dataset.dataset.pipeline
    assert [step.type for step in train].count('JointObjectSample') == pasted
    (hook,) = (hook for hook in cfg.custom_hooks if hook.type == 'StopObjectSampleHook')
    assert hook.num_last_epochs == 5
    for step in train:
        if step.type == 'JointObjectSample':
            sampler = step.db_sampler
            assert {*sampler.sample_groups} == {*cfg.class_names} == {*sampler.classes}
            assert sampler.classes == list(cfg.class_names)
            assert sampler.min_points == 5


def test_the_rate_is_that_of_eight_gpus(built):
    cfg, _ = built
    assert ('auto_scale_lr' in cfg) == ('tiny' not in cfg.filename)
    if 'auto_scale_lr' in cfg:
        assert cfg.auto_scale_lr.base_batch_size == 8 * cfg.train_dataloader.batch_size


@pytest.mark.parametrize(('name', 'cell_size'), [(R50, 0.8), (VOV, 0.6)])
def test_failures_at_full_size_are_those_of_the_streets(name, cell_size):
    control = read(f'{name}_failures_finetune')
    train = control.train_dataloader.dataset.dataset.pipeline
    plain = read(f'{name}_finetune').train_dataloader.dataset.dataset.pipeline
    tiny = read('cmt_tiny_streets_failures').train_dataloader.dataset.pipeline
    assert train[0] == dict(type='DrawIndex')
    infos = [failure.pop('ann_file', None) for failure in train[1].failures]
    assert {*infos} == {None, control.data_root + 'nuscenes_infos_train.pkl'}
    for failure in tiny[1].failures:
        failure.pop('ann_file', None)
    assert train[1] == tiny[1]
    # The rest is that of fine-tuning, except that failures replace the drop of whole sensors.
    assert train[-1].type == 'PackHealth'
    assert train[2:-1] == plain[2:-1]
    pack = TRANSFORMS.build(train[-1])
    assert control.model.data_preprocessor.voxel_layer.voxel_size == train[-1].voxel_size
    assert pack.settings['cell_size'] == pytest.approx([cell_size] * 2)


@pytest.mark.parametrize('name', [R50, VOV, 'cmt_tiny_streets'])
@pytest.mark.parametrize(
    ('sensor', 'others'),
    [('lidar', {'CameraDrop', 'Darkness'}), ('camera', {'LidarDrop', 'PointsDrop'})],
)
def test_an_expert_trains_its_head_under_failures_of_its_sensor(name, sensor, others):
    expert = read(f'{name}_{sensor}_expert')
    dataset = expert.train_dataloader.dataset
    draw, random_failure = dataset.get('dataset', dataset).pipeline[:2]
    assert draw.type == 'DrawIndex'
    assert random_failure.prob == 1
    kinds = [failure.type for failure in random_failure.failures]
    assert not others & set(kinds)
    assert kinds[:4] == ['LidarDrop' if sensor == 'lidar' else 'CameraDrop'] * 4
    for part in ('img_backbone', 'img_neck', 'pts_middle_encoder', 'pts_backbone', 'pts_neck'):
        assert expert.model[part].frozen
    experts = read(f'{name}_experts').model.experts
    assert expert.train_cfg.max_epochs == expert.max_epochs
    last = f'epoch_{expert.max_epochs}.pth'
    assert experts[sensor] == f'work_dirs/{name}_{sensor}_expert/{last}'


@pytest.mark.parametrize(
    ('name', 'lidar', 'camera'),
    [(R50, 0.25, 0.25), (VOV, 0.25, 0.25), ('cmt_tiny_synthetic', 0.4, 0.2)],
)
def test_masked_modal_training_has_the_published_shares(name, lidar, camera):
    dataset = read(name).train_dataloader.dataset
    draws, drop = dataset.get('dataset', dataset).pipeline[:2]
    assert draws == dict(type='DrawIndex')
    failure = TRANSFORMS.build(drop)
    kinds = [type(one).__name__ for one in failure.failures]
    assert [
        failure.prob * kinds.count(kind) / len(kinds) for kind in ('LidarDrop', 'CameraDrop')
    ] == [
        pytest.approx(lidar),
        pytest.approx(camera),
    ]
    samples = [failure(dict(token=str(i), images={'CAM': {}}))['failures'] for i in range(4000)]
    assert {len(drawn) for drawn in samples} == {0, 1}  # never both
    whole = sum(not drawn for drawn in samples) / 4000
    assert whole == pytest.approx(1 - lidar - camera, abs=0.03)


def test_what_the_list_of_configs_names_exists():
    page = (REPO_ROOT / 'docs/training.md').read_text()
    page = page.partition('## Configs')[2].partition('\n## ')[0]
    paths = set(re.findall(r'\b(?:configs|tools)/[\w/.-]+\.(?:py|sh)\b', page))
    folders = {path.name: path.parent.relative_to(REPO_ROOT) for path in CONFIGS}
    named = re.findall(r'(?<![\w/…])cmt_\w+\.py', page)
    paths |= {str(folders.get(file, Path('configs')) / file) for file in named}
    assert {f'configs/cmt/{name}.py' for name in (R50, VOV, LIDAR, CAMERA)} <= paths
    assert sorted(path for path in paths if not (REPO_ROOT / path).exists()) == []
    # A name that the table shortens: its beginning is that of the line's first.
    for ending in re.findall(r'…(\w+)', page):
        assert any(path.stem.endswith(ending) for path in CONFIGS), ending
