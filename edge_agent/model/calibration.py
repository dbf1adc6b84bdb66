"""A calibration: which readout and which tau to use with one model file, and what they were measured to promise.

Owns the file (JSON, named by its own sha256), its checks and the choice of the one that applies. `measure/calibrate` makes them.
Invariants: a calibration applies only to the model, the adapter and the profile that it names; a file whose bytes do not have the
sha256 in its name, or are not exactly what `to_json` writes, is never used; what a calibration changes in a decision stands in the
decision's policy, so replay needs no calibration.
"""

from __future__ import annotations

import bisect
import hashlib
import itertools
import json
import math
import pathlib
import re
from collections.abc import Mapping
from dataclasses import asdict, dataclass
from datetime import datetime
from typing import Any

from edge_agent.core import readouts
from edge_agent.core.config.checks import AUTO, NONE
from edge_agent.core.errors import BadData
from edge_agent.core.files import not_written, replacing
from edge_agent.core.routing import Policy, PolicyName

VERSION = 1
MAX_BYTES = 1 << 20
MAX_WEIGHT = 1e9  # a sum of five such terms is still a number
BUDGET = "budget"
GOALS = ("cloud_rate", "accuracy", BUDGET, "max_local_error")
SHOWN = 12  # how much of a sha256 a person sees
_AGAIN = "delete it, or run `edge-agent calibrate` again"
_SHA256 = re.compile(r"[0-9a-f]{64}")
_NAME = re.compile(r"([0-9a-f]{64})\.json")


@dataclass(frozen=True, slots=True, kw_only=True)
class Disagreement:
    """How often a cloud gave another answer than the device, among the answers that this calibration keeps: `different` of `kept`."""

    cloud_model: str
    kept: int
    different: int


@dataclass(frozen=True, slots=True, kw_only=True)
class Calibration:
    """What `calibrate` found; all shares are fractions 0 to 1.

    It is bound to `model_sha256`, `adapter_sha256` ("" without one) and `profile_sha256`. `readout`, `weights`, `tau` and `tie_share`
    are those of a `Policy`; `salt` is that of `routing.draw`. `curve` has rising pairs of a score and the measured probability that
    an answer with it is right. `goal` and `value` say what was asked for, `delta` how likely a guarantee may fail (None without a
    guarantee). `deferral_rate` and `local_error` were measured on questions that chose nothing; None if they are not known.
    `questions` are the sizes of the three parts: to choose, to test, to report.
    """

    model_sha256: str
    adapter_sha256: str
    profile_sha256: str
    readout: str
    weights: tuple[float, ...]
    tau: float
    tie_share: float
    salt: str
    curve: tuple[tuple[float, float], ...]
    goal: str
    value: float
    delta: float | None
    deferral_rate: float | None
    local_error: float | None
    questions: tuple[int, int, int]
    data: str
    data_sha256: str
    created_at: str
    disagreement: Disagreement | None = None

    def __post_init__(self) -> None:
        """Make every number a float, so that equal calibrations have the same text."""
        for name in ("tau", "tie_share", "value", "delta", "deferral_rate", "local_error"):
            if (number := getattr(self, name)) is not None:
                object.__setattr__(self, name, float(number))
        object.__setattr__(self, "weights", tuple(float(weight) for weight in self.weights))
        object.__setattr__(self, "curve", tuple((float(score), float(chance)) for score, chance in self.curve))
        object.__setattr__(self, "questions", tuple(int(n) for n in self.questions))

    def to_json(self) -> str:
        """The whole file, always the same text for the same calibration."""
        return json.dumps({"version": VERSION, **asdict(self)}, indent=1, sort_keys=True, ensure_ascii=False) + "\n"

    @property
    def sha256(self) -> str:
        """The sha256 of the file, which is its name and its key."""
        return hashlib.sha256(self.to_json().encode()).hexdigest()

    def fits(self, model_sha256: str, adapter_sha256: str, profile_sha256: str) -> bool:
        """Whether it was measured with exactly this model, adapter and profile."""
        return (self.model_sha256, self.adapter_sha256, self.profile_sha256) == (model_sha256, adapter_sha256, profile_sha256)

    def policy(self, name: PolicyName, format_mass_min: float) -> Policy:
        """The policy that it stands for."""
        return Policy(name, self.tau, format_mass_min, self.readout, self.weights, self.tie_share, self.sha256)

    def chance(self, score: float) -> float | None:
        """How likely an answer with this score is right, by the curve; None without one. Between two scores it is a straight line."""
        if not self.curve:
            return None
        at = bisect.bisect_left(self.curve, (score,))
        if at == 0 or at == len(self.curve):
            return self.curve[min(at, len(self.curve) - 1)][1]
        (x0, y0), (x1, y1) = self.curve[at - 1 : at + 1]
        return y0 + (y1 - y0) * (score - x0) / (x1 - x0)

    def in_words(self) -> str:
        """What it was made for, and what it does, on one line."""
        ties = f" (of those at exactly {self.tau:g}, {self.tie_share:.0%} go to the cloud)" if self.tie_share else ""
        said = [f"{self.sha256[:SHOWN]} for {self._goal()}", f"keeps an answer from {self.readout} {self.tau:g} on{ties}"]
        if self.deferral_rate is not None:
            said.append(f"{self.deferral_rate:.1%} went to the cloud when it was measured")
        if self.local_error is not None:
            said.append(f"{self.local_error:.1%} of the kept answers were wrong")
        said.append("no guarantee" if self.delta is None else f"the limit holds with a probability of at least {_percent(1 - self.delta)}")
        return "; ".join(said)

    def _goal(self) -> str:
        return {
            "cloud_rate": f"a cloud rate of {_percent(self.value)}",
            "accuracy": f"an accuracy of {_percent(self.value)}",
            BUDGET: f"a budget of {self.value:g} a day",
            "max_local_error": f"an error of at most {_percent(self.value)} among the kept answers",
        }[self.goal]


