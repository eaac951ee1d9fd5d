"""How far something is that takes long: a bar on a terminal, a line now and then elsewhere."""

import sys
import time
from collections import deque

_SECONDS = 15  # between lines where there is no terminal


class Display:
    """Shows how much of something is done, and a text about it.

    Args:
        name: what it is; total, initial: steps altogether and done already.
        unit: what a step is called. leave: whether the bar stays when it is closed.
        stream: where to; stderr by default.
    """

    def __init__(self, name, total, initial=0, unit="it", leave=True, stream=None):
        self.name, self.total, self.unit = name, total, unit
        self._stream = stream or sys.stderr
        self._first, self._begin = initial, time.perf_counter()
        self._last_line = self._begin
        self._bar = self._make_bar(leave) if self._stream.isatty() else None

    def _make_bar(self, leave):
        from tqdm import tqdm

        return tqdm(
            total=self.total, initial=self._first, desc=self.name, unit=self.unit,
            file=self._stream, dynamic_ncols=True, leave=leave,
        )  # fmt: skip

    def show(self, done, text, at_once=False):
        """After a step.

        Args: done: how many there have been; text: what to say of them; at_once: print a line
            even if there was one a moment ago.
        """
        if self._bar is not None:
            self._bar.set_postfix_str(text, refresh=False)
            self._bar.update(done - self._bar.n)
            return
        now = time.perf_counter()
        if not at_once and now - self._last_line < _SECONDS:
            return
        self._last_line = now
        speed = (done - self._first) / max(now - self._begin, 1e-9)
        left = (self.total - done) / speed
        self._print(
            f"{self.name}: {done}/{self.total}, {text}, {speed:.2f} {self.unit}/s, "
            f"{clock(left)} left"
        )

    def say(self, text):
        """Print a line without disturbing the bar."""
        if self._bar is None:
            self._print(text)
        else:
            self._bar.write(text, file=self._stream)

    def _print(self, text):
        print(text, file=self._stream, flush=True)

    def close(self):
        """The end: the bar is left as it is, or cleared."""
        if self._bar is not None:
            self._bar.close()


class Progress(Display):
    """Shows of a stage of training iteration, losses, learning rate, speed, time left, and time
    waited for images.

    Args:
        stage: its name; total, initial: iterations altogether and done already.
        window: of how many iterations the losses shown are the mean.
        stream: where to; stderr by default.
    """

    def __init__(self, stage, total, initial=0, window=20, stream=None):
        super().__init__(stage, total, initial, stream=stream)
        self._recent = deque(maxlen=max(1, window))

    def update(self, iteration, losses, rate, waited):
        """After an iteration.

        Args:
            iteration: how many there have been; losses: {name: number}, the whole one as "loss".
            rate: the learning rate; waited: seconds waited for images so far.
        """
        self._recent.append(losses)
        text = f"{self._losses()}, lr {rate:.3g}, waited {waited:.1f} s"
        self.show(iteration, text, at_once=iteration == self.total)

    def _losses(self):
        means = {
            name: sum(values[name] for values in self._recent) / len(self._recent)
            for name in self._recent[-1]
        }
        parts = ", ".join(f"{k} {v:.3f}" for k, v in means.items() if k != "loss")
        return f"loss {means['loss']:.3f} ({parts})" if parts else f"loss {means['loss']:.3f}"


def clock(seconds):
    """A duration as h:mm:ss."""
    minutes, seconds = divmod(round(seconds), 60)
    return f"{minutes // 60}:{minutes % 60:02d}:{seconds:02d}"
