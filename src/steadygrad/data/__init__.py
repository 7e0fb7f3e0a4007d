"""Data: digits, local folders and files, Hub data sets and arrays, all as one type."""

from steadygrad.data.arrays import from_arrays as from_arrays
from steadygrad.data.dataset import Dataset as Dataset
from steadygrad.data.loading import DATASETS as DATASETS
from steadygrad.data.loading import Source as Source
from steadygrad.data.loading import load as load
