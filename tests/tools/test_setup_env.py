"""Decisions of the set-up, without a network and without building anything."""

import importlib.util
import json
import os
import re
import runpy
import shutil
import subprocess
import sys
from pathlib import Path

import pytest

WHEEL = 'mmcv-2.1.0-cp311-cp311-linux_x86_64.whl'


@pytest.fixture(scope='module')
def setup_env(repo_root):
    spec = importlib.util.spec_from_file_location('setup_env', repo_root / 'tools' / 'setup_env.py')
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


@pytest.fixture
def venv(tmp_path) -> Path:
    """A folder that looks like a virtual environment of this Python."""
    (tmp_path / 'venv' / 'bin').mkdir(parents=True)
    (tmp_path / 'venv' / 'bin' / 'python').symlink_to(sys.executable)
    return tmp_path / 'venv'


class FakeShell:
    """Stands for the set-up's Shell: builds leave a wheel, and a list says which wheels import."""

    def __init__(self, setup_env, folder: Path, imports_work: list) -> None:
        self.error = setup_env.SetupError
        self.log = folder / 'setup.log'
        self.imports_work = imports_work
        self.steps = []

    def installed(self) -> dict:
        return {'torch': '2.13.0+cpu'}

    def run(self, title, *arguments) -> None:
        if not self.imports_work.pop(0):
            raise self.error(title)

    def pip(self, title, *arguments, **variables) -> None:
        self.steps.append(title.split(' ')[0])
        if title.startswith('building'):
            self.variables = variables
            Path(arguments[arguments.index('-w') + 1], WHEEL).touch()


@pytest.fixture
def install_mmcv(setup_env, tmp_path, monkeypatch):
    """Run install_mmcv with a FakeShell; returns the shell and the folder of cached wheels."""
    monkeypatch.setattr(setup_env, 'check_compiler', lambda: None)
    folder = tmp_path / 'mmcv-2.1.0-cp{}{}-torch2.13.0+cpu-cpu-{}'.format(
        *sys.version_info[:2], os.uname().machine
    )

    def install(*imports_work: bool, cached: bool = False) -> tuple:
        if cached:
            folder.mkdir()
            (folder / WHEEL).touch()
        shell = FakeShell(setup_env, tmp_path, [*imports_work])
        setup_env.install_mmcv(shell, tmp_path)
        return shell, folder

    install.folder = folder
    return install


def test_the_cached_mmcv_is_used(install_mmcv):
    shell, _ = install_mmcv(True, cached=True)
    assert shell.steps == ['installing']


@pytest.mark.parametrize(
    ('options', 'steps'),
    [
        (dict(imports=[True]), ['building', 'installing']),
        (dict(imports=[False, True], cached=True), ['installing', 'building', 'installing']),
    ],
    ids=['nothing is cached', 'the cached wheel does not import'],
)
def test_mmcv_is_built_for_cpu_and_kept(install_mmcv, options, steps):
    shell, folder = install_mmcv(*options.pop('imports'), **options)
    assert shell.steps == steps
    assert [file.name for file in folder.iterdir()] == [WHEEL]
    # With a GPU in sight mmcv's setup.py asks for a CUDA compiler, whatever FORCE_CUDA says.
    assert shell.variables['CUDA_VISIBLE_DEVICES'] == '-1'


def test_an_mmcv_that_never_imports_is_an_error_and_not_kept(install_mmcv, setup_env):
    with pytest.raises(setup_env.SetupError, match='does not import'):
        install_mmcv(False)
    assert list(install_mmcv.folder.iterdir()) == []


def test_the_stamp_counts_only_for_the_same_files_and_extras(setup_env, venv):
    assert not setup_env.is_up_to_date(venv, 'abc', [])
    stamp = dict(fingerprint='abc', extras=['tests'], device='cpu')
    (venv / setup_env.STAMP).write_text(json.dumps(stamp))
    assert setup_env.is_up_to_date(venv, 'abc', ['tests'])
    assert not setup_env.is_up_to_date(venv, 'abc', ['dev'])
    assert not setup_env.is_up_to_date(venv, 'abd', [])
    (venv / 'bin' / 'python').unlink()
    assert not setup_env.is_up_to_date(venv, 'abc', [])


def test_any_changed_requirement_changes_the_fingerprint(setup_env, tmp_path, monkeypatch):
    folder = shutil.copytree(setup_env.REQUIREMENTS, tmp_path / 'requirements')
    monkeypatch.setattr(setup_env, 'REQUIREMENTS', folder)
    seen = {setup_env.fingerprint('cpu'), setup_env.fingerprint('cuda')}
    for file in sorted(folder.glob('*.txt')):
        file.write_text(file.read_text() + '# changed\n')
        seen.add(setup_env.fingerprint('cpu'))
    assert len(seen) == 2 + len(list(folder.glob('*.txt')))


def test_a_foreign_folder_is_not_emptied(setup_env, tmp_path):
    (tmp_path / 'thesis.tex').touch()
    with pytest.raises(setup_env.SetupError, match='was not made by this set-up'):
        setup_env.make_venv(tmp_path, 'cpu')
    assert (tmp_path / 'thesis.tex').exists()


