import pytest
import torch

from kaleidoscene.nn import attention, blocked_attention
from kaleidoscene.nn.attention import attend, attend_explicitly, attend_folded, attend_in_parts
from kaleidoscene.nn.registers import Registers
from kaleidoscene.nn.windows import Windows

BATCH, HEADS, KV_HEADS, QUERIES, KEYS, DIM = 2, 6, 3, 5, 7, 8


def tensors(keys=KEYS):
    q = torch.randn(BATCH, HEADS, QUERIES, DIM, requires_grad=True)
    k, v = (torch.randn(BATCH, KV_HEADS, keys, DIM, requires_grad=True) for _ in range(2))
    return q, k, v


@pytest.mark.parametrize("masked", [False, True])
def test_fused_and_explicit_attention_agree_in_values_and_gradients(masked):
    inputs = tensors()
    mask = torch.rand(BATCH, 1, QUERIES, KEYS) < 0.7 if masked else None
    if mask is not None:
        mask[..., 0] = True
    explicit = attend_explicitly(*inputs, scale=0.3, mask=mask)
    fused = torch.nn.functional.scaled_dot_product_attention(*inputs, attn_mask=mask, scale=0.3, enable_gqa=True)
    torch.testing.assert_close(explicit, fused)
    weight = torch.randn_like(fused)
    for a, b in zip(
        torch.autograd.grad((explicit * weight).sum(), inputs),
        torch.autograd.grad((fused * weight).sum(), inputs),
        strict=True,
    ):
        torch.testing.assert_close(a, b, rtol=0, atol=1e-5)


@pytest.mark.parametrize("masked", [False, True])
def test_a_bias_is_added_to_logits_in_values_and_gradients(masked):
    q = torch.randn(BATCH, HEADS, QUERIES, DIM, dtype=torch.float64, requires_grad=True)
    k, v = (torch.randn(BATCH, HEADS, KEYS, DIM, dtype=torch.float64, requires_grad=True) for _ in range(2))
    bias = torch.randn(1, HEADS, QUERIES, KEYS, dtype=torch.float64, requires_grad=True)
    hidden = torch.zeros_like(bias[0, 0]).masked_fill(torch.eye(QUERIES, KEYS).bool(), -torch.inf) if masked else 0
    found = attend(q, k, v, scale=0.3, bias=bias + hidden)
    logits = 0.3 * torch.einsum("bhqd,bhkd->bhqk", q, k) + bias + hidden
    expected = torch.einsum("bhqk,bhkd->bhqd", logits.exp() / logits.exp().sum(-1, keepdim=True), v)
    torch.testing.assert_close(found, expected)
    weight = torch.randn_like(found)
    pairs = (torch.autograd.grad((x * weight).sum(), (q, k, v, bias)) for x in (found, expected))
    for ours, theirs in zip(*pairs, strict=True):
        torch.testing.assert_close(ours, theirs)
    with pytest.raises(ValueError, match="a mask or a bias"):
        attend(q, k, v, scale=0.3, bias=bias, mask=torch.ones(1, 1, 1, KEYS, dtype=torch.bool))


def test_a_bias_of_higher_precision_than_the_queries_is_rounded_to_theirs():
    q, k, v = (torch.randn(BATCH, HEADS, KEYS, DIM) for _ in range(3))
    bias = -30 * torch.rand(BATCH, HEADS, KEYS, KEYS)
    found = attend(q.bfloat16(), k.bfloat16(), v.bfloat16(), scale=0.3, bias=bias)
    assert found.dtype == torch.bfloat16
    torch.testing.assert_close(found.float(), attend(q, k, v, scale=0.3, bias=bias), rtol=0, atol=0.1)


@pytest.mark.parametrize("way", [attend_explicitly, attend_in_parts])
def test_there_may_be_no_scene_at_all(way):
    """A process has no view of a scene that is spread over more processes than it has views."""
    q, k = torch.zeros(0, HEADS, QUERIES, DIM), torch.zeros(0, KV_HEADS, KEYS, DIM)
    assert way(q, k, k, scale=0.3).shape == q.shape


