"""GenEval's own kind of detector: Mask2Former over the 80 classes of COCO, without mmcv.

In: an image, and weights: mmdet's checkpoint, as GenEval names it, or a folder of `transformers`.
Out: up to 100 boxes with scores and masks, and colours by CLIP.

1. The image is resized to fit 1333 x 800 pixels, padded to multiples of 32 with 128, standardised.
2. Of 100 queries x 80 classes the 100 likeliest pairs are taken: a query can stand under several.
3. Its mask logits are enlarged to the padded image, cut to the resized one and resized to the
   original, bilinearly; the mask is where they are above 0.
4. score = probability of the class x mean probability inside the mask; the box is the mask's own.

(`maskformer_fusion_head.py` and the 2.x configs of mmdet. That a box ends after its last pixel,
(xmin, ymin, xmax + 1, ymax + 1), and that pads are 128, was read in copies of them alone.)
`transformers`' own post-processing does none of this. Not yet run on the official weights.
"""

import hashlib
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch
from safetensors import SafetensorError
from safetensors.torch import load_file
from torch import Tensor, nn
from torch.nn import functional as F
from transformers import Mask2FormerConfig, Mask2FormerModel, SwinConfig
from transformers import __version__ as transformers_version

from ..loading import quiet_loading
from .clip_colours import ClipColours
from .detector import Detector, Known
from .known_images import known_photos
from .mmdet_weights import read_mmdet, to_transformers
from .prompts import Prompt
from .rules import Found, Rules, to_colour

# COCO's 80 classes in its order, as GenEval spells them.
CLASSES = tuple(
    "person,bicycle,car,motorcycle,airplane,bus,train,truck,boat,traffic light,fire hydrant,"
    "stop sign,parking meter,bench,bird,cat,dog,horse,sheep,cow,elephant,bear,zebra,giraffe,"
    "backpack,umbrella,handbag,tie,suitcase,frisbee,skis,snowboard,sports ball,kite,baseball bat,"
    "baseball glove,skateboard,surfboard,tennis racket,bottle,wine glass,cup,fork,knife,spoon,bowl,"
    "banana,apple,sandwich,orange,broccoli,carrot,hot dog,pizza,donut,cake,chair,couch,"
    "potted plant,bed,dining table,toilet,tv,laptop,computer mouse,tv remote,computer keyboard,"
    "cell phone,microwave,oven,toaster,sink,refrigerator,book,clock,vase,scissors,teddy bear,"
    "hair drier,toothbrush".split(",")
)
OFFICIAL = "743b7d99"  # how the SHA-256 of GenEval's weights begins, as mmdet names its files
LONGEST, SHORTEST = 1333, 800  # that an image is resized to fit
DIVISOR, PAD = 32, 128.0
MEAN, SCALE = (123.675, 116.28, 103.53), (58.395, 57.12, 57.375)  # RGB, 0..255
NUM_PAIRS = 100
EPSILON = 1e-6  # pixels, beside a mask's area

SWIN_SMALL = {
    "embed_dim": 96, "depths": [2, 2, 18, 2], "num_heads": [3, 6, 12, 24], "window_size": 7,
    "out_features": ["stage1", "stage2", "stage3", "stage4"],
}  # fmt: skip


@dataclass(frozen=True, eq=False)
class Instances:
    """What Mask2Former found: boxes (N, 5), classes int (N,), masks bool (N, H, W)."""

    boxes_N5: np.ndarray
    labels_N: np.ndarray
    masks_NHW: np.ndarray


class Mask2Former(nn.Module):
    """The network without its loss, which needs scipy; tensors are named as transformers does."""

    def __init__(self, config: Mask2FormerConfig) -> None:
        super().__init__()
        self.model = Mask2FormerModel(config)
        self.class_predictor = nn.Linear(config.hidden_dim, config.num_labels + 1)

    def forward(self, pixels_13HW: Tensor) -> tuple[Tensor, Tensor]:
        """Return class logits (Q, classes + 1), the last for nothing, and mask logits (Q, h, w)."""
        out = self.model(pixels_13HW, output_hidden_states=True)
        queries_QD = out.transformer_decoder_intermediate_states[-1][:, 0]
        return self.class_predictor(queries_QD), out.masks_queries_logits[-1][0]


