"""The text form of a manifest, written once and read strictly.

JSON with a checksum over all of it, so that damage is found wherever it falls. Names are plain,
numbers are in range, and nothing in it is ever run.
"""

from __future__ import annotations

import hashlib
import json
from typing import Any, NoReturn

from ..errors import InputError
from .checks import Check, RefusedError, exactly, fields, integer, list_of, record, refuse, text
from .errors import DamagedManifestError, UnsafePathError
from .files import DIGEST_BYTES
from .identity import FORMAT_VERSION, JobInputs, job_id
from .manifest import (
    FINISHED,
    MOST_FALLBACKS,
    MOST_NAME,
    MOST_STATES,
    UNFINISHED,
    Fallback,
    Manifest,
    OutputRecord,
    PartRecord,
    StateRecord,
)
from .names import STATE
from .paths import plain_name
from .plain import canonical
from .plan import MOST_FRAMES, MOST_PARTS, MOST_SCENES, JobPlan

MOST_TEXT = 64 << 20
"""Bytes of a manifest's text."""

MOST_BYTES = 2**62
MOST_SECONDS = 2**40


def manifest_text(manifest: Manifest) -> bytes:
    """The text form of a manifest; InputError if its values are not plain, or over 64 MiB."""
    plan = manifest.plan
    job = {
        "version": FORMAT_VERSION,
        "status": manifest.status,
        "id": manifest.id,
        "created": manifest.created,
        "updated": manifest.updated,
        "inputs": vars(manifest.inputs),
        "plan": {
            "frames": plan.frames,
            "part_length": plan.part_length,
            "scenes": [[scene.start, scene.stop] for scene in plan.scenes],
        },
        "parts": [vars(part) for part in manifest.parts],
        "states": [vars(state) for state in manifest.states],
        "fallbacks": [vars(fallback) for fallback in manifest.fallbacks],
        "output": manifest.output and _without_none(vars(manifest.output)),
    }
    body = canonical(job, "manifest")
    if len(body) > MOST_TEXT - 200:
        raise InputError(
            f"The manifest would have {len(body)} bytes, more than {MOST_TEXT}. Give less in the "
            "settings and the fingerprint."
        )
    return b'{"checksum":"%s","job":%s}\n' % (_checksum(body).encode(), body)


def parse_manifest(data: bytes, source: str) -> Manifest:
    """The manifest that ``manifest_text`` wrote. ``source`` names it in errors.

    Raises DamagedManifestError for all that is not exactly such a text.
    """
    try:
        whole = json.loads(
            data.decode("ascii"), object_pairs_hook=_no_repeats, parse_constant=_no_constants
        )
        whole = fields(whole, "the file", checksum=_digest, job=exactly(dict))
        job = whole["job"]
        version = exactly(int)(job.get("version"), "job.version")
        if version != FORMAT_VERSION:
            refuse(
                f"it has format {version} and this version reads {FORMAT_VERSION}: continue the "
                "job with the version that began it"
            )
        if _checksum(canonical(job)) != whole["checksum"]:
            refuse("its checksum does not fit its content")
        return _manifest(job)
    except (RefusedError, InputError, UnsafePathError, ValueError, RecursionError) as error:
        raise DamagedManifestError(
            f"{source} cannot be used: {str(error).rstrip('.') or 'not a manifest'}. Delete its "
            "folder to start the job anew."
        ) from error


def _checksum(body: bytes) -> str:
    return hashlib.blake2b(body, digest_size=DIGEST_BYTES).hexdigest()


