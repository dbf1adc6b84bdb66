"""What a GGUF takes over from a tokenizer, and what it refuses."""

import json
import pathlib

import gguf
import pytest

from convert.export import Conversion, Reports, export
from edge_agent.core.errors import ConvertError
from edge_agent.model.gguf import read_header
from tests.support.checkpoints import GEMMA_ADDED, GEMMA_PIECES, gemma_checkpoint

N_ROWS = len(GEMMA_PIECES) + len(GEMMA_ADDED)


def edit(path: pathlib.Path, **changes: object) -> None:
    path.write_text(json.dumps({**json.loads(path.read_text()), **changes}))


def converted(source: pathlib.Path, out: pathlib.Path, *adapters: pathlib.Path) -> tuple[pathlib.Path, list[str]]:
    """The GGUF and what was said on the way."""
    said: list[str] = []
    return export(Conversion(source, adapters, ["F32"], "x"), out, Reports(said.append))[0].path, said


def test_added_token_beyond_the_rows_is_dropped_and_said(tmp_path: pathlib.Path) -> None:
    """Gemma 3's published tokenizer has one: <image_soft_token> with the id 262144."""
    source = gemma_checkpoint(tmp_path / "source", added=("<image_soft_token>",))
    path, said = converted(source, tmp_path)
    assert any(f"'<image_soft_token>' (id {N_ROWS}) is left out" in line for line in said), said
    tokens = gguf.GGUFReader(path).fields["tokenizer.ggml.tokens"].contents()
    assert len(tokens) == N_ROWS and "<image_soft_token>" not in tokens
    assert not any("left out" in line for line in converted(gemma_checkpoint(tmp_path / "whole"), tmp_path / "out")[1])


def test_token_with_a_role_needs_a_row(tmp_path: pathlib.Path) -> None:
    source = gemma_checkpoint(tmp_path / "source", added=("<stop>",))
    edit(source / "tokenizer_config.json", eos_token="<stop>")
    with pytest.raises(ConvertError, match=r"eos token '<stop>'.*has no row"):
        converted(source, tmp_path)


@pytest.mark.parametrize("eos", ["<end_of_turn>", "<eos>"])
def test_end_of_a_text_and_end_of_a_turn_have_their_own_names(tmp_path: pathlib.Path, eos: str) -> None:
    """A chat model's tokenizer calls the end of a turn "eos"; the published GGUF has eos 1."""
    source = gemma_checkpoint(tmp_path / "source")
    edit(source / "tokenizer_config.json", eos_token=eos)
    metadata = read_header(converted(source, tmp_path)[0]).metadata
    assert metadata["tokenizer.ggml.eos_token_id"] == 1
    assert metadata["tokenizer.ggml.eot_token_id"] == GEMMA_ADDED.index("<end_of_turn>") + len(GEMMA_PIECES)
