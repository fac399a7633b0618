"""Strip a checkpoint to half-precision weights and notes on their origin.

Example:
    python tools/publish_checkpoint.py work_dirs/run/epoch_11.pth weights.pth --note mAP=0.41
"""

import argparse
from pathlib import Path

import _startup

_startup.prepare()

import torch

from projects.cmt_aqr.cli import entry
from projects.cmt_aqr.cli.checkpoints import read_checkpoint
from projects.cmt_aqr.files import replacing
from projects.cmt_aqr.usage_error import UsageError


def make_parser() -> argparse.ArgumentParser:
    """The parser of this command."""
    parser = entry.Parser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument('checkpoint', type=Path, help='checkpoint of a run of tools/train.py')
    parser.add_argument('out', type=Path, help='file to write')
    parser.add_argument(
        '--note', nargs='*', default=[], metavar='KEY=VALUE', help='facts to store, such as scores'
    )
    entry.add_screen_arguments(parser)
    return parser


def publish(checkpoint: Path, out: Path, notes: dict[str, str]) -> None:
    """Write the weights of ``checkpoint`` to ``out``, readable with ``weights_only=True``.

    Floating-point tensors become float16. The metadata of the state dict is kept, since spconv
    reads the layout of its kernels from it.
    """
    run = read_checkpoint(str(checkpoint))
    if not {'state_dict', 'meta'} <= run.keys():
        raise UsageError(f'{checkpoint} is not the checkpoint of a run: it has {", ".join(run)}')
    state = run['state_dict']
    for name, value in state.items():
        state[name] = value.half() if value.is_floating_point() else value
    meta = {'epoch': run['meta']['epoch'], 'seed': run['meta']['seed'], **notes}
    with replacing(out) as temporary:
        torch.save({'meta': meta, 'state_dict': state}, temporary)


def main(args: argparse.Namespace) -> None:
    """Write the file and print its size."""
    malformed = [note for note in args.note if '=' not in note]
    if malformed:
        raise UsageError(f'--note {" ".join(malformed)}: give KEY=VALUE')
    if not args.out.parent.is_dir():
        raise UsageError(f'out: the folder {args.out.parent} does not exist')
    publish(args.checkpoint, args.out, dict(note.split('=', 1) for note in args.note))
    print(f'{args.out}: {args.out.stat().st_size / 1e6:.1f} MB')


if __name__ == '__main__':
    entry.run(main, make_parser())
