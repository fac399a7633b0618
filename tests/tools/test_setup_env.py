"""The set-up's decisions, without a network and without building anything."""

import importlib.util
import json
import os
import re
import shutil
import subprocess
import sys
import zipfile
from pathlib import Path

import pytest


@pytest.fixture(scope='module')
def setup_env(repo_root):
    spec = importlib.util.spec_from_file_location('setup_env', repo_root / 'tools' / 'setup_env.py')
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


@pytest.fixture
def commands(tmp_path, monkeypatch) -> Path:
    """A folder that is the whole PATH, for programs made by `program`."""
    folder = tmp_path / 'commands'
    folder.mkdir()
    monkeypatch.setenv('PATH', str(folder))
    return folder


def program(path: Path, output: str, status: int = 0) -> None:
    path.write_text(f'#!/bin/sh\necho "{output}"\nexit {status}\n')
    path.chmod(0o755)


def make_wheel(path: Path, with_operators: bool = True) -> Path:
    with zipfile.ZipFile(path, 'w') as archive:
        archive.writestr('mmcv/__init__.py', '')
        if with_operators:
            archive.writestr('mmcv/_ext.cpython-311-x86_64-linux-gnu.so', 'x' * 1000)
    return path


class FakeShell:
    """Stands for the set-up's Shell: a build leaves what the test says, imports work or do not."""

    def __init__(self, folder: Path, *, builds: list, imports_work: list) -> None:
        self.log = folder / 'setup.log'
        self.builds = builds
        self.imports_work = imports_work
        self.titles = []

    def run(self, command, title, progress=None, variables=None) -> None:
        self.titles.append(title.split(' ')[0])
        if title.startswith('building'):
            target = Path(command[command.index('-w') + 1])
            self.builds.pop(0)(target / 'mmcv-2.1.0-cp311-cp311-linux_x86_64.whl')

    def ask(self, python, code: str) -> str:
        if 'torch.__version__' in code:
            return '2.13.0+cpu None\n'
        return f'{"2.1.0" if self.imports_work.pop(0) else "none"} False\n'


@pytest.fixture
def install_mmcv(setup_env, tmp_path, monkeypatch):
    """Run install_mmcv with a FakeShell; returns the shell and the cached wheels."""
    monkeypatch.setattr(setup_env, 'check_compiler', lambda device: None)
    cache = tmp_path / 'cache'
    cache.mkdir()

    def install(*, cached=None, builds=(), imports_work) -> tuple:
        shell = FakeShell(tmp_path, builds=list(builds), imports_work=list(imports_work))
        folder = cache / setup_env.mmcv_key(shell, Path('python'), 'cpu', '2.1.0')
        if cached is not None:
            folder.mkdir()
            cached(folder / 'mmcv-2.1.0-cp311-cp311-linux_x86_64.whl')
        setup_env.install_mmcv(shell, Path('python'), 'cpu', cache)
        return shell.titles, list(cache.glob('**/*.whl'))

    install.cache = cache
    return install


# mmcv and its cache.


def test_an_mmcv_that_works_is_kept(install_mmcv):
    assert install_mmcv(imports_work=[True]) == ([], [])


def test_the_cached_wheel_is_used(install_mmcv):
    titles, wheels = install_mmcv(cached=make_wheel, imports_work=[False, True])
    assert titles == ['installing']
    assert len(wheels) == 1


def test_without_a_wheel_it_is_built_and_kept(install_mmcv):
    titles, wheels = install_mmcv(builds=[make_wheel], imports_work=[False, True])
    assert titles == ['building', 'installing']
    assert [wheel.parent.name for wheel in wheels] == [
        'mmcv-2.1.0-cp{}{}-torch2.13.0+cpu-cpu-{}'.format(*sys.version_info[:2], os.uname().machine)
    ]


@pytest.mark.parametrize(
    'damaged',
    [
        lambda path: path.write_bytes(b'PK half a wheel'),
        lambda path: make_wheel(path, with_operators=False),
        lambda path: path.write_bytes(make_wheel(path).read_bytes()[:600]),
    ],
    ids=['no archive', 'without operators', 'cut off'],
)
def test_a_damaged_wheel_is_built_again(install_mmcv, damaged):
    titles, wheels = install_mmcv(cached=damaged, builds=[make_wheel], imports_work=[False, True])
    assert titles == ['building', 'installing']
    assert len(wheels) == 1


def test_a_wheel_that_does_not_import_is_built_again(install_mmcv):
    options = dict(cached=make_wheel, builds=[make_wheel], imports_work=[False, False, True])
    assert install_mmcv(**options)[0] == ['installing', 'building', 'installing']


def test_a_build_that_never_imports_ends_with_an_error(install_mmcv, setup_env):
    with pytest.raises(setup_env.SetupError, match='does not import'):
        install_mmcv(builds=[make_wheel, make_wheel], imports_work=[False, False, False])
    assert list(install_mmcv.cache.glob('**/*.whl')) == []


@pytest.mark.parametrize('build', [lambda path: None, lambda path: path.write_bytes(b'half')])
def test_half_a_build_never_reaches_the_cache(install_mmcv, setup_env, build):
    with pytest.raises(setup_env.SetupError, match='no whole wheel'):
        install_mmcv(builds=[build], imports_work=[False])
    assert list(install_mmcv.cache.glob('**/*')) == []


# What is installed already.


def test_the_stamp_counts_only_for_the_same_files_and_extras(setup_env, tmp_path):
    venv = tmp_path / 'venv'
    (venv / 'bin').mkdir(parents=True)
    (venv / 'bin' / 'python').symlink_to(sys.executable)
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


