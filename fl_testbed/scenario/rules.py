"""Aggregation rules and pre-aggregations as a scenario names them; ``strategies`` has the maths."""

from collections.abc import Callable, Mapping
from typing import Annotated, Any, Literal, Self

import torch
from pydantic import Field, NonNegativeFloat, PositiveFloat, PositiveInt

from fl_testbed.scenario.own_specs import (
    Guarded,
    OwnSpec,
    flaw_of_tensors,
    flaw_of_weights,
)
from fl_testbed.scenario.spec import BY_KIND, ORACLE, AssumedCount, Fraction, FunctionSpec, count_of
from strategies import aggregation as rules
from strategies import pre_aggregation as mixers
from strategies.aggregation import Aggregate
from strategies.aggregation.aggregate import weighted_sum
from strategies.aggregation.deepsight import N_SEEDS
from strategies.aggregation.dnc import dnc_bound, n_dropped
from strategies.aggregation.freqfed import check_cluster_size
from strategies.aggregation.krum import check_n_selected
from strategies.aggregation.layers import output_layer
from strategies.aggregation.traits import traits_of
from strategies.pipeline import Pipeline
from strategies.pre_aggregation.mixed import Mixed

ALONG = 0.99  # least cosine of a rule's update with the sum by its weights that is to explain it


class RowsSpec(FunctionSpec):
    """A method on the updates of a round, one in each row: a rule or a pre-aggregation."""

    @property
    def asks_how_many(self) -> bool:
        """Whether it is told how many clients attack."""
        return self.arguments().get("n_malicious") == ORACLE

    def told(self, n_attackers: int) -> Self:
        """Return it with this number as n_malicious, if it asks for it."""
        if not self.asks_how_many:
            return self
        number = {"n_malicious": n_attackers}
        own = {"args": self.args | number} if isinstance(self, OwnSpec) else number
        return self.model_copy(update=own)

    def parameters(self, n: int) -> dict[str, Any]:
        """Return the arguments for samples of n clients, of which n_malicious may be a fraction."""
        given = self.arguments()
        if isinstance(given.get("n_malicious"), float):
            return given | {"n_malicious": count_of(given["n_malicious"], n)}
        return given

    def check(self, n_rows: int, n: int) -> None:
        """Raise TooFewClientsError if the function cannot work on the rows that earlier steps leave
        of a sample of n clients."""
        if bound := traits_of(self.function).bound:
            bound(n_rows, self.parameters(n).get("n_malicious", 0))

    def build(self, n: int) -> Callable[..., Any]:
        """Return the function for samples of n clients, its arguments bound."""
        return self.bind(**self.parameters(n))


class AssumesMalicious(RowsSpec):
    """A method that is told how many clients may be malicious."""

    n_malicious: AssumedCount  # count, fraction of the sample, or oracle: how many do attack


class RuleSpec(RowsSpec):
    """A rule, and the facts of the scenario that it needs."""

    @property
    def selects(self) -> bool:
        """Whether a weight of 0 means that the rule chose not to hear a client."""
        return traits_of(self.function).selects

    @property
    def n_inputs(self) -> int:
        """For how many random inputs it asks for models' outputs."""
        return 0

    def check_layers(self, layers: Mapping[str, slice], n_classes: int) -> None:
        """Raise OutputLayerError if it cannot work on a model with such layers."""


class MeanSpec(RuleSpec):
    """Federated averaging: no defence."""

    kind: Literal["mean"]
    function = staticmethod(rules.mean)


class KrumSpec(RuleSpec, AssumesMalicious):
    """Krum: the one update with the tightest neighbourhood."""

    kind: Literal["krum"]
    function = staticmethod(rules.krum)


