#!/usr/bin/env python3
"""Set up the environment of this checkout, or return at once if it is up to date.

It creates a virtual environment, installs the versions named in ``requirements/``, builds mmcv from
source once per machine and installs this project in editable mode. With an NVIDIA GPU, torch and
spconv are their CUDA wheels. This script itself uses the standard library only.
"""

import sys

PYTHONS = ((3, 10), (3, 11), (3, 12))  # torch starts at 3.10, numpy 1.26 ends at 3.12
if __name__ == '__main__' and sys.version_info[:2] not in PYTHONS:
    sys.exit('set-up: Python 3.10, 3.11 or 3.12 is needed: use make PYTHON=python3.11 ...')

import argparse
import contextlib
import datetime
import fcntl
import hashlib
import importlib.metadata
import json
import os
import platform
import re
import shutil
import subprocess
import sysconfig
import tempfile
import time
from pathlib import Path
from typing import TextIO

ROOT = Path(__file__).resolve().parents[1]
REQUIREMENTS = ROOT / 'requirements'
PYTHON = '{}.{}'.format(*sys.version_info[:2])
# Files in the virtual environment: what the last finished set-up installed, and the log.
STAMP, LOG = 'cmt_aqr.json', 'cmt_aqr_setup.log'
# Of the installed packages, and of their downloads in the temporary folder.
GIGABYTES = {'cpu': (4, 1), 'cuda': (11, 5)}
IMPORTS = 'import torch, cv2, mmcv.ops, mmdet3d.apis, spconv.pytorch, nuscenes'
CAUSES = {
    'No space left on device|Disk quota exceeded': 'the disk is full: free some space',
    'No matching distribution|ConnectionError|Max retries|Temporary failure': 'a download failed',
    'Killed|signal terminated': 'memory ran out: close other programs',
}


class SetupError(Exception):
    """The set-up cannot go on; the message names the cause and the remedy."""


def main() -> None:
    """Run the set-up; an error ends it with one line and exit status 1."""
    caches = Path(os.environ.get('XDG_CACHE_HOME') or Path.home() / '.cache')
    cache = Path(os.environ.get('CMT_AQR_CACHE') or caches / 'cmt_aqr')
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument('--venv', default=ROOT / '.venv', help="'none' only checks this Python")
    parser.add_argument(
        '--extra', action='append', default=[], choices=['encoders', 'tests', 'dev']
    )
    parser.add_argument('--device', default='auto', choices=['auto', 'cpu', 'cuda'])
    parser.add_argument('--cache', type=Path, default=cache, help='where the built mmcv is kept')
    options = parser.parse_args()
    try:
        if options.venv != 'none':
            device = find_device(options.device)
            set_up(Path(options.venv).resolve(), device, options.extra, options.cache)
        elif subprocess.run([sys.executable, '-c', IMPORTS]).returncode != 0:
            reason = 'install what requirements/*.txt name, or leave out VENV=none'
            raise SetupError(f'{sys.executable} cannot be used as it is: {reason}')
    except (SetupError, OSError) as error:
        sys.exit(f'set-up: {error}')
    except KeyboardInterrupt:
        sys.exit('\nset-up: interrupted; run it again to continue')


def set_up(venv: Path, device: str, extras: list, cache: Path) -> None:
    """Install everything in ``venv``, unless a set-up with the same result has finished there."""
    wanted = fingerprint(device)
    if not is_up_to_date(venv, wanted, extras):
        cache.mkdir(parents=True, exist_ok=True)
        with open(cache / 'lock', 'w') as file:
            lock(file)
            # Another set-up may have done the work while this one waited.
            if not is_up_to_date(venv, wanted, extras):
                install(venv, device, sorted({*extras, *read_stamp(venv).get('extras', [])}), cache)
    print(f'set-up: ready; to use it in a shell: source {os.path.relpath(venv)}/bin/activate')


def install(venv: Path, device: str, extras: list, cache: Path) -> None:
    """Run every step, then write the stamp."""
    started = time.monotonic()
    if not venv.exists():
        check_disk(venv.parent, GIGABYTES[device])
    if not any(cache.glob('mmcv-*/*.whl')):
        check_compiler()
    make_venv(venv, device)
    shell = Shell(venv)
    install_packages(shell, device, extras)
    keep_one_opencv(shell)
    install_mmcv(shell, cache)
    shell.pip('installing cmt_aqr', 'install', '--no-deps', '--no-build-isolation', '-e', ROOT)
    shell.run('importing the packages', '-c', IMPORTS)
    stamp = {'fingerprint': fingerprint(device), 'extras': extras, 'device': device}
    (venv / STAMP).write_text(json.dumps(stamp))
    print(f'set-up: finished in {since(started)}; the log is {shell.log}')


def fingerprint(device: str) -> str:
    """Return a hash of everything that decides what is installed."""
    digest = hashlib.sha256(f'{device} {PYTHON}'.encode())
    for path in [*sorted(REQUIREMENTS.glob('*.txt')), ROOT / 'setup.py', Path(__file__)]:
        digest.update(path.read_bytes())
    return digest.hexdigest()


