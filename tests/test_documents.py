"""Pages point to what is there, and their tables are those of the result files."""

import re
import tomllib
from pathlib import Path

import pandas as pd
import pytest
import yaml

from clients.shard import Role
from experiments import pages
from experiments.oil_and_water_federated import runs
from experiments.oil_and_water_federated.combinations import table as combinations
from experiments.oil_and_water_federated.seeds import table as seeds
from experiments.oil_and_water_federated.tuning import table as tuning
from experiments.oil_and_water_federated.weights import table as weights
from fl_testbed.engine.rounds import COLUMNS
from fl_testbed.report.columns import SECTIONS
from fl_testbed.report.statistics import estimate
from fl_testbed.scenario.catalogue import CATALOGUE

ROOT = Path(__file__).parents[1]
PAGES = sorted(
    page
    for place in (ROOT, *(ROOT / folder for folder in ("docs", "experiments", "configs")))
    for page in (place.glob("*.md") if place == ROOT else place.rglob("*.md"))
)
SCRIPTS = pages.scripts()
ROLES = {role.value for role in Role}

every_page = pytest.mark.parametrize("page", PAGES, ids=lambda page: str(page.relative_to(ROOT)))


@every_page
def test_links_lead_somewhere(page):
    links = re.findall(r"\]\(([^)#\s]+)", page.read_text(encoding="utf-8"))
    files = [link for link in links if "://" not in link]
    assert [link for link in files if not (page.parent / link).exists()] == []


@every_page
def test_links_into_pages_lead_to_a_heading(page):
    links = re.findall(r"\]\(([^)#\s]*)#([^)\s]+)", page.read_text(encoding="utf-8"))
    into = [(page.parent / file if file else page, name) for file, name in links if ":" not in file]
    assert [(str(at), name) for at, name in into if name not in anchors_of(at)] == []


def anchors_of(page: Path) -> set[str]:
    """Return the names that GitHub gives a page's headings."""
    headings = re.findall(r"^#+ (.+)$", page.read_text(encoding="utf-8"), re.MULTILINE)
    texts = [re.sub(r"\[(.+?)\]\(.+?\)", r"\1", heading) for heading in headings]
    return {re.sub(r"[^\w\- ]", "", text.lower()).replace(" ", "-") for text in texts}


def test_every_rule_is_compared_but_the_near_relations_that_the_page_names():
    file = ROOT / "experiments" / "oil_and_water_federated" / "defences" / "methods.yaml"
    variants = yaml.safe_load(file.read_text(encoding="utf-8"))["variants"].values()
    compared = {v["strategy.aggregation"]["kind"] for v in variants if v} | {"mean"}
    left_out = {"iterative_multi_krum", "weak_dp", "union_rejection"}
    assert CATALOGUE["rules"].keys() - compared == left_out


@pytest.mark.parametrize("script", SCRIPTS, ids=lambda script: script.__name__)
def test_tables_are_those_of_the_result_files(script):
    text = script.PAGE.read_text(encoding="utf-8")
    assert pages.filled(text, script.tables()) == text


def test_rules_are_counted_as_the_results_have_them():
    folder = ROOT / "experiments" / "oil_and_water_federated"
    rows = pd.read_csv(folder / "defences" / "results.csv")
    backdoor = rows[rows["point"] == "backdoor"]
    worst = backdoor.pivot(index=["federation", "seed"], columns="variant", values="worst_group")
    lost = worst.drop(columns="mean").sub(worst["mean"], axis=0)
    costly = {
        name: sum(found.mean + found.half_width < 0 for found in map(estimate, own.to_numpy().T))
        for name, own in lost.groupby("federation")
    }
    there = rows[rows["federation"] == "fashion_mnist"]
    aucs = there.groupby(["point", "variant"])["auc_suspicion"].mean().unstack("point")
    misled = (aucs["backdoor"] < 0.5).sum()
    falls = (aucs["minority_mimic"] < aucs["backdoor"]).sum()
    n_rules = len(lost.columns)
    fashion, adult = (costly[name] for name in ("fashion_mnist", "adult"))
    cost = f"{fashion} of {n_rules} rules cost .*on Fashion-MNIST and {adult} on"
    said = {
        ROOT: cost,
        folder / "defences": cost,
        folder / "separability": f" {misled} of {n_rules} rules",
        folder / "minority_mimic": f" {falls} of {n_rules} rules",
        ROOT / "experiments" / "oil_and_water": f" {falls - 1} more rules",
    }
    pages_of = {place: (place / "README.md").read_text(encoding="utf-8") for place in said}
    assert [place for place, words in said.items() if not re.search(words, pages_of[place])] == []


