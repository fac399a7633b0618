"""Tiny routing requests of every form, and their outputs and gradients with a back end."""

from copy import deepcopy

import torch

from projects.cmt_aqr.aqr import Windows
from projects.cmt_aqr.transformer import BiasRouting, GateRouting, MixRouting, TokenGroups

BATCH, HEADS, QUERIES, WIDTH = 2, 4, 7, 8
SIDE, CAMERAS = 6, 3  # the BEV map is 6 x 6, each of the images 4 x 6
SIZES = (SIDE * SIDE, *[4 * SIDE] * CAMERAS)
TOKENS = sum(SIZES)
GROUPS = {
    'modality': TokenGroups.of([SIZES[0], sum(SIZES[1:])]),
    'camera': TokenGroups.of(SIZES),
}


def make_inputs(spread=1.0):
    """Queries, keys and values, by name; ``spread`` is the standard deviation of the logits."""
    q = torch.randn(BATCH, HEADS, QUERIES, WIDTH) * spread
    k, v = torch.randn(2, BATCH, HEADS, TOKENS, WIDTH)
    return {'q': q, 'k': k, 'v': v}


def make_weights(grouping='modality'):
    """Random weights of a router, among them -1 and 1."""
    weights = 2 * torch.rand(BATCH, QUERIES, len(GROUPS[grouping].sizes)) - 1
    weights[0, 0], weights[0, 1] = -1.0, 1.0
    return weights


def make_window(size, rows, sees, *, group, first):
    """A window for each (sample, query) in ``sees``, at random places, cut by the map's border."""
    sample, query = torch.tensor(sees).T
    place = torch.stack(
        [torch.randint(-1, rows, sample.shape), torch.randint(-1, SIDE, sample.shape)], dim=-1
    )
    steps = torch.cartesian_prod(torch.arange(size), torch.arange(size)) - (size - 1) // 2
    cells = place[:, None] + steps
    inside = ((cells >= 0) & (cells < torch.tensor([rows, SIDE]))).all(dim=-1)
    token = first + (cells[..., 0] * SIDE + cells[..., 1]) * inside
    group = torch.full_like(sample, group)
    return Windows(sample, query, group, token, inside, torch.zeros(*token.shape, 2))


def make_windows():
    """On the BEV map for all queries, which are seen by none, one or two cameras."""
    everyone = [(sample, query) for sample in range(BATCH) for query in range(QUERIES)]
    windows = [make_window(3, SIDE, everyone, group=0, first=0)]
    for camera, least in enumerate((1, 2)):
        sees = [(sample, query) for sample, query in everyone if query % 3 >= least]
        first = SIZES[0] + camera * SIZES[1]
        windows.append(make_window(2, 4, sees, group=1 + camera, first=first))
    return tuple(windows)


def make_bias(grouping='modality', scope='global', weights=None):
    """All scales are 5, so that the bias of both scopes is beyond the limit."""
    form = BiasRouting(num_heads=HEADS, scope=scope, initial_scale=5.0)
    windows = () if scope == 'global' else make_windows()
    weights = make_weights(grouping) if weights is None else weights
    return form(weights, groups=GROUPS[grouping], windows=windows)


def make_gate(grouping='modality'):
    return GateRouting(num_heads=HEADS)(make_weights(grouping), groups=GROUPS[grouping])


def make_mix(grouping='modality'):
    form = MixRouting(num_heads=HEADS, initial_scale=5.0)
    torch.nn.init.uniform_(form.temperature, 1, 4)
    return form(make_weights(grouping), groups=GROUPS[grouping])


def run(attention, inputs, routing, token_mask=None, train='all'):
    """The output, and by name the gradients of the inputs, of the routing, or of all."""
    inputs = {name: x.detach().clone() for name, x in inputs.items()}
    form, weights = deepcopy(routing.form), routing.weights.detach().clone()
    trained = {} if train == 'routing' else dict(inputs)
    if train != 'inputs':
        trained |= {'weights': weights, **dict(form.named_parameters())}
    for parameter in form.parameters():
        parameter.requires_grad_(train != 'inputs')
    for x in trained.values():
        x.requires_grad_()
    request = form(weights, groups=routing.groups, windows=routing.windows)
    out = attention(**inputs, routing=request, token_mask=token_mask)
    upstream = torch.linspace(-9, 9, out.numel()).sin().view_as(out)
    gradients = torch.autograd.grad((out * upstream).sum(), list(trained.values()))
    return out.detach(), dict(zip(trained, gradients, strict=True))
