"""Gradients that stay put: audit and harden the input gradients of PyTorch image classifiers."""

import importlib.util
import sys
import types
from typing import TYPE_CHECKING, Any

__version__ = "0.1.0"

if TYPE_CHECKING:
    from steadygrad.face import *  # noqa: F403


class _Package(types.ModuleType):
    """This package, whose names are loaded when they are asked for: help and version do without PyTorch."""

    def __getattr__(self, name: str) -> Any:
        if not name.startswith("_") and importlib.util.find_spec(f"{__name__}.{name}") is not None:
            return importlib.import_module(f"{__name__}.{name}")
        if not name.startswith("_") or name == "__all__":
            from steadygrad import face

            public = {name: value for name, value in vars(face).items() if not name.startswith("_")}
            if name in public:
                return public[name]
            if name == "__all__":
                return list(public)
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")

    def __dir__(self) -> list[str]:
        return [*self.__all__, *(name for name in super().__dir__() if name.startswith("_"))]

    @property
    def audit(self) -> Any:
        """The function. The room of the same name would be bound here whenever it is imported."""
        from steadygrad import face

        return face.audit

    @audit.setter
    def audit(self, room: types.ModuleType) -> None:
        pass


sys.modules[__name__].__class__ = _Package
