"""A user's own code in a scenario: a ``kind`` that says where a function is.

It says what the function is handed, and checks what it returns. Workers get the code by value
(:func:`users_modules`), so that nothing has to be packaged or copied to them.
"""

import copy
import inspect
import sys
import types
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import replace
from typing import Annotated, Any, ClassVar, TypeVar

import numpy as np
import torch
from pydantic import Field, PrivateAttr

from clients.shard import Shard
from fl_testbed.data import DataError
from fl_testbed.scenario.spec import NOWHERE, FunctionSpec, Spec, Written
from fl_testbed.scenario.users_code import OwnCode, OwnCodeError, load
from strategies.aggregation import TooFewClientsError
from strategies.aggregation.traits import traits_of

S = TypeVar("S", bound=Spec)
PATH = r"^[^:\s][^:]*:[A-Za-z_]\w*$"


class Guarded:
    """A user's function. If it raises, or returns something unusable, a call raises OwnCodeError,
    whose text says in one line what was wrong and where.

    Args:
        code: The function.
        flaw_of: Returns what is wrong with a result (the first argument) of a call with some
            arguments (the others), or an empty text.
        reads_only: Whether it must not write to the tensors that it is handed.
    """

    def __init__(
        self, code: OwnCode, flaw_of: Callable[..., str], reads_only: bool = False
    ) -> None:
        self._code, self._flaw_of, self._reads_only = code, flaw_of, reads_only
        self.__name__ = code.name
        self.__signature__ = inspect.signature(code.function)
        # Applied row by row, this guard would be bypassed and results would go unchecked.
        self.traits = replace(traits_of(code.function), row_by_row=None)

    def __call__(self, *args: Any, **kwargs: Any) -> Any:
        """Call the function."""
        handed = dict(zip(self.__signature__.parameters, args, strict=False)) | kwargs
        may_write = not self._reads_only or handed.get("out") is not None
        before = {} if may_write else _versions(handed)
        try:
            result = self._code.function(*args, **kwargs)
            wrong = self._flaw_of(result, *args, **kwargs)
        except (TooFewClientsError, DataError):
            raise  # their texts say what to do
        except (Exception, SystemExit) as fault:  # a user's code may raise anything
            raise OwnCodeError(self._code.blame(fault)) from fault
        after = _versions(handed) if before else {}
        written = [name for name, versions in after.items() if versions != before[name]]
        if written and not wrong:
            wrong = f"wrote to {written[0]!r}, which is read again later: write to a clone() of it"
        if wrong:
            raise self._code.refused(wrong)
        return result


def _versions(handed: Mapping[str, Any]) -> dict[str, list[int]]:
    """Return torch's count of writes to each tensor, or to each tensor of a named tuple."""
    tensors = {
        name: value if isinstance(value, tuple) else [value] for name, value in handed.items()
    }
    return {
        name: [t._version for t in own if isinstance(t, torch.Tensor) and not t.is_inference()]
        for name, own in tensors.items()
    }


class OwnSpec(FunctionSpec):
    """A function of the user's own, and its arguments."""

    kind: Annotated[str, Field(json_schema_extra={"pattern": PATH})]  # where the function is
    args: dict[str, Any] = Field(default_factory=dict)  # the function's arguments, by name
    sha256: str | None = None  # hash of its source; if given, changed code is refused
    _code: OwnCode = PrivateAttr()

    facts: ClassVar[frozenset[str]] = frozenset()
    """The facts that the testbed hands to parameters of the same names."""
    place: ClassVar[str] = "kind"
    """The key that says where the function is."""
    first: ClassVar[str] = ""
    """What the function's first parameter is, where it is handed over by position."""
    reads_only: ClassVar[bool] = False
    """Whether it must not write to the tensors that it is handed, since they are read again."""

    def model_post_init(self, context: Written | None, /) -> None:
        """Find the function, and state its hash."""
        kind = getattr(self, self.place)
        code = load(kind, (context or NOWHERE).folders.get(kind))
        if self.sha256 not in (None, code.sha256):
            raise ValueError(
                f"{code.path} has changed since the scenario was resolved: remove sha256 to run "
                "the code as it is now"
            )
        if wrong := self._flaw_of_signature(code):
            raise ValueError(f"{code.place}: {code.name} {wrong}")
        self._code = code
        found = {"sha256": code.sha256}
        if code.source is not None:
            found[self.place] = f"{code.path.name}:{code.name}"
        vars(self).update(found)  # frozen, but nobody has seen it yet

    def _flaw_of_signature(self, code: OwnCode) -> str:
        """Return what is wrong with the signature for what will be handed over, or nothing."""
        try:
            parameters = list(code.parameters.values())
        except (TypeError, ValueError):
            return "has no signature that Python can read: wrap it in a function of your own"
        if self.first:
            if not parameters or parameters[0].kind not in (
                inspect.Parameter.POSITIONAL_ONLY,
                inspect.Parameter.POSITIONAL_OR_KEYWORD,
            ):
                return f"needs a first parameter, for {self.first}"
            parameters = parameters[1:]
        takes_any = any(p.kind is p.VAR_KEYWORD for p in parameters)
        named = {p.name for p in parameters if p.kind in (p.POSITIONAL_OR_KEYWORD, p.KEYWORD_ONLY)}
        offered = ", ".join(sorted(self.offered)) or "nothing"
        for name in self.args:
            if name in self.offered:
                return f"cannot have {name!r} in args: it is handed over by name ({offered})"
            if name not in named and not takes_any:
                known = sorted(named - self.facts)
                return f"has no parameter {name!r} for args, it has {', '.join(known) or 'none'}"
        for p in parameters:
            is_given = p.name in self.offered | self.args.keys() or p.default is not p.empty
            if not is_given and p.kind not in (p.VAR_KEYWORD, p.VAR_POSITIONAL):
                why = self._untold(p.name) or f": give it in args (handed over by name: {offered})"
                return f"needs {p.name!r}{why}"
        return ""

    def _untold(self, fact: str) -> str:
        """Return why a fact is not handed over, where there is more to say than that it is not."""
        return ""

    @property
    def offered(self) -> frozenset[str]:
        """The facts that this scenario can hand over."""
        return self.facts

    @property
    def code(self) -> OwnCode:
        """The function and where it comes from."""
        return self._code

    def names(self, fact: str) -> bool:
        """Whether the function has a parameter for a fact."""
        return fact in self._code.parameters

    def flaw_of(self, result: Any, *args: Any, **named: Any) -> str:
        """Return what is wrong with what the function returned for some arguments, or nothing."""
        return ""

    @property
    def function(self) -> Guarded:  # pyright: ignore[reportIncompatibleMethodOverride]
        """The function, guarded: whatever goes wrong in it is told in one line."""
        return Guarded(self._code, self.flaw_of, self.reads_only)

    def arguments(self) -> dict[str, Any]:
        """Return the arguments that the scenario gives."""
        return self.args

    def called(self, *args: Any, **facts: Any) -> Any:
        """Call the function with its arguments and those of the facts that it names."""
        named = {name: value for name, value in facts.items() if self.names(name)}
        return self.bind()(*args, **named)


