"""Know a field by its many names, and turn what other data sets store into our own fields.

In: the fields of a sample's .json or of a table's row, as somebody stored them. Out: the same, and
beside them those of the sample formats (formats.py), where it is known what they mean:

    MMC4          text_list, image_info          -> texts, images
    The Cauldron  texts [{"user", "assistant"}]  -> conversations
    VQAv2         answers [{"answer"}] or counts -> answers, each as often as it was given
    Alpaca        instruction, input, output     -> conversations; also query, response, ...,
                                                    and prompt, completion
    ScienceQA     choices, answer as a number    -> question with the choices, answer in words

What holds something that is not read, a video or sound or an answer that was rejected, is an error
that names it.
"""

import ast
import json
from collections.abc import Collection, Mapping
from typing import Any

from .sample_error import SampleError
from .turns import SPEAKERS, string

# The usual names of a role, the likeliest first. They are compared in lower case.
NAMES = {
    "parts": ("parts",),
    "texts": ("texts",),
    "images": ("images",),
    "conversations": ("conversations", "conversation", "dialog", "dialogue"),
    "messages": ("messages",),
    "image": (
        "image", "images", "picture", "pictures", "image_path", "image_file", "file_name",
        "filename", "img", "img_path", "photo", "filepath", "file", "path", "image_url",
        "img_url", "image_link",
    ),
    "before": ("before", "source_image", "source_img", "original_image", "input_image"),
    "after": ("after", "target_image", "target_img", "edited_image", "output_image"),
    "instruction": ("instruction", "edit", "prompt", "edit_prompt", "edit_instruction"),
    "question": ("question", "sentence", "query"),
    "answer": ("answer", "answers", "label", "response", "multiple_choice_answer"),
    "caption": (
        "caption", "captions", "recaption", "re_caption", "recaptions", "long_caption",
        "detailed_caption", "dense_caption", "short_caption", "sharegpt4v", "sharegpt4v_caption",
        "llava_caption", "caption_llava", "caption_llava_short", "cogvlm_caption",
        "caption_cogvlm", "internvl_caption", "qwen_caption", "vlm_caption", "blip_caption",
        "blip2_caption", "coca_caption", "syn_text", "synthetic_caption", "generated_caption",
        "text", "description", "org_caption", "original_caption", "alt_text", "alt_txt", "alt",
        "prompt", "title", "name",
    ),
    "text": ("text", "content", "document", "raw_content"),
}  # fmt: skip
# What a caption may be called and no plain text is: without its image it is nothing.
OF_IMAGES = tuple(
    name for name in NAMES["caption"] if "caption" in name or name in ("syn_text", "alt", "alt_txt")
)
LISTS = (
    "parts", "texts", "images", "text_list", "image_info", "answers", "history", "choices",
    "options", *NAMES["conversations"], *NAMES["messages"],
)  # fmt: skip
WORDS = (
    *NAMES["caption"],
    *NAMES["question"],
    *NAMES["answer"],
)  # a list is several ways to say it
FOREIGN = (
    ("text_list", "image_info"), ("texts", "images"), ("instruction", "output"),
    ("prompt", "completion"), ("rejected",),
)  # fmt: skip
ASKED = (("instruction", "output"), ("prompt", "completion"), ("query", "response"))
UNREAD = ("video", "videos", "audio", "audios", "rejected")
MAX_ANSWERS = 64  # with their counts: more would not be told apart (estimator.MAX_VARIANTS)
IMAGE_FILES = (".png", ".jpg", ".jpeg", ".webp", ".gif", ".bmp", ".tif", ".tiff")
Fields = dict[str, Any]


def plain(fields: Mapping[str, Any]) -> Fields:
    """Return the fields in the shapes of the sample formats; the others stay as they are.

    SampleError where a value has not the shape that its data set gives it.
    """
    try:
        return _plain(fields)
    except SampleError:
        raise
    except (ValueError, TypeError, KeyError, AttributeError, IndexError) as error:
        message = f"{', '.join(fields)}: {type(error).__name__}: {error}"
        raise SampleError("wrong fields", message) from error


def _plain(fields: Mapping[str, Any]) -> Fields:
    found = {name: _parsed(name, value) for name, value in fields.items()}
    for name in UNREAD:
        if found.get(name):
            raise SampleError("unread modality", f"{name}: {found[name]!r:.80}, which is not read")
    for turned in (_mmc4, _cauldron, _answers, _choices, _alpaca, _system):
        found |= turned(found)
    return {name: value for name, value in found.items() if value is not DROPPED}


DROPPED = object()  # the value of a field that another one replaces


def is_foreign(names: Collection[str]) -> bool:
    """Tell by its columns whether a table is one of those whose rows `plain` turns into others."""
    return any(set(needed) <= set(names) for needed in FOREIGN)


