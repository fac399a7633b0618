"""A made-up comparison of models under sensor failures."""

import numpy as np

from projects.cmt_aqr.datasets.failures.suite import Row
from projects.cmt_aqr.evaluation.records import Record
from projects.cmt_aqr.evaluation.robustness import Comparison, ModelResult, kept_scores

ROWS = [
    Row('fog', dict(type='Fog'), (1, 2), 'No depth map.'),
    Row('drop', dict(type='LidarDrop'), (1,)),
]
_CONDITIONS = {'clean': 0.5, 'fog_1': 0.4, 'fog_2': 0.2, 'drop_1': 0.3}


def make_comparison(*names: str, draws: int = 200) -> Comparison:
    """The n-th model has n points more than the first everywhere; the third has one sensor."""
    return Comparison(
        models=[_model(name, index, draws) for index, name in enumerate(names)],
        rows=ROWS,
        frames=40,
        seed=3,
    )


def _model(name: str, index: int, draws: int) -> ModelResult:
    scores = {
        condition: np.array([nds + 0.1, nds]) + 0.01 * index
        for condition, nds in _CONDITIONS.items()
    }
    rng = np.random.default_rng(index)
    resampled = {
        condition: score[:, None] + rng.normal(0, 0.01, (2, draws))
        for condition, score in scores.items()
    }
    return ModelResult(
        name=name,
        records={condition: _record(condition, scores[condition], index) for condition in scores},
        kept=kept_scores(scores, ROWS),
        draws=kept_scores(resampled, ROWS),
    )


def _record(condition: str, scores: np.ndarray, index: int) -> Record:
    attention = dict(lidar_share=0.4 + 0.1 * index, gap=31.25, leverage=0.05)
    if index == 1:
        attention |= dict(w_lidar=-0.5, w_camera=0.25)
    return Record(
        condition=condition,
        made_of=dict(
            config='c.py',
            checkpoint='w.pth',
            checkpoint_sha256='ab' * 32,
            commit='f' * 40,
            changed=index == 1,
        ),
        scores=dict(zip(('mAP', 'NDS'), map(float, scores), strict=True)),
        attention={} if index == 2 else attention,
    )
