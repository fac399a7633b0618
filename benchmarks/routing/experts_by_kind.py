"""Experts for each kind of LiDAR damage, chosen by the map of the health monitor.

``python -m benchmarks.routing.experts_by_kind DETECTOR EXPERTS FILE KIND=CHECKPOINT ...`` joins a
detector, the monitor and the camera expert of a published detector with experts, and one expert for
each kind, into a file for :class:`KindExpertDetector`.

Shapes: B samples, h and w of a BEV map.
"""

import argparse
import copy
from pathlib import Path
from typing import Any

import torch
from mmdet3d.registry import MODELS
from torch import Tensor

from projects.cmt_aqr.cli import entry
from projects.cmt_aqr.cli.checkpoints import read_checkpoint
from projects.cmt_aqr.experts import ExpertDetector
from projects.cmt_aqr.files import replacing
from projects.cmt_aqr.health import Health

KINDS = ('lidar_drop', 'limited_fov', 'object_failure', 'thinned')


@MODELS.register_module()
class KindExpertDetector(ExpertDetector):
    """An :class:`ExpertDetector` with an expert for each of :data:`KINDS`, in place of its LiDAR's.

    Args:
        config: that of an :class:`ExpertDetector` with both experts.
    """

    def __init__(self, **config: Any) -> None:
        super().__init__(**config)
        expert = self.experts.pop('lidar')
        for kind in KINDS:
            self.experts[kind] = copy.deepcopy(expert)

    def choose(self, logits: Health, camera_mask: Tensor) -> list[str | None]:
        """Returns the expert of each sample, see :meth:`ExpertDetector.choose`."""
        kinds = kinds_of(logits.bev.sigmoid())
        chosen = super().choose(logits, camera_mask)
        return [kind if name == 'lidar' else name for name, kind in zip(chosen, kinds, strict=True)]


def kinds_of(health: Tensor) -> list[str]:
    """Kind of damage by the health (B, h, w) of the BEV cells.

    A lost sector leaves the map in two levels, vanished objects leave most of it whole, and where
    many cells are dead there is no cloud; what remains is thinned everywhere.
    """
    cells = health.flatten(1)
    tests = [cells.std(dim=1) > 0.3, cells.mean(dim=1) > 0.6, (cells < 0.1).float().mean(1) > 0.42]
    names = ('limited_fov', 'object_failure', 'lidar_drop', 'thinned')
    first = torch.stack([*tests, torch.ones_like(tests[0])]).int().argmax(dim=0)
    return [names[index] for index in first.tolist()]


def join(detector: dict, experts: dict, kinds: dict[str, dict]) -> dict[str, Tensor]:
    """State dict of a :class:`KindExpertDetector` from those of its parts."""
    joined = dict(detector)
    joined |= {k: v for k, v in experts.items() if k.startswith(('health_', 'experts.camera.'))}
    for kind, state in kinds.items():
        head = {k: v for k, v in state.items() if k.startswith('pts_bbox_head.')}
        joined |= {k.replace('pts_bbox_head', f'experts.{kind}', 1): v for k, v in head.items()}
    return joined


def make_parser() -> argparse.ArgumentParser:
    """The parser of this command."""
    parser = entry.Parser(description='Join a detector, its monitor and experts by kind')
    parser.add_argument('detector', help='checkpoint of the frozen CMT')
    parser.add_argument('experts', help='checkpoint with a monitor and a camera expert')
    parser.add_argument('out', type=Path, help='file to write')
    parser.add_argument('kinds', nargs=len(KINDS), metavar='KIND=CHECKPOINT')
    entry.add_screen_arguments(parser)
    return parser


def main(args: argparse.Namespace) -> None:
    """Join and write the weights."""
    kinds = dict(pair.split('=', 1) for pair in args.kinds)
    detector, experts, *states = (
        read_checkpoint(file)['state_dict']
        for file in (args.detector, args.experts, *(kinds[kind] for kind in KINDS))
    )
    state = join(detector, experts, dict(zip(KINDS, states, strict=True)))
    with replacing(args.out) as partial:
        torch.save(dict(state_dict=state), partial)


if __name__ == '__main__':
    entry.run(main, make_parser())
