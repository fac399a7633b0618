"""Write docs/configuration.md, the reference of all options of a config, from the docstrings.

python tools/document_options.py
"""

import inspect
import re
from pathlib import Path
from typing import NamedTuple

import _startup

_startup.prepare()

from mmdet3d import registry
from mmengine.registry import Registry

import projects.cmt_aqr
from projects.cmt_aqr import (
    aqr,
    denoising,
    evaluation,
    feature_cache,
    freezing,
    head,
    health,
    planning,
    transformer,
)
from projects.cmt_aqr.aqr.router import AdaptiveQueryRouter
from projects.cmt_aqr.files import write_text

REPO_ROOT = Path(__file__).resolve().parents[1]

PAGE = REPO_ROOT / 'docs' / 'configuration.md'
PACKAGE = projects.cmt_aqr.__name__
# Sections with the modules of the package that they document; the first match counts.
SECTIONS = {
    'Detector': (
        'detector',
        'layer_trials',
        'experts',
        'data_preprocessor',
        'grid_mask',
        'backbones',
        'necks',
    ),
    'Head, decoder and losses': (
        'head',
        'task_head',
        'transformer.decoder',
        'denoising',
        'matching',
    ),
    'Router': ('aqr', 'transformer.routing'),
    'Freezing, optimizer and fast path': ('freezing', 'precision'),
    'Sensor failures': ('datasets.failures',),
    'Data': ('datasets',),
    'Hooks': ('hooks',),
    'Health of the sensors': ('health',),
    'Planning': ('planning',),
    'Pictures': ('visualization',),
    'Evaluation': ('evaluation',),
    'Feature cache': ('feature_cache',),
    'Pre-training of the image branch': ('pretraining',),
}
# Classes whose options a config gives without naming their type, with the place of these options.
NESTED = {
    transformer.CmtTransformer: '`pts_bbox_head.transformer`',
    denoising.DenoisingGenerator: '`pts_bbox_head.denoising`',
    freezing.FreezePolicy: 'beside the arguments of any part of the detector',
    freezing.FastPath: '`model.fast_path`',
    health.RangeImage: '`model.health_monitor.range_image`',
}
# Options that this project sets itself, by class and for its subclasses; a config does not.
SET_BY = {
    'the head': {
        transformer.CmtTransformer: ('embed_dims',),
        denoising.DenoisingGenerator: ('point_cloud_range', 'num_classes'),
        AdaptiveQueryRouter: ('embed_dims', 'num_heads', 'point_cloud_range', 'voxel_grid'),
    },
    'the router': {
        aqr.AQRWeightGenerator: ('embed_dims',),
        transformer.RoutingForm: ('num_heads',),
    },
    'the detector': {
        head.CmtHead: ('voxel_grid', 'float32'),
        freezing.FastPath: ('module', 'name'),
        health.HealthMonitor: (
            *('point_cloud_range', 'voxel_grid', 'bev_channels', 'image_channels'),
        ),
        planning.ActionQueryHead: ('embed_dims', 'num_layers'),
        planning.EgoStatusHead: ('embed_dims', 'num_layers'),
    },
    '`tools/test_robustness.py`': {
        evaluation.ConditionsLoop: (
            *('runner', 'dataloader', 'evaluator', 'conditions', 'folder', 'made_of'),
        )
    },
    '`feature_cache`': {
        feature_cache.LoadCachedFeatures: (
            *('branch', 'transforms', 'directory', 'training', 'fill_command'),
        ),
        feature_cache.PackWithFeatures: ('packing',),
    },
}
_REST = (inspect.Parameter.VAR_POSITIONAL, inspect.Parameter.VAR_KEYWORD)
INTRODUCTION = """\
# Configuration

All options of this project's modules with their defaults; a module is named by `type=...` in a
config. Options marked "set by" come from the named part of this project, and a config does not give
them. The files in `configs/` are short examples, each the difference from another. The options of
MMEngine and MMDetection3D are documented there. `python tools/document_options.py` writes this page
from the docstrings.

Beside its modules a config can set `load_from`, `resume`, `work_dir`, `randomness`, `train_cfg`,
`optim_wrapper`, `param_scheduler`, `default_hooks`, `custom_hooks`, `auto_scale_lr`, `sync_bn`,
`activation_checkpointing` and other settings of MMEngine's Runner; `feature_cache`, see the end of
this page; and `data_command`, the command that is shown when data is missing.
"""


