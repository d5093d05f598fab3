"""What decides whether RL after SFT raises pass@k: cells, sentence and figure from known rows."""

import pytest
from test_predictions import write_seed

from study.experiments import EXPERIMENTS
from study.paper import PAPER
from study.room import cells_after_sft, draw_room, paper_cells, rl_after_sft, sentence
from study.rows import Study

# Right samples of 32 for four problems; the test has ten of each.
COUNTS = {
    "3.6M": [0, 0, 0, 1],
    "3.6M.sft": [1, 1, 0, 0],  # pass@1 1.6, pass@32 50
    "3.6M.sft.rl": [32, 0, 32, 32],  # 75, 75: had to rise
    "3.6M.sft-gold": [8, 8, 8, 8],  # 25, 100
    "3.6M.sft-gold.rl": [32, 0, 0, 0],  # 25, 25: falls
    "2.4M.sft": [1, 0, 0, 0],  # 0.8, 25
    "2.4M.sft.rl": [4, 4, 4, 0],  # 9.4, 75: had room to fall, and rises
    "3.6M.rl": [32, 32, 0, 0],  # not after SFT
}


@pytest.fixture
def study(tmp_path):
    folders = []
    for seed in range(3):
        write_seed(tmp_path / f"s{seed}", {name: 10 * right for name, right in COUNTS.items()})
        folders.append(str(tmp_path / f"s{seed}"))
    return Study(folders)


def test_the_numbers_of_a_cell(study):
    cells = {cell.name: cell for cell in cells_after_sft(study)}
    assert list(cells) == ["2.4M.sft.rl", "3.6M.sft-gold.rl", "3.6M.sft.rl"]
    first = cells["3.6M.sft.rl"]
    assert first.gap.mean == pytest.approx(50 - 100 * 2 / 128)
    assert first.reach.mean == pytest.approx(25) and first.change.mean == pytest.approx(25)
    assert first.gap_after == pytest.approx(0)
    second = cells["3.6M.sft-gold.rl"]
    assert second.reach.mean == pytest.approx(-75) and second.change.mean == pytest.approx(-75)
    third = cells["2.4M.sft.rl"]
    assert third.gap_after == pytest.approx(75 - 100 * 12 / 128)


def test_only_rl_that_began_at_an_sft_counts(study):
    starts = rl_after_sft(study)
    assert starts["sft.rl"] == "sft" and starts["sft-61.rl"] == "sft-61"
    assert starts["hard-sft.rl"] == "hard-sft" and starts["sft-inside.rl-inside"] == "sft-inside"
    assert "rl" not in starts and "parallel" not in starts


def test_the_sentence_counts_cells(study):
    said = sentence(cells_after_sft(study))
    assert "closer together in 2 of 3 cells" in said  # not in 2.4M's: 24 and 66
    assert "before it pass@k is 24 to 75 points above pass@1, after it 0 to 66" in said
    assert "In 1 of them pass@1 ends above" in said
    assert "lower in 1, higher in 1 and undecided in 0" in said


def test_the_papers_cells_are_its_tables():
    x, y = paper_cells("figure2", "sft.rl", "sft")
    sft, rl = PAPER["figure2"]["sft"]["44B"], PAPER["figure2"]["sft.rl"]["44B"]
    assert x[-1] == pytest.approx(rl["pass@1"] - sft["pass@32"]) == pytest.approx(-20.2)
    assert y[-1] == pytest.approx(rl["pass@32"] - sft["pass@32"]) == pytest.approx(-3.5)


def test_the_figure(study, tmp_path):
    core = EXPERIMENTS["core"]
    ax = draw_room(study, core).axes[0]
    labels = [text.get_text() for text in ax.get_legend().get_texts()]
    assert sorted(labels) == ["the paper, GSM8K", "toy"]
    assert draw_room(Study([str(tmp_path / "none")]), core) is None
