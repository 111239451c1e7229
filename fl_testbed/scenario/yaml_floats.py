"""YAML with the numbers of its version 1.2: for PyYAML, which keeps to 1.1, 1e-3 is text."""

import re

import yaml

FLOAT = re.compile(r"[-+]?(\.[0-9]+|[0-9]+(\.[0-9]*)?)[eE][-+]?[0-9]+\Z")


class Loader(yaml.SafeLoader):
    """Reads 1e-3 as a number."""


class Dumper(yaml.SafeDumper):
    """Writes the text 1e-3 in quotes."""


for own in (Loader, Dumper):
    own.add_implicit_resolver("tag:yaml.org,2002:float", FLOAT, list("-+.0123456789"))
