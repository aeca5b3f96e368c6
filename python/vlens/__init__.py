"""vlens in Python: open lenses and caches, record a cache from any transformers model, read and evaluate.

>>> import vlens
>>> vlens.__version__.count(".")
2

Nothing is computed twice: what the C program does, libvlens does here. PyTorch, transformers and h5py are needed only
by the functions that use them (``Lens.to_torch``, ``record``), and are imported there."""
from vlens._native import VlensError, program
from vlens._native import library_version as _library_version
from vlens.cache import Cache
from vlens.evaluation import Evaluation, evaluate
from vlens.lens import Lens
from vlens.reading import Reading, read
from vlens.record import record

__version__ = _library_version()
__all__ = ["Cache", "Evaluation", "Lens", "Reading", "VlensError", "evaluate", "program", "read", "record"]
