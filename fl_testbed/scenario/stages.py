"""The stages of a centralised method: what lifts examples, and what removes them."""

from typing import Annotated, Literal

from pydantic import Field, NonNegativeFloat, NonNegativeInt, PositiveFloat, PositiveInt

from fl_testbed.scenario.spec import BY_KIND, Fraction, Spec

Amplify = Literal["flagged", "minority", "poisons", "flagged_and_poisons", "flagged_and_minority"]
"""Which examples a lift lifts: those it flags (standard), or what an oracle says: the true
minority (ideal), the poisons (worst case), or those it flags and all of one of these."""

Remove = Literal["flagged", "flagged_but_minority", "poisons", "random"]
"""Which examples a defence removes: those it flags (standard), the same but with the minority
shielded, all poisons (a perfect defence), or as many as it flags, drawn at random."""


class StageSpec(Spec):
    """One stage."""

    @property
    def is_oracle(self) -> bool:
        """Whether the stage is told the truth about examples."""
        return False


class LiftStageSpec(StageSpec):
    """A stage that makes some examples count more."""

    amplify: Amplify = "flagged"  # flagged: what the method finds; the others are oracles

    @property
    def is_oracle(self) -> bool:
        """Whether the stage is told the truth about examples."""
        return self.amplify != "flagged"


class FilterStageSpec(StageSpec):
    """A stage that removes examples."""

    remove: Remove = "flagged"  # flagged: what it finds; random: as many; others: oracles

    @property
    def is_oracle(self) -> bool:
        """Whether the stage is told the truth about examples."""
        return self.remove in ("flagged_but_minority", "poisons")


class JTTStageSpec(LiftStageSpec):
    """JTT: examples that a short training leaves uncertain are counted 1 + factor times."""

    kind: Literal["jtt"]
    epochs: PositiveInt  # of the identification model
    factor: PositiveFloat | Literal["balance"] = 50.0  # balance: error set as much as the rest
    threshold: Fraction = 0.5  # of the confidence in the given label


class GeorgeStageSpec(LiftStageSpec):
    """GEORGE: GroupDRO over clusters of each class."""

    kind: Literal["george"]
    epochs: PositiveInt  # of the model whose features are clustered
    max_clusters: Annotated[PositiveInt, Field(ge=2)] = 5  # in a class
    step_size: PositiveFloat = 0.01  # step size of the groups' weights
    adjustment: NonNegativeFloat = 2.0  # makes small groups count as harder


class GroupDROStageSpec(StageSpec):
    """GroupDRO over annotated groups, by the given labels."""

    kind: Literal["group_dro"]
    by: Literal["group", "class"] = "group"  # what is a group
    poisons_apart: bool = False  # whether poisons are a group of their own
    step_size: PositiveFloat = 0.01  # step size of the groups' weights
    adjustment: NonNegativeFloat = 0.0  # makes small groups count as harder

    @property
    def is_oracle(self) -> bool:
        """Whether the stage is told which examples are poisons."""
        return self.poisons_apart


class BalanceStageSpec(StageSpec):
    """Balanced ERM: classes, or groups by the given labels, are equally likely to be drawn."""

    kind: Literal["balance"]
    by: Literal["class", "group"]  # what is drawn equally often


class LossFilterStageSpec(FilterStageSpec):
    """Loss filter: remove the share that a short training fits worst."""

    kind: Literal["loss_filter"]
    epochs: PositiveInt  # of the model that judges
    fraction: Fraction  # of the examples that are left
    per_class: bool = False  # remove this share of each class, not of all


class SpectralSignaturesStageSpec(FilterStageSpec):
    """Spectral signatures: remove the share farthest out on each class's main axis."""

    kind: Literal["spectral_signatures"]
    epochs: PositiveInt  # of the model that judges
    fraction: Fraction  # of each class


class ActivationClusteringStageSpec(FilterStageSpec):
    """Activation clustering: remove the smaller of two clusters in a class."""

    kind: Literal["activation_clustering"]
    epochs: PositiveInt  # of the model that judges
    max_share: Fraction = 0.35  # of a class; a larger cluster is kept
    n_axes: PositiveInt = 10  # principal axes of the features


class SpectreStageSpec(FilterStageSpec):
    """SPECTRE: spectral signatures after robust whitening."""

    kind: Literal["spectre"]
    epochs: PositiveInt  # of the model that judges
    fraction: Annotated[float, Field(ge=0, lt=0.5)]  # of each class
    n_axes: PositiveInt = 10  # principal axes of the features
    alpha: NonNegativeFloat = 4.0  # of the quantum entropy score


class EpicStageSpec(FilterStageSpec):
    """EPIc: while training, remove examples that stand alone in gradient space.

    As the last stage, its model is the result; otherwise the next stage trains anew on what it
    left. ``every`` counts from the end of the warm-up; the authors' code removes in epochs that
    are multiples of it.
    """

    kind: Literal["epic"]
    share: Annotated[float, Field(gt=0, le=1)]  # of each class's examples: these become medoids
    every: PositiveInt  # epochs between removals
    warm_up: NonNegativeInt  # epochs before the first removal
    max_cluster: PositiveInt = 1  # largest cluster whose examples count as alone
    epochs: PositiveInt | None = None  # those of training by default


AnyStageSpec = Annotated[
    JTTStageSpec
    | GeorgeStageSpec
    | GroupDROStageSpec
    | BalanceStageSpec
    | LossFilterStageSpec
    | SpectralSignaturesStageSpec
    | ActivationClusteringStageSpec
    | SpectreStageSpec
    | EpicStageSpec,
    BY_KIND,
]
