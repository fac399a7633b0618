"""One name of a sample for all messages, packed or not."""

import pytest
from mmdet3d.structures import Det3DDataSample

from projects.cmt_aqr.samples import sample_name, sample_names

NAMES = [(dict(token='a', sample_idx=3), 'a'), (dict(sample_idx=3), '3'), ({}, 'unnamed')]


@pytest.mark.parametrize(('meta', 'name'), NAMES)
def test_names(meta, name):
    assert sample_name(meta) == name
    assert sample_names([meta, Det3DDataSample(metainfo=meta)]) == [name] * 2
