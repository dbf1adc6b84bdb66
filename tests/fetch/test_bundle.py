"""A bundle: packed here, unpacked on a machine without a network; and hostile bundles."""

import contextlib
import hashlib
import io
import json
import pathlib
import random
import tarfile
import tomllib
from typing import Any

import pytest

from edge_agent.core.config.settings import load
from edge_agent.core.errors import DownloadFailed, ModelError, ModelMissing, ModelRefused
from edge_agent.fetch import bundle
from edge_agent.fetch.download import Downloader
from edge_agent.fetch.hub import Hub
from edge_agent.fetch.installed import Installed
from edge_agent.fetch.pull import Puller
from edge_agent.model import catalog, pulled
from tests.support.calibrations import calibrated, stored
from tests.support.command_line import ask, run
from tests.support.gguf_files import adapter_for, gguf_with
from tests.support.hub_server import LoopbackHub
from tests.support.paths import DEMO

NAME = "FogGen-0.6B-Q8_0"
SETTINGS = {"tau": 0.75, "policy": "only_local", "cloud_url": "https://api.example.com/v1", "cloud_model": "Қазақ 😀"}


@pytest.fixture
def model(tmp_path: pathlib.Path) -> pathlib.Path:
    path = tmp_path / f"{NAME}.gguf"
    path.write_bytes(DEMO.read_bytes())
    return path


@pytest.fixture
def calibration(tmp_path: pathlib.Path, model: pathlib.Path) -> pathlib.Path:
    path = tmp_path / "c.json"
    path.write_text(calibrated(model, tau=0.6).to_json())
    return path


@pytest.fixture
def packed(tmp_path: pathlib.Path, model: pathlib.Path, calibration: pathlib.Path) -> pathlib.Path:
    path = tmp_path / "kiosk.bundle"
    bundle.pack(path, model, SETTINGS, calibration)
    return path


def unpack(path: pathlib.Path | str, home: pathlib.Path, upgrade: bool = False, hub: Hub | None = None, **more: Any) -> Installed:
    with hub or Hub({"HF_ENDPOINT": "http://127.0.0.1:9", "HF_HUB_OFFLINE": "1"}) as opened:
        puller = Puller(home / "models", opened, upgrade, check_file=lambda path: None, config_file=home / "config.toml", **more)
        puller.calibrations = home / "calibrations"
        return puller.pull(str(path))


def test_bundle_is_a_tar_of_three_files_and_the_same_content_makes_the_same_bytes(
    packed: pathlib.Path, model: pathlib.Path, calibration: pathlib.Path, tmp_path: pathlib.Path
) -> None:
    with tarfile.open(packed) as tar:
        assert tar.getnames() == ["manifest.json", "model.gguf", "calibration.json"]
        assert tar.extractfile("model.gguf").read() == model.read_bytes()
        manifest = json.load(tar.extractfile("manifest.json"))
    assert manifest["settings"] == SETTINGS and manifest["files"]["model.gguf"]["sha256"] == catalog.sha256_of(model)
    bundle.pack(tmp_path / "again.bundle", model, SETTINGS, calibration)
    assert (tmp_path / "again.bundle").read_bytes() == packed.read_bytes()


def test_unpacked_model_calibration_and_settings_are_used(packed: pathlib.Path, model: pathlib.Path, home: pathlib.Path) -> None:
    installed = unpack(packed, home)
    assert installed.path == home / "models" / f"{NAME}.gguf" and installed.path.read_bytes() == model.read_bytes()
    assert installed.alias == "foggen" and installed.is_new and installed.settings_written
    settings = load()
    assert {name: getattr(settings, name) for name in SETTINGS} == SETTINGS and settings.model == NAME
    assert catalog.resolve(settings.model, settings.models_folder) == catalog.resolve("foggen", settings.models_folder) == installed.path
    made = calibrated(model, tau=0.6)
    assert (home / "calibrations" / f"{made.sha256}.json").read_text() == made.to_json()
    assert installed.calibration == made.in_words() and installed.calibration_used
    assert sorted(p.name for p in home.iterdir()) == ["calibrations", "config.toml", "models"]
    again = unpack(packed, home)
    assert not again.is_new and not again.settings_written and again.settings == SETTINGS
    assert unpack("foggen", home).path == installed.path  # offline: the name now means the model from the bundle


