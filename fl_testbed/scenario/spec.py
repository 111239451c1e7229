"""What every mapping of a scenario has in common."""

import math
from collections.abc import Callable, Iterable, Iterator, Mapping
from functools import partial
from pathlib import Path
from typing import (
    TYPE_CHECKING,
    Annotated,
    Any,
    ClassVar,
    Literal,
    NamedTuple,
    TypeGuard,
    Union,
    get_args,
)

import yaml
from pydantic import (
    AfterValidator,
    BaseModel,
    ConfigDict,
    Discriminator,
    Field,
    GetCoreSchemaHandler,
    PlainSerializer,
    PrivateAttr,
    Tag,
)
from pydantic_core import CoreSchema

from fl_testbed.scenario.yaml_floats import Dumper
from strategies.aggregation import TooFewClientsError


class Spec(BaseModel):
    """One mapping of a scenario: a typo is an error, and no value is silently converted."""

    model_config = ConfigDict(frozen=True, extra="forbid", strict=True, allow_inf_nan=False)


class FunctionSpec(Spec):
    """A mapping whose ``kind`` names a function, and whose other keys are arguments of it."""

    function: ClassVar[Callable[..., Any]]
    if TYPE_CHECKING:
        kind: Any  # each class has its own: a field here would come first in every mapping

    def arguments(self) -> dict[str, Any]:
        """Return the arguments that the scenario gives."""
        return self.model_dump(exclude={"kind"})

    def bind(self, **known: Any) -> Callable[..., Any]:
        """Return the function with these arguments bound, and with what else is known."""
        return partial(self.function, **self.arguments() | known)


class NoneSpec(Spec):
    """The kind ``none``, which stands for doing nothing."""

    kind: Literal["none"] = "none"

    def build(self, *known: Any, **named: Any) -> None:
        """Return None."""


class Written(NamedTuple):
    """Where a scenario was written: all its mappings are told, as pydantic's context."""

    lines: Mapping[str, str]
    """By key of the scenario, its file and line."""
    folders: Mapping[str, Path]
    """By the ``kind`` of a user's function in a module, the folder of the file that names it."""


NOWHERE = Written({}, {})
"""Of a scenario that was not read from a file."""


class WholeScenario(Spec):
    """What scenarios of all kinds have in common."""

    if TYPE_CHECKING:
        name: str  # each class has its own: a field here would come first in every scenario
    _lines: Mapping[str, str] = PrivateAttr()

    def model_post_init(self, context: Written | None, /) -> None:
        """Note where its keys were written."""
        self._lines = (context or NOWHERE).lines

    def line_of(self, key: str) -> str:
        """Return file and line of a key; the scenario's name if it was not read from a file."""
        return self._lines.get(key, self.name)

    def identity(self) -> dict[str, Any]:
        """Return everything that decides the results, as plain data."""
        return self.model_dump(mode="json", exclude={"engine"}, exclude_none=True)

    def to_yaml(self) -> str:
        """Return the resolved scenario: running it again gives the same results."""
        return yaml.dump(self.identity(), Dumper=Dumper, sort_keys=False, allow_unicode=True)


def models_in(annotation: Any) -> list[type[Spec]]:
    """Return the classes that a type is made of."""
    if isinstance(annotation, type) and issubclass(annotation, Spec):
        return [annotation]
    return [model for part in get_args(annotation) for model in models_in(part)]


def kinds_of(model: type[Spec]) -> tuple[str, ...]:
    """Return the kinds that pick this class; empty if its kind is free text or it has none."""
    field = model.model_fields.get("kind")
    return get_args(field.annotation) if field is not None else ()


def is_own(kind: object) -> TypeGuard[str]:
    """Whether a kind says where a user's function is, and is no name of ours."""
    return isinstance(kind, str) and ":" in kind


OWN, KINDLESS = "(own)", "(kindless)"


def tags_of(model: type[Spec]) -> tuple[str, ...]:
    """Return what picks a class of a union: its kinds or, if its kind is free text, OWN."""
    return kinds_of(model) or ((OWN,) if "kind" in model.model_fields else (KINDLESS,))


class ByKind:
    """Lets ``kind`` pick the class of a union, as in ``Annotated[A | B | Own, BY_KIND]``: the one
    of that kind, the one for users' code, or else the one that has no kind."""

    def __get_pydantic_core_schema__(self, union: Any, handler: GetCoreSchemaHandler) -> CoreSchema:
        """Return the union's schema in pydantic's terms."""
        tagged = {tag: model for model in models_in(union) for tag in tags_of(model)}

        def tag_of(value: Any) -> str | None:
            given = dict(value) if isinstance(value, dict | Spec) else {}
            if OWN in tagged and is_own(given.get("kind")):
                return OWN
            kind = str(given["kind"]) if "kind" in given else None
            return KINDLESS if KINDLESS in tagged and kind not in tagged else kind

        either = [Annotated[model, Tag(tag)] for tag, model in tagged.items()]
        return handler.generate_schema(Annotated[Union[*either], Discriminator(tag_of)])


BY_KIND = ByKind()

Contradiction = tuple[str, str]
"""A key that contradicts others, and what is wrong, as (key, text)."""


def inside(key: str, found: Iterable[Contradiction]) -> Iterator[Contradiction]:
    """Return contradictions in a nested mapping, their keys prefixed with its own key."""
    return ((f"{key}.{inner}", text) for inner, text in found)


def unknown_classes(named: Mapping[str, int], n_classes: int) -> Iterator[Contradiction]:
    """Yield keys that name a class which a dataset lacks, as (key, text)."""
    for key, label in named.items():
        if label >= n_classes:
            yield key, f"needs a class from 0 to {n_classes - 1}, got {label}"


def _count_or_fraction(value: float) -> float:
    if value >= 1 and value != int(value):
        raise ValueError(
            f"needs a count (0, 1, 2, …) or a fraction of the sample below 1, got {value}"
        )
    return value


def _as_written(value: float | str) -> int | float | str:
    if isinstance(value, str) or 0 < value < 1:
        return value
    return int(value)  # 5, not 5.0


ORACLE = "oracle"
AssumedCount = Annotated[
    Annotated[float, Field(ge=0), AfterValidator(_count_or_fraction)] | Literal["oracle"],
    PlainSerializer(_as_written),
]
"""A number of clients: a count, or a fraction below 1 of the round's sample, rounded down; or
``oracle``, how many of them attack."""

Threads = Annotated[int, Field(ge=1, le=1024)]
"""Threads of one process. Libraries end a process that asks for more than a system has."""

Seconds = Annotated[float, Field(gt=0, le=1e9)]
"""A time limit; no system's clock takes one of 1e300."""

ClientCount = Annotated[int, Field(ge=0, le=10_000_000)]

Fraction = Annotated[float, Field(ge=0, le=1)]


def count_of(value: float, n: int) -> int:
    """Resolve a count or fraction for a sample of n clients.

    Raises:
        TooFewClientsError: If a fraction of so few clients comes to less than one: a defence that
            was meant to assume some attackers would assume none.
    """
    count = share_of(value, n) if 0 < value < 1 else int(value)
    if value > 0 and count == 0:
        text = f"{value:g} of a sample of {n} is less than one client: give a count"
        raise TooFewClientsError(f"n_malicious: {text}")
    return count


def share_of(fraction: float, n: int) -> int:
    """Return a fraction of n, rounded down: 29 for 0.29 of 100, where floats say 28.999…."""
    return math.floor(round(fraction * n, 9))
