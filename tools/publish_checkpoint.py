"""Strip a checkpoint to half-precision weights and notes on their origin.

Example:
    python tools/publish_checkpoint.py work_dirs/run/epoch_11.pth weights.pth --note mAP=0.41
"""

import argparse
import sys
from pathlib import Path

import _startup

_startup.prepare()

import torch

import projects.cmt_aqr.compat  # noqa: F401  (lets torch.load read a run's own checkpoints safely)
from projects.cmt_aqr.files import replacing


def parse_args() -> argparse.Namespace:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument('checkpoint', type=Path, help='checkpoint of a run of tools/train.py')
    parser.add_argument('out', type=Path, help='file to write')
    parser.add_argument(
        '--note', nargs='*', default=[], metavar='KEY=VALUE', help='facts to store, such as scores'
    )
    return parser.parse_args()


def publish(checkpoint: Path, out: Path, notes: dict[str, str]) -> None:
    """Write the weights of ``checkpoint`` to ``out``, readable with ``weights_only=True``.

    Floating-point tensors become float16. The metadata of the state dict is kept, since spconv
    reads the layout of its kernels from it.
    """
    run = torch.load(checkpoint, map_location='cpu', weights_only=True)
    state = run['state_dict']
    for name, value in state.items():
        state[name] = value.half() if value.is_floating_point() else value
    meta = {'epoch': run['meta']['epoch'], 'seed': run['meta']['seed'], **notes}
    with replacing(out) as temporary:
        torch.save({'meta': meta, 'state_dict': state}, temporary)


def main() -> int:
    args = parse_args()
    if not args.checkpoint.is_file():
        print(f'error: checkpoint {args.checkpoint} does not exist', file=sys.stderr)
        return 2
    malformed = [note for note in args.note if '=' not in note]
    if malformed:
        print(f'error: notes {malformed} are not KEY=VALUE', file=sys.stderr)
        return 2
    publish(args.checkpoint, args.out, dict(note.split('=', 1) for note in args.note))
    print(f'{args.out}: {args.out.stat().st_size / 1e6:.1f} MB')
    return 0


if __name__ == '__main__':
    sys.exit(main())