def replaced(packed: pathlib.Path, text: str) -> None:
    """Put another calibration into a bundle, with a manifest that fits it."""
    with tarfile.open(packed) as opened:
        files = {name: opened.extractfile(name).read() for name in opened.getnames()}
    files["calibration.json"] = text.encode()
    manifest = json.loads(files["manifest.json"])
    manifest["files"]["calibration.json"] = {"bytes": len(text.encode()), "sha256": hashlib.sha256(text.encode()).hexdigest()}
    files["manifest.json"] = json.dumps(manifest).encode()
    packed.write_bytes(tar(*((name, data, FILE) for name, data in files.items())))


def test_bundle_with_a_calibration_for_another_model_leaves_nothing(packed: pathlib.Path, model: pathlib.Path, home: pathlib.Path) -> None:
    for text in (calibrated(model, model_sha256="0" * 64).to_json(), "{}", calibrated(model).to_json().replace("0.75", "1e999")):
        replaced(packed, text)
        with pytest.raises(ModelRefused, match="nothing of the bundle 'kiosk"):
            unpack(packed, home)
        assert not (home / "calibrations").exists() and not list((home / "models").glob("*.gguf"))


def test_calibration_in_a_bundle_with_an_adapter_is_for_both(tmp_path: pathlib.Path, model: pathlib.Path, home: pathlib.Path) -> None:
    adapter, file, out = tmp_path / "mine-adapter.gguf", tmp_path / "c.json", tmp_path / "x.bundle"
    adapter.write_bytes(adapter_for("qwen3"))
    made = calibrated(model, adapter_sha256=catalog.sha256_of(adapter))
    for sound, text, on_top in (
        (False, calibrated(model).to_json(), adapter),
        (False, made.to_json(), None),
        (True, made.to_json(), adapter),
    ):
        file.write_text(text)
        with contextlib.nullcontext() if sound else pytest.raises(ModelRefused, match="for another model file, adapter or prompt"):
            bundle.pack(out, model, {}, file, on_top)
    replaced(out, calibrated(model).to_json())
    with pytest.raises(ModelRefused, match="adapter or prompt"):
        unpack(out, home)
    assert not (home / "calibrations").exists()


def test_calibration_of_a_downloaded_bundle_waits_until_a_person_wants_it(
    server: LoopbackHub, packed: pathlib.Path, model: pathlib.Path, home: pathlib.Path
) -> None:
    """It would change which questions go to the cloud, as a tau would."""
    server.publish("a/b", {"kiosk-Q8_0.bundle": packed.read_bytes(), "model.safetensors": b"x"})

    def pull(**more: Any) -> Installed:
        return unpack("a/b", home, hub=Hub({"HF_ENDPOINT": server.url}, Downloader(pause=lambda s: None)), **more)

    for installed in (pull(), pull()):  # the second time from what is here
        assert installed.calibration and not installed.calibration_used and not (home / "calibrations").exists()
    used = pull(use_settings=True)
    assert used.calibration_used and [p.stem for p in (home / "calibrations").iterdir()] == [calibrated(model, tau=0.6).sha256]
    assert not (home / "models" / f"{NAME}.calibration.json").exists() and pull().calibration is None


def test_command_packs_the_calibration_that_applies_here(tmp_path: pathlib.Path, model: pathlib.Path, home: pathlib.Path) -> None:
    made = stored(home, model, tau=0.25, readout="margin")
    out, machine = tmp_path / "kiosk.bundle", tmp_path / "machine"
    done = run("bundle", str(model), "--out", str(out))
    assert done.returncode == 0 and "the model and its calibration" in done.stderr, done.stderr
    done = run("pull", str(out), EDGE_AGENT_HOME=str(machine))
    assert done.returncode == 0 and f"Its calibration is here: {made.sha256[:12]}" in done.stderr, done.stderr
    decision = ask(EDGE_AGENT_HOME=str(machine))
    assert (decision["readout"], decision["tau"], decision["calibration"]) == ("margin", 0.25, made.sha256)
    for arguments, has_it in ((["--calibration", "none"], False), (["--tau", "0.5"], False)):
        told = json.loads(run("bundle", str(model), "--out", str(out), "--json", *arguments).stdout)
        assert ("calibration.json" in told["files"]) is has_it
    file = home / "calibrations" / f"{made.sha256}.json"
    done = run("bundle", str(model), "--out", str(out), "--calibration", str(file), "--tau", "0.5")
    assert done.returncode == 0 and "does not count there, because a tau is packed" in done.stderr
    done = run("pull", str(out), EDGE_AGENT_HOME=str(tmp_path / "third"))
    assert "It does not count, because a tau is set: 0.5" in done.stderr
    done = run("bundle", "demo", "--out", str(out), "--calibration", str(tmp_path / "none.json"))
    assert done.returncode == 66 and "There is no calibration" in done.stderr