def _percent(share: float) -> str:
    return f"{share * 100:.6g}%"


def parse(text: str, source: str) -> Calibration:
    """The calibration in a text from anywhere, every field checked. Raises `BadData` that names `source`."""
    try:
        data = json.loads(text)
        if not isinstance(data, dict) or type(data.get("version")) is not int:
            raise ValueError("it is not a JSON object with a version")
        if (version := data.pop("version")) != VERSION:
            raise ValueError(f"it has version {version!r:.20}, and this edge-agent reads version {VERSION}")
        found = _checked(data)
        if found.to_json() != text:
            raise ValueError("it is not written as edge-agent writes it")
    except (ValueError, TypeError, KeyError, AttributeError, RecursionError, OverflowError) as error:
        raise BadData(f"The calibration {source} cannot be used ({_why(error)}); {_AGAIN}.") from error
    return found


def _why(error: Exception) -> str:
    """What is wrong, on one short line."""
    words = f"the field {error} is missing" if isinstance(error, KeyError) else str(error)
    return words[:120] if words.isprintable() else type(error).__name__


def load(path: pathlib.Path) -> Calibration:
    """The calibration in a file that is named by its sha256. Raises `BadData`."""
    data = read(path)
    named = _NAME.fullmatch(path.name)
    if not named or hashlib.sha256(data).hexdigest() != named[1]:
        raise BadData(f"The calibration '{path}' was changed or is damaged; delete it, and run `edge-agent calibrate` again.")
    return decoded(data, f"'{path}'")


def read(path: pathlib.Path) -> bytes:
    """The bytes of a calibration's file, whatever its name. Raises `BadData`."""
    try:
        if not path.is_file():  # opening a pipe would wait for ever
            raise BadData(f"The calibration '{path}' cannot be read (it is not a file); {_AGAIN}.")
        with path.open("rb") as file:
            data = file.read(MAX_BYTES + 1)
    except OSError as error:
        raise BadData(f"The calibration '{path}' cannot be read ({error.strerror}); {_AGAIN}.") from error
    if len(data) > MAX_BYTES:
        raise BadData(f"The calibration '{path}' is longer than {MAX_BYTES:,} bytes; {_AGAIN}.")
    return data


def decoded(data: bytes, source: str) -> Calibration:
    """The calibration in the bytes of a file. Raises `BadData` that names `source`."""
    try:
        text = data.decode()
    except UnicodeDecodeError as error:
        raise BadData(f"The calibration {source} cannot be used (it is not UTF-8); {_AGAIN}.") from error
    return parse(text, source)


def save(folder: pathlib.Path, calibration: Calibration) -> pathlib.Path:
    """Write its file; one that is there stays. Raises `StorageError`."""
    path = folder / f"{calibration.sha256}.json"
    try:
        folder.mkdir(parents=True, exist_ok=True)
        with replacing(path, "w", private=False) as file:
            file.write(calibration.to_json())
    except OSError as error:
        raise not_written(path, error) from error
    return path


def waiting_beside(model: pathlib.Path) -> pathlib.Path:
    """Where the calibration of a downloaded bundle waits until a person wants it; none that waits applies."""
    return model.with_suffix(".calibration.json")


@dataclass(frozen=True, slots=True)
class Applied:
    """The calibration that applies, or None; `problems` say which files cannot be used, and why none applies if one was wanted.

    `n_others` sound calibrations are for other models, and `n_other_ways` for this one, asked in another way.
    """

    calibration: Calibration | None
    problems: tuple[str, ...] = ()
    n_others: int = 0
    n_other_ways: int = 0


def choose(folder: pathlib.Path, model_sha256: str, adapter_sha256: str, profile_sha256: str, wanted: str = AUTO) -> Applied:
    """The calibration of a model: the newest that fits, or the one whose sha256 begins with `wanted`; none with `NONE`.

    Never raises: a file that is damaged, or another model's, leaves the model its own tau, and `problems` say so.
    """
    if wanted == NONE:
        return Applied(None)
    found = []
    files, problems = _files(folder)
    for path in files:
        if wanted != AUTO and not path.name.startswith(wanted):
            continue
        try:
            found.append(load(path))
        except BadData as error:
            problems.append(str(error))
    fitting = [one for one in found if one.fits(model_sha256, adapter_sha256, profile_sha256)]
    n_same = sum(one.fits(model_sha256, adapter_sha256, one.profile_sha256) for one in found)
    n_others, n_other_ways = len(found) - n_same, n_same - len(fitting)
    if wanted != AUTO and len(fitting) != 1:
        problems.append(_why_not(wanted, n_others + n_other_ways, len(fitting)))
        return Applied(None, tuple(problems), n_others, n_other_ways)
    newest = max(fitting, key=lambda one: (one.created_at, one.sha256), default=None)
    return Applied(newest, tuple(problems), n_others, n_other_ways)