@pytest.mark.parametrize("rows", [1, QUERIES])
def test_groups_folded_into_queries_change_nothing(rows):
    """What GPUs get where a mask and grouped heads meet; here on this device, in values and gradients."""
    inputs = [x.detach().double().requires_grad_() for x in tensors()]
    mask = torch.rand(BATCH, 1, rows, KEYS) < 0.6
    mask[..., 0] = True
    explicit, folded = (way(*inputs, scale=0.3, mask=mask) for way in (attend_explicitly, attend_folded))
    torch.testing.assert_close(folded, explicit)
    weight = torch.randn_like(explicit)
    expected = torch.autograd.grad((explicit * weight).sum(), inputs)
    torch.testing.assert_close(torch.autograd.grad((folded * weight).sum(), inputs), expected)


def test_folded_groups_come_back_from_a_kernel_that_puts_tokens_first(monkeypatch):
    """As the memory-efficient one of GPUs lays out its result."""
    inner = torch.nn.functional.scaled_dot_product_attention

    def tokens_first(*args, **named):
        return inner(*args, **named).transpose(1, 2).contiguous().transpose(1, 2)

    q, k, v = tensors()
    mask = torch.ones(1, 1, 1, KEYS, dtype=torch.bool)
    expected = attend_folded(q, k, v, scale=0.3, mask=mask)
    monkeypatch.setattr(torch.nn.functional, "scaled_dot_product_attention", tokens_first)
    torch.testing.assert_close(attend_folded(q, k, v, scale=0.3, mask=mask), expected)


@pytest.mark.parametrize("block_bytes", [1, 8 * 2 * QUERIES * KEYS, 8 * 4 * QUERIES * KEYS, 2**22])
def test_attention_in_blocks_equals_the_explicit_one_in_values_and_gradients(monkeypatch, block_bytes):
    """Blocks of one query, of one problem, of two problems of the six, and of all."""
    monkeypatch.setattr(blocked_attention, "_BLOCK_BYTES", block_bytes)
    inputs = [x.detach().double().requires_grad_() for x in tensors()]
    explicit, blocked = (way(*inputs, scale=0.3) for way in (attend_explicitly, attend_in_parts))
    torch.testing.assert_close(blocked, explicit)
    weight = torch.randn_like(explicit)
    expected = torch.autograd.grad((explicit * weight).sum(), inputs)
    torch.testing.assert_close(torch.autograd.grad((blocked * weight).sum(), inputs), expected)


def test_attention_in_blocks_is_an_operator_that_autograd_and_the_compiler_may_trust():
    q, k = torch.randn(3, 5, 8, requires_grad=True), torch.randn(3, 7, 8, requires_grad=True)
    v = torch.randn(3, 7, 4, requires_grad=True)
    torch.library.opcheck(blocked_attention.attend_in_blocks, (q, k, v))
    strided = torch.randn(3, 8, 5).mT.requires_grad_()
    torch.library.opcheck(blocked_attention.attend_in_blocks, (strided, k, v))
    for few_q, few_k, few_v in ((q[:, :0], k, v), (q[:0], k[:0], v[:0])):
        assert blocked_attention.attend_in_blocks(few_q, few_k, few_v).shape == (*few_q.shape[:2], 4)
    assert blocked_attention.attend_in_blocks(q, k[:, :0], v[:, :0]).shape == (3, 5, 4)