def test_emptying_keeps_only_the_log(setup_env, tmp_path):
    (tmp_path / 'lib').mkdir()
    (tmp_path / 'lib64').symlink_to('lib')
    (tmp_path / 'pyvenv.cfg').touch()
    setup_env.empty(tmp_path)
    assert [child.name for child in tmp_path.iterdir()] == [setup_env.LOG]


# Devices and versions.


def test_a_gpu_is_found_by_its_driver(setup_env, commands):
    assert setup_env.find_device('auto') == 'cpu'
    program(commands / 'nvidia-smi', 'GPU 0: NVIDIA H200')
    assert setup_env.find_device('auto') == 'cuda'
    assert setup_env.find_device('cpu') == 'cpu'
    program(commands / 'nvidia-smi', 'NVIDIA-SMI has failed', status=9)
    assert setup_env.find_device('auto') == 'cpu'


@pytest.mark.parametrize(('release', 'fits'), [('12.9', True), ('13.0', False), ('11.8', False)])
def test_the_cuda_compiler_must_be_of_torch_s_major_version(
    setup_env, commands, monkeypatch, release, fits
):
    monkeypatch.delenv('CUDA_HOME', raising=False)
    program(commands / 'nvcc', f'Cuda compilation tools, release {release}, V{release}.1')
    if fits:
        setup_env.check_cuda_compiler()
    else:
        with pytest.raises(setup_env.SetupError, match=f'is of CUDA {release[:2]}.*CUDA_HOME'):
            setup_env.check_cuda_compiler()


def test_no_compiler_is_one_sentence(setup_env, commands, monkeypatch):
    monkeypatch.delenv('CXX', raising=False)
    with pytest.raises(setup_env.SetupError, match=r'^no C\+\+ compiler .*install one'):
        setup_env.check_compiler('cpu')


def test_no_disk_is_one_sentence(setup_env, tmp_path, monkeypatch):
    monkeypatch.setattr(
        setup_env.shutil, 'disk_usage', lambda _: shutil._ntuple_diskusage(9, 8, 1e9)
    )
    with pytest.raises(setup_env.SetupError, match=r'has 1\.0 GB free and 6 GB are needed'):
        setup_env.check_disk(tmp_path, 'cpu')


@pytest.mark.parametrize(
    ('version', 'problem'),
    [((3, 9), 'too old'), ((3, 10), ''), ((3, 11), ''), ((3, 12), ''), ((3, 13), 'too new')],
)
def test_python_versions(setup_env, version, problem):
    sentence = setup_env.python_problem(version)
    assert problem in sentence
    assert bool(sentence) == bool(problem)


def test_setup_py_says_the_same_of_python(setup_env, repo_root):
    oldest, newest = setup_env.OLDEST_PYTHON, setup_env.NEWEST_PYTHON
    expected = f'>={oldest[0]}.{oldest[1]},<{newest[0]}.{newest[1] + 1}'
    assert expected in (repo_root / 'setup.py').read_text()


def test_every_requirement_is_pinned_with_its_reason(setup_env):
    for file in setup_env.REQUIREMENTS.glob('*.txt'):
        for line in file.read_text().splitlines():
            if line and not line.startswith(('#', '-r ')) and 'constraints' not in file.name:
                assert re.match(r'[a-z0-9-]+(==[\w.]+|>=\d+,<\d+|)( +# .+|)$', line), line


# What a person sees.


def test_progress_counts_compiled_files(setup_env):
    show = setup_env.ninja_progress()
    assert show('  [12/77] c++ -MMD -MF build/nms.o') == '12 of 77 files'
    assert show('writing list of files') is None


def test_progress_names_what_pip_does(setup_env):
    show = setup_env.pip_progress()
    line = '  Downloading https://example.com/torch-2.13.0-cp311.whl (190.2 MB)'
    assert show(line) == 'downloading torch-2.13.0-cp311.whl (190.2 MB)'
    assert show('Installing collected packages: numpy, torch') == 'installing 2 packages'
    assert show('Requirement already satisfied: numpy') is None


@pytest.mark.parametrize(
    ('output', 'cause'),
    [
        ('OSError: [Errno 28] No space left on device', 'the disk is full'),
        ('ERROR: No matching distribution found for torch', 'could not be downloaded'),
        ('c++: fatal error: Killed signal terminated program cc1plus', 'memory ran out'),
        ('error: something else', 'see /log'),
    ],
)
def test_a_failed_command_is_explained(setup_env, output, cause):
    assert cause in setup_env.explain('building', output, Path('/log'))


def test_a_failed_command_shows_its_last_lines(setup_env, tmp_path, capfd):
    shell = setup_env.Shell(tmp_path / 'log', dict(os.environ))
    code = 'print("first"); print("last"); raise SystemExit(3)'
    with pytest.raises(setup_env.SetupError, match=r'^trying failed'):
        shell.run([sys.executable, '-c', code], 'trying')
    assert 'first\nlast' in capfd.readouterr().err
    assert (tmp_path / 'log').read_text().endswith('first\nlast\n')


def test_the_lock_keeps_a_second_set_up_waiting(setup_env, tmp_path, capfd):
    code = (
        'import fcntl, sys, time; file = open(sys.argv[1], "w"); fcntl.flock(file, fcntl.LOCK_EX);'
        'print("locked", flush=True); time.sleep(0.5)'
    )
    path = tmp_path / 'lock'
    command = [sys.executable, '-c', code, str(path)]
    with subprocess.Popen(command, stdout=subprocess.PIPE, text=True) as other:
        assert other.stdout.readline() == 'locked\n'
        with setup_env.locked(path):
            assert other.wait() == 0
    assert 'waiting for another set-up' in capfd.readouterr().out
