"""Mask2Former of random weights: its names, its images and its boxes against written-out ones."""

import json
from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image
from safetensors.torch import save_file
from torch import nn
from transformers import CLIPConfig, CLIPModel, CLIPTokenizer, Mask2FormerConfig, SwinConfig
from transformers.models.swin.modeling_swin import SwinPatchMerging

from unimodal.eval.geneval import mask2former
from unimodal.eval.geneval.clip_colours import TEMPLATES, ClipColours, cut_out, prepared
from unimodal.eval.geneval.detector import Known, refuse_unproven
from unimodal.eval.geneval.known_images import known_photos
from unimodal.eval.geneval.mask2former import (
    CLASSES,
    Mask2Former,
    Mask2FormerDetector,
    instances,
    load_mask2former,
    official_config,
    post_processed,
)
from unimodal.eval.geneval.mmdet_weights import mmdet_name, read_mmdet, to_mmdet, to_transformers
from unimodal.eval.geneval.prompts import COLOURS, Prompt, Wanted

GENEVAL = Path(__file__).resolve().parents[3] / "../shared/data/geneval"
SIDE = 64  # of tiny images


def tiny_config() -> Mask2FormerConfig:
    swin = SwinConfig(
        embed_dim=8, depths=[1, 1, 1, 1], num_heads=[1, 1, 2, 2], window_size=4,
        out_features=["stage1", "stage2", "stage3", "stage4"],
    )  # fmt: skip
    return Mask2FormerConfig(
        backbone_config=swin, num_labels=80, feature_size=32, mask_feature_size=32, hidden_dim=32,
        encoder_feedforward_dim=32, dim_feedforward=32, encoder_layers=1, decoder_layers=3,
        num_attention_heads=4, num_queries=10,
    )  # fmt: skip


@pytest.fixture(scope="module")
def network() -> Mask2Former:
    torch.manual_seed(0)
    return Mask2Former(tiny_config()).eval()


@pytest.fixture
def small(monkeypatch):
    """Images are resized to fit 64 x 64."""
    monkeypatch.setattr(mask2former, "LONGEST", SIDE)
    monkeypatch.setattr(mask2former, "SHORTEST", SIDE)


@pytest.fixture(scope="module")
def clip_folder(tmp_path_factory) -> Path:
    """A CLIP of random weights that spells words letter by letter."""
    folder = tmp_path_factory.mktemp("clip")
    letters = [f"{c}{end}" for c in "abcdefghijklmnopqrstuvwxyz-" for end in ("", "</w>")]
    vocab = {t: k for k, t in enumerate([*letters, "<|startoftext|>", "<|endoftext|>"])}
    CLIPTokenizer(vocab=vocab, merges=[]).save_pretrained(folder)
    sizes = {
        "hidden_size": 16,
        "intermediate_size": 16,
        "num_hidden_layers": 1,
        "num_attention_heads": 2,
    }
    ids = {"bos_token_id": len(vocab) - 2, "eos_token_id": len(vocab) - 1}
    text = {"vocab_size": len(vocab), "pad_token_id": len(vocab) - 1, **ids, **sizes}
    vision = {"image_size": 16, "patch_size": 8, **sizes}
    torch.manual_seed(1)
    config = CLIPConfig(text_config=text, vision_config=vision, projection_dim=8)
    CLIPModel(config).save_pretrained(folder)
    return folder


def picture(height: int = 40, width: int = 60) -> np.ndarray:
    return np.random.default_rng(0).integers(0, 256, (height, width, 3), np.uint8)


# --- names --------------------------------------------------------------------------------------


def norm(name: str, size: int) -> dict[str, tuple[int, ...]]:
    return {f"{name}.weight": (size,), f"{name}.bias": (size,)}


def linear(name: str, out: int, into: int) -> dict[str, tuple[int, ...]]:
    return {f"{name}.weight": (out, into), f"{name}.bias": (out,)}


