"""Raising at a line of the program's own, whichever it is, as an interrupt could."""

from __future__ import annotations

import linecache
import re
import sys

# Python leaves such a block by a C function, before which no interrupt comes; to a tracer it is
# a line.
LOCKED = re.compile(r"\s*with (\w+\.)?_?(lock|LOCK|\w+_lock|swapping|patching):")


class Interrupt(KeyboardInterrupt):
    pass


class At:
    """Raises at the ``number``-th line of some files, counted from a function in ``begin`` on."""

    def __init__(self, files, number, begin=()):
        self.files, self.left, self.begin = files, number, begin
        self.armed = not begin
        self.where = None

    def __call__(self, frame, event, arg):
        code = frame.f_code
        if code.co_filename not in self.files:
            return None
        if code.co_name in self.begin:
            self.armed = True
        return self.line

    def line(self, frame, event, arg):
        if not self.armed or event != "line":
            return self.line
        text = linecache.getline(frame.f_code.co_filename, frame.f_lineno)
        if not LOCKED.match(text):
            self.left -= 1
            if not self.left:
                self.where = f"{frame.f_code.co_name}:{frame.f_lineno}"
                raise Interrupt
        return self.line

    def arm(self):
        """From now on, also in the functions that run already."""
        self.armed = True
        frame = sys._getframe(1)
        while frame is not None:
            if frame.f_code.co_filename in self.files:
                frame.f_trace = self.line
            frame = frame.f_back
        sys.settrace(self)

    def run(self, call, *, trace=True):
        """Whether the call was interrupted."""
        before = sys.gettrace()
        try:
            if trace:
                sys.settrace(self)
            call()
        except KeyboardInterrupt:
            return True
        finally:
            sys.settrace(before)
        return False
