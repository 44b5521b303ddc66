"""Data: where they come from, who holds which samples, and how they are kept on disk.

Importing this package registers every source (``DATASETS``) and every way to divide samples (``PARTITIONERS``).
"""

from . import cifar10, digits, folder, from_callable, mnist, partition_drawn, partition_stated, table, usps
from .dataset import DataError, Dataset
from .partition import PARTITIONERS, Partition
from .prepared import open_prepared, prepare, prepare_source, recall, remember, source_key
from .public import split_public
from .registry import DATASETS, Source, data_root
from .take import take

__all__ = [
    "DATASETS",
    "PARTITIONERS",
    "DataError",
    "Dataset",
    "Partition",
    "Source",
    "cifar10",
    "data_root",
    "digits",
    "folder",
    "from_callable",
    "mnist",
    "open_prepared",
    "partition_drawn",
    "partition_stated",
    "prepare",
    "prepare_source",
    "recall",
    "remember",
    "source_key",
    "split_public",
    "table",
    "take",
    "usps",
]
