"""Early checks of the checkpoints that a command names, before data is read."""

from __future__ import annotations

import pickle
import re
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

import torch
from mmengine.config import Config
from mmengine.model import is_model_wrapper
from mmengine.runner import Runner, find_latest_checkpoint, load_checkpoint
from torch import nn

from ..hooks.run_info_hook import schedule_of
from ..usage_error import UsageError, did_you_mean
from .processes import number_of_processes

_MISMATCH = re.compile(
    r'size mismatch for (\S+): copying a param with shape torch\.Size\((.*?)\) from checkpoint, '
    r'the shape in current model is torch\.Size\((.*?)\)'
)


def check_checkpoint(path: str) -> None:
    """Check that a checkpoint can be read if it is a local file; URLs are not checked.

    Raises:
        UsageError: it does not exist, or is incomplete or no checkpoint.
    """
    if '://' not in path:
        read_checkpoint(path)


def check_initial_weights(cfg: Config) -> None:
    """Check the checkpoints from which parts of the model start when a training begins.

    Raises:
        UsageError: one does not exist, or is incomplete or no checkpoint.
    """
    for setting, path in _initial_weights(cfg.model, 'model'):
        try:
            check_checkpoint(path)
        except UsageError as error:
            raise UsageError(f'{setting}: {error}; or None, if load_from has it') from error


def _initial_weights(config: object, name: str) -> Iterator[tuple[str, str]]:
    """Yields the name and value of each setting that gives a checkpoint for a part of the model."""
    if isinstance(config, Mapping):
        if config.get('type') == 'Pretrained':
            yield f'{name}.checkpoint', config['checkpoint']
        if config.get('type') == 'ExpertDetector':
            experts = config['experts'].items()
            yield from ((f'{name}.experts.{sensor}', path) for sensor, path in experts if path)
        for key, value in config.items():
            yield from _initial_weights(value, f'{name}.{key}')
    elif isinstance(config, (list, tuple)):
        for index, value in enumerate(config):
            yield from _initial_weights(value, f'{name}.{index}')


def read_checkpoint(path: str) -> Mapping[str, Any]:
    """Content of a local checkpoint; its tensors are read from the file when they are used.

    Raises:
        UsageError: the file does not exist, or is incomplete or no checkpoint.
    """
    file = Path(path).expanduser()
    if not file.is_file():
        others = [str(other) for other in file.parent.glob('*.pth')]
        hint = did_you_mean(str(file), others) or f' (in {Path.cwd()})'
        raise UsageError(f'checkpoint {path} does not exist{hint}')
    try:
        with file.open('rb') as opened:
            is_zip = opened.read(2) == b'PK'  # as torch.save has written since torch 1.6
        content = torch.load(file, map_location='cpu', weights_only=True, mmap=is_zip)
    except pickle.UnpicklingError as error:
        reason = re.search(r'WeightsUnpickler error: (.*?)(?:\. |\n|$)', str(error))
        raise UsageError(
            f'checkpoint {path} cannot be read as plain weights'
            f'{f" ({reason[1]})" if reason and reason[1] else ""}; if you trust it, '
            'load it with weights_only=False in a program of your own and save its state dict'
        ) from error
    except (RuntimeError, EOFError, ValueError) as error:
        reason = re.split(r'\. |\n', str(error))[0] or 'unexpected end'
        raise UsageError(
            f'checkpoint {path} ({file.stat().st_size / 1e6:.1f} MB) is incomplete or no '
            f'checkpoint: {reason}; copy or download it again, or use an earlier one'
        ) from error
    if not isinstance(content, Mapping):
        raise UsageError(f'checkpoint {path} holds a {type(content).__name__}, not a state dict')
    return content