def _parsed(name: str, value: Any) -> Any:
    """Return a list that a table stores as JSON, or as Python writes it; else the value."""
    if not isinstance(value, str) or not value[:20].lstrip().startswith("["):
        return value
    for parse in (json.loads, ast.literal_eval):
        try:
            found = parse(value.strip())
        except (ValueError, SyntaxError, RecursionError, MemoryError):
            continue
        is_words = name.lower() in WORDS and all(isinstance(one, str) for one in found)
        return found if name in LISTS or is_words else value
    return value


def _mmc4(fields: Fields) -> Fields:
    """An image stands before the text that it was matched with (Zhu et al., 2023)."""
    if fields.get("text_list") is None or fields.get("image_info") is None:
        return {}
    before: dict[int, list[Any]] = {at: [] for at in range(len(fields["text_list"]))}
    for info in fields["image_info"]:
        inside = info.get("image_base64")
        image = f"data:image;base64,{inside}" if inside else info["image_name"]
        before[info["matched_text_index"]].append(image)
    texts, images = [], []
    for at, text in enumerate(fields["text_list"]):
        texts += [None] * len(before[at]) + [text]
        images += [*before[at], None]
    return {"texts": texts, "images": images}


def _cauldron(fields: Fields) -> Fields:
    texts = fields.get("texts")
    if not isinstance(texts, list) or not any(isinstance(text, dict) for text in texts):
        return {}
    turns = [
        {"from": who, "value": string(text[who])} for text in texts for who in ("user", "assistant")
    ]
    return {"conversations": turns, "texts": DROPPED}


def _answers(fields: Fields) -> Fields:
    """People's answers become texts, each as often as it was given."""
    given = fields.get("answers")
    if isinstance(given, dict) and given and all(type(n) is int for n in given.values()):
        given = [{"answer": answer, "count": count} for answer, count in given.items()]
    if not isinstance(given, list) or not any(isinstance(one, dict) for one in given):
        return {}
    counts = [(one["answer"], one.get("count", 1)) for one in given]
    if not all(type(count) is int and count >= 0 for _, count in counts):
        raise ValueError(f"the counts of answers are whole numbers: {counts!r:.80}")
    if sum(count for _, count in counts) > MAX_ANSWERS:
        raise ValueError(f"answers of more than {MAX_ANSWERS} people: {counts!r:.80}")
    return {"answers": [answer for answer, count in counts for _ in range(count)]}


def _choices(fields: Fields) -> Fields:
    """An answer that is the number or letter of a choice becomes the choice, and they are shown."""
    question, answer = fields.get("question"), fields.get("answer")
    choices = fields.get("choices") or fields.get("options")
    if not (isinstance(choices, list) and choices and isinstance(question, str)):
        return {}
    letters = "ABCDEFGHIJKLMNOPQRSTUVWXYZ"[: len(choices)]
    if isinstance(answer, str) and len(answer) == 1 and answer in letters:
        answer = letters.index(answer)
    if isinstance(answer, str) and answer.isdecimal() and answer not in choices:
        answer = int(answer)
    if type(answer) is not int:
        return {}
    if not 0 <= answer < len(letters):
        raise ValueError(f"answer {answer} of {len(choices)} choices")
    named = [f"{letter}. {choice}" for letter, choice in zip(letters, choices, strict=False)]
    return {"question": "\n".join([question, *named]), "answer": named[answer]}


def _alpaca(fields: Fields) -> Fields:
    """An instruction and its output are two turns, after those of the history."""
    names = next((names for names in ASKED if names[1] in fields), ASKED[0])
    asked, said = map(fields.get, names)
    is_chat = names[1] != "response" or fields.get("history") or fields.get("system")
    if not (is_chat and isinstance(asked, str) and isinstance(said, str)) or _names_image(said):
        return {}
    if more := fields.get("input"):
        asked = f"{asked}\n{string(more)}"
    pairs = [*(fields.get("history") or []), (asked, said)]
    turns = [
        {"role": role, "content": content}
        for pair in pairs
        for role, content in zip(("user", "assistant"), pair, strict=True)
    ]
    return {"conversations": turns}


def _names_image(text: str) -> bool:
    return text.lower().endswith(IMAGE_FILES) and len(text.split()) == 1


def _system(fields: Fields) -> Fields:
    """What stands beside the turns as the system's words is the first of them."""
    words = fields.get("system")
    name = next((n for n in ("messages", "conversations") if fields.get(n)), None)
    if name is None or not isinstance(words, str) or not words:
        return {}
    first = fields[name][0]
    if SPEAKERS.get(str(first.get("role") or first.get("from"))) == "system":
        return {}
    return {name: [{"role": "system", "content": words}, *fields[name]]}
