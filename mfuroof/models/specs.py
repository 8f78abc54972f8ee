"""Records of one layer's architecture: what kind of attention, what kind of MLP, and their sizes."""

from __future__ import annotations

from dataclasses import dataclass

from mfuroof.precision import Format

__all__ = [
    "OVERLAPPING_RATIO",
    "AttentionSpec",
    "CompressedSpec",
    "IndexerSpec",
    "LayerSpec",
    "LinearSpec",
    "MambaSpec",
    "MlaSpec",
    "MlpSpec",
]


@dataclass(frozen=True, slots=True)
class MlaSpec:
    """Multi-head latent attention: low-rank query and a cached latent of ``kv_lora_rank + qk_rope_head_dim``."""

    q_lora_rank: int | None
    kv_lora_rank: int
    qk_nope_head_dim: int
    qk_rope_head_dim: int
    v_head_dim: int
    output_gate: bool = False

    @property
    def qk_head_dim(self) -> int:
        """Width of one query or key head."""
        return self.qk_nope_head_dim + self.qk_rope_head_dim

    @property
    def cached_elements(self) -> int:
        """Elements cached per token and layer, whatever the number of heads."""
        return self.kv_lora_rank + self.qk_rope_head_dim


@dataclass(frozen=True, slots=True)
class IndexerSpec:
    """Selector of a sparse attention: which ``topk`` tokens (or blocks of ``block_size``) attention may read.

    ``kind`` is ``dsa`` (DeepSeek, GLM: query from the query latent), ``csa`` (DeepSeek-V4) or ``block`` (MiniMax-M3).
    Without heads the layer has no selector of its own and reads what an earlier layer chose (GLM-5.2).
    """

    num_heads: int
    head_dim: int
    topk: int
    kind: str = "dsa"
    block_size: int = 1

    @property
    def topk_tokens(self) -> int:
        """Most tokens one query attends to. [tokens]"""
        return self.topk * self.block_size


@dataclass(frozen=True, slots=True)
class LinearSpec:
    """Linear attention with a matrix-valued state per value head.

    ``variant`` is ``gdn`` (gated delta net) or ``kda`` (Kimi delta attention); ``gate_rank`` is the rank of the output
    gate's projection, 0 for full rank.
    """

    num_key_heads: int
    num_value_heads: int
    key_head_dim: int
    value_head_dim: int
    conv_kernel: int
    variant: str = "gdn"
    gate_rank: int = 0

    @property
    def key_dim(self) -> int:
        """Width of all key heads."""
        return self.num_key_heads * self.key_head_dim

    @property
    def value_dim(self) -> int:
        """Width of all value heads."""
        return self.num_value_heads * self.value_head_dim

    @property
    def state_elements(self) -> int:
        """Elements of the recurrent state of one sequence."""
        return self.num_value_heads * self.key_head_dim * self.value_head_dim

    @property
    def conv_elements(self) -> int:
        """Elements of the convolution window of one sequence."""
        return (2 * self.key_dim + self.value_dim) * (self.conv_kernel - 1)


@dataclass(frozen=True, slots=True)
class MambaSpec:
    """Mamba-2 mixer: ``num_heads`` heads of ``head_dim``, ``n_groups`` groups of ``state_size``."""

    num_heads: int
    head_dim: int
    state_size: int
    n_groups: int
    conv_kernel: int
    conv_bias: bool = True
    proj_bias: bool = False

    @property
    def inner_size(self) -> int:
        """Width of all heads."""
        return self.num_heads * self.head_dim

    @property
    def conv_dim(self) -> int:
        """Channels of the convolution."""
        return self.inner_size + 2 * self.n_groups * self.state_size

    @property
    def state_elements(self) -> int:
        """Elements of the recurrent state of one sequence."""
        return self.inner_size * self.state_size

    @property
    def conv_elements(self) -> int:
        """Elements of the convolution window of one sequence."""
        return self.conv_dim * (self.conv_kernel - 1)


OVERLAPPING_RATIO = 4
"""Tokens an entry of DeepSeek-V4 that is pooled from two overlapping windows, and that a selector chooses from."""


