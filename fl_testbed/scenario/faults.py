"""What is wrong with a scenario, one readable line per fault."""

import difflib
import re
from collections.abc import Iterable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import astuple, dataclass
from typing import Any

from pydantic_core import ErrorDetails

from fl_testbed.scenario.own_specs import OwnSpec
from fl_testbed.scenario.spec import Spec, WholeScenario, kinds_of, models_in, tags_of

EXPANSION_KEYS = ("extends", "variants", "sweep")
"""Keys of a scenario file that no single run has."""
CONTROL = re.compile(r"[\x00-\x1f\x7f-\x9f\u2028\u2029]")
UNKNOWN = "…"  # stands in an example for what only the user can know
DEPTH = 3  # levels of nested mappings that are searched for a misplaced key
KeyPath = tuple[str | int, ...]


@dataclass(frozen=True)
class Fault:
    """One thing that is wrong with the input."""

    where: str
    """File and line, or the option of the command line."""
    key: str
    """The key, dotted; empty if the fault is the whole file's."""
    text: str
    """What is needed, what was given, and what to do."""

    @classmethod
    def of(cls, scenario: WholeScenario, key: str, text: str) -> "Fault":
        """Return a fault of a key, where the scenario's key that it is in was written."""
        return cls(scenario.line_of(key.partition(".")[0]), key, text)

    def __str__(self) -> str:
        line = ": ".join(part for part in (self.where, self.key, self.text) if part)
        return CONTROL.sub(lambda found: repr(found[0])[1:-1], line)  # one line, whatever is named


class ScenarioError(ValueError):
    """The input is wrong; holds every fault found, each once."""

    def __init__(self, *faults: Fault) -> None:
        self.faults = list(dict.fromkeys(faults))
        super().__init__(*self.faults)

    def __str__(self) -> str:
        return "\n".join(map(str, self.faults))


@contextmanager
def options_called(names: Mapping[str, str]) -> Iterator[None]:
    """Rename command-line options in faults, for callers that use no command line."""
    try:
        yield
    except ScenarioError as error:
        told = ([renamed(part, names) for part in astuple(fault)] for fault in error.faults)
        raise ScenarioError(*(Fault(*parts) for parts in told)) from None


def renamed(text: str, names: Mapping[str, str]) -> str:
    """Return a text in which options are called by other names."""
    options = "|".join(map(re.escape, names))
    return re.sub(rf"(?<!\S)({options})(?![\w-])", lambda found: names[found[0]], text)


NEEDED = {
    "int_type": "a whole number",
    "int_from_float": "a whole number",
    "float_type": "a number",
    "string_type": "text (in quotes if it looks like a number)",
    "string_unicode": "text without halves of characters",
    "bool_type": "true or false",
    "list_type": "a list",
    "dict_type": "a mapping (key: value)",
    "model_type": "a mapping (key: value)",
    "finite_number": "a finite number",
    "greater_than": "a number > {gt:.12g}",
    "greater_than_equal": "a number >= {ge:.12g}",
    "less_than": "a number < {lt:.12g}",
    "less_than_equal": "a number <= {le:.12g}",
    "literal_error": "{expected}",
    "too_short": "at least {min_length} entries",
    "too_long": "at most {max_length} entries",
    "string_too_short": "text that is not empty",
    "string_too_long": "at most {max_length} characters",
    "string_pattern_mismatch": "letters, digits and . _ = , -, beginning with a letter or digit",
}
"""What is needed, by the type of pydantic's error; values of its context go into the braces."""

ONE_VALUE = ("int_type", "float_type", "string_type", "bool_type")
"""Types of errors where one value is needed, and a list may have been given by mistake."""


