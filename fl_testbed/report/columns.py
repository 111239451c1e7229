"""Which figures of ``summary.json`` a comparison shows, and how.

A column is a key of the summary. Columns for which no run has a value are not shown, so a new kind
of run adds figures of its own by writing them into its summary and naming them here.
"""

import difflib
import math
from collections.abc import Iterable, Mapping
from typing import Any, Literal, NamedTuple

from clients.shard import Role
from fl_testbed.data.groups import shown_name
from fl_testbed.metrics.tables import ROUNDING


class Column(NamedTuple):
    """One figure of a run."""

    key: str
    """Its path in ``summary.json``, with dots."""
    title: str
    unit: Literal["%", "%²", ""] = ""
    best: Literal["highest", "lowest", "nearest 0"] | None = None
    """Which value is the best one, where that can be said."""
    idle: float | str = math.nan
    """The uninformative value, such as a ratio of 1, or the key of another figure that has it:
    where all runs have this value, the column is not shown."""
    slack: float = ROUNDING
    """How far from ``idle``, absolute or relative, a value is still taken for it."""

    def is_told_by(self, figures: Mapping[str, float]) -> bool:
        """Whether a run has a value to show in the column, other than ``idle``."""
        value = figures.get(self.key, math.nan)
        idle = figures.get(self.idle, math.nan) if isinstance(self.idle, str) else self.idle
        near = math.isclose(value, idle, rel_tol=self.slack, abs_tol=self.slack)
        return not math.isnan(value) and not near

    @property
    def scale(self) -> float:
        """The factor from the saved value to the shown one."""
        return {"%": 100.0, "%²": 100.0**2, "": 1.0}[self.unit]

    @property
    def digits(self) -> int:
        """Decimals shown."""
        return {"%": 1, "%²": 0, "": 2}[self.unit]

    @property
    def heading(self) -> str:
        """Title with unit."""
        return f"{self.title} {self.unit}".strip()


def by_role(key: str, title: str, **how: Any) -> tuple[Column, ...]:
    """Return a column for each role; the role replaces ``{}`` in the key and ends the title."""
    roles = (role.value for role in Role)
    return tuple(
        Column(key.format(r), f"{title} {r.removeprefix('honest_')}", **how) for r in roles
    )


ACCURACY = Column("final.accuracy", "accuracy", "%", "highest")
WORST_GROUP = Column("final.worst_group_accuracy", "worst group", "%", "highest")
ATTACK_SUCCESS = Column("final.attack_success_rate", "ASR", "%", "lowest")
LOSS = "final.loss"
"""The key of the loss, which no table shows: null where the model has diverged."""
# Differs from the final ASR where an attack succeeded for a while and was then lost.
HIGHEST_SUCCESS = Column(
    "highest.attack_success_rate", "highest ASR", "%", idle=ATTACK_SUCCESS.key, slack=0.5
)
WEIGHT_RATIOS = by_role("suppression.{}.weight_ratio", "weight")
# A ratio of 0.8 to 1.25 is chance, not design: sampling asks some somewhat more often.
ASKED = by_role("suppression.{}.participation", "asked", idle=1.0, slack=0.2)
KEPT = by_role("suppression.{}.retention", "kept", unit="%")
SEPARABILITY = Column("suppression.separability", "separability", best="highest")
PAIRS = f"{SEPARABILITY.key}_pairs"
"""The key of the number of pairs of clients that separability is computed over."""