class MultiKrumSpec(RuleSpec, AssumesMalicious):
    """Multi-Krum: the mean of the n - f updates with the tightest neighbourhoods."""

    kind: Literal["multi_krum"]
    n_selected: PositiveInt | None = None
    function = staticmethod(rules.multi_krum)

    def check(self, n_rows: int, n: int) -> None:
        """Require also that n is at least m, the number of selected updates."""
        super().check(n_rows, n)
        check_n_selected(n_rows, self.n_selected)


class IterativeMultiKrumSpec(RuleSpec, AssumesMalicious):
    """Multi-Krum that scores again after each choice, as the NDSS 2021 release does."""

    kind: Literal["iterative_multi_krum"]
    function = staticmethod(rules.iterative_multi_krum)


class BulyanSpec(RuleSpec, AssumesMalicious):
    """Bulyan: repeated Krum, then per coordinate the values nearest the median."""

    kind: Literal["bulyan"]
    function = staticmethod(rules.bulyan)


class CoordinateMedianSpec(RuleSpec):
    """Median of each coordinate."""

    kind: Literal["coordinate_median"]
    function = staticmethod(rules.coordinate_median)


class TrimmedMeanSpec(RuleSpec, AssumesMalicious):
    """Trimmed mean: per coordinate, without the f smallest and f largest values."""

    kind: Literal["trimmed_mean"]
    function = staticmethod(rules.trimmed_mean)


class MeanAroundMedianSpec(RuleSpec, AssumesMalicious):
    """Per coordinate, the mean of the n - f values nearest the median."""

    kind: Literal["mean_around_median"]
    function = staticmethod(rules.mean_around_median)


class GeometricMedianSpec(RuleSpec):
    """RFA: the point with the least sum of distances to all updates."""

    kind: Literal["geometric_median"]
    n_iterations: PositiveInt = 100
    smoothing: PositiveFloat = 1e-6
    tolerance: NonNegativeFloat = 1e-9
    function = staticmethod(rules.geometric_median)


class CentredClippingSpec(RuleSpec):
    """Centred clipping: clip each update's distance to a centre carried over rounds."""

    kind: Literal["centred_clipping"]
    radius: PositiveFloat
    n_iterations: PositiveInt = 1
    function = staticmethod(rules.centred_clipping)


class NormClippingSpec(RuleSpec):
    """Norm clipping: no update longer than a bound (the median norm unless given)."""

    kind: Literal["norm_clipping"]
    max_norm: PositiveFloat | None = None
    function = staticmethod(rules.norm_clipping)


class WeakDpSpec(RuleSpec):
    """Weak differential privacy: norm clipping and Gaussian noise."""

    kind: Literal["weak_dp"]
    max_norm: PositiveFloat
    noise_std: NonNegativeFloat
    function = staticmethod(rules.weak_dp)


class KNormSpec(RuleSpec, AssumesMalicious):
    """Drop the f updates of largest norm."""

    kind: Literal["k_norm"]
    function = staticmethod(rules.k_norm)


class KLossSpec(RuleSpec, AssumesMalicious):
    """Hear only the client with the largest loss among the n - f smallest."""

    kind: Literal["k_loss"]
    function = staticmethod(rules.k_loss)


class FLTrustSpec(RuleSpec):
    """FLTrust: trust a client as far as its update agrees with one from the server's root data."""

    kind: Literal["fltrust"]
    function = staticmethod(rules.fltrust)


class FoolsGoldSpec(RuleSpec):
    """FoolsGold: distrust clients whose past updates resemble each other."""

    kind: Literal["foolsgold"]
    confidence: PositiveFloat = 1.0
    compare: Annotated[
        Literal["output_layer", "all"], Field(description="Which parameters tell sybils.")
    ] = "output_layer"
    function = staticmethod(rules.foolsgold)

    def arguments(self) -> dict[str, Any]:
        """Return the function's arguments; to compare all parameters it is told no layers."""
        given = super().arguments()
        return given | {"layers": None} if given.pop("compare") == "all" else given


