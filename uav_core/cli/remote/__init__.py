"""Long videos on a running ComfyUI, over its HTTP interface. Needs aiohttp, as ComfyUI does."""

from .errors import MissingPackError, ServerError, ServerJobError, ServerUnreachableError
from .graph import WeightNames

__all__ = [
    "MissingPackError",
    "ServerError",
    "ServerJobError",
    "ServerUnreachableError",
    "WeightNames",
]
