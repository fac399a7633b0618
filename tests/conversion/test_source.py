"""Files from elsewhere: where their weights are found, and what is not read."""

import fractions

import numpy as np
import pytest
import torch
from mmengine.logging import HistoryBuffer
from published_files import save

from projects.cmt_aqr.conversion import ConversionError, read_source

STATE = {'a.weight': torch.arange(6.0).view(2, 3), 'a.bias': torch.ones(2)}


@pytest.mark.parametrize(
    ('form', 'found_under', 'beside', 'was_wrapped'),
    [
        ('bare', '', (), False),
        ('state_dict', 'state_dict', ('meta', 'optimizer'), False),
        ('model', 'model', ('meta', 'optimizer'), False),
        ('module', 'state_dict', ('meta', 'optimizer'), True),
    ],
)
def test_where_weights_are_found(tmp_path, form, found_under, beside, was_wrapped):
    source = read_source(save(tmp_path / 'file.pth', STATE, form=form))
    assert source.state.keys() == STATE.keys()
    torch.testing.assert_close(source.state, STATE, rtol=0, atol=0)
    assert (source.found_under, source.beside) == (found_under, beside)
    assert source.was_wrapped is was_wrapped


def test_wrappers_within_wrappers_and_arrays(tmp_path):
    path = tmp_path / 'file.pth'
    torch.save({'model': {'module.module.a': np.ones(2, dtype=np.float32)}}, path)
    state = read_source(path).state
    torch.testing.assert_close(state['a'], torch.ones(2))


def test_logs_of_a_run_of_this_project_are_let_through_as_data(tmp_path):
    path = tmp_path / 'epoch_1.pth'
    torch.save({'state_dict': STATE, 'message_hub': HistoryBuffer([1.0], [1])}, path)
    assert read_source(path).beside == ('message_hub',)


def test_a_file_that_would_run_code_is_refused_with_what_to_do(tmp_path):
    path = tmp_path / 'file.pth'
    torch.save({'state_dict': STATE, 'meta': fractions.Fraction(1, 2)}, path)
    with pytest.raises(ConversionError) as error:
        read_source(path)
    message = str(error.value)
    assert 'holds more than weights: to read its fractions.Fraction' in message
    assert f"torch.load('{path}', map_location='cpu', weights_only=False)" in message


@pytest.mark.parametrize('content', [b'', b'hello world', b'PK\x03\x04 half a file'])
def test_a_file_of_another_kind(tmp_path, content):
    path = tmp_path / 'file.pth'
    path.write_bytes(content)
    with pytest.raises(ConversionError, match=r'file.pth cannot be read as a PyTorch checkpoint'):
        read_source(path)


@pytest.mark.parametrize(
    ('content', 'message'),
    [
        ([1, 2], 'holds a list; a checkpoint is a dict of tensors, bare or under'),
        ({}, 'must hold tensors by name, but holds nothing'),
        ({'net': STATE, 'epoch': 3}, "but holds 'net': dict, 'epoch': int; weights are looked for"),
        ({'state_dict': {**STATE, 'x': 1}}, "entry 'state_dict' must hold .* but holds 'x': int"),
        ({'a': torch.ones(1), 'module.a': torch.ones(1)}, 'under one name: module.a'),
    ],
)
def test_no_weights_where_they_are_looked_for(tmp_path, content, message):
    path = tmp_path / 'file.pth'
    torch.save(content, path)
    with pytest.raises(ConversionError, match=message):
        read_source(path)
