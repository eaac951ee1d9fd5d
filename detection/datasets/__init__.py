"""Data sets of annotated images, as records: PASCAL VOC, COCO, and one that is drawn."""

from .names import add_split, get_imdb, split
from .record import BACKGROUND, Dataset, Problem, Record

__all__ = ["BACKGROUND", "Dataset", "Problem", "Record", "add_split", "get_imdb", "split"]
