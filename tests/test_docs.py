"""What README and docs say can be done: files, options, snippets and links that exist."""

import re
import runpy
import subprocess
from pathlib import Path

import pytest
from mmdet3d.registry import HOOKS, MODELS
from mmengine.config import Config
from mmengine.optim import build_optim_wrapper
from toy_runner import make_runner

REPO_ROOT = Path(__file__).resolve().parents[1]
PAGES = [
    *(REPO_ROOT / name for name in ('README.md', 'CONTRIBUTING.md')),
    *sorted((REPO_ROOT / 'docs').glob('*.md')),
]
# Of this project, as they stand in commands, in tables and in the text; {a,b} is a shell's.
FOLDERS = 'benchmarks|configs|docs|projects|requirements|tests|tools'
PATH = re.compile(rf'(?<![\w/.<])(?:{FOLDERS})/[\w/.*{{}},-]*[\w}}]')
SCRIPT = re.compile(r'(?<![\w/])tools/\w+\.(?:py|sh)')
FLAG = re.compile(r'(?<![\w-])--[a-z][\w-]*')
# Scripts that hand their options on.
HANDED_TO = {
    f'{launcher}_{task}.sh': f'{task}.py'
    for launcher in ('dist', 'slurm')
    for task in ('train', 'test')
}

# Modules that define the options of a script's subcommands.
IMPORTED = {
    'benchmark.py': 'benchmarks/*.py',
    'infer.py': 'projects/cmt_aqr/cli/infer.py',
    'visualize.py': 'projects/cmt_aqr/cli/visualize_*.py',
}


@pytest.fixture(params=PAGES, ids=lambda path: path.name)
def page(request) -> str:
    return request.param.read_text()


def expand(path: str) -> list[str]:
    """`a_{b,c}.py` -> `a_b.py`, `a_c.py`."""
    match = re.search(r'\{([^}]*)\}', path)
    if match is None:
        return [path]
    names = match.group(1).split(',')
    return [f'{path[: match.start()]}{name}{path[match.end() :]}' for name in names]


def commands(text: str) -> list[str]:
    """Each command that calls a script, on one line: of code blocks and of `code` in the text."""
    blocks = re.findall(r'```bash\n(.*?)```', text, flags=re.DOTALL)
    lines = [line for block in blocks for line in block.replace('\\\n', ' ').splitlines()]
    lines += re.findall(r'`([^`]+)`', re.sub(r'```.*?```', '', text, flags=re.DOTALL))
    return [line.split('#')[0] for line in lines if SCRIPT.search(line)]


def options(script: str) -> set[str]:
    """What a script takes, by its source and that of the parser it may share."""
    source = (REPO_ROOT / 'tools' / HANDED_TO.get(script, script)).read_text()
    if script in IMPORTED:
        source += ''.join(path.read_text() for path in REPO_ROOT.glob(IMPORTED[script]))
    if re.search(r'arguments\.(make_parser|add_config_arguments)', source):
        source += (REPO_ROOT / 'projects/cmt_aqr/cli/arguments.py').read_text()
    if 'entry.run(' in source:
        source += (REPO_ROOT / 'projects/cmt_aqr/cli/entry.py').read_text()
    return {'--help', *re.findall(r"'(--[a-z][\w-]*)'", source)}


def test_every_path_exists(page):
    named = {path for match in PATH.findall(page) for path in expand(match)}
    assert [path for path in sorted(named) if not any(REPO_ROOT.glob(path))] == []


def test_every_script_takes_the_options_that_a_command_gives_it(page):
    unknown = []
    for command in commands(page):
        for part in re.split(r'&&|;|\|', command):
            scripts = SCRIPT.findall(part)  # two where dist_run.sh runs the second
            if not scripts:
                continue
            known = set().union(*(options(name.removeprefix('tools/')) for name in scripts))
            unknown += [(part.strip(), flag) for flag in FLAG.findall(part) if flag not in known]
    assert unknown == []


