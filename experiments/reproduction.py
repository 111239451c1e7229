"""The table of docs/reproduction.md, published figures beside ours, from result files."""

from pathlib import Path

import pandas as pd

from experiments import pages

HERE = Path(__file__).parent
PAGE = HERE.parent / "docs" / "reproduction.md"
WORST, ASR = "final.worst_group_accuracy", "final.attack_success_rate"
FEDERATIONS = {
    "fashion": "Fashion-MNIST, inverted images",
    "digits": "digits, inverted images",
    "writers": "MNIST by writer",
    "adult": "Adult, women who earn more",
    "steady": "Fashion-MNIST, no trigger",
}
RULES = ("multi_krum", "trimmed_mean", "coordinate_median", "norm_clipping", "fltrust")


def per_variant(file: str, figure: str, *keys: str) -> pd.Series:
    """Return a figure's means over seeds in a result file, in percent."""
    return 100 * pd.read_csv(HERE / f"{file}.csv").groupby([*keys], sort=False)[figure].mean()


def lines() -> list[list[str]]:
    """Return the rows of the table: claim, theirs, ours, where."""
    rate = per_variant("oil_and_water/results/lifting", "ASR", "poison", "method").unstack("poison")
    filters = per_variant("oil_and_water/results/defence", "worst group", "method")
    lifted = {name: per_variant(f"lifting/results/{name}", ASR, "variant") for name in FEDERATIONS}
    gaps = {
        (name, method): own[method] - own[f"{method}_ideal"]
        for name, own in lifted.items()
        for method in ("jtt", "agnostic")
    }
    shares = [
        gap / (lifted[name][f"{method}_worst_case"] - lifted[name][f"{method}_ideal"])
        for (name, method), gap in gaps.items()
    ]
    shielded = per_variant("shielding/results/fashion", WORST, "variant")
    costs = [shielded[f"{rule}_shielded"] - shielded[rule] for rule in RULES]
    pooled_gaps = {
        label: rate.loc[lift] - rate.loc[f"{lift}_ideal"]
        for lift, label in (("jtt", "JTT"), ("george", "GEORGE"))
    }
    clients = ", ".join(
        f"{own['mean']:.0f} → {own['jtt']:.0f} ({FEDERATIONS[name]})"
        for name, own in lifted.items()
    )
    oil, lifting = "oil_and_water", "lifting"
    return [
        [
            "lifting takes attack success up",
            "0 → more than 97",
            f"hard backdoor: {rate.loc['erm', 'hard']:.0f} → {rate.loc['jtt', 'hard']:.0f} (JTT), "
            f"{rate.loc['george', 'hard']:.0f} (GEORGE)",
            oil,
        ],
        ["the same, of clients, under JTT", "", clients, lifting],
        [
            "standard − ideal, points",
            "6.7 to 97.4 over settings",
            "over three poisons: "
            + ", ".join(f"{v.min():.0f} to {v.max():.0f} ({k})" for k, v in pooled_gaps.items()),
            oil,
        ],
        [
            "the same, of clients",
            "",
            f"{min(gaps.values()):.0f} to {max(gaps.values()):.0f} over ten cells",
            lifting,
        ],
        [
            "standard is almost as high as it could be",
            "in words",
            f"(standard − ideal) ∕ (worst case − ideal), of clients: {min(shares):.2f} to "
            f"{max(shares):.2f}",
            lifting,
        ],
        [
            "a defence lowers the worst group, minority kept → removed",
            "55 → 41",
            f"loss filter: {filters['loss_shielded']:.0f} → {filters['loss']:.0f}; "
            f"SPECTRE: {filters['spectre_shielded']:.0f} → {filters['spectre']:.0f}",
            oil,
        ],
        [
            "the same, of clients: points lost against the same rule shielded",
            "a loss, no figure",
            f"{min(costs):.0f} to {max(costs):.0f} over five rules",
            "shielding",
        ],
        [
            "no combination gives both",
            "in words",
            "{} of {} combinations of a lift and a rule that judges updates reach both, on two "
            "poisons; with loss-based rejection some do".format(*reaching()),
            "combinations",
        ],
    ]


def reaching() -> tuple[int, int]:
    """Count the combinations of a lift with a rule that judges updates whose worst group is within
    5 points of the ideal lift's and whose attack success is within 5 points of the rule's alone,
    and count all combinations."""
    table = pd.read_csv(HERE / "combinations" / "results.csv")
    means = table.groupby(["poison", "lift", "defence"]).mean(numeric_only=True)
    reached = []
    for (poison, lift, rule), own in means.iterrows():
        if rule.startswith(("mean", "loss_rejection")) or lift in ("none", "jtt_ideal"):
            continue
        ideal, alone = means.loc[(poison, "jtt_ideal", "mean")], means.loc[(poison, "none", rule)]
        reached.append(
            own["worst_group_accuracy"] >= ideal["worst_group_accuracy"] - 5
            and own["attack_success_rate"] <= alone["attack_success_rate"] + 5
        )
    return sum(reached), len(reached)


def tables() -> dict[str, pages.Rows]:
    """Return the table of the page, from the result files."""
    rows = [["claim", "theirs", "ours", "experiment"]]
    rows += [[*row[:3], f"[{row[3]}](../experiments/{row[3]}/README.md)"] for row in lines()]
    return {"claims": rows}