class ModelsOrUpdatesSpec(RuleSpec):
    """A rule whose key ``compare`` says whether it compares models or updates."""

    def arguments(self) -> dict[str, Any]:
        """Return the function's arguments; to compare updates it is told no received model."""
        given = super().arguments()
        return given | {"received": None} if given.pop("compare") == "updates" else given


class FlameSpec(ModelsOrUpdatesSpec):
    """FLAME: the majority's cluster by cosine distance, clipped, with noise."""

    kind: Literal["flame"]
    noise_factor: NonNegativeFloat = 1e-3
    compare: Annotated[
        Literal["models", "updates"], Field(description="Whose cosines tell clients apart.")
    ] = "models"
    function = staticmethod(rules.flame)


class DeepSightSpec(RuleSpec):
    """DeepSight: drop clusters of models that learnt few classes, clip the others."""

    kind: Literal["deepsight"]
    n_samples: PositiveInt = 300
    function = staticmethod(rules.deepsight)

    @property
    def n_inputs(self) -> int:
        """Those of three sets of n_samples."""
        return N_SEEDS * self.n_samples

    def check_layers(self, layers: Mapping[str, slice], n_classes: int) -> None:
        """Require an output layer whose neurons all have the same number of weights."""
        output_layer(layers, n_classes)


class FlareSpec(RuleSpec):
    """FLARE: trust models whose last hidden layers represent the server's data alike."""

    kind: Literal["flare"]
    temperature: PositiveFloat = 1.0
    function = staticmethod(rules.flare)


class DnCSpec(RuleSpec, AssumesMalicious):
    """DnC: a spectral filter on random coordinates, repeated."""

    kind: Literal["dnc"]
    n_repeats: PositiveInt = 5
    n_coordinates: PositiveInt = 10_000
    filter_fraction: PositiveFloat = 1.0
    function = staticmethod(rules.dnc)

    def check(self, n_rows: int, n: int) -> None:
        """Check with c · f, the number that is dropped, in place of f."""
        dnc_bound(n_rows, n_dropped(self.parameters(n)["n_malicious"], self.filter_fraction))


class SignGuardSpec(RuleSpec):
    """SignGuard: keep updates of usual norm in the largest cluster by sign statistics."""

    kind: Literal["sign_guard"]
    lower: NonNegativeFloat = 0.1
    upper: PositiveFloat = 3.0
    sign_fraction: Fraction = 0.1
    function = staticmethod(rules.sign_guard)


class RflbatSpec(RuleSpec):
    """RFLBAT: drop outliers in two principal components, keep the least similar cluster."""

    kind: Literal["rflbat"]
    first_limit: Annotated[float, Field(ge=1)] = 10.0
    second_limit: Annotated[float, Field(ge=1)] = 4.0
    function = staticmethod(rules.rflbat)


class RobustLearningRateSpec(RuleSpec):
    """Flip the step of coordinates on whose sign too few clients agree."""

    kind: Literal["robust_learning_rate"]
    threshold: PositiveInt
    function = staticmethod(rules.robust_learning_rate)


class ErrorRateRejectionSpec(RuleSpec, AssumesMalicious):
    """ERR: drop the f clients that raise the server's error rate most."""

    kind: Literal["error_rate_rejection"]
    function = staticmethod(rules.error_rate_rejection)


class LossRejectionSpec(RuleSpec, AssumesMalicious):
    """LFR: drop the f clients that raise the server's loss most."""

    kind: Literal["loss_rejection"]
    function = staticmethod(rules.loss_rejection)


class UnionRejectionSpec(RuleSpec, AssumesMalicious):
    """Drop the clients that either ERR or LFR drops."""

    kind: Literal["union_rejection"]
    function = staticmethod(rules.union_rejection)


class FLDetectorSpec(RuleSpec):
    """FLDetector: distrust clients whose updates cannot be predicted from their past."""

    kind: Literal["fldetector"]
    window: PositiveInt = 10
    function = staticmethod(rules.fldetector)


