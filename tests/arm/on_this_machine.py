"""What this x86-64 machine decides, for tests/arm/test_same_decisions.py: `ask(FOLDER, N)` writes it
into FOLDER for N questions.

The demo model's weights have 8 bits, and llama.cpp rounds what they are multiplied with to 8 bits, too. How much a reading moves
by that alone, on one processor, is seen by two other ways of evaluating the same questions: in smaller batches, and with the same
weights written in 32 bits, where nothing is rounded to 8 bits.
"""

import pathlib
import subprocess
import sys

import gguf
import numpy as np

from tests.support.paths import DEMO, ROOT

SMALLER_BATCHES = (32, 64, 128)  # tokens; the default is 256


def ask(folder: pathlib.Path, n_questions: int) -> None:
    """Write questions.jsonl, and what each way decides: x86_64.jsonl, x86_64-N.jsonl for batches of N tokens, and exact.jsonl."""
    drawn = subprocess.run([sys.executable, "-m", "models.recipe.bank", "--n", "29"], cwd=ROOT, capture_output=True, text=True, check=True)
    (folder / "questions.jsonl").write_text("".join(drawn.stdout.splitlines(keepends=True)[:n_questions]))
    exact = folder / "demo-F32.gguf"
    write_in_32_bits(DEMO, exact)
    ways: dict[str, list[object]] = {"x86_64": [], "exact": [exact]}
    for name, more in (ways | {f"x86_64-{n}": [DEMO, n] for n in SMALLER_BATCHES}).items():
        with (folder / f"{name}.jsonl").open("w") as out:
            command = [sys.executable, "-m", "tests.arm.decide", str(folder / "questions.jsonl"), *map(str, more)]
            subprocess.run(command, cwd=ROOT, stdout=out, check=True)
    exact.unlink()


def write_in_32_bits(source: pathlib.Path, target: pathlib.Path) -> None:
    """Write the same weights as 32-bit numbers."""
    reader = gguf.GGUFReader(str(source))
    writer = gguf.GGUFWriter(str(target), reader.fields["general.architecture"].contents())
    for key, field in reader.fields.items():
        if not key.startswith("GGUF.") and key not in ("general.architecture", "general.file_type"):
            writer.add_key_value(key, field.contents(), field.types[0], field.types[-1] if len(field.types) > 1 else None)
    writer.add_file_type(gguf.LlamaFileType.ALL_F32)
    for tensor in reader.tensors:
        writer.add_tensor(tensor.name, gguf.quants.dequantize(tensor.data, tensor.tensor_type).astype(np.float32))
    writer.write_header_to_file()
    writer.write_kv_data_to_file()
    writer.write_tensors_to_file()
    writer.close()