@dataclass(frozen=True, slots=True)
class CompressedSpec:
    """Compressed attention of DeepSeek-V4: one shared 1-head K=V of ``head_dim`` beside a compressed history.

    ``ratio`` tokens share one cached entry (0: only the sliding window is cached); ``o_groups`` groups of heads go
    through rank ``o_lora_rank`` each on the way out; ``streams`` residual streams are mixed before and after the block.
    """

    q_lora_rank: int
    qk_rope_head_dim: int
    o_groups: int
    o_lora_rank: int
    ratio: int
    streams: int = 1

    def pooled_features(self, width: int) -> int:
        """Return the out features of one of a compressor's two products into entries of ``width``.

        Small ratios overlap two windows, which doubles them; 0 where nothing is compressed.
        """
        return width * (2 if self.ratio == OVERLAPPING_RATIO else 1) if self.ratio else 0


@dataclass(frozen=True, slots=True)
class AttentionSpec:
    """Attention (or what stands in its place) of one layer.

    Parameters
    ----------
    kind
        ``gqa`` (MHA and MQA too), ``mla``, ``compressed`` (DeepSeek-V4), ``linear``, ``mamba``, ``none``.
    num_attention_heads, num_key_value_heads, head_dim, v_head_dim
        Heads and their widths; ``v_head_dim`` differs from ``head_dim`` where K and V are asymmetric.
    sliding_window
        Most cached tokens a query attends to; None for all of them. [tokens]
    chunked
        The window is a fixed chunk (Llama-4), not one that slides.
    gated
        The query projection has a second half that gates the output.
    head_gate
        One gate value per head from a projection of its own.
    k_eq_v
        No value projection: values are the keys.
    shared_kv
        Reads the cache of an earlier layer and has no key or value projection.
    qk_norm_params, extra_params
        Parameters outside the matrices (norms of queries and keys; attention sinks and the like).
    """

    kind: str
    num_attention_heads: int = 0
    num_key_value_heads: int = 0
    head_dim: int = 0
    v_head_dim: int = 0
    sliding_window: int | None = None
    chunked: bool = False
    qkv_bias: bool = False
    out_bias: bool = False
    gated: bool = False
    head_gate: bool = False
    k_eq_v: bool = False
    shared_kv: bool = False
    qk_norm_params: int = 0
    extra_params: int = 0
    mla: MlaSpec | None = None
    indexer: IndexerSpec | None = None
    linear: LinearSpec | None = None
    mamba: MambaSpec | None = None
    compressed: CompressedSpec | None = None


@dataclass(frozen=True, slots=True)
class MlpSpec:
    """Feed-forward part of one layer.

    Parameters
    ----------
    kind
        ``dense``, ``moe``, ``none``.
    intermediate_size
        Width of a dense MLP; 0 in a mixture.
    num_matrices
        3 where a gate multiplies the up projection, else 2.
    shared_intermediate_size
        Total width of the experts every token passes; 0 if there are none.
    shared_gate
        A row that scales the shared expert (Qwen).
    dense_intermediate_size
        Width of a dense MLP that runs beside the experts (Gemma-4); else 0.
    latent_size
        Width the routed experts act on where it is not the hidden size; else 0.
    router_params, extra_params
        Parameters beside the router's matrix (its bias or scales), and beside everything else (biases, norms).
    """

    kind: str
    intermediate_size: int = 0
    num_matrices: int = 3
    activation: str = "silu"
    bias: bool = False
    num_experts: int = 0
    num_experts_per_tok: int = 0
    moe_intermediate_size: int = 0
    shared_intermediate_size: int = 0
    shared_gate: bool = False
    dense_intermediate_size: int = 0
    latent_size: int = 0
    expert_bias: bool = False
    router_params: int = 0
    extra_params: int = 0


@dataclass(frozen=True, slots=True)
class LayerSpec:
    """One distinct layer and where it occurs.

    ``norm_params`` counts the parameters of the layer's norms (and residual mixers); ``formats`` gives the storage
    format of each matrix that is not in the model's own dtype, by module name, sorted.
    """

    count: int
    attention: AttentionSpec
    mlp: MlpSpec
    layer_indices: tuple[int, ...]
    norm_params: int = 0
    formats: tuple[tuple[str, Format], ...] = ()
