"""Configs and the training sample that the sides of a comparison share."""

import argparse
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import NamedTuple

import numpy as np
import torch
from mmdet3d.registry import DATASETS, MODELS
from mmengine.config import Config, ConfigDict, DictAction
from mmengine.dataset import pseudo_collate
from mmengine.registry import init_default_scope
from torch import nn

from projects.cmt_aqr.doctor.random_sample import random_batch
from projects.cmt_aqr.usage_error import UsageError

INFO_FILE = 'nuscenes_infos_train.pkl'
_RANDOM_STEPS = (
    'DrawIndex',
    'RandomFailure',
    'JointObjectSample',
    'GlobalRotScaleTransAll',
    'RandomFlip3DAll',
    'PointShuffle',
)


class Workload(NamedTuple):
    """A config, and the training sample on which its model is measured."""

    config: str
    """path of the config"""
    options: Mapping | None = None
    """settings to change in it"""
    data_root: str | None = None
    """the database whose first training sample is used; ``None`` is a random sample"""
    image_size: tuple[int, int] | None = None
    """height and width of the images; ``None`` takes those of the config"""

    def read(self) -> Config:
        """The config with its changes."""
        cfg = Config.fromfile(self.config)
        cfg.merge_from_dict(dict(self.options or {}))
        if self.image_size is not None:
            resize_images(cfg, self.image_size)
        return cfg

    def build(self) -> tuple[Config, nn.Module, dict]:
        """The config, its model on the CPU with random weights, and a batch of the sample."""
        cfg = self.read()
        init_default_scope('mmdet3d')
        seed()
        batch = random_batch(cfg) if self.data_root is None else first_batch(cfg, self.data_root)
        model = MODELS.build(cfg.model)
        for module in model.modules():
            init = getattr(module, 'init_cfg', None)
            if isinstance(init, dict) and init['type'] == 'Pretrained':
                module.init_cfg = None  # its file need not exist to measure a cost
        model.init_weights()
        return cfg, model, batch


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Add the options that select the sample and change the configs."""
    parser.add_argument(
        '--frame', default='data/real_frame', help='data root; its first training sample is used'
    )
    parser.add_argument(
        '--synthetic', action='store_true', help='use a random sample instead of --frame'
    )
    parser.add_argument(
        '--cfg-options',
        nargs='+',
        action=DictAction,
        default={},
        help='settings to change in every config, such as model.img_backbone.with_cp=False',
    )


def check(configs: Sequence[Path], args: argparse.Namespace) -> str | None:
    """The data root of the sample, or ``None`` for a random sample.

    Raises:
        UsageError: a config or the info file of the sample does not exist.
    """
    for config in configs:
        if not config.is_file():
            raise UsageError(f'config {config} does not exist (in {Path.cwd()})')
    if args.synthetic:
        return None
    if not Path(args.frame, INFO_FILE).is_file():
        raise UsageError(
            f'{Path(args.frame, INFO_FILE)} does not exist (in {Path.cwd()}); create it by '
            f'python tools/make_frame_tables.py FOLDER --out {args.frame}, or use a random sample: '
            '--synthetic'
        )
    return args.frame


def describe(data_root: str | None, args: argparse.Namespace) -> str:
    """Sample and changed settings for the text of a report."""
    options = ''.join(f', {key}={value}' for key, value in args.cfg_options.items())
    return f'one sample of {data_root or "random input"}{options}'


def seed() -> None:
    """Seed torch and numpy, so that every step draws the same denoising queries and masks."""
    torch.manual_seed(0)
    np.random.seed(0)


def first_batch(cfg: Config, data_root: str) -> dict:
    """The first training sample of a database as a batch, without random augmentation."""
    dataset = innermost(cfg.train_dataloader.dataset)
    pipeline = [
        _without_chance(step) for step in dataset.pipeline if step.type not in _RANDOM_STEPS
    ]
    settings = dict(dataset, data_root=data_root, ann_file=INFO_FILE, pipeline=pipeline)
    return pseudo_collate([DATASETS.build(settings)[0]])


def resize_images(cfg: Config, image_size: tuple[int, int]) -> None:
    """Change the image size (height, width) in the pipelines of a config."""
    for loader in (cfg.train_dataloader, cfg.test_dataloader):
        for step in innermost(loader.dataset).pipeline:
            if step.type == 'ResizeCropFlipImage':
                step.final_dim = tuple(image_size)


def innermost(dataset: ConfigDict) -> ConfigDict:
    """The dataset inside all wrappers."""
    while 'dataset' in dataset:
        dataset = dataset.dataset
    return dataset


def _without_chance(step: ConfigDict) -> dict:
    return dict(step, training=False) if step.type == 'ResizeCropFlipImage' else dict(step)
