"""MMDetection3D's own interfaces: each works, or says in a line what to use."""

import json
import runpy
import shutil
import sys
import types
from pathlib import Path

import cv2
import mmdet3d
import pytest
from mmdet3d.apis import (
    MultiModalityDet3DInferencer,
    inference_multi_modality_detector,
    init_model,
)
from mmdet3d.registry import MODELS
from mmengine.config import Config
from mmengine.fileio import dump, load
from mmengine.runner import Runner

from projects.cmt_aqr.apis import detect, init_detector, load_frames, shipped_models
from projects.cmt_aqr.cli.config_changes import add_failure

TOOLS = Path(mmdet3d.__file__).parent / '.mim/tools'
CONFIG, WEIGHTS = map(str, shipped_models()['cmt_tiny_synthetic'])


@pytest.fixture
def call(monkeypatch):
    """Run a tool of MMDetection3D in this process."""

    def call(tool: str, *arguments: object) -> None:
        monkeypatch.setattr(sys, 'argv', [tool, *map(str, arguments)])
        runpy.run_path(str(TOOLS / tool), run_name='__main__')

    return call


@pytest.fixture
def test_config(synthetic_root, tmp_path) -> Config:
    """A config that tests two frames."""
    cfg = Config.fromfile(CONFIG)
    root = f'{synthetic_root}/'
    for name in ('train_dataloader', 'train_cfg', 'optim_wrapper', 'param_scheduler'):
        cfg[name] = None
    cfg.val_dataloader = cfg.val_cfg = cfg.val_evaluator = None
    cfg.merge_from_dict(
        {
            'work_dir': str(tmp_path / 'run'),
            'load_from': WEIGHTS,
            'test_dataloader.batch_size': 2,
            'test_dataloader.num_workers': 0,
            'test_dataloader.persistent_workers': False,
            'test_dataloader.dataset.data_root': root,
            'test_dataloader.dataset.indices': 2,
            'default_hooks.visualization.draw': True,
            'default_hooks.visualization.test_out_dir': 'pictures',
        }
    )
    cfg.test_evaluator = dict(type='DumpResults', out_file_path=str(tmp_path / 'found.pkl'))
    return cfg


def test_init_model_and_inference_with_all_cameras(synthetic_root, tmp_path):
    """On files in one folder, as this function of MMDetection3D reads them."""
    infos = load(synthetic_root / 'nuscenes_infos_val.pkl')
    infos['data_list'] = infos['data_list'][:1]
    (entry,) = infos['data_list']
    entry.pop('lidar_sweeps', None)
    for channel, name in (
        ('LIDAR_TOP', entry['lidar_points']['lidar_path']),
        *((camera, image['img_path']) for camera, image in entry['images'].items()),
    ):
        shutil.copy(synthetic_root / 'samples' / channel / name, tmp_path)
    dump(infos, tmp_path / 'infos.pkl')
    model = init_model(CONFIG, WEIGHTS, device='cpu')
    cloud = str(tmp_path / entry['lidar_points']['lidar_path'])
    result, _ = inference_multi_modality_detector(
        model, cloud, str(tmp_path), str(tmp_path / 'infos.pkl'), cam_type='all'
    )
    own = init_detector('cmt_tiny_synthetic', device='cpu')
    expected = detect(own, load_frames(tmp_path, own.cfg)[0])
    scores = sorted(result.pred_instances_3d.scores_3d.tolist(), reverse=True)
    # Only the function of this project folds the detector.
    assert scores == pytest.approx([float(i.box.score) for i in expected.boxes], abs=1e-5)


def test_settings_of_training_in_the_model_are_refused():
    cfg = Config.fromfile(CONFIG)
    cfg.model.train_cfg = dict(pts=dict(assigner=None))
    with pytest.raises(ValueError, match=r'train_cfg .* must be None: assigner and losses are'):
        MODELS.build(cfg.model)


def test_the_inferencer_of_one_camera_names_what_to_use():
    with pytest.raises(ValueError, match=r'reads one camera.*projects.cmt_aqr.apis') as error:
        MultiModalityDet3DInferencer(CONFIG, WEIGHTS, device='cpu')
    assert '\n' not in str(error.value)


def test_get_flops_names_what_to_use(call):
    with pytest.raises(TypeError, match=r'in place of get_flops.py, use .*benchmark.py model'):
        call('analysis_tools/get_flops.py', CONFIG, '--shape', 1000, 5)


def test_analyze_logs_plots_a_run(call, tmp_path, monkeypatch):
    """seaborn, which only sets a style there, is not among the requirements."""
    style = types.SimpleNamespace(set_style=lambda style: None)
    monkeypatch.setitem(sys.modules, 'seaborn', style)
    log = tmp_path / 'scalars.json'
    lines = [dict(loss=3.0 - i, epoch=1, iter=i, step=i, time=0.1) for i in range(3)]
    log.write_text(''.join(json.dumps(line) + '\n' for line in lines))
    call(
        'analysis_tools/analyze_logs.py',
        'plot_curve',
        log,
        '--keys',
        'loss',
        '--out',
        tmp_path / 'loss.png',
    )
    assert cv2.imread(str(tmp_path / 'loss.png')) is not None


def test_browse_dataset_draws_what_is_loaded(call, synthetic_root, tmp_path):
    options = (
        f'train_dataloader.dataset.data_root={synthetic_root}',
        'train_dataloader.dataset.indices=1',
    )
    task = ('--task', 'multi-modality_det', '--cfg-options', *options)
    out = ('--output-dir', tmp_path / 'out')
    call('misc/browse_dataset.py', CONFIG, '--not-show', *out, *task)
    (picture,) = (tmp_path / 'out').iterdir()
    assert cv2.imread(str(picture)).shape[1] == 1600
    with pytest.raises(ValueError, match='opens no window, it writes files: give'):
        call('misc/browse_dataset.py', CONFIG, *out, *task)
    with pytest.raises(RuntimeError, match=r'use `tools/visualize\.py browse`'):
        call('misc/browse_dataset.py', CONFIG, '--aug', '--not-show', *out, *task)


def test_the_visualization_hook_draws_what_the_model_was_fed(test_config):
    add_failure(test_config, dict(type='CameraDrop'))
    Runner.from_cfg(test_config).test()
    pictures = sorted(Path(test_config.work_dir).glob('*/pictures/*.png'))
    assert len(pictures) == 2
    assert all(len(picture.stem) == 32 for picture in pictures)  # tokens
    tiles = cv2.imread(str(pictures[0]))[100:250, 50:500]
    assert (tiles == 0).mean() > 0.8  # black images