def named(folder: pathlib.Path, wanted: str) -> bool:
    """Whether a value of the setting `calibration` names something: a file of the folder, whatever it holds, or none in particular."""
    return wanted in (AUTO, NONE) or any(path.name.startswith(wanted) for path in _files(folder)[0])


def _why_not(wanted: str, n_others: int, n_fitting: int) -> str:
    shown = wanted[:SHOWN]
    if n_fitting > 1:
        return f"More than one calibration begins with {shown}; give more of its sha256."
    if n_others:
        return f"The calibration {shown} is for another model file, adapter or prompt; run `edge-agent calibrate` with this one."
    return f"There is no usable calibration that begins with {shown}; run `edge-agent calibrate`, or set calibration to auto."


def _files(folder: pathlib.Path) -> tuple[list[pathlib.Path], list[str]]:
    """The files that are named like calibrations, and why the folder cannot be read, if it is there and cannot."""
    try:
        return sorted(path for path in folder.iterdir() if _NAME.fullmatch(path.name)), []
    except FileNotFoundError:
        return [], []
    except OSError as error:
        return [], [f"The calibrations in '{folder}' cannot be read ({error.strerror}); check the folder and its permissions."]


def _checked(data: Mapping[str, Any]) -> Calibration:
    checked: dict[str, Any] = {name: _share(data[name]) for name in ("tau", "tie_share")}
    checked |= {name: None if data[name] is None else _share(data[name]) for name in ("delta", "deferral_rate", "local_error")}
    curve = tuple((_share(x), _share(y)) for x, y in data["curve"])
    weights = tuple(_weight(weight) for weight in data["weights"])
    readout = data["readout"]
    if readout not in readouts.READOUTS or len(weights) != (readouts.N_WEIGHTS if readout == readouts.COMBINED else 0):
        raise ValueError(f"the readout is {readout!r:.40} with {len(weights)} weights")
    if any(a[0] >= b[0] for a, b in itertools.pairwise(curve)):
        raise ValueError("the scores of its curve do not rise")
    if data["goal"] not in GOALS:
        raise ValueError(f"the goal is {data['goal']!r:.40}")
    questions = tuple(_count(n) for n in data["questions"])
    if len(questions) != 3:
        raise ValueError("it has not three parts")
    checked |= {name: _hash(data[name]) for name in ("model_sha256", "profile_sha256", "data_sha256")}
    checked |= {name: _text(data[name]) for name in ("salt", "data")} | {"created_at": _date(data["created_at"])}
    checked["adapter_sha256"] = _hash(data["adapter_sha256"]) if data["adapter_sha256"] else ""
    checked["disagreement"] = None if data["disagreement"] is None else _disagreement(data["disagreement"])
    checked |= {"readout": readout, "weights": weights, "curve": curve, "questions": questions}
    value = _amount(data["value"]) if data["goal"] == BUDGET else _share(data["value"])
    return Calibration(**checked, goal=data["goal"], value=value)


def _disagreement(data: Mapping[str, Any]) -> Disagreement:
    kept, different = _count(data["kept"]), _count(data["different"])
    if different > kept:
        raise ValueError(f"{different} of {kept} answers differ")
    return Disagreement(cloud_model=_text(data["cloud_model"]), kept=kept, different=different)


def _finite(value: Any) -> float:
    if type(value) not in (int, float) or not math.isfinite(value):
        raise ValueError(f"{value!r:.40} is not a number")
    return float(value)


def _amount(value: Any) -> float:
    if (number := _finite(value)) < 0:
        raise ValueError(f"{number} is not an amount")
    return number


def _weight(value: Any) -> float:
    if not abs(number := _finite(value)) <= MAX_WEIGHT:
        raise ValueError(f"{number} is too large a weight")
    return number


def _share(value: Any) -> float:
    if not 0 <= (number := _finite(value)) <= 1:
        raise ValueError(f"{number} is not a share")
    return number


def _count(value: Any) -> int:
    if type(value) is not int or value < 0:
        raise ValueError(f"{value!r:.40} is not a count")
    return value


def _text(value: Any) -> str:
    if not isinstance(value, str) or len(value) > 500 or (value and not value.isprintable()):
        raise ValueError(f"{value!r:.40} is not a line of text")
    return value


def _date(value: Any) -> str:
    """A date of the calendar in ISO form, with or without a time: the newest calibration is the last in text order."""
    datetime.fromisoformat(_text(value))
    return str(value)


def _hash(value: Any) -> str:
    if not isinstance(value, str) or not _SHA256.fullmatch(value):
        raise ValueError(f"{value!r:.40} is not a sha256")
    return value
