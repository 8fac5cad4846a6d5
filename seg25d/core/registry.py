"""Tables of names whose objects are imported on first use, so that help texts can list them at no cost."""

from collections.abc import Iterator, Mapping
from importlib import import_module
from typing import Generic, TypeVar, cast

Value = TypeVar("Value")


class Registry(Mapping[str, Value], Generic[Value]):
    """Objects by name; the table says where each is.

    Args:
        places: Per name `module:object`. Names that are added to it later are known from then on.
    """

    def __init__(self, places: dict[str, str]) -> None:
        self.places = places

    def __getitem__(self, name: str) -> Value:
        """The object of a name.

        Raises:
            KeyError: If the table does not have it.
        """
        module, _, attribute = self.places[name].partition(":")
        return cast(Value, getattr(import_module(module), attribute))

    def __contains__(self, name: object) -> bool:
        return name in self.places

    def __iter__(self) -> Iterator[str]:
        return iter(self.places)

    def __len__(self) -> int:
        return len(self.places)
