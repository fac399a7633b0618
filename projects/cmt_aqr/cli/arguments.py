"""The command line of the tools: arguments, the config with its changes, and early checks.

A mistake of the user, such as a path that does not exist, is found before anything is built. It is
raised as ``UsageError``, whose message says what is wrong and how to mend it.
"""

import argparse
import contextlib
import difflib
from collections.abc import Iterator, Sequence
from pathlib import Path

from mmengine.config import Config, DictAction

from ..data_preparation.old_infos import is_old
from ..feature_cache import use_feature_cache
from ..old_settings import find_old_settings
from ..usage_error import UsageError

_REPO_ROOT = Path(__file__).resolve().parents[3]
_DATALOADERS = ('train_dataloader', 'val_dataloader', 'test_dataloader')


def make_parser(description: str) -> argparse.ArgumentParser:
    """Parser with the arguments that training and testing share."""
    parser = argparse.ArgumentParser(description=description)
    add_config_arguments(parser)
    return parser


def add_config_arguments(parser: argparse.ArgumentParser) -> None:
    """Add a config and the changes to it, under the names that MMDetection3D's tools use."""
    parser.add_argument('config', help='config file')
    parser.add_argument(
        '--work-dir', help='folder for logs and checkpoints (default: from the config)'
    )
    parser.add_argument('--seed', type=int, help='random seed (default: from the config)')
    parser.add_argument('--deterministic', action='store_true', help='deterministic algorithms')
    parser.add_argument(
        '--cfg-options',
        nargs='+',
        action=DictAction,
        help='settings to change in the config, such as optim_wrapper.optimizer.lr=1e-4; a list is '
        'written key="[a,b]", without white space',
    )
    parser.add_argument('--launcher', choices=['none', 'pytorch', 'slurm', 'mpi'], default='none')
    # torch.distributed.launch passes this; torchrun sets the variable instead.
    parser.add_argument('--local_rank', '--local-rank', type=int, default=0, help=argparse.SUPPRESS)


@contextlib.contextmanager
def exit_on_usage_error(parser: argparse.ArgumentParser) -> Iterator[None]:
    """End the command with status 2 and one line if the block raises ``UsageError``."""
    try:
        yield
    except UsageError as error:
        parser.exit(2, f'{parser.prog}: {error}\n')


def read_config(args: argparse.Namespace, cached: Sequence[str] = _DATALOADERS) -> Config:
    """Config with the changes of the command line; its name is the default work dir.

    Args:
        args: of :func:`make_parser`.
        cached: data loaders that read features where the config sets ``feature_cache``.

    Raises:
        UsageError: the file does not exist, has settings that mmengine would ignore, or caches
            features that differ between epochs.
    """
    path = Path(args.config)
    if not path.is_file():
        raise UsageError(f'config {path} does not exist{_similar_config(path)}')
    cfg = Config.fromfile(path)
    cfg.launcher = args.launcher
    if args.cfg_options:
        cfg.merge_from_dict(args.cfg_options)
    old = find_old_settings(cfg.to_dict())
    if old:
        raise UsageError(f'config {path}: {"; ".join(old)}')
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


def _similar_config(path: Path) -> str:
    """Hint at the config of this checkout with the most similar name."""
    known = {str(file.relative_to(_REPO_ROOT)) for file in _REPO_ROOT.glob('configs/*/*.py')}
    nearest = difflib.get_close_matches(str(path), known, n=1)
    return f'; did you mean {nearest[0]}?' if nearest else f' (in {Path.cwd()})'


def check_data(cfg: Config, *dataloaders: str) -> None:
    """Check that the annotation file of every dataset in these dataloaders exists.

    ``data_command`` of the config is the command that creates its data.

    Raises:
        UsageError: a file does not exist or has the format of MMDetection3D before 1.1.
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
            if is_old(path):
                raise UsageError(
                    f'{name} reads {path}, which has the format of MMDetection3D before 1.1; to '
                    f'convert it: python tools/create_data.py {dataset.get("data_root")} '
                    f'--update-infos {path}'
                )


def check_checkpoint(path: str) -> None:
    """Check that a checkpoint exists if it is a local file; URLs are not checked.

    Raises:
        UsageError: it does not exist.
    """
    if '://' not in path and not Path(path).expanduser().is_file():
        raise UsageError(f'checkpoint {path} does not exist (in {Path.cwd()})')


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