def test_a_finished_environment_says_how_to_use_it(setup_env, venv, capsys, monkeypatch):
    stamp = dict(fingerprint=setup_env.fingerprint('cpu'), extras=[], device='cpu')
    (venv / setup_env.STAMP).write_text(json.dumps(stamp))
    monkeypatch.chdir(venv.parent)
    monkeypatch.setattr(setup_env, 'install', lambda *_: pytest.fail('is up to date'))
    setup_env.set_up(venv, 'cpu', [], venv.parent)
    assert capsys.readouterr().out.endswith('source venv/bin/activate\n')


def test_a_gpu_is_found_by_its_driver(setup_env, tmp_path, monkeypatch):
    monkeypatch.setenv('PATH', str(tmp_path))
    program = tmp_path / 'nvidia-smi'
    assert setup_env.find_device('auto') == 'cpu'
    program.write_text('#!/bin/sh\necho "GPU 0: NVIDIA H200"')
    program.chmod(0o755)
    assert setup_env.find_device('auto') == 'cuda'
    assert setup_env.find_device('cpu') == 'cpu'
    program.write_text('#!/bin/sh\necho "NVIDIA-SMI has failed to find a GPU"\nexit 9')
    assert setup_env.find_device('auto') == 'cpu'


def test_a_missing_compiler_or_disk_is_one_sentence(setup_env, tmp_path, monkeypatch):
    monkeypatch.setenv('CXX', 'no-such-compiler')
    with pytest.raises(setup_env.SetupError, match=r'^no C\+\+ compiler .*apt install build-ess'):
        setup_env.check_compiler()
    full = shutil._ntuple_diskusage(9, 8, 1e9)
    monkeypatch.setattr(setup_env.shutil, 'disk_usage', lambda _: full)
    with pytest.raises(setup_env.SetupError, match=r'has 1\.0 GB free and 4 GB are needed'):
        setup_env.check_disk(tmp_path, (4, 1))


@pytest.mark.parametrize('version', [(3, 9, 0), (3, 13, 0)])
def test_other_pythons_are_refused(setup_env, repo_root, monkeypatch, version):
    monkeypatch.setattr(sys, 'version_info', version)
    with pytest.raises(SystemExit, match=r'Python 3\.10, 3\.11 or 3\.12 is needed'):
        runpy.run_path(str(repo_root / 'tools' / 'setup_env.py'), run_name='__main__')
    assert setup_env.PYTHONS == ((3, 10), (3, 11), (3, 12))
    assert '>=3.10,<3.13' in (repo_root / 'setup.py').read_text()


def test_every_requirement_is_pinned_with_its_reason(setup_env):
    for file in setup_env.REQUIREMENTS.glob('*.txt'):
        for line in file.read_text().splitlines():
            if line and not line.startswith(('#', '-r ')) and 'constraints' not in file.name:
                assert re.match(r'[a-z0-9-]+(==[\w.]+|>=\d+,<\d+|)( +# .+|)$', line), line


@pytest.mark.parametrize(
    ('output', 'cause'),
    [
        ('OSError: [Errno 28] No space left on device', r': the disk is full'),
        ('ERROR: No matching distribution found for torch', r': a download failed'),
        ('c++: fatal error: Killed signal terminated program cc1plus', r': memory ran out'),
        ('error: something else', r'; see .*log$'),
    ],
)
def test_a_failed_command_shows_its_output_and_its_cause(setup_env, venv, capfd, output, cause):
    shell = setup_env.Shell(venv)
    code = f'print("first"); print({output!r}); raise SystemExit(3)'
    with pytest.raises(setup_env.SetupError, match=f'^trying failed{cause}'):
        shell.run('trying', '-c', code)
    assert f'first\n{output}' in capfd.readouterr().err
    assert shell.log.read_text() == f'first\n{output}\n'


def test_a_long_command_says_that_it_still_runs(setup_env, venv, capfd):
    code = 'import time; print("[3/77] c++", flush=True); time.sleep(1)'
    setup_env.Shell(venv, seconds_between_lines=0.4).run('building', '-c', code)
    first, *_, last = capfd.readouterr().out.splitlines()
    assert first.startswith('set-up: still building (0:00:00)')
    assert re.fullmatch(r'set-up: building: 0:00:0\d', last)


def test_the_lock_keeps_a_second_set_up_waiting(setup_env, tmp_path, capfd):
    code = (
        'import fcntl, sys, time; file = open(sys.argv[1], "w"); fcntl.flock(file, fcntl.LOCK_EX);'
        'print("locked", flush=True); time.sleep(0.5)'
    )
    path = tmp_path / 'lock'
    command = [sys.executable, '-c', code, str(path)]
    with subprocess.Popen(command, stdout=subprocess.PIPE, text=True) as other:
        assert other.stdout.readline() == 'locked\n'
        with open(path, 'w') as file:
            setup_env.lock(file)
            assert other.wait() == 0
    assert 'waiting for another set-up' in capfd.readouterr().out
