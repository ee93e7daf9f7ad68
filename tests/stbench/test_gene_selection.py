"""Genes chosen from slides: criteria against independent computations, the rule against a plain one, and no leak."""

from __future__ import annotations

import shutil
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import anndata
import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from own_sections import write_manifest
from scipy import sparse

from stbench import registry
from stbench.cli.gene_panels import PanelOptions
from stbench.data.gene_selection import LEAST_EXPRESSED, normalised_dispersion, select_genes
from stbench.data.gene_statistics import GeneStatistics, cached_statistics, gene_statistics, morans_i
from stbench.data.splits import make_folds
from stbench.errors import UserError
from stbench.slides.lattice import direct_neighbours

RNG = np.random.default_rng(3)


def moran_by_definition(values: np.ndarray, weights: np.ndarray) -> float:
    """One pair of spots after the other."""
    deviation = values - values.mean()
    pairs = sum(weights[i, j] * deviation[i] * deviation[j] for i in range(len(values)) for j in range(len(values)))
    return len(values) / weights.sum() * pairs / (deviation**2).sum()


@pytest.mark.parametrize("hexagonal", [False, True])
def test_morans_i_is_that_of_its_definition(hexagonal: bool) -> None:
    positions = np.array(
        [[x + (0.5 * (y % 2) if hexagonal else 0), y * (0.866 if hexagonal else 1)] for x in range(6) for y in range(5)]
    )
    neighbours = direct_neighbours(positions)
    values = RNG.poisson(0.7, (30, 7)).astype(float)
    values[:, 1] = positions[:, 0]  # a gradient
    values[:, 2] = 3.0  # constant
    values[:, 3] = 0.0
    found = morans_i(sparse.csc_array(values), neighbours)
    weights = neighbours.toarray()
    for gene in (0, 1, 4, 5, 6):
        assert found[gene] == pytest.approx(moran_by_definition(values[:, gene], weights))
    assert np.isnan(found[[2, 3]]).all()
    assert found[1] > 0.7
    assert np.isnan(morans_i(sparse.csc_array(values), sparse.csr_array((30, 30)))).all()


def test_morans_i_of_many_genes_is_that_of_each(monkeypatch: pytest.MonkeyPatch) -> None:
    neighbours = direct_neighbours(np.array([[x, y] for x in range(5) for y in range(4)]))
    values = sparse.csc_array(RNG.poisson(1.0, (20, 11)).astype(float))
    together = morans_i(values, neighbours)
    monkeypatch.setattr("stbench.data.gene_statistics.GENES_AT_A_TIME", 3)
    np.testing.assert_array_equal(morans_i(values, neighbours), together)


def counts_of(n_spots: int = 150, n_genes: int = 400) -> np.ndarray:
    rates = RNG.gamma(0.3, 3.0, n_genes) * RNG.gamma(2.0, 0.5, (n_spots, n_genes)) * RNG.uniform(0.3, 3, (n_spots, 1))
    counts = RNG.poisson(rates)
    counts[:3] = 0  # spots without counts
    counts[:, :4] = 0  # genes without
    return counts


def slide_of(demo_slide, counts: np.ndarray, genes: list[str]):  # type: ignore[no-untyped-def]
    n = len(counts)
    obs = demo_slide.adata.obs.iloc[:n]
    adata = anndata.AnnData(sparse.csr_matrix(counts.astype(np.int64)), obs=obs)
    adata.var_names = genes
    adata.obsm["spatial"] = np.asarray(demo_slide.adata.obsm["spatial"])[:n]
    return replace(demo_slide, adata=adata)


def test_dispersions_are_those_of_scanpy() -> None:
    import scanpy

    demo_slide = registry.dataset("demo").find()[0][0].read()
    counts = counts_of(n_spots=demo_slide.n_spots)
    genes = [f"G{i}" for i in range(counts.shape[1])]
    found = gene_statistics(slide_of(demo_slide, counts, genes))
    theirs = anndata.AnnData(sparse.csr_matrix(counts[counts.sum(axis=1) > 0].astype(np.float64)))
    scanpy.pp.normalize_total(theirs)
    scanpy.pp.log1p(theirs)
    scanpy.pp.highly_variable_genes(theirs, flavor="seurat", n_top_genes=50)
    ours = normalised_dispersion(found.mean, found.variance)
    np.testing.assert_allclose(ours, theirs.var["dispersions_norm"], rtol=1e-6, equal_nan=True)
    assert set(np.argsort(-ours)[:50]) == set(np.flatnonzero(theirs.var["highly_variable"]))
    assert found.n_spots == len(counts) - 3
    np.testing.assert_array_equal(found.n_expressed, (counts > 0).sum(axis=0))


# --- the rule --------------------------------------------------------------------------------------------------------