def official_names() -> dict[str, tuple[int, ...]]:
    """Names and shapes of mmdet 2's Mask2Former with Swin-S, as its modules define them."""
    found = {"backbone.patch_embed.projection.weight": (96, 3, 4, 4)}
    found |= {
        "backbone.patch_embed.projection.bias": (96,),
        **norm("backbone.patch_embed.norm", 96),
    }
    for stage, (depth, heads) in enumerate(zip((2, 2, 18, 2), (3, 6, 12, 24), strict=True)):
        width = 96 * 2**stage
        found |= norm(f"backbone.norm{stage}", width)
        for block in range(depth):
            at = f"backbone.stages.{stage}.blocks.{block}"
            found |= norm(f"{at}.norm1", width) | norm(f"{at}.norm2", width)
            found |= linear(f"{at}.attn.w_msa.qkv", 3 * width, width)
            found |= linear(f"{at}.attn.w_msa.proj", width, width)
            found |= linear(f"{at}.ffn.layers.0.0", 4 * width, width)
            found |= linear(f"{at}.ffn.layers.1", width, 4 * width)
            found[f"{at}.attn.w_msa.relative_position_bias_table"] = (13 * 13, heads)
            found[f"{at}.attn.w_msa.relative_position_index"] = (49, 49)
        if stage < 3:
            at = f"backbone.stages.{stage}.downsample"
            found |= norm(f"{at}.norm", 4 * width)
            found[f"{at}.reduction.weight"] = (2 * width, 4 * width)
    pixels = "panoptic_head.pixel_decoder"
    for level, width in enumerate((768, 384, 192)):
        at = f"{pixels}.input_convs.{level}"
        found |= {f"{at}.conv.weight": (256, width, 1, 1), f"{at}.conv.bias": (256,)}
        found |= norm(f"{at}.gn", 256)
    for layer in range(6):
        at = f"{pixels}.encoder.layers.{layer}"
        found |= linear(f"{at}.attentions.0.sampling_offsets", 8 * 3 * 4 * 2, 256)
        found |= linear(f"{at}.attentions.0.attention_weights", 8 * 3 * 4, 256)
        found |= linear(f"{at}.attentions.0.value_proj", 256, 256)
        found |= linear(f"{at}.attentions.0.output_proj", 256, 256)
        found |= linear(f"{at}.ffns.0.layers.0.0", 1024, 256)
        found |= linear(f"{at}.ffns.0.layers.1", 256, 1024)
        found |= norm(f"{at}.norms.0", 256) | norm(f"{at}.norms.1", 256)
    found |= {f"{pixels}.level_encoding.weight": (3, 256)}
    found |= {f"{pixels}.lateral_convs.0.conv.weight": (256, 96, 1, 1)}
    found |= {f"{pixels}.output_convs.0.conv.weight": (256, 256, 3, 3)}
    found |= norm(f"{pixels}.lateral_convs.0.gn", 256) | norm(f"{pixels}.output_convs.0.gn", 256)
    found |= {f"{pixels}.mask_feature.weight": (256, 256, 1, 1)}
    found |= {f"{pixels}.mask_feature.bias": (256,)}
    for layer in range(9):
        at = f"panoptic_head.transformer_decoder.layers.{layer}"
        for attention in (0, 1):
            found[f"{at}.attentions.{attention}.attn.in_proj_weight"] = (768, 256)
            found[f"{at}.attentions.{attention}.attn.in_proj_bias"] = (768,)
            found |= linear(f"{at}.attentions.{attention}.attn.out_proj", 256, 256)
        found |= linear(f"{at}.ffns.0.layers.0.0", 2048, 256)
        found |= linear(f"{at}.ffns.0.layers.1", 256, 2048)
        for k in range(3):
            found |= norm(f"{at}.norms.{k}", 256)
    found |= norm("panoptic_head.transformer_decoder.post_norm", 256)
    found |= {"panoptic_head.query_embed.weight": (100, 256)}
    found |= {"panoptic_head.query_feat.weight": (100, 256)}
    found |= {"panoptic_head.level_embed.weight": (3, 256)}
    found |= linear("panoptic_head.cls_embed", 81, 256)
    for k in (0, 2, 4):
        found |= linear(f"panoptic_head.mask_embed.{k}", 256, 256)
    return found


def test_every_tensor_of_the_official_shape_is_mapped_both_ways():
    with torch.device("meta"):
        ours = Mask2Former(official_config()).state_dict()
    theirs = to_mmdet(ours)
    assert {name: tuple(tensor.shape) for name, tensor in theirs.items()} == official_names()
    back = to_transformers(theirs, ours)
    assert {n: t.shape for n, t in back.items()} == {n: t.shape for n, t in ours.items()}