def read_stamp(venv: Path) -> dict:
    """Return the stamp of the last finished set-up of ``venv``, or an empty dict."""
    with contextlib.suppress(OSError, ValueError):
        return json.loads((venv / STAMP).read_text())
    return {}


def is_up_to_date(venv: Path, wanted: str, extras: list) -> bool:
    """Return whether a set-up with this fingerprint and these extras has finished in ``venv``."""
    stamp = read_stamp(venv)
    has_extras = set(extras) <= set(stamp.get('extras', []))
    return stamp.get('fingerprint') == wanted and has_extras and has_this_python(venv)


def has_this_python(venv: Path) -> bool:
    """Return whether the Python of ``venv`` starts and has the minor version of this one."""
    code = f'import sys; sys.exit(sys.version_info[:2] != {sys.version_info[:2]})'
    with contextlib.suppress(OSError):
        return subprocess.run([venv / 'bin' / 'python', '-c', code]).returncode == 0
    return False


def find_device(choice: str) -> str:
    """Return the choice, or for 'auto' 'cuda' where the NVIDIA driver lists a GPU, else 'cpu'."""
    if choice != 'auto':
        return choice
    with contextlib.suppress(OSError, subprocess.TimeoutExpired):
        listing = subprocess.run(['nvidia-smi', '-L'], capture_output=True, text=True, timeout=60)
        if listing.returncode == 0 and 'GPU' in listing.stdout:
            return 'cuda'
    return 'cpu'


def check_disk(folder: Path, gigabytes: tuple) -> None:
    """Raise SetupError if the installation or its downloads cannot fit."""
    folder.mkdir(parents=True, exist_ok=True)
    for place, needed in zip((folder, tempfile.gettempdir()), gigabytes, strict=True):
        free = shutil.disk_usage(place).free / 1e9
        if free < needed:
            raise SetupError(f'{place} has {free:.1f} GB free and {needed} GB are needed')


def check_compiler() -> None:
    """Raise SetupError if mmcv cannot be built on this machine."""
    compiler = os.environ.get('CXX', 'c++').split()[0]
    if shutil.which(compiler) is None:
        raise SetupError(f'no C++ compiler ({compiler}) for mmcv: apt install build-essential')
    if not Path(sysconfig.get_paths()['include'], 'Python.h').is_file():
        raise SetupError(
            f'no Python.h of {sys.executable} for mmcv: apt install python{PYTHON}-dev'
        )


class Shell:
    """Runs the Python of a virtual environment: output to a log, one line a step to stdout."""

    def __init__(self, venv: Path, seconds_between_lines: float = 60) -> None:
        self.venv, self.log = venv, venv / LOG
        self.seconds_between_lines = seconds_between_lines
        self.log.write_text('')

    def run(self, title: str, *arguments: object, **variables: str) -> None:
        """Run Python; print how long it took, or raise SetupError with the end of its output."""
        started, start = time.monotonic(), self.log.stat().st_size
        # The environment's programs (ninja) come first; settings of the user's Python stay out.
        ignored = ('PYTHON', 'PIP_USER', 'PIP_TARGET', 'PIP_PREFIX')
        environ = {name: v for name, v in os.environ.items() if not name.startswith(ignored)}
        environ['PATH'] = f'{self.venv / "bin"}{os.pathsep}{os.environ["PATH"]}'
        streams = dict(stdin=subprocess.DEVNULL, stderr=subprocess.STDOUT)
        command = [self.venv / 'bin' / 'python', *arguments]
        with open(self.log, 'a') as log:
            process = subprocess.Popen(command, env=environ | variables, stdout=log, **streams)
        while process.poll() is None:
            try:
                process.wait(self.seconds_between_lines)
            except subprocess.TimeoutExpired:
                last = (self._output(start) or [''])[-1][:60]
                print(f'set-up: still {title} ({since(started)}): {last}', flush=True)
        if process.returncode != 0:
            output = '\n'.join(self._output(start)[-15:])
            print(output, file=sys.stderr)
            cause = next((text for words, text in CAUSES.items() if re.search(words, output)), '')
            raise SetupError(f'{title} failed{cause and ": "}{cause}; see {self.log}')
        print(f'set-up: {title}: {since(started)}', flush=True)

    def _output(self, start: int) -> list[str]:
        return self.log.read_bytes()[start:].decode(errors='replace').strip().splitlines()

    def pip(self, title: str, *arguments: object, **variables: str) -> None:
        """Run pip; see `run`."""
        self.run(title, '-m', 'pip', '--disable-pip-version-check', *arguments, **variables)

    def installed(self) -> dict[str, str]:
        """Return the version of each package in the environment."""
        folder = self.venv / 'lib' / f'python{PYTHON}' / 'site-packages'
        found = importlib.metadata.distributions(path=[str(folder)])
        return {package.name: package.version for package in found}


