"""Folders of the configs, tools and weights, in a checkout or in the installed package.

Other projects find them by these functions, or on the command line:

    python -m projects.cmt_aqr.paths configs
"""

import argparse
from pathlib import Path

_PACKAGE = Path(__file__).resolve().parent


def configs() -> Path:
    """Folder of the configs, such as ``configs() / 'cmt' / NAME``."""
    return _packed('configs')


def tools() -> Path:
    """Folder of the scripts."""
    return _packed('tools')


def weights() -> Path:
    """Folder of the shipped weights."""
    return _PACKAGE / 'weights'


def _packed(name: str) -> Path:
    """A folder that ``setup.py`` packs into ``.mim``, as in MMDetection3D's wheel."""
    packed = _PACKAGE / '.mim' / name
    return packed if packed.is_dir() else _PACKAGE.parents[1] / name


if __name__ == '__main__':
    folders = {function.__name__: function for function in (configs, tools, weights)}
    parser = argparse.ArgumentParser(description='Print the path of a folder of cmt_aqr')
    parser.add_argument('folder', choices=folders)
    print(folders[parser.parse_args().folder]())
