#!/usr/bin/env python3
"""Make the environment of this checkout; where it is up to date already, return at once.

``make demo``, ``make test`` and ``make lint`` run this first. It makes a virtual environment,
installs the versions in ``requirements/``, builds mmcv from its source once per machine and
installs this project in editable mode. With an NVIDIA GPU it takes CUDA builds. It needs nothing
but Python's standard library and ends with one sentence where it cannot go on.
"""

import sys

OLDEST_PYTHON, NEWEST_PYTHON = (3, 10), (3, 12)


def python_problem(version: tuple) -> str:
    """Say what is wrong with a Python of ``version`` (major, minor), or nothing."""
    if OLDEST_PYTHON <= version <= NEWEST_PYTHON:
        return ''
    age = 'old' if version < OLDEST_PYTHON else 'new'
    return (
        'Python {}.{} is too {}: torch 2.13 starts at 3.10 and numpy 1.26 ends at 3.12 (3.11 is '
        'what is tried); install one of these and say which: make PYTHON=python3.11 ...'
    ).format(*version, age)


if __name__ == '__main__' and python_problem(sys.version_info[:2]):
    sys.exit('set-up: ' + python_problem(sys.version_info[:2]))

import argparse
import contextlib
import fcntl
import hashlib
import json
import os
import platform
import re
import shutil
import subprocess
import sysconfig
import tempfile
import threading
import time
import zipfile
from collections import deque
from collections.abc import Callable, Iterator
from pathlib import Path

ROOT = Path(__file__).resolve().parents[1]
REQUIREMENTS = ROOT / 'requirements'
# In the virtual environment: what the last finished set-up did, and what every set-up said.
STAMP = 'cmt_aqr.json'
LOG = 'cmt_aqr_setup.log'
# What the downloads and the installed packages take together, with room for mmcv's build.
GIGABYTES_NEEDED = {'cpu': 6, 'cuda': 20}
# Peak memory of one compiler process on mmcv's largest file.
GIGABYTES_PER_COMPILER = {'cpu': 1.5, 'cuda': 4}
IMPORTS_TO_TRY = ('torch', 'cv2', 'mmcv.ops', 'mmdet3d.apis', 'spconv.pytorch', 'nuscenes')


class SetupError(Exception):
    """The set-up cannot go on; the message is one sentence that says why and what helps."""


def main() -> int:
    """Run the set-up; the exit status is 0 if the environment can be used."""
    options = parse_arguments()
    try:
        device = find_device(options.device)
        if options.venv == 'none':
            check_given_environment()
        else:
            set_up(Path(options.venv).resolve(), device, options.extra, options.cache)
    except SetupError as error:
        print(f'set-up: {error}', file=sys.stderr)
        return 1
    except OSError as error:
        print(f'set-up: {error.strerror}: {error.filename or options.cache}', file=sys.stderr)
        return 1
    except KeyboardInterrupt:
        print('\nset-up: interrupted; run it again to go on', file=sys.stderr)
        return 130
    return 0


