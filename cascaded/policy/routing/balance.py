"""One model in several places: which of them is asked next. Time and chance are handed in."""

from collections.abc import Callable, Sequence
from typing import Literal

import msgspec

from cascaded.types.model import Model
from cascaded.types.times import NS_PER_S

BUSY_REST_S = 5.0
"""How long a place rests whose limit is used up, where it does not say."""
DeploymentState = Literal["ready", "resting", "left_alone"]


class Load(msgspec.Struct):
    """What one place has to do with at the moment."""

    in_flight: int = 0
    rests_until_ns: int = 0
    """It has said that it takes no calls before that."""


class Balance:
    """The loads of every place, by its provider and the model's name there, whatever callers call
    the model."""

    def __init__(self) -> None:
        self._loads: dict[tuple[str, str], Load] = {}

    def load(self, place: Model) -> Load:
        """Of one place."""
        return self._loads.setdefault((place.provider, place.upstream_name), Load())

    def choose(
        self,
        places: Sequence[Model],
        is_well: Callable[[Model], bool],
        now_ns: int,
        chance: float,
    ) -> Model:
        """The one with the fewest calls under way for its weight; among equals `chance`, 0 to 1,
        decides by weight.

        Who rests or is not well is passed over; where all are, the one whose rest ends first.
        """
        well = [place for place in places if is_well(place)] or places
        ready = [place for place in well if self.load(place).rests_until_ns <= now_ns]
        if not ready:
            return min(well, key=lambda place: self.load(place).rests_until_ns)
        fewest = min(map(self._share, ready))
        equals = [place for place in ready if self._share(place) == fewest]
        point = chance * sum(place.weight for place in equals)
        for place in equals:
            point -= place.weight
            if point < 0:
                return place
        return equals[-1]

    def rest(self, place: Model, now_ns: int, seconds: float | None) -> None:
        """It has too much to do; for how long it says, or does not."""
        pause_s = BUSY_REST_S if seconds is None else seconds
        self.load(place).rests_until_ns = now_ns + int(pause_s * NS_PER_S)

    def state(self, place: Model, now_ns: int, *, well: bool) -> DeploymentState:
        """How it stands."""
        if not well:
            return "left_alone"
        return "resting" if self.load(place).rests_until_ns > now_ns else "ready"

    def _share(self, place: Model) -> float:
        return self.load(place).in_flight / place.weight
