"""Aggregation rules and pre-aggregations as a scenario names them: parameters here, maths there."""

from collections.abc import Callable
from functools import partial
from typing import Annotated, Any, ClassVar, Literal

from pydantic import Field, NonNegativeFloat, PositiveFloat, PositiveInt

from fl_testbed.scenario.spec import CountOrFraction, Fraction, Spec, count_of
from strategies import aggregation as rules
from strategies import pre_aggregation as mixers
from strategies.aggregation import Aggregator
from strategies.pre_aggregation import PreAggregator

Bound = Callable[..., None]


class RuleSpec(Spec):
    """A rule, the facts of the scenario that it needs, and its bound on the sample."""

    rule: ClassVar[Aggregator]
    bound: ClassVar[Bound | None] = None
    """Raises TooFewClientsError; takes n, and n_malicious where the rule has one."""
    selects: ClassVar[bool] = False
    """Whether a weight of 0 means that the rule chose not to hear a client."""
    needs_server_data: ClassVar[bool] = False

    def parameters(self, n: int) -> dict[str, Any]:
        """Return the rule's own parameters for samples of n clients."""
        given = self.model_dump(exclude={"kind"})
        if "n_malicious" in given:
            given["n_malicious"] = count_of(given["n_malicious"], n)
        return given

    def check(self, n_rows: int, n: int) -> None:
        """Raise TooFewClientsError if the rule cannot work on the rows that pre-aggregations leave
        of a sample of n clients."""
        if self.bound is not None:
            given = self.parameters(n)
            self.bound(n_rows, *([given["n_malicious"]] if "n_malicious" in given else []))

    def build(self, n: int) -> Aggregator:
        """Return the rule for samples of n clients, its parameters bound."""
        given = self.parameters(n)
        return partial(self.rule, **given) if given else self.rule


class AssumesMalicious(RuleSpec):
    """A rule that is told how many clients may be malicious."""

    n_malicious: CountOrFraction  # what the defence assumes; a fraction is of the sample


class MeanSpec(RuleSpec):
    """Federated averaging: no defence."""

    kind: Literal["mean"]
    rule = staticmethod(rules.mean)


class KrumSpec(AssumesMalicious):
    """Krum: the one update with the tightest neighbourhood."""

    kind: Literal["krum"]
    rule = staticmethod(rules.krum)
    bound = staticmethod(rules.krum_bound)
    selects = True


class MultiKrumSpec(AssumesMalicious):
    """Multi-Krum: the mean of the n - f updates with the tightest neighbourhoods."""

    kind: Literal["multi_krum"]
    n_selected: PositiveInt | None = None
    rule = staticmethod(rules.multi_krum)
    selects = True

    def check(self, n_rows: int, n: int) -> None:
        """Need n >= 2f + 3, and n >= m."""
        rules.multi_krum_bound(n_rows, **self.parameters(n))


class IterativeMultiKrumSpec(AssumesMalicious):
    """Multi-Krum that scores again after each choice, as the NDSS 2021 release does."""

    kind: Literal["iterative_multi_krum"]
    rule = staticmethod(rules.iterative_multi_krum)
    bound = staticmethod(partial(rules.krum_bound, rule="iterative_multi_krum"))
    selects = True


class BulyanSpec(AssumesMalicious):
    """Bulyan: repeated Krum, then per coordinate the values nearest the median."""

    kind: Literal["bulyan"]
    rule = staticmethod(rules.bulyan)
    bound = staticmethod(rules.bulyan_bound)


class CoordinateMedianSpec(RuleSpec):
    """Median of each coordinate."""

    kind: Literal["coordinate_median"]
    rule = staticmethod(rules.coordinate_median)


class TrimmedMeanSpec(AssumesMalicious):
    """Trimmed mean: per coordinate, without the f smallest and f largest values."""

    kind: Literal["trimmed_mean"]
    rule = staticmethod(rules.trimmed_mean)
    bound = staticmethod(rules.trimmed_mean_bound)


class MeanAroundMedianSpec(AssumesMalicious):
    """Per coordinate, the mean of the n - f values nearest the median."""

    kind: Literal["mean_around_median"]
    rule = staticmethod(rules.mean_around_median)
    bound = staticmethod(rules.mean_around_median_bound)


