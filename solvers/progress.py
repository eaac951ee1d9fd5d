"""A progress bar for training, shown only on a terminal."""

import contextlib
import sys


@contextlib.contextmanager
def progress_bar(solver, stream=None):
    """Show a bar on `stream` (stderr) while the context lasts, if that is a terminal.

    The bar counts up to max_iter and tells the averaged loss and the learning rate. To write log
    lines above it, a handler uses `tqdm.write`.
    """
    stream = stream or sys.stderr
    if not stream.isatty():
        yield
        return
    from tqdm import tqdm

    bar = tqdm(
        total=solver.param.max_iter, initial=solver.iter, file=stream, unit="iter",
        dynamic_ncols=True, leave=False,
    )  # fmt: skip

    def advance(solver):
        bar.set_postfix_str(f"loss={solver.smoothed_loss:.4g}, lr={solver.lr:.4g}", refresh=False)
        bar.update(solver.iter - bar.n)  # a restored solver jumps

    solver.on_progress.append(advance)
    try:
        yield
    finally:
        solver.on_progress.remove(advance)
        bar.refresh()
        bar.close()