class MinimumDiameterSpec(RuleSpec, AssumesMalicious):
    """The mean of the n - f updates that lie closest together; exact, so for small n."""

    kind: Literal["minimum_diameter"]
    function = staticmethod(rules.minimum_diameter)


class CafSpec(RuleSpec, AssumesMalicious):
    """CAF: a spectral filter that fades clients out and keeps the tightest mean."""

    kind: Literal["caf"]
    function = staticmethod(rules.caf)


class AlignInsSpec(RuleSpec):
    """AlignIns: keep updates of usual alignment with the model and the principal signs, clipped."""

    kind: Literal["alignins"]
    direction_radius: PositiveFloat = 1.0
    sign_radius: PositiveFloat = 1.0
    top_fraction: Fraction = 0.3
    function = staticmethod(rules.alignins)


class LasaSpec(RuleSpec):
    """LASA: in each layer, the clipped and sparsified updates of usual norm and sign purity."""

    kind: Literal["lasa"]
    norm_radius: PositiveFloat = 1.0
    sign_radius: PositiveFloat = 1.0
    top_fraction: Fraction = 0.7
    function = staticmethod(rules.lasa)


class FedDladSpec(RuleSpec):
    """FedDLAD: trust the most connected models, flip unusual values, pardon some of the others."""

    kind: Literal["feddlad"]
    trusted_fraction: Fraction = 0.48
    pardoned_fraction: Fraction = 0.12
    iqr_factor: NonNegativeFloat = 0.6
    n_neighbours: PositiveInt = 24
    function = staticmethod(rules.feddlad)


class FreqFedSpec(ModelsOrUpdatesSpec):
    """FreqFed: the largest cluster by the low frequencies of weights."""

    kind: Literal["freqfed"]
    low_fraction: Annotated[float, Field(gt=0, le=1)] = 0.5
    min_cluster_size: Annotated[int, Field(ge=2)] | None = None
    compare: Annotated[
        Literal["models", "updates"], Field(description="Whose low frequencies tell clients apart.")
    ] = "models"
    function = staticmethod(rules.freqfed)

    def check(self, n_rows: int, n: int) -> None:
        """Require also that a cluster of min_cluster_size is possible."""
        super().check(n_rows, n)
        check_cluster_size(n_rows, self.min_cluster_size)


class OwnRuleSpec(OwnSpec, RuleSpec):
    """Your own rule: file.py:name or package.module:name."""

    is_selection: bool = False  # whether a weight of 0 is its choice: retention is then reported
    facts = Pipeline.AGGREGATE_FACTS
    first = "the updates"
    reads_only = True

    @property
    def selects(self) -> bool:
        """What the scenario says, or the rule's traits."""
        return self.is_selection or super().selects

    def flaw_of(self, result: Any, *args: Any, **named: Any) -> str:
        """Require an Aggregate of one update, with a weight and a suspicion for each client."""
        n, d = args[0].shape
        needed = {"update": (d,), "weights": (n,), "suspicion": (n,)}
        told = [k for k in ("multipliers", "pulls") if getattr(result, k, None) is not None]
        needed |= dict.fromkeys(told, (n,))
        if wrong := flaw_of_tensors(result, Aggregate, needed):
            return wrong
        if not result.update.isfinite().all():
            return "must return a finite update, returned one with NaN or infinity"
        for name in needed:
            here, there = getattr(result, name).device, args[0].device
            if here != there:
                return (
                    f"must return {name} on {there}, where the updates are, returned it on {here}"
                )
        return flaw_of_weights(result.weights, may_be_none=True)

    @property
    def function(self) -> Guarded:  # pyright: ignore[reportIncompatibleMethodOverride]
        """The function, guarded: whatever goes wrong in it is told in one line."""
        return _Accountable(self.code, self.flaw_of, self.reads_only)


