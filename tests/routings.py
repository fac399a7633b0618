"""Routings of tiny size, of every form, and what they give with a back end."""

from dataclasses import replace

import torch

from projects.cmt_aqr.transformer import (
    AttentionBias,
    AttentionGate,
    AttentionMix,
    TokenGroups,
    WindowBias,
)

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
    """The router's, of -1 and 1 too."""
    weights = 2 * torch.rand(BATCH, QUERIES, len(GROUPS[grouping].sizes)) - 1
    weights[0, 0], weights[0, 1] = -1.0, 1.0
    return weights


def make_window(size, rows, sees, strength, *, first=0, gaussian=False):
    """A window for each (sample, query) in ``sees``, at random places, cut by the map's border.

    Cells outside of the map stand for its first token and add nothing, as the router has it.
    """
    sample, query = torch.tensor(sees).T
    place = torch.stack(
        [torch.randint(-1, rows, sample.shape), torch.randint(-1, SIDE, sample.shape)], dim=-1
    )
    steps = torch.cartesian_prod(torch.arange(size), torch.arange(size)) - (size - 1) // 2
    cells = place[:, None] + steps
    inside = ((cells >= 0) & (cells < torch.tensor([rows, SIDE]))).all(dim=-1)
    token = first + (cells[..., 0] * SIDE + cells[..., 1]) * inside
    shape = torch.exp(-steps.square().sum(-1) / 4) if gaussian else torch.ones(len(steps))
    return WindowBias(sample, query, token, strength[sample, query, None] * shape * inside)


def make_windows(weights, **options):
    """On the BEV map for all queries, which are seen by none, one or two cameras."""
    everyone = [(sample, query) for sample in range(BATCH) for query in range(QUERIES)]
    windows = [make_window(3, SIDE, everyone, 5 * weights[..., 0], **options)]
    for camera, least in enumerate((1, 2)):
        sees = [(sample, query) for sample, query in everyone if query % 3 >= least]
        strength = 5 * weights[..., min(1 + camera, weights.shape[-1] - 1)]
        first = SIZES[0] + camera * SIZES[1]
        windows.append(make_window(2, 4, sees, strength, first=first, **options))
    return tuple(windows)


def make_bias(grouping='modality', *, everywhere=True, windows=False, gaussian=False):
    """As the router makes it with all scales at 5; with both scopes it is beyond the limit."""
    weights = make_weights(grouping)
    return AttentionBias(
        5 * weights * everywhere,
        GROUPS[grouping],
        make_windows(weights, gaussian=gaussian) if windows else (),
        5.0,
    )


def make_gate(grouping='modality'):
    return AttentionGate(1 + make_weights(grouping), GROUPS[grouping])


def make_mix(grouping='modality'):
    return AttentionMix(
        5 * make_weights(grouping), GROUPS[grouping], 1 + 3 * torch.rand(HEADS), 5.0
    )


def leaves_of(routing):
    """What of a routing can be trained, by name."""
    if isinstance(routing, AttentionGate):
        return {'gains': routing.gains}
    if isinstance(routing, AttentionMix):
        return {'bias': routing.bias, 'temperature': routing.temperature}
    added = {f'added{i}': window.added for i, window in enumerate(routing.windows)}
    return {'everywhere': routing.everywhere, **added}


def with_leaves(routing, leaves):
    if not isinstance(routing, AttentionBias):
        return routing._replace(**leaves)
    # Outside of the map nothing is added, whatever is learned.
    windows = [
        window._replace(added=leaves[f'added{i}'] * (window.added != 0))
        for i, window in enumerate(routing.windows)
    ]
    return replace(routing, everywhere=leaves['everywhere'], windows=tuple(windows))


def run(attention, inputs, routing, present=None, train='all'):
    """The output, and the gradient of all that is trained, by name."""
    inputs = {name: x.detach().clone() for name, x in inputs.items()}
    leaves = {name: x.detach().clone() for name, x in leaves_of(routing).items()}
    trained = {**(inputs if train != 'routing' else {}), **(leaves if train != 'inputs' else {})}
    for x in trained.values():
        x.requires_grad_()
    out = attention(**inputs, routing=with_leaves(routing, leaves), present=present)
    upstream = torch.linspace(-9, 9, out.numel()).sin().view_as(out)
    gradients = torch.autograd.grad((out * upstream).sum(), list(trained.values()))
    gradients = dict(zip(trained, gradients, strict=True))
    added = [gradients.pop(name).flatten() for name in trained if name.startswith('added')]
    return out.detach(), {**gradients, **({'added': torch.cat(added)} if added else {})}