@pytest.mark.parametrize("blocks", [False, True])
@pytest.mark.parametrize("keys", [KEYS, 600])
def test_attention_in_bfloat16_is_that_in_fp32_within_its_rounding(monkeypatch, keys, blocks):
    """On processors of either kind, with and without gradients, for few keys and many."""
    calls = []
    monkeypatch.setattr(attention, "_BLOCKS_PAY", blocks)
    monkeypatch.setattr(
        attention, "attend_in_blocks", lambda *x: calls.append(1) or blocked_attention.attend_in_blocks(*x)
    )
    inputs = tensors(keys)
    low = [x.detach().bfloat16().requires_grad_() for x in inputs]
    exact, rounded = attend(*inputs, scale=0.3), attend(*low, scale=0.3)
    assert rounded.dtype == torch.bfloat16
    torch.testing.assert_close(rounded.float(), exact, rtol=0, atol=0.02)
    with torch.no_grad():
        torch.testing.assert_close(attend(*low, scale=0.3).float(), exact, rtol=0, atol=0.02)
    assert len(calls) == ((2 if keys > 256 else 1) if blocks else 0)
    weight = torch.randn_like(exact)
    expected = torch.autograd.grad((exact * weight).sum(), inputs)
    got = torch.autograd.grad((rounded.float() * weight).sum(), low)
    for a, b in zip(got, expected, strict=True):
        torch.testing.assert_close(a.float(), b, rtol=0, atol=0.05)


@pytest.mark.parametrize("dtype", [torch.float64, torch.bfloat16])
@pytest.mark.parametrize("masked", [False, True])
def test_attention_has_derivatives_in_forward_mode(dtype, masked):
    """Against the difference of two values: no kernel may say zero because it does not know them."""
    g = torch.Generator().manual_seed(0)
    q, k, v = (torch.randn(2, heads, n, 6, generator=g).double() for heads, n in ((4, 5), (2, 7), (2, 7)))
    mask = torch.rand(2, 1, 1, 7, generator=g) > 0.3 if masked else None
    ask = [torch.randn(x.shape, generator=g).double() for x in (q, k, v)]

    def run(q, k, v):
        return attend(q, k, v, scale=0.4, mask=mask)

    step = 1e-5
    ends = [run(*(x + side * step * t for x, t in zip((q, k, v), ask, strict=True))) for side in (1, -1)]
    expected = (ends[0] - ends[1]) / (2 * step)
    inputs, tangents = (tuple(x.to(dtype) for x in parts) for parts in ((q, k, v), ask))
    _, tangent = torch.func.jvp(run, inputs, tangents)
    tolerance = 1e-6 if dtype == torch.float64 else 0.05
    torch.testing.assert_close(tangent.double(), expected, rtol=0, atol=tolerance * expected.abs().max().item())
    if not masked:
        _, tangent = torch.func.jvp(lambda q, k, v: attend_in_parts(q, k, v, scale=0.4), inputs, tangents)
        torch.testing.assert_close(tangent.double(), expected, rtol=0, atol=tolerance * expected.abs().max().item())


def test_grouped_queries_share_keys():
    q, k, v = tensors()
    group = HEADS // KV_HEADS
    whole = attend_explicitly(q, k.repeat_interleave(group, 1), v.repeat_interleave(group, 1), scale=0.3)
    torch.testing.assert_close(attend_explicitly(q, k, v, scale=0.3), whole)


@pytest.mark.parametrize("count", [1, 3, 9])
def test_query_frame_registers_equal_doubled_heads(count):
    """The augmented channels give what doubling the head gives (method A.4 (a))."""
    registers = Registers(count, KV_HEADS, DIM, "query_frame")
    torch.nn.init.normal_(registers.keys)
    torch.nn.init.normal_(registers.values)
    q, k, v = tensors()
    plain = torch.randn(BATCH, QUERIES, HEADS, DIM)
    group = HEADS // KV_HEADS
    q_wide = registers.extend_query(q.transpose(1, 2), plain).transpose(1, 2)
    out = attend_explicitly(q_wide, *registers.extend_keys(k, v), scale=0.3)
    tokens, added = registers.split_output(out.transpose(1, 2))

    zeros_q = torch.cat([q, plain.transpose(1, 2)], -1)
    pad = torch.zeros(BATCH, KV_HEADS, KEYS, DIM)
    pad_r = torch.zeros(BATCH, KV_HEADS, count, DIM)
    keys = torch.cat([torch.cat([k, pad], -1), torch.cat([pad_r, registers.keys.expand(BATCH, -1, -1, -1)], -1)], 2)
    values = torch.cat([torch.cat([v, pad], -1), torch.cat([pad_r, registers.values.expand(BATCH, -1, -1, -1)], -1)], 2)
    doubled = attend_explicitly(
        zeros_q, keys.repeat_interleave(group, 1), values.repeat_interleave(group, 1), scale=0.3
    ).transpose(1, 2)
    torch.testing.assert_close(tokens, doubled[..., :DIM], rtol=0, atol=1e-5)
    torch.testing.assert_close(added, doubled[..., DIM:], rtol=0, atol=1e-5)