class Mask2FormerDetector(Detector):
    """Finds COCO's objects; CLIP names their colours."""

    def __init__(
        self,
        network: Mask2Former,
        hash: str,
        colours: ClipColours,
        photos: Path | None = None,
    ) -> None:
        """hash: the SHA-256 of the weights; photos: a folder with the known images, or None."""
        self.name = f"mask2former_{hash[:8]}"
        self.classes = CLASSES
        self._network, self._hash, self._colours = network.eval(), hash, colours
        self._photos = photos

    def settings(self) -> dict[str, Any]:
        """Return the hashes of both networks' weights."""
        return {
            "detector_weights": self._hash,
            "detector_official": self._hash.startswith(OFFICIAL),
            "colour_weights": self._colours.hash,
            "transformers": transformers_version,
        }

    def known(self) -> list[Known]:
        """Return photographs of a cat, a cup and a person."""
        return known_photos(self._photos)

    def find(self, image_HW3: np.ndarray, prompt: Prompt) -> Found:
        """Return all pairs' boxes, by class, and the colours that the prompt's verdict needs."""
        found = instances(self._network, image_HW3)
        places = {
            name: np.flatnonzero(found.labels_N == k)
            for k, name in enumerate(CLASSES)
            if (found.labels_N == k).any()
        }
        boxes = {name: found.boxes_N5[at] for name, at in places.items()}
        colours: dict[str, list[str | None]] = {}
        for name, needed in to_colour(prompt, boxes, Rules()).items():
            at = places[name][needed]
            named = self._colours.name(image_HW3, found.boxes_N5[at], found.masks_NHW[at], name)
            colours[name] = [None] * len(boxes[name])
            for place, colour in zip(needed, named, strict=True):
                colours[name][place] = colour
        return Found({name: rows.astype(np.float64) for name, rows in boxes.items()}, colours)


def load_mask2former(path: Path, device: str = "cpu") -> tuple[Mask2Former, str]:
    """Return the network with the weights of a file of mmdet or a folder of transformers, and their
    SHA-256.

    ValueError for weights that are missing, of another model or of other classes.
    """
    return _of_folder(path, device) if path.is_dir() else _of_mmdet(path, device)


def official_config() -> Mask2FormerConfig:
    """Return the shape of GenEval's detector: Swin-S, 100 queries, 80 classes."""
    return Mask2FormerConfig(backbone_config=SwinConfig(**SWIN_SMALL), num_labels=len(CLASSES))


def _of_mmdet(path: Path, device: str) -> tuple[Mask2Former, str]:
    state = read_mmdet(path)
    network = Mask2Former(official_config())
    network.load_state_dict(to_transformers(state, network.state_dict()))
    return network.to(device), hashlib.sha256(path.read_bytes()).hexdigest()


def _of_folder(folder: Path, device: str) -> tuple[Mask2Former, str]:
    weights = folder / "model.safetensors"
    if not weights.exists():
        raise ValueError(
            f"no weights in {folder}: download facebook/mask2former-swin-small-coco-instance "
            "(config.json, model.safetensors) and give its folder"
        )
    try:
        config = Mask2FormerConfig.from_pretrained(folder, local_files_only=True)
        with quiet_loading():
            model = Mask2FormerModel.from_pretrained(folder, local_files_only=True)
        state = load_file(weights)
    except (OSError, KeyError, TypeError, RuntimeError, SafetensorError) as error:
        raise ValueError(f"{folder} holds no Mask2Former of transformers: {error}") from error
    names = {name: f"class_predictor.{name}" for name in ("weight", "bias")}
    missing = [name for name in names.values() if name not in state]
    if missing or config.num_labels != len(CLASSES):
        raise ValueError(
            f"{folder} has {config.num_labels} classes, lacks {missing or 'nothing'}: give a model "
            f"for segmentation of COCO's {len(CLASSES)}"
        )
    network = Mask2Former(config)
    network.model = model.float()
    network.class_predictor.load_state_dict({n: state[key].float() for n, key in names.items()})
    return network.to(device), hashlib.sha256(weights.read_bytes()).hexdigest()