def lock(file: TextIO) -> None:
    """Lock a file until it is closed, so that two set-ups at once do not build mmcv twice."""
    try:
        fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except BlockingIOError:
        print('set-up: waiting for another set-up on this machine', flush=True)
        fcntl.flock(file, fcntl.LOCK_EX)


def since(started: float) -> str:
    """Return the time since ``started`` as h:mm:ss."""
    return str(datetime.timedelta(seconds=int(time.monotonic() - started)))


def make_venv(venv: Path, device: str) -> None:
    """Create the virtual environment, or keep one made for the same device and Python."""
    kept = read_stamp(venv).get('device', device) == device and has_this_python(venv)
    if venv.exists() and not kept and not (venv / LOG).is_file():
        raise SetupError(
            f'{venv} was not made by this set-up and is not a virtual environment of Python '
            f'{PYTHON}: remove it or choose another (VENV=...)'
        )
    # A set-up that stops half-way must not look finished.
    (venv / STAMP).unlink(missing_ok=True)
    if kept:
        return
    print(f'set-up: creating {venv} with Python {platform.python_version()}')
    # venv's --clear empties the folder; the log then marks it as one that may be emptied again.
    failed = subprocess.run([sys.executable, '-m', 'venv', '--clear', venv]).returncode != 0
    (venv / LOG).touch()
    if failed:
        raise SetupError(f'{sys.executable} cannot create a virtual environment, as said above')


def install_packages(shell: Shell, device: str, extras: list) -> None:
    """Install everything except mmcv and this project, in one resolution."""
    arguments = []
    for name in (device, 'runtime', *extras):
        arguments += ['-r', REQUIREMENTS / f'{name}.txt']
    for file in REQUIREMENTS.glob(f'constraints-py{PYTHON.replace(".", "")}.txt'):
        arguments += ['-c', file]
    shell.pip('installing packages', 'install', *arguments)


def keep_one_opencv(shell: Shell) -> None:
    """Leave only opencv-python-headless, which needs no display library.

    mmengine requires opencv-python beside it. Both install the folder cv2: the later overwrites the
    earlier, and removing one breaks the other.
    """
    found = sorted(name for name in shell.installed() if name.startswith('opencv-'))
    if found != ['opencv-python-headless']:
        shell.pip('removing the second opencv', 'uninstall', '-y', *found)
        pin = ['-c', REQUIREMENTS / 'runtime.txt', 'opencv-python-headless']
        shell.pip('installing opencv', 'install', '--no-deps', *pin)


def install_mmcv(shell: Shell, cache: Path) -> None:
    """Install mmcv from the cache; build it if it is not there or does not import."""
    mmcv = re.search(r'^mmcv==(\S+)', (REQUIREMENTS / 'mmcv.txt').read_text(), re.MULTILINE)[1]
    torch = shell.installed()['torch']
    # Everything that the binary depends on.
    tag = f'mmcv-{mmcv}-cp{PYTHON.replace(".", "")}-torch{torch}-cpu-{platform.machine()}'
    for kept in [*(cache / tag).glob('*.whl'), None]:
        wheel = kept or build_mmcv(shell, cache / tag)
        with contextlib.suppress(SetupError):
            shell.pip('installing mmcv', 'install', '--no-deps', '--force-reinstall', wheel)
            shell.run('importing mmcv', '-c', 'import mmcv.ops')
            return
        wheel.unlink()
    raise SetupError(f'mmcv was built but does not import: see {shell.log}')


def build_mmcv(shell: Shell, folder: Path) -> Path:
    """Compile mmcv with its CPU operators and return the wheel, which is kept in ``folder``.

    mmcv compiles for CUDA wherever torch sees a GPU, hence the GPU is hidden: CMT calls none of
    mmcv's CUDA operators (see tests/test_mmcv_operators.py), so that no CUDA toolkit is needed.
    """
    check_compiler()
    memory = os.sysconf('SC_PAGE_SIZE') * os.sysconf('SC_PHYS_PAGES')
    jobs = max(1, min(len(os.sched_getaffinity(0)), int(memory / 1.5e9)))  # 1.5 GB at most each
    with tempfile.TemporaryDirectory(dir=folder.parent, prefix='building-') as work:
        options = ['--no-deps', '--no-build-isolation', '--no-cache-dir', '--no-binary', 'mmcv']
        shell.pip(
            'building mmcv, once per machine',
            *('wheel', '-v', *options, '-w', work, '-r', REQUIREMENTS / 'mmcv.txt'),
            **dict(MMCV_WITH_OPS='1', FORCE_CUDA='0', CUDA_VISIBLE_DEVICES='-1'),
            **dict(MAX_JOBS=str(jobs), CFLAGS='-g0 -O2 -w', TMPDIR=work),
        )
        built = next(Path(work).glob('mmcv-*.whl'))
        folder.mkdir(exist_ok=True)
        return built.rename(folder / built.name)


if __name__ == '__main__':
    main()
