"""What libvirt calls at each phase of a guest: a quick look, and a full one where it is needed.

:mod:`~svirtlib.backends.hook.quick` is the program. It decides alone only that all is well;
whatever else it sees it hands to :mod:`~svirtlib.backends.hook.judge`, another process with
the whole library, which finds the words. Both never call libvirt, which waits for them.
"""
