"""Projectors: modules that turn encoder frames into language-model embeddings.

Four kinds, with tiny-audio's weight names and output lengths, behind a registry that takes a user's
own: ``@register_projector("name")`` over an ``nn.Module`` built from an ``ASRConfig``. An installed
package announces its own in the entry-point group ``tinyvoice.projectors``; it is imported when a
model asks for that name, so that a trained one works wherever the package is installed. A projector
sees one dense batch and no lengths: frames behind a clip's end must be zero, and the caller cuts
the output to ``output_length(frames)``. What it gives for a clip does not depend on the padding
behind it, as long as that padding is zero.

Sources: frame stacking and MLP as in GLM-ASR; MOSA, "Mixtures of Simple Adapters"
(arXiv:2508.18998); shared-expert mixture as in DeepSeekMoE (arXiv:2401.06066); windowed QFormer as
in BLIP-2 (arXiv:2301.12597) and Granite Speech.
"""

from __future__ import annotations

from collections.abc import Callable
from importlib.metadata import entry_points
from typing import TypeVar, cast

import torch
from torch import Tensor, nn
from transformers.models.blip_2.configuration_blip_2 import Blip2QFormerConfig
from transformers.models.blip_2.modeling_blip_2 import Blip2QFormerModel
from transformers.models.llama.modeling_llama import LlamaRMSNorm

from tinyvoice.errors import ConfigurationError
from tinyvoice.model.configuration import ASRConfig

Length = TypeVar("Length", int, Tensor)

NORM_EPS = 1e-6
# MOSA-Base: width of the simple adapters and of the router's hidden layer.
MOSA_ADAPTER_DIM = 4096
MOSA_ROUTER_DIM = 512
# Keeps the renormalised weights of the chosen experts finite.
EXPERT_WEIGHT_EPS = 1e-6


class Projector(nn.Module):
    """Base of all projectors: ``(batch, frames, encoder_dim)`` to ``(batch, tokens, llm_dim)``."""

    # Set where the output depends on more than zero padding: forward then takes the clips' frame
    # counts, (batch,), as its second argument.
    needs_lengths = False

    # For projecting a stream in pieces. Tokens come in groups, each from `group_frames` frames of
    # its own and from those of the `context_groups` groups before it, and from nothing later.
    # None: no such grouping, so the projector can only take whole clips.
    group_frames: int | None = None
    context_groups = 0

    def output_length(self, frames: Length) -> Length:
        """Tokens made from ``frames`` encoder frames (an int, or an integer tensor)."""
        raise NotImplementedError

    @property
    def auxiliary_loss(self) -> Tensor | None:
        """Loss of the latest training forward to add to the main one, or None."""
        return None


PROJECTOR_GROUP = "tinyvoice.projectors"

PROJECTORS: dict[str, Callable[[ASRConfig], nn.Module]] = {}
ProjectorType = TypeVar("ProjectorType", bound=Callable[[ASRConfig], nn.Module])


def register_projector(name: str) -> Callable[[ProjectorType], ProjectorType]:
    """Class decorator that makes ``projector_type: name`` build the decorated class."""

    def register(projector: ProjectorType) -> ProjectorType:
        PROJECTORS[name] = projector
        return projector

    return register


def find_projector(name: str) -> Callable[[ASRConfig], nn.Module] | None:
    """What builds the projector of that name, or None where nobody has registered it.

    A name that is not known yet is looked up among those that installed packages announce. Raises
    :class:`ConfigurationError` where such a package cannot be imported.
    """
    if name not in PROJECTORS:
        for entry in entry_points(group=PROJECTOR_GROUP, name=name):
            try:
                announced = entry.load()
            except (ImportError, AttributeError, SyntaxError) as error:
                raise ConfigurationError(
                    f"the projector {name!r} is announced by {entry.value}, which cannot be loaded "
                    f"({error}); reinstall the package that brings it",
                    key="projector_type",
                ) from error
            # Importing it registers it where the class is decorated.
            PROJECTORS.setdefault(name, announced)
    return PROJECTORS.get(name)


