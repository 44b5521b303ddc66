"""Faults of where a run is written: a full disk, a quota, a folder that may not be written to."""

from __future__ import annotations

import errno
import os
import re

FAULTS = (
    errno.ENOSPC, errno.EDQUOT, errno.EFBIG, errno.EROFS, errno.EACCES, errno.EPERM, errno.EIO, errno.ENOTDIR,
    errno.ENAMETOOLONG,
)  # fmt: skip
"""What a system says that will not take what is written."""
_SHORT = re.compile(r"\d+ requested and \d+ written")
"""What NumPy says, without a number, when a disk takes a part of an array."""
_CODE = re.compile(r"\(os error (\d+)\)")


def storage_fault(error: BaseException) -> str | None:
    """Return in the system's words why something could not be written, and where if it says so; None if not that."""
    said: BaseException | None = error
    while said is not None:
        code = said.errno if isinstance(said, OSError) else None
        if code is None and (found := _CODE.search(str(said))):  # safetensors and Arrow say it in their own classes
            code = int(found[1])
        if code is None and _SHORT.search(str(said)):
            code = errno.ENOSPC
        if code in FAULTS:
            name = said.filename if isinstance(said, OSError) else None
            return os.strerror(code) + (f": {name}" if name else "")
        said = said.__cause__ or said.__context__
    return None
