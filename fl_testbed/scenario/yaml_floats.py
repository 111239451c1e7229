"""YAML with numbers as in its version 1.2: PyYAML follows 1.1, in which 1e-3 is text."""

import re
from typing import Any

import yaml
from yaml.constructor import ConstructorError

FLOAT = re.compile(r"[-+]?(\.[0-9]+|[0-9]+(\.[0-9]*)?)[eE][-+]?[0-9]+\Z")


class Loader(yaml.SafeLoader):
    """Reads 1e-3 as a number, and raises YAMLError for whatever is no YAML."""

    def construct_object(self, node: yaml.Node, deep: bool = False) -> Any:
        """Return what a node says."""
        try:
            return super().construct_object(node, deep)
        except (ArithmeticError, LookupError, ValueError):  # raised by 0x_ or !!bool maybe
            text = f"{repr(node.value)[:60]} is not a valid {node.tag.rpartition(':')[2]}"
            raise ConstructorError(None, None, text, node.start_mark) from None


class Dumper(yaml.SafeDumper):
    """Writes the text 1e-3 in quotes."""


for own in (Loader, Dumper):
    own.add_implicit_resolver("tag:yaml.org,2002:float", FLOAT, list("-+.0123456789"))