def _no_repeats(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
    found = dict(pairs)
    if len(found) != len(pairs):
        refuse("a key is there twice")
    return found


def _no_constants(name: str) -> NoReturn:
    refuse(f"{name} is no number")


_frame = integer(MOST_FRAMES)
_size = integer(MOST_BYTES)
_digest = text(f"[0-9a-f]{{{2 * DIGEST_BYTES}}}", "a checksum in hex")
_dict = exactly(dict)


def _shown_name(value: Any, where: str) -> str:
    if type(value) is not str or len(value) > MOST_NAME or not value.isprintable():
        refuse(f"{where} is {value!r:.60}, expected at most {MOST_NAME} printable characters")
    return value


def _file_name(value: Any, where: str) -> str:
    return plain_name(exactly(str)(value, where))


def _scene(value: Any, where: str) -> range:
    ends = list_of(_frame, 2)(value, where)
    if len(ends) != 2:
        refuse(f"{where} has {len(ends)} numbers, expected 2")
    return range(*ends)


def _or_none(check: Check) -> Check:
    return lambda value, where: None if value is None else check(value, where)


_inputs = record(JobInputs, fingerprint=_dict, settings=_dict, weights=_dict, name=_shown_name)
_plan = record(JobPlan, frames=_frame, part_length=_frame, scenes=list_of(_scene, MOST_SCENES))
_part = record(PartRecord, index=_frame, start=_frame, stop=_frame, bytes=_size, blake2b=_digest)
_state = record(
    StateRecord,
    file=text(STATE, "a name such as state_000001.bin"),
    bytes=_size,
    blake2b=_digest,
    scene=_frame,
    frames_done=_frame,
)
_fallback = record(Fallback, frame=_frame, setting=_dict)


def _inner_folder(value: Any, where: str) -> str:
    for name in exactly(str)(value, where).split("/") if value != "" else ():
        plain_name(name)
    return value


def _output(value: Any, where: str) -> OutputRecord:
    checks: dict[str, Check] = {"name": _file_name, "bytes": _size, "blake2b": _digest}
    if type(value) is dict and "folder" in value:
        checks["folder"] = _inner_folder
    return OutputRecord(**fields(value, where, **checks))


def _without_none(values: dict[str, Any]) -> dict[str, Any]:
    return {name: value for name, value in values.items() if value is not None}


def _manifest(job: dict[str, Any]) -> Manifest:
    values = fields(
        job,
        "job",
        version=exactly(int),
        status=text(f"{UNFINISHED}|{FINISHED}", "a status"),
        id=exactly(str),
        created=integer(MOST_SECONDS),
        updated=integer(MOST_SECONDS),
        inputs=_inputs,
        plan=_plan,
        parts=list_of(_part, MOST_PARTS),
        states=list_of(_state, MOST_STATES),
        fallbacks=list_of(_fallback, MOST_FALLBACKS),
        output=_or_none(_output),
    )
    del values["version"]
    status = values.pop("status")
    manifest = Manifest(**values)
    if manifest.id != job_id(manifest.inputs):
        refuse(f"the id {manifest.id!r:.60} does not belong to its inputs")
    if status != manifest.status:
        refuse(f"its status is {status}, with the output {manifest.output}")
    _check_parts(manifest)
    _check_states(manifest)
    for fallback in manifest.fallbacks:
        if fallback.frame > manifest.plan.frames:
            refuse(f"a fallback is at frame {fallback.frame} of {manifest.plan.frames}")
    return manifest


def _check_parts(manifest: Manifest) -> None:
    plan, last = manifest.plan, -1
    for part in manifest.parts:
        if not last < part.index < plan.parts:
            refuse(f"part {part.index} comes after part {last} of {plan.parts}")
        if range(part.start, part.stop) != plan.part(part.index):
            refuse(f"part {part.index} has frames {part.start} to {part.stop}, not the plan's")
        last = part.index


def _check_states(manifest: Manifest) -> None:
    scenes = manifest.plan.scenes
    if len({state.file for state in manifest.states}) != len(manifest.states):
        refuse("two states share one file")
    for state in manifest.states:
        if state.scene >= len(scenes):
            refuse(f"a state is of scene {state.scene} of {len(scenes)}")
        scene = scenes[state.scene]
        if not scene.start <= state.frames_done <= scene.stop:
            refuse(f"a state is at frame {state.frames_done}, outside its scene {scene}")
