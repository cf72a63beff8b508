"""Takes events that differ from one before in nothing but their text by their bytes: what both chat lanes have in common.

What a stranger would get wrong: `passes` must leave no trace of a piece that it refuses, since that piece is fed next.
"""

from adapters.base import JSON, Call
from adapters.openai_lane.pass_stream import PassStream
from adapters.openai_lane.runs import Run, Shape, shape_of
from adapters.openai_lane.thoughts import Thoughts

LEARN_MAX = 8  # shapes that were learned in vain, one behind another, before that is given up


class ShapedStream(PassStream):
    """As `PassStream`; a dialect calls `_learn_shape` for events that it passed on unchanged, and `_skim` before it looks."""

    def __init__(self, call: Call, thoughts: Thoughts | None = None) -> None:
        super().__init__(call, thoughts)
        self._shape: Shape | None = None
        self._run: Run | None = None
        self._learn_left = LEARN_MAX

    @property
    def untaken(self) -> int | None:
        kept = self._kept
        if not kept:
            return 0
        return self._run.size if self._run is not None and len(kept) == 1 and kept[0] is self._run else None

    def passes(self, piece: bytes, untaken_max: int) -> int:
        kept, run = self._kept, self._run
        if run is None or self.finished or self._frames.rest:
            return 0
        if kept:
            alike = kept[0] is run and len(kept) == 1 and run.take_all(piece, untaken_max)
            return run.size if alike else 0
        run = Run(run.shape)
        if not run.take_all(piece, untaken_max):
            return 0
        self._run = run
        kept.append(run)
        return run.size

    def _skim(self, block: bytes) -> int:
        """Take the events at the start that are like one before but for their text; return where the first other begins."""
        if self._shape is None:
            return 0
        run = self._run
        if run is None or run.shape is not self._shape or not self._kept or self._kept[-1] is not run:
            run = Run(self._shape)
        at = run.take_in(block, 0)
        if at:
            self._learn_left = LEARN_MAX
            if run is not self._run or not self._kept or self._kept[-1] is not run:
                self._run = run
                self._kept.append(run)
        return at

    def _learn_shape(self, event: bytes, chunk: JSON | None = None) -> None:
        """Know events like this one again; `chunk` is what it says, if that was read."""
        if self._learn_left:
            self._learn_left -= 1
            self._shape = shape_of(event, chunk) or self._shape