class GeometricMedianSpec(RuleSpec):
    """RFA: the point with the least sum of distances to all updates."""

    kind: Literal["geometric_median"]
    n_iterations: PositiveInt = 100
    smoothing: PositiveFloat = 1e-6
    tolerance: NonNegativeFloat = 1e-9
    rule = staticmethod(rules.geometric_median)


class CentredClippingSpec(RuleSpec):
    """Centred clipping: clip each update's distance to a centre carried over rounds."""

    kind: Literal["centred_clipping"]
    radius: PositiveFloat
    n_iterations: PositiveInt = 1
    rule = staticmethod(rules.centred_clipping)


class NormClippingSpec(RuleSpec):
    """Norm clipping: no update longer than a bound (the median norm unless given)."""

    kind: Literal["norm_clipping"]
    max_norm: PositiveFloat | None = None
    rule = staticmethod(rules.norm_clipping)


class WeakDpSpec(RuleSpec):
    """Weak differential privacy: norm clipping and Gaussian noise."""

    kind: Literal["weak_dp"]
    max_norm: PositiveFloat
    noise_std: NonNegativeFloat
    rule = staticmethod(rules.weak_dp)


class KNormSpec(AssumesMalicious):
    """Drop the f updates of largest norm."""

    kind: Literal["k_norm"]
    rule = staticmethod(rules.k_norm)
    bound = staticmethod(rules.k_norm_bound)
    selects = True


class KLossSpec(AssumesMalicious):
    """Hear only the client with the largest loss among the n - f smallest."""

    kind: Literal["k_loss"]
    rule = staticmethod(rules.k_loss)
    bound = staticmethod(rules.k_loss_bound)
    selects = True


class FLTrustSpec(RuleSpec):
    """FLTrust: trust a client as far as it agrees with the server's root data."""

    kind: Literal["fltrust"]
    rule = staticmethod(rules.fltrust)
    selects = True
    needs_server_data = True


class FoolsGoldSpec(RuleSpec):
    """FoolsGold: distrust clients whose past updates resemble each other."""

    kind: Literal["foolsgold"]
    confidence: PositiveFloat = 1.0
    n_last: PositiveInt | None = None
    rule = staticmethod(rules.foolsgold)
    selects = True


class FlameSpec(RuleSpec):
    """FLAME: the largest cluster by cosine distance, clipped, with noise."""

    kind: Literal["flame"]
    noise_factor: NonNegativeFloat = 1e-3
    rule = staticmethod(rules.flame)
    bound = staticmethod(rules.flame_bound)
    selects = True


class DnCSpec(AssumesMalicious):
    """DnC: a spectral filter on random coordinates, repeated."""

    kind: Literal["dnc"]
    n_repeats: PositiveInt = 5
    n_coordinates: PositiveInt = 10_000
    filter_fraction: PositiveFloat = 1.0
    rule = staticmethod(rules.dnc)
    selects = True

    def check(self, n_rows: int, n: int) -> None:
        """Need n > 2cf."""
        rules.dnc_bound(n_rows, count_of(self.n_malicious, n), self.filter_fraction)


class SignGuardSpec(RuleSpec):
    """SignGuard: usual norms, and the largest cluster of sign statistics."""

    kind: Literal["sign_guard"]
    lower: NonNegativeFloat = 0.1
    upper: PositiveFloat = 3.0
    sign_fraction: Fraction = 0.1
    rule = staticmethod(rules.sign_guard)
    selects = True


class RobustLearningRateSpec(RuleSpec):
    """Flip the step of coordinates on whose sign too few clients agree."""

    kind: Literal["robust_learning_rate"]
    threshold: PositiveInt
    rule = staticmethod(rules.robust_learning_rate)


class ErrorRateRejectionSpec(AssumesMalicious):
    """ERR: drop the f clients that raise the server's error rate most."""

    kind: Literal["error_rate_rejection"]
    rule = staticmethod(rules.error_rate_rejection)
    bound = staticmethod(rules.negative_impact_bound)
    selects = True
    needs_server_data = True


