"""Names of Mask2Former's tensors: mmdet 2's, of GenEval's official detector, and transformers'.

In: a state dict of one. Out: the same tensors under the other's names, every one of them, both
ways; a name too many, one too few or another shape is an error.

1. Most tensors have another name only (NAMES).
2. mmdet keeps queries, keys and values of a window, and of the decoder's self-attention, in one
   matrix; transformers keeps three.
3. Where windows are merged, mmdet unfolds 2 x 2 places channel by channel, (0,0) (0,1) (1,0) (1,1)
   each; transformers concatenates the places (0,0) (1,0) (0,1) (1,1), all channels each. Columns of
   that matrix and its norm are reordered (`swin_converter` of mmdet does the opposite).
4. mmdet also stores an index that follows from the window's side. transformers also has a final
   norm of its backbone, which no feature map passes; it stays as it was built.

Names were read in mmdet 2's code (`mask2former_head.py`, `msdeformattn_pixel_decoder.py`,
`swin.py`). They have not yet been compared with the official weights.
"""

import re
from collections.abc import Callable, Mapping
from pathlib import Path

import torch
from torch import Tensor

from ..lpips import read_weights

State = Mapping[str, Tensor]

ENCODER = "model.pixel_level_module.encoder"
PIXELS = "model.pixel_level_module.decoder"
QUERIES = "model.transformer_module"
HEAD = "panoptic_head"
NAMES = {  # transformers' -> mmdet's; {} is a number
    f"{ENCODER}.swin.embeddings.patch_embeddings.projection": "backbone.patch_embed.projection",
    f"{ENCODER}.swin.embeddings.norm": "backbone.patch_embed.norm",
    f"{ENCODER}.hidden_states_norms.stage1": "backbone.norm0",
    f"{ENCODER}.hidden_states_norms.stage2": "backbone.norm1",
    f"{ENCODER}.hidden_states_norms.stage3": "backbone.norm2",
    f"{ENCODER}.hidden_states_norms.stage4": "backbone.norm3",
    f"{PIXELS}.input_projections.{{}}.0": f"{HEAD}.pixel_decoder.input_convs.{{}}.conv",
    f"{PIXELS}.input_projections.{{}}.1": f"{HEAD}.pixel_decoder.input_convs.{{}}.gn",
    f"{PIXELS}.level_embed": f"{HEAD}.pixel_decoder.level_encoding.weight",
    f"{PIXELS}.adapter_1.0": f"{HEAD}.pixel_decoder.lateral_convs.0.conv",
    f"{PIXELS}.adapter_1.1": f"{HEAD}.pixel_decoder.lateral_convs.0.gn",
    f"{PIXELS}.layer_1.0": f"{HEAD}.pixel_decoder.output_convs.0.conv",
    f"{PIXELS}.layer_1.1": f"{HEAD}.pixel_decoder.output_convs.0.gn",
    f"{PIXELS}.mask_projection": f"{HEAD}.pixel_decoder.mask_feature",
    f"{QUERIES}.queries_embedder": f"{HEAD}.query_embed",
    f"{QUERIES}.queries_features": f"{HEAD}.query_feat",
    f"{QUERIES}.level_embed": f"{HEAD}.level_embed",
    f"{QUERIES}.decoder.layernorm": f"{HEAD}.transformer_decoder.post_norm",
    f"{QUERIES}.decoder.mask_predictor.mask_embedder.0.0": f"{HEAD}.mask_embed.0",
    f"{QUERIES}.decoder.mask_predictor.mask_embedder.1.0": f"{HEAD}.mask_embed.2",
    f"{QUERIES}.decoder.mask_predictor.mask_embedder.2.0": f"{HEAD}.mask_embed.4",
    "class_predictor": f"{HEAD}.cls_embed",
}
LAYERS = {  # the same, below a layer of these two
    f"{ENCODER}.swin.encoder.layers.{{}}": (
        "backbone.stages.{}",
        {
            "blocks.{}.layernorm_before": "blocks.{}.norm1",
            "blocks.{}.layernorm_after": "blocks.{}.norm2",
            "blocks.{}.attention.relative_position_bias": "blocks.{}.attn.w_msa",
            "blocks.{}.attention.o_proj": "blocks.{}.attn.w_msa.proj",
            "blocks.{}.mlp.fc1": "blocks.{}.ffn.layers.0.0",
            "blocks.{}.mlp.fc2": "blocks.{}.ffn.layers.1",
            "downsample.norm": "downsample.norm",
            "downsample.reduction": "downsample.reduction",
        },
    ),
    f"{PIXELS}.encoder.layers.{{}}": (
        f"{HEAD}.pixel_decoder.encoder.layers.{{}}",
        {
            "self_attn.sampling_offsets": "attentions.0.sampling_offsets",
            "self_attn.attention_weights": "attentions.0.attention_weights",
            "self_attn.value_proj": "attentions.0.value_proj",
            "self_attn.output_proj": "attentions.0.output_proj",
            "self_attn_layer_norm": "norms.0",
            "fc1": "ffns.0.layers.0.0",
            "fc2": "ffns.0.layers.1",
            "final_layer_norm": "norms.1",
        },
    ),
    f"{QUERIES}.decoder.layers.{{}}": (
        f"{HEAD}.transformer_decoder.layers.{{}}",
        {
            "cross_attn.in_proj": "attentions.0.attn.in_proj",
            "cross_attn.out_proj": "attentions.0.attn.out_proj",
            "cross_attn_layer_norm": "norms.0",
            "self_attn.out_proj": "attentions.1.attn.out_proj",
            "self_attn_layer_norm": "norms.1",
            "fc1": "ffns.0.layers.0.0",
            "fc2": "ffns.0.layers.1",
            "final_layer_norm": "norms.2",
        },
    ),
}
THIRDS = {  # transformers' three -> mmdet's one matrix
    f"{ENCODER}.swin.encoder.layers.{{}}.blocks.{{}}.attention.{{part}}_proj.": (
        "backbone.stages.{}.blocks.{}.attn.w_msa.qkv."
    ),
    f"{QUERIES}.decoder.layers.{{}}.self_attn.{{part}}_proj.": (
        f"{HEAD}.transformer_decoder.layers.{{}}.attentions.1.attn.in_proj_"
    ),
}
OWN = f"{ENCODER}.swin.layernorm."  # of transformers alone
INDEX = "relative_position_index"  # of mmdet alone, below each window's attention
TABLE = "relative_position_bias_table"
MERGING = re.compile(r"\.downsample\.(norm|reduction)\.")
PLACES = [0, 2, 1, 3]  # of mmdet's 2 x 2, in transformers' order; its own inverse


