import copy
import hashlib
import json
from dataclasses import replace

import pytest
from made_jobs import PLAN, add_part, add_state, finish, inputs

from uav_core import InputError
from uav_core.jobs import DamagedManifestError, Job, JobInputs, JobPlan, job_id
from uav_core.jobs.manifest import parse_manifest
from uav_core.jobs.plain import canonical


@pytest.fixture(scope="module")
def manifest(tmp_path_factory):
    """Of a job with all there can be."""
    with Job.open(tmp_path_factory.mktemp("jobs"), inputs(), lambda: PLAN) as job:
        for index in job.missing_parts():
            add_part(job, index)
        add_state(job, 8, scene=0)
        add_state(job, 8)
        job.add_fallback(6, {"decode_group": 2, "tile": [256, 256]})
        finish(job)
        return job.manifest


@pytest.fixture
def job(manifest):
    """The manifest's JSON, to be spoilt."""
    return json.loads(manifest.text)["job"]


def sealed(job) -> bytes:
    """With a checksum that fits, as someone would make it who means harm."""
    body = json.dumps(job, sort_keys=True, separators=(",", ":")).encode()
    checksum = hashlib.blake2b(body, digest_size=32).hexdigest()
    return b'{"checksum":"%s","job":%s}' % (checksum.encode(), body)


def test_text_and_back(manifest, job):
    assert parse_manifest(manifest.text, "it") == manifest
    assert parse_manifest(sealed(job), "it") == manifest
    assert (job["status"], len(job["parts"]), len(job["states"])) == ("finished", 7, 2)


OUTSIDE = ["../../x", "/etc/passwd", "a/b", "..", "C:\\x", "\\\\s\\x", "nul", "a\0b", "", "x."]
WRONG = [
    *[(f"states.0.file = {name!a}", ("states", 0, "file"), name) for name in OUTSIDE],
    *[(f"output.name = {name!a}", ("output", "name"), name) for name in OUTSIDE],
    *[
        (f"output.folder = {name!a}", ("output", "folder"), name)
        for name in (*OUTSIDE, "a//b", "a/../b", "a/")
        if name not in ("", "a/b")
    ],
    ("an output folder that is none", ("output", "folder"), None),
    ("a state called as another file", ("states", 0, "file"), "manifest.json"),
    (
        "digits that are no ASCII",
        ("states", 0, "file"),
        "state_\u0660\u0660\u0660\u0660\u0660\u0661.bin",
    ),
    ("a newline after the name", ("states", 0, "file"), "state_000001.bin\n"),
    ("two states in one file", ("states", 0, "file"), "state_000004.bin"),
    ("a negative size", ("parts", 0, "bytes"), -1),
    ("an endless size", ("parts", 0, "bytes"), 10**30),
    ("a size as a float", ("parts", 0, "bytes"), 1.0),
    ("a size as a bool", ("parts", 0, "bytes"), True),
    ("a size as text", ("parts", 0, "bytes"), "1"),
    ("an upper-case checksum", ("parts", 0, "blake2b"), "A" * 64),
    ("a short checksum", ("parts", 0, "blake2b"), "a" * 63),
    ("a part twice", ("parts", 1, "index"), 0),
    ("a part beyond the plan", ("parts", 6, "index"), 7),
    ("another range", ("parts", 2, "stop"), 10),
    ("no dict for a part", ("parts", 0), [0, 0, 3]),
    ("no list of parts", ("parts",), {}),
    ("parts as None", ("parts",), None),
    ("frames of no video", ("plan", "frames"), 0),
    ("too many frames", ("plan", "frames"), 2**31),
    ("parts without length", ("plan", "part_length"), 0),
    ("scenes with a gap", ("plan", "scenes"), [[0, 8], [9, 20]]),
    ("scenes that end early", ("plan", "scenes"), [[0, 8]]),
    ("an empty scene", ("plan", "scenes"), [[0, 8], [8, 8], [8, 20]]),
    ("no scenes", ("plan", "scenes"), []),
    ("a scene of one number", ("plan", "scenes"), [[0, 8], [20]]),
    ("a scene with a step", ("plan", "scenes"), [[0, 20, 2]]),
    ("a state outside its scene", ("states", 0, "frames_done"), 9),
    ("a state of no scene", ("states", 1, "scene"), 2),
    ("too many states", ("states",), [{}] * 1001),
    ("a fallback after the end", ("fallbacks", 0, "frame"), 21),
    ("a fallback that is no dict", ("fallbacks", 0, "setting"), "os.system"),
    ("an unfinished job with output", ("status",), "unfinished"),
    ("a finished job without", ("output",), None),
    ("an unknown status", ("status",), "done"),
    ("another id", ("id",), "0" * 32),
    ("an id that leads out", ("id",), "../" * 10),
    ("another setting", ("inputs", "settings", "steps"), 31),
    ("another weight", ("inputs", "weights", "unet"), "00" * 32),
    ("weights without hash", ("inputs", "weights", "unet"), None),
    ("a name that commands a terminal", ("inputs", "name"), "\x1b[2J"),
    ("a long name", ("inputs", "name"), "x" * 256),
    ("settings that are no dict", ("inputs", "settings"), []),
    ("a time before 1970", ("created",), -1),
    ("a time as text", ("updated",), "now"),
    ("a newer format", ("version",), 3),
    ("a format as text", ("version",), "1"),
    ("a format as bool", ("version",), True),
    ("an unknown field", ("__class__",), "os.system"),
    ("an unknown field of a part", ("parts", 0, "path"), "/etc/passwd"),
]


