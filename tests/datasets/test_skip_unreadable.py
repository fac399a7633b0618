"""Samples that cannot be read are left out and counted, where the config says so."""

from pathlib import Path

import pytest
from mmdet3d.registry import DATASETS
from mmengine.config import Config
from mmengine.fileio import dump, load
from torch.utils.data import DataLoader, Dataset

from projects.cmt_aqr.cli.arguments import datasets_of
from projects.cmt_aqr.datasets import SkipUnreadable
from projects.cmt_aqr.datasets.reading import DamagedFileError, MissingFileError


@DATASETS.register_module()
class Numbers(Dataset):
    """Numbers, some of which cannot be read."""

    metainfo = dict(classes=('number',))

    def __init__(self, *, bad: tuple[int, ...] = (), size: int = 6, test_mode: bool = False):
        self.bad = bad
        self.size = size
        self.test_mode = test_mode

    def __len__(self) -> int:
        return self.size

    def __getitem__(self, index: int) -> int:
        if index in self.bad:
            raise DamagedFileError(f'sample {index}: cloud {index}.bin cannot be read')
        return index


def numbers(max_skipped: int = 100, **options) -> SkipUnreadable:
    return SkipUnreadable(dataset=dict(type='Numbers', **options), max_skipped=max_skipped)


@pytest.fixture
def warnings(monkeypatch) -> list[str]:
    """What the wrapper logs."""
    lines = []
    monkeypatch.setattr(
        'projects.cmt_aqr.datasets.skip_unreadable.print_log', lambda line, **_: lines.append(line)
    )
    return lines


def test_the_next_sample_takes_the_place(warnings):
    dataset = numbers(bad=(1, 2, 5))
    assert [dataset[index] for index in range(6)] == [0, 3, 3, 3, 4, 0]
    assert warnings == [
        f'left out, {count} of at most 100: sample {index}: cloud {index}.bin cannot be read'
        for count, index in enumerate([1, 2, 2, 5], start=1)
    ]


def test_it_is_a_dataset_as_the_one_inside():
    dataset = numbers()
    assert len(dataset) == 6
    assert dataset.metainfo == Numbers.metainfo


def test_more_than_allowed_stop_the_run(warnings):
    dataset = numbers(bad=(1, 3), max_skipped=1)
    assert dataset[1] == 2
    with pytest.raises(RuntimeError, match=r'^2 times .*max_skipped=1; the last: sample 3: cloud'):
        dataset[3]


def test_a_disk_that_is_gone_stops_the_run():
    with pytest.raises(RuntimeError, match='101 times a sample could not be read'):
        numbers(bad=tuple(range(6)))[0]


def test_workers_count_together():
    loader = DataLoader(numbers(bad=(1, 4), max_skipped=1), num_workers=2, batch_size=1)
    with pytest.raises(RuntimeError, match='2 times a sample could not be read'):
        list(loader)


def test_other_errors_are_none_of_its_business():
    with pytest.raises(TypeError):
        numbers(bad=None)[0]


def test_a_test_leaves_nothing_out():
    with pytest.raises(ValueError, match='a test scores every sample'):
        numbers(test_mode=True)


def test_as_a_config_has_it(repo_root, synthetic_root, tmp_path):
    """Round class-balanced samples, as full-size models have them; one of them has no cloud."""
    annotations = load(synthetic_root / 'nuscenes_infos_train.pkl')
    lost = annotations['data_list'][0]
    lost['lidar_points']['lidar_path'] = 'gone.bin'
    dump(annotations, tmp_path / 'infos.pkl')
    mine = tmp_path / 'mine.py'
    mine.write_text(
        f"_base_ = '{repo_root}/configs/cmt/cmt_tiny_synthetic.py'\n"
        "plain = dict(type='CBGSDataset', dataset=_base_.train_dataloader.dataset)\n"
        "wrapped = dict(_delete_=True, type='SkipUnreadable', dataset=plain)\n"
        'train_dataloader = dict(dataset=wrapped)\n'
    )
    cfg = Config.fromfile(mine)
    (inner,) = datasets_of(cfg, 'train_dataloader')
    inner.update(
        data_root=str(synthetic_root),
        ann_file=str(tmp_path / 'infos.pkl'),
        filter_empty_gt=False,
        pipeline=[cfg.load_inputs[0], dict(type='Pack3DDetInputs', keys=['points'])],
    )
    dataset = DATASETS.build(cfg.train_dataloader.dataset)
    dataset.full_init()
    inside = dataset.dataset
    tokens = [inside.get_data_info(index)['token'] for index in range(len(inside))]
    index = tokens.index(lost['token'])
    with pytest.raises(MissingFileError, match=rf'sample {lost["token"]}: cloud .*gone\.bin does'):
        inside[index]
    after = next(token for token in (tokens[index:] + tokens) if token != lost['token'])
    taken = Path(dataset[index]['data_samples'].lidar_path).name
    (expected,) = (info for info in annotations['data_list'] if info['token'] == after)
    assert taken == expected['lidar_points']['lidar_path']