@st.composite
def some_slides(draw: st.DrawFn) -> list[GeneStatistics]:
    """Few values, so that many genes are equal."""
    names = [f"G{i}" for i in range(8)]
    slides = []
    for number in range(draw(st.integers(1, 4))):
        genes = draw(st.permutations(names))[: draw(st.integers(5, 8))]
        score = st.sampled_from([0.0, 0.5, 0.5, 1.0, float("nan")])
        n = len(genes)
        values = np.array(draw(st.lists(score, min_size=n, max_size=n)))
        expressed = np.array(draw(st.lists(st.integers(0, 20), min_size=n, max_size=n)))
        slides.append(GeneStatistics(f"S{number}", tuple(genes), 20, expressed, values, values, values))
    return slides


def select_plainly(slides: list[GeneStatistics], n_genes: int) -> list[str]:
    """The rule as its docstring has it, gene by gene."""
    common = set.intersection(*(set(of.genes) for of in slides))
    ranks: dict[str, list[int]] = {gene: [] for gene in common}
    for of in slides:
        score = dict(zip(of.genes, of.moran, strict=True))
        known = sorted((gene for gene in common if score[gene] == score[gene]), key=lambda gene: (-score[gene], gene))
        for gene in common:
            ranks[gene].append(known.index(gene) if gene in known else len(common))
    kept = []
    for gene in common:
        expressed = sum(int(of.n_expressed[of.genes.index(gene)]) for of in slides)
        named = sum(rank < n_genes and rank < len(common) for rank in ranks[gene])
        if named and expressed and expressed >= LEAST_EXPRESSED * sum(of.n_spots for of in slides):
            kept.append((-named, sum(ranks[gene]), gene))
    return [gene for *_, gene in sorted(kept)][:n_genes]


@settings(max_examples=150)
@given(some_slides(), st.integers(1, 7), st.randoms())
def test_the_selection_is_that_of_a_plain_one_whatever_the_order(
    slides: list[GeneStatistics], n: int, random: object
) -> None:
    expected = select_plainly(slides, n)
    shuffled = list(slides)
    random.shuffle(shuffled)  # type: ignore[attr-defined]
    for order in (slides, shuffled):
        if expected:
            assert list(select_genes(order, "svg", n)) == expected
        else:
            with pytest.raises(UserError, match=r"no gene"):
                select_genes(order, "svg", n)


def test_slides_of_other_names_have_nothing_in_common() -> None:
    one, two = (GeneStatistics(name, (name,), 1, *[np.ones(1)] * 4) for name in ("A", "B"))  # type: ignore[arg-type]
    with pytest.raises(UserError, match="2 slices have no gene in common"):
        select_genes([one, two], "hvg", 5)


def test_a_slide_without_counts_names_nothing() -> None:
    demo_slide = registry.dataset("demo").find()[0][0].read()
    genes = [f"G{i}" for i in range(400)]
    good = gene_statistics(slide_of(demo_slide, counts_of(demo_slide.n_spots), genes))
    empty = gene_statistics(slide_of(demo_slide, np.zeros((demo_slide.n_spots, 400), dtype=int), genes))
    assert empty.n_spots == 0
    for criterion in ("hvg", "svg"):
        assert select_genes([good, empty], criterion, 30) == select_genes([good], criterion, 30)


# --- statistics are kept, and belong to a slide's content -------------------------------------------------------------


def test_statistics_are_read_once_and_made_again_where_they_are_damaged(tmp_path: Path) -> None:
    (source, *_), _ = registry.dataset("demo").find()
    calls = []
    counted = replace(source, read=lambda: calls.append(1) or source.read())
    first = cached_statistics(counted, tmp_path)
    again = cached_statistics(counted, tmp_path)
    assert len(calls) == 1
    assert (first.genes, first.n_spots, first.slice) == (again.genes, again.n_spots, again.slice)
    for name in ("n_expressed", "mean", "variance", "moran"):
        np.testing.assert_array_equal(getattr(first, name), getattr(again, name))
    (file,) = tmp_path.rglob("*.npz")
    for damage in (file.read_bytes()[:100], b"", b"nonsense"):
        file.write_bytes(damage)
        assert cached_statistics(counted, tmp_path).genes == first.genes
    assert len(calls) == 4
    cached_statistics(replace(counted, parameters={"other": 1}), tmp_path)
    assert len(calls) == 5


GENES = [f"GENE{i}" for i in range(12)]


def options(manifest: Path, panel: str, scope: str | None = None, split: str = "loso") -> PanelOptions:
    return PanelOptions(panel, scope, str(manifest), None, None, split, 2 if split == "kfold" else None)


