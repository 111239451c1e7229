"""The table of docs/impossibility.md: how well losses separate poisons from the minority."""

from pathlib import Path

import pandas as pd

from experiments import pages

HERE = Path(__file__).parent
PAGE = HERE.parent / "docs" / "impossibility.md"
POISONS = {"hard": "hard", "mimic": "mimic", "easy": "easy (control)"}
EPOCHS = (1, 3, 5, 10, 20)
FIGURES = {
    "AUC against all of the minority": ["auc_all"],
    "against those with the poison's label": ["auc_same_label"],
    "threshold error, all / same label": ["threshold_error_all", "threshold_error_same_label"],
}


def tables() -> dict[str, pages.Rows]:
    """Return the table of the page, from the result file."""
    means = pd.read_csv(HERE / "oil_and_water" / "results" / "separation.csv")
    rows = [["poison", "", "epoch 1", *(str(epoch) for epoch in EPOCHS[1:])]]
    for poison, name in POISONS.items():
        own = means[means["poison"] == poison].set_index("epoch").loc[[*EPOCHS]]
        for figure, columns in FIGURES.items():
            values = own[columns].to_numpy()
            cells = (" / ".join(pages.number(v, 2) for v in row) for row in values)
            rows.append([name, figure, *cells])
    return {"separation": rows}
