"""Router weights over the inputs of one frame, with all sensors and without one of them.

One image for each dropped sensor: the weights of LiDAR over the points, those of the cameras over
the images, and the detected boxes; all sensors on the left, the frame without the sensor on the
right.
"""

import argparse
import copy
from pathlib import Path

from mmdet3d.registry import DATASETS
from mmengine.config import Config
from mmengine.dataset import BaseDataset
from mmengine.registry import DefaultScope

from ..apis.models import build_model
from ..detector import CmtDetector
from ..usage_error import UsageError
from ..visualization import save
from ..visualization.chosen_sample import add_sample_arguments, find_sample
from ..visualization.observation import Observation, observe
from ..visualization.weights import render_weights_over_inputs
from . import arguments
from .config_changes import DROPS, add_failure, find_failure
from .entry import number

DROPPED = {'lidar': 'without LiDAR', 'camera': 'without cameras'}
CLEAN = 'all sensors'


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Add the options of these pictures."""
    arguments.add_config_arguments(parser)
    parser.add_argument('checkpoint', help='file or URL of the weights')
    add_sample_arguments(parser)
    parser.add_argument(
        '--drop',
        nargs='+',
        choices=list(DROPPED),
        default=list(DROPPED),
        help='sensors to drop, one image for each (default: each in turn)',
    )
    parser.add_argument('--out', type=Path, default=Path('.'), help='folder for the images')
    parser.add_argument(
        '--score-threshold',
        type=number(float, 0, 1),
        default=0.3,
        help='minimum score of a drawn box',
    )


def run(args: argparse.Namespace) -> list[Path]:
    """Run the model on the frame under each condition and draw; return the files.

    Raises:
        UsageError: the config has no router or lacks a sensor, a file or the sample does not exist,
            or the checkpoint does not fit the model.
    """
    cfg = arguments.read_config(args, cached=[])
    if not cfg.get('model', {}).get('pts_bbox_head', {}).get('aqr'):
        raise UsageError(
            f'config {args.config} has no router (model.pts_bbox_head.aqr), so no weights to draw; '
            'use one of configs/cmt_aqr'
        )
    arguments.check_checkpoint(args.checkpoint)
    arguments.check_data(cfg, 'test_dataloader')
    with DefaultScope.overwrite_default_scope(cfg.get('default_scope', 'mmdet3d')):
        return draw(cfg, args)


def draw(cfg: Config, args: argparse.Namespace) -> list[Path]:
    """Write the images that the command line asks for."""
    conditions = {CLEAN: build_dataset(cfg)}
    for sensor in args.drop:
        conditions[DROPPED[sensor]] = build_dataset(cfg, drop=sensor)
    index = find_sample(conditions[CLEAN], args)
    model = build_model(cfg, args.checkpoint)
    seen = {
        condition: run_model(model, dataset, index, args.score_threshold)
        for condition, dataset in conditions.items()
    }
    pictures = []
    for sensor in args.drop:
        pair = {condition: seen[condition] for condition in (CLEAN, DROPPED[sensor])}
        file = args.out / f'aqr_weights_without_{sensor}.png'
        pictures.append(save(render_weights_over_inputs(pair), file))
    return pictures


def build_dataset(cfg: Config, drop: str | None = None) -> BaseDataset:
    """The test dataset, with all sensors or without one."""
    cfg = copy.deepcopy(cfg)
    if drop is not None:
        add_failure(cfg, find_failure(cfg, DROPS[drop]))
    return DATASETS.build(cfg.test_dataloader.dataset)


def run_model(
    model: CmtDetector, dataset: BaseDataset, index: int, score_threshold: float
) -> Observation:
    """Router weights and detections of one sample."""
    return observe(
        model,
        dataset[index],
        cameras=list(dataset.get_data_info(index)['images']),
        classes=dataset.metainfo['classes'],
        score_threshold=score_threshold,
    )
