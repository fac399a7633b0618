"""Train one model by several recipes and hold the results against each other.

Every config is trained from the same weights, on the same data, with the same seed and number of
steps, one after the other; then scored by the official evaluation on the validation and on the
training scenes. The table has, for each, both scores, how far the parts moved from where they
started, and the time of a step and the peak memory of its training.
"""

import argparse
import contextlib
import io
import json
import os
import shlex
import statistics
import subprocess
import sys
from pathlib import Path
from typing import NamedTuple

import _startup

_startup.prepare()

import torch
from mmengine.config import Config
from nuscenes import NuScenes
from nuscenes.eval.common.config import config_factory
from nuscenes.eval.detection.evaluate import NuScenesEval

import projects.cmt_aqr  # noqa: F401  (lets checkpoints of runs be read without running code)
from projects.cmt_aqr.files import dump_json

ROOT = Path(__file__).resolve().parents[1]

TRAINING_SPLITS = {'v1.0-mini': 'mini_train', 'v1.0-trainval': 'train'}
METRIC = 'NuScenes metric/pred_instances_3d_NuScenes'
DRIFTING = ('img_backbone', 'pts_middle_encoder', 'pts_backbone')


class Result(NamedTuple):
    """What came of one config."""

    val_map: float
    val_nds: float
    train_map: float
    drift: float
    """of the backbones: |weights - start| / |start|, all their parameters as one vector"""
    step_seconds: float
    """median over the training's log"""
    peak_gigabytes: float
    """of the training process"""


def parse_args() -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument('configs', nargs='+', type=Path, help='each with the same load_from')
    parser.add_argument('--work-dir', type=Path, default=Path('work_dirs/compare_recipes'))
    parser.add_argument('--seed', default='0')
    return parser.parse_args()


def main() -> None:
    """Go through the configs; what is finished is not done again."""
    args = parse_args()
    results = {}
    for config in args.configs:
        folder = args.work_dir / config.stem
        done = folder / 'result.json'
        if not done.is_file():
            result = measure(config, folder, args.seed)
            dump_json(done, result._asdict())
        results[config.stem] = Result(**json.loads(done.read_text()))
    print(table(results))


def measure(config: Path, folder: Path, seed: str) -> Result:
    """Train and score one config."""
    cfg = Config.fromfile(config)
    peak = run('tools/train.py', config, '--work-dir', folder / 'train', '--seed', seed)
    checkpoint = Path((folder / 'train' / 'last_checkpoint').read_text().strip())
    run('tools/test.py', config, checkpoint, '--work-dir', folder / 'val')
    (info,) = (folder / 'val').glob('*/run_info.json')
    scores = json.loads(info.read_text())['scores'][-1]
    return Result(
        val_map=scores[f'{METRIC}/mAP'],
        val_nds=scores[f'{METRIC}/NDS'],
        train_map=score_on_training_scenes(cfg, config, checkpoint, folder / 'train_scenes'),
        drift=drift(cfg.load_from, checkpoint),
        step_seconds=step_seconds(folder / 'train'),
        peak_gigabytes=peak,
    )


def run(*command: str | Path) -> float:
    """Run one command of this project; the peak memory of its process in GB.

    Raises:
        subprocess.CalledProcessError: it failed.
    """
    print(f'$ python {shlex.join(map(str, command))}', flush=True)
    process = subprocess.Popen([sys.executable, *command])
    _, status, usage = os.wait4(process.pid, 0)
    process.returncode = os.waitstatus_to_exitcode(status)
    if process.returncode:
        raise subprocess.CalledProcessError(process.returncode, list(map(str, command)))
    return usage.ru_maxrss * 1024 / 1e9


def score_on_training_scenes(cfg: Config, config: Path, checkpoint: Path, folder: Path) -> float:
    """Official mAP on the training scenes, which MMDetection3D's metric does not score."""
    infos = cfg.train_dataloader.dataset.ann_file
    run(
        'tools/test.py', config, checkpoint, '--work-dir', folder, '--cfg-options',
        f'test_dataloader.dataset.ann_file={infos}',
        f'test_evaluator.ann_file={cfg.data_root}{infos}',
        'test_evaluator.format_only=True',
        f'test_evaluator.jsonfile_prefix={folder / "results"}',
    )  # fmt: skip
    (predictions,) = folder.rglob('results_nusc.json')
    with contextlib.redirect_stdout(io.StringIO()):  # the devkit prints what it does
        evaluation = NuScenesEval(
            NuScenes(cfg.version, cfg.data_root, verbose=False),
            config=config_factory('detection_cvpr_2019'),
            result_path=str(predictions),
            eval_set=TRAINING_SPLITS[cfg.version],
            output_dir=str(folder),
            verbose=False,
        )
        metrics, _ = evaluation.evaluate()
    return metrics.mean_ap


def drift(start: str, end: Path) -> float:
    """How far the backbones moved, relative to where they started."""
    before, after = (
        torch.load(path, map_location='cpu', weights_only=True)['state_dict']
        for path in (start, end)
    )
    names = [
        name
        for name, value in before.items()
        if name.startswith(DRIFTING) and 'running' not in name and value.is_floating_point()
    ]
    moved = sum((after[name].double() - before[name].double()).square().sum() for name in names)
    length = sum(before[name].double().square().sum() for name in names)
    return (moved / length).sqrt().item()


def step_seconds(folder: Path) -> float:
    """Median of the step times in the log of a training."""
    (log,) = folder.glob('*/vis_data/scalars.json')
    lines = [json.loads(line) for line in log.read_text().splitlines()]
    return statistics.median(line['time'] for line in lines if 'time' in line and 'loss' in line)


def table(results: dict[str, Result]) -> str:
    """Markdown."""
    head = ['config', 'val mAP / NDS', 'train mAP', 'gap', 'drift', 'step', 'peak memory']
    lines = [head, ['---'] * len(head)]
    for name, result in results.items():
        lines.append(
            [
                name,
                f'{result.val_map:.3f} / {result.val_nds:.3f}',
                f'{result.train_map:.3f}',
                f'{result.train_map - result.val_map:.3f}',
                f'{result.drift:.2e}',
                f'{result.step_seconds:.2f} s',
                f'{result.peak_gigabytes:.2f} GB',
            ]
        )
    return '\n'.join('| ' + ' | '.join(line) + ' |' for line in lines)


if __name__ == '__main__':
    main()
