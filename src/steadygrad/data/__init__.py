"""Data: digits, local folders and files, Hub data sets and arrays, all as one type."""

from steadygrad.data.arrays import from_arrays as from_arrays
from steadygrad.data.by_name import load as load
from steadygrad.data.dataset import Dataset as Dataset
from steadygrad.data.python_data import dataset_of as dataset_of
from steadygrad.named_data import DATASETS as DATASETS
from steadygrad.named_data import Source as Source
