"""Everything a scenario can name, for ``fl-testbed list``."""

from typing import get_args

from pydantic_core import PydanticUndefined

from fl_testbed.scenario.datasets import AnyDatasetSpec
from fl_testbed.scenario.methods import LiftSpec
from fl_testbed.scenario.minorities import AnyMinoritySpec
from fl_testbed.scenario.models import AnyModelSpec
from fl_testbed.scenario.partitions import AnyPartitionSpec
from fl_testbed.scenario.parts import PoisonSpec, TriggerSpec
from fl_testbed.scenario.rules import AggregationSpec, PreAggregationSpec
from fl_testbed.scenario.spec import Spec


def _kinds(tagged_union: object) -> dict[str, type[Spec]]:
    members = get_args(get_args(tagged_union)[0])
    return {get_args(member.model_fields["kind"].annotation)[0]: member for member in members}


CATALOGUE: dict[str, dict[str, type[Spec]]] = {
    "rules": _kinds(AggregationSpec),
    "pre_aggregations": _kinds(PreAggregationSpec),
    "reweightings": _kinds(LiftSpec),
    "poisons": _kinds(PoisonSpec),
    "triggers": _kinds(TriggerSpec),
    "datasets": _kinds(AnyDatasetSpec),
    "minorities": _kinds(AnyMinoritySpec),
    "partitions": _kinds(AnyPartitionSpec),
    "models": _kinds(AnyModelSpec),
}


def describe_kind(spec: type[Spec]) -> tuple[str, str]:
    """Return a kind's one-line description and its parameters with their defaults."""
    parameters = [
        name if field.default is PydanticUndefined else f"{name}={_default(field.default)}"
        for name, field in spec.model_fields.items()
        if name not in ("kind", "minority")
    ]
    return (spec.__doc__ or "").splitlines()[0], ", ".join(parameters) or "–"


def _default(value: object) -> str:
    return "none" if value is None else str(value)