@pytest.mark.parametrize(
    "config", [tiny_config, pytest.param(official_config, marks=pytest.mark.slow)]
)
def test_random_weights_come_back_from_either_side(config):
    with torch.device("meta"):
        template = Mask2Former(config()).state_dict()
    rng = torch.Generator().manual_seed(0)
    ours = {name: torch.rand(like.shape, generator=rng) for name, like in template.items()}
    theirs = to_mmdet(ours)
    back = to_transformers(theirs, ours)
    assert back.keys() == template.keys()
    assert all(torch.equal(back[name], tensor) for name, tensor in ours.items())
    again = to_mmdet(back)
    assert all(torch.equal(again[name], tensor) for name, tensor in theirs.items())


def test_merged_windows_give_what_mmdet_computes(network):
    ours = SwinPatchMerging(6)
    theirs = nn.Sequential(nn.LayerNorm(24), nn.Linear(24, 12, bias=False))
    nn.init.normal_(theirs[0].weight)
    nn.init.normal_(theirs[0].bias)
    state = network.state_dict()
    stage = "model.pixel_level_module.encoder.swin.encoder.layers.0.downsample"
    like = {name: torch.empty(0) for name in state if name.startswith(f"{stage}.")}
    given = {
        mmdet_name(f"{stage}.norm.weight")[0]: theirs[0].weight,
        mmdet_name(f"{stage}.norm.bias")[0]: theirs[0].bias,
        mmdet_name(f"{stage}.reduction.weight")[0]: theirs[1].weight,
    }
    like |= {f"{stage}.{name}": tensor for name, tensor in ours.state_dict().items()}
    converted = to_transformers(given, like)
    ours.load_state_dict({n.removeprefix(f"{stage}."): t for n, t in converted.items()})
    pixels_1CHW = torch.randn(1, 6, 8, 10)
    unfolded_1LK = nn.Unfold(kernel_size=2, stride=2)(pixels_1CHW).transpose(1, 2)  # as mmdet does
    flat_1LC = pixels_1CHW.flatten(2).transpose(1, 2)
    torch.testing.assert_close(ours(flat_1LC, (8, 10)), theirs(unfolded_1LK))


def test_weights_of_another_model_are_refused(network, tmp_path):
    template = network.state_dict()
    theirs = to_mmdet(template)
    name = "panoptic_head.cls_embed.weight"
    with pytest.raises(ValueError, match=f"lack {name}"):
        to_transformers({k: v for k, v in theirs.items() if k != name}, template)
    with pytest.raises(ValueError, match=r"shape \(5, 32\), not \(81, 32\)"):
        to_transformers(theirs | {name: torch.zeros(5, 32)}, template)
    with pytest.raises(ValueError, match="have backbone.more, which no"):
        to_transformers(theirs | {"backbone.more": torch.zeros(1)}, template)
    index = next(name for name in theirs if name.endswith("relative_position_index"))
    with pytest.raises(ValueError, match="another kind of window"):
        to_transformers(theirs | {index: theirs[index] + 1}, template)
    with pytest.raises(ValueError, match="tensor model.new.weight that is not known"):
        to_mmdet({"model.new.weight": torch.zeros(1)})


def test_a_file_that_is_no_checkpoint_is_refused(network, tmp_path):
    file = tmp_path / "weights.pth"
    with pytest.raises(ValueError, match="download GenEval's mask2former_swin-s"):
        read_mmdet(file)
    file.write_bytes(b"no checkpoint")
    with pytest.raises(ValueError, match="weights.pth is no"):
        read_mmdet(file)
    torch.save({"state_dict": {"a": 3}}, file)
    with pytest.raises(ValueError, match="holds no state dict"):
        read_mmdet(file)
    torch.save({"state_dict": {"a": tmp_path}}, file)  # an object, which unpickling would build
    with pytest.raises(ValueError, match="weights.pth is no"):
        read_mmdet(file)
    torch.save({"meta": {"epoch": 50}, "state_dict": to_mmdet(network.state_dict())}, file)
    assert "panoptic_head.cls_embed.bias" in read_mmdet(file)


@pytest.mark.skipif(not GENEVAL.exists(), reason="needs shared/data/geneval beside the repository")
def test_classes_are_geneval_s_in_its_order():
    assert "\n".join(CLASSES) == (GENEVAL / "object_names.txt").read_text().strip()


# --- images and boxes ---------------------------------------------------------------------------


