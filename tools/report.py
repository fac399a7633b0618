"""Make a web page of a finished run: ``python tools/report.py WORK_DIR``.

The page is one file with everything in it: provenance, scores by class, freeze audit, curves,
routing, results under failures, and pictures. It takes a work dir with its runs, or the folder of
one run, and says how to make what is missing.
"""

import argparse
from pathlib import Path

import _startup

_startup.prepare()

from projects.cmt_aqr.cli import entry
from projects.cmt_aqr.files import write_text
from projects.cmt_aqr.reporting import find_run, make_page


def make_parser() -> argparse.ArgumentParser:
    """The parser of this command."""
    parser = entry.Parser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument('folder', type=Path, help='work dir, or folder of one run')
    parser.add_argument('--out', type=Path, help='the page (default: report.html in the folder)')
    parser.add_argument('--title', help='title of the page (default: name of the config)')
    entry.add_screen_arguments(parser)
    return parser


def main(args: argparse.Namespace) -> None:
    """Write the page and print its name."""
    run = find_run(args.folder)
    out = args.out or args.folder / 'report.html'
    out.parent.mkdir(parents=True, exist_ok=True)
    write_text(out, make_page(run, args.title or Path(run.info()['config'] or 'run').stem))
    print(f'made {out}')


if __name__ == '__main__':
    entry.run(main, make_parser())
