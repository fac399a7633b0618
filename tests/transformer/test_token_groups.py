"""Groups of tokens: index, codes, and which groups a sample has tokens of."""

import torch

from projects.cmt_aqr.transformer import TokenGroups

GROUPS = TokenGroups.of([2, 0, 3])


def test_index_and_codes():
    assert GROUPS.num_tokens == 5
    assert GROUPS.index.tolist() == [0, 0, 2, 2, 2]
    codes = GROUPS.one_hot(like=torch.zeros(1, dtype=torch.half))
    assert codes.dtype == torch.half
    assert codes.tolist() == [[1, 0, 0]] * 2 + [[0, 0, 1]] * 3


def test_groups_of_which_a_sample_has_a_token():
    assert GROUPS.valid(None).tolist() == [[[[True, False, True]]]]
    token_mask = torch.tensor([[True, False, False, True, False], [False, False, True, True, True]])
    result = GROUPS.valid(token_mask)
    assert result.shape == (2, 1, 1, 3)
    assert result[:, 0, 0].tolist() == [[True, False, True], [False, False, True]]