@torch.no_grad()
def instances(network: Mask2Former, image_HW3: np.ndarray) -> Instances:
    """Return what the network finds in an image, uint8 (H, W, 3)."""
    device = network.class_predictor.weight.device
    pixels_3HW, resized = prepared(image_HW3)
    class_QK, mask_Qhw = network(pixels_3HW[None].to(device))
    return post_processed(
        class_QK.cpu(), mask_Qhw.cpu(), pixels_3HW.shape[1:], resized, image_HW3.shape[:2]
    )


def prepared(image_HW3: np.ndarray) -> tuple[Tensor, tuple[int, int]]:
    """Return the image as the network takes it, (3, H', W'), and its height and width before pads.

    Resized values are rounded to whole ones, as cv2 does, whose own rounding may differ by one.
    """
    height, width = image_HW3.shape[:2]
    longest, shortest = max(height, width), min(height, width)
    scale = min(LONGEST / longest, SHORTEST / shortest)
    resized = int(height * scale + 0.5), int(width * scale + 0.5)
    pixels_3HW = torch.from_numpy(np.array(image_HW3)).permute(2, 0, 1).float()
    pixels_3HW = _resized(pixels_3HW, resized).round()
    down, right = (-side % DIVISOR for side in resized)
    padded_3HW = F.pad(pixels_3HW, (0, right, 0, down), value=PAD)
    mean, spread = (torch.tensor(values)[:, None, None] for values in (MEAN, SCALE))
    return (padded_3HW - mean) / spread, resized


def post_processed(
    class_QK: Tensor,
    mask_Qhw: Tensor,
    padded: Sequence[int],
    resized: Sequence[int],
    original: Sequence[int],
) -> Instances:
    """Return the likeliest pairs of query and class as instances in the original image.

    class_QK: logits, the last of each query for nothing; sizes are (height, width).
    """
    num_classes = class_QK.shape[1] - 1
    probabilities_P = class_QK.softmax(dim=-1)[:, :-1].flatten()
    likeliest_N, pairs_N = probabilities_P.topk(min(NUM_PAIRS, len(probabilities_P)))
    queries_N, labels_N = pairs_N // num_classes, pairs_N % num_classes
    used_U, places_N = queries_N.unique(return_inverse=True)
    logits_UHW = _resized(mask_Qhw[used_U], padded)[:, : resized[0], : resized[1]]
    logits_UHW = _resized(logits_UHW, original)
    masks_UHW = logits_UHW > 0
    inside_U = (logits_UHW.sigmoid() * masks_UHW).flatten(1).sum(dim=1)
    quality_U = inside_U / (masks_UHW.flatten(1).sum(dim=1) + EPSILON)
    masks = masks_UHW.numpy()
    boxes_U4 = np.array([_tight(mask_HW) for mask_HW in masks], np.float32).reshape(-1, 4)
    scores_N1 = (likeliest_N * quality_U[places_N]).numpy()[:, None]
    at_N = places_N.numpy()
    boxes_N5 = np.concatenate([boxes_U4[at_N], scores_N1], axis=1)
    return Instances(boxes_N5, labels_N.numpy(), masks[at_N])


def _resized(pixels_CHW: Tensor, size: Sequence[int]) -> Tensor:
    """Resize bilinearly, half pixels aligned and nothing smoothed, as mmdet and cv2 do."""
    sides = (int(size[0]), int(size[1]))
    return F.interpolate(pixels_CHW[None], size=sides, mode="bilinear", align_corners=False)[0]


def _tight(mask_HW: np.ndarray) -> tuple[int, int, int, int]:
    """Return the box of a mask, its last row and column + 1; zeros for an empty one."""
    rows, columns = np.flatnonzero(mask_HW.any(axis=1)), np.flatnonzero(mask_HW.any(axis=0))
    if not len(rows):
        return 0, 0, 0, 0
    return int(columns[0]), int(rows[0]), int(columns[-1]) + 1, int(rows[-1]) + 1
