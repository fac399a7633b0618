"""What a model is fed: one sample after augmentations and failures, with its annotated boxes.

Boxes are projected into the augmented images. In training every draw differs.

Example:
    python tools/visualize.py browse CONFIG --index 3 --draws 4 --out pictures
"""

import argparse
from pathlib import Path

import numpy as np
import torch
from mmdet3d.registry import DATASETS
from mmengine.config import Config
from mmengine.dataset import BaseDataset
from mmengine.registry import DefaultScope

from ..datasets.failures import DrawIndex
from ..hooks.pipelines import transforms_of
from ..samples import sample_name
from ..usage_error import UsageError
from ..visualization import save
from ..visualization.chosen_sample import add_sample_arguments, find_sample
from ..visualization.frame import render_views
from ..visualization.frame_view import fed_view, truth_of
from . import arguments
from .config_changes import add_failure, find_failure
from .entry import number


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Add the options of these pictures."""
    arguments.add_config_arguments(parser)
    add_sample_arguments(parser)
    parser.add_argument('--split', choices=['train', 'test'], default='train')
    parser.add_argument(
        '--draws', type=number(int, 1), default=1, help='number of pictures of the sample'
    )
    parser.add_argument(
        '--failure', metavar='NAME_SEVERITY', help='sensor failure, with --split test'
    )
    parser.add_argument('--out', type=Path, default=Path('.'), help='folder for the images')


def run(args: argparse.Namespace) -> list[Path]:
    """Load the sample as a model is fed it and draw; return the files.

    Raises:
        UsageError: the config, its data, the sample or the failure do not exist, or a failure is
            given for training, which draws its own.
    """
    if args.failure and args.split == 'train':
        raise UsageError('--failure needs --split test: training draws the failures of its config')
    cfg = arguments.read_config(args, cached=[])
    arguments.check_data(cfg, f'{args.split}_dataloader')
    if args.failure:
        add_failure(cfg, find_failure(cfg, args.failure))
    for dataset in arguments.datasets_of(cfg, f'{args.split}_dataloader'):
        pack = dataset.pipeline[-1]
        pack.meta_keys = (*pack.meta_keys, 'failures')
    with DefaultScope.overwrite_default_scope(cfg.get('default_scope', 'mmdet3d')):
        dataset = DATASETS.build(cfg[f'{args.split}_dataloader'].dataset)
        index = find_sample(dataset, args)
        return [draw(cfg, dataset, index, number, args) for number in range(args.draws)]


def draw(
    cfg: Config, dataset: BaseDataset, index: int, number: int, args: argparse.Namespace
) -> Path:
    """Draw one draw of a sample; return the file."""
    seed = (args.seed or 0) + number
    np.random.seed(seed)
    torch.manual_seed(seed)
    for step in transforms_of(dataset, DrawIndex):
        step.set_epoch(number)
    packed = dataset[index]
    sample = packed['data_samples']
    boxes = truth_of(sample, dataset.metainfo['classes']) or []
    failures = [
        type(failure).__name__.removeprefix('Drawn')
        for failure in sample.metainfo.get('failures', ())
    ]
    name = Path(cfg.filename).stem
    figure = render_views(
        {'': fed_view(packed['inputs'], sample)._replace(boxes=boxes)},
        title=f'{name}   {args.split}   frame {sample_name(sample)}   draw {number}',
        note=f'failures: {", ".join(failures) or "none"}',
    )
    return save(figure, args.out / f'{name}_{args.split}_{sample_name(sample)}_{number}.png')