def describe(errors: Sequence[ErrorDetails], model: type[Spec]) -> list[tuple[KeyPath, str]]:
    """Turn pydantic's errors into paths of keys and texts, one for each fault."""
    resolved = [(error, *_resolve(error["loc"], model)) for error in errors]
    lists = {path for error, path, _ in resolved if error["type"] in ("too_short", "too_long")}
    lists |= {path[:-1] for _, path, _ in resolved if path and isinstance(path[-1], int)}
    texts: dict[KeyPath, list[str]] = {}
    mistyped: set[KeyPath] = set()
    for error, path, owner in resolved:
        if error["type"] in ONE_VALUE and path in lists:
            continue  # lists are allowed there; another error says what is wrong with this one
        text = _text(error, path, owner, model)
        if error["type"] == "union_tag_invalid":
            path = (*path, "kind")
        texts.setdefault(path, []).append(text)
        if error["type"] == "extra_forbidden" and owner is not None:
            mistyped.update(
                (*path[:-1], name) for name in _close(str(path[-1]), _known(owner, model))
            )
    absent = {path for error, path, _ in resolved if error["type"] == "missing"}
    if ("extends",) in mistyped:
        mistyped |= absent  # they may be in the file that was to be extended
    return [
        (path, _alternatives(found))
        for path, found in texts.items()
        if path not in absent & mistyped  # a typo in a key that is needed is one fault, not two
    ]


def _text(error: ErrorDetails, path: KeyPath, owner: type[Spec] | None, root: type[Spec]) -> str:
    context = error.get("ctx", {})
    given = short(error["input"])
    kinds = _kinds(owner, path)
    match error["type"]:
        case "extra_forbidden":
            return unknown_key(path, owner, root)
        case "missing":
            return f"is missing and has no default{_for_instance(owner, path)}"
        case "union_tag_invalid":
            if context["tag"].endswith(".py"):
                return f"needs the function's name too: {context['tag']}:name"
            return unknown_kind(context["tag"], kinds, root)
        case "union_tag_not_found" | "model_type" if kinds:
            if error["input"] in kinds:
                return f"needs a mapping, such as {{kind: {error['input']}}}, got {given}"
            return f"needs a mapping with a kind ({', '.join(kinds)}), got {given}"
        case "value_error":
            return str(context["error"])
        case kind:
            needed = NEEDED[kind].format(**context) if kind in NEEDED else error["msg"]
            return f"needs {needed}, got {given}{_swept(kind, error['input'], path)}"


def _alternatives(texts: Sequence[str]) -> str:
    """Return one text for a value that fits none of the types it may have."""
    if len(texts) == 1:
        return texts[0]
    needs = [text.partition(", got ")[0].removeprefix("needs ") for text in texts]
    return f"needs {' or '.join(needs)}, got {texts[0].partition(', got ')[2]}"


def _swept(kind: str, value: Any, path: KeyPath) -> str:
    """Return a hint where a list belongs that was given for a single value, or nothing."""
    has_room = kind in ONE_VALUE and all(isinstance(key, str) for key in path)
    if not has_room or not isinstance(value, list):
        return ""
    return f": to run with several values, list them under sweep.{'.'.join(map(str, path))}"


def unknown_key(path: KeyPath, owner: type[Spec] | None, root: type[Spec]) -> str:
    """Say that a mapping has no such key, and suggest what may be meant."""
    known = _known(owner, root)
    name = str(path[-1])
    outer, _, inner = name.partition(".")
    if inner and outer in known:
        text = "keys with dots are for variants, sweep and --set; here write"
        keys = [outer, inner] if outer == "sweep" else name.split(".")
        return f"unknown key: {text} {': {'.join(keys)}: …{'}' * (len(keys) - 1)}"
    around = tuple(part for part in path[:-1] if isinstance(part, str))
    places = [
        place
        for place in _places(name, root)
        if len(place) <= len(path) or place[: len(around)] == around
    ]
    is_users = owner is not None and issubclass(owner, OwnSpec)
    if is_users and (name,) not in places and not _close(name, known):
        return f"unknown key: write arguments of your own function as args: {{{name}: …}}"
    has_kinds = owner is not None and "kind" in owner.model_fields  # in a list of attackers too
    if has_kinds and name == "args":
        return f"unknown key: args are for code of your own; known keys: {', '.join(known)}"
    is_of_another_kind = has_kinds and any(
        around[1 - len(place) :] == place[:-1] for place in places
    )
    if places and not is_of_another_kind and (len(path) == 1 or not _close(name, known)):
        named = [".".join(place) if len(place) > 1 else f"{name} at the top" for place in places]
        return f"unknown key here, did you mean {' or '.join(named)}?"
    return f"unknown key{_suggestion(name, known, 'keys')}"


