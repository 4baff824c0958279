"""YAML as plain mappings, lists and scalars, and the overrides that change them.

In: a file, overrides `key.sub=value`, or a dataclass. Out: a tree that belongs to nobody else.
"""

import dataclasses
import re
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import yaml


class ConfigError(ValueError):
    """A ConfigError reports every problem of a configuration, one per line.

    `problems` holds them as a list.
    """

    def __init__(self, problems: Sequence[str], path: Path | None = None):
        self.problems = list(problems)
        between = " " if len(self.problems) == 1 else "\n  "
        super().__init__(between.join([f"{path or 'configuration'}:", *self.problems]))


class Loader(yaml.SafeLoader):
    """Loader reads YAML's safe subset; 1e-4 is a number, and a key given twice is an error."""

    def construct_mapping(self, node: Any, deep: bool = False) -> dict:
        keys = [self.construct_object(key, deep=True) for key, _ in node.value]
        for key in keys:
            if keys.count(key) > 1:
                raise yaml.constructor.ConstructorError(
                    None, None, f"the key {key!r} is given twice", node.start_mark
                )
        return super().construct_mapping(node, deep)


class Dumper(yaml.SafeDumper):
    """Dumper quotes text that Loader would read as something else."""


# YAML 1.1 wants a point in every float and a sign in every exponent; people write 1e-4 and 3e8.
for _class in (Loader, Dumper):
    _class.add_implicit_resolver(
        "tag:yaml.org,2002:float",
        re.compile(r"[-+]?[0-9]+(\.[0-9]*)?[eE][-+]?[0-9]+$"),
        list("-+0123456789"),
    )


class Entries(dict):
    """Entries are a mapping made by dotted keys: they change entries and replace no mapping."""


def read(path: Path) -> dict:
    """Return the mapping in a YAML file; raise ConfigError where there is none."""
    try:
        tree = yaml.load(path.read_bytes(), Loader)  # a subclass of SafeLoader
    except OSError as error:
        raise ConfigError([f"cannot be read: {error.strerror}"], path) from error
    except yaml.YAMLError as error:
        raise ConfigError([f"is not YAML: {error}"], path) from error
    if tree is None:
        return {}
    if not isinstance(tree, dict):
        raise ConfigError([f"expected 'key: value' lines, got {shown(tree)}"], path)
    return tree_of(tree)  # a copy in which aliases (*name) share nothing, for overrides change it


def dumped(value: Any) -> str:
    """Return a value as YAML that `read` reads back."""
    return yaml.dump(tree_of(value), Dumper=Dumper, sort_keys=False, allow_unicode=True)


def put(tree: dict, override: str) -> list[str]:
    """Write one `key.sub=value` into the tree; return the problems met."""
    key, equals, text = override.partition("=")
    if not key or not equals or not text:
        return [f"{override!r}: write key=value, or key=null to switch it off"]
    *sections, last = key.split(".")
    for section in sections:
        if tree.get(section) is None:
            tree[section] = Entries()
        tree = tree[section]
        if not isinstance(tree, dict):
            return [f"{key}: {section!r} is {shown(tree)}, without keys"]
    try:
        tree[last] = yaml.load(text, Loader)
    except yaml.YAMLError:
        return [f"{key}: {text!r} is not YAML; quote it"]
    return []


def tree_of(value: Any) -> Any:
    """Return a value as plain mappings, lists and scalars."""
    if dataclasses.is_dataclass(value):
        return {field.name: tree_of(getattr(value, field.name)) for field in fields_of(value)}
    if isinstance(value, dict):
        return {key: tree_of(entry) for key, entry in value.items()}
    if isinstance(value, tuple | list):
        return [tree_of(entry) for entry in value]
    return str(value) if isinstance(value, Path) else value


def fields_of(cls: Any) -> list[dataclasses.Field]:
    """Return the fields of a dataclass, or of an instance of one, that may be given."""
    return [field for field in dataclasses.fields(cls) if field.init]


def shown(value: Any) -> str:
    """Return a value and its type in words."""
    return "nothing" if value is None else f"{value!r} ({type(value).__name__.strip('_')})"
