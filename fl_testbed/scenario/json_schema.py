"""The JSON Schema of a scenario file, for editors: completion, hints, and typos underlined."""

import inspect
import re
from collections.abc import Iterator
from copy import deepcopy
from functools import cache
from typing import Any

from pydantic.json_schema import models_json_schema

from fl_testbed.scenario.centralized import CentralizedScenario
from fl_testbed.scenario.scenario import Scenario
from fl_testbed.scenario.spec import Spec, models_in

Schema = dict[str, Any]
REF = "#/$defs/"
PARTIAL = ".Part"  # definitions that may lack keys: for variants, and files that extend others
COMMENT = re.compile(r"^    (\w+): .*?  # (.+)$", re.MULTILINE)
KINDLESS = {"type": "object", "not": {"required": ["kind"]}}  # merges into one that has a kind


def scenario_schema() -> Schema:
    """Return the schema of scenario files, federated and on pooled data.

    What loading checks beyond single keys (bounds on the number of clients, say) is not in it. A
    file that extends another, or leaves keys to its variants, need not be complete.
    """
    models = (Scenario, CentralizedScenario)
    _, schema = models_json_schema([(model, "validation") for model in models])
    definitions: Schema = {name: _untitled(node) for name, node in schema["$defs"].items()}
    for model in every_model(models):
        _add_comments(model, definitions)
    definitions |= {
        name + PARTIAL: _partial(definition, definitions)
        for name, definition in definitions.items()
        if not _has_kind(definition) or name == CentralizedScenario.__name__
    }
    for model in models:
        _make_file(model, definitions)
    federated, pooled = (
        {"anyOf": [{"$ref": REF + model.__name__}, _incomplete(model)]} for model in models
    )
    says_pooled = {"required": ["kind"], "properties": {"kind": {"const": "centralized"}}}
    inherits_kind = {"required": ["extends"], "not": {"required": ["kind"]}}
    either = {"anyOf": [_incomplete(model) for model in models]}
    return {
        "$schema": "https://json-schema.org/draft/2020-12/schema",
        "title": "fl-testbed scenario",
        "type": "object",
        "if": says_pooled,
        "then": pooled,
        "else": {"if": inherits_kind, "then": either, "else": federated},
        "$defs": definitions,
    }


def _incomplete(model: type[Spec]) -> Schema:
    needs_others = [{"required": [key]} for key in ("extends", "variants", "sweep")]
    return {"$ref": REF + model.__name__ + PARTIAL, "anyOf": needs_others}


def _make_file(model: type[Spec], definitions: Schema) -> None:
    """Add to a scenario's definition the keys that only files have."""
    keys = "|".join(model.model_fields)
    parts = definitions[model.__name__ + PARTIAL]
    variant = {
        "type": ["object", "null"],
        "properties": deepcopy(parts["properties"]),
        "patternProperties": {rf"^({keys})\..+$": {}},
        "additionalProperties": False,
    }
    values = {"type": ["array", "object"], "minItems": 1, "minProperties": 1}
    of_files = {
        "extends": {
            "type": ["string", "array"],
            "items": {"type": "string"},
            "minItems": 1,
            "description": "another scenario file, which this adds to, or several",
        },
        "variants": {
            "type": ["object", "null"],
            "description": "by name, the keys in which each differs; dotted keys reach inside",
            "additionalProperties": variant,
        },
        "sweep": {
            "type": ["object", "null"],
            "description": "by dotted key, the values to run all variants with: a list, or by name",
            "patternProperties": {rf"^({keys})(\..+)?$": values},
            "additionalProperties": False,
        },
    }
    for name in (model.__name__, model.__name__ + PARTIAL):
        definitions[name]["properties"] |= of_files


def _untitled(node: Any) -> Any:
    """Return a schema without pydantic's titles, which repeat the keys."""
    if isinstance(node, list):
        return [_untitled(item) for item in node]
    if not isinstance(node, dict):
        return node
    return {k: _untitled(v) for k, v in node.items() if k != "title" or not isinstance(v, str)}


def _has_kind(definition: Schema) -> bool:
    return "kind" in definition.get("properties", {})


def _partial(node: Any, definitions: Schema) -> Any:
    """Return a schema that requires no key, for mappings that are laid over others."""
    if isinstance(node, list):
        return [_partial(item, definitions) for item in node]
    if not isinstance(node, dict):
        return node
    if "$ref" in node:
        name = node["$ref"].removeprefix(REF)
        if _has_kind(definitions[name]):  # with a kind it replaces the other: it must be complete
            return {"anyOf": [node, KINDLESS]}
        return node | {"$ref": node["$ref"] + PARTIAL}
    return {
        # Without its kind, a mapping may fit several.
        "anyOf" if key == "oneOf" else key: (
            value if key == "default" else _partial(value, definitions)
        )
        for key, value in node.items()
        if key != "required"
    }


def every_model(models: tuple[type[Spec], ...]) -> Iterator[type[Spec]]:
    """Yield some models and all models that their fields contain, each once."""
    waiting, seen = list(models), set()
    while waiting:
        model = waiting.pop()
        if model not in seen:
            seen.add(model)
            yield model
            for field in model.model_fields.values():
                waiting += models_in(field.annotation)


def _add_comments(model: type[Spec], definitions: Schema) -> None:
    """Describe keys by the comments beside them."""
    properties = definitions.get(model.__name__, {}).get("properties", {})
    for own in model.__mro__:
        for key, comment in _comments(own) if issubclass(own, Spec) else ():
            if key in properties and not comment.startswith(("pyright", "noqa")):
                text = re.split(r"  # (?:noqa|pyright)", comment)[0]
                properties[key].setdefault("description", text)


@cache  # many inherit from one class, and to find its source Python parses a whole file
def _comments(model: type[Spec]) -> list[tuple[str, str]]:
    """Return those keys of a class itself that have a trailing comment, each with the comment."""
    return COMMENT.findall(inspect.getsource(model))