def test_identity_registers_are_plain_keys():
    registers = Registers(2, KV_HEADS, DIM, "identity")
    _, k, v = tensors()
    keys, values = registers.extend_keys(k, v)
    torch.testing.assert_close(keys[:, :, KEYS:], registers.keys.expand(BATCH, -1, -1, -1))
    torch.testing.assert_close(values[:, :, :KEYS], v)


@pytest.mark.parametrize("mode", ["none", "query_frame"])
def test_no_registers_change_nothing(mode):
    registers = Registers(0, KV_HEADS, DIM, mode)
    _, k, v = tensors()
    keys, values = registers.extend_keys(k, v)
    assert keys.equal(k) and values.equal(v)
    assert not list(registers.parameters())


def twin(x_q, x_k, x_v, grid, size, visible):
    """Window attention written as loops over query tokens (the slow twin)."""
    batch, q_views = x_q.shape[:2]
    k_views, cols = x_k.shape[1], grid[1]
    out = torch.zeros_like(x_q)
    place = [(n // cols, n % cols) for n in range(grid[0] * cols)]
    for b in range(batch):
        for i in range(q_views):
            for n, (row, col) in enumerate(place):
                same = [
                    m
                    for m, (r, c) in enumerate(place)
                    if size is None or (r // size, c // size) == (row // size, col // size)
                ]
                pairs = [(j, m) for j in range(k_views) if visible is None or visible[b, i, j] for m in same]
                keys = torch.stack([x_k[b, j, m] for j, m in pairs], 1)  # (heads, pairs, dim)
                values = torch.stack([x_v[b, j, m] for j, m in pairs], 1)
                weights = (torch.einsum("hd,hpd->hp", x_q[b, i, n], keys) * 0.3).softmax(-1)
                out[b, i, n] = torch.einsum("hp,hpd->hd", weights, values)
    return out


@pytest.mark.parametrize("size", [1, 2, 3, 4, 8, None])
@pytest.mark.parametrize("masked", [False, True])
def test_windows_equal_the_slow_twin_in_values_and_gradients(size, masked):
    """Also where K does not divide the 3 x 4 grid, and where it is larger than a side."""
    grid, views = (3, 4), 3
    inputs = [torch.randn(2, views, 12, 2, 4, dtype=torch.float64, requires_grad=True) for _ in range(3)]
    visible = None
    if masked:
        visible = torch.tensor([[[1, 0, 1], [1, 1, 0], [0, 0, 1]], [[1, 1, 1], [0, 1, 1], [1, 0, 1]]], dtype=torch.bool)
    windows = Windows(grid, size)
    mask = windows.mask(visible, (views, views), torch.device("cpu"))
    if mask is not None and visible is None:
        mask = mask.repeat(2, 1, 1, 1)
    fast = windows.merge(attend_explicitly(*(windows.partition(x) for x in inputs), scale=0.3, mask=mask), 2)
    slow = twin(*inputs, grid, size, visible)
    torch.testing.assert_close(fast, slow)
    weight = torch.randn_like(slow)
    for a, b in zip(
        torch.autograd.grad((fast * weight).sum(), inputs),
        torch.autograd.grad((slow * weight).sum(), inputs),
        strict=True,
    ):
        torch.testing.assert_close(a, b)


@pytest.mark.parametrize("size", [1, 2, 5, None])
def test_merge_inverts_partition(size):
    x = torch.randn(2, 3, 20, 2, 4)
    windows = Windows((4, 5), size)
    torch.testing.assert_close(windows.merge(windows.partition(x), 2), x)