def flaw_of_tensors(result: Any, needed: type, shapes: Mapping[str, tuple[int, ...]]) -> str:
    """Return what is wrong with a result that should be a named tuple with tensors of such shapes,
    and with its ``memory``, if it has one; empty if all is well."""
    if not isinstance(result, needed):
        return f"must return {needed.__name__}, returned {type(result).__name__}"
    for name, shape in shapes.items():
        given = getattr(result, name)
        if not isinstance(given, torch.Tensor) or tuple(given.shape) != shape:
            what = tuple(given.shape) if isinstance(given, torch.Tensor) else type(given).__name__
            return f"must return {name} as a tensor of shape {shape}, returned {what}"
        if given.requires_grad:
            return f"must return {name} without a gradient: detach() it"
    memory = getattr(result, "memory", {})
    if not isinstance(memory, dict):
        return f"must return memory as a dict, returned {type(memory).__name__}"
    for name, value in memory.items():
        if not isinstance(value, torch.Tensor):
            return f"must return tensors in memory, returned {type(value).__name__} as {name!r}"
    return ""


def flaw_of_shard(result: Any, like: Shard) -> str:
    """Return what is wrong with a shard that should hold examples like another's, or nothing."""
    if not isinstance(result, Shard):
        return flaw_of_tensors(result, Shard, {})
    n = len(result.labels)
    if n == 0:
        return "must return a shard with examples, returned an empty one"
    columns = dict.fromkeys(("labels", "groups", "is_poisoned"), (n,))
    wrong = flaw_of_tensors(result, Shard, {"inputs": (n, *like.inputs.shape[1:]), **columns})
    if not wrong and (lowest := result.labels.min().item()) < 0:
        return f"must return labels >= 0, returned {lowest}"  # torch's loss silently skips -100
    return wrong


def flaw_of_inputs(inputs: Any, shape: tuple[int, ...], *, is_image: bool) -> str:
    """Return what is wrong with the inputs of a user's examples, or nothing."""
    if not isinstance(inputs, np.ndarray):
        return f"as an array, returned {type(inputs).__name__}"
    if inputs.shape[1:] != shape:
        return f"of shape {shape} each, as in training, returned {inputs.shape[1:]}"
    if inputs.dtype.kind != "f" or not inputs.size:
        return ""
    least, most = inputs.min(), inputs.max()
    if not np.isfinite([least, most]).all():
        return "without NaN or infinity"
    if is_image and not -1e-6 <= least <= most <= 1 + 1e-6:
        return f"as bytes or from 0 to 1, returned {least:.4g} to {most:.4g}"
    return ""


def flaw_of_weights(weights: torch.Tensor, *, may_be_none: bool) -> str:
    """Return what is wrong with the weights of clients, or nothing."""
    total = weights.double().sum().item()
    if (weights < 0).any() or not (abs(total - 1) < 1e-3 or (may_be_none and total == 0)):
        needed = "weights >= 0 that sum to 1" + (" or are all 0" if may_be_none else "")
        lowest = weights.min().item()
        returned = f"a weight of {lowest:.4g}" if lowest < 0 else f"a sum of {total:.4g}"
        return f"must return {needed}, returned {returned}"
    return ""


def own_specs(spec: object) -> Iterator[OwnSpec]:
    """Yield the user's own parts of a scenario."""
    if isinstance(spec, OwnSpec):
        yield spec
    if isinstance(spec, Spec):
        for name in type(spec).model_fields:
            yield from own_specs(getattr(spec, name))
    elif isinstance(spec, list):
        for item in spec:
            yield from own_specs(item)


def users_modules(spec: Spec) -> list[types.ModuleType]:
    """Return the modules that workers need by value to run a scenario."""
    names = dict.fromkeys(own.code.module for own in own_specs(spec) if own.code.module)
    return [sys.modules[name] for name in names]


@contextmanager
def fresh_code(spec: S) -> Iterator[S]:
    """Yield a copy of a scenario whose users' files have been run anew, so that their global
    variables hold nothing from earlier runs. Until the block ends, Python finds these modules by
    name."""
    names = {own.code.module for own in own_specs(spec)}
    before = {name: sys.modules[name] for name in names & sys.modules.keys()}
    try:
        yield copy.deepcopy(spec)
    finally:
        for name in names:  # a worker, which got the code by value, had none of these before
            sys.modules.pop(name, None)
        sys.modules.update(before)
