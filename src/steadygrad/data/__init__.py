"""Data: digits, local folders and files, Hub data sets and arrays, all as one type."""

from steadygrad.data.arrays import from_arrays as from_arrays
from steadygrad.data.dataset import Dataset as Dataset
from steadygrad.data.loading import load as load
from steadygrad.data.names import DATASETS as DATASETS
from steadygrad.data.names import Source as Source

__all__ = ["DATASETS", "Dataset", "Source", "from_arrays", "load"]