def parse_arguments() -> argparse.Namespace:
    """Read the command line."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument(
        '--venv', default=str(ROOT / '.venv'), help="folder, or 'none' to only check this Python"
    )
    parser.add_argument(
        '--extra', action='append', default=[], choices=['tests', 'dev'], help='further packages'
    )
    parser.add_argument('--device', default='auto', choices=['auto', 'cpu', 'cuda'])
    parser.add_argument('--cache', type=Path, default=default_cache(), help='where mmcv is kept')
    return parser.parse_args()


def default_cache() -> Path:
    """Folder outside the checkout that keeps what was built on this machine."""
    if 'CMT_AQR_CACHE' in os.environ:
        return Path(os.environ['CMT_AQR_CACHE'])
    return Path(os.environ.get('XDG_CACHE_HOME') or Path.home() / '.cache') / 'cmt_aqr'


def set_up(venv: Path, device: str, extras: list, cache: Path) -> None:
    """Bring ``venv`` to what the requirement files say, unless its stamp says that it is."""
    wanted = fingerprint(device)
    if is_up_to_date(venv, wanted, extras):
        return
    cache.mkdir(parents=True, exist_ok=True)
    with locked(cache / 'lock'):
        # Another set-up may have done the work while this one waited.
        if is_up_to_date(venv, wanted, extras):
            return
        started = time.monotonic()
        extras = sorted({*extras, *read_stamp(venv).get('extras', [])})
        if not venv.exists():
            check_disk(venv.parent, device)
        if not list(cache.glob(f'mmcv-*-{python_tag()}-*/*.whl')):
            check_compiler(device)
        python = make_venv(venv, device)
        shell = Shell(venv / LOG, environment(venv))
        install_packages(shell, python, device, extras)
        install_mmcv(shell, python, device, cache)
        keep_one_opencv(shell, python)
        install_project(shell, python)
        try_imports(shell, python)
        stamp = {'fingerprint': wanted, 'extras': extras, 'device': device}
        (venv / STAMP).write_text(json.dumps(stamp))
        print(f'set-up: done in {duration(started)}; log in {shell.log}')


# What is there, and what is wanted.


def fingerprint(device: str) -> str:
    """Hash of all that decides what is installed: a change in any of it makes set-up run again."""
    digest = hashlib.sha256(f'{device} {sys.version_info[:2]}'.encode())
    for path in [*sorted(REQUIREMENTS.glob('*.txt')), ROOT / 'setup.py', Path(__file__)]:
        digest.update(path.read_bytes())
    return digest.hexdigest()


def read_stamp(venv: Path) -> dict:
    """What the last finished set-up of ``venv`` wrote; empty if there was none."""
    try:
        return json.loads((venv / STAMP).read_text())
    except (OSError, ValueError):
        return {}


def is_up_to_date(venv: Path, wanted: str, extras: list) -> bool:
    """Whether a set-up with this fingerprint and at least these extras has finished in ``venv``."""
    stamp = read_stamp(venv)
    has_extras = set(extras) <= set(stamp.get('extras', []))
    return stamp.get('fingerprint') == wanted and has_extras and starts(venv / 'bin' / 'python')


def starts(python: Path) -> bool:
    """Whether this Python runs: one whose base was upgraded away does not."""
    try:
        return subprocess.run([python, '-c', ''], capture_output=True).returncode == 0
    except OSError:
        return False


def find_device(choice: str) -> str:
    """'cuda' where the driver lists an NVIDIA GPU, or as chosen."""
    if choice != 'auto':
        return choice
    try:
        listing = subprocess.run(['nvidia-smi', '-L'], capture_output=True, text=True, timeout=60)
    except (OSError, subprocess.TimeoutExpired):
        return 'cpu'
    return 'cuda' if listing.returncode == 0 and 'GPU' in listing.stdout else 'cpu'


def python_tag() -> str:
    """This Python in a wheel's name."""
    return 'cp{}{}'.format(*sys.version_info[:2])


def pinned(package: str, file: str) -> str:
    """The version of ``package`` that a requirement file names."""
    text = (REQUIREMENTS / file).read_text()
    return re.search(rf'^{re.escape(package)}==(\S+)', text, re.MULTILINE).group(1)


# What must hold before anything is downloaded.


def check_disk(folder: Path, device: str) -> None:
    """Refuse to start where the installation cannot fit."""
    folder.mkdir(parents=True, exist_ok=True)
    for place, needed in ((folder, GIGABYTES_NEEDED[device]), (tempfile.gettempdir(), 1)):
        free = shutil.disk_usage(place).free / 1e9
        if free < needed:
            raise SetupError(f'{place} has {free:.1f} GB free and {needed} GB are needed')


def check_compiler(device: str) -> None:
    """Refuse to start where mmcv has to be built and cannot be."""
    compiler = os.environ.get('CXX', 'c++').split()[0]
    if shutil.which(compiler) is None:
        raise SetupError(
            f'no C++ compiler ({compiler}) to build mmcv with: install one, such as g++ (on Debian '
            'and Ubuntu the package build-essential)'
        )
    if not (Path(sysconfig.get_paths()['include']) / 'Python.h').is_file():
        raise SetupError(
            f'the headers of {sys.executable} are missing (Python.h), which mmcv is built with: '
            'install them (on Debian and Ubuntu python{}.{}-dev)'.format(*sys.version_info[:2])
        )
    if device == 'cuda':
        check_cuda_compiler()