def test_existing_settings_do_not_change(packed: pathlib.Path, home: pathlib.Path) -> None:
    home.mkdir()
    (home / "config.toml").write_text("tau = 0.25\n")
    assert not unpack(packed, home).settings_written
    assert (home / "config.toml").read_text() == "tau = 0.25\n"


def test_different_file_with_this_name_is_replaced_only_by_an_upgrade(
    packed: pathlib.Path, model: pathlib.Path, home: pathlib.Path
) -> None:
    unpack(packed, home)
    model.write_bytes(DEMO.read_bytes() + bytes(32))
    bundle.pack(packed, model, {})
    with pytest.raises(ModelRefused, match="--upgrade"):
        unpack(packed, home)
    assert unpack(packed, home, upgrade=True).sha256 == catalog.sha256_of(model)


def test_interrupted_unpacking_is_done_again(packed: pathlib.Path, home: pathlib.Path) -> None:
    unpack(packed, home)
    (home / "config.toml").unlink()
    (found,) = (home / "calibrations").iterdir()
    found.unlink()
    again = unpack(packed, home)
    assert again.settings_written and found.is_file()


def test_command_packs_what_is_set_but_no_key_and_another_machine_answers(tmp_path: pathlib.Path, model: pathlib.Path) -> None:
    out = tmp_path / "kiosk.bundle"
    secret = {"EDGE_AGENT_CLOUD_KEY": "sk-canary", "EDGE_AGENT_TAU": "0.9"}
    done = run("bundle", str(model), "--out", str(out), "--policy", "only_local", "--json", **secret)
    told = json.loads(done.stdout)
    assert done.returncode == 0 and told["settings"] == {"tau": 0.9, "policy": "only_local"} and told["sha256"] == catalog.sha256_of(out)
    assert b"sk-canary" not in out.read_bytes()
    machine = {"EDGE_AGENT_HOME": str(tmp_path / "machine"), "HF_ENDPOINT": "http://127.0.0.1:9"}
    done = run("pull", str(out), **machine)
    assert done.returncode == 0 and "tau 0.9, policy only_local" in done.stderr, done.stderr
    decision = ask(**machine)
    assert (decision["model"]["name"], decision["tau"], decision["reason"]) == (NAME, 0.9, "only_local")


def test_bundle_on_the_hub_and_at_an_address(server: LoopbackHub, packed: pathlib.Path, home: pathlib.Path) -> None:
    data = packed.read_bytes()
    server.publish("a/b", {"kiosk-Q8_0.bundle": data, "model.safetensors": b"x"})
    server.large.drops = [1_000_000]

    def hub(**environment: str) -> Hub:
        return Hub({"HF_ENDPOINT": server.url, **environment}, Downloader(pause=lambda s: None))

    installed = unpack("a/b", home, hub=hub())
    assert installed.path.name == f"{NAME}.gguf" and installed.alias is None and not installed.settings_written
    assert sorted(p.name for p in (home / "models").iterdir() if not p.name.startswith(".")) == [
        f"{NAME}.calibration.json",
        f"{NAME}.gguf",
        pulled.FILE,
    ]
    n = len(server.requests)
    assert not unpack("a/b", home, hub=hub(HF_HUB_OFFLINE="1")).is_new and len(server.requests) == n
    server.large.blobs["k.bundle"] = data
    for upgrade in (False, True):
        with pytest.raises(ModelRefused, match="from hub:a/b"):
            unpack(f"{server.large.url}/k.bundle?signature=1", home, upgrade, hub=hub())
    assert run("models", "rm", NAME, "--yes").returncode == 0
    assert not unpack(f"{server.large.url}/k.bundle?signature=1", home, hub=hub()).path.name.startswith("k")


