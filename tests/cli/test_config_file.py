"""Variables of a config: a change of one has all of its effect, or is refused."""

from pathlib import Path

import pytest
from mmengine.config import Config

from projects.cmt_aqr.cli.config_checks import check_config
from projects.cmt_aqr.cli.config_file import read_config_file
from projects.cmt_aqr.usage_error import UsageError

BASE = """
work_dir = 'there'
data_root = 'data/'
max_epochs = 4
settings = dict(depth=1, width=2)
unused_here = 1
train_dataloader = dict(dataset=dict(data_root=data_root, ann_file=data_root + 'a.pkl'))
train_cfg = dict(max_epochs=max_epochs, val_interval=max_epochs)
model = dict(neck=settings)
"""


@pytest.fixture
def folder(tmp_path) -> Path:
    (tmp_path / 'base.py').write_text(BASE)
    return tmp_path


def child(folder: Path, text: str) -> Path:
    path = folder / 'child.py'
    path.write_text(f"_base_ = './base.py'\n{text}")
    return path


def test_a_variable_of_the_command_line_changes_what_is_computed_from_it(folder):
    options = {'data_root': '/mine/', 'settings.width': 5, 'train_cfg.val_interval': 1}
    cfg = read_config_file(child(folder, 'max_epochs = 4\n'), options)
    assert cfg.data_root == '/mine/'
    assert cfg.train_dataloader.dataset == dict(data_root='/mine/', ann_file='/mine/a.pkl')
    assert cfg.model.neck == cfg.settings == dict(depth=1, width=5)
    assert cfg.train_cfg == dict(max_epochs=4, val_interval=1)


def test_a_variable_of_several_files_changes_in_all_of_them(folder):
    path = child(folder, 'max_epochs = 2\ntrain_cfg = dict(max_epochs=max_epochs)\n')
    with pytest.raises(UsageError, match=r'max_epochs is changed, .* in train_cfg\.val_interval:'):
        read_config_file(path, {})
    path = child(
        folder, 'max_epochs = 2\ntrain_cfg = dict(max_epochs=2, val_interval=max_epochs)\n'
    )
    assert read_config_file(path, {}).train_cfg == dict(max_epochs=2, val_interval=2)


def test_a_variable_changed_by_a_child_without_what_depends_on_it_is_refused(folder):
    with pytest.raises(
        UsageError,
        match=r'child\.py: data_root is changed, but its base has already used the old value in '
        r'train_dataloader\.dataset\.data_root, train_dataloader\.dataset\.ann_file: ',
    ):
        read_config_file(child(folder, "data_root = '/mine/'\n"), {})
    path = child(
        folder,
        "data_root = '/mine/'\ntrain_dataloader = dict(dataset=dict(data_root=data_root, "
        "ann_file=data_root + 'a.pkl'))\n",
    )
    assert read_config_file(path, {}).train_dataloader.dataset.ann_file == '/mine/a.pkl'


def test_a_name_without_effect_is_refused_in_a_config_but_not_in_its_base(folder):
    assert read_config_file(child(folder, ''), {}).unused_here == 1
    with pytest.raises(UsageError, match=r'depht has no effect, since nothing reads it'):
        read_config_file(child(folder, 'depht = 3\n'), {})
    with pytest.raises(UsageError, match=r'--cfg-options unused_here: unused_here has no effect'):
        read_config_file(child(folder, ''), {'unused_here': 2})
    (folder / 'base.py').write_text(f'{BASE}custom_hook = []\n')
    with pytest.raises(UsageError, match=r'custom_hook has .*; did you mean custom_hooks\?'):
        read_config_file(child(folder, ''), {})


def test_a_config_that_a_run_has_saved_is_read_again(folder):
    cfg = read_config_file(child(folder, ''), {})
    cfg.launcher = 'none'
    cfg.dump(folder / 'saved.py')
    assert read_config_file(folder / 'saved.py', {}).to_dict() == cfg.to_dict()


def test_a_base_variable_in_braces_counts_as_read(folder):
    path = child(folder, 'resume = False\nload_from = {{_base_.unused_here}}\n')
    assert read_config_file(path, {'unused_here': 7}).load_from == 7


@pytest.mark.slow
def test_no_config_of_this_project_is_refused(repo_root):
    for path in sorted(repo_root.glob('configs/cmt*/*.py')):
        cfg = read_config_file(path, {})
        check_config(cfg)
        assert cfg.to_dict() == Config.fromfile(path).to_dict()


def test_a_piece_that_the_child_uses_itself_may_differ_from_the_base(folder):
    own = 'settings = dict(depth=7)\n'
    with pytest.raises(UsageError, match=r'settings is changed, .* in model\.neck\.depth:'):
        read_config_file(child(folder, own), {})
    path = child(folder, f'{own}model = dict(head=settings)\n')
    assert read_config_file(path, {}).model == dict(neck=dict(depth=1, width=2), head=dict(depth=7))


@pytest.mark.slow
def test_max_epochs_of_the_command_line_counts_in_every_config(repo_root):
    ignored = []
    for path in sorted((repo_root / 'configs').glob('cmt*/*.py')):
        if 'max_epochs' in Config.fromfile(path).get('train_cfg', {}):
            cfg = read_config_file(path, {'max_epochs': 7})
            if cfg.train_cfg.max_epochs != 7:
                ignored.append(path.name)
    # These two stop before the end of their schedule.
    assert ignored == ['cmt_tiny_lidar_pretrain.py', 'cmt_tiny_synthetic_trainval.py']