def test_a_weight_explains_as_much_as_the_results_say():
    *_, coordinate, others = weights.counts(weights.everything(runs.HERE))
    near, far = ([f"{float(line[at]):.0f}" for at in (1, 3)] for line in (others, coordinate))
    said = f"on average {near[0]} point from .* and {near[1]} on Adult.* cost {far[0]} and {far[1]}"
    assert re.search(said, weights.PAGE.read_text(encoding="utf-8"))


def test_combinations_are_counted_as_the_results_have_them():
    verdicts = combinations.suffering(combinations.plane(runs.HERE))
    kinds = [kind for *_, kind in verdicts]
    newest = {"freqfed", "caf", "alignins", "lasa", "feddlad"}
    of_newest = [kind for _, _, rule, _, kind in verdicts if rule in newest]
    n, n_newest, n_failed = len(kinds), of_newest.count("outside"), kinds.count("outside")
    words = {5: "five", 7: "seven", 11: "eleven", 30: "thirty", 90: "ninety"}
    reach, open_ = (words[kinds.count(kind)] for kind in ("in it", "open"))
    failed = f"{n_failed} clearly fail, among them .all {n_newest} with .* and for {open_}"
    summary = f"Of {words[n]} combinations .* {reach} serve .* all {words[n_newest]} with"
    said = {
        combinations.PAGE: f"{reach} of {n} combinations .* Of the others {failed}",
        runs.HERE / "README.md": summary,
        ROOT / "README.md": f"Of .{n} combinations.* {reach} reach both .* of the {n_newest} with",
    }
    pages_of = {page: page.read_text(encoding="utf-8") for page in said}
    assert [page for page, text in said.items() if not re.search(text, pages_of[page])] == []


def test_new_seeds_are_counted_as_the_results_have_them():
    rows = seeds.new_seeds(runs.HERE)
    fashion = rows[rows["federation"] == "fashion_mnist"].groupby(["variant", "setting"])
    both, low = fashion["both"].sum(), fashion["worst_group"].agg(lambda own: (own < 5).sum())
    first = both["agnostic_multi_krum", ""]
    others = (
        both["fedmgda_plus_norm_clipping", ""],
        both["fedmgda_plus_geometric_median", ""],
    )
    lost = low["agnostic_multi_krum", "unattacked"]
    won = fashion["attack_success"].agg(lambda own: (own > seeds.SAFE).sum())["agnostic_multi_krum"]
    top = (ROOT / "README.md").read_text(encoding="utf-8")
    assert f"(in {won['mimic']} of 20 new seeds" in top
    assert f"in {first} of 20 new seeds" in top
    assert f"below 5 in {lost} of 20 seeds" in top
    said = f"both in {first}, {others[0]} and {others[1]} seeds of 20"
    assert said in seeds.PAGE.read_text(encoding="utf-8")


def test_settings_on_new_seeds_are_counted_as_the_results_have_them():
    rows = seeds.new_seeds(runs.HERE)
    rows = rows[rows["setting"].isin(seeds.SETTINGS) & (rows["federation"] == "fashion_mnist")]
    both = rows.groupby(["variant", "setting"])["both"].sum()["agnostic_multi_krum"]
    old = runs.kept("sensitivity", runs.HERE).query("federation == 'fashion_mnist'")
    alone = {}  # JTT lifts the minority alone: its weight is as under the ideal lift
    for name, own in {"old": old.assign(setting=old["point"]), "new": rows}.items():
        given = own.pivot(index=["setting", "seed"], columns="variant", values="weight_minority")
        given = given[["jtt_told_4", "jtt_ideal"]].dropna()
        lifted = given["jtt_told_4"] == given["jtt_ideal"]
        alone[name] = f"{lifted.sum()} of {len(lifted)}"
    top = (ROOT / "README.md").read_text(encoding="utf-8")
    assert f"with 128 units, in {both['wide']} of 20 new seeds" in top
    assert f"With four attackers it does in {both['four']}." in top
    assert f"in {alone['old']} runs over" in top
    assert f"and {alone['new']} on new seeds" in top
    page = seeds.PAGE.read_text(encoding="utf-8")
    assert f"alone in {alone['new'].replace('of', 'of these')} runs" in page
    n = {setting: both[setting] for setting in ("wide", "dirichlet", "epochs", "examples")}
    said = "in {wide} seeds .* classes it does in {dirichlet}, .* in {epochs}, .* in {examples}"
    assert re.search(said.format(**n), page)


