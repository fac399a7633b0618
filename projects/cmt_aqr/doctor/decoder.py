"""Check of a training step of decoder and router on random features against float64.

Shapes: B batch, Q queries, K tokens, C channels.
"""

import torch
from torch import Tensor, nn

from ..aqr import AQRWeightGenerator, TokenLayout, Windows
from ..transformer import BiasRouting, CmtTransformer
from .decoder_inputs import SIZES, random_windows
from .result import Comparison, Result, name_of, norm_error, rounding

LEARNING_RATE = 1e-3
# Scale of the loss, since float16 has no numbers below 6e-8; a power of two adds no rounding.
LOSS_SCALE = 2.0**12


class RoutedDecoder(nn.Module):
    """A router and a decoder of two layers, without dropout."""

    def __init__(
        self,
        layout: TokenLayout,
        *,
        channels: int = 256,
        num_heads: int = 8,
        attention: str = 'auto',
        scope: str = 'both',
    ) -> None:
        super().__init__()
        self.layout = layout
        self.weight_generator = AQRWeightGenerator(channels)
        # At zero, their initial value, the layers before them would get no gradient.
        for linear in self.weight_generator.to_weight.values():
            nn.init.normal_(linear.weight, std=0.05)
        self.form = BiasRouting(num_heads=num_heads, scope=scope)
        self.decoder = CmtTransformer(
            channels, num_layers=2, num_heads=num_heads, dropout=0.0, attention=attention
        )

    def forward(
        self, query_pos: Tensor, tokens: Tensor, token_pos: Tensor, windows: list[Windows]
    ) -> Tensor:
        """Queries (B, Q, C) and tokens (B, K, C) -> (layers, B, Q, C)."""
        weights = self.weight_generator(
            query_pos, tokens + token_pos, tokens, layout=self.layout, windows=windows
        )
        groups = self.layout.groups('modality', query_pos.device)
        routing = self.form(weights, groups=groups, windows=windows)
        states = self.decoder(query_pos, tokens=tokens, token_pos=token_pos, routing=routing)
        return states.hidden


def check_decoder(device: torch.device, *, size: str, dtype: torch.dtype) -> Result:
    """Check the losses before and after a step of SGD, and the gradients of all parameters.

    A ``dtype`` other than float32 is that of automatic mixed precision.
    """
    tokens = SIZES[size]
    num_queries = 16 if device.type == 'cpu' else 300
    torch.manual_seed(0)
    model = RoutedDecoder(tokens.layout)
    reference = RoutedDecoder(tokens.layout, attention='dense')
    reference.load_state_dict(model.state_dict())
    shapes = [(1, n, 256) for n in (num_queries, *[tokens.num_tokens] * 2)]
    inputs = [torch.randn(shape).to(device) for shape in shapes]
    target = torch.randn(2, *shapes[0]).to(device)
    windows = random_windows(tokens, device, num_queries=num_queries)

    with torch.autocast(device.type, dtype=dtype, enabled=dtype != torch.float32):
        found = train(model.to(device), inputs, windows, target)
    expected = train(
        reference.to(device).double(), [x.double() for x in inputs], windows, target.double()
    )
    most = allowed(dtype)
    comparisons = [
        Comparison(name, norm_error(found[name], value), most) for name, value in expected.items()
    ]
    sizes = f'{num_queries} queries, {tokens.num_tokens} tokens'
    what = f'{name_of(dtype)}, {sizes}, router and 2 layers'
    return Result(what=what, comparisons=comparisons)


def train(
    model: RoutedDecoder, inputs: list[Tensor], windows: list[Windows], target: Tensor
) -> dict[str, Tensor]:
    """``loss``, ``loss after the step``, and the gradients of all parameters and inputs."""
    inputs = [x.clone().requires_grad_() for x in inputs]
    loss = (model(*inputs, windows) - target).square().mean()
    (loss * LOSS_SCALE).backward()
    names = ('queries', 'tokens', 'positions')
    leaves = {**dict(model.named_parameters()), **dict(zip(names, inputs, strict=True))}
    for leaf in leaves.values():
        leaf.grad /= LOSS_SCALE
    found = {'loss': loss.detach(), **{name: leaf.grad.clone() for name, leaf in leaves.items()}}
    torch.optim.SGD(model.parameters(), lr=LEARNING_RATE).step()
    with torch.no_grad():
        after = (model(*inputs, windows) - target).square().mean()
    return {**found, 'loss after the step': after}


def allowed(dtype: torch.dtype) -> float:
    """Largest allowed relative error of a loss, or of the gradient of a tensor.

    In half precision 32 roundings: one for each of about eight layers, and more because terms
    cancel in the gradient of a bias. In float32 512 of its much smaller roundings, since the
    exponentials of logits contribute too, see :func:`.attention.allowed`.
    """
    return rounding(dtype) * (512 if dtype == torch.float32 else 32)