class Option(NamedTuple):
    """One argument of a constructor."""

    name: str
    default: str
    meaning: str


def main() -> None:
    """Write the page."""
    write_text(PAGE, make_page())


def make_page() -> str:
    """The page as Markdown."""
    sections: dict[str, list[str]] = {title: [] for title in SECTIONS}
    for cls in configurable_classes():
        sections[_section_of(cls)].append(_entry(cls))
    entries = {title: '\n'.join(texts) for title, texts in sections.items() if texts}
    return '\n'.join([INTRODUCTION, *(f'## {title}\n\n{text}' for title, text in entries.items())])


def configurable_classes() -> list[type]:
    """Classes of this package in any registry, and those in :data:`NESTED`."""
    found = {
        cls
        for value in vars(registry).values()
        if isinstance(value, Registry)
        for cls in value.module_dict.values()
        if inspect.isclass(cls) and cls.__module__.startswith(PACKAGE)
    }
    return sorted(found | set(NESTED), key=lambda cls: (cls.__module__, cls.__name__))


def options_of(cls: type) -> list[Option]:
    """Options of the constructor; none if another package defines it.

    Raises:
        KeyError: the docstring does not explain an argument.
    """
    if not _has_own_constructor(cls):
        return []
    meanings = {}
    for parent in reversed(cls.__mro__):
        meanings |= _arguments(parent.__doc__ or '')
    setters = {
        name: f'set by {setter}'
        for setter, classes in SET_BY.items()
        for base, names in classes.items()
        if issubclass(cls, base)
        for name in names
    }
    options = []
    for name, parameter in inspect.signature(cls).parameters.items():
        if parameter.kind in _REST:
            continue
        default = parameter.default
        shown = 'required' if default is parameter.empty else f'`{default!r}`'
        options.append(Option(name, setters.get(name, shown), meanings[name]))
    return options


def _has_own_constructor(cls: type) -> bool:
    return getattr(cls.__init__, '__module__', PACKAGE).startswith(PACKAGE)


def _section_of(cls: type) -> str:
    module = cls.__module__.removeprefix(f'{PACKAGE}.')
    for title, beginnings in SECTIONS.items():
        if any(module == start or module.startswith(f'{start}.') for start in beginnings):
            return title
    raise ValueError(f'{cls.__module__}.{cls.__name__} is in no section; add its module to one')


def _entry(cls: type) -> str:
    place = f', {NESTED[cls]}' if cls in NESTED else ''
    lines = [f'### {cls.__name__}{place}', '', _summary(cls), '']
    options = options_of(cls)
    if _passes_on(cls):
        lines += [f'Takes the arguments of `{cls.__mro__[1].__name__}`.', '']
    if options:
        lines += ['| option | default | meaning |', '|---|---|---|']
        lines += [f'| `{o.name}` | {o.default} | {o.meaning} |' for o in options]
        lines.append('')
    return '\n'.join(lines)


def _passes_on(cls: type) -> bool:
    kinds = {parameter.kind for parameter in inspect.signature(cls).parameters.values()}
    return inspect.Parameter.VAR_KEYWORD in kinds or not _has_own_constructor(cls)


def _summary(cls: type) -> str:
    """First paragraph of the docstring."""
    return _plain(inspect.getdoc(cls).split('\n\n')[0])


def _arguments(docstring: str) -> dict[str, str]:
    """Descriptions by name, from the section `Args:`, or `Attributes:` of a dataclass."""
    text = inspect.cleandoc(docstring)
    match = re.search(r'^(?:Args|Attributes):\n((?:(?: +.*)?\n?)*)', text, flags=re.MULTILINE)
    if match is None:
        return {}
    entries = re.split(r'^ {4}(?=\w)', match.group(1), flags=re.MULTILINE)[1:]
    pairs = (entry.split(':', maxsplit=1) for entry in entries if ':' in entry)
    return {name.split(' ')[0]: _plain(meaning) for name, meaning in pairs}


def _plain(text: str) -> str:
    """reStructuredText as one line of Markdown."""
    text = re.sub(r'([.;:]?)\n+\s*- ', lambda match: '; ' if match.group(1) else ': ', text)
    text = re.sub(r':\w+:`~?([\w.]+)`', lambda match: f'`{match.group(1).split(".")[-1]}`', text)
    text = re.sub(r'\s+', ' ', text.replace('``', '`')).strip()
    return text.replace('|', r'\|').replace('::', ':')


if __name__ == '__main__':
    main()