def test_upgrade_never_replaces_a_model_from_another_source(
    server: LoopbackHub, packed: pathlib.Path, model: pathlib.Path, home: pathlib.Path, tmp_path: pathlib.Path
) -> None:
    """The default model came from a file here; a stranger's bundle has a model of the same name."""
    assert run("pull", str(model)).returncode == 0 and run("models", "default", NAME).returncode == 0
    other = tmp_path / "other" / model.name
    other.parent.mkdir()
    other.write_bytes(DEMO.read_bytes() + bytes(32))
    bundle.pack(tmp_path / "x.bundle", other, {})
    server.large.blobs["x.bundle"] = (tmp_path / "x.bundle").read_bytes()
    server.large.blobs[model.name] = other.read_bytes()
    server.publish("stranger/b", {model.name: other.read_bytes()})
    for what in (f"{server.large.url}/x.bundle?signature=1", f"{server.large.url}/{model.name}?signature=1", "stranger/b"):
        done = run("pull", "--upgrade", what, HF_ENDPOINT=server.url)
        assert done.returncode == 66 and f"models rm {NAME}" in done.stderr and "same source" in done.stderr, done.stderr
        assert (home / "models" / model.name).read_bytes() == model.read_bytes()
    assert run("pull", "--upgrade", str(other)).returncode == 0  # the same source: a file here
    assert (home / "models" / model.name).read_bytes() == other.read_bytes()


def test_upgrade_takes_another_revision_of_the_same_repository(server: LoopbackHub, model: pathlib.Path, home: pathlib.Path) -> None:
    old = server.publish("a/b", {model.name: model.read_bytes()})
    new = server.publish("a/b", {model.name: model.read_bytes() + bytes(32)})
    hub = {"HF_ENDPOINT": server.url}
    unpack(f"a/b@{old}", home, hub=Hub(hub))
    with pytest.raises(ModelRefused, match="give --upgrade"):
        unpack(f"a/b@{new}", home, hub=Hub(hub))
    assert unpack(f"a/b@{new}", home, upgrade=True, hub=Hub(hub)).bytes == model.stat().st_size + 32


def test_download_never_changes_who_is_asked(server: LoopbackHub, packed: pathlib.Path, home: pathlib.Path) -> None:
    """Otherwise a stranger's bundle would become the default model, keep every answer or send every question, also to itself."""
    server.publish("stranger/b", {"kiosk.bundle": packed.read_bytes()})
    server.large.blobs["k.bundle"] = packed.read_bytes()
    for what in ("stranger/b", f"{server.large.url}/k.bundle?signature=1"):
        installed = unpack(what, home, upgrade=True, hub=Hub({"HF_ENDPOINT": server.url}))
        assert installed.left_out == SETTINGS and installed.settings == {} and not installed.settings_written
        assert not (home / "config.toml").exists()
        assert run("models", "rm", NAME, "--yes").returncode == 0
    again = unpack(packed, home, upgrade=True)
    assert not again.left_out and load().cloud_url == SETTINGS["cloud_url"]


def test_settings_of_a_download_are_used_when_somebody_says_so_but_never_its_cloud(
    server: LoopbackHub, packed: pathlib.Path, home: pathlib.Path
) -> None:
    server.publish("fleet/b", {"kiosk.bundle": packed.read_bytes()})
    environment = {"HF_ENDPOINT": server.url}
    done = run("pull", "fleet/b", **environment)
    assert done.returncode == 0 and not (home / "config.toml").exists()
    assert "policy only_local" in done.stderr and "tau 0.75" in done.stderr and "--use-settings" in done.stderr
    n = len(server.requests) + len(server.large.requests)
    done = run("pull", "fleet/b", "--use-settings", "--json", **environment)
    told = json.loads(done.stdout)
    assert told["left_out"] == {name: SETTINGS[name] for name in bundle.CLOUD} and told["settings_written"] and not told["is_new"]
    assert len(server.requests) + len(server.large.requests) == n  # what the bundle proposed was recorded
    assert (load().model, load().cloud_url, load().tau, load().policy) == (NAME, None, 0.75, "only_local")


def test_recorded_settings_are_checked_again(server: LoopbackHub, packed: pathlib.Path, home: pathlib.Path) -> None:
    server.publish("fleet/b", {"kiosk.bundle": packed.read_bytes()})
    unpack("fleet/b", home, hub=Hub({"HF_ENDPOINT": server.url}))
    path = home / "models" / pulled.FILE
    for text in ('{"tau": 7}', "[]", "{", '{"data_folder": "/"}', "[" * 10_000):
        rows = json.loads(path.read_text())
        path.write_text(json.dumps([row | {"settings": text if row["settings"] else None} for row in rows]))
        assert unpack("fleet/b", home).left_out == {}