def build_projector(config: ASRConfig) -> Projector:
    """The projector named by ``config.projector_type``, with fresh weights.

    Raises :class:`ConfigurationError` for a name that is not registered.
    """
    factory = find_projector(config.projector_type)
    if factory is None:
        raise ConfigurationError(
            f"projector_type {config.projector_type!r} is unknown; "
            f"known are {', '.join(sorted(PROJECTORS))}, register_projector adds your own, "
            f"and a package announces one in the entry-point group {PROJECTOR_GROUP}"
        )
    return cast(Projector, factory(config))


def stack_frames(hidden: Tensor, count: int) -> Tensor:
    """Join ``count`` neighbouring frames: (B, frames, D) to (B, frames // count, count * D).

    A tail of fewer frames is dropped.
    """
    batch, frames, width = hidden.shape
    groups = frames // count
    return hidden[:, : groups * count].reshape(batch, groups, count * width)


class Adapter(nn.Module):
    """Two linear layers with a GELU between them."""

    def __init__(self, in_dim: int, hidden_dim: int, out_dim: int) -> None:
        super().__init__()
        self.fc1 = nn.Linear(in_dim, hidden_dim)
        self.act = nn.GELU()
        self.fc2 = nn.Linear(hidden_dim, out_dim)

    def forward(self, hidden: Tensor) -> Tensor:
        """(…, in_dim) to (…, out_dim)."""
        return self.fc2(self.act(self.fc1(hidden)))


@register_projector("mlp")
class MLPProjector(Projector):
    """Stacked frames through linear, RMSNorm, GELU, linear, RMSNorm."""

    def __init__(self, config: ASRConfig) -> None:
        super().__init__()
        encoder_dim, llm_dim = dimensions(config)
        hidden_dim = config.projector_hidden_dim or llm_dim
        self.stride = self.group_frames = config.projector_pool_stride
        self.linear_1 = nn.Linear(encoder_dim * self.stride, hidden_dim, bias=False)
        self.norm = LlamaRMSNorm(hidden_dim, eps=NORM_EPS)
        self.act = nn.GELU()
        self.linear_2 = nn.Linear(hidden_dim, llm_dim, bias=False)
        self.norm_2 = LlamaRMSNorm(llm_dim, eps=NORM_EPS)

    def output_length(self, frames: Length) -> Length:
        """One token for each whole group of frames."""
        return frames // self.stride

    def forward(self, hidden: Tensor) -> Tensor:
        """(batch, frames, encoder_dim) to (batch, tokens, llm_dim)."""
        hidden = self.linear_1(stack_frames(hidden, self.stride))
        hidden = self.linear_2(self.act(self.norm(hidden)))
        return self.norm_2(hidden)


@register_projector("mosa")
class MOSAProjector(Projector):
    """Two strided convolutions, then a dense mixture of simple adapters."""

    needs_lengths = True
    # Token t sees frames 4t - 3 to 4t + 3: its own four and most of the group before.
    group_frames = 4
    context_groups = 1

    def __init__(self, config: ASRConfig) -> None:
        super().__init__()
        encoder_dim, llm_dim = dimensions(config)
        self.downsampler = nn.Sequential(
            nn.Conv1d(encoder_dim, encoder_dim, kernel_size=3, stride=2, padding=1),
            nn.GELU(),
            nn.Conv1d(encoder_dim, llm_dim, kernel_size=3, stride=2, padding=1),
            nn.GELU(),
        )
        self.router = nn.Sequential(
            nn.Linear(llm_dim, MOSA_ROUTER_DIM),
            nn.ReLU(),
            nn.Linear(MOSA_ROUTER_DIM, config.num_experts),
        )
        self.experts = nn.ModuleList(
            Adapter(llm_dim, MOSA_ADAPTER_DIM, llm_dim) for _ in range(config.num_experts)
        )

    @staticmethod
    def _halved(frames: Length) -> Length:
        return (frames + 2 - 3) // 2 + 1

    def output_length(self, frames: Length) -> Length:
        """A quarter of the frames, rounded up twice on the way."""
        return self._halved(self._halved(frames))

    def forward(self, hidden: Tensor, lengths: Tensor | None = None) -> Tensor:
        """(batch, frames, encoder_dim) to (batch, tokens, llm_dim)."""
        hidden = self.downsampler[1](self.downsampler[0](hidden.transpose(1, 2)))
        if lengths is not None:
            # Behind a short clip the first convolution leaves its bias and an echo of the last
            # frames, where the clip alone would have zero padding.
            inside = frame_mask(self._halved(lengths), hidden.shape[-1])
            hidden = hidden * inside[:, None].to(hidden.dtype)
        hidden = self.downsampler[3](self.downsampler[2](hidden)).transpose(1, 2)
        weights = torch.softmax(self.router(hidden), dim=-1)
        output = self.experts[0](hidden) * weights[..., :1]
        for index, expert in enumerate(self.experts[1:], start=1):
            output = output + expert(hidden) * weights[..., index : index + 1]
        return output


