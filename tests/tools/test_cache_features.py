"""tools/cache_features.py fills a cache; errors name their remedy."""

import itertools
import runpy
import sys

import pytest
from mmengine.config import Config

CONFIG = 'configs/cmt_aqr/cmt_aqr_tiny_synthetic_cached.py'
_NUMBER = itertools.count()


@pytest.fixture
def run(repo_root, monkeypatch, capsys, tmp_path):
    """Run the tool in this process, from the root of the checkout; returns its stderr."""
    # yapf takes longer to format the config than everything else.
    monkeypatch.setattr(Config, 'pretty_text', property(lambda cfg: f'{cfg.to_dict()}'))

    def run(*arguments: str, config: str = CONFIG, expect: int | None = None) -> str:
        monkeypatch.chdir(repo_root)
        options = ['--work-dir', str(tmp_path / 'run'), '--cfg-options', *arguments]
        options.append(f'experiment_name=filling_{next(_NUMBER)}')
        monkeypatch.setattr(sys, 'argv', ['cache_features.py', config, *options])
        if expect is None:
            runpy.run_path('tools/cache_features.py', run_name='__main__')
        else:
            with pytest.raises(SystemExit) as exit_status:
                runpy.run_path('tools/cache_features.py', run_name='__main__')
            assert exit_status.value.code == expect
        return capsys.readouterr().err

    return run


@pytest.fixture
def here(synthetic_root, tmp_path) -> list[str]:
    """Options for the data and a cache of this test."""
    loaders = ('train_dataloader', 'val_dataloader')
    return [
        f'feature_cache.directory={tmp_path / "features"}',
        *(f'{name}.dataset.data_root={synthetic_root}' for name in loaders),
        *(f'{name}.num_workers=0' for name in loaders),
        *(f'{name}.persistent_workers=False' for name in loaders),
        'model.fast_path=None',
    ]


def test_training_and_validation_data_are_cached(run, here, tmp_path):
    run(*here)
    folders = sorted(path.name for path in (tmp_path / 'features').iterdir())
    assert folders == ['img_backbone', 'pts_backbone']
    files = [path for path in (tmp_path / 'features').rglob('*') if path.is_file()]
    # Six samples of each, some without a sensor in one of four draws; six of the other.
    assert 24 < len(files) <= 6 + 1 + 6 + 6 + 12
    assert {path.suffix for path in files} == {'.safetensors'}


def test_too_little_room_is_an_error(run, here):
    error = run(*here, 'feature_cache.max_gigabytes=1e-6', expect=2)
    assert 'but max_gigabytes is 1e-06: raise it' in error.splitlines()[-1]


def test_a_config_without_a_cache_is_told_how_to_add_it(run):
    error = run('randomness.seed=1', config='configs/cmt_aqr/cmt_aqr_tiny_synthetic.py', expect=2)
    assert 'to add it: --cfg-options feature_cache.directory=work_dirs/features' in error


def test_backbones_without_weights_are_refused(run, here):
    error = run(*here, 'load_from=None', expect=2)
    assert 'has no load_from: name the checkpoint of the frozen backbones' in error
