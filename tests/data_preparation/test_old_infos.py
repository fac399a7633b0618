"""Info files of the old format are told from their beginning."""

import pickle

import numpy as np
import pytest

from projects.cmt_aqr.data_preparation.old_infos import check_old, is_old

SIZES = {'l, w': [4.6, 1.9, 1.7], 'w, l': [1.9, 4.6, 1.7]}


def old_infos(order: str, names: tuple[str, ...] = ('car', 'pedestrian')) -> dict:
    boxes = np.array([[0, 0, 0, *SIZES[order], 0], [0, 0, 0, *SIZES['w, l'], 0]])
    sample = dict(gt_boxes=boxes, gt_names=np.array(names))
    return dict(infos=[sample, {}], metadata=dict(version='v1.0-mini'))


@pytest.mark.parametrize('protocol', [0, 2, 4, 5])
@pytest.mark.parametrize(
    ('content', 'old'),
    [
        (old_infos('l, w'), True),
        (dict(reversed(old_infos('l, w').items())), True),
        (dict(metainfo=dict(infos=1), data_list=[]), False),
        (dict(data_list=[dict(infos=1)], metainfo={}), False),
        ([], False),
        ({}, False),
    ],
)
def test_formats(tmp_path, content, old, protocol):
    file = tmp_path / 'infos.pkl'
    file.write_bytes(pickle.dumps(content, protocol))
    assert is_old(file) is old


@pytest.mark.parametrize('content', [b'', b'no pickle', pickle.dumps(old_infos('l, w'))[:12]])
def test_other_files(tmp_path, content):
    (tmp_path / 'infos.pkl').write_bytes(content)
    assert not is_old(tmp_path / 'infos.pkl')


@pytest.mark.parametrize('names', [('car', 'pedestrian'), ('pedestrian', 'pedestrian')])
def test_boxes_as_they_should_be(tmp_path, names):
    check_old(old_infos('l, w', names), tmp_path)
    check_old(dict(old_infos('l, w'), infos=[]), tmp_path)


def test_boxes_of_before_1_0(tmp_path):
    with pytest.raises(
        ValueError,
        match=r'before 1\.0, .*new info files: python tools/create_data\.py ROOT --version v',
    ):
        check_old(old_infos('w, l'), tmp_path)


@pytest.mark.parametrize('content', [[1], dict(infos=[], metadata={}), dict(infos=[])])
def test_other_contents(tmp_path, content):
    with pytest.raises(ValueError, match="must hold infos and metadata with nuScenes' version"):
        check_old(content, tmp_path)