def test_bundle_that_changed_at_its_address_is_refused(
    server: LoopbackHub, packed: pathlib.Path, model: pathlib.Path, home: pathlib.Path
) -> None:
    server.large.blobs["k.bundle"] = packed.read_bytes()
    address = f"{server.large.url}/k.bundle?signature=1"
    unpack(address, home, hub=Hub({}, Downloader()))
    (home / "models" / f"{NAME}.gguf").unlink()
    bundle.pack(packed, model, {"tau": 0.1})
    server.large.blobs["k.bundle"] = packed.read_bytes()
    with pytest.raises(DownloadFailed, match="pulled first"):
        unpack(address, home, hub=Hub({}, Downloader()))
    assert not (home / "models" / f"{NAME}.gguf").exists() and not (home / "models" / "k.bundle").exists()


# --- what is refused when packing


def test_calibration_of_another_model_is_refused(tmp_path: pathlib.Path, model: pathlib.Path, calibration: pathlib.Path) -> None:
    whole = calibration.read_text()
    others = [calibrated(model, **{name: "0" * 64}).to_json() for name in ("model_sha256", "adapter_sha256", "profile_sha256")]
    for text in (*others, '{"model_sha256": "0"}', "[]", "{}", "no", "[" * 100_000, whole[:-9], whole.replace("0.6", "NaN"), f" {whole}"):
        calibration.write_text(text)
        with pytest.raises(ModelRefused):
            bundle.pack(tmp_path / "x.bundle", model, {}, calibration)
    with pytest.raises(ModelMissing):
        bundle.pack(tmp_path / "x.bundle", model, {}, tmp_path / "none.json")
    assert not (tmp_path / "x.bundle").exists()


def test_model_is_never_overwritten_and_only_a_model_is_packed(
    tmp_path: pathlib.Path, model: pathlib.Path, calibration: pathlib.Path
) -> None:
    with pytest.raises(ModelRefused, match="the model itself"):
        bundle.pack(model, model, {})
    with pytest.raises(ModelRefused, match="the calibration itself"):
        bundle.pack(calibration, model, {}, calibration)
    assert json.loads(calibration.read_text())["tau"] == 0.6
    (tmp_path / "no.gguf").write_bytes(b"GGUF")
    with pytest.raises(ModelError):
        bundle.pack(tmp_path / "x.bundle", tmp_path / "no.gguf", {})


def test_model_with_the_name_of_another_one_is_not_packed(tmp_path: pathlib.Path, model: pathlib.Path) -> None:
    """The settings of the bundle name the model, and that name would mean the other one on the device."""
    for name in ("foggen", "demo"):
        with pytest.raises(ModelRefused, match="always means that model"):
            bundle.pack(tmp_path / "x.bundle", model.rename(tmp_path / f"{name}.gguf"), {})
        (tmp_path / f"{name}.gguf").rename(model)
    assert not (tmp_path / "x.bundle").exists()


# --- hostile bundles: refused in one sentence, nothing written


def tar(*members: tuple[str, bytes, bytes], trailer: bytes = bytes(1024)) -> bytes:
    """A tar of (name, content, type) members, as any program might write it."""
    out = io.BytesIO()
    for name, content, kind in members:
        member = tarfile.TarInfo(name)
        member.size, member.type = len(content), kind
        member.linkname = "/etc/passwd" if kind in (tarfile.SYMTYPE, tarfile.LNKTYPE) else ""
        out.write(member.tobuf(tarfile.USTAR_FORMAT) + content + bytes(-len(content) % 512))
    return out.getvalue() + trailer


def manifest(**changes: object) -> bytes:
    data = {"format": bundle.FORMAT, "version": 1, "name": NAME, "files": {"model.gguf": {"bytes": 4, "sha256": "0" * 64}}, "settings": {}}
    return json.dumps({**data, **changes}).encode()


