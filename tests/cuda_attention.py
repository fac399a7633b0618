"""The memory-efficient attention of CUDA on a CPU, reading memory as the kernel does.

It checks what the kernel's own checks demand (``check_supported`` in ``kernel_forward.h`` and
``kernel_backward.h``), and where the kernel trusts a layout without a check, it reads by that
layout: a tensor of another layout gives wrong numbers here too, or is read beyond its end.
"""

from contextlib import contextmanager

import torch

from projects.cmt_aqr.transformer import kernels

DTYPES = (torch.float32, torch.float16, torch.bfloat16)


@contextmanager
def cuda_attention_on_cpu(monkeypatch):
    """Let attention on a CPU take the branch for CUDA; gives a list that notes every call."""
    calls = []

    def noting(kernel):
        def run(*args, **options):
            calls.append((kernel.__name__, args))
            return kernel(*args, **options)

        return run

    library = torch.library.Library('aten', 'IMPL', 'CPU')
    try:
        library.impl('_scaled_dot_product_efficient_attention', noting(forward))
        library.impl('_scaled_dot_product_efficient_attention_backward', noting(backward))
        monkeypatch.setitem(kernels.KERNELS, 'cpu', kernels.KERNELS['cuda'])
        yield calls
    finally:
        library._destroy()


def forward(
    query, key, value, attn_bias, compute_log_sumexp, dropout_p=0.0, is_causal=False, *, scale=None
):
    """Stand-in for ``_scaled_dot_product_efficient_attention``."""
    assert (attn_bias, compute_log_sumexp, dropout_p, is_causal) == (None, True, 0, False)
    check_inputs(query, key, value)
    logits = query.double() @ key.double().mT * scale
    out = (logits.softmax(dim=-1) @ value.double()).to(query)
    batch_size, num_heads, num_queries = query.shape[:3]
    rows = -(-num_queries // 32) * 32
    lse = torch.full((batch_size, num_heads, rows), torch.inf)
    lse[..., :num_queries] = logits.logsumexp(dim=-1).float()
    seed, offset = torch.zeros((), dtype=torch.long), torch.zeros((), dtype=torch.long)
    return by_query(out), lse, seed, offset


def backward(
    grad_out,
    query,
    key,
    value,
    attn_bias,
    out,
    logsumexp,
    philox_seed,
    philox_offset,
    dropout_p,
    grad_input_mask,
    is_causal=False,
    *,
    scale=None,
):
    """Stand-in for ``_scaled_dot_product_efficient_attention_backward``."""
    assert (attn_bias, dropout_p, is_causal) == (None, 0, False)
    check_inputs(query, key, value)
    batch_size, num_heads, num_queries = query.shape[:3]
    channels = value.shape[-1]
    assert grad_out.shape == out.shape == (batch_size, num_heads, num_queries, channels)
    assert grad_out.dtype == out.dtype == query.dtype
    check_lse(logsumexp, num_heads, num_queries)

    delta_from = out
    if query.dtype != torch.float32:  # the kernel itself reads the output
        places = (out.stride(0), out.stride(1), out.storage_offset())
        assert all(place % 8 == 0 for place in places)
        strides = (out.stride(0), out.stride(1), channels * num_heads, 1)
        delta_from = torch.as_strided(out, out.shape, strides)
    delta = (grad_out.double() * delta_from.double()).sum(dim=-1, keepdim=True)

    q, k, v, d = (x.double() for x in (query, key, value, grad_out))
    weights = (q @ k.mT * scale - logsumexp[..., :num_queries, None].double()).exp()
    of_logits = weights * (d @ v.mT - delta) * scale
    grads = of_logits @ k, of_logits.mT @ q, weights.mT @ d
    grads = (by_query(grad.to(query)) for grad in grads)
    return *grads, torch.empty(0)


def by_query(x):
    """(B, H, N, F) that lies in memory as (B, N, H, F)."""
    return x.transpose(1, 2).contiguous().transpose(1, 2)


def check_inputs(query, key, value):
    assert query.dtype in DTYPES
    assert query.dtype == key.dtype == value.dtype
    assert query.shape[-1] == key.shape[-1]
    for x in (query, key, value):
        step = 16 // x.element_size()
        assert x.dim() == 4
        assert x.numel() > 0
        assert x.shape[-1] % step == 0, 'width is no multiple of 16 bytes'
        assert x.stride(-1) == 1, 'channels are not adjacent'
        assert all(stride % step == 0 for stride in x.stride()[:-1]), 'rows are not aligned'
        assert x.storage_offset() % step == 0, 'the address is not aligned'


def check_lse(lse, num_heads, num_queries):
    rows = -(-num_queries // 32) * 32
    assert lse.dtype == torch.float32
    assert lse.shape[1:] == (num_heads, rows)
    assert lse.is_contiguous()
    assert lse[..., num_queries:].isposinf().all()