class LossRejectionSpec(AssumesMalicious):
    """LFR: drop the f clients that raise the server's loss most."""

    kind: Literal["loss_rejection"]
    rule = staticmethod(rules.loss_rejection)
    bound = staticmethod(partial(rules.negative_impact_bound, rule="loss_rejection"))
    selects = True
    needs_server_data = True


class UnionRejectionSpec(AssumesMalicious):
    """Drop the clients that either ERR or LFR drops."""

    kind: Literal["union_rejection"]
    rule = staticmethod(rules.union_rejection)
    bound = staticmethod(partial(rules.negative_impact_bound, rule="union_rejection"))
    selects = True
    needs_server_data = True


class FLDetectorSpec(RuleSpec):
    """FLDetector: distrust clients whose updates cannot be predicted from their past."""

    kind: Literal["fldetector"]
    window: PositiveInt = 10
    rule = staticmethod(rules.fldetector)
    selects = True


class MinimumDiameterSpec(AssumesMalicious):
    """The mean of the n - f updates that lie closest together; exact, so for small n."""

    kind: Literal["minimum_diameter"]
    rule = staticmethod(rules.minimum_diameter)
    bound = staticmethod(rules.minimum_diameter_bound)
    selects = True


class CafSpec(AssumesMalicious):
    """CAF: weights lowered along the top eigenvector until the covariance is small."""

    kind: Literal["caf"]
    rule = staticmethod(rules.caf)
    bound = staticmethod(rules.caf_bound)


AggregationSpec = Annotated[
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
    | DnCSpec
    | SignGuardSpec
    | RobustLearningRateSpec
    | ErrorRateRejectionSpec
    | LossRejectionSpec
    | UnionRejectionSpec
    | FLDetectorSpec
    | MinimumDiameterSpec
    | CafSpec,
    Field(discriminator="kind"),
]


class PreAggregation(Spec):
    """A step before the rule."""

    def n_rows(self, n: int) -> int:
        """Return how many rows the step leaves of n."""
        return n

    def check(self, n: int) -> None:
        """Raise TooFewClientsError if the step cannot work on n rows."""

    def build(self, n: int) -> PreAggregator:
        """Return the step for n rows, its parameters bound."""
        raise TypeError(f"{type(self).__name__} has no step")


class ClippingSpec(PreAggregation):
    """Clip every update to a fixed norm."""

    kind: Literal["clipping"]
    max_norm: PositiveFloat

    def build(self, n: int) -> PreAggregator:
        """Return the step."""
        return partial(mixers.clipping, max_norm=self.max_norm)


class AdaptiveClippingSpec(PreAggregation):
    """Clip the largest updates to the norm of the largest that is not clipped (ARC)."""

    kind: Literal["adaptive_clipping"]
    n_malicious: CountOrFraction

    def build(self, n: int) -> PreAggregator:
        """Return the step."""
        return partial(mixers.adaptive_clipping, n_malicious=count_of(self.n_malicious, n))


class BucketingSpec(PreAggregation):
    """Average random buckets of s clients: the rule sees n / s rows."""

    kind: Literal["bucketing"]
    size: PositiveInt = 2

    def n_rows(self, n: int) -> int:
        """Return the number of buckets."""
        return mixers.n_buckets(n, self.size)

    def build(self, n: int) -> PreAggregator:
        """Return the step."""
        return partial(mixers.bucketing, size=self.size)


class NearestNeighbourMixingSpec(PreAggregation):
    """Replace every update by the mean of its n - f nearest neighbours."""

    kind: Literal["nearest_neighbour_mixing"]
    n_malicious: CountOrFraction

    def check(self, n: int) -> None:
        """Need n > f."""
        mixers.nearest_neighbour_mixing_bound(n, count_of(self.n_malicious, n))

    def build(self, n: int) -> PreAggregator:
        """Return the step."""
        return partial(mixers.nearest_neighbour_mixing, n_malicious=count_of(self.n_malicious, n))


PreAggregationSpec = Annotated[
    ClippingSpec | AdaptiveClippingSpec | BucketingSpec | NearestNeighbourMixingSpec,
    Field(discriminator="kind"),
]
