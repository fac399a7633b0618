"""`save_best` with the short names of scores, by the checkpoint hook of every config."""

import pytest
from mmengine.config import Config
from mmengine.evaluator import BaseMetric
from mmengine.hooks import CheckpointHook
from toy_runner import make_runner

from projects.cmt_aqr.hooks import ScoreNamesHook


class Scores(BaseMetric):
    """Scores under the names of MMDetection3D's NuScenesMetric, different in each epoch."""

    default_prefix = 'NuScenes metric'

    def __init__(self) -> None:
        super().__init__()
        self.epoch = 0

    def process(self, data_batch, data_samples) -> None:
        self.results.append(None)

    def compute_metrics(self, results: list) -> dict[str, float]:
        self.epoch += 1
        scores = {'NDS': (0.2, 0.5, 0.3), 'mAP': (0.1, 0.2, 0.4)}
        return {
            f'pred_instances_3d_NuScenes/{name}': values[self.epoch - 1]
            for name, values in scores.items()
        }


@pytest.mark.parametrize(('name', 'best'), [('NDS', 2), ('mAP', 3)])
def test_save_best_takes_the_short_name(repo_root, tmp_path, name, best):
    config = Config.fromfile(repo_root / 'configs/_base_/default_runtime.py')
    options = {**config.default_hooks.checkpoint, 'save_best': name}
    del options['type']
    runner = make_runner(
        tmp_path, epochs=3, custom_hooks=[ScoreNamesHook(), CheckpointHook(**options)]
    )
    runner._val_evaluator = [Scores()]
    # The Runner's own checkpoints go by a count that this metric has not.
    runner._hooks = [hook for hook in runner.hooks if getattr(hook, 'save_best', None) != ['count']]
    runner.train()
    assert [path.name for path in tmp_path.glob('best_*')] == [f'best_{name}_epoch_{best}.pth']