class _Accountable(Guarded):
    """A user's rule: contributions are unknown where its weights do not explain its update."""

    def __call__(self, *args: Any, **kwargs: Any) -> Aggregate:
        """Call the function."""
        result: Aggregate = super().__call__(*args, **kwargs)
        if result.multipliers is not None or result.pulls is not None:
            return result
        said, did = weighted_sum(args[0], result.weights).double(), result.update.double()
        lengths = torch.linalg.vector_norm(said) * torch.linalg.vector_norm(did)
        if said @ did >= ALONG * lengths:
            return result
        return result._replace(pulls=torch.full_like(result.weights.double(), torch.nan))


AnyRuleSpec = Annotated[
    MeanSpec
    | KrumSpec
    | MultiKrumSpec
    | IterativeMultiKrumSpec
    | BulyanSpec
    | CoordinateMedianSpec
    | TrimmedMeanSpec
    | MeanAroundMedianSpec
    | GeometricMedianSpec
    | CentredClippingSpec
    | NormClippingSpec
    | WeakDpSpec
    | KNormSpec
    | KLossSpec
    | FLTrustSpec
    | FoolsGoldSpec
    | FlameSpec
    | DeepSightSpec
    | FlareSpec
    | DnCSpec
    | SignGuardSpec
    | RflbatSpec
    | RobustLearningRateSpec
    | ErrorRateRejectionSpec
    | LossRejectionSpec
    | UnionRejectionSpec
    | FLDetectorSpec
    | MinimumDiameterSpec
    | CafSpec
    | AlignInsSpec
    | LasaSpec
    | FedDladSpec
    | FreqFedSpec
    | OwnRuleSpec,
    BY_KIND,
]


class StepSpec(RowsSpec):
    """A step before the rule."""

    def n_rows(self, n: int) -> int:
        """Return how many rows the step leaves of n."""
        return n


class ClippingSpec(StepSpec):
    """Clip every update to a fixed norm."""

    kind: Literal["clipping"]
    max_norm: PositiveFloat
    function = staticmethod(mixers.clipping)


class AdaptiveClippingSpec(StepSpec, AssumesMalicious):
    """Clip the largest updates to the norm of the largest that is not clipped (ARC)."""

    kind: Literal["adaptive_clipping"]
    function = staticmethod(mixers.adaptive_clipping)


class BucketingSpec(StepSpec):
    """Average random buckets of s clients: the rule sees n / s rows."""

    kind: Literal["bucketing"]
    size: PositiveInt = 2
    function = staticmethod(mixers.bucketing)

    def n_rows(self, n: int) -> int:
        """Return the number of buckets."""
        return mixers.n_buckets(n, self.size)


class NearestNeighbourMixingSpec(StepSpec, AssumesMalicious):
    """Replace every update by the mean of its n - f nearest neighbours."""

    kind: Literal["nearest_neighbour_mixing"]
    function = staticmethod(mixers.nearest_neighbour_mixing)


class OwnPreAggregationSpec(OwnSpec, StepSpec):
    """Your own pre-aggregation: file.py:name or package.module:name."""

    facts = Pipeline.PRE_AGGREGATE_FACTS
    first = "the rows"
    reads_only = True

    def flaw_of(self, result: Any, *args: Any, **named: Any) -> str:
        """Require new rows, and how much of each old row is in each of them."""
        if not isinstance(result, Mixed):
            return flaw_of_tensors(result, Mixed, {})
        (n, d), m = args[0].shape, len(result.updates)
        wrong = flaw_of_tensors(result, Mixed, {"updates": (m, d), "mixing": (m, n)})
        if not wrong and not result.updates.isfinite().all():
            return "must return finite rows, returned some with NaN or infinity"
        return wrong


AnyStepSpec = Annotated[
    ClippingSpec
    | AdaptiveClippingSpec
    | BucketingSpec
    | NearestNeighbourMixingSpec
    | OwnPreAggregationSpec,
    BY_KIND,
]