def test_seeds_in_which_jtt_lets_attackers_past_fltrust_are_counted():
    rows = pd.read_csv(ROOT / "experiments" / "escapes" / "fashion_epochs_seeds.csv")
    won = (rows["attack_success"] > seeds.SAFE).groupby(rows["method"]).sum()
    assert won["fltrust_balanced"] == 0
    top = (ROOT / "README.md").read_text(encoding="utf-8")
    assert f"on top (in {won['jtt_fltrust_balanced']} of 20 new seeds)" in top


def test_constants_that_are_tried_again_are_those_that_the_results_choose():
    rows = tuning.by_federation(runs.HERE)
    best = {tuning.name_of(own) for name in rows for own in tuning.best(rows[name]).values()}
    text = (tuning.HERE / "chosen.yaml").read_text(encoding="utf-8")
    assert {*yaml.safe_load(text)["variants"]} == best


def test_every_column_of_a_runs_files_is_explained():
    text = (ROOT / "docs" / "metrics.md").read_text(encoding="utf-8")
    names = {name for columns in COLUMNS.values() for name in columns} | set(COLUMNS)
    assert [name for name in sorted(names) if f"`{name}`" not in text] == []


def test_every_heading_of_a_comparison_is_explained():
    text = (ROOT / "docs" / "metrics.md").read_text(encoding="utf-8")
    table = text.split("## Names in tables")[1].split("## ")[0]
    keys = [column.key for columns in SECTIONS.values() for column in columns]
    last = {key.rpartition(".")[2] for key in keys if not key.startswith("personal.")}
    assert [name for name in sorted(last) if name not in table and name not in ROLES] == []


def test_the_citation_names_the_version():
    with (ROOT / "pyproject.toml").open("rb") as file:
        project = tomllib.load(file)["project"]
    citation = yaml.safe_load((ROOT / "CITATION.cff").read_text(encoding="utf-8"))
    assert citation["version"] == project["version"]
    assert citation["license"] == project["license"]


def test_the_top_page_shows_the_quickstart_as_it_is():
    scenario = (ROOT / "configs" / "quickstart.yaml").read_text(encoding="utf-8")
    page = (ROOT / "README.md").read_text(encoding="utf-8")
    assert f"```yaml\n{scenario[scenario.index('name:') :]}```" in page


def test_every_page_with_marks_has_a_script():
    marked = [page for page in PAGES if pages.MARK.search(page.read_text(encoding="utf-8"))]
    assert marked == sorted(script.PAGE for script in SCRIPTS)


@pytest.mark.parametrize(
    "page", sorted((ROOT / "experiments").rglob("README.md")), ids=lambda page: page.parent.name
)
def test_tables_with_figures_lie_between_marks(page):
    others = pages.MARKED.sub("", page.read_text(encoding="utf-8"))
    assert re.findall(r"^\|.*\d.*$", others, re.MULTILINE) == []


def test_a_table_is_written_between_its_marks():
    page = "a\n<!-- table: b -->\n| old |\n| --- |\n<!-- end: b -->\nc\n"
    assert pages.filled(page, {"b": [["new"]]}) == page.replace("old", "new")


@pytest.mark.parametrize(
    "page",
    [
        "",
        "<!-- table: b -->\n",
        "<!-- end: b -->\n<!-- table: b -->\n",
        "<!-- table: b -->\n<!-- end: b -->\n" * 2,
        "<!-- table: b -->\n<!-- end: b -->\n<!-- table: c -->\n<!-- end: c -->\n",
    ],
)
def test_marks_that_are_not_those_of_the_tables_are_an_error(page):
    with pytest.raises(ValueError, match="each table needs"):
        pages.filled(page, {"b": [["new"]]})


def test_cells_have_a_minus_sign_and_a_dash_for_nothing():
    assert pages.number(-1.25, 1) == "−1.2"
    assert pages.number(-0.04, 1) == "0.0"
    assert pages.number(float("nan")) == "–"
    # Student's quantile for two values is 12.706, the error of their mean 1.
    assert pages.mean_pm([1.0, 3.0, float("nan")]) == "2 ± 13"
    assert pages.mean_pm([5.0]) == "5"
    assert pages.difference([1.0, 3.0]) == "2 ± 13"
    assert pages.difference([1.0, 1.5, 2.0], 1) == "**1.5 ± 1.2**"
    assert pages.mean_range([1.0, 2.0, 6.0]) == "3 (1–6)"
    assert pages.mean_range([0.1, 0.2]) == "0"
