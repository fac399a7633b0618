"""Which validation frames are scored when not all are."""

import json
from collections import defaultdict
from collections.abc import Sequence
from pathlib import Path

import numpy as np


def choose_frames(scenes: Sequence[str], count: int, seed: int) -> list[int]:
    """Choose frames at random, of every scene as many as of any other, or one more or fewer.

    A scene that has too few gives what it has. The choice depends on the arguments alone.

    Args:
        scenes: of every frame, its scene.
        count: how many frames.
        seed: another one gives other frames.

    Returns:
        Indices of the frames, ascending.

    Raises:
        ValueError: fewer than one frame is asked for, or more than there are.
    """
    if not 1 <= count <= len(scenes):
        raise ValueError(f'{count} frames asked for; it can be 1 to {len(scenes)}')
    rng = np.random.default_rng(seed)
    remaining = defaultdict(list)
    for index in rng.permutation(len(scenes)):
        remaining[scenes[index]].append(int(index))
    chosen: list[int] = []
    while len(chosen) < count:  # one of each scene a round; in the last, of some
        for scene in list(remaining):
            chosen.append(remaining[scene].pop())
            if not remaining[scene]:
                del remaining[scene]
    return sorted(chosen[:count])


def scenes_of(tokens: Sequence[str], tables: Path) -> list[str]:
    """Scene token of every sample.

    Args:
        tokens: of the samples.
        tables: folder of the database's tables, such as ``data/nuscenes/v1.0-trainval``.
    """
    samples = json.loads((tables / 'sample.json').read_text())
    scenes = {sample['token']: sample['scene_token'] for sample in samples}
    return [scenes[token] for token in tokens]
