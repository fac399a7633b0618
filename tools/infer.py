"""Detect objects in a frame or a scene, without a dataset.

Examples:
    python tools/infer.py cmt_tiny_real_frame_failures FOLDER
    python tools/infer.py CONFIG INFO_FILE --index 3 --checkpoint FILE --failure fog_2
"""

import argparse

import _startup

_startup.prepare()

from projects.cmt_aqr.cli import entry, infer
from projects.cmt_aqr.denormals import flush_denormals


def main(args: argparse.Namespace) -> None:
    """Detect, draw, and print the names of the files."""
    flush_denormals()
    files = infer.run(args)
    print('\n'.join(f'made {file}' for file in files))


if __name__ == '__main__':
    entry.run(main, infer.make_parser())
