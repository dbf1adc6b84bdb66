"""llama-cpp-python's own OpenAI-compatible server as a cloud: a process that nobody here wrote, with a model that speaks our prompt."""

import json
import pathlib
import shutil
import socket
import subprocess
import sys
import time

import httpx

from convert.export import Conversion, export
from edge_agent.model.profile import SYSTEM_MESSAGE
from tests.support.paths import ROOT


class LlamaServer:
    """The server as a process; `requests` counts the completions that its log shows."""

    def __init__(self, model: pathlib.Path, log: pathlib.Path, port: int) -> None:
        self.url, self.log = f"http://127.0.0.1:{port}/v1", log
        command = [
            sys.executable,
            "-m",
            "llama_cpp.server",
            "--model",
            str(model),
            "--host",
            "127.0.0.1",
            "--port",
            str(port),
            "--n_ctx",
            "1024",
        ]
        with log.open("w") as output:
            self.process = subprocess.Popen(command, stdout=output, stderr=subprocess.STDOUT)
        for _ in range(600):
            try:
                httpx.get(f"{self.url}/models", timeout=1)
                return
            except httpx.TransportError:
                assert self.process.poll() is None, log.read_text()
                time.sleep(0.1)
        raise AssertionError(log.read_text())

    def requests(self) -> int:
        return self.log.read_text().count("POST /v1/chat/completions")

    def stop(self) -> None:
        self.process.terminate()
        self.process.wait(timeout=30)


# The template of the model that is served. The demo base has no knowledge of any other prompt than FogGen's, so its
# template gives it that one, with the question alone, and it answers `Final answer: B`.
TEMPLATE = """\
{{ '<|im_start|>system\\n' + %s + '<|im_end|>\\n<|im_start|>user\\n' }}
{{- messages[0].content.split('\\n\\nAnswer')[0] }}
{{- '<|im_end|>\\n<|im_start|>assistant\\n<think>\\n\\n</think>\\n\\n' -}}
"""


def served_model(folder: pathlib.Path) -> pathlib.Path:
    """The demo base as the model of a cloud, in a file in `folder`."""
    shutil.copytree(ROOT / "models" / "demo" / "base", folder / "base")
    (folder / "base" / "chat_template.jinja").write_text(TEMPLATE % json.dumps(SYSTEM_MESSAGE))
    return export(Conversion(folder / "base", [], ["F16"]), folder)[0].path


def free_port() -> int:
    """A port that nothing listens on."""
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        return int(free.getsockname()[1])