def bilinear(pixels_HW: np.ndarray, height: int, width: int) -> np.ndarray:
    """Resize with half pixels aligned and edges repeated, place by place."""
    rows, columns = pixels_HW.shape
    out = np.zeros((height, width))
    for y in range(height):
        for x in range(width):
            v = max((y + 0.5) * rows / height - 0.5, 0)
            u = max((x + 0.5) * columns / width - 0.5, 0)
            top, left = int(v), int(u)
            down, right = min(top + 1, rows - 1), min(left + 1, columns - 1)
            a, b = v - top, u - left
            out[y, x] = (
                (1 - a) * (1 - b) * pixels_HW[top, left] + (1 - a) * b * pixels_HW[top, right]
                + a * (1 - b) * pixels_HW[down, left] + a * b * pixels_HW[down, right]
            )  # fmt: skip
    return out


def written_out(class_QK: np.ndarray, mask_Qhw: np.ndarray, padded, resized, original) -> list:
    """mmdet's post-processing in loops: (score, class, box, mask), the likeliest pairs first."""
    pairs = []
    for q, logits in enumerate(class_QK):
        exps = [np.exp(float(one)) for one in logits]
        pairs += [(exps[c] / sum(exps), q, c) for c in range(len(exps) - 1)]
    found = []
    for probability, q, c in sorted(pairs, reverse=True)[:100]:
        logits = bilinear(mask_Qhw[q], *padded)[: resized[0], : resized[1]]
        logits = bilinear(logits, *original)
        inside = [
            (y, x) for y in range(original[0]) for x in range(original[1]) if logits[y, x] > 0
        ]
        total = sum(1 / (1 + np.exp(-logits[place])) for place in inside)
        ys, xs = [y for y, _ in inside] or [0], [x for _, x in inside] or [0]
        box = [min(xs), min(ys), max(xs) + 1, max(ys) + 1] if inside else [0, 0, 0, 0]
        found.append((probability * total / (len(inside) + 1e-6), c, box, logits > 0))
    return found


def test_boxes_scores_and_masks_equal_the_written_out_ones():
    rng = np.random.default_rng(3)
    class_QK = rng.normal(0, 2, (13, 9)).astype(np.float32)  # 13 x 8 pairs: 4 are dropped
    mask_Qhw = rng.normal(0, 3, (13, 3, 4)).astype(np.float32)
    mask_Qhw[2] = -1  # an empty mask
    sizes = (12, 16), (11, 14), (7, 9)
    got = post_processed(torch.from_numpy(class_QK), torch.from_numpy(mask_Qhw), *sizes)
    wanted = written_out(class_QK, mask_Qhw, *sizes)
    assert len(got.labels_N) == len(wanted) == 100
    for k, (score, label, box, mask) in enumerate(wanted):
        assert got.labels_N[k] == label
        assert got.boxes_N5[k, 4] == pytest.approx(score, rel=1e-4, abs=1e-7)
        assert got.boxes_N5[k, :4].tolist() == box and (got.masks_NHW[k] == mask).all()
    assert any(box == [0, 0, 0, 0] for _, _, box, _ in wanted)


def test_an_image_is_resized_padded_and_standardised(monkeypatch):
    monkeypatch.setattr(mask2former, "LONGEST", 50)
    monkeypatch.setattr(mask2former, "SHORTEST", 40)
    image = picture(12, 20)
    got, resized = mask2former.prepared(image)
    assert resized == (30, 50) and got.shape == (3, 32, 64)  # 50 / 20 < 40 / 12
    mean, spread = (123.675, 116.28, 103.53), (58.395, 57.12, 57.375)
    for c in range(3):
        wanted = np.full((32, 64), 128.0)
        wanted[:30, :50] = np.round(bilinear(image[:, :, c].astype(float), 30, 50))
        off = np.abs(got[c].numpy() * spread[c] + mean[c] - wanted)
        assert off.mean() < 0.02 and off.max() < 1.001  # halves round either way


def test_an_image_of_coco_s_size_keeps_its_shape():
    _, resized = mask2former.prepared(picture(480, 640))
    assert resized == (800, 1067)
    assert mask2former.prepared(picture(64, 300))[1] == (284, 1333)


def test_a_folder_of_transformers_gives_the_same_network(network, tmp_path, small):
    network.model.config.save_pretrained(tmp_path)
    save_file(
        {n: t.contiguous() for n, t in network.state_dict().items()}, tmp_path / "model.safetensors"
    )
    loaded, digest = load_mask2former(tmp_path)
    mine, theirs = instances(network, picture()), instances(loaded.eval(), picture())
    np.testing.assert_allclose(mine.boxes_N5, theirs.boxes_N5, rtol=1e-5)
    assert len(digest) == 64
    with pytest.raises(ValueError, match="download facebook/mask2former-swin-small-coco-instance"):
        load_mask2former(tmp_path / "..")


