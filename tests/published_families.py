"""Small models of all published families by name, and what spells their marks and codes."""

import json
from pathlib import Path

import published_models as made

MAKERS = {
    "emu3": lambda at: made.save_emu3(at, made.emu3_model()),
    "chat": lambda at: made.save_emu3(at, made.emu3_model(131072)),
    "janus": lambda at: made.save_janus(at, made.janus_model()),
    "chameleon": lambda at: made.save_chameleon(at, made.chameleon_model()),
    "anole": lambda at: made.save_anole(at, made.chameleon_model()),
    "lumina": lambda at: made.save_lumina(at, made.lumina_model()),
    "liquid": lambda at: made.save_liquid(at, made.liquid_model()),
}
SPELLINGS = {
    "emu3": made.EMU3_SPELLINGS, "chat": made.EMU3_SPELLINGS, "janus": made.JANUS_SPELLINGS,
    "chameleon": list(made.chameleon_ids()), "anole": list(made.chameleon_ids()),
    "lumina": list(made.chameleon_ids(made.LUMINA_MORE)), "liquid": made.LIQUID_MARKS,
}  # fmt: skip


def change(path: Path, **values: object) -> None:
    """Change values of a JSON file."""
    path.write_text(json.dumps(json.loads(path.read_text()) | values))
