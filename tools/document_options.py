"""Write docs/configuration.md: every option that a config can give, from the docstrings.

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
from projects.cmt_aqr import denoising, freezing, transformer
from projects.cmt_aqr.files import write_text

REPO_ROOT = Path(__file__).resolve().parents[1]

PAGE = REPO_ROOT / 'docs' / 'configuration.md'
PACKAGE = projects.cmt_aqr.__name__
# Of a section, the modules below the package whose classes it holds; the first that fits counts.
SECTIONS = {
    'Detector': ('detector', 'data_preprocessor', 'grid_mask', 'backbones', 'necks'),
    'Router': ('aqr', 'transformer.routing'),
    'Head, decoder and losses': ('head', 'task_head', 'transformer', 'denoising', 'matching'),
    'Freezing, optimizer and fast path': ('freezing', 'precision'),
    'Sensor failures': ('datasets.failures',),
    'Data': ('datasets',),
    'Hooks': ('hooks',),
    'Evaluation': ('evaluation',),
    'Feature cache': ('feature_cache',),
    'Pre-training of the image branch': ('pretraining',),
}
# What a config gives options of without naming the class.
NESTED = {
    transformer.CmtTransformer: '`pts_bbox_head.transformer`',
    denoising.DenoisingGenerator: '`pts_bbox_head.denoising`',
    freezing.FreezePolicy: 'beside the arguments of any part of the detector',
    freezing.FastPath: '`model.fast_path`',
}
# Arguments that the code gives, not a config.
_GIVEN = {freezing.FastPath: ('module', 'name')}
_REST = (inspect.Parameter.VAR_POSITIONAL, inspect.Parameter.VAR_KEYWORD)
INTRODUCTION = """\
# Configuration

Every option of this project's modules, as `type=...` names them, with its default. Configs are
deltas: the files in `configs/` are the shortest examples. What stands here comes from the
docstrings, by `python tools/document_options.py`; the options of MMEngine and MMDetection3D are
documented there.

What a config can set beside its modules: `load_from`, `resume`, `work_dir`, `randomness`,
`train_cfg`, `optim_wrapper`, `param_scheduler`, `default_hooks`, `custom_hooks`, `auto_scale_lr`,
`sync_bn`, `activation_checkpointing` and others of MMEngine's Runner; `feature_cache`, see the end
of this page; and `data_command`, which is shown where the data is missing.
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
    """The page as it should be."""
    sections: dict[str, list[str]] = {title: [] for title in SECTIONS}
    for cls in configurable_classes():
        sections[_section_of(cls)].append(_entry(cls))
    entries = {title: '\n'.join(texts) for title, texts in sections.items() if texts}
    return '\n'.join([INTRODUCTION, *(f'## {title}\n\n{text}' for title, text in entries.items())])


def configurable_classes() -> list[type]:
    """Those of this package in any registry, and those whose options stand in another's config."""
    found = {
        cls
        for value in vars(registry).values()
        if isinstance(value, Registry)
        for cls in value.module_dict.values()
        if inspect.isclass(cls) and cls.__module__.startswith(PACKAGE)
    }
    return sorted(found | set(NESTED), key=lambda cls: (cls.__module__, cls.__name__))


def options_of(cls: type) -> list[Option]:
    """What the constructor takes, unless it is that of another package.

    Raises:
        KeyError: an argument has no meaning in the docstring.
    """
    if not _has_own_constructor(cls):
        return []
    meanings = {}
    for parent in reversed(cls.__mro__):
        meanings |= _arguments(parent.__doc__ or '')
    options = []
    for name, parameter in inspect.signature(cls).parameters.items():
        if parameter.kind in _REST or name in _GIVEN.get(cls, ()):
            continue
        if re.search(r'\bthe (detector|head|router) gives it', meanings[name]):
            continue
        default = parameter.default
        shown = 'required' if default is parameter.empty else f'`{default!r}`'
        options.append(Option(name, shown, meanings[name]))
    return options


def _has_own_constructor(cls: type) -> bool:
    return getattr(cls.__init__, '__module__', PACKAGE).startswith(PACKAGE)


def _section_of(cls: type) -> str:
    module = cls.__module__.removeprefix(f'{PACKAGE}.')
    for title, beginnings in SECTIONS.items():
        if any(module == start or module.startswith(f'{start}.') for start in beginnings):
            return title
    raise ValueError(f'{cls.__module__}.{cls.__name__} belongs to no section; add its module')


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
    """The first paragraph of the docstring."""
    return _plain(inspect.getdoc(cls).split('\n\n')[0])


def _arguments(docstring: str) -> dict[str, str]:
    """Meanings by name, from the section `Args:`, or of a dataclass `Attributes:`."""
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