def test_commands_and_options_are_found_where_they_stand():
    text = (
        'Run `tools/a.py --x` or\n```bash\npython tools/b.py --y 1 \\\n  --z # --no\nls --q\n```\n'
    )
    assert [FLAG.findall(command) for command in commands(text)] == [['--y', '--z'], ['--x']]
    assert expand('tools/{a,b}.py') == ['tools/a.py', 'tools/b.py']
    assert '--submission' in options('slurm_test.sh')
    assert '--seed' in options('dist_train.sh')


@pytest.mark.parametrize('path', PAGES, ids=lambda path: path.name)
def test_every_link_leads_somewhere(path):
    for target in re.findall(r'\]\(([^)]+)\)', path.read_text()):
        if '://' in target:
            continue
        file, _, anchor = target.partition('#')
        linked = path if not file else path.parent / file
        assert linked.exists(), target
        if anchor:
            titles = re.findall(r'^#+ (.+)$', linked.read_text(), flags=re.MULTILINE)
            anchors = [re.sub(r'[^\w\- ]', '', t.lower()).replace(' ', '-') for t in titles]
            assert anchor in anchors, target


def test_every_page_is_in_the_repository():
    listed = subprocess.run(
        ['git', 'ls-files', '*.md'], cwd=REPO_ROOT, capture_output=True, text=True
    ).stdout.split()
    if not listed:
        pytest.skip('no git checkout')
    assert {str(path.relative_to(REPO_ROOT)) for path in PAGES} <= {*listed}


def snippets(name: str) -> list[str]:
    """Configs that a page shows whole: they begin with `_base_`."""
    text = (REPO_ROOT / 'docs' / name).read_text()
    found = re.findall(r"```python\n(_base_ = \['\./.*?)```", text, flags=re.DOTALL)
    return [snippet.replace("['./configs", f"['{REPO_ROOT}/configs") for snippet in found]


def read_config(snippet: str, tmp_path: Path) -> Config:
    (tmp_path / 'mine.py').write_text(snippet)
    return Config.fromfile(tmp_path / 'mine.py')


def test_the_config_that_scales_up_builds(tmp_path):
    (snippet,) = (text for text in snippets('training.md') if 'accumulative_counts' in text)
    cfg = read_config(snippet, tmp_path)
    model = MODELS.build(cfg.model)
    for name in cfg.activation_checkpointing:
        model.get_submodule(name)
    wrapper = build_optim_wrapper(model, cfg.optim_wrapper)
    assert wrapper._accumulative_counts == 4
    hooks = [type(HOOKS.build(hook)).__name__ for hook in cfg.custom_hooks]
    assert {'FiniteLossHook', 'FiniteGradientHook', 'EpochSeedHook', 'EMAHook'} <= {*hooks}
    assert cfg.sync_bn == 'torch'
    assert cfg.randomness.seed == 0


def test_the_config_with_tensorboard_writes_its_events(tmp_path):
    (snippet,) = (text for text in snippets('training.md') if 'Tensorboard' in text)
    cfg = read_config(snippet, tmp_path)
    assert cfg.default_hooks.checkpoint.save_best == 'NDS'
    assert cfg.default_hooks.checkpoint.greater_keys == ['mAP', 'NDS']
    make_runner(tmp_path, visualizer=cfg.visualizer).train()
    assert len([*tmp_path.glob('*/vis_data/events.out.tfevents.*')]) == 1


def test_the_config_that_skips_samples_wraps_what_was_there(tmp_path):
    (snippet,) = snippets('data.md')
    dataset = read_config(snippet, tmp_path).train_dataloader.dataset
    assert [dataset.type, dataset.dataset.type] == ['SkipUnreadable', 'CBGSDataset']


def test_the_configuration_page_has_every_option_with_its_default():
    module = runpy.run_path(str(REPO_ROOT / 'tools' / 'document_options.py'))

    def rows(text: str) -> set[tuple[str, str]]:
        """Class and the line of an option, without its meaning."""
        found, name = set(), ''
        for line in text.splitlines():
            if line.startswith('### '):
                name = re.split(r'[ ,]', line)[1]
                found.add((name, ''))
            elif line.startswith('| `'):
                found.add((name, ' '.join(line.split(' | ')[:2])))
        return found

    written = rows((REPO_ROOT / 'docs' / 'configuration.md').read_text())
    assert written == rows(module['make_page']()), 'run: python tools/document_options.py'
