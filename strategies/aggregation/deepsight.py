"""DeepSight: cluster models by what they learnt, and reject clusters that learnt few classes."""

from collections.abc import Callable, Mapping

import torch

from strategies.aggregation.aggregate import (
    Aggregate,
    normalised,
    prior_or_uniform,
    shared_by_copies,
)
from strategies.aggregation.hdbscan import hdbscan
from strategies.aggregation.layers import output_layer
from strategies.aggregation.norm_clipping import median_of, norm_clipping
from strategies.aggregation.traits import Bound, Traits
from strategies.shapes import Float, Tensor

N_SEEDS = 3
TAU = 1 / 3
CLUSTER = 5  # the fewest clients in a cluster, where a round has that many
LARGEST_LOG = 100.0  # of a log ratio: the square of its exponential is still finite

Respond = Callable[[Tensor, int], Tensor]
"""From an update and a number to the outputs of its model on that many random inputs."""

deepsight_bound = Bound("deepsight", 0, 2)


@Traits(bound=deepsight_bound, selects=True, compares_pairs=True)
def deepsight(
    updates: Float[Tensor, "n d"],
    respond: Respond,
    layers: Mapping[str, slice],
    n_samples: int = 300,
    prior: Float[Tensor, " n"] | None = None,
) -> Aggregate:
    """Reject clusters of models that learnt few classes, clip the others to the median norm.

    An output neuron's update energy is the sum of the absolute updates of its weights and bias; its
    NEUP is the square of that over the sum of all neurons' squares. A model counts its NEUPs above
    max(0.01, 1 / classes) times its largest; with at most half of the clients' median count it is
    suspicious, since its data are homogeneous. Models are clustered (HDBSCAN) by their NEUPs, by
    the cosine distance of their output biases' updates and, for each of three sets of random
    inputs, by the ratios of their class probabilities to the received model's (DDifs). The number
    of these three views that separate two clients (each of the three sets counts a third) is their
    distance in a final clustering. Clusters of this in which a third or more of the models are
    suspicious are rejected.

    A client that holds few classes is taken for an attacker, however honest. With two classes no
    client that trains is suspicious, since what one output learns the other unlearns and both
    count: the rule is then clipping alone.

    Args:
        updates: Local minus global parameters, one row per client, shape (n, d).
        respond: Returns the outputs, on a given number of random inputs, of the model that an
            update gives. Called n + 1 times.
        layers: Where each array of parameters stands in a row, by its name: the largest array of
            the last module holds the output weights, one with an entry per class the bias.
        n_samples: Random inputs in each of the three sets.
        prior: Weights among the accepted; equal by default.

    Returns:
        update: The mean of the clipped accepted updates, in proportion to their prior.
        weights: prior · clipping factor, scaled to sum 1; 0 for those rejected, which may be all.
        suspicion: The share of suspicious models in the client's cluster: a third or more rejects
            it.

    Raises:
        OutputLayerError: If the output weights cannot be divided evenly among the classes.

    Bound:
        n >= 2, else TooFewClientsError: there must be somebody to compare with. Attackers who hold
        all classes are not rejected; but no update counts beyond the median norm, which is honest
        while n >= 2f + 1.

    Ties:
        HDBSCAN takes clients in the order of how far they moved the output layer, least first,
        which decides its ties; copies share the outcome. A client that HDBSCAN calls an outlier is
        a cluster of its own. The median norm is midway between the two middle ones for even n.

    Variants:
        Without a bias there are two views. The paper, BackFed and FLPoison take 20,000 samples,
        minutes a round on a CPU; with 300 the DDifs of a small network were within a twentieth of
        their spread over clients, and clusters the same. BackFed and FLPoison also draw inputs from
        [0, 1), and divide outputs of any sign in place of probabilities. As in both, a cluster has
        at least 5 clients (HDBSCAN's default) and is one of several: fewer attackers are outliers
        or fall into other clusters, and among fewer than 10 clients each is judged alone. FLPoison
        treats all outliers of a view as one cluster, rejects those of the final clustering, which
        may be a single cluster there, and uses 3 neighbours (min_samples). The package hdbscan,
        which both use, does not count a client among its own neighbours, as scikit-learn's HDBSCAN
        does: one in a hundred simulated clients was judged differently. BackFed counts NEUPs from
        1 / classes of the largest, compares rows of the final distances, and accepts clusters of
        which less than a third is *not* suspicious.

    References:
        Rieger et al., DeepSight: Mitigating Backdoor Attacks in Federated Learning Through Deep
        Model Inspection, NDSS 2022.
    """
    deepsight_bound(len(updates))
    ratios = _division_differences(updates, respond, n_samples)
    n_classes = ratios.shape[2]
    weights, *others = output_layer(layers, n_classes)
    biases = [updates[:, at] for at in others if at.stop - at.start == n_classes]
    neurons = updates[:, weights].unflatten(1, (n_classes, -1)).unbind(dim=1)
    energies = torch.stack([_l1(neuron) for neuron in neurons], dim=1)
    for bias in biases:
        energies += bias.abs()
    relative = energies / energies.amax(dim=1, keepdim=True).clamp(min=1e-300)
    squares = relative**2  # NEUPs, up to a common factor per client
    exceedings = (squares > max(0.01, 1 / n_classes)).double().sum(dim=1)
    suspicious = (exceedings <= median_of(exceedings) / 2).double()
    neups = squares / squares.sum(dim=1, keepdim=True).clamp(min=1)  # the largest square is 1
    order = energies.sum(dim=1).argsort()  # else the order of rows would decide HDBSCAN's ties
    apart = _apart(neups[order]) + sum(_apart(each[order]) for each in ratios) / N_SEEDS
    for bias in biases:
        apart += _apart(bias[order], "cosine")
    together = 1 - _apart(apart, "precomputed")  # whatever the unit
    share = (together @ suspicious[order] / together.sum(dim=1))[order.argsort()]
    heard = normalised(prior_or_uniform(updates, prior) * (share < TAU))
    result = norm_clipping(updates, prior=heard)._replace(suspicion=share)
    return shared_by_copies(result, updates, prior)


def _division_differences(
    updates: Float[Tensor, "n d"], respond: Respond, n_samples: int
) -> Float[Tensor, "s n classes"]:
    """Return, for each seed, the mean ratio of a client's probabilities to the received model's."""

    def log_probabilities(update: Float[Tensor, " d"]) -> Float[Tensor, "m classes"]:
        return respond(update, N_SEEDS * n_samples).double().log_softmax(dim=1)

    before = log_probabilities(torch.zeros_like(updates[0]))
    ratios = []
    for update in updates:
        logs = (log_probabilities(update) - before).nan_to_num(nan=LARGEST_LOG)
        ratios.append(logs.clamp(max=LARGEST_LOG).exp().unflatten(0, (N_SEEDS, -1)).mean(dim=1))
    return torch.stack(ratios, dim=1)


def _l1(neuron: Float[Tensor, "n w"]) -> Float[Tensor, " n"]:
    return torch.linalg.vector_norm(neuron, ord=1, dim=1, dtype=torch.float64)


def _apart(values: Float[Tensor, "n m"], metric: str = "euclidean") -> Float[Tensor, "n n"]:
    """Cluster the rows; return 0 for two in the same cluster, else 1; an outlier is on its own."""
    clusters = hdbscan(values, metric, min_cluster_size=min(CLUSTER, len(values)))
    same = (clusters[:, None] == clusters) & (clusters >= 0)
    return (~same).double().fill_diagonal_(0)
