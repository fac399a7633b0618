"""The shared neighbour search changes neither outputs nor gradients."""

import torch
from mmdet3d.models import SparseEncoder
from spconv.pytorch import SubMConv3d

from projects.cmt_aqr.backbones import CmtSparseEncoder

CONFIG = {
    'in_channels': 5,
    'sparse_shape': [21, 32, 32],
    'output_channels': 16,
    'encoder_channels': ((16, 16, 16), (16, 16, 16), (16, 16, 16), (16, 16)),
    'encoder_paddings': ((0, 0, 1), (0, 0, 1), (0, 0, 1), (0, 0)),
    'block_type': 'basicblock',
}


def test_equals_the_parent_in_outputs_and_gradients():
    shared, plain = CmtSparseEncoder(**CONFIG), SparseEncoder(**CONFIG)
    plain.load_state_dict(shared.state_dict())
    coors = torch.cat([torch.randint(0, high, (400, 1)) for high in (2, 20, 32, 32)], dim=1)
    coors = coors.unique(dim=0)
    features = torch.randn(len(coors), 5)
    outputs = [encoder(features, coors, 2) for encoder in (shared, plain)]
    torch.testing.assert_close(*outputs, rtol=0, atol=0)
    for output in outputs:
        output.square().sum().backward()
    for (name, a), b in zip(shared.named_parameters(), plain.parameters(), strict=True):
        torch.testing.assert_close(a.grad, b.grad, msg=name)


def test_one_search_for_each_resolution():
    keys = [m.indice_key for m in CmtSparseEncoder(**CONFIG).modules() if isinstance(m, SubMConv3d)]
    assert None not in keys
    assert len(set(keys)) == len(CONFIG['encoder_channels'])