def resume_from(cfg: Config, given: str) -> None:
    """Set a config to resume from a checkpoint, with the seed of the run that wrote it.

    Args:
        cfg: config of the run, with its work directory; changed in place. A seed that it has stays.
        given: file, or ``auto`` for the latest one in the work directory.

    Raises:
        UsageError: there is none, it cannot be read, it is from the middle of an epoch, or its run
            had another schedule or precision.
    """
    path = find_latest_checkpoint(cfg.work_dir) if given == 'auto' else given
    if path is None:
        raise UsageError(
            f'--resume: {cfg.work_dir} has no checkpoint to resume from; train without --resume, '
            'or name the checkpoint after it'
        )
    cfg.resume, cfg.load_from = True, path
    if '://' in path:
        return
    content = read_checkpoint(path)
    if 'optimizer' not in content:
        raise UsageError(
            f'--resume: checkpoint {path} has weights without an optimizer; start a new run from '
            f'it with --cfg-options load_from={path}'
        )
    meta = content.get('meta', {})
    _check_epoch(path, meta)
    before = meta.get('schedule') or {}
    now = schedule_of(cfg, number_of_processes(cfg.launcher))
    changed = [name for name in before if name in now and before[name] != now[name]]
    if changed:
        raise UsageError(
            '--resume keeps schedule and precision of the run that it continues, but '
            + ', '.join(f'{name} is {now[name]} and was {before[name]}' for name in changed)
            + f'; set it back, or start a new run with --cfg-options load_from={path}'
        )
    # The Runner takes it from the checkpoint when the samples have been drawn already.
    if meta.get('seed') is not None and cfg.get('randomness', {}).get('seed') is None:
        cfg.merge_from_dict({'randomness.seed': meta['seed']})


def _check_epoch(path: str, meta: Mapping[str, Any]) -> None:
    """Check that a checkpoint is from the end of an epoch, since the next one starts anew."""
    steps = meta.get('steps_per_epoch')
    if steps and meta['iter'] != meta['epoch'] * steps:
        raise UsageError(
            f'--resume: {path} is from step {meta["iter"] - meta["epoch"] * steps} of the {steps} '
            f'of epoch {meta["epoch"] + 1}, of which it would train the first ones again; name a '
            'checkpoint from the end of an epoch, as default_hooks.checkpoint.by_epoch=True writes'
        )


def check_fit(runner: Runner, *, complete: bool, allow_mismatch: bool | None = None) -> None:
    """Check that the weights of ``load_from`` and of ``init_cfg`` fit the model.

    mmengine would warn of what does not fit, and leave it at random values. The model is filled
    with the weights, as it will be again when the run starts.

    Args:
        runner: built, and not yet started.
        complete: whether missing and unexpected weights are mistakes too.
        allow_mismatch: whether to check nothing; None for a command without such an option.

    Raises:
        UsageError: weights do not fit, or none of them has a name of the model's.
    """
    if allow_mismatch:
        return
    model = runner.model.module if is_model_wrapper(runner.model) else runner.model
    whole = [('the model', model, runner._load_from)] if runner._load_from else []
    for name, module, path in whole or _pretrained(model):
        faults = misfits(module, path, complete=complete)
        if faults:
            option = ', or leave these weights at their initial values by --allow-mismatch'
            raise UsageError(
                f'checkpoint {path} does not fit {name}: {faults}; use the config that it was '
                f'trained with{"" if allow_mismatch is None else option}'
            )


def _pretrained(model: nn.Module) -> Iterator[tuple[str, nn.Module, str]]:
    """Modules that ``init_cfg`` fills from a local checkpoint, and the checkpoint."""
    for name, module in model.named_modules():
        configs = getattr(module, 'init_cfg', None) or []
        for config in [configs] if isinstance(configs, Mapping) else configs:
            if config.get('type') != 'Pretrained' or 'prefix' in config:
                continue
            if '://' not in config['checkpoint']:
                check_checkpoint(config['checkpoint'])
                yield name or 'the model', module, config['checkpoint']


def misfits(model: nn.Module, path: str, *, complete: bool = True) -> str:
    """What of a checkpoint does not fit a model, which is filled with the rest; empty if it fits.

    Args:
        model: without a wrapper.
        path: file or URL.
        complete: whether to name missing and unexpected weights too.
    """
    try:
        load_checkpoint(model, path, map_location='cpu', strict=True)
    except RuntimeError as error:
        text = str(error)
    else:
        return ''
    lists = {name: _listed(name, text) for name in ('missing keys', 'unexpected key')}
    shapes = [
        f'{name} is {found} and must be {own}' for name, found, own in _MISMATCH.findall(text)
    ]
    faults = [_some(shapes, 'other shapes')]
    if complete or len(lists['missing keys']) == len(model.state_dict()):
        faults.append(_some(lists['missing keys'], 'missing'))
        faults.append(_some(lists['unexpected key'], 'unexpected'))
    return '; '.join(filter(None, faults))


def _listed(what: str, text: str) -> list[str]:
    """Names that mmengine lists in a message."""
    found = re.search(rf'{what} in source state_dict: (.*)', text)
    return found[1].split(', ') if found else []


def _some(items: list[str], what: str) -> str:
    """A few of many items."""
    more = f' and {len(items) - 3} more' if len(items) > 3 else ''
    return f'{what}: {", ".join(items[:3])}{more}' if items else ''
