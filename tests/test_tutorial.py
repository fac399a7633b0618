"""The commands of docs/tutorial.md, run in their order on a small synthetic database."""

import re
import runpy
import shlex
import sys
from collections import OrderedDict
from pathlib import Path

import pytest
from mmengine.config import Config
from mmengine.logging import MMLogger

REPO_ROOT = Path(__file__).resolve().parents[1]
PAGE = (REPO_ROOT / 'docs' / 'tutorial.md').read_text()
# The paragraph before a block, and the block.
BLOCK = re.compile(r'([^\n]*(?:\n[^\n]+)*)\n\n```bash\n(.*?)```', re.DOTALL)
# Fewer steps and conditions; the database is that of the tests.
QUICK = {
    'max_epochs=6': 'max_epochs=1 train_dataloader.batch_size=2',
    'epoch_6': 'epoch_1',
    'lidar_drop limited_fov_2 object_failure view_drop': 'lidar_drop',
}
MADE = ('tools/make_synthetic_nuscenes.py', 'tools/create_data.py')


def commands() -> dict[str, bool]:
    """Each command of the page, and whether the text before it says that it needs more."""
    found = {}
    for text, block in BLOCK.findall(PAGE):
        for line in block.replace('\\\n', ' ').splitlines():
            found[line] = text.lstrip().startswith('On nuScenes')
    return found


@pytest.fixture
def folder(tmp_path, synthetic_root, monkeypatch) -> Path:
    (tmp_path / 'data').mkdir()
    (tmp_path / 'data/synthetic_nuscenes').symlink_to(synthetic_root)
    for name in ('configs', 'projects', 'tools'):
        (tmp_path / name).symlink_to(REPO_ROOT / name)
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr(Config, 'pretty_text', property(lambda cfg: f'{cfg.to_dict()}'))
    return tmp_path


def run(command: str) -> None:
    """Run a command in this process; it must not fail."""
    for long, short in QUICK.items():
        command = command.replace(long, short)
    python, *words = shlex.split(command)
    assert python == 'python'
    with pytest.MonkeyPatch.context() as patch:
        # Two runs that start in one second have one name.
        patch.setattr(MMLogger, '_instance_dict', OrderedDict())
        patch.setattr(sys, 'argv', words)
        status = 0
        try:
            runpy.run_path(words[0], run_name='__main__')
        except SystemExit as end:
            status = end.code
    assert not status, command


@pytest.mark.slow
def test_the_way_on_the_synthetic_database(folder, capsys):
    for command, needs_more in commands().items():
        if not needs_more and command.split()[1] not in MADE:
            run(command)
            shown = capsys.readouterr()
            assert len((shown.out + shown.err).splitlines()) < 50, command
    work = folder / 'work_dirs/cmt_aqr_tiny_synthetic_failures'
    page = (work / 'report.html').read_text()
    # Each part that the tutorial says to read.
    for title in re.findall(r'^\d\. \*\*(.+?)\*\*', PAGE, flags=re.MULTILINE):
        assert re.search(rf'<h2[^>]*>{title}', page), title
    assert len([*work.glob('*_limited_fov_2.png')]) == 1


def test_every_command_runs_here_or_is_said_to_need_more():
    run_here = [command for command, needs_more in commands().items() if not needs_more]
    assert len(run_here) == 10
    assert [command for command in run_here if 'dist_' in command or 'cmt_r50' in command] == []
    assert all(
        'cmt_r50' in command or 'data/nuscenes' in command
        for command, needs_more in commands().items()
        if needs_more
    )
