"""Upscales videos on a running ComfyUI, over its HTTP interface. Needs aiohttp, as ComfyUI does."""

from __future__ import annotations

from ...errors import UpscaleAVideoError


class ServerError(UpscaleAVideoError):
    """Base of all errors with a server; the message says what to do."""


class ServerUnreachableError(ServerError):
    """Nothing answers at the address, or a server that is not ComfyUI."""


class MissingPackError(ServerError):
    """The server does not have this pack's nodes, or has an older pack."""


class ServerJobError(ServerError):
    """The server refused the job, failed in a node, or was told to stop."""