def unknown_kind(kind: str, known: Sequence[str], root: type[Spec]) -> str:
    """Say that there is no such kind, and suggest another, or the keys that have this kind."""
    if not _alike(kind, known) and (places := _places(kind, root, of_kind=True)):
        return f"unknown kind {kind!r} here: it is a kind of {' or '.join(map('.'.join, places))}"
    return f"unknown kind {kind!r}{_suggestion(kind, known, 'kinds')}"


def _known(owner: type[Spec] | None, root: type[Spec]) -> list[str]:
    """Return the keys of a mapping; the outermost one also has those of a file."""
    own = list(owner.model_fields) if owner is not None else []
    return [*own, *EXPANSION_KEYS] if owner is root else own


def _places(name: str, root: type[Spec], *, of_kind: bool = False) -> list[tuple[str, ...]]:
    """Return the outermost places where a scenario has a key of that name, or with a value of
    that kind."""
    level: list[tuple[tuple[str, ...], type[Spec]]] = [((), root)]
    for _ in range(DEPTH):
        fields = [
            ((*path, key), models_in(field.annotation))
            for path, model in level
            for key, field in model.model_fields.items()
        ]
        level = [(path, model) for path, models in fields for model in models]
        if of_kind:
            found = [path for path, model in level if name in kinds_of(model)]
        else:
            found = [path for path, _ in fields if path[-1] == name]
        if found:
            return list(dict.fromkeys(found)) if name != "kind" else []
    return []


def _close(name: str, known: Iterable[str]) -> list[str]:
    return difflib.get_close_matches(name, list(known), n=1)


def _alike(name: str, known: Sequence[str]) -> list[str]:
    if (name := name.lower()) in known:
        return [name]
    longer = [other for other in known if set(name.split("_")) < set(other.split("_"))]
    return longer or _close(name, known)


def _suggestion(name: str, known: Sequence[str], what: str) -> str:
    if close := _alike(name, known):
        return f", did you mean {' or '.join(map(repr, close))}?"
    return f"; known {what}: {', '.join(known)}" if known else ""


def short(value: Any) -> str:
    """Return a value as a fault shows it."""
    text = "nothing" if value is None else repr(value)
    return text if len(text) <= 60 else f"{text[:57]}..."


def _resolve(loc: Sequence[str | int], model: type[Spec]) -> tuple[KeyPath, type[Spec] | None]:
    """Return the keys in pydantic's location, without its other parts, and the last key's owner."""
    path: list[str | int] = []
    owner: type[Spec] | None = model
    choices: list[type[Spec]] = [model]
    for place, part in enumerate(loc):
        if len(choices) > 1 and isinstance(part, str):
            tagged = [c for c in choices if part in tags_of(c)]
            if tagged:
                choices = tagged
                continue
        if not choices and isinstance(part, str):
            continue  # names one of the types that a plain value may have
        if choices and isinstance(part, str):  # an item has the owner of its list
            owner = choices[0]
        path.append(part)
        if place < len(loc) - 1 and isinstance(part, str):
            field = choices[0].model_fields.get(part) if choices else None
            choices = models_in(field.annotation) if field is not None else []
    return tuple(path), owner


def _kinds(owner: type[Spec] | None, path: KeyPath) -> list[str]:
    names = [part for part in path if isinstance(part, str)]
    field = owner.model_fields.get(names[-1]) if owner is not None and names else None
    models = models_in(field.annotation) if field else []
    if not all("kind" in model.model_fields for model in models):
        return []  # a class without kinds may be meant
    return [tag for model in models for tag in kinds_of(model)]


def _for_instance(owner: type[Spec] | None, path: KeyPath) -> str:
    """Return an example of what to write for a missing key that needs a mapping, or nothing."""
    field = owner.model_fields.get(str(path[-1])) if owner is not None else None
    example = _shortest(field.annotation) if field is not None else UNKNOWN
    return "" if example == UNKNOWN else f": write, for instance, {path[-1]}: {example}"


def _shortest(annotation: Any) -> str:
    """Return the shortest valid mapping of a type's first class, as YAML."""
    models = models_in(annotation)
    if not models:
        return UNKNOWN
    kind = next(iter(kinds_of(models[0])), UNKNOWN)
    keys = [
        f"{key}: {kind if key == 'kind' else _shortest(field.annotation)}"
        for key, field in models[0].model_fields.items()
        if key == "kind" or field.is_required()
    ]
    return "{" + ", ".join(keys) + "}"