@register_projector("moe")
class MoEProjector(Projector):
    """Stacked frames through one shared adapter plus the best few of several experts."""

    # Multiplicative noise on the router's logits in training, against early collapse.
    ROUTER_JITTER = 0.01

    def __init__(self, config: ASRConfig) -> None:
        super().__init__()
        encoder_dim, llm_dim = dimensions(config)
        in_dim = encoder_dim * config.projector_pool_stride
        hidden_dim = config.projector_hidden_dim or llm_dim
        self.stride = self.group_frames = config.projector_pool_stride
        self.chosen = min(config.num_experts_per_tok, config.num_experts)
        self.balance_coef = config.router_aux_loss_coef
        self.z_coef = config.router_z_loss_coef
        self.norm = LlamaRMSNorm(in_dim, eps=NORM_EPS)
        self.router = nn.Linear(in_dim, config.num_experts, bias=False)
        self.experts = nn.ModuleList(
            Adapter(in_dim, hidden_dim, llm_dim) for _ in range(config.num_experts)
        )
        self.shared_expert = Adapter(in_dim, hidden_dim, llm_dim)
        self._auxiliary_loss: Tensor | None = None
        self.reset_parameters()

    def reset_parameters(self) -> None:
        """Near-uniform routing and small outputs, so that training starts calmly."""
        nn.init.normal_(self.router.weight, std=0.02)
        for expert in (self.shared_expert, *self.experts):
            adapter = cast(Adapter, expert)
            nn.init.xavier_uniform_(adapter.fc1.weight)
            nn.init.normal_(adapter.fc2.weight, std=0.01)

    @property
    def auxiliary_loss(self) -> Tensor | None:
        """Balance and z-loss of the latest training forward."""
        return self._auxiliary_loss

    def output_length(self, frames: Length) -> Length:
        """One token for each whole group of frames."""
        return frames // self.stride

    def forward(self, hidden: Tensor) -> Tensor:
        """(batch, frames, encoder_dim) to (batch, tokens, llm_dim)."""
        stacked = self.norm(stack_frames(hidden, self.stride))
        tokens = stacked.reshape(-1, stacked.shape[-1])
        logits = self.router(tokens)
        if self.training:
            logits = logits * torch.empty_like(logits).uniform_(
                1 - self.ROUTER_JITTER, 1 + self.ROUTER_JITTER
            )
        scores = torch.softmax(logits, dim=-1, dtype=torch.float32).type_as(tokens)
        self._auxiliary_loss = self._router_loss(logits, scores) if self.training else None
        output = self.shared_expert(tokens) + self._routed(tokens, scores)
        return output.reshape(*stacked.shape[:2], output.shape[-1])

    def _routed(self, tokens: Tensor, scores: Tensor) -> Tensor:
        """Weighted sum of each token's best experts, (tokens, llm_dim)."""
        weights, chosen = scores.topk(self.chosen, dim=-1)
        weights = weights / (weights.sum(dim=-1, keepdim=True) + EXPERT_WEIGHT_EPS)
        output = tokens.new_zeros(tokens.shape[0], self.shared_expert.fc2.out_features)
        for index, expert in enumerate(self.experts):
            rows, places = torch.where(chosen == index)
            # In training an expert without tokens still takes part, with no rows: processes that
            # train together must agree on which parameters have gradients.
            if rows.numel() or self.training:
                weighted = expert(tokens[rows]) * weights[rows, places, None]
                output = output.index_add(0, rows, weighted.to(output.dtype))
        return output

    def _router_loss(self, logits: Tensor, scores: Tensor) -> Tensor:
        """Balance loss (mean load against uniform) plus z-loss (squared log-partition)."""
        experts = scores.shape[-1]
        balance = ((scores.mean(dim=0) - 1 / experts) ** 2).mean() * experts
        z_loss = torch.logsumexp(logits.float(), dim=-1).pow(2).mean()
        return self.balance_coef * balance + self.z_coef * z_loss


