"""Training on pooled data: a loop over tensors in memory, without a loader."""

from collections.abc import Callable
from typing import NamedTuple

import numpy as np
import torch
import torch.nn.functional as F
from torch import nn

from clients.training import LocalTraining, confidences_in, last_hidden, logits_of, own_draws
from fl_testbed.centralized.plan import Plan
from fl_testbed.centralized.pool import Pool
from fl_testbed.data import DataError
from strategies.shapes import Float, Tensor

Revise = Callable[[int, nn.Module, Plan], Plan]
"""Called before each epoch, counted from 0; returns the plan to go on with."""


class Trained(NamedTuple):
    """A model, and how it came about."""

    model: nn.Module
    plan: Plan
    """The plan of the last epoch."""
    confidences: Float[Tensor, "epochs n"]
    """I(x)_y of every training example after each epoch: the probability of its given label."""


def fit(
    model: nn.Module,
    pool: Pool,
    plan: Plan,
    settings: LocalTraining,
    rng: np.random.Generator,
    revise: Revise | None = None,
) -> Trained:
    """Train a model in place.

    Args:
        model: Trained in place.
        pool: The training set.
        plan: Which examples are trained on, and how much each counts.
        settings: Of the optimizer, with the batch size and the number of epochs.
        rng: Draws the order of examples, and seeds what the model draws.
        revise: Changes the plan as training goes on.
    """
    optimizer = settings.build_optimizer(list(model.parameters()))
    confidences = torch.empty(settings.local_epochs, len(pool))
    if plan.dro is not None:
        plan.dro.start(plan.weights)
    # A second generator seeds what the model draws (dropout): the order of examples ignores it.
    with own_draws(pool.inputs.device, rng.spawn(1)[0]):
        for epoch in range(settings.local_epochs):
            if revise is not None:
                plan = revise(epoch, model, plan)
            model.train()
            for rows in torch.from_numpy(plan.epoch(rng)).split(settings.batch_size):
                optimizer.zero_grad(set_to_none=True)
                logits, labels = model(pool.inputs[rows]), pool.labels[rows]
                if plan.dro is None:
                    loss = F.cross_entropy(logits, labels)
                else:
                    loss = plan.dro.loss(F.cross_entropy(logits, labels, reduction="none"), rows)
                loss.backward()
                optimizer.step()
            confidences[epoch] = confidences_in(logits_of(model, pool.inputs), pool.labels)
    return Trained(model, plan, confidences)


def features_of(model: nn.Module, inputs: Float[Tensor, "n ..."]) -> Float[Tensor, "n features"]:
    """Return the inputs of a model's output layer.

    Raises:
        DataError: If they are not finite.
    """
    features = last_hidden(model, inputs)
    if not features.isfinite().all():
        raise DataError(
            "the model of a stage diverged, so its features are useless: lower training.lr"
        )
    return features
