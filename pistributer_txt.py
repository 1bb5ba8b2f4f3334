"""The `.txt` driver under the module name that release 0.2.0 gave it. See `pistributer.PistributerTxt`."""

from pistributer import PistributerTxt

__all__ = ["PistributerTxt"]