def check_cuda_compiler() -> None:
    """torch builds extensions only with a CUDA toolkit of its own major version."""
    home = os.environ.get('CUDA_HOME')
    nvcc = str(Path(home) / 'bin' / 'nvcc') if home else shutil.which('nvcc')
    nvcc = nvcc or '/usr/local/cuda/bin/nvcc'
    help_text = 'set CUDA_HOME to a CUDA 12 toolkit, or use the CPU: make DEVICE=cpu ...'
    try:
        answer = subprocess.run([nvcc, '--version'], capture_output=True, text=True).stdout
    except OSError:
        raise SetupError(f'a GPU is here but no CUDA compiler ({nvcc}): {help_text}') from None
    release = re.search(r'release (\d+)\.', answer)
    if release is None or release.group(1) != '12':
        version = release.group(1) if release else 'unknown'
        raise SetupError(f'{nvcc} is of CUDA {version}, torch here of CUDA 12: {help_text}')


# Running commands so that a person sees where they are.


class Shell:
    """Runs commands for the set-up: their output goes to a log, their progress to the screen."""

    def __init__(self, log: Path, variables: dict) -> None:
        self.log = log
        self.variables = variables
        log.write_text('')

    def run(
        self,
        command: list,
        title: str,
        progress: Callable[[str], str | None] | None = None,
        variables: dict | None = None,
    ) -> None:
        """Run ``command``; ``progress`` turns a line of its output into what is shown of it.

        Raises:
            SetupError: it failed; the end of its output is printed before.
        """
        command = [str(part) for part in command]
        screen = Screen(title)
        tail = deque(maxlen=15)
        with open(self.log, 'a') as log:
            log.write(f'$ {" ".join(command)}\n')
            process = subprocess.Popen(
                command,
                stdin=subprocess.DEVNULL,
                stdout=subprocess.PIPE,
                stderr=subprocess.STDOUT,
                env={**self.variables, **(variables or {})},
                text=True,
                errors='replace',
            )
            for line in process.stdout:
                log.write(line)
                tail.append(line.rstrip())
                screen.show(progress(line) if progress else None)
        status = process.wait()
        screen.close()
        if status != 0:
            print('\n'.join(tail), file=sys.stderr)
            raise SetupError(explain(title, '\n'.join(tail), self.log))

    def ask(self, python: Path, code: str) -> str:
        """What a piece of Python prints in the environment.

        Raises:
            SetupError: it failed.
        """
        answer = subprocess.run(
            [str(python), '-c', code], capture_output=True, text=True, env=self.variables
        )
        if answer.returncode != 0:
            with open(self.log, 'a') as log:
                log.write(answer.stderr)
            raise SetupError(f'the environment is broken: see {self.log}')
        return answer.stdout


class Screen:
    """One line that is written over every second in a terminal, or a line now and then in a log."""

    def __init__(self, title: str) -> None:
        self.title = title
        self.state = ''
        self.started = time.monotonic()
        self.in_terminal = sys.stdout.isatty()
        self.closed = threading.Event()
        self.painter = threading.Thread(target=self.paint, daemon=True)
        print(f'set-up: {title} ...', end='' if self.in_terminal else '\n', flush=True)
        self.painter.start()

    def show(self, state: str | None) -> None:
        """Show from now on how far the command has come; None changes nothing."""
        self.state = state or self.state

    def paint(self) -> None:
        """Write the line again and again until the screen is closed."""
        while not self.closed.wait(1 if self.in_terminal else 30):
            state = f': {self.state}' if self.state else ''
            text = f'set-up: {self.title}{state} ({duration(self.started)})'
            if self.in_terminal:
                width = shutil.get_terminal_size().columns
                print(f'\r\033[K{text[: width - 1]}', end='', flush=True)
            else:
                print(text, flush=True)

    def close(self) -> None:
        """Leave the line with the time it took."""
        self.closed.set()
        self.painter.join()
        if self.in_terminal:
            print(f'\r\033[Kset-up: {self.title}: {duration(self.started)}', flush=True)


