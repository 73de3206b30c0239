"""C's allocator, told to keep what a step lets go of.

glibc hands the top of its heap back to the system whenever much of it is free: in training, in every step, once the way
back is done. The next step asks for the same again, and each page of it is cleared and mapped anew.

Where there is no such allocator nothing is changed. The peak of a process stays what it is; below it, it gives nothing
back, so that this is for processes that train and end.
"""

import ctypes

# Of glibc's malloc.h: names of the parameters of mallopt.
TRIM_THRESHOLD, MMAP_THRESHOLD = -1, -3
NEVER = -1
LARGEST = 2**25  # bytes; the most that glibc takes. What is larger has pages of its own, and gives them back


def keep_heap() -> bool:
    """Whether it is kept from now on."""
    mallopt = getattr(ctypes.CDLL(None), "mallopt", None)
    return mallopt is not None and all(mallopt(*one) for one in ((MMAP_THRESHOLD, LARGEST), (TRIM_THRESHOLD, NEVER)))
