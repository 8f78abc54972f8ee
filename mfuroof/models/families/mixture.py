"""Dense MLPs and mixtures of experts of the generic families: widths, which layers are sparse, shared experts."""

from __future__ import annotations

from mfuroof.models.families.traits import Traits
from mfuroof.models.fields import MAX_LAYERS, Fields
from mfuroof.models.specs import MlpSpec
from mfuroof.models.text import short

__all__ = ["bias_of", "dense_mlp", "mlp_layers", "moe_mlp", "sparse_layers"]


def mlp_layers(f: Fields, t: Traits, n: int, d: int) -> list[MlpSpec]:
    """Return the MLP of each layer."""
    experts = f.integer("num_experts", 0)
    if not experts:
        if t.mixture and not f.has("num_experts"):
            f.doubt("num_experts", "nothing", f"a number of experts: every {f.text('model_type')} model has some")
        f.refuse("num_experts_per_tok", "a mixture needs a number of experts (num_experts)", (None, 0))
        f.refuse("n_shared_experts", "a mixture needs a number of experts (num_experts)", (None, 0))
        f.raw("moe_intermediate_size"), f.raw("shared_expert_intermediate_size"), f.raw("first_k_dense_replace")
        f.raw("mlp_only_layers"), f.raw("decoder_sparse_step"), f.raw("moe_layer_freq")
        return [dense_mlp(f, t)] * n
    sparse = sparse_layers(f, n)
    moe = moe_mlp(f, t, experts)
    dense = None if all(sparse) else dense_mlp(f, t)
    return [moe if s or dense is None else dense for s in sparse]


def bias_of(f: Fields, rule: bool | str, default: bool) -> bool:
    """Return whether a projection has a bias: always, never, or as the key ``rule`` says."""
    return f.flag(rule, default) if isinstance(rule, str) else rule


def dense_mlp(f: Fields, t: Traits, key: str = "intermediate_size") -> MlpSpec:
    """Return a dense MLP of the width under ``key``."""
    act = f.text("hidden_act", "silu")
    matrices = 3 if t.gated_mlp else 2
    if f.lenient and not f.raw(key):
        f.doubt(key, f.raw(key), "a width; 4 hidden sizes are assumed")
        width = 4 * f.integer("hidden_size", low=1)
    else:
        width = f.integer(key, low=1)
    return MlpSpec("dense", width, matrices, act, bias=bias_of(f, t.mlp_bias, t.bias_default))


def moe_mlp(f: Fields, t: Traits, experts: int) -> MlpSpec:
    """Return a mixture; experts are ``moe_intermediate_size`` wide, else ``intermediate_size``."""
    k = f.integer("num_experts_per_tok", low=1)
    if k > experts and f.sound("num_experts"):
        f.problems.add("num_experts_per_tok", k, f"at most num_experts ({experts})")
    width = f.optional("moe_intermediate_size", low=1) or f.integer("intermediate_size", low=1)
    shared = shared_width(f, width)
    return MlpSpec(
        "moe",
        num_matrices=3 if t.gated_mlp else 2,
        activation=f.text("hidden_act", "silu"),
        num_experts=experts,
        num_experts_per_tok=k,
        moe_intermediate_size=width,
        shared_intermediate_size=shared,
        shared_gate=t.shared_gate and shared > 0,
        expert_bias=t.expert_bias,
        router_params=experts if t.router_bias else 0,
    )


def shared_width(f: Fields, width: int) -> int:
    """Return the total width of the experts every token passes."""
    explicit = f.optional("shared_expert_intermediate_size")
    count = f.integer("n_shared_experts", 0)
    if explicit:
        return explicit
    return count * width


def sparse_layers(f: Fields, n: int) -> list[bool]:
    """Return which layers are mixtures.

    In this order: ``mlp_layer_types``; ``moe_layers``; ``moe_layer_freq`` as a list; ``interleave_moe_layer_step``;
    else the first ``first_k_dense_replace`` layers are dense and of the rest every ``moe_layer_freq``-th (DeepSeek)
    or ``decoder_sparse_step``-th layer is sparse, except those in ``mlp_only_layers`` (Qwen).
    """
    first = f.integer("first_k_dense_replace", 0)
    step = f.integer("decoder_sparse_step", 1, low=1)
    interleave = f.integer("interleave_moe_layer_step", 0)
    only, listed, freq = f.raw("mlp_only_layers") or [], f.raw("moe_layers"), f.raw("moe_layer_freq")
    types = f.per_layer("mlp_layer_types", n)
    limit = n if f.sound("num_hidden_layers") else MAX_LAYERS
    for key, value in (("mlp_only_layers", only), ("moe_layers", listed or [])):
        if not isinstance(value, list) or not all(type(i) is int and 0 <= i < limit for i in value):
            f.problems.add(key, short(value), f"a list of layer numbers below {n}")
            return [True] * n
    if types is not None:
        if not set(map(str, types)) <= {"dense", "sparse"}:
            f.problems.add("mlp_layer_types", short(types), "dense or sparse for each layer")
        return [kind == "sparse" for kind in types]
    if listed:
        return [i in listed for i in range(n)]
    if isinstance(freq, list):
        if f.per_layer("moe_layer_freq", n) is None or not all(v in (0, 1) for v in freq):
            if f.sound("moe_layer_freq"):
                f.problems.add("moe_layer_freq", short(freq), f"{n} entries of 0 or 1")
            return [True] * n
        return [bool(v) for v in freq[:n]]
    if interleave:
        return [(i + 1) % interleave == 0 for i in range(n)]
    freq = f.integer("moe_layer_freq", 1, low=1)
    return [i >= first and i % freq == 0 and (i + 1) % step == 0 and i not in only for i in range(n)]