def ninja_progress() -> Callable:
    """Show ninja's count of compiled files."""
    pattern = re.compile(r'^\s*\[(\d+)/(\d+)\] ')

    def show(line: str) -> str | None:
        match = pattern.match(line)
        return '{} of {} files'.format(*match.groups()) if match else None

    return show


def pip_progress() -> Callable:
    """Show what pip is resolving, downloading or installing."""
    pattern = re.compile(r'^\s*(Collecting|Downloading|Using cached|Building wheel for) (\S+)(.*)')

    def show(line: str) -> str | None:
        if line.startswith('Installing collected packages'):
            return f'installing {line.count(",") + 1} packages'
        match = pattern.match(line)
        if match is None:
            return None
        size = re.search(r'\([\d.]+ [kMG]?B\)', match.group(3))
        name = match.group(2).rsplit('/', 1)[-1]
        return f'{match.group(1).lower()} {name} {size.group() if size else ""}'.rstrip()

    return show


def explain(title: str, output: str, log: Path) -> str:
    """Put the commonest causes of a failed command into a sentence."""
    if 'No space left on device' in output or 'Disk quota exceeded' in output:
        return f'{title} failed because the disk is full: free some space and run again'
    if re.search(r'No matching distribution|ConnectionError|Max retries|Temporary failure', output):
        return f'{title} failed because a package could not be downloaded: see {log}'
    if 'Killed' in output or 'signal terminated' in output:
        return f'{title} failed because memory ran out: close other programs and run again'
    return f'{title} failed: see {log}'


@contextlib.contextmanager
def locked(path: Path) -> Iterator[None]:
    """Hold a lock file, so that two set-ups at once do not build mmcv twice."""
    with open(path, 'w') as file:
        try:
            fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            print('set-up: waiting for another set-up on this machine', flush=True)
            fcntl.flock(file, fcntl.LOCK_EX)
        yield


def duration(started: float) -> str:
    """Time since ``started``, as a person says it."""
    minutes, seconds = divmod(int(time.monotonic() - started), 60)
    return f'{minutes} min {seconds:02d} s' if minutes else f'{seconds} s'


# The steps.


def make_venv(venv: Path, device: str) -> Path:
    """Make the virtual environment, or keep the one that is there if it fits.

    One made here for another device, or with another Python or one that is gone, is made anew.
    """
    python = venv / 'bin' / 'python'
    kept = read_stamp(venv).get('device', device) == device and is_same_python(python)
    if venv.exists() and not kept and not (venv / LOG).is_file():
        raise SetupError(
            f'{venv} was not made by this set-up and is no virtual environment of Python '
            '{}.{}: remove it or choose another (VENV=...)'.format(*sys.version_info[:2])
        )
    # While it is being changed it is not up to date, even if this set-up stops half-way.
    with contextlib.suppress(FileNotFoundError):
        (venv / STAMP).unlink()
    if kept:
        return python
    print(f'set-up: making {venv} with Python {platform.python_version()}')
    empty(venv)
    command = [sys.executable, '-m', 'venv', str(venv)]
    answer = subprocess.run(command, capture_output=True, text=True)
    if answer.returncode != 0:
        raise SetupError(
            f'{sys.executable} cannot make a virtual environment: install its venv module (on '
            'Debian and Ubuntu python{}.{}-venv)'.format(*sys.version_info[:2])
        )
    return python


def empty(venv: Path) -> None:
    """Leave only the log in ``venv``: it tells whose the folder is."""
    venv.mkdir(parents=True, exist_ok=True)
    (venv / LOG).touch()
    for child in venv.iterdir():
        if child.is_dir() and not child.is_symlink():
            shutil.rmtree(child)
        elif child.name != LOG:
            child.unlink()


def is_same_python(python: Path) -> bool:
    """Whether ``python`` starts and has the minor version of this one."""
    if not starts(python):
        return False
    code = 'import sys; print(*sys.version_info[:2])'
    answer = subprocess.run([python, '-c', code], capture_output=True, text=True).stdout
    return answer.split() == [str(part) for part in sys.version_info[:2]]


