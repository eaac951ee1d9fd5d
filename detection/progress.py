"""How far a stage of training is: a bar on a terminal, a line now and then elsewhere."""

import sys
import time
from collections import deque

_SECONDS = 15  # between lines where there is no terminal


class Progress:
    """Shows stage, iteration, losses, learning rate, speed, time left, time waited for images.

    Args:
        stage: its name; total, initial: iterations altogether and done already.
        window: of how many iterations the losses shown are the mean.
        stream: where to; stderr by default.
    """

    def __init__(self, stage, total, initial=0, window=20, stream=None):
        self.stage, self.total = stage, total
        self._stream = stream or sys.stderr
        self._recent = deque(maxlen=max(1, window))
        self._first, self._begin = initial, time.perf_counter()
        self._last_line = self._begin
        self._bar = self._make_bar(initial) if self._stream.isatty() else None

    def _make_bar(self, initial):
        from tqdm import tqdm

        return tqdm(
            total=self.total, initial=initial, desc=self.stage, unit="it", file=self._stream,
            dynamic_ncols=True,
        )  # fmt: skip

    def update(self, iteration, losses, rate, waited):
        """After an iteration.

        Args:
            iteration: how many there have been; losses: {name: number}, the whole one as "loss".
            rate: the learning rate; waited: seconds waited for images so far.
        """
        self._recent.append(losses)
        text = f"{self._losses()}, lr {rate:.3g}, waited {waited:.1f} s"
        if self._bar is not None:
            self._bar.set_postfix_str(text, refresh=False)
            self._bar.update(iteration - self._bar.n)
        now = time.perf_counter()
        due = now - self._last_line >= _SECONDS or iteration == self.total
        if self._bar is None and due:
            self._last_line = now
            speed = (iteration - self._first) / max(now - self._begin, 1e-9)
            left = (self.total - iteration) / speed
            self._print(
                f"{self.stage}: {iteration}/{self.total}, {text}, {speed:.2f} it/s, "
                f"{clock(left)} left"
            )

    def _losses(self):
        means = {
            name: sum(values[name] for values in self._recent) / len(self._recent)
            for name in self._recent[-1]
        }
        parts = ", ".join(f"{k} {v:.3f}" for k, v in means.items() if k != "loss")
        return f"loss {means['loss']:.3f} ({parts})" if parts else f"loss {means['loss']:.3f}"

    def say(self, text):
        """Print a line without disturbing the bar."""
        if self._bar is None:
            self._print(text)
        else:
            self._bar.write(text, file=self._stream)

    def _print(self, text):
        print(text, file=self._stream, flush=True)

    def close(self):
        """Leave the bar as it is."""
        if self._bar is not None:
            self._bar.close()


def clock(seconds):
    """A duration as h:mm:ss."""
    minutes, seconds = divmod(round(seconds), 60)
    return f"{minutes // 60}:{minutes % 60:02d}:{seconds:02d}"
