"""What tools/test.py makes of its arguments, before anything is built."""

import runpy

import pytest

CONFIG = 'configs/cmt/cmt_tiny_synthetic.py'
WEIGHTS = 'projects/cmt_aqr/weights/cmt_tiny_synthetic.pth'


@pytest.fixture
def tested(repo_root, synthetic_root, monkeypatch):
    """The config that is scored."""

    def tested(*arguments: str):
        monkeypatch.chdir(repo_root)
        tool = runpy.run_path('tools/test.py')
        seen = []
        monkeypatch.setitem(
            tool['main'].__globals__, 'score', lambda cfg, **options: seen.append(cfg)
        )
        data = f'test_dataloader.dataset.data_root={synthetic_root}'
        parser = tool['make_parser']()
        tool['main'](parser.parse_args([CONFIG, WEIGHTS, *arguments, '--cfg-options', data]))
        (cfg,) = seen
        return cfg

    return tested


@pytest.mark.parametrize(
    ('arguments', 'failures'),
    [
        ((), []),
        (('--drop', 'lidar'), ['LidarDrop']),
        (('--drop', 'camera'), ['CameraDrop']),
        (('--failure', 'fog_2'), ['Fog']),
    ],
)
def test_a_failure_stands_before_the_loading_of_the_whole_samples(tested, arguments, failures):
    cfg = tested(*arguments)
    steps = [step.type for step in cfg.test_dataloader.dataset.pipeline]
    plain = [step.type for step in tested().test_dataloader.dataset.pipeline]
    assert steps == [*failures, *plain]
    assert cfg.load_from == WEIGHTS
    assert not cfg.resume