def environment(venv: Path) -> dict:
    """Environment variables for pip and the compilers: the venv first, nothing of the user's."""
    variables = {
        **os.environ,
        'PATH': f'{venv / "bin"}{os.pathsep}{os.environ["PATH"]}',
        'VIRTUAL_ENV': str(venv),
        'PIP_DISABLE_PIP_VERSION_CHECK': '1',
        'PIP_NO_INPUT': '1',
        'PYTHONNOUSERSITE': '1',
    }
    for name in ('PYTHONPATH', 'PYTHONHOME', 'PIP_USER', 'PIP_TARGET', 'PIP_PREFIX'):
        variables.pop(name, None)
    return variables


def install_packages(shell: Shell, python: Path, device: str, extras: list) -> None:
    """Install all but mmcv and this project, in one resolution."""
    command = [python, '-m', 'pip', 'install']
    for name in (device, 'runtime', *extras):
        command += ['-r', REQUIREMENTS / f'{name}.txt']
    constraints = REQUIREMENTS / 'constraints-py{}{}.txt'.format(*sys.version_info[:2])
    if constraints.is_file():
        command += ['-c', constraints]
    shell.run(command, 'installing packages', pip_progress())


def install_mmcv(shell: Shell, python: Path, device: str, cache: Path) -> None:
    """Install mmcv from the cache, building it first if it is not there or does not work."""
    version = pinned('mmcv', 'mmcv.txt')
    key = mmcv_key(shell, python, device, version)
    marker = shell.log.with_name('cmt_aqr_mmcv')
    was_built_for_this = not marker.exists() or marker.read_text() == key
    if was_built_for_this and mmcv_works(shell, python, device, version):
        marker.write_text(key)
        return
    wheel = find_wheel(cache / key)
    for _ in range(2):
        if wheel is None:
            wheel = build_mmcv(shell, python, device, cache / key, version)
        command = [python, '-m', 'pip', 'install', '--no-deps', '--force-reinstall', wheel]
        shell.run(command, 'installing mmcv')
        if mmcv_works(shell, python, device, version):
            marker.write_text(key)
            return
        # A wheel of the same name that does not fit this machine any more, such as its C library.
        wheel.unlink()
        wheel = None
    raise SetupError(f'mmcv {version} was built but does not import: see {shell.log}')


def mmcv_key(shell: Shell, python: Path, device: str, version: str) -> str:
    """Name of the cache's folder: all that a build of mmcv depends on."""
    code = (
        'import torch; cards = range(torch.cuda.device_count());'
        'print(torch.__version__, torch.version.cuda,'
        '*sorted({"sm%d%d" % torch.cuda.get_device_capability(card) for card in cards}))'
    )
    torch_version, cuda, *cards = shell.ask(python, code).split()
    target = '-'.join([f'cuda{cuda}', *cards]) if device == 'cuda' else 'cpu'
    return f'mmcv-{version}-{python_tag()}-torch{torch_version}-{target}-{platform.machine()}'


def mmcv_works(shell: Shell, python: Path, device: str, version: str) -> bool:
    """Whether the installed mmcv has the version and its compiled operators, for this device."""
    code = (
        'import mmcv; from mmcv.ops import get_compiling_cuda_version;'
        'print(mmcv.__version__, get_compiling_cuda_version() != "not available")'
    )
    try:
        installed, has_cuda = shell.ask(python, code).split()[-2:]
    except SetupError:
        return False
    return installed == version and (device == 'cpu' or has_cuda == 'True')


def find_wheel(folder: Path) -> Path | None:
    """The whole wheel in ``folder``; one that is damaged is removed."""
    for wheel in folder.glob('*.whl'):
        if is_whole_wheel(wheel):
            return wheel
        print(f'set-up: {wheel} is damaged and is built again')
        wheel.unlink()
    return None


def is_whole_wheel(wheel: Path) -> bool:
    """Whether a wheel of mmcv can be read to its end and holds the compiled operators."""
    try:
        with zipfile.ZipFile(wheel) as archive:
            names = archive.namelist()
            return archive.testzip() is None and any(n.startswith('mmcv/_ext.') for n in names)
    except (OSError, zipfile.BadZipFile):
        return False