FILE = tarfile.REGTYPE
MODEL_FILE = ("model.gguf", b"GGUF", FILE)
BOTH = {name: {"bytes": 4, "sha256": "0" * 64} for name in ("model.gguf", "adapter.gguf")}
HOSTILE = {
    "member outside": tar(("manifest.json", manifest(), FILE), ("../model.gguf", b"GGUF", FILE)),
    "absolute member": tar(("manifest.json", manifest(), FILE), ("/tmp/model.gguf", b"GGUF", FILE)),
    "extra member": tar(("manifest.json", manifest(), FILE), MODEL_FILE, ("../../.bashrc", b"evil", FILE)),
    "symbolic link": tar(("manifest.json", manifest(), FILE), ("model.gguf", b"", tarfile.SYMTYPE)),
    "hard link": tar(("manifest.json", manifest(), FILE), ("model.gguf", b"", tarfile.LNKTYPE)),
    "device": tar(("manifest.json", manifest(), FILE), ("model.gguf", b"", tarfile.CHRTYPE)),
    "extended header": tar(("manifest.json", manifest(), tarfile.XHDTYPE), MODEL_FILE),
    "another order": tar(MODEL_FILE, ("manifest.json", manifest(), FILE)),
    "wrong hash": tar(("manifest.json", manifest(), FILE), MODEL_FILE),
    "another size": tar(("manifest.json", manifest(), FILE), ("model.gguf", b"GGUF!", FILE)),
    "name outside": tar(("manifest.json", manifest(name="../../x"), FILE), MODEL_FILE),
    "name hidden": tar(("manifest.json", manifest(name=".x"), FILE), MODEL_FILE),
    "name no text": tar(("manifest.json", manifest(name=1), FILE), MODEL_FILE),
    "unknown setting": tar(("manifest.json", manifest(settings={"model": "/etc/x"}), FILE), MODEL_FILE),
    "key as a setting": tar(("manifest.json", manifest(settings={"cloud_key": "x"}), FILE), MODEL_FILE),
    "wrong setting": tar(("manifest.json", manifest(settings={"tau": 7}), FILE), MODEL_FILE),
    "setting that breaks out": tar(("manifest.json", manifest(settings={"cloud_model": 'x"\nmodel = "y'}), FILE), MODEL_FILE),
    "extra file listed": tar(("manifest.json", manifest(files={"../x": {"bytes": 1, "sha256": "0" * 64}}), FILE), MODEL_FILE),
    "sizes that lie": tar(("manifest.json", manifest(files={"model.gguf": {"bytes": -1, "sha256": "0" * 64}}), FILE), MODEL_FILE),
    "future version": tar(("manifest.json", manifest(version=3), FILE), MODEL_FILE),
    "adapter without its name": tar(("manifest.json", manifest(version=2), FILE), MODEL_FILE),
    "adapter that is not there": tar(("manifest.json", manifest(version=2, adapter="x"), FILE), MODEL_FILE),
    "adapter called like the model": tar(
        ("manifest.json", manifest(version=2, adapter=NAME, files=BOTH), FILE), MODEL_FILE, ("adapter.gguf", b"GGUF", FILE)
    ),
    "adapter outside": tar(
        ("manifest.json", manifest(version=2, adapter="../x", files=BOTH), FILE), MODEL_FILE, ("adapter.gguf", b"GGUF", FILE)
    ),
    "huge manifest": tar(("manifest.json", b" " * 70_000 + manifest(), FILE), MODEL_FILE),
    "nested manifest": tar(("manifest.json", b"[" * 60_000, FILE), MODEL_FILE),
    "no end": tar(("manifest.json", manifest(), FILE), MODEL_FILE, trailer=b""),
    "more at the end": tar(("manifest.json", manifest(), FILE), MODEL_FILE, trailer=bytes(1024) + b"x"),
    "empty": b"",
    "gzip": b"\x1f\x8b\x08" + bytes(600),
}


def whole(model: bytes, adapter: bytes | None = None, **settings: object) -> bytes:
    """A bundle whose sizes and hashes are right, whatever its files are."""
    files = {"model.gguf": model} | ({"adapter.gguf": adapter} if adapter else {})
    listed = {name: {"bytes": len(data), "sha256": hashlib.sha256(data).hexdigest()} for name, data in files.items()}
    more = {"version": 2, "adapter": "mine-adapter"} if adapter else {}
    about = ("manifest.json", manifest(files=listed, settings=settings, **more), FILE)
    return tar(about, *((name, data, FILE) for name, data in files.items()))


