"""Reading of a config whose variables may change: ``data_root``, ``class_names``, ``max_epochs``.

A variable is a top-level name that means nothing to the Runner. mmengine merges a change of it into
the finished config, where nothing reads it any more: the settings that a base config has computed
from it keep the old value. Here an option on the command line changes the variable in every file
that assigns it, before its value is used; and a config that changes a variable of its base without
the settings computed from it is refused.
"""

import ast
import builtins
import copy
import inspect
import os
import re
import traceback
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any
from unittest import mock

from mmengine.config import Config
from mmengine.config import config as mmengine_config
from mmengine.runner import Runner

from ..old_settings import find_old_settings
from ..paths import configs
from ..usage_error import UsageError, did_you_mean

# Top-level names with a meaning: options of the Runner, what it reads from its config, and what the
# tools of this project read.
MEANINGFUL = frozenset(inspect.signature(Runner.__init__).parameters) - {'self', 'cfg'} | {
    'activation_checkpointing', 'compile', 'custom_imports', 'data_command',
    'efficient_conv_bn_eval', 'feature_cache', 'find_unused_parameters', 'model_wrapper_cfg',
    'runner_type', 'strategy', 'sync_bn', 'tta_model', 'tta_pipeline',
}  # fmt: skip
# Names that others give to settings, with those that have an effect.
_ELSEWHERE = dict(
    amp='--amp',
    batch_size='train_dataloader=dict(batch_size=...)',
    device='the environment variable CUDA_VISIBLE_DEVICES',
    gpu_ids='the environment variable CUDA_VISIBLE_DEVICES',
    seed='randomness=dict(seed=...), or --seed',
)


@dataclass
class _Names:
    """Top-level names that one config file assigns, and all names that it reads."""

    assigned: set[str] = field(default_factory=set)
    read: set[str] = field(default_factory=set)


def read_config_file(path: Path, options: Mapping[str, Any]) -> Config:
    """Config of a file with the changes of the command line.

    Args:
        path: the file.
        options: values by dotted name; a variable is changed before it is used.

    Raises:
        UsageError: the file or its base does not exist or cannot be read; a name has no effect, or
            a changed variable not all of its effect.
    """
    if not path.is_file():
        raise UsageError(f'config {path} does not exist{_similar_config(path)}')
    cfg, files = _read(path, {})
    old = find_old_settings(cfg.to_dict())
    if old:
        raise UsageError(f'config {path}: {"; ".join(old)}')
    if not files:  # not in Python, or in the style of `read_base`, which has no variables
        _merge(cfg, options)
        return cfg
    _check_names(path, cfg, files)
    _check_changed_variables(path, cfg, files)
    roots = {name.split('.')[0] for name in options}
    for name in sorted(roots - MEANINGFUL):
        if name not in set().union(*(file.read for file in files)):
            raise UsageError(f'--cfg-options {name}: {_no_effect(name, {*MEANINGFUL, *cfg})}')
    _merge(cfg, options)
    variables = {name: cfg[name] for name in roots - MEANINGFUL}
    if variables:
        cfg, _ = _read(path, variables)
        _merge(cfg, options)
    return cfg


def _merge(cfg: Config, options: Mapping[str, Any]) -> None:
    for name, value in options.items():
        try:
            cfg.merge_from_dict({name: copy.deepcopy(value)})
        except (KeyError, TypeError, AttributeError, AssertionError) as error:
            text = error.args[0] if error.args else error
            raise UsageError(f'--cfg-options {name}={value}: {text}') from error


def _check_names(path: Path, cfg: Config, files: list[_Names]) -> None:
    """Raise a UsageError for a top-level name that has no effect.

    Base configs may have variables for configs that inherit from them, and a config that a run has
    saved has all its variables.
    """
    *bases, own = files
    read = set().union(*(file.read for file in files))
    inherited = set().union(*(file.assigned for file in bases))
    is_saved = own.read <= {*dir(builtins)} and {'launcher', 'work_dir'} <= own.assigned
    for name in cfg:
        if name in MEANINGFUL or name in read or name.startswith('_'):
            continue
        is_new = name not in inherited and not is_saved
        if is_new or (not is_saved and did_you_mean(name, MEANINGFUL, cutoff=0.8)):
            raise UsageError(f'config {path}: {_no_effect(name, MEANINGFUL)}')


def _no_effect(name: str, known: set[str] | frozenset[str]) -> str:
    if name in _ELSEWHERE:
        return f'{name} has no effect; use {_ELSEWHERE[name]}'
    hint = did_you_mean(name, known) or '; put it where it belongs, or remove it'
    return f'{name} has no effect, since nothing reads it{hint}'


def _check_changed_variables(path: Path, cfg: Config, files: list[_Names]) -> None:
    """Raise a UsageError for a variable that does not change what a base has computed from it.

    The config must equal the one in which all files give the variable its last value. A piece of a
    config, such as a pipeline, may also have a place of its own in the file that assigns it last.
    """
    last: dict[str, _Names] = {}
    again: set[str] = set()
    for file in files:
        again |= file.assigned & last.keys()
        last |= dict.fromkeys(file.assigned, file)
    changed = sorted(
        name
        for name in again & set(cfg) - MEANINGFUL
        if not (_is_piece(cfg[name]) and name in last[name].read)
    )
    if not changed or not _unchanged(path, cfg, changed):
        return
    for name in changed:
        settings = _unchanged(path, cfg, [name])
        if settings:
            more = f' and {len(settings) - 3} more' if len(settings) > 3 else ''
            raise UsageError(
                f'config {path}: {name} is changed, but its base has already used the old value '
                f'in {", ".join(settings[:3])}{more}: change these too, or give {name} by '
                '--cfg-options, which changes all'
            )