def build_mmcv(shell: Shell, python: Path, device: str, folder: Path, version: str) -> Path:
    """Compile mmcv in a temporary folder and move the wheel into ``folder`` when it is whole."""
    check_compiler(device)
    started = time.monotonic()
    with tempfile.TemporaryDirectory(dir=folder.parent, prefix='building-') as work:
        flags = {
            'MMCV_WITH_OPS': '1',
            'FORCE_CUDA': '1' if device == 'cuda' else '0',
            'MAX_JOBS': str(compiler_processes(device)),
            'CFLAGS': '-g0 -O2 -w',
            'TMPDIR': work,
        }
        command = [python, '-m', 'pip', 'wheel', '-v', '--no-deps', '--no-build-isolation']
        command += ['--no-cache-dir', '--no-binary', 'mmcv', '-w', work, f'mmcv=={version}']
        title = f'building mmcv {version}, once per machine'
        shell.run(command, title, ninja_progress(), flags)
        built = next(Path(work).glob('mmcv-*.whl'), None)
        if built is None or not is_whole_wheel(built):
            raise SetupError(f'the build of mmcv left no whole wheel: see {shell.log}')
        folder.mkdir(exist_ok=True)
        os.replace(built, folder / built.name)
    print(f'set-up: mmcv {version} built in {duration(started)} and kept in {folder}')
    return folder / built.name


def compiler_processes(device: str) -> int:
    """As many compilers at once as cores and memory allow."""
    memory = os.sysconf('SC_PAGE_SIZE') * os.sysconf('SC_PHYS_PAGES') / 1e9
    return max(1, min(len(os.sched_getaffinity(0)), int(memory / GIGABYTES_PER_COMPILER[device])))


def keep_one_opencv(shell: Shell, python: Path) -> None:
    """Leave opencv-python-headless alone in the environment.

    mmengine and mmcv ask for opencv-python, nuscenes-devkit for opencv-python-headless. Both
    install the folder cv2: the later overwrites the earlier, and removing one breaks the other.
    """
    version = pinned('opencv-python-headless', 'runtime.txt')
    code = (
        'import importlib.metadata as m; found = {d.name for d in m.distributions()};'
        'print(*sorted(n for n in found if n and n.startswith("opencv-")))'
    )
    if shell.ask(python, code).split() == ['opencv-python-headless']:
        return
    names = ['opencv-python', 'opencv-python-headless', 'opencv-contrib-python']
    shell.run([python, '-m', 'pip', 'uninstall', '-y', *names], 'removing the second opencv')
    wanted = f'opencv-python-headless=={version}'
    shell.run([python, '-m', 'pip', 'install', '--no-deps', wanted], 'installing opencv')


def install_project(shell: Shell, python: Path) -> None:
    """Install this checkout in editable mode; its dependencies are there already."""
    options = ['--no-deps', '--no-build-isolation']
    shell.run([python, '-m', 'pip', 'install', *options, '-e', ROOT], 'installing cmt_aqr')


def try_imports(shell: Shell, python: Path) -> None:
    """End with an error where the installed packages do not import together."""
    shell.run([python, '-c', f'import {", ".join(IMPORTS_TO_TRY)}'], 'trying the imports')


def check_given_environment() -> None:
    """Check that the Python that runs this script can be used as it is; change nothing."""
    code = (
        'import torch, mmcv.ops, mmcv, mmdet, mmdet3d, mmengine, nuscenes, spconv.pytorch, cv2;'
        'v = tuple(int(p) for p in torch.__version__.split(".")[:2]);'
        'assert v >= (2, 6), "torch %s is older than 2.6" % torch.__version__'
    )
    answer = subprocess.run([sys.executable, '-c', code], capture_output=True, text=True)
    if answer.returncode != 0:
        reason = (answer.stderr.strip().splitlines() or ['no message'])[-1]
        raise SetupError(
            f'{sys.executable} cannot be used as it is ({reason}): install what '
            'requirements/*.txt name, or let make build an environment (leave out VENV=none)'
        )


if __name__ == '__main__':
    sys.exit(main())
