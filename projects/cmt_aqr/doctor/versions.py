"""Check of the installed versions against those known to work together."""

import platform
import re
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path

import torch

from .result import Result

REQUIREMENTS = Path(__file__).resolve().parents[3] / 'requirements'
STACK = ('torch', 'mmcv', 'mmengine', 'mmdet', 'mmdet3d', 'spconv', 'nuscenes-devkit', 'numpy')
_OLDEST_TORCH = (2, 6)


def check_versions(device: torch.device) -> Result:
    """Check all packages against ``requirements/``, whose versions are tested together.

    A GPU needs other builds of torch and spconv than a CPU. Those for a GPU also run without one.
    """
    for_cuda = read_pins('cuda')
    gpu_spconv, _ = for_cuda.get('spconv', ('spconv', None))
    with_gpu = device.type == 'cuda' or installed_version(gpu_spconv) is not None
    pinned = for_cuda if with_gpu else read_pins('cpu')
    found, faults = [_python()], []
    for package in STACK:
        name, wanted = pinned.get(package, (package, None))
        installed = installed_version(name)
        found.append(f'{name} {installed}')
        if installed is None or wanted not in (None, installed):
            # mmcv is compiled for the installed torch.
            remedy = 'make setup' if package == 'mmcv' else f'pip install {name}=={wanted}'
            faults.append(f'{name} is {installed or "absent"}; {wanted} is known to work: {remedy}')
    return Result(what=', '.join(found), faults=faults)


def check_torch_alone(device: torch.device) -> Result:
    """Check Python, torch and numpy on a machine without the other packages."""
    found = [_python(), *(f'{name} {installed_version(name)}' for name in ('torch', 'numpy'))]
    faults = []
    if tuple(map(int, torch.__version__.split('.')[:2])) < _OLDEST_TORCH:
        faults.append(f'torch {torch.__version__} is older than 2.6: pip install "torch>=2.6"')
    return Result(what=', '.join(found), faults=faults)


def check_device(device: torch.device) -> Result:
    """Name the device; on a GPU check that this build of torch has kernels for it."""
    if device.type == 'cpu':
        return Result(what=f'CPU, {torch.get_num_threads()} threads')
    properties = torch.cuda.get_device_properties(device)
    what = (
        f'{properties.name}, compute capability {properties.major}.{properties.minor}, '
        f'{properties.total_memory / 1e9:.0f} GB; CUDA {torch.version.cuda}, '
        f'cuDNN {torch.backends.cudnn.version()}'
    )
    major = f'sm_{properties.major}'
    known = [arch for arch in torch.cuda.get_arch_list() if arch.startswith(major)]
    fault = f'this torch has no kernels for {major}x; it has {torch.cuda.get_arch_list()}'
    return Result(what=what, faults=[] if known else [fault])


def read_pins(kind: str) -> dict[str, tuple[str, str]]:
    """Name and version of each pinned package; all builds of spconv have the key ``spconv``.

    The installed package has no ``requirements/``, and then nothing is pinned.

    Args:
        kind: ``cpu`` or ``cuda``.
    """
    pins = {}
    if not REQUIREMENTS.is_dir():
        return {}
    for file in ('build.txt', 'runtime.txt', 'mmcv.txt', f'{kind}.txt'):
        lines = (REQUIREMENTS / file).read_text()
        for name, wanted in re.findall(r'^([\w-]+)==([\w.]+)', lines, re.MULTILINE):
            pins[re.sub(r'^spconv-cu\d+$', 'spconv', name)] = (name, wanted)
    return pins


def installed_version(package: str) -> str | None:
    """Installed version without a suffix such as ``+cpu``; ``None`` if absent."""
    try:
        return version(package).partition('+')[0]
    except PackageNotFoundError:
        return None


def _python() -> str:
    return f'python {platform.python_version()}'