def _is_piece(value: Any) -> bool:
    items = value if isinstance(value, list | tuple) else [value]
    return any(isinstance(item, dict) for item in items)


def _unchanged(path: Path, cfg: Config, variables: list[str]) -> list[str]:
    """Settings that would be others if the bases had the last values of some variables."""
    try:
        wanted, _ = _read(path, {name: cfg[name] for name in variables})
    except UsageError:  # such as a list that the base cannot unpack
        return variables if len(variables) > 1 else []
    return list(_differences(wanted.to_dict(), cfg.to_dict()))


def _differences(wanted: Any, found: Any, where: str = '') -> Iterator[str]:
    """Dotted names of the meaningful settings in which two configs differ."""
    if isinstance(wanted, dict) and isinstance(found, dict):
        for key in dict.fromkeys([*wanted, *found]):
            if where or key in MEANINGFUL - {'data_command', 'load_from'}:
                inner = f'{where}.{key}' if where else str(key)
                yield from _differences(wanted.get(key), found.get(key), inner)
    elif isinstance(wanted, list | tuple) and isinstance(found, list | tuple):
        numbers = not any(isinstance(item, dict | list | tuple) for item in [*wanted, *found])
        if len(wanted) != len(found) or (numbers and wanted != found):
            yield where
            return
        for index, pair in enumerate(zip(wanted, found, strict=True)):
            yield from _differences(*pair, f'{where}.{index}')
    elif wanted != found:
        yield where


def _read(path: Path, variables: Mapping[str, Any]) -> tuple[Config, list[_Names]]:
    """Config of a file, and the names in it and in its bases, bases first.

    Args:
        path: the file.
        variables: values that replace what the files assign to these names.

    Raises:
        UsageError: a file cannot be read.
    """
    values = Config(dict(variables)).to_dict()
    files: list[_Names] = []
    with _visiting(files, values):
        try:
            return Config.fromfile(path), files
        except Exception as error:
            raise UsageError(f'config {path}: {_unreadable(path, error)}') from error


@contextmanager
def _visiting(files: list[_Names], values: Mapping[str, Any]) -> Iterator[None]:
    """Let mmengine show the syntax tree of each config file that it reads, and change it."""

    class Visitor(mmengine_config.RemoveAssignFromAST):
        def visit(self, tree: ast.AST) -> ast.AST:
            if isinstance(tree, ast.Module):
                files.append(_visit(tree, values))
            return super().visit(tree)

    with mock.patch.object(mmengine_config, 'RemoveAssignFromAST', Visitor):
        yield


def _visit(tree: ast.Module, values: Mapping[str, Any]) -> _Names:
    names = _Names()
    for statement in tree.body:
        targets = statement.targets if isinstance(statement, ast.Assign) else []
        for target in targets:
            if isinstance(target, ast.Name):
                names.assigned.add(target.id)
                if target.id in values:
                    statement.value = ast.parse(repr(values[target.id]), mode='eval').body
    for node in ast.walk(tree):
        if isinstance(node, ast.Name) and isinstance(node.ctx, ast.Load):
            names.read.add(node.id)
        elif isinstance(node, ast.Attribute) and getattr(node.value, 'id', None) == '_base_':
            names.read.add(node.attr)
        elif isinstance(node, ast.Constant) and isinstance(node.value, str):
            # What mmengine makes of {{_base_.name}}.
            names.read |= set(re.findall(r'^_(\w+?)(?:\.[\w.]+)?_[0-9a-f]{6}$', node.value))
    return names


def _unreadable(path: Path, error: Exception) -> str:
    """What is wrong in a config file that raises an error."""
    variable = re.search(r'`(\w+)` cannot be found in `os.environ`', str(error))
    if variable:
        name = variable[1]
        value = '$(python -m projects.cmt_aqr.paths configs)' if 'CMT_AQR' in name else '...'
        return f'the environment variable {name} is not set: export {name}={value}'
    if isinstance(error, ImportError):
        cause = error.__cause__ or error
        return f'custom_imports: {cause}; start from the folder that holds it, or set PYTHONPATH'
    if isinstance(error, FileNotFoundError):
        base = Path(os.path.relpath(error.filename or path))
        return f'its _base_ {base} does not exist{_similar_config(base)}'
    if isinstance(error, SyntaxError):
        return f'line {error.lineno}: {error.msg}'
    places = [
        place for place in traceback.extract_tb(error.__traceback__) if place.name == '<module>'
    ]
    where = f'{places[-1].filename}, line {places[-1].lineno}: ' if places else ''
    return f'{where}{type(error).__name__}: {error}'


def _similar_config(path: Path) -> str:
    """Hint at the config with the most similar name, in the same folder or in this checkout."""
    root = configs().parent
    known = [str(file.relative_to(root)) for file in configs().glob('*/*.py')]
    known += map(str, path.parent.glob('*.py'))
    return did_you_mean(str(path), known) or f' (in {Path.cwd()})'
