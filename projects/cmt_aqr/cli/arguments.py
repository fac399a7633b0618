"""The command line of the tools: arguments, the config with its changes, and early checks.

A mistake of the user, such as a path that does not exist, is found before anything is built. It is
raised as ``UsageError``, whose message says what is wrong and how to mend it; :mod:`.entry` prints
it.
"""

import argparse
from collections.abc import Iterator, Sequence
from pathlib import Path

from mmengine.config import Config, DictAction

from ..feature_cache import use_feature_cache
from ..usage_error import UsageError
from .checkpoints import check_checkpoint as check_checkpoint
from .config_checks import check_config
from .config_checks import is_scored as is_scored
from .config_file import read_config_file
from .data_checks import check_info_file, check_tables
from .entry import Parser, add_screen_arguments, number
from .entry import exit_on_usage_error as exit_on_usage_error
from .processes import check_launcher

SEED = number(int, 0, 2**32 - 1)  # of numpy
_DATALOADERS = ('train_dataloader', 'val_dataloader', 'test_dataloader')


def make_parser(description: str) -> argparse.ArgumentParser:
    """Parser with the arguments that training and testing share."""
    parser = Parser(description=description)
    add_config_arguments(parser)
    return parser


def add_config_arguments(parser: argparse.ArgumentParser) -> None:
    """Add a config and the changes to it, under the names that MMDetection3D's tools use."""
    add_screen_arguments(parser)
    parser.add_argument('config', help='config file')
    parser.add_argument(
        '--work-dir', help='folder for logs and checkpoints (default: from the config)'
    )
    parser.add_argument('--seed', type=SEED, help='random seed (default: from the config)')
    parser.add_argument('--deterministic', action='store_true', help='deterministic algorithms')
    parser.add_argument(
        '--cfg-options',
        nargs='+',
        action=ConfigOptions,
        help='settings to change in the config, such as optim_wrapper.optimizer.lr=1e-4; a list is '
        'written key="[a,b]", without white space',
    )
    parser.add_argument('--launcher', choices=['none', 'pytorch', 'slurm', 'mpi'], default='none')
    # torch.distributed.launch passes this; torchrun sets the variable instead.
    parser.add_argument('--local_rank', '--local-rank', type=int, default=0, help=argparse.SUPPRESS)


def add_inference_arguments(parser: argparse.ArgumentParser) -> None:
    """Add the options of :func:`inference_settings`."""
    how = parser.add_mutually_exclusive_group()
    add_dtype_argument(how)
    how.add_argument(
        '--no-fold',
        action='store_true',
        help='compute every part by its own layers, without optimised copies (slower)',
    )


def add_dtype_argument(parser: argparse._ActionsContainer) -> None:
    """Add the precision of inference."""
    parser.add_argument(
        '--dtype',
        choices=['float32', 'bfloat16', 'float16'],
        default='float32',
        help='precision of convolutions and cross-attention (default: %(default)s); float16 needs '
        'a GPU',
    )


def inference_settings(args: argparse.Namespace) -> dict | None:
    """Keyword arguments of :func:`~projects.cmt_aqr.inference.fold_for_inference`, or None."""
    if getattr(args, 'no_fold', False):
        return None
    return dict(dtype=None if args.dtype == 'float32' else args.dtype)


class ConfigOptions(DictAction):
    """KEY=VALUE pairs, as in mmengine; an error is one line."""

    def __call__(self, parser, namespace, values, option_string=None) -> None:
        """Parse the values; see :class:`mmengine.config.DictAction`."""
        for value in values:
            if '=' not in value.strip('='):
                parser.error(f'{option_string} {value}: give KEY=VALUE, such as model.x=1')
            if any(value.count(pair[0]) != value.count(pair[1]) for pair in ('[]', '()')):
                parser.error(f'{option_string} {value}: unbalanced brackets; write key="[a,b]"')
        super().__call__(parser, namespace, values, option_string)


def read_config(args: argparse.Namespace, cached: Sequence[str] = _DATALOADERS) -> Config:
    """Config with the changes of the command line; its name is the default work dir.

    Args:
        args: of :func:`make_parser`.
        cached: data loaders that read features where the config sets ``feature_cache``.

    Raises:
        UsageError: the file does not exist, has settings without effect or names unknown to what
            they build, or caches features that differ between epochs.
    """
    check_launcher(args.launcher)
    path = Path(args.config)
    cfg = read_config_file(path, args.cfg_options or {})
    check_config(cfg)
    cfg.launcher = args.launcher
    if args.work_dir or not cfg.get('work_dir'):
        cfg.work_dir = args.work_dir or str(Path('work_dirs') / path.stem)
    if args.seed is not None:
        cfg.merge_from_dict({'randomness.seed': args.seed})
    if args.deterministic:
        cfg.merge_from_dict({'randomness.deterministic': True})
    try:
        use_feature_cache(cfg, {name: [*datasets_of(cfg, name)] for name in cached})
    except ValueError as error:
        raise UsageError(f'config {path}: {error}') from None
    return cfg


def check_data(cfg: Config, *dataloaders: str) -> None:
    """Check the info file of every dataset in these dataloaders, and the tables for their scores.

    ``data_command`` of the config is the command that creates its data.

    Raises:
        UsageError: a file does not exist, is incomplete or has another format.
    """
    for name in dataloaders:
        for dataset in datasets_of(cfg, name):
            path = Path(dataset.get('data_root') or '', dataset['ann_file'])
            if not path.is_file():
                command = cfg.get('data_command', 'see "data" in the README')
                raise UsageError(
                    f'{name} reads {path}, which does not exist in {Path.cwd()}; to make it: '
                    f'{command}'
                )
            check_info_file(path, dataset)
            if is_scored(cfg, name):
                check_tables(dataset)


def datasets_of(cfg: Config, dataloader: str) -> Iterator[dict]:
    """Configs of the datasets with an annotation file in a dataloader."""
    return _datasets((cfg.get(dataloader) or {}).get('dataset'))


def _datasets(dataset: dict | None) -> Iterator[dict]:
    """Datasets with an annotation file, also inside wrappers such as CBGSDataset and in lists."""
    if not isinstance(dataset, dict):
        return
    if 'ann_file' in dataset:
        yield dataset
    for inner in [dataset.get('dataset'), *(dataset.get('datasets') or [])]:
        yield from _datasets(inner)
