"""What ``make demo`` runs, without running it; its commands have tests of their own."""

import importlib.util
import subprocess
import sys

import pytest

from projects.cmt_aqr.datasets.failures.suite import protocol
from projects.cmt_aqr.evaluation.conditions import choose_rows, conditions_of


@pytest.fixture
def demo(repo_root):
    spec = importlib.util.spec_from_file_location('demo', repo_root / 'tools/demo.py')
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


def test_what_it_names_is_there(demo, repo_root):
    models = [(demo.CMT, demo.BASE), (demo.ROUTED, demo.ROUTER), *demo.SHIPPED.values()]
    for path in {path for model in models for path in model}:
        assert (repo_root / path).is_file(), path


def test_its_failures_are_those_of_the_suite(demo):
    rows = choose_rows(protocol('all', ann_file=''), demo.CONDITIONS)
    assert len(conditions_of(rows)) == 1 + len(demo.CONDITIONS)  # and clean


def test_it_prints_the_table_from_any_folder(demo, tmp_path, monkeypatch, capsys):
    """Commands run in the root of the project, wherever the demo was started."""
    commands = []

    def run(title, *command):
        commands.append([str(word) for word in command])
        folder = root / 'demo' / demo.ROUTED.stem
        folder.mkdir(parents=True, exist_ok=True)
        (folder / 'last_checkpoint').write_text('epoch_6.pth')
        (root / 'demo/scores').mkdir(exist_ok=True)
        (root / 'demo/scores/robustness.md').write_text('| the table |')

    root = tmp_path / 'project'
    monkeypatch.setattr(demo, 'ROOT', root)
    monkeypatch.setattr(demo, 'run', run)
    monkeypatch.setattr(sys, 'argv', ['demo.py', '--work-dir', 'demo', '--seed', '3'])
    monkeypatch.chdir(tmp_path)
    assert demo.main() == 0
    assert '| the table |' in capsys.readouterr().out
    scoring = next(words for words in commands if words[0] == 'tools/test_robustness.py')
    assert [words[0] for words in commands].index('tools/cache_features.py') < [
        words[0] for words in commands
    ].index('tools/train.py')
    assert scoring.count('--model') == 3
    assert 'epoch_6.pth' in scoring


def test_a_step_that_fails_is_named(demo, monkeypatch, capsys):
    def fail(*command, **options):
        raise subprocess.CalledProcessError(1, command[0])

    monkeypatch.setattr(sys, 'argv', ['demo.py'])
    monkeypatch.setattr(subprocess, 'run', fail)
    assert demo.main() == 1
    assert 'demo: this command failed' in capsys.readouterr().err