@register_projector("qformer")
class QFormerProjector(Projector):
    """Learned queries that attend to windows of frames; a few tokens for each window."""

    def __init__(self, config: ASRConfig) -> None:
        super().__init__()
        encoder_dim, llm_dim = dimensions(config)
        width = config.qformer_hidden_size or encoder_dim
        self.window = self.group_frames = config.qformer_window_size
        self.queries = self.window // config.downsample_rate
        if self.queries < 1:
            raise ConfigurationError(
                f"qformer_window_size {self.window} is below downsample_rate "
                f"{config.downsample_rate}, which leaves no query; raise the window"
            )
        self.query = nn.Parameter(torch.randn(1, self.queries, width))
        self.encoder_proj = (
            nn.Linear(encoder_dim, width, bias=False) if width != encoder_dim else None
        )
        self.qformer = Blip2QFormerModel(qformer_config(config, width))
        self.linear = nn.Linear(width, llm_dim)

    def output_length(self, frames: Length) -> Length:
        """A fixed number of tokens for each window begun."""
        return (frames + self.window - 1) // self.window * self.queries

    def forward(self, hidden: Tensor) -> Tensor:
        """(batch, frames, encoder_dim) to (batch, tokens, llm_dim)."""
        hidden = hidden.to(self.query.dtype)
        if self.encoder_proj is not None:
            hidden = self.encoder_proj(hidden)
        batch, frames, width = hidden.shape
        windows = -(-frames // self.window)
        hidden = nn.functional.pad(hidden, (0, 0, 0, windows * self.window - frames))
        answers = self.qformer(
            query_embeds=self.query.expand(batch * windows, -1, -1),
            encoder_hidden_states=hidden.reshape(batch * windows, self.window, width),
        ).last_hidden_state
        return self.linear(answers.reshape(batch, windows * self.queries, width))


def qformer_config(config: ASRConfig, width: int) -> Blip2QFormerConfig:
    """BLIP-2 QFormer settings: cross-attention in each layer, Granite's dropout and epsilon."""
    qformer = Blip2QFormerConfig(
        hidden_size=width,
        encoder_hidden_size=width,
        num_hidden_layers=config.qformer_num_layers,
        num_attention_heads=config.qformer_num_heads,
        intermediate_size=config.qformer_intermediate_size or 4 * width,
        cross_attention_frequency=1,
        hidden_act="gelu",
        attention_probs_dropout_prob=0.1,
        hidden_dropout_prob=0.1,
        layer_norm_eps=1e-12,
    )
    # Flash attention has no use for windows of 15 frames, and the class refuses it.
    qformer._attn_implementation = "eager" if config._attn_implementation == "eager" else "sdpa"
    return qformer


def dimensions(config: ASRConfig) -> tuple[int, int]:
    """Encoder and language-model sizes, both set by ``ASRConfig`` whatever the file said."""
    return cast(int, config.encoder_dim), cast(int, config.llm_dim)


def frame_mask(lengths: Tensor, frames: int) -> Tensor:
    """Boolean (batch, frames), True inside each clip."""
    return torch.arange(frames, device=lengths.device)[None] < lengths[:, None]