def read_mmdet(path: Path) -> dict[str, Tensor]:
    """Return the state dict of an mmdet checkpoint, read without running anything in it.

    ValueError where there is none, or it holds more than tensors and plain values.
    """
    if not path.exists():
        raise ValueError(
            f"no weights at {path}: download GenEval's mask2former_swin-s-p4-w7-224_lsj_8x2_50e_"
            "coco_20220504_001756-743b7d99.pth from download.openmmlab.com, and give its path"
        )
    content = read_weights(path)
    state = content.get("state_dict", content)
    if not isinstance(state, dict) or not all(isinstance(v, Tensor) for v in state.values()):
        raise ValueError(f"{path} holds no state dict: give mmdet's checkpoint")
    return dict(state)


def to_transformers(state: State, template: State) -> dict[str, Tensor]:
    """Return mmdet's tensors under the names of `template`, transformers' own state dict.

    ValueError for names too many or too few, another shape, and an index of other windows.
    """
    found, used = {}, set()
    for name, like in template.items():
        if name.startswith(OWN):
            found[name] = like
            continue
        other, third = mmdet_name(name)
        if other not in state:
            raise ValueError(f"the weights lack {other} (for {name}): they are of another model")
        used.add(other)
        tensor = state[other] if third is None else state[other].chunk(3)[third]
        tensor = _merged(name, tensor, _to_concatenated)
        if tensor.shape != like.shape:
            raise ValueError(f"{other}: shape {tuple(tensor.shape)}, not {tuple(like.shape)}")
        found[name] = tensor
    _refuse_others(state, used)
    return found


