"""Draw data, router weights and health: ``tools/visualize.py frame|browse|failures|router|health``.

For the options of a picture: ``python tools/visualize.py frame --help``.
"""

import argparse

import _startup

_startup.prepare()

from projects.cmt_aqr.cli import (
    entry,
    visualize_browse,
    visualize_failures,
    visualize_frame,
    visualize_health,
    visualize_router,
)

PICTURES = {
    'frame': visualize_frame,
    'browse': visualize_browse,
    'failures': visualize_failures,
    'router': visualize_router,
    'health': visualize_health,
}


def make_parser() -> argparse.ArgumentParser:
    """The parser of this command, with a subcommand for each kind of picture."""
    formatter = argparse.RawDescriptionHelpFormatter
    parser = entry.Parser(description=__doc__, formatter_class=formatter)
    commands = parser.add_subparsers(dest='picture', required=True)
    for name, module in PICTURES.items():
        summary = module.__doc__.splitlines()[0]
        command = commands.add_parser(
            name, help=summary, description=module.__doc__, formatter_class=formatter
        )
        module.add_arguments(command)
    return parser


def main(args: argparse.Namespace) -> None:
    """Draw, and print the names of the files."""
    files = PICTURES[args.picture].run(args)
    print('\n'.join(f'made {file}' for file in files))


if __name__ == '__main__':
    entry.run(main, make_parser())