SECTIONS: dict[str, tuple[Column, ...]] = {
    "how well the model does": (
        ACCURACY,
        WORST_GROUP,
        ATTACK_SUCCESS,
        HIGHEST_SUCCESS,
        Column("final.trigger_rate_unpoisoned", "trigger alone", "%"),
        Column("final.worst_group_accuracy_with_poisoned", "worst, poisoned too", "%"),
        Column("final.worst_clients_accuracy", "worst 10 % clients", "%", "highest"),
        Column("final.client_accuracy_variance", "variance clients", "%²", "lowest"),
    ),
    "how well clients' own models do": (
        Column("personal.honest_majority.accuracy", "majority", "%", "highest"),
        Column("personal.honest_minority.accuracy", "minority", "%", "highest"),
        Column("personal.poisoned.accuracy", "poisoned", "%"),
        Column("personal.worst_clients_accuracy", "worst 10 % clients", "%", "highest"),
        Column("personal.client_accuracy_variance", "variance clients", "%²", "lowest"),
        Column("personal.honest_majority.attack_success_rate", "ASR majority", "%", "lowest"),
        Column("personal.honest_minority.attack_success_rate", "ASR minority", "%", "lowest"),
        Column("personal.poisoned.attack_success_rate", "ASR poisoned", "%"),
    ),
    "who was heard": (
        *ASKED,
        *WEIGHT_RATIOS,
        *by_role("suppression.{}.contribution_ratio", "contribution"),
    ),
    "who was lifted": (
        *by_role("lifting.ratio.{}", "lift", idle=1.0),
        Column("lifting.flagged_minority.precision", "minority among lifted", "%", "highest"),
        Column("lifting.flagged_poisoned.precision", "poisoned among lifted", "%", "lowest"),
        Column("lifting.auc_by_loss", "AUC by loss"),
    ),
    "who was let through": (
        *KEPT,
        Column("suppression.minority_false_positive_rate", "minority FPR", "%", "lowest"),
        Column("suppression.filter_bias", "filter bias", "%", "nearest 0"),
        SEPARABILITY,
        Column("separation.auc_all", "AUC minority"),
        Column("separation.auc_same_label", "AUC same label"),
    ),
}

HEARD = {title: SECTIONS[title] for title in list(SECTIONS)[2:]}
"""The columns that a replay can fill: all but those on how well models do."""

GROUP = "group_accuracy."
"""The keys of accuracies by group begin with this."""
ALL_GROUPS = (
    Column("final.minority_accuracy", "all minorities", "%", "highest"),
    Column("final.majority_accuracy", "all others", "%", "highest"),
)
GROUP_WEIGHT = "group_weight_ratio."
"""The keys of weight ratios by group begin with this."""
OWN = "own."
"""The keys of a user's own figures begin with this."""
IS_MINORITY = "is_minority."
"""The keys that say whether a group is a minority begin with this."""


class UnknownColumnError(ValueError):
    """There is no column of that name; the text says which there are."""


def columns_named(
    names: Iterable[str], runs: Iterable[Mapping[str, float]]
) -> dict[str, tuple[Column, ...]]:
    """Return one section of the columns with these titles or keys, in this order. A column that is
    asked for is shown even where its values are uninformative.

    Raises:
        UnknownColumnError: If there is no such column.
    """
    known = [c for columns in with_groups(SECTIONS, runs).values() for c in columns]
    mark = shown_name("", is_minority=True)
    by_name = {
        name: column
        for column in reversed(known)
        for name in (column.title.removesuffix(mark), column.key, column.title)
    }
    for name in names:
        if name not in by_name:
            titles = {column.title.lower(): column.title for column in known}
            close = difflib.get_close_matches(name.lower(), titles, n=1)
            there = "; ".join(titles.values())
            hint = f", did you mean {titles[close[0]]!r}?" if close else f"; known columns: {there}"
            raise UnknownColumnError(f"there is no column {name!r}{hint}")
    return {"chosen figures": tuple(by_name[name]._replace(idle=math.nan) for name in names)}


