"""Which options docs/configuration.md demands of a config."""

import runpy
from collections.abc import Iterator

import pytest
from mmengine.config import Config


@pytest.fixture(scope='module')
def tool(repo_root) -> dict:
    return runpy.run_path(str(repo_root / 'tools/document_options.py'))


def typed(value) -> Iterator[dict]:
    """Every dictionary with a type inside a config."""
    if isinstance(value, dict):
        if isinstance(value.get('type'), str):
            yield value
        value = list(value.values())
    if isinstance(value, (list, tuple)):
        for item in value:
            yield from typed(item)


def test_shipped_configs_give_what_is_required_and_nothing_that_is_set(tool, repo_root):
    """Of the released sizes, the tiny models and the image branch's training."""
    columns = {
        cls.__name__: {option.name: option.default for option in tool['options_of'](cls)}
        for cls in tool['configurable_classes']()
    }
    seen = set()
    for path in repo_root.glob('configs/*/*_cbgs.py'):
        for given in typed(Config.fromfile(path).to_dict()):
            options = columns.get(given['type'], {})
            required = {name for name, default in options.items() if default == 'required'}
            # Each split of a dataset has its `ann_file`; the detector gives its head the range.
            required -= {'ann_file', 'point_cloud_range'}
            assert required <= set(given), (path.name, given['type'])
            set_by = {name for name, default in options.items() if default.startswith('set by')}
            assert not set_by & set(given), (path.name, given['type'])
            seen.add(given['type'])
    assert {'CmtDetector', 'CmtHead', 'AdaptiveQueryRouter', 'GateRouting'} <= seen


def test_nested_options_that_the_code_sets_are_not_required(tool):
    """The head, the detector and `feature_cache` build these without a `type` in a config."""
    for cls in tool['NESTED']:
        assert 'required' not in {option.default for option in tool['options_of'](cls)}, cls


def test_an_option_that_is_set_exists(tool):
    for classes in tool['SET_BY'].values():
        for cls, names in classes.items():
            assert set(names) <= {option.name for option in tool['options_of'](cls)}, cls