@pytest.fixture
def manifest(tmp_path: Path) -> Path:
    return write_manifest(tmp_path, {"A1": "A", "A2": "A", "B1": "B", "C1": "C"}, genes=GENES)


@pytest.fixture
def another_slice(manifest: Path) -> Callable[[], None]:
    """Gives B1 other counts, and a gene less."""

    def change() -> None:
        table = manifest.parent / "section2.tsv"
        header, *rows = table.read_text().splitlines()
        values = [row.split("\t") for row in rows]
        changed = [[name, *[str(3 * int(v) * (k % 3 == 0)) for k, v in enumerate(row)]][:-1] for name, *row in values]
        lines = [header.rpartition("\t")[0], *("\t".join(row) for row in changed)]
        table.write_text("\n".join(lines) + "\n")

    return change


@pytest.mark.parametrize("panel", ["hvg:5", "svg:5"])
def test_the_test_slice_does_not_enter_its_fold(manifest: Path, another_slice: Callable[[], None], panel: str) -> None:
    before = {split: options(manifest, panel, split=split).chosen for split in ("loso", "lopo", "kfold")}
    all_before = options(manifest, panel, "all").chosen
    another_slice()
    for split, earlier in before.items():
        later = options(manifest, panel, split=split).chosen
        assert earlier is not None
        assert later is not None
        assert not later.saw_test
        patients = {"A1": "A", "A2": "A", "B1": "B", "C1": "C"}
        (testing,) = (fold.name for fold in make_folds(split, patients, k=2) if "B1" in fold.test)
        assert later.of(split, testing) == earlier.of(split, testing)
        assert later.folds != earlier.folds  # where it is trained on, it does enter
    all_after = options(manifest, panel, "all").chosen
    assert all_before is not None
    assert all_after is not None
    assert all_before.saw_test
    assert all_after.genes != all_before.genes


def test_a_fold_is_chosen_as_from_its_training_slices_alone(manifest: Path, tmp_path: Path) -> None:
    """A dataset that has no other slices gives the same genes."""
    panel = options(manifest, "hvg:5").chosen
    assert panel is not None
    for fold in ("A1", "B1"):
        text = manifest.read_text()
        part = next(part for part in text.split("[[slide]]") if f'id = "{fold}"' in part)
        smaller = tmp_path / f"without-{fold}.toml"
        smaller.write_text(text.replace(f"[[slide]]{part}", ""))
        alone = options(smaller, "hvg:5", "all").chosen
        assert alone is not None
        assert alone.genes == panel.of("loso", fold)
    assert set(panel.genes) == {gene for genes in panel.folds["loso"].values() for gene in genes}


def test_common_is_what_a_manifest_calls_all(manifest: Path, another_slice: Callable[[], None]) -> None:
    another_slice()
    panel = options(manifest, "common").chosen
    assert panel is not None
    assert list(panel.genes) == registry.dataset(str(manifest)).panel() == GENES[:-1]


def test_a_file_and_the_panel_of_another_dataset(manifest: Path, tmp_path: Path) -> None:
    file = tmp_path / "my genes!.txt"
    file.write_text("# mine\nGENE3\nGENE1\n")
    asked = options(manifest, str(file))
    opened, panel = asked.open()
    assert panel is not None
    assert (opened.panel(), opened.name, panel.saw_test) == (["GENE3", "GENE1"], "mine-my-genes", None)
    assert asked.name() == opened.name
    other = options(manifest, "cscc").open()[0]
    assert len(other.panel()) == 171
    assert other.title == "mine, panel cscc"
    own = options(manifest, "cscc")
    same = replace(own, dataset="cscc")
    assert same.open()[1] is None
    assert same.name() == "cscc"


@pytest.mark.parametrize(
    ("panel", "scope", "says"),
    [
        (None, "all", "--panel-from says what"),
        ("common", "all", "--panel-from is for hvg:N and svg:N"),
        ("hvg:100", "test", "neither training nor all"),
        ("hvg:0", None, "has no genes"),
        ("hvg", None, "neither a file nor a panel that is known"),
        ("hvg:many", None, "neither a file nor a panel that is known"),
        ("nowhere.txt", None, r"choose a file of one gene per line, .* hvg:1000, svg:1000, or common"),
    ],
)
def test_what_is_no_panel_is_told_in_one_line(manifest: Path, panel: str | None, scope: str | None, says: str) -> None:
    with pytest.raises(UserError, match=says):
        PanelOptions(panel, scope, str(manifest), None, None, "loso", None).check()


def test_a_slice_that_cannot_be_read_is_named(manifest: Path) -> None:
    (manifest.parent / "section1.tsv").write_text("nonsense\n")
    with pytest.raises(UserError, match="slice A2"):
        _ = options(manifest, "hvg:5").chosen
    shutil.rmtree(manifest.parent)