HELD = "a" * 64
UNUSABLE = {
    "model is an adapter": (whole(adapter_for("qwen3")), "is an adapter"),
    "adapter is a model": (whole(DEMO.read_bytes(), DEMO.read_bytes()), "is not an adapter"),
    "adapter of another architecture": (whole(DEMO.read_bytes(), adapter_for("gemma3")), "is for 'gemma3'"),
    "adapter of no kind": (
        whole(DEMO.read_bytes(), gguf_with(general__architecture="qwen3", general__type="adapter")),
        "is not an adapter",
    ),
    "model with its adapter": (
        whole(
            gguf_with(general__architecture="qwen3", foggen__adapters=HELD),
            gguf_with(general__architecture="qwen3", general__type="adapter", adapter__type="lora", foggen__adapters=HELD),
        ),
        "already holds",
    ),
    "adapter that does not load": (whole(DEMO.read_bytes(), adapter_for("qwen3")[:-3]), "mine-adapter.gguf"),
    "model that does not load": (whole(gguf_with(general__architecture="qwen3")), f"{NAME}.gguf"),
    "script as the cloud": (whole(DEMO.read_bytes(), cloud_url="javascript:x"), "cloud_url"),
    "password of the cloud": (whole(DEMO.read_bytes(), cloud_url="https://a:b@example.com/v1"), "cloud_url"),
    "no host for the cloud": (whole(DEMO.read_bytes(), cloud_url="https:///v1"), "cloud_url"),
    "host that cannot be": (whole(DEMO.read_bytes(), cloud_url="https://\u2603\u0338.example.com:99999/v1"), "cloud_url"),
}


@pytest.mark.parametrize("upgrade", [[], ["--upgrade"]])
@pytest.mark.parametrize(("data", "words"), UNUSABLE.values(), ids=UNUSABLE)
def test_bundle_that_would_leave_the_device_unusable_is_refused_before_the_first_write(
    data: bytes, words: str, upgrade: list[str], tmp_path: pathlib.Path, home: pathlib.Path
) -> None:
    (tmp_path / "kiosk.bundle").write_bytes(data)
    done = run("pull", *upgrade, str(tmp_path / "kiosk.bundle"))
    assert done.returncode == 66 and words in done.stderr and len(done.stderr.splitlines()) == 1, done.stderr
    assert "/." not in done.stderr and str(home) not in done.stderr  # no temporary path
    assert [path.name for path in home.rglob("*") if path.is_file()] == []


@pytest.mark.parametrize("name", ["k.bundle", "k.gguf"])
def test_refused_download_names_no_temporary_path(name: str, server: LoopbackHub, home: pathlib.Path) -> None:
    server.large.blobs[name] = DEMO.read_bytes()[:-7] if name == "k.gguf" else tar(("manifest.json", b"{", FILE), MODEL_FILE)
    done = run("pull", f"{server.large.url}/{name}?signature=1")
    assert done.returncode == 66 and f"'{name}'" in done.stderr and ".part" not in done.stderr, done.stderr


@pytest.mark.parametrize("data", HOSTILE.values(), ids=HOSTILE)
def test_hostile_bundle_is_refused_and_nothing_is_written(data: bytes, tmp_path: pathlib.Path, home: pathlib.Path) -> None:
    path = tmp_path / "evil.bundle"
    path.write_bytes(data)
    with pytest.raises(ModelRefused) as caught:
        unpack(path, home)
    assert "\n" not in str(caught.value) and len(str(caught.value)) < 600
    left = [p for p in tmp_path.rglob("*") if p.is_file() and p != path and not p.name.startswith(".pulled")]
    assert left == []


def test_bundle_truncated_or_changed_anywhere_is_refused_or_has_the_same_model(
    packed: pathlib.Path, tmp_path: pathlib.Path, home: pathlib.Path
) -> None:
    whole, rng, path = packed.read_bytes(), random.Random(0), tmp_path / "x.bundle"
    for _ in range(64):
        path.write_bytes(whole[: rng.randrange(len(whole))])
        with pytest.raises(ModelRefused):
            unpack(path, home)
    sha256 = bundle.read(packed).parts["model.gguf"].sha256
    for _ in range(100):
        changed = bytearray(whole)
        changed[rng.randrange(2048)] ^= 1 << rng.randrange(8)
        path.write_bytes(changed)
        try:
            opened = bundle.read(path)
        except ModelRefused as error:
            assert "\n" not in str(error)
            continue
        tomllib.loads(bundle.config_text(opened.name, opened.settings, opened.adapter))
        if opened.parts["model.gguf"].sha256 != sha256:
            with pytest.raises(ModelRefused):
                bundle.extract(opened, "model.gguf", tmp_path / "out")
