"""What a decision costs on a board: the counting, and the reckoning from published rates."""

import pathlib
from collections.abc import Iterator

import pytest

from benchmarks import pi_cost
from benchmarks.pi_cost import KINDS, Counts, Pass, Rate
from edge_agent.core.question import Question
from edge_agent.engine.local_model import LocalModel
from tests.support.paths import DEMO

QUESTION = Question("What is 12 + 7?", ("18", "19", "24"))
OF = Counts("Q4_K_M", 400, 100, 1000)


@pytest.fixture
def model() -> Iterator[LocalModel]:
    with LocalModel(DEMO) as opened:
        yield opened


def test_the_passes_of_a_decision_are_those_that_the_engine_reports(model: LocalModel) -> None:
    found = pi_cost.counted(model, QUESTION)
    n_prompt = len(model.prompt_tokens(QUESTION))
    nothing, cached, typed = (sum(one.n_tokens for one in found[kind]) for kind in KINDS)
    assert n_prompt <= nothing and typed < cached < nothing
    model.read(pi_cost.OTHER)
    assert nothing - cached == model.read(QUESTION).timings.n_cached_tokens > 20  # the system message
    for kind in KINDS:
        assert all(one.n_reads <= one.n_tokens for one in found[kind]) and found[kind][-1].n_reads > 0
    before = model.n_forward
    passes = pi_cost.recorded(model, lambda: model.read(Question("Another question?", ("a", "b"))))
    assert len(passes) == model.n_forward - before > 0  # and nothing stays behind
    assert pi_cost.recorded(model, lambda: None) == []


def test_a_pass_takes_its_multiplications_or_one_reading_of_the_weights() -> None:
    assert pi_cost.seconds([Pass(10, 2)], OF, Rate(1000, None)) == pytest.approx((10 * 400 + 2 * 100) / 1000)
    assert pi_cost.seconds([Pass(10, 2)], OF, Rate(1000, 100)) == pytest.approx(10)  # the weights take longer
    assert pi_cost.seconds([Pass(10, 2), Pass(1, 0)], OF, Rate(1000, 1e9)) == pytest.approx(4.6)


def test_the_shape_is_that_of_the_file(model: LocalModel) -> None:
    of = pi_cost.shape(DEMO, model)
    assert of.quantization == "Q8_0" and of.n_multiplied + of.n_output == model.n_parameters
    assert of.n_multiplied < of.n_bytes < DEMO.stat().st_size


def test_every_published_figure_has_its_source_and_the_boards_are_in_order() -> None:
    rows = pi_cost.published()
    assert all(row["source"].startswith("https://") for row in rows)
    for row in rows:
        assert "multiplies_per_s" in row or ("prefill_per_s" in row) <= ("multiplied" in row), row
    slow, fast, same = pi_cost.rates(rows, "Raspberry Pi 5", "Q5_K_M")
    assert same and slow.multiplies_per_s == pytest.approx(187.35 * 287e6) and fast.multiplies_per_s == pytest.approx(89.73 * 642e6)
    assert not pi_cost.rates(rows, "Raspberry Pi 5", "Q4_0")[2]  # nobody published it: from the others, and said so
    fastest_4 = pi_cost.rates(rows, "Raspberry Pi 4", "Q4_K_M")[1].multiplies_per_s
    assert fastest_4 and slow.multiplies_per_s and fastest_4 < slow.multiplies_per_s / 3
    for board in {row["board"] for row in rows}:
        slow, fast, _ = pi_cost.rates(rows, board, "Q4_K_M")
        assert 0 < (slow.multiplies_per_s or 0) <= (fast.multiplies_per_s or 0) and 0 < (slow.bytes_per_s or 0) <= (fast.bytes_per_s or 0)


@pytest.mark.parametrize(("quantization", "name"), [("Q4_K_M", "Q4_K"), ("Q6_K", "Q6_K"), ("Q3_K_S", "Q3_K"), ("Q4_0", "Q4_0")])
def test_files_of_one_family_share_their_rates(quantization: str, name: str) -> None:
    assert pi_cost.family(quantization) == name


def test_a_row_that_was_rounded_widens_the_range(tmp_path: pathlib.Path) -> None:
    path = tmp_path / "rates.toml"
    path.write_text(
        '[[measured]]\nboard = "B"\nquantization = "Q8_0"\nprefill_per_s = 10\ndecode_per_s = 2\nmultiplied = 100\ndecoded_bytes = 50\n'
        'error = 0.1\nsource = "https://x"\n'
    )
    slow, fast, same = pi_cost.rates(pi_cost.published(path), "B", "Q8_0")
    assert same and (slow, fast) == (Rate(900.0, 90.0), Rate(pytest.approx(1100), pytest.approx(110)))


def test_a_measured_decision_takes_longer_than_a_reckoned_one_and_the_ranges_say_so(tmp_path: pathlib.Path) -> None:
    least, most = pi_cost.longer()
    assert 1 < least < most < 2
    n_multiplied, n_output = pi_cost.SHAPE_06B
    path = tmp_path / "one.csv"  # 100 tokens at 1000 a second, and 4 reads of the output layer, took 0.2 s
    path.write_text(
        "quantization,size_bytes,prefill_per_s,decode_per_s,n_forward,n_tokens,decision_p50_ms\nQ8_0,639000000,1000,1000,1.0,100,200\n"
    )
    assert pi_cost.longer(path) == (pytest.approx(0.2 / (0.1 + 4 * n_output / n_multiplied / 1000)),) * 2
