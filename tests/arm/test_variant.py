"""Which variant of llama.cpp an emulated processor loads, and that a variant that it lacks the instructions for would be noticed."""

import os
import signal
import subprocess
import sys

import pytest

from edge_agent.agent import doctor
from edge_agent.core.config.loading import load
from edge_agent.engine import llama
from tests.arm.processors import VARIANTS
from tests.support.paths import DEMO

CPU = os.environ["QEMU_CPU"]
# Registers a variant without asking whether this processor can run it, and evaluates eight tokens.
FORCE = """
import ctypes, pathlib, sys, llama_cpp
folder = pathlib.Path(llama_cpp.__file__).with_name("lib")
backend = ctypes.CDLL(str(folder / f"libggml-cpu-{sys.argv[1]}.so"))
backend.ggml_backend_init.restype = ctypes.c_void_p
register = llama_cpp.llama_cpp._lib.ggml_backend_register
register.argtypes = [ctypes.c_void_p]
register(backend.ggml_backend_init())
model = llama_cpp.llama_model_load_from_file(sys.argv[2].encode(), llama_cpp.llama_model_default_params())
params = llama_cpp.llama_context_default_params()
params.n_ctx = 256
context = llama_cpp.llama_init_from_model(model, params)
tokens = (llama_cpp.llama_token * 8)(*range(10, 18))
print("status", llama_cpp.llama_decode(context, llama_cpp.llama_batch_get_one(tokens, 8)))
"""


def test_best_variant_is_loaded() -> None:
    assert llama.variant() == VARIANTS[CPU]
    assert ("DOTPROD" in llama.cpu_features()) == (CPU == "cortex-a76")
    assert ("FP16_VA" in llama.cpu_features()) == (CPU == "cortex-a76")


def test_doctor_names_the_variant() -> None:
    (build,) = [check for check in doctor.examine(load()) if check.name == "build"]
    assert build.exit_code == 0 and f"variant {VARIANTS[CPU]} of llama.cpp" in build.detail


@pytest.mark.parametrize("variant", ["armv8.0_1", "armv8.2_1"])
def test_instruction_that_the_processor_lacks_ends_the_process(variant: str) -> None:
    """Without this, a green run would not show that no such instruction occurs."""
    done = subprocess.run([sys.executable, "-c", FORCE, variant, str(DEMO)], capture_output=True, text=True, check=False)
    if variant == "armv8.2_1" and CPU != "cortex-a76":
        assert done.returncode in (-signal.SIGILL, 128 + signal.SIGILL), done.stderr[-500:]
    else:
        assert (done.stdout, done.returncode) == ("status 0\n", 0), done.stderr[-500:]