def with_groups(
    sections: Mapping[str, tuple[Column, ...]], runs: Iterable[Mapping[str, float]]
) -> dict[str, tuple[Column, ...]]:
    """Return the sections, and those that depend on the runs: accuracy by group, a user's own
    figures, weight by group.

    Two groups need no section: the worst group's column, and those of the roles that hold them,
    already say it all.
    """
    runs = list(runs)
    keys = list(dict.fromkeys(key for figures in runs for key in figures))

    def columns(prefix: str, **how: Any) -> tuple[Column, ...]:
        names = [key.removeprefix(prefix) for key in keys if key.startswith(prefix)]
        if len(names) <= 2:
            return ()
        together = ALL_GROUPS if prefix == GROUP else ()
        return together + tuple(
            Column(f"{prefix}{name}", shown_group(name, runs), **how) for name in names
        )

    own = {key: key.removeprefix(OWN).replace("_", " ") for key in keys if key.startswith(OWN)}
    model, heard = "how well the model does", "who was heard"
    after = {
        model: {
            f"{model} by group": columns(GROUP, unit="%", best="highest"),
            "your own figures": tuple(Column(key, title) for key, title in own.items()),
        },
        heard: {f"{heard} by group": columns(GROUP_WEIGHT)},
    }
    found = {}
    for title, section in sections.items():
        found[title] = section
        found |= {name: added for name, added in after.get(title, {}).items() if added}
    return found


def shown_group(name: str, runs: Iterable[Mapping[str, float]]) -> str:
    """Return a group's name, marked if it is a minority in all runs that have the group."""
    said = [figures[key] for figures in runs if (key := f"{IS_MINORITY}{name}") in figures]
    return shown_name(name, is_minority=bool(said) and min(said) > 0)


LEGEND = {
    ACCURACY.key: "accuracy (groups weighted by their share of honest training data), worst group, "
    "ASR (attack success rate): mean of the last {evaluations}",
    HIGHEST_SUCCESS.key: "highest ASR: the highest mean of as many consecutive evaluations",
    "final.trigger_rate_unpoisoned": "trigger alone: ASR of the same method trained without poison",
    "final.worst_group_accuracy_with_poisoned": "on pooled data, figures are those of the final "
    "model; poisoned too: the lowest accuracy of clean and poisoned groups, the latter judged by "
    "the attacker's label",
    "final.worst_clients_accuracy": "clients: honest clients, each judged on test examples in its "
    "own mix of groups and classes, or on test examples of its own where it has some",
    "personal.honest_majority.accuracy": "each client's own model, judged on test examples in its "
    "own mix of groups and classes; mean over the clients of a role that were ever sampled",
    **dict.fromkeys(
        [column.key for column in ASKED],
        "asked: a role's share of all sampled clients over its share of all clients (0: never)",
    ),
    WEIGHT_RATIOS[0].key: "weight: a role's share of the aggregate over its fair share (below 1: "
    "silenced, above 1: amplified); contribution: the same for the pull along the update",
    "lifting.ratio.honest_majority": "lift: a role's weight before the rule over its fair share",
    "lifting.auc_by_loss": "AUC by loss: how often an attacker has a larger loss than a minority "
    "client (0.5: the loss cannot tell them apart)",
    KEPT[0].key: "kept: the share of a role's updates that have any weight, for rules that choose",
    "suppression.minority_false_positive_rate": "minority FPR: the share of the minority's updates "
    "that is thrown out; filter bias: that share minus the majority's",
    SEPARABILITY.key: "separability: AUC of the rule's suspicion, poisoned against "
    "honest minority (0.5: the rule cannot tell them apart)",
    "separation.auc_all": "AUC: of the loss after a method's first training on pooled data, "
    "poisons against the minority, and against the part of the minority that has their label",
}
"""Explanations of columns, each shown below the table that has the column."""


def explained(columns: Iterable[Column], evaluations: str) -> list[str]:
    """Return the explanations that belong below a table with these columns.

    Args:
        columns: The table's columns.
        evaluations: What final figures are averaged over, such as ``5 evaluations``.
    """
    keys = [column.key for column in columns]
    texts = list(dict.fromkeys(LEGEND[key] for key in keys if key in LEGEND))
    texts = [text.replace("{evaluations}", evaluations) for text in texts]
    if any(key.startswith(GROUP_WEIGHT) for key in keys):
        texts.append(
            "weight over fair share, of honest clients, each counted by its share of the group; on "
            "pooled data, of the group's honest examples"
        )
    return texts
