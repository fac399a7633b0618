"""Choice of a subset of validation frames."""

import json
from collections import defaultdict
from collections.abc import Sequence
from pathlib import Path

import numpy as np


def choose_frames(scenes: Sequence[str], count: int, seed: int) -> list[int]:
    """Choose frames at random, distributed evenly over the scenes.

    The numbers of frames of two scenes differ by at most one, unless a scene has fewer frames than
    its share. The same arguments always give the same frames.

    Args:
        scenes: scene of each frame.
        count: number of frames to choose.
        seed: seed of the random choice.

    Returns:
        Indices of the frames, ascending.

    Raises:
        ValueError: ``count`` is below 1 or above the number of frames.
    """
    if not 1 <= count <= len(scenes):
        raise ValueError(f'{count} frames asked for; it can be 1 to {len(scenes)}')
    rng = np.random.default_rng(seed)
    remaining = defaultdict(list)
    for index in rng.permutation(len(scenes)):
        remaining[scenes[index]].append(int(index))
    chosen: list[int] = []
    while len(chosen) < count:  # each round takes a frame of every scene
        for scene in list(remaining):
            chosen.append(remaining[scene].pop())
            if not remaining[scene]:
                del remaining[scene]
    return sorted(chosen[:count])


def scenes_of(tokens: Sequence[str], tables: Path) -> list[str]:
    """Scene token of every sample.

    Args:
        tokens: sample tokens.
        tables: folder of the database's tables, such as ``data/nuscenes/v1.0-trainval``.
    """
    samples = json.loads((tables / 'sample.json').read_text())
    scenes = {sample['token']: sample['scene_token'] for sample in samples}
    return [scenes[token] for token in tokens]
