"""Video files as streams of frames: read, encode in parts, join with the source's audio.

Memory does not grow with the length of the video.
"""

from .color import Color
from .errors import (
    BadPartError,
    EncodeError,
    EncodeParamsError,
    InputChangedError,
    UnreadableVideoError,
    VideoError,
)
from .fingerprint import Fingerprint, check_unchanged, fingerprint
from .reading.deinterlace import Deinterlace, check_deinterlace
from .reading.footage import Footage
from .reading.probe import VideoInfo, probe
from .reading.reader import VideoReader
from .reading.times import FrameTimes, frame_times
from .writing.choices import CODECS, EncodeParams, available_codecs
from .writing.contents import contents
from .writing.join import join
from .writing.parts import PartInfo, encode_part, part_info
