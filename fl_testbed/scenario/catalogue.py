"""Everything a scenario can name, for ``fl-testbed list``."""

from fl_testbed.scenario.attacks import AnyAttackSpec, AnyTrainingAttackSpec
from fl_testbed.scenario.centralized import AnyPooledPoisonSpec
from fl_testbed.scenario.datasets import AnyDatasetSpec
from fl_testbed.scenario.docstrings import sections
from fl_testbed.scenario.local_methods import AnyLocalMethodSpec
from fl_testbed.scenario.minorities import AnyMinoritySpec
from fl_testbed.scenario.models import AnyModelSpec
from fl_testbed.scenario.partitions import AnyPartitionSpec
from fl_testbed.scenario.poisons import AnyPoisonSpec
from fl_testbed.scenario.reweightings import AnyReweightingSpec
from fl_testbed.scenario.rules import AnyRuleSpec, AnyStepSpec
from fl_testbed.scenario.server_optimizers import AnyServerOptimizerSpec
from fl_testbed.scenario.spec import Spec, kinds_of, models_in
from fl_testbed.scenario.stages import AnyStageSpec
from fl_testbed.scenario.triggers import AnyTriggerSpec
from strategies.aggregation.traits import traits_of


def _kinds(tagged_union: object) -> dict[str, type[Spec]]:
    """Return the testbed's own kinds with their classes, without users' code."""
    return {kind: spec for spec in models_in(tagged_union) for kind in kinds_of(spec)}


CATALOGUE: dict[str, dict[str, type[Spec]]] = {
    "rules": _kinds(AnyRuleSpec),
    "pre_aggregations": _kinds(AnyStepSpec),
    "reweightings": _kinds(AnyReweightingSpec),
    "server_optimizers": _kinds(AnyServerOptimizerSpec),
    "local_methods": _kinds(AnyLocalMethodSpec),
    "attacks": _kinds(AnyAttackSpec),
    "training_attacks": _kinds(AnyTrainingAttackSpec),
    "poisons": _kinds(AnyPoisonSpec),
    "triggers": _kinds(AnyTriggerSpec),
    "datasets": _kinds(AnyDatasetSpec),
    "minorities": _kinds(AnyMinoritySpec),
    "partitions": _kinds(AnyPartitionSpec),
    "models": _kinds(AnyModelSpec),
    "stages": _kinds(AnyStageSpec),
    "pooled_poisons": _kinds(AnyPooledPoisonSpec),
}


def describe_kind(spec: type[Spec]) -> tuple[str, str, str]:
    """Return what a kind is (and who proposed it), its parameters with their defaults, and how
    many clients it needs."""
    what = (spec.__doc__ or "").splitlines()[0]
    function = getattr(spec, "function", None)
    if "References" in (said := sections(function) if function else {}):
        what += "\n" + said["References"]
    parameters = [
        name if default is None else f"{name}={default}"
        for name, default in parameters_of(spec).items()
    ]
    return what, ", ".join(parameters) or "–", str(traits_of(function).bound or "–")


def parameters_of(spec: type[Spec]) -> dict[str, str | None]:
    """Return a kind's parameters and their defaults as text, None where a scenario must set one."""
    return {
        name: None if field.is_required() else as_yaml(field.get_default(call_default_factory=True))
        for name, field in spec.model_fields.items()
        if name not in ("kind", "minority")
    }


def as_yaml(value: object) -> str:
    """Return a value as a scenario may write it, in one line."""
    if isinstance(value, Spec):
        return as_yaml(dict(value))
    if isinstance(value, dict):
        return "{" + ", ".join(f"{key}: {as_yaml(item)}" for key, item in value.items()) + "}"
    if isinstance(value, list):
        return "[" + ", ".join(map(as_yaml, value)) + "]"
    if isinstance(value, bool):
        return str(value).lower()
    if value is None:
        return "none"
    return f"{value:.4g}" if isinstance(value, float) else str(value)