@pytest.mark.parametrize(("place", "value"), [w[1:] for w in WRONG], ids=[w[0] for w in WRONG])
def test_a_hostile_manifest_is_refused(job, place, value):
    spoilt = copy.deepcopy(job)
    inner = spoilt
    for key in place[:-1]:
        inner = inner[key]
    inner[place[-1]] = value
    with pytest.raises(DamagedManifestError, match="it cannot be used"):
        parse_manifest(sealed(spoilt), "it")


def test_missing_fields_are_refused(job):
    for holder in (
        job,
        job["plan"],
        job["inputs"],
        job["parts"][0],
        job["states"][0],
        job["output"],
    ):
        for key in [key for key in holder if key != "folder"]:
            value = holder.pop(key)
            with pytest.raises(DamagedManifestError):
                parse_manifest(sealed(job), "it")
            holder[key] = value
    parse_manifest(sealed(job), "it")


NO_MANIFEST = {
    "nothing": b"",
    "no JSON": b"{",
    "a list": b"[]",
    "null": b"null",
    "zeros": bytes(1000),
    "no UTF-8": b"\xff\xfe{}",
    "a pickle": b"\x80\x04cos\nsystem\n.",
    "no end of depth": b"[" * 200_000,
    "deep in its place": b'{"checksum":"","job":' + b'{"a":' * 5000 + b"1" + b"}" * 5001,
    "a number of a million digits": b'{"checksum":"","job":' + b"9" * 1_000_000 + b"}",
    "no finite number": b'{"checksum":"","job":{"version":NaN}}',
    "an overflow": b'{"checksum":"%s","job":{"version":1,"created":1e999}}' % (b"0" * 64),
    "a key twice": b'{"checksum":"","checksum":"","job":{}}',
}


@pytest.mark.parametrize("data", NO_MANIFEST.values(), ids=NO_MANIFEST.keys())
def test_what_is_no_manifest_is_refused(data):
    with pytest.raises(DamagedManifestError, match="it cannot be used"):
        parse_manifest(data, "it")


def test_any_flipped_bit_is_found(manifest):
    text = manifest.text
    for at in range(0, len(text) - 1, 3):  # the last is the newline
        spoilt = bytearray(text)
        spoilt[at] ^= 1 << at % 8
        with pytest.raises(DamagedManifestError):
            parse_manifest(bytes(spoilt), "it")


# --- identity ------------------------------------------------------------------------------


def test_equal_inputs_are_the_same_job():
    this = inputs()
    turned = JobInputs(
        dict(reversed(list(this.fingerprint.items()))),
        dict(reversed(list(this.settings.items()))),
        dict(reversed(list(this.weights.items()))),
        "renamed.mp4",
    )
    assert job_id(this) == job_id(turned)
    assert job_id(inputs(sizes=(1, 2))) == job_id(inputs(sizes=[1, 2]))
    # Written down: jobs of a user must be found again by a later version.
    assert job_id(this) == "4016b372b7bd1ae9979109d64260a6b4"


def test_any_change_is_another_job():
    this = inputs()
    others = [
        inputs(steps=31),
        inputs(guidance=6.5),
        inputs(extra=None),
        inputs(steps="30"),
        replace(this, fingerprint={**this.fingerprint, "size": 1235}),
        replace(this, weights={**this.weights, "unet": "ac" * 32}),
        replace(this, weights={"unet": "ab" * 32}),
    ]
    assert len({job_id(other) for other in [this, *others]}) == len(others) + 1


@pytest.mark.parametrize(
    "value", [float("nan"), float("inf"), object(), b"x", {1: 2}, {1, 2}, 2**64, range(3)]
)
def test_inputs_must_be_plain(value):
    with pytest.raises(InputError, match=r"inputs\.settings\.a\[1\]"):
        job_id(inputs(a=[0, value]))


def test_inputs_without_end_or_hash():
    endless: list = []
    endless.append(endless)
    with pytest.raises(InputError, match="levels deep"):
        canonical(endless)
    with pytest.raises(InputError, match="hex"):
        job_id(replace(inputs(), weights={"unet": "model.safetensors"}))


@pytest.mark.parametrize(
    ("frames", "length", "scenes"),
    [
        (0, 3, ()),
        (9, 0, ((0, 9),)),
        (9, 3, ()),
        (9, 3, ((0, 8),)),
        (9, 3, ((1, 9),)),
        (9, 3, ((0, 5), (4, 9))),
        (10**6, 1, ((0, 10**6),)),
    ],
)
def test_impossible_plans_are_named(frames, length, scenes):
    with pytest.raises(InputError, match="expected"):
        JobPlan(frames, length, tuple(range(*scene) for scene in scenes))


def test_an_output_of_an_older_version_has_no_folder(manifest, job):
    job["output"].pop("folder")
    read = parse_manifest(sealed(job), "it")
    assert read.output is not None and read.output.folder is None
    assert json.loads(read.text)["job"] == job
