"""In the place of the safetensors library: the same names, with veturboio's engine beneath.

    >>> from veturboio.safetensors import safe_open
    >>> from veturboio.safetensors.torch import load_file, save_file

What its releases 0.8 and 0.9 do, for PyTorch's tensors and NumPy's arrays. The functions say in what they differ.
"""

from veturboio.safetensors._errors import SafetensorError
from veturboio.safetensors._open import PySafeSlice, TensorMeta, safe_open
from veturboio.safetensors._prefetch import PrefetchLoader
from veturboio.safetensors._serialize import TensorSpec, deserialize, serialize, serialize_file

#: The newest release of safetensors of which this does what it does.
__version__ = "0.9.0"

__all__ = [
    "PrefetchLoader",
    "PySafeSlice",
    "SafetensorError",
    "TensorMeta",
    "TensorSpec",
    "__version__",
    "deserialize",
    "safe_open",
    "serialize",
    "serialize_file",
]
