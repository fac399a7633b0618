"""Relations between dotted names, and patterns of submodules."""

import pytest
from torch import nn

from projects.cmt_aqr.freezing.names import by_part, is_within, matching_submodules


def test_names_lie_within_whole_components():
    assert is_within('a.b', ('a',))
    assert is_within('a', ('b', 'a'))
    assert is_within('anything', ('',))
    assert not is_within('ab.c', ('a',))
    assert not is_within('a', ('a.b',))
    assert not is_within('a', ())


@pytest.mark.parametrize(
    ('pattern', 'found'),
    [
        ('img_*', ('img_backbone', 'img_backbone.0', 'img_backbone.norm1')),
        ('norm1', ('img_backbone.norm1', 'neck.norm1')),
        ('*.0', ('img_backbone.0',)),
    ],
)
def test_patterns_match_the_whole_name_or_its_end(pattern, found):
    model = nn.ModuleDict(
        {
            'img_backbone': nn.ModuleDict({'0': nn.ReLU(), 'norm1': nn.ReLU()}),
            'neck': nn.ModuleDict({'norm1': nn.ReLU()}),
        }
    )
    assert matching_submodules(model, [pattern], option='allow_unfilled') == found


def test_a_pattern_without_a_match_is_refused():
    message = r"^allow_unfilled 'neck' matches no submodule; Sequential contains 0$"
    with pytest.raises(ValueError, match=message):
        matching_submodules(nn.Sequential(nn.ReLU()), ['0', 'neck'], option='allow_unfilled')


def test_tensors_outside_all_parts_count_as_their_outermost_module():
    names = ['head.branch.weight', 'head.scale', 'neck.weight', 'head.branch.bias']
    assert by_part(names, ['head.branch', 'neck']) == {
        'head.branch': ['head.branch.weight', 'head.branch.bias'],
        'head': ['head.scale'],
        'neck': ['neck.weight'],
    }
