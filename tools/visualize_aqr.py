"""Draw what a router does with one frame: ``python tools/visualize_aqr.py CONFIG CHECKPOINT``.

For each dropped sensor one PNG: the weights for LiDAR over the points and those for the cameras
over the images, with the boxes found; with all sensors on the left, without this one on the right.
"""

import os
import sys
from pathlib import Path

# Idle OpenMP threads must not spin: read by the runtime when torch is first imported.
os.environ.setdefault('OMP_WAIT_POLICY', 'passive')
sys.path.insert(0, str(Path(__file__).resolve().parents[1]))

import argparse
import copy

import torch
from mmdet3d.registry import DATASETS, MODELS
from mmengine.config import Config
from mmengine.dataset import BaseDataset
from mmengine.registry import DefaultScope
from mmengine.runner import load_checkpoint

from projects.cmt_aqr import entry
from projects.cmt_aqr.detector import CmtDetector
from projects.cmt_aqr.files import replacing
from projects.cmt_aqr.visualization.chosen_sample import add_sample_arguments, find_sample
from projects.cmt_aqr.visualization.observation import Observation, observe
from projects.cmt_aqr.visualization.weights import render_weights_over_inputs

DROPPED = {'lidar': 'without LiDAR', 'camera': 'without cameras'}
CLEAN = 'all sensors'


def make_parser() -> argparse.ArgumentParser:
    """The parser of this command."""
    parser = entry.make_parser('Draw what a router does with one frame')
    parser.add_argument('checkpoint', help='file or address of the weights')
    add_sample_arguments(parser)
    parser.add_argument(
        '--drop',
        nargs='+',
        choices=list(DROPPED),
        default=list(DROPPED),
        help='sensors to take away, a picture for each; default: each in turn',
    )
    parser.add_argument('--out', type=Path, default=Path('.'), help='folder for the pictures')
    parser.add_argument(
        '--score-threshold', type=float, default=0.3, help='least score of a drawn box'
    )
    return parser


def main() -> None:
    """Read the config, check what it needs, look at the frame under each condition, and draw."""
    parser = make_parser()
    args = parser.parse_args()
    try:
        cfg = read_config(args)
        with DefaultScope.overwrite_default_scope(cfg.get('default_scope', 'mmdet3d')):
            pictures = draw(cfg, args)
    except entry.UsageError as error:
        parser.exit(2, f'{parser.prog}: {error}\n')
    print('\n'.join(f'made {picture}' for picture in pictures))


def read_config(args: argparse.Namespace) -> Config:
    """The config of a routed model whose files are there.

    Raises:
        entry.UsageError: the model has no router or lacks a sensor, or a file does not exist.
    """
    cfg = entry.read_config(args)
    if not cfg.get('model', {}).get('pts_bbox_head', {}).get('aqr'):
        raise entry.UsageError(
            f'config {args.config} has no router (model.pts_bbox_head.aqr), and no weights to '
            'draw; take one of configs/cmt_aqr'
        )
    entry.check_checkpoint(args.checkpoint)
    entry.check_data(cfg, 'test_dataloader')
    return cfg


def draw(cfg: Config, args: argparse.Namespace) -> list[Path]:
    """The pictures that the command line asks for.

    Raises:
        entry.UsageError: there is no such sample, or the checkpoint does not fit.
    """
    conditions = {CLEAN: build_dataset(cfg)}
    for sensor in args.drop:
        conditions[DROPPED[sensor]] = build_dataset(cfg, drop=sensor)
    index = find_sample(conditions[CLEAN], args)
    model = build_model(cfg, args.checkpoint)
    seen = {
        condition: look(model, dataset, index, args.score_threshold)
        for condition, dataset in conditions.items()
    }
    args.out.mkdir(parents=True, exist_ok=True)
    pictures = []
    for sensor in args.drop:
        condition = DROPPED[sensor]
        figure = render_weights_over_inputs({CLEAN: seen[CLEAN], condition: seen[condition]})
        pictures.append(args.out / f'aqr_weights_without_{sensor}.png')
        with replacing(pictures[-1]) as temporary:
            figure.savefig(temporary)
    return pictures


def build_dataset(cfg: Config, drop: str | None = None) -> BaseDataset:
    """The test data, with or without a sensor."""
    cfg = copy.deepcopy(cfg)
    if drop is not None:
        entry.add_failure(cfg, entry.find_failure(cfg, entry.DROPS[drop]))
    return DATASETS.build(cfg.test_dataloader.dataset)


def build_model(cfg: Config, checkpoint: str) -> CmtDetector:
    """The model with every weight from the checkpoint, on the GPU where there is one.

    Raises:
        entry.UsageError: the checkpoint lacks weights of the model or has others.
    """
    model = MODELS.build(cfg.model)
    try:
        load_checkpoint(model, checkpoint, map_location='cpu', strict=True)
    except RuntimeError as error:
        raise entry.UsageError(
            f'checkpoint {checkpoint} is not of {cfg.filename}: {" ".join(str(error).split())}'
        ) from error
    return model.to('cuda' if torch.cuda.is_available() else 'cpu').eval()


def look(
    model: CmtDetector, dataset: BaseDataset, index: int, score_threshold: float
) -> Observation:
    """What the model makes of a sample."""
    return observe(
        model,
        dataset[index],
        cameras=list(dataset.get_data_info(index)['images']),
        classes=dataset.metainfo['classes'],
        score_threshold=score_threshold,
    )


if __name__ == '__main__':
    main()
