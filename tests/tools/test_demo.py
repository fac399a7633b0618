"""What ``make demo`` runs, without running it; its commands have tests of their own."""

import importlib.util
import json
import subprocess
import sys

import pytest

from projects.cmt_aqr.apis import shipped_models
from projects.cmt_aqr.datasets.failures.suite import protocol
from projects.cmt_aqr.evaluation.conditions import choose_rows, conditions_of


@pytest.fixture
def demo(repo_root):
    spec = importlib.util.spec_from_file_location('demo', repo_root / 'tools/demo.py')
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


def test_what_it_names_is_there(demo, repo_root):
    models = [demo.CMT, *demo.OTHERS.values()]
    for path in {path for model in models for path in model}:
        assert (repo_root / path).is_file(), path
    assert demo.PLANNER in shipped_models()


def test_its_failures_are_those_of_the_suite(demo):
    rows = choose_rows(protocol('all', ann_file=''), demo.CONDITIONS)
    assert len(conditions_of(rows)) == 1 + len(demo.CONDITIONS)  # and clean


def results():
    """Scores of two models under one failure."""
    nds = {'cmt': (0.58, 0.26), 'other': (0.57, 0.30)}
    models = {
        name: dict(
            conditions={
                'clean': dict(scores=dict(NDS=clean)),
                'lidar_drop_1': dict(scores=dict(NDS=failed)),
            }
        )
        for name, (clean, failed) in nds.items()
    }
    return dict(reference='cmt', models=models)


def test_it_prints_the_table_from_any_folder(demo, tmp_path, monkeypatch, capsys):
    """Commands run in the root of the project, wherever the demo was started."""
    commands = []

    def run(title, *command):
        commands.append([str(word) for word in command])
        (root / 'demo/scores').mkdir(parents=True, exist_ok=True)
        (root / 'demo/scores/robustness.md').write_text('| the table |')
        (root / 'demo/scores/robustness.json').write_text(json.dumps(results()))

    root = tmp_path / 'project'
    monkeypatch.setattr(demo, 'ROOT', root)
    monkeypatch.setattr(demo, 'run', run)
    monkeypatch.setattr(sys, 'argv', ['demo.py', '--work-dir', 'demo', '--seed', '3'])
    monkeypatch.chdir(tmp_path)
    assert demo.main() == 0
    printed = capsys.readouterr().out
    assert '| the table |' in printed
    assert '58.0 points of NDS with all sensors, and loses 32.0 under lidar_drop_1.' in printed
    assert 'other: +4.0 points in the mean of these failures.' in printed
    assert [words[0] for words in commands] == [
        'tools/make_synthetic_nuscenes.py',
        'tools/create_data.py',
        'tools/infer.py',
        'tools/visualize.py',
        'tools/test_robustness.py',
    ]
    assert commands[1][-1] == '--with-ego-future'  # the plan needs the ego status
    assert commands[-1].count('--model') == 2


def test_a_step_that_fails_is_named(demo, monkeypatch, capsys):
    def fail(*command, **options):
        raise subprocess.CalledProcessError(1, command[0])

    monkeypatch.setattr(sys, 'argv', ['demo.py'])
    monkeypatch.setattr(subprocess, 'run', fail)
    assert demo.main() == 1
    assert 'demo: this command failed' in capsys.readouterr().err