# --- colours, and what must be known before -----------------------------------------------------


def test_a_crop_is_grey_outside_the_mask():
    image, mask = picture(), np.zeros((40, 60), bool)
    mask[10:20, 10:30] = True
    crop = np.asarray(cut_out(image, [8.4, 10, 30, 22, 0.9], mask))
    assert crop.shape == (12, 22, 3)
    assert (crop[:10, 2:] == image[10:20, 10:30]).all()
    assert (crop[10:] == 0x99).all() and (crop[:, :2] == 0x99).all()


def test_a_crop_is_prepared_as_open_clip_does():
    image = Image.fromarray(picture(30, 47))
    wanted = image.resize((int(16 / 30 * 47), 16), Image.Resampling.BICUBIC)
    left = round((wanted.width - 16) / 2)
    pixels = np.asarray(wanted)[:, left : left + 16] / 255
    mean, spread = (0.48145466, 0.4578275, 0.40821073), (0.26862954, 0.26130258, 0.27577711)
    got = prepared(image, 16).permute(1, 2, 0).numpy()
    np.testing.assert_allclose(got, (pixels - mean) / spread, atol=1e-5)


def test_a_crop_is_resized_to_torchvision_s_size(monkeypatch):
    sizes = []
    monkeypatch.setattr(Image.Image, "resize", lambda self, size, *_: sizes.append(size) or self)
    prepared(Image.new("RGB", (15, 135)), 224)
    assert sizes == [(224, 2016)]  # 224 / 15 * 135 is 2015.99...


def test_the_nearest_colour_is_named(clip_folder):
    colours = ClipColours(clip_folder)
    model = CLIPModel.from_pretrained(clip_folder)
    tokenizer = CLIPTokenizer.from_pretrained(clip_folder)
    image, masks = picture(), np.ones((2, 40, 60), bool)
    boxes = np.array([[0, 0, 30, 40, 0.9], [20, 5, 60, 35, 0.8]])
    for k, name in enumerate(colours.name(image, boxes, masks, "cat")):
        cosines = []
        with torch.no_grad():
            seen = model.get_image_features(prepared(cut_out(image, boxes[k], masks[k]), 16)[None])
            seen = seen.pooler_output[0] / seen.pooler_output[0].norm()
            for colour in COLOURS:
                mean = torch.zeros(8)
                for template in TEMPLATES:
                    text = template.format(colour=colour, name="cat")
                    said = model.get_text_features(**tokenizer(text, return_tensors="pt"))
                    mean += said.pooler_output[0] / said.pooler_output[0].norm() / 3
                cosines.append(float(mean @ seen / mean.norm()))
        assert name == COLOURS[int(np.argmax(cosines))]
    assert colours.name(image, boxes[:0], masks[:0], "cat") == []


def test_a_folder_without_clip_is_refused(tmp_path):
    with pytest.raises(ValueError, match="download openai/clip-vit-large-patch14"):
        ClipColours(tmp_path)
    (tmp_path / "model.safetensors").write_bytes(b"nothing")
    with pytest.raises(ValueError, match="holds no CLIP"):
        ClipColours(tmp_path)


def test_random_weights_run_up_to_their_refusal(network, clip_folder, small):
    class OnPictures(Mask2FormerDetector):
        def known(self) -> list[Known]:
            prompt = Prompt("single_object", (Wanted("cat", 1),), "a photo of a cat")
            return [Known("noise", picture(), prompt, True)]

    detector = OnPictures(network, "0123456789" * 7, ClipColours(clip_folder))
    asked = Prompt("colors", (Wanted("cat", 1, "red"),), "a photo of a red cat")
    found = detector.find(picture(), asked)
    assert sum(len(rows) for rows in found.boxes.values()) == 100
    assert not found.colours.get("cat") or set(found.colours["cat"]) == {None}  # none is so sure
    assert set(found.boxes) <= set(CLASSES)
    with pytest.raises(ValueError, match="mask2former_01234567 is wrong on 1 of 1 known images"):
        refuse_unproven(detector)
    assert detector.settings()["detector_official"] is False
    json.dumps(detector.settings())


def test_known_photographs_must_be_the_ones(tmp_path):
    with pytest.raises(ValueError, match="pip install scikit-image"):
        known_photos(tmp_path)
    Image.fromarray(picture()).save(tmp_path / "chelsea.png")
    with pytest.raises(ValueError, match="is not scikit-image's chelsea.png"):
        known_photos(tmp_path)