def to_mmdet(state: State) -> dict[str, Tensor]:
    """Return transformers' tensors under mmdet's names: what `to_transformers` takes."""
    parts: dict[str, dict[int, Tensor]] = {}
    for name, tensor in state.items():
        if not name.startswith(OWN):
            other, third = mmdet_name(name)
            parts.setdefault(other, {})[third or 0] = _merged(name, tensor, _to_unfolded)
    found = {name: torch.cat([by[k] for k in sorted(by)]) for name, by in parts.items()}
    tables = [name for name in found if name.endswith(TABLE)]
    indices = {name.replace(TABLE, INDEX): _index(_side(found[name])) for name in tables}
    return found | indices


def mmdet_name(name: str) -> tuple[str, int | None]:
    """Return mmdet's name of one of transformers' tensors, and which third of it that is."""
    for pattern, (other, third) in _PATTERNS.items():
        match = pattern.match(name)
        if match:
            return other.format(*match.groups()) + name[match.end() :], third
    raise ValueError(f"transformers has a tensor {name} that is not known: another version?")


def _patterns() -> dict[re.Pattern[str], tuple[str, int | None]]:
    names: dict[str, tuple[str, int | None]] = {ours: (o, None) for ours, o in NAMES.items()}
    for above, (other, below) in LAYERS.items():
        names |= {f"{above}.{ours}": (f"{other}.{o}", None) for ours, o in below.items()}
    for ours, other in THIRDS.items():
        names |= {ours.replace("{part}", p): (other, k) for k, p in enumerate("qkv")}
    return {_pattern(ours): found for ours, found in names.items()}


def _pattern(name: str) -> re.Pattern[str]:
    """Return what matches a name up to its last part, with its numbers."""
    end = "" if name.endswith(".") else r"(?=[._](?:weight|bias|relative)|$)"
    return re.compile(r"(\d+)".join(map(re.escape, name.split("{}"))) + end)


_PATTERNS = _patterns()


def _merged(name: str, tensor: Tensor, reorder: Callable[[Tensor], Tensor]) -> Tensor:
    """Return the tensor, its last axis (4 places x channels) reordered where windows are merged."""
    return reorder(tensor) if MERGING.search(name) else tensor


def _to_concatenated(tensor_xK: Tensor) -> Tensor:
    places_xCP = tensor_xK.unflatten(-1, (-1, 4))
    return places_xCP[..., PLACES].transpose(-1, -2).flatten(-2)


def _to_unfolded(tensor_xK: Tensor) -> Tensor:
    places_xPC = tensor_xK.unflatten(-1, (4, -1))
    return places_xPC.transpose(-1, -2)[..., PLACES].flatten(-2)


def _side(table_nH: Tensor) -> int:
    """Return the side of the window of a table of its (2 side - 1)^2 relative positions."""
    return (round(len(table_nH) ** 0.5) + 1) // 2


def _index(side: int) -> Tensor:
    """Return where each pair of places of a window stands in the table, int64 (side^2, side^2)."""
    rows_N, columns_N = torch.meshgrid(torch.arange(side), torch.arange(side), indexing="ij")
    at_N2 = torch.stack([rows_N.flatten(), columns_N.flatten()], dim=1)
    apart_NN2 = at_N2[:, None] - at_N2[None] + side - 1
    return apart_NN2[..., 0] * (2 * side - 1) + apart_NN2[..., 1]


def _refuse_others(state: State, used: set[str]) -> None:
    """Raise ValueError for tensors that were not used, but for right indices of windows."""
    for name in sorted(set(state) - used):
        table = name.removesuffix(INDEX) + TABLE
        if not name.endswith(INDEX) or table not in state:
            raise ValueError(f"the weights have {name}, which no Mask2Former here has")
        if not torch.equal(state[name], _index(_side(state[table]))):
            raise ValueError(f"{name} is of another kind of window")
